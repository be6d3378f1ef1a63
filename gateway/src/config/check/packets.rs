//! `xdp`: limits on packets, checks for malformed ones, and what is only observed.

use std::num::NonZeroU32;
use std::time::Duration;

use gateway_common::outcome::DropReason;
use gateway_common::tables::{LISTENERS, observe as observed};

use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Listener, OBSERVABLE, PacketLimit, Rate, SynCookies, Xdp, XdpMode};
use crate::config::scalar::{choice, number, truth};
use crate::config::units;

/// Longest time in which a whole burst may come back, so that the limiter's clock arithmetic stays far from its ends.
const MOST_REFILL: Duration = Duration::from_secs(3600);

/// An interface whose frames come from this host itself, from and to its own addresses.
const LOOPBACK: &str = "lo";

/// The limits on SYNs, from the narrowest to the widest.
#[derive(Default)]
pub(super) struct SynLimits {
    pub source: Option<PacketLimit>,
    pub aggregate: Option<PacketLimit>,
    pub total: Option<PacketLimit>,
}

/// The key `syn_limit` of `table`.
pub(super) fn syn_limits(walk: &mut Walk, table: &mut Table<'_>) -> SynLimits {
    let Some(field) = table.get(walk, "syn_limit") else {
        return SynLimits::default();
    };
    let limits = walk.table(&field, |walk, table| SynLimits {
        source: read(walk, table, Prefixes::Source),
        aggregate: inner(walk, table, "aggregate", Prefixes::Network),
        total: inner(walk, table, "total", Prefixes::None),
    });
    limits.unwrap_or_default()
}

/// A limit by source under `key` of `table`.
pub(super) fn limit(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Option<PacketLimit> {
    inner(walk, table, key, Prefixes::Source)
}

fn inner(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    prefixes: Prefixes,
) -> Option<PacketLimit> {
    let field = table.get(walk, key)?;
    walk.table(&field, |walk, table| read(walk, table, prefixes))?
}

/// The key `syn_cookies` of `table`.
pub(super) fn syn_cookies(walk: &mut Walk, table: &mut Table<'_>) -> Option<SynCookies> {
    let field = table.get(walk, "syn_cookies")?;
    walk.table(&field, |walk, table| {
        let hint = "SYNs to one port, such as above: 1000/s";
        let measured = rate_and_burst(walk, table, "above", hint);
        let set_sysctls = table.value_or(walk, "set_sysctls", true, truth);
        let (above, burst) = measured?;
        Some(SynCookies {
            above,
            burst,
            set_sysctls,
        })
    })?
}

/// What is configured together with cookies and keeps them from working.
pub(super) fn cookies_fit(walk: &mut Walk, top: &Field<'_>, xdp: &Xdp, listen: &[Listener]) {
    if xdp.syn_cookies.is_none() {
        return;
    }
    let mut warn = |text: &str| walk.warn(top, Wrong::new(format!("xdp.syn_cookies: {text}")));
    if listen.is_empty() {
        warn("there are no listeners whose SYNs could be answered");
    }
    if listen.len() > LISTENERS {
        warn(&format!("only the first {LISTENERS} listeners are answered for"));
    }
    if xdp.observe == observed::ALL {
        warn("everything is observed, so nothing is answered");
    }
    if xdp.mode == XdpMode::None {
        warn("mode is none: there is no program that could answer");
    }
}

/// The rate under `key`, and a burst that comes back in reasonable time.
fn rate_and_burst(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    hint: &str,
) -> Option<(Rate, NonZeroU32)> {
    let rate = table.require(walk, key, hint);
    let rate = rate.and_then(|field| walk.value(&field, units::rate));
    let burst = table
        .value(walk, "burst", number(1..=1_000_000))
        .and_then(NonZeroU32::new);
    let rate = rate?;
    let burst = burst.unwrap_or(rate.count);
    if rate.per.saturating_mul(burst.get()) / rate.count.get() > MOST_REFILL {
        let wrong = Wrong::new(format!(
            "a burst of {burst} comes back only after more than an hour"
        ));
        walk.fault(&table.field, wrong.hint("raise the rate or lower the burst"));
    }
    Some((rate, burst))
}

/// Which prefixes a limit may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefixes {
    /// Of IPv6 only: an IPv4 address is one source.
    Source,
    Network,
    None,
}

fn read(walk: &mut Walk, table: &mut Table<'_>, prefixes: Prefixes) -> Option<PacketLimit> {
    let hint = "packets of one source, such as rate: 50/s";
    let measured = rate_and_burst(walk, table, "rate", hint);
    let mut prefix = |key, default: u8, least| {
        let bits = table.value_or(
            walk,
            key,
            u32::from(default),
            number(least..=if key == "ipv4_prefix" { 32 } else { 128 }),
        );
        u8::try_from(bits).unwrap_or(default)
    };
    let (ipv4_prefix, ipv6_prefix) = match prefixes {
        Prefixes::Source => (32, prefix("ipv6_prefix", defaults::SYN_IPV6_PREFIX, 32)),
        Prefixes::Network => (
            prefix("ipv4_prefix", defaults::AGGREGATE_PREFIXES.0, 8),
            prefix("ipv6_prefix", defaults::AGGREGATE_PREFIXES.1, 16),
        ),
        Prefixes::None => (0, 0),
    };
    let (rate, burst) = measured?;
    Some(PacketLimit {
        rate,
        burst,
        ipv4_prefix,
        ipv6_prefix,
    })
}

/// The bits of `observe`: a list of names.
pub(super) fn observe(walk: &mut Walk, table: &mut Table<'_>) -> u32 {
    let mut bits = 0;
    for item in table.list(walk, "observe") {
        if let Some(bit) = walk.value(&item, choice(&OBSERVABLE)) {
            warn_of_observing(walk, &item, bit);
            bits |= bit;
        }
    }
    bits
}

/// What is observed drops nothing, and somebody may have forgotten it.
fn warn_of_observing(walk: &mut Walk, item: &Field<'_>, bit: u32) {
    let name = OBSERVABLE
        .iter()
        .find(|(_, bits)| *bits == bit)
        .map_or("", |(name, _)| *name);
    walk.warn(
        item,
        Wrong::new(format!(
            "{} is observed: it is counted and drops nothing",
            quote(name)
        )),
    );
}

/// The checks that are on: all of them, but those that `malformed` switches off by name.
///
/// On the loopback device a packet's source is a loopback address and often its destination, so these two checks are off
/// there unless they are switched on by name.
pub(super) fn malformed(walk: &mut Walk, table: &mut Table<'_>, interfaces: &[String]) -> u32 {
    let mut bits = defaults::malformed();
    if interfaces.iter().any(|interface| interface == LOOPBACK) {
        bits &=
            !DropReason::LoopbackSource.malformed_bit() & !DropReason::SourceIsDestination.malformed_bit();
    }
    let Some(field) = table.get(walk, "malformed") else {
        return bits;
    };
    let switched = walk.table(&field, |walk, table| {
        for reason in DropReason::ALL
            .iter()
            .filter(|reason| reason.malformed_bit() != 0)
        {
            match table.value(walk, reason.name(), truth) {
                Some(true) => bits |= reason.malformed_bit(),
                Some(false) => bits &= !reason.malformed_bit(),
                None => {}
            }
        }
        bits
    });
    switched.unwrap_or(bits)
}
