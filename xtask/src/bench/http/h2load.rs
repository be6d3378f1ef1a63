//! The closed loop: h2load, as many requests as go, and a count of good answers. A bad answer is an error.

use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use super::peers::{Peer, Setup};
use super::process::LOAD_CORE;
use crate::shell;

/// What is asked for, and what a good answer is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub http2: bool,
    pub connections: u32,
    /// At once on each connection.
    pub streams: u32,
    /// A new connection for each request: for each a full handshake, since h2load never resumes a session.
    pub close: bool,
    pub path: Path,
    /// Bytes of an answer's body.
    pub length: usize,
    /// A file to be sent with each request, by its name among the bodies.
    pub send: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
pub enum Path {
    One(&'static str),
    /// All of `/svcN/items/1` in turn.
    Services(u32),
}

impl Load {
    pub const PLAIN: Self = Self {
        http2: false,
        connections: 64,
        streams: 1,
        close: false,
        path: Path::One("/"),
        length: 128,
        send: None,
    };
}

/// How long to load, by time or by number.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Seconds(f64),
    Requests(u64),
}

/// Puts load on a proxy; returns how many requests were answered well.
pub fn run(peer: &Peer, setup: &Setup, load: &Load, until: Until, dir: &std::path::Path) -> Result<f64> {
    let mut command = command(setup, load.http2, load.connections);
    command.args(["-m", &load.streams.to_string()]);
    match until {
        Until::Seconds(seconds) => command.args(["-D", &format!("{}ms", (seconds * 1e3) as u64)]),
        Until::Requests(requests) => command.args(["-n", &requests.to_string()]),
    };
    if load.close {
        command.args(["-H", "connection: close"]);
    }
    if let Some(file) = load.send {
        command.arg("-d").arg(dir.join(file));
    }
    if let Some((name, value)) = setup.routes.credentials() {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    let base = format!("{}://{}", setup.scheme(), peer.address);
    match load.path {
        Path::One(path) => {
            command.arg(format!("{base}{path}"));
        }
        Path::Services(count) => {
            let list: String = (0..count)
                .map(|number| format!("{base}/svc{number}/items/1\n"))
                .collect();
            let file = dir.join("urls.txt");
            std::fs::write(&file, list).with_context(|| format!("writing {}", file.display()))?;
            command.arg("-i").arg(file);
        }
    }
    let said = shell::output(&mut command)?;
    let counts = Counts::read(&said).with_context(|| format!("reading what h2load said:\n{said}"))?;
    counts
        .check(load)
        .with_context(|| format!("{}, as counted by `{}`", peer.name, shell::line(&command)))?;
    Ok(counts.succeeded)
}

/// Opens connections with one request on each, and leaves them open until the child is killed.
pub fn idle(peer: &Peer, setup: &Setup, connections: u32) -> Result<Child> {
    let mut command = command(setup, false, connections);
    // The first request comes at once, the next when the second minute is long over.
    command.args(["-D", "200", "--rps", "0.005"]);
    command.arg(format!("{}://{}/", setup.scheme(), peer.address));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().context("starting h2load")
}

/// One cipher, one curve: what every program can do with the same processor instructions.
fn command(setup: &Setup, http2: bool, connections: u32) -> std::process::Command {
    let mut command = shell::command("taskset");
    command.args(["-c", &LOAD_CORE.to_string(), "h2load", "-t", "1"]);
    command.args(["-c", &connections.to_string()]);
    if !http2 {
        command.arg("--h1");
    }
    if setup.tls {
        command.args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "--groups=X25519"]);
    }
    command
}

#[derive(Debug)]
struct Counts {
    succeeded: f64,
    failed: f64,
    /// Bytes of bodies.
    data: f64,
}

impl Counts {
    /// From the lines `requests: ... 10 succeeded, 0 failed, ...`, `status codes: 10 2xx, 0 3xx, 0 4xx, 0 5xx` and
    /// `traffic: 1.2KB (1234) total, 1KB (1000) headers (space savings 0%), 200B (200) data`.
    fn read(said: &str) -> Option<Self> {
        let line = |begins: &str| said.lines().find_map(|line| line.strip_prefix(begins));
        let number = |begins: &str, what: &str| -> Option<f64> {
            line(begins)?
                .split(',')
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        };
        let failed = number("requests:", "failed")? + number("requests:", "errored")?;
        let bad = number("status codes:", "4xx")?
            + number("status codes:", "5xx")?
            + number("status codes:", "3xx")?;
        let data = line("traffic:")?.rsplit_once('(')?.1.split_once(')')?.0;
        Some(Self {
            succeeded: number("requests:", "succeeded")?,
            failed: failed + bad,
            data: data.parse().ok()?,
        })
    }

    /// Every answer good, every body whole. Answers that were under way at the end count as bytes only.
    fn check(&self, load: &Load) -> Result<()> {
        ensure!(
            self.failed == 0.0 && self.succeeded > 0.0,
            "not every answer was good: {} were, {} were not",
            self.succeeded,
            self.failed
        );
        if load.close {
            // h2load forgets a connection's bytes with the connection.
            return Ok(());
        }
        let length = load.length as f64;
        let least = self.succeeded * length;
        let most = least + f64::from(load.connections * load.streams) * length;
        ensure!(
            self.data >= least && self.data <= most,
            "{} answers of {length} bytes would be {least} bytes and a little more, there were {}",
            self.succeeded,
            self.data
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(requests: &str, codes: &str, data: u32) -> String {
        format!(
            "x\nrequests: {requests}\nstatus codes: {codes}\n\
             traffic: 9KB (9000) total, 1KB (1000) headers (space savings 0.00%), 1KB ({data}) data\n"
        )
    }

    const GOOD: &str = "9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0 timeout";

    #[test]
    fn any_bad_answer_is_a_fault() {
        let read = Counts::read(&said(GOOD, "9 2xx, 0 3xx, 0 4xx, 0 5xx", 1152)).expect("the known form");
        assert_eq!((read.succeeded, read.failed, read.data), (9.0, 0.0, 1152.0));
        assert!(read.check(&Load::PLAIN).is_ok());
        let read = Counts::read(&said(GOOD, "7 2xx, 0 3xx, 2 4xx, 0 5xx", 1152)).expect("the known form");
        assert!(read.check(&Load::PLAIN).is_err());
        assert!(Counts::read("something else").is_none());
    }

    #[test]
    fn short_and_long_bodies_are_faults() {
        let check = |data| {
            let said = said(GOOD, "9 2xx, 0 3xx, 0 4xx, 0 5xx", data);
            Counts::read(&said).expect("the known form").check(&Load::PLAIN)
        };
        assert!(check(1151).is_err());
        assert!(check(1152 + 128).is_ok(), "an answer was under way at the end");
        assert!(check(1152 + 65 * 128).is_err());
    }
}
