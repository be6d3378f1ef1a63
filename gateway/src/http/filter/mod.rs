//! A route's policy: the ordered steps between matching and forwarding.
//!
//! A closed enum, statically dispatched; one filter a file. The chain runs forwards on the request and backwards on the
//! response. It alone can make an [`Admitted`], and forwarding needs one: no path in the code leads around the policy.

mod api_key;

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;

use super::headers;
use super::reject::Reject;
use crate::config::model::{Auth, Route};

/// Facts learnt on the way.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Name of the holder of the credentials.
    pub caller: Option<std::sync::Arc<str>>,
}

/// Proof that the chain let a request pass.
#[derive(Debug)]
pub struct Admitted(());

/// One step.
#[derive(Debug)]
enum FilterKind {
    ApiKey(api_key::ApiKey),
    /// Authentication that this version can not do: nobody is let in.
    Closed,
    /// The route's `request` and `response`.
    Headers(Arc<Route>),
}

/// The steps of one route, in order.
#[derive(Debug)]
pub struct Chain(Box<[FilterKind]>);

impl Chain {
    /// Compiles a route's policy: who may call comes first, edits come last and so have the last word.
    #[must_use]
    pub fn compile(route: &Arc<Route>) -> Self {
        let mut steps = Vec::new();
        match &route.auth {
            Some(Auth::ApiKey(model)) => steps.push(FilterKind::ApiKey(api_key::ApiKey::new(model))),
            Some(Auth::Unavailable { .. }) => steps.push(FilterKind::Closed),
            None => {}
        }
        if !(route.request.is_empty() && route.response.is_empty()) {
            steps.push(FilterKind::Headers(Arc::clone(route)));
        }
        Self(steps.into())
    }

    /// Runs the request through.
    pub fn admit(&self, exchange: &mut Exchange, head: &mut Parts) -> Result<Admitted, Reject> {
        for step in &self.0 {
            match step {
                FilterKind::ApiKey(filter) => filter.check(exchange, &mut head.headers)?,
                FilterKind::Closed => return Err(Reject::AuthUnavailable),
                FilterKind::Headers(route) => headers::edit(&mut head.headers, &route.request),
            }
        }
        Ok(Admitted(()))
    }

    /// Runs the upstream's response back.
    pub fn respond(&self, response: &mut HeaderMap) {
        for step in self.0.iter().rev() {
            match step {
                FilterKind::ApiKey(_) | FilterKind::Closed => {}
                FilterKind::Headers(route) => headers::edit(response, &route.response),
            }
        }
    }
}
