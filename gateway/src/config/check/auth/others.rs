//! Ways that rest on somebody else's word: a verified client certificate, a service that decides, a service that knows tokens.

use std::time::Duration;

use super::grant::claims;
use super::service;
use super::{claim_name, one_or_more, place, scope};
use crate::config::check::{files, headers};
use crate::config::decode::{Field, Table, Walk};
use crate::config::defaults;
use crate::config::fault::{Wrong, quote};
use crate::config::model::{ClientCertificate, Forward, Introspect, Place, Service, Way};
use crate::config::scalar::{choice, truth, within};
use crate::config::units;

pub(super) fn client_certificate(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let list = |walk: &mut Walk, table: &mut Table<'_>, key| {
            let field = table.get(walk, key);
            field
                .map(|field| one_or_more(walk, &field, name))
                .unwrap_or_default()
        };
        Way::ClientCertificate(ClientCertificate {
            subjects: list(walk, table, "subjects"),
            sans: list(walk, table, "sans"),
        })
    })
}

fn name(text: &str) -> Result<String, Wrong> {
    let inner = text.strip_suffix('*').unwrap_or(text);
    if !inner.is_empty() && text.len() <= 4_096 && text.is_ascii() && !inner.contains('*') {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is no name of a certificate", quote(text)))
        .hint("such as CN=orders,O=Example, or URI:spiffe://example/*; * stands at the end alone"))
}

fn asked(walk: &mut Walk, table: &mut Table<'_>) -> Option<Service> {
    let url = table.require(walk, "url", "such as url: https://auth.example.com/verify");
    let ca = table.get(walk, "ca").and_then(|field| service::ca(walk, &field));
    let range = Duration::from_millis(10)..=Duration::from_secs(60);
    let timeout = within(range, units::duration, units::show_duration);
    let timeout = table.value_or(walk, "timeout", defaults::ASK_TIMEOUT, timeout);
    let field = url?;
    let url = walk.value(&field, service::url)?;
    service::tell_plain(walk, &field, &url);
    Some(Service { url, ca, timeout })
}

pub(super) fn forward(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let service = asked(walk, table);
        let list = |walk: &mut Walk, table: &mut Table<'_>, key| {
            let field = table.get(walk, key);
            field.map(|field| one_or_more(walk, &field, headers::credential))
        };
        let request_headers = list(walk, table, "request_headers");
        let response_headers = list(walk, table, "response_headers");
        let denial_headers = list(walk, table, "denial_headers");
        let name = table.value(walk, "name", headers::credential);
        let open = [("closed", false), ("open", true)];
        let open = table.get(walk, "on_failure").map(|field| {
            let open = walk.value(&field, choice(&open)).unwrap_or(false);
            if open {
                let wrong = Wrong::new("when the service can not be asked, EVERYBODY IS LET IN");
                walk.warn(&field, wrong.hint("write closed, unless this guards nothing"));
            }
            open
        });
        Some(Way::Forward(Box::new(Forward {
            service: service?,
            request_headers,
            response_headers: response_headers.unwrap_or_default(),
            denial_headers: denial_headers.unwrap_or_default(),
            name,
            open: open.unwrap_or(false),
        })))
    })?
}

pub(super) fn introspect(walk: &mut Walk, field: &Field<'_>) -> Option<Way> {
    walk.table(field, |walk, table| {
        let place = place(walk, table, Place::Bearer);
        let keep = table.value_or(walk, "keep", true, truth);
        let service = asked(walk, table);
        let id = table.require(walk, "client_id", "as whom the service knows the gateway");
        let id = id.and_then(|field| walk.value(&field, |text| Ok(text.to_owned())));
        let secret = table.require(walk, "client_secret", "such as {file: introspection.secret}");
        let secret = secret.and_then(|field| {
            walk.table(&field, |walk, table| {
                let field = table.require(walk, "file", "such as {file: introspection.secret}")?;
                let path = files::named(walk, &field)?;
                if !walk.opens_secrets {
                    return None;
                }
                match files::read_text(&path, 4_096) {
                    Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
                    Err(wrong) => {
                        walk.fault(&field, wrong);
                        None
                    }
                }
            })?
        });
        let times = within(
            Duration::ZERO..=Duration::from_secs(3_600),
            units::duration,
            units::show_duration,
        );
        let remember = table.value_or(walk, "remember", defaults::REMEMBER_TOKEN, times);
        let name_claim = table.value(walk, "name", claim_name);
        let scopes = table.get(walk, "scopes");
        let scopes = scopes
            .map(|field| one_or_more(walk, &field, scope))
            .unwrap_or_default();
        let claims = claims(walk, table, "claims");
        let id = id?;
        Some(Way::Introspect(Box::new(Introspect {
            place,
            keep,
            service: service?,
            client_id: id,
            client_secret: secret.unwrap_or_default().into(),
            remember: remember.as_secs(),
            name_claim,
            scopes,
            claims,
        })))
    })?
}
