//! A route's policy: the ordered steps between matching and forwarding.
//!
//! A closed enum, statically dispatched; one filter a file. The chain runs forwards on the request and backwards on the
//! response. It alone can make an [`Admitted`], and forwarding needs one: no path in the code leads around the policy.

mod api_key;

use http::HeaderMap;
use http::request::Parts;

use super::headers;
use super::reject::Reject;
use crate::config::model::{Auth, HeaderEdit, Route};

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
    /// Nobody passes.
    Closed,
    Headers {
        request: HeaderEdit,
        response: HeaderEdit,
    },
}

/// The steps of one route, in order.
#[derive(Debug)]
pub struct Chain(Box<[FilterKind]>);

impl Chain {
    /// Compiles a route's policy: who may call comes first, edits come last and so have the last word.
    #[must_use]
    pub fn compile(route: &Route) -> Self {
        let mut steps = Vec::new();
        match &route.auth {
            Some(Auth::ApiKey(model)) => steps.push(FilterKind::ApiKey(api_key::ApiKey::new(model))),
            Some(Auth::Unavailable { what }) => {
                tracing::warn!(route = %route.name, what, "credentials can not be checked: the route is closed");
                steps.push(FilterKind::Closed);
            }
            None => {}
        }
        if !(route.request.is_empty() && route.response.is_empty()) {
            steps.push(FilterKind::Headers {
                request: route.request.clone(),
                response: route.response.clone(),
            });
        }
        Self(steps.into())
    }

    /// Runs the request through.
    pub fn admit(&self, exchange: &mut Exchange, head: &mut Parts) -> Result<Admitted, Reject> {
        for step in &self.0 {
            match step {
                FilterKind::ApiKey(filter) => filter.check(exchange, &mut head.headers)?,
                FilterKind::Closed => return Err(Reject::AuthUnavailable),
                FilterKind::Headers { request, .. } => headers::edit(&mut head.headers, request),
            }
        }
        Ok(Admitted(()))
    }

    /// Runs the upstream's response back.
    pub fn respond(&self, response: &mut HeaderMap) {
        for step in self.0.iter().rev() {
            match step {
                FilterKind::ApiKey(_) | FilterKind::Closed => {}
                FilterKind::Headers { response: edit, .. } => headers::edit(response, edit),
            }
        }
    }
}
