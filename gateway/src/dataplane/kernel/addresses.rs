//! Writes and reads the tables of single addresses; the layout and its rules are `gateway_common::addresses`.
//!
//! Generic over the family: the walk over buckets is the same, a bucket's inside is not. [`Table`] is the one or the other.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gateway_common::addr::Addr;
use gateway_common::addresses::{EMPTY6, GONE6, PROBES, WAYS4, WAYS6, holds, home4, home6, slot4};
use gateway_common::entry::{Kind, Stamp, Tally};
use gateway_common::tables::Rule;
use ipnet::IpNet;

use super::region::Region;

/// Words of eight bytes in a bucket of either family.
const BUCKET: usize = 16;

/// What stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Empty,
    Gone,
    Entry(Addr, Stamp),
}

/// The inside of a bucket.
pub trait Family {
    const WAYS: usize;

    fn home(addr: &Addr, mix: &[u64; 4], buckets: u32) -> u32;
    fn read(bucket: Bucket<'_>, way: usize) -> Place;
    /// Fills a place that holds no entry. The program may look at any moment.
    fn fill(bucket: Bucket<'_>, way: usize, addr: &Addr, stamp: Stamp, tally: Tally);
    /// Changes the stamp of the entry of `addr`.
    fn restamp(bucket: Bucket<'_>, way: usize, addr: &Addr, stamp: Stamp);
    fn clear(bucket: Bucket<'_>, way: usize, to: Place);
    fn tally(bucket: Bucket<'_>, way: usize) -> &AtomicU64;
}

/// One bucket in both word sizes.
#[derive(Clone, Copy)]
pub struct Bucket<'a> {
    words: &'a [AtomicU64],
    halves: &'a [AtomicU32],
}

#[derive(Debug)]
pub struct V4;
#[derive(Debug)]
pub struct V6;

impl Family for V4 {
    const WAYS: usize = WAYS4;

    fn home(addr: &Addr, mix: &[u64; 4], buckets: u32) -> u32 {
        home4(addr.0[3], mix, buckets)
    }

    fn read(bucket: Bucket<'_>, way: usize) -> Place {
        let slot = bucket.words[way].load(Ordering::Acquire);
        match Stamp((slot >> 32) as u32) {
            Stamp::EMPTY => Place::Empty,
            stamp if stamp.kind() == 0 => Place::Gone,
            stamp => Place::Entry(Addr::v4((slot as u32).to_ne_bytes()), stamp),
        }
    }

    fn fill(bucket: Bucket<'_>, way: usize, addr: &Addr, stamp: Stamp, tally: Tally) {
        Self::tally(bucket, way).store(tally.0, Ordering::Relaxed);
        bucket.words[way].store(slot4(addr.0[3], stamp), Ordering::Release);
    }

    fn restamp(bucket: Bucket<'_>, way: usize, addr: &Addr, stamp: Stamp) {
        bucket.words[way].store(slot4(addr.0[3], stamp), Ordering::Release);
    }

    fn clear(bucket: Bucket<'_>, way: usize, to: Place) {
        let stamp = if to == Place::Empty {
            Stamp::EMPTY
        } else {
            Stamp::GONE
        };
        bucket.words[way].store(slot4(0, stamp), Ordering::Release);
    }

    fn tally(bucket: Bucket<'_>, way: usize) -> &AtomicU64 {
        &bucket.words[WAYS4 + way]
    }
}

impl V6 {
    /// First of the stamps, in words of four bytes.
    const STAMPS: usize = 4 * WAYS6;
    /// First of the tallies, in words of eight bytes.
    const TALLIES: usize = 2 * WAYS6 + WAYS6 / 2;

    fn set_key(bucket: Bucket<'_>, way: usize, key: [u64; 2]) {
        bucket.words[2 * way].store(key[0], Ordering::Release);
        bucket.words[2 * way + 1].store(key[1], Ordering::Release);
    }
}

impl Family for V6 {
    const WAYS: usize = WAYS6;

    fn home(addr: &Addr, mix: &[u64; 4], buckets: u32) -> u32 {
        home6(addr.halves(), mix, buckets)
    }

    fn read(bucket: Bucket<'_>, way: usize) -> Place {
        let key = [0, 1].map(|half| bucket.words[2 * way + half].load(Ordering::Acquire));
        if key == EMPTY6 {
            return Place::Empty;
        }
        if key == GONE6 {
            return Place::Gone;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&key[1].to_ne_bytes());
        let stamp = Stamp(bucket.halves[Self::STAMPS + way].load(Ordering::Relaxed));
        Place::Entry(Addr::v6(bytes), stamp)
    }

    fn fill(bucket: Bucket<'_>, way: usize, addr: &Addr, stamp: Stamp, tally: Tally) {
        Self::tally(bucket, way).store(tally.0, Ordering::Relaxed);
        bucket.halves[Self::STAMPS + way].store(stamp.0, Ordering::Relaxed);
        Self::set_key(bucket, way, addr.halves());
    }

    fn restamp(bucket: Bucket<'_>, way: usize, _: &Addr, stamp: Stamp) {
        bucket.halves[Self::STAMPS + way].store(stamp.0, Ordering::Release);
    }

    fn clear(bucket: Bucket<'_>, way: usize, to: Place) {
        Self::set_key(bucket, way, if to == Place::Empty { EMPTY6 } else { GONE6 });
    }

    fn tally(bucket: Bucket<'_>, way: usize) -> &AtomicU64 {
        &bucket.words[Self::TALLIES + way]
    }
}

/// The single address that a network is, if a table of addresses can hold it.
pub fn single(net: &IpNet) -> Option<IpAddr> {
    let full = net.prefix_len() == net.max_prefix_len();
    (full && holds(&net.addr().into())).then(|| net.addr())
}

/// No place is left on the walk of an address.
#[derive(Debug)]
pub struct Crowded;

/// A table of single addresses, of whichever family. A `half` is 0 or 1.
pub trait Table: Send {
    /// Takes these keys of the hash from now on. Moves no entry.
    fn hash_by(&mut self, mix: [u64; 4]);
    /// Buckets of a half that the hash reaches.
    fn buckets(&self) -> u32;
    /// First bucket of a half.
    fn first(&self, half: u32) -> u32;
    fn get(&self, half: u32, addr: &Addr, kind: Kind) -> Option<Rule>;
    /// Inserts (`true`), or replaces and keeps the larger count of hits.
    fn put(&self, half: u32, addr: &Addr, kind: Kind, rule: &Rule) -> Result<bool, Crowded>;
    /// Whether there was one.
    fn remove(&self, half: u32, addr: &Addr, kind: Kind) -> bool;
    /// Shows every entry of a half.
    fn each(&self, half: u32, visit: &mut dyn FnMut(Addr, Kind, Rule));
    /// How many entries of a half no look-up finds where they stand.
    fn astray(&self, half: u32) -> u32;
    /// Makes the idle half what the other one is. What the program counts from here until the switch is in the half it
    /// then leaves: see [`Table::carry_hits`].
    fn copy(&self, from: u32, to: u32);
    /// The hits of every entry of a half, in the order of their places.
    fn hits(&self, half: u32) -> Vec<u64>;
    /// Adds to a half what was counted in the other one since that had the `known` hits, in the order of its places. The
    /// program must have left it.
    fn carry_hits(&self, from: u32, to: u32, known: &[u64]);
    /// Writes a half that nobody reads anew, without the traces of what was removed: each look-up for an address that is
    /// not there would walk over them.
    fn tidy(&self, half: u32);
}

/// One family's map: two halves of buckets.
#[derive(Debug)]
pub struct Addresses<F> {
    region: Region,
    buckets: u32,
    mix: [u64; 4],
    family: PhantomData<F>,
}

impl<F: Family + Send> Addresses<F> {
    /// A map of `entries` buckets in both halves together, without its keys: see [`Table::hash_by`].
    pub fn new(region: Region, entries: u32) -> Self {
        Self {
            region,
            buckets: entries / 2 - PROBES,
            mix: [0; 4],
            family: PhantomData,
        }
    }

    fn bucket(&self, index: u32) -> Bucket<'_> {
        let start = index as usize * BUCKET;
        Bucket {
            words: &self.region.words()[start..start + BUCKET],
            halves: &self.region.halves()[2 * start..2 * (start + BUCKET)],
        }
    }

    /// The buckets that may hold `addr`.
    fn walk(&self, half: u32, addr: &Addr) -> impl Iterator<Item = Bucket<'_>> {
        let home = self.first(half) + F::home(addr, &self.mix, self.buckets);
        let mut on = true;
        (home..home + PROBES).map_while(move |index| {
            let bucket = self.bucket(index);
            let go = on;
            on = F::read(bucket, F::WAYS - 1) != Place::Empty;
            go.then_some(bucket)
        })
    }

    fn find(&self, half: u32, addr: &Addr, kind: Kind) -> Option<(Bucket<'_>, usize, Stamp)> {
        self.walk(half, addr).find_map(|bucket| {
            (0..F::WAYS).find_map(|way| match F::read(bucket, way) {
                Place::Entry(there, stamp) if there == *addr && stamp.kind() == kind as u32 => {
                    Some((bucket, way, stamp))
                }
                _ => None,
            })
        })
    }

    /// Every entry of a half.
    fn entries(&self, half: u32) -> impl Iterator<Item = (Addr, Kind, Rule)> {
        let first = self.first(half);
        (first..first + self.buckets + PROBES).flat_map(move |index| {
            let bucket = self.bucket(index);
            (0..F::WAYS).filter_map(move |way| match F::read(bucket, way) {
                Place::Entry(addr, stamp) => {
                    let tally = Tally(F::tally(bucket, way).load(Ordering::Relaxed));
                    Some((addr, Kind::from_number(stamp.kind())?, tally.rule(stamp)))
                }
                _ => None,
            })
        })
    }
}

impl<F: Family + Send> Table for Addresses<F> {
    fn hash_by(&mut self, mix: [u64; 4]) {
        self.mix = mix;
    }

    fn buckets(&self) -> u32 {
        self.buckets
    }

    fn first(&self, half: u32) -> u32 {
        half * (self.buckets + PROBES)
    }

    fn get(&self, half: u32, addr: &Addr, kind: Kind) -> Option<Rule> {
        let (bucket, way, stamp) = self.find(half, addr, kind)?;
        Some(Tally(F::tally(bucket, way).load(Ordering::Relaxed)).rule(stamp))
    }

    fn put(&self, half: u32, addr: &Addr, kind: Kind, rule: &Rule) -> Result<bool, Crowded> {
        let stamp = Stamp::new(kind, rule.deadline_ns);
        if let Some((bucket, way, _)) = self.find(half, addr, kind) {
            let merge = |old| {
                let hits = Tally(old).hits().max(rule.hits);
                Some(Tally::of(&Rule { hits, ..*rule }).0)
            };
            // The program counts at the same time, so the hits in the word must be those of the moment.
            let tally = F::tally(bucket, way);
            let _ = tally.fetch_update(Ordering::Relaxed, Ordering::Relaxed, merge);
            F::restamp(bucket, way, addr, stamp);
            return Ok(false);
        }
        for bucket in self.walk(half, addr) {
            let free = (0..F::WAYS).find(|way| !matches!(F::read(bucket, *way), Place::Entry(..)));
            if let Some(way) = free {
                F::fill(bucket, way, addr, stamp, Tally::of(rule));
                return Ok(true);
            }
        }
        Err(Crowded)
    }

    fn remove(&self, half: u32, addr: &Addr, kind: Kind) -> bool {
        let Some((bucket, way, _)) = self.find(half, addr, kind) else {
            return false;
        };
        // The last place must go on telling that the bucket was once full.
        let to = if way == F::WAYS - 1 {
            Place::Gone
        } else {
            Place::Empty
        };
        F::clear(bucket, way, to);
        true
    }

    fn each(&self, half: u32, visit: &mut dyn FnMut(Addr, Kind, Rule)) {
        for (addr, kind, rule) in self.entries(half) {
            visit(addr, kind, rule);
        }
    }

    fn astray(&self, half: u32) -> u32 {
        let first = self.first(half);
        let was_full = |index: u32| F::read(self.bucket(index), F::WAYS - 1) != Place::Empty;
        let mut astray = 0;
        for index in first..first + self.buckets + PROBES {
            let bucket = self.bucket(index);
            for way in 0..F::WAYS {
                let Place::Entry(addr, _) = F::read(bucket, way) else {
                    continue;
                };
                let home = first + F::home(&addr, &self.mix, self.buckets);
                let found = (home..home + PROBES).contains(&index) && (home..index).all(was_full);
                astray += u32::from(!found);
            }
        }
        astray
    }

    fn hits(&self, half: u32) -> Vec<u64> {
        self.entries(half).map(|(.., rule)| rule.hits).collect()
    }

    fn carry_hits(&self, from: u32, to: u32, known: &[u64]) {
        for ((addr, kind, rule), known) in self.entries(from).zip(known) {
            let more = rule.hits.saturating_sub(*known);
            if more > 0
                && let Some((bucket, way, _)) = self.find(to, &addr, kind)
            {
                F::tally(bucket, way).fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    fn tidy(&self, half: u32) {
        let entries: Vec<(Addr, Kind, Rule)> = self.entries(half).collect();
        let words = (self.buckets + PROBES) as usize * BUCKET;
        let first = self.first(half) as usize * BUCKET;
        for word in &self.region.words()[first..first + words] {
            word.store(0, Ordering::Relaxed);
        }
        for (addr, kind, rule) in entries {
            // What had a place before has one now: walks only get shorter. Unless someone else put it where no walk led:
            // what finds no place then is missing, and reported and put in as any other entry that is.
            let _ = self.put(half, &addr, kind, &rule);
        }
    }

    fn copy(&self, from: u32, to: u32) {
        let words = (self.buckets + PROBES) as usize * BUCKET;
        let (source, target) = (
            self.first(from) as usize * BUCKET,
            self.first(to) as usize * BUCKET,
        );
        let all = self.region.words();
        for (from, to) in all[source..source + words]
            .iter()
            .zip(&all[target..target + words])
        {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}
