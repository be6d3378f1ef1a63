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

use crate::addr::{Addr, MAPPED};
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
/// Unit of the times in a word and in a [`Limit`].
pub const UNIT_NS: u64 = 1 << UNIT_SHIFT;
const TAT_BITS: u32 = 48;
const TAT_MASK: u64 = (1 << TAT_BITS) - 1;
/// How far the clocks of two processors may be apart, in units: 100 ms. Each is read once a tick of the kernel's timer, 10 ms
/// at the slowest, and a virtual machine that is held up makes a tick longer.
const SKEW: u64 = 100_000_000 >> UNIT_SHIFT;
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
const fn in_units(ns: u64) -> u64 {
    let units = ns.saturating_add(1 << (UNIT_SHIFT - 1)) >> UNIT_SHIFT;
    if units == 0 { 1 } else { units }
}

/// Interval and tolerance in units, and the longest lead that a packet can have left behind: both together as seen by a
/// processor whose clock is behind, held to what can be told from the past.
pub(crate) const fn units(interval_ns: u64, tolerance_ns: u64) -> (u64, u64, u64) {
    let (interval, tolerance) = (in_units(interval_ns), tolerance_ns >> UNIT_SHIFT);
    let longest = tolerance.saturating_add(interval).saturating_add(SKEW);
    let longest = if longest > LEAD_MAX { LEAD_MAX } else { longest };
    (interval, tolerance, longest)
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
    let is_v4 = is_zero(low | u64::from(source.0[2] ^ MAPPED));
    let choose = |four: u64, six: u64| six ^ ((four ^ six) & 0_u64.wrapping_sub(is_v4));
    let low = low & choose(0, limit.mask6[0]);
    let high = high & choose(limit.mask4, limit.mask6[1]);
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

/// Charges a packet at `now_ns` (`CLOCK_BOOTTIME`) to the source with `fingerprint`, in the bucket whose words `read`
/// reads.
///
/// A lead that no packet could have left behind ([`Limit::longest`]) counts as expired. So a wrapped clock, a foreign word
/// or a limit made smaller while it ran forgives, and never shuts a source out. A lead that merely looks too long to a
/// processor whose clock is behind must not: whenever two took turns at one source, it would have its whole burst again.
#[inline(always)]
#[must_use]
pub fn step(limit: &Limit, fingerprint: u16, now_ns: u64, read: impl Fn(usize) -> u64) -> Step {
    let now = now_ns >> UNIT_SHIFT & TAT_MASK;
    let own = u64::from(fingerprint);
    let is_foreign = |word: u64| is_zero(word >> TAT_BITS ^ own) ^ 1;

    // The word to use is the smallest by: another's before own, lead, place.
    let mut best = u64::MAX >> 1;
    let mut way = 0;
    while way < WAYS {
        let word = read(way);
        best = smaller(
            best,
            is_foreign(word) << 60 | lead_of(word, now, limit.longest) << 3 | way as u64,
        );
        way += 1;
    }
    let way = best as usize & (WAYS - 1);
    let old = read(way);
    let lead = lead_of(old, now, limit.longest) & is_foreign(old).wrapping_sub(1);
    let over = is_less(limit.tolerance, lead);
    let tat = now.wrapping_add(lead).wrapping_add(limit.interval) & TAT_MASK;
    let charged = own << TAT_BITS | tat;
    Step {
        way,
        old,
        new: charged ^ ((charged ^ old) & 0_u64.wrapping_sub(over)),
        within: over == 0,
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
