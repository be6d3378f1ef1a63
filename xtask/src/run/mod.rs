//! `run`: the gateway in the foreground, by default as a demonstration that can be typed along.
//!
//! Whatever happens, the machine is left as it was found: the gateway is started so that it detaches when it stops,
//! `gateway detach` is run after it in case it could not, and the demonstration's directory is removed if it was made here.

mod upstream;

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::build;
use crate::privilege::Privilege;
use crate::setup::{self, Purpose};
use crate::shell;

const CONFIG: &str = "config/minimal.yaml";
/// The addresses in `config/minimal.yaml`.
const GATEWAY: &str = "127.0.0.1:8080";
const METRICS: &str = "127.0.0.1:9901";
const UPSTREAM: &str = "127.0.0.1:9000";
/// Socket and state of the demonstration; a gateway that serves on this machine has others.
const HOME: &str = "/run/gateway-demo";
/// Attaching to the loopback device takes milliseconds; a busy machine may take its time.
const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// Use the optimised build; its first build takes minutes.
    #[arg(long)]
    release: bool,
    /// Arguments of `gateway run`, after `--`; without any, the demonstration.
    #[arg(last = true, value_name = "ARGS")]
    gateway: Vec<OsString>,
}

/// Builds and runs; returns when the gateway has stopped.
pub fn main(args: &Args) -> Result<()> {
    let demonstration = args.gateway.is_empty();
    let privilege = match Privilege::obtain().context("the gateway attaches a program to an interface") {
        Ok(privilege) => privilege,
        Err(error) if demonstration => return Err(error),
        Err(error) => {
            // A configuration with `mode: none` needs no privileges, and the gateway says so if this one does.
            eprintln!("warning: {error:#}; going on without");
            Privilege::Own
        }
    };
    setup::ensure(&[Purpose::Build])?;
    let binary = build::gateway(args.release)?;
    let signals = Signals::listen()?;
    if demonstration {
        for (address, whose) in [
            (GATEWAY, "the gateway"),
            (METRICS, "its metrics"),
            (UPSTREAM, "the upstream"),
        ] {
            is_free(address).with_context(|| format!("the demonstration needs {address} for {whose}"))?;
        }
        upstream::start(UPSTREAM).context("starting the demonstration's upstream")?;
    }
    let arguments = if demonstration {
        vec!["--config".into(), CONFIG.into()]
    } else {
        args.gateway.clone()
    };
    shell::step(format!(
        "starting the gateway{}",
        if demonstration {
            " on the loopback device"
        } else {
            ""
        }
    ));
    let mut command = privilege.command(&binary);
    command.arg("run").args(&arguments).arg("--ephemeral");
    if privilege == Privilege::Own {
        // SAFETY: between fork and exec only a system call is made, which allocates nothing and takes no lock.
        unsafe { command.pre_exec(end_with_parent) };
    }
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))?;
    let ready = if demonstration {
        await_ready(&mut child, &signals)
    } else {
        Ok(())
    };
    if ready.is_ok() && demonstration && !signals.any() {
        print_commands(&binary, privilege);
    }
    if ready.is_err() {
        signals.stop();
    }
    let status = await_end(&mut child, &signals, privilege);
    signals.mute();
    clean_up(&binary, &arguments, privilege);
    // Nobody else's: the ports were free, so no other demonstration runs; one that was killed may have left it.
    if demonstration && let Err(error) = remove(Path::new(HOME), privilege) {
        eprintln!("warning: {error:#}; {HOME} is left behind");
    }
    ready?;
    let status = status?;
    if !status.success() {
        bail!("the gateway ended with {status}; what it said stands above");
    }
    Ok(())
}

/// Has the gateway stop in an orderly way also if this process is killed: nobody would be left to detach for it.
fn end_with_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    Ok(())
}

/// SIGINT, SIGTERM and SIGHUP, noted instead of obeyed, so that the gateway is always waited for.
struct Signals {
    interrupted: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
    /// The terminal is gone.
    hung_up: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> Result<Self> {
        let signals = Self {
            interrupted: Arc::default(),
            terminated: Arc::default(),
            hung_up: Arc::default(),
        };
        signal_hook::flag::register(SIGINT, Arc::clone(&signals.interrupted))
            .context("listening for Ctrl-C")?;
        signal_hook::flag::register(SIGTERM, Arc::clone(&signals.terminated))
            .context("listening for SIGTERM")?;
        signal_hook::flag::register(SIGHUP, Arc::clone(&signals.hung_up)).context("listening for SIGHUP")?;
        Ok(signals)
    }

    fn any(&self) -> bool {
        let each = [&self.interrupted, &self.terminated, &self.hung_up];
        each.iter().any(|signal| signal.load(Ordering::Relaxed))
    }

    /// As if told to stop.
    fn stop(&self) {
        self.terminated.store(true, Ordering::Relaxed);
    }

    /// Without a terminal nobody reads, and a message that can not be written would end this before it has cleaned up.
    fn mute(&self) {
        if self.hung_up.load(Ordering::Relaxed)
            && let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null")
        {
            let _ = rustix::stdio::dup2_stdout(&nowhere);
            let _ = rustix::stdio::dup2_stderr(&nowhere);
        }
    }

    /// Whether the gateway must be told. A terminal sends Ctrl-C to the gateway as well, and a second signal would
    /// cut its orderly stop short.
    fn must_forward(&self) -> bool {
        let by_terminal = self.interrupted.load(Ordering::Relaxed) && std::io::stdin().is_terminal();
        self.any() && (!by_terminal || self.hung_up.load(Ordering::Relaxed))
    }
}

/// Binding is the one sure test: it also finds what listens on every address.
fn is_free(address: &str) -> Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{error}; `ss -ltnp` shows which program has the port, stop it and try again"),
    }
}

/// Waits until `/readyz` says 200; fails if the gateway ends or takes too long.
fn await_ready(child: &mut Child, signals: &Signals) -> Result<()> {
    let address: SocketAddr = METRICS.parse().context("the metrics address")?;
    let start = Instant::now();
    while !signals.any() {
        if let Some(status) = child.try_wait().context("looking after the gateway")? {
            bail!("the gateway did not start: it ended with {status}; what it said stands above");
        }
        if is_ready(address) {
            return Ok(());
        }
        if start.elapsed() > READY_WITHIN {
            bail!(
                "the gateway is not ready after {} s: http://{METRICS}/readyz does not say 200",
                READY_WITHIN.as_secs()
            );
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Waits for the gateway's end, passing on one signal.
fn await_end(child: &mut Child, signals: &Signals, privilege: Privilege) -> Result<ExitStatus> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().context("looking after the gateway")? {
            return Ok(status);
        }
        if signals.must_forward() && !told {
            told = true;
            terminate(child, privilege)?;
        }
        std::thread::sleep(POLL);
    }
}

/// Tells the gateway to stop; only root's process, behind sudo, needs a program for it.
fn terminate(child: &Child, privilege: Privilege) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process};
    match privilege {
        Privilege::Own => kill_process(Pid::from_child(child), Signal::TERM).context("stopping the gateway"),
        Privilege::Sudo => {
            let pid = child.id().to_string();
            shell::run(privilege.command(Path::new("kill")).args(["-TERM", &pid]))
        }
    }
}

/// Detaches what a gateway that was killed left behind; after an orderly stop there is nothing to do.
fn clean_up(binary: &Path, arguments: &[OsString], privilege: Privilege) {
    let mut command = privilege.command(binary);
    command.arg("detach").args(config_of(arguments));
    match shell::output(&mut command) {
        Ok(_) => shell::step("stopped; nothing is left attached"),
        Err(error) => eprintln!("warning: {error:#}; the program may still be attached"),
    }
}

/// Removes a directory that the gateway made, if it is there.
fn remove(dir: &Path, privilege: Privilege) -> Result<()> {
    match privilege {
        _ if !dir.exists() => Ok(()),
        Privilege::Own => std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display())),
        Privilege::Sudo => shell::run(privilege.command(Path::new("rm")).arg("-r").arg(dir)),
    }
}

/// Of the arguments of `gateway run`, those that say which configuration.
fn config_of(arguments: &[OsString]) -> &[OsString] {
    match arguments
        .iter()
        .position(|argument| argument.to_string_lossy().starts_with("--config"))
    {
        Some(at) if arguments[at] == "--config" => &arguments[at..arguments.len().min(at + 2)],
        Some(at) => &arguments[at..=at],
        None => &[],
    }
}

fn print_commands(binary: &Path, privilege: Privilege) {
    let sudo = if privilege == Privilege::Sudo { "sudo " } else { "" };
    let gateway = build::shown(binary);
    let root = shell::root();
    println!(
        "
The gateway is up. In another terminal, in {}, try:

  1. A request that passes:
     curl -i -H 'X-API-Key: demo-key' http://{GATEWAY}/

  2. Bad keys from 127.0.0.2: first 401, then time-outs (000), since the kernel drops its packets:
     for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 2 --interface 127.0.0.2 \
-H 'X-API-Key: wrong' http://{GATEWAY}/; sleep 0.2; done
     The first command still gets its answer: 127.0.0.1 did nothing wrong.

  3. Why is 127.0.0.2 dropped, and how is that lifted?
     {sudo}{gateway} explain 127.0.0.2 --config {CONFIG}
     {sudo}{gateway} block del 127.0.0.2 --config {CONFIG}

Ctrl-C stops it and leaves nothing behind.
",
        root.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("any port");
        let address = taken.local_addr().expect("bound").to_string();
        assert!(is_free(&address).is_err());
        drop(taken);
        assert!(is_free(&address).is_ok());
    }

    #[test]
    fn detaching_reads_the_same_configuration() {
        let arguments = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let line = arguments("--debug --config a.yaml --more");
        assert_eq!(config_of(&line), ["--config", "a.yaml"].map(OsString::from));
        assert_eq!(
            config_of(&arguments("--config=a.yaml -v")),
            [OsString::from("--config=a.yaml")]
        );
        assert!(config_of(&arguments("-v")).is_empty());
    }

    #[test]
    fn the_demonstration_lives_in_its_own_directory() {
        let text = std::fs::read_to_string(shell::root().join(CONFIG)).expect("the demonstration");
        for setting in ["socket: /run/gateway-demo/", "state_dir: /run/gateway-demo/"] {
            assert!(text.contains(setting) && setting.contains(HOME), "{setting}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("home");
        remove(&home, Privilege::Own).expect("nothing to do");
        std::fs::create_dir_all(home.join("state")).expect("a directory");
        remove(&home, Privilege::Own).expect("removed");
        assert!(!home.exists());
    }

    #[test]
    fn only_a_200_is_ready() {
        for (answer, ready) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 503 No\r\n\r\n", false),
            ("", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
            let address = listener.local_addr().expect("bound");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 256];
                let _ = stream.read(&mut request);
                stream.write_all(answer.as_bytes()).expect("written");
            });
            assert_eq!(is_ready(address), ready, "{answer:?}");
            server.join().expect("server");
        }
    }
}
