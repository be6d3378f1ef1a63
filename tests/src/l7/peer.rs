//! Programs in Python as peers: somebody else's idea of a protocol.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::raw::{Client, Response};

/// Of the distribution, whose packages the peers use.
const PYTHON: &str = "/usr/bin/python3";

/// A running server. Ends when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    /// Starts `tests/peers/SCRIPT serve`, and waits for it to say its port.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn serve(script: &str) -> Self {
        let mut child = command(script)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there: `cargo xtask setup`");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let port: u16 = line.trim().parse().unwrap_or_else(|_| {
            panic!("{script} gave no port, but {line:?}; `cargo xtask setup` installs what it needs")
        });
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it over HTTP, on a connection of its own.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Response {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        Client::connect(self.address).send(request).response()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client in the middle of a conversation that goes on until [`Held::end`].
#[derive(Debug)]
pub struct Held {
    name: String,
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Held {
    /// Starts `tests/peers/SCRIPT hold ARGUMENTS`, and waits until it is talking.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn talk(script: &str, arguments: &[&str]) -> Self {
        let mut child = command(script)
            .arg("hold")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let name = format!("{script} {arguments:?}");
        assert_eq!(line, "open\n", "{name}");
        Self { name, child, output }
    }

    /// Ends the conversation. Returns how many turns it had.
    ///
    /// # Panics
    /// If it broke off before, or went wrong.
    pub fn end(mut self) -> u64 {
        drop(self.child.stdin.take());
        let mut line = String::new();
        let _ = self.output.read_line(&mut line);
        let status = self.child.wait().expect("its end");
        let turns = line
            .trim()
            .strip_prefix("ok ")
            .and_then(|count| count.parse().ok());
        assert!(status.success(), "{}: {line}", self.name);
        turns.unwrap_or_else(|| panic!("{}: {line:?}", self.name))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `tests/peers/SCRIPT talk ARGUMENTS`.
///
/// # Panics
/// If it finds fault with what it sees.
pub fn talk(script: &str, arguments: &[&str]) {
    run(script, "talk", arguments);
}

/// Has `tests/peers/SCRIPT` do `what`.
///
/// # Panics
/// If it is not content.
pub fn run(script: &str, what: &str, arguments: &[&str]) {
    let output = command(script)
        .arg(what)
        .args(arguments)
        .output()
        .expect("python3");
    assert!(
        output.status.success() && output.stdout == b"ok\n",
        "{script} {what} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn command(script: &str) -> Command {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(script);
    let mut command = Command::new(PYTHON);
    // What the scripts share leaves no compiled copy in the source.
    command.arg("-B").arg(file);
    command
}
