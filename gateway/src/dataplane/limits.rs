//! What the configuration says of limits and checks, in the program's terms. Pure.

use std::time::Duration;

use gateway_common::limiter::cost;
use gateway_common::tables::{Limit, Settings, feature, limit};

use crate::config::model::{PacketLimit, Xdp};

/// The program's clock moves in ticks of the kernel's timer, 10 ms at the slowest (`CONFIG_HZ=100`), on each processor on
/// its own: on one it may be a tick behind another. A source must be able to use within one tick what its rate gives it
/// in one, and to have the last packet of a burst looked at by another processor than the first.
const TICK_NS: u64 = 10_000_000;
/// The part of the settings that the configuration decides; the keeper's own parts are left empty.
#[must_use]
pub fn settings(xdp: &Xdp) -> Settings {
    let mut settings = Settings {
        ready: 1,
        malformed: xdp.malformed,
        observe: xdp.observe,
        log_interval_ns: xdp.log_drops_every.map_or(0, nanos),
        event_interval_ns: nanos(xdp.events_every),
        ..Settings::default()
    };
    if settings.log_interval_ns > 0 {
        settings.features |= feature::LOG_DROPS;
    }
    let limits = [
        (limit::SYN, xdp.syn_limit.as_ref().map(rate)),
        (limit::SYN_AGGREGATE, xdp.syn_aggregate.as_ref().map(rate)),
        (
            limit::SYN_GLOBAL,
            xdp.syn_total.as_ref().map(|total| rate(total).of_all()),
        ),
        (limit::ICMP, xdp.icmp_limit.as_ref().map(rate)),
        (limit::UDP, xdp.udp_limit.as_ref().map(rate)),
    ];
    for (index, limit) in limits {
        if let Some(limit) = limit {
            settings.features |= feature::SYN_LIMIT << index;
            settings.limits[index as usize] = limit;
        }
    }
    settings
}

fn rate(limit: &PacketLimit) -> Limit {
    let (interval_ns, tolerance_ns) = cost(limit.rate.count.get(), nanos(limit.rate.per), limit.burst.get());
    let (v4_bits, v6_bits) = (u32::from(limit.ipv4_prefix), u32::from(limit.ipv6_prefix));
    Limit::new(
        (interval_ns, tolerance_ns.saturating_add(TICK_NS)),
        v4_bits,
        v6_bits,
    )
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
