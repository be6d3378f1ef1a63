//! How many entries each list has in the tables, and may have. Owns the numbers; writes nothing.

use std::net::IpAddr;

use gateway_common::entry::Kind;
use gateway_common::tables::feature;
use ipnet::IpNet;

use super::addresses::single;
use super::networks::Listed;
use crate::config::model::Capacity;

/// IPv6 addresses of a list, as a part of the configured number.
pub const V6_SHARE: u32 = 4;

/// Index of an address's family, wherever there is one thing for each.
pub fn family(addr: IpAddr) -> usize {
    usize::from(addr.is_ipv6())
}

/// Of one list and family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub has: u32,
    pub most: u32,
}

/// By family and the number of a [`Kind`].
type ByList = [[Count; 4]; 2];

/// Of all lists: what has a place among single addresses, and what is a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    addresses: ByList,
    networks: ByList,
}

impl Counts {
    /// Nothing yet. Without a `capacity` the tables' size is the only limit.
    pub fn new(capacity: Option<&Capacity>) -> Self {
        let mut counts = Self::default();
        for kind in [Kind::Allow, Kind::Deny, Kind::Block] {
            let (addresses, networks) = match (capacity, kind) {
                (None, _) => (u32::MAX, u32::MAX),
                (Some(most), Kind::Allow) => (most.allow_addresses, most.allow_prefixes),
                (Some(most), Kind::Deny) => (most.deny_addresses, most.deny_prefixes),
                (Some(most), Kind::Block) => (most.blocks, 0),
            };
            let shares = match capacity {
                Some(_) => [addresses, addresses.div_ceil(V6_SHARE)],
                None => [addresses; 2],
            };
            for (family, share) in shares.into_iter().enumerate() {
                counts.addresses[family][kind as usize].most = share;
                counts.networks[family][kind as usize].most = networks;
            }
        }
        counts
    }

    /// The count that an entry for `net` belongs to.
    pub fn of(&mut self, net: &IpNet, kind: Kind) -> &mut Count {
        let counts = match single(net) {
            Some(_) => &mut self.addresses,
            None => &mut self.networks,
        };
        &mut counts[family(net.addr())][kind as usize]
    }

    /// As if there were no entries.
    pub fn clear(&mut self) {
        clear(&mut self.addresses);
        clear(&mut self.networks);
    }

    /// Counts the networks anew.
    pub fn count_networks(&mut self, listed: &[Listed]) {
        clear(&mut self.networks);
        for (net, kind, _) in listed {
            self.of(net, *kind).has += 1;
        }
    }

    /// Single addresses of a family in all lists.
    pub fn addresses(&self, family: usize) -> u32 {
        self.addresses[family].iter().map(|count| count.has).sum()
    }

    /// Entries of one list.
    pub fn all(&self, kind: Kind) -> usize {
        let both = self.addresses.iter().chain(&self.networks);
        both.map(|counts| counts[kind as usize].has as usize).sum()
    }

    /// The bits of the settings that say which tables have entries.
    pub fn table_bits(&self) -> u32 {
        let bits = [
            (&self.addresses[0], feature::ADDRESSES4),
            (&self.addresses[1], feature::ADDRESSES6),
            (&self.networks[0], feature::NETWORKS4),
            (&self.networks[1], feature::NETWORKS6),
        ];
        let some = bits
            .into_iter()
            .filter(|(counts, _)| counts.iter().any(|count| count.has > 0));
        some.fold(0, |bits, (_, bit)| bits | bit)
    }
}

fn clear(counts: &mut ByList) {
    for count in counts.iter_mut().flatten() {
        count.has = 0;
    }
}
