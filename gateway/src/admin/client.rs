//! The command line's end of the admin socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::api::{LONGEST, Outcome, Request};

/// Longest wait for an answer: a list of 1,000,000 networks takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: no gateway runs with this configuration.
    #[error("no gateway is running")]
    NotRunning,
    #[error("the gateway's admin socket {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("the gateway's answer could not be read: {0}; is it of another version?")]
    Garbled(serde_json::Error),
}

/// Asks the running gateway.
pub fn ask(socket: &Path, request: &Request) -> Result<Outcome, ClientError> {
    let io = |source| ClientError::Io {
        path: socket.display().to_string(),
        source,
    };
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning
                }
                _ => io(error),
            });
        }
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .take(LONGEST as u64)
        .read_line(&mut answer)
        .map_err(io)?;
    serde_json::from_str(&answer).map_err(ClientError::Garbled)
}
