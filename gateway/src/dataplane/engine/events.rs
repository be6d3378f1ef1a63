//! What the kernel program tells of drops, and what it only observes.

use gateway_common::tables::{Settings, feature, observe};

use super::{Added, Change, Engine, List};
use crate::config::model::observed;
use crate::dataplane::backend::Error;
use crate::dataplane::store::RuleList;

impl Engine {
    /// Has the program write events from now on, or no longer. Nothing else in the tables is touched, and a reconcile
    /// keeps it so. Returns the time between two events on one processor, in nanoseconds.
    pub fn listen(&mut self, on: bool) -> Result<u64, Error> {
        self.desired.listen(on);
        let event_interval_ns = self
            .desired
            .settings((self.world.clock)().boot_ns)
            .event_interval_ns;
        let Some(tables) = &mut self.tables else {
            return Ok(event_interval_ns);
        };
        let there = tables.settings()?;
        let events = if on { feature::EVENTS } else { 0 };
        let wanted = Settings {
            features: there.features & !feature::EVENTS | events,
            event_interval_ns,
            ..there
        };
        if wanted != there {
            let change = vec![Change::settings(wanted)];
            if let Some((_, error)) = tables.apply(&change).pop() {
                return Err(error);
            }
            super::remember(&mut self.enforced, change);
        }
        Ok(event_interval_ns)
    }

    /// What is only observed, by the configuration's names for it, as the tables were last known to have it.
    #[must_use]
    pub fn observing(&self) -> Vec<&'static str> {
        observed(self.observed_bits())
    }

    /// What came of adding rules, with a note if their list drops nothing.
    #[must_use]
    pub fn noted(&self, list: RuleList, mut added: Added) -> Added {
        if self.observes(list.into()) {
            let note = "deny is only observed (xdp.observe): packets are counted, and nothing is dropped";
            added.notes.insert(0, note.to_owned());
        }
        added
    }

    /// Whether the entries of `list` drop nothing.
    pub(super) fn observes(&self, list: List) -> bool {
        let bit = match list {
            List::Allow => 0,
            List::Deny => observe::DENY,
            List::Block => observe::BLOCK,
        };
        self.observed_bits() & bit != 0
    }

    fn observed_bits(&self) -> u32 {
        if self.tables.is_some() {
            self.enforced.settings.observe
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests;
