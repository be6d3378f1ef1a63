//! What a route matches: host and path patterns.
//!
//! A pattern has exactly one spelling, because a second one is a way around a rule: no escapes, no empty or dot
//! segments, no upper-case hosts. Whether two patterns match the same requests is then a comparison.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::fault::{Wrong, quote};
use crate::config::model::{HostMatch, PathMatch, Pattern, Segment, Shape};

/// Longest path pattern, in bytes.
const MOST_PATH: usize = 1024;
/// Most segments of a path pattern.
const MOST_SEGMENTS: usize = 64;

/// `api.example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`.
pub(super) fn host(text: &str) -> Result<HostMatch, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a host", quote(text)));
    if text == "*" {
        return Err(refuse().hint("leave host out to match any"));
    }
    if let Some(suffix) = text.strip_prefix("*.") {
        if suffix.parse::<Ipv4Addr>().is_ok() {
            return Err(refuse().hint("an address has no names in front"));
        }
        return dns_name(suffix).map(HostMatch::Suffix);
    }
    if text.contains('*') {
        return Err(refuse().hint("* stands only in front, as in *.example.com"));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<Ipv6Addr>() {
        return Ok(HostMatch::Exact(format!("[{ip}]")));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(HostMatch::Exact(ip.to_string()));
    }
    if text.contains(':') {
        return Err(refuse().hint("a host carries no port here: a route holds on every listener"));
    }
    dns_name(text).map(HostMatch::Exact)
}

/// A DNS name, in lower case. Underscores are taken, as container networks use them.
pub(super) fn dns_name(text: &str) -> Result<String, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a host name", quote(text)));
    if !text.is_ascii() {
        return Err(refuse().hint("write the xn-- form that clients send"));
    }
    if text.ends_with('.') {
        return Err(refuse().hint("leave the final dot out"));
    }
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() > 253 || !text.split('.').all(fits) {
        return Err(refuse().hint("labels of letters, digits and hyphens, with dots between"));
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse().hint("it looks like an IPv4 address and is none"));
    }
    Ok(text.to_ascii_lowercase())
}

/// `/health`, `/users/{id}`, `/v1/orders/**`, `/files/**/raw`.
pub(super) fn path(text: &str) -> Result<PathMatch, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a path pattern", quote(text)));
    let Some(rest) = text.strip_prefix('/') else {
        return Err(refuse().hint("it begins with /"));
    };
    if text.len() > MOST_PATH {
        return Err(refuse().hint(format!("at most {MOST_PATH} bytes")));
    }
    let (rest, prefix) = match rest.strip_suffix("**") {
        None => (rest, false),
        Some("") => ("", true),
        Some(rest) => match rest.strip_suffix('/') {
            Some(rest) if !rest.is_empty() => (rest, true),
            Some(_) => return Err(refuse().hint("no segment may be empty")),
            None => return Err(refuse().hint("** is a whole segment, as in /v1/** or /files/**/raw")),
        },
    };
    let mut names = BTreeSet::new();
    let mut segments = Vec::new();
    for part in rest.split('/').filter(|_| !rest.is_empty()) {
        let segment = segment(part).map_err(|hint| refuse().hint(hint))?;
        if let Segment::Capture(name) = &segment
            && !names.insert(name.clone())
        {
            return Err(refuse().hint(format!("{{{name}}} is there twice")));
        }
        if segment == Segment::Glob && (prefix || segments.contains(&Segment::Glob)) {
            return Err(refuse().hint("one ** in a pattern: with two nobody can say which took what"));
        }
        if segments.last() == Some(&Segment::Glob) && !matches!(segment, Segment::Literal(_)) {
            return Err(
                refuse().hint("after ** comes literal text, as in /files/**/raw: it says where ** ends")
            );
        }
        segments.push(segment);
    }
    if segments.len() > MOST_SEGMENTS {
        return Err(refuse().hint(format!("at most {MOST_SEGMENTS} segments")));
    }
    Ok(PathMatch {
        pattern: text.to_owned(),
        shape: Shape::Segments { segments, prefix },
    })
}

/// A regular expression for the whole canonical path.
pub(super) fn path_regex(text: &str) -> Result<PathMatch, Wrong> {
    if !text.starts_with('/') {
        let wrong = Wrong::new(format!("{} can match no path", quote(text)));
        return Err(wrong.hint("it is for the whole path, which begins with /"));
    }
    Ok(PathMatch {
        pattern: text.to_owned(),
        shape: Shape::Regex(regex(text)?),
    })
}

/// A regular expression of the kind that is matched in linear time.
pub(super) fn regex(text: &str) -> Result<Pattern, Wrong> {
    let refuse = || Wrong::new(format!("{} is not a regular expression", quote(text)));
    if text.len() > MOST_PATH {
        return Err(refuse().hint(format!("at most {MOST_PATH} bytes")));
    }
    Pattern::new(text).map_err(|reason| refuse().hint(reason))
}

fn segment(text: &str) -> Result<Segment, &'static str> {
    if text.is_empty() {
        return Err("no segment may be empty, so no // and no final /; to match all below, end it with /**");
    }
    if let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let first = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if first && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Ok(Segment::Capture(name.to_owned()));
        }
        return Err("a capture is named with letters, digits and underscores, as in {user_id}");
    }
    if text == "**" {
        return Ok(Segment::Glob);
    }
    if text == "." || text == ".." {
        return Err(
            "no segment may be . or ..: such requests are brought into one form before routes are looked at",
        );
    }
    for c in text.chars() {
        match c {
            '{' | '}' => return Err("a capture is a whole segment, as in /users/{id}/posts"),
            '*' => return Err("** is a whole segment; one segment of any text is a {capture}"),
            '%' => return Err("write the character itself, not its %-escape"),
            '?' | '#' => return Err("a route matches the path alone, not the query"),
            c if c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(c) => {}
            _ => return Err("only characters that a path carries unescaped (RFC 3986, 3.3)"),
        }
    }
    Ok(Segment::Literal(text.to_owned()))
}

/// A segment without the name of its capture.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Word<'r> {
    Literal(&'r str),
    Any,
    Glob,
}

/// What a host and a path match: equal for two routes exactly if they have the same place in the order of patterns, and
/// so take the same requests. A regular expression has a place of its own: see `conflicts`.
pub(super) fn reach<'r>(host: &'r HostMatch, path: &'r PathMatch) -> impl Eq + Hash + use<'r> {
    let word = |segment: &'r Segment| match segment {
        Segment::Literal(text) => Word::Literal(text),
        Segment::Capture(_) => Word::Any,
        Segment::Glob => Word::Glob,
    };
    let (words, prefix, regex) = match &path.shape {
        Shape::Segments { segments, prefix } => (segments.iter().map(word).collect(), *prefix, None),
        Shape::Regex(regex) => (Vec::new(), false, Some(regex.source())),
    };
    (host, words, prefix, regex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_come_in_one_spelling() {
        let read = |text| host(text).expect(text);
        assert_eq!(
            read("API.Example.COM"),
            HostMatch::Exact("api.example.com".into())
        );
        assert_eq!(read("*.Example.com"), HostMatch::Suffix("example.com".into()));
        assert_eq!(read("2001:DB8:0::1"), HostMatch::Exact("[2001:db8::1]".into()));
        assert_eq!(read("[2001:db8::1]"), read("2001:db8::1"));
        assert_eq!(read("192.0.2.1"), HostMatch::Exact("192.0.2.1".into()));
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a b",
            "é.com",
            "*",
            "*.",
            "*a.com",
            "[::1",
            "*.1.2.3.4",
            "a/b",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_split_at_their_slashes() {
        let read = |text| match path(text).expect(text).shape {
            Shape::Segments { segments, prefix } => (segments, prefix),
            Shape::Regex(_) => panic!("{text}"),
        };
        let literal = |text: &str| Segment::Literal(text.to_owned());
        assert_eq!(read("/"), (vec![], false));
        assert_eq!(read("/**"), (vec![], true));
        assert_eq!(
            read("/v1/orders/**"),
            (vec![literal("v1"), literal("orders")], true)
        );
        assert_eq!(
            read("/users/{id}"),
            (vec![literal("users"), Segment::Capture("id".into())], false)
        );
        assert_eq!(
            read("/a/**/z"),
            (vec![literal("a"), Segment::Glob, literal("z")], false)
        );
        assert_eq!(read("/**/a"), (vec![Segment::Glob, literal("a")], false));
        for text in [
            "",
            "a",
            "//",
            "//**",
            "/a/",
            "/a//**",
            "/***",
            "/a**",
            "/./a",
            "/{}",
            "/{a",
            "/{1}",
            "/a b",
            "/**/**",
            "/a/**/b/**",
            "/**/a/**/b",
            "/a/**/{x}",
            "/**a/b",
            "/a/*/b",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
        assert!(path(&"/a".repeat(MOST_SEGMENTS)).is_ok());
        assert!(path(&"/a".repeat(MOST_SEGMENTS + 1)).is_err());
    }

    /// Whether `pattern` takes the path made of `segments`: its meaning, written down in the plainest way.
    fn takes(pattern: &PathMatch, segments: &[&str]) -> bool {
        let Shape::Segments {
            segments: own,
            prefix,
        } = &pattern.shape
        else {
            return false;
        };
        let fits = |(pattern, segment): (&Segment, &&str)| match pattern {
            Segment::Literal(text) => text == segment,
            Segment::Capture(_) => true,
            Segment::Glob => false,
        };
        let long_enough = segments.len() == own.len() || (*prefix && segments.len() > own.len());
        long_enough && own.iter().zip(segments).all(fits)
    }

    /// Every path of up to four segments over letters of which one is in no pattern.
    fn paths() -> Vec<Vec<&'static str>> {
        let mut all = vec![vec![]];
        let mut longest = all.clone();
        for _ in 0..4 {
            let longer =
                |path: &Vec<&'static str>| ["a", "b", "z"].map(|end| [path.as_slice(), &[end]].concat());
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.iter().cloned());
        }
        all
    }

    #[test]
    fn t57_expressions_are_linear_bounded_and_anchored() {
        let read = |text| path_regex(text).map(|path| path.shape);
        let Ok(Shape::Regex(pattern)) = read("/v[0-9]+/(?P<rest>.*)") else {
            panic!("it is an expression")
        };
        assert!(pattern.is_match(b"/v1/x") && !pattern.is_match(b"/x/v1/x") && !pattern.is_match(b"/v1"));
        assert_eq!(pattern.capture(b"/v12/a/b", "rest"), Some(&b"a/b"[..]));
        for bad in [
            "v1",
            "/(",
            "/a)|(/b",
            "/(a{1000}){1000}",
            r"/(a)\1",
            "/(?=a)",
            "/(?x)a #",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        // Takes exponential time where an expression is matched by trying.
        let slow = regex("(a*)*(a*)*(a*)*b").expect("an expression");
        let text = vec![b'a'; 8 << 10];
        let start = std::time::Instant::now();
        assert!(!slow.is_match(&text));
        assert!(start.elapsed() < std::time::Duration::from_secs(2));
    }

    proptest! {
        #[test]
        fn patterns_reach_the_same_exactly_if_they_take_the_same(
            one in "(/(a|b|\\{x\\})){1,3}(/\\*\\*)?",
            other in "(/(a|b|\\{y\\})){1,3}(/\\*\\*)?",
        ) {
            prop_assume!(one.matches('{').count() < 2 && other.matches('{').count() < 2);
            let (one, other) = (path(&one).expect("a pattern"), path(&other).expect("a pattern"));
            let same = paths().iter().all(|path| takes(&one, path) == takes(&other, path));
            prop_assert_eq!(reach(&HostMatch::Any, &one) == reach(&HostMatch::Any, &other), same);
        }
    }
}
