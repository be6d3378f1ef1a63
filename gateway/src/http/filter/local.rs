//! What a worker lends its chains: the time of day, and what steps remember from one request to the next.
//!
//! A chain is shared by all workers and owns no state. What a step may remember lies here, on the one thread that uses it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::cache::Cache;
use super::identity::Identity;
use crate::http::date::Date;
use crate::upstream::fetch::Kept;

/// Verified credentials that one worker remembers.
const MOST_KNOWN: usize = 16_384;

/// One worker's.
pub struct Local {
    date: RefCell<Date>,
    /// Makes the keys of what is remembered: nobody outside can tell which credentials share a place.
    secret: [u8; 32],
    known: RefCell<Cache<Known>>,
    /// Connections to services that are asked about callers.
    pub(super) kept: Kept,
    /// Requests that wait for one to look a token up.
    asking: Cell<u32>,
}

/// One more who waits.
pub(super) struct Asking<'l>(&'l Cell<u32>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Credentials that were found good.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) identity: Arc<Identity>,
    /// State of the keys that they were verified by.
    pub(super) epoch: u64,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Default for Local {
    fn default() -> Self {
        let mut secret = [0; 32];
        // Without randomness TLS would not have started; a known secret makes the cache's order known, and opens nothing.
        let _ = getrandom::fill(&mut secret);
        Self {
            date: RefCell::default(),
            secret,
            known: RefCell::new(Cache::new(MOST_KNOWN)),
            kept: Kept::default(),
            asking: Cell::new(0),
        }
    }
}

impl Local {
    /// Seconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.date.borrow_mut().seconds(Instant::now())
    }

    /// The text of a `Date` line.
    #[must_use]
    pub(in crate::http) fn date(&self) -> [u8; 29] {
        self.date.borrow_mut().at(Instant::now())
    }

    /// A place among so many who wait; none if there are as many already.
    pub(super) fn begin_asking(&self, most: u32) -> Option<Asking<'_>> {
        if self.asking.get() >= most {
            return None;
        }
        self.asking.set(self.asking.get() + 1);
        Some(Asking(&self.asking))
    }

    /// The name under which credentials are remembered for the filter `id`.
    pub(super) fn name(&self, id: u64, credentials: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(id.to_le_bytes());
        hash.update(credentials);
        hash.finalize().into()
    }

    /// Whom credentials were found to be of, if that still holds.
    pub(super) fn known(&self, name: &[u8; 32], epoch: u64) -> Option<Arc<Identity>> {
        let now = self.now();
        let mut known = self.known.borrow_mut();
        let found = known.get(name, now)?;
        (found.epoch == epoch).then(|| Arc::clone(&found.identity))
    }

    /// Remembers good credentials until a time.
    pub(super) fn remember(&self, name: [u8; 32], until: u64, identity: &Arc<Identity>, epoch: u64) {
        let known = Known {
            identity: Arc::clone(identity),
            epoch,
        };
        self.known.borrow_mut().put(name, until, known);
    }
}
