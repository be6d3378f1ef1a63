//! What a request says of the browser that sent it: whether a person waits for a page, from which site it comes, and where it
//! may be sent back to. Pure.

use std::fmt::Write as _;

use http::header::{ACCEPT, HOST, ORIGIN, REFERER};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::http::forwarded::PROTO;

/// Longest place to go back to, in bytes: it stands in a cookie, of which there may be several.
const MOST_TARGET: usize = 2_048;

/// `scheme://host[:port]` as the browser sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) text: String,
    pub(super) secure: bool,
}

impl Origin {
    /// By lines that the gateway itself has written.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let secure = headers.get(PROTO).is_some_and(|scheme| scheme == "https");
        let (scheme, usual) = if secure {
            ("https", ":443")
        } else {
            ("http", ":80")
        };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let mut host = host.unwrap_or_default().to_ascii_lowercase();
        if let Some(bare) = host.strip_suffix(usual) {
            host.truncate(bare.len());
        }
        Self {
            text: format!("{scheme}://{host}"),
            secure,
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    Some(headers.get(name)?.to_str().unwrap_or_default())
}

/// Whether the answer takes the place of the page that a person looks at. What a script asks for does not: it could make
/// nothing of a redirect to a log-in, and each would leave an attempt behind.
pub(super) fn navigates(headers: &HeaderMap) -> bool {
    if text(headers, "sec-purpose").is_some_and(|purpose| purpose.contains("prefetch")) {
        return false;
    }
    if let Some(mode) = text(headers, "sec-fetch-mode") {
        return mode == "navigate";
    }
    if headers.contains_key("x-requested-with") {
        return false;
    }
    let ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok());
    ranges
        .flat_map(|line| line.split([',', ';']))
        .any(|range| range.trim().eq_ignore_ascii_case("text/html"))
}

/// Whether a person can be sent to log in instead of getting an answer.
pub(super) fn can_log_in(head: &Parts) -> bool {
    (head.method == Method::GET || head.method == Method::HEAD) && navigates(&head.headers)
}

/// Whether a page of this very origin, or the person at the address line, has asked. Old browsers say less; of them a link
/// must show where it stands, while a form of another site comes without the session's cookie (SameSite), and ends nothing.
pub(super) fn is_own(head: &Parts, origin: &Origin) -> bool {
    let headers = &head.headers;
    if text(headers, "sec-purpose").is_some_and(|purpose| purpose.contains("prefetch")) {
        return false;
    }
    if let Some(site) = text(headers, "sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    if let Some(from) = text(headers, ORIGIN.as_str()) {
        return from.eq_ignore_ascii_case(&origin.text);
    }
    match text(headers, REFERER.as_str()) {
        Some(from) => from
            .strip_prefix(&*origin.text)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => head.method == Method::POST,
    }
}

/// Path and query that a browser may be sent to and that stay on this host; `/` for all else.
pub(super) fn target(head: &Parts) -> String {
    let asked = head.uri.path_and_query().map_or("/", |asked| asked.as_str());
    [asked, head.uri.path()]
        .into_iter()
        .find(|target| is_local(target))
        .unwrap_or("/")
        .to_owned()
}

/// What browsers take for a path of the host that they are at: they read a backslash as a slash, leave out tabs and ends of
/// lines, and take what begins with two slashes for another host. Quotes, which they encode, would take twice the room.
pub(super) fn is_local(target: &str) -> bool {
    let plain = |b: u8| (0x21..=0x7e).contains(&b) && !matches!(b, b'\\' | b'"');
    target.len() <= MOST_TARGET
        && target.starts_with('/')
        && !target.starts_with("//")
        && target.bytes().all(plain)
}

/// Adds `name=value` as in a form, behind what is there.
pub(super) fn add(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() && !out.ends_with(['?', '&']) {
        out.push('&');
    }
    for (text, end) in [(name, "="), (value, "")] {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out.push_str(end);
    }
}

/// An address with parameters more.
pub(super) fn address(base: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = base.to_owned();
    out.push(if base.contains('?') { '&' } else { '?' });
    for (name, value) in parameters {
        add(&mut out, name, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, lines: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_person_is_told_from_a_script() {
        let page = ("accept", "text/html,application/xhtml+xml;q=0.9");
        for (method, lines, expected) in [
            ("GET", &[page][..], true),
            ("HEAD", &[page], true),
            ("POST", &[page], false),
            ("GET", &[("sec-fetch-mode", "navigate")], true),
            ("GET", &[page, ("sec-fetch-mode", "cors")], false),
            ("GET", &[page, ("sec-fetch-mode", "websocket")], false),
            ("GET", &[page, ("x-requested-with", "XMLHttpRequest")], false),
            (
                "GET",
                &[
                    ("sec-fetch-mode", "navigate"),
                    ("sec-purpose", "prefetch;prerender"),
                ],
                false,
            ),
            ("GET", &[("accept", "*/*")], false),
            ("GET", &[("accept", "application/json, text/plain")], false),
            ("GET", &[], false),
        ] {
            assert_eq!(
                can_log_in(&head(method, "/", lines)),
                expected,
                "{method} {lines:?}"
            );
        }
    }

    #[test]
    fn nobody_else_ends_a_session() {
        let own = Origin {
            text: "https://a.example".into(),
            secure: true,
        };
        for (method, lines, expected) in [
            ("GET", &[("sec-fetch-site", "same-origin")][..], true),
            ("GET", &[("sec-fetch-site", "none")], true),
            ("GET", &[("sec-fetch-site", "same-site")], false),
            ("POST", &[("sec-fetch-site", "cross-site")], false),
            (
                "POST",
                &[("sec-fetch-site", "cross-site"), ("origin", "https://a.example")],
                false,
            ),
            (
                "GET",
                &[("sec-fetch-site", "none"), ("sec-purpose", "prefetch")],
                false,
            ),
            ("POST", &[("origin", "https://a.example")], true),
            ("POST", &[("origin", "https://b.example")], false),
            ("POST", &[("origin", "null")], false),
            ("GET", &[("referer", "https://a.example/x")], true),
            ("GET", &[("referer", "https://a.example.evil/x")], false),
            ("GET", &[("referer", "https://evil/https://a.example/")], false),
            ("GET", &[], false),
            ("POST", &[], true),
        ] {
            assert_eq!(
                is_own(&head(method, "/", lines), &own),
                expected,
                "{method} {lines:?}"
            );
        }
    }

    #[test]
    fn a_browser_is_sent_back_to_this_host_alone() {
        for good in ["/", "/a?b=//c", "/a//b", "/%5c", "/a?next=https://evil"] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil",
            "/\\evil",
            "/a\\b",
            "https://evil",
            "/\t/evil",
            "/a b",
            "/a\r\nb",
            "/ü",
            "/a\"b",
            "\\\\evil",
        ] {
            assert!(!is_local(bad), "{bad:?}");
        }
        let fits = format!("/p?{}", "x".repeat(2_045));
        assert_eq!(target(&head("GET", &fits, &[])), fits);
        assert_eq!(target(&head("GET", &format!("{fits}x"), &[])), "/p");
        assert_eq!(target(&head("GET", &format!("/{}", "x".repeat(2_048)), &[])), "/");
        assert_eq!(target(&head("GET", "//evil.example/x", &[])), "/");
        assert_eq!(target(&head("GET", "/a?b=%20c", &[])), "/a?b=%20c");
    }

    #[test]
    fn an_origin_is_as_browsers_write_it() {
        for (scheme, host, expected) in [
            ("https", "A.example:443", "https://a.example"),
            ("https", "a.example:8443", "https://a.example:8443"),
            ("https", "a.example:80", "https://a.example:80"),
            ("http", "[::1]:80", "http://[::1]"),
        ] {
            let head = head("GET", "/", &[("x-forwarded-proto", scheme), ("host", host)]);
            assert_eq!(Origin::of(&head.headers).text, expected);
        }
        let with = address("https://i/auth?x=1", &[("a", "b c&"), ("d", "é")]);
        assert_eq!(with, "https://i/auth?x=1&a=b%20c%26&d=%C3%A9");
        assert_eq!(address("https://i/auth", &[("a", "b")]), "https://i/auth?a=b");
    }
}
