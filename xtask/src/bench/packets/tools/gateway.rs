//! The gateway, through nothing but its configuration and its command line.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Home, Rules, Running, SYN_BURST, SYN_RATE, text};
use crate::bench::packets::rig::{DEVICE, Lane};
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
        let pins = PathBuf::from("/sys/fs/bpf").join(lane.name());
        let config = home.write(&format!("{}.yaml", lane.name()), |file| {
            let (dir, name) = (home.dir.display(), lane.name());
            write!(
                file,
                "admin: {{socket: {dir}/{name}.sock, metrics: off}}\n\
                 xdp:\n  interfaces: [{DEVICE}]\n  mode: native\n  pin_dir: {}\n",
                pins.display()
            )?;
            if syn_limit {
                writeln!(
                    file,
                    "  syn_limit:\n    rate: {SYN_RATE}/s\n    burst: {SYN_BURST}\n    \
                     aggregate: {{rate: 500/s, burst: 1000}}\n    total: {{rate: 20000/s, burst: 20000}}"
                )?;
            }
            writeln!(file, "state_dir: {dir}/{name}")
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

    /// Imports a list; returns how long the command took. The gateway says that it is in force before that ends.
    pub fn deny(&self, lane: &Lane, home: &Home, sources: Sources) -> Result<Duration> {
        let list = home.list(&format!("{}.txt", lane.name()), sources.nets())?;
        let start = Instant::now();
        self.order(lane, &["deny", "import", text(&list)?])?;
        let took = start.elapsed();
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
        Ok(took)
    }

    fn status(&self, lane: &Lane) -> Result<Value> {
        let said = self.order(lane, &["status", "--json"])?;
        serde_json::from_str(&said).context("what `gateway status` says")
    }

    fn order(&self, lane: &Lane, words: &[&str]) -> Result<String> {
        let mut command = lane.command(&self.binary);
        command.args(words).arg("--config").arg(&self.config);
        for name in ["SSH_CONNECTION", "SSH_CLIENT"] {
            command.env_remove(name);
        }
        shell::output(&mut command)
    }
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
