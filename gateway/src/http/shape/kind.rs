//! What a message says of the form of its body. Owns reading `Content-Type` so that nobody else reads another type in it; knows
//! nothing of bodies.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

pub(super) const URLENCODED: &str = "application/x-www-form-urlencoded";

/// What `Content-Type` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The media type, in lower case and without parameters.
    Known(String),
    /// Nothing.
    Untold,
    /// Who reads it next may see another type in it: there are several lines or types, it is no media type, or it is JSON or a
    /// form in another charset than the one that both are read in here.
    Unclear,
}

impl Kind {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(CONTENT_TYPE).iter();
        let Some(line) = lines.next() else {
            return Self::Untold;
        };
        match line.to_str() {
            Ok(text) if lines.next().is_none() => Self::read(text).map_or(Self::Unclear, Self::Known),
            _ => Self::Unclear,
        }
    }

    /// The media type, or the empty text if nothing is said; `None` if it is not clear.
    pub(super) fn essence(&self) -> Option<&str> {
        match self {
            Self::Known(essence) => Some(essence),
            Self::Untold => Some(""),
            Self::Unclear => None,
        }
    }

    /// Whether who reads the body may find JSON in it that this side can not change: the type is not clear, there is none, so that
    /// readers guess, or it is one of several JSON texts in a row or of another dialect (`application/json-seq`, `x-ndjson`).
    pub(super) fn may_hide_json(&self) -> bool {
        match self {
            Self::Known(essence) => essence.contains("json") && !is_json(essence),
            Self::Untold | Self::Unclear => true,
        }
    }

    fn read(text: &str) -> Option<String> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next()?.to_ascii_lowercase();
        if is_several(text) || !is_media_type(&essence) {
            return None;
        }
        if is_json(&essence) || is_form(&essence) {
            for parameter in parts {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                let value = value.trim().trim_matches('"');
                let plain = ["utf-8", "utf8", "us-ascii"];
                let fine = plain.iter().any(|plain| value.eq_ignore_ascii_case(plain));
                if name.trim().eq_ignore_ascii_case("charset") && !fine {
                    return None;
                }
            }
        }
        Some(essence)
    }
}

/// Whether there is a comma outside of quotes: lines that somebody has joined (RFC 9110, 5.3).
fn is_several(text: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return true,
            _ => {}
        }
    }
    false
}

/// RFC 9110, 8.3.1.
fn is_media_type(essence: &str) -> bool {
    let token = |part: &str| {
        let is_of_it = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !part.is_empty() && part.bytes().all(is_of_it)
    };
    essence
        .split_once('/')
        .is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// Whether a media type is JSON, by itself or by its suffix (RFC 6839, 3.1); with `text/json`, which browsers take for it and old
/// servers send (WHATWG MIME Sniffing, 4.6).
pub(super) fn is_json(essence: &str) -> bool {
    let suffix = essence
        .len()
        .checked_sub("+json".len())
        .and_then(|at| essence.get(at..));
    ["application/json", "text/json"]
        .iter()
        .any(|name| essence.eq_ignore_ascii_case(name))
        || suffix.is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

pub(super) fn is_form(essence: &str) -> bool {
    essence == URLENCODED
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_type_is_known_only_where_everybody_reads_the_same() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                let line = HeaderValue::from_bytes(line.as_bytes()).expect("a value");
                headers.append(CONTENT_TYPE, line);
            }
            Kind::of(&headers)
        };
        for (line, essence) in [
            ("Application/JSON", "application/json"),
            ("application/json;", "application/json"),
            (
                "application/json; charset=\"UTF-8\"; a=\"b,c\"",
                "application/json",
            ),
            (
                "application/problem+json ;charset=us-ascii",
                "application/problem+json",
            ),
            ("text/html; charset=iso-8859-1", "text/html"),
            ("multipart/mixed; boundary=\"a,\\\",b\"", "multipart/mixed"),
        ] {
            assert_eq!(of(&[line]), Kind::Known(essence.to_owned()), "{line}");
        }
        assert_eq!(of(&[]), Kind::Untold);
        assert!(of(&[]).may_hide_json());
        for (line, hides) in [
            ("application/json", false),
            ("application/problem+json", false),
            ("text/json", false),
            ("text/html", false),
            ("application/json-seq", true),
            ("application/geo+json-seq", true),
            ("application/x-ndjson; charset=utf-8", true),
            ("application/JSONL", true),
            ("application/json; charset=utf-16", true),
        ] {
            assert_eq!(of(&[line]).may_hide_json(), hides, "{line}");
        }
        for lines in [
            &["application/json; charset=iso-8859-1"][..],
            &["text/json; charset=iso-8859-1"],
            &["application/json; charset=utf-16"],
            &["application/json; charset"],
            &["application/json; charset=utf-8; charset=utf-7"],
            &["application/x-www-form-urlencoded; charset=utf-7"],
            &["application/json, application/json"],
            &["text/html; charset=utf-8, application/json"],
            &["application/json application/json"],
            &["application / json"],
            &["json"],
            &["application/json\u{e4}"],
            &["application/json", "application/json"],
            &["text/plain", "application/json"],
            &["", "application/json"],
            &[""],
            &[";application/json"],
            &["; charset=utf-8"],
        ] {
            assert_eq!(of(lines), Kind::Unclear, "{lines:?}");
        }
    }
}
