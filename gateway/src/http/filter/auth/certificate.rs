//! Callers known by the certificate of their connection.
//!
//! The listener has verified it, and `headers` has written whom it names into lines that nobody else can send: these are
//! read here.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{Call, Identity, Verdict};
use crate::config::model;
use crate::http::headers::{FINGERPRINT, SAN, SUBJECT};

#[derive(Debug)]
pub(super) struct Certificate(model::ClientCertificate);

impl Certificate {
    pub(super) fn new(model: &model::ClientCertificate) -> Self {
        Self(model.clone())
    }

    pub(super) fn check(&self, call: Call<'_>) -> Verdict {
        let line = |name: &HeaderName| {
            call.head
                .headers
                .get(name)
                .and_then(|line: &HeaderValue| line.to_str().ok())
        };
        let Some(fingerprint) = line(&FINGERPRINT) else {
            return Verdict::Missing;
        };
        let subject = line(&SUBJECT).unwrap_or_default();
        // Commas within a name are escaped.
        let sans: Vec<&str> = line(&SAN).map_or_else(Vec::new, |line| line.split(", ").collect());
        let model = &self.0;
        let any = model.subjects.is_empty() && model.sans.is_empty();
        let fits = |patterns: &[String], name: &str| patterns.iter().any(|pattern| fits(pattern, name));
        if !any && !fits(&model.subjects, subject) && !sans.iter().any(|san| fits(&model.sans, san)) {
            return Verdict::Forbidden;
        }
        let name = if subject.is_empty() {
            sans.first().copied().unwrap_or(fingerprint)
        } else {
            subject
        };
        let mut claims = Map::new();
        claims.insert("subject".to_owned(), subject.into());
        claims.insert("san".to_owned(), sans.into_iter().map(Value::from).collect());
        claims.insert("fingerprint".to_owned(), fingerprint.into());
        Verdict::Known(Arc::new(Identity {
            claims,
            ..Identity::named(name)
        }))
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(front) => name.starts_with(front),
        None => name == pattern,
    }
}
