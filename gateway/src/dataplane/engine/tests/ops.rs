//! Bypass, verification and denies that wait to be confirmed.

use super::*;

fn admits(tables: &Shared, stage: &Stage, source: &str) -> bool {
    tables.admits(addr(source), stage.now().boot_ns)
}

#[test]
fn a_bypass_passes_what_is_denied_until_its_end_and_survives_a_new_engine() {
    let (stage, dir, tables) = fresh();
    let mut config = config();
    config.state_dir = dir.path().to_owned();
    let open = || {
        let store = Store::lock(dir.path()).expect("the lock");
        Engine::open(
            Some(Box::new(tables.clone())),
            &config,
            Vec::new(),
            Some(store),
            stage.world(),
        )
        .expect("memory")
    };
    let mut engine = open();
    engine.reconcile().expect("memory");
    assert!(!admits(&tables, &stage, "203.0.113.7"));
    let on = engine
        .bypass_on(Duration::from_mins(10), "is it us?".to_owned())
        .expect("bypassed");
    assert!(!on.was_on && on.bypass.is_some_and(|bypass| bypass.left_ms == 600_000));
    assert!(admits(&tables, &stage, "203.0.113.7"));
    // A reload and a reconciliation leave it.
    engine.reconfigure(&config, &By::default()).expect("memory");
    assert!(admits(&tables, &stage, "203.0.113.7"));
    // So does the next process, which knows the reason.
    drop(engine);
    let mut engine = open();
    assert_eq!(engine.reconcile().expect("memory").changes, 0);
    let bypass = engine.bypass().expect("a bypass");
    assert_eq!(bypass.reason.as_deref(), Some("is it us?"));
    assert_eq!(
        engine.explain(addr("203.0.113.7"), &[]).expect("memory").outcome,
        "bypass"
    );
    // Its end is the program's: no engine has a hand in it.
    stage.pass(600);
    assert!(!admits(&tables, &stage, "203.0.113.7"));
    assert_eq!(engine.bypass(), None);
    engine.watch();
    let settings = tables.clone().settings().expect("memory");
    assert_eq!(settings.features & feature::BYPASS, 0, "tidied up");
    assert_eq!(settings.bypass_until_ns, 0);
}

#[test]
fn a_bypass_needs_an_end_within_a_day_and_a_reason() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    for (lasts, reason) in [
        (Duration::ZERO, "x"),
        (LONGEST_BYPASS + Duration::from_secs(1), "x"),
        (Duration::from_secs(1), " "),
    ] {
        let refused = engine.bypass_on(lasts, reason.to_owned());
        assert!(
            matches!(refused, Err(Refusal::Invalid(_))),
            "{lasts:?} {reason:?}"
        );
    }
    assert_eq!(engine.bypass(), None);
    let off = engine.bypass_off().expect("nothing to do");
    assert!(!off.was_on && off.bypass.is_none());
}

#[test]
fn a_bypass_ends_by_command() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine
        .bypass_on(Duration::from_mins(1), "x".to_owned())
        .expect("bypassed");
    assert!(engine.bypass_off().expect("ended").was_on);
    assert!(!admits(&tables, &stage, "203.0.113.7"));
}

#[test]
fn verify_names_and_repairs_what_others_did_and_nothing_else() {
    let (stage, dir, mut tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine.add_rules(deny(&["192.0.2.9/32"], None)).expect("added");
    engine.add_rules(deny(&["192.0.2.8/32"], Some(5))).expect("added");
    assert_eq!(engine.verify().expect("memory").drift, 0);
    // What has ended is swept out, and is no drift.
    stage.pass(10);
    let verified = engine.verify().expect("memory");
    assert_eq!((verified.drift, verified.entries), (0, 3), "{verified:?}");

    let settings = tables.settings().expect("memory");
    let put = Change::Put {
        list: List::Allow,
        net: net("0.0.0.0/0"),
        rule: gateway_common::tables::Rule {
            origin: Origin::Command as u32,
            ..Default::default()
        },
    };
    let remove = Change::Remove {
        list: List::Deny,
        net: net("192.0.2.9/32"),
    };
    let open = Change::settings(gateway_common::tables::Settings {
        ready: 0,
        features: settings.features | feature::BYPASS,
        bypass_until_ns: u64::MAX,
        ..settings
    });
    assert!(tables.apply(&[put, remove, open]).is_empty());
    let verified = engine.verify().expect("memory");
    assert_eq!((verified.drift, verified.repaired), (3, 3), "{verified:?}");
    let mut kinds: Vec<&str> = verified.differences.iter().map(|row| row.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["extra", "missing", "settings"]);
    let text = format!("{verified:?}");
    assert!(
        text.contains("ready, bypass") && text.contains("deny 192.0.2.9 was not"),
        "{text}"
    );
    assert!(!admits(&tables, &stage, "192.0.2.9"));
    assert_eq!(engine.verify().expect("memory").drift, 0);
    assert_eq!(engine.repaired(), 3);
}

#[test]
fn an_unconfirmed_deny_ends_and_a_confirmed_one_has_its_own_end() {
    let (stage, dir, tables) = fresh();
    let mut config = config();
    config.state_dir = dir.path().to_owned();
    let open = || {
        let store = Store::lock(dir.path()).expect("the lock");
        let saved = store.load().expect("state");
        let mut engine = Engine::open(
            Some(Box::new(tables.clone())),
            &config,
            saved,
            Some(store),
            stage.world(),
        )
        .expect("memory");
        engine.reconcile().expect("memory");
        engine
    };
    let minute = Duration::from_mins(1);
    let mut engine = open();
    engine
        .add_unconfirmed(deny(&["192.0.2.9/32"], None), minute)
        .expect("added");
    engine
        .add_unconfirmed(deny(&["192.0.2.10/32"], Some(600)), minute)
        .expect("added");
    engine
        .add_unconfirmed(deny(&["192.0.2.11/32"], None), minute)
        .expect("added");
    let rows = engine.page(List::Deny, None, 100).expect("memory").rows;
    assert_eq!(rows.iter().filter(|row| row.unconfirmed).count(), 3);
    assert!(!admits(&tables, &stage, "192.0.2.9"));
    // The next process can confirm, too.
    drop(engine);
    let mut engine = open();
    stage.pass(30);
    let two = [net("192.0.2.9/32"), net("192.0.2.10/32")];
    assert_eq!(engine.confirm(&two).expect("confirmed").confirmed, two);
    // A second time there is nothing to confirm.
    assert_eq!(engine.confirm(&two).expect("asked").missing.len(), 2);
    stage.pass(31);
    assert!(!admits(&tables, &stage, "192.0.2.9") && !admits(&tables, &stage, "192.0.2.10"));
    assert!(admits(&tables, &stage, "192.0.2.11"), "never confirmed");
    let late = engine.confirm(&[]).expect("asked");
    assert!(late.confirmed.is_empty(), "{late:?}");
    // The ttl counts from the order.
    stage.pass(600);
    assert!(!admits(&tables, &stage, "192.0.2.9") && admits(&tables, &stage, "192.0.2.10"));
    drop(engine);
    let engine = open();
    let kept: Vec<IpNet> = engine.desired.entries(List::Deny).keys().copied().collect();
    assert_eq!(kept, [net("192.0.2.9/32")]);
}

#[test]
fn what_is_denied_already_is_not_put_to_the_test() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine.add_rules(deny(&["192.0.2.9/32"], None)).expect("added");
    let minute = Duration::from_mins(1);
    for (order, within) in [
        (deny(&["192.0.2.9/32"], None), minute),
        (deny(&["192.0.2.10/32"], Some(60)), minute),
        (deny(&["192.0.2.10/32"], None), Duration::ZERO),
    ] {
        let refused = engine.add_unconfirmed(order, within);
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    }
    // A deny that waits may be asked for again; a plain one takes it over for good.
    engine
        .add_unconfirmed(deny(&["192.0.2.10/32"], None), minute)
        .expect("added");
    engine
        .add_unconfirmed(deny(&["192.0.2.10/32"], None), minute)
        .expect("again");
    engine
        .add_rules(deny(&["192.0.2.10/32"], None))
        .expect("for good");
    stage.pass(61);
    engine.watch();
    assert!(!admits(&tables, &stage, "192.0.2.10"));
    assert!(engine.confirm(&[]).expect("asked").confirmed.is_empty());
}
