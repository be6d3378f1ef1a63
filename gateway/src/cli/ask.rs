//! One request to whoever can answer: the running gateway, or this process on the pinned tables.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Args;
use super::{Exit, Failed, Result, known, render};
use crate::admin::answer::answer;
use crate::admin::api::{Answer, Failure, FailureKind, Outcome, Request};
use crate::admin::client::{self, ClientError};
use crate::app::offline::{self, Offline, OfflineError};
use crate::config::Config;
use crate::dataplane::Error;
use crate::dataplane::store::StoreError;

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let exit = match failure.kind {
            FailureKind::Failed => Exit::Failed,
            FailureKind::Refused => Exit::Refused,
            FailureKind::BadInput => Exit::BadInput,
        };
        Self {
            protected: failure.protected,
            protected_in_all: failure.protected_in_all,
            ..Self::new(exit, failure.message)
        }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Reads the configuration; its faults are the message.
pub fn load(args: &Args) -> Result<Config> {
    match Config::load(args.config()) {
        Ok((config, _)) => Ok(config),
        Err(faults) => Err(Failed::new(Exit::BadInput, faults.to_string())),
    }
}

/// Who answers: found with the first request.
#[derive(Debug)]
pub enum Answerer {
    Running(PathBuf, Duration),
    Offline(Box<Offline>),
}

impl Answerer {
    /// Has one more request answered, which writes only if the first did.
    pub fn ask(&mut self, mut request: Request) -> Result<Answer> {
        match self {
            Self::Running(socket, patience) => Ok(client::ask(socket, &mut request, *patience)??),
            Self::Offline(offline) => {
                let mut answered = answer(&mut offline.engine, request)?;
                if let Answer::Status(status) = &mut answered {
                    status.fault.clone_from(&offline.fault);
                }
                Ok(answered)
            }
        }
    }
}

/// Whom a request was brought to.
enum Found {
    Running(Box<std::result::Result<Outcome, ClientError>>),
    Offline(Box<Offline>),
    Nobody,
}

/// Has `request` answered.
pub fn ask(args: &Args, request: Request) -> Result<Answer> {
    Ok(begin(args, request)?.0)
}

/// Has `request` answered, and keeps who did.
pub fn begin(args: &Args, mut request: Request) -> Result<(Answer, Answerer)> {
    if let Some(socket) = &args.socket {
        return match client::ask(socket, &mut request, args.timeout) {
            Err(ClientError::NotRunning) => Err(Failed::new(
                Exit::Failed,
                format!(
                    "no gateway answers on {}; without --socket the command works on what is pinned in the kernel",
                    socket.display()
                ),
            )),
            outcome => Ok((outcome??, Answerer::Running(socket.clone(), args.timeout))),
        };
    }
    let known = known::read(args)?;
    let socket = &known.config.admin.socket;
    let mut told = false;
    // Another command may be at work there, or a gateway about to answer: it is asked again each time.
    let found = offline::patiently(
        || {
            match client::ask(socket, &mut request, args.timeout) {
                Err(ClientError::NotRunning) => {}
                outcome => return Ok(Found::Running(Box::new(outcome))),
            }
            if !std::mem::replace(&mut told, true) {
                known.warn(Some(&nobody_on(socket)));
            }
            if matches!(request, Request::Reload { .. }) {
                return Ok(Found::Nobody);
            }
            let offline = offline::engine(&known.config, known.trust(), request.writes())?;
            Ok(Found::Offline(Box::new(offline)))
        },
        OfflineError::holder,
    );
    let offline = match found.map_err(|error| offline_failed(&error, socket))? {
        Found::Running(outcome) => {
            if !told {
                known.warn(None);
            }
            return Ok(((*outcome)??, Answerer::Running(socket.clone(), args.timeout)));
        }
        Found::Nobody => {
            return Err(Failed::new(
                Exit::Failed,
                match known.advice(args) {
                    None => format!("there is nothing to reload: {}", nobody_on(socket)),
                    Some(advice) => format!(
                        "there is nothing to reload: no gateway answers on {}; {advice}",
                        socket.display()
                    ),
                },
            ));
        }
        Found::Offline(offline) => offline,
    };
    if let Some(fault) = &offline.fault {
        let _ = writeln!(std::io::stderr(), "gateway: warning: {}", render::clean(fault));
        args.damaged.set(true);
    }
    let mut answerer = Answerer::Offline(offline);
    Ok((answerer.ask(request)?, answerer))
}

/// Why the tables could not be worked on, when no gateway answered on `socket`.
pub fn offline_failed(error: &OfflineError, socket: &Path) -> Failed {
    let held = match error {
        OfflineError::Store(StoreError::Locked { path, holder }) => {
            Some((holder, path.display().to_string()))
        }
        OfflineError::Tables(Error::Locked { dir, holder }) => {
            Some((holder, format!("the tables under {dir}")))
        }
        _ => None,
    };
    let message = match held {
        Some((holder, what)) if holder.is_gateway() => format!(
            "a gateway{holder} is running and holds {what}, but {}",
            nobody_on(socket)
        ),
        Some((holder, what)) => format!(
            "another {}{holder} is at work and holds {what}; nothing was changed: try again when it has ended",
            holder.what()
        ),
        None => error.to_string(),
    };
    Failed::new(Exit::Failed, message)
}

pub fn nobody_on(socket: &Path) -> String {
    format!(
        "no gateway answers on {} (--socket PATH names another)",
        socket.display()
    )
}

/// An answer of another kind than the request asks for: server and command are of different versions.
pub fn unexpected() -> Failed {
    Failed::new(
        Exit::Failed,
        "the gateway's answer does not fit the question; is it of another version?",
    )
}
