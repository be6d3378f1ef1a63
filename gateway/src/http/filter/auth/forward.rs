//! A service decides about each request: it is shown method, address and chosen lines, and its answer is the verdict.
//!
//! It never sees the body, so a request can be refused before that is read. Whatever goes wrong (no answer, a slow one, one
//! that is too large, one that names two callers) is no consent, unless the operator says so.

use std::sync::Arc;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, LOCATION, SET_COOKIE, TE,
    TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{Call, Identity, Verdict};
use crate::config::model;
use crate::http::headers::{CONDITIONS, REQUEST_ID};
use crate::http::reject::Reject;
use crate::upstream::fetch::{Bounds, Service};

/// Largest answer, in bytes.
const MOST: usize = 64 << 10;

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// What services and applications read as the method or the address that was asked for. A client's own would have the service
/// judge one request and the upstream serve another.
pub(super) const ASKED_FOR: [HeaderName; 6] = [
    METHOD,
    URI,
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];
/// What the gateway itself says of the request; always shown.
const OURS: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    REQUEST_ID,
];

#[derive(Debug)]
pub(super) struct Forward {
    model: Box<model::Forward>,
    /// Why the service can not be asked at all, where its certificates are not good.
    service: Result<Service, String>,
}

impl Forward {
    pub(super) fn new(model: &model::Forward) -> Self {
        Self {
            service: Service::new(&model.service.url, model.service.ca.as_deref()),
            model: Box::new(model.clone()),
        }
    }

    pub(super) async fn ask(&self, call: Call<'_>) -> Verdict {
        let answer = match &self.service {
            Err(reason) => Err(reason.clone()),
            Ok(service) => {
                let mut request = service.request();
                *request.headers_mut() = self.shown(call);
                let bounds = Bounds {
                    time: self.model.service.timeout,
                    bytes: MOST,
                };
                let asked = service.ask(request, &call.local.kept, bounds).await;
                asked.map_err(|error| error.to_string())
            }
        };
        match answer {
            Ok(answer) if answer.status().is_success() => match self.consent(&answer) {
                Ok(verdict) => verdict,
                Err(reason) => self.failed(reason),
            },
            Ok(answer) if is_verdict(answer.status()) => self.refusal(call, answer),
            Ok(answer) => self.failed(&format!("status {}", answer.status().as_u16())),
            Err(reason) => self.failed(&reason),
        }
    }

    /// What the service is shown: not the credentials that are the gateway's own to check.
    fn shown(&self, call: Call<'_>) -> HeaderMap {
        let mut head = call.head.clone();
        for taker in call.taken {
            taker.take(&mut head);
        }
        let theirs = &head.headers;
        let mut shown = HeaderMap::new();
        match &self.model.request_headers {
            None => {
                shown.clone_from(theirs);
                // There is no body, and it is another host.
                for name in [
                    CONTENT_LENGTH,
                    CONTENT_ENCODING,
                    TRANSFER_ENCODING,
                    CONTENT_TYPE,
                    EXPECT,
                    TE,
                    UPGRADE,
                    HOST,
                ] {
                    shown.remove(name);
                }
                // They are of what the upstream has.
                for name in CONDITIONS {
                    shown.remove(name);
                }
            }
            Some(names) => {
                for name in names.iter().chain(&OURS) {
                    for value in theirs.get_all(name) {
                        shown.append(name, value.clone());
                    }
                }
            }
        }
        let method = HeaderValue::from_str(head.method.as_str());
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        for (name, value) in [(METHOD, method), (URI, HeaderValue::from_str(target))] {
            if let Ok(value) = value {
                shown.insert(name, value);
            }
        }
        shown
    }

    /// Who calls, and what the upstream is told. Lines that are there several times stay so, but for the caller's name: of two, each
    /// reader would take another.
    fn consent(&self, answer: &Response<bytes::Bytes>) -> Result<Verdict, &'static str> {
        let mut names = self
            .model
            .name
            .iter()
            .flat_map(|name| answer.headers().get_all(name).iter());
        let name = match (names.next(), names.next()) {
            (None, _) => "",
            (Some(name), None) => {
                std::str::from_utf8(name.as_bytes()).map_err(|_| "the caller's name is not text")?
            }
            (Some(_), Some(_)) => return Err("the caller's name is there twice"),
        };
        let lines = self.model.response_headers.iter().flat_map(|name| {
            let values = answer.headers().get_all(name).iter();
            values.map(|value| (name.clone(), value.clone()))
        });
        Ok(Verdict::Vouched(Arc::new(Identity::named(name)), lines.collect()))
    }

    /// The service's own refusal, as the client gets it: a log-in page, a redirect to one, a challenge.
    fn refusal(&self, call: Call<'_>, answer: Response<bytes::Bytes>) -> Verdict {
        let presented = call.head.headers.contains_key(http::header::AUTHORIZATION);
        let reject = match answer.status() {
            StatusCode::UNAUTHORIZED if presented => Reject::CredentialsInvalid,
            StatusCode::UNAUTHORIZED => Reject::CredentialsMissing,
            _ => Reject::Forbidden,
        };
        let (head, body) = answer.into_parts();
        let mut told = Response::new(body);
        *told.status_mut() = head.status;
        let always = [
            CONTENT_TYPE,
            CONTENT_ENCODING,
            LOCATION,
            SET_COOKIE,
            WWW_AUTHENTICATE,
        ];
        for name in always.iter().chain(&self.model.denial_headers) {
            if told.headers().contains_key(name) {
                continue;
            }
            for value in head.headers.get_all(name) {
                told.headers_mut().append(name, value.clone());
            }
        }
        Verdict::Answered(Box::new(told), reject)
    }

    fn failed(&self, reason: &str) -> Verdict {
        let url = self.model.service.url.to_string();
        if self.model.open {
            tracing::warn!(%url, reason, "forward auth failed, and EVERYBODY IS LET IN (on_failure: open)");
            return Verdict::Known(Arc::new(Identity::default()));
        }
        tracing::warn!(%url, reason, "forward auth failed; the request is refused");
        Verdict::Unavailable
    }
}

/// Whether a status is the service's decision, and not its failure. "Not modified" would be said of its own page, and be taken
/// by the client for a word on what it has of the upstream's.
fn is_verdict(status: StatusCode) -> bool {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
        StatusCode::NOT_MODIFIED => false,
        other => other.is_redirection(),
    }
}
