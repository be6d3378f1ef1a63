//! The one writer: keeps the tables equal to the desired state and answers questions about both.
//!
//! The daemon runs it on a thread of its own behind a `Handle`; the command line runs the same engine on the pinned
//! tables when no daemon is there. Knows no socket, no request, no file format of the configuration.

mod blocks;
mod bulk;
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
use std::time::Duration;

use gateway_common::tables::{NEVER, Origin, Rule, feature};
use ipnet::IpNet;

pub use blocks::{BlockOrder, Unblocked};
pub use bulk::ImportRules;
pub use bypass::{Bypass, Bypassed, LONGEST_BYPASS};
pub use confirm::Confirmed;
pub use guard::By;
use interfaces::Interfaces;
pub use rules::{AddRules, Added, Removed};
pub use verify::{Difference, Verified};
pub use view::{CounterRow, EntryRow, Explanation, InterfaceRow, ListRow, Page, Status};

use super::backend::{Backend, Change, Counters, Error, Image, List};
use super::clock::Now;
use super::cookies::Ability;
use super::desired::{BypassUntil, Desired, Entry};
use super::place::keep_own;
use super::plan;
use super::protected::{Host, Why};
use super::store::{Record, RuleList, Saved, Store, StoreError};
use crate::config::model::Config;
use crate::config::units::plain;

/// Failures and notes told one by one: with the line that counts the rest, as many as the command line shows.
const TOLD: usize = 9;
/// So many changes are worth a line in the log.
const MANY: usize = 10_000;

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

/// A deny that was not taken, since someone protected is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    pub net: IpNet,
    /// Who is protected.
    pub shield: IpNet,
    pub why: Why,
}

/// `of` so many, the first of them.
fn refused(first: &[Protection], of: usize) -> String {
    let mut said: Vec<String> = first
        .iter()
        .map(|Protection { net, why, .. }| format!("{} is protected: {why}", plain(*net)))
        .collect();
    if of > said.len() {
        said.push(format!("and {} more", of - said.len()));
    }
    said.join("; ") + "; nothing was changed, use --force if you mean it"
}

/// Why an order was not carried out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{}", refused(.0, *.1))]
    Protected(Vec<Protection>, usize),
    #[error("deny {net} would cut you off then: {why}; nothing was changed, use --force if you mean it")]
    CutsOff { net: IpNet, why: Why },
    #[error("{addr} is under the allow rule {rule}")]
    Allowed { addr: IpAddr, rule: IpNet },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("line {line} of the list can not be read: {why}")]
    Unreadable { line: usize, why: String },
    #[error(
        "the list does not fit, and nothing was changed: with what the configuration lists it makes {wanted} {what}, \
         and the tables take {room}; raise {setting} in the configuration, stop the gateway, run `gateway detach` and \
         start it again, as pinned tables keep their size (nothing is filtered meanwhile, and blocks are lost), or \
         import a shorter list"
    )]
    DoesNotFit {
        wanted: u32,
        what: &'static str,
        room: u32,
        setting: String,
    },
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
    /// How long writing the tables took.
    pub took: Duration,
    /// Changes that failed; they stay desired and are tried again.
    pub failed: usize,
    /// The first of them as text, and how many more there are.
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
    failed: usize,
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
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Puts together what the configuration says, what was commanded before, and the blocks that the tables still
    /// hold. Writes nothing yet.
    pub fn open(
        mut tables: Option<Box<dyn Backend>>,
        config: &Config,
        mut saved: Vec<Saved>,
        store: Option<Store>,
        world: World,
    ) -> Result<Self, Error> {
        let now = (world.clock)();
        let mut desired = Desired::default();
        let allows = saved
            .extract_if(.., |rule| rule.list == RuleList::Allow)
            .collect();
        for (list, rules) in [(List::Allow, allows), (List::Deny, saved)] {
            // Entries lie where the rules lay: a million are not held twice.
            let mut entries: Vec<(IpNet, Entry)> =
                rules.into_iter().map(|rule| commanded(rule, now)).collect();
            bulk::sort(&mut entries);
            desired.put_all(list, entries);
        }
        let enforced = match &mut tables {
            Some(tables) => tables.enforced()?,
            None => Image::default(),
        };
        let cookies = tables
            .as_mut()
            .map_or(Ability::Unknown, |tables| tables.cookies(&config.xdp));
        desired.configure(config, &cookies, &enforced.settings);
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
            failed: 0,
            failures: Vec::new(),
            dropped_orders: 0,
            remind_ns: 0,
            unconfirmed: confirm::recall(&config.state_dir, now),
            repaired: 0,
        })
    }

    /// Takes over a new configuration and enforces it.
    pub fn reconfigure(&mut self, config: &Config, by: &By) -> Result<Applied, Refusal> {
        let (cookies, kept) = (self.cookies.clone(), self.enforced.settings);
        self.spare(
            by,
            |desired| {
                let before = desired.configured();
                desired.configure(config, &cookies, &kept);
                before
            },
            Desired::take_back,
        )?;
        if let Some(tables) = &mut self.tables {
            self.cookies = tables.cookies(&config.xdp);
        }
        self.desired
            .configure(config, &self.cookies, &self.enforced.settings);
        self.proxies.clone_from(&config.trusted_proxies);
        Ok(self.reconcile()?)
    }

    /// Takes over one list of the configuration, and enforces it: each packet meets the old list or the new one.
    pub fn reconfigure_list(&mut self, list: RuleList, nets: Vec<IpNet>) -> Applied {
        let now = (self.world.clock)();
        self.desired.configure_list(list, nets);
        self.enforce_at_once(now)
    }

    /// Brings the tables to the desired state for the first time. [`Engine::open`] has just read them.
    pub fn begin(&mut self) -> Applied {
        let now = (self.world.clock)();
        match self.mend() {
            Ok(mended) => self.tell(&mended),
            Err(error) => {
                tracing::error!(target: "gateway::dataplane", %error, "the tables could not be compared")
            }
        }
        self.desired.expire(now.boot_ns);
        self.enforce(now)
    }

    /// Reads the tables, forgets what has ended, and repairs every difference.
    pub fn reconcile(&mut self) -> Result<Applied, Error> {
        let now = (self.world.clock)();
        self.desired.expire(now.boot_ns);
        if let Some(tables) = &mut self.tables {
            // A million entries are not held twice.
            self.enforced = Image::default();
            self.enforced = tables.enforced()?;
        }
        let mended = self.mend()?;
        self.tell(&mended);
        Ok(self.enforce(now))
    }

    /// Brings the tables from what they are known to hold to what is desired.
    fn enforce(&mut self, now: Now) -> Applied {
        let newly_skipped = self.guard();
        let changes = plan::diff(&self.desired, now.boot_ns, &self.enforced);
        Applied {
            newly_skipped,
            ..self.apply(changes)
        }
    }

    /// As [`Engine::enforce`], all at once for every packet.
    fn enforce_at_once(&mut self, now: Now) -> Applied {
        let newly_skipped = self.guard();
        let changes = plan::diff(&self.desired, now.boot_ns, &self.enforced);
        Applied {
            newly_skipped,
            ..self.carry_out(changes, |tables, changes| tables.apply_at_once(changes))
        }
    }

    /// As [`Engine::enforce`] when only these networks of one list have changed: costs as much as they are many.
    fn enforce_only(&mut self, list: List, nets: &[IpNet], now: Now) -> Applied {
        let before: Vec<IpNet> = self.desired.skipped().keys().copied().collect();
        let newly_skipped = self.guard();
        let changes = if self.desired.skipped().keys().eq(before.iter()) {
            plan::diff_of(&self.desired, list, nets.iter(), now.boot_ns, &self.enforced)
        } else {
            plan::diff(&self.desired, now.boot_ns, &self.enforced)
        };
        Applied {
            newly_skipped,
            ..self.apply(changes)
        }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Applied {
        self.carry_out(changes, |tables, changes| tables.apply(changes))
    }

    fn carry_out(
        &mut self,
        mut changes: Vec<Change>,
        apply: impl FnOnce(&mut dyn Backend, &[Change]) -> Vec<(usize, Error)>,
    ) -> Applied {
        let Some(tables) = &mut self.tables else {
            return Applied::default();
        };
        let began_ns = (self.world.clock)().boot_ns;
        let failed = apply(&mut **tables, &changes);
        let took = Duration::from_nanos((self.world.clock)().boot_ns.saturating_sub(began_ns));
        if changes.len() >= MANY {
            let (changes, took_ms) = (changes.len(), took.as_millis());
            tracing::info!(target: "gateway::dataplane", changes, took_ms, "written to the tables");
        }
        self.failed = failed.len();
        self.failures = told(
            failed.len(),
            failed
                .iter()
                .map(|(index, error)| format!("{}: {error}", describe(&changes[*index]))),
        );
        for failure in self.failures.iter().take(5) {
            tracing::error!(target: "gateway::dataplane", %failure, total = self.failed, "a change was not enforced");
        }
        let mut left_out = failed.iter().map(|(index, _)| *index).peekable();
        let mut index = 0..;
        changes.retain(|_| left_out.next_if_eq(&index.next().unwrap_or(0)).is_none());
        let done = changes.len();
        remember(&mut self.enforced, changes);
        Applied {
            changes: done,
            took,
            failed: failed.len(),
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
        let desired = self.desired.rules(list, now.boot_ns).count();
        (desired, self.enforced.list(list).len())
    }

    /// Changes that failed when last tried.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failed
    }

    /// Block orders lost as the queue was full.
    #[must_use]
    pub fn dropped_orders(&self) -> u64 {
        self.dropped_orders
    }

    /// Remembers a change on disk, before it is made.
    fn save<'a>(&self, change: impl Iterator<Item = Record<'a>>, now: Now) -> Result<(), Refusal> {
        let store = self.store.as_ref().ok_or(Refusal::ReadOnly)?;
        let lists = [RuleList::Allow, RuleList::Deny];
        let rules = |list: RuleList| self.desired.entries(list.into());
        if !store.takes_more(lists.iter().map(|list| rules(*list).len()).sum()) {
            let all = lists.into_iter().flat_map(|list| {
                let live = rules(list).iter().filter(|(_, entry)| entry.live(now.boot_ns));
                live.map(move |(net, entry)| record(list, *net, entry, now))
            });
            store.replace(all)?;
        }
        Ok(store.append(change)?)
    }
}

fn commanded(rule: Saved, now: Now) -> (IpNet, Entry) {
    let entry = Entry {
        origin: Origin::Command,
        deadline_ns: rule.until_ms.map_or(NEVER, |until| now.boot_of_wall(until)),
        reason: rule.reason,
        detail: 0,
        forced: rule.forced,
    };
    (rule.net, entry)
}

fn record(list: RuleList, net: IpNet, entry: &Entry, now: Now) -> Record<'_> {
    Record::Put {
        list,
        net,
        until_ms: (entry.deadline_ns != NEVER).then(|| now.wall_of_boot(entry.deadline_ns)),
        forced: entry.forced,
        reason: entry.reason.as_deref(),
    }
}

/// The first few of `all`, and how many more there are.
fn told(count: usize, all: impl Iterator<Item = String>) -> Vec<String> {
    let mut told: Vec<String> = all.take(TOLD).collect();
    if count > told.len() {
        told.push(format!("and {} more", count - told.len()));
    }
    told
}

/// Takes over what was done. In a batch each network of a list is named once, so its order says nothing here.
fn remember(enforced: &mut Image, done: Vec<Change>) {
    let mut puts = [0; 3];
    for change in &done {
        match change {
            Change::Put { list, .. } => puts[*list as usize] += 1,
            Change::Remove { list, net } => {
                enforced.list_mut(*list).remove(net);
            }
            Change::Settings(settings) => enforced.settings = keep_own(**settings, &enforced.settings),
        }
    }
    let mut lists = [List::Allow, List::Deny, List::Block];
    lists.sort_by_key(|list| puts[*list as usize]);
    let [few, some, most] = lists;
    let of = |wanted: List| {
        move |change: &Change| match change {
            Change::Put { list, net, rule } if *list == wanted => Some((*net, *rule)),
            _ => None,
        }
    };
    for list in [few, some] {
        enforced.list_mut(list).extend(done.iter().filter_map(of(list)));
    }
    let known = enforced.list_mut(most);
    if puts[most as usize] < known.len() / 8 {
        known.extend(done.iter().filter_map(of(most)));
    } else {
        // Sorted: joined at once, and packed, where the changes lay; a million are not held twice.
        let of = of(most);
        let mut run: BTreeMap<IpNet, Rule> = done.into_iter().filter_map(|change| of(&change)).collect();
        known.append(&mut run);
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
