//! Requests under way, by caller. Owns the promise that each is counted down once, however it ends: by a [`Permit`]'s drop.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::model::LimitKey;

const SHARDS: usize = 16;

/// How many there are of each. As large as the number of requests under way, and no larger.
#[derive(Debug)]
pub struct Counts {
    pub(super) by: LimitKey,
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, u32>>; SHARDS],
}

/// One request that is under way, to be kept as long as it is.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Counts>,
    hash: u64,
}

impl Counts {
    pub(super) fn new(by: &LimitKey) -> Self {
        Self {
            by: by.clone(),
            hasher: RandomState::new(),
            shards: Default::default(),
        }
    }

    pub(super) fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Counts one more; also returns how many there were before it.
    pub(super) fn enter(self: &Arc<Self>, hash: u64) -> (Permit, u32) {
        let mut shard = self.lock(hash);
        let count = shard.entry(hash).or_default();
        let before = *count;
        *count = before.saturating_add(1);
        drop(shard);
        let counts = Arc::clone(self);
        (Permit { counts, hash }, before)
    }

    /// Callers with a request under way.
    #[must_use]
    pub fn callers(&self) -> usize {
        (0..SHARDS as u64).map(|index| self.lock(index << 60).len()).sum()
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.counts.lock(self.hash).entry(self.hash) {
            match entry.get().checked_sub(1) {
                None | Some(0) => drop(entry.remove()),
                Some(left) => *entry.get_mut() = left,
            }
        }
    }
}
