//! What upstreams need besides requests, once for the process: look-ups, health checks, the end of an ejection.
//!
//! A thread of its own, so that a slow look-up or a thousand checks take nothing from a worker. Whatever it finds out it
//! writes into endpoints and upstreams; workers see it by loads. It holds upstreams weakly: one that is configured no
//! more is forgotten at the next tick.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::health::{Row, probe};
use super::reason::Shortage;
use super::{Endpoint, Upstream, dns};
use crate::config::model::{Ejection, Health};
use crate::net::wards::Wards;
use crate::telemetry::metrics::Rare;

/// Longest time between two look-ups, whatever a record says.
const MOST_TTL: Duration = Duration::from_secs(3_600);
/// Steps of a slow start.
const STEPS: u32 = 20;
/// Most that an ejection grows by.
const MOST_EJECTIONS: u32 = 1_000;
/// How often it is said that a name can not be looked up.
const REMIND: Duration = Duration::from_secs(60);

/// The running thread; dropping it ends it.
#[derive(Debug)]
pub struct Keeper(Wards<Arc<Upstream>>);

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said.
    pub fn start() -> io::Result<Self> {
        Wards::start("upstreams", keep_all).map(Self)
    }

    /// Looks after an upstream for as long as there is one. Those that need nothing are left alone.
    pub fn keep(&self, upstream: &Arc<Upstream>) {
        if let Some(care) = &upstream.care
            && !care.taken.swap(true, Ordering::Relaxed)
        {
            self.0.take(Arc::clone(upstream));
        }
    }
}

async fn keep_all(mut wards: UnboundedReceiver<Arc<Upstream>>) {
    while let Some(upstream) = wards.recv().await {
        for (member, model) in upstream.model.endpoints.iter().enumerate() {
            if model.address.is_name() {
                spawn_local(follow(Arc::downgrade(&upstream), member));
            }
        }
        if let Some(health) = upstream.model.health.clone() {
            spawn_local(check_all(Arc::downgrade(&upstream), health));
        }
        if let Some(ejection) = upstream.model.ejection {
            spawn_local(release_all(Arc::downgrade(&upstream), ejection));
        }
    }
}

/// Looks a name up again and again.
async fn follow(upstream: Weak<Upstream>, member: usize) {
    let mut good = Instant::now();
    let mut told: Option<Instant> = None;
    let mut has = false;
    loop {
        let Some((address, dns)) = upstream.upgrade().and_then(|upstream| {
            let model = upstream.model.endpoints.get(member)?;
            Some((model.address.clone(), upstream.model.dns.clone()))
        }) else {
            return;
        };
        let looked = dns::look_up(&address, &dns).await;
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let name = upstream.model.name.as_str();
        let mut next = dns.refresh;
        match looked {
            Ok(answer) => {
                if told.take().is_some() {
                    tracing::info!(upstream = name, %address, "the name can be looked up again");
                }
                (good, has) = (Instant::now(), true);
                next = answer.ttl.unwrap_or(next).clamp(next, MOST_TTL.max(next));
                if let Err(error) = upstream.renew(member, &answer.found) {
                    tracing::error!(upstream = name, %error, "what was found can not be used");
                }
            }
            Err(error) => {
                upstream.metrics.count(Rare::LookupFailure);
                let old = good.elapsed();
                if has && old >= dns.stale {
                    has = false;
                    tracing::error!(
                        upstream = name, %address, %error, stale_s = old.as_secs(),
                        "the name can not be looked up for too long: its last addresses are given up"
                    );
                    let _ = upstream.renew(member, &[]);
                } else if told.is_none_or(|told| told.elapsed() >= REMIND) {
                    told = Some(Instant::now());
                    tracing::warn!(
                        upstream = name, %address, %error, stale_s = if has { old.as_secs() } else { 0 },
                        "the name can not be looked up{}",
                        if has { ": its last addresses are used" } else { "" }
                    );
                }
                if upstream.endpoints.load().is_empty() {
                    upstream.tell(true);
                }
            }
        }
        drop(upstream);
        sleep(jittered(next)).await;
    }
}

/// Has every endpoint asked, those that come later too.
async fn check_all(upstream: Weak<Upstream>, health: Health) {
    let subscribe = |upstream: Arc<Upstream>| Some(upstream.care.as_ref()?.changed.subscribe());
    let Some(mut changed) = upstream.upgrade().and_then(subscribe) else {
        return;
    };
    let health = Arc::new(health);
    loop {
        {
            let Some(upstream) = upstream.upgrade() else {
                return;
            };
            for endpoint in upstream.endpoints().iter() {
                if !endpoint.checked.swap(true, Ordering::Relaxed) {
                    let (upstream, endpoint) = (Arc::downgrade(&upstream), Arc::downgrade(endpoint));
                    spawn_local(check(upstream, endpoint, Arc::clone(&health)));
                }
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Asks one endpoint again and again.
async fn check(upstream: Weak<Upstream>, endpoint: Weak<Endpoint>, health: Arc<Health>) {
    let mut row = Row::default();
    let mut told: Option<Instant> = None;
    // Not all at once, but soon: until then nothing is known.
    sleep(health.interval.min(Duration::from_secs(1)).mul_f64(draw())).await;
    loop {
        let begun = Instant::now();
        {
            let Some((upstream, endpoint)) = present(&upstream, &endpoint) else {
                return;
            };
            let answer = match timeout(health.timeout, probe(&upstream, &endpoint, &health)).await {
                Ok(answer) => answer,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            // One that could not be asked is neither well nor unwell.
            let unasked = answer.as_ref().is_err_and(|error| Shortage::of(error).is_some());
            if unasked && told.is_none_or(|told| told.elapsed() >= REMIND) {
                told = Some(Instant::now());
                tracing::warn!(
                    upstream = upstream.model.name, endpoint = %endpoint.name(), error = ?answer.as_ref().err(),
                    "a health check could not be made: the gateway lacks what a connection takes"
                );
            }
            if answer.is_err() && !unasked {
                upstream.metrics.count(Rare::ProbeFailure);
            }
            let verdict = if unasked {
                None
            } else {
                row.take(answer.is_ok(), &health)
            };
            match (verdict, answer) {
                (Some(true), _) => {
                    // Before it is in the turn again.
                    let slow = endpoint.standing() == super::Standing::Down && !health.slow_start.is_zero();
                    if slow {
                        endpoint.set_share(100 / STEPS);
                    }
                    if upstream.judge(|_| endpoint.set_down(false)) {
                        tracing::info!(upstream = upstream.model.name, endpoint = %endpoint.name(), "endpoint is well again");
                        if slow {
                            spawn_local(start_slowly(Arc::downgrade(&endpoint), health.slow_start));
                        }
                    }
                }
                (Some(false), Err(error)) if upstream.judge(|_| endpoint.set_down(true)) => {
                    tracing::warn!(
                        upstream = upstream.model.name, endpoint = %endpoint.name(), %error,
                        "endpoint is down: its health check fails"
                    );
                }
                _ => {}
            }
        }
        sleep(jittered(health.interval).saturating_sub(begun.elapsed())).await;
    }
}

fn present(upstream: &Weak<Upstream>, endpoint: &Weak<Endpoint>) -> Option<super::health::Pair> {
    let pair = (upstream.upgrade()?, endpoint.upgrade()?);
    (!pair.1.is_gone()).then_some(pair)
}

/// Brings an endpoint from a small share to its whole one.
async fn start_slowly(endpoint: Weak<Endpoint>, time: Duration) {
    for step in 1..=STEPS {
        let Some(endpoint) = endpoint.upgrade() else {
            return;
        };
        endpoint.set_share(step * 100 / STEPS);
        drop(endpoint);
        sleep(time / STEPS).await;
    }
}

/// Takes back every endpoint that is set aside, when its time is over.
async fn release_all(upstream: Weak<Upstream>, ejection: Ejection) {
    loop {
        {
            let Some(upstream) = upstream.upgrade() else {
                return;
            };
            for endpoint in upstream.endpoints().iter() {
                if endpoint.is_ejected() && !endpoint.timed.swap(true, Ordering::Relaxed) {
                    let (upstream, endpoint) = (Arc::downgrade(&upstream), Arc::downgrade(endpoint));
                    spawn_local(release(upstream, endpoint, ejection));
                }
            }
        }
        // Not held strongly while nothing happens; so that the end is seen, it looks now and then.
        let Some(told) = upstream.upgrade() else { return };
        let told = async move {
            if let Some(care) = &told.care {
                care.ejected.notified().await;
            }
        };
        let _ = timeout(Duration::from_secs(1), told).await;
    }
}

async fn release(upstream: Weak<Upstream>, endpoint: Weak<Endpoint>, ejection: Ejection) {
    let times = endpoint.upgrade().map_or(1, |endpoint| endpoint.ejections());
    let time = ejection.lasts * times.clamp(1, MOST_EJECTIONS);
    let time = time.min(ejection.at_most);
    sleep(time).await;
    {
        let Some((upstream, endpoint)) = present(&upstream, &endpoint) else {
            return;
        };
        upstream.judge(|_| {
            endpoint.reinstate();
            true
        });
        endpoint.timed.store(false, Ordering::Relaxed);
        tracing::info!(
            upstream = upstream.model.name, endpoint = %endpoint.name(), after_s = time.as_secs(),
            "endpoint is tried again"
        );
    }
    // As long again without another, and one is forgotten.
    loop {
        sleep(time).await;
        let Some(endpoint) = endpoint.upgrade() else {
            return;
        };
        if endpoint.is_ejected() || endpoint.ejections() == 0 {
            return;
        }
        endpoint.forgive();
    }
}

/// From nine tenths to eleven tenths, so that what began together does not stay together.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + draw() / 5.0)
}

/// From 0 to 1.
fn draw() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness all are in step, which does no harm but to the peaks.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}
