//! What form a list has, from its name and its first bytes.

use super::Format;

/// The form of a list that begins with `start`.
pub fn guess(start: &[u8], name: &str) -> Format {
    let name = name.to_ascii_lowercase();
    for (ending, format) in [
        (".json", Format::Json),
        (".csv", Format::Csv),
        (".txt", Format::Text),
    ] {
        if name.ends_with(ending) {
            return format;
        }
    }
    let text = String::from_utf8_lossy(start);
    if text.trim_start().starts_with(['[', '{']) {
        return Format::Json;
    }
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let Some(first) = first else {
        return Format::Text;
    };
    // In plain text what follows a `#` or `;` is a comment, and may hold anything.
    let body = first.split(['#', ';']).next().unwrap_or_default();
    if body.contains([',', '\t', '"']) || super::csv::is_header(first) {
        Format::Csv
    } else {
        Format::Text
    }
}
