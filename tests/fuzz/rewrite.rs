//! Any header lines of a request, made fit for an upstream: what the gateway says is there once, and nothing of what a
//! client must not say.
#![no_main]

use std::net::IpAddr;

use gateway::config::model::ForwardingHeader;
use gateway::http::forwarded::told;
use gateway::http::headers::{Outward, prepare_request};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use libfuzzer_sys::fuzz_target;

const SOCKET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
/// Names that a mutation would seldom find, by the first byte of a line.
const NAMES: [&str; 12] = [
    "connection",
    "x-forwarded-for",
    "forwarded",
    "x-real-ip",
    "x-forwarded-proto",
    "x-forwarded-host",
    "te",
    "cookie",
    "x_forwarded_for",
    "content-length",
    "transfer-encoding",
    "x-other",
];

fuzz_target!(|data: &[u8]| {
    let Some((&choice, text)) = data.split_first() else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in text.split(|b| *b == b'\n').take(50) {
        let Some((&first, rest)) = line.split_first() else {
            continue;
        };
        let name = match NAMES.get(usize::from(first)) {
            Some(name) => HeaderName::from_static(name),
            None => match line
                .iter()
                .position(|b| *b == b':')
                .map(|at| HeaderName::from_bytes(&line[..at]))
            {
                Some(Ok(name)) => name,
                _ => continue,
            },
        };
        if let Ok(value) = HeaderValue::from_bytes(rest) {
            headers.append(name, value);
        }
    }
    let trusted = choice & 1 != 0;
    let forwarding = if choice & 2 != 0 {
        ForwardingHeader::Forwarded
    } else {
        ForwardingHeader::XForwardedFor
    };
    let version = if choice & 4 != 0 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    let trusts = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10);
    let said = trusted.then(|| told(&headers, forwarding, trusts));
    let length = headers.get_all("content-length").iter().count();
    let outward = Outward {
        host: &HeaderValue::from_static("a.example"),
        request_id: &HeaderValue::from_static("id"),
        socket: &HeaderValue::from_static("192.0.2.1"),
        socket_ip: SOCKET,
        tls: false,
        forwarding,
        told: said.as_ref(),
        identity: None,
    };
    if prepare_request(&mut headers, version, &outward).is_err() {
        return;
    }
    for once in [
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-real-ip",
        "x-request-id",
    ] {
        assert_eq!(headers.get_all(once).iter().count(), 1, "{once}");
    }
    for gone in [
        "connection",
        "transfer-encoding",
        "keep-alive",
        "upgrade",
        "proxy",
        "proxy-connection",
        "expect",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers.get_all("content-length").iter().count(), length);
    assert!(headers.keys().all(|name| !name.as_str().contains('_')));
    assert!(headers.get("te").is_none_or(|te| te == "trailers"));
    let chain = headers["x-forwarded-for"].to_str().expect("text");
    assert!(chain.ends_with("192.0.2.1"));
    assert!(
        chain.split(", ").all(|ip| ip.parse::<IpAddr>().is_ok()),
        "{chain}"
    );
    // All but the first are proxies that are trusted, or the socket's.
    assert!(
        chain
            .split(", ")
            .skip(1)
            .all(|ip| ip == "192.0.2.1" || ip.starts_with("10.")),
        "{chain}"
    );
    if !trusted {
        assert_eq!(chain, "192.0.2.1");
        assert_eq!(headers["x-forwarded-host"], "a.example");
    }
    assert_eq!(
        headers.contains_key("forwarded"),
        forwarding == ForwardingHeader::Forwarded
    );
});
