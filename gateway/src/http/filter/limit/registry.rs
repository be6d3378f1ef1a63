//! What limits have counted, for all workers of a process. Owns which limits count together, and that a reload which leaves
//! a limit's callers alone leaves its counts alone: rate and burst may change, as what is kept is time and not a number of
//! requests.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;

use tokio::time::Instant;

use super::concurrency::Counts;
use super::gcra::{Gcra, Verdict};
use super::ledger::{Entry, Ledger};
use super::quota::{Common, Quotas};
use super::table::{Budget, MOST_CELLS, Table};
use crate::config::model::{Concurrency, LimitKey, Quota, RateLimit, Route};

/// The counts of every limit in a configuration.
#[derive(Debug)]
pub struct Registry {
    budget: Arc<Budget>,
    common: Arc<Common>,
    kept: Kept,
    /// Of the configuration before, while this one is being compiled.
    before: Kept,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    rates: HashMap<Owner, Arc<Rates>>,
    counts: HashMap<Owner, Arc<Counts>>,
    quotas: HashMap<Owner, Arc<Quotas>>,
}

/// Whose counts they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// Of a limit with a name: of all routes that use it.
    Named(String),
    /// A route's own, by its place among the route's limits of the kind.
    Route(String, usize),
}

impl Registry {
    /// For the configuration that comes after that of `before`: counts are taken over as limits ask for them.
    #[must_use]
    pub fn after(before: Option<&Self>) -> Self {
        Self {
            budget: before.map_or_else(|| Budget::new(MOST_CELLS), |before| Arc::clone(&before.budget)),
            common: before.map_or_else(
                || Arc::new(Common::new(rand_seed())),
                |before| Arc::clone(&before.common),
            ),
            kept: Kept::default(),
            before: before.map(|before| before.kept.clone()).unwrap_or_default(),
        }
    }

    /// Takes over the counts of a route that stays as it is.
    pub fn keep(&mut self, route: &Route) {
        for (index, model) in route.throttle.rates.iter().enumerate() {
            self.rates(&route.name, index, model);
        }
        for (index, model) in route.throttle.at_once.iter().enumerate() {
            self.counts(&route.name, index, model);
        }
        for (index, model) in route.throttle.quotas.iter().enumerate() {
            self.quotas(&route.name, index, model);
        }
    }

    /// Every limit has asked: what nobody wanted goes.
    pub fn settle(&mut self) {
        self.before = Kept::default();
    }

    pub(super) fn rates(&mut self, route: &str, index: usize, model: &RateLimit) -> Arc<Rates> {
        let owner = match &model.name {
            Some(name) => Owner::Named(name.clone()),
            None => Owner::Route(route.to_owned(), index),
        };
        let known = self.before.rates.get(&owner).filter(|old| old.by == model.by);
        let budget = &self.budget;
        let entry = self
            .kept
            .rates
            .entry(owner)
            .or_insert_with(|| known.map_or_else(|| Arc::new(Rates::new(&model.by, budget)), Arc::clone));
        Arc::clone(entry)
    }

    pub(super) fn counts(&mut self, route: &str, index: usize, model: &Concurrency) -> Arc<Counts> {
        let owner = Owner::Route(route.to_owned(), index);
        let known = self.before.counts.get(&owner).filter(|old| old.by == model.by);
        let entry = self
            .kept
            .counts
            .entry(owner)
            .or_insert_with(|| known.map_or_else(|| Arc::new(Counts::new(&model.by)), Arc::clone));
        Arc::clone(entry)
    }
}

impl Registry {
    pub(super) fn quotas(&mut self, route: &str, index: usize, model: &Quota) -> Arc<Quotas> {
        let owner = match &model.name {
            Some(name) => Owner::Named(name.clone()),
            None => Owner::Route(route.to_owned(), index),
        };
        let known = self.before.quotas.get(&owner).filter(|old| old.fits(model));
        let (budget, common) = (&self.budget, &self.common);
        let entry = self.kept.quotas.entry(owner).or_insert_with(|| {
            known.map_or_else(|| Arc::new(Quotas::new(model, common, budget)), Arc::clone)
        });
        Arc::clone(entry)
    }

    /// Whether there are counts that are to outlive the process.
    #[must_use]
    pub fn has_quotas(&self) -> bool {
        !self.kept.quotas.is_empty()
    }

    /// What time it is, in seconds since 1970; to be told every second or so.
    pub fn tick(&self, unix_s: u64) {
        self.common.tick(unix_s);
    }

    /// The counts of quotas, if there are any and they have changed since this was last asked.
    #[must_use]
    pub fn ledger(&self) -> Option<Ledger> {
        if !self.has_quotas() || !self.common.changed() {
            return None;
        }
        let quotas = self.kept.quotas.iter().map(|(owner, quotas)| {
            let mut counts = Vec::new();
            let floor = quotas.each(|hash, number| counts.push((hash, number)));
            let owner = identity(owner, quotas);
            Entry { owner, floor, counts }
        });
        Some(Ledger {
            seed: self.common.seed(),
            quotas: quotas.collect(),
        })
    }

    /// The ledger could not be kept: there is still one to be.
    pub fn unkept(&self) {
        self.common.mark();
    }

    /// Takes up what another life of the process has counted. For quotas that are the same as then; to be called before the
    /// first request.
    pub fn restore(&self, ledger: &Ledger) {
        self.common.reseed(ledger.seed);
        for (owner, quotas) in &self.kept.quotas {
            let owner = identity(owner, quotas);
            if let Some(entry) = ledger.quotas.iter().find(|entry| entry.owner == owner) {
                quotas.restore(entry.floor, entry.counts.iter().copied());
            }
        }
    }
}

/// Whose counts these are, and what makes a caller: text that is the same in the next life.
fn identity(owner: &Owner, quotas: &Quotas) -> String {
    format!("{owner:?} {:?} {:?}", quotas.per, quotas.by)
}

/// Not to be foreseen by clients.
fn rand_seed() -> [u8; 16] {
    let mut seed = [0; 16];
    if getrandom::fill(&mut seed).is_err() {
        use std::hash::BuildHasher as _;
        let hasher = RandomState::new();
        seed = (u128::from(hasher.hash_one(1)) << 64 | u128::from(hasher.hash_one(2))).to_le_bytes();
    }
    seed
}

/// When each caller will have its whole burst again.
#[derive(Debug)]
pub struct Rates {
    by: LimitKey,
    /// Its keys are drawn at random, so that no client can foresee who shares a place with whom.
    hasher: RandomState,
    table: Table,
    /// Where its clock begins.
    epoch: Instant,
}

impl Rates {
    pub(super) fn new(by: &LimitKey, budget: &Arc<Budget>) -> Self {
        Self {
            by: by.clone(),
            hasher: RandomState::new(),
            table: Table::new(budget),
            epoch: Instant::now(),
        }
    }

    pub(super) fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Charges one request, if it is admitted.
    pub(super) fn charge(&self, hash: u64, now: Instant, gcra: Gcra) -> Verdict {
        self.table
            .update(hash, self.at(now), |tat, now| gcra.decide(tat, now))
    }

    /// Takes back what was charged for a request that went no further.
    pub(super) fn refund(&self, hash: u64, now: Instant, gcra: Gcra) {
        self.table
            .update(hash, self.at(now), |tat, _| (gcra.refund(tat), ()));
    }

    /// Bytes that its counts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// One is more than the beginning, as a TAT of zero is none.
    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}
