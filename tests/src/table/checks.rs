//! Rows on sources and flags that no stack sends, on the limits beside that of SYNs by source, and on observing.

use gateway::dataplane::List;
use gateway_common::outcome::{DropReason, Verdict};
use gateway_common::tables::{limit, observe};

use super::{
    ALLOWED, BLOCKED, BYPASS, CLEAN, Case, DENIED, Life, SYN_LIMIT, Setup, after, case, deny_both, four,
    none, observing, six,
};
use crate::packet::{ACK, FIN, Frame, PSH, RST, SYN, URG};

fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

fn unchecked(reason: DropReason) -> Setup {
    Setup {
        unchecked: vec![reason],
        ..none()
    }
}

/// Where every frame of the builder goes.
const DESTINATION: (&str, &str) = ("198.18.0.1", "2001:db8:ffff::1");

pub(super) fn sources() -> Vec<Case> {
    use DropReason::{LoopbackSource, MulticastSource, SourceIsDestination};
    let (land, land6) = (
        Frame::v4(DESTINATION.0).tcp(SYN),
        Frame::v6(DESTINATION.1).tcp(SYN),
    );
    let wrong = |name, source: &str, reason| case(name, &Frame::v4(source).tcp(ACK), none(), dropped(reason));
    let wrong6 =
        |name, source: &str, reason| case(name, &Frame::v6(source).tcp(ACK), none(), dropped(reason));
    let right = |name, source: &str| case(name, &Frame::v4(source).udp(8), none(), CLEAN);
    let right6 = |name, source: &str| case(name, &Frame::v6(source).udp(8), none(), CLEAN);
    vec![
        case(
            "source is destination",
            &land,
            none(),
            dropped(SourceIsDestination),
        ),
        case(
            "ipv6 source is destination",
            &land6,
            none(),
            dropped(SourceIsDestination),
        ),
        case(
            "source is destination, unchecked",
            &land,
            unchecked(SourceIsDestination),
            CLEAN,
        ),
        case(
            "source is destination, and denied",
            &land,
            none().deny("198.18.0.0/15"),
            DENIED,
        ),
        case(
            "source is destination, and allowed",
            &land,
            none().allow("198.18.0.0/15"),
            ALLOWED,
        ),
        wrong("the first multicast source", "224.0.0.0", MulticastSource),
        wrong("the last multicast source", "239.255.255.255", MulticastSource),
        wrong("a broadcast source", "255.255.255.255", MulticastSource),
        right("a source below multicast", "223.255.255.255"),
        right("a reserved source above multicast", "240.0.0.1"),
        wrong6("an ipv6 multicast source", "ff02::1", MulticastSource),
        right6("a link-local source", "fe80::1"),
        right6("the unspecified source, as in neighbour discovery", "::"),
        right("the unspecified source, as in dhcp", "0.0.0.0"),
        wrong("a loopback source", "127.0.0.1", LoopbackSource),
        wrong("the last loopback source", "127.255.255.255", LoopbackSource),
        right("a source beside loopback", "128.0.0.1"),
        wrong6("the ipv6 loopback source", "::1", LoopbackSource),
        right6("a source beside ipv6 loopback", "::2"),
        case(
            "a loopback source, unchecked",
            &Frame::v4("127.0.0.1").tcp(SYN),
            unchecked(LoopbackSource),
            CLEAN,
        ),
        case(
            "a multicast source, unchecked",
            &Frame::v6("ff02::1").tcp(SYN),
            unchecked(MulticastSource),
            CLEAN,
        ),
        case(
            "the unspecified ipv6 source denied by itself",
            &Frame::v6("::").udp(8),
            none().deny("::/128"),
            DENIED,
        ),
        case(
            "the last ipv6 address denied by itself",
            &Frame::v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").udp(8),
            none().deny("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
            DENIED,
        ),
        case(
            "the unspecified ipv4 source denied by itself",
            &Frame::v4("0.0.0.0").udp(8),
            none().deny("0.0.0.0/32"),
            DENIED,
        ),
    ]
}

pub(super) fn flags() -> Vec<Case> {
    let bad = |name, flags| case(name, &four().tcp(flags), none(), dropped(DropReason::BadFlags));
    let good = |name, flags| case(name, &four().tcp(flags), none(), CLEAN);
    vec![
        bad("no flags at all", 0),
        bad("psh and urg alone", PSH | URG),
        bad("syn with fin", SYN | FIN),
        bad("syn with rst", SYN | RST),
        bad("syn with fin and ack", SYN | FIN | ACK),
        bad("fin without ack", FIN),
        bad("a christmas tree", FIN | PSH | URG),
        bad("all flags", 0xff),
        good("an ack", ACK),
        good("fin with ack", FIN | ACK),
        good("a reset", RST),
        good("a reset with ack", RST | ACK),
        good("a syn-ack", SYN | ACK),
        good("data pushed", PSH | ACK),
        good("urgent data", URG | ACK),
        good("a syn with ecn", SYN | 0xc0),
        case(
            "no flags in ipv6",
            &six().tcp(0),
            none(),
            dropped(DropReason::BadFlags),
        ),
        case(
            "no flags, unchecked",
            &four().tcp(0),
            unchecked(DropReason::BadFlags),
            CLEAN,
        ),
        case(
            "bad flags of a denied source",
            &four().tcp(0),
            deny_both(),
            DENIED,
        ),
        case(
            "flags of a late fragment are none",
            &four().fragment(10, false).tcp(0),
            none(),
            CLEAN,
        ),
        case(
            "truncated, unchecked",
            &four().tcp(SYN).upper_cut(19),
            unchecked(DropReason::Truncated),
            CLEAN,
        ),
        case(
            "a bad header before the source, unchecked",
            &four().tcp(SYN).patch(0, 0x55),
            unchecked(DropReason::BadHeader),
            CLEAN,
        ),
    ]
}

/// Each case has sources of its own, as the limiter's state outlives a case.
pub(super) fn limits() -> Vec<Case> {
    let limited = |index, burst, bits| Setup {
        limits: vec![(index, burst, bits)],
        ..none()
    };
    let aggregate = |burst| Setup {
        syn_burst: Some(100),
        ..limited(limit::SYN_AGGREGATE, burst, (24, 48))
    };
    let icmp = |source: &str| Frame::v4(source).icmp();
    let udp = |source: &str| Frame::v4(source).udp(8);
    let syn = |source: &str| Frame::v4(source).tcp(SYN);
    let syn6 = |source: &str| Frame::v6(source).tcp(SYN);
    let (icmp_one, udp_one) = (
        limited(limit::ICMP, 1, (32, 64)),
        limited(limit::UDP, 1, (32, 64)),
    );
    vec![
        after(
            case(
                "a second icmp of one",
                &icmp("203.0.113.1"),
                icmp_one.clone(),
                dropped(DropReason::IcmpLimit),
            ),
            &[icmp("203.0.113.1")],
        ),
        case(
            "a first icmp of one",
            &icmp("203.0.113.2"),
            icmp_one.clone(),
            CLEAN,
        ),
        after(
            case("udp is not icmp", &udp("203.0.113.3"), icmp_one.clone(), CLEAN),
            &[icmp("203.0.113.3")],
        ),
        after(
            case(
                "a second icmpv6 from one /64",
                &Frame::v6("2001:db8:1::2").icmp(),
                icmp_one.clone(),
                dropped(DropReason::IcmpLimit),
            ),
            &[Frame::v6("2001:db8:1::1").icmp()],
        ),
        after(
            case(
                "icmp of an allowed source is not limited",
                &icmp("203.0.113.4"),
                icmp_one.allow("203.0.113.4/32"),
                ALLOWED,
            ),
            &[icmp("203.0.113.4"), icmp("203.0.113.4")],
        ),
        after(
            case(
                "a second udp of one",
                &udp("203.0.113.5"),
                udp_one.clone(),
                dropped(DropReason::UdpLimit),
            ),
            &[udp("203.0.113.5")],
        ),
        after(
            case("a syn is not udp", &syn("203.0.113.6"), udp_one, CLEAN),
            &[udp("203.0.113.6")],
        ),
        after(
            case(
                "a third source of a /24 that may send two",
                &syn("203.0.113.30"),
                aggregate(2),
                dropped(DropReason::SynAggregateLimit),
            ),
            &[syn("203.0.113.31"), syn("203.0.113.32")],
        ),
        after(
            case(
                "a source of another /24",
                &syn("198.51.101.1"),
                aggregate(1),
                CLEAN,
            ),
            &[syn("198.51.102.1")],
        ),
        after(
            case(
                "a second source of a /48 that may send one",
                &syn6("2001:db8:2:1::1"),
                aggregate(1),
                dropped(DropReason::SynAggregateLimit),
            ),
            &[syn6("2001:db8:2:2::1")],
        ),
        after(
            case(
                "what one source may not send is not charged to its network",
                &syn("198.51.103.2"),
                Setup {
                    syn_burst: Some(1),
                    ..limited(limit::SYN_AGGREGATE, 2, (24, 48))
                },
                CLEAN,
            ),
            &[syn("198.51.103.1"), syn("198.51.103.1"), syn("198.51.103.1")],
        ),
        after(
            case(
                "what the host refuses is charged to nobody",
                &syn("198.51.104.9"),
                Setup {
                    syn_burst: Some(1),
                    ..limited(limit::SYN_GLOBAL, 1, (0, 0))
                },
                dropped(DropReason::SynGlobalLimit),
            ),
            &[syn("198.51.104.8"), syn("198.51.104.9"), syn("198.51.104.9")],
        ),
        after(
            case(
                "the host as a whole, over both families",
                &syn("198.51.104.1"),
                Setup {
                    syn_burst: Some(100),
                    ..limited(limit::SYN_GLOBAL, 1, (0, 0))
                },
                dropped(DropReason::SynGlobalLimit),
            ),
            &[syn6("2001:db8:3::1")],
        ),
    ]
}

pub(super) fn observed() -> Vec<Case> {
    let watching = |observe, setup: Setup| Setup { observe, ..setup };
    let both = || none().deny("192.0.2.1/32").block("192.0.2.1/32");
    let burst = Setup {
        syn_burst: Some(1),
        ..none()
    };
    let syn = Frame::v4("198.51.105.1").tcp(SYN);
    vec![
        observing(
            case(
                "an observed deny",
                &four().tcp(ACK),
                watching(observe::DENY, deny_both()),
                CLEAN,
            ),
            DropReason::Denied,
        ),
        observing(
            case(
                "an observed ipv6 network",
                &six().tcp(ACK),
                watching(observe::DENY, none().deny("2001:db8::/32")),
                CLEAN,
            ),
            DropReason::Denied,
        ),
        observing(
            case(
                "an observed block",
                &four().tcp(ACK),
                watching(observe::BLOCK, none().block("192.0.2.1/32")),
                CLEAN,
            ),
            DropReason::Blocked,
        ),
        case(
            "a block in force behind an observed deny",
            &four().tcp(ACK),
            watching(observe::DENY, both()),
            BLOCKED,
        ),
        case(
            "a deny in force before an observed block",
            &four().tcp(ACK),
            watching(observe::BLOCK, both()),
            DENIED,
        ),
        case(
            "an observed deny of an allowed source",
            &four().tcp(ACK),
            watching(observe::ALL, deny_both().allow("192.0.2.0/24")),
            ALLOWED,
        ),
        case(
            "an ended deny is not observed",
            &four().tcp(ACK),
            watching(
                observe::DENY,
                none().rule(List::Deny, "192.0.2.1/32", Life::Ended),
            ),
            CLEAN,
        ),
        observing(
            case(
                "an observed deny of a malformed packet that is in force",
                &four().tcp(0),
                watching(observe::DENY, deny_both()),
                dropped(DropReason::BadFlags),
            ),
            DropReason::Denied,
        ),
        observing(
            case(
                "observed flags",
                &four().tcp(0),
                watching(observe::MALFORMED, none()),
                CLEAN,
            ),
            DropReason::BadFlags,
        ),
        observing(
            case(
                "an observed cut before the source",
                &four().tcp(SYN).patch(0, 0x55),
                watching(observe::MALFORMED, none()),
                CLEAN,
            ),
            DropReason::BadHeader,
        ),
        observing(
            after(
                case(
                    "an observed limit",
                    &syn,
                    watching(observe::SYN_LIMIT, burst.clone()),
                    CLEAN,
                ),
                std::slice::from_ref(&syn),
            ),
            DropReason::SynLimit,
        ),
        after(
            case(
                "observing the lists leaves the limit in force",
                &Frame::v4("198.51.105.2").tcp(SYN),
                watching(observe::DENY | observe::BLOCK, burst),
                SYN_LIMIT,
            ),
            &[Frame::v4("198.51.105.2").tcp(SYN)],
        ),
        case(
            "bypass passes a denied source",
            &four().tcp(SYN),
            Setup {
                bypass: Some(u64::MAX),
                ..deny_both()
            },
            BYPASS,
        ),
        case(
            "a bypass whose time is over passes nothing",
            &four().tcp(SYN),
            Setup {
                bypass: Some(1),
                ..deny_both()
            },
            DENIED,
        ),
        case(
            "a bypass without an end is none",
            &four().tcp(SYN),
            Setup {
                bypass: Some(0),
                ..deny_both()
            },
            DENIED,
        ),
        case(
            "bypass passes a lie",
            &four().patch(0, 0x95),
            Setup {
                bypass: Some(u64::MAX),
                ..none()
            },
            BYPASS,
        ),
    ]
}

/// Each case has a source of its own, as the limiter's state outlives a case.
pub(super) fn syn_limit() -> Vec<Case> {
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
