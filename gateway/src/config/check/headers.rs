//! `headers: {rename, remove, set, add}`: which lines a route may change.
//!
//! Framing and connection headers are not a route's to edit: they describe the connection that carries the message,
//! and a message whose framing was edited is read differently by the next hop (request smuggling).

use http::{HeaderName, HeaderValue, header};

use super::values;
use crate::config::decode::{Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{HeaderEdit, Made, PathMatch, ValueTemplate};
use crate::config::raw::Value;

/// Which way the message goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Response,
}

/// What is done to a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Set,
    Add,
    Remove,
}

/// `headers` of a route's `request` or `response`.
pub(super) fn edits(
    walk: &mut Walk,
    table: &mut Table<'_>,
    message: Message,
    path: Option<&PathMatch>,
) -> HeaderEdit {
    let read = table.get(walk, "headers").and_then(|field| {
        walk.table(&field, |walk, table| {
            let rename = renames(walk, table, message);
            let (set, mut made) = templates(walk, table, "set", message, path);
            let (add, also_made) = templates(walk, table, "add", message, path);
            made.extend(also_made);
            HeaderEdit {
                rename,
                remove: removals(walk, table, message),
                set,
                add,
                made,
            }
        })
    });
    read.unwrap_or_default()
}

/// Lines to set or to add: those that are written out, and those that are made for each request.
fn templates(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    message: Message,
    path: Option<&PathMatch>,
) -> (Vec<Line>, Vec<Made>) {
    let add = key == "add";
    let edit = if add { Edit::Add } else { Edit::Set };
    let read = lines(walk, table, key, message, edit, |text| {
        let template = values::template(text, path)?;
        match values::plain(&template) {
            Some(plain) => value(plain).map(Content::Plain),
            None => Ok(Content::Made(template)),
        }
    });
    let (mut plain, mut made) = (Vec::new(), Vec::new());
    for (name, content) in read {
        match content {
            Content::Plain(value) => plain.push((name, value)),
            Content::Made(value) => made.push(Made { name, value, add }),
        }
    }
    if let Some(host) = made.iter().find(|made| made.name == header::HOST) {
        let wrong = Wrong::new(format!("header {} is written out", quote(host.name.as_str())));
        walk.fault(
            &table.field,
            wrong.hint(
                "no request decides which host its upstream is asked for; see also rewrite: {host: ...}",
            ),
        );
    }
    (plain, made)
}

type Line = (HeaderName, HeaderValue);

enum Content {
    Plain(HeaderValue),
    Made(ValueTemplate),
}

fn renames(walk: &mut Walk, table: &mut Table<'_>, message: Message) -> Vec<(HeaderName, HeaderName)> {
    let Some(field) = table.get(walk, "rename") else {
        return Vec::new();
    };
    let own = |text: &str| name(text).and_then(|name| editable(name, message, Edit::Remove));
    let mut renames: Vec<(HeaderName, HeaderName)> = Vec::new();
    for (key, field) in walk.entries(&field) {
        let to = walk.value(&field, own);
        match own(key.text) {
            Ok(from) if renames.iter().any(|(other, _)| *other == from) => {
                let wrong = Wrong::new(format!("header {} is given twice", quote(key.text)));
                walk.fault_key(&field, &key, wrong);
            }
            Ok(from) => renames.extend(to.map(|to| (from, to))),
            Err(wrong) => walk.fault_key(&field, &key, wrong),
        }
    }
    renames
}

/// `headers` of an answer that the gateway makes itself.
pub(super) fn of_answer(walk: &mut Walk, table: &mut Table<'_>) -> Vec<(HeaderName, HeaderValue)> {
    lines(walk, table, "headers", Message::Response, Edit::Set, value)
}

fn lines<T>(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    message: Message,
    edit: Edit,
    value: impl Fn(&str) -> Result<T, Wrong>,
) -> Vec<(HeaderName, T)> {
    let Some(field) = table.get(walk, key) else {
        return Vec::new();
    };
    let mut lines: Vec<(HeaderName, T)> = Vec::new();
    for (key, field) in walk.entries(&field) {
        let name = match name(key.text).and_then(|name| editable(name, message, edit)) {
            Ok(name) => name,
            Err(wrong) => {
                walk.fault_key(&field, &key, wrong);
                continue;
            }
        };
        if lines.iter().any(|(other, _)| *other == name) {
            let message = format!(
                "header {} is given twice: names do not differ by case",
                quote(key.text)
            );
            walk.fault_key(&field, &key, Wrong::new(message));
        }
        let values = match &field.node.value {
            Value::List(_) if edit == Edit::Add => walk.list(&field),
            _ => vec![field],
        };
        let read = values.iter().filter_map(|field| walk.value(field, &value));
        lines.extend(read.map(|value| (name.clone(), value)));
    }
    lines
}

fn removals(walk: &mut Walk, table: &mut Table<'_>, message: Message) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for item in table.list(walk, "remove") {
        let read = walk.value(&item, |text| {
            name(text).and_then(|name| editable(name, message, Edit::Remove))
        });
        let Some(name) = read else { continue };
        if names.contains(&name) {
            walk.fault(
                &item,
                Wrong::new(format!("header {} is given twice", quote(name.as_str()))),
            );
        }
        names.push(name);
    }
    names
}

/// The name of a header that carries a credential.
pub(super) fn credential(text: &str) -> Result<HeaderName, Wrong> {
    name(text).and_then(|name| editable(name, Message::Request, Edit::Remove))
}

/// Any header's name.
pub(super) fn name(text: &str) -> Result<HeaderName, Wrong> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        let wrong = Wrong::new(format!("{} is not a header name", quote(text)));
        wrong.hint("letters, digits and hyphens (RFC 9110, 5.1)")
    })
}

fn value(text: &str) -> Result<HeaderValue, Wrong> {
    HeaderValue::from_str(text).map_err(|_| {
        let wrong = Wrong::new(format!("{} can not be the value of a header", quote(text)));
        wrong.hint("printable ASCII on one line")
    })
}

/// Refuses what is not a route's to edit, with the reason.
fn editable(name: HeaderName, message: Message, edit: Edit) -> Result<HeaderName, Wrong> {
    let reason = match &name {
        n if *n == header::CONTENT_LENGTH || *n == header::TRANSFER_ENCODING => {
            "it says where the body ends, which the gateway alone may"
        }
        n if *n == header::CONNECTION
            || *n == header::TE
            || *n == header::TRAILER
            || *n == header::UPGRADE
            || ["keep-alive", "proxy-connection"].contains(&n.as_str()) =>
        {
            "it speaks of one connection and never travels on (RFC 9110, 7.6.1)"
        }
        n if *n == header::HOST && message == Message::Response => "a response has no host",
        n if *n == header::HOST && edit != Edit::Set => "a request has exactly one; it can only be set",
        _ => return Ok(name),
    };
    Err(Wrong::new(format!(
        "header {} can not be used here: {reason}",
        quote(name.as_str())
    )))
}
