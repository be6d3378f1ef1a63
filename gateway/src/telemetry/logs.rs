//! The set-up of log output. Owns its format and where it goes: standard error.
//!
//! Logging never fails and never ends the process: a line that can not be written, as the disk is full or the reader of
//! a pipe has gone, is lost and counted.

use std::io::{self, IsTerminal as _, Write};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;

use crate::config::model::{Log, LogFormat};

/// Starts logging; `lost` counts the lines that could not be written. A second call changes nothing.
pub fn start(log: &Log, lost: Counter) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The subscriber would tell of its errors with `eprintln!`, which panics where standard error is the error.
        .log_internal_errors(false)
        .with_writer(move || Lossy {
            out: io::stderr(),
            lost: lost.clone(),
        });
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// A writer whose writes always succeed.
struct Lossy<W> {
    out: W,
    lost: Counter,
}

impl<W: Write> Write for Lossy<W> {
    /// The subscriber hands over whole lines. What is left of one after an error is dropped, not tried again.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.out.write_all(line).is_err() {
            self.lost.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.out.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_can_not_be_written_is_counted_and_is_no_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let mut log = Lossy {
            out: full.unwrap(),
            lost: Counter::default(),
        };
        for _ in 0..3 {
            log.write_all(b"a line\n").unwrap();
            log.flush().unwrap();
        }
        assert_eq!(log.lost.get(), 3);
    }
}
