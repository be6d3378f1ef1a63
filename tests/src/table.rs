//! THE TABLE: every packet the gateway has an opinion about, once, for every engine.
//!
//! Each case has a name, a frame, what the tables hold, and the verdict. `packets.rs` runs it over memory,
//! `kernel.rs` over the real maps and the loaded program. Who teaches the program something adds a row here.

// Length: it is one list; a reader looks a case up by its name, and two lists would drift apart.

mod checks;

use gateway::dataplane::{Change, List};
use gateway_common::limiter;
use gateway_common::outcome::{DropReason, PassReason, Verdict};
use gateway_common::tables::{Limit, NEVER, Rule, Settings, feature, limit};

use crate::packet::{ACK, Frame, PSH, SYN, protocol};

/// Cost of a packet of which a source may send one an hour, or `burst` at once. With the slack that the gateway gives to
/// the ticks of the program's clock: on one processor it may be behind another.
#[must_use]
pub fn hourly(burst: u32) -> (u64, u64) {
    let (interval_ns, tolerance_ns) = limiter::cost(1, 3600 * 1_000_000_000, burst);
    (interval_ns, tolerance_ns + 10_000_000)
}

/// How long an entry is in force.
#[derive(Clone, Copy, Debug)]
pub enum Life {
    Forever,
    /// Ends far in the future.
    Long,
    /// Ended long ago.
    Ended,
}

/// What the tables hold.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub rules: Vec<(List, &'static str, Life)>,
    /// SYNs that one source may send in an hour, all at once.
    pub syn_burst: Option<u32>,
    /// Other limits, by their index: packets in an hour, all at once, and bits of either family that make a source.
    pub limits: Vec<(u32, u32, (u32, u32))>,
    /// Bits of `tables::observe`.
    pub observe: u32,
    /// Checks for malformed packets that are off.
    pub unchecked: Vec<DropReason>,
    pub not_ready: bool,
    /// When a bypass ends, by the clock that starts at boot.
    pub bypass: Option<u64>,
}

impl Setup {
    fn rule(mut self, list: List, net: &'static str, life: Life) -> Self {
        self.rules.push((list, net, life));
        self
    }

    fn allow(self, net: &'static str) -> Self {
        self.rule(List::Allow, net, Life::Forever)
    }

    fn deny(self, net: &'static str) -> Self {
        self.rule(List::Deny, net, Life::Forever)
    }

    fn block(self, net: &'static str) -> Self {
        self.rule(List::Block, net, Life::Long)
    }

    /// What brings empty tables here.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::settings(self.settings())];
        changes.extend(self.rules.iter().map(|(list, net, life)| {
            let deadline_ns = match life {
                Life::Forever => NEVER,
                Life::Long => u64::MAX,
                Life::Ended => 1,
            };
            let net = net.parse().expect("a network literal");
            Change::Put {
                list: *list,
                net,
                rule: Rule {
                    deadline_ns,
                    origin: 1,
                    ..Rule::default()
                },
            }
        }));
        changes
    }

    /// The settings of the case; an hour's interval makes the limiter independent of how fast the test runs.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let cost = hourly(self.syn_burst.unwrap_or(1));
        let mut settings = Settings {
            features: if self.syn_burst.is_some() {
                feature::SYN_LIMIT
            } else {
                0
            },
            ready: u32::from(!self.not_ready),
            malformed: u32::MAX,
            ..Settings::default()
        };
        settings.limits[limit::SYN as usize] = Limit::new(cost, 32, 64);
        for (limit, burst, (v4_bits, v6_bits)) in &self.limits {
            settings.features |= feature::SYN_LIMIT << limit;
            let cost = hourly(*burst);
            let rate = Limit::new(cost, *v4_bits, *v6_bits);
            settings.limits[*limit as usize] = if *limit == limit::SYN_GLOBAL {
                rate.of_all()
            } else {
                rate
            };
        }
        settings.observe = self.observe;
        for reason in &self.unchecked {
            settings.malformed &= !reason.malformed_bit();
        }
        if let Some(until_ns) = self.bypass {
            settings.features |= feature::BYPASS;
            settings.bypass_until_ns = until_ns;
        }
        settings
    }
}

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub setup: Setup,
    /// Frames that go before, in order, whatever becomes of them.
    pub before: Vec<Vec<u8>>,
    pub verdict: Verdict,
    /// Why it would have been dropped, if that is only observed.
    pub observed: Option<DropReason>,
}

fn case(name: &'static str, frame: &Frame, setup: Setup, verdict: Verdict) -> Case {
    Case {
        name,
        frame: frame.bytes(),
        setup,
        before: Vec::new(),
        verdict,
        observed: None,
    }
}

fn after(mut case: Case, before: &[Frame]) -> Case {
    case.before = before.iter().map(Frame::bytes).collect();
    case
}

/// A case that passes and is told of as if dropped.
fn observing(mut case: Case, reason: DropReason) -> Case {
    case.observed = Some(reason);
    case
}

const CLEAN: Verdict = Verdict::Pass(PassReason::Clean);
const ALLOWED: Verdict = Verdict::Pass(PassReason::Allowed);
const NOT_IP: Verdict = Verdict::Pass(PassReason::NotIp);
const BYPASS: Verdict = Verdict::Pass(PassReason::Bypass);
const DENIED: Verdict = Verdict::Drop(DropReason::Denied);
const BLOCKED: Verdict = Verdict::Drop(DropReason::Blocked);
const SYN_LIMIT: Verdict = Verdict::Drop(DropReason::SynLimit);
const TRUNCATED: Verdict = Verdict::Drop(DropReason::Truncated);
const BAD_HEADER: Verdict = Verdict::Drop(DropReason::BadHeader);
const MAPPED: Verdict = Verdict::Drop(DropReason::MappedSource);
const TOO_MANY: Verdict = Verdict::Drop(DropReason::TooManyHeaders);

fn none() -> Setup {
    Setup::default()
}

fn deny_both() -> Setup {
    none().deny("192.0.2.1/32").deny("2001:db8::1/128")
}

fn four() -> Frame {
    Frame::v4("192.0.2.1")
}

fn six() -> Frame {
    Frame::v6("2001:db8::1")
}

/// Every row.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        link(),
        lists(),
        deadlines(),
        protocols(),
        lies(),
        syn_limit(),
        checks::sources(),
        checks::flags(),
        checks::limits(),
        checks::observed(),
    ]
    .concat()
}

fn link() -> Vec<Case> {
    let arp = Frame::raw(0x0806, &[0; 28]);
    let syn = four().tcp(SYN);
    vec![
        case("arp passes", &arp, deny_both(), NOT_IP),
        case(
            "lldp passes",
            &Frame::raw(0x88cc, &[2, 7, 4, 0]),
            deny_both(),
            NOT_IP,
        ),
        case(
            "an 802.3 length is no ethertype",
            &Frame::raw(0x0026, &[0x45; 46]),
            deny_both(),
            NOT_IP,
        ),
        case(
            "mpls is not looked into",
            &Frame::raw(0x8847, &[0; 40]),
            deny_both(),
            NOT_IP,
        ),
        case("arp in a vlan passes", &arp.vlan(7), deny_both(), NOT_IP),
        case("a clean syn passes", &syn, none(), CLEAN),
        case("denied in a vlan", &syn.clone().vlan(7), deny_both(), DENIED),
        case(
            "denied in a service tag",
            &syn.clone().service_vlan(7),
            deny_both(),
            DENIED,
        ),
        case(
            "denied in two tags",
            &syn.clone().service_vlan(7).vlan(8),
            deny_both(),
            DENIED,
        ),
        case(
            "denied in two 802.1q tags",
            &syn.clone().vlan(7).vlan(8),
            deny_both(),
            DENIED,
        ),
        case(
            "three tags are not looked through",
            &syn.clone().vlan(1).vlan(2).vlan(3),
            deny_both(),
            NOT_IP,
        ),
        case(
            "ipv6 denied in a vlan",
            &six().tcp(SYN).vlan(7),
            deny_both(),
            DENIED,
        ),
        case(
            "not ready passes a denied source",
            &syn,
            Setup {
                not_ready: true,
                ..deny_both()
            },
            BYPASS,
        ),
        case(
            "not ready passes garbage",
            &four().patch(0, 0x95),
            Setup {
                not_ready: true,
                ..none()
            },
            BYPASS,
        ),
        case(
            "ethernet padding is no lie",
            &four().tcp(ACK).pad_to(60),
            none(),
            CLEAN,
        ),
        case(
            "ethernet padding of ipv6 is no lie",
            &six().udp(0).pad_to(80),
            none(),
            CLEAN,
        ),
    ]
}

fn lists() -> Vec<Case> {
    let (a, b) = (four().tcp(ACK), six().tcp(ACK));
    vec![
        case("denied address", &a, none().deny("192.0.2.1/32"), DENIED),
        case("denied ipv6 address", &b, none().deny("2001:db8::1/128"), DENIED),
        case(
            "a neighbour is not denied",
            &a,
            none().deny("192.0.2.2/32"),
            CLEAN,
        ),
        case("denied prefix", &a, none().deny("192.0.2.0/24"), DENIED),
        case(
            "the neighbouring prefix is not denied",
            &a,
            none().deny("192.0.3.0/24"),
            CLEAN,
        ),
        case("denied ipv6 prefix", &b, none().deny("2001:db8::/32"), DENIED),
        case(
            "the neighbouring ipv6 prefix is not denied",
            &b,
            none().deny("2001:db9::/32"),
            CLEAN,
        ),
        case("a prefix of one bit", &a, none().deny("128.0.0.0/1"), DENIED),
        case("a prefix of 31 bits", &a, none().deny("192.0.2.0/31"), DENIED),
        case("a prefix of 127 bits", &b, none().deny("2001:db8::/127"), DENIED),
        case("everything of ipv4", &a, none().deny("0.0.0.0/0"), DENIED),
        case(
            "everything of ipv4 is not ipv6",
            &b,
            none().deny("0.0.0.0/0"),
            CLEAN,
        ),
        case("everything of ipv6", &b, none().deny("::/0"), DENIED),
        case("everything of ipv6 is not ipv4", &a, none().deny("::/0"), CLEAN),
        case(
            "::ffff:0:0/96 written as ipv6 is ipv4",
            &a,
            none().deny("::ffff:192.0.2.0/120"),
            DENIED,
        ),
        case("allowed address", &a, none().allow("192.0.2.1/32"), ALLOWED),
        case("allowed prefix", &a, none().allow("192.0.2.0/24"), ALLOWED),
        case(
            "allowed ipv6 address",
            &b,
            none().allow("2001:db8::1/128"),
            ALLOWED,
        ),
        case("allowed ipv6 prefix", &b, none().allow("2001:db8::/48"), ALLOWED),
        case(
            "allow before deny",
            &a,
            none().allow("192.0.2.1/32").deny("192.0.2.1/32"),
            ALLOWED,
        ),
        case(
            "a wide allow before a narrow deny",
            &a,
            none().allow("192.0.0.0/8").deny("192.0.2.1/32"),
            ALLOWED,
        ),
        case(
            "a wide ipv6 allow before a narrow deny",
            &b,
            none().allow("::/0").deny("2001:db8::1/128"),
            ALLOWED,
        ),
        case(
            "allow before block",
            &a,
            none().allow("192.0.2.0/24").block("192.0.2.1/32"),
            ALLOWED,
        ),
        case("blocked address", &a, none().block("192.0.2.1/32"), BLOCKED),
        case(
            "blocked ipv6 address",
            &b,
            none().block("2001:db8::1/128"),
            BLOCKED,
        ),
        case("another is not blocked", &a, none().block("192.0.2.3/32"), CLEAN),
        case(
            "denied and blocked counts as denied",
            &a,
            none().deny("192.0.2.0/24").block("192.0.2.1/32"),
            DENIED,
        ),
        case("an unrelated entry in every table", &a, everything_else(), CLEAN),
        case(
            "an unrelated entry in every table, ipv6",
            &b,
            everything_else(),
            CLEAN,
        ),
    ]
}

fn everything_else() -> Setup {
    let addresses = none()
        .allow("203.0.113.1/32")
        .deny("203.0.113.2/32")
        .block("203.0.113.3/32");
    addresses
        .allow("203.0.113.64/28")
        .deny("203.0.113.128/28")
        .allow("2001:db9::/48")
        .deny("2001:dba::/48")
}

fn deadlines() -> Vec<Case> {
    let (a, b) = (four().tcp(ACK), six().tcp(ACK));
    let ended = |list, net| none().rule(list, net, Life::Ended);
    vec![
        case(
            "a deadline ahead denies",
            &a,
            none().rule(List::Deny, "192.0.2.1/32", Life::Long),
            DENIED,
        ),
        case(
            "an ended deny is none",
            &a,
            ended(List::Deny, "192.0.2.1/32"),
            CLEAN,
        ),
        case(
            "an ended block is none",
            &a,
            ended(List::Block, "192.0.2.1/32"),
            CLEAN,
        ),
        case(
            "an ended prefix is none",
            &a,
            ended(List::Deny, "192.0.2.0/24"),
            CLEAN,
        ),
        case(
            "an ended allow allows nothing",
            &a,
            ended(List::Allow, "192.0.2.1/32").deny("192.0.2.0/24"),
            DENIED,
        ),
        case(
            "an ended address, a live prefix",
            &a,
            ended(List::Deny, "192.0.2.1/32").deny("192.0.2.0/24"),
            DENIED,
        ),
        case(
            "an ended ipv6 address, a live prefix",
            &b,
            ended(List::Deny, "2001:db8::1/128").deny("2001::/16"),
            DENIED,
        ),
        case(
            "an ended prefix, a live one around it",
            &a,
            ended(List::Deny, "192.0.2.0/24").deny("192.0.0.0/16"),
            DENIED,
        ),
        case(
            "three ended prefixes, everything denied",
            &a,
            ended(List::Deny, "192.0.2.0/24")
                .rule(List::Deny, "192.0.2.0/31", Life::Ended)
                .rule(List::Deny, "192.0.0.0/16", Life::Ended)
                .deny("0.0.0.0/0"),
            DENIED,
        ),
        case(
            "an ended ipv6 prefix, a live one around it",
            &b,
            ended(List::Deny, "2001:db8::/32").deny("::/0"),
            DENIED,
        ),
        case(
            "an ended allow prefix, a live one around it",
            &a,
            ended(List::Allow, "192.0.2.0/24")
                .allow("192.0.0.0/16")
                .deny("192.0.2.1/32"),
            ALLOWED,
        ),
        case(
            "an ended deny, then blocked",
            &a,
            ended(List::Deny, "192.0.2.1/32").block("192.0.2.1/32"),
            BLOCKED,
        ),
        case(
            "everything ended",
            &a,
            ended(List::Deny, "0.0.0.0/0").rule(List::Block, "192.0.2.1/32", Life::Ended),
            CLEAN,
        ),
    ]
}

fn protocols() -> Vec<Case> {
    let denied = |name, frame: &Frame| case(name, frame, deny_both(), DENIED);
    let clean = |name, frame: &Frame| case(name, frame, none(), CLEAN);
    vec![
        denied("udp meets the lists", &four().udp(4)),
        denied("icmp meets the lists", &four().icmp()),
        denied("icmpv6 meets the lists", &six().icmp()),
        denied("gre meets the lists", &four().upper(protocol::GRE, &[0; 4])),
        denied("esp meets the lists", &six().upper(protocol::ESP, &[0; 8])),
        denied(
            "an unknown protocol meets the lists",
            &four().upper(253, &[1, 2, 3]),
        ),
        denied("no next header meets the lists", &six()),
        denied("options are skipped", &four().options(10).tcp(SYN)),
        denied(
            "a late fragment meets the lists",
            &four().fragment(185, false).upper(6, &[0; 3]),
        ),
        denied(
            "a late ipv6 fragment meets the lists",
            &six().fragment(181, false).upper(6, &[0; 3]),
        ),
        clean("udp passes", &four().udp(32)),
        clean("an empty udp passes", &four().udp(8)),
        clean("icmp passes", &four().icmp()),
        clean("gre passes", &six().upper(protocol::GRE, &[0; 4])),
        clean(
            "a late fragment is not read as tcp",
            &four().fragment(185, false).upper(6, &[0; 3]),
        ),
        clean(
            "a late ipv6 fragment is not read as tcp",
            &six().fragment(1, true).upper(6, &[0; 3]),
        ),
        clean(
            "a first fragment with its header",
            &four().fragment(0, true).tcp(ACK).payload(4),
        ),
        clean(
            "every ipv6 extension",
            &six()
                .hop_by_hop(0)
                .destination(1)
                .routing(2)
                .fragment(0, true)
                .authentication(4)
                .tcp(ACK),
        ),
        clean("a long extension", &six().destination(255).tcp(ACK)),
        clean("eight extensions", &eight().tcp(ACK)),
        clean("a large frame", &four().tcp(ACK | PSH).payload(1446)),
        clean(
            "a tcp header with options",
            &four().tcp(ACK).payload(40).patch(32, 0xf0),
        ),
        clean(
            "a length of zero is a large local packet",
            &four().tcp(ACK).stated_length(0),
        ),
        clean(
            "a jumbogram of the host itself",
            &six().hop_by_hop(0).tcp(ACK).stated_length(0),
        ),
    ]
}

fn eight() -> Frame {
    (0..8).fold(six(), |frame, _| frame.destination(0))
}

fn lies() -> Vec<Case> {
    let lie = |name, frame: &Frame, verdict| case(name, frame, none(), verdict);
    let syn = four().tcp(SYN);
    vec![
        lie("ipv4 without a header", &Frame::raw(0x0800, &[]), TRUNCATED),
        lie(
            "ipv4 with half a header",
            &Frame::raw(0x0800, &[0x45; 10]),
            TRUNCATED,
        ),
        lie(
            "ipv6 with half a header",
            &Frame::raw(0x86dd, &[0x60; 39]),
            TRUNCATED,
        ),
        lie("a tag and nothing", &Frame::raw(0x8100, &[0, 7]), TRUNCATED),
        lie("ipv4 of version 6", &syn.clone().patch(0, 0x65), BAD_HEADER),
        lie("ipv6 of version 4", &six().tcp(SYN).patch(0, 0x45), BAD_HEADER),
        lie("a header of four words", &syn.clone().patch(0, 0x44), BAD_HEADER),
        lie(
            "a total shorter than the header",
            &syn.clone().stated_length(19),
            BAD_HEADER,
        ),
        lie(
            "a total longer than the frame",
            &syn.clone().stated_length(41),
            TRUNCATED,
        ),
        lie(
            "options beyond the frame",
            &four().patch(0, 0x4f).stated_length(60),
            TRUNCATED,
        ),
        lie(
            "an ipv6 payload longer than the frame",
            &six().tcp(SYN).stated_length(21),
            TRUNCATED,
        ),
        lie(
            "an ipv6 payload cut in the extension",
            &six().destination(0).stated_length(7),
            TRUNCATED,
        ),
        lie(
            "an extension beyond the payload",
            &six().destination(0).tcp(SYN).patch(41, 9),
            TRUNCATED,
        ),
        lie(
            "an authentication header beyond the payload",
            &six().authentication(4).patch(41, 5),
            TRUNCATED,
        ),
        lie(
            "a fragment header cut short",
            &six().fragment(0, true).stated_length(4),
            TRUNCATED,
        ),
        lie("nine extensions", &eight().destination(0).tcp(SYN), TOO_MANY),
        lie(
            "nine extensions without an upper layer",
            &eight().hop_by_hop(0),
            TOO_MANY,
        ),
        lie("a mapped source", &Frame::v6("::ffff:192.0.2.1").tcp(SYN), MAPPED),
        case(
            "a mapped source does not meet the ipv4 lists",
            &Frame::v6("::ffff:192.0.2.1").tcp(SYN),
            none().allow("192.0.2.1/32"),
            MAPPED,
        ),
        lie("tcp with half a header", &syn.clone().upper_cut(19), TRUNCATED),
        lie(
            "tcp with half a header and padding",
            &syn.clone().upper_cut(13).pad_to(60),
            TRUNCATED,
        ),
        lie(
            "a tiny first fragment",
            &syn.clone().fragment(0, true).upper_cut(8),
            TRUNCATED,
        ),
        lie(
            "a tcp header of four words",
            &syn.clone().patch(32, 0x40),
            BAD_HEADER,
        ),
        lie(
            "tcp options beyond the datagram",
            &syn.clone().patch(32, 0x60),
            TRUNCATED,
        ),
        lie(
            "no tcp header in ipv6",
            &six().upper(protocol::TCP, &[]),
            TRUNCATED,
        ),
        case(
            "a lie of a denied source is denied",
            &syn.clone().stated_length(41),
            deny_both(),
            DENIED,
        ),
        case(
            "a lie of a blocked source is blocked",
            &syn.clone().patch(32, 0x40),
            none().block("192.0.2.1/32"),
            BLOCKED,
        ),
        case(
            "a lie of an allowed source passes",
            &syn.clone().patch(0, 0x44),
            none().allow("192.0.2.1/32"),
            ALLOWED,
        ),
        case(
            "nine extensions of a denied source",
            &eight().destination(0).tcp(SYN),
            deny_both(),
            DENIED,
        ),
    ]
}

/// Each case has a source of its own, as the limiter's state outlives a case.
fn syn_limit() -> Vec<Case> {
    let burst = |n| Setup {
        syn_burst: Some(n),
        ..none()
    };
    let syn = |source| Frame::v4(source).tcp(SYN);
    let syn6 = |source| Frame::v6(source).tcp(SYN);
    let ends = |name, source, flags| {
        after(
            case(name, &Frame::v4(source).tcp(flags), burst(1), CLEAN),
            &[syn(source)],
        )
    };
    vec![
        case("the first syn", &syn("198.51.100.1"), burst(1), CLEAN),
        after(
            case(
                "the second of a burst of one",
                &syn("198.51.100.2"),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn("198.51.100.2")],
        ),
        after(
            case("the third of three", &syn("198.51.100.3"), burst(3), CLEAN),
            &[syn("198.51.100.3"), syn("198.51.100.3")],
        ),
        after(
            case("the fourth of three", &syn("198.51.100.4"), burst(3), SYN_LIMIT),
            &[syn("198.51.100.4"), syn("198.51.100.4"), syn("198.51.100.4")],
        ),
        after(
            case(
                "another source is not limited",
                &syn("198.51.100.5"),
                burst(1),
                CLEAN,
            ),
            &[syn("198.51.100.6")],
        ),
        ends("an ack is not limited", "198.51.100.7", ACK),
        ends("a syn-ack is not limited", "198.51.100.8", SYN | ACK),
        after(
            case(
                "a syn with psh is limited",
                &Frame::v4("198.51.100.12").tcp(SYN | PSH),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn("198.51.100.12")],
        ),
        after(
            case(
                "a syn with ecn is limited",
                &Frame::v4("198.51.100.13").tcp(SYN | 0xc0),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn("198.51.100.13")],
        ),
        after(
            case(
                "a syn in a vlan is limited",
                &syn("198.51.100.14").vlan(9),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn("198.51.100.14")],
        ),
        after(
            case(
                "a syn behind options is limited",
                &syn("198.51.100.15").options(3),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn("198.51.100.15")],
        ),
        after(
            case(
                "a syn in a first fragment is limited",
                &syn("198.51.100.16").fragment(0, true),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn("198.51.100.16")],
        ),
        after(
            case(
                "an ipv6 syn is limited",
                &syn6("2001:db8:1::1"),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn6("2001:db8:1::1")],
        ),
        after(
            case(
                "one /64 is one source",
                &syn6("2001:db8:2::1"),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn6("2001:db8:2::ffff")],
        ),
        after(
            case(
                "two /64 are two sources",
                &syn6("2001:db8:3:1::1"),
                burst(1),
                CLEAN,
            ),
            &[syn6("2001:db8:3:2::1")],
        ),
        after(
            case(
                "a syn behind extensions is limited",
                &Frame::v6("2001:db8:4::1").hop_by_hop(0).destination(3).tcp(SYN),
                burst(1),
                SYN_LIMIT,
            ),
            &[syn6("2001:db8:4::1")],
        ),
        after(
            case(
                "an allowed source is not limited",
                &syn("198.51.100.17"),
                burst(1).allow("198.51.100.17/32"),
                ALLOWED,
            ),
            &[syn("198.51.100.17")],
        ),
        after(
            case(
                "a denied source counts as denied",
                &syn("198.51.100.18"),
                burst(1).deny("198.51.100.18/32"),
                DENIED,
            ),
            &[syn("198.51.100.18")],
        ),
        after(
            case(
                "without the limit nothing is limited",
                &syn("198.51.100.19"),
                none(),
                CLEAN,
            ),
            &[syn("198.51.100.19"), syn("198.51.100.19")],
        ),
    ]
}
