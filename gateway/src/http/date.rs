//! The time of day, read once a second: as the text of a `Date` line (RFC 9110, 6.6.1), and in seconds for credentials
//! that expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Length of an IMF-fixdate, in bytes.
const LENGTH: usize = 29;

/// The current date as text.
#[derive(Debug)]
pub(super) struct Date {
    text: [u8; LENGTH],
    seconds: u64,
    good_until: Option<Instant>,
}

impl Default for Date {
    fn default() -> Self {
        Self {
            text: [b' '; LENGTH],
            seconds: 0,
            good_until: None,
        }
    }
}

impl Date {
    /// The text at `now`.
    pub(super) fn at(&mut self, now: Instant) -> [u8; LENGTH] {
        self.read(now);
        self.text
    }

    /// Seconds since 1970 at `now`. Of the second that has begun, as everybody else's clock tells it.
    pub(super) fn seconds(&mut self, now: Instant) -> u64 {
        self.read(now);
        self.seconds
    }

    fn read(&mut self, now: Instant) {
        if self.good_until.is_some_and(|until| now < until) {
            return;
        }
        let time = SystemTime::now();
        if let Ok(text) = httpdate::fmt_http_date(time).as_bytes().try_into() {
            self.text = text;
        }
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.seconds = since.as_secs();
        // Until the second is over, not for a whole one: what expires would live on in one worker and not in another.
        self.good_until =
            Some(now + (Duration::from_secs(1) - Duration::from_nanos(since.subsec_nanos().into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_behind_the_clock() {
        let mut date = Date::default();
        let begun = Instant::now();
        let mut told = Vec::new();
        while begun.elapsed() < Duration::from_millis(2_100) {
            let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let seconds = date.seconds(Instant::now());
            // The two clocks are read one after the other.
            let slack = Duration::from_millis(20);
            assert!(
                seconds >= (before - slack).as_secs(),
                "{seconds}: it is {before:?}"
            );
            told.push(seconds);
            std::thread::sleep(Duration::from_millis(7));
        }
        told.dedup();
        assert!((2..=4).contains(&told.len()), "{told:?}");
    }
}
