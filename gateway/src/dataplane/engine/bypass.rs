//! Bypass: everything passes, loudly and for a time.
//!
//! The kernel's settings hold the end, and the program compares it, so a bypass ends with or without a gateway. It is
//! taken over from there by the next one and by commands without one; only the reason, which is text, lies on disk. A
//! bypass does not outlive the boot: the settings do not.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::interfaces::Coverage;
use super::{Change, Engine, Refusal};
use crate::dataplane::clock::Now;
use crate::dataplane::desired::BypassUntil;

/// The longest bypass: who needs more asks again, or detaches.
pub const LONGEST_BYPASS: Duration = Duration::from_hours(24);
/// How often the log says that a bypass is on.
const REMIND_EVERY: Duration = Duration::from_mins(1);
/// The file in the state directory that holds the reason.
const REASON: &str = "bypass-reason";

/// A bypass in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    pub left_ms: u64,
    /// End as milliseconds since 1970.
    pub until_ms: u64,
    /// Why, as the operator said; absent if it can not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl Bypass {
    /// The same a while later; `None` if it is over by then.
    #[must_use]
    pub fn at(&self, wall_ms: u64) -> Option<Self> {
        (wall_ms < self.until_ms).then(|| Self {
            left_ms: self.until_ms - wall_ms,
            ..self.clone()
        })
    }
}

impl std::fmt::Display for Bypass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.left_ms.div_ceil(1_000);
        let reason = self.reason.as_deref().unwrap_or("no reason known");
        write!(f, "BYPASS: every packet passes for {left} s more ({reason})")
    }
}

/// What came of an order about the bypass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypassed {
    /// The bypass in force now.
    pub bypass: Option<Bypass>,
    /// Whether one was in force before.
    pub was_on: bool,
    /// Whether there is a filter that could be bypassed.
    pub enforced: bool,
}

/// The reason that was written last.
pub(super) fn recall(state_dir: &Path) -> Option<String> {
    std::fs::read_to_string(state_dir.join(REASON)).ok()
}

impl Engine {
    /// Passes everything from now on, for `lasts`. A bypass that is on gets the new end and reason.
    pub fn bypass_on(&mut self, lasts: Duration, reason: String) -> Result<Bypassed, Refusal> {
        if lasts.is_zero() || lasts > LONGEST_BYPASS {
            return Err(Refusal::Invalid(format!(
                "a bypass lasts up to {} hours",
                LONGEST_BYPASS.as_secs() / 3600
            )));
        }
        if reason.trim().is_empty() {
            return Err(Refusal::Invalid("a bypass needs a reason".to_owned()));
        }
        let store = self.store.as_ref().ok_or(Refusal::ReadOnly)?;
        if self.tables.is_none() {
            return Err(Refusal::NothingFilters);
        }
        let note = store.directory().join(REASON);
        if let Err(error) = std::fs::write(&note, &reason) {
            tracing::warn!(target: "gateway::dataplane", %error, path = %note.display(), "the bypass's reason could not be written");
        }
        let now = (self.world.clock)();
        let was_on = self.bypass().is_some();
        let until = BypassUntil {
            until_ns: now.after(lasts),
            reason: Some(reason),
        };
        self.switch(Some(until), now)?;
        self.remind_ns = 0;
        self.remind();
        self.bypassed(was_on)
    }

    /// Ends the bypass: everything is filtered again.
    pub fn bypass_off(&mut self) -> Result<Bypassed, Refusal> {
        let store = self.store.as_ref().ok_or(Refusal::ReadOnly)?;
        let _ = std::fs::remove_file(store.directory().join(REASON));
        let now = (self.world.clock)();
        let was_on = self.bypass().is_some();
        self.switch(None, now)?;
        if was_on {
            tracing::warn!(target: "gateway::dataplane", "bypass off, by command: filtering again");
        }
        self.bypassed(was_on)
    }

    /// The bypass in force, and whether there is anything to bypass.
    pub fn bypass_status(&mut self) -> Result<Bypassed, Refusal> {
        let was_on = self.bypass().is_some();
        self.bypassed(was_on)
    }

    fn bypassed(&mut self, was_on: bool) -> Result<Bypassed, Refusal> {
        let Coverage { enforced, .. } = self.coverage()?;
        Ok(Bypassed {
            bypass: self.bypass(),
            was_on,
            enforced,
        })
    }

    /// The bypass in force.
    #[must_use]
    pub fn bypass(&self) -> Option<Bypass> {
        let now = (self.world.clock)();
        let until = self.desired.bypass()?;
        (now.boot_ns < until.until_ns).then(|| Bypass {
            left_ms: (until.until_ns - now.boot_ns) / 1_000_000,
            until_ms: now.wall_of_boot(until.until_ns),
            reason: until.reason.clone(),
        })
    }

    /// Has the tables say so, and looks whether they do. Only the settings are touched: it is an emergency.
    fn switch(&mut self, until: Option<BypassUntil>, now: Now) -> Result<(), Refusal> {
        let before = self.desired.bypass().cloned();
        self.desired.set_bypass(until);
        let wanted = self.desired.settings(now.boot_ns);
        let failures = self.apply(vec![Change::settings(wanted)]).failures;
        let shown = match &mut self.tables {
            Some(tables) => tables.settings()?.bypass_until_ns == wanted.bypass_until_ns,
            None => true,
        };
        if failures.is_empty() && shown {
            self.world.events.bypass(self.bypass());
            return Ok(());
        }
        self.desired.set_bypass(before);
        let why = failures.first().map_or("they do not show it", String::as_str);
        Err(Refusal::NotTaken(why.to_owned()))
    }

    /// Says now and then that a bypass is on, and when it has ended.
    pub(super) fn remind(&mut self) {
        let now = (self.world.clock)();
        let Some(until) = self.desired.bypass() else {
            return;
        };
        if now.boot_ns >= until.until_ns {
            match self.switch(None, now) {
                Ok(()) => {
                    tracing::warn!(target: "gateway::dataplane", "the bypass has ended: filtering again");
                }
                // The end is in the kernel: it filters all the same.
                Err(error) => {
                    tracing::warn!(target: "gateway::dataplane", %error, "the bypass has ended, but the settings could not be tidied up");
                }
            }
        } else if now.boot_ns >= self.remind_ns {
            self.remind_ns = now.after(REMIND_EVERY);
            if let Some(bypass) = self.bypass() {
                tracing::warn!(target: "gateway::dataplane", "{bypass}; `gateway bypass off` ends it");
                self.world.events.bypass(Some(bypass));
            }
        }
    }
}
