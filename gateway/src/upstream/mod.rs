//! Named services and the connections to them. Knows nothing of routes, clients or rejects.
//!
//! [`Upstream`] is shared by all workers and holds what they must agree on: requests in flight. Connections and the
//! turn of the round robin belong to each worker's [`Client`] alone, so the request path takes no lock.

mod balance;
mod client;
mod connect;
mod link;
mod pool;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustls_pki_types::ServerName;

pub use client::{Client, Deadlines, Failure, Sent};
pub use pool::Lease;

use crate::config::model;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::UpstreamMetrics;

/// A service, compiled.
#[derive(Debug)]
pub struct Upstream {
    /// Distinguishes this one from every other of this process; the key of the workers' pools.
    id: u64,
    pub model: model::Upstream,
    endpoints: Vec<Endpoint>,
    metrics: UpstreamMetrics,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// One address, compiled.
#[derive(Debug)]
pub struct Endpoint {
    /// `host:port`, for logs.
    name: Arc<str>,
    /// Present unless the host is a name that must be looked up.
    address: Option<SocketAddr>,
    host: String,
    port: u16,
    weight: u32,
    /// Present if the connection is TLS.
    server_name: Option<ServerName<'static>>,
    /// Requests in flight, over all workers.
    in_flight: AtomicU32,
}

/// Why an upstream can not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("upstream {upstream}: {host} is not a name that TLS can verify")]
    ServerName { upstream: String, host: String },
    #[error("upstream {upstream}: no trusted root certificates were found on this system")]
    NoRoots { upstream: String },
}

impl Upstream {
    /// Compiles a service. Root certificates are read only if an endpoint needs them.
    pub fn compile(model: &model::Upstream, metrics: &Metrics) -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let endpoints = model
            .endpoints
            .iter()
            .map(|e| Endpoint::compile(&model.name, e))
            .collect::<Result<Vec<_>, _>>()?;
        let tls = if model.endpoints.iter().any(|e| e.tls) {
            Some(connect::tls_config(&model.name)?)
        } else {
            None
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            model: model.clone(),
            endpoints,
            metrics: metrics.upstream(&model.name),
            tls,
        })
    }

    /// The addresses, in the order of the configuration.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }
}

impl Endpoint {
    fn compile(upstream: &str, model: &model::Endpoint) -> Result<Self, Error> {
        let ip = model.host.parse::<IpAddr>().ok();
        let server_name = if model.tls {
            let name = ServerName::try_from(model.host.clone()).map_err(|_| Error::ServerName {
                upstream: upstream.into(),
                host: model.host.clone(),
            })?;
            Some(name)
        } else {
            None
        };
        let name = match ip {
            Some(ip) => SocketAddr::new(ip, model.port).to_string(),
            None => format!("{}:{}", model.host, model.port),
        };
        Ok(Self {
            name: name.into(),
            address: ip.map(|ip| SocketAddr::new(ip, model.port)),
            host: model.host.clone(),
            port: model.port,
            weight: model.weight.get(),
            server_name,
            in_flight: AtomicU32::new(0),
        })
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
}
