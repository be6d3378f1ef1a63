//! What values made of facts are made from. Which facts there are, the configuration's check says; here they are looked up.
//!
//! They are those of the request as it was admitted, before any edit. Where an edit comes later, such as one of the answer, they are kept for it;
//! only routes that need them pay for that.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use super::client::Client;
use super::filter::Identity;
use super::{forwarded, headers, query, template};
use crate::config::model::{Fact, PathMatch, ValueTemplate};

/// Longest value that is made, in bytes. A longer one counts as missing.
const MOST: usize = 16 << 10;

/// A request's facts, wherever they are.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'r> {
    pub method: &'r Method,
    /// With the canonical path.
    pub uri: &'r Uri,
    /// Ready for an upstream: with the gateway's own lines.
    pub headers: &'r HeaderMap,
    pub client: IpAddr,
    pub identity: Option<&'r Identity>,
    /// What the captures belong to.
    pub pattern: &'r PathMatch,
}

/// The same, kept for later.
#[derive(Clone, Debug)]
pub struct Kept {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    client: Client,
    identity: Option<Arc<Identity>>,
}

impl Kept {
    #[must_use]
    pub fn of(head: &Parts, client: Client, identity: Option<&Arc<Identity>>) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
            client,
            identity: identity.cloned(),
        }
    }

    /// What was asked for.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    #[must_use]
    pub fn facts<'r>(&'r self, pattern: &'r PathMatch) -> Facts<'r> {
        Facts {
            method: &self.method,
            uri: &self.uri,
            headers: &self.headers,
            client: self.client.effective(),
            identity: self.identity.as_deref(),
            pattern,
        }
    }
}

impl<'r> Facts<'r> {
    /// Of a request whose header is ready for an upstream.
    #[must_use]
    pub fn of(
        head: &'r Parts,
        client: Client,
        identity: Option<&'r Identity>,
        pattern: &'r PathMatch,
    ) -> Self {
        Self {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            client: client.effective(),
            identity,
            pattern,
        }
    }

    /// The value; `None` if a fact is missing, or if it is all too long.
    #[must_use]
    pub fn fill(&self, template: &ValueTemplate) -> Option<String> {
        let mut out = String::with_capacity(64);
        for fact in &template.0 {
            out.push_str(&self.get(fact)?);
            if out.len() > MOST {
                return None;
            }
        }
        Some(out)
    }

    /// As [`Facts::fill`], as the value of a header line; `None` also if it can be none, as one with a line's end, or with a
    /// blank at either end: who reads the line leaves that out, and has another value.
    #[must_use]
    pub fn line(&self, template: &ValueTemplate) -> Option<HeaderValue> {
        let value = self.fill(template)?;
        let bare = value.trim_matches([' ', '\t']).len() == value.len();
        HeaderValue::try_from(value).ok().filter(|_| bare)
    }

    /// Each fact for itself, for templates of whole bodies; `None` if it is missing.
    #[must_use]
    pub fn get<'f>(&self, fact: &'f Fact) -> Option<Cow<'f, str>>
    where
        'r: 'f,
    {
        Some(match fact {
            Fact::Text(text) => Cow::Borrowed(text),
            Fact::Host => Cow::Borrowed(self.one(&http::header::HOST)?),
            Fact::ClientIp => Cow::Owned(self.client.to_string()),
            Fact::RequestId => Cow::Borrowed(self.one(&headers::REQUEST_ID)?),
            Fact::Method => Cow::Borrowed(self.method.as_str()),
            Fact::Path => Cow::Borrowed(self.uri.path()),
            Fact::Query => Cow::Borrowed(self.uri.query()?),
            Fact::Scheme => Cow::Borrowed(self.one(&forwarded::PROTO)?),
            Fact::Identity => Cow::Borrowed(&*self.identity?.name),
            Fact::Claim(claim) => text(self.identity?.claim(claim)?)?,
            Fact::Header(name) => Cow::Borrowed(self.one(name)?),
            Fact::Rest => Cow::Borrowed(template::rest(self.pattern, self.uri.path())),
            Fact::Capture(name) => Cow::Borrowed(template::capture(self.pattern, self.uri.path(), name)),
            Fact::Parameter(name) => {
                let mut values = query::values(self.uri.query()?, name);
                let value = values.next()?;
                if values.next().is_some() {
                    return None;
                }
                Cow::Owned(String::from_utf8(value.into_owned()).ok()?)
            }
        })
    }

    /// The value of a line that is there once, and is text.
    fn one(&self, name: &HeaderName) -> Option<&'r str> {
        let mut lines = self.headers.get_all(name).iter();
        let line = lines.next()?;
        if lines.next().is_some() {
            return None;
        }
        line.to_str().ok()
    }
}

/// A claim as text: lists of single values with commas between, none of which may stand in a value.
fn text(claim: &Value) -> Option<Cow<'_, str>> {
    match claim {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
        Value::Array(items) => {
            let mut out = String::new();
            for item in items {
                if item.is_array() {
                    return None;
                }
                let item = text(item)?;
                if item.contains(',') {
                    return None;
                }
                if !out.is_empty() {
                    out.push(',');
                }
                out.push_str(&item);
            }
            Some(Cow::Owned(out))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::model::{Segment, Shape};
    use crate::http::client::ClientAddr;

    fn pattern() -> PathMatch {
        PathMatch {
            pattern: "/u/{id}/**".into(),
            shape: Shape::Segments {
                segments: vec![Segment::Literal("u".into()), Segment::Capture("id".into())],
                prefix: true,
            },
        }
    }

    fn kept(uri: &str, lines: &[(&'static str, &str)], claims: Value) -> Kept {
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.parse().expect("a target");
        for (name, value) in lines {
            let value = HeaderValue::from_str(value).expect("a value");
            request.headers_mut().append(*name, value);
        }
        let identity = match claims {
            Value::Object(claims) => Some(Arc::new(Identity {
                claims,
                ..Identity::named("someone")
            })),
            _ => None,
        };
        let client = Client {
            socket: ClientAddr::of_socket([192, 0, 2, 1].into()),
            forwarded: None,
        };
        Kept::of(&request.into_parts().0, client, identity.as_ref())
    }

    #[test]
    fn every_fact_is_found_and_what_is_missing_or_there_twice_leaves_no_value() {
        let claims = json!({"sub": "s", "n": 7, "ok": true, "roles": ["a", "b"], "bad": ["a,b"], "o": {"k": "v"}, "crlf": "a\r\nb"});
        let lines = [
            ("host", "a.example:8080"),
            ("x-request-id", "id1"),
            ("x-forwarded-proto", "https"),
            ("x-one", "1"),
            ("x-two", "1"),
            ("x-two", "2"),
        ];
        let kept = kept("/u/7/a/b?q=a%20b&d=1&d=2", &lines, claims);
        let pattern = pattern();
        let facts = kept.facts(&pattern);
        let fill =
            |facts: &Facts<'_>, fact: Fact| facts.fill(&ValueTemplate(vec![Fact::Text("=".into()), fact]));
        for (fact, value) in [
            (Fact::Host, "a.example:8080"),
            (Fact::ClientIp, "192.0.2.1"),
            (Fact::RequestId, "id1"),
            (Fact::Method, "GET"),
            (Fact::Path, "/u/7/a/b"),
            (Fact::Query, "q=a%20b&d=1&d=2"),
            (Fact::Parameter("q".into()), "a b"),
            (Fact::Scheme, "https"),
            (Fact::Identity, "someone"),
            (Fact::Claim("sub".into()), "s"),
            (Fact::Claim("n".into()), "7"),
            (Fact::Claim("ok".into()), "true"),
            (Fact::Claim("roles".into()), "a,b"),
            (Fact::Claim("o.k".into()), "v"),
            (Fact::Header(HeaderName::from_static("x-one")), "1"),
            (Fact::Rest, "a/b"),
            (Fact::Capture("id".into()), "7"),
        ] {
            assert_eq!(fill(&facts, fact.clone()), Some(format!("={value}")), "{fact:?}");
        }
        for missing in [
            Fact::Claim("none".into()),
            Fact::Claim("bad".into()),
            Fact::Claim("o".into()),
            Fact::Header(HeaderName::from_static("x-none")),
            Fact::Header(HeaderName::from_static("x-two")),
            Fact::Parameter("d".into()),
            Fact::Parameter("none".into()),
        ] {
            assert_eq!(fill(&facts, missing.clone()), None, "{missing:?}");
        }
        let split = ValueTemplate(vec![Fact::Claim("crlf".into())]);
        assert_eq!(facts.line(&split), None, "never a line's end");
    }

    proptest! {
        #[test]
        fn no_fact_ends_a_line(claim in "\\PC{0,8}[\\r\\n\\x00a-z]{0,4}", header in "[!-~]{0,16}") {
            let kept = kept("/u/7", &[("x-a", &header)], json!({"c": claim}));
            let pattern = pattern();
            let template = ValueTemplate(vec![Fact::Claim("c".into()), Fact::Header(HeaderName::from_static("x-a"))]);
            if let Some(line) = kept.facts(&pattern).line(&template) {
                prop_assert!(!line.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
            }
        }
    }
}
