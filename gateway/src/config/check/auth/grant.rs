//! `authorize`: what a request must be to be let through. Owns one entry of the list.

use super::{claim_name, one_or_more, scope};
use crate::config::check::{lists, matches, patterns};
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::Wrong;
use crate::config::model::{ClaimMatch, Grant};
use crate::config::raw::Value;
use crate::config::scalar::truth;

/// Most entries of one list.
const MOST: usize = 64;

pub(super) fn grants(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Vec<Grant> {
    let Some(field) = table.get(walk, key) else {
        return Vec::new();
    };
    let items = walk.list(&field);
    if matches!(field.node.value, Value::List(_)) && !(1..=MOST).contains(&items.len()) {
        let wrong = Wrong::new(format!("expected 1 to {MOST} entries, found {}", items.len()));
        walk.fault(
            &field,
            wrong.hint("leave it out to let everyone through who is known"),
        );
    }
    let mut grants = Vec::new();
    for item in items {
        let read = walk.table(&item, |walk, table| {
            if table.is_empty() {
                let wrong = Wrong::new("an entry without conditions lets everyone through");
                walk.fault(
                    &item,
                    wrong.hint("give methods, paths, scopes, claims, clients or names"),
                );
            }
            Grant {
                methods: matches::methods(walk, table, "methods"),
                paths: list(walk, table, "paths", patterns::path),
                scopes: list(walk, table, "scopes", scope),
                claims: claims(walk, table, "claims"),
                clients: lists::clients(walk, table, "clients"),
                names: list(walk, table, "names", |text| Ok(text.to_owned())),
            }
        });
        grants.extend(read);
    }
    grants
}

fn list<T>(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Vec<T> {
    let field = table.get(walk, key);
    field
        .map(|field| one_or_more(walk, &field, read))
        .unwrap_or_default()
}

/// `{role: admin, team: [a, b], tenant: {present: true}}`
pub(super) fn claims(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Vec<ClaimMatch> {
    let Some(field) = table.get(walk, key) else {
        return Vec::new();
    };
    let mut claims = Vec::new();
    for (key, field) in walk.entries(&field) {
        let claim = match claim_name(key.text) {
            Ok(claim) => claim,
            Err(wrong) => {
                walk.fault_key(&field, &key, wrong);
                continue;
            }
        };
        let values = match &field.node.value {
            Value::Map(_) => {
                walk.table(&field, |walk, table| present(walk, table));
                Vec::new()
            }
            _ => one_or_more(walk, &field, |text| Ok(text.to_owned())),
        };
        claims.push(ClaimMatch { claim, values });
    }
    claims
}

fn present(walk: &mut Walk, table: &mut Table<'_>) {
    let field: Option<Field<'_>> = table.require(walk, "present", "such as {present: true}");
    if let Some(field) = field
        && walk.value(&field, truth) == Some(false)
    {
        let wrong = Wrong::new("a claim can not be asked to be absent: whoever issues it could leave it out");
        walk.fault(&field, wrong.hint("write present: true, or a value"));
    }
}
