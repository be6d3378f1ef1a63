//! Filling in what a redirect or a rewritten path takes from the request. What templates may be, the configuration's check
//! says; here they are carried out.

use std::fmt::Write as _;

use crate::config::model::{PathMatch, Piece, Segment, Shape, Template};

/// A template of one route, with the path pattern that its names belong to.
#[derive(Debug)]
pub struct Filling {
    template: Template,
    path: PathMatch,
}

/// What a request has to offer.
#[derive(Clone, Copy, Debug)]
pub struct Source<'r> {
    /// As the client names it, checked.
    pub host: &'r str,
    /// Canonical.
    pub path: &'r str,
    pub query: Option<&'r str>,
}

impl Filling {
    #[must_use]
    pub fn new(template: &Template, path: &PathMatch) -> Self {
        Self {
            template: template.clone(),
            path: path.clone(),
        }
    }

    /// The text. All that is filled in is of the form that a path or query was accepted in: no blanks, no controls.
    #[must_use]
    pub fn fill(&self, source: &Source<'_>) -> String {
        let mut out = String::with_capacity(64);
        let mut in_query = false;
        for piece in &self.template.0 {
            let value = match piece {
                Piece::Text(text) => {
                    in_query |= text.contains('?');
                    out.push_str(text);
                    continue;
                }
                Piece::Query => {
                    if let Some(query) = source.query {
                        out.push('?');
                        push_query(&mut out, query);
                    }
                    continue;
                }
                Piece::Host => source.host,
                Piece::Path => source.path,
                Piece::Rest => rest(&self.path, source.path),
                Piece::Capture(name) => capture(&self.path, source.path, name),
            };
            if in_query {
                push_parameter(&mut out, value);
            } else {
                out.push_str(value);
            }
        }
        out
    }
}

/// A query as it may stand in a header line: what is not ASCII, and what ends an address in a text, is encoded.
fn push_query(out: &mut String, query: &str) {
    for byte in query.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A part of a path as the value of a parameter: it can not begin another. A canonical path has whole triplets only.
fn push_parameter(out: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'%') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// What `/**` at the end takes of a path that matches, without its slash.
pub(super) fn rest<'p>(pattern: &PathMatch, path: &'p str) -> &'p str {
    let Shape::Segments { segments, .. } = &pattern.shape else {
        return "";
    };
    path.splitn(segments.len() + 2, '/')
        .nth(segments.len() + 1)
        .unwrap_or("")
}

/// What `{name}` takes of a path that matches.
pub(super) fn capture<'p>(pattern: &PathMatch, path: &'p str, name: &str) -> &'p str {
    let segments = match &pattern.shape {
        Shape::Regex(regex) => {
            let found = regex.capture(path.as_bytes(), name);
            return found
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or("");
        }
        Shape::Segments { segments, .. } => segments,
    };
    let is_it = |segment: &Segment| matches!(segment, Segment::Capture(own) if own == name);
    let Some(at) = segments.iter().position(is_it) else {
        return "";
    };
    let glob = segments.iter().position(|segment| *segment == Segment::Glob);
    // Behind `**`, which takes who knows how many, the end of the path is what is known.
    let found = match glob {
        Some(glob) if glob < at => path.rsplit('/').nth(segments.len() - 1 - at),
        _ => path.split('/').nth(at + 1),
    };
    found.unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::model::Action;

    fn filled(pattern: &str, to: &str, path: &str, query: Option<&str>) -> String {
        let text = format!(
            "listen: [{{address: 127.0.0.1:1}}]\nxdp: {{mode: none}}\nroutes:\n  - match: {{path: {pattern}}}\n    redirect: {{to: \"{to}\"}}\n"
        );
        let (config, _) =
            Config::parse(&text, "g.yaml", std::path::Path::new("/")).unwrap_or_else(|f| panic!("{f}"));
        let Action::Redirect(redirect) = &config.routes[0].action else {
            panic!("a redirect")
        };
        let source = Source {
            host: "a.example:8080",
            path,
            query,
        };
        Filling::new(&redirect.to, &config.routes[0].path).fill(&source)
    }

    #[test]
    fn names_are_filled_in_from_the_request() {
        let tests = [
            ("\"/u/{id}/**\"", "/n/{id}/{rest}", "/u/7/a/b", None, "/n/7/a/b"),
            ("\"/u/{id}/**\"", "/n/{id}/{rest}", "/u/7", None, "/n/7/"),
            ("\"/u/{id}/**\"", "/n/{rest}", "/u/7/a/", None, "/n/a/"),
            (
                "/**",
                "https://{host}{path}{query}",
                "/x",
                Some("a=1"),
                "https://a.example:8080/x?a=1",
            ),
            (
                "/**",
                "https://{host}{path}{query}",
                "/x",
                None,
                "https://a.example:8080/x",
            ),
            (
                "/**",
                "https://other.example/{rest}",
                "/",
                None,
                "https://other.example/",
            ),
            ("\"/a/**/of/{who}\"", "/{who}", "/a/1/2/of/me", None, "/me"),
            ("{regex: \"/v(?P<n>[0-9]+)/.*\"}", "/n{n}", "/v12/x", None, "/n12"),
            (
                "\"/u/{id}\"",
                "/s?who={id}&b=1",
                "/u/a&admin=1",
                None,
                "/s?who=a%26admin%3D1&b=1",
            ),
            (
                "/**",
                "{path}{query}",
                "/x",
                Some("a=\u{e4}\"<"),
                "/x?a=%C3%A4%22%3C",
            ),
        ];
        for (pattern, to, path, query, expected) in tests {
            assert_eq!(
                filled(pattern, to, path, query),
                expected,
                "{pattern} {to} {path}"
            );
        }
    }
}
