//! Allow, deny and block entries, single and in networks, and their ends.

use super::*;

pub(super) fn lists() -> Vec<Case> {
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

pub(super) fn deadlines() -> Vec<Case> {
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
