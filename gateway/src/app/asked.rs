//! How those stand that the gateway asks about callers, for collectors: issuers of keys, and the server that limits are shared
//! through. Read when they scrape; the labels are addresses that the configuration names.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use crate::http::filter::auth::jwt::KeySet;
use crate::http::filter::limit::redis_away;
use crate::runtime::RuntimeHandle;

/// Tells of the runtime in force.
#[derive(Debug)]
pub(super) struct Asked(pub(super) RuntimeHandle);

type Pick = fn(&KeySet) -> Option<u64>;

const FAMILIES: [(&str, &str, Pick); 2] = [
    (
        "key_set_age_seconds",
        "Seconds since an issuer last told its keys; missing if it never has",
        KeySet::age,
    ),
    (
        "key_set_failing",
        "Whether the last look at an issuer's keys got no answer: those of before are in use",
        |set| Some(u64::from(set.is_failing())),
    ),
];

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Asked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let runtime = self.0.load();
        for (name, help, pick) in FAMILIES {
            // Several ways to ask one address, such as by other certificates, are one series: the worst of them.
            let mut told = BTreeMap::<String, u64>::new();
            for set in runtime.key_sets() {
                if let Some(value) = pick(set) {
                    let known = told.entry(set.url().to_string()).or_default();
                    *known = value.max(*known);
                }
            }
            let mut family = encoder.encode_descriptor(name, help, None, gauge(0).metric_type())?;
            for (url, value) in told {
                gauge(value).encode(family.encode_family(&[("url", url.as_str())])?)?;
            }
        }
        let help = "Workers for which redis is away, so that shared limits do as when_away says";
        let away = gauge(redis_away());
        let family = encoder.encode_descriptor("redis_away_workers", help, None, away.metric_type())?;
        away.encode(family)
    }
}
