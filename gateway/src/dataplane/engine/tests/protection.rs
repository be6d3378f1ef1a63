//! Denies that would cut someone off: skipped, told, and judged anew.

use super::*;

#[test]
fn configured_denies_that_would_cut_someone_off_are_skipped_and_told() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let deny = "[192.0.2.0/24, 198.51.100.9, 172.16.5.0/24, 0.0.0.0/0, '::/0', 203.0.113.0/24]";
    let applied = engine
        .reconfigure(&with_lists("[]", deny), &By::default())
        .expect("memory");
    assert_eq!(applied.newly_skipped.len(), 4, "{:?}", applied.newly_skipped);
    assert_eq!(engine.skipped(), applied.newly_skipped);
    for (protected, why) in [
        ("192.0.2.1", "own address"),
        ("198.51.100.9", "SSH"),
        ("172.16.5.5", "trusted proxy"),
    ] {
        assert!(engine.skipped().iter().any(|text| text.contains(why)), "{why}");
        assert_eq!(outcome(&mut engine, protected), "clean", "{protected}");
        let explained = engine.explain(addr(protected), &[]).expect("memory");
        assert!(
            explained
                .deny
                .iter()
                .all(|row| row.skipped.is_some() && !row.enforced)
        );
    }
    assert_eq!(
        outcome(&mut engine, "203.0.113.7"),
        "denied",
        "the others are in force"
    );
    assert_eq!(outcome(&mut engine, "2001:db8::1"), "denied");
    let row = |engine: &mut Engine| engine.status().expect("memory").lists[1].clone();
    assert_eq!(
        row(&mut engine),
        ListRow {
            list: "deny".to_owned(),
            desired: 2,
            enforced: 2,
            skipped: 4
        }
    );
    let entries = engine.page(List::Deny, None, 100).expect("memory").rows;
    assert_eq!(entries.iter().filter(|row| row.skipped.is_some()).count(), 4);

    // Forced, it is in force, and stays so after a restart.
    let forced = AddRules {
        force: true,
        ..self::deny(&["192.0.2.0/24"], None)
    };
    engine.add_rules(forced).expect("forced");
    assert_eq!(outcome(&mut engine, "192.0.2.1"), "denied");
    assert_eq!(row(&mut engine).skipped, 3);
    drop(engine);
    let mut engine = self::engine(&stage, dir.path(), &tables);
    assert_eq!(outcome(&mut engine, "192.0.2.1"), "denied");
}

#[test]
fn a_default_deny_is_in_force_while_all_it_would_cut_off_are_allowed() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let allow = "[192.0.2.0/28, 198.51.100.9, 172.16.0.0/12]";
    engine
        .reconfigure(&with_lists(allow, "[0.0.0.0/0]"), &By::default())
        .expect("memory");
    assert_eq!(engine.skipped(), Vec::<String>::new());
    assert_eq!(outcome(&mut engine, "203.0.113.7"), "denied");
    assert_eq!(outcome(&mut engine, "192.0.2.1"), "allowed");
    // An address that comes later, as from DHCP, is not cut off.
    stage
        .host
        .lock()
        .expect("no panic")
        .own
        .push((addr("192.0.2.77"), "eth0".to_owned()));
    engine.watch();
    assert_eq!(engine.skipped().len(), 1);
    assert_eq!(outcome(&mut engine, "192.0.2.77"), "clean");
    // An allow that ends would end in the kernel before anyone looks; one without an end counts.
    let allow = |ttl| AddRules {
        list: RuleList::Allow,
        ..deny(&["192.0.2.77/32"], ttl)
    };
    engine.add_rules(allow(Some(60))).expect("not refused");
    assert_eq!(engine.skipped().len(), 1);
    engine.add_rules(allow(None)).expect("not refused");
    assert_eq!(engine.skipped(), Vec::<String>::new());
    assert_eq!(outcome(&mut engine, "203.0.113.7"), "denied");
    // Without the allow nobody is shut out either, and the one who took it away is told.
    let removed = engine
        .remove_rules(RuleList::Allow, &[net("192.0.2.77/32")], &By::default())
        .expect("saved");
    assert!(
        removed.notes.iter().any(|note| note.contains("NOT enforced")),
        "{:?}",
        removed.notes
    );
    assert_eq!(outcome(&mut engine, "192.0.2.77"), "clean");
}

#[test]
fn a_commanded_deny_that_becomes_a_lockout_later_is_skipped_too() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine
        .add_rules(deny(&["198.51.0.0/17"], None))
        .expect_err("it covers the operator");
    stage.host.lock().expect("no panic").operators.clear();
    engine
        .add_rules(deny(&["198.51.0.0/17"], None))
        .expect("nobody is cut off");
    assert_eq!(outcome(&mut engine, "198.51.100.9"), "denied");
    stage
        .host
        .lock()
        .expect("no panic")
        .operators
        .push(addr("198.51.100.9"));
    engine.watch();
    assert_eq!(outcome(&mut engine, "198.51.100.9"), "clean");
    stage.host.lock().expect("no panic").operators.clear();
    engine.watch();
    assert_eq!(outcome(&mut engine, "198.51.100.9"), "denied");
}

/// Of whom only the shell knows: the host does not list such a session.
fn typing() -> By {
    By {
        operators: vec![addr("203.0.112.9")],
        force: false,
    }
}

#[test]
fn no_verb_takes_away_what_keeps_the_operator_from_being_denied() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let own = net("203.0.112.9/32");
    let allow = || AddRules {
        list: RuleList::Allow,
        ..deny(&["203.0.112.9/32"], None)
    };
    engine.add_rules(allow()).expect("not refused");
    engine
        .add_rules(AddRules {
            operators: typing().operators,
            ..deny(&["203.0.112.0/24"], None)
        })
        .expect("allowed, so not cut off");

    let insists = By {
        force: true,
        ..typing()
    };
    let replacement = |by: By| ImportRules {
        list: RuleList::Allow,
        replace: true,
        force: by.force,
        operators: by.operators,
        bytes: 0,
        text: b"198.51.100.1\n".to_vec(),
    };
    let refused = [
        engine.remove_rules(RuleList::Allow, &[own], &typing()).err(),
        engine.flush_rules(RuleList::Allow, &typing()).err(),
        engine.import_rules(replacement(typing())).err(),
        // The configuration denies him, and his allow rule is not for good.
        engine.remove_rules(RuleList::Allow, &[own], &typing()).err(),
    ];
    for refusal in refused {
        let text = refusal.map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(
            text.starts_with("deny 203.0.112.0/24 would cut you off") && text.contains("203.0.112.9"),
            "{text}"
        );
    }
    assert_eq!(
        outcome(&mut engine, "203.0.112.9"),
        "allowed",
        "nothing was changed"
    );

    // A list that keeps him is no matter, nor is who is not denied.
    let mut keeps = replacement(typing());
    keeps.text = b"203.0.112.8/31\n".to_vec();
    engine.import_rules(keeps).expect("he stays allowed");
    let elsewhere = By {
        operators: vec![addr("198.51.100.77")],
        force: false,
    };
    engine
        .flush_rules(RuleList::Allow, &elsewhere)
        .expect("not denied");
    assert_eq!(outcome(&mut engine, "203.0.112.9"), "denied");
    // Who is denied already loses nothing more.
    engine.add_rules(allow()).expect("not refused");
    engine
        .remove_rules(RuleList::Allow, &[own], &insists)
        .expect("he insists");
    assert_eq!(outcome(&mut engine, "203.0.112.9"), "denied");
}

#[test]
fn a_reload_does_not_deny_the_operator_who_asks_for_it() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let config = with_lists("[10.0.0.0/8]", "[203.0.112.0/24]");
    let refused = engine.reconfigure(&config, &typing());
    assert!(
        matches!(refused, Err(Refusal::CutsOff { net: deny, .. }) if deny == net("203.0.112.0/24")),
        "{refused:?}"
    );
    // The old one is in force, whole.
    assert_eq!(outcome(&mut engine, "203.0.112.9"), "clean");
    assert_eq!(outcome(&mut engine, "203.0.113.9"), "denied");
    assert_eq!(engine.reconcile().expect("memory").changes, 0);
    let insists = By {
        force: true,
        ..typing()
    };
    engine.reconfigure(&config, &insists).expect("he insists");
    assert_eq!(outcome(&mut engine, "203.0.112.9"), "denied");
    // Now that he is denied, another reload takes nothing from him.
    engine.reconfigure(&config, &typing()).expect("no worse");
}
