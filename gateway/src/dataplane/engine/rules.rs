//! Operators' rules: adding, removing, flushing.

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::tables::{NEVER, Origin, Rule};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::interfaces::Coverage;
use super::{Applied, Engine, List, Refusal};
use crate::dataplane::desired::{Desired, Entry};
use crate::dataplane::store::RuleList;

/// Beyond this many networks the system calls' success is taken as proof instead of a second look.
const READ_BACK_AT_MOST: usize = 1_000;

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
    /// Whether a gateway is there to enforce the rules, and filters an interface; if not they are remembered.
    pub enforced: bool,
    /// `eth0: reason` for each configured interface that is not filtered.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unfiltered: Vec<String>,
    /// Rules that the tables did not take. They are remembered and tried again.
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
        if order.list == RuleList::Deny && !order.force {
            let protected = self.protected(&order.operators);
            for net in &order.nets {
                if let Some(why) = protected.cut_off(net, |shared| self.desired.allows(shared)) {
                    let (net, why) = (*net, why.clone());
                    return Err(Refusal::Protected { net, why });
                }
            }
        }
        let deadline_ns = order.ttl.map_or(NEVER, |ttl| now.after(ttl));
        let mut desired = self.desired.clone();
        desired.expire(now.boot_ns);
        let before = desired.entries(order.list.into()).len();
        for net in &order.nets {
            let reason = order.reason.clone();
            desired.put(
                order.list.into(),
                *net,
                Entry {
                    origin: Origin::Command,
                    deadline_ns,
                    reason,
                    detail: 0,
                    forced: order.force,
                },
            );
        }
        let added = desired.entries(order.list.into()).len() - before;
        self.save(&desired, now)?;
        self.desired = desired;
        let mut notes = self.notes_on_added(&order, now.boot_ns);
        let Applied {
            mut failures,
            newly_skipped,
            ..
        } = self.enforce(now);
        notes.extend(newly_skipped);
        failures.extend(self.not_found(order.list.into(), &order.nets, now.boot_ns)?);
        failures.dedup();
        if order.list == RuleList::Allow {
            notes.extend(self.lift_blocks_under(&order.nets, now));
        }
        let Coverage { enforced, unfiltered } = self.coverage()?;
        Ok(Added {
            added,
            already: order.nets.len() - added,
            enforced,
            unfiltered,
            failures,
            notes,
        })
    }

    /// Removes commanded rules; those of the configuration stay and are named.
    pub fn remove_rules(&mut self, list: RuleList, nets: &[IpNet]) -> Result<Removed, Refusal> {
        let now = (self.world.clock)();
        let mut desired = self.desired.clone();
        let Coverage { enforced, unfiltered } = self.coverage()?;
        let mut outcome = Removed {
            enforced,
            unfiltered,
            ..Removed::default()
        };
        for net in nets {
            let configured = desired.in_config(list.into(), net);
            if desired.remove(list.into(), net).is_some() {
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
                    .push(missing_hint(&desired, list.into(), net, now.boot_ns));
            }
        }
        if outcome.removed > 0 {
            self.save(&desired, now)?;
            self.desired = desired;
            let applied = self.enforce(now);
            outcome.failures = applied.failures;
            outcome.notes.extend(applied.newly_skipped);
        }
        Ok(outcome)
    }

    /// Removes every commanded rule of a list.
    pub fn flush_rules(&mut self, list: RuleList) -> Result<Removed, Refusal> {
        let nets: Vec<IpNet> = self.desired.entries(list.into()).keys().copied().collect();
        let mut outcome = self.remove_rules(list, &nets)?;
        let now = (self.world.clock)();
        let kept = self.desired.all(list.into(), now.boot_ns).count();
        if kept > 0 {
            let kept = format!("{kept} rules of the configuration stay");
            outcome.notes.retain(|note| !note.ends_with(ALSO_CONFIGURED));
            outcome.notes.insert(0, kept);
        }
        Ok(outcome)
    }

    fn notes_on_added(&self, order: &AddRules, boot_ns: u64) -> Vec<String> {
        if order.list != RuleList::Deny {
            return Vec::new();
        }
        let allows: Vec<(IpNet, Entry)> = self.desired.all(List::Allow, boot_ns).collect();
        let mut notes = Vec::new();
        for net in &order.nets {
            if let Some((allow, _)) = allows.iter().find(|(allow, _)| allow.contains(net)) {
                notes.push(format!(
                    "{net} is under the allow rule {allow}: allow wins, so this deny has no effect on traffic"
                ));
            } else if let Some((allow, _)) = allows.iter().find(|(allow, _)| net.contains(allow)) {
                notes.push(format!(
                    "{allow} inside {net} is under an allow rule and stays allowed"
                ));
            }
        }
        notes
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
        for net in nets.iter().take(READ_BACK_AT_MOST) {
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

fn missing_hint(desired: &Desired, list: List, net: &IpNet, boot_ns: u64) -> String {
    let cover = desired.all(list, boot_ns).find(|(other, _)| other.contains(net));
    match cover {
        Some((cover, _)) => format!("{net} is not in the list itself; it is covered by {cover}"),
        None => format!("{net} is not in the list"),
    }
}
