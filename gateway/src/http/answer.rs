//! Answers that a route gives itself: redirects and fixed texts. Refusals are `reject`'s.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::template::{Filling, Source};
use crate::config::model::{PathMatch, Redirect, Respond};

/// What to answer.
#[derive(Debug)]
pub enum Answer {
    Redirect {
        status: StatusCode,
        to: Filling,
    },
    Respond {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
}

impl Answer {
    #[must_use]
    pub fn redirect(model: &Redirect, path: &PathMatch) -> Self {
        Self::Redirect {
            status: model.status,
            to: Filling::new(&model.to, path),
        }
    }

    #[must_use]
    pub fn respond(model: &Respond) -> Self {
        let mut headers: HeaderMap = model.headers.iter().cloned().collect();
        if !model.body.is_empty() {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.entry(CONTENT_TYPE).or_insert(plain);
        }
        Self::Respond {
            status: model.status,
            headers,
            body: Bytes::from(model.body.clone()),
        }
    }

    /// The answer to a request whose header is ready for an upstream: one host, the canonical path. `None` if what comes
    /// of a template can be no header line, which no template and no canonical path lead to.
    #[must_use]
    pub fn to(&self, head: &Parts) -> Option<Response<Bytes>> {
        match self {
            Self::Redirect { status, to } => {
                let target = to.fill(&Source::of(head));
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = *status;
                let target = HeaderValue::from_maybe_shared(Bytes::from(target)).ok()?;
                response.headers_mut().insert(LOCATION, target);
                Some(response)
            }
            Self::Respond {
                status,
                headers,
                body,
            } => {
                let mut response = Response::new(body.clone());
                *response.status_mut() = *status;
                response.headers_mut().clone_from(headers);
                Some(response)
            }
        }
    }
}

impl<'r> Source<'r> {
    /// From a header that is ready for an upstream.
    #[must_use]
    pub fn of(head: &'r Parts) -> Self {
        let host: Option<&HeaderValue> = head.headers.get(HeaderName::from_static("host"));
        Self {
            host: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
            path: head.uri.path(),
            query: head.uri.query(),
        }
    }
}
