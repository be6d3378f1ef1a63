//! xdp-filter of xdp-tools: single addresses, 10,000 of them at most.

use anyhow::{Context as _, Result};

use super::{Rules, Running};
use crate::bench::packets::rig::{DEVICE, Lane};
use crate::shell;

/// Addresses that are put in where the list is longer than it can hold: each is a process of its own, and its hash
/// table costs the same with few.
const MOST: usize = 1000;

#[derive(Debug)]
struct XdpFilter {
    note: Option<String>,
}

/// Loads the smallest of its programs that tests IPv4 addresses, which is its fastest.
pub fn start(lane: &Lane, rules: &Rules) -> Result<impl Running + use<>> {
    let run = |words: &[&str]| shell::output(lane.command("xdp-filter").args(words));
    run(&["load", "--mode", "native", "--features", "ipv4", DEVICE])?;
    let singles = rules.deny.iter().flat_map(|sources| sources.nets());
    let mut singles = singles.filter(|net| net.bits == 32);
    let mut count = 0;
    for net in singles.by_ref().take(MOST) {
        run(&["ip", "--mode", "src", &net.to_string()])?;
        count += 1;
    }
    let cut = singles.next().is_some();
    Ok(XdpFilter {
        note: cut.then(|| {
            format!(
                "xdp-filter holds {count} addresses only: it can take 10,000 at most, no prefix and no limit"
            )
        }),
    })
}

impl Running for XdpFilter {
    fn dropped(&self, lane: &Lane) -> Result<Option<u64>> {
        let said = shell::output(lane.command("xdp-filter").arg("status"))?;
        let packets = packets(&said, "XDP_DROP");
        packets
            .with_context(|| format!("what `xdp-filter status` says has an unknown form:\n{said}"))
            .map(Some)
    }

    fn note(&self) -> Option<String> {
        self.note.clone()
    }
}

/// From the line `XDP_DROP   7 pkts   0 KiB`.
fn packets(said: &str, action: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.trim_start().starts_with(action))?;
    let mut words = line.split_whitespace().skip(1);
    words.next()?.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_status() {
        let said = "CURRENT XDP-FILTER STATUS:\n\nAggregate per-action statistics:\n  XDP_ABORTED    0 pkts    0 KiB\n  XDP_DROP       1,234 pkts    5 KiB\n  XDP_PASS       2 pkts 0 KiB\n";
        assert_eq!(packets(said, "XDP_DROP"), Some(1234));
        assert_eq!(packets(said, "XDP_PASS"), Some(2));
        assert_eq!(packets(said, "XDP_TX"), None);
    }
}
