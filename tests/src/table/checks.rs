//! Rows on sources and flags that no stack sends, and on observing.

use gateway::dataplane::List;
use gateway_common::outcome::DropReason;
use gateway_common::tables::observe;

use super::{
    ALLOWED, BLOCKED, BYPASS, CLEAN, Case, DENIED, Life, SYN_LIMIT, Setup, after, case, deny_both, dropped,
    four, none, observing, six,
};
use crate::packet::{ACK, FIN, Frame, PSH, RST, SYN, URG};

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
