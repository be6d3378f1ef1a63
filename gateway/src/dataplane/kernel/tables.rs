//! Typed handles to the pinned maps, and what [`Backend`](crate::dataplane::Backend) asks of them.
//!
//! Every handle comes from its pin, whether or not this process loaded the program, so a command without a daemon
//! runs the same code. Prefix entries carry their own length in `detail`; it is put in here and taken out here.

use std::net::IpAddr;
use std::path::Path;

use aya::maps::lpm_trie::Key as TrieKey;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use gateway_common::addr::Addr;
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{Counter, Rule, Settings, names};
use gateway_ebpf::policy::Table;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::{is, load_failed, map_failed};
use crate::dataplane::place::{Key, keep_own, place};
use crate::dataplane::{Change, Counters, Error, Found, Image, List};

/// `BPF_NOEXIST`: insert only.
const NEW: u64 = 1;
/// `BPF_ANY`: insert or replace.
const ANY: u64 = 0;

type Hash = Named<HashMap<MapData, Addr, Rule>>;
type Trie4 = Named<LpmTrie<MapData, [u8; 4], Rule>>;
type Trie6 = Named<LpmTrie<MapData, [u8; 16], Rule>>;

/// A map with its name and how many entries it takes.
struct Named<M> {
    map: M,
    name: &'static str,
    capacity: u32,
}

/// All shared tables.
pub struct Maps {
    settings: Array<MapData, Settings>,
    selector: Array<MapData, u32>,
    counters: PerCpuArray<MapData, Counter>,
    allow_addr: Hash,
    allow_net4: Trie4,
    allow_net6: Trie6,
    deny_addr: Hash,
    deny_net4: Trie4,
    deny_net6: Trie6,
    block_addr: Hash,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

/// Runs a piece of code on the map that a table and key name; `$map`, `$key` are what the piece sees.
macro_rules! on {
    ($maps:expr, $table:expr, $key:expr, |$map:ident, $k:ident| $body:expr) => {
        match ($table, $key) {
            (Table::AllowAddr, Key::Addr(addr)) => {
                let ($map, $k) = (&mut $maps.allow_addr, addr);
                $body
            }
            (Table::DenyAddr, Key::Addr(addr)) => {
                let ($map, $k) = (&mut $maps.deny_addr, addr);
                $body
            }
            (_, Key::Addr(addr)) => {
                let ($map, $k) = (&mut $maps.block_addr, addr);
                $body
            }
            (Table::AllowNet4, Key::Net4 { bits, data }) => {
                let ($map, $k) = (&mut $maps.allow_net4, TrieKey::new(bits, data));
                $body
            }
            (_, Key::Net4 { bits, data }) => {
                let ($map, $k) = (&mut $maps.deny_net4, TrieKey::new(bits, data));
                $body
            }
            (Table::AllowNet6, Key::Net6 { bits, data }) => {
                let ($map, $k) = (&mut $maps.allow_net6, TrieKey::new(bits, data));
                $body
            }
            (_, Key::Net6 { bits, data }) => {
                let ($map, $k) = (&mut $maps.deny_net6, TrieKey::new(bits, data));
                $body
            }
        }
    };
}

impl Maps {
    /// Opens the maps pinned in `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self {
            settings: open(dir, names::SETTINGS)?.map,
            selector: open(dir, names::SELECTOR)?.map,
            counters: open(dir, names::COUNTERS)?.map,
            allow_addr: open(dir, names::ALLOW_ADDR)?,
            allow_net4: open(dir, names::ALLOW_NET4)?,
            allow_net6: open(dir, names::ALLOW_NET6)?,
            deny_addr: open(dir, names::DENY_ADDR)?,
            deny_net4: open(dir, names::DENY_NET4)?,
            deny_net6: open(dir, names::DENY_NET6)?,
            block_addr: open(dir, names::BLOCK_ADDR)?,
        })
    }

    /// Entries a table takes; 0 for a name that is none of the lists.
    pub fn capacity(&self, name: &str) -> u32 {
        match name {
            names::ALLOW_ADDR => self.allow_addr.capacity,
            names::ALLOW_NET4 => self.allow_net4.capacity,
            names::ALLOW_NET6 => self.allow_net6.capacity,
            names::DENY_ADDR => self.deny_addr.capacity,
            names::DENY_NET4 => self.deny_net4.capacity,
            names::DENY_NET6 => self.deny_net6.capacity,
            names::BLOCK_ADDR => self.block_addr.capacity,
            _ => 0,
        }
    }

    /// Gives fresh tables their random hash key. It stays for their life, as limiter state depends on it.
    pub fn draw_hash_key(&mut self) -> Result<(), Error> {
        let settings = self.settings()?;
        if settings.hash_key != [0; 2] {
            return Ok(());
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|e| load_failed("drawing the hash key", &e))?;
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        // Never zero, which would mean "not drawn yet".
        self.write_settings(Settings {
            hash_key: [word(low) | 1, word(high)],
            ..settings
        })
    }

    pub fn settings(&self) -> Result<Settings, Error> {
        let live = self.live_copy()?;
        self.settings
            .get(&live, 0)
            .map_err(|e| map_failed("reading", names::SETTINGS, 2, e))
    }

    fn live_copy(&self) -> Result<u32, Error> {
        let selector = self
            .selector
            .get(&0, 0)
            .map_err(|e| map_failed("reading", names::SELECTOR, 1, e))?;
        Ok(selector & 1)
    }

    /// Fills the idle copy, switches to it, and reads back.
    fn write_settings(&mut self, settings: Settings) -> Result<(), Error> {
        let idle = 1 - self.live_copy()?;
        self.settings
            .set(idle, settings, ANY)
            .map_err(|e| map_failed("writing", names::SETTINGS, 2, e))?;
        self.selector
            .set(0, idle, ANY)
            .map_err(|e| map_failed("writing", names::SELECTOR, 1, e))?;
        if self.settings()? == settings {
            return Ok(());
        }
        let detail = "they are not what was written: another process writes the same tables".into();
        Err(Error::Load {
            operation: "reading back the settings".into(),
            detail,
        })
    }

    /// Sets and clears bits of the settings in force; no write if that changes nothing.
    fn mark(&mut self, set: u32, clear: u32) -> Result<(), Error> {
        let settings = self.settings()?;
        let features = settings.features & !clear | set;
        if features == settings.features {
            return Ok(());
        }
        self.write_settings(Settings { features, ..settings })
    }

    pub fn apply(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        let mut failures = Vec::new();
        // Bits already known to be set, so that a million entries cost no reading of settings each.
        let mut marked = 0;
        let mut shrunk: Vec<(usize, Table)> = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            let result = match *change {
                Change::Put { list, net, rule } => self.put(list, net, rule, &mut marked),
                Change::Remove { list, net } => match place(list, net) {
                    None => Ok(()),
                    Some((table, key)) => {
                        if !shrunk.iter().any(|(_, known)| *known == table) {
                            shrunk.push((index, table));
                        }
                        on!(self, table, key, |map, key| map.remove(&key))
                    }
                },
                Change::Settings(wanted) => self
                    .settings()
                    .and_then(|kept| self.write_settings(keep_own(wanted, &kept))),
            };
            if let Err(error) = result {
                failures.push((index, error));
            }
        }
        for (index, table) in shrunk {
            if let Err(error) = self.unmark_if_empty(table) {
                failures.push((index, error));
            }
        }
        failures
    }

    /// The entry first, then the bit that makes the program look: an entry that nobody looks at is no entry.
    fn put(&mut self, list: List, net: IpNet, rule: Rule, marked: &mut u32) -> Result<(), Error> {
        let Some((table, key)) = place(list, net) else {
            return Err(Error::NotAnAddress { net });
        };
        let rule = match key {
            Key::Addr(_) => rule,
            Key::Net4 { bits, .. } | Key::Net6 { bits, .. } => Rule { detail: bits, ..rule },
        };
        on!(self, table, key, |map, key| map.put(&key, rule))?;
        if *marked & table.feature() == 0 {
            self.mark(table.feature(), 0)?;
            *marked |= table.feature();
        }
        Ok(())
    }

    fn unmark_if_empty(&mut self, table: Table) -> Result<(), Error> {
        let empty = match table {
            Table::AllowAddr => self.allow_addr.is_empty(),
            Table::AllowNet4 => self.allow_net4.is_empty(),
            Table::AllowNet6 => self.allow_net6.is_empty(),
            Table::DenyAddr => self.deny_addr.is_empty(),
            Table::DenyNet4 => self.deny_net4.is_empty(),
            Table::DenyNet6 => self.deny_net6.is_empty(),
            Table::BlockAddr => self.block_addr.is_empty(),
        };
        if empty {
            self.mark(0, table.feature())
        } else {
            self.mark(table.feature(), 0)
        }
    }

    pub fn image(&self) -> Result<Image, Error> {
        let mut image = Image {
            settings: self.settings()?,
            ..Image::default()
        };
        for (list, hash) in [
            (List::Allow, &self.allow_addr),
            (List::Deny, &self.deny_addr),
            (List::Block, &self.block_addr),
        ] {
            for (addr, rule) in hash.entries()? {
                image.list_mut(list).insert(IpNet::from(IpAddr::from(addr)), rule);
            }
        }
        for (list, trie) in [(List::Allow, &self.allow_net4), (List::Deny, &self.deny_net4)] {
            for (key, rule) in trie.entries()? {
                let bits = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
                if let Ok(net) = Ipv4Net::new(key.data().into(), bits) {
                    image.list_mut(list).insert(net.into(), plain(rule));
                }
            }
        }
        for (list, trie) in [(List::Allow, &self.allow_net6), (List::Deny, &self.deny_net6)] {
            for (key, rule) in trie.entries()? {
                let bits = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
                if let Ok(net) = Ipv6Net::new(key.data().into(), bits) {
                    image.list_mut(list).insert(net.into(), plain(rule));
                }
            }
        }
        Ok(image)
    }

    pub fn lookup(&self, addr: IpAddr) -> Result<Found, Error> {
        let now_ns = super::sys::boottime_ns();
        let key = Addr::from(addr);
        let (allow_net, deny_net) = match addr {
            IpAddr::V4(ip) => (
                self.allow_net4.around(32, ip.octets(), now_ns)?,
                self.deny_net4.around(32, ip.octets(), now_ns)?,
            ),
            IpAddr::V6(ip) => (
                self.allow_net6.around(128, ip.octets(), now_ns)?,
                self.deny_net6.around(128, ip.octets(), now_ns)?,
            ),
        };
        Ok(Found {
            settings: self.settings()?,
            allow_addr: self.allow_addr.get(&key)?,
            allow_net: allow_net.map(plain),
            deny_addr: self.deny_addr.get(&key)?,
            deny_net: deny_net.map(plain),
            block: self.block_addr.get(&key)?,
        })
    }

    pub fn counters(&self) -> Result<Counters, Error> {
        let mut sums = Counters::default();
        for (slot, sum) in (0..SLOTS).zip(&mut sums.0) {
            let values = self
                .counters
                .get(&slot, 0)
                .map_err(|e| map_failed("reading", names::COUNTERS, SLOTS, e))?;
            for value in values.iter() {
                sum.packets += value.packets;
                sum.bytes += value.bytes;
            }
        }
        Ok(sums)
    }
}

/// A prefix's rule as the rest of the gateway knows it, without its length.
fn plain(rule: Rule) -> Rule {
    Rule { detail: 0, ..rule }
}

fn open<M>(dir: &Path, name: &'static str) -> Result<Named<M>, Error>
where
    M: TryFrom<Map, Error = MapError>,
{
    let failed = |e: MapError| load_failed(&format!("opening the pinned table {name}"), &e);
    let data = MapData::from_pin(dir.join(name)).map_err(failed)?;
    let capacity = data.info().map_err(failed)?.max_entries();
    let map = Map::from_map_data(data).and_then(M::try_from).map_err(failed)?;
    Ok(Named { map, name, capacity })
}

/// The calls that hashes and tries share; aya gives them the same names but no trait.
macro_rules! keyed {
    ($map:ty, $key:ty) => {
        impl Named<$map> {
            /// Inserts, or replaces and keeps the larger count of hits. Hits between reading the old entry and
            /// writing the new one, a microsecond or two, are lost.
            fn put(&mut self, key: &$key, rule: Rule) -> Result<(), Error> {
                match self.map.insert(key, rule, NEW) {
                    Err(error) if is(&error, libc::EEXIST) => {
                        let hits = self.get(key)?.map_or(0, |old| old.hits).max(rule.hits);
                        let rule = Rule { hits, ..rule };
                        self.map
                            .insert(key, rule, ANY)
                            .map_err(|e| map_failed("writing", self.name, self.capacity, e))
                    }
                    result => result.map_err(|e| map_failed("writing", self.name, self.capacity, e)),
                }
            }

            fn remove(&mut self, key: &$key) -> Result<(), Error> {
                match self.map.remove(key) {
                    Err(error) if !is(&error, libc::ENOENT) => {
                        Err(map_failed("removing from", self.name, self.capacity, error))
                    }
                    _ => Ok(()),
                }
            }

            fn get(&self, key: &$key) -> Result<Option<Rule>, Error> {
                match self.map.get(key, 0) {
                    Ok(rule) => Ok(Some(rule)),
                    Err(error) if is(&error, libc::ENOENT) => Ok(None),
                    Err(error) => Err(map_failed("reading", self.name, self.capacity, error)),
                }
            }

            fn is_empty(&self) -> bool {
                self.map.keys().next().is_none()
            }

            /// An entry that vanishes while they are walked is left out.
            fn entries(&self) -> Result<Vec<($key, Rule)>, Error> {
                let mut entries = Vec::new();
                for key in self.map.keys() {
                    let key = key.map_err(|e| map_failed("walking", self.name, self.capacity, e))?;
                    if let Some(rule) = self.get(&key)? {
                        entries.push((key, rule));
                    }
                }
                Ok(entries)
            }
        }
    };
}

keyed!(HashMap<MapData, Addr, Rule>, Addr);
keyed!(LpmTrie<MapData, [u8; 4], Rule>, TrieKey<[u8; 4]>);
keyed!(LpmTrie<MapData, [u8; 16], Rule>, TrieKey<[u8; 16]>);

/// The prefix in force around an address, stepping past those that have ended, as the program does.
macro_rules! prefixed {
    ($size:literal) => {
        impl Named<LpmTrie<MapData, [u8; $size], Rule>> {
            fn around(&self, bits: u32, data: [u8; $size], now_ns: u64) -> Result<Option<Rule>, Error> {
                let first = self.get(&TrieKey::new(bits, data))?;
                let mut at = first;
                while let Some(rule) = at {
                    if rule.live(now_ns) {
                        return Ok(Some(rule));
                    }
                    at = match rule.detail.checked_sub(1) {
                        Some(shorter) if shorter < bits => self.get(&TrieKey::new(shorter, data))?,
                        _ => None,
                    };
                }
                Ok(first)
            }
        }
    };
}

prefixed!(4);
prefixed!(16);
