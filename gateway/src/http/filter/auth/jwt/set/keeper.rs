//! Looks at published keys: at the start, every so often, and when a token asks for a key that is not there.
//!
//! A thread of its own, made when there is something to look after. It holds sets weakly: one that is configured no more is
//! forgotten at the next look.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use super::KeySet;
use crate::config::model::{KeySource, Url, VerifyKey, key_set};
use crate::net::wards::Wards;
use crate::upstream::fetch::{Bounds, Kept, Service};

/// Largest set, and largest metadata, in bytes.
const MOST: usize = 256 << 10;
/// Between two looks while the issuer does not answer: doubled each time, up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// The thread, once there is one; dropping it ends it.
#[derive(Debug, Default)]
pub struct KeyKeeper(Mutex<Option<Wards<Arc<KeySet>>>>);

impl KeyKeeper {
    /// Looks after a set for as long as there is one.
    pub fn keep(&self, set: &Arc<KeySet>) {
        if set.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_none() {
            match Wards::start("keys", keep_all) {
                Ok(started) => *running = Some(started),
                Err(error) => {
                    tracing::error!(%error, "no thread to look at published keys: no token can be verified by them");
                    return;
                }
            }
        }
        if let Some(running) = running.as_ref() {
            running.take(Arc::clone(set));
        }
    }
}

async fn keep_all(mut wards: UnboundedReceiver<Arc<KeySet>>) {
    while let Some(set) = wards.recv().await {
        spawn_local(follow(Arc::downgrade(&set)));
    }
}

async fn follow(set: Weak<KeySet>) {
    let mut failures = 0_u32;
    loop {
        let Some(strong) = set.upgrade() else { return };
        strong.busy.store(true, Ordering::Release);
        // Who has asked for a look up to now gets this one.
        tokio::select! {
            biased;
            () = strong.wanted.notified() => {}
            () = std::future::ready(()) => {}
        }
        *strong.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let url = strong.source.url.to_string();
        match read(&strong.source).await {
            Ok((keys, left_out, metadata)) => {
                failures = 0;
                strong.ended(true);
                let count = keys.len();
                if strong.replace(keys, metadata) {
                    tracing::info!(%url, keys = count, "published keys were read");
                    for reason in left_out {
                        tracing::info!(%url, "a published key is left out: {reason}");
                    }
                }
                if count == 0 {
                    tracing::warn!(%url, "none of the published keys can be used: every token is refused");
                }
            }
            Err(reason) => {
                failures += 1;
                strong.ended(false);
                let loaded = strong.is_loaded();
                tracing::error!(%url, %reason, loaded, "published keys can not be read; those of before stay");
            }
        }
        strong.busy.store(false, Ordering::Release);
        strong.looks.send_modify(|looks| *looks += 1);
        let pause = if failures == 0 {
            strong.source.refresh
        } else {
            let grown = AGAIN * 2_u32.saturating_pow((failures - 1).min(10));
            grown.min(AGAIN_AT_MOST).min(strong.source.refresh)
        };
        let next = Instant::now() + pause;
        // A set that nobody holds any more must not be kept by the pause.
        drop(strong);
        if !waits(&set, next).await {
            return;
        }
    }
}

/// Waits for the next look; `false` if there is nothing to look after any more.
async fn waits(set: &Weak<KeySet>, next: Instant) -> bool {
    loop {
        let Some(strong) = set.upgrade() else { return false };
        let tick = Instant::now() + Duration::from_secs(5);
        tokio::select! {
            () = strong.wanted.notified() => {
                if let Some(barred) = strong.barred() {
                    sleep_until(barred).await;
                }
                return true;
            }
            () = sleep_until(next.min(tick)) => {
                if Instant::now() >= next {
                    while let Some(barred) = strong.barred() {
                        sleep_until(barred).await;
                    }
                    return true;
                }
            }
        }
    }
}

/// The keys that can be used, why the others can not, and the metadata that they were found by.
type Found = (Vec<VerifyKey>, Vec<String>, Option<Map<String, Value>>);

/// One look.
async fn read(source: &KeySource) -> Result<Found, String> {
    let mut url = source.url.clone();
    let mut found = None;
    if let Some(issuer) = &source.discover {
        let metadata = get(source, &url).await?;
        let metadata: Map<String, Value> =
            serde_json::from_slice(&metadata).map_err(|_| "the metadata is not a JSON object")?;
        let text = |name: &str| metadata.get(name).and_then(Value::as_str);
        // Otherwise one issuer could speak for another (OpenID Connect Discovery 1.0, 4.3).
        if text("issuer") != Some(issuer) {
            return Err("the metadata is of another issuer".to_owned());
        }
        let keys = text("jwks_uri").and_then(|keys| keys.parse::<Url>().ok());
        let keys = keys.ok_or("the metadata has no good jwks_uri")?;
        if source.url.tls && !keys.tls {
            return Err("the metadata leads from HTTPS to plain HTTP".to_owned());
        }
        url = keys;
        found = Some(metadata);
    }
    let read = key_set(&get(source, &url).await?, false);
    let (keys, left_out) = read.map_err(|reason| format!("{url}: {reason}"))?;
    Ok((keys, left_out, found))
}

async fn get(source: &KeySource, url: &Url) -> Result<bytes::Bytes, String> {
    let service = Service::new(url, source.ca.as_deref())?;
    let mut request = service.request();
    request.headers_mut().insert(
        http::header::ACCEPT,
        http::HeaderValue::from_static("application/json"),
    );
    let bounds = Bounds {
        time: source.timeout,
        bytes: MOST,
    };
    // Asked so seldom that no connection is worth keeping.
    let answer = service.ask(request, &Kept::default(), bounds).await;
    let answer = answer.map_err(|error| format!("{url}: {error}"))?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("{url}: status {}", answer.status().as_u16()));
    }
    Ok(answer.into_body())
}
