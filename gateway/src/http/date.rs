//! The text of a `Date` line (RFC 9110, 6.6.1), made once a second.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Length of an IMF-fixdate, in bytes.
const LENGTH: usize = 29;

/// The current date as text.
#[derive(Debug)]
pub(super) struct Date {
    text: [u8; LENGTH],
    good_until: Option<Instant>,
}

impl Default for Date {
    fn default() -> Self {
        Self {
            text: [b' '; LENGTH],
            good_until: None,
        }
    }
}

impl Date {
    /// The text at `now`. At most a second late.
    pub(super) fn at(&mut self, now: Instant) -> [u8; LENGTH] {
        if self.good_until.is_none_or(|until| until <= now) {
            let text = httpdate::fmt_http_date(SystemTime::now());
            if let Ok(text) = text.as_bytes().try_into() {
                self.text = text;
            }
            self.good_until = Some(now + Duration::from_secs(1));
        }
        self.text
    }
}
