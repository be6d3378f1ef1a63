//! `bench packets`: how many packets a second the gateway's kernel program and its peers deal with, under the same load
//! on the same core.
//!
//! The work is done in two halves. This one builds, starts the other one in mount and network namespaces of its own,
//! and reports. `inside` measures: `rig` is the network, `traffic` and `sender` the load, `tools` the programs under
//! test, `cases` what is compared; `runs` and `loading` measure without load. Since all that the inner half makes lives
//! in its own namespaces, nothing of it is left when it ends, and it ends when this half does.

mod cases;
mod cookies;
pub mod inside;
mod insn;
mod loading;
pub mod results;
mod rig;
mod runs;
mod sender;
mod sys;
mod tools;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use super::report;
use crate::build;
use crate::privilege::Privilege;
use crate::setup::{self, Purpose};
use crate::shell;
use results::Results;

/// Arguments of `bench packets`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    plan: Plan,
    /// Write the figures here, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Plan {
    /// A look in passing: short rounds, and docs/benchmarks.md stays as it is.
    #[arg(long)]
    quick: bool,
    /// Only this part; may be given more than once, and leaves docs/benchmarks.md as it is.
    #[arg(long, value_name = "PART", value_parser = parts())]
    only: Vec<String>,
}

fn parts() -> clap::builder::PossibleValuesParser {
    let cases = cases::ALL.iter().map(|case| case.id);
    cases
        .chain([runs::ID, cookies::ID, loading::ID])
        .collect::<Vec<_>>()
        .into()
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    fn seconds(&self) -> f64 {
        if self.quick { 0.3 } else { 1.0 }
    }

    fn rounds(&self) -> u32 {
        if self.quick { 3 } else { 5 }
    }

    fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty()
    }

    /// As they were typed.
    fn arguments(&self) -> Vec<String> {
        let quick = self.quick.then(|| "--quick".to_owned());
        let only = self.only.iter().map(|part| format!("--only={part}"));
        quick.into_iter().chain(only).collect()
    }
}

/// Measures and reports.
pub fn main(args: &Args) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cores >= 2,
        "one core for the load and one for the rest are needed; there is {cores}"
    );
    let privilege = Privilege::obtain().context("the measurement attaches programs and makes namespaces")?;
    setup::ensure(&[Purpose::Build, Purpose::Privileged, Purpose::Bench])?;
    let gateway = build::gateway(true)?;
    let bench = shell::target()?.join("bench");
    std::fs::create_dir_all(&bench).with_context(|| format!("making {}", bench.display()))?;
    let dir = bench.join("packets");
    let results = measure(&args.plan, privilege, &gateway, &dir)?;
    report::terminal::print(&results);
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&results).context("the figures as JSON")?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    if args.plan.is_whole() {
        report::packets(&results)?;
    }
    if let Some(cookies) = results.cookies.as_ref().filter(|cookies| !cookies.met()) {
        bail!("{}", cookies.sentence());
    }
    Ok(())
}

/// Starts the other half and takes its results. It reads its standard input to learn when this half has ended.
fn measure(plan: &Plan, privilege: Privilege, gateway: &Path, dir: &Path) -> Result<Results> {
    let this = std::env::current_exe().context("finding this program's own path")?;
    let unshare = shell::find("unshare").context("unshare is not on PATH")?;
    let mut command = privilege.command(&unshare);
    command.args(["--mount", "--net", "--"]).arg(this);
    command.args(["bench", "packets-inside"]).args(plan.arguments());
    command.arg("--gateway").arg(gateway).arg("--dir").arg(dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("starting the measurement")?;
    let open = child.stdin.take();
    let output = child.wait_with_output().context("waiting for the measurement")?;
    drop(open);
    if !output.status.success() {
        bail!(
            "the measurement ended with {}; what it said stands above",
            output.status
        );
    }
    serde_json::from_slice(&output.stdout).context("reading the results")
}
