//! `match` of a route: host, path, methods, header lines and query parameters.

use http::Method;

use super::{headers, patterns};
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Conditions, HostMatch, PathMatch, ValueMatch};
use crate::config::raw::Value;
use crate::config::scalar::truth;

pub(super) const HINT: &str = "such as match: {path: /api/**}; /** is every path";
/// Most conditions of one kind.
const MOST: usize = 16;

pub(super) fn matched(walk: &mut Walk, field: &Field<'_>) -> Option<(HostMatch, PathMatch, Conditions)> {
    walk.table(field, |walk, table| {
        let host = table.get(walk, "host");
        let path = table.require(walk, "path", HINT);
        let when = Conditions {
            methods: methods(walk, table, "methods"),
            headers: conditions(walk, table, "headers", headers::name),
            query: conditions(walk, table, "query", parameter),
        };
        let host = match host {
            None => Some(HostMatch::Any),
            Some(field) => walk.value(&field, patterns::host),
        };
        let path = path.and_then(|field| self::path(walk, &field));
        Some((host?, path?, when))
    })?
}

/// A pattern, or `{regex: ...}`.
fn path(walk: &mut Walk, field: &Field<'_>) -> Option<PathMatch> {
    if !matches!(field.node.value, Value::Map(_)) {
        return walk.value(field, patterns::path);
    }
    walk.table(field, |walk, table| {
        let regex = table.require(walk, "regex", "such as path: {regex: \"/v[0-9]+/.*\"}")?;
        walk.value(&regex, patterns::path_regex)
    })?
}

/// A list of methods, sorted; with GET comes HEAD.
pub(super) fn methods(walk: &mut Walk, table: &mut Table<'_>, key: &'static str) -> Vec<Method> {
    let mut methods: Vec<Method> = Vec::new();
    let items = table.list(walk, key);
    if items.is_empty() && table.has(key) {
        walk.fault(
            &table.field,
            Wrong::new(format!("{key} is empty")).hint("leave it out for any method"),
        );
    }
    for item in items {
        let Some(method) = walk.value(&item, method) else {
            continue;
        };
        if methods.contains(&method) {
            walk.fault(&item, Wrong::new(format!("method {method} is given twice")));
        }
        methods.push(method);
    }
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    methods
}

fn method(text: &str) -> Result<Method, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a method that is served", quote(text)));
    let upper = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(refuse().hint("no route takes CONNECT or TRACE")),
        Ok(method) if upper && text.len() <= 32 => Ok(method),
        _ => Err(refuse().hint("methods are in upper case, such as GET")),
    }
}

/// `{Name: value}` or `{Name: {exact | prefix | regex | present}}`.
fn conditions<N: PartialEq>(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    read: fn(&str) -> Result<N, Wrong>,
) -> Vec<(N, ValueMatch)> {
    let Some(field) = table.get(walk, key) else {
        return Vec::new();
    };
    let mut found: Vec<(N, ValueMatch)> = Vec::new();
    for (key, item) in walk.entries(&field) {
        let name = match read(key.text) {
            Ok(name) => name,
            Err(wrong) => {
                walk.fault_key(&item, &key, wrong);
                continue;
            }
        };
        if found.iter().any(|(other, _)| *other == name) {
            let message = format!("{} is given twice: names do not differ by case", quote(key.text));
            walk.fault_key(&item, &key, Wrong::new(message));
        }
        found.extend(value(walk, &item).map(|value| (name, value)));
    }
    if found.len() > MOST {
        walk.fault(&field, Wrong::new(format!("at most {MOST} conditions")));
    }
    found
}

fn value(walk: &mut Walk, field: &Field<'_>) -> Option<ValueMatch> {
    if !matches!(field.node.value, Value::Map(_)) {
        return walk.value(field, text).map(ValueMatch::Exact);
    }
    walk.table(field, |walk, table| {
        let presence = |there| {
            if there {
                ValueMatch::Present
            } else {
                ValueMatch::Absent
            }
        };
        let read = [
            table.value(walk, "exact", text).map(ValueMatch::Exact),
            table.value(walk, "prefix", text).map(ValueMatch::Prefix),
            table.value(walk, "regex", patterns::regex).map(ValueMatch::Regex),
            table.value(walk, "present", truth).map(presence),
        ];
        let given = ["exact", "prefix", "regex", "present"];
        if given.iter().filter(|key| table.has(key)).count() != 1 {
            let wrong = Wrong::new("exactly one kind of condition is needed");
            walk.fault(
                &table.field,
                wrong.hint("exact, prefix, regex, or present: true or false"),
            );
        }
        read.into_iter().flatten().next()
    })?
}

fn text(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        let wrong = Wrong::new(format!("{} can not be compared with", quote(text)));
        return Err(wrong.hint("1 to 1024 bytes on one line; present: true is for any value"));
    }
    Ok(text.to_owned())
}

/// The name of a query parameter, decoded.
fn parameter(name: &str) -> Result<String, Wrong> {
    text(name).map_err(|_| Wrong::new(format!("{} is not the name of a parameter", quote(name))))
}
