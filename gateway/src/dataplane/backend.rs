//! What the rest of the gateway asks of the tables, whoever keeps them. Knows no aya, no plan, no policy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gateway_common::entry::Kind;
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{Counter, Rule, Settings};
use ipnet::IpNet;

use super::cookies::Ability;
use super::lock::{Holder, advice, of_process};
use crate::config::model::{Xdp, XdpMode};

/// One of the three lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum List {
    Allow,
    Deny,
    /// Single addresses only.
    Block,
}

impl List {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Block => "block",
        }
    }

    /// What an entry of the list is called in the tables.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Allow => Kind::Allow,
            Self::Deny => Kind::Deny,
            Self::Block => Kind::Block,
        }
    }
}

/// What the tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub settings: Settings,
    pub allow: BTreeMap<IpNet, Rule>,
    pub deny: BTreeMap<IpNet, Rule>,
    pub block: BTreeMap<IpNet, Rule>,
}

impl Image {
    #[must_use]
    pub fn list(&self, list: List) -> &BTreeMap<IpNet, Rule> {
        match list {
            List::Allow => &self.allow,
            List::Deny => &self.deny,
            List::Block => &self.block,
        }
    }

    pub fn list_mut(&mut self, list: List) -> &mut BTreeMap<IpNet, Rule> {
        match list {
            List::Allow => &mut self.allow,
            List::Deny => &mut self.deny,
            List::Block => &mut self.block,
        }
    }
}

/// One step from the enforced state to the desired one. Applying it twice is applying it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace. `rule.hits` is what the entry starts from; an entry that is there keeps its own if larger.
    Put { list: List, net: IpNet, rule: Rule },
    /// Remove; not an error if it is gone.
    Remove { list: List, net: IpNet },
    /// Switch to these settings at once. Two parts of them are the keeper's own and ignored here: `hash_key`, drawn
    /// once when the tables are made, and the bits of `feature::TABLES`, which follow what the tables hold.
    /// Boxed: there is one of these to a million of the others.
    Settings(Box<Settings>),
}

impl Change {
    /// Switch to these settings.
    #[must_use]
    pub fn settings(settings: Settings) -> Self {
        Self::Settings(Box::new(settings))
    }
}

/// Entries that speak of one address: in each list its own, and the network that speaks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub settings: Settings,
    pub allow_addr: Option<Rule>,
    pub allow_net: Option<(IpNet, Rule)>,
    pub deny_addr: Option<Rule>,
    pub deny_net: Option<(IpNet, Rule)>,
    pub block: Option<Rule>,
}

/// Packets and bytes of every outcome, summed over processors, by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(pub Vec<Counter>);

impl Default for Counters {
    fn default() -> Self {
        Self(vec![Counter::default(); SLOTS as usize])
    }
}

impl Counters {
    /// The counter of one slot; zero for a slot out of range.
    #[must_use]
    pub fn get(&self, slot: u32) -> Counter {
        self.0.get(slot as usize).copied().unwrap_or_default()
    }
}

/// How an administrator takes a program off an interface. Which of the ways it is depends on how it was attached, which
/// only the second command tells for sure: the kernel refuses it with "busy" for a link.
#[must_use]
pub fn removal(interface: &str, program: &str) -> String {
    let own = if program == "gateway_xdp" {
        "it looks like another gateway's: `gateway detach --config …` with that one's configuration; or "
    } else {
        ""
    };
    format!(
        "{own}`ip link set dev {interface} xdp off`, and if that is busy, a link holds it: find it with \
         `bpftool link show` and remove it with `bpftool link detach id …`"
    )
}

/// How many entries one list can have, by family: IPv4, IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub addresses: [u32; 2],
    pub networks: [u32; 2],
}

/// Why the tables could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the {list} table is full: {capacity} entries; raise xdp.capacity.{list} in the configuration, stop the \
             gateway, run `gateway detach` and start it again, as pinned tables keep their size (nothing is filtered \
             meanwhile, and blocks are lost), or remove entries"
    )]
    Full { list: &'static str, capacity: u32 },
    #[error("nothing is pinned under {dir}: no gateway has been started there")]
    NotPinned { dir: String },
    #[error("interface {interface} has another XDP program, {program} (id {id}); remove it first: {}", removal(.interface, .program))]
    Foreign {
        interface: String,
        program: String,
        id: u32,
    },
    #[error("no interface is named {interface}")]
    NoInterface { interface: String },
    #[error("another {}{holder} holds the tables under {dir}; {}", .holder.what(), advice(.holder, "xdp.pin_dir"))]
    Locked { dir: String, holder: Holder },
    #[error(
        "another `gateway watch`{} reads the events; several can watch at once only while a gateway runs",
        of_process(*.pid)
    )]
    Watched { pid: Option<u32> },
    #[error("{operation}: {cause}{hint}")]
    Os {
        operation: String,
        hint: String,
        cause: std::io::Error,
    },
    #[error("{operation}: {detail}")]
    Load { operation: String, detail: String },
    #[error("{net} is a network: the block list holds single addresses only")]
    NotAnAddress { net: IpNet },
}

impl Error {
    /// Who holds the tables, if that is why.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Locked { holder, .. } => Some(holder),
            _ => None,
        }
    }
}

/// Something that was not as the keeper had left it, and was put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// `settings` or `tables`.
    pub kind: &'static str,
    /// In an operator's words.
    pub what: String,
}

/// A keeper of the tables. One owner, one writer.
pub trait Backend: Send {
    /// Everything that is there.
    fn enforced(&mut self) -> Result<Image, Error>;

    /// Holds what only the keeper knows of, keys and layout and whatever is made of the lists so that packets meet them,
    /// against what was last written, and puts it right. Returns what differed. [`Backend::enforced`] must have just been
    /// read.
    fn mend(&mut self) -> Result<Vec<Mended>, Error> {
        Ok(Vec::new())
    }

    /// The settings in force.
    fn settings(&mut self) -> Result<Settings, Error>;

    /// Applies the changes in order. Goes on after a failure, and returns the index and reason of each.
    fn apply(&mut self, changes: &[Change]) -> Vec<(usize, Error)>;

    /// As [`Backend::apply`], but a packet meets all of the changes or none of them, however few they are. Puts and
    /// removals are of different networks.
    fn apply_at_once(&mut self, changes: &[Change]) -> Vec<(usize, Error)> {
        self.apply(changes)
    }

    /// How many entries `list` can have beside what the other lists have now; `None` where nothing bounds it.
    fn room(&self, _list: List) -> Option<Room> {
        None
    }

    /// How many entries of each list (allow, deny, block) are there and have not ended.
    fn live(&mut self, boot_ns: u64) -> Result<[usize; 3], Error> {
        let image = self.enforced()?;
        let live = |list: List| {
            image
                .list(list)
                .values()
                .filter(|rule| rule.live(boot_ns))
                .count()
        };
        Ok([List::Allow, List::Deny, List::Block].map(live))
    }

    /// What is there of a list for exactly these networks, in their order.
    fn rules(&mut self, list: List, nets: &[IpNet]) -> Result<Vec<Option<Rule>>, Error>;

    /// What the program would find for one address.
    fn lookup(&mut self, addr: IpAddr) -> Result<Found, Error>;

    /// Counters since the tables were made.
    fn counters(&mut self) -> Result<Counters, Error>;

    /// Makes ready for SYN cookies if the configuration wants them, and says whether it can have them.
    fn cookies(&mut self, _xdp: &Xdp) -> Ability {
        Ability::Unknown
    }

    /// `CLOCK_BOOTTIME` in nanoseconds of the last SYN that was answered by a cookie; zero if none was.
    fn answered_ns(&mut self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Puts the program on an interface, or takes over the one that an earlier process left there.
    fn attach(&mut self, interface: &str, _mode: XdpMode) -> Result<Attachment, Error> {
        let detail = format!("these tables have no program to put on {interface}");
        Err(Error::Load {
            operation: "attaching".to_owned(),
            detail,
        })
    }

    /// How one interface is filtered now, or why not.
    fn interface(&mut self, interface: &str) -> Result<Attachment, Error> {
        Ok(Attachment::without(interface, Unfiltered::Bare))
    }

    /// The interfaces that a program of ours was put on.
    fn interfaces(&mut self) -> Result<Vec<Attachment>, Error> {
        Ok(Vec::new())
    }

    /// Takes the program off one interface; not an error if it is not on it.
    fn release(&mut self, _interface: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Takes the program off every interface and removes every trace of the tables that would outlive this process.
    fn detach(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// How an interface is filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub interface: String,
    /// `Native` or `Generic` if a program of ours filters it, else `None`.
    pub mode: XdpMode,
    /// Id of our program there, as `bpftool prog` lists it; zero for none.
    pub program: u32,
    /// Why no program of ours filters it; `None` if one does.
    pub unfiltered: Option<Unfiltered>,
    /// Whether the link of an earlier process was taken over.
    pub adopted: bool,
    /// Why native mode was not to be had, when `Auto` settled for generic.
    pub note: Option<String>,
}

impl Attachment {
    /// An interface without a program of ours.
    #[must_use]
    pub fn without(interface: &str, why: Unfiltered) -> Self {
        Self {
            interface: interface.to_owned(),
            mode: XdpMode::None,
            program: 0,
            unfiltered: Some(why),
            adopted: false,
            note: None,
        }
    }
}

/// Why an interface is not filtered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfiltered {
    #[error("there is no interface of this name")]
    Missing,
    #[error("no XDP program is on it")]
    Bare,
    #[error(
        "another XDP program is on it, {program} (id {id}); remove that first (its gateway's `detach`, `ip link set dev … xdp off`, or `bpftool link detach id …`)"
    )]
    Foreign { program: String, id: u32 },
    #[error("the pins under {dir} were removed by hand; restart the gateway to filter again")]
    PinsGone { dir: String },
}
