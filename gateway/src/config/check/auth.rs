//! `auth`: who may call, by name at the top or in a route.
//!
//! Owns what every way has in common: how many must agree, what they let through, what the upstream is told. Each way has
//! a file of its own. A secret in clear never gets further than a fault, and the fault does not show it.

mod api_key;
mod basic;
mod grant;
mod jwt;
mod oidc;
mod others;
mod service;
mod signature;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::HeaderName;

use super::{files, headers, label, lists};
use crate::config::decode::{Field, Key, Table, Walk};
use crate::config::fault::{Faults, Wrong, nearest, quote};
use crate::config::model::{Attribute, Auth, Place, Way, Ways};
use crate::config::raw::{Node, Value};
use crate::config::scalar::truth;
use crate::config::source::Source;

pub use api_key::read_keys;
pub use basic::read_passwords;
pub(super) use oidc::reached;

/// Most ways that one route asks for.
const MOST_WAYS: usize = 16;
/// Most lines that the upstream is told of a caller.
const MOST_LINES: usize = 32;
/// The ways, by their key.
const WAYS: [(&str, ReadWay); 8] = [
    ("api_key", api_key::api_key),
    ("jwt", jwt::jwt),
    ("basic", basic::basic),
    ("client_certificate", others::client_certificate),
    ("forward", others::forward),
    ("introspect", others::introspect),
    ("signature", signature::signature),
    ("oidc", oidc::oidc),
];

type ReadWay = fn(&mut Walk, &Field<'_>) -> Option<Way>;

fn names_of_ways() -> String {
    WAYS.map(|(name, _)| name).join(", ")
}

/// Those at the top, by their name.
pub(super) struct Named<'t> {
    known: BTreeMap<String, Option<Arc<Auth>>>,
    unused: BTreeMap<String, (Key<'t>, Field<'t>)>,
}

pub(super) fn named<'t>(walk: &mut Walk, top: &mut Table<'t>) -> Named<'t> {
    let mut named = Named {
        known: BTreeMap::new(),
        unused: BTreeMap::new(),
    };
    let Some(field) = top.get(walk, "auth") else {
        return named;
    };
    for (key, field) in walk.entries(&field.secret()) {
        if let Err(wrong) = label(64)(key.text) {
            walk.fault_key(&field, &key, wrong);
        }
        let read = whole(walk, &field.clone().shaped("auth"));
        named.known.insert(key.text.to_owned(), read.map(Arc::new));
        named.unused.insert(key.text.to_owned(), (key, field));
    }
    named
}

impl Named<'_> {
    /// The `auth` of a route; `None` is everyone.
    pub fn of_route(&mut self, walk: &mut Walk, route: &mut Table<'_>) -> Option<Arc<Auth>> {
        let field = route.get(walk, "auth")?.secret().shaped("auth");
        let Value::Text(name) = &field.node.value else {
            return whole(walk, &field).map(Arc::new);
        };
        if let Some(known) = self.known.get(name) {
            self.unused.remove(name);
            return known.clone();
        }
        // What stands here may be a secret, if somebody meant a key.
        let wrong = Wrong::new("there is no auth of this name at the top");
        walk.fault(
            &field,
            match nearest(name, self.known.keys().map(String::as_str)) {
                Some(near) => wrong.hint(format!("did you mean {}?", quote(near))),
                None => wrong.hint("write a mapping, such as {api_key: {keys: {file: keys.yaml}}}"),
            },
        );
        None
    }

    /// Says which ones nobody has asked for.
    pub fn finish(self, walk: &mut Walk) {
        for (key, field) in self.unused.values() {
            let wrong = Wrong::new(format!("no route asks for auth {}", quote(key.text)));
            walk.warn_key(field, key, wrong);
        }
    }
}

/// Everything that one `auth` may say.
fn whole(walk: &mut Walk, field: &Field<'_>) -> Option<Auth> {
    walk.table(field, |walk, table| {
        let any = table.get(walk, "any");
        let all = table.get(walk, "all");
        let own = way(walk, table);
        let given = [any.is_some(), all.is_some(), own.is_some()];
        let ways = match (&any, &all, own) {
            (Some(field), None, None) => Ways::Any(several(walk, field)),
            (None, Some(field), None) => Ways::All(several(walk, field)),
            (.., Some(one)) => Ways::Any(one.into_iter().collect()),
            _ => Ways::default(),
        };
        let deny = lists::clients(walk, table, "deny");
        let authorize = grant::grants(walk, table, "authorize");
        let pass = pass(walk, table);
        let observe = table.value_or(walk, "observe", false, truth);
        let several = given.iter().filter(|given| **given).count() > 1;
        if several {
            let wrong = Wrong::new("more than one way to authenticate is given side by side");
            walk.fault(
                field,
                wrong.hint("put them under any: [...] if one is enough, or all: [...]"),
            );
        }
        let nothing = !["any", "all"]
            .into_iter()
            .chain(WAYS.map(|(name, _)| name))
            .any(|key| table.has(key));
        // What stands there instead, if anything, is told of as an unknown key.
        let bare = table.is_empty() || table.has("pass") || table.has("observe");
        if nothing && bare && deny.is_empty() && authorize.is_empty() {
            let wrong = Wrong::new("no way to authenticate is given");
            walk.fault(
                field,
                wrong.hint(format!(
                    "give one of {}, any or all; for an open route leave auth out",
                    names_of_ways()
                )),
            );
        }
        if nothing {
            let speaks = authorize
                .iter()
                .any(|grant| !grant.scopes.is_empty() || !grant.claims.is_empty() || !grant.names.is_empty());
            if speaks || !pass.is_empty() {
                let wrong = Wrong::new("this speaks of the caller, and nothing says who that is");
                walk.fault(field, wrong.hint(format!("give one of {}", names_of_ways())));
            }
        }
        if observe {
            walk.warn(
                field,
                Wrong::new("observe is on: who may call is only counted and logged, and NOBODY IS REFUSED"),
            );
        }
        let auth = Auth {
            ways,
            deny,
            authorize,
            pass,
            observe,
        };
        oidc::unkept(walk, field, &auth);
        auth
    })
}

fn several(walk: &mut Walk, field: &Field<'_>) -> Vec<Way> {
    let items = walk.list(field);
    if matches!(field.node.value, Value::List(_)) && !(1..=MOST_WAYS).contains(&items.len()) {
        walk.fault(
            field,
            Wrong::new(format!("expected 1 to {MOST_WAYS} ways, found {}", items.len())),
        );
    }
    let mut ways = Vec::new();
    for item in items {
        let item = item.shaped("auth");
        let read = walk.table(&item, |walk, table| {
            let read = way(walk, table);
            if table.is_empty() {
                let wrong = Wrong::new("this is no way to authenticate");
                walk.fault(&item, wrong.hint(format!("give one of {}", names_of_ways())));
            }
            read.flatten()
        });
        ways.extend(read.flatten());
    }
    ways
}

/// The one way that a mapping gives: `None` if there is none, `Some(None)` if it is faulty.
fn way(walk: &mut Walk, table: &mut Table<'_>) -> Option<Option<Way>> {
    let mut found: Option<(&str, Option<Way>)> = None;
    for (key, read) in WAYS {
        let Some(field) = table.get(walk, key) else {
            continue;
        };
        let read = read(walk, &field);
        if let Some((other, _)) = &found {
            let wrong = Wrong::new(format!("{key} stands beside {other}"));
            walk.fault(
                &field,
                wrong.hint("put them under any: [...] if one is enough, or all: [...]"),
            );
        }
        found = Some((key, read));
    }
    found.map(|(_, way)| way)
}

/// `header: name`, `query: name`, `cookie: name` or `bearer: true` within the mapping of a way. At most one.
fn place(walk: &mut Walk, table: &mut Table<'_>, standard: Place) -> Place {
    let header = table
        .value(walk, "header", headers::credential)
        .map(Place::Header);
    let query = table.value(walk, "query", parameter).map(Place::Query);
    let cookie = table
        .value(walk, "cookie", super::upstreams::cookie)
        .map(Place::Cookie);
    let mut given = [header, query, cookie].into_iter().flatten();
    let first = given.next();
    if given.next().is_some() {
        let wrong = Wrong::new("a credential is looked for in one place only");
        walk.fault(
            &table.field,
            wrong.hint("give header, query or cookie; for several use any: [...]"),
        );
    }
    first.unwrap_or(standard)
}

fn parameter(text: &str) -> Result<String, Wrong> {
    label(64)(text)
}

/// `pass: {X-User: name, X-Scopes: scopes, X-Tenant: claim:tenant}`.
fn pass(walk: &mut Walk, table: &mut Table<'_>) -> Vec<(HeaderName, Attribute)> {
    let Some(field) = table.get(walk, "pass") else {
        return Vec::new();
    };
    let mut lines: Vec<(HeaderName, Attribute)> = Vec::new();
    for (key, field) in walk.entries(&field) {
        let name = match headers::credential(key.text) {
            Ok(name) => name,
            Err(wrong) => {
                walk.fault_key(&field, &key, wrong);
                continue;
            }
        };
        if lines.iter().any(|(other, _)| *other == name) {
            walk.fault_key(
                &field,
                &key,
                Wrong::new("this header is given twice: names do not differ by case"),
            );
        }
        if let Some(fact) = walk.value(&field, fact) {
            lines.push((name, fact));
        }
    }
    if lines.len() > MOST_LINES {
        walk.fault(&field, Wrong::new(format!("more than {MOST_LINES} lines")));
    }
    lines
}

fn fact(text: &str) -> Result<Attribute, Wrong> {
    match text {
        "name" => Ok(Attribute::Name),
        "scopes" => Ok(Attribute::Scopes),
        _ => match text.strip_prefix("claim:") {
            Some(claim) => claim_name(claim).map(Attribute::Claim),
            None => Err(
                Wrong::new(format!("{} is nothing that is known of a caller", quote(text)))
                    .hint("write name, scopes, or claim:NAME"),
            ),
        },
    }
}

/// The name or path of a claim.
fn claim_name(text: &str) -> Result<String, Wrong> {
    if !text.is_empty() && text.len() <= 256 && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not the name of a claim", quote(text))))
}

/// A scope (RFC 6749, 3.3).
fn scope(text: &str) -> Result<String, Wrong> {
    let fits = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a scope", quote(text)))
        .hint("printable ASCII without blanks, quotes and backslashes"))
}

/// Reads a file of callers by itself, with a way to read its text.
///
/// # Errors
/// All that is wrong with it. No fault shows a line of it.
fn alone<T>(
    path: &Path,
    most: usize,
    read: impl FnOnce(&mut Walk, &Source) -> Option<T>,
) -> Result<T, Faults> {
    let mut walk = Walk::new(path.parent().unwrap_or(Path::new("")));
    let name = path.display().to_string();
    walk.files.push(name.clone());
    let found = match files::read_text(path, most) {
        Ok(text) => read(&mut walk, &Source::new(name, text)),
        Err(wrong) => {
            let (source, node) = (Source::new(name, String::new()), Node::nothing());
            walk.fault(&Field::root(&source, &node).secret(), wrong);
            None
        }
    };
    let mut faults = std::mem::take(&mut walk.faults);
    faults.finish(&walk.files);
    match found {
        Some(found) if faults.errors.is_empty() => Ok(found),
        _ => Err(faults),
    }
}

/// The values of a list, or the one that stands in its place.
fn one_or_more<T>(walk: &mut Walk, field: &Field<'_>, read: impl Fn(&str) -> Result<T, Wrong>) -> Vec<T> {
    let items = match &field.node.value {
        Value::List(_) => walk.list(field),
        _ => vec![field.clone()],
    };
    if items.is_empty() {
        walk.fault(field, Wrong::new("the list is empty"));
    }
    items.iter().filter_map(|item| walk.value(item, &read)).collect()
}
