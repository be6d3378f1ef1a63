//! Running a list of sections to the end, whatever fails, and saying at the close how each went.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::shell;

/// What became of a section.
enum End {
    Passed,
    Failed(String),
    /// Nothing was checked. Told apart from a pass wherever it is printed.
    Skipped(String),
}

/// Sections that ran, in their order.
#[derive(Default)]
pub struct Summary {
    sections: Vec<(String, Duration, End)>,
}

impl Summary {
    /// Runs one section under a heading. A failure is kept for the end, so that one run shows all of them.
    pub fn section(&mut self, name: &str, body: impl FnOnce() -> Result<()>) {
        shell::step(name);
        let start = Instant::now();
        let end = match body() {
            Ok(()) => End::Passed,
            Err(error) => {
                eprintln!("error: {error:#}");
                End::Failed(first_line(&format!("{error:#}")))
            }
        };
        self.sections.push((name.to_owned(), start.elapsed(), end));
    }

    /// Notes a section that did not run.
    pub fn skip(&mut self, name: &str, why: &str) {
        eprintln!("!!! {name}: NOT CHECKED: {why}");
        self.sections
            .push((name.to_owned(), Duration::ZERO, End::Skipped(why.to_owned())));
    }

    /// Prints the table; fails if a section failed. A skipped section does not fail, but is never called a pass.
    pub fn close(self, what: &str) -> Result<()> {
        eprintln!();
        shell::step(format!("{what}: summary"));
        for (name, time, end) in &self.sections {
            let seconds = time.as_secs_f64();
            match end {
                End::Passed => eprintln!("    passed       {seconds:7.1} s  {name}"),
                End::Failed(why) => eprintln!("    FAILED       {seconds:7.1} s  {name}: {why}"),
                End::Skipped(why) => eprintln!("    NOT CHECKED            {name}: {why}"),
            }
        }
        let count =
            |wanted: fn(&End) -> bool| self.sections.iter().filter(|section| wanted(&section.2)).count();
        let failed = count(|end| matches!(end, End::Failed(_)));
        let skipped = count(|end| matches!(end, End::Skipped(_)));
        if skipped > 0 {
            eprintln!(
                "!!! {skipped} of {} sections were not checked; this is not a full pass.",
                self.sections.len()
            );
        }
        if failed > 0 {
            bail!("{failed} of {} sections failed", self.sections.len());
        }
        Ok(())
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_does_not_stop_the_next_section_and_fails_the_whole() {
        let mut summary = Summary::default();
        let mut ran = false;
        summary.section("first", || bail!("broken"));
        summary.section("second", || {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert!(summary.close("test").is_err());
    }

    #[test]
    fn a_skip_alone_does_not_fail() {
        let mut summary = Summary::default();
        summary.skip("advisories", "no network");
        assert!(summary.close("test").is_ok());
    }
}
