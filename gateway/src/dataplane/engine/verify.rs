//! Kernel against intent: reads the tables back, says what differs, and repairs it.
//!
//! A difference is what nobody here made: an entry that someone took out or put in, settings that were changed. Entries
//! that have ended and are merely not yet swept out are none; a change that the tables refused before is one.

use std::collections::BTreeSet;

use gateway_common::tables::{Settings, feature};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::interfaces::Coverage;
use super::{Bypass, Change, Engine, List};
use crate::config::units::plain;
use crate::dataplane::backend::{Error, Image, Mended};
use crate::dataplane::place::keep_own;
use crate::dataplane::plan;

/// Differences told one by one; a lost table can have a million.
const TOLD: usize = 50;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// `missing`, `changed`, `extra`, `settings`, `tables` or `interface`.
    pub kind: String,
    /// In an operator's words.
    pub what: String,
    pub repaired: bool,
}

/// What a comparison found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether there are tables to compare with.
    pub compared: bool,
    /// How many differences there were, interfaces included.
    pub drift: usize,
    /// How many of them are repaired; read back, not assumed.
    pub repaired: usize,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Entries of all lists that were compared.
    pub entries: usize,
    /// Why what is not repaired is not: the first failures of trying.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub failures: Vec<String>,
    /// A bypass that is on: what is in the tables has no effect then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bypass: Option<Bypass>,
}

/// What a change is about.
type Subject = Option<(List, IpNet)>;

fn subject(change: &Change) -> Subject {
    match change {
        Change::Put { list, net, .. } | Change::Remove { list, net } => Some((*list, *net)),
        Change::Settings(_) => None,
    }
}

/// Whether `change` mends what someone else did, rather than sweeping out what has ended.
fn is_drift(change: &Change, found: &Image, now_ns: u64) -> bool {
    match change {
        Change::Remove { list, net } => found.list(*list).get(net).is_some_and(|rule| rule.live(now_ns)),
        Change::Put { .. } | Change::Settings(_) => true,
    }
}

/// Names of the parts in which settings differ.
fn parts(wanted: &Settings, found: &Settings) -> String {
    let wanted = keep_own(*wanted, found);
    let limits = (wanted.features ^ found.features) & feature::LIMITS != 0 || wanted.limits != found.limits;
    let parts = [
        ("ready", wanted.ready != found.ready),
        ("limits", limits),
        ("malformed", wanted.malformed != found.malformed),
        ("observe", wanted.observe != found.observe),
        (
            "bypass",
            (wanted.features ^ found.features) & feature::BYPASS != 0
                || wanted.bypass_until_ns != found.bypass_until_ns,
        ),
    ];
    let differing: Vec<&str> = parts
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect();
    if differing.is_empty() {
        "log or events".to_owned()
    } else {
        differing.join(", ")
    }
}

/// In words, and not repaired yet.
fn difference(change: &Change, found: &Image) -> Difference {
    let (kind, what) = match change {
        Change::Put { list, net, .. } => {
            let name = format!("{} {}", list.name(), plain(*net));
            match found.list(*list).get(net) {
                None => ("missing", format!("{name} was not in the kernel's table")),
                Some(_) => ("changed", format!("{name} had another end or origin")),
            }
        }
        Change::Remove { list, net } => (
            "extra",
            format!(
                "{} {} was in the kernel's table, and nobody asked for it",
                list.name(),
                plain(*net)
            ),
        ),
        Change::Settings(wanted) => (
            "settings",
            format!("the settings differed: {}", parts(wanted, &found.settings)),
        ),
    };
    Difference {
        kind: kind.to_owned(),
        what,
        repaired: false,
    }
}

impl Engine {
    /// Compares the tables with what is desired, repairs every difference, and looks again whether that worked.
    pub fn verify(&mut self) -> Result<Verified, Error> {
        // A fact about the host that changed is no drift: follow it first.
        self.follow_facts();
        let now = (self.world.clock)();
        self.desired.expire(now.boot_ns);
        let bypass = self.bypass();
        let Coverage { unfiltered, .. } = self.coverage()?;
        let Some(tables) = &mut self.tables else {
            return Ok(Verified {
                bypass,
                ..Verified::default()
            });
        };
        // A million entries are not held twice.
        self.enforced = Image::default();
        self.enforced = tables.enforced()?;
        let mended = self.mend()?;
        let found = &self.enforced;
        let changes = plan::diff(&self.desired, now.boot_ns, found);
        let drift = || {
            changes
                .iter()
                .filter(|change| is_drift(change, found, now.boot_ns))
        };
        let told = drift().take(TOLD);
        let drifted: Vec<Subject> = drift().map(subject).collect();
        let lists = [List::Allow, List::Deny, List::Block];
        let mut outcome = Verified {
            compared: true,
            entries: lists.map(|list| self.sizes(list).0).iter().sum(),
            differences: told.map(|change| difference(change, found)).collect(),
            bypass,
            ..Verified::default()
        };
        outcome.failures = self.apply(changes).failures;
        if !drifted.is_empty() || !mended.is_empty() {
            if let Some(tables) = &mut self.tables {
                self.enforced = Image::default();
                self.enforced = tables.enforced()?;
            }
            let again = self.mend()?;
            let left = plan::diff(&self.desired, now.boot_ns, &self.enforced);
            let left: BTreeSet<Subject> = left.iter().map(subject).collect();
            for (index, subject) in drifted.iter().enumerate() {
                let repaired = !left.contains(subject);
                outcome.repaired += usize::from(repaired);
                if let Some(told) = outcome.differences.get_mut(index) {
                    told.repaired = repaired;
                }
            }
            for (at, mended) in mended.iter().enumerate() {
                let repaired = !again.contains(mended);
                outcome.repaired += usize::from(repaired);
                let difference = Difference {
                    kind: mended.kind.to_owned(),
                    what: mended.what.clone(),
                    repaired,
                };
                outcome.differences.insert(at, difference);
            }
        }
        self.repaired += outcome.repaired as u64;
        outcome.drift = mended.len() + drifted.len() + unfiltered.len();
        outcome
            .differences
            .extend(unfiltered.into_iter().map(|what| Difference {
                kind: "interface".to_owned(),
                what: format!("not filtered: {what}"),
                repaired: false,
            }));
        Ok(outcome)
    }

    /// Has the tables' keeper look after what is its own.
    pub(super) fn mend(&mut self) -> Result<Vec<Mended>, Error> {
        let Some(tables) = &mut self.tables else {
            return Ok(Vec::new());
        };
        let mended = tables.mend()?;
        if !mended.is_empty() {
            self.enforced.settings = tables.settings()?;
        }
        Ok(mended)
    }

    /// Logs and counts what was mended outside of a comparison.
    pub(super) fn tell(&mut self, mended: &[Mended]) {
        self.repaired += mended.len() as u64;
        for Mended { what, .. } in mended {
            tracing::warn!(target: "gateway::dataplane", repaired = true, "drift: {what}");
        }
    }

    /// The periodic comparison: as [`Engine::verify`], told to the log.
    pub fn tend(&mut self) {
        match self.verify() {
            Ok(verified) => {
                // Interfaces are looked at, and told of, every second.
                let told = verified.differences.iter().filter(|row| row.kind != "interface");
                for Difference { what, repaired, .. } in told {
                    tracing::warn!(target: "gateway::dataplane", repaired, "drift: {what}");
                }
                if verified.drift > verified.differences.len() {
                    let (drift, repaired) = (verified.drift, verified.repaired);
                    tracing::warn!(target: "gateway::dataplane", drift, repaired, "drift: and more");
                }
            }
            Err(error) => {
                tracing::error!(target: "gateway::dataplane", %error, "the tables could not be read");
            }
        }
    }

    /// Differences that were found and repaired since the start.
    #[must_use]
    pub fn repaired(&self) -> u64 {
        self.repaired
    }
}
