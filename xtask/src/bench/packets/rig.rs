//! The place of the measurement: one sending network namespace, and for each program under test a receiving one.
//!
//! This process has its own mount and network namespaces (`unshare` made them), and so everything here is gone when it
//! ends, however it ends: names of namespaces, devices, pins, attached programs. The sending ends of the veth pairs are
//! in this process's own network namespace; each receiving end is in a namespace of its own, so that all programs can
//! be loaded at once and take turns without being loaded anew.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::shell;

/// The device at the receiving end, the same in every lane.
pub const DEVICE: &str = "gw0";
/// The receiving ends' addresses.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";

/// Covers the machine's namespaces and pins with empty places of this process's own.
pub fn prepare() -> Result<()> {
    fs::create_dir_all(NAMES).with_context(|| format!("making {NAMES}"))?;
    shell::run(shell::command("mount").args(["-t", "tmpfs", "tmpfs", NAMES]))?;
    shell::run(shell::command("mount").args(["-t", "bpf", "bpf", BPFFS]))
}

/// A veth pair with its receiving end in a namespace of its own.
#[derive(Debug)]
pub struct Lane {
    name: String,
    /// The sending end, in this process's namespace.
    pub sender: String,
    pub ifindex: u32,
}

impl Lane {
    /// Makes the pair. The receiving end takes frames in batches (NAPI), with and without an XDP program.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let sender = format!("sender{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        ip(&["netns", "add", name])?;
        // No address of its own making, so that nobody speaks but the sender.
        let (quiet, peer) = (
            ["addrgenmode", "none"],
            [
                "type", "veth", "peer", "name", DEVICE, "address", &mac, "netns", name,
            ],
        );
        ip(&[&["link", "add", &sender][..], &peer].concat())?;
        ip(&[&["link", "set", &sender][..], &quiet].concat())?;
        ip(&[&["-n", name, "link", "set", DEVICE][..], &quiet].concat())?;
        ip(&["-n", name, "addr", "add", &format!("{ADDRESS}/24"), "dev", DEVICE])?;
        let lane = Self {
            name: name.to_owned(),
            ifindex: ifindex(&sender)?,
            sender,
        };
        let sender = &lane.sender;
        // A sysfs shows the devices of the namespace that it is mounted from.
        let sysfs = lane.sysfs();
        fs::create_dir(&sysfs).context("making a place for sysfs")?;
        shell::run(lane.command("mount").args(["-t", "sysfs", "sysfs"]).arg(&sysfs))?;
        shell::output(lane.command("ethtool").args(["-K", DEVICE, "gro", "on"]))?;
        ip(&["-n", name, "link", "set", DEVICE, "up"])?;
        ip(&["link", "set", sender, "up"])?;
        Ok(lane)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command in the receiving namespace. Not `ip netns exec`: it would hide the pins.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = shell::command("nsenter");
        command
            .arg(format!("--net={NAMES}/{}", self.name))
            .arg("--")
            .arg(program);
        command
    }

    fn sysfs(&self) -> PathBuf {
        Path::new(NAMES).join(format!("{}.sys", self.name))
    }

    /// Packets that the receiving end has taken off the wire and handed on, as the device counts them.
    pub fn received(&self) -> Result<u64> {
        let path = self
            .sysfs()
            .join("class/net")
            .join(DEVICE)
            .join("statistics/rx_packets");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.trim().parse().context("a count of packets")
    }

    /// Packets that came past every hook, and ended in TCP for their checksum.
    pub fn let_through(&self) -> Result<u64> {
        let text = shell::output(self.command("cat").arg("/proc/net/snmp"))?;
        bad_checksums(&text).context("/proc/net/snmp has an unknown form")
    }

    /// Packets that the sending end has taken off the wire: answers.
    pub fn answers(&self) -> Result<u64> {
        let text =
            shell::output(shell::command("ip").args(["-j", "-s", "link", "show", "dev", &self.sender]))?;
        let links: serde_json::Value = serde_json::from_str(&text).context("what `ip -j link` says")?;
        let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
        packets.context("packets of a device")
    }

    /// Frames that a program at the receiving end wanted to send back, and that the device lost.
    pub fn lost_answers(&self) -> Result<u64> {
        let text = shell::output(self.command("ethtool").args(["-S", DEVICE]))?;
        let of = |line: &str| {
            let (name, count) = line.trim().split_once(": ")?;
            let lost = name.ends_with("xdp_tx_errors");
            lost.then(|| count.parse::<u64>().ok()).flatten()
        };
        Ok(text.lines().filter_map(of).sum())
    }

    /// The number of the XDP program on the receiving end.
    pub fn program(&self) -> Result<u32> {
        let text = shell::output(self.command("ip").args(["-j", "link", "show", "dev", DEVICE]))?;
        let links: serde_json::Value = serde_json::from_str(&text).context("what `ip -j link` says")?;
        let id = links[0]["xdp"]["prog"]["id"].as_u64();
        let id = id.with_context(|| format!("no XDP program on {DEVICE} of {}", self.name))?;
        u32::try_from(id).context("a program's number")
    }

    /// Runs `f` on a thread in the receiving namespace.
    pub fn within<T: Send>(&self, f: impl FnOnce(u32) -> Result<T> + Send) -> Result<T> {
        within(&self.name, DEVICE, f)
    }
}

/// Runs `f` on a thread in a namespace, with the number of a device there.
pub fn within<T: Send>(namespace: &str, device: &str, f: impl FnOnce(u32) -> Result<T> + Send) -> Result<T> {
    let path = Path::new(NAMES).join(namespace);
    let file = fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            use std::os::fd::AsFd as _;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering a namespace")?;
            f(ifindex(device)?)
        });
        match inside.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Drop for Lane {
    /// The devices go with the namespace. What is left on an error goes with this process.
    fn drop(&mut self) {
        let _ = shell::run(shell::command("umount").arg(self.sysfs()));
        let _ = fs::remove_dir(self.sysfs());
        let _ = ip(&["netns", "del", &self.name]);
    }
}

pub fn ip(words: &[&str]) -> Result<()> {
    shell::run(shell::command("ip").args(words))
}

/// A device's number in this thread's namespace.
fn ifindex(device: &str) -> Result<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).context("a socket")?;
    netdevice::name_to_index(&socket, device).with_context(|| format!("finding {device}"))
}

/// `InCsumErrors` of the lines `Tcp: RtoAlgorithm … InCsumErrors` and `Tcp: 1 … 0`.
fn bad_checksums(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "InCsumErrors")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ended_in_tcp() {
        let snmp = "Ip: Forwarding InReceives\nIp: 2 9\nTcp: InSegs InErrs InCsumErrors\nTcp: 9 8 7\nUdp: a\nUdp: 1\n";
        assert_eq!(bad_checksums(snmp), Some(7));
        assert_eq!(bad_checksums("Ip: a\n"), None);
    }
}
