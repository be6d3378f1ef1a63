//! The arithmetic of rates: GCRA, whose whole state of a key is one number, its *theoretical arrival time* (TAT): when the key
//! will have its whole burst again. Owns no state and no clock. All times are nanoseconds.

use crate::config::model::Rate;

/// One limit's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// What a request costs.
    interval: u64,
    /// How far ahead of now a TAT may be: the whole burst.
    burst: u64,
}

/// What is said of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub admitted: bool,
    /// Requests that would pass right behind this one.
    pub left: u64,
    /// Until the whole burst is there again.
    pub whole_in: u64,
    /// Until one would pass; zero if this one does.
    pub wait: u64,
}

impl Gcra {
    /// The interval is rounded up to the nanosecond, so a rate is never exceeded: 1,000,000/s is exact, 300,000/s is
    /// held to 299,940.
    #[must_use]
    pub fn new(rate: Rate, burst: u32) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rate.count.get())).max(1);
        Self {
            interval,
            burst: interval.saturating_mul(u64::from(burst.max(1))),
        }
    }

    /// The TAT after a request at `now`, of a key whose TAT was `tat`, at least `now`.
    #[must_use]
    pub fn decide(self, tat: u64, now: u64) -> (u64, Verdict) {
        let ahead = tat.saturating_sub(now);
        let next = ahead.saturating_add(self.interval);
        let admitted = next <= self.burst;
        let ahead = if admitted { next } else { ahead };
        let verdict = Verdict {
            admitted,
            left: self.burst.saturating_sub(ahead) / self.interval,
            whole_in: ahead,
            wait: if admitted { 0 } else { next - self.burst },
        };
        (now.saturating_add(ahead), verdict)
    }

    /// The TAT without one of the requests in it.
    #[must_use]
    pub fn refund(self, tat: u64) -> u64 {
        tat.saturating_sub(self.interval)
    }

    /// What a request costs.
    #[must_use]
    pub fn interval(self) -> u64 {
        self.interval
    }

    /// Time in which a spent burst comes back.
    #[must_use]
    pub fn window(self) -> u64 {
        self.burst
    }
}
