//! The validated form of what bounds callers: rates, requests at once, quotas. A part of the model, which hands it on.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::rare::Unsaid;

use super::{Rate, Secret, UpstreamTls};

/// What bounds the callers of a route. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    pub rates: Vec<Arc<RateLimit>>,
    pub at_once: Vec<Arc<Concurrency>>,
    pub quotas: Vec<Arc<Quota>>,
}

impl Unsaid for Throttle {
    const UNSAID: &'static Self = &Self {
        rates: Vec::new(),
        at_once: Vec::new(),
        quotas: Vec::new(),
    };
}

/// How often one caller may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Of one that several routes share, and then count together; one without is the route's own.
    pub name: Option<String>,
    pub rate: Rate,
    /// Requests at once, 1 to 1,000,000.
    pub burst: NonZeroU32,
    pub by: LimitKey,
    /// Counted together by several gateways.
    pub shared: Option<Shared>,
    /// Whether answers tell the client how it stands.
    pub headers: bool,
    /// Only counts and logs what it would refuse.
    pub observe: bool,
}

/// How several gateways count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    pub server: Arc<Redis>,
    pub when_away: WhenAway,
}

/// What a shared limit does while its server can not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAway {
    /// Each gateway counts alone.
    Local,
    /// Admits.
    Open,
    /// Refuses.
    Closed,
}

/// A Redis or Valkey server that gateways share limits through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// For people; without secrets.
    pub url: String,
    pub host: String,
    pub port: u16,
    pub database: i64,
    /// Spoken to by TLS.
    pub tls: Option<UpstreamTls>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Longest wait of a request for an answer.
    pub timeout: Duration,
    /// What the gateway's keys begin with.
    pub prefix: String,
}

/// How many requests of one caller are granted in a day or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of one that several routes share; one without is the route's own.
    pub name: Option<String>,
    pub requests: u32,
    pub per: Period,
    /// Where midnight is, in seconds east of Greenwich.
    pub offset_s: i32,
    pub by: LimitKey,
    /// Whether answers tell the client how it stands.
    pub headers: bool,
    /// Only counts and logs what it would refuse.
    pub observe: bool,
}

/// A part of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Day,
    Month,
}

/// How many requests of one caller may be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub most: NonZeroU32,
    pub by: LimitKey,
    /// Only counts and logs what it would refuse.
    pub observe: bool,
}

/// What makes one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitKey {
    /// All of them together; at least one.
    pub parts: Vec<KeyPart>,
    /// Bits of an IPv4 address that make one client, 8 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make one client, 16 to 128.
    pub ipv6_prefix: u8,
}

impl LimitKey {
    /// Whether it can be known only behind authentication.
    #[must_use]
    pub fn needs_identity(&self) -> bool {
        let needs = |part: &KeyPart| matches!(part, KeyPart::Identity | KeyPart::Claim(_));
        self.parts.iter().any(needs)
    }
}

/// A part of a request that tells callers apart. Requests without it are one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address, as a trusted proxy names it or else that of the socket.
    ClientIp,
    Header(HeaderName),
    Cookie(String),
    /// Of a token, by name or path, or a label of a key.
    Claim(String),
    /// The holder of the credentials.
    Identity,
    Route,
    Host,
}
