//! Answers as text for people. Owns layout and wording; decides nothing.

use std::fmt::Write as _;

use crate::admin::api::{
    Added, Bypass, Confirmed, CookieRow, EntryRow, Explained, ForwardedBlock, FullStatus, Removed, Unblocked,
};
use crate::config::units::plain;
use crate::http::reject::Reject;

mod drops;
mod observing;
mod upstreams;

pub use drops::{sample, sighting, utc};

/// Failures and notes shown before the rest is only counted.
const SHOWN: usize = 10;

/// Before an interface and the reason why its packets pass unseen.
const NOT_FILTERED: &str = "  not filtered: ";

/// What came from outside or from an operator, made safe for a terminal: nothing in it moves the cursor, and nothing
/// turns, hides or joins letters so that a line reads as another one.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => out.push('?'),
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
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

/// What a reload can not mend.
pub fn unfiltered(enforced: bool, unfiltered: &[String]) -> String {
    let mut out = String::new();
    if !enforced {
        out.push_str("NOT FILTERED: no interface is, so nothing is enforced\n");
    }
    lines(&mut out, NOT_FILTERED, unfiltered);
    out
}

/// Changes that were tried in vain, each with the reason.
pub fn failures(failures: &[String]) -> String {
    let mut out = String::new();
    lines(&mut out, "  failed: ", failures);
    out
}

/// Lines beside the main matter.
pub fn notes(notes: &[String]) -> String {
    let mut out = String::new();
    lines(&mut out, "  note: ", notes);
    out
}

/// `1 route`, `2 routes`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn networks(count: usize) -> String {
    counted(count, "network")
}

/// Why nothing is enforced, given the interfaces that are not filtered.
fn nothing_filters(unfiltered: &[String]) -> &'static str {
    if unfiltered.is_empty() {
        "no gateway is attached"
    } else {
        "no interface is filtered"
    }
}

pub fn added(added: &Added) -> String {
    let mut out = String::new();
    let what = match (added.added, added.already) {
        (new, 0) => format!("{} added", networks(new)),
        (0, known) if added.changed == known => format!("{} changed", networks(known)),
        (0, known) => format!("nothing new, {} there already", networks(known)),
        (new, known) => format!("{} added, {known} there already", networks(new)),
    };
    let what = match added.changed {
        0 => what,
        changed if added.added == 0 && changed == added.already => what,
        changed => format!("{what}, {changed} of them changed"),
    };
    let what = match added.removed {
        0 => what,
        gone => format!("{what}, {} of before removed", networks(gone)),
    };
    if !added.enforced {
        let _ = writeln!(
            out,
            "{what}: remembered; {}, so nothing enforces them yet",
            nothing_filters(&added.unfiltered)
        );
    } else if added.failures.is_empty() {
        let _ = writeln!(out, "{what}, and in force");
    } else {
        let _ = writeln!(
            out,
            "{what}, but {} not in force:",
            added.failed.max(added.failures.len())
        );
    }
    lines(&mut out, "  failed: ", &added.failures);
    lines(&mut out, NOT_FILTERED, &added.unfiltered);
    lines(&mut out, "  note: ", &added.notes);
    out
}

pub fn confirmed(confirmed: &Confirmed) -> String {
    let mut out = String::new();
    for net in &confirmed.confirmed {
        let _ = writeln!(out, "deny {} is confirmed and stays", plain(*net));
    }
    if confirmed.confirmed.is_empty() && confirmed.missing.is_empty() {
        out.push_str("nothing waits to be confirmed: perhaps its time is over\n");
    }
    lines(&mut out, "  not confirmed: ", &confirmed.missing);
    lines(&mut out, "  failed: ", &confirmed.failures);
    out
}

/// The bypass, so that nobody can miss it.
pub fn bypass(bypass: &Bypass) -> String {
    let reason = bypass.reason.as_deref().unwrap_or("no reason known");
    format!(
        "!! BYPASS: every packet passes for {} more: {}\n",
        span(bypass.left_ms),
        clean(reason)
    )
}

pub fn removed(removed: &Removed) -> String {
    let mut out = String::new();
    let force = if removed.enforced {
        String::new()
    } else {
        format!(
            "; {}, so nothing was in force",
            nothing_filters(&removed.unfiltered)
        )
    };
    let _ = writeln!(out, "{} removed{force}", networks(removed.removed));
    lines(&mut out, "  not removed: ", &removed.missing);
    lines(&mut out, "  failed: ", &removed.failures);
    lines(&mut out, NOT_FILTERED, &removed.unfiltered);
    lines(&mut out, "  note: ", &removed.notes);
    out
}

/// `same_gateway`: the options with which another command reaches the gateway that was asked.
pub fn unblocked(outcome: &Unblocked, same_gateway: &str) -> String {
    let mut out = String::new();
    for addr in &outcome.lifted {
        let _ = writeln!(out, "{addr} is no longer blocked");
    }
    for addr in &outcome.missing {
        let _ = writeln!(
            out,
            "{addr} was not blocked; `gateway explain {addr}{same_gateway}` says what holds for it"
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
    let unconfirmed = if row.unconfirmed {
        "UNCONFIRMED, `gateway deny confirm` lets it stay"
    } else {
        ""
    };
    match (&row.reason, row.detail) {
        (None, 0) if row.unconfirmed => unconfirmed.to_owned(),
        (Some(reason), _) if row.unconfirmed => format!("{unconfirmed}: {}", clean(reason)),
        (Some(reason), _) => clean(reason),
        (None, 0) => String::new(),
        (None, detail) => Reject::from_number(detail).map_or_else(String::new, |reject| {
            format!("strikes, the last for {}", reject.code())
        }),
    }
}

/// A list of rules, page by page. Columns are as wide as the pages so far need.
#[derive(Debug, Default)]
pub struct Entries {
    widths: [usize; 6],
}

impl Entries {
    pub fn page(&mut self, rows: &[EntryRow]) -> String {
        let begun = self.widths[0] > 0;
        match (begun, rows) {
            (_, []) => String::new(),
            (true, _) => in_columns(&mut self.widths, rows.iter().map(entry_cells).collect()),
            (false, _) => {
                let head = std::iter::once(ENTRY_HEAD.map(str::to_owned));
                let all = head.chain(rows.iter().map(entry_cells)).collect();
                observed_note(rows, "deny") + &in_columns(&mut self.widths, all)
            }
        }
    }

    /// What stands below the last page.
    pub fn last(&self, unfiltered: &[String]) -> String {
        let mut out = String::new();
        if self.widths[0] == 0 {
            out.push_str("the list is empty\n");
        }
        lines(&mut out, NOT_FILTERED, unfiltered);
        out
    }
}

/// Said above a list whose entries drop nothing; empty for one whose entries do.
fn observed_note(rows: &[EntryRow], what: &str) -> String {
    if rows.iter().any(|row| row.observed) {
        format!("OBSERVING: {what} (counted, nothing dropped)\n")
    } else {
        String::new()
    }
}

const ENTRY_HEAD: [&str; 6] = ["NETWORK", "FROM", "LEFT", "HITS", "IN FORCE", "WHY"];

fn entry_cells(row: &EntryRow) -> [String; 6] {
    [
        plain(row.net),
        row.origin.clone(),
        row.left_ms.map_or_else(|| "no end".to_owned(), span),
        row.hits.to_string(),
        match (row.enforced, row.observed) {
            (true, true) => "observed",
            (true, false) => "yes",
            (false, _) => "NO",
        }
        .to_owned(),
        why(row),
    ]
}

pub fn blocks(rows: &[EntryRow], forwarded: &[ForwardedBlock], unfiltered: &[String]) -> String {
    let mut out = if rows.is_empty() {
        "no source is blocked\n".to_owned()
    } else {
        observed_note(rows, "blocks") + &table(ENTRY_HEAD, rows.iter().map(entry_cells))
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

/// Columns under their heads.
pub fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let head = std::iter::once(head.map(str::to_owned));
    in_columns(&mut [0; N], head.chain(rows).collect())
}

/// Widens the columns as need be.
fn in_columns<const N: usize>(widths: &mut [usize; N], rows: Vec<[String; N]>) -> String {
    for row in &rows {
        for (cell, width) in row.iter().zip(widths.iter_mut()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    let mut line = String::new();
    for row in &rows {
        line.clear();
        for (cell, width) in row.iter().zip(widths.iter()) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `same_gateway`: the options with which another command reaches the gateway that was asked.
pub fn explained(explained: &Explained, same_gateway: &str) -> String {
    let it = &explained.packets;
    let mut out = String::new();
    let says = match it.outcome.as_str() {
        _ if it.observed.is_some() => "passes, as what speaks against it is only observed",
        "allowed" => "passes: it is under an allow rule, which wins over everything",
        "clean" => "passes: no rule or block speaks against it",
        "denied" => "is dropped in the kernel: it is under a deny rule",
        "blocked" => "is dropped in the kernel: it is blocked for a time",
        "bypass" if it.bypass.is_some() => "passes: everything does, as a BYPASS is on",
        "bypass" if it.unfiltered.is_empty() => "passes: nothing is enforced, as no gateway is attached",
        "bypass" => "passes: nothing is enforced, as no interface is filtered",
        _ if it.verdict == "drop" => "is dropped in the kernel",
        _ => "passes",
    };
    let _ = writeln!(out, "{} {says}", it.addr);
    if let Some(reason) = &it.observed {
        let list = if reason == "blocked" {
            "blocks are"
        } else {
            "deny is"
        };
        let _ = writeln!(
            out,
            "  it would be dropped as {}, were it not that {list} observed",
            clean(reason)
        );
    }
    if let Some(on) = &it.bypass {
        out.push_str(&bypass(on));
    }
    lines(&mut out, NOT_FILTERED, &it.unfiltered);
    let mut section = |name: &str, rows: &[EntryRow]| {
        for row in rows {
            let left = row
                .left_ms
                .map_or_else(|| "no end".to_owned(), |ms| format!("{} left", span(ms)));
            let hits = format!("{} packet{}", row.hits, if row.hits == 1 { "" } else { "s" });
            // Of a skipped one it is said why.
            let force = if row.skipped.is_some() {
                ""
            } else if it.enforced && !row.enforced {
                "; NOT IN FORCE"
            } else if row.observed && it.allow.is_empty() {
                "; only observed"
            } else if name != "allow" && !it.allow.is_empty() {
                "; without effect, as allow wins"
            } else {
                ""
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
    match &it.protected {
        Some(why) if it.verdict == "drop" => {
            let _ = writeln!(
                out,
                "  CAREFUL: {why}; what drops it was commanded with --force, or came before that was known"
            );
        }
        Some(why) if it.deny.iter().all(|row| row.skipped.is_some()) => {
            let _ = writeln!(out, "  protected from deny and block: {why}");
        }
        Some(why) => {
            let _ = writeln!(out, "  protected from blocks: {why}");
        }
        None => {}
    }
    if !it.block.is_empty() {
        let _ = writeln!(
            out,
            "To lift the block: gateway block del {}{same_gateway}",
            it.addr
        );
    }
    out
}

/// One line on SYN cookies.
fn cookies(row: &CookieRow) -> String {
    let mut line = String::from(match (row.enabled, row.answering) {
        (false, _) => "SYN cookies are NOT available",
        (true, false) => "SYN cookies are enabled, and none was needed lately",
        (true, true) => "SYN cookies are ON: a listener gets more SYNs than its rate",
    });
    if let Some(note) = &row.note {
        let _ = write!(line, "; {}", clean(note));
    }
    line
}

/// So many, and the verb to it.
fn were(count: u64, what: &str) -> (String, &'static str) {
    let counted = counted(usize::try_from(count).unwrap_or(usize::MAX), what);
    (counted, if count == 1 { "was" } else { "were" })
}

pub fn status(status: &FullStatus) -> String {
    let mut out = format!("gateway {}\n", status.version);
    match &status.proxy {
        Some(proxy) => {
            let _ = writeln!(
                out,
                "proxy: running for {} as process {}, {}, {}{}",
                span(proxy.uptime_s.saturating_mul(1_000)),
                proxy.pid,
                counted(proxy.routes, "route"),
                counted(proxy.connections, "connection"),
                if proxy.draining { ", stopping" } else { "" }
            );
            let _ = writeln!(out, "  configuration {}", proxy.config);
            for listener in &proxy.listeners {
                let _ = writeln!(out, "  listens on {listener}");
            }
            observing::status(&mut out, &proxy.observing);
            upstreams::status(&mut out, &proxy.upstreams);
            for certificate in &proxy.certificates {
                let now_ms = crate::dataplane::clock::Now::read().wall_ms;
                let end_ms = u64::try_from(certificate.not_after).map_or(0, |s| s.saturating_mul(1_000));
                let left = match end_ms.checked_sub(now_ms) {
                    Some(left) => format!("is good for {}", span(left)),
                    None => "HAS EXPIRED".to_owned(),
                };
                let _ = writeln!(out, "  certificate {} {left}", clean(&certificate.file));
            }
            for (what, why) in [
                ("LIST NOT TAKEN OVER", &proxy.stale_lists[..]),
                ("CALLERS NOT TAKEN OVER", &proxy.stale_callers),
                ("CONFIGURATION NOT TAKEN OVER", proxy.stale_config.as_slice()),
                ("CERTIFICATES NOT RENEWED", proxy.stale_certificates.as_slice()),
            ] {
                lines(&mut out, &format!("  {what}, as before: "), why);
            }
        }
        None => out.push_str("proxy: not running\n"),
    }
    if let Some(fault) = &status.fault {
        let _ = writeln!(out, "STATE: {}", clean(fault));
    }
    let packets = &status.packets;
    if !packets.observing.is_empty() {
        let names = clean(&packets.observing.join(", "));
        let _ = writeln!(out, "OBSERVING: {names} (counted, nothing dropped)");
    }
    if let Some(on) = &packets.bypass {
        out.push_str(&bypass(on));
    }
    if !packets.enforced {
        let why = if packets.interfaces.is_empty() {
            "no gateway is running, and without interfaces nothing else filters"
        } else if packets.counters.is_empty() {
            "no gateway is attached"
        } else {
            "no interface is filtered"
        };
        let _ = writeln!(out, "packets: NOT FILTERED, nothing is enforced: {why}");
    } else if packets.interfaces.is_empty() {
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
    if let Some(row) = &packets.cookies {
        let _ = writeln!(out, "packets: {}", cookies(row));
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
    if packets.drift_repaired > 0 {
        let (differences, were) = were(packets.drift_repaired, "difference");
        let _ = writeln!(
            out,
            "  {differences} between kernel and intent {were} found and repaired"
        );
    }
    if packets.dropped_orders > 0 {
        let (orders, were) = were(packets.dropped_orders, "block order");
        let _ = writeln!(out, "  {orders} {were} lost as the queue was full");
    }
    if packets.counters.is_empty() {
        return out;
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
mod tests;
