//! The tables of networks: layout and search. Owns no memory and reads no clock.
//!
//! **Why not the kernel's trie.** It is walked bit by bit through scattered memory behind a call (133 ns at 10,000
//! entries, 263 at 100,000), shows one list only, and freeing a large one stalls a processor. Lists of networks
//! change seldom and are asked for each packet, so they are cut into *ranges* beforehand: each range of addresses
//! with the longest allow rule and the longest deny rule that cover it. One search answers for both lists.
//!
//! **Search.** The upper 16 bits of an IPv4 address select the [`Span`] of ranges to look through, most often one or
//! two; a binary search does the rest, [`STEPS`] at most. IPv6 is searched over all its ranges.
//!
//! Ranges and networks are written to the idle half of their maps and never change once the settings name it, but for
//! the tallies.

use crate::addr::Addr;

/// Most steps of a search, and so most ranges of a family: 2^STEPS.
pub const STEPS: u32 = 20;
/// Spans of a half: one for each value of the upper 16 bits of an IPv4 address.
pub const SPANS: u32 = 1 << 16;

/// From one address up to the next range's start, what covers it. References are indices of [`Network`]s; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range4 {
    /// As a number, in the processor's byte order.
    pub start: u32,
    pub allow: u32,
    pub deny: u32,
    pub _pad: u32,
}

/// As [`Range4`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range6 {
    /// As two numbers, upper half first, in the processor's byte order.
    pub start: [u64; 2],
    pub allow: u32,
    pub deny: u32,
    pub _pad: u64,
}

/// The ranges, first and last, among which an address with certain upper 16 bits is found.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub first: u32,
    pub last: u32,
}

/// One network of a list. Two stand in a cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// IPv4 as a mapped address.
    pub addr: [u32; 4],
    /// Length of the prefix in its own family's bits.
    pub bits: u32,
    /// A [`crate::entry::Stamp`].
    pub stamp: u32,
    /// A [`crate::entry::Tally`].
    pub tally: u64,
}

const _: () = {
    assert!(size_of::<Range4>() == 16);
    assert!(size_of::<Range6>() == 32);
    assert!(size_of::<Span>() == 8);
    assert!(size_of::<Network>() == 32);
};

/// The last of the ranges `first..=last` for which `begins` holds: it starts at the address sought or before it.
///
/// The first is taken for granted. `None` if `begins` can not tell.
#[inline(always)]
pub fn search(first: u32, last: u32, begins: impl Fn(u32) -> Option<bool>) -> Option<u32> {
    let (mut low, mut high) = (first, last);
    for _ in 0..STEPS {
        if low >= high {
            break;
        }
        let middle = low + (high - low).div_ceil(2);
        if begins(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Some(low)
}

/// An IPv4 address as a number.
#[inline(always)]
#[must_use]
pub const fn number4(addr: &Addr) -> u32 {
    u32::from_be(addr.0[3])
}

/// An IPv6 address as two numbers, upper half first.
#[inline(always)]
#[must_use]
pub const fn number6(addr: &Addr) -> [u64; 2] {
    let [high, low] = addr.halves();
    [u64::from_be(high), u64::from_be(low)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_begins_is_found() {
        let starts = [0, 10, 20, 21, 500];
        for (sought, expected) in [(0, 0), (9, 0), (10, 1), (20, 2), (21, 3), (499, 3), (u32::MAX, 4)] {
            let found = search(0, 4, |index| Some(starts[index as usize] <= sought));
            assert_eq!(found, Some(expected), "{sought}");
        }
        assert_eq!(search(2, 2, |_| None), Some(2));
        assert_eq!(search(0, 4, |_| None), None);
    }

    #[test]
    fn the_largest_table_is_searched_to_its_end() {
        let last = (1 << STEPS) - 1;
        for sought in [0, 1, last / 2, last - 1, last] {
            assert_eq!(search(0, last, |index| Some(index <= sought)), Some(sought));
        }
    }

    #[test]
    fn numbers_order_as_addresses_do() {
        assert_eq!(number4(&Addr::v4([10, 0, 0, 1])), 0x0a00_0001);
        let mut bytes = [0; 16];
        bytes[0] = 0x20;
        bytes[15] = 9;
        assert_eq!(number6(&Addr::v6(bytes)), [0x2000_0000_0000_0000, 9]);
    }
}
