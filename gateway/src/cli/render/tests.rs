//! Wording that people act on.

use super::*;
use crate::admin::api::Explanation;

fn row(net: &str) -> EntryRow {
    EntryRow {
        net: net.parse().expect("a network"),
        origin: "command".to_owned(),
        reason: None,
        detail: 0,
        left_ms: None,
        until_ms: None,
        hits: 0,
        enforced: true,
        skipped: None,
        observed: false,
        unconfirmed: false,
    }
}

fn explanation(verdict: &str, outcome: &str) -> Explained {
    Explained {
        packets: Explanation {
            addr: "192.0.2.1".parse().expect("an address"),
            verdict: verdict.to_owned(),
            outcome: outcome.to_owned(),
            observed: None,
            enforced: true,
            unfiltered: Vec::new(),
            allow: Vec::new(),
            deny: vec![row("192.0.2.0/24")],
            block: Vec::new(),
            protected: Some("192.0.2.1 is a trusted proxy".to_owned()),
            bypass: None,
        },
        strikes: None,
        refused_when_forwarded: false,
    }
}

#[test]
fn what_is_denied_is_not_called_protected_from_deny() {
    let text = explained(&explanation("drop", "denied"), "");
    assert!(!text.contains("protected") && text.contains("CAREFUL"), "{text}");
    let mut allowed = explanation("pass", "allowed");
    allowed.packets.allow.push(row("192.0.2.1/32"));
    let text = explained(&allowed, "");
    assert!(
        text.contains("deny 192.0.2.0/24 from command, no end, 0 packets; without effect"),
        "{text}"
    );
    assert!(
        text.contains("protected from blocks") && !text.contains("protected from deny"),
        "{text}"
    );
}

#[test]
fn of_a_skipped_deny_the_reason_is_told_and_not_that_it_is_in_force() {
    let mut skipped = explanation("pass", "clean");
    skipped.packets.deny[0].enforced = false;
    skipped.packets.deny[0].skipped = skipped.packets.protected.clone();
    let text = explained(&skipped, "");
    assert!(
        text.contains("0 packets: SKIPPED, since 192.0.2.1 is a trusted proxy")
            && text.contains("protected from deny and block"),
        "{text}"
    );
    assert!(
        !text.contains("NOT IN FORCE") && !text.contains("CAREFUL"),
        "{text}"
    );
    // A forced one beside it drops.
    skipped.packets.verdict = "drop".to_owned();
    skipped.packets.outcome = "denied".to_owned();
    skipped.packets.deny.push(row("192.0.2.1/32"));
    let text = explained(&skipped, "");
    assert!(text.contains("SKIPPED") && text.contains("CAREFUL"), "{text}");
    assert!(!text.contains("protected from"), "{text}");
}

#[test]
fn the_way_out_leads_to_the_same_gateway() {
    let mut blocked = explanation("drop", "blocked");
    blocked.packets.block.push(row("192.0.2.1/32"));
    let text = explained(&blocked, " --config demo.yaml");
    assert!(
        text.ends_with("gateway block del 192.0.2.1 --config demo.yaml\n"),
        "{text}"
    );
    let missing = Unblocked {
        missing: vec![blocked.packets.addr],
        ..Unblocked::default()
    };
    let text = unblocked(&missing, " --socket /s");
    assert!(text.contains("`gateway explain 192.0.2.1 --socket /s`"), "{text}");
}

#[test]
fn what_was_there_is_not_called_added() {
    let said = |added, already, enforced| {
        super::added(&Added {
            added,
            already,
            enforced,
            ..Added::default()
        })
    };
    assert_eq!(said(2, 0, true), "2 networks added, and in force\n");
    assert_eq!(
        said(1, 3, true),
        "1 network added, 3 there already, and in force\n"
    );
    assert_eq!(
        said(0, 1, true),
        "nothing new, 1 network there already, and in force\n"
    );
    assert_eq!(
        said(0, 1, false),
        "nothing new, 1 network there already: remembered; no gateway is attached, so nothing enforces them yet\n"
    );
    let removed = removed(&Removed::default());
    assert_eq!(
        removed,
        "0 networks removed; no gateway is attached, so nothing was in force\n"
    );
    let bare = super::removed(&Removed {
        unfiltered: vec!["eth0: it is gone".to_owned()],
        ..Removed::default()
    });
    assert_eq!(
        bare,
        "0 networks removed; no interface is filtered, so nothing was in force\n  not filtered: eth0: it is gone\n"
    );
}

#[test]
fn spans_show_the_two_largest_units() {
    for (ms, text) in [
        (0, "0s"),
        (1, "1s"),
        (61_000, "1m 1s"),
        (3_600_000, "1h"),
        (90_061_000, "1d 1h"),
        (86_400_000, "1d"),
    ] {
        assert_eq!(span(ms), text);
    }
}

#[test]
fn a_reason_can_not_steer_the_terminal() {
    assert_eq!(clean("a\x1b[2Jb\r\n"), "a?[2Jb??");
    assert_eq!(clean("a\u{202e}b\u{200b}ä"), r"a\u{202e}b\u{200b}ä");
}
