//! Who must not be cut off: the facts fetched, and the denies that are skipped for their sake.
//!
//! A list is written once and holds for years; an address of this host or an operator's session may come after it. So
//! whom a deny would cut off is decided again whenever the tables are brought up to date, and with each look at the
//! interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Engine, Refusal};
use crate::config::units::plain;
use crate::dataplane::desired::Desired;
use crate::dataplane::protected::{Host, Protected, Why};

/// Skipped denies told one by one; a list can hold any number.
const TOLD: usize = 20;

/// In an operator's words.
fn sentence(net: &IpNet, why: &Why) -> String {
    let net = plain(*net);
    format!(
        "deny {net} is NOT enforced, since {why}; allow that address to have the rest of it denied, or insist with \
         `gateway deny add --force {net}`"
    )
}

fn sentences<'a>(skipped: impl Iterator<Item = (&'a IpNet, &'a Why)>) -> Vec<String> {
    let (mut told, mut more) = (Vec::new(), 0);
    for (net, why) in skipped {
        if told.len() < TOLD {
            told.push(sentence(net, why));
        } else {
            more += 1;
        }
    }
    if more > 0 {
        told.push(format!(
            "and {more} more denies are NOT enforced for such reasons"
        ));
    }
    told
}

/// Who gives an order that may cut someone off, and whether they insist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Addresses the operator works from, as far as his shell knows.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub operators: Vec<IpAddr>,
    /// Go on even if that cuts him off.
    #[serde(default)]
    pub force: bool,
}

impl Engine {
    /// Tries a change of what is desired, and undoes it.
    ///
    /// # Errors
    /// The change would have a deny cut off who orders it, which it does not now. Others who must not be cut off are seen
    /// to by [`Engine::guard`]; of him the host may know nothing.
    pub(super) fn spare<U>(
        &mut self,
        by: &By,
        change: impl FnOnce(&mut Desired) -> U,
        undo: impl FnOnce(&mut Desired, U),
    ) -> Result<(), Refusal> {
        if by.force || by.operators.is_empty() {
            return Ok(());
        }
        let protected = Protected::new(&Host::default(), &by.operators, &[], |_| true);
        let before = self.desired.cutting_off(&protected);
        let changed = change(&mut self.desired);
        let after = self.desired.cutting_off(&protected);
        undo(&mut self.desired, changed);
        match after.into_iter().find(|(net, _)| !before.contains_key(net)) {
            Some((net, why)) => Err(Refusal::CutsOff { net, why }),
            None => Ok(()),
        }
    }

    /// Whoever must not be cut off now, and `operators` that are known besides.
    pub(super) fn protected(&self, operators: &[IpAddr]) -> Protected {
        Protected::new(&(self.world.host)(), operators, &self.proxies, |interface| {
            self.interfaces.filter(interface)
        })
    }

    /// Leaves each deny as the tables hold it, for a command that does not know the whole configuration.
    pub fn hold(&mut self) {
        let now = (self.world.clock)();
        self.desired.hold(&self.enforced, now.boot_ns);
    }

    /// Decides again which denies are skipped. Tells those that are from now on, and returns them as text.
    pub fn guard(&mut self) -> Vec<String> {
        // Asking for every session of the host costs as much as there are, and without a deny nobody is cut off.
        let protected = match self.desired.denies() {
            true => self.protected(&[]),
            false => Protected::default(),
        };
        let before: BTreeMap<IpNet, Why> = self.desired.skipped().clone();
        self.desired.protect(&protected);
        let after = self.desired.skipped();
        let new = sentences(after.iter().filter(|(net, _)| !before.contains_key(net)));
        for warning in &new {
            tracing::warn!(target: "gateway::dataplane", "{warning}");
        }
        for net in before.keys().filter(|net| !after.contains_key(net)).take(TOLD) {
            tracing::info!(target: "gateway::dataplane", %net, "no longer skipped: nobody protected would be cut off");
        }
        new
    }

    /// Follows the facts between two reconciliations: brings the tables up to date if other denies are skipped now.
    pub(super) fn follow_facts(&mut self) {
        if !self.desired.denies() {
            return;
        }
        let before = self.desired.skipped().clone();
        self.guard();
        if before.keys().ne(self.desired.skipped().keys()) {
            let now = (self.world.clock)();
            self.enforce(now);
        }
    }

    /// Denies that are not enforced since they would cut off someone protected, as text.
    #[must_use]
    pub fn skipped(&self) -> Vec<String> {
        sentences(self.desired.skipped().iter())
    }

    /// How many there are.
    #[must_use]
    pub fn skipped_count(&self) -> usize {
        self.desired.skipped().len()
    }
}
