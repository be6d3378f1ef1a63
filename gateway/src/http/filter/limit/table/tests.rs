use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::gcra::Gcra;
use super::*;
use crate::config::model::Rate;

fn gcra(count: u32, per: Duration, burst: u32) -> Gcra {
    let count = NonZeroU32::new(count).unwrap();
    Gcra::new(Rate { count, per }, burst)
}

const HOUR: Duration = Duration::from_secs(3600);

fn admits(table: &Table, limit: Gcra, hash: u64, now: u64) -> bool {
    table
        .update(hash, now, |tat, now| limit.decide(tat, now))
        .admitted
}

/// An even hash that is the same each time.
fn hash(key: u64) -> u64 {
    let mut x = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A limit as one would write it without a thought of memory: when each admitted request was, exactly.
#[derive(Default)]
struct Slow(HashMap<u64, Vec<u64>>);

impl Slow {
    /// By the definition of a bucket that holds `burst` requests and gets one back each `interval`: replays them all.
    fn admits(&self, key: u64, now: u64, interval: u64, burst: u64) -> bool {
        let mut debt: u128 = 0;
        let mut last = 0;
        for at in self.0.get(&key).into_iter().flatten() {
            debt = debt.saturating_sub(u128::from(at - last)) + u128::from(interval);
            last = *at;
        }
        debt = debt.saturating_sub(u128::from(now - last));
        debt + u128::from(interval) <= u128::from(interval) * u128::from(burst)
    }

    fn admitted(&mut self, key: u64, now: u64) {
        self.0.entry(key).or_default().push(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_room_a_rate_is_exact(
        steps in proptest::collection::vec((0..5_u64, 0..700_u64), 1..200),
        per_second in 1..2_000_u32,
        burst in 1..20_u32,
    ) {
        let (table, mut slow) = (Table::new(&Budget::new(MOST_CELLS)), Slow::default());
        let limit = gcra(per_second, Duration::from_secs(1), burst);
        let interval = 1_000_000_000_u64.div_ceil(per_second.into());
        let mut now = 1;
        for (key, pause) in steps {
            now += pause * interval / 500;
            let expected = slow.admits(key, now, interval, burst.into());
            prop_assert_eq!(admits(&table, limit, hash(key), now), expected);
            if expected {
                slow.admitted(key, now);
            }
        }
    }

    #[test]
    fn without_room_nobody_is_let_through_wrongly(
        steps in proptest::collection::vec((0..4_000_u64, 0..40_u64), 5_000),
        burst in 1..4_u32,
    ) {
        // As many keys as four times the cells.
        let (table, mut slow) = (Table::new(&Budget::new(0)), Slow::default());
        let interval = 1_000_000;
        let limit = gcra(1000, Duration::from_secs(1), burst);
        let mut now = 1;
        for (key, pause) in steps {
            now += pause * 10;
            if admits(&table, limit, hash(key), now) {
                prop_assert!(slow.admits(key, now, interval, burst.into()), "{key} at {now}");
                slow.admitted(key, now);
            }
        }
        prop_assert!(table.bytes() <= size_of::<Table>() + SHARDS * FIRST * 16);
    }
}

#[test]
fn all_threads_together_get_what_one_would() {
    let table = Table::new(&Budget::new(MOST_CELLS));
    let limit = gcra(1, HOUR, 5_000);
    let keys = 7;
    let admitted: Vec<AtomicUsize> = (0..keys).map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (table, admitted) = (&table, &admitted);
            scope.spawn(move || {
                for i in 0..20_000_u64 {
                    let key = (i + thread) % keys;
                    // Clocks of threads are a little apart.
                    if admits(table, limit, hash(key), 1_000 + (i * 7 + thread * 13) % 900) {
                        admitted[key as usize].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let admitted: Vec<_> = admitted.into_iter().map(AtomicUsize::into_inner).collect();
    assert_eq!(admitted, [5_000; 7]);
}

#[test]
fn a_million_keys_are_kept_in_half_the_memory_and_none_is_let_through_twice() {
    const KEYS: u64 = 1_000_000;
    let (table, hasher) = (Table::new(&Budget::new(MOST_CELLS)), RandomState::new());
    let limit = gcra(1, HOUR, 1);
    let start = Instant::now();
    let first = (0..KEYS)
        .filter(|key| admits(&table, limit, hasher.hash_one(key), 1 + key))
        .count();
    let filling = start.elapsed();
    let again = (0..KEYS)
        .filter(|key| admits(&table, limit, hasher.hash_one(key), 1 + KEYS))
        .count();
    let start = Instant::now();
    for _ in 0..KEYS {
        admits(&table, limit, hasher.hash_one(7_u64), 1 + KEYS);
    }
    let hot = start.elapsed();
    println!(
        "{KEYS} keys: {} KiB, filling {} ns a check, one key {} ns a check",
        table.bytes() >> 10,
        filling.as_nanos() / u128::from(KEYS),
        hot.as_nanos() / u128::from(KEYS),
    );
    assert_eq!((first, again), (KEYS as usize, 0));
    assert!(table.bytes() <= 33 << 20, "{}", table.bytes());
}

#[test]
fn the_memory_is_bounded_whatever_comes_and_given_back_when_it_is_over() {
    const CELLS: usize = 1 << 18;
    let budget = Budget::new(CELLS);
    let (table, hasher) = (Table::new(&budget), RandomState::new());
    let limit = gcra(1, HOUR, 1);
    let known: Vec<u64> = (0..1000).collect();
    for key in &known {
        assert!(admits(&table, limit, hasher.hash_one(key), 1));
    }
    for key in 1_000_000..1_400_000_u64 {
        admits(&table, limit, hasher.hash_one(key), 2);
    }
    assert!(
        table.bytes() <= (CELLS + SHARDS * FIRST) * 16 + size_of::<Table>(),
        "{}",
        table.bytes()
    );
    let again = known
        .iter()
        .filter(|key| admits(&table, limit, hasher.hash_one(key), 3))
        .count();
    assert_eq!(again, 0, "whoever was pushed out is no better off");
    // An hour later all is forgotten, and a new limit finds room again.
    let later = 3_600_000_000_000 * 2;
    for key in 0..50_000_u64 {
        assert!(admits(
            &table,
            limit,
            hasher.hash_one(key),
            later + key * 4_000_000_000_000
        ));
    }
    assert!(table.bytes() < 1 << 20, "{}", table.bytes());
    drop(table);
    assert_eq!(budget.0.load(Ordering::Relaxed), CELLS, "all of it comes back");
}
