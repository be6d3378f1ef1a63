//! What the upstream is asked for instead: another path, another query. Whatever the rules make of a path, what goes on
//! is one canonical path, or nothing does.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;

use super::facts::Facts;
use super::reject::Reject;
use super::template::{Filling, Source};
use super::{path, query};
use crate::config::model::{Part, PathMatch, PathRewrite, Paths, Pattern, QueryEdit};

/// Longest path that is made, in bytes.
const MOST: usize = 16 << 10;

/// A route's rule for paths, compiled.
#[derive(Debug)]
pub enum Rewriter {
    Template(Filling),
    Prefix { strip: String, add: String },
    Regex { pattern: Pattern, replace: Vec<Part> },
}

impl Rewriter {
    #[must_use]
    pub fn compile(model: &PathRewrite, pattern: &PathMatch) -> Self {
        match model {
            PathRewrite::Template(template) => Self::Template(Filling::new(template, pattern)),
            PathRewrite::Prefix { strip, add } => Self::Prefix {
                strip: strip.clone(),
                add: add.clone(),
            },
            PathRewrite::Regex { pattern, replace } => Self::Regex {
                pattern: pattern.clone(),
                replace: replace.clone(),
            },
        }
    }

    /// The path to ask for.
    ///
    /// # Errors
    /// What comes of the rule is not one canonical path, or is too long.
    pub fn apply(&self, source: &Source<'_>, paths: Paths) -> Result<String, Reject> {
        let path = match self {
            Self::Template(filling) => filling.fill(source),
            Self::Prefix { strip, add } => {
                let rest = source.path.strip_prefix(strip.as_str());
                // Whole segments only: `/api` is not the front of `/apis`.
                let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
                let rest = rest.unwrap_or(source.path);
                match (add.as_str(), rest) {
                    ("", "") => "/".to_owned(),
                    (add, rest) => format!("{add}{rest}"),
                }
            }
            Self::Regex { pattern, replace } => {
                let made = pattern.replace(source.path.as_bytes(), replace, MOST);
                String::from_utf8(made.ok_or(Reject::BadPath)?).map_err(|_| Reject::BadPath)?
            }
        };
        match path::canonical(&path, paths) {
            Ok(Cow::Borrowed(_)) => Ok(path),
            Ok(Cow::Owned(form)) if form == path => Ok(path),
            _ => Err(Reject::BadPath),
        }
    }
}

/// The same target with another path.
pub(super) fn with_path(uri: &Uri, path: &str) -> Result<Uri, Reject> {
    target(path, uri.query().unwrap_or_default(), uri.query().is_some())
}

/// The same target with its query edited; a value that a fact is missing of is left out.
///
/// # Errors
/// What comes of it is no target.
pub fn with_query(uri: &Uri, edit: &QueryEdit, facts: &Facts<'_>) -> Result<Uri, Reject> {
    let before = uri.query().unwrap_or_default();
    let mut pairs: Vec<Cow<'_, str>> = Vec::new();
    let made = |values: &[(String, _)]| -> Vec<String> {
        let value = |(name, value)| Some(format!("{}={}", encoded(name), encoded(&facts.fill(value)?)));
        values
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .filter_map(value)
            .collect()
    };
    for pair in before.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .map_or((pair, None), |(key, value)| (key, Some(value)));
        let mut name = query::decode(key);
        let mut pair = Cow::Borrowed(pair);
        if let Some((_, to)) = edit.rename.iter().find(|(from, _)| *from.as_bytes() == *name) {
            let to_text = encoded(to);
            pair = Cow::Owned(value.map_or_else(|| to_text.clone(), |value| format!("{to_text}={value}")));
            name = Cow::Borrowed(to.as_bytes());
        }
        let removed = edit.remove.iter().any(|gone| *gone.as_bytes() == *name);
        let replaced = edit.set.iter().any(|(set, _)| *set.as_bytes() == *name);
        if !removed && !replaced {
            pairs.push(pair);
        }
    }
    pairs.extend(made(&edit.set).into_iter().map(Cow::Owned));
    pairs.extend(made(&edit.add).into_iter().map(Cow::Owned));
    target(uri.path(), &pairs.join("&"), !pairs.is_empty())
}

/// What can begin no other parameter, and ends nothing.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn target(path: &str, query: &str, has_query: bool) -> Result<Uri, Reject> {
    let target = if has_query {
        format!("{path}?{query}")
    } else {
        path.to_owned()
    };
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| Reject::BadPath)?;
    Ok(Uri::from(target))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::{Fact, Shape, ValueTemplate};

    fn source(path: &str) -> Source<'_> {
        Source {
            host: "a",
            path,
            query: None,
        }
    }

    fn prefix(strip: &str, add: &str) -> Rewriter {
        Rewriter::Prefix {
            strip: strip.into(),
            add: add.into(),
        }
    }

    fn regex(pattern: &str, replace: Vec<Part>) -> Rewriter {
        Rewriter::Regex {
            pattern: Pattern::anywhere(pattern).expect("an expression"),
            replace,
        }
    }

    fn applied(rewriter: &Rewriter, path: &str) -> Result<String, Reject> {
        rewriter.apply(&source(path), Paths::default())
    }

    #[test]
    fn prefixes_go_and_come_by_whole_segments() {
        for (strip, add, path, expected) in [
            ("/api", "", "/api/x", "/x"),
            ("/api", "", "/api", "/"),
            ("/api", "", "/api/", "/"),
            ("/api", "", "/apis/x", "/apis/x"),
            ("/api", "/v2", "/api/x/", "/v2/x/"),
            ("/api", "/v2", "/api", "/v2"),
            ("", "/v2", "/", "/v2/"),
        ] {
            assert_eq!(
                applied(&prefix(strip, add), path).as_deref(),
                Ok(expected),
                "{strip} {add} {path}"
            );
        }
    }

    #[test]
    fn every_match_is_replaced_and_what_is_no_path_goes_nowhere() {
        let text = |text: &str| Part::Text(text.into());
        let version = regex("^/v([0-9]+)/", vec![text("/version/"), Part::Group(1), text("/")]);
        assert_eq!(applied(&version, "/v12/x").as_deref(), Ok("/version/12/x"));
        assert_eq!(applied(&version, "/x/v12/").as_deref(), Ok("/x/v12/"));
        assert_eq!(
            applied(&regex("-", vec![text("_")]), "/a-b-c").as_deref(),
            Ok("/a_b_c")
        );
        for (pattern, replace, path) in [
            ("^/", vec![], "/x"),
            ("/a/", vec![text("/../")], "/b/a/c"),
            ("a", vec![text("/")], "/a"),
            ("2", vec![text("4")], "/%21"),
            ("", vec![text("xxxxxxxxxxxxxxxxxxxxxxxx")], &"/a".repeat(500)),
        ] {
            assert_eq!(
                applied(&regex(pattern, replace), path),
                Err(Reject::BadPath),
                "{pattern} {path}"
            );
        }
    }

    fn edited(query: &str, edit: &QueryEdit) -> String {
        let (headers, method) = (HeaderMap::new(), Method::GET);
        let pattern = PathMatch {
            pattern: "/**".into(),
            shape: Shape::Segments {
                segments: vec![],
                prefix: true,
            },
        };
        let uri: Uri = format!("/x{query}").parse().expect("a target");
        let facts = Facts {
            method: &method,
            uri: &uri,
            headers: &headers,
            client: IpAddr::from([192, 0, 2, 1]),
            identity: None,
            pattern: &pattern,
        };
        let uri = with_query(&uri, edit, &facts).expect("a target");
        uri.path_and_query().expect("a target").as_str()[2..].to_owned()
    }

    #[test]
    fn parameters_are_compared_decoded_and_written_encoded() {
        let text = |text: &str| ValueTemplate(vec![Fact::Text(text.into())]);
        let edit = QueryEdit {
            rename: vec![("old".into(), "n w".into())],
            remove: vec!["gone".into()],
            set: vec![
                ("s".into(), text("a&b=c")),
                ("who".into(), ValueTemplate(vec![Fact::Identity])),
            ],
            add: vec![("more".into(), ValueTemplate(vec![Fact::ClientIp]))],
        };
        assert_eq!(
            edited("?a=1&old=%C3%A4&g%6Fne=1&gone&s=1&%73=2&b", &edit),
            "?a=1&n%20w=%C3%A4&b&s=a%26b%3Dc&more=192.0.2.1"
        );
        assert_eq!(edited("", &edit), "?s=a%26b%3Dc&more=192.0.2.1");
        let remove = QueryEdit {
            remove: vec!["a".into()],
            ..QueryEdit::default()
        };
        assert_eq!(edited("?a=1", &remove), "");
        assert_eq!(edited("?a=1&b=2", &remove), "?b=2");
    }

    const PATHS: &str = "/([a-z.;%0-9/]|%2F|%20|%C3|\\.\\./){0,16}";

    proptest! {
        /// The one promise of this module.
        #[test]
        fn what_goes_on_is_its_own_canonical_form(
            path in PATHS, strip in "(/[a-z]{1,2}){0,2}", add in "(/[a-z]{1,2}){0,2}",
            pattern in "[a-z%/.]{0,2}|\\^/[a-z]*|[0-9]+", replace in "[a-z/.]{0,4}", keep in any::<bool>(),
        ) {
            let paths = Paths { keep_encoded_slashes: keep, ..Paths::default() };
            let Ok(path) = path::canonical(&path, paths) else { return Ok(()) };
            let rules = [prefix(&strip, &add), regex(&pattern, vec![Part::Text(replace)])];
            for rule in rules {
                if let Ok(made) = rule.apply(&source(&path), paths) {
                    let again = path::canonical(&made, paths).map(Cow::into_owned);
                    prop_assert_eq!(again, Ok(made.clone()));
                    prop_assert!(target(&made, "", false).is_ok(), "{}", made);
                }
            }
        }

        /// Prefixes refuse nothing that came in, and what is not touched stays.
        #[test]
        fn a_prefix_taken_and_put_back_is_the_same_path(path in PATHS, front in "/[a-z]{1,4}") {
            let paths = Paths::default();
            let Ok(path) = path::canonical(&path, paths) else { return Ok(()) };
            let longer = prefix("", &front).apply(&source(&path), paths);
            prop_assert_eq!(longer.clone(), Ok(format!("{front}{path}")));
            let back = prefix(&front, "").apply(&source(&longer.unwrap_or_default()), paths);
            prop_assert_eq!(back, Ok(path.into_owned()));
        }

        #[test]
        fn a_query_without_rules_for_it_stays_letter_by_letter(query in "[a-z0-9=%+]{1,8}(&[a-z0-9=%+]{1,8}){0,4}") {
            let edit = QueryEdit { remove: vec!["-".into()], ..QueryEdit::default() };
            prop_assert_eq!(edited(&format!("?{query}"), &edit), format!("?{query}"));
        }
    }
}
