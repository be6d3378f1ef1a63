//! The tables in plain collections: a [`Backend`] without a kernel and the [`Tables`] that the policy reads.
//!
//! Serves `mode: none`, where the proxy alone enforces, and the tests, where the whole story runs without root. Keeps
//! no clock: time is set by the caller. Behaves as the kernel's tables do, down to what an entry keeps when it is
//! replaced; that the two agree is shown by the packet table, which runs over both.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use gateway_common::addr::Addr;
use gateway_common::limiter::{Step, WAYS};
use gateway_common::outcome::Verdict;
use gateway_common::tables::{Rule, Settings, feature};
use gateway_ebpf::policy::{Decision, Table, Tables};
use ipnet::IpNet;

use super::place::{canonical, keep_own, place};
use super::{Backend, Change, Counters, Error, Found, Image, List};

/// Tables in memory.
#[derive(Debug, Default)]
pub struct Memory {
    image: Image,
    counters: Counters,
    /// Limiter state of the buckets that were ever used.
    buckets: RefCell<HashMap<u32, [u64; WAYS]>>,
    /// `CLOCK_BOOTTIME` in nanoseconds, as the caller last said.
    pub now_ns: u64,
}

impl Memory {
    /// Empty tables with this hash key; not ready until settings are applied.
    #[must_use]
    pub fn new(hash_key: [u64; 2]) -> Self {
        let settings = Settings {
            hash_key,
            ..Settings::default()
        };
        Self {
            image: Image {
                settings,
                ..Image::default()
            },
            ..Self::default()
        }
    }

    /// Carries out a decision as the program does on its way out: counts a packet of `bytes` and the entry's hit.
    pub fn leave(&mut self, decision: Decision<(List, IpNet)>, bytes: u64) -> Verdict {
        if let Some(counter) = self.counters.0.get_mut(decision.verdict.slot() as usize) {
            counter.packets += 1;
            counter.bytes += bytes;
        }
        if let Some((list, net)) = decision.entry
            && let Some(rule) = self.image.list_mut(list).get_mut(&net)
        {
            rule.hits += 1;
        }
        decision.verdict
    }

    /// Sets the table bits to what the tables hold.
    fn refresh(&mut self) {
        let mut bits = 0;
        for list in [List::Allow, List::Deny, List::Block] {
            for net in self.image.list(list).keys() {
                bits |= place(list, *net).map_or(0, |(table, _)| table.feature());
            }
        }
        let features = &mut self.image.settings.features;
        *features = *features & !feature::TABLES | bits;
    }

    /// The longest prefix of at most `bits` bits around `ip`; not a full-length one, which the hash holds.
    fn longest(&self, list: List, ip: IpAddr, bits: u8) -> Option<(IpNet, &Rule)> {
        let rules = self.image.list(list);
        let full = if ip.is_ipv4() { 32 } else { 128 };
        if rules.len() < usize::from(full) {
            let around = rules
                .iter()
                .filter(|(net, _)| net.prefix_len() < full && net.prefix_len() <= bits && net.contains(&ip));
            return around
                .max_by_key(|(net, _)| net.prefix_len())
                .map(|(net, rule)| (*net, rule));
        }
        (0..=bits.min(full - 1)).rev().find_map(|length| {
            let net = IpNet::new(ip, length).ok()?.trunc();
            rules.get(&net).map(|rule| (net, rule))
        })
    }

    /// As the policy finds it: the longest live prefix, or the longest at all if none is.
    fn prefix(&self, list: List, ip: IpAddr) -> Option<Rule> {
        let first = self.longest(list, ip, 128)?;
        let mut at = Some(first);
        while let Some((net, rule)) = at {
            if rule.live(self.now_ns) {
                return Some(*rule);
            }
            at = net
                .prefix_len()
                .checked_sub(1)
                .and_then(|bits| self.longest(list, ip, bits));
        }
        Some(*first.1)
    }
}

impl Tables for Memory {
    type Entry = (List, IpNet);

    fn settings(&self) -> Option<&Settings> {
        Some(&self.image.settings)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn find(&self, table: Table, source: &Addr, bits: u32) -> Option<Self::Entry> {
        let ip = IpAddr::from(*source);
        let list = match table {
            Table::AllowAddr | Table::AllowNet4 | Table::AllowNet6 => List::Allow,
            Table::DenyAddr | Table::DenyNet4 | Table::DenyNet6 => List::Deny,
            Table::BlockAddr => List::Block,
        };
        match table {
            Table::AllowAddr | Table::DenyAddr | Table::BlockAddr => {
                let net = IpNet::from(ip);
                self.image.list(list).contains_key(&net).then_some((list, net))
            }
            _ => {
                let bits = u8::try_from(bits).unwrap_or(u8::MAX);
                self.longest(list, ip, bits).map(|(net, _)| (list, net))
            }
        }
    }

    fn deadline_ns(&self, (list, net): Self::Entry) -> u64 {
        self.image.list(list).get(&net).map_or(0, |rule| rule.deadline_ns)
    }

    fn prefix_len(&self, (_, net): Self::Entry) -> u32 {
        u32::from(net.prefix_len())
    }

    fn limit(&self, bucket: u32, step: impl Fn(&[u64; WAYS]) -> Step) -> bool {
        let mut buckets = self.buckets.borrow_mut();
        let words = buckets.entry(bucket).or_default();
        let step = step(words);
        words[step.way] = step.new;
        step.within
    }
}

impl Backend for Memory {
    fn enforced(&mut self) -> Result<Image, Error> {
        Ok(self.image.clone())
    }

    fn settings(&mut self) -> Result<Settings, Error> {
        Ok(self.image.settings)
    }

    fn apply(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        let mut failures = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            match *change {
                Change::Put { list, net, rule } => {
                    let Some((table, _)) = place(list, net) else {
                        failures.push((index, Error::NotAnAddress { net }));
                        continue;
                    };
                    self.image.settings.features |= table.feature();
                    let rules: &mut BTreeMap<_, _> = self.image.list_mut(list);
                    let kept = rules.get(&canonical(net)).map_or(0, |old| old.hits);
                    rules.insert(
                        canonical(net),
                        Rule {
                            hits: rule.hits.max(kept),
                            ..rule
                        },
                    );
                }
                Change::Remove { list, net } => {
                    self.image.list_mut(list).remove(&canonical(net));
                }
                Change::Settings(wanted) => self.image.settings = keep_own(wanted, &self.image.settings),
            }
        }
        if changes
            .iter()
            .any(|change| matches!(change, Change::Remove { .. }))
        {
            self.refresh();
        }
        failures
    }

    fn lookup(&mut self, addr: IpAddr) -> Result<Found, Error> {
        let addr = addr.to_canonical();
        let exact = |list: List| self.image.list(list).get(&IpNet::from(addr)).copied();
        Ok(Found {
            settings: self.image.settings,
            allow_addr: exact(List::Allow),
            allow_net: self.prefix(List::Allow, addr),
            deny_addr: exact(List::Deny),
            deny_net: self.prefix(List::Deny, addr),
            block: exact(List::Block),
        })
    }

    fn counters(&mut self) -> Result<Counters, Error> {
        Ok(self.counters.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a literal")
    }

    #[test]
    fn replacing_keeps_hits_and_removing_twice_is_removing_once() {
        let mut memory = Memory::new([1, 2]);
        let put = |hits| Change::Put {
            list: List::Deny,
            net: net("192.0.2.1/32"),
            rule: Rule {
                hits,
                ..Rule::default()
            },
        };
        assert!(memory.apply(&[put(7), put(0)]).is_empty());
        let found = memory
            .lookup("192.0.2.1".parse().expect("a literal"))
            .expect("memory");
        assert_eq!(found.deny_addr.map(|rule| rule.hits), Some(7));
        assert_eq!(found.settings.features, feature::DENY_ADDR);
        let remove = Change::Remove {
            list: List::Deny,
            net: net("192.0.2.1/32"),
        };
        assert!(memory.apply(&[remove, remove]).is_empty());
        assert_eq!(memory.settings().expect("memory").features, 0);
    }

    #[test]
    fn the_keepers_own_settings_stay() {
        let mut memory = Memory::new([1, 2]);
        let deny = Change::Put {
            list: List::Deny,
            net: net("2001:db8::/32"),
            rule: Rule::default(),
        };
        let wanted = Settings {
            ready: 1,
            features: feature::SYN_LIMIT | feature::ALLOW_ADDR,
            ..Settings::default()
        };
        memory.apply(&[deny, Change::Settings(wanted)]);
        let settings = memory.settings().expect("memory");
        assert_eq!(settings.hash_key, [1, 2]);
        assert_eq!(settings.features, feature::SYN_LIMIT | feature::DENY_NET6);
        assert_eq!(settings.ready, 1);
    }

    #[test]
    fn a_prefix_in_the_block_list_is_refused_and_the_rest_applied() {
        let mut memory = Memory::new([1, 2]);
        let block = |text| Change::Put {
            list: List::Block,
            net: net(text),
            rule: Rule::default(),
        };
        let failures = memory.apply(&[block("192.0.2.0/24"), block("192.0.2.9/32")]);
        assert_eq!(failures.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
        assert!(
            memory
                .lookup("192.0.2.9".parse().expect("a literal"))
                .expect("memory")
                .block
                .is_some()
        );
    }
}
