//! Reloads under load: how long until the new configuration answers, what breaks, what memory they leave behind.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use super::{Given, Sample, probe};
use crate::bench::http::cases::Entry;
use crate::bench::http::paced::{self, Plan};
use crate::bench::http::peers::{self, Peer};
use crate::bench::http::process::{PROXY_CORE, Running};

const RATE: f64 = 2_000.0;
const CONNECTIONS: usize = 32;
const PATH: &str = "/svc7/items/1";
/// Each is waited for at most so long.
const PATIENCE: Duration = Duration::from_secs(5);
const BETWEEN: Duration = Duration::from_millis(10);
const MIB: f64 = (1 << 20) as f64;

pub fn sample(entry: &Entry, reloads: u32, given: &Given<'_>) -> Result<Sample> {
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    probe(&peer, entry, given)?;
    let plan = Plan {
        address: peer.address,
        path: PATH.to_owned(),
        rate: RATE,
        connections: CONNECTIONS,
        length: PATIENCE * reloads,
        body: 128,
    };
    let stop = AtomicBool::new(false);
    let (series, outcome) = std::thread::scope(|scope| {
        let load = scope.spawn(|| paced::run(&plan, &stop));
        let series = series(entry, &peer, &running, reloads, given);
        stop.store(true, Ordering::Relaxed);
        (series, load.join())
    });
    let outcome = outcome.map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
    let mut series = series?;
    ensure!(outcome.answered() > 0, "no request was answered meanwhile");
    if let Some(first) = &outcome.first_wrong {
        eprintln!("    reload: {} wrong answers; the first: {first}", outcome.wrong);
    }
    series.live.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let last = series.live.len().saturating_sub(1) as f64;
        series
            .live
            .get((last * part).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    // The most of a quarter: from one reload to the next, resident memory goes up and down by a whole configuration.
    let quarter = series.resident.len().div_ceil(4);
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (first, last) = match (
        series.resident.chunks(quarter).next(),
        series.resident.rchunks(quarter).next(),
    ) {
        (Some(first), Some(last)) => (most(first), most(last)),
        _ => bail!("nothing was reloaded"),
    };
    Ok(Sample::Values(vec![
        at(0.5),
        at(0.99),
        at(1.0),
        outcome.wrong as f64,
        series.before / MIB,
        first / MIB,
        last / MIB,
        (last - first) / MIB,
    ]))
}

struct Series {
    /// Milliseconds of each.
    live: Vec<f64>,
    /// Bytes before the first.
    before: f64,
    /// Bytes after each.
    resident: Vec<f64>,
}

fn series(entry: &Entry, peer: &Peer, running: &Running, reloads: u32, given: &Given<'_>) -> Result<Series> {
    let id = i32::try_from(running.id()).ok().and_then(Pid::from_raw);
    let id = id.context("a process without a number")?;
    let mut watcher = Watcher::open(peer)?;
    let before = running.resident()?;
    let (mut live, mut resident) = (Vec::new(), Vec::new());
    for generation in 1..=reloads {
        peers::configure_gateway(given.files, &entry.setup, generation)?;
        let begin = Instant::now();
        rustix::process::kill_process(id, Signal::HUP).context("asking for a reload")?;
        while watcher.generation()? != Some(generation) {
            if begin.elapsed() > PATIENCE {
                bail!("reload {generation} is not live after {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        live.push(begin.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(BETWEEN);
        resident.push(running.resident()?);
    }
    Ok(Series {
        live,
        before,
        resident,
    })
}

/// A kept connection that asks which configuration answers.
struct Watcher {
    stream: TcpStream,
}

impl Watcher {
    fn open(peer: &Peer) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&peer.address, PATIENCE).context("connecting")?;
        stream.set_nodelay(true).context("TCP_NODELAY")?;
        stream.set_read_timeout(Some(PATIENCE)).context("a deadline")?;
        Ok(Self { stream })
    }

    fn generation(&mut self) -> Result<Option<u32>> {
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).context("asking")?;
        let mut got = Vec::new();
        let mut room = [0; 2048];
        let whole = peers::answer();
        while !got.ends_with(whole.as_bytes()) {
            let count = self.stream.read(&mut room).context("waiting for an answer")?;
            ensure!(count > 0, "the connection was closed during a reload");
            got.extend_from_slice(room.get(..count).unwrap_or_default());
        }
        let text = String::from_utf8_lossy(&got);
        ensure!(text.starts_with("HTTP/1.1 200 "), "another answer: {text}");
        Ok(text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("x-generation")
                .then(|| value.trim().parse().ok())?
        }))
    }
}
