//! A service says what a token is worth (RFC 7662). A good answer is remembered by a keyed hash, for a bounded time and
//! never beyond the token's end; a bad one is not, so that guesses take no room.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::grant::holds;
use super::place::{Found, find};
use super::{Call, Glance, Identity, Verdict};
use crate::config::model;
use crate::http::reject::Reject;
use crate::upstream::fetch::{Bounds, Service};

/// Largest answer, in bytes.
const MOST: usize = 64 << 10;
/// Longest token, in bytes.
const MOST_TOKEN: usize = 8 << 10;
/// How far the service's clock may be from ours, in seconds.
const LEEWAY: u64 = 30;
/// Requests of one worker that wait for the service.
const MOST_ASKING: u32 = 256;

#[derive(Debug)]
pub(super) struct Introspect {
    /// Distinguishes what is remembered for it.
    id: u64,
    model: Box<model::Introspect>,
    service: Result<Service, String>,
    /// The gateway's own credentials.
    credentials: Option<HeaderValue>,
}

impl Introspect {
    pub(super) fn new(model: &model::Introspect) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // RFC 6749, 2.3.1: both are encoded as in a form.
        let (mut id, mut secret) = (String::new(), String::new());
        encode(&mut id, model.client_id.as_bytes());
        encode(&mut secret, model.client_secret.reveal().as_bytes());
        let credentials =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
        Self {
            // Far from the ids of the other ways.
            id: 1 << 62 | NEXT.fetch_add(1, Ordering::Relaxed),
            service: Service::new(&model.service.url, model.service.ca.as_deref()),
            model: Box::new(model.clone()),
            credentials: credentials.ok().map(|mut line| {
                line.set_sensitive(true);
                line
            }),
        }
    }

    pub(super) fn glance(&self, call: Call<'_>) -> Glance {
        let token = match find(&self.model.place, call.head) {
            Found::None => return Glance::Seen(Verdict::Missing),
            Found::One(token) if !token.is_empty() && token.len() <= MOST_TOKEN => token,
            Found::One(_) | Found::Several => return Glance::Seen(Verdict::Invalid),
        };
        match call.local.known(&call.local.name(self.id, &token), 0) {
            Some(identity) => Glance::Seen(self.judge(identity)),
            None => Glance::Ask,
        }
    }

    pub(super) async fn ask(&self, call: Call<'_>) -> Verdict {
        let Found::One(token) = find(&self.model.place, call.head) else {
            return Verdict::Invalid;
        };
        let Some(_asking) = call.local.begin_asking(MOST_ASKING) else {
            return Verdict::Unavailable;
        };
        match self.look_up(call, &token).await {
            Ok(Some((identity, until))) => {
                let name = call.local.name(self.id, &token);
                call.local.remember(name, until, &identity, 0);
                self.judge(identity)
            }
            Ok(None) => Verdict::Invalid,
            Err(reason) => {
                let url = self.model.service.url.to_string();
                tracing::warn!(%url, %reason, "a token could not be looked up; the request is refused");
                Verdict::Unavailable
            }
        }
    }

    fn judge(&self, identity: Arc<Identity>) -> Verdict {
        if holds(&self.model.scopes, &self.model.claims, &identity) {
            Verdict::Known(identity)
        } else {
            Verdict::Forbidden
        }
    }

    /// Whose token it is, and until when that may be remembered; none if it is not good.
    async fn look_up(&self, call: Call<'_>, token: &[u8]) -> Result<Option<(Arc<Identity>, u64)>, String> {
        let service = self.service.as_ref().map_err(Clone::clone)?;
        let mut form = String::from("token_type_hint=access_token&token=");
        encode(&mut form, token);
        let mut request = service.request().map(|_| Bytes::from(form));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(credentials) = &self.credentials {
            headers.insert(AUTHORIZATION, credentials.clone());
        }
        let bounds = Bounds {
            time: self.model.service.timeout,
            bytes: MOST,
        };
        let answer = service.ask(request, &call.local.kept, bounds).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let claims: Map<String, Value> = serde_json::from_slice(answer.body())
            .map_err(|_| "the answer is not a JSON object".to_owned())?;
        Ok(self.read(claims, call.local.now()))
    }

    fn read(&self, claims: Map<String, Value>, now: u64) -> Option<(Arc<Identity>, u64)> {
        // Nothing else says that it is good (RFC 7662, 2.2).
        if claims.get("active") != Some(&Value::Bool(true)) {
            return None;
        }
        // Times that are none are no good token, whatever else is said.
        let time = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Some(None),
            Some(value) => seconds(value).map(Some),
        };
        let end = time("exp")?;
        let begins = [time("nbf")?, time("iat")?];
        if end.is_some_and(|end| end <= now)
            || begins
                .into_iter()
                .flatten()
                .any(|begin| begin > now.saturating_add(LEEWAY))
        {
            return None;
        }
        let until = now.saturating_add(self.model.remember);
        let until = end.map_or(until, |end| end.min(until));
        let mut identity = Identity {
            claims,
            ..Identity::default()
        };
        let text = |name: &str| identity.claim(name).and_then(Value::as_str);
        let name = match &self.model.name_claim {
            Some(own) => text(own),
            None => ["username", "sub", "client_id"].into_iter().find_map(text),
        };
        let scopes = text("scope")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(Into::into);
        let (name, scopes) = (name.unwrap_or_default().into(), scopes.collect());
        (identity.name, identity.scopes) = (name, scopes);
        Some((Arc::new(identity), until))
    }

    pub(super) fn challenge(&self, reject: Reject) -> Cow<'static, str> {
        super::jwt::bearer_challenge(reject, &self.model.scopes)
    }
}

/// A time of RFC 7519, 2: whole or broken seconds since 1970.
fn seconds(value: &Value) -> Option<u64> {
    let broken = || value.as_f64().filter(|time| (0.0..1e15).contains(time));
    value.as_u64().or_else(|| broken().map(|time| time as u64))
}

/// As in a form: all but letters, digits and four signs stands as `%` and two digits.
pub(super) fn encode(out: &mut String, bytes: &[u8]) {
    use std::fmt::Write as _;
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._*".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
