//! One address of a service: how it is reached, how it stands, and what it has to do. Shared by all workers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use http::HeaderValue;
use rustls_pki_types::ServerName;

use super::hash;
use super::sticky::{Maker, Token};

/// Units of share for each unit of weight, so that a slow start has steps.
const SHARES: u32 = 100;

const DOWN: u8 = 1;
const EJECTED: u8 = 2;
const GONE: u8 = 4;

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One address, compiled.
#[derive(Debug)]
pub struct Endpoint {
    /// `host:port`, for logs.
    name: Arc<str>,
    /// Place in the configuration of what it comes from.
    member: usize,
    pub(super) origin: Origin,
    /// Present if the connection is TLS.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) hash: u64,
    token: Option<Token>,
    weight: u32,
    /// What it gets of the requests now: its weight, or less while it starts slowly.
    share: AtomicU32,
    flags: AtomicU8,
    /// Failures in a row.
    failures: AtomicU32,
    /// How often it was set aside, less the times that it behaved for long.
    ejections: AtomicU32,
    /// Taken by who ends an ejection, or asks after the health.
    pub(super) timed: AtomicBool,
    pub(super) checked: AtomicBool,
    /// Requests in flight, over all workers.
    in_flight: AtomicU32,
    /// Open connections, over all workers.
    connections: AtomicU32,
}

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Well,
    /// It gets less than its share for a while.
    Starting,
    /// Its health check says so.
    Down,
    /// Requests to it failed.
    Ejected,
}

impl Standing {
    /// For status and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Well => "up",
            Self::Starting => "starting",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }
}

impl Endpoint {
    pub(super) fn new(
        member: usize,
        origin: Origin,
        server_name: Option<ServerName<'static>>,
        weight: u32,
        sticky: Option<&Maker>,
    ) -> Self {
        let name: Arc<str> = match &origin {
            Origin::Tcp(address) => address.to_string().into(),
            Origin::Unix(path) => format!("unix:{}", path.display()).into(),
        };
        Self {
            hash: hash::text(name.as_bytes()),
            token: sticky.map(|maker| maker.token(&name)),
            name,
            member,
            origin,
            server_name,
            weight,
            share: AtomicU32::new(weight.saturating_mul(SHARES)),
            flags: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            timed: AtomicBool::new(false),
            checked: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            connections: AtomicU32::new(0),
        }
    }

    /// `host:port`.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Requests sent and not yet answered to the end, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections, in use and kept, over all workers.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags & DOWN != 0 {
            Standing::Down
        } else if flags & EJECTED != 0 {
            Standing::Ejected
        } else if self.share() < self.weight.saturating_mul(SHARES) {
            Standing::Starting
        } else {
            Standing::Well
        }
    }

    pub(super) fn member(&self) -> usize {
        self.member
    }

    pub(super) fn is_at(&self, address: SocketAddr, weight: u32, name: Option<&ServerName<'static>>) -> bool {
        self.origin == Origin::Tcp(address) && self.weight == weight && self.server_name.as_ref() == name
    }

    /// Whether it may be asked.
    pub(super) fn is_well(&self) -> bool {
        self.flags.load(Ordering::Relaxed) == 0
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & EJECTED != 0
    }

    pub(super) fn is_gone(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & GONE != 0
    }

    pub(super) fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// Sets the share to so many hundredths of the whole; never to nothing.
    pub(super) fn set_share(&self, percent: u32) {
        let share = u64::from(self.weight) * u64::from(SHARES) * u64::from(percent) / 100;
        self.share
            .store(u32::try_from(share).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
    }

    /// Whether this is a change.
    pub(super) fn set_down(&self, down: bool) -> bool {
        let before = if down {
            self.flags.fetch_or(DOWN, Ordering::Relaxed)
        } else {
            self.flags.fetch_and(!DOWN, Ordering::Relaxed)
        };
        (before & DOWN != 0) != down
    }

    /// Whether this is a change.
    pub(super) fn eject(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        let ejected = self.flags.fetch_or(EJECTED, Ordering::Relaxed) & EJECTED == 0;
        if ejected {
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
        ejected
    }

    pub(super) fn reinstate(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.flags.fetch_and(!EJECTED, Ordering::Relaxed);
    }

    pub(super) fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    pub(super) fn forgive(&self) {
        let less = |n: u32| n.checked_sub(1);
        let _ = self
            .ejections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// It is an endpoint no more.
    pub(super) fn leave(&self) {
        self.flags.fetch_or(GONE, Ordering::Relaxed);
    }

    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Failures in a row, this one included.
    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether a client's cookie names this one.
    pub(super) fn is_named(&self, cookie: &str) -> bool {
        self.token.as_ref().is_some_and(|token| token.names(cookie))
    }

    /// The line that brings a client back here.
    pub(super) fn set_cookie(&self, tls: bool) -> Option<&HeaderValue> {
        Some(self.token.as_ref()?.set_cookie(tls))
    }
}

/// Counts a request in an endpoint's load for as long as it lives.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an open connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<Endpoint>);

impl Open {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Endpoint {
    /// With a weight and nothing else.
    pub(super) fn weighing(weight: u32, last: u8) -> Arc<Self> {
        let origin = Origin::Tcp(SocketAddr::from(([127, 0, 0, last], 80)));
        Arc::new(Self::new(0, origin, None, weight, None))
    }

    pub(super) fn load(&self, requests: u32) {
        self.in_flight.store(requests, Ordering::Relaxed);
    }
}
