//! How large the maps are made for a capacity, and what a size has room for. Pure.

use gateway_common::addresses::PROBES;
use gateway_common::tables::names;

use super::counts::V6_SHARE;
use crate::config::model::Capacity;

/// Entries of each sized map, by its name, for a capacity.
pub fn sizes(capacity: &Capacity) -> [(&'static str, u32); 5] {
    let addresses =
        u64::from(capacity.allow_addresses) + u64::from(capacity.deny_addresses) + u64::from(capacity.blocks);
    // Two thirds full when the lists are: few walks then go beyond their first bucket.
    let buckets4 = addresses * 3 / 16 + 1;
    let buckets6 = addresses / u64::from(V6_SHARE) * 2 / 5 + 1;
    let halves = |buckets: u64| u32::try_from((buckets + u64::from(PROBES)) * 2).unwrap_or(u32::MAX);
    let networks = capacity.allow_prefixes.saturating_add(capacity.deny_prefixes);
    // A network adds two borders at most, and there is one range more than borders. As many networks there can be: as
    // many of each family, and the first place is never used.
    let ranges = networks.saturating_mul(2).saturating_add(1).saturating_mul(2);
    [
        (names::ADDRESSES4, halves(buckets4)),
        (names::ADDRESSES6, halves(buckets6)),
        (names::RANGES4, ranges),
        (names::RANGES6, ranges),
        (names::NETWORKS, ranges),
    ]
}

/// Single addresses by family, and networks of each, of all lists, that maps were made for: [`sizes`] the other way round,
/// with what it rounds off given back. `has` says how many entries a map has.
pub fn made_for(has: impl Fn(&str) -> u32) -> ([u32; 2], u32) {
    let buckets = |name| (has(name) / 2).saturating_sub(PROBES);
    let addresses4 = u64::from(buckets(names::ADDRESSES4)) * 16 / 3;
    let addresses6 = (u64::from(buckets(names::ADDRESSES6)) + 1) * 5 / 2;
    let addresses = [addresses4, addresses6].map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    (addresses, (has(names::NETWORKS) / 2).saturating_sub(1) / 2)
}

/// What an operator should know if pinned tables were made for another capacity. `has` says how many entries a map has.
pub fn other_sizes(
    sizes: &[(&'static str, u32)],
    capacity: &Capacity,
    has: impl Fn(&str) -> u32,
) -> Vec<String> {
    let differs = |names: &[&str]| {
        let mut differing = sizes
            .iter()
            .filter(|(name, wanted)| names.contains(name) && has(name) != *wanted);
        differing.next().is_some()
    };
    // Told in round numbers: nothing that was rounded off is given back.
    let addresses = u64::from((has(names::ADDRESSES4) / 2).saturating_sub(PROBES + 1)) * 16 / 3;
    let (_, networks) = made_for(&has);
    let asked =
        u64::from(capacity.allow_addresses) + u64::from(capacity.deny_addresses) + u64::from(capacity.blocks);
    let mut parts = Vec::new();
    if differs(&[names::ADDRESSES4, names::ADDRESSES6]) {
        parts.push(format!(
            "about {addresses} addresses (allow_addresses, deny_addresses and blocks ask for {asked})"
        ));
    }
    if differs(&[names::RANGES4, names::RANGES6, names::NETWORKS]) {
        parts.push(format!(
            "{networks} networks of each family (allow_prefixes and deny_prefixes ask for {})",
            capacity.allow_prefixes.saturating_add(capacity.deny_prefixes)
        ));
    }
    if parts.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "xdp.capacity has changed, and the tables in the kernel stay as they were made, with what is in them: room for {}. \
         For new ones stop the gateway, run `gateway detach` and start it again; nothing is filtered meanwhile, and blocks \
         are lost",
        parts.join(" and ")
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::kernel::counts::Counts;
    use gateway_common::entry::Kind;

    #[test]
    fn tables_made_for_a_capacity_have_room_for_it() {
        for odd in [0, 1, 2, 3, 5, 1_000, 1_048_573] {
            let capacity = Capacity {
                deny_addresses: 1_024 + odd,
                deny_prefixes: 16 + odd,
                allow_addresses: 1 + odd,
                allow_prefixes: 1,
                blocks: 7,
            };
            let sizes = sizes(&capacity);
            let has = |name: &str| {
                sizes
                    .iter()
                    .find(|(other, _)| *other == name)
                    .map_or(0, |found| found.1)
            };
            let (addresses, networks) = made_for(has);
            let mut counts = Counts::new(Some(&capacity));
            let net = |text: &str| text.parse().expect("a literal");
            for kind in [Kind::Allow, Kind::Block] {
                for single in ["192.0.2.1/32", "2001:db8::1/128"] {
                    let count = counts.of(&net(single), kind);
                    count.has = count.most;
                }
            }
            counts.of(&net("2001:db8::/32"), Kind::Allow).has = 1;
            let room = counts.room(Kind::Deny, addresses, networks);
            let share = capacity.deny_addresses.div_ceil(V6_SHARE);
            assert_eq!(room.addresses, [capacity.deny_addresses, share], "{odd}");
            assert_eq!(room.networks, [capacity.deny_prefixes; 2], "{odd}");
            assert!(
                addresses[0] - 16 <= capacity.deny_addresses + capacity.allow_addresses + capacity.blocks
            );
        }
    }
}
