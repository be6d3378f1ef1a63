//! The tables in plain collections: a [`Backend`] without a kernel and the [`Tables`] that the policy reads.
//!
//! Serves `mode: none`, where the proxy alone enforces, and the tests, where the whole story runs without root. Keeps
//! no clock: time is set by the caller. Behaves as the kernel's tables do, down to what an entry keeps when it is
//! replaced; that the two agree is shown by the packet table, which runs over both.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use gateway_common::addr::Addr;
use gateway_common::entry::Stamp;
use gateway_common::limiter::{self, Place, WAYS};
use gateway_common::outcome::Verdict;
use gateway_common::tables::{Limit, Rule, Settings, feature};
use gateway_ebpf::policy::{Decision, Found as Entry, Tables, rank};
use ipnet::IpNet;

use super::place::{canonical, keep_own, outlasts};
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
        let observed = decision.observed.map(|reason| reason.observed_slot());
        for slot in [Some(decision.verdict.slot()), observed].into_iter().flatten() {
            if let Some(counter) = self.counters.0.get_mut(slot as usize) {
                counter.packets += 1;
                counter.bytes += bytes;
            }
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
            bits |= self
                .image
                .list(list)
                .keys()
                .fold(0, |bits, net| bits | table_bit(net));
        }
        let features = &mut self.image.settings.features;
        *features = *features & !feature::TABLES | bits;
    }

    /// The network that speaks for `ip`: the longest around it that stays as long as all others around it.
    fn longest(&self, list: List, ip: IpAddr) -> Option<(IpNet, &Rule)> {
        let rules = self.image.list(list);
        let full = if ip.is_ipv4() { 32 } else { 128 };
        let around = (0..full).filter_map(|length| {
            let net = IpNet::new(ip, length).ok()?.trunc();
            rules.get_key_value(&net).map(|(net, rule)| (*net, rule))
        });
        around.reduce(|speaker, longer| {
            if outlasts(longer.1.deadline_ns, speaker.1.deadline_ns) {
                longer
            } else {
                speaker
            }
        })
    }

    /// The strongest word among entries that are in force.
    fn strongest<'a>(
        &self,
        entries: impl Iterator<Item = (List, IpNet, &'a Rule)>,
        observe: u32,
    ) -> Entry<(List, IpNet)> {
        entries
            .filter(|(_, _, rule)| rule.live(self.now_ns))
            .map(|(list, net, _)| Entry {
                rank: rank(list.kind() as u32, observe),
                entry: Some((list, net)),
            })
            .min_by_key(|found| found.rank)
            .unwrap_or(Entry::nothing())
    }
}

/// The feature bit of the table that holds `net`.
fn table_bit(net: &IpNet) -> u32 {
    match (net, net.prefix_len() == net.max_prefix_len()) {
        (IpNet::V4(_), true) => feature::ADDRESSES4,
        (IpNet::V6(_), true) => feature::ADDRESSES6,
        (IpNet::V4(_), false) => feature::NETWORKS4,
        (IpNet::V6(_), false) => feature::NETWORKS6,
    }
}

impl Tables for Memory {
    type Entry = (List, IpNet);

    fn settings(&self) -> Option<&Settings> {
        Some(&self.image.settings)
    }

    fn address(&self, source: &Addr, settings: &Settings, _: u64) -> Entry<Self::Entry> {
        let net = IpNet::from(IpAddr::from(*source));
        let lists = [List::Allow, List::Deny, List::Block].into_iter();
        let entries = lists.filter_map(|list| Some((list, net, self.image.list(list).get(&net)?)));
        self.strongest(entries, settings.observe)
    }

    fn network(&self, source: &Addr, settings: &Settings, _: u64) -> Entry<Self::Entry> {
        let ip = IpAddr::from(*source);
        let lists = [List::Allow, List::Deny].into_iter();
        let entries = lists.filter_map(|list| self.longest(list, ip).map(|(net, rule)| (list, net, rule)));
        self.strongest(entries, settings.observe)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Nothing listens here, so nothing is answered.
    fn answering(&self, _: u64) -> bool {
        false
    }

    fn limit(&self, place: Place, limit: &Limit, charge: bool, now_ns: u64) -> bool {
        let mut buckets = self.buckets.borrow_mut();
        let words = buckets.entry(place.bucket).or_default();
        let step = limiter::step(limit, place.fingerprint, now_ns, |way| words[way]);
        if charge {
            words[step.way] = step.new;
        }
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
            match change {
                Change::Put { list, net, rule } => {
                    let (list, net, rule) = (*list, canonical(*net), *rule);
                    if list == List::Block && net.prefix_len() != net.max_prefix_len() {
                        failures.push((index, Error::NotAnAddress { net }));
                        continue;
                    }
                    self.image.settings.features |= table_bit(&net);
                    let rules: &mut BTreeMap<_, _> = self.image.list_mut(list);
                    let kept = rules.get(&net).map_or(0, |old| old.hits);
                    rules.insert(
                        net,
                        Rule {
                            hits: rule.hits.max(kept),
                            deadline_ns: Stamp::rounded(rule.deadline_ns),
                            ..rule
                        },
                    );
                }
                Change::Remove { list, net } => {
                    self.image.list_mut(*list).remove(&canonical(*net));
                }
                Change::Settings(wanted) => self.image.settings = keep_own(**wanted, &self.image.settings),
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

    fn rules(&mut self, list: List, nets: &[IpNet]) -> Result<Vec<Option<Rule>>, Error> {
        let there = self.image.list(list);
        Ok(nets.iter().map(|net| there.get(net).copied()).collect())
    }

    fn lookup(&mut self, addr: IpAddr) -> Result<Found, Error> {
        let addr = addr.to_canonical();
        let exact = |list: List| self.image.list(list).get(&IpNet::from(addr)).copied();
        let around = |list: List| self.longest(list, addr).map(|(net, rule)| (net, *rule));
        Ok(Found {
            settings: self.image.settings,
            allow_addr: exact(List::Allow),
            allow_net: around(List::Allow),
            deny_addr: exact(List::Deny),
            deny_net: around(List::Deny),
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
        assert_eq!(found.settings.features, feature::ADDRESSES4);
        let remove = Change::Remove {
            list: List::Deny,
            net: net("192.0.2.1/32"),
        };
        assert!(memory.apply(&[remove.clone(), remove]).is_empty());
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
            features: feature::SYN_LIMIT | feature::ADDRESSES4,
            ..Settings::default()
        };
        memory.apply(&[deny, Change::settings(wanted)]);
        let settings = memory.settings().expect("memory");
        assert_eq!(settings.hash_key, [1, 2]);
        assert_eq!(settings.features, feature::SYN_LIMIT | feature::NETWORKS6);
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
