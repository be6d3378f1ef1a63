//! HTTP/1.1 on the wire (RFC 9112): headers to and from bytes, bodies to and from their framing, and one buffered stream
//! below both. Used on both sides of the proxy; knows nothing of routes, policy, rejects or pools.
//!
//! Our own, because this is the request path: hyper gives each connection of a client a task and two channels, which for
//! a small answer cost more than the rest of the proxy (`docs/benchmarks.md`), and it is lenient in places where two
//! servers can come to differ on where a request ends. What is read here has one meaning or none.
//!
//! - [`head`]: a whole header, read; [`write`]: headers and framing, written;
//! - [`body`]: where a body ends;
//! - [`stream`]: bytes read ahead and bytes on their way out;
//! - [`incoming`]: a client's side: requests in, answers out;
//! - [`outgoing`]: an upstream's side: one exchange after another.

pub mod alarm;
pub mod body;
pub mod head;
pub mod incoming;
pub mod outgoing;
pub mod stream;
pub mod write;

/// In a request's extensions: it asks for another protocol (RFC 9110, 7.8), and its answer may be 101.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade;

/// Why bytes can not be taken for HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not HTTP/1, or not unambiguous.
    Malformed,
    /// More bytes or lines than are allowed.
    TooLarge,
}

/// Why an exchange broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The other side closed before all that it announced had come.
    #[error("closed too early")]
    Closed,
    #[error("not valid HTTP/1.1")]
    Malformed,
    #[error("header too large")]
    TooLarge,
    /// The body that was to be sent broke off.
    #[error("the body to send broke off")]
    Body,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::Malformed,
            Fault::TooLarge => Self::TooLarge,
        }
    }
}
