//! What the workers serve from: the compiled routes and limits, immutable and swapped whole.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::door::{Door, Key};
use super::filter::Chain;
use super::router::Router;
use crate::config::model::Limits;
use crate::telemetry::metrics::RouteMetrics;
use crate::upstream::Upstream;

/// Where the workers find the site in force. A request takes it once and keeps what it found to its end.
pub type SiteHandle = Arc<ArcSwap<Site>>;

/// Everything a request may need to know.
#[derive(Debug)]
pub struct Site {
    pub router: Router<Arc<Route>>,
    pub limits: Limits,
    pub trusted_proxies: Vec<IpNet>,
    /// The listeners, in the order of the configuration.
    pub doors: Vec<Arc<Door>>,
    /// Whether requests are logged.
    pub access_log: bool,
}

/// One way a request can go, compiled.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub chain: Chain,
    pub upstream: Arc<Upstream>,
    pub metrics: RouteMetrics,
    /// Cap on the request's body in bytes.
    pub body_bytes: Option<u64>,
    pub response_header: Duration,
}

impl Site {
    /// Whether forwarding headers from `ip` are believed.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&ip))
    }

    /// A listener, if it is among those in force.
    #[must_use]
    pub fn door(&self, key: Key) -> Option<&Arc<Door>> {
        self.doors.iter().find(|door| door.key == key)
    }
}
