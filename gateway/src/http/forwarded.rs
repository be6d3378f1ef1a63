//! Whom a trusted proxy speaks for: `X-Forwarded-For`, or `Forwarded` (RFC 7239), whichever the operator says it writes.
//!
//! Both are read from the right, the side that proxies append to, up to the first address that is not itself a trusted
//! proxy's: that is the client. What stands left of it, whoever sends may have made up: it is not looked at and does
//! not travel on. Called only if the socket's address is trusted.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::client::ForwardedAddr;
use super::host;
use crate::config::model::ForwardingHeader;

pub const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What a trusted proxy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The client, then the trusted proxies that the request came through, without the one at the socket.
    pub chain: Vec<IpAddr>,
    /// `http` or `https`.
    pub proto: Option<&'static str>,
    pub host: Option<HeaderValue>,
}

impl Told {
    /// The client; `None` if nobody was named.
    #[must_use]
    pub fn client(&self) -> Option<ForwardedAddr> {
        self.chain.first().map(|ip| ForwardedAddr::of_header(*ip))
    }
}

/// Reads the one header and leaves the other alone.
#[must_use]
pub fn told(headers: &HeaderMap, which: ForwardingHeader, trusts: impl Fn(IpAddr) -> bool) -> Told {
    match which {
        ForwardingHeader::XForwardedFor => Told {
            chain: by_list(headers, trusts),
            proto: single(headers, &PROTO).and_then(|value| proto(value.to_str().ok()?)),
            host: single(headers, &HOST).filter(|value| is_host(value)).cloned(),
        },
        ForwardingHeader::Forwarded => by_elements(headers, trusts),
    }
}

/// Stops at the first entry that is not an address: whoever wrote what stands left of it is unknown.
fn by_list(headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut chain = Vec::new();
    let lines = headers.get_all(&FOR).iter().rev();
    for entry in lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')) {
        let Some(ip) = address(entry.trim()) else { break };
        chain.push(ip);
        if !trusts(ip) {
            break;
        }
    }
    chain.reverse();
    chain
}

fn by_elements(headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> Told {
    let mut told = Told::default();
    let lines = headers.get_all(FORWARDED).iter().rev();
    for text in lines.flat_map(|line| Elements(Some(line.to_str().unwrap_or("?")))) {
        let Some(element) = element(text) else { break };
        told = Told {
            chain: told.chain,
            ..element.told
        };
        told.chain.push(element.node);
        if !trusts(element.node) {
            break;
        }
    }
    told.chain.reverse();
    told
}

/// The elements of a `Forwarded` line from the right. Quotes are told from the right too, so that one which a client
/// left open spoils its own part only.
struct Elements<'l>(Option<&'l str>);

impl<'l> Iterator for Elements<'l> {
    type Item = &'l str;

    fn next(&mut self) -> Option<&'l str> {
        let left = self.0?;
        let bytes = left.as_bytes();
        let mut quoted = false;
        for at in (0..bytes.len()).rev() {
            match bytes[at] {
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    self.0 = left.get(..at);
                    return left.get(at + 1..).map(str::trim);
                }
                _ => {}
            }
        }
        self.0 = None;
        Some(left.trim())
    }
}

struct Element {
    node: IpAddr,
    /// Without the chain.
    told: Told,
}

/// `for=192.0.2.43;proto=https;host=a.example`. `None` if it is no such thing or names no address, as `unknown` does not.
fn element(text: &str) -> Option<Element> {
    let (mut node, mut told) = (None, Told::default());
    for pair in text.split(';') {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        let bare = match value.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"')?,
            None => value,
        };
        // Nothing that is of use here needs a quote or an escape within.
        if bare.contains(['"', '\\']) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") {
            if node.is_some() {
                return None;
            }
            node = Some(address(bare)?);
        } else if name.eq_ignore_ascii_case("proto") {
            told.proto = proto(bare);
        } else if name.eq_ignore_ascii_case("host") {
            told.host = HeaderValue::from_str(bare).ok().filter(is_host);
        }
    }
    Some(Element { node: node?, told })
}

/// A chain as the value of `X-Forwarded-For`, with the socket's address at its end.
#[must_use]
pub fn list(chain: &[IpAddr], socket: IpAddr) -> String {
    let mut out = String::new();
    for ip in chain {
        let _ = write!(out, "{ip}, ");
    }
    let _ = write!(out, "{socket}");
    out
}

/// A chain as the value of `Forwarded`. What the client asked for stands with the client.
#[must_use]
pub fn elements(chain: &[IpAddr], socket: IpAddr, proto: &str, host: &str) -> String {
    let mut out = String::new();
    for (at, ip) in chain.iter().chain([&socket]).enumerate() {
        let _ = match ip {
            IpAddr::V4(ip) => write!(out, "{}for={ip}", if at == 0 { "" } else { ", " }),
            IpAddr::V6(ip) => write!(out, "{}for=\"[{ip}]\"", if at == 0 { "" } else { ", " }),
        };
        if at == 0 {
            let _ = write!(out, ";proto={proto};host=\"{host}\"");
        }
    }
    out
}

/// An address, with or without a port; an IPv4-mapped one as the IPv4 address that it is.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let socket = || text.parse().ok().map(|socket: std::net::SocketAddr| socket.ip());
    bare.parse()
        .ok()
        .or_else(socket)
        .map(|ip: IpAddr| ip.to_canonical())
}

fn proto(text: &str) -> Option<&'static str> {
    ["http", "https"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(text))
}

fn is_host(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| host::name(text).is_ok())
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_str(line).expect("a value"));
        }
        headers
    }

    fn trusts(ip: IpAddr) -> bool {
        ip.to_string().starts_with("10.")
    }

    fn shown(told: &Told) -> Option<String> {
        told.client().map(|client| client.ip().to_string())
    }

    #[test]
    fn t11_the_client_is_the_first_untrusted_address_from_the_right() {
        for (lines, client) in [
            (&["1.1.1.1, 2.2.2.2, 10.0.0.1"][..], Some("2.2.2.2")),
            (&["1.1.1.1", "10.0.0.1"], Some("1.1.1.1")),
            (&["10.0.0.2, 10.0.0.1"], Some("10.0.0.2")),
            (&["2.2.2.2:443, 10.0.0.1"], Some("2.2.2.2")),
            (&["[2001:db8::1]:443"], Some("2001:db8::1")),
            (&["::ffff:2.2.2.2"], Some("2.2.2.2")),
            (&["2.2.2.2, ::ffff:10.0.0.1"], Some("2.2.2.2")),
            (&["1.1.1.1, unknown, 10.0.0.1"], Some("10.0.0.1")),
            (&["garbage"], None),
            (&[""], None),
            (&[], None),
        ] {
            let told = told(&map(FOR, lines), ForwardingHeader::XForwardedFor, trusts);
            assert_eq!(shown(&told).as_deref(), client, "{lines:?}");
        }
    }

    #[test]
    fn t11_forwarded_is_read_from_the_right_too() {
        for (lines, client) in [
            (
                &["for=1.1.1.1, for=2.2.2.2;proto=https, for=10.0.0.1"][..],
                Some("2.2.2.2"),
            ),
            (&["for=1.1.1.1", "For=10.0.0.1"], Some("1.1.1.1")),
            (&["for=\"[2001:db8::1]:443\";proto=https"], Some("2001:db8::1")),
            (
                &["for=\"2.2.2.2:1\" ; by=10.0.0.9, for=10.0.0.1"],
                Some("2.2.2.2"),
            ),
            (&["for=unknown, for=10.0.0.1"], Some("10.0.0.1")),
            (&["for=_hidden, for=10.0.0.1"], Some("10.0.0.1")),
            // A client that leaves a quote open, escapes one, or hides a comma in one.
            (&["for=\"1.1.1.1, for=2.2.2.2, for=10.0.0.1"], Some("2.2.2.2")),
            (
                &["for=1.1.1.1;host=\"a\\\", for=3.3.3.3, for=10.0.0.1"],
                Some("3.3.3.3"),
            ),
            (&["host=\", for=3.3.3.3, \", for=10.0.0.1"], Some("10.0.0.1")),
            (&["for=1.1.1.1;for=2.2.2.2, for=10.0.0.1"], Some("10.0.0.1")),
            (&["proto=https"], None),
            (&["garbage"], None),
            (&[], None),
        ] {
            let told = told(&map(FORWARDED, lines), ForwardingHeader::Forwarded, trusts);
            assert_eq!(shown(&told).as_deref(), client, "{lines:?}");
        }
        let lines = [
            "for=9.9.9.9;proto=http, for=2.2.2.2;proto=https;host=\"a.example:8443\", for=10.0.0.1;proto=http",
        ];
        let told = told(&map(FORWARDED, &lines), ForwardingHeader::Forwarded, trusts);
        assert_eq!(
            (told.proto, told.host.as_ref().map(|h| h.as_bytes())),
            (Some("https"), Some(&b"a.example:8443"[..]))
        );
        let own = IpAddr::from([10, 0, 0, 7]);
        assert_eq!(list(&told.chain, own), "2.2.2.2, 10.0.0.1, 10.0.0.7");
        let line = elements(&told.chain, own, "https", "a.example:8443");
        assert_eq!(
            line,
            "for=2.2.2.2;proto=https;host=\"a.example:8443\", for=10.0.0.1, for=10.0.0.7"
        );
    }

    #[test]
    fn only_one_header_is_believed() {
        let mut headers = map(FOR, &["1.1.1.1"]);
        headers.insert(FORWARDED, HeaderValue::from_static("for=2.2.2.2"));
        let who = |which| shown(&told(&headers, which, trusts));
        assert_eq!(who(ForwardingHeader::XForwardedFor).as_deref(), Some("1.1.1.1"));
        assert_eq!(who(ForwardingHeader::Forwarded).as_deref(), Some("2.2.2.2"));
    }

    #[test]
    fn scheme_and_host_of_a_proxy_are_taken_only_if_they_are_some() {
        for (proto, host, expected) in [
            ("https", "a.example", (Some("https"), true)),
            ("HTTPS", "a.example:8443", (Some("https"), true)),
            ("javascript", "a b", (None, false)),
            ("https, http", "a, b", (None, false)),
            ("", "", (None, false)),
        ] {
            let mut headers = map(PROTO, &[proto]);
            headers.extend(map(HOST, &[host]));
            let told = told(&headers, ForwardingHeader::XForwardedFor, trusts);
            assert_eq!((told.proto, told.host.is_some()), expected, "{proto} {host}");
        }
    }

    proptest! {
        #[test]
        fn what_a_client_writes_does_not_change_whom_the_proxy_names(before in "[ -~]{0,40}") {
            let line = format!("{before}, for=2.2.2.2, for=10.0.0.1");
            let named = told(&map(FORWARDED, &[&line]), ForwardingHeader::Forwarded, trusts);
            prop_assert_eq!(shown(&named), Some("2.2.2.2".to_owned()));
            let line = format!("{before}, 2.2.2.2, 10.0.0.1");
            let named = told(&map(FOR, &[&line]), ForwardingHeader::XForwardedFor, trusts);
            prop_assert_eq!(shown(&named), Some("2.2.2.2".to_owned()));
        }
    }
}
