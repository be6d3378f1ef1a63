//! Denies that undo themselves unless they are confirmed.
//!
//! Until then the entry's end in the kernel's table, and on disk, is the time by which it must be confirmed: it ends
//! there whatever becomes of this process. What it becomes when it is confirmed lies beside the rules on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gateway_common::tables::NEVER;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::interfaces::Coverage;
use super::{AddRules, Added, Engine, List, Refusal, record};
use crate::dataplane::clock::Now;
use crate::dataplane::desired::Entry;
use crate::dataplane::store::{RuleList, StoreError};

/// The file in the state directory.
const FILE: &str = "unconfirmed.json";
/// An end that went through the disk comes back a little off.
const SAME_END_NS: u64 = 2_000_000_000;

/// What is known of one deny that waits for its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// By when, on the boot clock: the end that its entry has until then.
    by_ns: u64,
    /// The end that it has once it is confirmed, or [`NEVER`].
    then_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    net: IpNet,
    by_ms: u64,
    /// Absent for no end.
    then_ms: Option<u64>,
}

/// What came of confirming.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Denies that stay now.
    pub confirmed: Vec<IpNet>,
    /// Networks that nothing was waiting for, each with a hint.
    pub missing: Vec<String>,
    pub failures: Vec<String>,
    /// Whether a gateway is there to enforce the rules, and filters an interface.
    pub enforced: bool,
}

/// Reads what waits. A file that can not be read costs the confirmation, never the undoing.
pub(super) fn recall(state_dir: &Path, now: Now) -> BTreeMap<IpNet, Waiting> {
    let rows = std::fs::read(state_dir.join(FILE))
        .ok()
        .and_then(|text| serde_json::from_slice::<Vec<Row>>(&text).ok());
    let rows = rows.unwrap_or_default().into_iter().map(|row| {
        let waiting = Waiting {
            by_ns: now.boot_of_wall(row.by_ms),
            then_ns: row.then_ms.map_or(NEVER, |then| now.boot_of_wall(then)),
        };
        (row.net, waiting)
    });
    rows.collect()
}

impl Engine {
    /// Adds denies that end by themselves after `within`, unless [`Engine::confirm`] comes before.
    pub fn add_unconfirmed(&mut self, order: AddRules, within: Duration) -> Result<Added, Refusal> {
        let now = (self.world.clock)();
        if order.list != RuleList::Deny || within.is_zero() {
            return Err(Refusal::Invalid(
                "only a deny waits to be confirmed, and for a time".to_owned(),
            ));
        }
        if order.ttl.is_some_and(|ttl| ttl <= within) {
            return Err(Refusal::Invalid(
                "--ttl ends before --confirm: there would be nothing to confirm".to_owned(),
            ));
        }
        for net in &order.nets {
            // Ending it would take away a deny that stood before.
            let there = self.desired.entries(List::Deny).get(net);
            if there.is_some_and(|entry| entry.live(now.boot_ns)) && !self.waits(net) {
                return Err(Refusal::Invalid(format!(
                    "{net} is denied already: --confirm is for new denies; `gateway deny del {net}` first"
                )));
            }
        }
        let before = self.unconfirmed.clone();
        let waiting = Waiting {
            by_ns: now.after(within),
            then_ns: order.ttl.map_or(NEVER, |ttl| now.after(ttl)),
        };
        self.unconfirmed
            .extend(order.nets.iter().map(|net| (*net, waiting)));
        // Before the entries: a crash in between leaves nothing that could be confirmed, rather than too little.
        let outcome = self.save_unconfirmed(now).and_then(|()| {
            self.add_rules(AddRules {
                ttl: Some(within),
                ..order
            })
        });
        if outcome.is_err() {
            self.unconfirmed = before;
        }
        outcome
    }

    /// Lets denies stay that wait for it: those of `nets`, or all if that is empty.
    pub fn confirm(&mut self, nets: &[IpNet]) -> Result<Confirmed, Refusal> {
        let now = (self.world.clock)();
        let all: Vec<IpNet> = self.unconfirmed.keys().copied().collect();
        let nets = if nets.is_empty() { &all } else { nets };
        let mut outcome = Confirmed::default();
        let mut entries = Vec::new();
        for net in nets {
            let entry = self.desired.entries(List::Deny).get(net).cloned();
            let (Some(waiting), Some(entry), true) = (self.unconfirmed.get(net), entry, self.waits(net))
            else {
                outcome.missing.push(format!(
                    "{net} does not wait to be confirmed: perhaps its time is over"
                ));
                continue;
            };
            let deadline_ns = waiting.then_ns;
            entries.push((*net, Entry { deadline_ns, ..entry }));
            outcome.confirmed.push(*net);
        }
        if !outcome.confirmed.is_empty() {
            let puts = entries
                .iter()
                .map(|(net, entry)| record(RuleList::Deny, *net, entry, now));
            self.save(puts, now)?;
            for (net, entry) in entries {
                self.desired.put(List::Deny, net, entry);
                self.unconfirmed.remove(&net);
            }
            self.save_unconfirmed(now)?;
            outcome.failures = self.enforce_only(List::Deny, &outcome.confirmed, now).failures;
            let found = self.not_found(List::Deny, &outcome.confirmed, now.boot_ns)?;
            outcome.failures.extend(found);
        }
        let Coverage { enforced, .. } = self.coverage()?;
        Ok(Confirmed { enforced, ..outcome })
    }

    /// Whether the deny of `net` waits to be confirmed. One that was commanded anew since has another end.
    pub(super) fn waits(&self, net: &IpNet) -> bool {
        let now = (self.world.clock)();
        let entry = self.desired.entries(List::Deny).get(net);
        self.unconfirmed
            .get(net)
            .zip(entry)
            .is_some_and(|(waiting, entry)| {
                entry.deadline_ns != NEVER
                    && entry.live(now.boot_ns)
                    && entry.deadline_ns.abs_diff(waiting.by_ns) <= SAME_END_NS
            })
    }

    /// Tells of denies whose time to be confirmed is over, and forgets them.
    pub(super) fn tell_unconfirmed(&mut self) {
        let now = (self.world.clock)();
        let (over, waiting) = std::mem::take(&mut self.unconfirmed)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, waiting)| waiting.by_ns <= now.boot_ns);
        self.unconfirmed = waiting;
        for net in over.keys() {
            // Else it was deleted, or commanded anew.
            let entry = self.desired.entries(List::Deny).get(net);
            if entry.is_none_or(|entry| entry.live(now.boot_ns)) {
                continue;
            }
            tracing::warn!(target: "gateway::dataplane", %net, "the deny was not confirmed in time and has ended");
        }
    }

    fn save_unconfirmed(&self, now: Now) -> Result<(), Refusal> {
        let store = self.store.as_ref().ok_or(Refusal::ReadOnly)?;
        let live = self.unconfirmed.iter().filter(|(_, row)| row.by_ns > now.boot_ns);
        let rows: Vec<Row> = live
            .map(|(net, waiting)| Row {
                net: *net,
                by_ms: now.wall_of_boot(waiting.by_ns),
                then_ms: (waiting.then_ns != NEVER).then(|| now.wall_of_boot(waiting.then_ns)),
            })
            .collect();
        let path = store.directory().join(FILE);
        let io = |cause| StoreError::Io {
            operation: "write",
            path: path.clone(),
            cause,
        };
        let text = serde_json::to_vec(&rows).map_err(|error| io(error.into()))?;
        let beside = store.directory().join(format!("{FILE}.new"));
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path));
        Ok(written.map_err(io)?)
    }
}
