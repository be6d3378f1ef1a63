//! nftables, at the two places where a packet filter can be early: before connection tracking, and at the device.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Home, Rules, Running, SYN_BURST, SYN_RATE};
use crate::bench::packets::rig::{DEVICE, Lane};
use crate::bench::packets::traffic::Sources;
use crate::shell;

/// Sources that its meter remembers. The manual's example has 128,000; this is the same order as the lists.
const METER: u32 = 1 << 20;

/// Where the chain hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Raw,
    Ingress,
}

impl Hook {
    const fn family(self) -> &'static str {
        match self {
            Self::Raw => "ip",
            Self::Ingress => "netdev",
        }
    }
}

#[derive(Debug)]
struct Nftables {
    hook: Hook,
}

pub fn start(lane: &Lane, rules: &Rules, home: &Home, hook: Hook) -> Result<impl Running + use<>> {
    load(lane, rules, home, hook)?;
    Ok(Nftables { hook })
}

/// How long `nft -f` takes over a list. It ends when the list is in force.
pub fn load_seconds(lane: &Lane, rules: &Rules, home: &Home) -> Result<Duration> {
    load(lane, rules, home, Hook::Raw)
}

fn load(lane: &Lane, rules: &Rules, home: &Home, hook: Hook) -> Result<Duration> {
    let file = home.write(&format!("{}.nft", lane.name()), |file| write(file, rules, hook))?;
    let start = Instant::now();
    shell::output(lane.command("nft").arg("-f").arg(&file))?;
    Ok(start.elapsed())
}

/// The rules as a file for `nft -f`. Sets are declared before the chain that names them.
fn write(file: &mut dyn Write, rules: &Rules, hook: Hook) -> io::Result<()> {
    writeln!(file, "table {} bench {{\n  counter dropped {{ }}", hook.family())?;
    let mut tests = Vec::new();
    for (number, sources) in rules.deny.iter().enumerate() {
        if let Sources::One(addr) = sources {
            tests.push(format!("ip saddr {addr}"));
            continue;
        }
        let flags = match sources {
            Sources::Within(_) => "flags interval;",
            Sources::Spread(_) | Sources::One(_) => "",
        };
        write!(file, "  set s{number} {{ type ipv4_addr; {flags} elements = {{")?;
        for net in sources.nets() {
            writeln!(file, "{net},")?;
        }
        writeln!(file, "}}; }}")?;
        tests.push(format!("ip saddr @s{number}"));
    }
    if rules.syn_limit {
        // As the manual's example of a flood has it.
        writeln!(
            file,
            "  set sources {{ type ipv4_addr; flags dynamic; timeout 10s; size {METER}; }}"
        )?;
        tests.push(format!(
            "tcp flags & (syn | ack) == syn \
             add @sources {{ ip saddr limit rate over {SYN_RATE}/second burst {SYN_BURST} packets }}"
        ));
    }
    let place = match hook {
        Hook::Raw => "hook prerouting priority raw".to_owned(),
        Hook::Ingress => format!("hook ingress device {DEVICE} priority 0"),
    };
    writeln!(file, "  chain early {{\n    type filter {place}; policy accept;")?;
    for test in tests {
        writeln!(file, "    {test} counter name dropped drop")?;
    }
    writeln!(file, "  }}\n}}")
}

impl Running for Nftables {
    fn dropped(&self, lane: &Lane) -> Result<Option<u64>> {
        let mut command = lane.command("nft");
        let said =
            shell::output(command.args(["-j", "list", "counter", self.hook.family(), "bench", "dropped"]))?;
        packets(&said)
            .context("what `nft list counter` says has an unknown form")
            .map(Some)
    }
}

/// From `{"nftables": [{"metainfo": …}, {"counter": {"packets": 7, …}}]}`.
fn packets(said: &str) -> Option<u64> {
    let said: Value = serde_json::from_str(said).ok()?;
    said["nftables"]
        .as_array()?
        .iter()
        .find_map(|part| part["counter"]["packets"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_nft_reads() {
        const RULES: Rules = Rules {
            deny: &[
                Sources::One(std::net::Ipv4Addr::new(192, 0, 2, 1)),
                Sources::Spread(2),
                Sources::Within(2),
            ],
            syn_limit: true,
        };
        let mut file = Vec::new();
        write(&mut file, &RULES, Hook::Ingress).expect("into memory");
        let text = String::from_utf8(file).expect("text");
        assert!(text.contains("set s1 { type ipv4_addr;  elements = {128.0.0.0,\n"));
        assert!(text.contains("set s2 { type ipv4_addr; flags interval; elements = {128.0.0.0/20,\n"));
        assert!(text.contains("hook ingress device gw0 priority 0; policy accept;"));
        assert_eq!(text.matches("counter name dropped drop").count(), 4);
    }

    #[test]
    fn reads_a_counter() {
        let said =
            r#"{"nftables": [{"metainfo": {}}, {"counter": {"name": "dropped", "packets": 7, "bytes": 9}}]}"#;
        assert_eq!(packets(said), Some(7));
        assert_eq!(packets("{}"), None);
    }
}
