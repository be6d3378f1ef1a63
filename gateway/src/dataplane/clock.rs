//! The two clocks of a deadline. Owns their conversion; everything else is handed a [`Now`].

use rustix::time::{ClockId, clock_gettime};

/// One moment on both clocks.
///
/// The kernel compares deadlines with `CLOCK_BOOTTIME`, which runs on through suspend and starts again at boot;
/// what is kept on disk uses wall-clock time, which survives a boot but can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

const NS_PER_MS: u64 = 1_000_000;

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let wall = clock_gettime(ClockId::Realtime);
        let ns = |t: rustix::time::Timespec| {
            u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000)
                + u64::try_from(t.tv_nsec).unwrap_or(0)
        };
        Self {
            boot_ns: ns(boot),
            wall_ms: ns(wall) / NS_PER_MS,
        }
    }

    /// The boot-clock moment of a wall-clock one; a moment that has passed becomes the earliest that has passed.
    #[must_use]
    pub fn boot_of_wall(&self, wall_ms: u64) -> u64 {
        if wall_ms >= self.wall_ms {
            self.boot_ns
                .saturating_add((wall_ms - self.wall_ms).saturating_mul(NS_PER_MS))
        } else {
            self.boot_ns
                .saturating_sub((self.wall_ms - wall_ms).saturating_mul(NS_PER_MS))
                .max(1)
        }
    }

    /// The wall-clock moment of a boot-clock one.
    #[must_use]
    pub fn wall_of_boot(&self, boot_ns: u64) -> u64 {
        if boot_ns >= self.boot_ns {
            self.wall_ms.saturating_add((boot_ns - self.boot_ns) / NS_PER_MS)
        } else {
            self.wall_ms.saturating_sub((self.boot_ns - boot_ns) / NS_PER_MS)
        }
    }

    /// The boot-clock moment `lasts` from now.
    #[must_use]
    pub fn after(&self, lasts: std::time::Duration) -> u64 {
        self.boot_ns
            .saturating_add(u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX / 2))
            .max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_round_trips_both_ways_of_now() {
        let now = Now {
            boot_ns: 5_000_000_000,
            wall_ms: 1_700_000_000_000,
        };
        for wall in [now.wall_ms - 4_000, now.wall_ms, now.wall_ms + 60_000] {
            assert_eq!(now.wall_of_boot(now.boot_of_wall(wall)), wall);
        }
    }

    #[test]
    fn a_moment_before_boot_has_passed_and_is_not_mistaken_for_never() {
        let now = Now {
            boot_ns: 5_000_000_000,
            wall_ms: 1_700_000_000_000,
        };
        let deadline = now.boot_of_wall(1);
        assert!(deadline != gateway_common::tables::NEVER && deadline < now.boot_ns);
    }
}
