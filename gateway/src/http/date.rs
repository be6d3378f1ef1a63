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
    /// The text at `now`. At most a second late.
    pub(super) fn at(&mut self, now: Instant) -> [u8; LENGTH] {
        self.read(now);
        self.text
    }

    /// Seconds since 1970 at `now`. At most one late.
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
        self.seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.good_until = Some(now + Duration::from_secs(1));
    }
}
