//! Which header lines cross the gateway. Owns the hop-by-hop rules (RFC 9110, 7.6.1) and the forwarding headers.
//!
//! Order matters and is fixed by [`prepare_request`]: first everything that belongs to the client's connection or that
//! the client must not say is removed, then the gateway's own lines are written. So a `Connection: X-Forwarded-For` can not
//! remove what the gateway sets.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, FORWARDED, HOST, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, TE, TRANSFER_ENCODING, UPGRADE, VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request, response};

use super::facts::Facts;
use super::forwarded::{self, Told};
use super::tls::Identity;
use crate::config::model::{ForwardingHeader, HeaderEdit};
use crate::http1::head::belongs_in_header;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Gateways that a request may go through, one behind the other.
const MOST_PASSES: usize = 8;

/// Lines about a client's certificate begin so. Only the gateway writes them, not even a trusted proxy: whatever such a one
/// passes on without a look would be believed.
const CLIENT_CERT: &str = "x-client-cert-";
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
pub(super) const SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
pub(super) const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");

/// The value of a line, of several joined as they may be (RFC 9110, 5.3), each without the blanks at its ends; `None` if there is
/// none, or if it is not text.
pub(super) fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let text = |line: &'h HeaderValue| line.to_str().ok().map(|line| line.trim_matches([' ', '\t']));
    let mut lines = headers.get_all(name).iter();
    let first = text(lines.next()?)?;
    let mut joined = Cow::Borrowed(first);
    for line in lines {
        let joined = joined.to_mut();
        joined.push_str(", ");
        joined.push_str(text(line)?);
    }
    Some(joined)
}

/// What a request is sent on with.
#[derive(Debug)]
pub struct Outward<'a> {
    pub host: &'a HeaderValue,
    pub request_id: &'a HeaderValue,
    /// The address of who is at the other end of the connection, as text.
    pub socket: &'a HeaderValue,
    pub socket_ip: IpAddr,
    pub tls: bool,
    pub forwarding: ForwardingHeader,
    /// What the socket's owner says, if it is a trusted proxy. Its other forwarding lines (`X-Forwarded-Port`) are kept.
    pub told: Option<&'a Told>,
    /// Whom the client's certificate names.
    pub identity: Option<&'a Identity>,
}

/// The request has come through gateways more often than any but one that goes round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request goes round")]
pub struct GoesRound;

/// Makes a client's header fit for the upstream. `version` is the client's.
///
/// # Errors
/// A request that a gateway sends to itself.
pub fn prepare_request(
    headers: &mut HeaderMap,
    version: Version,
    outward: &Outward<'_>,
) -> Result<(), GoesRound> {
    let trailers = headers
        .get(TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let untrusted = outward.told.is_none();
    strip(headers, |name| {
        untrusted && is_forwarding(name)
            || *name == FORWARDED
            || name.as_str().contains('_')
            || is_identity(name)
    });
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    headers.insert(HOST, outward.host.clone());
    forward(headers, outward);
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
    let not_the_first = headers.append(VIA, HeaderValue::from_static(via));
    if not_the_first && passes(headers) > MOST_PASSES {
        return Err(GoesRound);
    }
    Ok(())
}

/// How many gateways have passed a request on, by what each says of itself; those in between may have joined their lines.
fn passes(headers: &HeaderMap) -> usize {
    let lines = headers.get_all(VIA).iter();
    let all = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    all.filter(|one| one.trim_ascii().ends_with(b" gateway")).count()
}

/// What makes an answer depend on what the client has already, or one of a part (RFC 9110, 13.1 and 14.2).
pub const CONDITIONS: [HeaderName; 6] = [
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
];

/// Makes the trailer of a client's request fit for the upstream, which may take its lines for lines of the header (RFC 9110,
/// 6.5.1): what a client must not say there, it must not say here, and neither what decides how the request is taken.
pub fn prepare_trailer(trailer: &mut HeaderMap) {
    strip(trailer, |name| {
        is_forwarding(name)
            || is_identity(name)
            || name.as_str().contains('_')
            || *name == VIA
            || CONDITIONS.contains(name)
            || belongs_in_header(name)
    });
}

/// Writes the forwarding lines, each once, over whatever there was.
fn forward(headers: &mut HeaderMap, outward: &Outward<'_>) {
    let nobody = Told::default();
    let told = outward.told.unwrap_or(&nobody);
    let scheme = told.proto.unwrap_or(if outward.tls { "https" } else { "http" });
    let host = told.host.as_ref().unwrap_or(outward.host);
    let (chain, real) = match told.client() {
        None => (Some(outward.socket.clone()), Some(outward.socket.clone())),
        Some(client) => (
            HeaderValue::try_from(forwarded::list(&told.chain, outward.socket_ip)).ok(),
            HeaderValue::try_from(client.ip().to_string()).ok(),
        ),
    };
    headers.insert(forwarded::FOR, chain.unwrap_or_else(|| outward.socket.clone()));
    headers.insert(REAL_IP, real.unwrap_or_else(|| outward.socket.clone()));
    headers.insert(forwarded::PROTO, HeaderValue::from_static(scheme));
    headers.insert(forwarded::HOST, host.clone());
    if outward.forwarding == ForwardingHeader::Forwarded {
        let host = host.to_str().unwrap_or_default();
        let line = forwarded::elements(&told.chain, outward.socket_ip, scheme, host);
        if let Ok(line) = HeaderValue::try_from(line) {
            headers.insert(FORWARDED, line);
        }
    }
}

/// Says that the answer depends on the request header `name`, once.
pub fn vary(headers: &mut HeaderMap, name: &'static str) {
    let said = headers.get_all(VARY).iter().any(|line| {
        let mut names = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        names.any(|said| said == b"*" || said.eq_ignore_ascii_case(name.as_bytes()))
    });
    if !said {
        headers.append(VARY, HeaderValue::from_static(name));
    }
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

/// Makes the header of an upstream's interim answer (1xx) fit for the client.
pub fn prepare_interim(head: &mut response::Parts) {
    strip(&mut head.headers, |name| *name == CONTENT_LENGTH);
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

/// Whether a message is of a gRPC call, whose sides may be silent for as long as they like.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    has_type(headers, &[b"application/grpc"])
}

/// Whether a response is one that goes on for as long as its sender likes: gRPC, or server-sent events.
#[must_use]
pub fn is_stream(headers: &HeaderMap) -> bool {
    has_type(headers, &[b"text/event-stream", b"application/grpc"])
}

fn has_type(headers: &HeaderMap, beginnings: &[&[u8]]) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        let begins = |with: &&[u8]| {
            kind.get(..with.len())
                .is_some_and(|front| front.eq_ignore_ascii_case(with))
        };
        beginnings.iter().any(begins)
    })
}

/// Writes the two lines of a change of protocol.
pub fn switch(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Values of the lines that are made of facts, in the order of the edit; for [`edit`], before anything is changed.
#[must_use]
pub fn made(edit: &HeaderEdit, facts: &Facts<'_>) -> Vec<Option<HeaderValue>> {
    edit.made.iter().map(|made| facts.line(&made.value)).collect()
}

/// Carries out an operator's edits: rename, then remove, then set, then add. Last comes what is `made` of facts: where a
/// value is missing the line is not there, not even one that the message had.
pub fn edit(headers: &mut HeaderMap, edit: &HeaderEdit, made: Vec<Option<HeaderValue>>) {
    for (from, to) in &edit.rename {
        rename(headers, from, to);
    }
    for name in &edit.remove {
        headers.remove(name);
    }
    for (name, value) in &edit.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edit.add {
        headers.append(name, value.clone());
    }
    for (line, value) in edit.made.iter().zip(made) {
        if !line.add {
            headers.remove(&line.name);
        }
        if let Some(value) = value {
            headers.append(&line.name, value);
        }
    }
}

/// All lines of a name get another, in the place of those that have it.
fn rename(headers: &mut HeaderMap, from: &HeaderName, to: &HeaderName) {
    let lines: Vec<HeaderValue> = headers.get_all(from).iter().cloned().collect();
    if lines.is_empty() || from == to {
        return;
    }
    headers.remove(from);
    headers.remove(to);
    for line in lines {
        headers.append(to, line);
    }
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

/// What only proxies may say.
fn is_forwarding(name: &HeaderName) -> bool {
    *name == FORWARDED || *name == REAL_IP || *name == REQUEST_ID || name.as_str().starts_with("x-forwarded-")
}

/// What only the gateway may say, of a certificate that it has verified.
fn is_identity(name: &HeaderName) -> bool {
    name.as_str().starts_with(CLIENT_CERT)
}

/// Removes hop-by-hop lines, those that `Connection` lists, and what `also` says. `Content-Length` stays, whatever is
/// listed: it says where the message ends.
fn strip(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let mut out: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop(name) || also(name))
        .cloned()
        .collect();
    // It is one of them itself.
    if out.is_empty() {
        return;
    }
    for line in headers.get_all(CONNECTION) {
        let tokens = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        let ordinary = |token: &&[u8]| {
            let kept: [&[u8]; 3] = [b"close", b"keep-alive", b"content-length"];
            !kept.iter().any(|kept| token.eq_ignore_ascii_case(kept))
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
        let trusts = |ip: IpAddr| ip == IpAddr::from([10, 1, 1, 1]);
        let told = trusted.then(|| forwarded::told(&headers, ForwardingHeader::XForwardedFor, trusts));
        let outward = Outward {
            host: &HeaderValue::from_static("a.example"),
            request_id: &HeaderValue::from_static("id1"),
            socket: &HeaderValue::from_static("192.0.2.1"),
            socket_ip: IpAddr::from([192, 0, 2, 1]),
            tls: false,
            forwarding: ForwardingHeader::XForwardedFor,
            told: told.as_ref(),
            identity: None,
        };
        prepare_request(&mut headers, version, &outward).unwrap();
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
        let list = "X-Forwarded-For, Host, X-Request-Id, Content-Length, X-Mine, close";
        let headers = prepared(
            &[
                ("connection", list),
                ("x-mine", "1"),
                ("te", "gzip"),
                ("content-length", "3"),
            ],
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
        assert_eq!(headers["content-length"], "3");
    }

    #[test]
    fn a_trusted_proxy_s_chain_is_continued() {
        let lines = [
            ("x-forwarded-for", "203.0.113.66, 192.0.2.7"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=203.0.113.66"),
        ];
        let headers = prepared(&lines, true, Version::HTTP_2);
        let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["192.0.2.7, 10.1.1.1, 192.0.2.1"]);
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-port"], "443");
        assert!(!headers.contains_key("forwarded"), "nobody has read it");
    }

    #[test]
    fn vary_names_each_header_once() {
        let said = |lines: &[(&'static str, &'static str)]| {
            let mut headers = map(lines);
            vary(&mut headers, "Origin");
            headers
                .get_all(VARY)
                .iter()
                .map(|v| v.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(said(&[]), ["Origin"]);
        assert_eq!(said(&[("vary", "Accept, origin")]), ["Accept, origin"]);
        assert_eq!(said(&[("vary", "*")]), ["*"]);
        assert_eq!(said(&[("vary", "Accept")]), ["Accept", "Origin"]);
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
