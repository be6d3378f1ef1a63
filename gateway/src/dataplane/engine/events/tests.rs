use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_common::tables::{Origin, feature};

use super::super::{Added, BlockOrder, By, Engine, Events, Refusal, World};
use crate::config::model::Config;
use crate::config::{defaults, model::OBSERVABLE};
use crate::dataplane::clock::Now;
use crate::dataplane::protected::Host;
use crate::dataplane::shared::Shared;
use crate::dataplane::store::RuleList;
use crate::dataplane::{Backend as _, List};

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn note(&self, text: String) {
        self.0.lock().expect("no panic").push(text);
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

impl Events for Heard {
    fn blocked(&mut self, addr: IpAddr) {
        self.note(format!("blocked {addr}"));
    }
    fn observed(&mut self, addr: IpAddr) {
        self.note(format!("observed {addr}"));
    }
    fn unblocked(&mut self, _: IpAddr) {}
    fn refused(&mut self, _: IpAddr, _: &Refusal) {}
    fn unfiltered(&mut self, _: Vec<String>) {}
}

fn config(observe: &str) -> Config {
    let mut config = defaults::config();
    config.xdp.deny = vec!["203.0.113.0/24".parse().expect("a network")];
    let bits = OBSERVABLE.iter().find(|(name, _)| *name == observe);
    config.xdp.observe = bits.map_or(0, |(_, bits)| *bits);
    config
}

fn open(tables: &Shared, config: &Config, heard: &Heard) -> Engine {
    let world = World {
        clock: Box::new(|| Now {
            boot_ns: 1_000_000_000_000,
            wall_ms: 1_700_000_000_000,
        }),
        host: Box::new(Host::default),
        events: Box::new(heard.clone()),
    };
    Engine::open(Some(Box::new(tables.clone())), config, Vec::new(), None, world).expect("memory")
}

fn events(tables: &mut Shared) -> bool {
    tables.settings().expect("memory").features & feature::EVENTS != 0
}

#[test]
fn the_bit_of_events_outlives_reconciling_and_a_new_configuration_but_not_the_engine() {
    let (mut tables, heard) = (Shared::new([1, 2]), Heard::default());
    let mut engine = open(&tables, &config(""), &heard);
    engine.reconcile().expect("memory");
    assert!(!events(&mut tables));
    assert_eq!(engine.listen(true).expect("memory"), 1_000_000);
    assert!(events(&mut tables));
    assert_eq!(engine.reconcile().expect("memory").changes, 0);
    engine
        .reconfigure(&config("deny"), &By::default())
        .expect("memory");
    assert!(events(&mut tables));
    engine.listen(false).expect("memory");
    assert!(!events(&mut tables));
    // An engine that dies leaves the bit behind; the next one clears it when it starts.
    engine.listen(true).expect("memory");
    drop(engine);
    let mut next = open(&tables, &config("deny"), &heard);
    assert!(events(&mut tables));
    next.reconcile().expect("memory");
    assert!(!events(&mut tables));
}

#[test]
fn listening_touches_nothing_but_its_own() {
    let (mut tables, heard) = (Shared::new([1, 2]), Heard::default());
    open(&tables, &config("deny"), &heard)
        .reconcile()
        .expect("memory");
    let before = tables.enforced().expect("memory");
    // As a command does it that reads another configuration.
    let mut command = open(&tables, &defaults::config(), &heard);
    command.listen(true).expect("memory");
    let during = tables.enforced().expect("memory");
    assert!(during.deny == before.deny && during.settings.observe == before.settings.observe);
    assert!(events(&mut tables));
    command.listen(false).expect("memory");
    assert_eq!(tables.enforced().expect("memory"), before);
}

#[test]
fn an_observed_block_is_told_as_such_and_is_no_drop() {
    let heard = Heard::default();
    let addr: IpAddr = "198.51.100.7".parse().expect("an address");
    let order = || BlockOrder {
        addr,
        lasts: Duration::from_secs(60),
        origin: Origin::Strike,
        detail: 1,
        reason: "a test".to_owned(),
    };
    let tables = Shared::new([1, 2]);
    let mut engine = open(&tables, &config("blocks"), &heard);
    engine.reconcile().expect("memory");
    assert_eq!(engine.observing(), ["blocks"]);
    engine.block(order()).expect("not refused");
    assert_eq!(heard.said(), ["observed 198.51.100.7"]);
    let explained = engine.explain(addr, &[]).expect("memory");
    assert_eq!(
        (explained.verdict.as_str(), explained.outcome.as_str()),
        ("pass", "clean")
    );
    assert_eq!(explained.observed.as_deref(), Some("blocked"));
    assert!(explained.block[0].observed && explained.block[0].enforced);
    assert!(tables.admits(addr, 1_000_000_000_000));
    let status = engine.status().expect("memory");
    let row = status
        .counters
        .iter()
        .find(|row| row.verdict == "observed" && row.reason == "blocked");
    assert_eq!(row.map(|row| row.packets), Some(1));
    assert_eq!(status.observing, ["blocks"]);
    // Enforced again, what was blocked is blocked.
    engine.reconfigure(&config(""), &By::default()).expect("memory");
    assert!(!tables.admits(addr, 1_000_000_000_000));
    engine.block(order()).expect("not refused");
    assert_eq!(heard.said(), ["blocked 198.51.100.7"]);
    let rows = engine.page(List::Block, None, 100).expect("memory").rows;
    assert!(!rows[0].observed);
}

#[test]
fn whoever_adds_to_an_observed_list_is_told() {
    let (tables, heard) = (Shared::new([1, 2]), Heard::default());
    let mut engine = open(&tables, &config("deny"), &heard);
    engine.reconcile().expect("memory");
    let notes = |list| engine.noted(list, Added::default()).notes;
    assert!(notes(RuleList::Deny)[0].contains("nothing is dropped"));
    assert!(notes(RuleList::Allow).is_empty());
}

#[test]
fn everything_observed_is_named_one_by_one() {
    let (tables, heard) = (Shared::new([1, 2]), Heard::default());
    let mut engine = open(&tables, &config("all"), &heard);
    engine.reconcile().expect("memory");
    let named = engine.observing();
    assert_eq!(named.len(), OBSERVABLE.len() - 1);
    assert!(named.contains(&"syn_limit.total") && !named.contains(&"all"));
}
