//! Published keys (RFC 7517, 5): the last set that was read, and the way to ask for a newer one.
//!
//! Shared by all workers. Reading it is a load; looking at the issuer is the [`keeper`]'s matter, on a thread of its own, so
//! one look answers for all who wait, and none begins sooner after the last than the floor allows, whatever tokens ask
//! for. When the issuer does not answer, the last keys stay.

pub mod keeper;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::keys::Keys;
use crate::config::model::{Algorithm, KeySource, Url, VerifyKey};

/// Requests that wait for one look.
const MOST_WAITING: u32 = 1_024;

/// The set of one source.
#[derive(Debug)]
pub struct KeySet {
    source: KeySource,
    published: ArcSwap<Published>,
    /// A look is asked for.
    wanted: Notify,
    /// Looks that have ended.
    looks: watch::Sender<u64>,
    /// When the last one began.
    last: Mutex<Option<Instant>>,
    /// When the last one that was answered ended.
    answered: Mutex<Option<Instant>>,
    /// Whether the last one was.
    failing: AtomicBool,
    /// One is under way.
    busy: AtomicBool,
    waiting: AtomicU32,
    /// Somebody looks after it.
    kept: AtomicBool,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Published {
    pub keys: Keys,
    /// Grows with every change. Zero: nothing was ever read.
    pub epoch: u64,
    /// The issuer's metadata, where the keys were found by them.
    pub metadata: Option<Arc<Map<String, Value>>>,
    raw: Vec<VerifyKey>,
}

/// One more who waits.
struct Waiting<'s>(&'s AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl KeySet {
    fn new(source: &KeySource) -> Self {
        Self {
            source: source.clone(),
            published: ArcSwap::default(),
            wanted: Notify::new(),
            looks: watch::Sender::new(0),
            last: Mutex::new(None),
            answered: Mutex::new(None),
            failing: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// What there is.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Published>> {
        self.published.load()
    }

    /// Whether a set was ever read.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.published.load().epoch > 0
    }

    /// Where the keys are from.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.source.url
    }

    /// Seconds since the issuer last answered; `None` if it never has.
    #[must_use]
    pub fn age(&self) -> Option<u64> {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.map(|answered| answered.elapsed().as_secs())
    }

    /// Whether the last look got no answer.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// A look has ended.
    fn ended(&self, good: bool) {
        self.failing.store(!good, Ordering::Relaxed);
        if good {
            *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// When the next look may begin; `None` for now.
    fn barred(&self) -> Option<Instant> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = last? + self.source.floor;
        (Instant::now() < next).then_some(next)
    }

    /// Whether it is worth while to wait for a look: one is under way or may begin, and not too many wait already.
    #[must_use]
    pub fn may_be_asked(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < MOST_WAITING
            && (self.busy.load(Ordering::Acquire) || self.barred().is_none())
    }

    /// Asks for a look, unless one is under way, and waits for its end.
    pub async fn look(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let mut looks = self.looks.subscribe();
        if !self.busy.load(Ordering::Acquire) {
            // One that has ended since we looked has read what there is.
            if self.barred().is_some() {
                return;
            }
            self.wanted.notify_one();
        }
        // Metadata and keys are two exchanges.
        let _ = timeout(self.source.timeout * 2, looks.changed()).await;
    }

    /// Puts what was read in the place of what was there. Whether that is a change.
    fn replace(&self, keys: Vec<VerifyKey>, metadata: Option<Map<String, Value>>) -> bool {
        let old = self.published.load();
        if old.epoch > 0 && old.raw == keys && old.metadata.as_deref() == metadata.as_ref() {
            return false;
        }
        let all: Vec<_> = Algorithm::ALL
            .into_iter()
            .map(|(_, algorithm)| algorithm)
            .collect();
        self.published.store(Arc::new(Published {
            keys: Keys::new(&keys, &all),
            epoch: old.epoch + 1,
            metadata: metadata.map(Arc::new),
            raw: keys,
        }));
        true
    }
}

/// The sets of a configuration, each source once.
#[derive(Debug, Default)]
pub struct KeySets(HashMap<KeySource, Arc<KeySet>>);

impl KeySets {
    /// Goes on with one that there is.
    pub fn add(&mut self, set: &Arc<KeySet>) {
        self.0
            .entry(set.source.clone())
            .or_insert_with(|| Arc::clone(set));
    }

    /// The set of a source.
    pub fn get(&mut self, source: &KeySource) -> Arc<KeySet> {
        let made = self.0.entry(source.clone());
        Arc::clone(made.or_insert_with(|| Arc::new(KeySet::new(source))))
    }
}
