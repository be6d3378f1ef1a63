//! The real gateway as a process, with directories and pins of its own. Owns its start, its end and the command line.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::net::Namespace;

/// Longest wait for the gateway to be ready or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The built binary: `GATEWAY_BIN`, which `cargo xtask test` sets, or the one beside this test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("GATEWAY_BIN") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let beside = test
        .parent()
        .and_then(Path::parent)
        .map(|dir| dir.join("gateway"));
    match beside {
        Some(path) if path.exists() => Ok(path),
        _ => bail!("the gateway is not built: run `cargo xtask test`, or set GATEWAY_BIN"),
    }
}

/// Directories of one gateway: configuration, state, socket, pins. All removed when dropped.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    pins: PathBuf,
}

impl Home {
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("gateway-test-").tempdir()?;
        let name = dir
            .path()
            .file_name()
            .context("a directory has a name")?
            .to_owned();
        Ok(Self {
            dir,
            pins: Path::new("/sys/fs/bpf").join(name),
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("gateway.yaml")
    }

    /// Writes the configuration: `body`, with this home's socket, state directory and pins put in where it says
    /// `{socket}`, `{state}` and `{pins}`.
    pub fn write(&self, body: &str) -> Result<()> {
        let text = body
            .replace(
                "{socket}",
                &self.dir.path().join("admin.sock").display().to_string(),
            )
            .replace("{state}", &self.dir.path().join("state").display().to_string())
            .replace("{pins}", &self.pins.display().to_string());
        Ok(std::fs::write(self.config(), text)?)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.pins.exists() {
            // Links detach when their last pin goes.
            let _ = std::fs::remove_dir_all(&self.pins);
        }
    }
}

/// A running gateway. Killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts it in a namespace and waits until `/readyz` says so.
    pub fn start(namespace: &Namespace, home: &Home, flags: &[&str]) -> Result<Self> {
        Self::spawn(namespace, home, flags)?.when_ready(namespace, 9901)
    }

    /// As [`Gateway::start`] with the probes on another port.
    pub fn start_probed(namespace: &Namespace, home: &Home, port: u16) -> Result<Self> {
        Self::spawn(namespace, home, &[])?.when_ready(namespace, port)
    }

    fn when_ready(self, namespace: &Namespace, port: u16) -> Result<Self> {
        let mut gateway = self;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = gateway.child.try_wait()? {
                bail!("the gateway ended at once, {status}:\n{}", gateway.log());
            }
            let mut probe = namespace.command("curl");
            probe.args(["-sf", "--max-time", "1", "--noproxy", "*", "-o", "/dev/null"]);
            probe.arg(format!("http://127.0.0.1:{port}/readyz"));
            if probe.status()?.success() {
                return Ok(gateway);
            }
            if Instant::now() > deadline {
                bail!("the gateway is not ready after {PATIENCE:?}:\n{}", gateway.log());
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Starts it and waits for nothing.
    pub fn spawn(namespace: &Namespace, home: &Home, flags: &[&str]) -> Result<Self> {
        let mut command = namespace.command(binary()?);
        command.arg("run").arg("--config").arg(home.config()).args(flags);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child
                .stdout
                .take()
                .map(|out| Box::new(out) as Box<dyn std::io::Read + Send>),
            child
                .stderr
                .take()
                .map(|out| Box::new(out) as Box<dyn std::io::Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    log.lock().expect("no writer panics").push(line);
                }
            });
        }
        Ok(Self { child, log })
    }

    /// `nsenter` executes the gateway in its place, so this is the gateway's own process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("no writer panics").join("\n")
    }

    /// Waits until a log line holds `needle`.
    pub fn wait_for_log(&self, needle: &str) -> Result<()> {
        wait_until(&format!("{needle:?} in the log"), || {
            Ok(self.log().contains(needle))
        })
        .with_context(|| format!("the log:\n{}", self.log()))
    }

    /// Sends a signal and waits for nothing.
    pub fn tell(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Memory that is resident, in KiB.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        Ok(kib.context("VmRSS")?.trim().parse()?)
    }

    /// Sends a signal and waits for the end. Returns the exit code, `None` when the signal ended it.
    pub fn signal(mut self, signal: rustix::process::Signal) -> Result<Option<i32>> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal)?;
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                bail!("the gateway does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a `gateway` command in a namespace. Returns exit code, standard output and standard error.
pub fn command(namespace: &Namespace, home: &Home, words: &[&str]) -> Result<(i32, String, String)> {
    let mut command: Command = namespace.command(binary()?);
    command.args(words).arg("--config").arg(home.config());
    for name in ["SSH_CONNECTION", "SSH_CLIENT"] {
        command.env_remove(name);
    }
    finish(&mut command)
}

/// Runs a command to its end. Returns exit code, standard output and standard error.
pub fn finish(command: &mut Command) -> Result<(i32, String, String)> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((status.code().unwrap_or(-1), text(stdout), text(stderr)))
}

/// Polls until `done` says so.
pub fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            bail!("no {what} after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}
