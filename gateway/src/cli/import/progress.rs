//! How far long work has come, for those who wait at a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Work that takes less is not spoken of.
const PATIENCE: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(200);

/// One line on a terminal's standard error that is written over. Says nothing where there is no terminal.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    due: Instant,
    shown: bool,
}

impl Progress {
    /// Of work that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            due: Instant::now() + PATIENCE,
            shown: false,
        }
    }

    /// Of work that nobody watches.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            terminal: false,
            ..Self::new()
        }
    }

    /// `count` entries have been read. Cheap enough for each of them.
    pub fn read(&mut self, count: usize) {
        if self.terminal && count.is_multiple_of(4096) && Instant::now() >= self.due {
            self.say(&format!("{count} entries read"));
        }
    }

    /// A step that may take long begins.
    pub fn say(&mut self, what: &str) {
        if self.terminal {
            self.due = Instant::now() + EVERY;
            self.shown = true;
            let _ = write!(std::io::stderr(), "\r\x1b[K{what} …");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
