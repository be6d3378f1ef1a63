//! Comma-separated values (RFC 4180, each record on one line), also with semicolons or tabs.

use std::io::BufRead;

use super::{Imported, Numbered, Progress, times};
use crate::config::units;
use crate::dataplane::lines::{Line, Reasons};

const ADDRESS: &[&str] = &["cidr", "network", "address", "ip", "ip_address", "prefix"];
const REASON: &[&str] = &["reason", "comment", "description"];
const TTL: &[&str] = &["ttl"];
const EXPIRES: &[&str] = &["expires", "until", "expires_at"];

/// Which column says what.
#[derive(Clone, Copy, Debug, Default)]
struct Columns {
    address: usize,
    reason: Option<usize>,
    ttl: Option<usize>,
    expires: Option<usize>,
}

/// Whether a line names the column of the networks.
pub fn is_header(line: &str) -> bool {
    fields(line, separator(line)).is_ok_and(|fields| Columns::of(&fields).is_some())
}

pub fn read(
    input: impl BufRead,
    imported: &mut Imported,
    now_ms: u64,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let mut lines = Numbered::new(input);
    let mut form: Option<(char, Columns)> = None;
    while let Some((number, line)) = lines.next()? {
        progress.read(number);
        let line = match line {
            Ok(line) => line.trim_end_matches(['\r', '\n']),
            Err(why) => {
                imported.bad(format_args!("line {number}"), why);
                continue;
            }
        };
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let first = form.is_none();
        let (separator, columns) = *form.get_or_insert_with(|| (separator(line), Columns::default()));
        let fields = match fields(line, separator) {
            Ok(fields) => fields,
            Err(why) => {
                imported.bad(format_args!("line {number}"), why);
                continue;
            }
        };
        if let Some(columns) = first.then(|| Columns::of(&fields)).flatten() {
            form = Some((separator, columns));
            continue;
        }
        match columns.entry(&fields, now_ms, &mut imported.reasons) {
            Ok(entry) => imported.take(number, entry),
            Err(why) => imported.bad(format_args!("line {number}"), why),
        }
    }
    Ok(())
}

impl Columns {
    /// From a header; `None` if it is none.
    fn of(fields: &[String]) -> Option<Self> {
        let find = |names: &[&str]| {
            let known = |name: &&str| {
                fields
                    .iter()
                    .position(|field| field.trim().eq_ignore_ascii_case(name))
            };
            names.iter().find_map(known)
        };
        Some(Self {
            address: find(ADDRESS)?,
            reason: find(REASON),
            ttl: find(TTL),
            expires: find(EXPIRES),
        })
    }

    fn entry(&self, fields: &[String], now_ms: u64, reasons: &mut Reasons) -> Result<Line, String> {
        let field = |at: usize| {
            fields
                .get(at)
                .map(|text| text.trim())
                .filter(|text| !text.is_empty())
        };
        let net = field(self.address).ok_or_else(|| format!("has no column {}", self.address + 1))?;
        let net = units::network(net).map_err(|fault| fault.to_string())?;
        let text = |column: Option<usize>| column.and_then(field);
        let until_ms = match (text(self.expires), text(self.ttl)) {
            (Some(moment), _) => Some(times::moment(moment)?),
            (None, Some(ttl)) => Some(times::after(ttl, now_ms)?),
            (None, None) => None,
        };
        Ok(Line {
            net,
            until_ms,
            forced: false,
            reason: text(self.reason).map(|reason| reasons.share(reason)),
        })
    }
}

/// What stands between the fields of a list that begins with this line.
fn separator(line: &str) -> char {
    let count = |separator: char| line.matches(separator).count();
    let most = [',', '\t', ';']
        .into_iter()
        .rev()
        .max_by_key(|separator| count(*separator));
    most.unwrap_or(',')
}

fn fields(line: &str, separator: char) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let trimmed = rest.trim_start_matches(' ');
        let after = match trimmed.strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = unquote(quoted).ok_or("a quote is not closed on its line")?;
                fields.push(field);
                after.trim_start_matches(' ')
            }
            None => {
                let end = rest.find(separator).unwrap_or(rest.len());
                fields.push(rest[..end].to_owned());
                &rest[end..]
            }
        };
        match after.strip_prefix(separator) {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("something follows a closing quote".to_owned()),
        }
    }
}

/// The field before the closing quote, and what stands behind it. Two quotes are one that is meant.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}
