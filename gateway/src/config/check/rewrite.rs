//! `rewrite` of a route: what the upstream is asked for instead.

use http::HeaderValue;

use super::actions::template;
use super::patterns;
use crate::config::braces;
use crate::config::decode::{Field, Table, Walk};
use crate::config::fault::{Wrong, quote};
use crate::config::model::{
    HostMatch, HostRewrite, Part, PathMatch, PathRewrite, Pattern, Piece, Rewrite, Segment, Shape, Template,
};

/// Longest replacement, in bytes.
const MOST_REPLACEMENT: usize = 1024;

/// `rewrite: {path: ...}`, `{strip_prefix: ..., add_prefix: ...}` or `{regex: {pattern: ..., replace: ...}}`, and `host`.
pub(super) fn rewrite(walk: &mut Walk, table: &mut Table<'_>, path: Option<&PathMatch>) -> Rewrite {
    let Some(field) = table.get(walk, "rewrite") else {
        return Rewrite::default();
    };
    if !table.has("upstream") && !table.has("upstreams") {
        walk.fault(
            &field,
            Wrong::new("there is no upstream for which the path could be another"),
        );
    }
    let read = walk.table(&field, |walk, table| {
        let whole = table
            .value(walk, "path", |text| new_path(text, path))
            .map(PathRewrite::Template);
        let strip = table.get(walk, "strip_prefix");
        let strip = strip.and_then(|field| walk.value(&field, |text| stripped(text, path)));
        let add = table.value(walk, "add_prefix", prefix);
        let regex = table.get(walk, "regex").and_then(|field| regex(walk, &field));
        let host = table.value_or(walk, "host", HostRewrite::Keep, host);
        let ways = [
            table.has("path"),
            table.has("regex"),
            table.has("strip_prefix") || table.has("add_prefix"),
        ];
        let ways = ways.into_iter().filter(|there| *there).count();
        if ways > 1 {
            walk.fault(
                &table.field,
                Wrong::new("a path is rewritten in one way")
                    .hint("path, or strip_prefix and add_prefix, or regex"),
            );
        } else if ways == 0 && !table.has("host") {
            walk.fault(
                &table.field,
                Wrong::new("nothing is rewritten")
                    .hint("such as path: \"/{rest}\", which takes the front of /front/** away"),
            );
        }
        let prefixes = (strip.is_some() || add.is_some()).then(|| PathRewrite::Prefix {
            strip: strip.unwrap_or_default(),
            add: add.unwrap_or_default(),
        });
        Rewrite {
            path: whole.or(regex).or(prefixes),
            host,
        }
    });
    read.unwrap_or_default()
}

fn new_path(text: &str, path: Option<&PathMatch>) -> Result<Template, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a path", quote(text)));
    let template = template(text, path)?;
    for piece in &template.0 {
        match piece {
            Piece::Host | Piece::Query => {
                return Err(refuse().hint("host and query are not part of it; the query stays as it is"));
            }
            Piece::Text(text) if text.contains(['?', '#', '%', '\\']) => {
                return Err(refuse().hint("only characters that a path carries unescaped (RFC 3986, 3.3)"));
            }
            _ => {}
        }
    }
    super::actions::begins_a_path(&template, &refuse)?;
    Ok(template)
}

/// `/v1`, without a slash at the end.
fn prefix(text: &str) -> Result<String, Wrong> {
    let refuse = || Wrong::new(format!("{} is not the front of a path", quote(text)));
    let literal = |path: &PathMatch| match &path.shape {
        Shape::Segments { segments, prefix } => {
            !prefix
                && !segments.is_empty()
                && segments
                    .iter()
                    .all(|segment| matches!(segment, Segment::Literal(_)))
        }
        Shape::Regex(_) => false,
    };
    match patterns::path(text) {
        Ok(path) if literal(&path) && !text.ends_with('/') => Ok(text.to_owned()),
        Ok(_) => Err(refuse().hint("written out, with a slash in front and none at the end, such as /v1")),
        Err(wrong) => Err(wrong),
    }
}

/// As [`prefix`], and it must be what every path of the route begins with, as far as that can be told.
fn stripped(text: &str, path: Option<&PathMatch>) -> Result<String, Wrong> {
    let front = prefix(text)?;
    if let Some(Shape::Segments { segments, .. }) = path.map(|path| &path.shape) {
        let own = segments.iter().map_while(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            _ => None,
        });
        let own: Vec<_> = own.collect();
        let asked: Vec<_> = front.split('/').skip(1).collect();
        if !own.starts_with(&asked) {
            let wrong = Wrong::new(format!(
                "the path of the route does not begin with {}",
                quote(text)
            ));
            return Err(wrong.hint("what is not there can not be taken away"));
        }
    }
    Ok(front)
}

fn regex(walk: &mut Walk, field: &Field<'_>) -> Option<PathRewrite> {
    walk.table(field, |walk, table| {
        let pattern = table.require(walk, "pattern", "such as pattern: \"^/v([0-9]+)/\"");
        let pattern = pattern.and_then(|field| {
            walk.value(&field, |text| {
                patterns::regex(text)?;
                Pattern::anywhere(text).map_err(Wrong::new)
            })
        });
        let replace = table.require(walk, "replace", "such as replace: \"/version/{1}/\"");
        let replace =
            replace.and_then(|field| walk.value(&field, |text| replacement(text, pattern.as_ref())));
        Some(PathRewrite::Regex {
            pattern: pattern?,
            replace: replace?,
        })
    })?
}

/// `{1}` or `{name}` for what a group matched.
fn replacement(text: &str, pattern: Option<&Pattern>) -> Result<Vec<Part>, Wrong> {
    let refuse = || Wrong::new(format!("{} can not be put into a path", quote(text)));
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\' | b'"' | b'<' | b'>');
    if text.len() > MOST_REPLACEMENT || !text.bytes().all(fits) {
        return Err(refuse().hint("only characters that a path carries unescaped (RFC 3986, 3.3)"));
    }
    let mut parts = Vec::new();
    for part in braces::parts(text) {
        let name = match part {
            Some(braces::Part::Name(name)) => name,
            Some(braces::Part::Text(plain)) => {
                parts.push(Part::Text(plain.to_owned()));
                continue;
            }
            None => return Err(refuse().hint("a group is written {1} or {name}")),
        };
        let group = pattern.map_or(Some(0), |pattern| pattern.group(name));
        let group =
            group.ok_or_else(|| refuse().hint(format!("the expression has no group {}", quote(name))))?;
        parts.push(Part::Group(group));
    }
    Ok(parts)
}

/// `keep`, `upstream` or a host, with a port if need be.
fn host(text: &str) -> Result<HostRewrite, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a host", quote(text)));
    match text {
        "keep" => return Ok(HostRewrite::Keep),
        "upstream" => return Ok(HostRewrite::Upstream),
        _ => {}
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    let good_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    if !port.is_none_or(good_port) {
        return Err(refuse().hint("a port is a number from 1 to 65535"));
    }
    let HostMatch::Exact(name) = patterns::host(name)? else {
        return Err(refuse().hint("keep, upstream, or a name written out"));
    };
    let line = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
    HeaderValue::try_from(line)
        .map(HostRewrite::Name)
        .map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_path_is_a_path() {
        let path = patterns::path("/api/{v}/**").expect("a pattern");
        for good in ["/{rest}", "/{v}/x/{rest}", "{path}", "/"] {
            assert!(new_path(good, Some(&path)).is_ok(), "{good}");
        }
        for bad in [
            "{rest}",
            "x",
            "/{host}",
            "/x{query}",
            "/x?a",
            "/%2f",
            "//x",
            "http://a/",
        ] {
            assert!(new_path(bad, Some(&path)).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_whole_segments_that_the_route_has() {
        let path = patterns::path("/api/v1/**").expect("a pattern");
        for good in ["/api", "/api/v1"] {
            assert_eq!(stripped(good, Some(&path)).as_deref(), Ok(good));
        }
        for bad in [
            "/ap",
            "/api/v1/x",
            "/other",
            "/api/",
            "api",
            "/",
            "",
            "/api/**",
            "/{v}",
            "/a%20b",
            "/../x",
        ] {
            assert!(stripped(bad, Some(&path)).is_err(), "{bad}");
        }
    }

    #[test]
    fn replacements_name_groups_that_there_are() {
        let pattern = Pattern::anywhere("^/v(?P<n>[0-9]+)(/)").expect("an expression");
        assert_eq!(
            replacement("/x{n}{1}-{2}", Some(&pattern)).ok(),
            Some(vec![
                Part::Text("/x".into()),
                Part::Group(1),
                Part::Group(1),
                Part::Text("-".into()),
                Part::Group(2)
            ])
        );
        for bad in ["{3}", "{m}", "{", "}", "a b", "?x", "%41", "#"] {
            assert!(replacement(bad, Some(&pattern)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_one_host() {
        for good in [
            "keep",
            "upstream",
            "a.example",
            "a.example:8080",
            "[::1]:8080",
            "192.0.2.1",
        ] {
            assert!(host(good).is_ok(), "{good}");
        }
        for bad in ["", "*.example.com", "a b", "a:0", "a:x", "a/b", "a@b", "*"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
