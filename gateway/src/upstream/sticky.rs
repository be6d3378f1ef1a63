//! The cookie that brings a client back to its endpoint. Owns its form; it names an endpoint by a keyed hash, which
//! tells nothing about the address and can not be made by a client.

use std::fmt::Write as _;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::model::Sticky;

/// Bytes of the hash that are used: more than can be searched, few enough for every request to carry.
const LENGTH: usize = 16;
const BLOCK: usize = 64;

/// Makes the tokens of one upstream's endpoints.
#[derive(Debug)]
pub(super) struct Maker {
    cookie: String,
    attributes: String,
    key: [u8; BLOCK],
}

/// One endpoint's name in cookies.
#[derive(Debug)]
pub(super) struct Token {
    value: String,
    plain: HeaderValue,
    secure: HeaderValue,
}

impl Maker {
    pub(super) fn new(model: &Sticky) -> Self {
        let mut key = [0; BLOCK];
        match &model.secret {
            Some(secret) => key[..32].copy_from_slice(&Sha256::digest(secret)),
            // Without randomness there would be no TLS either; a key of zeros then only tells more than it should.
            None => {
                let _ = getrandom::fill(&mut key[..32]);
            }
        }
        let mut attributes = "; Path=/; HttpOnly; SameSite=Lax".to_owned();
        if let Some(age) = model.max_age {
            let _ = write!(attributes, "; Max-Age={}", age.as_secs().max(1));
        }
        Self {
            cookie: model.cookie.clone(),
            attributes,
            key,
        }
    }

    /// HMAC-SHA-256 (RFC 2104) of the endpoint's name, cut.
    pub(super) fn token(&self, endpoint: &str) -> Token {
        let pad = |with: u8| self.key.map(|byte| byte ^ with);
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(endpoint)
            .finalize();
        let hash = Sha256::new()
            .chain_update(pad(0x5c))
            .chain_update(inner)
            .finalize();
        let mut value = String::with_capacity(LENGTH * 2);
        for byte in hash.iter().take(LENGTH) {
            let _ = write!(value, "{byte:02x}");
        }
        let line = |more: &str| {
            let line = format!("{}={value}{}{more}", self.cookie, self.attributes);
            HeaderValue::try_from(line).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Token {
            plain: line(""),
            secure: line("; Secure"),
            value,
        }
    }
}

impl Token {
    pub(super) fn names(&self, cookie: &str) -> bool {
        self.value.as_bytes().ct_eq(cookie.as_bytes()).into()
    }

    pub(super) fn set_cookie(&self, tls: bool) -> &HeaderValue {
        if tls { &self.secure } else { &self.plain }
    }
}

/// The value of the first cookie of that name (RFC 6265, 4.2.1).
#[must_use]
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    cookies(headers, name).next()
}

/// The values of all cookies of that name.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim_matches([' ', '\t']).split_once('='))
        .filter(move |(known, _)| *known == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_same_for_the_same_secret_and_tells_nothing_of_the_address() {
        let model = |secret: Option<&[u8]>| Sticky {
            cookie: "gw".into(),
            max_age: None,
            secret: secret.map(<[u8]>::to_vec),
        };
        let token = |secret: Option<&[u8]>, name: &str| Maker::new(&model(secret)).token(name).value;
        let secret = Some(&b"0123456789abcdef"[..]);
        assert_eq!(token(secret, "10.0.0.1:80"), token(secret, "10.0.0.1:80"));
        assert_ne!(token(secret, "10.0.0.1:80"), token(secret, "10.0.0.2:80"));
        assert_ne!(
            token(None, "10.0.0.1:80"),
            token(None, "10.0.0.1:80"),
            "a key of its own"
        );
        assert!(!token(secret, "10.0.0.1:80").contains("10.0"));
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; xgw=no;gw=yes; gw=later"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        assert_eq!(cookie(&headers, "gw"), Some("yes"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "c"), None);
    }
}
