//! The engine on tables in memory, with a clock and a host of the test's making.

mod bulk;
mod ops;
mod protection;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_common::outcome::{DropReason, PassReason};

use super::*;
use crate::config::Config;
use crate::dataplane::shared::Shared;

/// A clock and a host that the test moves, and what the engine said.
#[derive(Clone)]
struct Stage {
    seconds: Arc<Mutex<u64>>,
    host: Arc<Mutex<Host>>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Default for Stage {
    fn default() -> Self {
        let host = Host {
            own: vec![("192.0.2.1".parse().expect("an address"), "eth0".to_owned())],
            operators: vec!["198.51.100.9".parse().expect("an address")],
            ..Host::default()
        };
        Self {
            seconds: Arc::default(),
            host: Arc::new(Mutex::new(host)),
            said: Arc::default(),
        }
    }
}

impl Stage {
    fn now(&self) -> Now {
        let seconds = *self.seconds.lock().expect("no panic");
        Now {
            boot_ns: (1_000 + seconds) * 1_000_000_000,
            wall_ms: 1_700_000_000_000 + seconds * 1_000,
        }
    }

    fn pass(&self, seconds: u64) {
        *self.seconds.lock().expect("no panic") += seconds;
    }

    fn world(&self) -> World {
        let stage = self.clone();
        let host = Arc::clone(&self.host);
        World {
            clock: Box::new(move || stage.now()),
            host: Box::new(move || host.lock().expect("no panic").clone()),
            events: Box::new(Heard(Arc::clone(&self.said))),
        }
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().expect("no panic"))
    }
}

struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, text: String) {
        self.0.lock().expect("no panic").push(text);
    }
}

impl Events for Heard {
    fn blocked(&mut self, addr: IpAddr) {
        self.note(format!("blocked {addr}"));
    }
    fn observed(&mut self, addr: IpAddr) {
        self.note(format!("observed {addr}"));
    }
    fn unblocked(&mut self, addr: IpAddr) {
        self.note(format!("unblocked {addr}"));
    }
    fn refused(&mut self, addr: IpAddr, _: &Refusal) {
        self.note(format!("refused {addr}"));
    }
    fn unfiltered(&mut self, interfaces: Vec<String>) {
        self.note(format!("unfiltered {interfaces:?}"));
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a literal")
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

const CONFIG: &str = "
listen: [{address: '127.0.0.1:0'}]
xdp: {mode: none, allow: [10.0.0.0/8], deny: [203.0.113.0/24]}
trusted_proxies: [172.16.0.0/12]
routes: [{match: {path: /**}, upstream: [{url: 'http://127.0.0.1:1'}]}]
";

fn config() -> Config {
    parse(CONFIG)
}

fn parse(text: &str) -> Config {
    Config::parse(text, "test.yaml", std::path::Path::new("/"))
        .expect("a good configuration")
        .0
}

fn with_lists(allow: &str, deny: &str) -> Config {
    parse(
        &CONFIG
            .replace("[10.0.0.0/8]", allow)
            .replace("[203.0.113.0/24]", deny),
    )
}

/// A stage, an empty state directory and empty tables.
fn fresh() -> (Stage, tempfile::TempDir, Shared) {
    (
        Stage::default(),
        tempfile::tempdir().expect("a directory"),
        Shared::new([1, 2]),
    )
}

fn engine(stage: &Stage, directory: &std::path::Path, tables: &Shared) -> Engine {
    let store = Store::lock(directory).expect("the lock");
    let saved = store.load().expect("state");
    let mut engine = Engine::open(
        Some(Box::new(tables.clone())),
        &config(),
        saved,
        Some(store),
        stage.world(),
    )
    .expect("an engine");
    assert_eq!(engine.reconcile().expect("memory").failures, Vec::<String>::new());
    engine
}

fn deny(nets: &[&str], ttl: Option<u64>) -> AddRules {
    AddRules {
        list: RuleList::Deny,
        nets: nets.iter().map(|text| net(text)).collect(),
        ttl: ttl.map(Duration::from_secs),
        reason: Some("test".to_owned()),
        force: false,
        operators: Vec::new(),
    }
}

fn block(text: &str, seconds: u64) -> BlockOrder {
    BlockOrder {
        addr: addr(text),
        lasts: Duration::from_secs(seconds),
        origin: Origin::Strike,
        detail: 13,
        reason: "test".to_owned(),
    }
}

fn outcome(engine: &mut Engine, text: &str) -> String {
    engine.explain(addr(text), &[]).expect("memory").outcome
}

#[test]
fn a_rule_is_in_force_at_once_and_ends_in_time() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let added = engine
        .add_rules(deny(&["203.0.112.0/25"], Some(60)))
        .expect("not refused");
    assert_eq!((added.added, added.enforced, added.failures.len()), (1, true, 0));
    assert_eq!(outcome(&mut engine, "203.0.112.100"), DropReason::Denied.name());
    assert_eq!(outcome(&mut engine, "203.0.112.200"), PassReason::Clean.name());
    // An end is enforced to a quarter of a second.
    stage.pass(61);
    assert_eq!(
        outcome(&mut engine, "203.0.112.100"),
        PassReason::Clean.name(),
        "before any sweep"
    );
    engine.reconcile().expect("memory");
    assert_eq!(engine.sizes(List::Deny), (1, 1), "the configured one is left");
}

#[test]
fn rules_and_blocks_survive_a_restart_and_rules_survive_a_reboot() {
    let (stage, dir, tables) = fresh();
    let mut first = engine(&stage, dir.path(), &tables);
    first
        .add_rules(deny(&["198.51.100.7/32"], Some(100)))
        .expect("not refused");
    first.block(block("198.51.100.8", 100)).expect("not refused");
    drop(first);
    stage.pass(40);
    let mut second = engine(&stage, dir.path(), &tables);
    assert_eq!(outcome(&mut second, "198.51.100.7"), "denied");
    assert_eq!(outcome(&mut second, "198.51.100.8"), "blocked");
    let row = second
        .page(List::Deny, None, 100)
        .expect("memory")
        .rows
        .into_iter()
        .find(|row| row.origin == "command");
    assert_eq!(row.and_then(|row| row.left_ms), Some(60_000));
    drop(second);
    let mut after_boot = engine(&stage, dir.path(), &Shared::new([0, 0]));
    assert_eq!(outcome(&mut after_boot, "198.51.100.7"), "denied");
    stage.pass(61);
    assert_eq!(outcome(&mut after_boot, "198.51.100.7"), "clean");
}

#[test]
fn the_protected_are_refused_and_nothing_changes() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    for protected in ["192.0.2.1/32", "192.0.2.0/24", "198.51.100.9/32", "172.16.5.0/24"] {
        let order = deny(&["198.51.100.77/32", protected], None);
        assert!(
            matches!(engine.add_rules(order.clone()), Err(Refusal::Protected(..))),
            "{protected}"
        );
        assert_eq!(outcome(&mut engine, "198.51.100.77"), "clean", "all or nothing");
    }
    let forced = AddRules {
        force: true,
        ..deny(&["198.51.100.9/32"], None)
    };
    engine.add_rules(forced).expect("forced");
    assert_eq!(outcome(&mut engine, "198.51.100.9"), "denied");
}

#[test]
fn never_blocked_are_the_host_the_operator_the_proxy_and_the_allowed() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    for protected in [
        "192.0.2.1",
        "198.51.100.9",
        "172.16.5.5",
        "10.1.2.3",
        "::ffff:10.1.2.3",
    ] {
        assert!(engine.block(block(protected, 60)).is_err(), "{protected}");
        assert_eq!(stage.said(), [format!("refused {protected}")]);
    }
    engine.block(block("198.51.100.8", 60)).expect("not refused");
    assert_eq!(stage.said(), ["blocked 198.51.100.8"]);
    assert_eq!(engine.sizes(List::Block), (1, 1));
}

#[test]
fn an_allow_lifts_the_blocks_under_it() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    engine.block(block("198.51.100.8", 60)).expect("not refused");
    let allow = AddRules {
        list: RuleList::Allow,
        ..deny(&["198.51.100.0/24"], None)
    };
    let added = engine.add_rules(allow).expect("not refused");
    assert!(added.notes[0].contains("198.51.100.8"), "{:?}", added.notes);
    assert_eq!(stage.said(), ["blocked 198.51.100.8", "unblocked 198.51.100.8"]);
    assert_eq!(outcome(&mut engine, "198.51.100.8"), "allowed");
    assert_eq!(engine.sizes(List::Block), (0, 0));
}

#[test]
fn configured_rules_stay_and_are_named() {
    let (stage, dir, tables) = fresh();
    let mut engine = engine(&stage, dir.path(), &tables);
    let removed = engine
        .remove_rules(
            RuleList::Deny,
            &[net("203.0.113.0/24"), net("203.0.113.7/32")],
            &By::default(),
        )
        .expect("saved");
    assert_eq!(removed.removed, 0);
    assert!(
        removed.missing[0].contains("configuration"),
        "{:?}",
        removed.missing
    );
    assert!(
        removed.missing[1].contains("covered by 203.0.113.0/24"),
        "{:?}",
        removed.missing
    );
    engine
        .add_rules(deny(&["203.0.113.0/24"], Some(10)))
        .expect("not refused");
    stage.pass(20);
    engine.reconcile().expect("memory");
    assert_eq!(
        outcome(&mut engine, "203.0.113.7"),
        "denied",
        "the command's end is not the configuration's"
    );
}

#[test]
fn drift_is_seen_and_repaired() {
    let (stage, dir, mut tables) = (
        Stage::default(),
        tempfile::tempdir().expect("a directory"),
        Shared::new([0, 0]),
    );
    let mut engine = engine(&stage, dir.path(), &tables);
    engine
        .add_rules(deny(&["198.51.100.7/32"], None))
        .expect("not refused");
    tables.apply(&[
        Change::Remove {
            list: List::Deny,
            net: net("198.51.100.7/32"),
        },
        Change::Put {
            list: List::Deny,
            net: net("198.51.100.66/32"),
            rule: gateway_common::tables::Rule::default(),
        },
    ]);
    let status = engine.status().expect("memory");
    let row = status
        .lists
        .iter()
        .find(|row| row.list == "deny")
        .expect("the deny list");
    assert_eq!((row.desired, row.enforced), (2, 2));
    assert!(
        !engine
            .page(List::Deny, None, 100)
            .expect("memory")
            .rows
            .iter()
            .all(|row| row.enforced)
    );
    assert_eq!(engine.reconcile().expect("memory").changes, 2);
    assert_eq!(outcome(&mut engine, "198.51.100.7"), "denied");
    assert_eq!(outcome(&mut engine, "198.51.100.66"), "clean");
}

#[test]
fn without_tables_rules_are_remembered_and_said_not_to_be_enforced() {
    let (stage, dir) = (Stage::default(), tempfile::tempdir().expect("a directory"));
    let store = Store::lock(dir.path()).expect("the lock");
    let mut engine =
        Engine::open(None, &config(), Vec::new(), Some(store), stage.world()).expect("an engine");
    assert!(
        !engine
            .add_rules(deny(&["198.51.100.7/32"], None))
            .expect("not refused")
            .enforced
    );
    drop(engine);
    let mut later = self::engine(&stage, dir.path(), &Shared::new([0, 0]));
    assert_eq!(outcome(&mut later, "198.51.100.7"), "denied");
}

#[test]
fn a_store_that_can_not_be_written_changes_nothing() {
    let stage = Stage::default();
    let tables = Shared::new([0, 0]);
    let mut engine =
        Engine::open(Some(Box::new(tables)), &config(), Vec::new(), None, stage.world()).expect("an engine");
    engine.reconcile().expect("memory");
    assert!(matches!(
        engine.add_rules(deny(&["198.51.100.7/32"], None)),
        Err(Refusal::ReadOnly)
    ));
    assert_eq!(outcome(&mut engine, "198.51.100.7"), "clean");
}
