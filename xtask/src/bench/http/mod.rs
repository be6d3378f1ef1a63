//! `bench http`: the gateway beside its peers, on this machine, in one run.
//!
//! A figure of one machine means little, a ratio between two programs under the same load on the same core means more.
//! `cases` says what is compared, `peers` how each program is configured for it, `measure` how a sample is taken, `process`
//! watches a program, `h2load` and `paced` make the load, `results` is what came of it.

mod cases;
mod h2load;
mod measure;
mod paced;
mod peers;
mod process;
pub mod results;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit};

use super::report;
use crate::build;
use crate::setup::{self, Purpose};
use crate::shell;
use cases::{Case, Entry, Kind};
use measure::{Given, Sample};
use peers::Files;
use process::{LOAD_CORE, Running};
use results::{CaseResult, Column, Results, Row, TargetResult};

/// 10,000 clients and as many connections to the upstream, and the files of both.
const DESCRIPTORS: u64 = 32_768;

/// Arguments of `bench http`.
#[derive(clap::Args)]
pub struct Args {
    /// A look in passing: short measurements, fewer connections and reloads; docs/benchmarks.md stays as it is.
    #[arg(long)]
    quick: bool,
    /// Only this case; may be given more than once, and leaves docs/benchmarks.md as it is.
    #[arg(long = "case", value_name = "NAME", value_parser = names())]
    only: Vec<String>,
    /// Length of one measurement, in seconds; default 2, with --quick 1. Given, docs/benchmarks.md stays as it is.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// Measurements of each program, taken in turn; default 3. Given, docs/benchmarks.md stays as it is.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Write the figures here, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure nothing; print the figures that --json kept of an earlier run, and put them into docs/benchmarks.md.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "seconds", "rounds", "json", "gateway"])]
    report: Option<PathBuf>,
    /// Measure this binary instead of building one; docs/benchmarks.md stays as it is.
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
}

fn names() -> clap::builder::PossibleValuesParser {
    cases::all().iter().map(|case| case.id).collect::<Vec<_>>().into()
}

impl Args {
    fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == case)
    }

    fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 2 })
    }

    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(3)
    }

    /// Whether it goes into the document.
    fn is_whole(&self) -> bool {
        let usual = self.seconds.is_none() && self.rounds.is_none() && self.gateway.is_none();
        !self.quick && self.only.is_empty() && usual
    }
}

/// Measures and reports.
pub fn main(args: &Args) -> Result<()> {
    if let Some(file) = &args.report {
        return report_of(file);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cores >= 2,
        "one core for the proxy and one for the load are needed; there is {cores}"
    );
    setup::ensure(&[Purpose::Build, Purpose::Bench])?;
    raise_descriptors()?;
    let gateway = match &args.gateway {
        Some(binary) => std::fs::canonicalize(binary)
            .with_context(|| format!("finding the gateway {}", binary.display()))?,
        None => build::gateway(true)?,
    };
    let dir = shell::target()?.join("bench").join("http");
    let files = Files::make(&dir, &gateway)?;
    let _upstream = Running::start(&files.upstream()?, LOAD_CORE)?;
    let mut given = Given {
        files: &files,
        seconds: f64::from(args.seconds()),
        quick: args.quick,
        rate: 0.0,
    };
    let mut results = Results {
        rounds: args.rounds(),
        seconds: given.seconds,
        cases: Vec::new(),
    };
    for case in cases::all().iter().filter(|case| args.wants(case.id)) {
        let result = measure(case, &mut given, &results)?;
        report::requests_case(&result);
        results.cases.push(result);
    }
    report::requests_summary(&results);
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&results).context("the figures as JSON")?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    refuse_failures(&results)?;
    if args.is_whole() {
        report::requests(&results)?;
    }
    Ok(())
}

/// Reports a run that was kept.
fn report_of(file: &std::path::Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let results: Results = serde_json::from_str(&text)
        .with_context(|| format!("{} was not written by `bench http --json`", file.display()))?;
    for case in &results.cases {
        report::requests_case(case);
    }
    report::requests_summary(&results);
    refuse_failures(&results)?;
    report::requests(&results)
}

fn refuse_failures(results: &Results) -> Result<()> {
    let failed: Vec<String> = results
        .cases
        .iter()
        .flat_map(|case| case.failed.iter().map(|why| format!("{}: {why}", case.id)))
        .collect();
    if !failed.is_empty() {
        bail!(
            "the figures are not good, since not every answer was:\n{}",
            failed.join("\n")
        );
    }
    Ok(())
}

/// All rounds of a case. A program that fails is out of it, the others go on.
fn measure(case: &Case, given: &mut Given<'_>, so_far: &Results) -> Result<CaseResult> {
    let columns = case.kind.columns().iter().map(|(name, digits)| Column {
        name: (*name).to_owned(),
        digits: *digits,
    });
    let mut result = CaseResult {
        id: case.id.to_owned(),
        title: case.title.to_owned(),
        what: case.what.to_owned(),
        columns: columns.collect(),
        rows: Vec::new(),
        targets: Vec::new(),
        notes: measure::notes(case.kind, given),
        skipped: Vec::new(),
        failed: Vec::new(),
    };
    let mut left: Vec<&Entry> = Vec::new();
    for entry in &case.entries {
        if entry.program.is_here() {
            left.push(entry);
        } else {
            result
                .skipped
                .push(format!("{} is not on this machine", entry.name));
        }
    }
    if matches!(case.kind, Kind::HalfLoad) {
        given.rate = measure::half(&case.entries, so_far, given)?;
        result.notes.push(format!("{:.0} requests a second", given.rate));
    }
    let rounds = if case.kind.takes_rounds() {
        so_far.rounds
    } else {
        1
    };
    let mut rows: Vec<Row> = left
        .iter()
        .map(|entry| Row {
            program: entry.name.to_owned(),
            rounds: Vec::new(),
        })
        .collect();
    for round in 1..=rounds {
        for (entry, row) in left.iter().zip(&mut rows) {
            // Out of it since an earlier round.
            if row.rounds.len() + 1 < round as usize {
                continue;
            }
            shell::step(format!("{}: {}, round {round} of {rounds}", case.id, entry.name));
            match measure::sample(case.kind, entry, given) {
                Ok(Sample::Values(values)) => row.rounds.push(values),
                Ok(Sample::Skipped(why)) => result.skipped.push(format!("{}: {why}", entry.name)),
                Err(error) => {
                    eprintln!("    FAILED: {error:#}");
                    result.failed.push(format!("{}: {error:#}", entry.name));
                }
            }
        }
    }
    rows.retain(|row| row.rounds.len() == rounds as usize);
    result.rows = rows;
    result.targets = targets(case, &result);
    Ok(result)
}

/// What was aimed at and could be compared. An aim whose row is not there is not met in silence: the row is among those
/// skipped or failed.
fn targets(case: &Case, result: &CaseResult) -> Vec<TargetResult> {
    let Some(ours) = result.row("gateway") else {
        return Vec::new();
    };
    let targets = case.targets.iter().filter_map(|target| {
        let value = match target.than {
            Some(than) => ours.ratio(result.row(than)?, target.column),
            None => ours.value(target.column),
        };
        Some(TargetResult {
            what: result.columns.get(target.column)?.name.clone(),
            than: target.than.map(str::to_owned),
            value,
            at_most: target.at_most,
            met: value <= target.at_most,
        })
    });
    targets.collect()
}

/// For this process and those that it starts.
fn raise_descriptors() -> Result<()> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= DESCRIPTORS) {
        return Ok(());
    }
    let hard = now
        .maximum
        .map_or(DESCRIPTORS, |maximum| maximum.max(DESCRIPTORS));
    let raised = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(hard),
    };
    if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    // Only root may raise the hard limit; what it allows may do.
    let all = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, all).context("raising the limit of file descriptors")
}
