//! The policy run in user space on what was found for one address: `explain` asks the very code the kernel runs.

use gateway_common::addr::Addr;
use gateway_common::limiter::{Step, WAYS};
use gateway_common::tables::{Rule, Settings};
use gateway_ebpf::policy::{Table, Tables};

use super::Found;

/// What was found, at a time. [`Tables`] for packets of the one source that was looked up.
#[derive(Clone, Copy, Debug)]
pub struct FoundAt<'a> {
    pub found: &'a Found,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub now_ns: u64,
}

impl<'a> Tables for FoundAt<'a> {
    type Entry = (Table, &'a Rule);

    fn settings(&self) -> Option<&Settings> {
        Some(&self.found.settings)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// A keeper's `lookup` has already stepped past prefixes that have ended, so a second question finds nothing.
    fn find(&self, table: Table, source: &Addr, bits: u32) -> Option<Self::Entry> {
        let found = self.found;
        let whole = if source.is_v4() { 32 } else { 128 };
        let rule = match table {
            Table::AllowAddr => found.allow_addr.as_ref(),
            Table::DenyAddr => found.deny_addr.as_ref(),
            Table::BlockAddr => found.block.as_ref(),
            Table::AllowNet4 | Table::AllowNet6 if bits == whole => found.allow_net.as_ref(),
            Table::DenyNet4 | Table::DenyNet6 if bits == whole => found.deny_net.as_ref(),
            _ => None,
        };
        Some((table, rule?))
    }

    fn deadline_ns(&self, (_, rule): Self::Entry) -> u64 {
        rule.deadline_ns
    }

    fn prefix_len(&self, _: Self::Entry) -> u32 {
        0
    }

    /// Within: asking must not spend the budget of the address asked about.
    fn limit(&self, _: u32, step: impl Fn(&[u64; WAYS]) -> Step) -> bool {
        step(&[0; WAYS]).within
    }
}

#[cfg(test)]
mod tests {
    use gateway_common::outcome::{DropReason, PassReason, Verdict};
    use gateway_common::tables::feature;
    use gateway_ebpf::packet::{Packet, Transport};
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
        let features = feature::DENY_NET4 | feature::ALLOW_ADDR;
        let settings = Settings {
            features,
            ready: 1,
            ..Settings::default()
        };
        let mut found = Found {
            settings,
            deny_net: Some(rule),
            ..Found::default()
        };
        let packet = Packet::Ip {
            source: Addr::v4([192, 0, 2, 1]),
            transport: Transport::Other,
        };
        let at = |found: &Found, now_ns| decide(&packet, &FoundAt { found, now_ns }).verdict;
        assert_eq!(at(&found, 99), Verdict::Drop(DropReason::Denied));
        assert_eq!(at(&found, 100), Verdict::Pass(PassReason::Clean));
        found.allow_addr = Some(Rule::default());
        assert_eq!(at(&found, 99), Verdict::Pass(PassReason::Allowed));
    }
}
