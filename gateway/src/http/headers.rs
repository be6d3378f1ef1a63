//! Which header lines cross the gateway. Owns the hop-by-hop rules (RFC 9110, 7.6.1) and the forwarding headers.
//!
//! Order matters and is fixed by [`prepare_request`]: first everything that belongs to the client's connection or that
//! the client must not say is removed, then the gateway's own lines are written. So a `Connection: X-Forwarded-For` can not
//! remove what the gateway sets.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request, response};

use super::client::ForwardedAddr;
use super::tls::Identity;
use crate::config::model::HeaderEdit;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Lines about a client's certificate begin so. Only the gateway writes them, not even a trusted proxy: whatever such a one
/// passes on without a look would be believed.
const CLIENT_CERT: &str = "x-client-cert-";
const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// What a request is sent on with.
#[derive(Debug)]
pub struct Outward<'a> {
    pub host: &'a HeaderValue,
    pub request_id: &'a HeaderValue,
    /// The address of who is at the other end of the connection, as text.
    pub socket: &'a HeaderValue,
    pub effective: IpAddr,
    pub tls: bool,
    /// Whether that is a trusted proxy, whose forwarding headers are kept and continued.
    pub trusted: bool,
    /// Whom the client's certificate names.
    pub identity: Option<&'a Identity>,
}

/// Makes a client's header fit for the upstream. `version` is the client's.
pub fn prepare_request(headers: &mut HeaderMap, version: Version, outward: &Outward<'_>) {
    let trailers = headers
        .get(TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers, |name| {
        !outward.trusted && is_forwarding(name) || name.as_str().contains('_') || is_identity(name)
    });
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    headers.insert(HOST, outward.host.clone());
    if outward.trusted {
        // One line, so that nobody has to know how lines are joined.
        let before = headers
            .get_all(&FOR)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .collect::<Vec<_>>()
            .join(", ");
        let value = match outward.socket.to_str() {
            Ok(socket) if !before.is_empty() => HeaderValue::from_str(&format!("{before}, {socket}")).ok(),
            _ => None,
        };
        headers.insert(FOR, value.unwrap_or_else(|| outward.socket.clone()));
        headers.entry(PROTO).or_insert_with(|| proto(outward.tls));
        headers
            .entry(FORWARDED_HOST)
            .or_insert_with(|| outward.host.clone());
        if let Ok(real) = HeaderValue::from_str(&outward.effective.to_string()) {
            headers.insert(REAL_IP, real);
        }
    } else {
        headers.insert(FOR, outward.socket.clone());
        headers.insert(PROTO, proto(outward.tls));
        headers.insert(FORWARDED_HOST, outward.host.clone());
        headers.insert(REAL_IP, outward.socket.clone());
    }
    headers.insert(REQUEST_ID, outward.request_id.clone());
    if let Some(identity) = outward.identity {
        let lines = [(SUBJECT, &identity.subject), (SAN, &identity.san)];
        for (name, value) in lines {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(FINGERPRINT, identity.fingerprint.clone());
    }
    let via = if version == Version::HTTP_2 {
        "2 gateway"
    } else {
        "1.1 gateway"
    };
    headers.append(VIA, HeaderValue::from_static(via));
}

/// Makes an upstream's header fit for the client. Returns the protocol that a 101 changes to.
pub fn prepare_response(head: &mut response::Parts, request_id: &HeaderValue) -> Option<HeaderValue> {
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = if switching {
        head.headers.remove(UPGRADE)
    } else {
        None
    };
    strip(&mut head.headers, |_| false);
    head.headers.insert(REQUEST_ID, request_id.clone());
    protocol
}

/// Whether a request asks for WebSocket (RFC 6455, 4.1), the one protocol that is changed to. Other wishes go no further:
/// a server may ignore them (RFC 9110, 7.8).
#[must_use]
pub fn wants_websocket(head: &request::Parts) -> bool {
    let Some(protocol) = head.headers.get(UPGRADE) else {
        return false;
    };
    let mut tokens = head
        .headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','));
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
        && head.method == Method::GET
        && head.version == Version::HTTP_11
        && tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Writes the two lines of a change of protocol.
pub fn switch(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Carries out an operator's edits: removal, then set, then add.
pub fn edit(headers: &mut HeaderMap, edit: &HeaderEdit) {
    for name in &edit.remove {
        headers.remove(name);
    }
    for (name, value) in &edit.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edit.add {
        headers.append(name, value.clone());
    }
}

/// The client that a trusted proxy speaks for: from the right, the first address that is not itself trusted.
///
/// Stops at the first entry that is not an address, with the last good one: whoever wrote what stands left of it is
/// unknown. `None` if the proxy named nobody.
#[must_use]
pub fn forwarded_for(headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Option<ForwardedAddr> {
    let mut named = None;
    let lines = headers.get_all(&FOR).iter().rev();
    for entry in lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')) {
        let Some(ip) = address(entry.trim()) else { break };
        named = Some(ForwardedAddr::of_header(ip));
        if !trusts(ip.to_canonical()) {
            break;
        }
    }
    named
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .ok()
        .or_else(|| text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip()))
}

/// Whether a request's framing is the one this gateway accepts: no transfer coding but a single `chunked`.
#[must_use]
pub fn plain_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match codings.next() {
        None => headers.get_all(CONTENT_LENGTH).iter().count() <= 1,
        Some(coding) => {
            codings.next().is_none()
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && !headers.contains_key(CONTENT_LENGTH)
        }
    }
}

fn proto(tls: bool) -> HeaderValue {
    HeaderValue::from_static(if tls { "https" } else { "http" })
}

/// What only proxies may say.
fn is_forwarding(name: &HeaderName) -> bool {
    *name == FORWARDED || *name == REAL_IP || *name == REQUEST_ID || name.as_str().starts_with("x-forwarded-")
}

/// What only the gateway may say, of a certificate that it has verified.
fn is_identity(name: &HeaderName) -> bool {
    name.as_str().starts_with(CLIENT_CERT)
}

/// Removes hop-by-hop lines, those that `Connection` lists, and what `also` says.
fn strip(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let mut out: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop(name) || also(name))
        .cloned()
        .collect();
    for line in headers.get_all(CONNECTION) {
        let tokens = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        let ordinary = |token: &&[u8]| {
            !token.eq_ignore_ascii_case(b"close") && !token.eq_ignore_ascii_case(b"keep-alive")
        };
        out.extend(
            tokens
                .filter(ordinary)
                .filter_map(|token| HeaderName::from_bytes(token).ok()),
        );
    }
    for name in out {
        headers.remove(name);
    }
}

fn is_hop(name: &HeaderName) -> bool {
    if *name == CONNECTION || *name == TE || *name == TRANSFER_ENCODING || *name == UPGRADE {
        return true;
    }
    // `proxy` is no header of HTTP, but becomes HTTP_PROXY in a CGI. `expect` has been answered by the gateway.
    let name = name.as_str();
    matches!(
        name,
        "keep-alive" | "trailer" | "http2-settings" | "proxy" | "expect"
    ) || name.starts_with("proxy-")
}

/// HTTP/2 may send cookies on several lines; HTTP/1 must have one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(one) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn prepared(lines: &[(&'static str, &'static str)], trusted: bool, version: Version) -> HeaderMap {
        let mut headers = map(lines);
        let outward = Outward {
            host: &HeaderValue::from_static("a.example"),
            request_id: &HeaderValue::from_static("id1"),
            socket: &HeaderValue::from_static("192.0.2.1"),
            effective: IpAddr::from([192, 0, 2, 7]),
            tls: false,
            trusted,
            identity: None,
        };
        prepare_request(&mut headers, version, &outward);
        headers
    }

    #[test]
    fn forged_forwarding_headers_do_not_pass() {
        let headers = prepared(
            &[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-prefix", "/evil"),
                ("forwarded", "for=10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x-request-id", "forged"),
                ("x_forwarded_for", "10.0.0.1"),
                ("proxy", "http://evil"),
            ],
            false,
            Version::HTTP_11,
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a.example");
        assert_eq!(headers["x-real-ip"], "192.0.2.1");
        assert_eq!(headers["x-request-id"], "id1");
        for gone in ["x-forwarded-prefix", "forwarded", "x_forwarded_for", "proxy"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn connection_can_remove_the_client_s_lines_but_not_ours() {
        let list = "X-Forwarded-For, Host, X-Request-Id, X-Mine, close";
        let headers = prepared(
            &[("connection", list), ("x-mine", "1"), ("te", "gzip")],
            false,
            Version::HTTP_11,
        );
        assert!(
            !headers.contains_key("x-mine")
                && !headers.contains_key("connection")
                && !headers.contains_key("te")
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["host"], "a.example");
        assert_eq!(headers["x-request-id"], "id1");
    }

    #[test]
    fn a_trusted_proxy_s_chain_is_continued() {
        let lines = [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
        ];
        let headers = prepared(&lines, true, Version::HTTP_2);
        let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["192.0.2.7, 10.1.1.1, 192.0.2.1"]);
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
    }

    #[test]
    fn the_caller_is_the_first_untrusted_address_from_the_right() {
        let trusts = |ip: IpAddr| ip.to_string().starts_with("10.");
        let who = |lines: &[(&'static str, &'static str)]| {
            forwarded_for(&map(lines), trusts).map(|f| f.ip().to_string())
        };
        let f = "x-forwarded-for";
        assert_eq!(
            who(&[(f, "1.1.1.1, 2.2.2.2, 10.0.0.1")]).as_deref(),
            Some("2.2.2.2")
        );
        assert_eq!(
            who(&[(f, "1.1.1.1"), (f, "10.0.0.1")]).as_deref(),
            Some("1.1.1.1")
        );
        assert_eq!(who(&[(f, "10.0.0.2, 10.0.0.1")]).as_deref(), Some("10.0.0.2"));
        assert_eq!(who(&[(f, "2.2.2.2:443, 10.0.0.1")]).as_deref(), Some("2.2.2.2"));
        assert_eq!(who(&[(f, "[2001:db8::1]:443")]).as_deref(), Some("2001:db8::1"));
        assert_eq!(who(&[(f, "::ffff:2.2.2.2")]).as_deref(), Some("2.2.2.2"));
        assert_eq!(
            who(&[(f, "1.1.1.1, unknown, 10.0.0.1")]).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(who(&[(f, "garbage")]), None);
        assert_eq!(who(&[]), None);
    }

    #[test]
    fn http2_cookies_become_one_line() {
        let headers = prepared(&[("cookie", "a=1"), ("cookie", "b=2")], false, Version::HTTP_2);
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }

    #[test]
    fn only_one_plain_framing_is_accepted() {
        let te = "transfer-encoding";
        assert!(plain_framing(&map(&[])) && plain_framing(&map(&[(te, "Chunked")])));
        for bad in [
            &[(te, "gzip, chunked")][..],
            &[(te, ",chunked")],
            &[(te, "chunked"), (te, "chunked")],
            &[(te, "chunked"), ("content-length", "3")],
            &[("content-length", "3"), ("content-length", "3")],
        ] {
            assert!(!plain_framing(&map(bad)), "{bad:?}");
        }
    }
}
