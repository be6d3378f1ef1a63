//! `errors`: what the gateway's own errors look like, by status.

use std::sync::Arc;

use http::HeaderValue;

use super::files;
use crate::config::decode::{Table, Walk};
use crate::config::fault::{Wrong, nearest, quote};
use crate::config::model::{ErrorPage, ErrorPages, Escape, PagePiece};

/// Longest page, in bytes.
const MOST: usize = 64 << 10;

pub(super) fn errors(walk: &mut Walk, top: &mut Table<'_>) -> ErrorPages {
    let mut pages = ErrorPages::default();
    let Some(field) = top.get(walk, "errors") else {
        return pages;
    };
    for (key, field) in walk.entries(&field) {
        let page = walk.table(&field, page).flatten().map(Arc::new);
        let (digits, class) = match key.text.strip_suffix("xx") {
            Some(digit) => (digit, true),
            None => (key.text, false),
        };
        let number = digits.parse::<u16>().ok();
        let number = number.filter(|n| {
            if class {
                (4..=5).contains(n)
            } else {
                (400..=599).contains(n)
            }
        });
        match (number, page) {
            (Some(number), Some(page)) if class => pages.classes.push((number, page)),
            (Some(number), Some(page)) => pages.exact.push((number, page)),
            (Some(_), None) => {}
            (None, _) => {
                let wrong = Wrong::new(format!("{} is not a status of an error", quote(key.text)));
                walk.fault_key(&field, &key, wrong.hint("400 to 599, 4xx or 5xx"));
            }
        }
    }
    pages
}

fn page(walk: &mut Walk, table: &mut Table<'_>) -> Option<ErrorPage> {
    let content_type = table.value(walk, "content_type", content_type);
    let body = table.get(walk, "body");
    let file = table.get(walk, "file");
    let (text, field) = match (&body, &file) {
        (Some(field), None) => (walk.text(field).map(str::to_owned), field),
        (None, Some(field)) => {
            let path = files::named(walk, field)?;
            let read = files::read_text(&path, MOST)
                .map_err(|wrong| walk.fault(field, wrong))
                .ok();
            let name = path.display().to_string();
            if read.is_some() && !walk.files.contains(&name) {
                walk.files.push(name);
            }
            (read, field)
        }
        _ => {
            let wrong = Wrong::new("exactly one of body and file says what is answered");
            walk.fault(&table.field, wrong);
            return None;
        }
    };
    let text = text?;
    let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static("text/plain; charset=utf-8"));
    if text.len() > MOST {
        walk.fault(&table.field, Wrong::new("the body is longer than 64KiB"));
        return None;
    }
    for (line, name) in unknown(&text) {
        let place = match &file {
            Some(_) => format!("line {line} of the file: "),
            None => String::new(),
        };
        let known = KNOWN.map(|(name, _)| name).join(", ");
        let wrong = Wrong::new(format!("{place}{} is nothing that is filled in", quote(name)));
        let bare = |name: &'static str| name.trim_matches(['{', '}']);
        let near = nearest(name.trim_matches(['{', '}']), KNOWN.map(|(name, _)| bare(name)));
        let meant = near.map_or(String::new(), |near| format!("did you mean {{{near}}}? "));
        walk.fault(
            field,
            wrong.hint(format!(
                "{meant}known are {known}; braces with a blank behind them are text"
            )),
        );
    }
    let escape = match content_type.to_str().unwrap_or_default().to_ascii_lowercase() {
        kind if kind.contains("json") => Escape::Json,
        kind if kind.contains("html") || kind.contains("xml") => Escape::Html,
        _ => Escape::None,
    };
    Some(ErrorPage {
        content_type,
        body: pieces(&text),
        escape,
    })
}

/// What is filled in.
const KNOWN: [(&str, PagePiece); 4] = [
    ("{code}", PagePiece::Code),
    ("{status}", PagePiece::Status),
    ("{title}", PagePiece::Title),
    ("{request_id}", PagePiece::RequestId),
];

/// What stands in braces as a name does and is none, with its line. Style sheets and JSON have no single word between braces; of
/// scripts `${name}` is left alone.
fn unknown(text: &str) -> Vec<(usize, &str)> {
    let letters = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    let name_at = |at: usize| {
        let (before, rest) = text.split_at_checked(at)?;
        let end = rest.bytes().take(64).position(|b| b == b'}')?;
        let (whole, name) = (rest.get(..=end)?, rest.get(1..end)?);
        let known = KNOWN.iter().any(|(known, _)| *known == whole);
        let line = || before.matches('\n').count() + 1;
        (letters(name) && !known && !before.ends_with('$')).then(|| (line(), whole))
    };
    text.match_indices('{')
        .filter_map(|(at, _)| name_at(at))
        .take(8)
        .collect()
}

/// Braces around anything but a known name are text: pages hold style sheets.
fn pieces(text: &str) -> Vec<PagePiece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((name, piece)) = KNOWN.iter().find(|(name, _)| rest.starts_with(name)) {
            if !plain.is_empty() {
                pieces.push(PagePiece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece.clone());
            rest = rest.get(name.len()..).unwrap_or_default();
            continue;
        }
        let end = rest.char_indices().skip(1).find(|(_, letter)| *letter == '{');
        let (text, more) = rest.split_at(end.map_or(rest.len(), |(at, _)| at));
        plain += text;
        rest = more;
    }
    if !plain.is_empty() {
        pieces.push(PagePiece::Text(plain));
    }
    pieces
}

fn content_type(text: &str) -> Result<HeaderValue, Wrong> {
    let kind = text.split(';').next().unwrap_or_default().trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
    let token = |part: &str| !part.is_empty() && part.bytes().all(plain);
    let good = kind.split_once('/').is_some_and(|(a, b)| token(a) && token(b));
    let value = HeaderValue::from_str(text).ok().filter(|_| good);
    value.ok_or_else(|| {
        Wrong::new(format!("{} is not a media type", quote(text))).hint("such as text/html; charset=utf-8")
    })
}
