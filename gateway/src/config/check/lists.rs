//! Lists of networks: inline entries and list files.
//!
//! Owns the form of a list file: one address or network a line, `#` or `;` to the end of the line is a comment, blank
//! lines are skipped. Files are read line by line, as a feed of a million lines is ordinary; memory grows with what is
//! kept only. Duplicates in a file are ordinary too (feeds are joined from others); twice by hand is a mistake.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::files;
use super::xdp::too_many;
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Excerpt, Fault, Faults, Wrong, counted, quote};
use crate::config::model::{Capacity, FileStamp, ListFile, ListSources};
use crate::config::raw::Value;
use crate::config::scalar::{or_off, within};
use crate::config::units;

/// Longest line of a list file, in bytes, comment included.
const MOST_LINE: u64 = 4096;
/// Most entries kept from all files of a list, above any capacity that can be configured.
const MOST_ENTRIES: usize = 1 << 25;
/// Faults told one by one for each file.
const MOST_FAULTS: usize = 20;

/// The networks of one list, and which entry of the configuration they came from.
#[derive(Default)]
pub(super) struct Listed<'t> {
    pub nets: Vec<IpNet>,
    pub sources: ListSources,
    pub parts: Vec<Part<'t>>,
    seen: HashSet<IpNet>,
}

pub(super) struct Part<'t> {
    pub field: Field<'t>,
    pub range: Range<usize>,
    pub from_file: bool,
}

/// A plain list of networks, of which none is too large.
pub(super) fn clients(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Vec<IpNet> {
    plain(walk, table, key, |_, _, _| {})
}

/// A plain list of the networks of proxies, without files.
pub(super) fn networks(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Vec<IpNet> {
    plain(walk, table, key, |walk, item, net| {
        if units::is_everything(net) {
            let wrong = Wrong::new(format!(
                "{net} is everyone: any client can claim any address, and none is ever blocked"
            ));
            walk.warn(item, wrong.hint("name the proxies' own networks"));
        }
    })
}

/// Networks, each looked at by `judge` when it is met first.
fn plain(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    judge: impl Fn(&mut Walk, &Field<'_>, &IpNet),
) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    for item in table.list(walk, key) {
        let Some(net) = walk.value(&item, units::network) else {
            continue;
        };
        if nets.contains(&net) {
            walk.fault(&item, twice(net));
        } else {
            judge(walk, &item, &net);
        }
        nets.push(net);
    }
    nets
}

/// A list of networks and list files.
pub(super) fn listed<'t>(walk: &mut Walk, table: &mut Table<'t>, key: &'static str) -> Listed<'t> {
    let mut listed = Listed::default();
    for item in table.list(walk, key) {
        let start = listed.nets.len();
        let from_file = matches!(item.node.value, Value::Map(_));
        if from_file {
            walk.table(&item, |walk, table| {
                let field = table.require(walk, "file", "such as {file: drop.txt}")?;
                let every = table.value_or(walk, "every", Some(defaults::LIST_EVERY), or_off(every()));
                let path = files::named(walk, &field)?;
                let name = path.display().to_string();
                if !walk.files.contains(&name) {
                    walk.files.push(name);
                }
                match listed.file(&mut walk.faults, &field.path, &path) {
                    Ok(read) => {
                        if let Some(wrong) = read.more_bad(&path) {
                            walk.fault(&field, wrong);
                        }
                        if read.doubles > 0 {
                            let times = counted(read.doubles, "line");
                            let name = quote(&path.to_string_lossy());
                            let wrong = Wrong::new(format!("{times} of {name} repeat an earlier entry"));
                            walk.warn(&field, wrong);
                        }
                        listed.sources.files.push(ListFile {
                            path,
                            every,
                            stamp: read.stamp,
                            entries: read.entries,
                        });
                    }
                    Err(wrong) => walk.fault(&field, wrong),
                }
                Some(())
            });
        } else if let Some(net) = walk.value(&item, units::network) {
            listed.sources.inline.push(net);
            if listed.seen.insert(net) {
                listed.nets.push(net);
            } else if listed
                .parts
                .iter()
                .any(|part| !part.from_file && listed.nets[part.range.clone()] == [net])
            {
                walk.fault(&item, twice(net));
            }
        }
        let range = start..listed.nets.len();
        listed.parts.push(Part {
            field: item,
            range,
            from_file,
        });
    }
    listed
}

fn twice(net: IpNet) -> Wrong {
    Wrong::new(format!("{} is given twice", units::plain(net)))
}

fn every() -> impl FnOnce(&str) -> Result<Duration, Wrong> {
    let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    within(range, units::duration, units::show_duration)
}

/// A list that was read again.
#[derive(Debug)]
pub struct Reread {
    /// As [`Xdp`](crate::config::model::Xdp) has it.
    pub nets: Vec<IpNet>,
    /// The files as they were read.
    pub files: Vec<ListFile>,
}

/// Reads the files of a list again, `name` being its key. Whole or not at all: `capacity` is held to.
///
/// # Errors
/// A file that can not be read, a bad line, more than fits: what would be a fault of the configuration.
pub fn read_again(sources: &ListSources, name: &str, capacity: &Capacity) -> Result<Reread, Faults> {
    let mut listed = Listed::default();
    let mut faults = Faults::default();
    for net in &sources.inline {
        if listed.seen.insert(*net) {
            listed.nets.push(*net);
        }
    }
    let place = format!("xdp.{name}");
    let fault = |file: &str, wrong: Wrong| Fault {
        file: file.to_owned(),
        line: 0,
        column: 0,
        path: place.clone(),
        message: wrong.message,
        hint: wrong.hint,
        excerpt: None,
    };
    for file in &sources.files {
        let shown = file.path.display().to_string();
        match listed.file(&mut faults, &place, &file.path) {
            Ok(read) => {
                if let Some(wrong) = read.more_bad(&file.path) {
                    faults.error(fault(&shown, wrong));
                }
                listed.sources.files.push(ListFile {
                    stamp: read.stamp,
                    entries: read.entries,
                    ..file.clone()
                });
            }
            Err(wrong) => faults.error(fault(&shown, wrong)),
        }
    }
    let (addresses, prefixes) = match name {
        "allow" => (capacity.allow_addresses, capacity.allow_prefixes),
        _ => (capacity.deny_addresses, capacity.deny_prefixes),
    };
    let last = sources.files.last().map(|file| file.path.display().to_string());
    for wrong in too_many(&listed.nets, name, addresses, prefixes) {
        faults.error(fault(last.as_deref().unwrap_or_default(), wrong));
    }
    if faults.errors.is_empty() {
        Ok(Reread {
            nets: listed.nets,
            files: listed.sources.files,
        })
    } else {
        Err(faults)
    }
}

/// What came of reading a list file.
struct FileRead {
    stamp: FileStamp,
    entries: usize,
    bad: usize,
    doubles: usize,
}

impl FileRead {
    /// What is to be said of bad lines beyond those that were told one by one.
    fn more_bad(&self, path: &Path) -> Option<Wrong> {
        let more = self.bad.checked_sub(MOST_FAULTS).filter(|more| *more > 0)?;
        let more = counted(more, "more bad line");
        Some(Wrong::new(format!(
            "and {more} in {}",
            quote(&path.to_string_lossy())
        )))
    }
}

impl Listed<'_> {
    /// Takes up a list file that is named at `place`; `Err` if it can not be read. Bad lines are faults of their own.
    fn file(&mut self, faults: &mut Faults, place: &str, path: &Path) -> Result<FileRead, Wrong> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| Wrong::new(format!("can not read {}: {error}", quote(&name)));
        let file = files::open(path)?;
        // Before it is read: what is written meanwhile makes it another one.
        let stamp = FileStamp::from(&file.metadata().map_err(failed)?);
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let (mut number, mut bad, mut doubles, mut entries) = (0_u32, 0_usize, 0_usize, 0_usize);
        let mut line = Vec::with_capacity(128);
        loop {
            line.clear();
            if (&mut reader)
                .take(MOST_LINE)
                .read_until(b'\n', &mut line)
                .map_err(failed)?
                == 0
            {
                break;
            }
            number = number.saturating_add(1);
            let whole = line.ends_with(b"\n") || (line.len() as u64) < MOST_LINE;
            if !whole {
                reader.skip_until(b'\n').map_err(failed)?;
            }
            let read = if whole {
                entry(&line, number == 1)
            } else {
                Err((0, Wrong::new("the line is too long")))
            };
            match read {
                Ok(None) => {}
                Ok(Some(net)) => {
                    entries += 1;
                    if self.seen.insert(net) {
                        self.nets.push(net);
                    } else {
                        doubles += 1;
                    }
                }
                Err((before, wrong)) => {
                    bad += 1;
                    if bad <= MOST_FAULTS {
                        faults.error(at_line(place, &name, number, before, &line, wrong));
                    }
                }
            }
            if self.nets.len() > MOST_ENTRIES {
                return Err(Wrong::new(format!(
                    "the list has more than {MOST_ENTRIES} entries"
                )));
            }
        }
        Ok(FileRead {
            stamp,
            entries,
            bad,
            doubles,
        })
    }

    /// Which networks of this list lie wholly under one of `others`, by index.
    pub fn under<'a>(&'a self, others: &'a Self) -> impl Fn(usize) -> bool + 'a {
        let lengths: BTreeSet<(bool, u8)> = others
            .nets
            .iter()
            .map(|net| (is_v4(net), net.prefix_len()))
            .collect();
        move |index| {
            let net = self.nets[index];
            let shorter = lengths.range((is_v4(&net), 0)..=(is_v4(&net), net.prefix_len()));
            let mut wider = shorter.filter_map(|(_, len)| IpNet::new(net.addr(), *len).ok());
            wider.any(|wide| others.seen.contains(&wide.trunc()))
        }
    }
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// The network on one line, or what is wrong with it and how many bytes stand in front.
fn entry(line: &[u8], first: bool) -> Result<Option<IpNet>, (usize, Wrong)> {
    let line = if first {
        line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
    } else {
        line
    };
    let end = line
        .iter()
        .position(|byte| matches!(byte, b'#' | b';'))
        .unwrap_or(line.len());
    let text = line[..end].trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    let before = line.len() - line.trim_ascii_start().len();
    match std::str::from_utf8(text) {
        Ok(text) => units::network(text).map(Some).map_err(|wrong| (before, wrong)),
        Err(_) => Err((before, Wrong::new("the line is not text"))),
    }
}

fn at_line(place: &str, file: &str, line: u32, before: usize, bytes: &[u8], wrong: Wrong) -> Fault {
    let column = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    Fault {
        file: file.to_owned(),
        line,
        column,
        path: place.to_owned(),
        message: wrong.message,
        hint: wrong.hint,
        excerpt: Some(Excerpt::of(&String::from_utf8_lossy(bytes), column)),
    }
}
