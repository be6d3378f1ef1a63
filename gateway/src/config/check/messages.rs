//! `request` and `response` of a route: what is changed in messages.

use http::StatusCode;

use super::headers::{self, Message};
use super::{bodies, values};
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{
    BodyEdit, HeaderEdit, PathMatch, QueryEdit, StatusChange, StatusMap, ValueTemplate,
};

/// What is changed in a request.
#[derive(Default)]
pub(super) struct Request {
    pub(super) headers: HeaderEdit,
    pub(super) query: QueryEdit,
    pub(super) body: Option<BodyEdit>,
}

/// What is changed in an answer.
#[derive(Default)]
pub(super) struct Response {
    pub(super) headers: HeaderEdit,
    pub(super) status: StatusMap,
    pub(super) body: Option<BodyEdit>,
}

pub(super) fn request(walk: &mut Walk, route: &mut Table<'_>, path: Option<&PathMatch>) -> Request {
    let read = route.get(walk, "request").and_then(|field| {
        walk.table(&field, |walk, table| Request {
            headers: headers::edits(walk, table, Message::Request, path),
            query: query(walk, table, path),
            body: bodies::body(walk, table, Message::Request, path),
        })
    });
    read.unwrap_or_default()
}

pub(super) fn response(walk: &mut Walk, route: &mut Table<'_>, path: Option<&PathMatch>) -> Response {
    let read = route.get(walk, "response").and_then(|field| {
        walk.table(&field, |walk, table| Response {
            headers: headers::edits(walk, table, Message::Response, path),
            status: status(walk, table),
            body: bodies::body(walk, table, Message::Response, path),
        })
    });
    read.unwrap_or_default()
}

/// `query: {rename, remove, set, add}`.
fn query(walk: &mut Walk, table: &mut Table<'_>, path: Option<&PathMatch>) -> QueryEdit {
    let read = table.get(walk, "query").and_then(|field| {
        walk.table(&field, |walk, table| {
            let rename = table.get(walk, "rename").map(|field| walk.entries(&field));
            let rename = rename
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(from, field)| {
                    let to = walk.value(&field, parameter)?;
                    let from = named(walk, &field, &from)?;
                    Some((from, to))
                });
            let rename = rename.collect();
            let remove = table.list(walk, "remove");
            QueryEdit {
                rename,
                remove: remove
                    .iter()
                    .filter_map(|item| walk.value(item, parameter))
                    .collect(),
                set: parameters(walk, table, "set", path),
                add: parameters(walk, table, "add", path),
            }
        })
    });
    read.unwrap_or_default()
}

fn parameters(
    walk: &mut Walk,
    table: &mut Table<'_>,
    key: &'static str,
    path: Option<&PathMatch>,
) -> Vec<(String, ValueTemplate)> {
    let Some(field) = table.get(walk, key) else {
        return Vec::new();
    };
    let mut read = Vec::new();
    for (name, field) in walk.entries(&field) {
        let value = walk.value(&field, |text| values::template(text, path));
        if let (Some(name), Some(value)) = (named(walk, &field, &name), value) {
            read.push((name, value));
        }
    }
    read
}

fn named(walk: &mut Walk, field: &Field<'_>, key: &crate::config::decode::Key<'_>) -> Option<String> {
    match parameter(key.text) {
        Ok(name) => Some(name),
        Err(wrong) => {
            walk.fault_key(field, key, wrong);
            None
        }
    }
}

/// The name of a parameter, decoded.
fn parameter(text: &str) -> Result<String, Wrong> {
    if text.is_empty() || text.len() > 256 {
        return Err(
            Wrong::new(format!("{} is not the name of a parameter", quote(text))).hint("1 to 256 bytes"),
        );
    }
    Ok(text.to_owned())
}

/// `status: {404: 204, 5xx: 502}`.
fn status(walk: &mut Walk, table: &mut Table<'_>) -> StatusMap {
    let Some(field) = table.get(walk, "status") else {
        return StatusMap::default();
    };
    let mut rows: Vec<StatusChange> = Vec::new();
    for (key, field) in walk.entries(&field) {
        let from = match range(key.text) {
            Ok(from) => from,
            Err(wrong) => {
                walk.fault_key(&field, &key, wrong);
                continue;
            }
        };
        if let Some(to) = walk.value(&field, single) {
            rows.push(StatusChange { from, to });
        }
    }
    rows.sort_by_key(|row| row.from.1 - row.from.0);
    StatusMap(rows)
}

/// `404`, or `4xx` for the class.
fn range(text: &str) -> Result<(u16, u16), Wrong> {
    match text {
        "2xx" => Ok((200, 299)),
        "3xx" => Ok((300, 399)),
        "4xx" => Ok((400, 499)),
        "5xx" => Ok((500, 599)),
        _ => single(text).map(|status| (status.as_u16(), status.as_u16())),
    }
}

fn single(text: &str) -> Result<StatusCode, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a status that can be mapped", quote(text)));
    let code: u16 = match text.parse() {
        Ok(code) if text.len() == 3 && (200..=599).contains(&code) => code,
        _ => return Err(refuse().hint("200 to 599; on the left also 2xx, 3xx, 4xx or 5xx")),
    };
    if matches!(code, 206 | 304) {
        // They answer a condition or a range of the request: with another status the rest of the header is wrong.
        return Err(refuse().hint("206 and 304 belong to what the request asked for"));
    }
    StatusCode::from_u16(code).map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_mapped_one_by_one_or_by_class() {
        assert_eq!(range("404").ok(), Some((404, 404)));
        assert_eq!(range("5xx").ok(), Some((500, 599)));
        for bad in [
            "", "1xx", "101", "6xx", "600", "0404", "+20", "304", "206", "5XX", "4x",
        ] {
            assert!(range(bad).is_err(), "{bad}");
        }
        let map = StatusMap(vec![
            StatusChange {
                from: (404, 404),
                to: StatusCode::NO_CONTENT,
            },
            StatusChange {
                from: (400, 499),
                to: StatusCode::BAD_REQUEST,
            },
        ]);
        let of = |code| map.of(StatusCode::from_u16(code).expect("a status")).as_u16();
        assert_eq!([of(404), of(410), of(200), of(500)], [204, 400, 200, 500]);
    }
}
