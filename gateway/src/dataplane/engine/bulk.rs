//! Lists of rules: taken over from text, all at once or beside what is there, and given back as text.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::tables::{NEVER, Origin};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::interfaces::Coverage;
use super::{Added, Applied, By, Engine, List, Protection, Record, Refusal, record, told};
use crate::config::units::{plain, show_duration};
use crate::dataplane::clock::Now;
use crate::dataplane::desired::{Entry, covers};
use crate::dataplane::lines::{self, Reasons};
use crate::dataplane::protected::{Protected, Why};
use crate::dataplane::store::RuleList;

/// Changes up to which only what they touch is compared, and looked up again; beyond, walking all of the list costs no
/// more, and that the tables took it is taken as proof.
const FEW: usize = 1_000;

/// Refused denies told one by one.
const PROTECTED_TOLD: usize = 20;

/// Changes told of, as many as fit on a screen.
const CHANGES_TOLD: usize = 5;
const SAME_END_NS: u64 = 50_000_000;

/// An order to take over a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRules {
    pub list: RuleList,
    /// The list is all there is: what was commanded before goes, in the same moment.
    pub replace: bool,
    /// Deny even what is protected.
    pub force: bool,
    /// Addresses the operator works from, as far as his shell knows.
    pub operators: Vec<IpAddr>,
    /// Length of the text, which follows this order on the wire.
    pub bytes: u64,
    /// The list, as [`lines`] has it.
    #[serde(skip)]
    pub text: Vec<u8>,
}

/// Rules to be put into a list.
pub(super) struct Puts {
    pub list: RuleList,
    pub entries: Vec<(IpNet, Entry)>,
    pub replace: bool,
    pub force: bool,
    pub operators: Vec<IpAddr>,
}

impl Engine {
    /// Takes over a list: remembers it on disk, enforces it and looks whether it is there.
    ///
    /// All or nothing as far as refusals go. With `replace`, each packet meets the old list or the new one.
    pub fn import_rules(&mut self, order: ImportRules) -> Result<Added, Refusal> {
        let now = (self.world.clock)();
        let entries = entries(order.text, order.force, now)?;
        self.put_rules(
            Puts {
                list: order.list,
                entries,
                replace: order.replace,
                force: order.force,
                operators: order.operators,
            },
            now,
        )
    }

    /// The commanded rules of a list that are in force, as [`ImportRules`] takes them, and how many they are.
    #[must_use]
    pub fn export_rules(&self, list: RuleList) -> (usize, Vec<u8>) {
        let now = (self.world.clock)();
        let (mut count, mut text) = (0, Vec::new());
        for (net, entry) in self.desired.entries(list.into()) {
            if entry.live(now.boot_ns) {
                let until = (entry.deadline_ns != NEVER).then(|| now.wall_of_boot(entry.deadline_ns));
                lines::put(&mut text, net, until, entry.forced, entry.reason.as_deref());
                count += 1;
            }
        }
        (count, text)
    }

    pub(super) fn put_rules(&mut self, puts: Puts, now: Now) -> Result<Added, Refusal> {
        let Puts {
            list: rules,
            mut entries,
            replace,
            force,
            operators,
        } = puts;
        let list = List::from(rules);
        sort(&mut entries);
        if rules == RuleList::Deny && !force {
            self.refuse_protected(&entries, &self.protected(&operators))?;
        }
        if replace {
            self.spare_in_place_of(rules, &entries, &By { operators, force })?;
            self.refuse_too_many(list, &entries)?;
        }
        let flush = replace.then_some(Record::Flush { list: rules });
        let puts = entries.iter().map(|(net, entry)| record(rules, *net, entry, now));
        self.save(flush.into_iter().chain(puts), now)?;

        let there = self.desired.entries(list);
        let known = |net: &IpNet| there.get(net).is_some_and(|entry| entry.live(now.boot_ns));
        let already = entries.iter().filter(|(net, _)| known(net)).count();
        let added = entries.len() - already;
        let (changed, differences) = self.differences(list, &entries, now);
        let many = entries.len() > FEW;
        let nets: Vec<IpNet> = entries.iter().take(FEW).map(|(net, _)| *net).collect();
        let mut notes = differences;
        notes.extend(self.notes_on(rules, &entries, now.boot_ns));
        let mut removed = 0;
        if replace {
            let gone = self.desired.clear(list);
            removed = gone.values().filter(|entry| entry.live(now.boot_ns)).count() - already;
        }
        self.desired.release(list, entries.iter().map(|(net, _)| net));
        self.desired.put_all(list, entries);

        let applied = if replace {
            self.enforce_at_once(now)
        } else if many {
            self.enforce(now)
        } else {
            self.enforce_only(list, &nets, now)
        };
        let Applied {
            took,
            mut failed,
            mut failures,
            newly_skipped,
            ..
        } = applied;
        notes.extend(newly_skipped);
        if failed == 0 {
            let missing = self.not_found(list, &nets, now.boot_ns)?;
            failed += missing.len();
            failures.extend(told(missing.len(), missing.into_iter()));
        }
        if rules == RuleList::Allow {
            notes.extend(self.lift_blocks_under_allows(now));
        }
        let Coverage { enforced, unfiltered } = self.coverage()?;
        Ok(Added {
            added,
            already,
            changed,
            removed,
            tables_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            enforced,
            unfiltered,
            failed,
            failures,
            notes,
        })
    }

    /// How many of `entries` are there already with another end or reason, and the first of them in words.
    fn differences(&self, list: List, entries: &[(IpNet, Entry)], now: Now) -> (usize, Vec<String>) {
        let there = self.desired.entries(list);
        let (mut changed, mut told) = (0, Vec::new());
        for (net, new) in entries {
            let Some(old) = there.get(net).filter(|old| old.live(now.boot_ns)) else {
                continue;
            };
            let end = !same_end(old.deadline_ns, new.deadline_ns);
            let parts = [
                end.then(|| {
                    let [before, after] = [old, new].map(|entry| end_of(entry, now));
                    format!("it ended {before}, and ends {after} now")
                }),
                (old.reason != new.reason).then(|| {
                    let [before, after] = [old, new].map(|entry| match &entry.reason {
                        Some(reason) => format!("{reason:?}"),
                        None => "none".to_owned(),
                    });
                    format!("its reason was {before}, and is {after} now")
                }),
                (old.forced != new.forced).then(|| {
                    if new.forced {
                        "it is forced now".to_owned()
                    } else {
                        "it is no longer forced".to_owned()
                    }
                }),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            if parts.is_empty() {
                continue;
            }
            changed += 1;
            if told.len() < CHANGES_TOLD {
                told.push(format!("{} was there already: {}", plain(*net), parts.join("; ")));
            }
        }
        (changed, told)
    }

    /// `Err` with the first of the sorted `entries` that would cut off someone protected, if any would.
    fn refuse_protected(&self, entries: &[(IpNet, Entry)], protected: &Protected) -> Result<(), Refusal> {
        let at = |net: &IpNet| entries.binary_search_by_key(net, |(net, _)| *net);
        let mut found: BTreeMap<(IpNet, IpNet), Why> = BTreeMap::new();
        let mut check = |net: &IpNet| {
            for (shield, why) in protected.all_cut_off(net, |shared| self.desired.allows(shared)) {
                found.entry((*net, *shield)).or_insert_with(|| why.clone());
            }
        };
        // From those who are protected, who are few, to the entries.
        for shield in protected.nets() {
            for cover in covers(shield).filter(|cover| at(cover).is_ok()) {
                check(&cover);
            }
            let last = IpNet::from(shield.broadcast());
            let first = at(shield).unwrap_or_else(|place| place);
            for (net, _) in entries[first..].iter().take_while(|(net, _)| *net <= last) {
                check(net);
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let of = found.len();
        let first = found.into_iter().take(PROTECTED_TOLD);
        let first = first
            .map(|((net, shield), why)| Protection { net, shield, why })
            .collect();
        Err(Refusal::Protected(first, of))
    }

    /// `Err` if `entries`, in the place of all that was commanded before, do not all have a place in the tables.
    fn refuse_too_many(&self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), Refusal> {
        let Some(room) = self.tables.as_ref().and_then(|tables| tables.room(list)) else {
            return Ok(());
        };
        let ours = entries.iter().map(|(net, _)| net);
        let ours = ours.filter(|net| !self.desired.in_config(list, net));
        let (mut addresses, mut networks) = ([0; 2], [0; 2]);
        for net in ours.chain(self.desired.config_list(list)) {
            let single = net.prefix_len() == net.max_prefix_len();
            let counts = if single { &mut addresses } else { &mut networks };
            let [v4, v6] = counts;
            *(if net.addr().is_ipv4() { v4 } else { v6 }) += 1;
        }
        let [addresses4, addresses6] = addresses;
        let [networks4, networks6] = networks;
        let name = list.name();
        let [of_addresses, of_networks] =
            ["addresses", "prefixes"].map(|part| format!("xdp.capacity.{name}_{part}"));
        for (wanted, room, what, setting) in [
            (addresses4, room.addresses[0], "IPv4 addresses", &of_addresses),
            (
                addresses6,
                room.addresses[1],
                "IPv6 addresses, who get a quarter",
                &of_addresses,
            ),
            (networks4, room.networks[0], "IPv4 networks", &of_networks),
            (networks6, room.networks[1], "IPv6 networks", &of_networks),
        ] {
            if wanted > room {
                return Err(Refusal::DoesNotFit {
                    wanted,
                    what,
                    room,
                    setting: setting.clone(),
                });
            }
        }
        Ok(())
    }

    /// What the operator should know of denies that allow rules make void.
    fn notes_on(&self, list: RuleList, entries: &[(IpNet, Entry)], boot_ns: u64) -> Vec<String> {
        if list != RuleList::Deny || self.desired.is_empty(List::Allow) {
            return Vec::new();
        }
        let note = |net: &IpNet| {
            if let Some(allow) = self.desired.around(List::Allow, net, boot_ns) {
                return Some(format!(
                    "{net} is under the allow rule {allow}: allow wins, so this deny has no effect on traffic"
                ));
            }
            let allow = self.desired.inside(List::Allow, net, boot_ns)?;
            Some(format!(
                "{allow} inside {net} is under an allow rule and stays allowed"
            ))
        };
        let notes: Vec<String> = entries.iter().filter_map(|(net, _)| note(net)).collect();
        told(notes.len(), notes.into_iter())
    }
}

/// Ends this close were meant as one: on its way over the wall clock a deadline comes out a little off.
fn same_end(a: u64, b: u64) -> bool {
    match (a, b) {
        (NEVER, NEVER) => true,
        (NEVER, _) | (_, NEVER) => false,
        (a, b) => a.abs_diff(b) <= SAME_END_NS,
    }
}

fn end_of(entry: &Entry, now: Now) -> String {
    match entry.deadline_ns {
        NEVER => "never".to_owned(),
        deadline_ns => {
            let left = deadline_ns.saturating_sub(now.boot_ns).div_ceil(1_000_000_000);
            format!("in {}", show_duration(Duration::from_secs(left)))
        }
    }
}

/// In the order of networks, each once: its last mention holds.
pub(super) fn sort(entries: &mut Vec<(IpNet, Entry)>) {
    if !entries.is_sorted_by(|a, b| a.0 < b.0) {
        entries.sort_by_key(|(net, _)| *net);
        entries.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
    }
}

/// Takes the text, which is as long as the list: it is gone when the entries go on.
fn entries(text: Vec<u8>, force: bool, now: Now) -> Result<Vec<(IpNet, Entry)>, Refusal> {
    let text = String::from_utf8(text).map_err(|error| Refusal::Unreadable {
        line: 0,
        why: error.to_string(),
    })?;
    let mut reasons = Reasons::default();
    let mut entries = Vec::with_capacity(text.bytes().filter(|byte| *byte == b'\n').count());
    for (number, line) in text.lines().enumerate() {
        let line = lines::read(line, &mut reasons).map_err(|why| Refusal::Unreadable {
            line: number + 1,
            why,
        })?;
        let deadline_ns = line.until_ms.map_or(NEVER, |until| now.boot_of_wall(until));
        let entry = Entry {
            origin: Origin::Command,
            deadline_ns,
            reason: line.reason,
            detail: 0,
            forced: force || line.forced,
        };
        // What has ended on its way here is no entry any more.
        if entry.live(now.boot_ns) {
            entries.push((line.net, entry));
        }
    }
    Ok(entries)
}
