//! The one writer: keeps the tables equal to the desired state and answers questions about both.
//!
//! The daemon runs it on a thread of its own behind a `Handle`; the command line runs the same engine on the pinned
//! tables when no daemon is there. Knows no socket, no request, no file format of the configuration.

mod blocks;
mod bypass;
mod confirm;
mod events;
mod guard;
mod interfaces;
mod rules;
mod verify;
mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_common::tables::{NEVER, Origin, feature};
use ipnet::IpNet;

pub use blocks::{BlockOrder, Unblocked};
pub use bypass::{Bypass, Bypassed, LONGEST_BYPASS};
pub use confirm::Confirmed;
use interfaces::Interfaces;
pub use rules::{AddRules, Added, Removed};
pub use verify::{Difference, Verified};
pub use view::{CounterRow, EntryRow, Explanation, InterfaceRow, ListRow, Status};

use super::backend::{Backend, Change, Counters, Error, Image, List};
use super::clock::Now;
use super::cookies::Ability;
use super::desired::{BypassUntil, Desired, Entry};
use super::place::keep_own;
use super::plan;
use super::protected::{Host, Why};
use super::store::{RuleList, Saved, Store, StoreError};
use crate::config::model::Config;

/// What the rest of the gateway wants to hear of blocks.
pub trait Events: Send {
    /// `addr` is blocked from now on.
    fn blocked(&mut self, addr: IpAddr);
    /// `addr` would be blocked from now on, were blocks not only observed: nothing may be done to it.
    fn observed(&mut self, addr: IpAddr);
    /// `addr` is no longer blocked, by command.
    fn unblocked(&mut self, addr: IpAddr);
    /// A block of `addr` was asked for and refused.
    fn refused(&mut self, addr: IpAddr, why: &Refusal);
    /// From now on these interfaces are not filtered, each with the reason; none when all are.
    fn unfiltered(&mut self, interfaces: Vec<String>);
    /// From now on everything passes, for a time; `None` when it is filtered again.
    fn bypass(&mut self, _bypass: Option<Bypass>) {}
}

/// Nobody listens: the command line without a daemon.
#[derive(Debug)]
pub struct NoEvents;

impl Events for NoEvents {
    fn blocked(&mut self, _: IpAddr) {}
    fn observed(&mut self, _: IpAddr) {}
    fn unblocked(&mut self, _: IpAddr) {}
    fn refused(&mut self, _: IpAddr, _: &Refusal) {}
    fn unfiltered(&mut self, _: Vec<String>) {}
}

/// Why an order was not carried out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{net} is protected: {why}; use --force if you mean it")]
    Protected { net: IpNet, why: Why },
    #[error("{addr} is under the allow rule {rule}")]
    Allowed { addr: IpAddr, rule: IpNet },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this needs the state directory, which is open for reading only")]
    ReadOnly,
    #[error(transparent)]
    Tables(#[from] Error),
    #[error("{0}")]
    Invalid(String),
    #[error("no gateway is attached: nothing is filtered, and there is nothing to bypass")]
    NothingFilters,
    #[error("the tables did not take the change: {0}")]
    NotTaken(String),
}

/// What the engine needs to know of the world.
pub struct World {
    pub clock: Box<dyn Fn() -> Now + Send>,
    pub host: Box<dyn Fn() -> Host + Send>,
    pub events: Box<dyn Events>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// Outcome of bringing the tables to the desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub changes: usize,
    /// Changes that failed, as text; they stay desired and are tried again.
    pub failures: Vec<String>,
    /// Denies that are skipped from now on, since they would cut off someone protected.
    pub newly_skipped: Vec<String>,
}

/// The keeper of desired and enforced.
pub struct Engine {
    /// `None`: no tables are there to write to, only the state on disk.
    tables: Option<Box<dyn Backend>>,
    desired: Desired,
    /// What the tables are known to hold: read at start and at each reconcile, updated with each success.
    enforced: Image,
    store: Option<Store>,
    proxies: Vec<IpNet>,
    interfaces: Interfaces,
    /// Whether SYNs can be answered by cookies, as of the last configuration.
    cookies: Ability,
    world: World,
    failures: Vec<String>,
    dropped_orders: u64,
    /// When to say again that a bypass is on.
    remind_ns: u64,
    /// Denies that end by themselves unless they are confirmed.
    unconfirmed: BTreeMap<IpNet, confirm::Waiting>,
    /// Differences between kernel and intent that were repaired.
    repaired: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("desired", &self.desired)
            .field("failures", &self.failures)
            .finish()
    }
}

impl Engine {
    /// Puts together what the configuration says, what was commanded before, and the blocks that the tables still
    /// hold. Writes nothing yet.
    pub fn open(
        mut tables: Option<Box<dyn Backend>>,
        config: &Config,
        saved: Vec<Saved>,
        store: Option<Store>,
        world: World,
    ) -> Result<Self, Error> {
        let now = (world.clock)();
        let enforced = match &mut tables {
            Some(tables) => tables.enforced()?,
            None => Image::default(),
        };
        let mut desired = Desired::default();
        let cookies = tables
            .as_mut()
            .map_or(Ability::Unknown, |tables| tables.cookies(&config.xdp));
        desired.configure(config, &cookies, &enforced.settings);
        for rule in saved {
            let deadline_ns = rule.until_ms.map_or(NEVER, |until| now.boot_of_wall(until));
            let entry = Entry {
                origin: Origin::Command,
                deadline_ns,
                reason: rule.reason,
                detail: 0,
                forced: rule.forced,
            };
            desired.put(rule.list.into(), rule.net, entry);
        }
        for (net, rule) in &enforced.block {
            if rule.deadline_ns != NEVER && rule.live(now.boot_ns) {
                let origin = Origin::from_number(rule.origin).unwrap_or(Origin::Strike);
                let entry = Entry {
                    origin,
                    deadline_ns: rule.deadline_ns,
                    reason: None,
                    detail: rule.detail,
                    forced: false,
                };
                desired.put(List::Block, *net, entry);
            }
        }
        let settings = &enforced.settings;
        if settings.features & feature::BYPASS != 0 && now.boot_ns < settings.bypass_until_ns {
            desired.set_bypass(Some(BypassUntil {
                until_ns: settings.bypass_until_ns,
                reason: bypass::recall(&config.state_dir),
            }));
        }
        let proxies = config.trusted_proxies.clone();
        Ok(Self {
            tables,
            desired,
            enforced,
            store,
            proxies,
            interfaces: Interfaces::of(&config.xdp),
            cookies,
            world,
            failures: Vec::new(),
            dropped_orders: 0,
            remind_ns: 0,
            unconfirmed: confirm::recall(&config.state_dir, now),
            repaired: 0,
        })
    }

    /// Takes over a new configuration and enforces it.
    pub fn reconfigure(&mut self, config: &Config) -> Result<Applied, Error> {
        if let Some(tables) = &mut self.tables {
            self.cookies = tables.cookies(&config.xdp);
        }
        self.desired
            .configure(config, &self.cookies, &self.enforced.settings);
        self.proxies.clone_from(&config.trusted_proxies);
        self.reconcile()
    }

    /// Reads the tables, forgets what has ended, and repairs every difference.
    pub fn reconcile(&mut self) -> Result<Applied, Error> {
        let now = (self.world.clock)();
        self.desired.expire(now.boot_ns);
        if let Some(tables) = &mut self.tables {
            self.enforced = tables.enforced()?;
        }
        Ok(self.enforce(now))
    }

    /// Brings the tables from what they are known to hold to what is desired.
    fn enforce(&mut self, now: Now) -> Applied {
        let newly_skipped = self.guard();
        let desired = self.desired.image(now.boot_ns);
        let changes = plan::diff(&desired, &self.enforced);
        Applied {
            newly_skipped,
            ..self.apply(&changes)
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Applied {
        let Some(tables) = &mut self.tables else {
            return Applied::default();
        };
        let failed = tables.apply(changes);
        let mut failures = failed.iter().peekable();
        for (index, change) in changes.iter().enumerate() {
            if failures.next_if(|(failed, _)| *failed == index).is_none() {
                remember(&mut self.enforced, change);
            }
        }
        self.failures = failed
            .iter()
            .map(|(index, error)| format!("{}: {error}", describe(&changes[*index])))
            .collect();
        for failure in self.failures.iter().take(5) {
            tracing::error!(target: "gateway::dataplane", %failure, total = self.failures.len(), "a change was not enforced");
        }
        Applied {
            changes: changes.len() - failed.len(),
            failures: self.failures.clone(),
            newly_skipped: Vec::new(),
        }
    }

    /// What the engine's clock shows.
    #[must_use]
    pub fn now(&self) -> Now {
        (self.world.clock)()
    }

    /// Packets and bytes by outcome. Zeros without tables.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        self.tables
            .as_mut()
            .map_or_else(|| Ok(Counters::default()), |tables| tables.counters())
    }

    /// Lengths of the desired and the enforced list.
    #[must_use]
    pub fn sizes(&self, list: List) -> (usize, usize) {
        let now = (self.world.clock)();
        let desired = self.desired.image(now.boot_ns).list(list).len();
        (desired, self.enforced.list(list).len())
    }

    /// Changes that failed when last tried.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failures.len()
    }

    /// Block orders lost as the queue was full.
    #[must_use]
    pub fn dropped_orders(&self) -> u64 {
        self.dropped_orders
    }

    fn save(&self, desired: &Desired, now: Now) -> Result<(), Refusal> {
        let store = self.store.as_ref().ok_or(Refusal::ReadOnly)?;
        let mut rules = Vec::new();
        for list in [RuleList::Allow, RuleList::Deny] {
            rules.extend(desired.entries(list.into()).iter().map(|(net, entry)| Saved {
                list,
                net: *net,
                until_ms: (entry.deadline_ns != NEVER).then(|| now.wall_of_boot(entry.deadline_ns)),
                reason: entry.reason.clone(),
                forced: entry.forced,
            }));
        }
        Ok(store.save(rules)?)
    }
}

fn remember(enforced: &mut Image, change: &Change) {
    match change {
        &Change::Put { list, net, rule } => {
            enforced.list_mut(list).insert(net, rule);
        }
        &Change::Remove { list, net } => {
            enforced.list_mut(list).remove(&net);
        }
        Change::Settings(settings) => enforced.settings = keep_own(**settings, &enforced.settings),
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Put { list, net, .. } => format!("{} {net}", list.name()),
        Change::Remove { list, net } => format!("removal of {} {net}", list.name()),
        Change::Settings(_) => "settings".to_owned(),
    }
}

#[cfg(test)]
mod tests;
