//! One form for every path, or none. Owns what "the same path" means; knows nothing of routes.
//!
//! The router, the log and the upstream all see the canonical form, so that no two of them can disagree on what was
//! asked for. The steps (RFC 3986, 6.2.2): refuse what servers read differently (NUL and other control bytes,
//! backslash, encoded slash and backslash, broken percent triplets, dot segments with parameters such as `..;` or `..%3B`),
//! decode unreserved characters, write the other triplets in upper case, then resolve dot segments and collapse
//! repeated slashes. A path that climbs above the root is refused. One round only: `%252e` stays what it is.
//!
//! `paths.encoded_slashes: keep` lets `%2F` and `%5C` pass as a part of their segment, for services that carry names with
//! slashes in one. Even then no dot segment hides behind one: `..%2Fadmin` is refused. `paths.parameters: refuse` refuses `;`, which
//! otherwise is a letter of its segment as any other: to a server that cuts parameters off, `/admin;x` is `/admin`.

use std::borrow::Cow;

use crate::config::model::Paths;

/// The path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path is ambiguous")]
pub struct Ambiguous;

/// The canonical form of the path of a request target, without its query. Borrowed if it is canonical already.
pub fn canonical(path: &str, paths: Paths) -> Result<Cow<'_, str>, Ambiguous> {
    if !path.starts_with('/') {
        return Err(Ambiguous);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes(), paths)?;
    resolve(&decoded).map(Cow::Owned)
}

/// Whether nothing needs a closer look: no encoding, no dot or empty segment, only harmless bytes. One pass.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let harmless = byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'~' | b'.');
        // A dot or slash right after a slash begins a segment that must be looked at.
        if !harmless || (previous == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode(path: &[u8], paths: Paths) -> Result<String, Ambiguous> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'%' => {
                let high = rest
                    .next()
                    .and_then(|b| char::from(*b).to_digit(16))
                    .ok_or(Ambiguous)?;
                let low = rest
                    .next()
                    .and_then(|b| char::from(*b).to_digit(16))
                    .ok_or(Ambiguous)?;
                let value = u8::try_from(high * 16 + low).map_err(|_| Ambiguous)?;
                match value {
                    b'/' | b'\\' if paths.keep_encoded_slashes => push_encoded(&mut out, value),
                    b';' if paths.refuse_parameters => return Err(Ambiguous),
                    b'/' | b'\\' | 0..0x20 | 0x7f => return Err(Ambiguous),
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        out.push(char::from(value))
                    }
                    _ => push_encoded(&mut out, value),
                }
            }
            b';' if paths.refuse_parameters => return Err(Ambiguous),
            b'\\' | 0..=0x20 | 0x7f | b'#' | b'?' => return Err(Ambiguous),
            // Sent raw by some clients; encoding is what they should have done.
            0x80.. | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => push_encoded(&mut out, byte),
            _ => out.push(char::from(byte)),
        }
    }
    Ok(out)
}

fn push_encoded(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

fn resolve(path: &str) -> Result<String, Ambiguous> {
    let mut kept: Vec<&str> = Vec::new();
    let mut trailing = false;
    for segment in path.split('/').skip(1) {
        trailing = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(Ambiguous)?;
            }
            _ if hides_dots(segment) => return Err(Ambiguous),
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if trailing || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// Some servers cut parameters off before they resolve dots, some decode them or slashes before.
fn hides_dots(segment: &str) -> bool {
    let mut parts = segment.split("%2F").flat_map(|part| part.split("%5C"));
    parts.any(|part| {
        let rest = part.trim_start_matches('.');
        let dots = part.len() - rest.len();
        matches!(dots, 1 | 2) && (rest.is_empty() || rest.starts_with(';') || rest.starts_with("%3B"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(path: &str) -> Option<String> {
        canonical(path, Paths::default()).ok().map(Cow::into_owned)
    }

    const KEEP: Paths = Paths {
        keep_encoded_slashes: true,
        refuse_parameters: false,
    };

    #[test]
    fn t20_encoded_slashes_pass_only_where_the_operator_says_so() {
        let kept = |path| canonical(path, KEEP).ok().map(Cow::into_owned);
        assert_eq!(kept("/a%2fb/./c").as_deref(), Some("/a%2Fb/c"));
        assert_eq!(kept("/a%5cb").as_deref(), Some("/a%5Cb"));
        assert_eq!(
            kept("/a%2F/../b").as_deref(),
            Some("/b"),
            "one segment, slash and all"
        );
        for hidden in [
            "/..%2fadmin",
            "/x/..%2F..%2Fadmin",
            "/x%2f../admin",
            "/x%2f.",
            "/%2e%2e%5cadmin",
            "/x%5c..;/a",
            "/x%5c..%3b/a",
            "/a%00",
            "/a\\b",
            "/x%2F..;a%2Fb",
        ] {
            assert_eq!(kept(hidden), None, "{hidden}");
        }
        assert_eq!(form("/a%2fb"), None, "refused by default");
    }

    #[test]
    fn t18_parameters_pass_unless_the_operator_says_otherwise() {
        let strict = Paths {
            refuse_parameters: true,
            ..Paths::default()
        };
        for path in [
            "/admin;x",
            "/a;v=1/b",
            "/admin%3bx",
            "/admin%3B",
            "/;",
            "/a/..;/b",
        ] {
            assert!(canonical(path, strict).is_err(), "{path}");
        }
        assert_eq!(canonical("/a,b/c", strict).as_deref(), Ok("/a,b/c"));
        assert_eq!(form("/admin;x").as_deref(), Some("/admin;x"));
    }

    #[test]
    fn spellings_of_one_path_have_one_form() {
        let same = [
            "/admin",
            "//admin",
            "/x/../admin",
            "/./admin",
            "/%61dmin",
            "/%2e/admin",
            "/x/%2e%2e/admin",
            "/x/.%2E/admin",
            "///x//..//admin",
        ];
        for path in same {
            assert_eq!(form(path).as_deref(), Some("/admin"), "{path}");
        }
        assert_eq!(form("/a/b/..").as_deref(), Some("/a/"));
        assert_eq!(form("/..a/.b/c..").as_deref(), Some("/..a/.b/c.."));
        assert_eq!(form("/a%2bb%c3%a4").as_deref(), Some("/a%2Bb%C3%A4"));
        assert_eq!(form("/ä").as_deref(), Some("/%C3%A4"));
        assert_eq!(
            form("/%252e%252e/x").as_deref(),
            Some("/%252e%252e/x"),
            "decoded once, never twice"
        );
        assert_eq!(form("/a;v=1/b").as_deref(), Some("/a;v=1/b"));
        assert_eq!(form("/a%3bv=1/..a%3b").as_deref(), Some("/a%3Bv=1/..a%3B"));
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        let refused = [
            "",
            "*",
            "admin",
            "/..",
            "/../admin",
            "/a/../../b",
            "/%2e%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%7f",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/public/..;/admin",
            "/..;x=1/",
            "/.;/a",
            "/a b",
            "/a\tb",
            "/a\u{0}",
            "/%2e%2e;/admin",
            "/a/..%3b/",
            "/a/..%3Bx=1/admin",
            "/a/.%3B",
            "/%2e%2e%3bx",
        ];
        for path in refused {
            assert_eq!(form(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_canonical_path_costs_nothing() {
        assert!(matches!(
            canonical("/v1/orders/17.json", KEEP),
            Ok(Cow::Borrowed(_))
        ));
        assert!(matches!(canonical("/", KEEP), Ok(Cow::Borrowed(_))));
    }

    /// What a server makes of a path: decoded once, then cut at its slashes, dots resolved. The plainest way to say it.
    fn meaning(path: &str) -> Option<Vec<Vec<u8>>> {
        let decode = |segment: &str| {
            let bytes = segment.as_bytes();
            let mut out = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                if bytes[at] == b'%' {
                    out.push(u8::from_str_radix(segment.get(at + 1..at + 3)?, 16).ok()?);
                    at += 3;
                } else {
                    out.push(bytes[at]);
                    at += 1;
                }
            }
            Some(out)
        };
        let mut kept = Vec::new();
        for segment in path.split('/').skip(1) {
            match decode(segment)?.as_slice() {
                b"" | b"." => {}
                b".." => drop(kept.pop()?),
                other => kept.push(other.to_vec()),
            }
        }
        Some(kept)
    }

    const PATHS: &str = "/([a-z.;/%]|%2e|%2E|%41|%C3|%25|%2f|%5C|%20|%3b|ä|\\.\\./){0,24}";

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(path in PATHS, keep in any::<bool>()) {
            let paths = Paths { keep_encoded_slashes: keep, refuse_parameters: false };
            if let Ok(once) = canonical(&path, paths) {
                prop_assert_eq!(canonical(&once, paths).map(Cow::into_owned), Ok(once.clone().into_owned()));
                prop_assert!(once.starts_with('/') && once.split('/').all(|s| s != "." && s != ".."));
                prop_assert!(!once.contains("//"));
                prop_assert!(keep || !once.contains("%2F") && !once.contains("%5C"));
            }
        }

        #[test]
        fn the_form_means_what_was_asked_for(path in PATHS, keep in any::<bool>()) {
            let paths = Paths { keep_encoded_slashes: keep, refuse_parameters: false };
            if let Ok(once) = canonical(&path, paths) {
                prop_assert_eq!(meaning(&once), meaning(&path));
                // However often a server behind decodes slashes, it stays below the root.
                let loose = once.replace("%2F", "/").replace("%5C", "/");
                prop_assert_eq!(meaning(&loose).map(|_| ()), Some(()), "{}", loose);
            }
        }
    }
}
