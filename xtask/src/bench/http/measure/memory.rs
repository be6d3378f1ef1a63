//! Resident memory: of a program that idles, with many routes, and what an idle connection adds.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Given, Sample, probe};
use crate::bench::http::cases::Entry;
use crate::bench::http::h2load::{self, Load, Until};
use crate::bench::http::process::{PROXY_CORE, Running};

/// What starts late is there by then.
const SETTLE: Duration = Duration::from_millis(500);
/// Connections are opened in turns of these, so that no queue of a listener overflows and no deadline passes.
const AT_ONCE: u32 = 1_000;
const OPEN_WITHIN: Duration = Duration::from_secs(30);
const MIB: f64 = (1 << 20) as f64;

pub fn resident(entry: &Entry, given: &Given<'_>) -> Result<Sample> {
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    probe(&peer, entry, given)?;
    std::thread::sleep(SETTLE);
    let idle = running.resident()?;
    h2load::run(
        &peer,
        &entry.setup,
        &Load::PLAIN,
        Until::Seconds(1.0),
        given.files.dir,
    )?;
    std::thread::sleep(SETTLE);
    Ok(Sample::Values(vec![idle / MIB, running.resident()? / MIB]))
}

pub fn routes(entry: &Entry, given: &Given<'_>) -> Result<Sample> {
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let begin = Instant::now();
    let running = Running::start(&peer, PROXY_CORE)?;
    let took = begin.elapsed();
    probe(&peer, entry, given)?;
    std::thread::sleep(SETTLE);
    Ok(Sample::Values(vec![
        running.resident()? / MIB,
        took.as_secs_f64() * 1e3,
    ]))
}

pub fn idle_connections(entry: &Entry, count: u32, given: &Given<'_>) -> Result<Sample> {
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    probe(&peer, entry, given)?;
    std::thread::sleep(SETTLE);
    let before = running.resident()?;
    let mut clients = Clients::default();
    let mut open = 0;
    while open < count {
        let more = AT_ONCE.min(count - open);
        clients.0.push(h2load::idle(&peer, &entry.setup, more)?);
        open += more;
        let what = format!("{open} clients were to connect");
        running.await_connections(&what, OPEN_WITHIN, |now| now >= open as usize)?;
        // The last of them have their answer by then.
        std::thread::sleep(SETTLE);
    }
    std::thread::sleep(SETTLE);
    let after = running.resident()?;
    running.await_connections("none was to be closed", SETTLE, |now| now >= count as usize)?;
    probe(&peer, entry, given)?;
    Ok(Sample::Values(vec![
        (after - before) / 1024.0 / f64::from(count),
        after / MIB,
    ]))
}

/// Ended when dropped.
#[derive(Debug, Default)]
struct Clients(Vec<Child>);

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
