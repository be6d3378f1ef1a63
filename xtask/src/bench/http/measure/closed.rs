//! As many requests as go: processor time of the proxy for each.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Given, Sample, probe};
use crate::bench::http::cases::Entry;
use crate::bench::http::h2load::{self, Load, Until};
use crate::bench::http::process::{self, PROXY_CORE, Running};

/// The share of the proxy's core that others may have before it is told.
const DISTURBED: f64 = 0.1;
const WARM_UP: f64 = 0.5;
/// New connections are counted by number: h2load can not do them by time. About what a core of load does in a second.
const HANDSHAKES: f64 = 2_000.0;

pub fn sample(entry: &Entry, load: &Load, given: &Given<'_>) -> Result<Sample> {
    let mut load = *load;
    load.path = entry.path;
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    probe(&peer, entry, given)?;
    let until = |seconds: f64| {
        if load.close {
            Until::Requests((seconds * HANDSHAKES) as u64)
        } else {
            Until::Seconds(seconds)
        }
    };
    let run = |seconds: f64| h2load::run(&peer, &entry.setup, &load, until(seconds), given.files.dir);
    // Pools, caches and branch predictors fill before anything counts.
    run(WARM_UP)?;
    let (before, busy, begin) = (
        running.processor_time()?,
        process::busy(PROXY_CORE)?,
        Instant::now(),
    );
    let requests = run(given.seconds)?;
    let took = begin.elapsed();
    let spent = running.processor_time()?.saturating_sub(before);
    let busy = process::busy(PROXY_CORE)?.saturating_sub(busy);
    let others = busy.saturating_sub(spent).as_secs_f64() / took.as_secs_f64();
    if others > DISTURBED {
        eprintln!(
            "    others, the kernel's own threads among them, took {:.0} % of the proxy's core meanwhile",
            others * 100.0
        );
    }
    ensure!(
        !spent.is_zero(),
        "{} used no processor time: it is not the process that serves",
        peer.name
    );
    let rate = match until(given.seconds) {
        Until::Seconds(seconds) => requests / seconds,
        Until::Requests(_) => requests / took.as_secs_f64(),
    };
    Ok(Sample::Values(vec![
        spent.as_secs_f64() * 1e6 / requests,
        rate,
        running.resident()? / f64::from(1 << 20),
        busy.as_secs_f64() * 1e6 / requests,
    ]))
}
