//! The ways to measure. Each starts a program, proves that it answers rightly, and takes one sample of it.

mod closed;
mod half_load;
mod memory;
mod reload;
mod websockets;

use anyhow::{Context as _, Result, bail, ensure};

use super::cases::{Entry, Kind};
use super::h2load::Path;
use super::peers::{self, Files, Peer, Program, Routes};
use crate::shell;
pub use half_load::half;

/// What a measurement is given.
#[derive(Debug)]
pub struct Given<'a> {
    pub files: &'a Files<'a>,
    pub seconds: f64,
    pub quick: bool,
    /// Requests a second at half load, once it is known.
    pub rate: f64,
}

impl Given<'_> {
    /// A number that a quick run divides.
    const fn less(&self, count: u32, by: u32) -> u32 {
        if self.quick { count / by } else { count }
    }
}

/// What came of one.
#[derive(Debug)]
pub enum Sample {
    /// A value for each column of the case.
    Values(Vec<f64>),
    /// The program can not do this, and why we think so.
    Skipped(String),
}

/// Takes one sample.
pub fn sample(kind: Kind, entry: &Entry, given: &Given<'_>) -> Result<Sample> {
    match kind {
        Kind::Closed(load) => closed::sample(entry, &load, given),
        Kind::HalfLoad => half_load::sample(entry, given),
        Kind::WebSockets(count) => websockets::sample(entry, count, given),
        Kind::Resident => memory::resident(entry, given),
        Kind::Routes => memory::routes(entry, given),
        Kind::IdleConnections(count) => memory::idle_connections(entry, given.less(count, 5), given),
        Kind::Reload(count) => reload::sample(entry, given.less(count, 10), given),
    }
}

/// What a reader must know of how the gateway did this case.
pub fn notes(kind: Kind, given: &Given<'_>) -> Vec<String> {
    match kind {
        Kind::IdleConnections(count) => vec![format!("{} connections", given.less(count, 5))],
        Kind::Reload(count) => vec![format!("{} reloads", given.less(count, 10))],
        _ => Vec::new(),
    }
}

/// Asks once, with curl, and fails unless the answer is the right one, byte for byte.
fn probe(peer: &Peer, entry: &Entry, given: &Given<'_>) -> Result<()> {
    let chain = matches!(entry.setup.routes, Routes::Chain(_));
    let path = match entry.path {
        Path::One("/up") => "/",
        Path::One(path) => path,
        Path::Services(_) => "/svc7/items/1",
    };
    let url = format!("{}://{}{path}", entry.setup.scheme(), peer.address);
    let credentials = entry.setup.routes.credentials();
    let (head, body) = ask(&url, credentials)?;
    ensure!(
        head.lines()
            .next()
            .is_some_and(|line| line.split(' ').nth(1) == Some("200")),
        "{url} was answered with:\n{head}"
    );
    let right = match path.strip_prefix("/files/") {
        Some(_) => {
            std::fs::read(given.files.dir.join(path.trim_start_matches('/'))).context("reading a body")?
        }
        None => peers::answer().into_bytes(),
    };
    ensure!(
        body == right,
        "{url} was answered with another body, of {} bytes instead of {}",
        body.len(),
        right.len()
    );
    if credentials.is_some() {
        let (head, _) = ask(&url, None)?;
        ensure!(
            head.split(' ').nth(1) == Some("401"),
            "{url}: a request without credentials was answered with:\n{head}"
        );
    }
    if entry.setup.told {
        ensure!(
            head.to_lowercase().contains("\nx-request-id: "),
            "{url}: the answer has no id of the request:\n{head}"
        );
    }
    if chain {
        let lower = head.to_lowercase();
        ensure!(
            lower.contains("x-frame-options: deny"),
            "{url}: the answer's headers are not edited:\n{head}"
        );
        let (head, _) = ask(&url.replace("/svc7/", "/svc-none/"), credentials)?;
        ensure!(
            head.split(' ').nth(1).is_some_and(|status| status != "200") || entry.program == Program::Caddy,
            "a path that no route has was served:\n{head}"
        );
    }
    Ok(())
}

/// Header and body of an answer.
fn ask(url: &str, credentials: Option<(&str, &str)>) -> Result<(String, Vec<u8>)> {
    let mut curl = shell::command("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--http1.1", "--include"]);
    curl.args(["--max-time", "10"]);
    if let Some((name, value)) = credentials {
        curl.args(["--header", &format!("{name}: {value}")]);
    }
    let output = curl.arg(url).output().context("starting curl")?;
    if !output.status.success() {
        bail!(
            "asking for {url}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let at = output
        .stdout
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .with_context(|| format!("{url}: an answer without a header's end"))?;
    let (head, body) = output.stdout.split_at(at + 4);
    Ok((String::from_utf8_lossy(head).into_owned(), body.to_vec()))
}
