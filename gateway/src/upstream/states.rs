//! How endpoints stand, for collectors: read when they scrape. The labels are names of the configuration and addresses
//! that it, or the operator's DNS, names; those that are gone are told of no more.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Endpoint, Upstream};

/// The upstreams in force.
#[derive(Clone, Default)]
pub struct States(Arc<ArcSwap<Vec<Arc<Upstream>>>>);

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("States")
    }
}

impl States {
    /// From now on these are told of.
    ///
    /// An upstream of one fixed endpoint that nobody looks after is left out: its own counters say the same.
    pub fn set(&self, upstreams: &[Arc<Upstream>]) {
        let told = |upstream: &&Arc<Upstream>| upstream.care.is_some() || upstream.model.endpoints.len() > 1;
        self.0
            .store(Arc::new(upstreams.iter().filter(told).cloned().collect()));
    }
}

type Pick = fn(&Endpoint) -> i64;

const FAMILIES: [(&str, &str, Pick); 3] = [
    (
        "upstream_endpoint_up",
        "Whether an endpoint is neither down by its health check nor set aside for its failures",
        |endpoint| i64::from(endpoint.is_well()),
    ),
    (
        "upstream_endpoint_requests",
        "Requests under way at an endpoint",
        |endpoint| endpoint.in_flight().into(),
    ),
    (
        "upstream_endpoint_connections",
        "Open connections to an endpoint, in use and kept",
        |endpoint| endpoint.connections().into(),
    ),
];

impl Collector for States {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let upstreams = self.0.load();
        for (name, help, pick) in FAMILIES {
            let kind = ConstGauge::new(0_i64);
            let mut family = encoder.encode_descriptor(name, help, None, kind.metric_type())?;
            for upstream in upstreams.iter() {
                // A name that is given twice, or of which two stand for one address, is one series.
                let mut seen = std::collections::BTreeMap::<String, i64>::new();
                for endpoint in upstream.endpoints().iter() {
                    *seen.entry(endpoint.name().to_string()).or_default() += pick(endpoint);
                }
                for (endpoint, value) in seen {
                    let labels = [
                        ("upstream", upstream.model.name.as_str()),
                        ("endpoint", &endpoint),
                    ];
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
