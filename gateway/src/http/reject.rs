//! The one vocabulary of refusal: why the gateway answered instead of the upstream.
//!
//! Owns codes, statuses and blame, and is the only place that builds the gateway's own error response. Knows nothing
//! of strikes or metrics, which read the code.

mod answer;
mod problem;

use http::StatusCode;

pub use answer::{Form, Telling};
pub use problem::{At, Problem};

/// Whose doing a reject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Client,
    Gateway,
    Upstream,
}

/// Why the gateway refused. The variants of one blame stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reject {
    /// The request is not HTTP, or not unambiguous HTTP.
    Malformed,
    /// The path can not be brought into one canonical form.
    BadPath,
    /// No `Host`, or one that is not a host.
    BadHost,
    /// The header took too long to arrive.
    HeaderTimeout,
    /// Header lines too many or too long.
    HeaderTooLarge,
    /// The request target is too long.
    UriTooLong,
    /// The body is larger than the route takes.
    BodyTooLarge,
    /// The body stopped arriving.
    BodyTimeout,
    /// The body is not what its `Content-Encoding` or its `Content-Type` says.
    BadBody,
    /// The body has a content coding that the route would have to decode and can not.
    UnsupportedCoding,
    /// The body has another media type than the route takes.
    UnsupportedMediaType,
    /// The request is not what the description of the API says.
    RequestInvalid,
    /// The TLS handshake failed or took too long.
    TlsHandshake,
    /// The certificate of the name that the client asked for in TLS does not cover the host it asks for in HTTP.
    Misdirected,
    /// A connection that must begin with a PROXY header of a trusted proxy, and does not.
    ProxyProtocol,
    /// Floods of HTTP/2 frames that cost the client nothing: resets, pings, settings, continuations.
    Http2Abuse,
    /// A method or protocol feature that the gateway does not serve, such as CONNECT.
    NotSupported,
    /// No route takes this request.
    NoRoute,
    /// The path is served, with other methods.
    MethodNotAllowed,
    /// No credentials.
    CredentialsMissing,
    /// Credentials that are wrong.
    CredentialsInvalid,
    /// Whoever calls is known, and this is not for them.
    Forbidden,
    /// A log-in that a browser comes back from is not one that it has begun, or the provider does not confirm it.
    LoginFailed,
    /// Credentials can not be checked now, so nobody is let in.
    AuthUnavailable,
    /// The client is blocked at layer 7.
    Blocked,
    /// Too many connections, in all or from this client.
    TooManyConnections,
    /// Bodies that must be whole before they go on take all the memory that there is for them.
    Overloaded,
    /// More requests in a time than the route grants this caller.
    RateLimited,
    /// More requests of this caller under way than the route grants.
    ConcurrencyLimited,
    /// This caller has had what the route grants in a day or month.
    QuotaExceeded,
    /// A fault of the gateway itself.
    Internal,
    /// A limit that gateways share can not be checked now, and is to refuse then.
    LimitUnavailable,
    /// A route leads back to the gateway, and the request has gone round too often.
    LoopDetected,
    /// The gateway is stopping.
    Draining,
    /// No connection to any endpoint.
    UpstreamUnreachable,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// The exchange as a whole took longer than the route gives it.
    DeadlineExceeded,
    /// The endpoint's answer is not HTTP.
    UpstreamMalformed,
    /// The endpoint closed the connection before its answer was whole.
    UpstreamClosed,
    /// The answer is not what the route must make of it, or not what the description of the API says.
    ResponseInvalid,
    /// The upstream's caps are reached.
    UpstreamOverloaded,
    /// No endpoint is well.
    UpstreamUnhealthy,
    /// The upstream's name has no address.
    UpstreamUnresolved,
}

impl Reject {
    /// Every reject there is.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::BadPath,
        Self::BadHost,
        Self::HeaderTimeout,
        Self::HeaderTooLarge,
        Self::UriTooLong,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BadBody,
        Self::UnsupportedCoding,
        Self::UnsupportedMediaType,
        Self::RequestInvalid,
        Self::TlsHandshake,
        Self::Misdirected,
        Self::ProxyProtocol,
        Self::Http2Abuse,
        Self::NotSupported,
        Self::NoRoute,
        Self::MethodNotAllowed,
        Self::CredentialsMissing,
        Self::CredentialsInvalid,
        Self::Forbidden,
        Self::LoginFailed,
        Self::AuthUnavailable,
        Self::Blocked,
        Self::TooManyConnections,
        Self::Overloaded,
        Self::RateLimited,
        Self::ConcurrencyLimited,
        Self::QuotaExceeded,
        Self::Internal,
        Self::LimitUnavailable,
        Self::LoopDetected,
        Self::Draining,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::DeadlineExceeded,
        Self::UpstreamMalformed,
        Self::UpstreamClosed,
        Self::ResponseInvalid,
        Self::UpstreamOverloaded,
        Self::UpstreamUnhealthy,
        Self::UpstreamUnresolved,
    ];

    /// The stable name: metric label, log field, and `code` in the answer's body.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadPath => "bad_path",
            Self::BadHost => "bad_host",
            Self::HeaderTimeout => "header_timeout",
            Self::HeaderTooLarge => "header_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BadBody => "bad_body",
            Self::UnsupportedCoding => "unsupported_coding",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RequestInvalid => "request_invalid",
            Self::TlsHandshake => "tls_handshake",
            Self::Misdirected => "misdirected",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Http2Abuse => "http2_abuse",
            Self::NotSupported => "not_supported",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::Forbidden => "forbidden",
            Self::LoginFailed => "login_failed",
            Self::AuthUnavailable => "auth_unavailable",
            Self::Blocked => "blocked",
            Self::TooManyConnections => "too_many_connections",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::QuotaExceeded => "quota_exceeded",
            Self::LimitUnavailable => "limit_unavailable",
            Self::Internal => "internal",
            Self::LoopDetected => "loop_detected",
            Self::Draining => "draining",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamClosed => "upstream_closed",
            Self::ResponseInvalid => "response_invalid",
            Self::UpstreamOverloaded => "upstream_overloaded",
            Self::UpstreamUnhealthy => "upstream_unhealthy",
            Self::UpstreamUnresolved => "upstream_unresolved",
        }
    }

    /// By its code; for configuration.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reject| reject.code() == code)
    }

    /// A number for the kernel's tables, which outlive this process and this version: a hash of the code (FNV-1a, folded
    /// to the twelve bits there are), so that it needs no list and never means another reject. Never zero.
    #[must_use]
    pub const fn number(self) -> u32 {
        let code = self.code().as_bytes();
        let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
        while at < code.len() {
            hash = (hash ^ code[at] as u32).wrapping_mul(0x0100_0193);
            at += 1;
        }
        (hash ^ hash >> 12 ^ hash >> 24) & gateway_common::entry::Tally::DETAIL_MAX
    }

    /// By its number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|reject| reject.number() == number)
    }

    /// The answer's status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed
            | Self::BadPath
            | Self::BadHost
            | Self::BadBody
            | Self::RequestInvalid
            | Self::LoginFailed
            | Self::TlsHandshake
            | Self::ProxyProtocol
            | Self::Http2Abuse => StatusCode::BAD_REQUEST,
            Self::UnsupportedCoding | Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::HeaderTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::CredentialsMissing | Self::CredentialsInvalid => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Blocked => StatusCode::FORBIDDEN,
            Self::RateLimited | Self::ConcurrencyLimited | Self::QuotaExceeded => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::LimitUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyConnections | Self::Overloaded | Self::Draining | Self::AuthUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamOverloaded | Self::UpstreamUnhealthy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
            Self::UpstreamUnreachable
            | Self::UpstreamMalformed
            | Self::UpstreamClosed
            | Self::ResponseInvalid
            | Self::UpstreamUnresolved => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout | Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Internal
            | Self::LoopDetected
            | Self::Overloaded
            | Self::Draining
            | Self::AuthUnavailable
            | Self::LimitUnavailable => Blame::Gateway,
            Self::UpstreamUnreachable
            | Self::UpstreamTimeout
            | Self::DeadlineExceeded
            | Self::UpstreamMalformed
            | Self::UpstreamClosed
            | Self::ResponseInvalid
            | Self::UpstreamOverloaded
            | Self::UpstreamUnhealthy
            | Self::UpstreamUnresolved => Blame::Upstream,
            _ => Blame::Client,
        }
    }

    /// Strikes this reject costs the client unless the configuration says otherwise.
    ///
    /// Only what an honest client does not do by accident counts: a missing route or an oversized upload is
    /// more often a mistake in an application than an attack. So are more requests than a limit grants, which costs the
    /// gateway next to nothing to refuse; behind one address there may be many honest people.
    #[must_use]
    pub const fn default_strikes(self) -> u32 {
        match self {
            Self::CredentialsInvalid | Self::Malformed | Self::BadPath | Self::HeaderTooLarge => 1,
            Self::HeaderTimeout | Self::TlsHandshake | Self::NotSupported | Self::Http2Abuse => 1,
            _ => 0,
        }
    }
}

impl Reject {
    /// One sentence for the client. Says nothing of the inside: details are for the log.
    const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is not well-formed HTTP.",
            Self::BadPath => {
                "The path is ambiguous; encoded slashes, backslashes and control characters are refused."
            }
            Self::BadHost => "The request must name exactly one valid host.",
            Self::HeaderTimeout => "The request's header took too long.",
            Self::HeaderTooLarge => "The request's header is too large.",
            Self::UriTooLong => "The request's target is too long.",
            Self::BodyTooLarge => "The request's body is too large.",
            Self::BodyTimeout => "The request's body stopped arriving.",
            Self::BadBody => "The request's body is not what its header says.",
            Self::UnsupportedCoding => "The request's Content-Encoding is not supported.",
            Self::UnsupportedMediaType => "The request's Content-Type is not supported.",
            Self::RequestInvalid => "The request is not what the API describes.",
            Self::TlsHandshake => "The TLS handshake failed.",
            Self::Misdirected => "This host is not served on this connection; open another.",
            Self::ProxyProtocol => "The connection does not begin as it must.",
            Self::Http2Abuse => "Too many HTTP/2 frames that ask for nothing.",
            Self::NotSupported => "This method or feature is not supported.",
            Self::NoRoute => "Nothing is served here.",
            Self::MethodNotAllowed => "This method is not served here.",
            Self::CredentialsMissing => "Credentials are required.",
            Self::CredentialsInvalid => "The credentials are not valid.",
            Self::Forbidden => "This is not allowed.",
            Self::LoginFailed => "The log-in did not succeed; go back to where you wanted to go.",
            Self::AuthUnavailable => "Credentials can not be checked at the moment.",
            Self::Blocked => "This client is blocked.",
            Self::TooManyConnections => "Too many connections.",
            Self::Overloaded => "The gateway has too much to do.",
            Self::RateLimited => "Too many requests in this time.",
            Self::ConcurrencyLimited => "Too many requests at once.",
            Self::QuotaExceeded => "No requests are left in this period.",
            Self::LimitUnavailable => "Limits can not be checked at the moment.",
            Self::Internal => "The gateway failed.",
            Self::LoopDetected => "The request comes back to the gateway again and again.",
            Self::Draining => "The gateway is stopping.",
            Self::UpstreamUnreachable => "The service can not be reached.",
            Self::UpstreamTimeout => "The service did not answer in time.",
            Self::DeadlineExceeded => "The request took too long.",
            Self::UpstreamMalformed => "The service gave no valid answer.",
            Self::UpstreamClosed => "The service closed the connection.",
            Self::ResponseInvalid => "The service gave another answer than it should.",
            Self::UpstreamOverloaded => "The service has too much to do.",
            Self::UpstreamUnhealthy => "The service is not well.",
            Self::UpstreamUnresolved => "The service can not be found.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_lead_back() {
        for (index, reject) in Reject::ALL.iter().enumerate() {
            assert_eq!(*reject as usize, index, "ALL must hold every variant, in order");
            assert_eq!(Reject::from_code(reject.code()), Some(*reject));
            assert_eq!(Reject::from_number(reject.number()), Some(*reject));
            assert_ne!(reject.number(), 0);
            assert!(reject.status().as_u16() >= 400);
        }
    }
}
