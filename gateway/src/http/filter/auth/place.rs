//! Where a request carries credentials: finding them, and taking them away. Owns the reading of header lines, query and
//! cookies for this; knows nothing of what the credentials mean.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::forward::ASKED_FOR;
use super::signature::{SIGNATURE, SIGNATURE_INPUT};
use crate::config::model::{self, Place, Way};
use crate::http::query;

/// What stands in a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    None,
    One(Cow<'a, [u8]>),
    /// Which of them another server would take, nobody knows.
    Several,
}

impl<'a> Found<'a> {
    fn of(mut found: impl Iterator<Item = Cow<'a, [u8]>>) -> Self {
        match (found.next(), found.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// Looks into a place.
pub(super) fn find<'a>(place: &'a Place, head: &'a Parts) -> Found<'a> {
    match place {
        Place::Header(name) => line(&head.headers, name),
        Place::Bearer => authorization(&head.headers, "bearer"),
        Place::Query(name) => match head.uri.query() {
            None => Found::None,
            Some(query) => Found::of(query::values(query, name)),
        },
        Place::Cookie(name) => {
            let pairs = cookies(&head.headers).filter(|(own, _)| *own == name.as_bytes());
            Found::of(pairs.map(|(_, value)| Cow::Borrowed(value)))
        }
    }
}

fn line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<'a> {
    Found::of(
        headers
            .get_all(name)
            .iter()
            .map(|value| Cow::Borrowed(value.as_bytes())),
    )
}

/// What stands in `Authorization` behind the name of a scheme, in lower case. Nothing, if another scheme stands there.
pub(super) fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Found<'a> {
    match line(headers, &AUTHORIZATION) {
        Found::One(Cow::Borrowed(value)) => match behind(value, scheme) {
            Some(credentials) => Found::One(Cow::Borrowed(credentials)),
            None => Found::None,
        },
        other => other,
    }
}

fn behind<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (word, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?;
    word.eq_ignore_ascii_case(scheme.as_bytes())
        .then(|| rest.trim_ascii_start())
}

/// Names and values (RFC 6265, 5.2, as browsers send them).
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    pairs.filter_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=')?;
        let (name, value) = (pair.get(..at)?.trim_ascii(), pair.get(at + 1..)?.trim_ascii());
        let bare = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        Some((name, bare.unwrap_or(value)))
    })
}

/// Takes credentials out of a request, for which the upstream has no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taker {
    Header(HeaderName),
    /// `Authorization`, if it is of this scheme, in lower case.
    Scheme(&'static str),
    Query(String),
    Cookie(String),
    /// All that a log-in sets: the cookie of this name, with `__Host-` and without, and those whose names go on behind it
    /// with `-`.
    Session(String),
}

/// Takes the cookies out whose names are meant.
fn take_cookies(headers: &mut HeaderMap, meant: impl Fn(&[u8]) -> bool) {
    if !cookies(headers).any(|(own, _)| meant(own)) {
        return;
    }
    let lines: Vec<_> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let kept = line.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let kept =
            kept.filter(|pair| !meant(pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii()));
        let kept = kept.collect::<Vec<_>>().join(&b"; "[..]);
        if let (false, Ok(line)) = (kept.is_empty(), HeaderValue::from_bytes(&kept)) {
            headers.append(COOKIE, line);
        }
    }
}

impl Taker {
    /// For every way whose credentials are not kept.
    pub(super) fn of(model: &model::Auth) -> Vec<Self> {
        let mut takers = Vec::new();
        for way in model.ways() {
            if let Way::Forward(forward) = way {
                let theirs = forward.response_headers.iter().cloned();
                takers.extend(theirs.chain(ASKED_FOR).map(Self::Header));
            }
            if let Way::Signature(signature) = way
                && !signature.keep
            {
                takers.extend([SIGNATURE, SIGNATURE_INPUT].map(Self::Header));
            }
            let taken = Self::place_of(way).filter(|(_, keep)| !keep);
            takers.extend(
                taken
                    .map(|(taker, _)| taker)
                    .filter(|taken| !takers.contains(taken)),
            );
        }
        takers
    }

    /// For the one place where a way looks for credentials, and whether they are kept there for the upstream.
    fn place_of(way: &Way) -> Option<(Self, bool)> {
        match way {
            Way::ApiKey(keys) => Some((Self::from(&keys.place), keys.keep)),
            Way::Jwt(jwt) => Some((Self::from(&jwt.place), jwt.keep)),
            Way::Introspect(token) => Some((Self::from(&token.place), token.keep)),
            Way::Basic(basic) => Some((Self::Scheme("basic"), basic.keep)),
            Way::Oidc(oidc) => Some((Self::Session(oidc.session.cookie.clone()), false)),
            Way::ClientCertificate(_) | Way::Forward(_) | Way::Signature(_) => None,
        }
    }

    pub(super) fn take(&self, head: &mut Parts) {
        match self {
            Self::Header(name) => {
                head.headers.remove(name);
            }
            Self::Scheme(scheme) => {
                let theirs = |value: &HeaderValue| behind(value.as_bytes(), scheme).is_some();
                if head.headers.get_all(AUTHORIZATION).iter().any(theirs) {
                    head.headers.remove(AUTHORIZATION);
                }
            }
            Self::Query(name) => {
                let Some(query) = head.uri.query().and_then(|query| query::without(query, name)) else {
                    return;
                };
                let path = head.uri.path();
                let target = if query.is_empty() {
                    path.to_owned()
                } else {
                    format!("{path}?{query}")
                };
                // It is a part of what was a target.
                if let Ok(target) = PathAndQuery::from_maybe_shared(Bytes::from(target)) {
                    head.uri = Uri::from(target);
                }
            }
            Self::Cookie(_) | Self::Session(_) => take_cookies(&mut head.headers, |own| self.means(own)),
        }
    }

    /// Whether it takes the cookie of this name.
    fn means(&self, own: &[u8]) -> bool {
        match self {
            Self::Cookie(name) => own == name.as_bytes(),
            Self::Session(name) => {
                let own = own.strip_prefix(b"__Host-").unwrap_or(own);
                let rest = own.strip_prefix(name.as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
            }
            Self::Header(_) | Self::Scheme(_) | Self::Query(_) => false,
        }
    }
}

/// The cookies of log-ins on other routes, which a browser sends to every route of the host.
#[derive(Debug)]
pub struct Foreign {
    taken: Box<[Taker]>,
    /// Cookies that the route's own ways look for.
    own: Box<[Taker]>,
}

impl Foreign {
    /// For a route with this authentication, where log-ins of the site set cookies of these names. `None`: there are no others.
    pub(crate) fn of(names: &BTreeSet<&str>, model: Option<&model::Auth>) -> Option<Self> {
        let own = model.into_iter().flat_map(model::Auth::ways);
        let own: Box<[_]> = own
            .filter_map(|way| Taker::place_of(way).map(|(taker, _)| taker))
            .collect();
        let all = names.iter().map(|name| Taker::Session((*name).to_owned()));
        let taken: Box<[_]> = all.filter(|taker| !own.contains(taker)).collect();
        (!taken.is_empty()).then_some(Self { taken, own })
    }

    pub(crate) fn take(&self, head: &mut Parts) {
        take_cookies(&mut head.headers, |name| {
            self.taken.iter().any(|taker| taker.means(name)) && !self.own.iter().any(|own| own.means(name))
        });
    }
}

impl From<&Place> for Taker {
    fn from(place: &Place) -> Self {
        match place {
            Place::Header(name) => Self::Header(name.clone()),
            Place::Bearer => Self::Scheme("bearer"),
            Place::Query(name) => Self::Query(name.clone()),
            Place::Cookie(name) => Self::Cookie(name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, lines: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in lines {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    fn one(text: &str) -> Found<'_> {
        Found::One(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn credentials_are_found_once_or_not_at_all() {
        let bearer = |lines: &[(&'static str, &str)]| match find(&Place::Bearer, &head("/", lines)) {
            Found::None => "none".to_owned(),
            Found::Several => "several".to_owned(),
            Found::One(one) => String::from_utf8_lossy(&one).into_owned(),
        };
        assert_eq!(bearer(&[("authorization", "Bearer abc")]), "abc");
        assert_eq!(bearer(&[("authorization", "bEARER  abc")]), "abc");
        for other in ["Basic abc", "Bearer", "Bearerabc", "", "Bear"] {
            assert_eq!(bearer(&[("authorization", other)]), "none", "{other}");
        }
        assert_eq!(
            bearer(&[("authorization", "Bearer a"), ("authorization", "Basic b")]),
            "several"
        );
        let cookie = Place::Cookie("t".into());
        let lines = [("cookie", "a=1; t=\"x\"; tt=2")];
        assert_eq!(find(&cookie, &head("/", &lines)), one("x"));
        assert_eq!(
            find(&cookie, &head("/", &[("cookie", "t=1;t=2")])),
            Found::Several
        );
        assert_eq!(
            find(&cookie, &head("/", &[("cookie", "T=1; =t; t")])),
            Found::None
        );
        let query = Place::Query("k".into());
        assert_eq!(
            find(&query, &head("/?%6b=a%2Bb", &[])),
            Found::One(Cow::Owned(b"a+b".to_vec()))
        );
        assert_eq!(find(&query, &head("/?k=1&K=2&k=3", &[])), Found::Several);
    }

    #[test]
    fn t36_what_is_taken_leaves_nothing_and_takes_nothing_else() {
        let query = Taker::Query("key".into());
        for (before, after) in [
            ("/p?key=s", "/p"),
            ("/p?a=1&key=s&b=%20", "/p?a=1&b=%20"),
            ("/p?%6Bey=s&a", "/p?a"),
            ("/p?key&key=1&keys=2", "/p?keys=2"),
            ("/p?a=key", "/p?a=key"),
            ("/p", "/p"),
        ] {
            let mut head = head(before, &[]);
            query.take(&mut head);
            assert_eq!(head.uri, after, "{before}");
        }
        let cookie = Taker::Cookie("t".into());
        let mut some = head("/", &[("cookie", "a=1; t=s; tt=2"), ("cookie", "t=s")]);
        cookie.take(&mut some);
        let left: Vec<_> = some.headers.get_all(COOKIE).iter().collect();
        assert_eq!(left, ["a=1; tt=2"]);
        let session = Taker::Session("s".into());
        let all = "s=1.a; a=1; s-1=b; __Host-s=1.c; __Host-s-login-x=d; ss=2; __Host-t=3; __Secure-s=4";
        let mut some = head("/", &[("cookie", all), ("cookie", "s=1.a")]);
        session.take(&mut some);
        let left: Vec<_> = some.headers.get_all(COOKIE).iter().collect();
        assert_eq!(left, ["a=1; ss=2; __Host-t=3; __Secure-s=4"]);
        let mut other = head("/", &[("authorization", "Basic a")]);
        Taker::Scheme("bearer").take(&mut other);
        assert!(other.headers.contains_key(AUTHORIZATION));
        Taker::Scheme("basic").take(&mut other);
        assert!(!other.headers.contains_key(AUTHORIZATION));
    }
}
