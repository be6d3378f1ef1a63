//! Rates that several gateways count together: the limits of a route with `shared`, all in one question to the server.
//!
//! While the server is away each limit does what its `when_away` says. A gateway that counts alone then starts with what it
//! has counted alone before: nobody gains more than a burst at each gateway.

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderValue;
use http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::gcra::Verdict;
use super::store::{Ask, Link};
use super::{Rate, key, outcome, policy, show};
use crate::config::model::{Redis, WhenAway};
use crate::http::filter::Exchange;
use crate::http::reject::Reject;

/// The shared rates of one route on one side of its authentication.
#[derive(Debug)]
pub struct Shared {
    route: Arc<str>,
    server: Arc<Redis>,
    rates: Box<[Rate]>,
    policy: Option<HeaderValue>,
}

impl Shared {
    /// `None` without rates.
    pub(super) fn new(route: &Arc<str>, rates: Vec<Rate>) -> Option<Self> {
        let server = Arc::clone(&rates.first()?.model.shared.as_ref()?.server);
        Some(Self {
            route: Arc::clone(route),
            server,
            policy: policy(&rates, &[]),
            rates: rates.into(),
        })
    }

    /// Charges a request to every limit, or to none and refuses it.
    ///
    /// # Errors
    /// [`Reject::RateLimited`]; [`Reject::LimitUnavailable`] where nobody can be asked and the limit says closed.
    pub async fn ask(&self, exchange: &mut Exchange, head: &Parts) -> Result<(), Reject> {
        let asked: Vec<_> = self
            .rates
            .iter()
            .map(|rate| self.question(rate, exchange, head))
            .collect();
        let told = Link::to(&self.server).ask(&asked).await;
        let mut standing = String::new();
        let mut refused = None;
        // Where one refuses, none was charged.
        let stop = told.as_ref().is_some_and(|told| {
            let mut pairs = told.iter().zip(&self.rates);
            pairs.any(|(told, rate)| *told < 0 && !rate.model.observe)
        });
        for (index, rate) in self.rates.iter().enumerate() {
            let verdict = match told.as_ref().and_then(|told| told.get(index)) {
                Some(told) => verdict(*told, &asked[index], stop),
                None => match self.alone(rate, exchange, head) {
                    Some(verdict) => verdict,
                    None => continue,
                },
            };
            if rate.shown() {
                show(&mut standing, &rate.label, verdict);
            }
            if !verdict.admitted && rate.model.observe {
                exchange.observed.push(Reject::RateLimited);
            } else if !verdict.admitted && refused.is_none() {
                refused = Some((Reject::RateLimited, verdict));
            }
        }
        if told.is_none() && self.rates.iter().any(Rate::closes) {
            return Err(Reject::LimitUnavailable);
        }
        outcome(exchange, self.policy.as_ref(), standing, refused)
    }

    /// What a limit says when nobody can be asked; nothing if it is open or closed then.
    fn alone(&self, rate: &Rate, exchange: &Exchange, head: &Parts) -> Option<Verdict> {
        let shared = rate.model.shared.as_ref()?;
        if shared.when_away != WhenAway::Local {
            return None;
        }
        let hash = key::of(&rate.model.by, rate.rates.hasher(), &self.route, exchange, head);
        Some(rate.rates.charge(hash, Instant::now(), rate.gcra))
    }

    /// A key is the limit's name, or the route's, and a hash of the caller: no address and no token is written anywhere.
    fn question(&self, rate: &Rate, exchange: &Exchange, head: &Parts) -> Ask {
        let mut digest = Sha256::new();
        key::feed(&rate.model.by, &self.route, exchange, head, &mut |bytes| {
            digest.update(bytes)
        });
        let mut key = match &rate.model.name {
            Some(name) => format!("{}rate:{name}:", self.server.prefix),
            None => format!("{}rate:{}:{}:", self.server.prefix, self.route, rate.label),
        };
        for byte in digest.finalize().iter().take(16) {
            let _ = write!(key, "{byte:02x}");
        }
        Ask {
            key,
            interval: rate.gcra.interval(),
            burst: rate.gcra.window(),
            observe: rate.model.observe,
        }
    }
}

/// What the script's number means.
fn verdict(told: i64, asked: &Ask, stop: bool) -> Verdict {
    let next = told.unsigned_abs().saturating_mul(1000);
    let over = told < 0;
    let charged = !over && !stop;
    let ahead = if charged {
        next
    } else {
        next.saturating_sub(asked.interval)
    };
    Verdict {
        admitted: !over,
        left: asked.burst.saturating_sub(ahead) / asked.interval.max(1),
        whole_in: ahead,
        wait: if over { next.saturating_sub(asked.burst) } else { 0 },
    }
}
