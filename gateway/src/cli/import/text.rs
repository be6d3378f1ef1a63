//! One network a line: `CIDR [until=SECONDS_SINCE_1970] [# reason]`. What `export` writes.

use std::io::BufRead;

use super::{Imported, Numbered, Progress};
use crate::config::units;
use crate::dataplane::lines::{Line, Reasons};

pub fn read(input: impl BufRead, imported: &mut Imported, progress: &mut Progress) -> std::io::Result<()> {
    let mut lines = Numbered::new(input);
    while let Some((number, line)) = lines.next()? {
        match line.and_then(|line| parse(line, &mut imported.reasons)) {
            Ok(Some(entry)) => imported.take(number, entry),
            Ok(None) => {}
            Err(why) => imported.bad(format_args!("line {number}"), why),
        }
        progress.read(number);
    }
    Ok(())
}

fn parse(line: &str, reasons: &mut Reasons) -> Result<Option<Line>, String> {
    let (body, comment) = match line.find(['#', ';']) {
        Some(at) => (&line[..at], line[at + 1..].trim()),
        None => (line, ""),
    };
    let mut words = body.split_whitespace();
    let Some(first) = words.next() else {
        return Ok(None);
    };
    let net = units::network(first).map_err(|fault| fault.to_string())?;
    let mut until_ms = None;
    for word in words {
        let seconds = word
            .strip_prefix("until=")
            .ok_or_else(|| format!("{word:?} after the network"))?;
        let seconds: u64 = seconds
            .parse()
            .map_err(|_| format!("{seconds:?} is not seconds since 1970"))?;
        until_ms = Some(seconds.saturating_mul(1_000));
    }
    Ok(Some(Line {
        net,
        until_ms,
        forced: false,
        reason: (!comment.is_empty()).then(|| reasons.share(comment)),
    }))
}

/// One line of an export. A reason is kept on its line whatever it holds.
#[must_use]
pub fn line(entry: &Line) -> String {
    let mut line = entry.net.to_string();
    if let Some(until) = entry.until_ms {
        line.push_str(&format!(" until={}", seconds(until)));
    }
    if let Some(reason) = &entry.reason {
        let reason: String = reason
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.push_str(&format!(" # {reason}"));
    }
    line.push('\n');
    line
}

/// Whole seconds, the nearest.
pub fn seconds(ms: u64) -> u64 {
    ms / 1_000 + u64::from(ms % 1_000 >= 500)
}
