//! Answers as text for people. Owns layout and wording; decides nothing.

use std::fmt::Write as _;

use crate::admin::api::{Added, EntryRow, Explained, ForwardedBlock, FullStatus, Removed, Unblocked};
use crate::config::units::plain;
use crate::http::reject::Reject;

/// Failures and notes shown before the rest is only counted.
const SHOWN: usize = 10;

/// Before an interface and the reason why its packets pass unseen.
const NOT_FILTERED: &str = "  not filtered: ";

/// What came from outside or from an operator, made safe for a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// `3d 4h`, `9m 41s`, `12s`, `0s`: the two largest units.
fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000);
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(n, _)| *n == 0)
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if shown.is_empty() {
        "0s".to_owned()
    } else {
        shown.join(" ")
    }
}

fn lines(out: &mut String, prefix: &str, items: &[String]) {
    for item in items.iter().take(SHOWN) {
        let _ = writeln!(out, "{prefix}{}", clean(item));
    }
    if items.len() > SHOWN {
        let _ = writeln!(out, "{prefix}and {} more", items.len() - SHOWN);
    }
}

fn networks(count: usize) -> String {
    format!("{count} network{}", if count == 1 { "" } else { "s" })
}

pub fn added(added: &Added) -> String {
    let mut out = String::new();
    if !added.enforced {
        let why = if added.unfiltered.is_empty() {
            "no gateway is attached"
        } else {
            "no interface is filtered"
        };
        let _ = writeln!(
            out,
            "{} remembered; {why}, so nothing enforces them yet",
            networks(added.added)
        );
    } else if added.failures.is_empty() {
        let _ = writeln!(out, "{} added, and in force", networks(added.added));
    } else {
        let _ = writeln!(
            out,
            "{} added, but {} not in force:",
            networks(added.added),
            added.failures.len()
        );
    }
    lines(&mut out, "  failed: ", &added.failures);
    lines(&mut out, NOT_FILTERED, &added.unfiltered);
    lines(&mut out, "  note: ", &added.notes);
    out
}

pub fn removed(removed: &Removed) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} removed", networks(removed.removed));
    lines(&mut out, "  not removed: ", &removed.missing);
    lines(&mut out, "  failed: ", &removed.failures);
    lines(&mut out, "  note: ", &removed.notes);
    out
}

pub fn unblocked(outcome: &Unblocked) -> String {
    let mut out = String::new();
    for addr in &outcome.lifted {
        let _ = writeln!(out, "{addr} is no longer blocked");
    }
    for addr in &outcome.missing {
        let _ = writeln!(
            out,
            "{addr} was not blocked; `gateway explain {addr}` says what holds for it"
        );
    }
    lines(&mut out, "  failed: ", &outcome.failures);
    out
}

/// Warnings, each with its name unless it brings it along.
pub fn warnings(warnings: &[String]) -> String {
    let mut out = String::new();
    for warning in warnings {
        let name = if warning.starts_with("warning: ") {
            ""
        } else {
            "warning: "
        };
        // A report from the configuration has lines of its own.
        for (index, line) in warning.lines().enumerate() {
            let _ = writeln!(out, "{}{}", if index == 0 { name } else { "" }, clean(line));
        }
    }
    out
}

/// Why an entry is there or not in force, in words.
fn why(row: &EntryRow) -> String {
    if let Some(skipped) = &row.skipped {
        return format!("SKIPPED, since {}", clean(skipped));
    }
    match (&row.reason, row.detail) {
        (Some(reason), _) => clean(reason),
        (None, 0) => String::new(),
        (None, detail) => Reject::from_number(detail).map_or_else(String::new, |reject| {
            format!("strikes, the last for {}", reject.code())
        }),
    }
}

pub fn entries(rows: &[EntryRow], unfiltered: &[String]) -> String {
    let mut out = if rows.is_empty() {
        "the list is empty\n".to_owned()
    } else {
        entry_table(rows)
    };
    lines(&mut out, NOT_FILTERED, unfiltered);
    out
}

fn entry_table(rows: &[EntryRow]) -> String {
    let cells = rows.iter().map(|row| {
        [
            plain(row.net),
            row.origin.clone(),
            row.left_ms.map_or_else(|| "no end".to_owned(), span),
            row.hits.to_string(),
            if row.enforced { "yes" } else { "NO" }.to_owned(),
            why(row),
        ]
    });
    table(["NETWORK", "FROM", "LEFT", "HITS", "IN FORCE", "WHY"], cells)
}

pub fn blocks(rows: &[EntryRow], forwarded: &[ForwardedBlock], unfiltered: &[String]) -> String {
    let mut out = if rows.is_empty() {
        "no source is blocked\n".to_owned()
    } else {
        entry_table(rows)
    };
    lines(&mut out, NOT_FILTERED, unfiltered);
    if !forwarded.is_empty() {
        out.push_str("\nrefused at layer 7, as a trusted proxy names them:\n");
        for block in forwarded {
            let _ = writeln!(out, "  {}  {} left", block.addr, span(block.left_ms));
        }
    }
    out
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

pub fn explained(explained: &Explained) -> String {
    let it = &explained.packets;
    let mut out = String::new();
    let says = match it.outcome.as_str() {
        "allowed" => "passes: it is under an allow rule, which wins over everything",
        "clean" => "passes: no rule or block speaks against it",
        "denied" => "is dropped in the kernel: it is under a deny rule",
        "blocked" => "is dropped in the kernel: it is blocked for a time",
        "bypass" if it.unfiltered.is_empty() => "passes: nothing is enforced, as no gateway is attached",
        "bypass" => "passes: nothing is enforced, as no interface is filtered",
        _ if it.verdict == "drop" => "is dropped in the kernel",
        _ => "passes",
    };
    let _ = writeln!(out, "{} {says}", it.addr);
    lines(&mut out, NOT_FILTERED, &it.unfiltered);
    let mut section = |name: &str, rows: &[EntryRow]| {
        for row in rows {
            let left = row
                .left_ms
                .map_or_else(|| "no end".to_owned(), |ms| format!("{} left", span(ms)));
            let hits = format!("{} packet{}", row.hits, if row.hits == 1 { "" } else { "s" });
            let force = if row.enforced || row.skipped.is_some() || !it.enforced {
                ""
            } else {
                "; NOT IN FORCE"
            };
            let why = why(row);
            let why = if why.is_empty() { why } else { format!(": {why}") };
            let _ = writeln!(
                out,
                "  {name} {} from {}, {left}, {hits}{force}{why}",
                plain(row.net),
                row.origin
            );
        }
    };
    section("allow", &it.allow);
    section("deny", &it.deny);
    section("block", &it.block);
    if let Some(standing) = explained.strikes {
        let _ = writeln!(
            out,
            "  strikes: {} of the {} that lead to a block",
            standing.strikes, standing.block_after
        );
    }
    if explained.refused_when_forwarded {
        let _ = writeln!(out, "  refused at layer 7 when a trusted proxy names it");
    }
    if let Some(why) = &it.protected {
        let _ = writeln!(out, "  protected from deny and block: {why}");
    }
    if !it.block.is_empty() {
        let _ = writeln!(out, "To lift the block: gateway block del {}", it.addr);
    }
    out
}

pub fn status(status: &FullStatus) -> String {
    let mut out = format!("gateway {}\n", status.version);
    match &status.proxy {
        Some(proxy) => {
            let _ = writeln!(
                out,
                "proxy: running for {} as process {}, {} routes, {} connections{}",
                span(proxy.uptime_s.saturating_mul(1_000)),
                proxy.pid,
                proxy.routes,
                proxy.connections,
                if proxy.draining { ", stopping" } else { "" }
            );
            let _ = writeln!(out, "  configuration {}", proxy.config);
            for listener in &proxy.listeners {
                let _ = writeln!(out, "  listens on {listener}");
            }
        }
        None => out.push_str("proxy: not running\n"),
    }
    let packets = &status.packets;
    if !packets.enforced {
        out.push_str("packets: nothing is enforced\n");
        if packets.interfaces.is_empty() {
            return out;
        }
    }
    if packets.interfaces.is_empty() {
        out.push_str("packets: no interface is filtered by a program\n");
    }
    for row in &packets.interfaces {
        if let Some(why) = &row.unfiltered {
            let _ = writeln!(out, "packets: {} not filtered: {}", row.interface, clean(why));
            continue;
        }
        let note = row
            .note
            .as_deref()
            .map_or_else(String::new, |note| format!(" ({})", clean(note)));
        let _ = writeln!(
            out,
            "packets: {} filtered in {} mode by program {}{note}",
            row.interface, row.mode, row.program_id
        );
    }
    for row in &packets.lists {
        let drift = if row.desired == row.enforced {
            ""
        } else {
            "  <- DIFFER"
        };
        let skipped = match row.skipped {
            0 => String::new(),
            count => format!(", {count} skipped, protected"),
        };
        let _ = writeln!(
            out,
            "  {:<6} {:>9} desired {:>9} in force{skipped}{drift}",
            row.list, row.desired, row.enforced
        );
    }
    lines(&mut out, "  failed: ", &packets.failures);
    if packets.dropped_orders > 0 {
        let _ = writeln!(
            out,
            "  {} block orders were lost as the queue was full",
            packets.dropped_orders
        );
    }
    let seen = packets.counters.iter().filter(|row| row.packets > 0);
    let cells = seen.map(|row| {
        [
            row.verdict.clone(),
            row.reason.clone(),
            row.packets.to_string(),
            row.bytes.to_string(),
        ]
    });
    out.push('\n');
    out.push_str(&table(["VERDICT", "REASON", "PACKETS", "BYTES"], cells));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_the_two_largest_units() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h"),
            (90_061_000, "1d 1h"),
            (86_400_000, "1d"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn a_reason_can_not_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\r\n"), "a?[2Jb??");
    }
}
