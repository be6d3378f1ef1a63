//! What a refusal tells the client beyond its code: which parts of the request are wrong. Owns the form of the list and its
//! bounds; knows none of those who find the faults.

use std::fmt::Write as _;

use serde::Serialize;

/// A client is told of so many faults at once.
const MOST: usize = 20;
/// Longest text of one fault, and longest name of a place, in bytes.
const MOST_TEXT: usize = 256;

/// What is wrong with a request, for the client. Holds nothing of the inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    errors: Vec<Error>,
}

/// One fault, as a member of `errors` (RFC 9457, 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Error {
    pub(super) detail: String,
    #[serde(flatten)]
    pub(super) at: Shown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    Body {
        pointer: String,
    },
    Parameter {
        #[serde(rename = "in")]
        part: &'static str,
        name: String,
    },
}

/// Which part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At<'a> {
    /// A JSON Pointer (RFC 6901) into the body; the empty one is the whole of it.
    Body(&'a str),
    Path(&'a str),
    Query(&'a str),
    Header(&'a str),
    Cookie(&'a str),
}

impl Problem {
    /// Adds a fault, unless there are enough already. Long texts are cut.
    pub fn add(&mut self, at: At<'_>, detail: &str) {
        if self.errors.len() == MOST {
            return;
        }
        let parameter = |part, name| Shown::Parameter {
            part,
            name: cut(name).to_owned(),
        };
        self.errors.push(Error {
            detail: cut(detail).to_owned(),
            at: match at {
                At::Body(pointer) => Shown::Body {
                    pointer: fragment(cut(pointer)),
                },
                At::Path(name) => parameter("path", name),
                At::Query(name) => parameter("query", name),
                At::Header(name) => parameter("header", name),
                At::Cookie(name) => parameter("cookie", name),
            },
        });
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The faults as lines of text.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let line = |error: &Error| {
            let place = match &error.at {
                Shown::Body { pointer } => format!("body {pointer}"),
                Shown::Parameter { part, name } => format!("{part} {name}"),
            };
            format!("{place}: {}", error.detail).replace(char::is_control, " ")
        };
        self.errors.iter().map(line)
    }

    pub(super) fn errors(&self) -> &[Error] {
        &self.errors
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MOST_TEXT)).unwrap_or(text)
}

/// A pointer as a URI's fragment (RFC 6901, 6).
fn fragment(pointer: &str) -> String {
    let mut text = String::from("#");
    for byte in pointer.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_and_everything_is_bounded() {
        let mut problem = Problem::default();
        assert!(problem.is_empty());
        problem.add(At::Body("/lines/0/größe \""), "must be a number");
        problem.add(At::Query("page"), "is missing");
        let shown = serde_json::to_value(problem.errors()).unwrap();
        assert_eq!(
            shown,
            serde_json::json!([
                {"detail": "must be a number", "pointer": "#/lines/0/gr%C3%B6%C3%9Fe%20%22"},
                {"detail": "is missing", "in": "query", "name": "page"},
            ])
        );
        for _ in 0..100 {
            problem.add(At::Header("x"), &"ä".repeat(1000));
        }
        assert_eq!(problem.errors().len(), MOST);
        assert!(
            problem
                .errors()
                .iter()
                .all(|error| error.detail.len() <= MOST_TEXT)
        );
    }
}
