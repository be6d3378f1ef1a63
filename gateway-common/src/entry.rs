//! One entry of a list as the kernel tables hold it: a stamp (list and end) and a tally (hits, and where it came from).
//!
//! Owns the packing. Knows no table: the same two words stand beside single addresses and networks.

use crate::branchless::is_less;
use crate::tables::{NEVER, Rule};

/// The list an entry belongs to. A smaller number is the stronger word.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Allow = 1,
    Deny = 2,
    Block = 3,
}

impl Kind {
    /// By its number; `None` for a number that is no list's.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Allow),
            2 => Some(Self::Deny),
            3 => Some(Self::Block),
            _ => None,
        }
    }
}

/// List (two bits) and end (thirty bits) of an entry.
///
/// One word, so that a single address and its stamp are read and written in one piece. The end counts units of
/// [`Stamp::UNIT_NS`] of `CLOCK_BOOTTIME`, rounded up: an entry holds at most a quarter of a second longer than asked.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(pub u32);

impl Stamp {
    /// Of an entry that is not there.
    pub const EMPTY: Self = Self(0);
    /// Of an entry that was removed from a place that must not look as if it had never been used.
    pub const GONE: Self = Self(1 << Self::KIND_BITS);

    const KIND_BITS: u32 = 2;
    const UNIT_SHIFT: u32 = 28;
    /// 268 ms.
    pub const UNIT_NS: u64 = 1 << Self::UNIT_SHIFT;
    /// 9.1 years of uptime; a later end is brought forward to it.
    const LATEST: u64 = (1 << (32 - Self::KIND_BITS)) - 1;

    /// `deadline_ns` in `CLOCK_BOOTTIME`, or [`NEVER`].
    #[must_use]
    pub const fn new(kind: Kind, deadline_ns: u64) -> Self {
        let units = deadline_ns.div_ceil(Self::UNIT_NS);
        let units = if units > Self::LATEST { Self::LATEST } else { units };
        Self((units as u32) << Self::KIND_BITS | kind as u32)
    }

    /// The number of its [`Kind`]; zero if it is empty or gone.
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> u32 {
        self.0 & ((1 << Self::KIND_BITS) - 1)
    }

    /// Whether it ends at all.
    #[inline(always)]
    #[must_use]
    pub const fn ends(self) -> bool {
        self.0 >> Self::KIND_BITS != 0
    }

    /// One if the entry has ended at `now_ns`, else zero. By arithmetic, which costs the kernel's verifier nothing.
    #[inline(always)]
    #[must_use]
    pub fn ended_at(self, now_ns: u64) -> u64 {
        // Without an end this is the largest number there is, beyond any time.
        let last = (self.0 >> Self::KIND_BITS).wrapping_sub(1) as u64;
        is_less(last, now_ns >> Self::UNIT_SHIFT)
    }

    /// The end, as it will be enforced.
    #[must_use]
    pub const fn deadline_ns(self) -> u64 {
        if self.ends() {
            ((self.0 >> Self::KIND_BITS) as u64) << Self::UNIT_SHIFT
        } else {
            NEVER
        }
    }

    /// A deadline as the tables can hold it.
    #[must_use]
    pub const fn rounded(deadline_ns: u64) -> u64 {
        Self::new(Kind::Allow, deadline_ns).deadline_ns()
    }
}

/// Hits (48 bits, so that the program can add one to the whole word), origin (4 bits), detail (12 bits).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub u64);

impl Tally {
    const HITS_BITS: u32 = 48;
    /// The part that the program counts in: 281 trillion packets.
    pub const HITS: u64 = (1 << Self::HITS_BITS) - 1;
    const DETAIL_SHIFT: u32 = 52;
    /// Largest detail.
    pub const DETAIL_MAX: u32 = (1 << 12) - 1;

    /// Hits, origin and detail of a rule; too large a number is cut to its field.
    #[must_use]
    pub const fn of(rule: &Rule) -> Self {
        let origin = (rule.origin & 0xf) as u64;
        let detail = (rule.detail & Self::DETAIL_MAX) as u64;
        Self(rule.hits & Self::HITS | origin << Self::HITS_BITS | detail << Self::DETAIL_SHIFT)
    }

    /// Packets that met the entry.
    #[must_use]
    pub const fn hits(self) -> u64 {
        self.0 & Self::HITS
    }

    /// The rule that a stamp and a tally say.
    #[must_use]
    pub const fn rule(self, stamp: Stamp) -> Rule {
        Rule {
            deadline_ns: stamp.deadline_ns(),
            hits: self.hits(),
            origin: (self.0 >> Self::HITS_BITS & 0xf) as u32,
            detail: (self.0 >> Self::DETAIL_SHIFT) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_rounded_up_and_exact_to_its_unit() {
        let stamp = Stamp::new(Kind::Block, 5 * Stamp::UNIT_NS + 1);
        assert_eq!(stamp.kind(), Kind::Block as u32);
        assert!(stamp.ends());
        assert_eq!(stamp.deadline_ns(), 6 * Stamp::UNIT_NS);
        assert_eq!(stamp.ended_at(6 * Stamp::UNIT_NS - 1), 0);
        assert_eq!(stamp.ended_at(6 * Stamp::UNIT_NS), 1);
        assert!(!Stamp::new(Kind::Deny, NEVER).ends());
        assert_eq!(Stamp::rounded(1), Stamp::UNIT_NS);
        let latest = Stamp::new(Kind::Deny, u64::MAX);
        assert_eq!(latest.ended_at(9 * 365 * 86_400 * 1_000_000_000), 0);
        assert_eq!(Stamp::new(Kind::Deny, NEVER).ended_at(u64::MAX >> 4), 0);
    }

    #[test]
    fn what_is_gone_is_neither_empty_nor_an_entry() {
        assert_ne!(Stamp::GONE, Stamp::EMPTY);
        assert_eq!(Stamp::GONE.kind(), 0);
    }

    #[test]
    fn a_rule_comes_back_as_it_was() {
        let rule = Rule {
            deadline_ns: Stamp::rounded(77_000_000_000),
            hits: 12_345_678_901,
            origin: 4,
            detail: 4095,
        };
        let stamp = Stamp::new(Kind::Deny, rule.deadline_ns);
        assert_eq!(Tally::of(&rule).rule(stamp), rule);
        assert_eq!(Tally(Tally::of(&rule).0 + 1).rule(stamp).hits, rule.hits + 1);
    }
}
