//! Network namespaces for tests: a gateway host and a client host joined by a veth pair. Owns their set-up and removal.
//!
//! Commands run through `nsenter`, since `ip netns exec` mounts a fresh /sys and hides bpffs.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub fn new(role: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self {
            name: format!("gwt-{}-{number}-{role}", std::process::id()),
        };
        run(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Where the test itself runs, for what needs no privileges.
    #[must_use]
    pub fn here() -> Self {
        Self { name: String::new() }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        if self.name.is_empty() {
            return Command::new(program);
        }
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command in the namespace to its end; its failure is an error.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.command(words[0]);
        run(command.args(&words[1..]))
    }

    /// A connection from one address to another.
    pub fn connect(&self, from: &str, to: &str) -> Result<TcpStream> {
        let from: SocketAddr = format!("{from}:0").parse()?;
        let to: SocketAddr = to.parse()?;
        self.within(move || {
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &from)?;
            rustix::net::connect(&socket, &to)?;
            Ok(TcpStream::from(socket))
        })?
    }

    /// Runs `f` on a thread that is in the namespace. Sockets it opens stay there.
    pub fn within<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let file = File::open(self.path()).context("the namespace's file")?;
        let thread = std::thread::spawn(move || -> Result<T> {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .context("setns")?;
            Ok(f())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs a command to its end; what it printed is part of the error.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// Two hosts on one wire. The gateway's end is `gw0`, 10.77.0.1 and fd77::1; the client's is `cl0`, with
/// 10.77.0.2 (A), 10.77.0.3 (B) and fd77::2, fd77::3.
#[derive(Debug)]
pub struct Wire {
    pub gateway: Namespace,
    pub client: Namespace,
}

/// Client A: the one that misbehaves.
pub const A: &str = "10.77.0.2";
/// Client B: the one that must be served throughout.
pub const B: &str = "10.77.0.3";
/// The gateway's address.
pub const GATEWAY: &str = "10.77.0.1";
/// Its IPv6 address.
pub const GATEWAY6: &str = "fd77::1";
/// Client A's IPv6 address.
pub const A6: &str = "fd77::2";
/// Client B's IPv6 address.
pub const B6: &str = "fd77::3";

impl Wire {
    /// Needs root.
    pub fn new() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let wire = Self {
            gateway: Namespace::new("gw")?,
            client: Namespace::new("cl")?,
        };
        wire.join()?;
        Ok(wire)
    }

    /// Removes the pair of devices: the wire is cut, and both interfaces are gone.
    pub fn cut(&self) -> Result<()> {
        self.gateway.run(&["ip", "link", "del", "gw0"]).map(drop)
    }

    /// Makes the pair of devices, with their addresses.
    pub fn join(&self) -> Result<()> {
        let Self { gateway, client } = self;
        let peer = ["peer", "name", "cl0", "netns", client.name()];
        gateway.run(&[&["ip", "link", "add", "gw0", "type", "veth"][..], &peer[..]].concat())?;
        for (namespace, device, addrs) in [
            (gateway, "gw0", &["10.77.0.1/24", "fd77::1/64"][..]),
            (
                client,
                "cl0",
                &["10.77.0.2/24", "10.77.0.3/24", "fd77::2/64", "fd77::3/64"][..],
            ),
        ] {
            for addr in addrs {
                // Without duplicate address detection, which would hold IPv6 back for a second.
                let family: &[&str] = if addr.contains(':') { &["nodad"] } else { &[] };
                namespace.run(&[&["ip", "addr", "add", addr, "dev", device][..], family].concat())?;
            }
            namespace.run(&["ip", "link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// `curl` on the client's host, from one of its addresses. Returns exit code and what it printed.
    pub fn curl(&self, from: &str, args: &[&str]) -> Result<(i32, String)> {
        let mut command = self.client.command("curl");
        command
            .args(["-sS", "--max-time", "2", "--noproxy", "*", "--interface", from])
            .args(args);
        let output = command.output().context("curl")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code().unwrap_or(-1), text))
    }

    /// The status of a request from one of the client's addresses; the curl exit code if none came.
    pub fn status(&self, from: &str, url: &str, headers: &[&str]) -> Result<Result<u16, i32>> {
        let mut args = vec!["-o", "/dev/null", "-w", "%{http_code}"];
        for header in headers {
            args.extend(["-H", header]);
        }
        args.push(url);
        Ok(match self.curl(from, &args)? {
            (0, text) => Ok(text.trim().parse().with_context(|| format!("status {text:?}"))?),
            (code, _) => Err(code),
        })
    }
}
