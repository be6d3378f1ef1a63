//! A program under measurement: started on its core, watched through /proc, stopped when dropped.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::peers::Peer;
use crate::shell;

/// The core of the measured proxy.
pub const PROXY_CORE: usize = 0;
/// The core of the load generator and the upstream.
pub const LOAD_CORE: usize = 1;
/// Five thousand routes take some programs a while.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pub name: &'static str,
    pub address: SocketAddr,
}

impl Running {
    pub fn start(peer: &Peer, core: usize) -> Result<Self> {
        if TcpStream::connect(peer.address).is_ok() {
            bail!(
                "{} is taken: another program would be measured instead of {}",
                peer.address,
                peer.name
            );
        }
        let log = fs::File::create(&peer.log).with_context(|| format!("making {}", peer.log.display()))?;
        let mut command = shell::command("taskset");
        command
            .args(["-c", &core.to_string()])
            .args(&peer.command)
            .envs(peer.environment.iter().map(|(name, value)| (name, value)))
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
            address: peer.address,
        };
        let start = Instant::now();
        while TcpStream::connect(peer.address).is_err() {
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

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// User and system time of every thread so far.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = self.read("stat")?;
        let ticks = ticks(&stat)
            .with_context(|| format!("/proc/{}/stat of {} has an unknown form", self.id(), self.name))?;
        let second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(ticks as f64 / second as f64))
    }

    /// Resident memory, in bytes: what a person sees in `top`.
    pub fn resident(&self) -> Result<f64> {
        let status = self.read("status")?;
        let kib = resident(&status).with_context(|| {
            format!(
                "/proc/{}/status of {} names no resident memory",
                self.id(),
                self.name
            )
        })?;
        Ok(kib as f64 * 1024.0)
    }

    fn read(&self, what: &str) -> Result<String> {
        let path = format!("/proc/{}/{what}", self.id());
        fs::read_to_string(Path::new(&path)).with_context(|| {
            format!(
                "reading {path}: has {} ended? Its output is in the bench directory",
                self.name
            )
        })
    }

    /// Connections of clients that are established.
    pub fn connections(&self) -> Result<usize> {
        let table = fs::read_to_string("/proc/net/tcp").context("reading /proc/net/tcp")?;
        Ok(established(&table, self.address.port()))
    }

    /// Waits until it has nothing to do for a moment.
    pub fn await_rest(&self, within: Duration) -> Result<()> {
        let start = Instant::now();
        let mut before = self.processor_time()?;
        loop {
            std::thread::sleep(Duration::from_millis(60));
            let now = self.processor_time()?;
            if now == before {
                return Ok(());
            }
            if start.elapsed() > within {
                bail!(
                    "{} is still at work {} s after the last request",
                    self.name,
                    within.as_secs()
                );
            }
            before = now;
        }
    }

    /// Waits until the number of clients' connections fits.
    pub fn await_connections(
        &self,
        what: &str,
        within: Duration,
        fits: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let open = self.connections()?;
            if fits(open) {
                return Ok(());
            }
            if start.elapsed() > within {
                bail!(
                    "{}: {what}, but {open} connections are open after {} s",
                    self.name,
                    within.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Processor time that anything took on a core since the start of the machine, what a hypervisor gave to others with it.
pub fn busy(core: usize) -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = busy_ticks(&stat, core).with_context(|| format!("/proc/stat names no core {core}"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// user, nice, system, then past idle and iowait: irq, softirq, steal (proc(5)).
fn busy_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields: Option<Vec<u64>> = line.split_whitespace().map(|field| field.parse().ok()).collect();
    let fields = fields?;
    Some(fields.iter().take(3).sum::<u64>() + fields.iter().skip(5).take(3).sum::<u64>())
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)); the name in field 2 may hold anything, so counting starts after it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Lines of `/proc/net/tcp` with this local port in state 01.
fn established(table: &str, port: u16) -> usize {
    let port = format!(":{port:04X}");
    let fits = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&port));
        local && fields.nth(1) == Some("01")
    };
    table.lines().filter(fits).count()
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    fn what_a_core_does_is_not_its_waiting() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 400 500 6 7 8 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ticks(stat, 0), Some(27));
        assert_eq!(busy_ticks(stat, 7), None);
    }

    #[test]
    fn reads_resident_memory() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12));
        assert_eq!(resident("Name:\tx\n"), None);
    }

    #[test]
    fn counts_connections_of_a_port_that_are_established() {
        let table = "  sl  local_address rem_address   st
   0: 0100007F:46A1 00000000:0000 0A 0
   1: 0100007F:46A1 0100007F:9000 01 0
   2: 0100007F:9000 0100007F:46A1 01 0
";
        assert_eq!(established(table, 18081), 1);
    }
}
