//! The command line's end of the admin socket.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::api::{LONGEST, Outcome, Request};
use crate::config::units::show_duration;
use crate::dataplane::lock::of_process;
use crate::dataplane::privilege;

/// Longest silence of a gateway that was asked, unless another one is given: while it is at work on what was asked it
/// gives a sign every two seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: no gateway runs with this configuration.
    #[error("no gateway is running")]
    NotRunning,
    #[error("the gateway's admin socket {path}: {cause}{}", privilege::for_socket(.cause))]
    Io { path: String, cause: std::io::Error },
    /// It took the question, or has no room for one more, and says nothing.
    #[error("the gateway{} on {path} has been silent for {}: {}; what the kernel holds stays in force meanwhile, and \
             --timeout TIME waits longer{}", of_process(*.pid), show_duration(*.patience), remedy(*.pid, *.stopped), afterwards(*.ordered))]
    Silent {
        path: String,
        pid: Option<u32>,
        /// Whether its process is stopped by a signal.
        stopped: bool,
        patience: Duration,
        /// Whether it was asked to change something.
        ordered: bool,
    },
    /// It took the question, and hung up.
    #[error("the gateway on {path} has ended before it answered; its log may say why{}", afterwards(*.ordered))]
    Ended { path: String, ordered: bool },
    #[error("the gateway's answer could not be read: {cause}; is it of another version?{}", afterwards(*.ordered))]
    Garbled { cause: serde_json::Error, ordered: bool },
}

/// A gateway that answers.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Its process, if that can be seen from here.
    pub pid: Option<u32>,
}

fn remedy(pid: Option<u32>, stopped: bool) -> String {
    match (pid, stopped) {
        (Some(pid), true) => format!("a signal has stopped it, and `kill -CONT {pid}` lets it go on"),
        (Some(pid), false) => {
            format!("it hangs or is overloaded; its log may say why, and `kill {pid}` ends it")
        }
        (None, _) => "it is stopped, hangs or is overloaded; its log may say why".to_owned(),
    }
}

/// What is to be said of an order that nobody confirms.
fn afterwards(ordered: bool) -> &'static str {
    if ordered {
        "; what was ordered may have been done all the same, if it had been begun: `gateway status` and the lists show it"
    } else {
        ""
    }
}

/// Who answers on this socket, if anyone does.
pub fn running(socket: &Path, patience: Duration) -> Result<Option<Running>, ClientError> {
    match Line::open(socket, patience) {
        Ok(line) => Ok(Some(Running { pid: line.peer() })),
        Err(ClientError::NotRunning) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A connection on which nothing waits for longer than `patience` without a byte going either way.
struct Line<'a> {
    stream: UnixStream,
    socket: &'a Path,
    patience: Duration,
    /// Whether it was asked to change something.
    ordered: bool,
}

impl<'a> Line<'a> {
    fn open(socket: &'a Path, patience: Duration) -> Result<Self, ClientError> {
        let stream = connect(socket, patience).map_err(|cause| match cause.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning,
            // Its queue of connections is full, and it takes none.
            ErrorKind::WouldBlock => ClientError::Silent {
                path: socket.display().to_string(),
                pid: None,
                stopped: false,
                patience,
                ordered: false,
            },
            _ => ClientError::Io {
                path: socket.display().to_string(),
                cause,
            },
        })?;
        Ok(Self {
            stream,
            socket,
            patience,
            ordered: false,
        })
    }

    /// The gateway's process, if that can be seen from here.
    fn peer(&self) -> Option<u32> {
        let peer = getsockopt(&self.stream, PeerCredentials).ok()?;
        u32::try_from(peer.pid()).ok().filter(|pid| *pid > 0)
    }

    fn failed(&self, cause: std::io::Error) -> ClientError {
        let (path, ordered) = (self.socket.display().to_string(), self.ordered);
        match cause.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                return ClientError::Ended { path, ordered };
            }
            _ => return ClientError::Io { path, cause },
        }
        let pid = self.peer();
        ClientError::Silent {
            path,
            pid,
            stopped: pid.is_some_and(is_stopped),
            patience: self.patience,
            ordered,
        }
    }

    fn garbled(&self, cause: serde_json::Error) -> ClientError {
        let ordered = self.ordered;
        ClientError::Garbled { cause, ordered }
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|cause| self.garbled(cause))?;
        line.push(b'\n');
        self.ordered = request.writes() && !matches!(request, Request::Watch(_));
        self.stream.write_all(&line).map_err(|cause| self.failed(cause))
    }
}

fn connect(socket: &Path, patience: Duration) -> std::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let stream = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The time for sending is that for connecting, too: a gateway that is stopped accepts nobody.
    for which in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&stream, which, Some(patience))?;
    }
    rustix::net::connect(&stream, &address)?;
    Ok(stream.into())
}

/// Whether a process is stopped by a signal, as `/proc` has it behind its name.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.as_bytes().first().copied());
    matches!(state, Some(Some(b'T' | b't')))
}

/// Asks the running gateway, and leaves it to the caller to read the answers, one a line.
pub fn send(socket: &Path, request: &Request, patience: Duration) -> Result<UnixStream, ClientError> {
    let mut line = Line::open(socket, patience)?;
    line.send(request)?;
    Ok(line.stream)
}

/// What [`send`]'s caller says when no answer has come within its patience.
#[must_use]
pub fn silent(socket: &Path, pid: Option<u32>, patience: Duration) -> ClientError {
    ClientError::Silent {
        path: socket.display().to_string(),
        pid,
        stopped: pid.is_some_and(is_stopped),
        patience,
        ordered: false,
    }
}

/// Asks the running gateway.
pub fn ask(socket: &Path, request: &mut Request, patience: Duration) -> Result<Outcome, ClientError> {
    let mut line = Line::open(socket, patience)?;
    line.send(request)?;
    if let Some((text, _)) = request.text() {
        line.stream.write_all(text).map_err(|cause| line.failed(cause))?;
    }
    let mut answer = String::new();
    let mut reader = BufReader::new(&line.stream);
    (&mut reader)
        .take(LONGEST as u64)
        .read_line(&mut answer)
        .map_err(|cause| line.failed(cause))?;
    if !answer.ends_with('\n') && answer.len() < LONGEST {
        return Err(line.failed(ErrorKind::UnexpectedEof.into()));
    }
    let mut outcome: Outcome = serde_json::from_str(&answer).map_err(|cause| line.garbled(cause))?;
    if let Ok(answer) = &mut outcome
        && let Some((text, bytes)) = answer.text()
    {
        reader
            .take(bytes)
            .read_to_end(text)
            .map_err(|cause| line.failed(cause))?;
        if text.len() as u64 != bytes {
            return Err(line.failed(ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn a_socket_that_never_replies_is_given_up_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let _listener = UnixListener::bind(&path).expect("bound");
        let error = ask(&path, &mut Request::Status, SHORT).expect_err("nobody accepts");
        let said = error.to_string();
        let pid = std::process::id();
        assert!(
            matches!(error, ClientError::Silent { stopped: false, .. })
                && said.contains(&format!("process {pid}"))
                && said.contains("--timeout")
                && !said.contains("may have been done"),
            "{said}"
        );
        let order = Request::BypassOff;
        let error = ask(&path, &mut order.clone(), SHORT).expect_err("nobody accepts");
        assert!(error.to_string().contains("may have been done"), "{error}");
    }

    #[test]
    fn an_order_to_a_gateway_that_ends_may_have_been_done() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        // Once without a word, once in the middle of one, once without having read the order.
        for said in [Some(&b""[..]), Some(b" {\"Ok"), None] {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (stream, _) = listener.accept().expect("a client");
                    if let Some(said) = said {
                        let mut order = String::new();
                        BufReader::new(&stream).read_line(&mut order).expect("an order");
                        (&stream).write_all(said).expect("written");
                    } else {
                        std::thread::sleep(SHORT);
                    }
                });
                let error = ask(&path, &mut Request::BypassOff, 10 * SHORT).expect_err("it has ended");
                let told = error.to_string();
                assert!(
                    matches!(error, ClientError::Ended { ordered: true, .. })
                        && told.contains("may have been done"),
                    "{said:?}: {told}"
                );
            });
        }
    }

    #[test]
    fn one_that_takes_no_connection_is_given_up_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).expect("a path")).expect("bound");
        rustix::net::listen(&listener, 0).expect("listening");
        let _queued = running(&path, SHORT).expect("the queue takes one");
        let held: Vec<_> = (0..4).map(|_| connect(&path, SHORT)).collect();
        assert!(held.iter().any(Result::is_err), "the queue is full");
        let error = ask(&path, &mut Request::Status, SHORT).expect_err("no room");
        assert!(matches!(error, ClientError::Silent { .. }), "{error}");
    }

    #[test]
    fn a_long_job_that_shows_signs_of_life_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            for _ in 0..6 {
                std::thread::sleep(SHORT / 2);
                stream.write_all(b" ").expect("written");
            }
            let failure =
                super::super::api::Failure::new(super::super::api::FailureKind::Failed, "done".to_owned());
            let answer = serde_json::to_string(&Outcome::Err(failure)).expect("plain values");
            stream.write_all(answer.as_bytes()).expect("written");
            stream.write_all(b"\n").expect("written");
        });
        let outcome = ask(&path, &mut Request::Status, SHORT).expect("an answer");
        assert_eq!(outcome.expect_err("a failure").message, "done");
        server.join().expect("no panic");
    }
}
