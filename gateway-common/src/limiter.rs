//! The arithmetic of the limits. Owns how a rate is kept in a fixed table; knows no clock and no map.
//!
//! GCRA: a source's state is one number, its *theoretical arrival time* (TAT): the time at which it would be back
//! on its rate. A SYN is within the limit if the TAT is at most the tolerance ahead of now, and costs one interval.
//! Sixteen bits of fingerprint and forty-eight of TAT make a word, eight words a bucket, one bucket a cache line.
//!
//! **Why a fixed table.** An attacker chooses how many sources there are, so the cost must not depend on it: one
//! hash, one line of memory, whatever was seen before. When a bucket is full the word with the smallest TAT makes
//! room. An expired word (TAT not after now) costs nobody, since its source is back to a full burst anyway. Taking a
//! live one gives its source a full burst again: the limit becomes generous, never stricter.
//! A source holds a word only while it is ahead of its rate, so a spoofed source that sends one SYN is gone after
//! one interval. At 50/s (20 ms) the 524,288 words stay full only above 26 million such SYNs a second.
//!
//! **Collisions.** Two sources share a limit if they share bucket and fingerprint: one pair in 2^32. The hash is
//! keyed with a random number, so nobody can aim for it.

use crate::addr::Addr;
use crate::branchless::{is_less, is_zero, smaller};
use crate::tables::Limit;

/// Sources that share one bucket before one of them must make room.
pub const WAYS: usize = 8;

/// One cache line of limiter state: each word is a source's fingerprint (upper 16 bits, 0 for never used) and its
/// theoretical arrival time (lower 48 bits, units of 1,024 ns of `CLOCK_BOOTTIME`, modulo 2^48: 9 years).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [u64; WAYS]);

/// Buckets in the table. A power of two, so that a hash is masked into an index.
pub const BUCKETS: u32 = 1 << 16;

const UNIT_SHIFT: u32 = 10;
const TAT_BITS: u32 = 48;
const TAT_MASK: u64 = (1 << TAT_BITS) - 1;
/// Longest lead that can be told from the past once the TAT has wrapped: 4.5 years.
const LEAD_MAX: u64 = TAT_MASK >> 1;

/// Cost and tolerance of a limit, both in nanoseconds: [`crate::tables::Settings`] holds them.
///
/// `count` SYNs in `per_ns`, and `burst` at once (at least 1). The interval is rounded to the table's unit of
/// 1,024 ns and the tolerance built from the rounded value, so a burst is exact, and a rate to within half a unit
/// of its interval (50/s: 0.001%; 10,000/s: 0.5%). Rates above 976,562/s are held to that.
#[must_use]
pub const fn cost(count: u32, per_ns: u64, burst: u32) -> (u64, u64) {
    let count = if count == 0 { 1 } else { count as u64 };
    let burst = if burst == 0 { 1 } else { burst as u64 };
    let units = in_units(per_ns / count);
    let spread = units.saturating_mul(burst - 1);
    let most = LEAD_MAX - 1;
    let units = if units > most / 2 { most / 2 } else { units };
    let spread = if spread > most - units {
        most - units
    } else {
        spread
    };
    (units << UNIT_SHIFT, spread << UNIT_SHIFT)
}

/// Nanoseconds in units, rounded to the nearest, at least one.
#[inline(always)]
const fn in_units(ns: u64) -> u64 {
    let units = ns.saturating_add(1 << (UNIT_SHIFT - 1)) >> UNIT_SHIFT;
    if units == 0 { 1 } else { units }
}

/// Where a source's state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the bucket, below [`BUCKETS`].
    pub bucket: u32,
    /// Never zero.
    pub fingerprint: u16,
}

/// The place of a source under a limit; `key` is the limit's own.
#[inline(always)]
#[must_use]
pub fn place(source: &Addr, limit: &Limit, key: &[u64; 2]) -> Place {
    let [low, high] = source.halves();
    let (low, high) = if source.is_v4() {
        (low, high & limit.mask4)
    } else {
        (low & limit.mask6[0], high & limit.mask6[1])
    };
    // SipHash is defined on little-endian words.
    let hash = siphash13(key, low.to_le(), high.to_le());
    let fingerprint = (hash >> 48) as u16;
    Place {
        bucket: hash as u32 & (BUCKETS - 1),
        fingerprint: fingerprint | is_zero(fingerprint.into()) as u16,
    }
}

/// SipHash-1-3 (Aumasson, Bernstein 2012) of sixteen bytes, given as two little-endian words.
///
/// A keyed hash, because whoever could compute it would steer their sources into a victim's bucket.
#[inline(always)]
const fn siphash13(key: &[u64; 2], low: u64, high: u64) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    v = absorb(v, low);
    v = absorb(v, high);
    // The last word carries the length, modulo 256, in its top byte.
    v = absorb(v, 16 << 56);
    v[2] ^= 0xff;
    v = round(round(round(v)));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
const fn absorb(mut v: [u64; 4], word: u64) -> [u64; 4] {
    v[3] ^= word;
    v = round(v);
    v[0] ^= word;
    v
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// What one SYN does to its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index of the word, below [`WAYS`].
    pub way: usize,
    /// The word as it was read.
    pub old: u64,
    /// The word to store; equal to `old` if the SYN is over the limit, which costs nothing and extends nothing.
    pub new: u64,
    /// Whether the SYN is within the limit.
    pub within: bool,
}

/// One packet that a source is to pay for. Interval and tolerance as [`cost`] makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Of the source's [`Place`].
    pub fingerprint: u16,
    /// `CLOCK_BOOTTIME`.
    pub now_ns: u64,
    pub interval_ns: u64,
    pub tolerance_ns: u64,
}

/// Makes a charge in the bucket whose words `read` reads.
///
/// A lead that no SYN could have left behind (longer than interval and tolerance together) counts as expired. So a
/// wrapped clock, a foreign word or a limit made smaller while it ran forgives, and never shuts a source out.
///
/// Arithmetic instead of branches: the kernel's verifier follows each branch, and eight words of three make many ways.
#[inline(always)]
#[must_use]
pub fn step(charge: &Charge, read: impl Fn(usize) -> u64) -> Step {
    let now = charge.now_ns >> UNIT_SHIFT & TAT_MASK;
    let interval = in_units(charge.interval_ns);
    let tolerance = charge.tolerance_ns >> UNIT_SHIFT;
    let longest = tolerance.saturating_add(interval);
    let longest = if longest > LEAD_MAX { LEAD_MAX } else { longest };
    let own = u64::from(charge.fingerprint);

    // The word to use is the smallest by: another's before own, lead, place.
    let mut best = u64::MAX >> 1;
    let mut way = 0;
    while way < WAYS {
        let word = read(way);
        let foreign = is_zero(word >> TAT_BITS ^ own) ^ 1;
        let rank = foreign << 60 | lead_of(word, now, longest) << 3 | way as u64;
        best = smaller(best, rank);
        way += 1;
    }
    let way = best as usize & (WAYS - 1);
    let old = read(way);
    let lead = if old >> TAT_BITS == own {
        lead_of(old, now, longest)
    } else {
        0
    };
    let within = lead <= tolerance;
    let tat = now.wrapping_add(lead).wrapping_add(interval) & TAT_MASK;
    let new = if within { own << TAT_BITS | tat } else { old };
    Step {
        way,
        old,
        new,
        within,
    }
}

/// How far a word's TAT is ahead of now; zero if that is further than `longest`.
#[inline(always)]
fn lead_of(word: u64, now: u64, longest: u64) -> u64 {
    let ahead = word.wrapping_sub(now) & TAT_MASK;
    ahead & is_less(longest, ahead).wrapping_sub(1)
}

#[cfg(test)]
mod tests;
