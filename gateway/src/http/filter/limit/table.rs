//! Numbers by key, for as many keys as a memory that is set beforehand holds. Owns who must make room and what that means;
//! knows neither what a number stands for nor any clock.
//!
//! A number only grows while it matters, and does not matter any more once it is at or below a *base* that the caller names:
//! the present, or zero. Where there is no room, the least of sixteen numbers is forgotten, and kept as its shard's *floor*: a
//! key that is not found starts there. So a key never has less than it had, whoever pushed it out: **what was forgotten can
//! err on the strict side alone**, and that only for as long as the floor is above the base.
//!
//! Sixteen shards, each behind a lock that is held for one look-up, are shared by all workers. Within a shard, a key has two groups of
//! eight cells and lives in the emptier one, so that three quarters of the cells are in use before a group is full. Shards grow
//! and shrink by themselves; all tables together take from one [`Budget`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;
/// Cells in a group: two cache lines.
const WAYS: usize = 8;
/// A shard's first cells, which it has beyond any budget.
const FIRST: usize = 64;
/// All tables of a process together: 64 MiB.
pub const MOST_CELLS: usize = (64 << 20) / size_of::<Cell>();

/// What the tables of a process may still take, in cells.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// Of so many cells of 16 bytes.
    #[must_use]
    pub fn new(cells: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(cells)))
    }

    fn take(&self, cells: usize) -> bool {
        let less = |left: usize| left.checked_sub(cells);
        let (yes, no) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(yes, no, less).is_ok()
    }

    fn give(&self, cells: usize) {
        self.0.fetch_add(cells, Ordering::Relaxed);
    }
}

/// Numbers by key.
#[derive(Debug)]
pub struct Table {
    shards: [Shard; SHARDS],
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Cells>);

#[derive(Debug, Default)]
struct Cells {
    cells: Vec<Cell>,
    /// Cells that hold a key, be its number of any use or not.
    used: usize,
    /// The greatest number that was forgotten while it mattered.
    floor: u64,
    /// The greatest base so far: it never goes back, though threads come with theirs out of order.
    base: u64,
    /// New keys to come before room is looked for again, after there was none.
    patience: usize,
    /// Or the base at which all that was there then will matter no more.
    until: u64,
}

/// Key 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    key: u64,
    value: u64,
}

impl Table {
    #[must_use]
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            shards: Default::default(),
            budget: Arc::clone(budget),
        }
    }

    /// Changes the number of a key, seen and changed by nobody else meanwhile. `change` is given the number, at least the
    /// base, and the base, which may be later than the one that was passed; it returns the new number and what the caller
    /// gets. `hash` must be even over all of `u64` and not to be foreseen by clients.
    pub fn update<T>(&self, hash: u64, base: u64, change: impl FnOnce(u64, u64) -> (u64, T)) -> T {
        // The highest bits choose the shard, low and middle ones the groups.
        let mut shard = self.lock((hash >> 60) as usize);
        shard.base = shard.base.max(base);
        let base = shard.base;
        let at = shard.place(hash.max(1), &self.budget);
        let cell = &mut shard.cells[at];
        let (value, told) = change(cell.value.max(base), base);
        cell.value = value;
        told
    }

    /// Every key with its number, if that is above `base`.
    pub fn each(&self, base: u64, mut tell: impl FnMut(u64, u64)) {
        for index in 0..SHARDS {
            let shard = self.lock(index);
            for cell in shard
                .cells
                .iter()
                .filter(|cell| cell.key != 0 && cell.value > base)
            {
                tell(cell.key, cell.value);
            }
        }
    }

    /// The greatest floor of any shard.
    #[must_use]
    pub fn floor(&self) -> u64 {
        (0..SHARDS).map(|index| self.lock(index).floor).max().unwrap_or(0)
    }

    /// Lets every key that is not found start at `floor`, at least.
    pub fn raise_floor(&self, floor: u64) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            shard.floor = shard.floor.max(floor);
        }
    }

    /// Forgets all, floors too.
    pub fn clear(&self) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            self.budget.give(beyond(shard.cells.len()));
            *shard = Cells::default();
        }
    }

    /// Bytes that are taken now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let cells = (0..SHARDS).map(|index| self.lock(index).cells.capacity());
        size_of::<Self>() + cells.sum::<usize>() * size_of::<Cell>()
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Cells> {
        let shard = &self.shards[index % SHARDS];
        shard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What of a shard's cells comes out of the budget.
fn beyond(cells: usize) -> usize {
    cells.saturating_sub(FIRST)
}

impl Cells {
    /// Where a key lives, whether it did before or not.
    fn place(&mut self, key: u64, budget: &Budget) -> usize {
        if let Some(at) = self.find(key) {
            return at;
        }
        let crowded = self.groups(key).iter().all(|start| self.free(*start) == 0);
        if crowded || self.used * 4 >= self.cells.len() * 3 {
            self.resize(crowded, budget);
        }
        let value = self.base.max(self.floor);
        self.insert(Cell { key, value })
    }

    fn groups(&self, key: u64) -> [usize; 2] {
        let last = (self.cells.len() / WAYS).saturating_sub(1);
        let (one, other) = (key as usize & last, (key >> 30) as usize & last);
        let other = if one == other { (one + 1) & last } else { other };
        [one * WAYS, other * WAYS]
    }

    fn find(&self, key: u64) -> Option<usize> {
        let at = |start: usize| {
            let group = self.cells.get(start..start + WAYS)?;
            group.iter().position(|cell| cell.key == key).map(|i| start + i)
        };
        let [one, other] = self.groups(key);
        at(one).or_else(|| at(other))
    }

    /// Cells of a group whose numbers do not matter.
    fn free(&self, start: usize) -> usize {
        let group = self.cells.get(start..start + WAYS).unwrap_or_default();
        group.iter().filter(|cell| cell.value <= self.base).count()
    }

    /// Puts in what is not there, in the emptier of its groups; the least goes if both are full.
    fn insert(&mut self, new: Cell) -> usize {
        let [one, other] = self.groups(new.key);
        let emptier = if self.free(other) > self.free(one) {
            other
        } else {
            one
        };
        let least = |start: usize| {
            let group = self.cells[start..start + WAYS].iter().enumerate();
            group.map(|(i, cell)| (cell.value, start + i)).min()
        };
        // The least of a group with a free cell is a free one.
        let (value, at) = if self.free(emptier) > 0 {
            least(emptier)
        } else {
            least(one).min(least(other))
        }
        .unwrap_or_default();
        let mut new = new;
        if value > self.base {
            self.floor = self.floor.max(value);
            new.value = new.value.max(self.floor);
        }
        let cell = &mut self.cells[at];
        self.used += usize::from(cell.key == 0);
        *cell = new;
        at
    }

    /// Throws out what does not matter any more, into a memory that fits what is left; a larger one if it is `crowded`, so
    /// that nothing is forgotten while there is room.
    fn resize(&mut self, crowded: bool, budget: &Budget) {
        if self.patience > 0 && self.base < self.until {
            self.patience -= 1;
            return;
        }
        let matters = |cell: &&Cell| cell.key != 0 && cell.value > self.base;
        let live = self.cells.iter().filter(matters).count();
        let had = self.cells.len();
        let least = if crowded && live * 4 > had { had * 2 } else { FIRST };
        let mut want = (live * 2).next_power_of_two().max(FIRST).max(least);
        if want > had && !budget.take(beyond(want) - beyond(had)) {
            want = had;
        }
        if want < had {
            budget.give(beyond(had) - beyond(want));
        }
        if want == had && live * 8 > had * 5 {
            self.patience = had / 4;
            self.until = self.cells.iter().map(|cell| cell.value).max().unwrap_or_default();
            return;
        }
        let old = std::mem::replace(&mut self.cells, vec![Cell::default(); want]);
        self.used = 0;
        let base = self.base;
        for cell in old.into_iter().filter(|cell| cell.key != 0 && cell.value > base) {
            self.insert(cell);
        }
    }
}

#[cfg(test)]
mod tests;
