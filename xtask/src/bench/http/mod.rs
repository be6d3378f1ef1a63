//! `bench http`: the gateway beside its peers, on this machine, in one run.
//!
//! A figure of one machine means little, a ratio between two programs under the same load on the same core means more:
//! that is what is printed. Owns the rig; `peers` owns how each program is configured for it.

mod peers;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::report;
use crate::build;
use crate::setup::{self, Purpose};
use crate::shell;
use peers::Peer;

/// The core of the measured proxy.
const PROXY_CORE: &str = "0";
/// The core of the load generator and the upstream.
const LOAD_CORE: &str = "1";
const START_WITHIN: Duration = Duration::from_secs(10);

/// A run of at least these goes into docs/benchmarks.md.
const SECONDS: u32 = 10;
const ROUNDS: u32 = 3;
const METHOD: &str = "\
Plain HTTP/1.1 on one core, a 128-byte JSON answer, kept connections on both sides. Processor time of the proxy, user and
system, for each request; medians. The load generator and the upstream have the other core.";

/// Arguments of `bench http`.
#[derive(clap::Args)]
pub struct Args {
    /// Length of one measurement.
    #[arg(long, default_value_t = SECONDS, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Measurements of each program, taken in turn; the median counts.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Connections that are open at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4000))]
    connections: u32,
}

/// Measures.
pub fn main(http: &Args) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cores >= 2,
        "one core for the proxy and one for the load are needed; there is {cores}"
    );
    setup::ensure(&[Purpose::Build, Purpose::Bench])?;
    let gateway = build::gateway(true)?;
    let dir = shell::target()?.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let _upstream = Running::start(&peers::upstream(&dir)?, LOAD_CORE)?;
    let peers = peers::all(&dir, &gateway)?;
    let mut results: Vec<Vec<Sample>> = peers.iter().map(|_| Vec::new()).collect();
    for round in 1..=http.rounds {
        for (peer, samples) in peers.iter().zip(&mut results) {
            shell::step(format!("round {round} of {}: {}", http.rounds, peer.name));
            samples.push(measure(peer, http)?);
        }
    }
    let Some(table) = table(&peers, &mut results) else {
        return Ok(());
    };
    println!("\n{table}\n{METHOD}");
    if http.seconds >= SECONDS && http.rounds >= ROUNDS {
        report::http(&table, METHOD)?;
    }
    Ok(())
}

/// One measurement of one proxy.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Processor time of the proxy for one request, in microseconds.
    micros: f64,
    /// Requests answered in a second.
    rate: f64,
}

fn measure(peer: &Peer, http: &Args) -> Result<Sample> {
    let running = Running::start(peer, PROXY_CORE)?;
    // Pools, caches and branch predictors fill before anything counts.
    load(peer, 1, http.connections)?;
    let before = running.processor_time()?;
    let requests = load(peer, http.seconds, http.connections)?;
    let spent = running.processor_time()?.saturating_sub(before);
    ensure!(
        !spent.is_zero(),
        "{} used no processor time: it is not the process that serves",
        peer.name
    );
    Ok(Sample {
        micros: spent.as_secs_f64() * 1e6 / requests,
        rate: requests / f64::from(http.seconds),
    })
}

/// Puts load on a proxy; returns how many requests were answered well. Any other answer is an error.
fn load(peer: &Peer, seconds: u32, connections: u32) -> Result<f64> {
    let url = format!("http://{}/", peer.address);
    let mut command = shell::command("taskset");
    command.args([
        "-c",
        LOAD_CORE,
        "h2load",
        "--h1",
        "-t",
        "1",
        "-c",
        &connections.to_string(),
    ]);
    command.args(["-D", &seconds.to_string(), &url]);
    let said = shell::output(&mut command)?;
    let counts = counts(&said).with_context(|| format!("reading what h2load said:\n{said}"))?;
    ensure!(
        counts.failed == 0.0 && counts.succeeded > 0.0,
        "{}: not every answer was good:\n{said}",
        peer.name
    );
    Ok(counts.succeeded)
}

struct Counts {
    succeeded: f64,
    failed: f64,
}

/// From the lines `requests: ... 10 succeeded, 0 failed, ...` and `status codes: 10 2xx, 0 3xx, 0 4xx, 0 5xx`.
fn counts(said: &str) -> Option<Counts> {
    let number = |line: &str, what: &str| -> Option<f64> {
        let line = said.lines().find_map(|l| l.strip_prefix(line))?;
        line.split(',')
            .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    let failed = number("requests:", "failed")? + number("requests:", "errored")?;
    let bad =
        number("status codes:", "4xx")? + number("status codes:", "5xx")? + number("status codes:", "3xx")?;
    Some(Counts {
        succeeded: number("requests:", "succeeded")?,
        failed: failed + bad,
    })
}

/// A program that runs until this is dropped.
struct Running {
    child: Child,
    name: &'static str,
}

impl Running {
    fn start(peer: &Peer, core: &str) -> Result<Self> {
        if std::net::TcpStream::connect(peer.address).is_ok() {
            bail!(
                "{} is taken: another program would be measured instead of {}",
                peer.address,
                peer.name
            );
        }
        let log = fs::File::create(&peer.log).with_context(|| format!("making {}", peer.log.display()))?;
        let mut command: Command = shell::command("taskset");
        command
            .args(["-c", core])
            .args(&peer.command)
            .stdin(Stdio::null());
        command
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", peer.name))?;
        let mut running = Self {
            child,
            name: peer.name,
        };
        let start = Instant::now();
        while std::net::TcpStream::connect(peer.address).is_err() {
            let ended = running
                .child
                .try_wait()
                .context("looking after a program")?
                .is_some();
            if ended || start.elapsed() > START_WITHIN {
                let said = fs::read_to_string(&peer.log).unwrap_or_default();
                bail!(
                    "{} does not listen on {}; it said:\n{said}",
                    peer.name,
                    peer.address
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    /// User and system time of every thread so far.
    fn processor_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(Path::new(&path))
            .with_context(|| format!("reading {path} of {}", self.name))?;
        let ticks = ticks(&stat).with_context(|| format!("{path} has an unknown form"))?;
        let second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / second as f64))
    }
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)); the name in field 2 may hold anything, so counting starts after it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As Markdown, which reads well on a terminal, too.
fn table(peers: &[Peer], results: &mut [Vec<Sample>]) -> Option<String> {
    let medians: Vec<Sample> = results.iter_mut().filter_map(|samples| median(samples)).collect();
    let (first, name) = (medians.first()?, peers.first()?.name);
    let mut table = format!(
        "| {:<10} | {:>12} | {:>14} | {:>10} |\n|{:-<12}|{:->13}:|{:->15}:|{:->11}:|\n",
        "",
        "µs a request",
        format!("ratio to {name}"),
        "requests/s",
        "",
        "",
        "",
        ""
    );
    for (peer, sample) in peers.iter().zip(&medians) {
        let _ = writeln!(
            table,
            "| {:<10} | {:>12.2} | {:>14.2} | {:>10.0} |",
            peer.name,
            sample.micros,
            sample.micros / first.micros,
            sample.rate
        );
    }
    Some(table)
}

fn median(samples: &mut [Sample]) -> Option<Sample> {
    samples.sort_by(|a, b| a.micros.total_cmp(&b.micros));
    samples.get(samples.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_processor_time_past_an_odd_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks(stat), Some(150));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn any_bad_answer_counts_as_failed() {
        let said = |requests: &str, codes: &str| {
            format!("x\nrequests: {requests}\nstatus codes: {codes}\ntraffic: 1\n")
        };
        let good = "9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout";
        let read = counts(&said(good, "9 2xx, 0 3xx, 0 4xx, 0 5xx")).expect("the known form");
        assert_eq!((read.succeeded, read.failed), (9.0, 0.0));
        let read = counts(&said(good, "7 2xx, 0 3xx, 2 4xx, 0 5xx")).expect("the known form");
        assert_eq!(read.failed, 2.0);
        assert!(counts("something else").is_none());
    }
}
