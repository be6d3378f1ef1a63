//! Why there was no answer, in one word of a closed list: for who reads the log at night. Never shown to clients.

use std::io::{self, ErrorKind};

use rustix::io::Errno;
use rustls::CertificateError as Certificate;

use super::Failure;
use super::link::Error;
use crate::http1;

/// The endpoint does not agree to HTTP/2 (ALPN).
#[derive(Debug, thiserror::Error)]
#[error("the endpoint does not take HTTP/2 (ALPN)")]
pub(super) struct NoHttp2;

/// What the gateway itself lacks for one more connection. It says nothing of the endpoint that was to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    Descriptors,
    Memory,
    /// All local ports towards this endpoint are in use; towards another there may be some.
    Ports,
}

impl Shortage {
    /// Whether that is why there is no connection.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        Some(match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            Errno::NOBUFS | Errno::NOMEM => Self::Memory,
            Errno::ADDRNOTAVAIL => Self::Ports,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Descriptors => "no_descriptors",
            Self::Memory => "no_memory",
            Self::Ports => "no_local_port",
        }
    }
}

impl Failure {
    /// The word, where it says more than the code of the refusal does.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Connect(error) => connect(error),
            Self::Short(shortage) => shortage.word(),
            Self::ConnectTimeout => "connect_timeout",
            Self::Exchange(error) => error.reason(),
            Self::TryTimeout => "try_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::Overloaded | Self::Unwell | Self::Unresolved => return None,
        })
    }
}

impl Error {
    /// As [`Failure::reason`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            _ if self.is_closed() => "closed",
            Self::Http1(http1::Error::TooLarge) => "header_too_large",
            Self::Http1(http1::Error::Body) => "request_broke_off",
            Self::Http1(_) => "not_http1",
            Self::Http2(_) | Self::Malformed => "not_http2",
        }
    }

    /// Whether the other side ended the connection, or the exchange, before all that it owed had come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, http1::Error::Closed | http1::Error::Io(_)),
            Self::Malformed => false,
            Self::Http2(error) => {
                let source = std::error::Error::source(error);
                let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
                error.is_canceled()
                    || error.is_closed()
                    || error.is_incomplete_message()
                    || source.is_some_and(|source| source.is::<io::Error>())
                    || h2.is_some_and(|h2| h2.is_io() || h2.is_remote())
            }
        }
    }
}

fn connect(error: &io::Error) -> &'static str {
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return match tls {
            rustls::Error::InvalidCertificate(wrong) => certificate(wrong),
            rustls::Error::AlertReceived(_) => "tls_alert",
            rustls::Error::InvalidMessage(_) => "not_tls",
            rustls::Error::NoApplicationProtocol => "no_http2",
            _ => "tls_failed",
        };
    }
    if inner.is_some_and(|inner| inner.is::<NoHttp2>()) {
        return "no_http2";
    }
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => "closed",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => "no_way",
        ErrorKind::TimedOut => "connect_timeout",
        ErrorKind::NotFound => "no_socket",
        ErrorKind::PermissionDenied => "not_permitted",
        _ => "connect_failed",
    }
}

fn certificate(wrong: &Certificate) -> &'static str {
    match wrong {
        Certificate::Expired | Certificate::ExpiredContext { .. } => "certificate_expired",
        Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => "certificate_not_valid_yet",
        Certificate::UnknownIssuer => "certificate_unknown_issuer",
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => "certificate_other_name",
        Certificate::Revoked => "certificate_revoked",
        _ => "certificate_invalid",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_lacks_is_told_from_what_the_endpoint_refuses() {
        let of = |errno: Errno| Shortage::of(&io::Error::from(errno)).map(Shortage::word);
        let own = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::NOBUFS,
            Errno::ADDRNOTAVAIL,
        ];
        let words = own.map(|errno| of(errno).unwrap());
        assert_eq!(
            words,
            [
                "no_descriptors",
                "no_descriptors",
                "no_memory",
                "no_memory",
                "no_local_port"
            ]
        );
        // A full queue of a Unix socket (EAGAIN) is the endpoint's, and a firewall of this machine stays.
        let other = [
            Errno::CONNREFUSED,
            Errno::CONNRESET,
            Errno::TIMEDOUT,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::AGAIN,
            Errno::PERM,
            Errno::ACCESS,
            Errno::NOENT,
        ];
        assert_eq!(other.map(of), [None; 9]);
        assert_eq!(Shortage::of(&io::Error::other("TLS")), None);
    }
}
