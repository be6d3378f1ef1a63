//! `gateway doctor`: what was found, line by line, and the exit code.

use std::fmt::Write as _;

use super::args::Args;
use super::{Exit, Result, known, print, print_json, render};
use crate::app::doctor::{self, Check, Level};

pub fn run(args: &Args) -> Result<Exit> {
    let known = known::read(args)?;
    known.warn(None);
    let checks = doctor::examine(&known.config);
    let fails = checks.iter().any(|check| check.level == Level::Fail);
    if args.json {
        print_json(&serde_json::json!({"ok": !fails, "checks": checks}))?;
    } else {
        print(&text(&checks))?;
    }
    Ok(if fails { Exit::Failed } else { Exit::Done })
}

fn text(checks: &[Check]) -> String {
    let mut out = String::new();
    let width = checks
        .iter()
        .map(|check| check.name.chars().count())
        .max()
        .unwrap_or(0);
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let _ = writeln!(
            out,
            "{level}  {:<width$}  {}",
            check.name,
            render::clean(&check.found)
        );
        if let Some(todo) = &check.todo {
            let _ = writeln!(out, "      {:<width$}  -> {}", "", render::clean(todo));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let _ = writeln!(
        out,
        "{} ok, {} to look at, {} to mend",
        count(Level::Ok),
        count(Level::Warn),
        count(Level::Fail)
    );
    out
}
