//! Facts to verdict. Owns the order of checks; must not know how tables are reached or what becomes of a verdict.
//!
//! The order, once, with its reasons:
//! 1. *Not ready* passes: a program without settings must not cut off the host that is about to write them.
//! 2. *Not IP* passes: without ARP there is no network.
//! 3. *Allowed* passes before anything can speak against it: an allow rule is how an operator keeps a way in, even
//!    for a source that is denied, blocked or sends strange packets.
//! 4. *Denied*, then *blocked*, drops: the operator's word is the more lasting reason, so it is the one counted.
//! 5. *Malformed* drops. After the lists, so that a denied source is counted as denied.
//! 6. *Limits* drop. Last, so that nothing dropped above spends a source's budget or touches its state. Of those on
//!    SYNs the narrowest comes first: what one source may not send is not charged to its network or to the host.
//!
//! A single address is asked for before the networks around it: an allowed one needs no second look-up. Whatever has
//! ended says nothing, neither for nor against; that a network which ends does not hide a longer-lived one around it
//! is seen to where the tables are filled.
//!
//! What is *observed* is counted and samples are told of it, but it stands in nobody's way: the packet goes on to the
//! checks behind it, and an entry of a list that is enforced is preferred to one that is only observed.

use gateway_common::addr::Addr;
use gateway_common::entry::Kind;
use gateway_common::limiter::{self, Step, WAYS};
use gateway_common::outcome::{DropReason, PassReason, Verdict};
use gateway_common::tables::{Settings, feature, limit, observe};

use crate::packet::{Packet, Transport};

/// An entry that speaks of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<E> {
    /// See [`rank`].
    pub rank: u32,
    pub entry: E,
}

/// How strongly an entry of a list speaks, given [`Settings::observe`]: the smallest number wins.
///
/// The number of its [`Kind`], and four more if its list is only observed.
#[inline(always)]
#[must_use]
pub const fn rank(kind: u32, observe: u32) -> u32 {
    kind | (observe >> (kind & 3) & 1) << 2
}

/// What [`decide`] may ask. The kernel's maps, or plain collections.
pub trait Tables {
    /// A found entry: what the shell needs to count a hit on it, or the user to name it.
    type Entry: Copy;

    /// The settings in force; `None` if they can not be read.
    fn settings(&self) -> Option<&Settings>;

    /// Of the live entries for the single address `source`, the one with the smallest [`rank`].
    fn address(&self, source: &Addr, settings: &Settings) -> Option<Found<Self::Entry>>;

    /// Of the longest allow and the longest deny network around `source`, those that are live, the one with the
    /// smallest [`rank`].
    fn network(&self, source: &Addr, settings: &Settings) -> Option<Found<Self::Entry>>;

    /// `CLOCK_BOOTTIME` in nanoseconds, at most a tick of the kernel's timer ago.
    fn now_ns(&self) -> u64;

    /// Runs `step` on a limiter bucket, stores its new word and returns whether the packet is within the limit.
    /// A bucket that can not be reached is within: the limiter fails open.
    fn limit(&self, bucket: u32, step: impl Fn(&dyn Read) -> Step) -> bool;
}

/// A verdict, and the entry that led to it if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<E> {
    pub verdict: Verdict,
    /// Why the packet would have been dropped, were that reason enforced; the first one if there are several.
    pub observed: Option<DropReason>,
    pub entry: Option<E>,
}

impl<E> Decision<E> {
    #[inline(always)]
    const fn pass(reason: PassReason) -> Self {
        Self {
            verdict: Verdict::Pass(reason),
            observed: None,
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
    if settings.ready == 0 || settings.features & feature::BYPASS != 0 {
        return Decision::pass(PassReason::Bypass);
    }
    let mut decision = Decision::pass(PassReason::Clean);
    let (source, transport) = match packet {
        Packet::NotIp => return Decision::pass(PassReason::NotIp),
        Packet::Malformed(reason) => {
            lies(*reason, settings, &mut decision);
            return decision;
        }
        Packet::Ip { source, transport, .. } => (source, *transport),
    };
    let features = settings.features;
    // One test for the common case of lists that are empty altogether.
    if features & feature::TABLES != 0
        && let Some(found) = listed(source, settings, tables)
    {
        decision.entry = Some(found.entry);
        if found.rank == Kind::Allow as u32 {
            decision.verdict = Verdict::Pass(PassReason::Allowed);
            return decision;
        }
        let reason = if found.rank & 3 == Kind::Deny as u32 {
            DropReason::Denied
        } else {
            DropReason::Blocked
        };
        if found.rank <= Kind::Block as u32 {
            decision.verdict = Verdict::Drop(reason);
            return decision;
        }
        decision.observed = Some(reason);
    }
    match transport {
        Transport::Malformed(reason) => lies(reason, settings, &mut decision),
        Transport::Syn if features & feature::SYN_LIMIT != 0 => limit_syn(source, settings, tables, &mut decision),
        Transport::Icmp if features & feature::ICMP_LIMIT != 0 => {
            let within = within(source, limit::ICMP, settings, tables);
            let over = (!within).then_some(DropReason::IcmpLimit);
            refuse(over, observe::ICMP_LIMIT, settings, &mut decision);
        }
        Transport::Udp if features & feature::UDP_LIMIT != 0 => {
            let within = within(source, limit::UDP, settings, tables);
            let over = (!within).then_some(DropReason::UdpLimit);
            refuse(over, observe::UDP_LIMIT, settings, &mut decision);
        }
        Transport::Syn | Transport::Tcp | Transport::Icmp | Transport::Udp | Transport::Other => {}
    }
    decision
}

/// What the lists say about a source, if anything.
#[inline(always)]
fn listed<T: Tables>(source: &Addr, settings: &Settings, tables: &T) -> Option<Found<T::Entry>> {
    let (addresses, networks) = if source.is_v4() {
        (feature::ADDRESSES4, feature::NETWORKS4)
    } else {
        (feature::ADDRESSES6, feature::NETWORKS6)
    };
    let address = if settings.features & addresses != 0 {
        tables.address(source, settings)
    } else {
        None
    };
    if settings.features & networks == 0 || address.is_some_and(|found| found.rank == Kind::Allow as u32) {
        return address;
    }
    match (address, tables.network(source, settings)) {
        (Some(address), Some(network)) if network.rank < address.rank => Some(network),
        (None, network) => network,
        (address, _) => address,
    }
}

/// A packet whose bytes lie.
#[inline(always)]
fn lies<E>(reason: DropReason, settings: &Settings, decision: &mut Decision<E>) {
    let checked = settings.malformed & reason.malformed_bit() != 0;
    refuse(checked.then_some(reason), observe::MALFORMED, settings, decision);
}

/// Charges a SYN to its source, the network around it, and the host.
#[inline(always)]
fn limit_syn<T: Tables>(
    source: &Addr,
    settings: &Settings,
    tables: &T,
    decision: &mut Decision<T::Entry>,
) {
    if !within(source, limit::SYN, settings, tables) {
        refuse(Some(DropReason::SynLimit), observe::SYN_LIMIT, settings, decision);
        return;
    }
    if settings.features & feature::SYN_AGGREGATE_LIMIT != 0
        && !within(source, limit::SYN_AGGREGATE, settings, tables)
    {
        let over = Some(DropReason::SynAggregateLimit);
        refuse(over, observe::SYN_AGGREGATE_LIMIT, settings, decision);
        return;
    }
    if settings.features & feature::SYN_GLOBAL_LIMIT != 0
        && !within(&Addr([0; 4]), limit::SYN_GLOBAL, settings, tables)
    {
        let over = Some(DropReason::SynGlobalLimit);
        refuse(over, observe::SYN_GLOBAL_LIMIT, settings, decision);
    }
}

/// Drops for a reason, or notes that it would have been dropped for it.
#[inline(always)]
fn refuse<E>(reason: Option<DropReason>, observed: u32, settings: &Settings, decision: &mut Decision<E>) {
    let Some(reason) = reason else { return };
    if settings.observe & observed == 0 {
        decision.verdict = Verdict::Drop(reason);
    } else if decision.observed.is_none() {
        decision.observed = Some(reason);
    }
}

/// Charges a packet to its source under one limit.
#[inline(always)]
fn within<T: Tables>(source: &Addr, limit: usize, settings: &Settings, tables: &T) -> bool {
    let rate = &settings.limits[limit];
    let bits = if source.is_v4() { rate.v4_bits } else { rate.v6_bits };
    // A key for each limit, so that their states never meet but by chance.
    let key = [settings.hash_key[0] ^ limit as u64, settings.hash_key[1]];
    let place = limiter::place(source, bits, &key);
    let now = tables.now_ns();
    tables.limit(place.bucket, |words| {
        limiter::step(words, place.fingerprint, now, rate.interval_ns, rate.tolerance_ns)
    })
}
