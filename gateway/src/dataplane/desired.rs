//! What should be in force: the configuration's lists, what operators commanded, and the blocks.
//!
//! Owns where each entry came from, why, and until when; turns all of it into the one [`Image`] the tables should
//! show. Does no I/O and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use gateway_common::tables::{NEVER, Origin, Rule, Settings, feature};
use ipnet::IpNet;

use super::backend::{Image, List};
use super::cookies::{self, Ability};
use super::limits;
use super::protected::{Protected, Why};
use super::store::RuleList;
use crate::config::model::Config;

/// Why an entry is there and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub origin: Origin,
    /// `CLOCK_BOOTTIME` in nanoseconds, or [`NEVER`].
    pub deadline_ns: u64,
    /// Free text of whoever made it; a long list shares one.
    pub reason: Option<Arc<str>>,
    /// For a strike, the number of the reject that tipped the scale.
    pub detail: u32,
    /// Denied by command although it cuts off someone protected.
    pub forced: bool,
}

impl Entry {
    /// Whether it has not ended.
    #[must_use]
    pub fn live(&self, boot_ns: u64) -> bool {
        self.deadline_ns == NEVER || boot_ns < self.deadline_ns
    }

    fn rule(&self) -> Rule {
        Rule {
            deadline_ns: self.deadline_ns,
            hits: 0,
            origin: self.origin as u32,
            detail: self.detail,
        }
    }
}

/// Until when everything passes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BypassUntil {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub until_ns: u64,
    pub reason: Option<String>,
}

/// The desired state of the tables.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// What the configuration decides of the settings.
    settings: Settings,
    /// Whether somebody reads the ring of events: no choice of the configuration's, so it outlives a new one.
    listened: bool,
    bypass: Option<BypassUntil>,
    /// Sorted, as is the next: a list has a million entries, and is searched.
    config_allow: Vec<IpNet>,
    config_deny: Vec<IpNet>,
    allow: BTreeMap<IpNet, Entry>,
    deny: BTreeMap<IpNet, Entry>,
    block: BTreeMap<IpNet, Entry>,
    /// Denies that are not enforced, with whom they would cut off.
    skipped: BTreeMap<IpNet, Why>,
    /// Denies that are not judged anew, and whether each is enforced.
    held: BTreeMap<IpNet, bool>,
}

/// The configuration's part of a [`Desired`].
#[derive(Debug)]
pub struct Configured {
    settings: Settings,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Desired {
    /// Takes over the configuration's lists and limits; commands and blocks stay. `ability` is that of the tables' keeper,
    /// and `kept` are the settings in force.
    pub fn configure(&mut self, config: &Config, ability: &Ability, kept: &Settings) {
        let xdp = &config.xdp;
        self.settings = limits::settings(xdp);
        cookies::complete(&mut self.settings, xdp, &config.listen, ability, kept);
        self.config_allow.clone_from(&xdp.allow);
        self.config_deny.clone_from(&xdp.deny);
        for list in [&mut self.config_allow, &mut self.config_deny] {
            list.sort_unstable();
            list.dedup();
        }
    }

    /// Takes over one of the configuration's lists.
    pub fn configure_list(&mut self, list: RuleList, nets: Vec<IpNet>) {
        let configured = match list {
            RuleList::Allow => &mut self.config_allow,
            RuleList::Deny => &mut self.config_deny,
        };
        *configured = nets;
        configured.sort_unstable();
        configured.dedup();
    }

    /// Has events written from now on, or no longer.
    pub fn listen(&mut self, listened: bool) {
        self.listened = listened;
    }

    /// Keeps the settings, and each deny as `shown` has it, in force or not, until it is commanded anew: what the
    /// configuration limits, and whom it protects or allows, is not known.
    pub fn hold(&mut self, shown: &Image, boot_ns: u64) {
        self.settings = shown.settings;
        let judged = self.all(List::Deny, boot_ns).filter(|(_, entry)| !entry.forced);
        self.held = judged
            .map(|(net, _)| (net, shown.deny.contains_key(&net)))
            .collect();
    }

    /// Has everything pass until then, or ends that.
    pub fn set_bypass(&mut self, bypass: Option<BypassUntil>) {
        self.bypass = bypass;
    }

    /// The bypass that was asked for; it may be over.
    #[must_use]
    pub fn bypass(&self) -> Option<&BypassUntil> {
        self.bypass.as_ref()
    }

    /// The settings as they should be at `boot_ns`.
    #[must_use]
    pub fn settings(&self, boot_ns: u64) -> Settings {
        let bypass = self.bypass.as_ref().filter(|bypass| boot_ns < bypass.until_ns);
        let mut features = self.settings.features & !(feature::BYPASS | feature::EVENTS);
        if bypass.is_some() {
            features |= feature::BYPASS;
        }
        if self.listened {
            features |= feature::EVENTS;
        }
        Settings {
            features,
            bypass_until_ns: bypass.map_or(0, |bypass| bypass.until_ns),
            ..self.settings
        }
    }

    /// Decides again which denies are skipped: those that would cut off someone protected who is not allowed.
    ///
    /// Only an allow rule without an end counts: the kernel ends the others by itself, and the deny would stand.
    pub fn protect(&mut self, protected: &Protected) {
        let unread = |(net, enforced): (&IpNet, &bool)| (!enforced).then_some((*net, Why::Unread));
        let mut skipped: BTreeMap<_, _> = self.held.iter().filter_map(unread).collect();
        skipped.extend(self.cutting_off(protected));
        self.skipped = skipped;
    }

    /// Denies that would cut off someone protected who is not allowed; neither those that are forced nor those that are
    /// not judged anew.
    #[must_use]
    pub fn cutting_off(&self, protected: &Protected) -> BTreeMap<IpNet, Why> {
        let mut found = BTreeMap::new();
        for net in protected.nets() {
            for deny in self.denies_around(net) {
                let forced = self.deny.get(&deny).is_some_and(|entry| entry.forced);
                let held = self.held.get(&deny) == Some(&true);
                if !forced
                    && !held
                    && let Some(why) = protected.cut_off(&deny, |shared| self.allows(shared))
                {
                    found.insert(deny, why.clone());
                }
            }
        }
        found
    }

    /// What the configuration decides now, to be put back by [`Desired::take_back`].
    #[must_use]
    pub fn configured(&self) -> Configured {
        Configured {
            settings: self.settings,
            allow: self.config_allow.clone(),
            deny: self.config_deny.clone(),
        }
    }

    /// Undoes a [`Desired::configure`].
    pub fn take_back(&mut self, before: Configured) {
        self.settings = before.settings;
        self.config_allow = before.allow;
        self.config_deny = before.deny;
    }

    /// Whether anything is denied by a list.
    #[must_use]
    pub fn denies(&self) -> bool {
        !self.config_deny.is_empty() || !self.deny.is_empty()
    }

    /// Denies that are not enforced, with whom they would cut off.
    #[must_use]
    pub fn skipped(&self) -> &BTreeMap<IpNet, Why> {
        &self.skipped
    }

    /// Whether an allow rule without an end covers all of `net`.
    #[must_use]
    pub fn allows(&self, net: &IpNet) -> bool {
        covers(net).any(|cover| {
            let lasting = |entry: &Entry| entry.deadline_ns == NEVER;
            self.in_config(List::Allow, &cover) || self.allow.get(&cover).is_some_and(lasting)
        })
    }

    /// Denied networks that cover `net`, or are part of it.
    fn denies_around(&self, net: &IpNet) -> BTreeSet<IpNet> {
        let there = |cover: &IpNet| self.in_config(List::Deny, cover) || self.deny.contains_key(cover);
        let mut around: BTreeSet<IpNet> = covers(net).filter(there).collect();
        // In the order of networks, all that one covers stands between it and its last address.
        let last = IpNet::from(net.broadcast());
        let first = self.config_deny.partition_point(|deny| deny < net);
        let inside = self.config_deny[first..].iter().take_while(|deny| **deny <= last);
        around.extend(inside);
        around.extend(self.deny.range(*net..=last).map(|(deny, _)| deny));
        around
    }

    /// Whether the configuration itself lists `net`.
    #[must_use]
    pub fn in_config(&self, list: List, net: &IpNet) -> bool {
        self.config_list(list).binary_search(net).is_ok()
    }

    /// Entries made at run time: commands in the rule lists, blocks in the block list.
    #[must_use]
    pub fn entries(&self, list: List) -> &BTreeMap<IpNet, Entry> {
        match list {
            List::Allow => &self.allow,
            List::Deny => &self.deny,
            List::Block => &self.block,
        }
    }

    fn entries_mut(&mut self, list: List) -> &mut BTreeMap<IpNet, Entry> {
        match list {
            List::Allow => &mut self.allow,
            List::Deny => &mut self.deny,
            List::Block => &mut self.block,
        }
    }

    /// What the configuration lists, sorted.
    #[must_use]
    pub fn config_list(&self, list: List) -> &[IpNet] {
        match list {
            List::Allow => &self.config_allow,
            List::Deny => &self.config_deny,
            List::Block => &[],
        }
    }

    /// Adds an entry, or replaces the one that was made at run time for the same network.
    pub fn put(&mut self, list: List, net: IpNet, entry: Entry) {
        if list == List::Deny {
            self.held.remove(&net);
        }
        self.entries_mut(list).insert(net, entry);
    }

    /// Adds many entries, sorted and each network once, as [`Desired::put`] does.
    pub fn put_all(&mut self, list: List, entries: Vec<(IpNet, Entry)>) {
        let rules = self.entries_mut(list);
        if entries.len() < rules.len() / 8 {
            rules.extend(entries);
        } else {
            // Both are sorted: joined at once, and packed.
            let mut more: BTreeMap<_, _> = entries.into_iter().collect();
            rules.append(&mut more);
        }
    }

    /// Has each of these denies judged anew.
    pub fn release<'a>(&mut self, list: List, nets: impl Iterator<Item = &'a IpNet>) {
        if list == List::Deny && !self.held.is_empty() {
            for net in nets {
                self.held.remove(net);
            }
        }
    }

    /// Takes out every run-time entry of a list.
    pub fn clear(&mut self, list: List) -> BTreeMap<IpNet, Entry> {
        let gone = std::mem::take(self.entries_mut(list));
        if list == List::Deny {
            let config = &self.config_deny;
            self.held
                .retain(|net, _| config.binary_search(net).is_ok() || !gone.contains_key(net));
        }
        gone
    }

    /// Removes a run-time entry; `None` if there was none.
    pub fn remove(&mut self, list: List, net: &IpNet) -> Option<Entry> {
        if list == List::Deny && !self.in_config(list, net) {
            self.held.remove(net);
        }
        self.entries_mut(list).remove(net)
    }

    /// Forgets what has ended. Returns how many entries.
    pub fn expire(&mut self, boot_ns: u64) -> usize {
        let mut gone = 0;
        for list in [List::Allow, List::Deny, List::Block] {
            let rules = self.entries_mut(list);
            let before = rules.len();
            if rules.values().any(|entry| !entry.live(boot_ns)) {
                rules.retain(|_, entry| entry.live(boot_ns));
            }
            gone += before - rules.len();
        }
        gone
    }

    /// As [`Desired::all`], in the order of networks, and only those behind `after`.
    pub fn all_after(
        &self,
        list: List,
        after: Option<IpNet>,
        boot_ns: u64,
    ) -> impl Iterator<Item = (IpNet, Entry)> {
        let config = self.config_list(list);
        let first = after.map_or(0, |after| config.partition_point(|net| *net <= after));
        let mut config = config[first..].iter().copied().peekable();
        let bounds = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let live = self.entries(list).range(bounds);
        let mut commands = live.filter(move |(_, entry)| entry.live(boot_ns)).peekable();
        std::iter::from_fn(move || {
            let configured_first = match (config.peek(), commands.peek()) {
                (Some(net), Some((other, _))) => *net <= **other,
                (net, _) => net.is_some(),
            };
            if configured_first {
                return config.next().map(|net| (net, configured()));
            }
            commands.next().map(|(net, entry)| (*net, entry.clone()))
        })
    }

    /// Every entry of `list` that is in force, wherever it came from, with the network it is written for.
    pub fn all(&self, list: List, boot_ns: u64) -> impl Iterator<Item = (IpNet, Entry)> {
        let config = self.config_list(list).iter().map(|net| (*net, configured()));
        let commands = self
            .entries(list)
            .iter()
            .filter(move |(_, entry)| entry.live(boot_ns));
        config.chain(commands.map(|(net, entry)| (*net, entry.clone())))
    }

    /// The live entries of `list` that cover `addr`, the longest prefix first.
    #[must_use]
    pub fn covering(&self, list: List, addr: IpAddr, boot_ns: u64) -> Vec<(IpNet, Entry)> {
        let mut found = Vec::new();
        for cover in covers(&IpNet::from(addr)) {
            let first = found.len();
            if self.in_config(list, &cover) {
                found.push((cover, configured()));
            }
            let command = self.entries(list).get(&cover);
            found.extend(command.filter(|e| e.live(boot_ns)).map(|e| (cover, e.clone())));
            found[first..].sort_by_key(|(_, entry)| entry.origin);
        }
        found
    }

    /// A network of `list` in force that is `net` or lies around it.
    #[must_use]
    pub fn around(&self, list: List, net: &IpNet, boot_ns: u64) -> Option<IpNet> {
        covers(net).find(|cover| {
            let command = self.entries(list).get(cover);
            command.is_some_and(|entry| entry.live(boot_ns)) || self.in_config(list, cover)
        })
    }

    /// A network of `list` in force that lies within `net`.
    #[must_use]
    pub fn inside(&self, list: List, net: &IpNet, boot_ns: u64) -> Option<IpNet> {
        let last = IpNet::from(net.broadcast());
        let config = self.config_list(list);
        let first = config.partition_point(|other| other < net);
        let configured = config.get(first).filter(|other| **other <= last).copied();
        let mut commanded = self.entries(list).range(*net..=last);
        configured.or_else(|| commanded.find_map(|(other, entry)| entry.live(boot_ns).then_some(*other)))
    }

    /// Entries of `list`, those that have ended and those that are there twice included.
    #[must_use]
    pub fn len(&self, list: List) -> usize {
        self.config_list(list).len() + self.entries(list).len()
    }

    /// Whether `list` has no entry at all.
    #[must_use]
    pub fn is_empty(&self, list: List) -> bool {
        self.config_list(list).is_empty() && self.entries(list).is_empty()
    }

    /// The rule that the tables should show for exactly `net`.
    #[must_use]
    pub fn rule(&self, list: List, net: &IpNet, boot_ns: u64) -> Option<Rule> {
        if list == List::Deny && self.skipped.contains_key(net) {
            return None;
        }
        if self.in_config(list, net) {
            return Some(configured().rule());
        }
        let entry = self.entries(list).get(net).filter(|entry| entry.live(boot_ns));
        entry.map(Entry::rule)
    }

    /// Every rule that the tables should show, in the order of networks, each network once.
    pub fn rules(&self, list: List, boot_ns: u64) -> impl Iterator<Item = (IpNet, Rule)> {
        let mut config = self.config_list(list).iter().copied().peekable();
        let live = self.entries(list).iter();
        let mut commands = live.filter(move |(_, entry)| entry.live(boot_ns)).peekable();
        let joined = std::iter::from_fn(move || {
            let first = match (config.peek(), commands.peek()) {
                (Some(net), Some((other, _))) => *net <= **other,
                (net, _) => net.is_some(),
            };
            if !first {
                return commands.next().map(|(net, entry)| (*net, entry.rule()));
            }
            let net = config.next()?;
            // A network that is both configured and commanded is there for good: the configuration has no end.
            let _ = commands.next_if(|(other, _)| **other == net);
            Some((net, configured().rule()))
        });
        let skips = list == List::Deny && !self.skipped.is_empty();
        joined.filter(move |(net, _)| !skips || !self.skipped.contains_key(net))
    }

    /// The tables as they should be at `boot_ns`.
    #[must_use]
    #[cfg(test)]
    pub fn image(&self, boot_ns: u64) -> Image {
        let rules = |list| self.rules(list, boot_ns).collect();
        Image {
            settings: self.settings(boot_ns),
            allow: rules(List::Allow),
            deny: rules(List::Deny),
            block: rules(List::Block),
        }
    }
}

/// What is to be said of an entry of the configuration.
fn configured() -> Entry {
    Entry {
        origin: Origin::Config,
        deadline_ns: NEVER,
        reason: None,
        detail: 0,
        forced: false,
    }
}

/// `net` and every network around it.
pub fn covers(net: &IpNet) -> impl Iterator<Item = IpNet> {
    let addr = net.addr();
    let lengths = (0..=net.prefix_len()).rev();
    lengths.filter_map(move |length| IpNet::new(addr, length).ok().map(|cover| cover.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn entry(deadline_ns: u64) -> Entry {
        Entry {
            origin: Origin::Command,
            deadline_ns,
            reason: None,
            detail: 0,
            forced: false,
        }
    }

    #[test]
    fn joined_lists_are_sorted_each_network_once_and_the_configuration_holds() {
        let mut desired = Desired::default();
        let config = crate::config::Config {
            xdp: crate::config::model::Xdp {
                deny: vec![net("192.0.2.0/24"), net("10.0.0.0/8"), net("10.0.0.0/8")],
                ..crate::config::defaults::xdp()
            },
            ..crate::config::defaults::config()
        };
        desired.configure(&config, &Ability::Unknown, &Settings::default());
        for text in ["10.0.0.0/8", "1.0.0.0/8", "172.16.0.0/12"] {
            desired.put(List::Deny, net(text), entry(50));
        }
        desired.put(List::Deny, net("203.0.113.0/24"), entry(10));
        let rules: Vec<_> = desired.rules(List::Deny, 20).collect();
        let nets: Vec<String> = rules.iter().map(|(net, _)| net.to_string()).collect();
        assert_eq!(nets, ["1.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24"]);
        assert_eq!(rules[1].1.origin, Origin::Config as u32);
        for (net, rule) in &rules {
            assert_eq!(desired.rule(List::Deny, net, 20).as_ref(), Some(rule));
        }
        assert_eq!(desired.rule(List::Deny, &net("203.0.113.0/24"), 20), None);
        assert_eq!(
            desired.around(List::Deny, &net("192.0.2.7/32"), 20),
            Some(net("192.0.2.0/24"))
        );
        assert_eq!(
            desired.inside(List::Deny, &net("172.0.0.0/8"), 20),
            Some(net("172.16.0.0/12"))
        );
        assert_eq!(desired.inside(List::Deny, &net("203.0.113.0/24"), 20), None);
    }

    #[test]
    fn many_at_once_are_as_one_by_one() {
        let mut desired = Desired::default();
        for text in ["10.0.0.0/8", "192.0.2.0/24"] {
            desired.put(List::Deny, net(text), entry(50));
        }
        desired.put_all(
            List::Deny,
            vec![(net("1.0.0.0/8"), entry(60)), (net("10.0.0.0/8"), entry(70))],
        );
        let all: Vec<_> = desired
            .entries(List::Deny)
            .iter()
            .map(|(net, e)| (net.to_string(), e.deadline_ns))
            .collect();
        let expected = [("1.0.0.0/8", 60), ("10.0.0.0/8", 70), ("192.0.2.0/24", 50)];
        assert_eq!(all, expected.map(|(net, end)| (net.to_owned(), end)));
        assert_eq!(desired.clear(List::Deny).len(), 3);
        assert!(desired.is_empty(List::Deny));
    }

    #[test]
    fn what_has_ended_is_neither_shown_nor_kept() {
        let mut desired = Desired::default();
        desired.put(List::Block, net("192.0.2.1/32"), entry(50));
        assert_eq!(desired.image(49).block.len(), 1);
        assert!(desired.image(50).block.is_empty());
        assert_eq!(desired.expire(50), 1);
        assert!(desired.entries(List::Block).is_empty());
    }
}
