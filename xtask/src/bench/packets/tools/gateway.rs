//! The gateway, through nothing but its configuration and its command line.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Home, Rules, Running, SYN_BURST, SYN_RATE, text};
use crate::bench::packets::rig::{DEVICE, Lane};
use crate::bench::packets::sys;
use crate::bench::packets::traffic::Sources;
use crate::shell;

const READY_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
    binary: PathBuf,
    config: PathBuf,
    pins: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Starts it and gives it its lists by command, as an operator would.
    pub fn start(lane: &Lane, rules: &Rules, home: &Home) -> Result<Self> {
        let gateway = Self::start_empty(lane, rules.syn_limit, home)?;
        for sources in rules.deny {
            gateway.deny(lane, home, *sources)?;
        }
        Ok(gateway)
    }

    /// Starts it with empty lists and waits until its program is on the device.
    pub fn start_empty(lane: &Lane, syn_limit: bool, home: &Home) -> Result<Self> {
        let limit = format!(
            "  syn_limit:\n    rate: {SYN_RATE}/s\n    burst: {SYN_BURST}\n    \
             aggregate: {{rate: 500/s, burst: 1000}}\n    total: {{rate: 20000/s, burst: 20000}}\n"
        );
        Self::start_as(lane, &[DEVICE], if syn_limit { &limit } else { "" }, "", home)
    }

    /// As [`Gateway::start_empty`], on these devices, with more settings under `xdp` and beside it.
    pub fn start_as(lane: &Lane, devices: &[&str], more_xdp: &str, more: &str, home: &Home) -> Result<Self> {
        let pins = PathBuf::from("/sys/fs/bpf").join(lane.name());
        let config = home.write(&format!("{}.yaml", lane.name()), |file| {
            let (dir, name) = (home.dir.display(), lane.name());
            write!(
                file,
                "admin: {{socket: {dir}/{name}.sock, metrics: off}}\n\
                 xdp:\n  interfaces: [{}]\n  mode: native\n  pin_dir: {}\n{more_xdp}state_dir: {dir}/{name}\n{more}",
                devices.join(", "),
                pins.display()
            )
        })?;
        let log = home.dir.join(format!("{}.log", lane.name()));
        let output = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        // Whatever ends this process ends the gateway, too.
        let mut command = lane.command("setpriv");
        command
            .args(["--pdeathsig", "KILL", "taskset", "-c", &home.core.to_string()])
            .arg(&home.gateway)
            .args(["run", "--config"])
            .arg(&config);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("sharing the log")?);
        let process = command.stderr(output).spawn().context("starting the gateway")?;
        let mut gateway = Self {
            process,
            binary: home.gateway.clone(),
            config,
            pins,
            log,
        };
        gateway.await_ready(lane)?;
        Ok(gateway)
    }

    fn await_ready(&mut self, lane: &Lane) -> Result<()> {
        let start = Instant::now();
        loop {
            let ended = self.process.try_wait().context("looking after the gateway")?;
            if ended.is_some() || start.elapsed() > READY_WITHIN {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the gateway is not ready; it said:\n{said}");
            }
            let filters = |status: Value| {
                let interface = &status["interfaces"][0];
                interface["interface"] == DEVICE && interface["mode"] == "native"
            };
            if self.status(lane).is_ok_and(filters) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Imports a list. The gateway says that it is in force before the command ends.
    pub fn deny(&self, lane: &Lane, home: &Home, sources: Sources) -> Result<Imported> {
        let list = home.list(&format!("{}.txt", lane.name()), sources.nets())?;
        let mut command = self.command(lane, &["deny", "import", text(&list)?, "--json"]);
        let start = Instant::now();
        let (said, command_kib) = sys::output_and_peak(&mut command)?;
        let took = start.elapsed();
        let said: Value = serde_json::from_str(&said).context("what `gateway deny import` says")?;
        let imported = Imported {
            took,
            tables: Duration::from_millis(said["tables_ms"].as_u64().context("a time of the tables")?),
            command_kib,
            gateway_kib: self.peak_kib()?,
        };
        let wanted = sources.nets().count();
        let status = self.status(lane)?;
        let lists = status["lists"].as_array().context("lists in the status")?;
        let enforced = lists
            .iter()
            .find(|list| list["list"] == "deny")
            .and_then(|list| list["enforced"].as_u64());
        ensure!(
            enforced >= u64::try_from(wanted).ok(),
            "the gateway enforces {enforced:?} of {wanted} networks"
        );
        Ok(imported)
    }

    /// The most memory that it has had resident, its mapping of the tables included.
    fn peak_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        peak.with_context(|| format!("no peak in {path}"))
    }

    /// Packets counted for a reason.
    pub fn packets(&self, lane: &Lane, reason: &str) -> Result<u64> {
        let status = self.status(lane)?;
        let counters = status["counters"].as_array().context("counters in the status")?;
        let counter = counters.iter().find(|counter| counter["reason"] == reason);
        counter
            .and_then(|counter| counter["packets"].as_u64())
            .with_context(|| format!("no counter of {reason}"))
    }

    fn status(&self, lane: &Lane) -> Result<Value> {
        let said = self.order(lane, &["status", "--json"])?;
        serde_json::from_str(&said).context("what `gateway status` says")
    }

    fn order(&self, lane: &Lane, words: &[&str]) -> Result<String> {
        shell::output(&mut self.command(lane, words))
    }

    fn command(&self, lane: &Lane, words: &[&str]) -> Command {
        let mut command = lane.command(&self.binary);
        command.args(words).arg("--config").arg(&self.config);
        for name in ["SSH_CONNECTION", "SSH_CLIENT"] {
            command.env_remove(name);
        }
        command
    }
}

/// What taking over a list took.
#[derive(Clone, Copy, Debug)]
pub struct Imported {
    /// The command, from its start to its end.
    pub took: Duration,
    /// Writing the kernel's tables.
    pub tables: Duration,
    /// The most that was resident of the command, and of the gateway since its start.
    pub command_kib: u64,
    pub gateway_kib: u64,
}

impl Running for Gateway {
    fn dropped(&self, lane: &Lane) -> Result<Option<u64>> {
        let status = self.status(lane)?;
        let counters = status["counters"].as_array().context("counters in the status")?;
        let drops = counters.iter().filter(|counter| counter["verdict"] == "drop");
        let packets = drops.map(|counter| counter["packets"].as_u64());
        packets
            .sum::<Option<u64>>()
            .context("packets of a counter")
            .map(Some)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Killed, not asked: its program would stay, so that goes with its pins. What can not be removed goes with
        // this process's mounts.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.pins);
    }
}
