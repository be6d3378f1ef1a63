//! Rows on the limits: SYNs by source, by network and in all, ICMP and UDP.

use gateway_common::outcome::DropReason;
use gateway_common::tables::limit;

use super::{ALLOWED, CLEAN, Case, DENIED, SYN_LIMIT, Setup, after, case, dropped, none};
use crate::packet::{ACK, Frame, PSH, SYN};

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
