//! The tables of single addresses: layout, hash, and how a look-up walks. Owns no memory and reads no clock.
//!
//! **Why not the kernel's hash map.** A look-up there is a call into the kernel (about 20 ns where returns are
//! guarded against speculation) and two or three cache misses once a list is large: bucket head, element, and
//! whatever chain there is. Here a bucket is two neighbouring cache lines of an array map: the look-up is inlined by
//! the kernel's JIT compiler, an absent address costs one line, a present one the line beside it for its hits.
//! User space writes through a memory mapping: a million addresses are loaded without a million system calls.
//!
//! **Shape.** Allow, deny and block entries share a table, so one look-up answers for all three lists. An address
//! hashes to a home bucket; if that was ever full, its entries may stand in the buckets after it. A bucket was ever
//! full if and only if its last place is not empty: places fill in order, and an entry removed from the last place
//! leaves [`Stamp::GONE`] behind. A walk ends at the first bucket that was never full, or after [`PROBES`].
//!
//! **Two halves.** A map holds two tables; the settings name the live one. A list is replaced by filling the idle
//! half and switching: a packet sees the old list or the new one.
//!
//! **Hash.** Multiply-shift with random keys (Dietzfelbinger 1996; for IPv6 the pairwise form of Thorup, "High Speed
//! Hashing for Integers and Strings", 2015): universal, so for addresses chosen without knowing the keys, collisions
//! are as rare as if placed at random. Nobody can watch them: a look-up has no visible result but its verdict.

use crate::addr::Addr;
use crate::entry::Stamp;

/// Places of a [`Bucket4`].
pub const WAYS4: usize = 8;
/// Places of a [`Bucket6`].
pub const WAYS6: usize = 4;
/// Most buckets a walk visits. Each half has so many more than the hash reaches, so that a walk never wraps.
pub const PROBES: u32 = 16;

/// IPv4 addresses. Two cache lines.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket4 {
    /// The address as it lies in a packet in the lower half, its [`Stamp`] in the upper: one word, never torn.
    pub slots: [u64; WAYS4],
    /// A [`crate::entry::Tally`] for each.
    pub tallies: [u64; WAYS4],
}

/// IPv6 addresses. Two cache lines; an absent address costs the first only.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket6 {
    /// [`Addr::halves`]; [`EMPTY6`] and [`GONE6`] are no addresses.
    pub keys: [[u64; 2]; WAYS6],
    /// A [`Stamp`] for each. Written before its key and read after it.
    pub stamps: [u32; WAYS6],
    /// A [`crate::entry::Tally`] for each.
    pub tallies: [u64; WAYS6],
    pub _pad: [u64; 2],
}

/// Key of a place that was never used. The unspecified address of either family, if listed, is listed as a network.
pub const EMPTY6: [u64; 2] = [0; 2];
/// Key of a last place whose entry is gone. As an address a multicast one, so listed as a network as well.
pub const GONE6: [u64; 2] = [u64::MAX; 2];

const _: () = {
    assert!(size_of::<Bucket4>() == 128);
    assert!(size_of::<Bucket6>() == 128);
};

/// Whether a table of addresses can hold `addr`; if not, a network of full length can.
#[must_use]
pub fn holds(addr: &Addr) -> bool {
    if addr.is_v4() {
        return addr.0[3] != 0;
    }
    addr.halves() != EMPTY6 && addr.halves() != GONE6
}

/// The slot of an IPv4 address as it lies in a packet.
#[inline(always)]
#[must_use]
pub const fn slot4(addr: u32, stamp: Stamp) -> u64 {
    (stamp.0 as u64) << 32 | addr as u64
}

/// The home bucket of an IPv4 address among `buckets`.
#[inline(always)]
#[must_use]
pub const fn home4(addr: u32, mix: &[u64; 4], buckets: u32) -> u32 {
    reduce((addr as u64).wrapping_mul(mix[0]).wrapping_add(mix[1]), buckets)
}

/// The home bucket of an IPv6 address, given as [`Addr::halves`], among `buckets`.
#[inline(always)]
#[must_use]
pub const fn home6(key: [u64; 2], mix: &[u64; 4], buckets: u32) -> u32 {
    let (a, b) = (key[0] as u32 as u64, key[0] >> 32);
    let (c, d) = (key[1] as u32 as u64, key[1] >> 32);
    let high = mix[0].wrapping_add(b).wrapping_mul(mix[1].wrapping_add(a));
    let low = mix[2].wrapping_add(d).wrapping_mul(mix[3].wrapping_add(c));
    reduce(high.wrapping_add(low), buckets)
}

/// The upper half of a hash, scaled to a number below `buckets`.
#[inline(always)]
const fn reduce(hash: u64, buckets: u32) -> u32 {
    (((hash >> 32) * buckets as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::net::IpAddr;
    use std::vec;

    const MIX: [u64; 4] = [
        0x9e37_79b9_7f4a_7c15,
        0xd1b5_4a32_d192_ed03,
        0x94d0_49bb_1331_11eb,
        0xbf58_476d_1ce4_e5b9,
    ];

    /// Homes of `count` neighbours: at a mean of five a bucket, chance puts more than 16 into one in 40,000.
    fn fullest(home: impl Fn(u32) -> u32) -> u32 {
        let mut loads = vec![0_u32; 1 << 12];
        for n in 0..5 << 12 {
            loads[home(n) as usize] += 1;
        }
        loads.into_iter().max().expect("buckets")
    }

    #[test]
    fn neighbours_are_spread() {
        assert!(fullest(|n| home4((0x0a00_0000 + n).to_be(), &MIX, 1 << 12)) < 24);
        let net: IpAddr = "2001:db8::".parse().expect("a literal");
        let base = Addr::from(net);
        let spread = fullest(|n| {
            let mut addr = base;
            addr.0[3] = n.to_be();
            home6(addr.halves(), &MIX, 1 << 12)
        });
        assert!(spread < 24, "{spread}");
        let subnets = fullest(|n| {
            let mut addr = base;
            addr.0[1] = n.to_be();
            addr.0[3] = 1_u32.to_be();
            home6(addr.halves(), &MIX, 1 << 12)
        });
        assert!(subnets < 24, "{subnets}");
    }

    #[test]
    fn a_home_is_below_the_number_of_buckets() {
        for buckets in [1, 3, 1000, u32::MAX] {
            for addr in [0, 1, u32::MAX] {
                assert!(home4(addr, &MIX, buckets) < buckets);
                assert!(home6([addr.into(), u64::MAX], &MIX, buckets) < buckets);
            }
        }
    }
}
