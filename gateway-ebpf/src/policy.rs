//! Facts to verdict. Owns the order of checks; must not know how tables are reached or what becomes of a verdict.
//!
//! The order, once, with its reasons:
//! 1. *Not ready* passes: a program without settings must not cut off the host that is about to write them.
//! 2. *Not IP* passes: without ARP there is no network.
//! 3. *Allowed* passes before anything can speak against it: an allow rule is how an operator keeps a way in, even
//!    for a source that is denied, blocked or sends strange packets.
//! 4. *Denied*, then *blocked*, drops: the operator's word is the more lasting reason, so it is the one counted.
//! 5. *Malformed* drops. After the lists, so that a denied source is counted as denied.
//! 6. *The SYN limit* drops. Last, so that nothing dropped above spends a source's budget or touches its state.
//!
//! In each list the single address is asked first and the prefixes second: a hash costs less than a trie, and a
//! missing or expired single address says nothing about the prefix around it. Nor does an expired prefix about the
//! shorter ones around it, though a trie only ever answers with the longest: it is asked again for a shorter one.

use gateway_common::addr::Addr;
use gateway_common::limiter::{self, Step, WAYS};
use gateway_common::outcome::{DropReason, PassReason, Verdict};
use gateway_common::tables::{NET4_BITS, NET6_BITS, NEVER, Settings, feature};

use crate::packet::{Packet, Transport};

/// One look-up table. Which one to ask follows from the list and the family of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    AllowAddr,
    AllowNet4,
    AllowNet6,
    DenyAddr,
    DenyNet4,
    DenyNet6,
    BlockAddr,
}

impl Table {
    /// The bit of [`Settings::features`] that says it has entries.
    #[inline(always)]
    #[must_use]
    pub const fn feature(self) -> u32 {
        match self {
            Self::AllowAddr => feature::ALLOW_ADDR,
            Self::AllowNet4 => feature::ALLOW_NET4,
            Self::AllowNet6 => feature::ALLOW_NET6,
            Self::DenyAddr => feature::DENY_ADDR,
            Self::DenyNet4 => feature::DENY_NET4,
            Self::DenyNet6 => feature::DENY_NET6,
            Self::BlockAddr => feature::BLOCK_ADDR,
        }
    }
}

/// What [`decide`] may ask. The kernel's maps, or plain collections.
pub trait Tables {
    /// A found entry: what the shell needs to count a hit on it, or the user to name it.
    type Entry: Copy;

    /// The settings in force; `None` if they can not be read.
    fn settings(&self) -> Option<&Settings>;

    /// `CLOCK_BOOTTIME` in nanoseconds. Asked only when something depends on it.
    fn now_ns(&self) -> u64;

    /// The entry for `source`: the equal address (`bits` is ignored), or the longest prefix of at most `bits` bits
    /// that covers it.
    fn find(&self, table: Table, source: &Addr, bits: u32) -> Option<Self::Entry>;

    /// When the entry ends, as [`gateway_common::tables::Rule::deadline_ns`] has it.
    fn deadline_ns(&self, entry: Self::Entry) -> u64;

    /// The length of an entry of a prefix table.
    fn prefix_len(&self, entry: Self::Entry) -> u32;

    /// Runs `step` on a limiter bucket, stores its new word and returns whether the packet is within the limit.
    /// A bucket that can not be reached is within: the limiter fails open.
    fn limit(&self, bucket: u32, step: impl Fn(&[u64; WAYS]) -> Step) -> bool;
}

/// A verdict, and the entry that led to it if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<E> {
    pub verdict: Verdict,
    pub entry: Option<E>,
}

impl<E> Decision<E> {
    #[inline(always)]
    const fn pass(reason: PassReason) -> Self {
        Self {
            verdict: Verdict::Pass(reason),
            entry: None,
        }
    }

    #[inline(always)]
    const fn drop(reason: DropReason) -> Self {
        Self {
            verdict: Verdict::Drop(reason),
            entry: None,
        }
    }
}

/// Decides about one packet.
#[inline(always)]
pub fn decide<T: Tables>(packet: &Packet, tables: &T) -> Decision<T::Entry> {
    let Some(settings) = tables.settings() else {
        return Decision::pass(PassReason::Bypass);
    };
    if settings.ready == 0 {
        return Decision::pass(PassReason::Bypass);
    }
    let (source, transport) = match packet {
        Packet::NotIp => return Decision::pass(PassReason::NotIp),
        Packet::Malformed(reason) => return Decision::drop(*reason),
        Packet::Ip { source, transport } => (source, *transport),
    };
    let features = settings.features;
    // One test for the common case of a list that is empty altogether.
    if features & feature::TABLES != 0
        && let Some(decision) = listed(source, features, tables)
    {
        return decision;
    }
    match transport {
        Transport::Malformed(reason) => Decision::drop(reason),
        Transport::Syn if features & feature::SYN_LIMIT != 0 && !within(source, settings, tables) => {
            Decision::drop(DropReason::SynLimit)
        }
        Transport::Syn | Transport::Other => Decision::pass(PassReason::Clean),
    }
}

/// What the lists say about a source, if anything.
#[inline(always)]
fn listed<T: Tables>(source: &Addr, features: u32, tables: &T) -> Option<Decision<T::Entry>> {
    let asked = |table: Table| features & table.feature() != 0;
    let addr = |table| {
        if asked(table) {
            address(table, source, tables)
        } else {
            None
        }
    };
    // One branch for each table, as the verifier must know which map a look-up is for.
    let net = |net4, net6| match source.is_v4() {
        true if asked(net4) => prefix(net4, source, NET4_BITS, tables),
        false if asked(net6) => prefix(net6, source, NET6_BITS, tables),
        _ => None,
    };
    if let Some(entry) = addr(Table::AllowAddr).or_else(|| net(Table::AllowNet4, Table::AllowNet6)) {
        return Some(Decision {
            verdict: Verdict::Pass(PassReason::Allowed),
            entry: Some(entry),
        });
    }
    if let Some(entry) = addr(Table::DenyAddr).or_else(|| net(Table::DenyNet4, Table::DenyNet6)) {
        return Some(Decision {
            verdict: Verdict::Drop(DropReason::Denied),
            entry: Some(entry),
        });
    }
    let entry = addr(Table::BlockAddr)?;
    Some(Decision {
        verdict: Verdict::Drop(DropReason::Blocked),
        entry: Some(entry),
    })
}

/// The live entry of a single address.
#[inline(always)]
fn address<T: Tables>(table: Table, source: &Addr, tables: &T) -> Option<T::Entry> {
    tables.find(table, source, 0).filter(|entry| live(*entry, tables))
}

/// Expired prefixes around one source that are stepped past. User space sweeps them out; more than this many nested
/// ones at a time would need an operator to deny as many networks within each other, each for a time.
const EXPIRED_PREFIXES: u32 = 4;

/// The longest live prefix around a source.
#[inline(always)]
fn prefix<T: Tables>(table: Table, source: &Addr, bits: u32, tables: &T) -> Option<T::Entry> {
    let mut bits = bits;
    for _ in 0..=EXPIRED_PREFIXES {
        let entry = tables.find(table, source, bits)?;
        if live(entry, tables) {
            return Some(entry);
        }
        bits = tables.prefix_len(entry).checked_sub(1)?;
    }
    None
}

/// Whether an entry is in force. The clock is read only if the entry has an end.
#[inline(always)]
fn live<T: Tables>(entry: T::Entry, tables: &T) -> bool {
    let deadline = tables.deadline_ns(entry);
    deadline == NEVER || tables.now_ns() < deadline
}

/// Charges a SYN to its source.
#[inline(always)]
fn within<T: Tables>(source: &Addr, settings: &Settings, tables: &T) -> bool {
    let place = limiter::place(source, settings.syn_v6_prefix, &settings.hash_key);
    let now = tables.now_ns();
    let (interval, tolerance) = (settings.syn_interval_ns, settings.syn_tolerance_ns);
    tables.limit(place.bucket, |words| {
        limiter::step(words, place.fingerprint, now, interval, tolerance)
    })
}
