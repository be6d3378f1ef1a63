//! Sampled drops in words: what the program puts into the ring of events, for people and their tools. No I/O but the
//! look for an interface's name.

use std::collections::HashMap;
use std::net::IpAddr;

use gateway_common::addr::Addr;
use gateway_common::outcome::{DropReason, OBSERVED};
use gateway_common::tables::Event;
use serde::{Deserialize, Serialize};

use super::clock::Now;

/// Names of interfaces remembered at one time.
const NAMES: usize = 1_024;

/// One packet that was dropped, or would have been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Milliseconds since 1970, to a tick of the kernel's timer.
    pub time_ms: u64,
    /// `drop`, or `observed` if the packet was passed since the reason is only observed.
    pub verdict: String,
    /// A drop's outcome, as in `status`; `reason-N` for a number of a newer program.
    pub reason: String,
    /// Absent if the frame ended before it, or its source is the unspecified address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<IpAddr>,
    /// `tcp`, `udp`, `icmp` or `icmpv6`; absent if it is another one, or could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protocol: Option<String>,
    /// Destination port; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Bytes of the frame.
    pub length: u32,
    /// Where it came in; `if-N` if the interface is gone.
    pub interface: String,
}

impl Sighting {
    /// `event` in words, with the name of its interface. `now` joins the two clocks.
    #[must_use]
    pub fn new(event: &Event, interface: &str, now: Now) -> Self {
        let observed = event.slot >= OBSERVED;
        let number = if observed {
            event.slot - OBSERVED
        } else {
            event.slot
        };
        let reason = DropReason::ALL.iter().find(|reason| reason.slot() == number);
        let source = (event.source != [0; 4]).then(|| IpAddr::from(Addr(event.source)).to_canonical());
        let protocol = match (event.protocol, source) {
            (1, Some(IpAddr::V6(_))) => Some("icmpv6"),
            (1, _) => Some("icmp"),
            (6, _) => Some("tcp"),
            (17, _) => Some("udp"),
            _ => None,
        };
        Self {
            time_ms: now.wall_of_boot(event.time_ns),
            verdict: if observed { "observed" } else { "drop" }.to_owned(),
            reason: reason.map_or_else(|| format!("reason-{number}"), |reason| reason.name().to_owned()),
            source,
            protocol: protocol.map(str::to_owned),
            port: (event.port != 0).then_some(event.port),
            length: event.length,
            interface: interface.to_owned(),
        }
    }
}

/// Names of interfaces by their numbers, each asked for once.
#[derive(Debug, Default)]
pub struct Interfaces(HashMap<u32, String>);

impl Interfaces {
    /// The name of the interface `index` in this network namespace, or `if-INDEX`.
    pub fn name(&mut self, index: u32) -> &str {
        if self.0.len() >= NAMES && !self.0.contains_key(&index) {
            self.0.clear();
        }
        self.0.entry(index).or_insert_with(|| {
            let name = nix::net::if_::if_indextoname(index).ok();
            let name = name.and_then(|name| name.into_string().ok());
            // nix mistakes the failure for an empty name.
            let name = name.filter(|name| !name.is_empty());
            name.unwrap_or_else(|| format!("if-{index}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        boot_ns: 5_000_000_000,
        wall_ms: 1_700_000_000_000,
    };

    fn source(text: &str) -> [u32; 4] {
        Addr::from(text.parse::<IpAddr>().expect("a literal")).0
    }

    #[test]
    fn an_event_says_what_was_dropped_and_when() {
        let event = Event {
            time_ns: 4_000_000_000,
            source: source("192.0.2.1"),
            slot: DropReason::Denied.slot(),
            ifindex: 1,
            length: 74,
            port: 8080,
            protocol: 6,
            _pad: 0,
        };
        let said = serde_json::to_value(Sighting::new(&event, "eth0", NOW)).expect("plain values");
        assert_eq!(
            said,
            serde_json::json!({
                "time_ms": 1_699_999_999_000_u64, "verdict": "drop", "reason": "denied", "source": "192.0.2.1",
                "protocol": "tcp", "port": 8080, "length": 74, "interface": "eth0"
            })
        );
    }

    #[test]
    fn what_is_not_known_is_absent_and_what_was_only_observed_is_no_drop() {
        let event = Event {
            slot: DropReason::Truncated.observed_slot(),
            length: 20,
            ..Event::default()
        };
        let said = Sighting::new(&event, "if-9", NOW);
        assert_eq!(
            (
                said.verdict.as_str(),
                said.reason.as_str(),
                said.source,
                said.port
            ),
            ("observed", "truncated", None, None)
        );
        let event = Event {
            source: source("2001:db8::1"),
            slot: 99,
            protocol: 1,
            ..Event::default()
        };
        let said = Sighting::new(&event, "eth0", NOW);
        assert_eq!(said.reason, "reason-99");
        assert_eq!(said.protocol.as_deref(), Some("icmpv6"));
    }

    #[test]
    fn an_interface_without_a_name_has_its_number() {
        let mut names = Interfaces::default();
        assert_eq!(names.name(0), "if-0");
        let loopback = nix::net::if_::if_nametoindex("lo").expect("every host has one");
        assert_eq!(names.name(loopback), "lo");
        for index in 0..3 * NAMES as u32 {
            names.name(u32::MAX - index);
            assert!(names.0.len() <= NAMES);
        }
    }
}
