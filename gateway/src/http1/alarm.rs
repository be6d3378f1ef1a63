//! A deadline that may move at every turn and costs the timer wheel nothing when it does.
//!
//! Setting a timer anew for each request takes the runtime's lock twice. So the timer is left to fire at the old time, if that is
//! earlier, and only then set to what the deadline is by now: once in a deadline's length instead of once in a request.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer, made when it is first waited for.
#[derive(Debug, Default)]
pub struct Alarm {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once it is `until`. Wakes the task now and then for nothing.
    pub fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until || Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_either_way_is_met() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        let at = |secs| start + Duration::from_secs(secs);
        let early = tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| alarm.poll(cx, at(10)))).await;
        assert!(early.is_err());
        poll_fn(|cx| alarm.poll(cx, at(20))).await;
        assert_eq!(start.elapsed().as_secs(), 20);
        let parked = tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| alarm.poll(cx, at(90)))).await;
        assert!(parked.is_err());
        poll_fn(|cx| alarm.poll(cx, at(30))).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        poll_fn(|cx| alarm.poll(cx, at(30))).await;
    }
}
