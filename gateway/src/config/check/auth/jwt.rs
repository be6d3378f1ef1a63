//! `jwt`: which tokens are taken, and where the keys are from.

use std::path::PathBuf;

use super::grant::claims;
use super::{claim_name, one_or_more, place, scope};
use crate::config::check::auth::service;
use crate::config::check::files;
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Algorithm, Jwt, KeySource, Place, Url, VerifyKey, Way, key_set};
use crate::config::raw::{MOST_BYTES, Value};
use crate::config::scalar::{choice, truth, within};
use crate::config::units;

/// Where metadata stands below an issuer (OpenID Connect Discovery 1.0, 4).
const METADATA: &str = "/.well-known/openid-configuration";
const LONGEST: usize = 1_024;

pub(super) fn jwt(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let place = place(walk, table, Place::Bearer);
        let keep = table.value_or(walk, "keep", true, truth);
        let issuer = table.require(walk, "issuer", "such as issuer: https://idp.example.com");
        let audience = table.require(walk, "audience", "the name that tokens for this service carry");
        let issuers = issuer
            .as_ref()
            .map(|field| one_or_more(walk, field, text))
            .unwrap_or_default();
        let audiences = audience.and_then(|field| match &field.node.value {
            Value::Text(text) if text == "off" => {
                let wrong = Wrong::new("tokens that the issuer has made for other services are taken, too");
                walk.warn(&field, wrong);
                None
            }
            _ => Some(one_or_more(walk, &field, text)),
        });
        let own = table.get(walk, "keys");
        let (mut keys, mut published) = (Vec::new(), None);
        match &own {
            Some(field) => {
                let read = walk.table(field, |walk, table| self::keys(walk, table, &issuers));
                (keys, published) = read.unwrap_or_default();
            }
            None => {
                if let Some(field) = &issuer {
                    published = discovered(walk, field, &issuers);
                }
            }
        }
        let algorithms = table.get(walk, "algorithms");
        let algorithms = match algorithms {
            Some(field) => one_or_more(walk, &field, |text| choice(&Algorithm::ALL)(text)),
            None => Algorithm::ALL
                .into_iter()
                .map(|(_, algorithm)| algorithm)
                .collect(),
        };
        let useless = keys
            .iter()
            .any(|key| !algorithms.iter().any(|algorithm| key.fits(*algorithm)));
        if useless {
            let wrong = Wrong::new("a key goes with none of the algorithms");
            walk.fault(
                &table.field,
                wrong.hint("see algorithms, and the kinds and lengths of the keys"),
            );
        }
        let seconds = within(
            std::time::Duration::ZERO..=defaults::MOST_LEEWAY,
            units::duration,
            units::show_duration,
        );
        let list = |walk: &mut Walk, table: &mut Table<'_>, key, read: fn(&str) -> Result<String, Wrong>| {
            let field = table.get(walk, key);
            field
                .map(|field| one_or_more(walk, &field, read))
                .unwrap_or_default()
        };
        Way::Jwt(Box::new(Jwt {
            place,
            keep,
            issuers,
            audiences,
            algorithms,
            keys,
            published,
            leeway: table
                .value_or(walk, "leeway", defaults::LEEWAY, seconds)
                .as_secs(),
            require: list(walk, table, "require", claim_name),
            name_claim: table.value_or(walk, "name", "sub".to_owned(), claim_name),
            scope_claim: table.value_or(walk, "scope_claim", "scope".to_owned(), claim_name),
            scopes: list(walk, table, "scopes", scope),
            claims: claims(walk, table, "claims"),
        }))
    })
}

/// What is compared letter by letter with what a token says.
pub(super) fn text(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} can not stand in a token", quote(text))))
}

/// Keys by the metadata of the one issuer, whose address it is (RFC 8414, 2).
pub(super) fn discovered(walk: &mut Walk, field: &Field<'_>, issuers: &[String]) -> Option<KeySource> {
    let [issuer] = issuers else {
        if issuers.len() > 1 {
            let wrong = Wrong::new("the keys of several issuers can not be discovered");
            walk.fault(
                field,
                wrong.hint("give keys: {url: ...}, or one jwt for each under any: [...]"),
            );
        }
        return None;
    };
    if issuer.contains(['?', '#']) {
        let wrong = Wrong::new(format!("{} is not an issuer", quote(issuer)));
        walk.fault(
            field,
            wrong.hint("an https:// address without query or fragment; or give keys"),
        );
        return None;
    }
    let address = format!("{}{METADATA}", issuer.trim_end_matches('/'));
    match service::url(&address) {
        Ok(url) => {
            service::tell_plain(walk, field, &url);
            Some(source(url, Some(issuer.clone()), None))
        }
        Err(_) => {
            let wrong = Wrong::new(format!("{} is not an issuer", quote(issuer)));
            walk.fault(field, wrong.hint("an https:// address, or give keys"));
            None
        }
    }
}

fn source(url: Url, discover: Option<String>, ca: Option<PathBuf>) -> KeySource {
    KeySource {
        url,
        discover,
        ca,
        refresh: defaults::KEYS_REFRESH,
        floor: defaults::KEYS_FLOOR,
        timeout: defaults::KEYS_TIMEOUT,
    }
}

fn keys(walk: &mut Walk, table: &mut Table<'_>, issuers: &[String]) -> (Vec<VerifyKey>, Option<KeySource>) {
    let mut keys = Vec::new();
    if let Some(field) = table.get(walk, "pem") {
        let read = |text: &str| VerifyKey::from_pem(text);
        keys.extend(file(walk, &field, read).unwrap_or_default());
    }
    if let Some(field) = table.get(walk, "jwks") {
        let read = |text: &str| {
            let (keys, left_out) = key_set(text.as_bytes(), true)?;
            // Sets hold keys for other uses too, which are ignored (RFC 7517, 5).
            match left_out.into_iter().next().filter(|_| keys.is_empty()) {
                Some(reason) => Err(reason),
                None => Ok(keys),
            }
        };
        keys.extend(file(walk, &field, read).unwrap_or_default());
    }
    if let Some(field) = table.get(walk, "secret") {
        walk.table(&field, |walk, table| {
            let field = table.require(walk, "file", "such as {file: jwt.secret}")?;
            keys.extend(secret(walk, &field));
            Some(())
        });
    }
    let url = table.get(walk, "url");
    let ca = table.get(walk, "ca").and_then(|field| service::ca(walk, &field));
    let time = |low, high| within(low..=high, units::duration, units::show_duration);
    let ms = std::time::Duration::from_millis;
    let refresh = table.value(walk, "refresh", time(ms(1_000), ms(86_400_000)));
    let floor = table.value(walk, "floor", time(ms(100), ms(3_600_000)));
    let timeout = table.value(walk, "timeout", time(ms(100), ms(60_000)));
    let published = match url {
        Some(field) => {
            let url = walk.value(&field, service::url);
            url.map(|url| {
                service::tell_plain(walk, &field, &url);
                source(url, None, None)
            })
        }
        None if keys.is_empty() => {
            let has = ["pem", "jwks", "secret"].iter().any(|key| table.has(key));
            if has {
                None
            } else {
                discovered(walk, &table.field.clone(), issuers)
            }
        }
        None => None,
    };
    let published = published.map(|mut published| {
        published.ca = ca;
        published.refresh = refresh.unwrap_or(published.refresh);
        published.floor = floor.unwrap_or(published.floor);
        published.timeout = timeout.unwrap_or(published.timeout);
        published
    });
    (keys, published)
}

/// Keys in a file; `None` after a fault, and where secrets are not to be opened.
pub(super) fn file(
    walk: &mut Walk,
    field: &Field<'_>,
    read: impl FnOnce(&str) -> Result<Vec<VerifyKey>, String>,
) -> Option<Vec<VerifyKey>> {
    let path = files::named(walk, field)?;
    if !walk.opens_secrets {
        return None;
    }
    let text = files::read_text(&path, MOST_BYTES);
    let keys = text.and_then(|text| {
        read(&text).map_err(|reason| Wrong::new(format!("{} can not be used: {reason}", path.display())))
    });
    match keys {
        Ok(keys) => Some(keys),
        Err(wrong) => {
            walk.fault(field, wrong);
            None
        }
    }
}

/// A shared secret: the bytes of a file, without the end of its last line.
pub(super) fn secret(walk: &mut Walk, field: &Field<'_>) -> Option<VerifyKey> {
    let path = files::named(walk, field)?;
    if !walk.opens_secrets {
        return None;
    }
    let read = files::read(&path, 64 << 10).and_then(|mut bytes| {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        let named = |reason| Wrong::new(format!("{} can not be used: {reason}", path.display()));
        VerifyKey::secret(bytes).map_err(named)
    });
    match read {
        Ok(key) => Some(key),
        Err(wrong) => {
            walk.fault(field, wrong.hint("make one with: openssl rand -base64 48"));
            None
        }
    }
}
