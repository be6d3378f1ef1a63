//! One request to whoever can answer: the running gateway, or this process on the pinned tables.

use std::path::PathBuf;

use super::args::Args;
use super::{Exit, Failed, Result};
use crate::admin::answer::answer;
use crate::admin::api::{Answer, Failure, FailureKind, Request};
use crate::admin::client::{self, ClientError};
use crate::app::offline;
use crate::config::Config;

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let exit = match failure.kind {
            FailureKind::Failed => Exit::Failed,
            FailureKind::Refused => Exit::Refused,
            FailureKind::BadInput => Exit::BadInput,
        };
        Self::new(exit, failure.message)
    }
}

/// Reads the configuration; its faults are the message.
pub fn load(args: &Args) -> Result<Config> {
    match Config::load(&args.config) {
        Ok((config, _)) => Ok(config),
        Err(faults) => Err(Failed::new(Exit::BadInput, faults.to_string())),
    }
}

/// Has `request` answered.
pub fn ask(args: &Args, request: Request) -> Result<Answer> {
    let loaded = load(args);
    let socket = match (&args.socket, &loaded) {
        (Some(socket), _) => socket.clone(),
        (None, Ok(config)) => config.admin.socket.clone(),
        // A broken file must not keep an operator from a gateway that runs.
        (None, Err(_)) => PathBuf::from(crate::config::defaults::ADMIN_SOCKET),
    };
    match client::ask(&socket, &request) {
        Ok(outcome) => Ok(outcome?),
        Err(ClientError::NotRunning) => {
            let config = loaded?;
            let mut offline = offline::engine(&config, request.writes())
                .map_err(|error| Failed::new(Exit::Failed, format!("{error:#}")))?;
            Ok(answer(&mut offline.engine, request)?)
        }
        Err(error) => Err(Failed::new(Exit::Failed, error.to_string())),
    }
}

/// An answer of another kind than the request asks for: server and command are of different versions.
pub fn unexpected() -> Failed {
    Failed::new(
        Exit::Failed,
        "the gateway's answer does not fit the question; is it of another version?",
    )
}
