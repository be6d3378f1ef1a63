//! Named services and the connections to them. Knows no routes, clients or rejects.
//!
//! [`Upstream`] is shared by all workers and holds what they must agree on: which endpoints there are, how they fare, and
//! how much is under way. Connections and the turn of the round robin belong to each worker's [`Client`] alone, so
//! the request path takes no lock. What takes time of its own (health checks, look-ups, the end of an ejection) is done
//! once for the process by the [`Keeper`].

mod balance;
mod breaker;
mod client;
mod connect;
mod dns;
mod endpoint;
pub mod fetch;
mod hash;
mod health;
mod keeper;
mod link;
mod multiplex;
mod pool;
mod reason;
mod replay;
mod retry;
mod states;
mod sticky;
mod tls;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::{Notify, watch};

pub use client::{Client, Deadlines, Failed, Failure, Hints, Sent, Wish};
pub use endpoint::{Endpoint, Standing};
pub use hash::key;
pub use keeper::Keeper;
pub use link::Outbound;
pub use pool::Lease;
pub use reason::Shortage;
pub use states::States;
pub use sticky::{cookie, cookies};
pub use tls::client_config;

use crate::config::model::{self, Address};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Rare, UpstreamMetrics};
use breaker::Breaker;
use endpoint::Origin;
use retry::Budget;

/// A service, compiled.
#[derive(Debug)]
pub struct Upstream {
    /// Distinguishes this one from every other of this process; the key of the workers' pools.
    id: u64,
    pub model: Arc<model::Upstream>,
    /// The host by which all its endpoints are addressed, if there is one.
    pub host: Option<HeaderValue>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    /// Raised when the endpoints change, so that a worker sees it by one load.
    version: AtomicU64,
    /// Whether some endpoints are not to be used now. Not if too few would be left.
    sifted: AtomicBool,
    /// Held while standings change and are counted; never on the way of a request that succeeds.
    judging: Mutex<()>,
    /// Present if a [`Keeper`] is to look after it.
    care: Option<Box<Care>>,
    metrics: UpstreamMetrics,
    tls: Option<tls::Configs>,
    sticky: Option<sticky::Maker>,
    breaker: Option<Arc<Breaker>>,
    budget: Option<Budget>,
}

/// What an upstream and who looks after it tell each other.
#[derive(Debug, Default)]
struct Care {
    /// Told when the endpoints have changed, or can not be found.
    changed: watch::Sender<()>,
    /// Whether names have been looked up, and none has an address.
    lost: AtomicBool,
    /// Told of each ejection.
    ejected: Notify,
    /// Whether there is someone.
    taken: AtomicBool,
}

impl Care {
    fn of(model: &model::Upstream) -> Option<Box<Self>> {
        let has_names = model.endpoints.iter().any(|e| e.address.is_name());
        let needed = has_names || model.health.is_some() || model.ejection.is_some();
        needed.then(Box::default)
    }
}

/// Why an upstream can not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("upstream {upstream}: {host} is not a name that TLS can verify")]
    ServerName { upstream: String, host: String },
    #[error("upstream {upstream}: no trusted root certificates were found on this system")]
    NoRoots { upstream: String },
    #[error("upstream {upstream}: TLS: {reason}")]
    Tls { upstream: String, reason: String },
}

impl Upstream {
    /// Compiles a service. Root certificates are read only if an endpoint needs them. Names are not looked up yet.
    pub fn compile(model: &Arc<model::Upstream>, metrics: &Metrics) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tls = if model.endpoints.iter().any(|e| e.tls) {
            Some(tls::Configs::compile(model)?)
        } else {
            None
        };
        let sticky = model.sticky.as_ref().map(sticky::Maker::new);
        let mut endpoints = Vec::new();
        for (member, endpoint) in model.endpoints.iter().enumerate() {
            // A name that can not be verified is better told of now than when it is looked up.
            tls::server_name(model, endpoint, None)?;
            let origin = match &endpoint.address {
                Address::Ip(address) => Origin::Tcp(*address),
                Address::Unix(path) => Origin::Unix(path.clone()),
                Address::Name { .. } | Address::Service(_) => continue,
            };
            let name = tls::server_name(model, endpoint, None)?;
            let made = Endpoint::new(member, origin, name, endpoint.weight.get(), sticky.as_ref());
            endpoints.push(Arc::new(made));
        }
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            model: Arc::clone(model),
            host: model
                .authority()
                .and_then(|host| HeaderValue::try_from(host).ok()),
            endpoints: ArcSwap::from_pointee(endpoints),
            version: AtomicU64::new(0),
            sifted: AtomicBool::new(false),
            judging: Mutex::new(()),
            care: Care::of(model),
            metrics: metrics.upstream(&model.name),
            tls,
            sticky,
            breaker: Breaker::of(&model.caps),
            budget: model.retries.as_ref().map(Budget::new),
        })
    }

    /// The addresses there are now, in the order of the configuration.
    #[must_use]
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Whether all endpoints are used although some are not well, since too few are.
    #[must_use]
    pub fn panics(&self) -> bool {
        !self.sifted.load(Ordering::Relaxed) && self.endpoints.load().iter().any(|e| !e.is_well())
    }

    /// Counts a copy that is sent here.
    pub fn mirrored(&self) {
        self.metrics.count(Rare::Mirrored);
    }

    /// Counts a copy that is not.
    pub fn mirror_skipped(&self) {
        self.metrics.count(Rare::MirrorSkipped);
    }

    /// Changes how endpoints stand, and counts who is left. `change` says whether there was one.
    fn judge(&self, change: impl FnOnce(&[Arc<Endpoint>]) -> bool) -> bool {
        let _judging = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = self.endpoints.load();
        let changed = change(&endpoints);
        if changed {
            self.count(&endpoints);
        }
        changed
    }

    fn count(&self, endpoints: &[Arc<Endpoint>]) {
        let well = endpoints.iter().filter(|e| e.is_well()).count();
        let enough = well * 100 >= endpoints.len() * usize::from(self.model.panic_percent);
        let sifted = well < endpoints.len() && enough;
        let before = self.sifted.swap(sifted, Ordering::Relaxed);
        if well < endpoints.len() && !enough {
            tracing::warn!(
                upstream = self.model.name,
                well,
                of = endpoints.len(),
                "too few endpoints are well: all are used"
            );
        } else if before && !sifted {
            tracing::info!(upstream = self.model.name, "all endpoints are well again");
        }
    }

    /// A request to `endpoint` failed for its fault, or did not.
    fn fared(&self, endpoint: &Arc<Endpoint>, well: bool) {
        let (Some(ejection), Some(care)) = (&self.model.ejection, &self.care) else {
            return;
        };
        if well {
            endpoint.succeeded();
            return;
        }
        if endpoint.failed() < ejection.failures || !care.taken.load(Ordering::Relaxed) {
            return;
        }
        let ejected = self.judge(|endpoints| {
            let out = endpoints.iter().filter(|e| e.is_ejected()).count();
            let fits = (out + 1) * 100 <= endpoints.len() * usize::from(ejection.share_percent);
            fits && endpoint.eject()
        });
        if ejected {
            self.metrics.count(Rare::Ejection);
            care.ejected.notify_one();
            tracing::warn!(
                upstream = self.model.name,
                endpoint = %endpoint.name(),
                failures = ejection.failures,
                "endpoint is set aside: it failed too often in a row"
            );
        }
    }

    /// Tells those who wait that the endpoints have changed, or can not be found.
    fn tell(&self, lost: bool) {
        if let Some(care) = &self.care {
            care.lost.store(lost, Ordering::Relaxed);
            care.changed.send_replace(());
        }
    }

    /// Puts the addresses of one name in force: those that stay keep their state.
    fn renew(&self, member: usize, found: &[dns::Found]) -> Result<(), Error> {
        let _judging = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.endpoints.load_full();
        let Some(model) = self.model.endpoints.get(member) else {
            return Ok(());
        };
        let mut after: Vec<Arc<Endpoint>> = Vec::with_capacity(before.len() + found.len());
        after.extend(before.iter().filter(|e| e.member() < member).cloned());
        for found in found {
            let name = tls::server_name(&self.model, model, found.host.as_deref())?;
            let weight = found.weight.unwrap_or(model.weight.get());
            let same =
                |e: &&Arc<Endpoint>| e.member() == member && e.is_at(found.address, weight, name.as_ref());
            let endpoint = before.iter().find(same).cloned().unwrap_or_else(|| {
                let origin = Origin::Tcp(found.address);
                Arc::new(Endpoint::new(member, origin, name, weight, self.sticky.as_ref()))
            });
            after.push(endpoint);
        }
        after.extend(before.iter().filter(|e| e.member() > member).cloned());
        let is_in = |list: &[Arc<Endpoint>], one: &Arc<Endpoint>| list.iter().any(|e| Arc::ptr_eq(e, one));
        let gone: Vec<_> = before.iter().filter(|e| !is_in(&after, e)).collect();
        let new: Vec<_> = after.iter().filter(|e| !is_in(&before, e)).collect();
        if gone.is_empty() && new.is_empty() {
            return Ok(());
        }
        let names = |list: &[&Arc<Endpoint>]| list.iter().map(|e| e.name().to_string()).collect::<Vec<_>>();
        tracing::info!(
            upstream = self.model.name,
            name = %model.address,
            new = ?names(&new),
            gone = ?names(&gone),
            "addresses have changed"
        );
        for endpoint in gone {
            endpoint.leave();
        }
        self.count(&after);
        let lost = after.is_empty();
        self.endpoints.store(Arc::new(after));
        self.version.fetch_add(1, Ordering::Release);
        self.tell(lost);
        Ok(())
    }
}
