//! Facts to verdict. Owns the order of checks; must not know how tables are reached or what becomes of a verdict.
//!
//! The order, once, with its reasons:
//! 1. *Not ready* passes: a program without settings must not cut off the host that is about to write them.
//!    So does *bypass*, for as long as an operator asked for: it has an end, and the end is compared here.
//! 2. *Not IP* passes: without ARP there is no network.
//! 3. *Allowed* passes before anything can speak against it: an allow rule is how an operator keeps a way in, even
//!    for a source that is denied, blocked or sends strange packets.
//! 4. *Denied*, then *blocked*, drops: the operator's word is the more lasting reason, so it is the one counted.
//! 5. *Malformed* drops. After the lists, so that a denied source is counted as denied.
//! 6. *Limits* drop. Last, so that nothing dropped above spends a source's budget or touches its state.
//! 7. *Cookies* come between the limits by source and the one of all sources: what one source or network may not send is
//!    worth no answer; but of a flood from made-up sources each SYN is within those, and the limit of all sources would
//!    refuse the few that are meant along with it. What is answered by a cookie costs the host nothing and is not
//!    charged to it. An ACK is checked only while cookies are sent.
//!
//! A single address is asked for before the networks around it: an allowed one needs no second look-up. Whatever has
//! ended says nothing, neither for nor against; that a network which ends does not hide a longer-lived one around it
//! is seen to where the tables are filled.
//!
//! What is *observed* is counted and samples are told of it, but it stands in nobody's way: the packet goes on to the
//! checks behind it, and an entry of a list that is enforced is preferred to one that is only observed.

use gateway_common::addr::Addr;
use gateway_common::branchless::{is_zero, opaque};
use gateway_common::entry::Kind;
use gateway_common::limiter::{self, Place};
use gateway_common::outcome::{DropReason, PassReason, Verdict};
use gateway_common::tables::{Limit, Settings, feature, limit, observe};

use crate::packet::{Content, Packet};

/// What the tables say of a source.
///
/// Not an `Option`: what is left undefined in one is refused by the verifier once the compiler moves it about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<E> {
    /// See [`rank`]; [`Found::NOTHING`] if there is no entry.
    pub rank: u32,
    pub entry: Option<E>,
}

impl<E> Found<E> {
    /// A rank weaker than any entry's.
    pub const NOTHING: u32 = 8;

    /// No entry.
    #[inline(always)]
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            rank: Self::NOTHING,
            entry: None,
        }
    }
}

/// How strongly an entry of a list speaks, given [`Settings::observe`]: the smallest number wins.
///
/// The number of its [`Kind`], and four more if its list is only observed.
#[inline(always)]
#[must_use]
pub const fn rank(kind: u32, observe: u32) -> u32 {
    kind | ((observe & observe::ALL) >> (kind & 3) & 1) << 2
}

/// What [`decide`] may ask. The kernel's maps, or plain collections.
pub trait Tables {
    /// A found entry: what the shell needs to count a hit on it, or the user to name it.
    type Entry: Copy;

    /// The settings in force; `None` if they can not be read.
    fn settings(&self) -> Option<&Settings>;

    /// Of the live entries for the single address `source`, the one with the smallest [`rank`].
    fn address(&self, source: &Addr, settings: &Settings, now_ns: u64) -> Found<Self::Entry>;

    /// Of the longest allow and the longest deny network around `source`, those that are live, the one with the
    /// smallest [`rank`].
    fn network(&self, source: &Addr, settings: &Settings, now_ns: u64) -> Found<Self::Entry>;

    /// `CLOCK_BOOTTIME` in nanoseconds, at most a tick of the kernel's timer ago.
    fn now_ns(&self) -> u64;

    /// The same value, of which a verifier that has followed many ways to it knows nothing: what comes after is then
    /// followed once and not for each.
    #[inline(always)]
    fn settle<V: Copy>(&self, value: V) -> V {
        value
    }

    /// Whether a SYN was answered by a cookie lately.
    fn answering(&self, now_ns: u64) -> bool;

    /// Charges a packet to the source at `place`, or only looks whether it could be charged, and returns whether the
    /// packet is within the limit. A bucket that can not be reached is within: the limiter fails open.
    fn limit(&self, place: Place, limit: &Limit, charge: bool, now_ns: u64) -> bool;
}

/// A verdict, and the entry that led to it if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<E> {
    pub verdict: Verdict,
    /// Why the packet would have been dropped, were that reason enforced; the first one if there are several.
    pub observed: Option<DropReason>,
    pub entry: Option<E>,
    /// Whether the packet is the second program's: a SYN to be answered by a cookie, or a packet whose ACK may be one.
    /// The verdict is what becomes of it if nothing listens there, or if there is no second program.
    pub cookie: bool,
}

impl<E> Decision<E> {
    #[inline(always)]
    const fn pass(reason: PassReason) -> Self {
        Self {
            verdict: Verdict::Pass(reason),
            observed: None,
            entry: None,
            cookie: false,
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
    if settings.features & feature::BYPASS != 0 && tables.now_ns() < settings.bypass_until_ns {
        return Decision::pass(PassReason::Bypass);
    }
    let mut decision = Decision::pass(PassReason::Clean);
    let (source, content) = (&packet.source, packet.content);
    match content {
        Content::NotIp => return Decision::pass(PassReason::NotIp),
        Content::Unreadable(reason) => {
            lies(reason, settings, &mut decision);
            return decision;
        }
        _ => {}
    }
    let features = settings.features;
    if features & (feature::TABLES | feature::LIMITS | feature::SYN_COOKIES) == 0 {
        if let Content::Malformed(reason) = content {
            lies(reason, settings, &mut decision);
        }
        return decision;
    }
    let now_ns = tables.now_ns();
    let found = if features & feature::TABLES != 0 {
        tables.settle(listed(source, settings, now_ns, tables))
    } else {
        Found::nothing()
    };
    if found.rank != Found::<T::Entry>::NOTHING {
        decision.entry = found.entry;
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
    let (order, count) = match content {
        Content::Malformed(reason) => {
            lies(reason, settings, &mut decision);
            return decision;
        }
        Content::Syn => (SYN_LIMITS, 4),
        Content::Icmp => (limit::ICMP, 1),
        Content::Udp => (limit::UDP, 1),
        Content::Tcp => {
            decision.cookie = features & feature::SYN_COOKIES != 0
                && settings.cookies.has_port(packet.port)
                && tables.answering(now_ns);
            return decision;
        }
        Content::Other | Content::NotIp | Content::Unreadable(_) => return decision,
    };
    if features & (feature::LIMITS | feature::SYN_COOKIES) == 0 {
        return decision;
    }
    let answers = features & feature::SYN_COOKIES != 0 && settings.cookies.has_port(packet.port);
    let limited = features & feature::LIMITS | if answers { feature::SYN_COOKIES } else { 0 };
    // What is answered by a cookie costs the host nothing, so its limit is not looked at beforehand.
    let order = if answers { SYN_LIMITS_AND_COOKIES } else { order };
    let (order, count, limited) = tables.settle((order, count, limited));
    decision.observed = tables.settle(decision.observed);
    decision.entry = tables.settle(decision.entry);
    for more in 0..4 {
        if more >= count {
            break;
        }
        // A number whose range the verifier can see, however the compiler counts.
        let limit = opaque(u64::from(order >> (more * 4))) as u32 % limit::COUNT;
        let charge = more > 0 || limit != limit::SYN_GLOBAL;
        if limited & feature::SYN_LIMIT << limit != 0
            && !within(&charged(packet, limit), limit, charge, settings, now_ns, tables)
        {
            if limit == limit::SYN_COOKIES {
                decision.cookie = true;
            } else {
                refuse(over(limit), observe::SYN_LIMIT << limit, settings, &mut decision);
            }
            break;
        }
    }
    decision
}

/// The limits that a SYN meets, four bits each, from the right: that of the host is looked at, then it is charged to
/// its source, to the network around it, and to the host.
///
/// The look comes first because it is cheap, one line of memory whatever the source, and because what the host refuses
/// anyway should be charged to nobody. It is charged last, so that what one source may not send costs the host nothing.
const SYN_LIMITS: u32 =
    limit::SYN_GLOBAL << 12 | limit::SYN_AGGREGATE << 8 | limit::SYN << 4 | limit::SYN_GLOBAL;
/// The limits that a SYN meets where cookies may answer it.
const SYN_LIMITS_AND_COOKIES: u32 =
    limit::SYN | limit::SYN_AGGREGATE << 4 | limit::SYN_COOKIES << 8 | limit::SYN_GLOBAL << 12;

/// Whom a packet is charged to: its source, or the port that it is for, as an address that no packet has. By arithmetic,
/// which costs the kernel's verifier nothing.
#[inline(always)]
fn charged(packet: &Packet, limit: u32) -> Addr {
    let by_port = (is_zero(u64::from(limit ^ limit::SYN_COOKIES)) as u32).wrapping_neg();
    let source = &packet.source.0;
    Addr([
        source[0] & !by_port | u32::from(packet.port) & by_port,
        source[1] & !by_port,
        source[2] & !by_port,
        source[3] & !by_port,
    ])
}

/// What the lists say about a source.
#[inline(always)]
fn listed<T: Tables>(source: &Addr, settings: &Settings, now_ns: u64, tables: &T) -> Found<T::Entry> {
    let (addresses, networks) = if source.is_v4() {
        (feature::ADDRESSES4, feature::NETWORKS4)
    } else {
        (feature::ADDRESSES6, feature::NETWORKS6)
    };
    let address = if settings.features & addresses != 0 {
        tables.address(source, settings, now_ns)
    } else {
        Found::nothing()
    };
    if settings.features & networks == 0 || address.rank == Kind::Allow as u32 {
        return address;
    }
    let network = tables.network(source, settings, now_ns);
    if network.rank < address.rank {
        network
    } else {
        address
    }
}

/// A packet whose bytes lie.
#[inline(always)]
fn lies<E>(reason: DropReason, settings: &Settings, decision: &mut Decision<E>) {
    if settings.malformed & reason.malformed_bit() != 0 {
        refuse(reason, observe::MALFORMED, settings, decision);
    }
}

/// Drops for a reason, or notes that it would have been dropped for it.
#[inline(always)]
fn refuse<E>(reason: DropReason, observed: u32, settings: &Settings, decision: &mut Decision<E>) {
    if settings.observe & observed == 0 {
        decision.verdict = Verdict::Drop(reason);
    } else if decision.observed.is_none() {
        decision.observed = Some(reason);
    }
}

/// The reason that being over a limit is.
#[inline(always)]
const fn over(limit: u32) -> DropReason {
    match limit {
        limit::SYN => DropReason::SynLimit,
        limit::SYN_AGGREGATE => DropReason::SynAggregateLimit,
        limit::SYN_GLOBAL => DropReason::SynGlobalLimit,
        limit::ICMP => DropReason::IcmpLimit,
        _ => DropReason::UdpLimit,
    }
}

/// Whether a packet is within one limit; charges it to its source if so wanted.
#[inline(always)]
fn within<T: Tables>(
    source: &Addr,
    limit: u32,
    charge: bool,
    settings: &Settings,
    now_ns: u64,
    tables: &T,
) -> bool {
    let rate = &settings.limits[limit as usize % settings.limits.len()];
    // A key for each limit, so that their states never meet but by chance.
    let key = [settings.hash_key[0] ^ u64::from(limit), settings.hash_key[1]];
    tables.limit(limiter::place(source, rate, &key), rate, charge, now_ns)
}
