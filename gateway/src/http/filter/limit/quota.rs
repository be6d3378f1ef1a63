//! Requests of a caller in a day or month. Owns how a count and its period make one number; knows no file and no clock.
//!
//! The number's upper bits are the period's, so that one of an earlier period is at or below the present one's base and costs
//! nobody: nothing has to be cleared at midnight.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::calendar;
use super::gcra::Verdict;
use super::table::{Budget, Table};
use crate::config::model::{LimitKey, Period, Quota};

/// Bits of a count.
const COUNT: u32 = 40;

/// What quotas of a process share.
#[derive(Debug)]
pub struct Common {
    /// Keeps clients from foreseeing hashes; the same as long as counts are kept.
    seed: [u8; 16],
    /// That of an earlier life, whose counts are taken up.
    former: OnceLock<[u8; 16]>,
    /// Seconds since 1970.
    now: AtomicU64,
    /// Something was counted since the last look.
    changed: AtomicBool,
}

impl Common {
    #[must_use]
    pub fn new(seed: [u8; 16]) -> Self {
        Self {
            seed,
            former: OnceLock::new(),
            now: AtomicU64::new(0),
            changed: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn seed(&self) -> [u8; 16] {
        *self.former.get().unwrap_or(&self.seed)
    }

    /// Hashes as an earlier life did. Once.
    pub fn reseed(&self, seed: [u8; 16]) {
        let _ = self.former.set(seed);
    }

    /// What time it is; to be told every second or so.
    pub fn tick(&self, unix_s: u64) {
        self.now.store(unix_s, Ordering::Relaxed);
    }

    /// What [`Common::changed`] told was of no use: it is to tell it again.
    pub fn mark(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether something was counted since this was last asked.
    pub fn changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }
}

/// The counts of one quota.
#[derive(Debug)]
pub struct Quotas {
    pub(super) by: LimitKey,
    pub(super) per: Period,
    offset_s: i32,
    common: Arc<Common>,
    table: Table,
}

impl Quotas {
    pub(super) fn new(model: &Quota, common: &Arc<Common>, budget: &Arc<Budget>) -> Self {
        Self {
            by: model.by.clone(),
            per: model.per,
            offset_s: model.offset_s,
            common: Arc::clone(common),
            table: Table::new(budget),
        }
    }

    /// Whether its counts are those that `model` asks for.
    pub(super) fn fits(&self, model: &Quota) -> bool {
        (&self.by, self.per, self.offset_s) == (&model.by, model.per, model.offset_s)
    }

    /// Of what `feed` hands out; the same in the next life of the process.
    pub(super) fn hash(&self, feed: impl FnOnce(&mut dyn FnMut(&[u8]))) -> u64 {
        let mut digest = Sha256::new_with_prefix(self.common.seed());
        feed(&mut |bytes| digest.update(bytes));
        digest
            .finalize()
            .iter()
            .take(8)
            .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }

    /// Counts one request, if there are fewer than `most`.
    pub(super) fn charge(&self, hash: u64, most: u64) -> Verdict {
        let (base, left) = self.base();
        let verdict = self.table.update(hash, base, |value, base| {
            let count = value - base;
            let admitted = count < most;
            let count = count + u64::from(admitted);
            let nanoseconds = left.saturating_mul(1_000_000_000);
            let verdict = Verdict {
                admitted,
                left: most.saturating_sub(count),
                whole_in: nanoseconds,
                wait: if admitted { 0 } else { nanoseconds },
            };
            (base + count, verdict)
        });
        if verdict.admitted {
            self.common.changed.store(true, Ordering::Relaxed);
        }
        verdict
    }

    /// Takes back one that went no further.
    pub(super) fn refund(&self, hash: u64) {
        let (base, _) = self.base();
        self.table
            .update(hash, base, |value, base| (value.saturating_sub(1).max(base), ()));
    }

    /// Every count of the present period, by hash; and what those have who are not among them.
    pub(super) fn each(&self, tell: impl FnMut(u64, u64)) -> u64 {
        let (base, _) = self.base();
        self.table.each(base, tell);
        self.table.floor()
    }

    /// Puts in what was counted in an earlier life.
    pub(super) fn restore(&self, floor: u64, counts: impl Iterator<Item = (u64, u64)>) {
        self.table.raise_floor(floor);
        for (hash, value) in counts {
            self.table.update(hash, 0, |now, _| (now.max(value), ()));
        }
    }

    fn base(&self) -> (u64, u64) {
        let (number, left) =
            calendar::period(self.per, self.common.now.load(Ordering::Relaxed), self.offset_s);
        (number << COUNT, left)
    }
}
