//! Who may call: the ways of authentication of a route, what they let through, and what the upstream is told.
//!
//! One step of the chain. Owns how ways are put together and what is taken out of a request; each way has a file of its
//! own and says only whom it knows. Whatever a client sends in the places of credentials or of what the upstream is told is
//! taken away, whether it was good or not.

mod api_key;
mod basic;
mod certificate;
mod forward;
mod grant;
mod introspect;
pub mod jwt;
mod oidc;
mod place;
mod signature;
mod tell;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use ipnet::IpNet;

use super::{Exchange, Identity, Local};
use crate::config::model::{self, Attribute, Ways};
use crate::http::digest::Expected;
use crate::http::reject::{Problem, Reject};
use api_key::ApiKey;
use basic::Basic;
use certificate::Certificate;
use forward::Forward;
use grant::Grants;
use introspect::Introspect;
use jwt::{Jwt, KeySet, KeySets};
use oidc::Oidc;
pub use place::Foreign;
use place::Taker;
pub use signature::Once;
use signature::{ACCEPT_SIGNATURE, Signature};

/// What a way makes of a request.
#[derive(Debug)]
enum Verdict {
    Known(Arc<Identity>),
    /// As known, with lines that the upstream is to get.
    Vouched(Arc<Identity>, Vec<(HeaderName, HeaderValue)>),
    /// As known, if the body is what was signed, and the nonce new.
    Signed(Arc<Identity>, Option<Box<Expected>>),
    /// As known, with lines that the client is to get.
    Renewed(Arc<Identity>, Vec<(HeaderName, HeaderValue)>),
    /// The request is for the way itself, and this is its end, whatever other ways say.
    Ended(Ending),
    /// As missing, with an answer by which the client can log in.
    LogIn(Box<Response<Bytes>>),
    /// Refused by a service, with its own answer to the client.
    Answered(Box<Response<Bytes>>, Reject),
    /// There is nothing in the request for this way.
    Missing,
    /// What there is, is not good.
    Invalid,
    /// It is good, and not enough.
    Forbidden,
    /// It can not be told now.
    Unavailable,
}

/// What a way answers itself.
type Ending = Result<Box<Response<Bytes>>, Failure>;

/// Why a way refuses a request that is for itself.
#[derive(Debug)]
struct Failure {
    reject: Reject,
    /// Lines that the client is to get.
    lines: Vec<(HeaderName, HeaderValue)>,
    problem: Option<Box<Problem>>,
}

impl Failure {
    fn new(reject: Reject, lines: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self {
            reject,
            lines,
            problem: None,
        }
    }
}

/// What a way can say at once.
#[derive(Debug)]
enum Glance {
    Seen(Verdict),
    /// Somebody else must be asked, or it takes long.
    Ask,
}

/// What ways may know of a request.
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    head: &'a Parts,
    local: &'a Local,
    /// Credentials that go no further than the gateway.
    taken: &'a [Taker],
}

#[derive(Debug)]
enum Way {
    ApiKey(ApiKey),
    Jwt(Jwt),
    Basic(Basic),
    Certificate(Certificate),
    Forward(Forward),
    Introspect(Introspect),
    Signature(Signature),
    Oidc(Arc<Oidc>),
}

impl Way {
    fn glance(&self, call: Call<'_>) -> Glance {
        match self {
            Self::ApiKey(way) => Glance::Seen(way.check(call)),
            Self::Jwt(way) => way.glance(call),
            Self::Basic(way) => way.glance(call),
            Self::Certificate(way) => Glance::Seen(way.check(call)),
            Self::Forward(_) => Glance::Ask,
            Self::Introspect(way) => way.glance(call),
            Self::Signature(way) => way.glance(call),
            Self::Oidc(way) => way.glance(call),
        }
    }

    /// For a way that has said [`Glance::Ask`].
    async fn ask(&self, call: Call<'_>) -> Verdict {
        match self {
            Self::ApiKey(way) => way.check(call),
            Self::Jwt(way) => way.ask(call).await,
            Self::Basic(way) => way.ask(call).await,
            Self::Certificate(way) => way.check(call),
            Self::Forward(way) => way.ask(call).await,
            Self::Introspect(way) => way.ask(call).await,
            Self::Signature(way) => way.check(call),
            Self::Oidc(way) => way.ask(call).await,
        }
    }

    /// What a 401 asks for (RFC 9110, 11.6.1), or a 403 says is lacking.
    fn challenge(&self, reject: Reject) -> Option<Cow<'static, str>> {
        match self {
            Self::ApiKey(_) => (reject != Reject::Forbidden).then_some(Cow::Borrowed("ApiKey")),
            Self::Jwt(way) => Some(way.challenge(reject)),
            Self::Basic(way) => way.challenge(reject),
            Self::Introspect(way) => Some(way.challenge(reject)),
            // There is nothing that a client could send instead; a service says so itself; and what is to be signed stands in
            // a line of its own.
            Self::Certificate(_) | Self::Forward(_) | Self::Signature(_) | Self::Oidc(_) => None,
        }
    }
}

/// The authentication of a route, or of several.
#[derive(Debug)]
pub struct Auth {
    model: Arc<model::Auth>,
    ways: Box<[Way]>,
    all: bool,
    deny: Box<[IpNet]>,
    grants: Option<Grants>,
    taken: Box<[Taker]>,
    pass: Box<[(HeaderName, Attribute)]>,
    observe: bool,
}

/// Whether the answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Passed,
    MustAsk,
    /// The answer is in the exchange, and is no refusal.
    Answered,
}

/// What all ways together say.
#[derive(Debug, Default)]
struct Tally {
    identity: Option<Arc<Identity>>,
    /// How many have known the caller.
    known: usize,
    /// The gravest of what else was said.
    gravest: Option<Reject>,
    /// What the body must be.
    body: Option<Box<Expected>>,
    /// What the upstream is to get.
    lines: Vec<(HeaderName, HeaderValue)>,
    /// The last refusal of a service.
    answer: Option<Box<Response<Bytes>>>,
    /// What the client is to get.
    told: Vec<(HeaderName, HeaderValue)>,
    /// By which the client can log in.
    log_in: Option<Box<Response<Bytes>>>,
    ended: Option<Ending>,
}

impl Tally {
    /// Takes in what one way says; whether the others need not be heard.
    fn take(&mut self, verdict: Verdict, all: bool) -> bool {
        let reject = match verdict {
            Verdict::Known(identity) => return self.known_as(identity, all),
            Verdict::Vouched(identity, lines) => {
                self.lines.extend(lines);
                return self.known_as(identity, all);
            }
            Verdict::Signed(identity, body) => {
                self.body = match (self.body.take(), body) {
                    (Some(first), Some(body)) => Some(Box::new(first.and(*body))),
                    (first, body) => first.or(body),
                };
                return self.known_as(identity, all);
            }
            Verdict::Renewed(identity, lines) => {
                self.told.extend(lines);
                return self.known_as(identity, all);
            }
            Verdict::Ended(ending) => {
                self.ended = Some(ending);
                return true;
            }
            Verdict::LogIn(answer) => {
                self.log_in = Some(answer);
                Reject::CredentialsMissing
            }
            Verdict::Answered(answer, reject) => {
                self.answer = Some(answer);
                reject
            }
            Verdict::Missing => Reject::CredentialsMissing,
            Verdict::Forbidden => Reject::Forbidden,
            Verdict::Unavailable => Reject::AuthUnavailable,
            Verdict::Invalid => Reject::CredentialsInvalid,
        };
        let weight = |reject: &Reject| match reject {
            Reject::CredentialsMissing => 0,
            Reject::Forbidden => 1,
            Reject::AuthUnavailable => 2,
            _ => 3,
        };
        if self
            .gravest
            .as_ref()
            .is_none_or(|other| weight(other) < weight(&reject))
        {
            self.gravest = Some(reject);
        }
        all
    }
}

impl Tally {
    fn known_as(&mut self, identity: Arc<Identity>, all: bool) -> bool {
        self.known += 1;
        self.identity = Some(match self.identity.take() {
            None => identity,
            Some(first) => Arc::new(first.joined(&identity)),
        });
        !all
    }
}

impl Auth {
    #[must_use]
    pub fn compile(model: &Arc<model::Auth>, sets: &mut KeySets) -> Self {
        let all = matches!(model.ways, Ways::All(_));
        // A signature is verified once: where others may have to be asked, not before it is their turn to be.
        let once = all && model.ways().len() > 1;
        let ways = model.ways().iter().map(|way| match way {
            model::Way::ApiKey(model) => Way::ApiKey(ApiKey::new(model)),
            model::Way::Jwt(model) => Way::Jwt(Jwt::new(model, sets)),
            model::Way::Basic(model) => Way::Basic(Basic::new(model)),
            model::Way::ClientCertificate(model) => Way::Certificate(Certificate::new(model)),
            model::Way::Forward(model) => Way::Forward(Forward::new(model)),
            model::Way::Introspect(model) => Way::Introspect(Introspect::new(model)),
            model::Way::Signature(model) => Way::Signature(Signature::new(model, once)),
            model::Way::Oidc(model) => Way::Oidc(Arc::new(Oidc::new(model, sets))),
        });
        Self {
            ways: ways.collect(),
            all,
            deny: model.deny.clone().into(),
            grants: Grants::compile(&model.authorize),
            taken: Taker::of(model).into(),
            pass: model.pass.clone().into(),
            observe: model.observe,
            model: Arc::clone(model),
        }
    }

    /// What it was compiled from.
    #[must_use]
    pub fn model(&self) -> &Arc<model::Auth> {
        &self.model
    }

    /// Published keys that somebody must look after.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<KeySet>> {
        self.ways.iter().filter_map(|way| match way {
            Way::Jwt(way) => way.key_set(),
            Way::Oidc(way) => way.key_set(),
            _ => None,
        })
    }

    /// Finds out who calls, as far as that can be told at once.
    pub fn check(
        &self,
        exchange: &mut Exchange,
        head: &mut Parts,
        local: &Local,
    ) -> Result<Progress, Reject> {
        let mut tally = Tally::default();
        for way in &self.ways {
            match way.glance(Call {
                head,
                local,
                taken: &self.taken,
            }) {
                Glance::Ask => return Ok(Progress::MustAsk),
                Glance::Seen(verdict) => {
                    if tally.take(verdict, self.all) {
                        break;
                    }
                }
            }
        }
        self.settle(tally, exchange, head, local)
    }

    /// As [`Auth::check`], asking whoever must be asked.
    pub async fn ask(
        &self,
        exchange: &mut Exchange,
        head: &mut Parts,
        local: &Local,
    ) -> Result<Progress, Reject> {
        let mut tally = Tally::default();
        for way in &self.ways {
            let call = Call {
                head,
                local,
                taken: &self.taken,
            };
            let verdict = match way.glance(call) {
                Glance::Seen(verdict) => verdict,
                Glance::Ask => way.ask(call).await,
            };
            if tally.take(verdict, self.all) {
                break;
            }
        }
        self.settle(tally, exchange, head, local)
    }

    fn settle(
        &self,
        mut tally: Tally,
        exchange: &mut Exchange,
        head: &mut Parts,
        local: &Local,
    ) -> Result<Progress, Reject> {
        if let Some(ending) = tally.ended.take() {
            return self.end(ending, exchange);
        }
        let judged = self.judge(&tally, exchange.client.effective(), head);
        for taken in &self.taken {
            taken.take(head);
        }
        for (name, _) in &self.pass {
            head.headers.remove(name);
        }
        exchange.identity = tally.identity;
        exchange.body = tally.body;
        exchange.lines.append(&mut tally.told);
        // Who only observes refuses nothing, and so holds no body.
        let unheld = exchange.body.take_if(|_| self.observe);
        let judged =
            judged.and_then(|()| unheld.map_or(Ok(()), |expected| expected.take_nonces(local.now())));
        if let Err(reject) = judged {
            if self.observe {
                exchange.observed.push(reject);
            } else if let (Reject::CredentialsMissing, None, Some(answer)) =
                (reject, &tally.answer, tally.log_in)
            {
                exchange.answer = Some(answer);
                return Ok(Progress::Answered);
            } else {
                exchange.answer = tally.answer;
                self.tell_lacking(reject, exchange);
                return Err(reject);
            }
        }
        for (name, value) in tally.lines {
            head.headers.append(name, value);
        }
        if let Some(identity) = &exchange.identity {
            for (name, fact) in &self.pass {
                if let Some(value) = tell::value(identity, fact) {
                    head.headers.insert(name, value);
                }
            }
        }
        Ok(Progress::Passed)
    }

    /// A way's own answer; those who are refused whatever they bring get none.
    fn end(&self, ending: Ending, exchange: &mut Exchange) -> Result<Progress, Reject> {
        let client = exchange.client.effective();
        if self.deny.iter().any(|net| net.contains(&client)) {
            return Err(Reject::Forbidden);
        }
        match ending {
            Ok(answer) => {
                exchange.answer = Some(answer);
                Ok(Progress::Answered)
            }
            Err(failure) => {
                exchange.lines.extend(failure.lines);
                exchange.problem = failure.problem;
                Err(failure.reject)
            }
        }
    }

    fn judge(&self, tally: &Tally, client: IpAddr, head: &Parts) -> Result<(), Reject> {
        if self.deny.iter().any(|net| net.contains(&client)) {
            return Err(Reject::Forbidden);
        }
        let enough = self.ways.is_empty() || tally.known >= if self.all { self.ways.len() } else { 1 };
        if !enough {
            return Err(tally.gravest.unwrap_or(Reject::CredentialsMissing));
        }
        match &self.grants {
            Some(grants) if !grants.cover(tally.identity.as_deref(), client, head) => Err(Reject::Forbidden),
            _ => Ok(()),
        }
    }

    /// Tells the client what would do (RFC 9110, 11.6.1; RFC 6750, 3).
    fn tell_lacking(&self, reject: Reject, exchange: &mut Exchange) {
        if !matches!(
            reject,
            Reject::CredentialsMissing | Reject::CredentialsInvalid | Reject::Forbidden
        ) {
            return;
        }
        for way in &self.ways {
            if let Way::Signature(way) = way
                && let (Some(asked), true) = (way.asked(), reject != Reject::Forbidden)
            {
                exchange.lines.push((ACCEPT_SIGNATURE, asked.clone()));
            }
            let line = way.challenge(reject).map(|line| match line {
                Cow::Borrowed(line) => Ok(HeaderValue::from_static(line)),
                Cow::Owned(line) => HeaderValue::try_from(line),
            });
            // Several ways may ask for the same.
            if let Some(Ok(line)) = line
                && !exchange
                    .lines
                    .iter()
                    .any(|(name, other)| name == WWW_AUTHENTICATE && *other == line)
            {
                exchange.lines.push((WWW_AUTHENTICATE, line));
            }
        }
    }
}
