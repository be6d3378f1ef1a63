//! Content codings: what a client takes, which answers are worth compressing, and what that changes in a header.
//!
//! Owns negotiation (RFC 9110, 12.5.3) and eligibility; [`encode`] and [`decode`] own the bytes, [`stream`] puts
//! them between a body and its reader. Knows no socket.

pub mod decode;
pub mod encode;
pub mod stream;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::headers;
use crate::config::model::{Coding, Compress};

/// Types whose content is text in a wider sense. What is packed by itself (images, films, archives) is not among them.
const PACKABLE: [&str; 14] = [
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/wasm",
    "application/graphql",
    "application/x-ndjson",
    "application/yaml",
    "application/toml",
    "application/rtf",
    "application/manifest+json",
    "image/svg+xml",
    "image/bmp",
    "font/ttf",
];

/// Lines that speak of the very bytes of the body.
pub(super) const OF_THE_BYTES: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// Chooses a coding for an answer, if it is worth one and the client takes one, and changes its header accordingly.
///
/// `asked` is what the client accepts. An answer that could have been coded says so in `Vary` either way.
pub fn choose(
    policy: &Compress,
    asked: &Accepted,
    status: StatusCode,
    answer: &mut HeaderMap,
) -> Option<Coding> {
    if !is_worth_it(policy, status, answer) {
        return None;
    }
    headers::vary(answer, "Accept-Encoding");
    let coding = asked.best(&policy.codings)?;
    answer.insert(CONTENT_ENCODING, HeaderValue::from_static(name(coding)));
    answer.remove(CONTENT_LENGTH);
    answer.remove(ACCEPT_RANGES);
    for name in OF_THE_BYTES {
        answer.remove(name);
    }
    // Other bytes than those the upstream named, with the same meaning (RFC 9110, 8.8.1).
    if let Some(tag) = answer.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        answer.insert(ETAG, weak);
    }
    Some(coding)
}

/// The name in a header.
#[must_use]
pub const fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => "zstd",
        Coding::Brotli => "br",
        Coding::Gzip => "gzip",
    }
}

/// The coding of a request's body: `Ok(None)` for none.
///
/// # Errors
/// There are several, or one that is not known here.
pub fn of_request(headers: &HeaderMap) -> Result<Option<Coding>, Unsupported> {
    let mut lines = headers.get_all(CONTENT_ENCODING).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(Unsupported);
    }
    let is = |name: &str| line.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    let known = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
    match known.into_iter().find(|coding| is(name(*coding))) {
        Some(coding) => Ok(Some(coding)),
        None if is("x-gzip") => Ok(Some(Coding::Gzip)),
        None if is("identity") => Ok(None),
        None => Err(Unsupported),
    }
}

/// A coding that is not decoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

fn is_worth_it(policy: &Compress, status: StatusCode, answer: &HeaderMap) -> bool {
    let bodiless = matches!(status.as_u16(), 100..=199 | 204 | 205 | 206 | 304);
    if bodiless || answer.contains_key(CONTENT_RANGE) || answer.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let length = answer.get(CONTENT_LENGTH).map(|length| {
        let digits = length.to_str().unwrap_or_default();
        digits.parse::<u64>().unwrap_or_default()
    });
    if length.is_some_and(|length| length < policy.min_bytes.max(1)) {
        return false;
    }
    let no_transform = answer.get_all(CACHE_CONTROL).iter().any(|line| {
        let mut directives = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
    });
    let kind = answer.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    !no_transform && kind.is_some_and(is_packable)
}

fn is_packable(kind: &str) -> bool {
    let essence = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    // Events must leave as they come, and gRPC has frames and codings of its own.
    if essence == "text/event-stream" || essence.starts_with("application/grpc") {
        return false;
    }
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || PACKABLE.contains(&essence.as_str())
}

/// What a client takes: the weight of each coding in thousandths, kept while the request's header travels on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    zstd: Option<u16>,
    brotli: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Accepted {
    /// From `Accept-Encoding`. Without one nothing is coded: whoever does not say what it takes may take nothing.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let lines = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|line| line.to_str().ok());
        for item in lines.flat_map(|line| line.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = parts.next().map_or(Some(1000), weight) else {
                continue;
            };
            let place = match name.to_ascii_lowercase().as_str() {
                "zstd" => &mut accepted.zstd,
                "br" => &mut accepted.brotli,
                "gzip" | "x-gzip" => &mut accepted.gzip,
                "identity" => &mut accepted.identity,
                "*" => &mut accepted.others,
                _ => continue,
            };
            // Said twice: the more careful reading.
            *place = Some(place.map_or(weight, |before| before.min(weight)));
        }
        accepted
    }

    /// The heaviest of `offered`, the first of several; `None` if the client would rather have the bytes as they are.
    fn best(&self, offered: &[Coding]) -> Option<Coding> {
        let weight = |coding: Coding| {
            let own = match coding {
                Coding::Zstd => self.zstd,
                Coding::Brotli => self.brotli,
                Coding::Gzip => self.gzip,
            };
            own.or(self.others).unwrap_or(0)
        };
        let mut best: Option<(Coding, u16)> = None;
        for &coding in offered {
            let weight = weight(coding);
            if weight > best.map_or(0, |(_, best)| best) {
                best = Some((coding, weight));
            }
        }
        let (coding, weight) = best?;
        self.identity
            .is_none_or(|plain| plain <= weight)
            .then_some(coding)
    }
}

/// `q=0.5` in thousandths (RFC 9110, 12.4.2).
fn weight(text: &str) -> Option<u16> {
    let value = text.strip_prefix("q=").or_else(|| text.strip_prefix("Q="))?;
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{part:0<3}").parse::<u16>().ok()?;
    match (whole, thousandths) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn best(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(accept).expect("a value"));
        Accepted::of(&headers).best(&ALL)
    }

    #[test]
    fn the_heaviest_coding_wins_and_ties_go_to_our_order() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Brotli)),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP;Q=1", Some(Gzip)),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.899", Some(Gzip)),
            ("gzip;q=0", None),
            ("*", Some(Zstd)),
            ("*;q=0.5, zstd;q=0", Some(Brotli)),
            ("*;q=0, gzip", Some(Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("gzip, gzip;q=0", None),
            ("deflate", None),
            ("", None),
            ("gzip;q=2", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=", None),
            ("gzip;q=-1", None),
            ("gzip ; q=0.3", Some(Gzip)),
            ("gzipx, brx", None),
        ] {
            assert_eq!(best(accept), coding, "{accept:?}");
        }
        assert_eq!(Accepted::of(&HeaderMap::new()).best(&ALL), None);
    }

    fn chosen(status: u16, lines: &[(&'static str, &'static str)]) -> (Option<Coding>, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let policy = Compress {
            codings: ALL.to_vec(),
            min_bytes: 1024,
        };
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        let status = StatusCode::from_u16(status).expect("a status");
        let coding = choose(&policy, &Accepted::of(&asked), status, &mut headers);
        (coding, headers)
    }

    #[test]
    fn only_what_is_text_and_long_and_may_be_changed_is_coded() {
        let json = ("content-type", "application/json; charset=utf-8");
        for lines in [
            &[json][..],
            &[json, ("content-length", "1024")],
            &[("content-type", "TEXT/Html")],
            &[("content-type", "application/problem+json")],
            &[("content-type", "image/svg+xml")],
        ] {
            assert!(chosen(200, lines).0.is_some(), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[json, ("content-length", "1023")],
            &[json, ("content-length", "0")],
            &[json, ("content-length", "x")],
            &[json, ("content-encoding", "gzip")],
            &[json, ("content-encoding", "identity")],
            &[json, ("content-range", "bytes 0-1/2")],
            &[json, ("cache-control", "max-age=1, No-Transform")],
            &[("content-type", "text/event-stream")],
            &[("content-type", "application/grpc-web+json")],
            &[("content-type", "image/png")],
            &[("content-type", "application/zip")],
        ] {
            let (coding, headers) = chosen(200, lines);
            assert_eq!(coding, None, "{lines:?}");
            assert!(!headers.contains_key("vary"), "{lines:?}");
        }
        for status in [101, 204, 205, 206, 304] {
            assert_eq!(chosen(status, &[json]).0, None, "{status}");
        }
    }

    #[test]
    fn a_coded_answer_says_so_and_says_nothing_of_the_old_bytes() {
        let (coding, headers) = chosen(
            200,
            &[
                ("content-type", "text/css"),
                ("content-length", "5000"),
                ("etag", "\"a\""),
                ("accept-ranges", "bytes"),
                ("content-digest", "sha-256=:x:"),
                ("vary", "Origin"),
            ],
        );
        assert_eq!(coding, Some(Coding::Brotli));
        assert_eq!(headers["content-encoding"], "br");
        assert_eq!(headers["etag"], "W/\"a\"");
        assert_eq!(
            headers.get_all("vary").iter().collect::<Vec<_>>(),
            ["Origin", "Accept-Encoding"]
        );
        for gone in ["content-length", "accept-ranges", "content-digest"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_request_has_one_known_coding_or_none() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(line));
            }
            of_request(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["GZip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["br"]), Ok(Some(Coding::Brotli)));
        for bad in [
            &["gzip, gzip"][..],
            &["gzip", "gzip"],
            &["deflate"],
            &[""],
            &["gzip, identity"],
        ] {
            assert_eq!(of(bad), Err(Unsupported), "{bad:?}");
        }
    }
}
