//! What the configuration says of the services behind the gateway.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{Certificate, UpstreamId};
use crate::config::defaults;

/// A named service. Inline upstreams get the name of their route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub name: String,
    pub protocol: Protocol,
    pub balance: Balance,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// What the hash is made of; only with [`Balance::ConsistentHash`].
    pub hash_by: Option<HashBy>,
    pub sticky: Option<Sticky>,
    pub tls: UpstreamTls,
    pub health: Option<Health>,
    pub ejection: Option<Ejection>,
    /// When fewer than this share of the endpoints are well, all are used; 0 to 100.
    pub panic_percent: u8,
    pub caps: Caps,
    pub retries: Option<Retries>,
    /// The client's address is told in front of each connection, which then serves one request.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How names are looked up. The same for all; here, so that a change of it is a change of the upstream.
    pub dns: Dns,
}

impl Upstream {
    /// A service of which nothing is said but where it is.
    #[must_use]
    pub fn new(name: impl Into<String>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: name.into(),
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            endpoints,
            hash_by: None,
            sticky: None,
            tls: UpstreamTls::default(),
            health: None,
            ejection: None,
            panic_percent: defaults::PANIC_PERCENT,
            caps: Caps::default(),
            retries: None,
            proxy_protocol: None,
            dns: defaults::dns(),
        }
    }

    /// The host by which its endpoints are addressed, with the port if it is not the scheme's; `None` if they have several.
    #[must_use]
    pub fn authority(&self) -> Option<String> {
        let authority = |endpoint: &Endpoint| {
            let own = if endpoint.tls { 443 } else { 80 };
            let with_port = |host: String, port: u16| match port {
                port if port == own => host,
                port => format!("{host}:{port}"),
            };
            match &endpoint.address {
                Address::Ip(address) if address.is_ipv6() => {
                    with_port(format!("[{}]", address.ip()), address.port())
                }
                Address::Ip(address) => with_port(address.ip().to_string(), address.port()),
                Address::Name { host, port } => with_port(host.clone(), *port),
                Address::Unix(_) => "localhost".to_owned(),
                Address::Service(name) => name.splitn(3, '.').last().unwrap_or_default().to_owned(),
            }
        };
        let mut all = self.endpoints.iter().map(authority);
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }
}

/// What is spoken to the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// By ALPN where there is TLS, else with prior knowledge (RFC 9113, 3.3).
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// The less loaded of two picked at random, by weight.
    LeastRequests,
    /// The same endpoint for the same key, in proportion to the weights.
    ConsistentHash,
}

/// What of a request decides where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    Header(HeaderName),
    /// Name of a cookie.
    Cookie(String),
    /// As a trusted proxy names it, or else that of the socket.
    ClientIp,
}

/// A cookie of the gateway's own that brings a client back to the endpoint that answered it first.
#[derive(Clone, PartialEq, Eq)]
pub struct Sticky {
    pub cookie: String,
    /// `None`: until the browser closes.
    pub max_age: Option<Duration>,
    /// Key of the names in the cookie. `None`: one made at start, so that cookies do not survive a restart.
    pub secret: Option<Vec<u8>>,
}

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky")
            .field("cookie", &self.cookie)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

/// One address, or one name that stands for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub tls: bool,
    /// Share of requests, 1 to 65,535; of each address that a name stands for. SRV records bring their own.
    pub weight: NonZeroU32,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(SocketAddr),
    Name {
        host: String,
        port: u16,
    },
    /// Name of an SRV record.
    Service(String),
    Unix(PathBuf),
}

impl Address {
    /// Whether it must be looked up.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Service(_))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => write!(f, "srv:{name}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How `https` endpoints are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file of the issuers that are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The name that is asked for and verified; `None`: the host of the endpoint.
    pub server_name: Option<String>,
    /// What the gateway shows of itself.
    pub certificate: Option<Certificate>,
    /// Believes anyone. Warned of loudly.
    pub insecure_skip_verify: bool,
}

/// Asking endpoints whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub probe: Probe,
    pub interval: Duration,
    /// For one probe, connecting included.
    pub timeout: Duration,
    /// Good answers in a row that bring an endpoint back.
    pub healthy: u32,
    /// Bad ones in a row that take it away.
    pub unhealthy: u32,
    /// Time in which an endpoint that came back gets its whole share; zero for at once.
    pub slow_start: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection can be made.
    Tcp,
    /// `GET path` is answered with one of these.
    Http {
        path: String,
        /// `None`: the endpoint's own name.
        host: Option<String>,
        /// Lowest and highest.
        status: (u16, u16),
    },
    /// `grpc.health.v1.Health/Check` says SERVING, for this service or, if empty, for the server.
    Grpc { service: String },
}

/// Setting aside endpoints that fail requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row: connections not made, no answer, status 5xx.
    pub failures: u32,
    /// For how long the first time; each further time as much longer.
    pub lasts: Duration,
    pub at_most: Duration,
    /// Largest share of the endpoints that is set aside, 1 to 100.
    pub share_percent: u8,
}

/// What one upstream takes at most, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Connections, in use and kept. Of HTTP/2, each worker has its own to each endpoint.
    pub connections: Option<NonZeroU32>,
    /// Requests that may wait for a connection.
    pub pending: u32,
    /// How long each may wait.
    pub pending_timeout: Duration,
    /// Requests under way.
    pub requests: Option<NonZeroU32>,
    /// Requests that one connection serves.
    pub connection_requests: Option<NonZeroU32>,
    /// Age at which a connection is not used again.
    pub connection_age: Option<Duration>,
}

impl Default for Caps {
    fn default() -> Self {
        defaults::caps()
    }
}

/// Sending again what failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Tries in all, 1 to 10.
    pub attempts: u32,
    /// A connection that could not be made.
    pub connect: bool,
    /// A connection that broke before the first byte of an answer.
    pub reset: bool,
    /// No answer within `per_try`.
    pub timeout: bool,
    pub statuses: Vec<StatusCode>,
    /// How long one try that is not the last may take until its answer begins.
    pub per_try: Option<Duration>,
    /// Retries for each hundred requests, and so many a second besides.
    pub budget_percent: u32,
    pub budget_per_second: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Asked in turn. Empty: the system's resolver.
    pub servers: Vec<SocketAddr>,
    /// Time between two look-ups where no time to live is known; the shortest where one is.
    pub refresh: Duration,
    /// How long the last answer is used while there is no new one.
    pub stale: Duration,
    /// For one answer of one server.
    pub timeout: Duration,
}

/// Parts of a route's requests to several upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// At least one, with a sum of weights of at least one.
    pub parts: Vec<(UpstreamId, u32)>,
    /// The same part for the same key; `None`: as it comes.
    pub by: Option<HashBy>,
}

/// Copies of requests, whose answers nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub upstream: UpstreamId,
    /// Share of the requests in hundredths of a percent, 1 to 10,000.
    pub share: u32,
    /// Longest body that is copied, in bytes.
    pub body_bytes: u32,
}
