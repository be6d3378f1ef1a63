//! Lists taken over from text, replaced and given back.

use super::*;

fn import(text: &str, replace: bool) -> ImportRules {
    ImportRules {
        list: RuleList::Deny,
        replace,
        force: false,
        operators: Vec::new(),
        bytes: text.len() as u64,
        text: text.as_bytes().to_vec(),
    }
}

#[test]
fn a_list_is_taken_over_replaced_and_given_back() {
    let (stage, dir, tables) = fresh();
    let mut first = engine(&stage, dir.path(), &tables);
    let until = stage.now().wall_ms + 60_000;
    let text = format!("198.51.100.7 until={until} # a\n203.0.112.0/24\n198.51.100.7 until={until} # b\n");
    let added = first.import_rules(import(&text, false)).expect("not refused");
    assert_eq!((added.added, added.already, added.failed), (2, 0, 0));
    assert_eq!(outcome(&mut first, "203.0.112.9"), "denied");
    let (count, exported) = first.export_rules(RuleList::Deny);
    let expected = format!("198.51.100.7 until={until} # b\n203.0.112.0/24\n");
    assert_eq!((count, String::from_utf8(exported).expect("text")), (2, expected));

    let added = first
        .import_rules(import("203.0.112.0/24\n192.0.2.77\n", true))
        .expect("not refused");
    assert_eq!((added.added, added.already, added.removed), (1, 1, 1));
    assert_eq!(outcome(&mut first, "198.51.100.7"), "clean");
    assert_eq!(
        outcome(&mut first, "203.0.113.9"),
        "denied",
        "the configuration stays"
    );
    drop(first);
    let mut second = engine(&stage, dir.path(), &tables);
    let (count, exported) = second.export_rules(RuleList::Deny);
    let expected = "192.0.2.77\n203.0.112.0/24\n".to_owned();
    assert_eq!((count, String::from_utf8(exported).expect("text")), (2, expected));
    assert_eq!(outcome(&mut second, "192.0.2.77"), "denied");
}

#[test]
fn a_list_that_can_not_be_read_or_cuts_someone_off_changes_nothing() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine
        .import_rules(import("203.0.112.0/24\n", false))
        .expect("not refused");
    for (text, line) in [("198.51.100.7\nx\n", 2), ("10.0.0.1/8\n", 1)] {
        let refused = engine.import_rules(import(text, true));
        assert!(
            matches!(refused, Err(Refusal::Unreadable { line: at, .. }) if at == line),
            "{refused:?}"
        );
    }
    // The host itself, a network around an operator, and one inside a trusted proxy's.
    for text in [
        "192.0.2.1\n",
        "1.0.0.0/8\n198.51.0.0/16\n",
        "172.16.9.0/24\n",
        "::/0\n0.0.0.0/0\n",
    ] {
        let refused = engine.import_rules(import(text, true));
        assert!(matches!(refused, Err(Refusal::Protected(..))), "{refused:?}");
    }
    assert_eq!(engine.export_rules(RuleList::Deny).0, 1);
    assert_eq!(engine.sizes(List::Deny), (2, 2));
}

#[test]
fn a_change_that_can_not_be_saved_is_not_made() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine
        .add_rules(deny(&["203.0.112.0/24"], None))
        .expect("not refused");
    // A directory in the file's place: neither appended to nor replaced, whoever runs the test.
    let file = dir.path().join("rules.txt");
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir_all(file.join("x")).expect("made");
    let failed = engine.add_rules(deny(&["198.51.100.7/32"], None));
    assert!(matches!(failed, Err(Refusal::Store(_))), "{failed:?}");
    let failed = engine.flush_rules(RuleList::Deny, &By::default());
    assert!(matches!(failed, Err(Refusal::Store(_))), "{failed:?}");
    assert_eq!(outcome(&mut engine, "198.51.100.7"), "clean");
    assert_eq!(outcome(&mut engine, "203.0.112.7"), "denied");
    std::fs::remove_dir_all(&file).expect("removed");
    engine
        .add_rules(deny(&["198.51.100.7/32"], None))
        .expect("not refused");
    drop(engine);
    let saved = crate::dataplane::store::peek(dir.path()).expect("state");
    assert_eq!(saved.len(), 2, "the file was written whole again");
}

#[test]
fn pages_make_up_the_list_whatever_their_size() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine
        .reconfigure(
            &with_lists("[]", "[203.0.113.0/24, 198.51.100.7]"),
            &By::default(),
        )
        .expect("memory");
    // One of them is in the configuration as well, and has two rows.
    let nets = [
        "198.51.100.7/32",
        "198.18.0.1/32",
        "198.18.0.0/24",
        "2001:db8::/32",
        "203.0.113.9/32",
    ];
    engine.add_rules(deny(&nets, None)).expect("not refused");
    let whole = engine.page(List::Deny, None, 100).expect("memory");
    assert_eq!((whole.rows.len(), whole.more), (7, false));
    assert!(whole.rows.iter().all(|row| row.enforced));
    assert!(whole.rows.is_sorted_by_key(|row| row.net));
    for most in 1..=8 {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = engine.page(List::Deny, after, most).expect("memory");
            assert!(!page.rows.is_empty() && page.rows.len() <= most + 1);
            after = page.rows.last().map(|row| row.net);
            rows.extend(page.rows);
            if !page.more {
                break;
            }
        }
        assert_eq!(rows, whole.rows, "{most} a page");
    }
    assert_eq!(engine.page(List::Allow, None, 1).expect("memory").rows, []);
}

#[test]
fn a_rule_that_has_ended_and_is_added_again_is_in_force_again() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let order = || deny(&["198.51.100.7/32"], Some(1));
    for round in 0..4 {
        let added = engine.add_rules(order()).expect("not refused");
        assert_eq!(added.failures, Vec::<String>::new(), "{round}");
        assert_eq!(outcome(&mut engine, "198.51.100.7"), "denied", "{round}");
        // Over, and not swept out yet. The next end is within two seconds of this one.
        stage.pass(2);
        assert_eq!(outcome(&mut engine, "198.51.100.7"), "clean", "{round}");
    }
    // One that was renewed lasts as long as it was renewed for.
    engine
        .add_rules(deny(&["198.51.100.7/32"], Some(2)))
        .expect("not refused");
    stage.pass(1);
    engine
        .add_rules(deny(&["198.51.100.7/32"], Some(2)))
        .expect("not refused");
    stage.pass(1);
    assert_eq!(outcome(&mut engine, "198.51.100.7"), "denied");
    // Nor does an ended entry keep the periodic comparison from putting it back.
    stage.pass(2);
    let entry = Entry {
        origin: Origin::Command,
        deadline_ns: engine.now().after(Duration::from_secs(1)),
        reason: None,
        detail: 0,
        forced: false,
    };
    engine.desired.put(List::Deny, net("198.51.100.7/32"), entry);
    engine.reconcile().expect("memory");
    assert_eq!(outcome(&mut engine, "198.51.100.7"), "denied");
}

#[test]
fn what_an_order_changes_of_a_rule_is_said() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let mut add = |ttl, reason: Option<&str>| {
        let order = AddRules {
            reason: reason.map(str::to_owned),
            ..deny(&["198.51.100.7/32"], ttl)
        };
        let added = engine.add_rules(order).expect("not refused");
        (added.added, added.already, added.changed, added.notes)
    };
    assert_eq!(add(None, Some("a")), (1, 0, 0, vec![]));
    assert_eq!(add(None, Some("a")), (0, 1, 0, vec![]));
    let said = "198.51.100.7 was there already: it ended never, and ends in 1h now".to_owned();
    assert_eq!(add(Some(3600), Some("a")), (0, 1, 1, vec![said]));
    stage.pass(600);
    let said =
        "198.51.100.7 was there already: it ended in 50m, and ends in 1h now; its reason was \"a\", and is \
                none now"
            .to_owned();
    assert_eq!(add(Some(3600), None), (0, 1, 1, vec![said]));
}
