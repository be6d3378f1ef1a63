//! What bounds callers: so many requests in a time, in a day or month, at once. A step of a chain before authentication and one
//! behind it, for limits whose callers only that makes known; a limit in front of it also bounds guesses. Rates that gateways
//! share are a step of their own behind each, as somebody has to be asked.
//!
//! What a limit of this gateway refuses is charged to none of the same step; what a later step refuses (credentials, a shared
//! limit) stays charged, so that it is bounded too.
//!
//! Owns the order of limits and what answers say of them. What is counted belongs to a [`Registry`], which all workers share
//! and which outlives reloads.

mod bounded;
mod calendar;
mod concurrency;
mod gcra;
mod key;
pub mod ledger;
mod quota;
mod registry;
mod shared;
mod store;
mod table;

use std::fmt::Write as _;
use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::Exchange;
use crate::config::model::{Concurrency, LimitKey, Period, Quota, RateLimit, Route, WhenAway};
use crate::http::reject::Reject;

pub use concurrency::{Counts, Permit};
use gcra::{Gcra, Verdict};
use quota::Quotas;
pub use registry::{Rates, Registry};
pub use shared::Shared;
pub use store::away as redis_away;

/// Headers of draft-ietf-httpapi-ratelimit-headers-10.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits of one route on one side of its authentication, but those that gateways share.
#[derive(Debug)]
pub struct Throttle {
    route: Arc<str>,
    rates: Box<[Rate]>,
    quotas: Box<[Granted]>,
    at_once: Box<[AtOnce]>,
    /// `RateLimit-Policy`, unless no limit shows itself.
    policy: Option<HeaderValue>,
    /// Behind authentication, which may have taken its time.
    late: bool,
}

#[derive(Debug)]
struct Rate {
    model: Arc<RateLimit>,
    /// In headers.
    label: String,
    gcra: Gcra,
    /// For a shared one, what is counted while nobody can be asked.
    rates: Arc<Rates>,
}

impl Rate {
    fn shown(&self) -> bool {
        self.model.headers && !self.model.observe
    }

    /// Whether it refuses when nobody can be asked.
    fn closes(&self) -> bool {
        let shared = self.model.shared.as_ref();
        !self.model.observe && shared.is_some_and(|shared| shared.when_away == WhenAway::Closed)
    }
}

#[derive(Debug)]
struct Granted {
    model: Arc<Quota>,
    label: String,
    quotas: Arc<Quotas>,
}

impl Granted {
    fn shown(&self) -> bool {
        self.model.headers && !self.model.observe
    }
}

#[derive(Debug)]
struct AtOnce {
    model: Arc<Concurrency>,
    counts: Arc<Counts>,
}

/// The limits of `route` before (or, `late`, behind) authentication: those of this gateway, and those that it shares.
#[must_use]
pub fn compile(route: &Route, registry: &mut Registry, late: bool) -> (Option<Throttle>, Option<Shared>) {
    let here = |by: &LimitKey| by.needs_identity() == late;
    let models = &route.throttle;
    let name: Arc<str> = route.name.as_str().into();
    let alone = models.rates.len() == 1;
    let (mut rates, mut shared) = (Vec::new(), Vec::new());
    for (index, model) in models
        .rates
        .iter()
        .enumerate()
        .filter(|(_, model)| here(&model.by))
    {
        let label = match &model.name {
            Some(name) => name.clone(),
            None if alone => "default".to_owned(),
            None => (index + 1).to_string(),
        };
        let rate = Rate {
            gcra: Gcra::new(model.rate, model.burst.get()),
            model: Arc::clone(model),
            label,
            rates: registry.rates(&name, index, model),
        };
        if model.shared.is_some() {
            shared.push(rate);
        } else {
            rates.push(rate);
        }
    }
    let mut quotas = Vec::new();
    for (index, model) in models
        .quotas
        .iter()
        .enumerate()
        .filter(|(_, model)| here(&model.by))
    {
        let first = models.quotas.iter().position(|other| other.per == model.per) == Some(index);
        let per = match model.per {
            Period::Day => "day",
            Period::Month => "month",
        };
        let label = match &model.name {
            Some(name) => name.clone(),
            None if first => per.to_owned(),
            None => format!("{per}-{}", index + 1),
        };
        quotas.push(Granted {
            model: Arc::clone(model),
            label,
            quotas: registry.quotas(&name, index, model),
        });
    }
    let mut at_once = Vec::new();
    for (index, model) in models
        .at_once
        .iter()
        .enumerate()
        .filter(|(_, model)| here(&model.by))
    {
        let counts = registry.counts(&name, index, model);
        let model = Arc::clone(model);
        at_once.push(AtOnce { model, counts });
    }
    let any = !(rates.is_empty() && quotas.is_empty() && at_once.is_empty());
    let shared = Shared::new(&name, shared);
    let throttle = any.then(|| Throttle {
        route: name,
        policy: policy(&rates, &quotas),
        rates: rates.into(),
        quotas: quotas.into(),
        at_once: at_once.into(),
        late,
    });
    (throttle, shared)
}

impl Throttle {
    /// Counts a request as under way, and charges it to every rate and quota; or does neither, and refuses it.
    ///
    /// # Errors
    /// What refuses it.
    pub fn admit(&self, exchange: &mut Exchange, head: &Parts) -> Result<(), Reject> {
        // Who is one too many is charged nothing; a permit goes back by itself.
        for limit in &self.at_once {
            let hash = key::of(
                &limit.model.by,
                limit.counts.hasher(),
                &self.route,
                exchange,
                head,
            );
            let (permit, before) = limit.counts.enter(hash);
            if before >= limit.model.most.get() {
                if !limit.model.observe {
                    return Err(Reject::ConcurrencyLimited);
                }
                exchange.observed.push(Reject::ConcurrencyLimited);
            }
            exchange.held.push(permit);
        }
        if self.rates.is_empty() && self.quotas.is_empty() {
            return Ok(());
        }
        let now = if self.late {
            Instant::now()
        } else {
            exchange.started
        };
        self.charge(exchange, head, now)
    }

    fn charge(&self, exchange: &mut Exchange, head: &Parts, now: Instant) -> Result<(), Reject> {
        let mut standing = String::new();
        let mut refused = None;
        let mut charged = (0, 0);
        for rate in &self.rates {
            let hash = key::of(&rate.model.by, rate.rates.hasher(), &self.route, exchange, head);
            let verdict = rate.rates.charge(hash, now, rate.gcra);
            if rate.shown() {
                show(&mut standing, &rate.label, verdict);
            }
            if !verdict.admitted && rate.model.observe {
                exchange.observed.push(Reject::RateLimited);
            } else if !verdict.admitted {
                refused = Some((Reject::RateLimited, verdict));
                break;
            }
            charged.0 += 1;
        }
        for quota in self.quotas.iter().take_while(|_| refused.is_none()) {
            let verdict = quota.quotas.charge(
                self.quota_hash(quota, exchange, head),
                quota.model.requests.into(),
            );
            if quota.shown() {
                show(&mut standing, &quota.label, verdict);
            }
            if !verdict.admitted && quota.model.observe {
                exchange.observed.push(Reject::QuotaExceeded);
            } else if !verdict.admitted {
                refused = Some((Reject::QuotaExceeded, verdict));
                break;
            }
            charged.1 += 1;
        }
        // What one refuses is not charged to the others.
        if refused.is_some() {
            for rate in self.rates.iter().take(charged.0) {
                let hash = key::of(&rate.model.by, rate.rates.hasher(), &self.route, exchange, head);
                rate.rates.refund(hash, now, rate.gcra);
            }
            for quota in self.quotas.iter().take(charged.1) {
                quota.quotas.refund(self.quota_hash(quota, exchange, head));
            }
        }
        outcome(exchange, self.policy.as_ref(), standing, refused)
    }

    fn quota_hash(&self, quota: &Granted, exchange: &Exchange, head: &Parts) -> u64 {
        let by = &quota.model.by;
        quota
            .quotas
            .hash(|mut to| key::feed(by, &self.route, exchange, head, &mut to))
    }
}

/// Leaves in the exchange what the answer is to say of its limits.
fn outcome(
    exchange: &mut Exchange,
    policy: Option<&HeaderValue>,
    standing: String,
    refused: Option<(Reject, Verdict)>,
) -> Result<(), Reject> {
    if let (Some(policy), Ok(standing)) = (policy, HeaderValue::try_from(standing))
        && !standing.is_empty()
    {
        exchange.lines.push((RATELIMIT_POLICY, policy.clone()));
        exchange.lines.push((RATELIMIT, standing));
    }
    let Some((reject, verdict)) = refused else {
        return Ok(());
    };
    let wait = HeaderValue::from(seconds(verdict.wait).max(1));
    exchange.lines.push((RETRY_AFTER, wait));
    Err(reject)
}

/// Whole seconds, rounded up: who waits that long does not come too early.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000)
}

/// A structured field's list (RFC 9651): what each limit grants, and in which time it does so again. Months differ in
/// length, and so have none.
fn policy(rates: &[Rate], quotas: &[Granted]) -> Option<HeaderValue> {
    let mut items = Vec::new();
    for rate in rates.iter().filter(|rate| rate.shown()) {
        let window = seconds(rate.gcra.window()).max(1);
        items.push(format!("\"{}\";q={};w={window}", rate.label, rate.model.burst));
    }
    for quota in quotas.iter().filter(|quota| quota.shown()) {
        let window = match quota.model.per {
            Period::Day => ";w=86400",
            Period::Month => "",
        };
        items.push(format!("\"{}\";q={}{window}", quota.label, quota.model.requests));
    }
    let text = items.join(", ");
    HeaderValue::try_from(text).ok().filter(|text| !text.is_empty())
}

fn show(text: &mut String, label: &str, verdict: Verdict) {
    let comma = if text.is_empty() { "" } else { ", " };
    let whole_in = seconds(verdict.whole_in);
    let _ = write!(text, "{comma}\"{label}\";r={};t={whole_in}", verdict.left);
}

#[cfg(test)]
mod tests;
