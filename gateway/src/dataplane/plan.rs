//! From the enforced state to the desired one: the list of changes, and their order. Pure.

use gateway_common::entry::Stamp;
use gateway_common::tables::{NEVER, Rule, Settings};
use ipnet::IpNet;

use super::backend::{Change, Image, List};
use super::desired::Desired;
use super::place::keep_own;

/// Deadlines this close are the same one: a deadline that went through the disk comes back a little off.
const SAME_DEADLINE_NS: u64 = 2_000_000_000;

/// What must be done to `enforced` so that it is `desired`.
///
/// The order is part of the contract: new allows, settings, new denies and blocks, then removal of blocks, denies
/// and, last, allows. So at each step every address meets its old verdict or its new one: no reload opens a gap,
/// and none shuts out an operator.
#[must_use]
pub fn diff(desired: &Desired, boot_ns: u64, enforced: &Image) -> Vec<Change> {
    let lists = [List::Allow, List::Deny, List::Block];
    let differ = |list: &List| desired.len(*list).abs_diff(enforced.list(*list).len());
    let at_least = lists.iter().map(differ).sum();
    compare(
        at_least,
        boot_ns,
        &desired.settings(boot_ns),
        |list| desired.rules(list, boot_ns),
        enforced,
    )
}

/// What must be done so that exactly these networks of one list are as desired, and end when they should.
#[must_use]
pub fn diff_of<'a>(
    desired: &Desired,
    list: List,
    nets: impl Iterator<Item = &'a IpNet>,
    boot_ns: u64,
    enforced: &Image,
) -> Vec<Change> {
    let step = |net: &IpNet| match (desired.rule(list, net, boot_ns), enforced.list(list).get(net)) {
        (Some(rule), found) => put(list, *net, &rule, found, |found| {
            Stamp::rounded(rule.deadline_ns) == Stamp::rounded(found.deadline_ns)
        }),
        (None, Some(_)) => Some(Change::Remove { list, net: *net }),
        (None, None) => None,
    };
    nets.filter_map(step).collect()
}

/// Walks both sides of each list once, in the order of networks.
fn compare<I: Iterator<Item = (IpNet, Rule)>>(
    at_least: usize,
    boot_ns: u64,
    settings: &Settings,
    wanted: impl Fn(List) -> I,
    enforced: &Image,
) -> Vec<Change> {
    // A long list's changes are made room for at once.
    let mut changes = Vec::with_capacity(at_least);
    let [no_allow, no_deny, no_block] = [List::Allow, List::Deny, List::Block].map(|list| {
        if list == List::Deny && keep_own(*settings, &enforced.settings) != enforced.settings {
            changes.push(Change::settings(*settings));
        }
        let mut gone = Vec::new();
        let mut there = enforced.list(list).iter().peekable();
        for (net, rule) in wanted(list) {
            while let Some((net, _)) = there.next_if(|(other, _)| **other < net) {
                gone.push(Change::Remove { list, net: *net });
            }
            let found = there.next_if(|(other, _)| **other == net);
            let found = found.map(|(_, rule)| rule);
            changes.extend(put(list, net, &rule, found, |found| {
                // What has ended is not there for the program, however close the ends are.
                close(rule.deadline_ns, found.deadline_ns) && found.live(boot_ns)
            }));
        }
        gone.extend(there.map(|(net, _)| Change::Remove { list, net: *net }));
        gone
    });
    for gone in [no_block, no_deny, no_allow] {
        changes.extend(gone);
    }
    changes
}

/// `lasts` says whether what was found lasts as long as it should.
fn put(
    list: List,
    net: IpNet,
    rule: &Rule,
    found: Option<&Rule>,
    lasts: impl Fn(&Rule) -> bool,
) -> Option<Change> {
    let hits = match found {
        Some(found) if lasts(found) && (found.origin, found.detail) == (rule.origin, rule.detail) => {
            return None;
        }
        Some(found) => found.hits,
        None => 0,
    };
    let rule = Rule { hits, ..*rule };
    Some(Change::Put { list, net, rule })
}

fn close(a: u64, b: u64) -> bool {
    match (a, b) {
        (NEVER, NEVER) => true,
        (NEVER, _) | (_, NEVER) => false,
        (a, b) => a.abs_diff(b) <= SAME_DEADLINE_NS,
    }
}

#[cfg(test)]
mod tests;
