//! Browsers that log in at a provider: an authorization code with PKCE (OpenID Connect Core 1.0, 3.1; RFC 7636), and a
//! session in an encrypted cookie.
//!
//! The gateway keeps nothing: an attempt to log in is a cookie, one for each tab, and so is a session. So any gateway with
//! the same keys goes on where another began, and a session needs the provider no more. The flow is here; what stands in the
//! cookies, how it is sealed and who may be sent where have a file each.

mod browser;
mod cookie;
mod going;
mod proof;
mod provider;
mod refresh;
mod seal;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::jwt::{Jwt, KeySet, KeySets, Unproven};
use super::{Call, Failure, Glance, Identity, Verdict};
use crate::config::model;
use crate::http::query;
use crate::http::reject::{At, Problem, Reject};
use browser::{Origin, address, can_log_in, is_local, is_own, navigates, target};
use cookie::{Jar, Line};
use provider::{Endpoints, Trouble, shown};
use seal::{Purpose, Sealer};
use session::{ATTEMPT, Access, Attempt, Session};

/// Attempts of one browser that are under way at once: tabs that were opened again together.
const MOST_ATTEMPTS: usize = 8;
/// Bytes that they take in the header of each request, all together; a session takes up to 12 KiB besides.
const MOST_ATTEMPT_BYTES: usize = 16 << 10;
/// Attempts that are unsealed to find the oldest, those that the browser names last; more than that are of nobody honest.
const MOST_READ: usize = 16;
/// Requests of one worker that wait for the provider.
const MOST_ASKING: u32 = 256;
/// Longest code, in bytes.
const MOST_CODE: usize = 4 << 10;
/// Letters of a state that name the attempt's cookie.
const ID: usize = 8;

#[derive(Debug)]
pub(super) struct Oidc {
    /// Distinguishes what is remembered for it.
    id: u64,
    model: Box<model::Oidc>,
    jwt: Jwt,
    sealer: Sealer,
    /// What was last made of the provider's metadata.
    endpoints: ArcSwapOption<Known>,
}

/// What there is of a session.
enum Found {
    Seen(Verdict),
    /// The provider must be asked whether it goes on.
    Due(Box<Session>),
}

/// What metadata say, or what is wrong with them.
#[derive(Debug)]
struct Known {
    epoch: u64,
    read: Result<Endpoints, String>,
}

impl Oidc {
    pub(super) fn new(model: &model::Oidc, sets: &mut KeySets) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let issuer = model.token.issuers.first().map_or("", String::as_str);
        let about = [issuer, &model.client_id, &model.session.cookie];
        Self {
            // Far from the ids of the other ways.
            id: 1 << 61 | NEXT.fetch_add(1, Ordering::Relaxed),
            jwt: Jwt::new(&model.token, sets),
            sealer: Sealer::new(&model.session.keys, &about, session::decided(model)),
            endpoints: ArcSwapOption::empty(),
            model: Box::new(model.clone()),
        }
    }

    pub(super) fn key_set(&self) -> Option<&Arc<KeySet>> {
        self.jwt.key_set()
    }

    pub(super) fn glance(&self, call: Call<'_>) -> Glance {
        let path = call.head.uri.path();
        if path == self.model.callback {
            return Glance::Ask;
        }
        if self.model.logout.as_deref() == Some(path) {
            return Glance::Seen(self.log_out(call));
        }
        match self.session(call) {
            Some(Found::Seen(verdict)) => return Glance::Seen(verdict),
            Some(Found::Due(_)) => return Glance::Ask,
            None => {}
        }
        if !can_log_in(call.head) {
            return Glance::Seen(Verdict::Missing);
        }
        match self.known() {
            Some(_) => Glance::Seen(self.log_in(call)),
            None if self.key_set().is_some_and(|set| set.may_be_asked()) => Glance::Ask,
            None => Glance::Seen(self.log_in(call)),
        }
    }

    /// Sends a browser to log in, or takes one back.
    pub(super) async fn ask(self: &Arc<Self>, call: Call<'_>) -> Verdict {
        if call.head.uri.path() == self.model.callback {
            return self.call_back(call).await;
        }
        let going = match self.session(call) {
            Some(Found::Seen(verdict)) => Some(verdict),
            Some(Found::Due(session)) => self.go_on(call, *session).await,
            None => None,
        };
        if let Some(verdict) = going {
            return verdict;
        }
        if !can_log_in(call.head) {
            return Verdict::Missing;
        }
        self.learn().await;
        self.log_in(call)
    }

    /// Has the provider's metadata looked at, if nobody has read them yet.
    async fn learn(&self) {
        if self.known().is_none()
            && let Some(set) = self.key_set()
            && set.may_be_asked()
        {
            set.look().await;
        }
    }

    /// What the provider's metadata say; `None` as long as nobody has read them.
    fn known(&self) -> Option<Arc<Known>> {
        let published = self.key_set()?.load();
        let known = self.endpoints.load_full();
        if let Some(known) = known.filter(|known| known.epoch == published.epoch) {
            return Some(known);
        }
        let metadata = published.metadata.as_ref()?;
        let source = self.model.token.published.as_ref()?;
        let read = Endpoints::read(metadata, source);
        if let Err(reason) = &read {
            tracing::error!(url = %source.url, reason, "nobody can log in");
        }
        let known = Arc::new(Known {
            epoch: published.epoch,
            read,
        });
        self.endpoints.store(Some(Arc::clone(&known)));
        Some(known)
    }

    fn jar(&self, origin: &Origin) -> Jar<'_> {
        Jar {
            base: &self.model.session.cookie,
            secure: origin.secure,
        }
    }

    /// Who calls by a session. One that is not good, or is no more, is none: it may be of a key that is gone, and a page that
    /// goes on asking when its session has ended guesses nothing.
    fn session(&self, call: Call<'_>) -> Option<Found> {
        let origin = Origin::of(&call.head.headers);
        let jar = self.jar(&origin);
        let now = call.local.now();
        jar.sessions(call.head).into_iter().find_map(|sealed| {
            let name = call.local.name(self.id, &sealed);
            if let Some(identity) = call.local.known(&name, 0) {
                return Some(Found::Seen(Verdict::Known(identity)));
            }
            let text = self.sealer.open(Purpose::Session, &sealed)?;
            let session: Session = serde_json::from_slice(&text).ok()?;
            let model = &self.model.session;
            // Clocks here tell whole seconds: it lasts no shorter than was asked for.
            if session.ends(model) < now {
                return None;
            }
            if session.due(model) <= now {
                return Some(Found::Due(Box::new(session)));
            }
            if session.stale(model) <= now {
                return Some(Found::Seen(self.noted(call, jar, session)));
            }
            let identity = Arc::new(session.identity());
            let until = session
                .stale(model)
                .min(session.ends(model))
                .min(session.due(model));
            call.local.remember(name, until, &identity, 0);
            Some(Found::Seen(Verdict::Known(identity)))
        })
    }

    /// Lets a request pass, and notes in the cookie that there was one.
    fn noted(&self, call: Call<'_>, jar: Jar<'_>, mut session: Session) -> Verdict {
        session.used = call.local.now();
        let mut lines = self.kept(call, jar, &session).unwrap_or_default();
        // No cache in front may keep an answer with this line for others.
        let private = HeaderValue::from_static("private, no-cache=\"set-cookie\"");
        lines.push((CACHE_CONTROL, private));
        Verdict::Renewed(Arc::new(session.identity()), lines)
    }

    /// Whom an ID token speaks of, if it is what it must be.
    async fn proven(&self, token: &str, now: u64) -> Result<Arc<Identity>, Trouble> {
        self.jwt.prove(token.as_bytes(), now).await.map_err(|unproven| {
            let fault = match unproven {
                Unproven::Bad(fault) => fault,
                Unproven::KeyMissing => "its key is not published",
            };
            Trouble::Refused(format!("of the ID token: {fault}"))
        })
    }

    /// The lines that keep a session; `None`: it is too large.
    fn kept(&self, call: Call<'_>, jar: Jar<'_>, session: &Session) -> Option<Vec<Line>> {
        let text = serde_json::to_vec(session).ok()?;
        let length = text.len();
        let sealed = self.sealer.seal(Purpose::Session, text)?;
        let seconds = session.ends(&self.model.session).saturating_sub(session.used);
        let lines = jar.keep(call.head, &sealed, seconds);
        if lines.is_none() {
            let claims: Vec<_> = session.claims.keys().collect();
            tracing::error!(
                length,
                ?claims,
                "a session does not fit into cookies: keep fewer claims"
            );
        }
        lines
    }

    /// Sends a browser to the provider.
    fn log_in(&self, call: Call<'_>) -> Verdict {
        let known = self.known();
        let Some(Ok(endpoints)) = known.as_ref().map(|known| &known.read) else {
            return Verdict::Unavailable;
        };
        self.begin(call, endpoints).unwrap_or(Verdict::Unavailable)
    }

    /// `None` without randomness.
    fn begin(&self, call: Call<'_>, endpoints: &Endpoints) -> Option<Verdict> {
        let origin = Origin::of(&call.head.headers);
        let jar = self.jar(&origin);
        let now = call.local.now();
        let attempt = Attempt {
            state: random::<24>()?,
            nonce: random::<24>()?,
            verifier: random::<32>()?,
            target: target(call.head),
            until: now.saturating_add(ATTEMPT),
            origin: origin.text,
        };
        let id = attempt.state.get(..ID)?;
        let sealed = self
            .sealer
            .seal(Purpose::Attempt, serde_json::to_vec(&attempt).ok()?)?;
        let mut lines = self.tidied(call, jar, now, sealed.len());
        lines.push(jar.keep_attempt(id, &sealed, ATTEMPT)?);
        let redirect = format!("{}{}", attempt.origin, self.model.callback);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&attempt.verifier));
        let scopes = self.model.scopes.join(" ");
        let ours = [
            ("response_type", "code"),
            ("client_id", &self.model.client_id),
            ("redirect_uri", &redirect),
            ("scope", &scopes),
            ("state", &attempt.state),
            ("nonce", &attempt.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let theirs = self
            .model
            .parameters
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let all: Vec<_> = ours.into_iter().chain(theirs).collect();
        let location = address(&endpoints.authorization, &all);
        Some(Verdict::LogIn(sent(StatusCode::FOUND, &location, lines)?))
    }

    /// Ends attempts that are over, and the oldest of those that are too many beside a new one of so many bytes.
    fn tidied(&self, call: Call<'_>, jar: Jar<'_>, now: u64, new: usize) -> Vec<Line> {
        let attempts = jar.attempts(call.head);
        let unread = attempts.len().saturating_sub(MOST_READ);
        let mut live = Vec::new();
        let mut over = Vec::new();
        for (at, (id, sealed)) in attempts.iter().enumerate() {
            let read = if at >= unread { self.attempt(sealed) } else { None };
            match read.filter(|attempt| attempt.until > now) {
                Some(attempt) => live.push((attempt.until, sealed.len(), id)),
                None => over.push(id),
            }
        }
        // Of one second the browser names the older ones first (RFC 6265, 5.4).
        live.sort_by_key(|(until, ..)| *until);
        let (mut count, mut bytes) = (1, new);
        for (_, length, id) in live.into_iter().rev() {
            count += 1;
            bytes += length;
            if count > MOST_ATTEMPTS || bytes > MOST_ATTEMPT_BYTES {
                over.push(id);
            }
        }
        over.into_iter().filter_map(|id| jar.end_attempt(id)).collect()
    }

    fn attempt(&self, sealed: &[u8]) -> Option<Attempt> {
        let text = self.sealer.open(Purpose::Attempt, sealed)?;
        serde_json::from_slice(&text).ok()
    }

    /// Takes a browser back from the provider. Whatever is wrong ends here, and never in another redirect.
    async fn call_back(&self, call: Call<'_>) -> Verdict {
        if call.head.method != Method::GET {
            return failed(At::Query("state"), "a browser comes back with GET");
        }
        let query = call.head.uri.query().unwrap_or_default();
        let Some(state) = parameter(query, "state").filter(|state| state.is_ascii() && state.len() > ID)
        else {
            return failed(At::Query("state"), "it is not there exactly once");
        };
        let origin = Origin::of(&call.head.headers);
        let jar = self.jar(&origin);
        let id = state.get(..ID).unwrap_or_default();
        let name = jar.attempt(id);
        let now = call.local.now();
        let own = |attempt: &Attempt| {
            let same: bool = attempt.state.as_bytes().ct_eq(state.as_bytes()).into();
            same && attempt.until > now && attempt.origin == origin.text
        };
        let found = jar
            .texts(&call.head.headers, &name)
            .filter_map(|sealed| self.attempt(sealed))
            .find(own);
        let Some(attempt) = found else {
            let detail = "no log-in with it is under way in this browser: it has ended, was begun long ago, or cookies are off";
            return failed(At::Query("state"), detail);
        };
        let ended: Vec<Line> = jar.end_attempt(id).into_iter().collect();
        match self.redeem(call, query, &attempt).await {
            Ok(session) => {
                let Some(mut lines) = self.kept(call, jar, &session) else {
                    return Verdict::Ended(Err(Failure::new(Reject::Internal, ended)));
                };
                lines.extend(ended);
                // It was local when it was sealed; nothing is lost by another look.
                let target = if is_local(&attempt.target) {
                    &*attempt.target
                } else {
                    "/"
                };
                on_to(StatusCode::FOUND, target, lines)
            }
            Err(Trouble::Refused(reason)) => {
                tracing::info!(reason, "a log-in failed");
                refused(
                    At::Query("code"),
                    "the provider does not confirm this log-in",
                    ended,
                )
            }
            // The attempt stays: the same address may do when the provider is back.
            Err(Trouble::Away(reason)) => {
                let issuer = self.model.token.issuers.first();
                tracing::warn!(?issuer, reason, "a log-in can not be completed");
                Verdict::Ended(Err(Failure::new(Reject::AuthUnavailable, Vec::new())))
            }
        }
    }

    /// What the provider's answer is worth.
    async fn redeem(&self, call: Call<'_>, query: &str, attempt: &Attempt) -> Result<Session, Trouble> {
        let refused = |reason: &str| Trouble::Refused(reason.to_owned());
        let away = |reason: &str| Trouble::Away(reason.to_owned());
        self.learn().await;
        let known = self.known().ok_or_else(|| away("its metadata were never read"))?;
        let endpoints = known.read.as_ref().map_err(|reason| away(reason))?;
        // Another provider may have sent the browser here, to get at the code of this one (RFC 9207, 2.4).
        let says = query::values(query, "iss").count();
        if says > 0 || endpoints.says_issuer {
            let says = parameter(query, "iss");
            if says.is_none() || says.as_ref() != self.model.token.issuers.first() {
                return Err(refused("the answer is of another issuer"));
            }
        }
        if query::values(query, "error").next().is_some() {
            let error = parameter(query, "error").unwrap_or_default();
            return Err(Trouble::Refused(format!("the provider says {:?}", shown(&error))));
        }
        let code = parameter(query, "code").filter(|code| !code.is_empty() && code.len() <= MOST_CODE);
        let code = code.ok_or_else(|| refused("there is not exactly one code"))?;
        let _asking = call
            .local
            .begin_asking(MOST_ASKING)
            .ok_or_else(|| away("too many wait for it"))?;
        let redirect = format!("{}{}", attempt.origin, self.model.callback);
        let kept = &call.local.kept;
        let tokens = endpoints
            .redeem(&self.model, kept, &code, &attempt.verifier, &redirect)
            .await?;
        let now = call.local.now();
        let id = tokens
            .id
            .as_deref()
            .ok_or_else(|| refused("the provider gave no ID token"))?;
        let token = self.proven(id, now).await?;
        let nonce = token.claims.get("nonce").and_then(serde_json::Value::as_str);
        let fits = match nonce {
            Some(nonce) if proof::same(nonce, &attempt.nonce) => {
                proof::fits(&self.model, &token, id, tokens.access.as_deref(), now)
            }
            _ => Err("its nonce is of another log-in"),
        };
        fits.map_err(|fault| Trouble::Refused(format!("of the ID token: {fault}")))?;
        let scopes = tokens.scopes.unwrap_or_else(|| {
            let asked = self.model.scopes.iter();
            asked.map(|scope| scope.as_str().into()).collect()
        });
        let mut session = Session::of(&token, scopes, &self.model.claims, now);
        if self.model.session.refresh {
            let subject = token.claims.get("sub").and_then(serde_json::Value::as_str);
            session.access = Some(Access {
                subject: subject.unwrap_or_default().to_owned(),
                until: now.saturating_add(tokens.lasts.max(1)),
                refresh: tokens.refresh,
            });
        }
        Ok(session)
    }

    /// Ends a session in the browser, and if that is asked for at the provider.
    fn log_out(&self, call: Call<'_>) -> Verdict {
        let head = call.head;
        if head.method != Method::GET && head.method != Method::POST {
            let allow = (ALLOW, HeaderValue::from_static("GET, POST"));
            return Verdict::Ended(Err(Failure::new(Reject::MethodNotAllowed, vec![allow])));
        }
        let origin = Origin::of(&head.headers);
        if !is_own(head, &origin) {
            tracing::debug!("another site would end a session");
            return Verdict::Ended(Err(Failure::new(Reject::Forbidden, Vec::new())));
        }
        let jar = self.jar(&origin);
        let mut lines = jar.end(head);
        lines.extend(
            jar.attempts(head)
                .iter()
                .filter_map(|(id, _)| jar.end_attempt(id)),
        );
        // A script could not follow to another origin, and needs no page.
        if !navigates(&head.headers) {
            return Verdict::Ended(Ok(answer(StatusCode::NO_CONTENT, lines)));
        }
        let back = format!("{}{}", origin.text, self.model.after_logout);
        let known = self.known().filter(|_| self.model.end_session);
        let there = known.and_then(|known| known.read.as_ref().ok()?.end_session.clone());
        let location = match there {
            Some(there) => address(
                &there,
                &[
                    ("client_id", &self.model.client_id),
                    ("post_logout_redirect_uri", &back),
                ],
            ),
            None => self.model.after_logout.clone(),
        };
        on_to(StatusCode::SEE_OTHER, &location, lines)
    }
}

/// Where the browser goes from here.
fn on_to(status: StatusCode, location: &str, lines: Vec<Line>) -> Verdict {
    let answer = sent(status, location, lines);
    Verdict::Ended(answer.ok_or_else(|| Failure::new(Reject::Internal, Vec::new())))
}

/// A log-in that fails by what the browser brings. It may be somebody else's doing, who has sent it here: no strikes.
fn failed(at: At<'_>, detail: &str) -> Verdict {
    tracing::debug!(detail, "a log-in failed");
    refused(at, detail, Vec::new())
}

fn refused(at: At<'_>, detail: &str, lines: Vec<Line>) -> Verdict {
    let mut failure = Failure::new(Reject::LoginFailed, lines);
    let mut problem = Problem::default();
    problem.add(at, detail);
    failure.problem = Some(Box::new(problem));
    Verdict::Ended(Err(failure))
}

fn answer(status: StatusCode, lines: Vec<Line>) -> Box<Response<Bytes>> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in lines {
        headers.append(name, value);
    }
    Box::new(response)
}

/// `None` if the address can not stand in a line.
fn sent(status: StatusCode, location: &str, lines: Vec<Line>) -> Option<Box<Response<Bytes>>> {
    let mut answer = answer(status, lines);
    answer
        .headers_mut()
        .insert(LOCATION, HeaderValue::try_from(location).ok()?);
    Some(answer)
}

/// The one value of a parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut values = query::values(query, name);
    match (values.next(), values.next()) {
        (Some(one), None) => String::from_utf8(one.into_owned()).ok(),
        _ => None,
    }
}

fn random<const BYTES: usize>() -> Option<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}
