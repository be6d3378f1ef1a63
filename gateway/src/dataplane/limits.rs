//! What the configuration says of limits and checks, in the program's terms. Pure.

use std::time::Duration;

use gateway_common::limiter::cost;
use gateway_common::outcome::DropReason;
use gateway_common::tables::{Limit, Settings, feature, limit};

use crate::config::model::{SynLimit, Xdp};

/// The program's clock moves in ticks of the kernel's timer, 10 ms at the slowest (`CONFIG_HZ=100`). A source must be
/// able to use within one tick what its rate gives it in one, or a high rate with a small burst would never be reached.
const TICK_NS: u64 = 10_000_000;
/// An interface whose frames come from this host itself.
const LOOPBACK: &str = "lo";

/// The part of the settings that the configuration decides; the keeper's own parts are left empty.
#[must_use]
pub fn settings(xdp: &Xdp) -> Settings {
    let mut settings = Settings {
        ready: 1,
        malformed: checks(xdp),
        log_interval_ns: xdp.log_drops_every.map_or(0, nanos),
        ..Settings::default()
    };
    if settings.log_interval_ns > 0 {
        settings.features |= feature::LOG_DROPS;
    }
    if let Some(syn) = &xdp.syn_limit {
        settings.features |= feature::SYN_LIMIT;
        settings.limits[limit::SYN as usize] = rate(syn);
    }
    settings
}

fn rate(limit: &SynLimit) -> Limit {
    let (interval_ns, tolerance_ns) = cost(limit.rate.count.get(), nanos(limit.rate.per), limit.burst.get());
    Limit::new(
        (interval_ns, tolerance_ns.max(TICK_NS)),
        32,
        u32::from(limit.ipv6_prefix),
    )
}

/// Every check, but on the loopback device those that its own traffic would not pass.
fn checks(xdp: &Xdp) -> u32 {
    let all = DropReason::ALL
        .iter()
        .fold(0, |bits, reason| bits | reason.malformed_bit());
    if xdp.interfaces.iter().any(|interface| interface == LOOPBACK) {
        all & !DropReason::LoopbackSource.malformed_bit() & !DropReason::SourceIsDestination.malformed_bit()
    } else {
        all
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
