//! What a route does itself: `redirect`, `respond`, and the templates in them.
//!
//! Owns the rule that no request decides where a redirect leads: the authority is written out or is the request's own
//! host, and what is filled in can neither begin one nor end a line.

use std::collections::BTreeSet;

use http::StatusCode;

use super::upstreams::Upstreams;
use super::{headers, patterns};
use crate::config::braces::{self, Part};
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{Action, PathMatch, Piece, Redirect, Respond, Shape, Split, Template};
use crate::config::scalar::{choice, number};

/// Longest template and longest body of a fixed answer, in bytes.
const MOST_TEMPLATE: usize = 2048;
const MOST_BODY: usize = 64 << 10;
const UPSTREAM_HINT: &str = "a name of upstreams, or [{url: \"http://127.0.0.1:9000\"}]";

const REDIRECTS: [(&str, StatusCode); 5] = [
    ("301", StatusCode::MOVED_PERMANENTLY),
    ("302", StatusCode::FOUND),
    ("303", StatusCode::SEE_OTHER),
    ("307", StatusCode::TEMPORARY_REDIRECT),
    ("308", StatusCode::PERMANENT_REDIRECT),
];

/// Exactly one of `upstream` or `upstreams`, `redirect` and `respond`. Of several upstreams, the first.
pub(super) fn action(
    walk: &mut Walk,
    table: &mut Table<'_>,
    upstreams: &mut Upstreams<'_>,
    name: &str,
    path: Option<&PathMatch>,
    split: Option<&Split>,
) -> Option<Action> {
    let redirect = table.get(walk, "redirect");
    let respond = table.get(walk, "respond");
    let forwards = table.has("upstream") || table.has("upstreams");
    let own = ["redirect", "respond"]
        .iter()
        .filter(|key| table.has(key))
        .count();
    if own + usize::from(forwards) > 1 {
        let wrong = Wrong::new("a route does one thing: upstream, redirect or respond");
        walk.fault(&table.field, wrong.hint("remove the others"));
    }
    if table.has("redirect") {
        let _ = table.get(walk, "upstream");
        return redirect.and_then(|field| self::redirect(walk, &field, path));
    }
    if table.has("respond") {
        let _ = table.get(walk, "upstream");
        return respond.and_then(|field| self::respond(walk, &field));
    }
    if table.has("upstreams") {
        if let Some(field) = table.get(walk, "upstream") {
            let wrong = Wrong::new("a route has either upstream or upstreams");
            walk.fault(&field, wrong.hint("put it into the list of upstreams"));
        }
        return Some(Action::Forward(split?.parts.first()?.0));
    }
    let upstream = table.require(walk, "upstream", UPSTREAM_HINT)?;
    upstreams.of_route(walk, &upstream, name).map(Action::Forward)
}

fn redirect(walk: &mut Walk, field: &Field<'_>, path: Option<&PathMatch>) -> Option<Action> {
    walk.table(field, |walk, table| {
        let status = table.value_or(walk, "status", StatusCode::PERMANENT_REDIRECT, choice(&REDIRECTS));
        let to = table.require(walk, "to", "such as to: \"https://{host}{path}{query}\"")?;
        let to = walk.value(&to, |text| target(text, path))?;
        Some(Action::Redirect(Redirect { status, to }))
    })?
}

fn respond(walk: &mut Walk, field: &Field<'_>) -> Option<Action> {
    walk.table(field, |walk, table| {
        let status = table.value_or(walk, "status", 200, number(200..=599));
        let status = u16::try_from(status)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())?;
        let body = table.value_or(walk, "body", String::new(), |text| {
            if text.len() > MOST_BODY {
                return Err(Wrong::new(format!("the body is larger than {MOST_BODY} bytes")));
            }
            Ok(text.to_owned())
        });
        if !body.is_empty() && matches!(status.as_u16(), 204 | 205 | 304) {
            walk.fault(
                &table.field,
                Wrong::new(format!("an answer {} has no body", status.as_u16())),
            );
        }
        let headers = headers::of_answer(walk, table);
        Some(Action::Respond(Respond {
            status,
            body,
            headers,
        }))
    })?
}

fn target(text: &str, path: Option<&PathMatch>) -> Result<Template, Wrong> {
    let refuse = || Wrong::new(format!("{} is not where a redirect can lead", quote(text)));
    let template = template(text, path)?;
    let query = template.0.iter().position(|piece| *piece == Piece::Query);
    if query.is_some_and(|at| at + 1 < template.0.len() || text.contains(['?', '#'])) {
        return Err(refuse().hint("{query} brings its own ? and comes last"));
    }
    let Some(rest) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        begins_a_path(&template, &refuse)?;
        return Ok(template);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let end = [rest.find("{path}"), rest.find("{query}")]
        .into_iter()
        .flatten()
        .fold(end, usize::min);
    let authority = &rest[..end];
    if authority != "{host}" {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let good_port = port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if host.contains(['{', '*']) || patterns::host(host).is_err() || !good_port {
            let hint =
                "after https:// stands a host written out, or {host} alone: no part of a path may become one";
            return Err(refuse().hint(hint));
        }
    }
    Ok(template)
}

/// One slash, or the request's own path.
pub(super) fn begins_a_path(template: &Template, refuse: &impl Fn() -> Wrong) -> Result<(), Wrong> {
    match template.0.first() {
        Some(Piece::Path) => Ok(()),
        Some(Piece::Text(text)) if text.starts_with('/') && !text.starts_with("//") => Ok(()),
        _ => Err(refuse().hint("it begins with one / or with {path}; an address with https://")),
    }
}

/// `{name}` in a text, each resolved against what the path matches.
pub(super) fn template(text: &str, path: Option<&PathMatch>) -> Result<Template, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a template", quote(text)));
    if text.len() > MOST_TEMPLATE {
        return Err(refuse().hint(format!("at most {MOST_TEMPLATE} bytes")));
    }
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|');
    if !text.bytes().all(fits) {
        return Err(refuse().hint("only characters that an address carries (RFC 3986)"));
    }
    let names = path.map(names);
    let mut pieces = Vec::new();
    for part in braces::parts(text) {
        let name = match part {
            Some(Part::Name(name)) => name,
            Some(Part::Text(plain)) => {
                pieces.push(Piece::Text(plain.to_owned()));
                continue;
            }
            None => return Err(refuse().hint("a place to fill in is written {name}")),
        };
        let piece = match name {
            "host" => Piece::Host,
            "query" => Piece::Query,
            "path" if matches!(pieces.last(), Some(Piece::Text(plain)) if plain.ends_with('/')) => {
                return Err(refuse().hint("{path} brings its own slash"));
            }
            "path" => Piece::Path,
            "rest" => Piece::Rest,
            name => Piece::Capture(name.to_owned()),
        };
        let known = match (&piece, path) {
            (Piece::Rest, Some(path)) => matches!(path.shape, Shape::Segments { prefix: true, .. }),
            (Piece::Capture(name), Some(_)) => names.as_ref().is_some_and(|names| names.contains(name)),
            _ => true,
        };
        if !known {
            let what = match piece {
                Piece::Rest => "the path does not end in /**".to_owned(),
                _ => format!("the path captures no {}", quote(name)),
            };
            return Err(refuse().hint(format!("{what}; there are also {{host}}, {{path}} and {{query}}")));
        }
        pieces.push(piece);
    }
    Ok(Template(pieces))
}

/// What a path captures.
pub(super) fn names(path: &PathMatch) -> BTreeSet<String> {
    path.captures().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t21_no_request_decides_where_a_redirect_leads() {
        let path = patterns::path("/u/{id}/**").expect("a pattern");
        for good in [
            "https://example.com",
            "https://example.com/{id}/{rest}?from=gateway",
            "https://{host}{path}{query}",
            "http://[2001:db8::1]:8080/x",
            "https://example.com:8443{path}",
            "/new/{id}",
            "{path}",
            "/a{path}{query}",
        ] {
            assert!(target(good, Some(&path)).is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "//example.com/",
            "/{path}",
            "{id}",
            "{rest}",
            "{host}/x",
            "https://{id}.example.com/",
            "https://example.com{rest}",
            "https://example.com:{id}/",
            "https://{host}.evil.com/",
            "https://{host}:8443/",
            "https://user@example.com/",
            "https:///x",
            "https://*.example.com/",
            "javascript:alert(1)",
            "/x\r\nSet-Cookie: a=b",
            "/a\\b",
            "/x{query}y",
            "/x?a=b{query}",
            "/{nobody}",
            "/{id",
            "/id}",
            "/ä",
        ] {
            assert!(target(bad, Some(&path)).is_err(), "{bad}");
        }
    }
}
