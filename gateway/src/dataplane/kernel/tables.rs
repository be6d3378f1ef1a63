//! The pinned maps, and what [`Backend`](crate::dataplane::Backend) asks of them.
//!
//! Every handle comes from its pin, whether or not this process loaded the program, so a command without a daemon
//! runs the same code. Owns which half of each map is live and how a batch of changes becomes visible:
//!
//! * A few single addresses are written where they are, each at once, in the order of the batch.
//! * Anything more is made in the idle halves, and one write of the settings switches to them: lists and settings
//!   of a batch become visible together.

mod mend;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use gateway_common::addr::Addr;
use gateway_common::entry::Kind;
use gateway_common::networks::SPANS;
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{ALL_LISTENERS, Answered, Counter, Layout, Rule, Settings, feature, names};
use ipnet::IpNet;

use super::addresses::{Addresses, Crowded, Table, V4, V6, single};
use super::counts::{Counts, family};
use super::error::{load_failed, map_failed};
use super::networks::{Listed, Networks};
use super::region::Region;
use super::settings::Copies;
use super::sizes::made_for;
use super::sys;
use crate::config::model::Capacity;
use crate::dataplane::place::{canonical, keep_own};
use crate::dataplane::{Change, Counters, Error, Found, Image, List, Room};

/// More changes than this are made in the idle half: copying it then costs less than being seen half done is worth.
const IN_PLACE: usize = 64;

/// All shared tables.
pub struct Maps {
    settings: Copies,
    counters: PerCpuArray<MapData, Counter>,
    answered: Array<MapData, Answered>,
    /// By [`family`].
    addresses: [Box<dyn Table>; 2],
    networks: Networks,
    counts: Counts,
    own: Own,
    capacities: BTreeMap<&'static str, u32>,
}

/// What of the settings is the keeper's own, as it was last written or taken over.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    hash_key: [u64; 2],
    layout: Layout,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

/// Which half of each map is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Halves {
    addresses: [u32; 2],
    networks: u32,
}

/// Tables that are written anew whatever the changes are, from the entries that stand in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Anew {
    addresses: [bool; 2],
    networks: bool,
}

impl Halves {
    fn of(layout: &Layout) -> Self {
        Self {
            addresses: [layout.addresses4, layout.addresses6].map(|first| u32::from(first != 0)),
            networks: u32::from(layout.networks != 0),
        }
    }
}

impl Maps {
    /// Opens the maps pinned in `dir`. With a `capacity`, lists are held to it; else the tables' size is the limit.
    pub fn open(dir: &Path, capacity: Option<&Capacity>) -> Result<Self, Error> {
        let mut capacities = BTreeMap::new();
        let mut region = |name: &'static str, size: usize| -> Result<(Region, u32), Error> {
            let data = pinned(dir, name)?;
            let info = data.info().map_err(|e| opening(name, e))?;
            capacities.insert(name, info.max_entries());
            let region = Region::map(data.fd(), name, info.max_entries(), size)?;
            Ok((region, info.max_entries()))
        };
        let (addresses4, entries4) = region(names::ADDRESSES4, 128)?;
        let (addresses6, entries6) = region(names::ADDRESSES6, 128)?;
        let (spans4, _) = region(names::SPANS4, 8)?;
        let (ranges4, ranges) = region(names::RANGES4, 16)?;
        let (ranges6, _) = region(names::RANGES6, 32)?;
        let (networks, entries) = region(names::NETWORKS, 32)?;
        let mut maps = Self {
            settings: Copies {
                copies: array(dir, names::SETTINGS)?,
                selector: array(dir, names::SELECTOR)?,
            },
            counters: percpu(dir, names::COUNTERS)?,
            answered: array(dir, names::ANSWERED)?,
            addresses: [
                Box::new(Addresses::<V4>::new(addresses4, entries4)),
                Box::new(Addresses::<V6>::new(addresses6, entries6)),
            ],
            networks: Networks {
                spans4,
                ranges4,
                ranges6,
                networks,
                ranges: ranges / 2,
                entries: entries / 2,
            },
            counts: Counts::new(capacity),
            own: Own::default(),
            capacities,
        };
        maps.take_over()?;
        let layout = maps.kept()?.layout;
        maps.count(&layout);
        Ok(maps)
    }

    /// See [`crate::dataplane::Backend::answered_ns`].
    pub fn answered_ns(&self) -> Result<u64, Error> {
        let answered = self.answered.get(&ALL_LISTENERS, 0);
        let answered = answered.map_err(|e| map_failed("reading", names::ANSWERED, e))?;
        Ok(answered.answered_ns)
    }

    /// Entries of a sized map; 0 for another name.
    pub fn capacity(&self, name: &str) -> u32 {
        self.capacities.get(name).copied().unwrap_or(0)
    }

    /// See [`crate::dataplane::Backend::room`].
    pub fn room(&self, list: List) -> Room {
        let (addresses, networks) = made_for(|name| self.capacity(name));
        self.counts.room(list.kind(), addresses, networks)
    }

    /// Shows every entry of the live halves.
    fn each(&self, layout: &Layout, mut visit: impl FnMut(IpNet, Kind, Rule)) {
        let halves = Halves::of(layout);
        for (table, half) in self.addresses.iter().zip(halves.addresses) {
            table.each(half, &mut |addr, kind, rule| {
                visit(IpAddr::from(addr).into(), kind, rule)
            });
        }
        for (net, kind, rule) in self.networks.listed(halves.networks) {
            visit(net, kind, rule);
        }
    }

    fn count(&mut self, layout: &Layout) {
        let mut counts = self.counts;
        counts.clear();
        self.each(layout, |net, kind, _| counts.of(&net, kind).has += 1);
        self.counts = counts;
    }

    fn layout(&self, old: &Layout, halves: Halves, last6: u32) -> Layout {
        let [four, six] = &self.addresses;
        Layout {
            addresses4: four.first(halves.addresses[0]),
            buckets4: four.buckets(),
            addresses6: six.first(halves.addresses[1]),
            buckets6: six.buckets(),
            spans4: halves.networks * SPANS,
            ranges4: self.networks.first_range(halves.networks) as u32,
            ranges6: self.networks.first_range(halves.networks) as u32,
            last6,
            networks: self.networks.first_network(halves.networks) as u32,
            ..*old
        }
    }

    /// The settings in force, whoever wrote them.
    pub fn settings(&self) -> Result<Settings, Error> {
        self.settings.read()
    }

    fn write_settings(&mut self, wanted: Settings) -> Result<(), Error> {
        self.settings.write(wanted)?;
        self.own = Own {
            hash_key: wanted.hash_key,
            layout: wanted.layout,
        };
        Ok(())
    }

    pub fn apply(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        let touches_networks = changes.iter().any(|change| match change {
            Change::Put { net, .. } | Change::Remove { net, .. } => single(&canonical(*net)).is_none(),
            Change::Settings(_) => false,
        });
        if touches_networks || changes.len() > IN_PLACE {
            self.apply_at_once(changes)
        } else {
            let result = self.write_in_place(changes);
            each(result, changes.len())
        }
    }

    /// All of the changes become visible together.
    pub fn apply_at_once(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        let result = self.switch(changes, Anew::default());
        each(result, changes.len())
    }

    /// How many entries of each list are there and have not ended.
    pub fn live(&self, boot_ns: u64) -> Result<[usize; 3], Error> {
        let mut lists = [0; 3];
        self.each(&self.kept()?.layout, |_, kind, rule| {
            lists[kind as usize - 1] += usize::from(rule.live(boot_ns));
        });
        Ok(lists)
    }

    /// Each change at once, in order.
    fn write_in_place(&mut self, changes: &[Change]) -> Result<Vec<(usize, Error)>, Error> {
        let halves = Halves::of(&self.kept()?.layout);
        let mut failures = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            let result = match change {
                Change::Settings(wanted) => {
                    let kept = self.kept()?;
                    self.write_settings(keep_own(**wanted, &kept))
                }
                _ => self.write_address(halves.addresses, change),
            };
            // An entry that nobody looks at is no entry, so the bit that says there are some follows at once.
            let result = result.and_then(|()| self.mark());
            failures.extend(result.err().map(|error| (index, error)));
        }
        Ok(failures)
    }

    fn mark(&mut self) -> Result<(), Error> {
        let settings = self.kept()?;
        let features = settings.features & !feature::TABLES | self.counts.table_bits();
        if features == settings.features {
            return Ok(());
        }
        self.write_settings(Settings { features, ..settings })
    }

    /// One change of a single address in the given halves. Settings and networks are none and ignored.
    fn write_address(&mut self, halves: [u32; 2], change: &Change) -> Result<(), Error> {
        let (list, net) = match change {
            Change::Put { list, net, .. } | Change::Remove { list, net } => (*list, canonical(*net)),
            Change::Settings(_) => return Ok(()),
        };
        let Some(addr) = single(&net) else {
            return Ok(());
        };
        let (key, kind, at) = (Addr::from(addr), list.kind(), family(addr));
        let (table, half) = (&self.addresses[at], halves[at]);
        let count = self.counts.of(&net, kind);
        match change {
            Change::Put { rule, .. } => {
                if count.has >= count.most && table.get(half, &key, kind).is_none() {
                    return Err(full(name_of(list, false), count.most));
                }
                let put = table.put(half, &key, kind, rule);
                let new = put.map_err(|Crowded| full(name_of(list, false), count.has))?;
                count.has += u32::from(new);
            }
            Change::Remove { .. } => {
                let gone = table.remove(half, &key, kind);
                count.has = count.has.saturating_sub(u32::from(gone));
            }
            Change::Settings(_) => {}
        }
        Ok(())
    }

    /// Makes all changes where nobody looks, then shows them together. Writes the tables in `anew` in any case.
    fn switch(&mut self, changes: &[Change], anew: Anew) -> Result<Vec<(usize, Error)>, Error> {
        let kept = self.kept()?;
        let live = Halves::of(&kept.layout);
        let mut next = Halves {
            addresses: [0, 1].map(|at| live.addresses[at] ^ u32::from(anew.addresses[at])),
            networks: live.networks ^ u32::from(anew.networks),
        };
        let mut networks = None;
        let mut wanted = kept;
        for change in changes {
            match change {
                Change::Settings(settings) => wanted = keep_own(**settings, &kept),
                Change::Put { net, .. } | Change::Remove { net, .. } => match single(&canonical(*net)) {
                    Some(addr) => next.addresses[family(addr)] = 1 - live.addresses[family(addr)],
                    None => next.networks = 1 - live.networks,
                },
            }
        }
        let counts = self.counts;
        // Hits as they are copied: what is counted beyond them until the switch follows it.
        let (mut known, mut known_networks) = ([Vec::new(), Vec::new()], Vec::new());
        for (at, table) in self.addresses.iter().enumerate() {
            if next.addresses[at] != live.addresses[at] {
                table.copy(live.addresses[at], next.addresses[at]);
                known[at] = table.hits(next.addresses[at]);
            }
        }
        if next.networks != live.networks {
            let listed = self.networks.listed(live.networks);
            known_networks = listed.iter().map(|(.., rule)| rule.hits).collect();
            networks = Some(listed);
        }

        // Nobody looks yet, so the order is free: removals make room for what takes their place.
        let mut failures = Vec::new();
        for removals in [true, false] {
            for (index, change) in changes.iter().enumerate() {
                if removals == matches!(change, Change::Remove { .. }) {
                    let result = self.write_address(next.addresses, change);
                    failures.extend(result.err().map(|e| (index, e)));
                }
            }
            if removals {
                self.tidy(live, next, &counts, anew);
            }
        }
        let mut last6 = kept.layout.last6;
        if let Some(listed) = networks {
            let listed = self.changed_networks(listed, changes, &mut failures);
            match self.networks.write(next.networks, &listed) {
                Ok(last) => last6 = last,
                Err(_) => {
                    self.counts = counts;
                    return Err(full("deny_prefixes", self.networks.entries - 1));
                }
            }
        }
        let features = wanted.features & !feature::TABLES | self.counts.table_bits();
        let layout = self.layout(&kept.layout, next, last6);
        if let Err(error) = self.write_settings(Settings {
            features,
            layout,
            ..wanted
        }) {
            self.counts = counts;
            return Err(error);
        }
        if next != live {
            // Nobody may be in the halves that were left: neither now nor when they are written again.
            sys::await_programs();
        }
        for (at, table) in self.addresses.iter().enumerate() {
            table.carry_hits(live.addresses[at], next.addresses[at], &known[at]);
        }
        self.networks
            .carry_hits(live.networks, next.networks, &known_networks);
        failures.sort_by_key(|(index, _)| *index);
        Ok(failures)
    }

    /// Writes anew each idle half that must be, or of which much was removed since it was copied.
    fn tidy(&self, live: Halves, next: Halves, before: &Counts, anew: Anew) {
        for (at, table) in self.addresses.iter().enumerate() {
            let (had, left) = (before.addresses(at), self.counts.addresses(at));
            let switched = next.addresses[at] != live.addresses[at];
            if switched && (anew.addresses[at] || had.saturating_sub(left).saturating_mul(4) > had) {
                table.tidy(next.addresses[at]);
            }
        }
    }

    /// The networks of a half with a batch of changes made to them.
    fn changed_networks(
        &mut self,
        listed: Vec<Listed>,
        changes: &[Change],
        failures: &mut Vec<(usize, Error)>,
    ) -> Vec<Listed> {
        self.counts.count_networks(&listed);
        let mut nets: BTreeMap<(IpNet, Kind), Rule> = listed
            .into_iter()
            .map(|(net, kind, rule)| ((net, kind), rule))
            .collect();
        let all = || changes.iter().enumerate();
        for (_, change) in all() {
            if let Change::Remove { list, net } = change {
                let (net, kind) = (canonical(*net), list.kind());
                if nets.remove(&(net, kind)).is_some() {
                    self.counts.of(&net, kind).has -= 1;
                }
            }
        }
        // The first place is never used.
        let most = self.networks.entries.saturating_sub(1);
        for (index, change) in all() {
            let Change::Put { list, net, rule } = change else {
                continue;
            };
            let (net, kind) = (canonical(*net), list.kind());
            if single(&net).is_some() {
                continue;
            }
            if *list == List::Block {
                failures.push((index, Error::NotAnAddress { net }));
                continue;
            }
            let count = self.counts.of(&net, kind);
            let there = nets.get(&(net, kind));
            if there.is_none() && (count.has >= count.most || nets.len() >= most as usize) {
                failures.push((index, full(name_of(*list, true), count.most.min(most))));
                continue;
            }
            count.has += u32::from(there.is_none());
            let hits = there.map_or(0, |old| old.hits).max(rule.hits);
            nets.insert((net, kind), Rule { hits, ..*rule });
        }
        nets.into_iter()
            .map(|((net, kind), rule)| (net, kind, rule))
            .collect()
    }

    /// Everything that is there. Counts it on the way, which only we should have changed.
    pub fn image(&mut self) -> Result<Image, Error> {
        let layout = self.kept()?.layout;
        let mut counts = self.counts;
        counts.clear();
        let mut lists = [Kind::Allow, Kind::Deny, Kind::Block]
            .map(|kind| Vec::<(IpNet, Rule)>::with_capacity(self.counts.all(kind)));
        self.each(&layout, |net, kind, rule| {
            counts.of(&net, kind).has += 1;
            lists[kind as usize - 1].push((net, rule));
        });
        self.counts = counts;
        // From a sorted list a tree is built at once.
        let [allow, deny, block] = lists.map(|mut list| {
            list.sort_unstable_by_key(|(net, _)| *net);
            list.into_iter().collect()
        });
        Ok(Image {
            settings: self.settings()?,
            allow,
            deny,
            block,
        })
    }

    /// See [`crate::dataplane::Backend::rules`].
    pub fn rules(&self, list: List, nets: &[IpNet]) -> Result<Vec<Option<Rule>>, Error> {
        let halves = Halves::of(&self.kept()?.layout);
        let (kind, mut networks) = (list.kind(), None);
        let rule = |net: &IpNet| match single(net) {
            Some(addr) => {
                let at = family(addr);
                self.addresses[at].get(halves.addresses[at], &Addr::from(addr), kind)
            }
            None => {
                // In the order that `changed_networks` wrote them in.
                let all = networks.get_or_insert_with(|| self.networks.listed(halves.networks));
                let found = all.binary_search_by_key(&(*net, kind), |(net, kind, _)| (*net, *kind));
                found.ok().map(|index| all[index].2)
            }
        };
        Ok(nets.iter().map(rule).collect())
    }

    pub fn lookup(&self, addr: IpAddr) -> Result<Found, Error> {
        let settings = self.settings()?;
        let halves = Halves::of(&settings.layout);
        let (key, at) = (Addr::from(addr), family(addr));
        // By another key the program looks elsewhere.
        let hashed = settings.layout.mix == self.own.layout.mix;
        let exact = |kind| {
            let get = || self.addresses[at].get(halves.addresses[at], &key, kind);
            hashed.then(get).flatten()
        };
        let [allow_net, deny_net] = self.networks.around(halves.networks, settings.layout.last6, addr);
        Ok(Found {
            settings,
            allow_addr: exact(Kind::Allow),
            allow_net,
            deny_addr: exact(Kind::Deny),
            deny_net,
            block: exact(Kind::Block),
        })
    }

    pub fn counters(&self) -> Result<Counters, Error> {
        let mut sums = Counters::default();
        for (slot, sum) in (0..SLOTS).zip(&mut sums.0) {
            let values = self
                .counters
                .get(&slot, 0)
                .map_err(|e| map_failed("reading", names::COUNTERS, e))?;
            for value in values.iter() {
                sum.packets += value.packets;
                sum.bytes += value.bytes;
            }
        }
        Ok(sums)
    }
}

/// A failure of the whole batch is one of each change.
fn each(result: Result<Vec<(usize, Error)>, Error>, changes: usize) -> Vec<(usize, Error)> {
    result.unwrap_or_else(|error| {
        let what = error.to_string();
        let again = || Error::Load {
            operation: "writing the tables".into(),
            detail: what.clone(),
        };
        (0..changes).map(|index| (index, again())).collect()
    })
}

fn full(list: &'static str, capacity: u32) -> Error {
    Error::Full { list, capacity }
}

/// What a list's table is called in messages.
const fn name_of(list: List, networks: bool) -> &'static str {
    match (list, networks) {
        (List::Allow, false) => "allow_addresses",
        (List::Allow, true) => "allow_prefixes",
        (List::Deny, false) => "deny_addresses",
        (List::Deny, true) => "deny_prefixes",
        (List::Block, _) => "blocks",
    }
}

fn opening(name: &str, error: MapError) -> Error {
    load_failed(&format!("opening the pinned table {name}"), &error)
}

pub(super) fn pinned(dir: &Path, name: &str) -> Result<MapData, Error> {
    MapData::from_pin(dir.join(name)).map_err(|e| opening(name, e))
}

fn array<V: aya::Pod>(dir: &Path, name: &str) -> Result<Array<MapData, V>, Error> {
    let map = Map::from_map_data(pinned(dir, name)?);
    map.and_then(Array::try_from).map_err(|e| opening(name, e))
}

fn percpu<V: aya::Pod>(dir: &Path, name: &str) -> Result<PerCpuArray<MapData, V>, Error> {
    let map = Map::from_map_data(pinned(dir, name)?);
    map.and_then(PerCpuArray::try_from).map_err(|e| opening(name, e))
}
