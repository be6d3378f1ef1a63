//! `headers: {set, add, remove}`: which lines a route may change.
//!
//! Framing and connection headers are not a route's to edit: they describe the connection that carries the message,
//! and a message whose framing was edited is read differently by the next hop (request smuggling).

use http::{HeaderName, HeaderValue, header};

use crate::config::decode::{Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::HeaderEdit;
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

/// `request: {headers: ...}` or `response: {headers: ...}` of a route.
pub(super) fn edits(
    walk: &mut Walk,
    route: &mut Table<'_>,
    key: &'static str,
    message: Message,
) -> HeaderEdit {
    let read = route.get(walk, key).and_then(|field| {
        walk.table(&field, |walk, table| {
            let headers = table.get(walk, "headers")?;
            walk.table(&headers, |walk, table| HeaderEdit {
                set: lines(walk, table, "set", message, Edit::Set),
                add: lines(walk, table, "add", message, Edit::Add),
                remove: removals(walk, table, message),
            })
        })
    });
    read.flatten().unwrap_or_default()
}

/// `headers` of an answer that the gateway makes itself.
pub(super) fn of_answer(walk: &mut Walk, table: &mut Table<'_>) -> Vec<(HeaderName, HeaderValue)> {
    lines(walk, table, "headers", Message::Response, Edit::Set)
}

fn lines(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    message: Message,
    edit: Edit,
) -> Vec<(HeaderName, HeaderValue)> {
    let Some(field) = table.get(walk, key) else {
        return Vec::new();
    };
    let mut lines: Vec<(HeaderName, HeaderValue)> = Vec::new();
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
        let read = values.iter().filter_map(|field| walk.value(field, value));
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
