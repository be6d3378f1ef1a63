//! The form of `rules.txt`. Pure but for the file that it is handed to write to.
//!
//! ```text
//! gateway rules 2
//! D 203.0.113.7 until=1800000000000 # scanner      deny; `A` for allow
//! d 203.0.113.7                                     no more; `d *` for all of the list
//! = 2 9ae16a3b2f90404f                              the lines of this transaction, and their checksum
//! ```

use std::fs::File;
use std::io::Write as _;

use ipnet::IpNet;

use super::{RuleList, Saved};
use crate::dataplane::lines::{self, Reasons};

const HEAD: &str = "gateway rules 2\n";
/// Bytes written at one time.
const CHUNK: usize = 1 << 18;

/// One line.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    Put {
        list: RuleList,
        net: IpNet,
        until_ms: Option<u64>,
        forced: bool,
        reason: Option<&'a str>,
    },
    Remove {
        list: RuleList,
        net: IpNet,
    },
    Flush {
        list: RuleList,
    },
}

/// FNV-1a. It finds damage, not malice: who can write the file can write the checksum.
struct Sum(u64);

impl Sum {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Writes one transaction where the file stands. Returns bytes and lines.
pub fn transaction<'a>(
    mut file: &File,
    records: impl Iterator<Item = Record<'a>>,
) -> std::io::Result<(u64, usize)> {
    let (mut sum, mut text) = (Sum::new(), Vec::with_capacity(CHUNK + 4096));
    let (mut bytes, mut lines) = (0, 0);
    for record in records {
        lines += 1;
        put(&mut text, &record);
        if text.len() >= CHUNK {
            sum.add(&text);
            file.write_all(&text)?;
            bytes += text.len() as u64;
            text.clear();
        }
    }
    sum.add(&text);
    text.extend_from_slice(format!("= {lines} {:016x}\n", sum.0).as_bytes());
    file.write_all(&text)?;
    Ok((bytes + text.len() as u64, lines))
}

/// Writes a whole file. Returns bytes and lines.
pub fn whole<'a>(mut file: &File, rules: impl Iterator<Item = Record<'a>>) -> std::io::Result<(u64, usize)> {
    file.write_all(HEAD.as_bytes())?;
    let (bytes, lines) = transaction(file, rules)?;
    Ok((bytes + HEAD.len() as u64, lines))
}

fn put(text: &mut Vec<u8>, record: &Record<'_>) {
    let letter = |list, put: bool| match (list, put) {
        (RuleList::Allow, true) => b'A',
        (RuleList::Allow, false) => b'a',
        (RuleList::Deny, true) => b'D',
        (RuleList::Deny, false) => b'd',
    };
    match *record {
        Record::Put {
            list,
            net,
            until_ms,
            forced,
            reason,
        } => {
            text.extend_from_slice(&[letter(list, true), b' ']);
            lines::put(text, &net, until_ms, forced, reason);
        }
        Record::Remove { list, net } => {
            text.extend_from_slice(&[letter(list, false), b' ']);
            lines::put_net(text, &net);
            text.push(b'\n');
        }
        Record::Flush { list } => text.extend_from_slice(&[letter(list, false), b' ', b'*', b'\n']),
    }
}

/// Reads a file. Returns the rules that stand at its end in their order, and the bytes and lines of whole transactions.
pub fn read(bytes: &[u8]) -> Result<(Vec<Saved>, u64, usize), String> {
    let Some(mut rest) = bytes.strip_prefix(HEAD.as_bytes()) else {
        return Err(format!("it does not begin with {:?}", HEAD.trim_end()));
    };
    let mut state = State {
        changes: Vec::with_capacity(rest.iter().filter(|byte| **byte == b'\n').count()),
        reasons: Reasons::default(),
    };
    let (mut good, mut lines) = (HEAD.len(), 0);
    while let Some((size, count)) = next(rest, lines)? {
        let body = &rest[..size.body];
        state.play(body, lines)?;
        rest = &rest[size.all..];
        good += size.all;
        lines += count;
    }
    Ok((state.rules(), good as u64, lines))
}

struct Size {
    body: usize,
    all: usize,
}

/// The sizes of the next whole transaction and the number of its lines; `None` if there is no other.
fn next(rest: &[u8], before: usize) -> Result<Option<(Size, usize)>, String> {
    let (mut at, mut count, mut sum) = (0, 0, Sum::new());
    while let Some(end) = rest[at..].iter().position(|byte| *byte == b'\n') {
        let line = &rest[at..=at + end];
        if line.starts_with(b"= ") {
            let told = format!("= {count} {:016x}\n", sum.0);
            if line != told.as_bytes() {
                return Err(format!(
                    "the checksum after {} lines is not that of the lines before it",
                    before + count
                ));
            }
            let all = at + line.len();
            return Ok(Some((Size { body: at, all }, count)));
        }
        sum.add(line);
        count += 1;
        at += line.len();
    }
    Ok(None)
}

/// The rules as they were put and removed.
struct State {
    /// Puts, and removals marked `false`; the last of a network holds.
    changes: Vec<(Saved, bool)>,
    reasons: Reasons,
}

impl State {
    fn play(&mut self, body: &[u8], before: usize) -> Result<(), String> {
        let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        for (number, line) in body.lines().enumerate() {
            self.step(line)
                .map_err(|why| format!("line {}: {why}", before + number + 2))?;
        }
        Ok(())
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        let unknown = || format!("{line:?} is not understood");
        let (letter, rest) = line.split_once(' ').ok_or_else(unknown)?;
        let (list, put) = match letter {
            "A" => (RuleList::Allow, true),
            "a" => (RuleList::Allow, false),
            "D" => (RuleList::Deny, true),
            "d" => (RuleList::Deny, false),
            _ => return Err(unknown()),
        };
        if !put && rest == "*" {
            self.changes.retain(|(rule, _)| rule.list != list);
            return Ok(());
        }
        let line = lines::read(rest, &mut self.reasons)?;
        let saved = Saved {
            list,
            net: line.net,
            until_ms: line.until_ms,
            reason: line.reason,
            forced: line.forced,
        };
        self.changes.push((saved, put));
        Ok(())
    }

    fn rules(self) -> Vec<Saved> {
        let mut changes = self.changes;
        let key = |rule: &Saved| (rule.list, rule.net);
        if !changes.is_sorted_by(|a, b| key(&a.0) < key(&b.0)) {
            // Stable: what came later stays later.
            changes.sort_by_key(|(rule, _)| key(rule));
            changes.dedup_by(|later, kept| {
                let same = key(&later.0) == key(&kept.0);
                if same {
                    std::mem::swap(later, kept);
                }
                same
            });
        }
        changes.retain(|(_, there)| *there);
        changes.into_iter().map(|(rule, _)| rule).collect()
    }
}
