//! `import` and `export`: lists of networks from files of several forms into force, and back.

pub mod aggregate;
mod csv;
mod json;
mod options;
mod progress;
mod run;
mod source;
mod text;
pub(super) mod times;

use std::io::{BufRead, Read};

use ipnet::IpNet;

use crate::dataplane::lines::{Line, Reasons};

pub use options::{Format, ImportArgs};
pub use progress::Progress;
pub use run::{export, import};
pub use text::line;

/// Bad lines shown before the rest is only counted.
pub const SHOWN: usize = 20;
/// Longest line, in bytes; no more of a file without line ends is ever held.
const MOST_LINE: u64 = 1 << 16;
/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A list as read, in the order of networks, each once, as its last mention has it.
#[derive(Debug, Default)]
pub struct Imported {
    pub entries: Vec<Line>,
    /// Mentions of a network that is mentioned again later.
    pub repeated: usize,
    /// Entries that had ended before.
    pub ended: usize,
    /// `line 7: why`, as far as shown.
    pub bad: Vec<String>,
    pub bad_count: usize,
    /// Which networks stand where: number of the line, or of the JSON entry.
    mentions: Vec<(IpNet, u32)>,
    /// What is counted: `line` or `entry`.
    unit: &'static str,
    reasons: Reasons,
}

/// Reads a list of any form. `now_ms`, in milliseconds since 1970, is what a time to live counts from; `name` is the
/// file's and helps to tell its form.
pub fn read(
    mut input: impl BufRead,
    format: Format,
    name: &str,
    now_ms: u64,
    progress: &mut Progress,
) -> std::io::Result<Imported> {
    let mut start = Vec::new();
    (&mut input).take(MOST_LINE).read_to_end(&mut start)?;
    if start.starts_with(BYTE_ORDER_MARK) {
        start.drain(..BYTE_ORDER_MARK.len());
    }
    let format = match format {
        Format::Auto => source::guess(&start, name),
        told => told,
    };
    let input = std::io::Cursor::new(start).chain(input);
    let mut imported = Imported {
        unit: if format == Format::Json { "entry" } else { "line" },
        ..Imported::default()
    };
    match format {
        Format::Csv => csv::read(input, &mut imported, now_ms, progress)?,
        Format::Json => json::read(input, &mut imported, now_ms, progress)?,
        Format::Text | Format::Auto => text::read(input, &mut imported, progress)?,
    }
    imported.settle(now_ms);
    Ok(imported)
}

impl Imported {
    fn take(&mut self, number: usize, entry: Line) {
        self.mentions
            .push((entry.net, u32::try_from(number).unwrap_or(u32::MAX)));
        self.entries.push(entry);
    }

    fn bad(&mut self, place: impl std::fmt::Display, why: impl std::fmt::Display) {
        self.bad_count += 1;
        if self.bad.len() < SHOWN {
            self.bad.push(format!("{place}: {why}"));
        }
    }

    /// Brings the entries in order, each network once, and leaves out what has ended.
    fn settle(&mut self, now_ms: u64) {
        let before = self.entries.len();
        self.entries.sort_by_key(|entry| entry.net);
        self.entries.dedup_by(|later, kept| {
            let same = later.net == kept.net;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        self.repeated = before - self.entries.len();
        let before = self.entries.len();
        self.entries
            .retain(|entry| entry.until_ms.is_none_or(|until| until > now_ms));
        self.ended = before - self.entries.len();
    }
}

/// Lines of a file, with their numbers, each at most [`MOST_LINE`] long.
struct Numbered<R> {
    input: R,
    number: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Numbered<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            number: 0,
            line: Vec::with_capacity(256),
        }
    }

    /// The next line and its number; `Err` says what is wrong with it. `None` at the end.
    fn next(&mut self) -> std::io::Result<Option<(usize, Result<&str, String>)>> {
        self.line.clear();
        let size = (&mut self.input)
            .take(MOST_LINE)
            .read_until(b'\n', &mut self.line)?;
        if size == 0 {
            return Ok(None);
        }
        self.number += 1;
        if size as u64 == MOST_LINE && !self.line.ends_with(b"\n") {
            self.input.skip_until(b'\n')?;
            return Ok(Some((
                self.number,
                Err(format!("is longer than {MOST_LINE} bytes")),
            )));
        }
        let line = std::str::from_utf8(&self.line).map_err(|_| {
            let start = String::from_utf8_lossy(&self.line[..size.min(40)]).into_owned();
            format!("{:?} is not UTF-8", start.trim_end())
        });
        Ok(Some((self.number, line)))
    }
}

#[cfg(test)]
mod tests;
