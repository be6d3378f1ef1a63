//! Files stay short enough to be read at one sitting; a longer one says why near its top.

use std::path::Path;

use anyhow::Result;

use super::source::{self, Source};

/// Lines up to which no reason is asked.
const LIMIT: usize = 600;
/// The line that gives the reason stands among this many first lines.
const TOP: usize = 40;
const REASON: &str = "// Length:";

/// The files that are too long without a reason. Prints the spread of lengths.
pub fn check(root: &Path) -> Result<Vec<String>> {
    let sources = source::all(root)?;
    let mut lengths: Vec<usize> = sources.iter().map(|source| source.text.lines().count()).collect();
    lengths.sort_unstable();
    let at =
        |percent: usize| lengths.get((lengths.len() * percent / 100).min(lengths.len().saturating_sub(1)));
    if let (Some(median), Some(ninth), Some(longest)) = (at(50), at(90), lengths.last()) {
        eprintln!(
            "{} files: median {median} lines, nine in ten under {ninth}, longest {longest}",
            lengths.len()
        );
    }
    Ok(sources.iter().filter_map(fault).collect())
}

fn fault(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    let reason = source
        .text
        .lines()
        .take(TOP)
        .find_map(|line| line.trim().strip_prefix(REASON));
    if lines <= LIMIT || reason.is_some_and(|reason| !reason.trim().is_empty()) {
        return None;
    }
    Some(format!(
        "{}: {lines} lines, more than {LIMIT}: split it, or say why near its top: `{REASON} ...`",
        source.path
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: &str, lines: usize) -> Source {
        Source {
            path: "a.rs".into(),
            text: format!("{first}\n{}", "x\n".repeat(lines - 1)),
        }
    }

    #[test]
    fn long_files_need_a_reason() {
        assert!(fault(&file("", LIMIT)).is_none());
        assert!(fault(&file("", LIMIT + 1)).is_some());
        assert!(fault(&file("// Length: one table, read from top to bottom.", LIMIT + 1)).is_none());
        assert!(
            fault(&file("// Length:", LIMIT + 1)).is_some(),
            "an empty reason is none"
        );
    }
}
