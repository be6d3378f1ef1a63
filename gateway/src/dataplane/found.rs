//! The policy run in user space on what was found for one address: `explain` asks the very code the kernel runs.

use gateway_common::addr::Addr;
use gateway_common::entry::Kind;
use gateway_common::limiter::Place;
use gateway_common::tables::{Limit, Rule, Settings};
use gateway_ebpf::policy::{Found as Entry, Tables, rank};
use ipnet::IpNet;

use super::Found;

/// What was found, at a time. [`Tables`] for packets of the one source that was looked up.
#[derive(Clone, Copy, Debug)]
pub struct FoundAt<'a> {
    pub found: &'a Found,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub now_ns: u64,
}

impl<'a> FoundAt<'a> {
    fn strongest<const N: usize>(&self, entries: [(Kind, Option<&'a Rule>); N]) -> Entry<&'a Rule> {
        let rules = entries.into_iter().filter_map(|(kind, rule)| Some((kind, rule?)));
        rules
            .filter(|(_, rule)| rule.live(self.now_ns))
            .map(|(kind, entry)| Entry {
                rank: rank(kind as u32, self.found.settings.observe),
                entry: Some(entry),
            })
            .min_by_key(|found| found.rank)
            .unwrap_or(Entry::nothing())
    }
}

impl<'a> Tables for FoundAt<'a> {
    type Entry = &'a Rule;

    fn settings(&self) -> Option<&Settings> {
        Some(&self.found.settings)
    }

    fn address(&self, _: &Addr, _: &Settings, _: u64) -> Entry<Self::Entry> {
        let found = self.found;
        self.strongest([
            (Kind::Allow, found.allow_addr.as_ref()),
            (Kind::Deny, found.deny_addr.as_ref()),
            (Kind::Block, found.block.as_ref()),
        ])
    }

    fn network(&self, _: &Addr, _: &Settings, _: u64) -> Entry<Self::Entry> {
        let rule = |found: &'a Option<(IpNet, Rule)>| found.as_ref().map(|(_, rule)| rule);
        self.strongest([
            (Kind::Allow, rule(&self.found.allow_net)),
            (Kind::Deny, rule(&self.found.deny_net)),
        ])
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Asking about an address is no packet that could be an answer to a cookie.
    fn answering(&self, _: u64) -> bool {
        false
    }

    /// Within: asking must not spend the budget of the address asked about.
    fn limit(&self, _: Place, _: &Limit, _: bool, _: u64) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::outcome::{DropReason, PassReason, Verdict};
    use gateway_common::tables::feature;
    use gateway_ebpf::packet::{Content, Packet};
    use gateway_ebpf::policy::decide;

    use super::*;

    #[test]
    fn the_same_policy_says_which_entry_won() {
        let rule = Rule {
            deadline_ns: 100,
            hits: 3,
            origin: 2,
            detail: 0,
        };
        let features = feature::NETWORKS4 | feature::ADDRESSES4;
        let settings = Settings {
            features,
            ready: 1,
            ..Settings::default()
        };
        let mut found = Found {
            settings,
            deny_net: Some(("192.0.2.0/24".parse().expect("a literal"), rule)),
            ..Found::default()
        };
        let packet = Packet {
            source: Addr::v4([192, 0, 2, 1]),
            content: Content::Other,
            port: 0,
        };
        let at = |found: &Found, now_ns| decide(&packet, &FoundAt { found, now_ns }).verdict;
        assert_eq!(at(&found, 99), Verdict::Drop(DropReason::Denied));
        assert_eq!(at(&found, 100), Verdict::Pass(PassReason::Clean));
        found.allow_addr = Some(Rule::default());
        assert_eq!(at(&found, 99), Verdict::Pass(PassReason::Allowed));
    }
}
