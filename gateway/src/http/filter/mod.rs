//! A route's policy: the ordered steps between matching and forwarding.
//!
//! A closed enum, statically dispatched; one filter a file. The chain runs forwards on the request and backwards on the
//! response. It alone can make an [`Admitted`], and forwarding needs one: no path in the code leads around the policy.
//!
//! Steps decide at once, but for those that must ask somebody else: at one of these the chain stops and says so, and goes
//! on behind it when it has been answered. A chain without any costs a request no future.

pub mod auth;
mod cache;
mod identity;
pub mod limit;
mod local;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::time::Instant;

use super::client::Client;
use super::digest::Expected;
use super::facts::{Facts, Kept};
use super::headers;
use super::reject::{Problem, Reject};
use crate::config::model::Route;
use auth::{Auth, Foreign, Progress};
use limit::{Permit, Registry, Shared, Throttle};

pub use identity::Identity;
pub use local::Local;

/// Facts learnt on the way.
#[derive(Debug)]
pub struct Exchange {
    pub client: Client,
    /// When the request's header was there.
    pub started: Instant,
    /// Who calls, if the route wants to know.
    pub identity: Option<Arc<Identity>>,
    /// Header lines that the answer gets, whoever gives it: the upstream, the route or a refusal.
    pub lines: Vec<(HeaderName, HeaderValue)>,
    /// What a refusal tells besides its code.
    pub problem: Option<Box<Problem>>,
    /// Number of the operation that it is of, in the document that it was held against.
    pub operation: Option<usize>,
    /// Facts of the request for edits that come later, on routes with such.
    pub kept: Option<Box<Kept>>,
    /// What a step that only observes would have refused the request for.
    pub observed: Vec<Reject>,
    /// What must hold besides the header, where that is signed.
    pub body: Option<Box<Expected>>,
    /// The answer of a step that has ended the request, or a service's own refusal in the place of the gateway's.
    pub answer: Option<Box<Response<Bytes>>>,
    /// What is given back when the exchange has ended, in whatever way.
    pub held: Vec<Permit>,
}

impl Exchange {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            started: Instant::now(),
            identity: None,
            lines: Vec::new(),
            problem: None,
            operation: None,
            kept: None,
            observed: Vec::new(),
            body: None,
            answer: None,
            held: Vec::new(),
        }
    }
}

/// Proof that the chain let a request pass.
#[derive(Debug)]
pub struct Admitted(());

/// How far a request has come.
#[derive(Debug)]
pub enum Step {
    Admitted(Admitted),
    /// Up to a step that must ask somebody else.
    Ask(At),
    /// A step has answered it, and that is no refusal: the answer is in the exchange.
    Answered,
}

/// A place in a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At(usize);

/// What an answer of somebody else is waited for with: the place to go on from, or none as in [`Step::Answered`].
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Option<At>, Reject>> + 'a>>;

/// One step.
#[derive(Debug)]
enum FilterKind {
    /// Sessions of other routes go no further.
    Foreign(Box<Foreign>),
    Auth(Arc<Auth>),
    /// How often, and how many at once.
    Throttle(Box<Throttle>),
    /// Rates that other gateways count too.
    Shared(Box<Shared>),
    /// Facts are kept for what is changed later.
    Keep,
    /// Header edits of the route's `request` and `response`.
    Headers(Arc<Route>),
}

/// The steps of one route, in order.
#[derive(Debug)]
pub struct Chain(Box<[FilterKind]>);

impl Chain {
    /// Compiles a route's policy: limits of those who need not be known, who may call, limits of those who are; edits come
    /// last and so have the last word. `sessions` are the names of cookies that log-ins of the site set.
    #[must_use]
    pub fn compile(
        route: &Arc<Route>,
        auth: Option<Arc<Auth>>,
        sessions: &BTreeSet<&str>,
        limits: &mut Registry,
    ) -> Self {
        let mut steps = Vec::new();
        let mut throttle = |steps: &mut Vec<FilterKind>, late| {
            let (local, shared) = limit::compile(route, limits, late);
            steps.extend(local.map(|limits| FilterKind::Throttle(limits.into())));
            steps.extend(shared.map(|limits| FilterKind::Shared(limits.into())));
        };
        throttle(&mut steps, false);
        let foreign = Foreign::of(sessions, route.auth.as_deref());
        steps.extend(foreign.map(|foreign| FilterKind::Foreign(foreign.into())));
        steps.extend(auth.map(FilterKind::Auth));
        throttle(&mut steps, true);
        if route.keeps_facts() {
            steps.push(FilterKind::Keep);
        }
        if !(route.request.is_empty() && route.response.is_empty()) {
            steps.push(FilterKind::Headers(Arc::clone(route)));
        }
        Self(steps.into())
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|step| matches!(step, FilterKind::Foreign(_)))
    }

    /// Runs the request through, from a place on: the first is the default.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(
        &self,
        from: At,
        exchange: &mut Exchange,
        head: &mut Parts,
        local: &Local,
    ) -> Result<Step, Reject> {
        for (at, step) in self.0.iter().enumerate().skip(from.0) {
            match step {
                FilterKind::Auth(auth) => match auth.check(exchange, head, local)? {
                    Progress::Passed => {}
                    Progress::MustAsk => return Ok(Step::Ask(At(at))),
                    Progress::Answered => return Ok(Step::Answered),
                },
                FilterKind::Foreign(foreign) => foreign.take(head),
                FilterKind::Throttle(limits) => limits.admit(exchange, head)?,
                FilterKind::Shared(_) => return Ok(Step::Ask(At(at))),
                FilterKind::Keep => {
                    let kept = Kept::of(head, exchange.client, exchange.identity.as_ref());
                    exchange.kept = Some(Box::new(kept));
                }
                FilterKind::Headers(route) => {
                    let edit = &route.request;
                    let made = if edit.made.is_empty() {
                        Vec::new()
                    } else {
                        let identity = exchange.identity.as_deref();
                        headers::made(edit, &Facts::of(head, exchange.client, identity, &route.path))
                    };
                    headers::edit(&mut head.headers, edit, made);
                }
            }
        }
        Ok(Step::Admitted(Admitted(())))
    }

    /// Carries out the step that the chain has stopped at; the place to go on from.
    pub fn ask<'a>(
        &'a self,
        at: At,
        exchange: &'a mut Exchange,
        head: &'a mut Parts,
        local: &'a Local,
    ) -> Asking<'a> {
        Box::pin(async move {
            match self.0.get(at.0) {
                Some(FilterKind::Auth(auth)) => {
                    if auth.ask(exchange, head, local).await? == Progress::Answered {
                        return Ok(None);
                    }
                }
                Some(FilterKind::Shared(limits)) => limits.ask(exchange, head).await?,
                // These ask nobody.
                None
                | Some(
                    FilterKind::Foreign(_)
                    | FilterKind::Throttle(_)
                    | FilterKind::Keep
                    | FilterKind::Headers(_),
                ) => {
                    return Err(Reject::Internal);
                }
            }
            Ok(Some(At(at.0 + 1)))
        })
    }

    /// Runs the upstream's response back.
    pub fn respond(&self, exchange: &Exchange, response: &mut HeaderMap) {
        for step in self.0.iter().rev() {
            match step {
                FilterKind::Foreign(_)
                | FilterKind::Auth(_)
                | FilterKind::Throttle(_)
                | FilterKind::Shared(_)
                | FilterKind::Keep => {}
                FilterKind::Headers(route) => {
                    let edit = &route.response;
                    let kept = exchange.kept.as_ref().filter(|_| !edit.made.is_empty());
                    let made = kept.map(|kept| headers::made(edit, &kept.facts(&route.path)));
                    headers::edit(response, edit, made.unwrap_or_default());
                }
            }
        }
    }
}
