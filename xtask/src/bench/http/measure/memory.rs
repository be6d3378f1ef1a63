//! Resident memory: of a program that idles, with many routes, and what an idle connection adds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Resource;

use super::{Given, Sample, probe};
use crate::bench::http::cases::Entry;
use crate::bench::http::h2load::{self, Load, Until};
use crate::bench::http::peers::{self, Peer};
use crate::bench::http::process::{PROXY_CORE, Running};

/// What starts late is there by then.
const SETTLE: Duration = Duration::from_millis(500);
/// TLS connections are opened in turns of these: many at once would need as many connections to the upstream, and it is
/// not these that are to be weighed.
const AT_ONCE: u32 = 250;
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// Descriptors beside those of the clients.
const SPARE: u64 = 2_000;
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
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    if limit.is_some_and(|limit| limit < u64::from(count) + SPARE) {
        return Ok(Sample::Skipped(format!(
            "{count} connections need {} file descriptors; raise the hard limit (`ulimit -Hn`, now {}) as root",
            u64::from(count) + SPARE,
            limit.unwrap_or_default()
        )));
    }
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    probe(&peer, entry, given)?;
    std::thread::sleep(SETTLE);
    let before = running.resident()?;
    let clients = Clients::open(entry, &peer, &running, count)?;
    std::thread::sleep(SETTLE);
    let after = running.resident()?;
    running.await_connections("none was to be closed", SETTLE, |now| now >= count as usize)?;
    probe(&peer, entry, given)?;
    drop(clients);
    Ok(Sample::Values(vec![
        (after - before) / 1024.0 / f64::from(count),
        after / MIB,
    ]))
}

/// Closed when dropped.
#[derive(Debug, Default)]
struct Clients {
    plain: Vec<TcpStream>,
    tls: Vec<Child>,
}

impl Clients {
    fn open(entry: &Entry, peer: &Peer, running: &Running, count: u32) -> Result<Self> {
        let mut clients = Self::default();
        if !entry.setup.tls {
            for number in 0..count {
                let stream = plain(peer.address)
                    .with_context(|| format!("{}: connection {number} of {count}", peer.name))?;
                clients.plain.push(stream);
            }
            return Ok(clients);
        }
        let mut open = 0;
        while open < count {
            let more = AT_ONCE.min(count - open);
            clients.tls.push(h2load::idle(peer, &entry.setup, more)?);
            open += more;
            let what = format!("{open} clients were to connect");
            running.await_connections(&what, OPEN_WITHIN, |now| now >= open as usize)?;
            // Until the last of these have shaken hands and have their answer, the proxy is at work.
            running.await_rest(OPEN_WITHIN)?;
        }
        Ok(clients)
    }
}

/// A connection that has had its answer.
fn plain(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, OPEN_WITHIN).context("connecting")?;
    stream.set_read_timeout(Some(OPEN_WITHIN)).context("a deadline")?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .context("sending a request")?;
    let right = peers::answer();
    let mut got = Vec::new();
    let mut room = [0; 2048];
    while !got.ends_with(right.as_bytes()) {
        let count = stream.read(&mut room).context("waiting for an answer")?;
        ensure!(count > 0, "closed before the answer");
        got.extend_from_slice(room.get(..count).unwrap_or_default());
    }
    ensure!(got.starts_with(b"HTTP/1.1 200 "), "not 200");
    Ok(stream)
}

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.tls {
            // It may have ended by itself.
            let _ = child.kill();
        }
        for child in &mut self.tls {
            let _ = child.wait();
        }
    }
}
