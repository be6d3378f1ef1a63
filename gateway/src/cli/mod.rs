//! The command line: arguments to requests, answers to text, outcomes to exit codes.
//!
//! Owns wording and exit codes. Verbs are answered by the running gateway over its socket, or, when none runs, by
//! the same engine on the pinned tables (`offline`).

mod args;
mod ask;
mod bypass;
mod check;
mod doctor;
mod explain;
pub mod import;
mod key;
mod known;
mod list;
mod openapi;
mod operator;
mod render;
mod rules;
mod verify;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};

use crate::admin::api::ProtectedRow;

/// How a command ended. The numbers are part of the interface and listed in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Done = 0,
    /// It was tried and failed, or only part of it worked.
    Failed = 1,
    /// Usage, configuration or input is wrong; nothing was changed.
    BadInput = 2,
    /// Refused, since it would lock someone out; nothing was changed.
    Refused = 3,
    /// Another XDP program holds the interface; nothing was changed.
    Foreign = 4,
    /// Remembered, but nothing enforces it: no gateway is attached, or none of its interfaces is filtered.
    NotEnforced = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the exit code it leads to.
#[derive(Debug)]
pub struct Failed {
    pub exit: Exit,
    pub message: String,
    /// Whom the order would have cut off, as far as told, and how many there are.
    pub protected: Vec<ProtectedRow>,
    pub protected_in_all: usize,
}

impl Failed {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            protected: Vec::new(),
            protected_in_all: 0,
        }
    }
}

type Result<T> = std::result::Result<T, Failed>;

/// Runs the command that the process was started as.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are asked for and go to standard output; faults of usage do not.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::BadInput.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    match dispatch(&args) {
        // Half an answer, whichever question it was.
        Ok(Exit::Done | Exit::NotEnforced) if args.damaged.get() => Exit::Failed.into(),
        Ok(exit) => exit.into(),
        Err(failed) => {
            if !failed.message.is_empty() {
                // Names of files and texts of others are in it, and it has lines of its own.
                let lines: Vec<String> = failed.message.lines().map(render::clean).collect();
                let _ = writeln!(std::io::stderr(), "gateway: {}", lines.join("\n"));
            }
            failed.exit.into()
        }
    }
}

fn dispatch(args: &Args) -> Result<Exit> {
    match &args.command {
        Command::Run { ephemeral } => check::run(args, *ephemeral),
        Command::Check => check::check(args),
        Command::Deny { command } => rules::deny(args, command),
        Command::Allow { command } => rules::allow(args, command),
        Command::Block { command } => rules::blocks(args, command),
        Command::Status => rules::status(args),
        Command::Explain { what, method } => explain::run(args, what, method),
        Command::Key { command } => key::run(args, command),
        Command::Watch(order) => watch::run(args, order),
        Command::Reload { force } => rules::reload(args, *force),
        Command::Bypass { command } => bypass::run(args, command),
        Command::Verify => verify::run(args),
        Command::Openapi { command } => openapi::run(command, args.json),
        Command::Doctor => doctor::run(args),
        Command::Detach => check::detach(args),
    }
}

/// Prints to standard output; a reader that has gone away is not an error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Failed, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as one JSON document.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failed::new(Exit::Failed, error.to_string()))?;
    print(&format!("{text}\n"))
}
