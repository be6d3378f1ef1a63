//! What is measured: rules, traffic, who takes part, and the ratios that are aimed at.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::tools::{Rules, Tool};
use super::traffic::{Segment, Sources};

/// A denied address.
pub const DENIED: Sources = Sources::One(Ipv4Addr::new(198, 51, 100, 7));
/// An address that no list holds.
pub const UNLISTED: Sources = Sources::One(Ipv4Addr::new(203, 0, 113, 9));
pub const ADDRESSES: Sources = Sources::Spread(1_000_000);
pub const PREFIXES: Sources = Sources::Within(100_000);
const SPOOFED: Sources = Sources::Spread(16_000_000);

/// One table of the report.
#[derive(Debug)]
pub struct Case {
    pub id: &'static str,
    pub title: &'static str,
    /// What is loaded and what is sent.
    pub what: &'static str,
    pub rules: Rules,
    pub sources: Sources,
    pub segment: Segment,
    /// How long each program gets the load before the first round, for tables that fill by themselves.
    pub soak: Duration,
    pub tools: &'static [Tool],
    pub targets: &'static [Target],
}

/// The gateway's rate as a multiple of another.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub than: Than,
    pub at_least: f64,
}

#[derive(Clone, Copy, Debug)]
pub enum Than {
    XdpFilter,
    /// The better one of its two hooks.
    Nftables,
    /// The gateway's own rate in another case.
    Case(&'static str),
}

use Tool::{Ceiling, Gateway, NftIngress, NftRaw, Nothing, XdpFilter};

const WITH_NFT: &[Tool] = &[Gateway, NftRaw, NftIngress, Ceiling];

const fn target(than: Than, at_least: f64) -> Target {
    Target { than, at_least }
}

pub const ALL: &[Case] = &[
    Case {
        id: "one-denied",
        title: "One denied source",
        what: "One address is denied, and sends SYNs.",
        rules: Rules {
            deny: &[DENIED],
            syn_limit: false,
        },
        sources: DENIED,
        segment: Segment::Syn,
        soak: Duration::ZERO,
        tools: &[Gateway, XdpFilter, NftRaw, NftIngress, Ceiling],
        targets: &[target(Than::XdpFilter, 1.0), target(Than::Nftables, 1.8)],
    },
    Case {
        id: "addresses",
        title: "1,000,000 denied addresses",
        what: "A million addresses are denied; each packet comes from a random one of them. nftables: one set.",
        rules: Rules {
            deny: &[ADDRESSES],
            syn_limit: false,
        },
        sources: ADDRESSES,
        segment: Segment::Syn,
        soak: Duration::ZERO,
        tools: WITH_NFT,
        targets: &[target(Than::Nftables, 2.0)],
    },
    Case {
        id: "prefixes",
        title: "100,000 denied prefixes",
        what: "A hundred thousand prefixes, /20 to /28, none within another, are denied; each packet comes from a random \
               address in a random one of them. nftables: one interval set.",
        rules: Rules {
            deny: &[PREFIXES],
            syn_limit: false,
        },
        sources: PREFIXES,
        segment: Segment::Syn,
        soak: Duration::ZERO,
        tools: WITH_NFT,
        targets: &[target(Than::Nftables, 1.5)],
    },
    Case {
        id: "syn-one",
        title: "One source over its SYN limit",
        what: "Each source may send 50 SYNs a second, 100 at once; one sends without end. nftables: a dynamic set with \
               `limit rate over` for each source, room for 1,048,576, time-out 10 s.",
        rules: Rules {
            deny: &[],
            syn_limit: true,
        },
        sources: UNLISTED,
        segment: Segment::Syn,
        soak: Duration::ZERO,
        tools: WITH_NFT,
        targets: &[target(Than::Nftables, 2.0)],
    },
    Case {
        id: "syn-spoofed",
        title: "SYNs from 16,000,000 spoofed sources",
        what: "The same limit; each SYN comes from a random one of 16 million addresses. What a program lets through \
               goes on into the stack, which costs far more than dropping it.",
        rules: Rules {
            deny: &[],
            syn_limit: true,
        },
        sources: SPOOFED,
        segment: Segment::Syn,
        soak: Duration::from_secs(3),
        tools: &[Gateway, NftRaw, NftIngress, Ceiling, Nothing],
        targets: &[target(Than::Nftables, 3.5), target(Than::Case("syn-one"), 0.8)],
    },
    Case {
        id: "passed",
        title: "Passed traffic, all lists loaded",
        what: "A million addresses and a hundred thousand prefixes are denied, and the SYN limit is on; a source that is not \
               listed sends ACKs. All of them pass: the difference to no filter is what a filter costs the traffic that it \
               is not for.",
        rules: Rules {
            deny: &[ADDRESSES, PREFIXES],
            syn_limit: true,
        },
        sources: UNLISTED,
        segment: Segment::Ack,
        soak: Duration::ZERO,
        tools: &[Gateway, XdpFilter, NftRaw, NftIngress, Nothing],
        targets: &[],
    },
];
