//! The command line's end of the admin socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::api::{LONGEST, Outcome, Request};
use crate::dataplane::privilege;

/// Longest wait for an answer: a list of 1,000,000 networks takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: no gateway runs with this configuration.
    #[error("no gateway is running")]
    NotRunning,
    #[error("the gateway's admin socket {path}: {cause}{}", privilege::for_socket(.cause))]
    Io { path: String, cause: std::io::Error },
    #[error("the gateway's answer could not be read: {0}; is it of another version?")]
    Garbled(serde_json::Error),
}

/// A gateway that answers.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Its process, if that can be seen from here.
    pub pid: Option<u32>,
}

/// Who answers on this socket, if anyone does.
pub fn running(socket: &Path) -> Result<Option<Running>, ClientError> {
    match connect(socket) {
        Ok(stream) => {
            let peer = getsockopt(&stream, PeerCredentials).ok();
            let pid = peer.and_then(|peer| u32::try_from(peer.pid()).ok());
            let pid = pid.filter(|pid| *pid > 0);
            Ok(Some(Running { pid }))
        }
        Err(ClientError::NotRunning) => Ok(None),
        Err(error) => Err(error),
    }
}

fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
        _ => ClientError::Io {
            path: socket.display().to_string(),
            cause,
        },
    })
}

/// Asks the running gateway, and leaves it to the caller to read the answers, one a line.
pub fn send(socket: &Path, request: &Request) -> Result<UnixStream, ClientError> {
    let mut stream = connect(socket)?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|cause| ClientError::Io {
        path: socket.display().to_string(),
        cause,
    })?;
    Ok(stream)
}

/// Asks the running gateway.
pub fn ask(socket: &Path, request: &mut Request) -> Result<Outcome, ClientError> {
    let io = |cause| ClientError::Io {
        path: socket.display().to_string(),
        cause,
    };
    let mut stream = send(socket, request)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    if let Some((text, _)) = request.text() {
        stream.write_all(text).map_err(io)?;
    }
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    (&mut reader)
        .take(LONGEST as u64)
        .read_line(&mut answer)
        .map_err(io)?;
    let mut outcome: Outcome = serde_json::from_str(&answer).map_err(ClientError::Garbled)?;
    if let Ok(answer) = &mut outcome
        && let Some((text, bytes)) = answer.text()
    {
        reader.take(bytes).read_to_end(text).map_err(io)?;
        if text.len() as u64 != bytes {
            return Err(io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(outcome)
}
