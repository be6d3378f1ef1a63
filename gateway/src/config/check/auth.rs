//! `auth` and `rate_limit` of a route.
//!
//! Owns the form of keys. A secret in clear never gets further than a fault, and the fault does not show it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::{files, headers, label};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{ApiKeyAuth, Auth, RateKey, RateLimit};
use crate::config::raw::{MOST_BYTES, Value};
use crate::config::scalar::{choice, number};
use crate::config::source::Source;
use crate::config::units;

/// How an operator makes a hash; `printf` because `echo` would hash the line's end as well.
const MAKE_HASH: &str = "make it with: printf %s \"$KEY\" | sha256sum";
/// SHA-256 of nothing: what that command prints if the variable is not set.
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who may call the route; `None` is everyone.
pub(super) fn auth(walk: &mut Walk, route: &mut Table<'_>) -> Option<Auth> {
    let field = route.get(walk, "auth")?.secret();
    walk.table(&field, |walk, table| {
        let api_key = table.get(walk, "api_key");
        let jwt = table.get(walk, "jwt");
        let (both, none) = (table.has("api_key") && table.has("jwt"), table.is_empty());
        if both || none {
            let wrong = Wrong::new("exactly one way to authenticate is needed");
            walk.fault(
                &table.field,
                wrong.hint("give api_key or jwt; for an open route leave auth out"),
            );
        }
        let jwt = jwt.and_then(|field| self::jwt(walk, &field));
        api_key.and_then(|field| self::api_key(walk, &field)).or(jwt)
    })?
}

/// Checked, and then not taken into service: see [`Auth::Unavailable`].
fn jwt(walk: &mut Walk, field: &Field<'_>) -> Option<Auth> {
    let wrong =
        Wrong::new("jwt is not enforced by this version: EVERY request on this route is refused (503)");
    walk.warn(
        field,
        wrong.hint("use api_key, or wait for a version that has it"),
    );
    walk.table(field, |walk, table| {
        let issuer = table.require(walk, "issuer", "such as issuer: https://idp.example.com");
        let audience = table.require(walk, "audience", "the name that tokens for this service carry");
        issuer.and_then(|field| walk.value(&field, self::issuer));
        audience.and_then(|field| walk.value(&field, label(256)));
        Auth::Unavailable { what: "jwt" }
    })
}

/// An issuer is compared letter by letter with the token's (RFC 8414, 2): HTTPS, no query, no fragment.
fn issuer(text: &str) -> Result<(), Wrong> {
    let good = text.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("https")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    if good && !text.contains(['#', '@']) {
        return Ok(());
    }
    Err(Wrong::new(format!("{} is not an issuer", quote(text)))
        .hint("an https:// address without query or fragment"))
}

fn api_key(walk: &mut Walk, field: &Field<'_>) -> Option<Auth> {
    walk.table(field, |walk, table| {
        let standard = http::HeaderName::from_static(defaults::API_KEY_HEADER);
        let header = table.value_or(walk, "header", standard, headers::credential);
        let keys = table.require(
            walk,
            "keys",
            "a list of {name, sha256}, or {file: keys.yaml} with such a list",
        )?;
        let keys = match keys.node.value {
            Value::Map(_) => walk.table(&keys, key_file)?,
            _ => key_list(walk, &keys),
        };
        Some(Auth::ApiKey(ApiKeyAuth {
            header,
            keys: Arc::new(keys),
        }))
    })?
}

fn key_file(walk: &mut Walk, table: &mut Table<'_>) -> BTreeMap<[u8; 32], String> {
    let Some(field) = table.require(walk, "file", "such as {file: keys.yaml}") else {
        return BTreeMap::new();
    };
    let Some(path) = files::named(walk, &field) else {
        return BTreeMap::new();
    };
    if !walk.opens_secrets {
        return BTreeMap::new();
    }
    let source = match files::read_text(&path, MOST_BYTES) {
        Ok(text) => Source::new(path.display().to_string(), text),
        Err(wrong) => {
            walk.fault(&field, wrong);
            return BTreeMap::new();
        }
    };
    if !walk.files.contains(&source.name) {
        walk.files.push(source.name.clone());
    }
    match walk.parse(&source, &field.path, true) {
        Some(node) => key_list(walk, &Field::root(&source, &node).under(&table.field)),
        None => BTreeMap::new(),
    }
}

fn key_list(walk: &mut Walk, list: &Field<'_>) -> BTreeMap<[u8; 32], String> {
    let items = walk.list(list);
    if items.is_empty() && matches!(list.node.value, Value::List(_)) {
        walk.warn(
            list,
            Wrong::new("there are no keys: every request on this route is refused"),
        );
    }
    let mut keys = BTreeMap::new();
    let mut lines: BTreeMap<[u8; 32], u32> = BTreeMap::new();
    for item in items {
        if let Value::Text(_) = item.node.value {
            let wrong = Wrong::new("keys are not written in clear: expected name and sha256, found text");
            walk.fault(&item, wrong.hint(MAKE_HASH));
            continue;
        }
        walk.table(&item, |walk, table| {
            let name = table.require(walk, "name", "who holds the key, for logs and for the upstream");
            let name = name.and_then(|field| walk.value(&field, label(128)));
            let field = table.require(walk, "sha256", MAKE_HASH)?;
            let hash = walk.value(&field, hash)?;
            if let Some(line) = lines.insert(hash, field.node.pos.line) {
                walk.fault(
                    &field,
                    Wrong::new(format!("the same key stands on line {line} already")),
                );
            }
            keys.insert(hash, name?);
            Some(())
        });
    }
    keys
}

/// A hash in hexadecimal. What was written stays out of the message: it may be the key itself.
fn hash(text: &str) -> Result<[u8; 32], Wrong> {
    let mut hash = [0; 32];
    let refuse = || Wrong::new("this is not a SHA-256 hash: 64 hexadecimal digits").hint(MAKE_HASH);
    if text.len() != 64 || !text.is_ascii() {
        return Err(refuse());
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
        let (high, low) = (
            digit(pair[0]).ok_or_else(refuse)?,
            digit(pair[1]).ok_or_else(refuse)?,
        );
        *byte = high << 4 | low;
    }
    if text.eq_ignore_ascii_case(EMPTY_HASH) {
        return Err(
            Wrong::new("this is the hash of an empty key").hint("was the variable set when it was made?")
        );
    }
    Ok(hash)
}

/// How often one caller may use the route.
pub(super) fn rate_limit(walk: &mut Walk, route: &mut Table<'_>) -> Option<RateLimit> {
    let field = route.get(walk, "rate_limit")?;
    walk.warn(
        &field,
        Wrong::new("rate_limit is NOT ENFORCED by this version: requests on this route are not limited"),
    );
    walk.table(&field, |walk, table| {
        let rate = table.require(walk, "rate", "such as rate: 100/s");
        let rate = rate.and_then(|field| walk.value(&field, units::rate));
        let burst = table
            .value(walk, "burst", number(1..=1_000_000))
            .and_then(NonZeroU32::new);
        let by = table.value_or(
            walk,
            "by",
            RateKey::ClientIp,
            choice(&[("client_ip", RateKey::ClientIp)]),
        );
        let rate = rate?;
        Some(RateLimit {
            rate,
            burst: burst.unwrap_or(rate.count),
            by,
        })
    })?
}
