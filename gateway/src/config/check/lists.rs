//! Lists of networks: inline entries and list files.
//!
//! Owns the form of a list file: one address or network a line, `#` or `;` to the end of the line is a comment, blank
//! lines are skipped. Files are read line by line, as a feed of a million lines is ordinary; memory grows with what is
//! kept only. Duplicates in a file are ordinary too (feeds are joined from others); twice by hand is a mistake.

use std::collections::{BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

use ipnet::IpNet;

use super::files;
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Excerpt, Fault, Wrong, counted, quote};
use crate::config::raw::Value;
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
    pub parts: Vec<Part<'t>>,
    seen: HashSet<IpNet>,
}

pub(super) struct Part<'t> {
    pub field: Field<'t>,
    pub range: Range<usize>,
    pub from_file: bool,
}

/// A plain list of networks, without files.
pub(super) fn networks(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    for item in table.list(walk, key) {
        let Some(net) = walk.value(&item, units::network) else {
            continue;
        };
        if nets.contains(&net) {
            walk.fault(&item, twice(net));
        } else if units::is_everything(&net) {
            let wrong = Wrong::new(format!(
                "{net} is everyone: any client can claim any address, and none is ever blocked"
            ));
            walk.warn(&item, wrong.hint("name the proxies' own networks"));
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
                let path = files::named(walk, &field)?;
                if let Err(wrong) = listed.file(walk, &field, &path) {
                    walk.fault(&field, wrong);
                }
                Some(())
            });
        } else if let Some(net) = walk.value(&item, units::network) {
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

impl Listed<'_> {
    /// Takes up a list file; `Err` if it can not be read. Bad lines are faults of their own.
    fn file(&mut self, walk: &mut Walk, field: &Field<'_>, path: &Path) -> Result<(), Wrong> {
        let mut reader = BufReader::with_capacity(1 << 16, files::open(path)?);
        let name = path.display().to_string();
        if !walk.files.contains(&name) {
            walk.files.push(name.clone());
        }
        let (mut number, mut bad, mut doubles) = (0_u32, 0_usize, 0_usize);
        let mut line = Vec::with_capacity(128);
        let failed = |error: std::io::Error| Wrong::new(format!("can not read {}: {error}", quote(&name)));
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
                Ok(Some(net)) if self.seen.insert(net) => self.nets.push(net),
                Ok(Some(_)) => doubles += 1,
                Err((before, wrong)) => {
                    bad += 1;
                    if bad <= MOST_FAULTS {
                        walk.faults
                            .error(at_line(field, &name, number, before, &line, wrong));
                    }
                }
            }
            if self.nets.len() > MOST_ENTRIES {
                return Err(Wrong::new(format!(
                    "the list has more than {MOST_ENTRIES} entries"
                )));
            }
        }
        if bad > MOST_FAULTS {
            let more = counted(bad - MOST_FAULTS, "more bad line");
            walk.fault(field, Wrong::new(format!("and {more} in {}", quote(&name))));
        }
        if doubles > 0 {
            let times = counted(doubles, "line");
            walk.warn(
                field,
                Wrong::new(format!("{times} of {} repeat an earlier entry", quote(&name))),
            );
        }
        Ok(())
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

fn at_line(field: &Field<'_>, file: &str, line: u32, before: usize, bytes: &[u8], wrong: Wrong) -> Fault {
    let column = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
    Fault {
        file: file.to_owned(),
        line,
        column,
        path: field.path.clone(),
        message: wrong.message,
        hint: wrong.hint,
        excerpt: Some(Excerpt::of(&String::from_utf8_lossy(bytes), column)),
    }
}
