//! What the engine tells: lists, one address explained, status. The types are those the command line receives.

use std::net::IpAddr;

use gateway_common::outcome::{AnswerReason, DropReason, PassReason, Verdict};
use gateway_common::tables::{ANSWERING_NS, NEVER, Origin, Rule};
use gateway_ebpf::packet::{Content, Packet};
use gateway_ebpf::policy::decide;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::interfaces::Coverage;
use super::{Bypass, Engine, List, Refusal};
use crate::config::model::XdpMode;
use crate::dataplane::backend::{Error, Found};
use crate::dataplane::clock::Now;
use crate::dataplane::cookies::CookieRow;
use crate::dataplane::desired::Entry;
use crate::dataplane::protected::Why;
use crate::dataplane::{Attachment, FoundAt};

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    pub net: IpNet,
    /// `config`, `command`, `feed` or `strike`.
    pub origin: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Number of the reject behind a strike; 0 for none.
    pub detail: u32,
    /// Milliseconds left; absent for no end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_ms: Option<u64>,
    /// End as milliseconds since 1970; absent for no end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until_ms: Option<u64>,
    /// Packets that met the entry.
    pub hits: u64,
    /// Whether the tables show it, and filter anything.
    pub enforced: bool,
    /// Whom it would cut off, if that is why it is not enforced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped: Option<String>,
    /// Whether its list is only observed: it counts and drops nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub observed: bool,
    /// Whether it ends by itself unless it is confirmed.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub unconfirmed: bool,
}

/// Entries of a list that follow one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub rows: Vec<EntryRow>,
    /// Whether others come behind.
    pub more: bool,
    /// `eth0: reason` for each configured interface that is not filtered.
    pub unfiltered: Vec<String>,
}

/// What happens to packets of one address, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub addr: IpAddr,
    /// `pass` or `drop`, for a new connection; what the program's own policy says of what is in the tables.
    pub verdict: String,
    /// The outcome's name: `clean`, `allowed`, `denied`, `blocked`, `bypass`.
    pub outcome: String,
    /// The outcome it would have, `denied` or `blocked`, were that not only observed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub observed: Option<String>,
    /// Whether tables are there that enforce this, and an interface that is filtered by them.
    pub enforced: bool,
    /// `eth0: reason` for each configured interface that is not filtered: what comes in there passes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unfiltered: Vec<String>,
    pub allow: Vec<EntryRow>,
    pub deny: Vec<EntryRow>,
    pub block: Vec<EntryRow>,
    /// Why the address can not be denied or blocked by accident.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protected: Option<String>,
    /// The bypass that is on, if one is: then everything passes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bypass: Option<Bypass>,
}

/// Desired and enforced length of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRow {
    pub list: String,
    pub desired: usize,
    pub enforced: usize,
    /// Entries that are not desired since they would cut off someone protected.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub skipped: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
pub(super) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// How one interface is filtered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRow {
    pub interface: String,
    /// `native` or `generic`; `none` if it is not filtered.
    pub mode: String,
    /// Zero if it is not filtered.
    pub program_id: u32,
    /// Why it is not filtered; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unfiltered: Option<String>,
    /// Why it is not the mode that was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
}

/// Packets and bytes of one outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// `pass`, `drop`, `answer`, or `observed`: counted under a reason to drop, and as passed besides.
    pub verdict: String,
    pub reason: String,
    pub packets: u64,
    pub bytes: u64,
}

/// The packet half at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether tables are there that enforce anything, and an interface that is filtered by them.
    pub enforced: bool,
    pub interfaces: Vec<InterfaceRow>,
    /// What is counted and drops nothing, by the configuration's names.
    #[serde(default)]
    pub observing: Vec<String>,
    pub lists: Vec<ListRow>,
    pub counters: Vec<CounterRow>,
    /// Changes that failed when last tried.
    pub failures: Vec<String>,
    /// Block orders lost because the queue was full.
    pub dropped_orders: u64,
    /// The bypass that is on, if one is: then everything passes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bypass: Option<Bypass>,
    /// Differences between kernel and intent that were found and repaired since the start.
    #[serde(default)]
    pub drift_repaired: u64,
    /// SYN cookies; absent if nobody asked for them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cookies: Option<CookieRow>,
}

impl From<Attachment> for InterfaceRow {
    fn from(attachment: Attachment) -> Self {
        let mode = match attachment.mode {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Auto | XdpMode::None => "none",
        };
        Self {
            interface: attachment.interface,
            mode: mode.to_owned(),
            program_id: attachment.program,
            unfiltered: attachment.unfiltered.map(|why| why.to_string()),
            note: attachment.note,
        }
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Config => "config",
        Origin::Command => "command",
        Origin::Feed => "feed",
        Origin::Strike => "strike",
    }
}

fn row(net: IpNet, entry: Entry, rule: Option<&Rule>, enforced: bool, now: Now) -> EntryRow {
    let timed = entry.deadline_ns != NEVER;
    EntryRow {
        net,
        origin: origin_name(entry.origin).to_owned(),
        reason: entry.reason.as_deref().map(str::to_owned),
        detail: entry.detail,
        left_ms: timed.then(|| entry.deadline_ns.saturating_sub(now.boot_ns) / 1_000_000),
        until_ms: timed.then(|| now.wall_of_boot(entry.deadline_ns)),
        hits: rule.map_or(0, |rule| rule.hits),
        enforced,
        skipped: None,
        observed: false,
        unconfirmed: false,
    }
}

/// What the program would do with a SYN from `addr`, and why it would drop it were that not only observed.
fn decide_new_connection(found: &Found, addr: IpAddr, now: Now) -> (Verdict, Option<DropReason>) {
    let packet = Packet {
        source: addr.into(),
        content: Content::Other,
        port: 0,
    };
    let now_ns = now.boot_ns;
    let decision = decide(&packet, &FoundAt { found, now_ns });
    (decision.verdict, decision.observed)
}

impl Engine {
    /// Entries of a list that should be in force, in the order of networks and behind `after`, with their hits as the
    /// tables show them now: about `most` of them, and never only some of those that one network has.
    pub fn page(&mut self, list: List, after: Option<IpNet>, most: usize) -> Result<Page, Refusal> {
        let now = (self.world.clock)();
        let Coverage { enforced, unfiltered } = self.coverage()?;
        let mut behind = self.desired.all_after(list, after, now.boot_ns).peekable();
        let mut entries: Vec<(IpNet, Entry)> = behind.by_ref().take(most).collect();
        if let Some((last, _)) = entries.last() {
            let last = *last;
            entries.extend(std::iter::from_fn(|| behind.next_if(|(net, _)| *net == last)));
        }
        let more = behind.next().is_some();
        let nets: Vec<IpNet> = entries.iter().map(|(net, _)| *net).collect();
        let found = match &mut self.tables {
            Some(tables) => tables.rules(list, &nets)?,
            None => vec![None; nets.len()],
        };
        let rows = entries.into_iter().zip(found).map(|((net, entry), found)| {
            let there = enforced && found.is_some();
            self.marked(list, row(net, entry, found.as_ref(), there, now))
        });
        Ok(Page {
            rows: rows.collect(),
            more,
            unfiltered,
        })
    }

    /// What happens to a new connection from `addr`, decided by the kernel program's own policy on what the tables
    /// hold, with the entries that speak of it.
    pub fn explain(&mut self, addr: IpAddr, operators: &[IpAddr]) -> Result<Explanation, Error> {
        let now = (self.world.clock)();
        let addr = addr.to_canonical();
        let found = match &mut self.tables {
            Some(tables) => Some(tables.lookup(addr)?),
            None => None,
        };
        let Coverage { enforced, unfiltered } = self.coverage()?;
        let (verdict, observed) = match &found {
            Some(found) if enforced => decide_new_connection(found, addr, now),
            _ => (Verdict::Pass(PassReason::Bypass), None),
        };
        let (verdict, outcome, observed) = match verdict {
            Verdict::Pass(reason) => ("pass", reason.name(), observed),
            Verdict::Drop(reason) => ("drop", reason.name(), None),
            Verdict::Answer(reason) => ("answer", reason.name(), None),
        };
        let protected = self.protected(operators);
        let protected = protected
            .cut_off(&IpNet::from(addr), |_| false)
            .map(Why::to_string);
        let found = found.unwrap_or_default();
        Ok(Explanation {
            addr,
            verdict: verdict.to_owned(),
            outcome: outcome.to_owned(),
            observed: observed.map(|reason| reason.name().to_owned()),
            enforced,
            unfiltered,
            allow: self.rows_for(List::Allow, addr, &found, enforced, now),
            deny: self.rows_for(List::Deny, addr, &found, enforced, now),
            block: self.rows_for(List::Block, addr, &found, enforced, now),
            protected,
            bypass: self.bypass(),
        })
    }

    fn rows_for(&self, list: List, addr: IpAddr, found: &Found, enforced: bool, now: Now) -> Vec<EntryRow> {
        let (single, network) = match list {
            List::Allow => (found.allow_addr, found.allow_net),
            List::Deny => (found.deny_addr, found.deny_net),
            List::Block => (found.block, None),
        };
        let entries = self.desired.covering(list, addr, now.boot_ns);
        entries
            .into_iter()
            .map(|(net, entry)| {
                // The tables show the network that speaks; the others are there, but not met.
                let speaks = |(speaker, rule): (IpNet, Rule)| (speaker == net).then_some(rule);
                let full = net.prefix_len() == net.max_prefix_len();
                let there = self.enforced.list(list).contains_key(&net);
                let rule = match full {
                    true => single.or_else(|| network.and_then(speaks)),
                    false => network.and_then(speaks),
                };
                let row = row(
                    net,
                    entry,
                    rule.as_ref(),
                    enforced && (rule.is_some() || there),
                    now,
                );
                self.marked(list, row)
            })
            .collect()
    }

    /// A row of `list`, with the reason if it is skipped, and whether it is only observed.
    fn marked(&self, list: List, row: EntryRow) -> EntryRow {
        let row = EntryRow {
            observed: self.observes(list),
            ..row
        };
        if list != List::Deny {
            return row;
        }
        let skipped = self.desired.skipped().get(&row.net).map(Why::to_string);
        EntryRow {
            enforced: row.enforced && skipped.is_none(),
            skipped,
            unconfirmed: self.waits(&row.net),
            ..row
        }
    }

    /// The packet half at a glance, read back from the tables.
    pub fn status(&mut self) -> Result<Status, Error> {
        let now = (self.world.clock)();
        let (mut counters, mut there, mut answered_ns) = (Vec::new(), [0; 3], 0);
        if let Some(tables) = &mut self.tables {
            there = tables.live(now.boot_ns)?;
            let counts = tables.counters()?;
            answered_ns = tables.answered_ns()?;
            let passes = PassReason::ALL
                .iter()
                .map(|reason| ("pass", reason.name(), reason.slot()));
            let drops = DropReason::ALL
                .iter()
                .map(|reason| ("drop", reason.name(), reason.slot()));
            let observed = DropReason::ALL
                .iter()
                .map(|reason| ("observed", reason.name(), reason.observed_slot()));
            let answers = AnswerReason::ALL
                .iter()
                .map(|reason| ("answer", reason.name(), reason.slot()));
            counters = passes
                .chain(drops)
                .chain(observed)
                .chain(answers)
                .map(|(verdict, reason, slot)| CounterRow {
                    verdict: verdict.to_owned(),
                    reason: reason.to_owned(),
                    packets: counts.get(slot).packets,
                    bytes: counts.get(slot).bytes,
                })
                .collect();
        }
        let enforced = self.coverage()?.enforced;
        let lists = [List::Allow, List::Deny, List::Block];
        let lists = lists
            .into_iter()
            .zip(there)
            .map(|(list, there)| ListRow {
                list: list.name().to_owned(),
                desired: self.desired.rules(list, now.boot_ns).count(),
                // What is in tables that nothing looks at is not in force.
                enforced: if enforced { there } else { 0 },
                skipped: if list == List::Deny {
                    self.skipped_count()
                } else {
                    0
                },
            })
            .collect();
        Ok(Status {
            enforced,
            interfaces: self.interfaces()?,
            observing: self.observing().into_iter().map(str::to_owned).collect(),
            lists,
            counters,
            failures: self.failures.clone(),
            dropped_orders: self.dropped_orders,
            bypass: self.bypass(),
            drift_repaired: self.repaired,
            cookies: CookieRow::of(
                &self.cookies,
                &self.enforced.settings,
                answered_ns != 0 && now.boot_ns.saturating_sub(answered_ns) < ANSWERING_NS,
            ),
        })
    }
}
