//! When a request may be sent again: which failures, how often, and within which budget. Whether repeating is safe for
//! the request itself is the caller's to say.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use http::StatusCode;
use tokio::time::Instant;

use crate::config::model::Retries;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Connect,
    /// The connection ended before the first byte of an answer.
    Reset,
    /// It took longer than one try may.
    Timeout,
    /// It took all the time that there was for the request.
    Overdue,
    Status(StatusCode),
    /// What came is no answer: asking again would bring more of it.
    Malformed,
}

impl Retries {
    pub(super) fn covers(&self, cause: Cause) -> bool {
        match cause {
            Cause::Connect => self.connect,
            Cause::Reset => self.reset,
            Cause::Timeout => self.timeout,
            Cause::Status(status) => self.statuses.contains(&status),
            Cause::Overdue | Cause::Malformed => false,
        }
    }
}

/// A retry, in the units of the budget.
const RETRY: i64 = 100;
/// Retries that can be saved up, or what ten seconds give if that is more: a quiet night must not pay for a storm.
const MOST_SAVED: i64 = 100;
const SAVED_SECONDS: i64 = 10;

/// Retries that are left, over all workers: so many for each hundred requests, and so many a second.
#[derive(Debug)]
pub(super) struct Budget {
    /// In hundredths of a retry.
    left: AtomicI64,
    most: i64,
    share: i64,
    per_second: i64,
    made: Instant,
    /// Milliseconds after `made` up to which the time has been paid for.
    paid: AtomicU64,
}

impl Budget {
    pub(super) fn new(model: &Retries) -> Self {
        let per_second = i64::from(model.budget_per_second);
        let most = (per_second * SAVED_SECONDS).max(MOST_SAVED) * RETRY;
        Self {
            left: AtomicI64::new(per_second * RETRY),
            most,
            share: i64::from(model.budget_percent),
            per_second,
            made: Instant::now(),
            paid: AtomicU64::new(0),
        }
    }

    /// For each request.
    pub(super) fn deposit(&self) {
        if self.left.load(Ordering::Relaxed) < self.most {
            self.left.fetch_add(self.share, Ordering::Relaxed);
        }
    }

    /// For each retry; `false` if it is not covered.
    pub(super) fn withdraw(&self) -> bool {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        let paid = self.paid.fetch_max(now, Ordering::Relaxed);
        let earned = i64::try_from(now.saturating_sub(paid)).unwrap_or(i64::MAX);
        let earned = earned.saturating_mul(self.per_second) / 10;
        let take = |left: i64| {
            let left = left.saturating_add(earned).min(self.most);
            Some(if left >= RETRY { left - RETRY } else { left })
        };
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        before.is_ok_and(|left| left.saturating_add(earned).min(self.most) >= RETRY)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::defaults;

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_a_share_of_requests_and_a_rate() {
        let budget = Budget::new(&defaults::retries());
        let spend = || (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(spend(), 3, "a second's worth to begin with");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!(spend(), 10, "a fifth of fifty");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(spend(), 6);
        tokio::time::advance(Duration::from_secs(100_000)).await;
        assert_eq!(spend(), 100, "saved up to a bound");
        for _ in 0..100_000 {
            budget.deposit();
        }
        assert_eq!(spend(), 100);
    }
}
