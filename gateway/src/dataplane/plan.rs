//! From the enforced state to the desired one: the list of changes, and their order. Pure.

use std::collections::BTreeMap;

use gateway_common::tables::{NEVER, Rule};
use ipnet::IpNet;

use super::backend::{Change, Image, List};
use super::place::keep_own;

/// Deadlines this close are the same one: a deadline that went through the disk comes back a little off.
const SAME_DEADLINE_NS: u64 = 2_000_000_000;

/// What must be done to `enforced` so that it is `desired`.
///
/// The order is part of the contract: new allows, settings, new denies and blocks, then removal of blocks, denies
/// and, last, allows. So at each step every address meets its old verdict or its new one: no reload opens a gap,
/// and none shuts out an operator.
#[must_use]
pub fn diff(desired: &Image, enforced: &Image) -> Vec<Change> {
    let mut changes = Vec::new();
    put(List::Allow, desired, enforced, &mut changes);
    if keep_own(desired.settings, &enforced.settings) != enforced.settings {
        changes.push(Change::Settings(Box::new(desired.settings)));
    }
    put(List::Deny, desired, enforced, &mut changes);
    put(List::Block, desired, enforced, &mut changes);
    for list in [List::Block, List::Deny, List::Allow] {
        remove(list, desired, enforced, &mut changes);
    }
    changes
}

fn put(list: List, desired: &Image, enforced: &Image, changes: &mut Vec<Change>) {
    let there = enforced.list(list);
    for (net, rule) in desired.list(list) {
        let hits = match there.get(net) {
            Some(found) if same(rule, found) => continue,
            Some(found) => found.hits,
            None => 0,
        };
        changes.push(Change::Put {
            list,
            net: *net,
            rule: Rule { hits, ..*rule },
        });
    }
}

fn remove(list: List, desired: &Image, enforced: &Image, changes: &mut Vec<Change>) {
    let wanted: &BTreeMap<IpNet, Rule> = desired.list(list);
    let gone = enforced.list(list).keys().filter(|net| !wanted.contains_key(net));
    changes.extend(gone.map(|net| Change::Remove { list, net: *net }));
}

fn same(a: &Rule, b: &Rule) -> bool {
    let deadline = match (a.deadline_ns, b.deadline_ns) {
        (NEVER, NEVER) => true,
        (NEVER, _) | (_, NEVER) => false,
        (a, b) => a.abs_diff(b) <= SAME_DEADLINE_NS,
    };
    deadline && a.origin == b.origin && a.detail == b.detail
}

#[cfg(test)]
mod tests;
