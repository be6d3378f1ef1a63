//! Lists as text: one network a line. Owns the line's form for `import` and `export`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;
use std::time::Duration;

use ipnet::IpNet;

use crate::admin::api::EntryRow;

/// Bad lines shown before the rest is only counted.
const SHOWN: usize = 20;

/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A list as read: each network once, as its last line has it, with its end as milliseconds since 1970.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub entries: Vec<(IpNet, Option<u64>, Option<String>)>,
    /// Lines that name a network again.
    pub repeated: usize,
    /// `line: why`, as far as shown.
    pub bad: Vec<String>,
    pub bad_count: usize,
}

/// Reads `CIDR [until=SECONDS_SINCE_1970] [# reason]` lines.
pub fn read(input: impl BufRead) -> std::io::Result<Imported> {
    let mut imported = Imported::default();
    let mut places: HashMap<IpNet, usize> = HashMap::new();
    for (number, line) in input.split(b'\n').enumerate() {
        let line = line?;
        let line = match line.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if number == 0 => rest,
            _ => &line,
        };
        match parse(&String::from_utf8_lossy(line)) {
            Ok(Some(entry)) => match places.entry(entry.0) {
                Entry::Occupied(place) => {
                    imported.entries[*place.get()] = entry;
                    imported.repeated += 1;
                }
                Entry::Vacant(place) => {
                    place.insert(imported.entries.len());
                    imported.entries.push(entry);
                }
            },
            Ok(None) => {}
            Err(why) => {
                imported.bad_count += 1;
                if imported.bad.len() < SHOWN {
                    imported.bad.push(format!("line {}: {why}", number + 1));
                }
            }
        }
    }
    Ok(imported)
}

type Parsed = Option<(IpNet, Option<u64>, Option<String>)>;

fn parse(line: &str) -> Result<Parsed, String> {
    let (body, comment) = match line.find(['#', ';']) {
        Some(at) => (&line[..at], Some(line[at + 1..].trim())),
        None => (line, None),
    };
    let mut words = body.split_whitespace();
    let Some(first) = words.next() else {
        return Ok(None);
    };
    let net = crate::config::units::network(first).map_err(|fault| fault.to_string())?;
    let mut until = None;
    for word in words {
        let seconds = word
            .strip_prefix("until=")
            .ok_or_else(|| format!("{word:?} after the network"))?;
        let seconds: u64 = seconds
            .parse()
            .map_err(|_| format!("{seconds:?} is not seconds since 1970"))?;
        until = Some(seconds.saturating_mul(1_000));
    }
    Ok(Some((
        net,
        until,
        comment.filter(|text| !text.is_empty()).map(str::to_owned),
    )))
}

/// The time left of an entry at `now_ms`: `Err` if it has ended, `Ok(None)` if it never does.
pub fn left(until_ms: Option<u64>, now_ms: u64) -> Result<Option<Duration>, ()> {
    match until_ms {
        None => Ok(None),
        Some(until) if until > now_ms => Ok(Some(Duration::from_millis(until - now_ms))),
        Some(_) => Err(()),
    }
}

/// One line of an export. A reason is kept on its line whatever it holds.
#[must_use]
pub fn line(row: &EntryRow) -> String {
    let mut line = row.net.to_string();
    if let Some(until) = row.until_ms {
        line.push_str(&format!(" until={}", (until + 500) / 1_000));
    }
    if let Some(reason) = &row.reason {
        let reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.push_str(&format!(" # {reason}"));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(net: &str, until_ms: Option<u64>, reason: Option<&str>) -> EntryRow {
        EntryRow {
            net: net.parse().expect("a network"),
            origin: "command".to_owned(),
            reason: reason.map(str::to_owned),
            detail: 0,
            left_ms: None,
            until_ms,
            hits: 0,
            enforced: true,
            skipped: None,
            observed: false,
            unconfirmed: false,
        }
    }

    #[test]
    fn what_is_exported_is_imported_again() {
        let rows = [
            row(
                "203.0.113.7/32",
                Some(1_800_000_000_000),
                Some("scanner; # twice\nover"),
            ),
            row("2001:db8::/32", None, None),
        ];
        let text: String = rows.iter().map(line).collect();
        let imported = read(text.as_bytes()).expect("in memory");
        assert_eq!(imported.bad, Vec::<String>::new());
        assert_eq!(
            imported.entries,
            [
                (
                    rows[0].net,
                    Some(1_800_000_000_000),
                    Some("scanner; # twice over".to_owned())
                ),
                (rows[1].net, None, None),
            ]
        );
    }

    #[test]
    fn a_network_named_again_is_one_entry_and_the_last_line_holds() {
        let text = b"10.0.0.0/8 # first\n192.0.2.1\n10.0.0.0/8 # second\n192.0.2.1/32\n";
        let imported = read(&text[..]).expect("in memory");
        assert_eq!((imported.entries.len(), imported.repeated), (2, 2));
        assert_eq!(imported.entries[0].2.as_deref(), Some("second"));
    }

    #[test]
    fn a_mark_in_front_of_the_text_is_no_part_of_it() {
        let imported = read(&b"\xef\xbb\xbf10.0.0.0/8\n\xef\xbb\xbf192.0.2.1\n"[..]).expect("in memory");
        assert_eq!(
            (imported.entries.len(), imported.bad_count),
            (1, 1),
            "only in front"
        );
    }

    #[test]
    fn bad_lines_are_named_and_the_rest_is_read() {
        let text = b"# a list\n\n10.0.0.0/8\nnonsense\n10.0.0.1 until=soon\n\xff\xfe\n192.0.2.1 ; ok\n";
        let imported = read(&text[..]).expect("in memory");
        assert_eq!(imported.entries.len(), 2);
        assert_eq!(imported.bad_count, 3);
        assert!(imported.bad[0].starts_with("line 4: "), "{:?}", imported.bad);
    }
}
