//! Operators' rules: adding, removing, flushing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::tables::{NEVER, Origin, Rule};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bulk::Puts;
use super::interfaces::Coverage;
use super::view::is_zero;
use super::{By, Engine, List, Record, Refusal};
use crate::dataplane::desired::{Desired, Entry, covers};
use crate::dataplane::store::RuleList;

/// What is said of a rule that a command took out, and that is there all the same.
const ALSO_CONFIGURED: &str = "is also in the configuration, and stays";

/// An order to add rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRules {
    pub list: RuleList,
    pub nets: Vec<IpNet>,
    /// `None` for no end.
    pub ttl: Option<Duration>,
    pub reason: Option<String>,
    /// Deny even what is protected.
    pub force: bool,
    /// Addresses the operator works from, as far as his shell knows.
    pub operators: Vec<IpAddr>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Networks that were not among the commanded rules before.
    pub added: usize,
    /// Networks that were: their end and reason are now those of this order.
    #[serde(default)]
    pub already: usize,
    /// How many of them had another end or reason; the first are told of among the notes.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub changed: usize,
    /// Networks that were and are not any more, since the list was replaced.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub removed: usize,
    /// How long writing the tables took, in milliseconds.
    #[serde(default)]
    pub tables_ms: u64,
    /// Whether a gateway is there to enforce the rules, and filters an interface; if not they are remembered.
    pub enforced: bool,
    /// `eth0: reason` for each configured interface that is not filtered.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unfiltered: Vec<String>,
    /// Rules that the tables did not take. They are remembered and tried again.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub failed: usize,
    /// The first of them, each with the reason.
    pub failures: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What came of a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    pub removed: usize,
    /// Whether a gateway is there to enforce the list, and filters an interface.
    pub enforced: bool,
    /// `eth0: reason` for each configured interface that is not filtered.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unfiltered: Vec<String>,
    pub failures: Vec<String>,
    /// Networks that were not there, each with a hint.
    pub missing: Vec<String>,
    pub notes: Vec<String>,
}

impl Engine {
    /// Adds rules, remembers them on disk, enforces them and looks whether they are there.
    ///
    /// All or nothing as far as refusals go: if one network is protected, nothing changes.
    pub fn add_rules(&mut self, order: AddRules) -> Result<Added, Refusal> {
        let now = (self.world.clock)();
        let entry = Entry {
            origin: Origin::Command,
            deadline_ns: order.ttl.map_or(NEVER, |ttl| now.after(ttl)),
            reason: order.reason.as_deref().map(Into::into),
            detail: 0,
            forced: order.force,
        };
        let named = order.nets.len();
        let puts = Puts {
            list: order.list,
            entries: order.nets.into_iter().map(|net| (net, entry.clone())).collect(),
            replace: false,
            force: order.force,
            operators: order.operators,
        };
        let added = self.put_rules(puts, now)?;
        Ok(Added {
            already: named - added.added,
            ..added
        })
    }

    /// Removes commanded rules; those of the configuration stay and are named.
    pub fn remove_rules(&mut self, list: RuleList, nets: &[IpNet], by: &By) -> Result<Removed, Refusal> {
        let now = (self.world.clock)();
        let Coverage { enforced, unfiltered } = self.coverage()?;
        let mut outcome = Removed {
            enforced,
            unfiltered,
            ..Removed::default()
        };
        let mut gone = BTreeSet::new();
        for net in nets {
            let configured = self.desired.in_config(list.into(), net);
            let commanded = self.desired.entries(list.into()).contains_key(net);
            if commanded && gone.insert(*net) {
                outcome.removed += 1;
                if configured {
                    outcome.notes.push(format!("{net} {ALSO_CONFIGURED}"));
                }
            } else if configured {
                outcome.missing.push(format!(
                    "{net} comes from the configuration: take it out there and reload"
                ));
            } else {
                outcome
                    .missing
                    .push(self.missing_hint(list.into(), net, now.boot_ns));
            }
        }
        if list == RuleList::Allow {
            let take = |desired: &mut Desired| -> Vec<_> {
                let taken = gone.iter().map(|net| (*net, desired.remove(List::Allow, net)));
                taken.collect()
            };
            self.spare(by, take, |desired, taken| {
                for (net, entry) in taken {
                    if let Some(entry) = entry {
                        desired.put(List::Allow, net, entry);
                    }
                }
            })?;
        }
        if outcome.removed > 0 {
            self.save(gone.iter().map(|net| Record::Remove { list, net: *net }), now)?;
            for net in &gone {
                self.desired.remove(list.into(), net);
            }
            let gone: Vec<IpNet> = gone.into_iter().collect();
            let applied = self.enforce_only(list.into(), &gone, now);
            outcome.failures = applied.failures;
            outcome.notes.extend(applied.newly_skipped);
        }
        Ok(outcome)
    }

    /// Removes every commanded rule of a list, all at once.
    pub fn flush_rules(&mut self, list: RuleList, by: &By) -> Result<Removed, Refusal> {
        let now = (self.world.clock)();
        self.spare_in_place_of(list, &[], by)?;
        let Coverage { enforced, unfiltered } = self.coverage()?;
        let mut outcome = Removed {
            enforced,
            unfiltered,
            ..Removed::default()
        };
        if !self.desired.entries(list.into()).is_empty() {
            self.save(std::iter::once(Record::Flush { list }), now)?;
            outcome.removed = self.desired.clear(list.into()).len();
            let applied = self.enforce_at_once(now);
            outcome.failures = applied.failures;
            outcome.notes.extend(applied.newly_skipped);
        }
        let kept = self.desired.all(list.into(), now.boot_ns).count();
        if kept > 0 {
            let kept = format!("{kept} rules of the configuration stay");
            outcome.notes.insert(0, kept);
        }
        Ok(outcome)
    }

    /// As [`Engine::spare`], for a list that is to be all that was commanded.
    pub(super) fn spare_in_place_of(
        &mut self,
        list: RuleList,
        entries: &[(IpNet, Entry)],
        by: &By,
    ) -> Result<(), Refusal> {
        if list == RuleList::Deny {
            return Ok(());
        }
        // Only what holds an operator's address matters.
        let at = |net: &IpNet| entries.binary_search_by_key(net, |(net, _)| *net);
        let covers = by.operators.iter().flat_map(|addr| {
            let own: Vec<IpNet> = covers(&IpNet::from(addr.to_canonical())).collect();
            own
        });
        let kept: Vec<_> = covers
            .filter_map(|cover| entries.get(at(&cover).ok()?).cloned())
            .collect();
        self.spare(
            by,
            |desired| {
                let gone = desired.clear(List::Allow);
                for (net, entry) in kept {
                    desired.put(List::Allow, net, entry);
                }
                gone
            },
            |desired, gone| {
                desired.clear(List::Allow);
                desired.put_all(List::Allow, gone.into_iter().collect());
            },
        )
    }

    fn missing_hint(&self, list: List, net: &IpNet, boot_ns: u64) -> String {
        match self.desired.around(list, net, boot_ns) {
            Some(cover) => format!("{net} is not in the list itself; it is covered by {cover}"),
            None => format!("{net} is not in the list"),
        }
    }

    /// Looks the rules up again; names those that the tables do not show.
    pub(super) fn not_found(
        &mut self,
        list: List,
        nets: &[IpNet],
        boot_ns: u64,
    ) -> Result<Vec<String>, Refusal> {
        let Some(tables) = &mut self.tables else {
            return Ok(Vec::new());
        };
        let mut missing = Vec::new();
        for net in nets {
            let found = tables.lookup(net.network())?;
            let (single, network) = match list {
                List::Allow => (found.allow_addr, found.allow_net),
                List::Deny => (found.deny_addr, found.deny_net),
                List::Block => (found.block, None),
            };
            // A network that stays longer and lies around this one may speak for it.
            let covers = |(speaker, rule): (IpNet, Rule)| speaker.contains(net).then_some(rule);
            let rule = single.or_else(|| network.and_then(covers));
            if !rule.is_some_and(|rule| rule.live(boot_ns)) {
                missing.push(format!("{} {net}: not in force", list.name()));
            }
        }
        Ok(missing)
    }
}
