//! What the frame is wrapped in, and which protocols there are within.

use super::*;

pub(super) fn link() -> Vec<Case> {
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

pub(super) fn protocols() -> Vec<Case> {
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
