//! Frames whose bytes lie.

use super::*;

pub(super) fn lies() -> Vec<Case> {
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
