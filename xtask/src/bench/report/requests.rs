//! The figures of `bench http`: tables on a terminal, a section of the document, bars.

use std::fmt::Write as _;

use super::plot::{Bar, Group};
use crate::bench::http::results::{CaseResult, Results};

const METHOD: &str = "\
Each proxy runs on one core with one worker; the load generator and the upstream (nginx) have the other. What is compared is
the **processor time of the proxy**, user and system of all its threads, for each request: it does not depend on who waits
for whom. Programs take turns, round after round; a value is the median of the rounds, `gateway is` the median of the
rounds' ratios, less is better. Figures are comparable within this run only.

* **Like for like**: no log of requests, kept connections to the upstream, bodies streamed, the same certificate (ECDSA
  P-256), cipher and curve, one thread each (`worker`, `nbthread`, `GOMAXPROCS`). Each program is started anew for each
  sample and gets half a second of load before anything counts. The gateway runs with `xdp.mode: none`.
* **Right or not at all**: before a sample an answer is compared byte for byte; under load each status is counted and the
  bytes of all bodies are summed up. One wrong answer fails the run.
* **The whole core**: where much is moved, threads of the kernel (`ksoftirqd`) do a part of a proxy's work, which no process
  is charged with. `µs of the whole core` is all that the proxy's core did for a request.
* **Closed loops** are h2load's: as many requests as go. **Half load** is an open loop of our own: a request's time counts
  from when it was due.
* **Resident memory** is `VmRSS`; what the kernel keeps for a connection is not in it, and is the same for all.
";

/// The section.
pub fn section(results: &Results, plot: &str, machine: &str) -> String {
    let mut text = format!(
        "## Requests\n\n{machine}- {} rounds of {} s\n\n![Processor time and memory]({plot})\n\n{}\n### Method\n\n{METHOD}\n",
        results.rounds,
        results.seconds,
        targets(results)
    );
    for case in &results.cases {
        text.push_str(&table(case));
    }
    text
}

fn targets(results: &Results) -> String {
    let mut text = String::from("| case | | gateway is | aim | |\n|---|---|---:|---:|---|\n");
    for case in &results.cases {
        for target in &case.targets {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                case.title,
                target.what,
                target.shown(),
                target.aim(),
                if target.met { "ok" } else { "**short**" }
            );
        }
        for skipped in &case.skipped {
            let _ = writeln!(text, "| {} | **skipped**: {skipped} | | | |", case.title);
        }
    }
    text
}

fn table(case: &CaseResult) -> String {
    let mut text = format!("### {}\n\n{}\n\n| |", case.title, case.what);
    for (number, column) in case.columns.iter().enumerate() {
        let _ = write!(text, " {} |", column.name);
        if number == 0 {
            text.push_str(" lowest to highest |");
        }
    }
    text.push_str(" gateway is |\n|---|");
    text.push_str(&"---:|".repeat(case.columns.len() + 2));
    text.push('\n');
    for row in &case.rows {
        let _ = write!(text, "| {} |", row.program);
        for (number, column) in case.columns.iter().enumerate() {
            let digits = column.digits;
            let _ = write!(text, " {:.digits$} |", row.value(number));
            if number == 0 {
                let _ = write!(text, " {} |", case.spread(row));
            }
        }
        let _ = writeln!(text, " {} |", case.gateway_is(row));
    }
    text.push('\n');
    let remarks = remarks(case);
    for remark in &remarks {
        let _ = writeln!(text, "* {remark}");
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    text
}

fn remarks(case: &CaseResult) -> Vec<String> {
    let targets = case.targets.iter().map(|target| target.sentence());
    let skipped = case.skipped.iter().map(|why| format!("SKIPPED: {why}"));
    let failed = case.failed.iter().map(|why| format!("FAILED: {why}"));
    targets
        .chain(case.notes.iter().cloned())
        .chain(skipped)
        .chain(failed)
        .collect()
}

/// One case on a terminal, as soon as it is known.
pub fn print(case: &CaseResult) {
    let mut line = format!("\n{}\n  {:<16}", case.title, "");
    for column in &case.columns {
        let _ = write!(line, " {:>width$}", column.name, width = width(&column.name));
    }
    println!("{line} {:>20} {:>10}", "lowest to highest", "gateway is");
    for row in &case.rows {
        let mut line = format!("  {:<16}", row.program);
        for (number, column) in case.columns.iter().enumerate() {
            let (digits, width) = (column.digits, width(&column.name));
            let _ = write!(line, " {:>width$.digits$}", row.value(number));
        }
        println!("{line} {:>20} {:>10}", case.spread(row), case.gateway_is(row));
    }
    for remark in remarks(case) {
        println!("  {remark}");
    }
}

fn width(name: &str) -> usize {
    name.chars().count().max(9)
}

/// The last line.
pub fn print_summary(results: &Results) {
    let targets = || results.cases.iter().flat_map(|case| &case.targets);
    let short = targets().filter(|target| !target.met).count();
    let left_out: usize = results
        .cases
        .iter()
        .map(|case| case.skipped.len() + case.failed.len())
        .sum();
    println!(
        "\n{short} of {} targets short; {left_out} rows skipped or failed",
        targets().count()
    );
}

/// Bars of what is compared in each case.
pub fn groups(results: &Results) -> Vec<Group> {
    let group = |case: &CaseResult| {
        let column = case.columns.first()?;
        let bars = case.rows.iter().map(|row| Bar {
            name: row.program.clone(),
            value: row.value(0),
            digits: column.digits,
            ours: row.program == "gateway",
        });
        Some(Group {
            title: format!("{}: {}", case.title, column.name),
            bars: bars.collect(),
        })
    };
    results.cases.iter().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http::results::{Column, Row, TargetResult};

    #[test]
    fn what_is_short_skipped_or_failed_is_seen() {
        let case = CaseResult {
            id: "a".to_owned(),
            title: "A".to_owned(),
            what: String::new(),
            columns: vec![Column {
                name: "µs".to_owned(),
                digits: 1,
            }],
            rows: vec![Row {
                program: "gateway".to_owned(),
                rounds: vec![vec![2.0]],
            }],
            targets: vec![TargetResult {
                what: "µs".to_owned(),
                than: Some("nginx".to_owned()),
                value: 2.0,
                at_most: 1.0,
                met: false,
            }],
            notes: Vec::new(),
            skipped: vec!["caddy is not here".to_owned()],
            failed: vec!["haproxy: 502".to_owned()],
        };
        let results = Results {
            rounds: 1,
            seconds: 1.0,
            cases: vec![case],
        };
        let text = section(&results, "x.svg", "- here\n");
        for seen in [
            "| A | µs | 2.00x nginx | 1.00x | **short** |",
            "**skipped**: caddy is not here",
            "* FAILED: haproxy: 502",
            "| gateway | 2.0 | 2.0 to 2.0 | 1.00x |",
        ] {
            assert!(text.contains(seen), "{seen} is not in\n{text}");
        }
        assert_eq!(groups(&results).len(), 1);
    }
}
