//! How many entries each list has in the tables, and may have. Owns the numbers; writes nothing.

use std::net::IpAddr;

use gateway_common::entry::Kind;
use gateway_common::tables::feature;
use ipnet::IpNet;

use super::addresses::single;
use super::networks::Listed;
use crate::config::model::Capacity;
use crate::dataplane::Room;

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

    /// How many entries a list can have in tables made for so many of all lists, by family, beside those of the other
    /// lists; no more than its own share.
    pub fn room(&self, kind: Kind, addresses: [u32; 2], networks: u32) -> Room {
        let left = |of: &ByList, family: usize, made_for: u32| {
            let all: u32 = of[family].iter().map(|count| count.has).sum();
            let own = of[family][kind as usize];
            own.most.min(made_for.saturating_sub(all - own.has))
        };
        Room {
            addresses: [0, 1].map(|family| left(&self.addresses, family, addresses[family])),
            networks: [0, 1].map(|family| left(&self.networks, family, networks)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_share_or_what_smaller_tables_leave_of_it() {
        let capacity = Capacity {
            deny_addresses: 100,
            deny_prefixes: 10,
            allow_addresses: 40,
            allow_prefixes: 5,
            blocks: 60,
        };
        let mut counts = Counts::new(Some(&capacity));
        let room = |addresses, networks| Room { addresses, networks };
        assert_eq!(counts.room(Kind::Deny, [200, 50], 15), room([100, 25], [10, 10]));
        let own: IpNet = "192.0.2.1/32".parse().expect("a literal");
        counts.of(&own, Kind::Deny).has = 100;
        counts.of(&own, Kind::Block).has = 30;
        let net: IpNet = "2001:db8::/32".parse().expect("a literal");
        counts.of(&net, Kind::Allow).has = 3;
        assert_eq!(
            counts.room(Kind::Deny, [200, 50], 15),
            room([100, 25], [10, 10]),
            "what it has itself makes room, and the others' shares are theirs"
        );
        assert_eq!(counts.room(Kind::Deny, [80, 8], 4), room([50, 8], [4, 1]));
        let unknown = Counts::new(None).room(Kind::Allow, [80, 8], 4);
        assert_eq!(unknown, room([80, 8], [4, 4]));
    }
}
