//! What makes requests count together: the parts of a request that a limit's `by` names, as one hash.
//!
//! A part that a request does not have counts as such, apart from every value: all requests without a tenant's header are
//! one tenant. So does a header line or a cookie that is there twice: which of two the service behind takes, nobody knows, and
//! with each further one a caller would be another. Names and values are fenced off from each other, so that no two lists of parts
//! look the same.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use http::header::HOST;
use http::request::Parts;

use super::super::Exchange;
use crate::config::model::{KeyPart, LimitKey};
use crate::upstream::cookies;

/// Hashes what `key` names of a request.
pub fn of(key: &LimitKey, with: &impl BuildHasher, route: &str, exchange: &Exchange, head: &Parts) -> u64 {
    let mut to = with.build_hasher();
    feed(key, route, exchange, head, &mut |bytes| to.write(bytes));
    to.finish()
}

/// Hands out what `key` names of a request, piece by piece; what comes out is never the same for two different lists of
/// values.
pub fn feed(key: &LimitKey, route: &str, exchange: &Exchange, head: &Parts, to: &mut impl FnMut(&[u8])) {
    for part in &key.parts {
        match part {
            KeyPart::ClientIp => address(key, exchange.client.effective(), to),
            KeyPart::Header(name) => {
                let lines = head.headers.get_all(name).iter();
                maybe(only(lines.map(http::HeaderValue::as_bytes)), to);
            }
            KeyPart::Cookie(name) => maybe(only(cookies(&head.headers, name).map(str::as_bytes)), to),
            KeyPart::Claim(path) => {
                let claim = exchange.identity.as_ref().and_then(|who| who.claim(path));
                match claim {
                    Some(serde_json::Value::String(text)) => maybe(Some(text.as_bytes()), to),
                    Some(other) => maybe(Some(other.to_string().as_bytes()), to),
                    None => maybe(None, to),
                }
            }
            KeyPart::Identity => maybe(exchange.identity.as_ref().map(|who| who.name.as_bytes()), to),
            KeyPart::Route => fence(route.as_bytes(), to),
            KeyPart::Host => maybe(head.headers.get(HOST).map(|host| host.as_bytes()), to),
        }
    }
}

/// What is there once.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

fn fence(bytes: &[u8], to: &mut impl FnMut(&[u8])) {
    to(&(bytes.len() as u64).to_le_bytes());
    to(bytes);
}

fn maybe(value: Option<&[u8]>, to: &mut impl FnMut(&[u8])) {
    match value {
        Some(value) => fence(value, to),
        None => to(&u64::MAX.to_le_bytes()),
    }
}

fn address(key: &LimitKey, ip: IpAddr, to: &mut impl FnMut(&[u8])) {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(key.ipv4_prefix)).unwrap_or(0);
            to(&[4]);
            to(&(ip.to_bits() & mask).to_le_bytes());
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(key.ipv6_prefix))
                .unwrap_or(0);
            to(&[6]);
            to(&(ip.to_bits() & mask).to_le_bytes());
        }
    }
}
