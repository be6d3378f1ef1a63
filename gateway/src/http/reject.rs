//! The one vocabulary of refusal: why the gateway answered instead of the upstream.
//!
//! Owns codes, statuses and blame, and is the only place that builds the gateway's own error response. Knows nothing
//! of strikes or metrics, which read the code.

use http::StatusCode;

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
    /// The TLS handshake failed or took too long.
    TlsHandshake,
    /// A method or protocol feature that the gateway does not serve, such as CONNECT.
    NotSupported,
    /// No route takes this request.
    NoRoute,
    /// No credentials.
    CredentialsMissing,
    /// Credentials that are wrong.
    CredentialsInvalid,
    /// The client is blocked at layer 7.
    Blocked,
    /// Too many connections, in all or from this client.
    TooManyConnections,
    /// A fault of the gateway itself.
    Internal,
    /// The gateway is stopping.
    Draining,
    /// No connection to any endpoint.
    UpstreamUnreachable,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// The endpoint's answer is not HTTP, or broke off before its header ended.
    UpstreamMalformed,
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
        Self::TlsHandshake,
        Self::NotSupported,
        Self::NoRoute,
        Self::CredentialsMissing,
        Self::CredentialsInvalid,
        Self::Blocked,
        Self::TooManyConnections,
        Self::Internal,
        Self::Draining,
        Self::UpstreamUnreachable,
        Self::UpstreamTimeout,
        Self::UpstreamMalformed,
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
            Self::TlsHandshake => "tls_handshake",
            Self::NotSupported => "not_supported",
            Self::NoRoute => "no_route",
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::Blocked => "blocked",
            Self::TooManyConnections => "too_many_connections",
            Self::Internal => "internal",
            Self::Draining => "draining",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamMalformed => "upstream_malformed",
        }
    }

    /// By its code; for configuration.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reject| reject.code() == code)
    }

    /// The answer's status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed | Self::BadPath | Self::BadHost | Self::TlsHandshake => StatusCode::BAD_REQUEST,
            Self::HeaderTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::CredentialsMissing | Self::CredentialsInvalid => StatusCode::UNAUTHORIZED,
            Self::Blocked => StatusCode::FORBIDDEN,
            Self::TooManyConnections | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UpstreamUnreachable | Self::UpstreamMalformed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn blame(self) -> Blame {
        match self {
            Self::Internal | Self::Draining => Blame::Gateway,
            Self::UpstreamUnreachable | Self::UpstreamTimeout | Self::UpstreamMalformed => Blame::Upstream,
            _ => Blame::Client,
        }
    }

    /// Strikes this reject costs the client unless the configuration says otherwise.
    ///
    /// Only what an honest client does not do by accident counts: a missing route or an oversized upload is
    /// more often a mistake in an application than an attack.
    #[must_use]
    pub const fn default_strikes(self) -> u32 {
        match self {
            Self::CredentialsInvalid | Self::Malformed | Self::BadPath | Self::HeaderTooLarge => 1,
            Self::HeaderTimeout | Self::TlsHandshake | Self::NotSupported => 1,
            _ => 0,
        }
    }
}
