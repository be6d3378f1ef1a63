//! The binary as an operator has it, without a kernel program: reload, drain, files that change. Needs no privileges.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use gateway_tests::gateway::{Gateway, Home, command};
use gateway_tests::l7::Upstream;
use gateway_tests::net::Namespace;

#[path = "edge/certificates.rs"]
mod certificates;
#[path = "edge/crowd.rs"]
mod crowd;
#[path = "edge/drain.rs"]
mod drain;
#[path = "edge/holding.rs"]
mod holding;
#[path = "edge/keys.rs"]
mod keys;
#[path = "edge/policies.rs"]
mod policies;
#[path = "edge/reasons.rs"]
mod reasons;
#[path = "edge/reload.rs"]
mod reload;
#[path = "edge/shortage.rs"]
mod shortage;
#[path = "edge/soak.rs"]
mod soak;
#[path = "edge/streams.rs"]
mod streams;
#[path = "edge/upgrade.rs"]
mod upgrade;

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Directories and ports of one gateway, and the gateway.
struct Stage {
    here: Namespace,
    home: Home,
    metrics: u16,
    /// Of the first listener.
    address: SocketAddr,
}

impl Stage {
    fn new() -> Result<Self> {
        Ok(Self {
            here: Namespace::here(),
            home: Home::new()?,
            metrics: free_port()?,
            address: SocketAddr::from(([127, 0, 0, 1], free_port()?)),
        })
    }

    /// A file of its own.
    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes the configuration in one step, as whoever replaces it under a running gateway should.
    fn write(&self, listeners: &str, rest: &str) -> Result<()> {
        let (address, metrics) = (self.address, self.metrics);
        let text = format!(
            "listen:\n  - address: {address}{listeners}\nadmin: {{socket: {}, metrics: 127.0.0.1:{metrics}}}\n\
             state_dir: {}\nworkers: 2\nxdp: {{mode: none}}\n{rest}",
            self.file("admin.sock").display(),
            self.file("state").display(),
        );
        let beside = self.file("new.yaml");
        std::fs::write(&beside, text)?;
        Ok(std::fs::rename(beside, self.home.config())?)
    }

    fn start(&self) -> Result<Gateway> {
        Gateway::start_probed(&self.here, &self.home, self.metrics)
    }

    /// A `gateway` command that must end with `code`; returns what it printed.
    fn expect(&self, code: i32, words: &[&str]) -> Result<String> {
        let (exit, out, err) = command(&self.here, &self.home, words)?;
        ensure!(
            exit == code,
            "gateway {words:?} ended with {exit}, not {code}:\n{out}\n{err}"
        );
        Ok(out + &err)
    }

    /// Status and text of a path of the metrics endpoint.
    fn asked(&self, path: &str) -> Result<(String, String)> {
        let url = format!("http://127.0.0.1:{}{path}", self.metrics);
        let words = ["-s", "-m", "5", "--noproxy", "*", "-w", "\n%{http_code}", &url];
        let output = std::process::Command::new("curl").args(words).output()?;
        let text = String::from_utf8(output.stdout)?;
        let (text, status) = text.rsplit_once('\n').context("two lines")?;
        Ok((status.to_owned(), text.to_owned()))
    }

    /// One number from the metrics; `name` with its labels, if it has any.
    fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = self.asked("/metrics")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no {name} in\n{text}"))?.parse()?)
    }
}

/// One route, which leads to this upstream.
fn everything_to(upstream: &Upstream) -> String {
    format!(
        "routes:\n  - match: {{path: /**}}\n    upstream: [{{url: 'http://{}'}}]\n",
        upstream.address()
    )
}

/// Routes that nobody asks for, so that there is something to compile.
fn filler(count: usize, upstream: SocketAddr) -> String {
    let mut text = String::new();
    for number in 0..count {
        text.push_str(&format!(
            "  - match: {{host: h{number}.example, path: /v1/x{number}/**}}\n    upstream: [{{url: 'http://{upstream}'}}]\n"
        ));
    }
    text
}

const SHORT: Duration = Duration::from_millis(20);
