//! `signature`: whose signatures are taken, and what they must speak of.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{jwt, label, one_or_more, scope};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Algorithm, Kind, Signature, SignatureKey, VerifyKey, Way};
use crate::config::scalar::{choice, truth, within};
use crate::config::units;

/// Most keys, and most components that must be signed.
const MOST_KEYS: usize = 10_000;
const MOST_COVERED: usize = 32;
/// What may be asked for of what is derived from a request (RFC 9421, 2.2).
const DERIVED: [&str; 6] = [
    "@method",
    "@authority",
    "@scheme",
    "@target-uri",
    "@path",
    "@query",
];
const NONCES: [(&str, bool); 2] = [("optional", false), ("required", true)];

pub(super) fn signature(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let keys = table.require(walk, "keys", "a list of {id, secret: {file}} and {id, pem}");
        let keys = keys.map(|field| keys_of(walk, &field)).unwrap_or_default();
        let cover = match table.get(walk, "cover") {
            Some(field) => {
                let cover = one_or_more(walk, &field, component);
                if cover.len() > MOST_COVERED {
                    walk.fault(&field, Wrong::new(format!("more than {MOST_COVERED} components")));
                }
                tell_uncovered(walk, &field, &cover);
                cover
            }
            None => defaults::COVERED.map(str::to_owned).to_vec(),
        };
        let body = table.get(walk, "body");
        let signed = body
            .as_ref()
            .and_then(|field| walk.value(field, truth))
            .unwrap_or(true);
        if let Some(field) = body.filter(|_| !signed) {
            let wrong = Wrong::new(
                "bodies are not held against what is signed, not even where a signature covers content-digest: whoever stands \
                 in between can send another one",
            );
            walk.warn(&field, wrong);
        }
        let size = within(1..=64 << 20, units::size, units::show_size);
        let most = table.value_or(walk, "max_bytes", defaults::BODY_EDIT_BYTES, size);
        let times = |low: u64, high: u64| {
            within(
                Duration::from_secs(low)..=Duration::from_secs(high),
                units::duration,
                units::show_duration,
            )
        };
        let max_age = table.value_or(walk, "max_age", defaults::SIGNATURE_AGE, times(1, 3_600));
        let leeway = table.value_or(
            walk,
            "leeway",
            defaults::LEEWAY,
            times(0, defaults::MOST_LEEWAY.as_secs()),
        );
        Way::Signature(Box::new(Signature {
            keys,
            cover,
            body: signed.then_some(most),
            max_age: max_age.as_secs(),
            leeway: leeway.as_secs(),
            nonce: table.value_or(walk, "nonce", false, choice(&NONCES)),
            tag: table.value(walk, "tag", label(128)),
            keep: table.value_or(walk, "keep", true, truth),
        }))
    })
}

/// A name as the signature's base has it.
fn component(text: &str) -> Result<String, Wrong> {
    let line = || http::HeaderName::from_bytes(text.as_bytes()).is_ok_and(|name| name.as_str() == text);
    if DERIVED.contains(&text) || line() {
        return Ok(text.to_owned());
    }
    let wrong = Wrong::new(format!("{} is nothing that can be signed", quote(text)));
    Err(wrong.hint(format!(
        "one of {}, or the name of a header line, in lower case",
        DERIVED.join(", ")
    )))
}

/// Warns of a signature that would be good for another request.
fn tell_uncovered(walk: &mut Walk, field: &Field<'_>, cover: &[String]) {
    let has = |name: &str| cover.iter().any(|own| own == name);
    let whole = has("@target-uri");
    let lacks = [
        ("@method", has("@method")),
        ("@authority", whole || has("@authority")),
        ("@path", whole || has("@path")),
        ("@query", whole || has("@query")),
    ];
    let lacks: Vec<_> = lacks.into_iter().filter(|(_, there)| !there).collect();
    if !lacks.is_empty() {
        let names: Vec<_> = lacks.iter().map(|(name, _)| *name).collect();
        let wrong = Wrong::new(format!(
            "{} need not be signed: a signature is good for other requests than the one that it was made for",
            names.join(", ")
        ));
        walk.warn(field, wrong);
    }
}

fn keys_of(walk: &mut Walk, field: &Field<'_>) -> BTreeMap<String, SignatureKey> {
    let mut keys = BTreeMap::new();
    let items = walk.list(field);
    if items.len() > MOST_KEYS {
        walk.fault(field, Wrong::new(format!("more than {MOST_KEYS} keys")));
    }
    for item in items {
        walk.table(&item, |walk, table| {
            let id = table.require(walk, "id", "the keyid that signatures name");
            let id = id.and_then(|field| walk.value(&field, self::id));
            let name = table.value(walk, "name", label(128));
            let scopes = table.get(walk, "scopes");
            let scopes = scopes
                .map(|field| one_or_more(walk, &field, scope))
                .unwrap_or_default();
            let key = key(walk, table);
            let (id, (algorithm, key)) = (id?, key?);
            let name = name.unwrap_or_else(|| id.clone());
            let made = SignatureKey {
                name,
                scopes,
                algorithm,
                key,
            };
            if keys.insert(id, made).is_some() {
                walk.fault(&item, Wrong::new("a key of this id is there already"));
            }
            Some(())
        });
    }
    keys
}

/// `secret: {file}` or `pem`, one of them.
fn key(walk: &mut Walk, table: &mut Table<'_>) -> Option<(Algorithm, VerifyKey)> {
    let secret = table.get(walk, "secret");
    let pem = table.get(walk, "pem");
    match (secret, pem) {
        (Some(field), None) => walk.table(&field, |walk, table| {
            let field = table.require(walk, "file", "such as {file: partner.secret}")?;
            jwt::secret(walk, &field).map(|key| (Algorithm::Hs256, key))
        })?,
        (None, Some(field)) => {
            let keys = jwt::file(walk, &field, VerifyKey::from_pem)?;
            let [key] = <[VerifyKey; 1]>::try_from(keys)
                .map_err(|_| walk.fault(&field, Wrong::new("the file holds more than one key")))
                .ok()?;
            match algorithm(key.kind) {
                Some(algorithm) => Some((algorithm, key)),
                None => {
                    let wrong = Wrong::new("keys of this kind sign no requests (RFC 9421, 3.3)");
                    walk.fault(&field, wrong.hint("Ed25519, P-256, P-384 or RSA"));
                    None
                }
            }
        }
        _ => {
            let wrong = Wrong::new("exactly one of secret and pem says what signatures are verified by");
            walk.fault(&table.field, wrong);
            None
        }
    }
}

/// How a key of a kind signs requests; with RSA as RSASSA-PSS and SHA-512.
fn algorithm(kind: Kind) -> Option<Algorithm> {
    Some(match kind {
        Kind::Secret => Algorithm::Hs256,
        Kind::Ed25519 => Algorithm::EdDsa,
        Kind::P256 => Algorithm::Es256,
        Kind::P384 => Algorithm::Es384,
        Kind::Rsa => Algorithm::Ps512,
        Kind::P521 => return None,
    })
}

/// What can stand in a string of a structured field.
fn id(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is no keyid", quote(text))).hint("1 to 256 printable letters of ASCII"))
}
