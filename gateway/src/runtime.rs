//! A configuration compiled for serving: immutable, swapped whole.
//!
//! Compiling can fail, swapping can not: what does not compile never comes near a request. Parts whose model is equal are
//! taken over from the runtime before, with their state.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::http::door::Door;
use crate::http::filter::Chain;
use crate::http::router::Router;
use crate::http::site::{Route, Site, SiteHandle};
use crate::http::tls;
use crate::telemetry::Metrics;
use crate::upstream::{self, Upstream};

/// A configuration and what was made of it.
#[derive(Debug)]
pub struct Runtime {
    pub config: Config,
    site: Arc<Site>,
    upstreams: Vec<Arc<Upstream>>,
}

/// Why a configuration can not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("TLS of {address}: {cause}")]
    Tls {
        address: std::net::SocketAddr,
        cause: Box<tls::Error>,
    },
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    #[error("route {route}: there is no upstream number {index}")]
    NoUpstream { route: String, index: usize },
}

impl Runtime {
    /// Compiles. Certificates are read from their files again, so that compiling an unchanged configuration renews them.
    pub fn compile(config: &Config, previous: Option<&Self>, metrics: &Metrics) -> Result<Self, Error> {
        // By name first: thousands are compared with thousands.
        let mut before: HashMap<&str, Vec<&Arc<Upstream>>> = HashMap::new();
        for upstream in previous.map_or(&[][..], |previous| &previous.upstreams) {
            before.entry(&upstream.model.name).or_default().push(upstream);
        }
        let known = |model: &crate::config::model::Upstream| {
            let mut named = before.get(model.name.as_str())?.iter();
            named
                .find(|upstream| upstream.model == *model)
                .map(|upstream| Arc::clone(upstream))
        };
        let upstreams = config
            .upstreams
            .iter()
            .map(|model| known(model).map_or_else(|| Upstream::compile(model, metrics).map(Arc::new), Ok))
            .collect::<Result<Vec<_>, _>>()?;
        let mut router = Router::default();
        for route in &config.routes {
            let upstream = upstreams.get(route.upstream.0).ok_or_else(|| Error::NoUpstream {
                route: route.name.clone(),
                index: route.upstream.0,
            })?;
            let compiled = Route {
                name: route.name.as_str().into(),
                chain: Chain::compile(route),
                upstream: Arc::clone(upstream),
                metrics: metrics.route(&route.name),
                body_bytes: route.body_bytes.or(config.limits.body_bytes),
                response_header: route.response_header.unwrap_or(config.limits.response_header),
            };
            router.insert(&route.host, &route.path, Arc::new(compiled));
        }
        let doors = previous.map_or(&[][..], |previous| &previous.site.doors);
        let doors =
            Door::compile(&config.listen, doors).map_err(|(address, cause)| Error::Tls { address, cause })?;
        let site = Site {
            router,
            limits: config.limits,
            trusted_proxies: config.trusted_proxies.clone(),
            doors,
            access_log: config.log.access,
        };
        Ok(Self {
            config: config.clone(),
            site: Arc::new(site),
            upstreams,
        })
    }

    /// The upstreams, in the order of the configuration.
    #[must_use]
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// What a worker serves from; also answers "which route?" offline.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }
}

/// The runtime in force.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    runtime: Arc<ArcSwap<Runtime>>,
    site: SiteHandle,
}

impl RuntimeHandle {
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        let site = Arc::new(ArcSwap::from(Arc::clone(&runtime.site)));
        Self {
            runtime: Arc::new(ArcSwap::from_pointee(runtime)),
            site,
        }
    }

    /// The runtime in force.
    #[must_use]
    pub fn load(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// Puts another in force. Requests under way end with the one they began with.
    pub fn replace(&self, runtime: Runtime) {
        self.site.store(Arc::clone(&runtime.site));
        self.runtime.store(Arc::new(runtime));
    }

    /// For [`crate::http::Server::start`].
    #[must_use]
    pub fn site(&self) -> SiteHandle {
        Arc::clone(&self.site)
    }
}
