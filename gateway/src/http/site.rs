//! What the workers serve from: the compiled routes and limits, immutable and swapped whole.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::answer::Answer;
use super::cors::Cors;
use super::door::{Door, Key};
use super::filter::Chain;
use super::filter::auth::Auth;
use super::rewrite::Rewriter;
use super::router::Router;
use super::shape::Whole;
use crate::config::model::{self, Compress, ErrorPages, ForwardingHeader, HashBy, Limits, Paths};
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
    pub forwarding_header: ForwardingHeader,
    pub paths: Paths,
    /// Whether some listener has its own.
    pub own_paths: bool,
    /// What the operator wrote for the gateway's own errors.
    pub errors: ErrorPages,
    /// Whether some route has `cors`: only then is a preflight looked for.
    pub cors: bool,
    /// The listeners, in the order of the configuration.
    pub doors: Vec<Arc<Door>>,
    /// Whether requests are logged.
    pub access_log: bool,
}

/// One way a request can go, compiled.
#[derive(Debug)]
pub struct Route {
    /// What it was compiled from.
    pub model: Arc<model::Route>,
    pub name: Arc<str>,
    pub chain: Chain,
    /// A step of the chain.
    pub auth: Option<Arc<Auth>>,
    pub cors: Option<Box<Cors>>,
    /// The path that the upstream is asked for, if it is another.
    pub rewrite: Option<Box<Rewriter>>,
    pub action: Action,
    /// Present if requests are split between several upstreams; that of the action is the first.
    pub split: Option<Box<Split>>,
    pub mirror: Option<Mirror>,
    pub compress: Option<Compress>,
    /// Cap on a request's body once it is made plain, in bytes; `None` leaves bodies as they are.
    pub decompress: Option<u64>,
    /// What is done with bodies as a whole, if anything.
    pub whole: Option<Box<Whole>>,
    pub metrics: RouteMetrics,
    /// Cap on the request's body in bytes.
    pub body_bytes: Option<u64>,
    pub response_header: Duration,
    /// From the request's header to the end of the answer.
    pub total: Option<Duration>,
    /// Longest silence of a WebSocket, an event stream or a gRPC call.
    pub tunnel_idle: Duration,
    /// Longest life of a WebSocket.
    pub tunnel_life: Option<Duration>,
}

/// What becomes of an admitted request.
#[derive(Debug)]
pub enum Action {
    Forward(Arc<Upstream>),
    Answer(Box<Answer>),
}

/// Shares of several upstreams in a route's requests.
#[derive(Debug)]
pub struct Split {
    /// Each with the end of its part, in units of weight from 0 to `total`.
    pub parts: Vec<(u64, Arc<Upstream>)>,
    pub total: u64,
    /// The same part for the same key.
    pub by: Option<HashBy>,
}

/// Where copies go.
#[derive(Debug)]
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    /// In hundredths of a percent.
    pub share: u32,
    /// Longest body that is copied, in bytes.
    pub body_bytes: usize,
}

impl Split {
    /// The upstream at `draw`, an even one over all of `u64`.
    #[must_use]
    pub fn at(&self, draw: u64) -> Option<&Arc<Upstream>> {
        let at = draw.checked_rem(self.total)?;
        self.parts
            .iter()
            .find(|(end, _)| at < *end)
            .map(|(_, upstream)| upstream)
    }
}

impl Site {
    /// Whether forwarding headers from `ip` are believed.
    #[must_use]
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&ip))
    }

    /// What is done about paths of requests that came by a listener.
    #[must_use]
    pub fn paths_at(&self, door: &Door) -> Paths {
        if !self.own_paths {
            return self.paths;
        }
        // As it is now: the connection may be older.
        let door = self.door(door.key).map_or(door, |door| door);
        door.paths.unwrap_or(self.paths)
    }

    /// A listener, if it is among those in force.
    #[must_use]
    pub fn door(&self, key: Key) -> Option<&Arc<Door>> {
        self.doors.iter().find(|door| door.key == key)
    }
}
