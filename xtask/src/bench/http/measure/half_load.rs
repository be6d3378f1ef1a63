//! How long answers take at a rate that every program can well sustain.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Given, Sample, probe};
use crate::bench::http::cases::Entry;
use crate::bench::http::paced::{self, Plan};
use crate::bench::http::peers::Program;
use crate::bench::http::process::{self, LOAD_CORE, PROXY_CORE, Running};
use crate::bench::http::results::Results;

const CONNECTIONS: usize = 64;
/// A quantile of the slow needs more answers than a mean.
const LONGER: f64 = 2.0;
/// Below this part of the rate a program is past what it can do, and its queue grows without end.
const KEPT_UP: f64 = 0.97;

/// Half of what the slower of gateway and nginx does: from the case `plain` of this run, or from a short look now.
pub fn half(entries: &[Entry], results: &Results, given: &Given<'_>) -> Result<f64> {
    let plain = results.cases.iter().find(|case| case.id == "plain");
    let mut least = f64::INFINITY;
    for entry in entries {
        if !matches!(entry.program, Program::Gateway | Program::Nginx) {
            continue;
        }
        let known = plain
            .and_then(|case| case.row(entry.name))
            .map(|row| row.value(1));
        let rate = match known.filter(|rate| rate.is_finite()) {
            Some(rate) => rate,
            None => {
                let load = crate::bench::http::h2load::Load::PLAIN;
                match super::closed::sample(entry, &load, given)? {
                    Sample::Values(values) => *values.get(1).context("a sample without a rate")?,
                    Sample::Skipped(why) => bail!("{}: {why}", entry.name),
                }
            }
        };
        least = least.min(rate);
    }
    ensure!(least.is_finite(), "neither the gateway nor nginx can be measured");
    Ok((least / 2.0).round())
}

pub fn sample(entry: &Entry, given: &Given<'_>) -> Result<Sample> {
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    probe(&peer, entry, given)?;
    let plan = |seconds| Plan {
        address: peer.address,
        path: "/".to_owned(),
        rate: given.rate,
        connections: CONNECTIONS,
        length: Duration::from_secs_f64(seconds),
        body: 128,
    };
    // On a thread of its own, which alone is pinned.
    let run = |seconds| -> Result<paced::Outcome> {
        let plan = plan(seconds);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| paced::run(&plan, &AtomicBool::new(false)));
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("the load generator panicked"))?
        })
    };
    run(0.5)?;
    let seconds = given.seconds * LONGER;
    let (before, busy) = (running.processor_time()?, process::busy(LOAD_CORE)?);
    let outcome = run(seconds)?;
    let spent = running.processor_time()?.saturating_sub(before);
    let busy = process::busy(LOAD_CORE)?.saturating_sub(busy);
    if let Some(first) = &outcome.first_wrong {
        bail!(
            "{}: {} answers were wrong; the first: {first}",
            peer.name,
            outcome.wrong
        );
    }
    let answered = outcome.answered() as f64;
    let rate = answered / seconds;
    if rate < given.rate * KEPT_UP {
        return Ok(Sample::Skipped(format!(
            "it can not keep up: {rate:.0} of {:.0} requests a second were answered",
            given.rate
        )));
    }
    Ok(Sample::Values(vec![
        outcome.quantile(0.99),
        outcome.quantile(0.5),
        outcome.quantile(0.999),
        rate,
        spent.as_secs_f64() * 1e6 / answered,
        busy.as_secs_f64() / seconds * 100.0,
    ]))
}
