//! Cross-origin requests (Fetch, 3.2): what a browser is told of who may read an answer.
//!
//! The gateway answers preflights itself, before any credential is asked for, as they carry none. What the upstream says of
//! the matter is replaced: one place decides. Nothing here keeps a request from the upstream; that is for `auth`.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::model::{self, Origin};

/// A route's policy, with its header values made once.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    any: bool,
    credentials: bool,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// What one request's origin is granted.
#[derive(Clone, Debug)]
pub struct Granted(Option<HeaderValue>);

const ANY: HeaderValue = HeaderValue::from_static("*");
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

impl Cors {
    #[must_use]
    pub fn compile(model: &model::Cors) -> Self {
        let list = |names: Vec<&str>| HeaderValue::from_str(&names.join(", ")).ok();
        let names = |names: &[HeaderName]| match names {
            [] => None,
            names => list(names.iter().map(HeaderName::as_str).collect()),
        };
        Self {
            any: model.origins.contains(&Origin::Any),
            origins: model.origins.clone(),
            credentials: model.credentials,
            methods: list(model.methods.iter().map(Method::as_str).collect())
                .unwrap_or_else(|| HeaderValue::from_static("GET")),
            headers: names(&model.headers),
            expose: names(&model.expose),
            max_age: HeaderValue::from(model.max_age),
        }
    }

    /// Looks at the origin of a request, before its header is changed.
    #[must_use]
    pub fn judge(&self, headers: &HeaderMap) -> Granted {
        let mut lines = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (lines.next(), lines.next()) else {
            return Granted(None);
        };
        if self.any {
            return Granted(Some(ANY));
        }
        let known = origin
            .to_str()
            .is_ok_and(|text| self.origins.iter().any(|known| takes(known, text)));
        Granted(known.then(|| origin.clone()))
    }

    /// The header of the answer to a preflight.
    pub fn preflight(&self, granted: &Granted, headers: &mut HeaderMap) {
        headers.insert(VARY, PREFLIGHT_VARY);
        let Granted(Some(origin)) = granted else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        if let Some(names) = &self.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        self.allow_credentials(headers);
    }

    /// Any other answer, the gateway's own refusals among them: a script is to see why.
    pub fn answer(&self, granted: &Granted, headers: &mut HeaderMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_MAX_AGE,
        ] {
            headers.remove(name);
        }
        // Whether or not this origin is granted anything: a cache must not show this answer to another.
        if !self.any {
            super::headers::vary(headers, "Origin");
        }
        let Granted(Some(origin)) = granted else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if let Some(names) = &self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
        self.allow_credentials(headers);
    }

    fn allow_credentials(&self, headers: &mut HeaderMap) {
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The method that a preflight asks for; `None` if the request is none.
#[must_use]
pub fn asked(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// Browsers write origins in one form (RFC 6454, 6.2), so nothing is brought into form here.
fn takes(known: &Origin, origin: &str) -> bool {
    match known {
        Origin::Any => true,
        Origin::Exact(known) => known == origin,
        Origin::Below { scheme, suffix } => {
            let labels = origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()));
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            let label = |label: &str| !label.is_empty() && label.bytes().all(plain);
            labels.is_some_and(|labels| labels.len() <= 253 && labels.split('.').all(label))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subdomain_is_a_subdomain_and_nothing_else() {
        let below = Origin::Below {
            scheme: "https://".into(),
            suffix: ".example.com".into(),
        };
        for good in ["https://a.example.com", "https://a.b-c.example.com"] {
            assert!(takes(&below, good), "{good}");
        }
        for bad in [
            "https://example.com",
            "https://.example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil-example.com",
            "https://evil.com/.example.com",
            "https://evil.com#.example.com",
            "https://evil.com?.example.com",
            "https://evil.com\\.example.com",
            "https://a@b.example.com",
            "https://a..example.com",
            "https://A.example.com",
            "https://a.example.com.evil.com",
            "https://a.example.com/",
            "null",
            "",
        ] {
            assert!(!takes(&below, bad), "{bad}");
        }
    }
}
