//! Requests and responses that lie.

use std::io::ErrorKind;

use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// What the gateway must answer with 400 and a closed connection, without a byte reaching the upstream: lengths.
const LENGTHS: &[(&str, &str)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "both, other order",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd",
    ),
    (
        "plus",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
    ),
    (
        "hexadecimal",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nabcd",
    ),
    (
        "underscore",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nabcd",
    ),
    (
        "empty length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabcd",
    ),
];

/// What the gateway must answer with 400 and a closed connection, without a byte reaching the upstream: transfer codings.
const CODINGS: &[(&str, &str)] = &[
    (
        "comma before",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "identity last",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "gzip first",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two codings",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "misspelt",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in 1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
];

/// What the gateway must answer with 400 and a closed connection, without a byte reaching the upstream: first lines and header lines.
const LINES: &[(&str, &str)] = &[
    (
        "space before colon",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n",
    ),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n"),
    ("folded line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n"),
    ("folded first line", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \0\r\n\r\n"),
    (
        "bare CR in a value",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\rX-B: 2\r\n\r\n",
    ),
    ("bare LF lines", "GET / HTTP/1.1\nHost: a\n\n"),
    (
        "one bare LF",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\nX-B: 2\r\n\r\n",
    ),
    ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no version", "GET /\r\nHost: a\r\n\r\n"),
    ("version 2 by name", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
];

#[test]
fn t01_a_length_that_is_not_one_plain_number_is_refused_and_the_connection_closed() {
    are_refused(LENGTHS);
}

#[test]
fn t02_a_transfer_coding_but_one_chunked_is_refused_and_the_connection_closed() {
    are_refused(CODINGS);
}

#[test]
fn t07_lines_that_are_none_are_refused_and_the_connection_closed() {
    are_refused(LINES);
}

fn are_refused(requests: &[(&str, &str)]) {
    let upstream = Upstream::text("smuggled");
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut wrong = vec![];
    for (name, request) in requests {
        let before = gateway.rejects().len();
        let mut client = Client::connect(gateway.address());
        // The second request must never be served: whatever follows an ambiguous one is ambiguous.
        let response = client
            .send(request)
            .send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            .try_response();
        let status = response.map(|response| response.status).unwrap_or(0);
        let rest = client.rest();
        if status != 400 || !rest.is_empty() {
            wrong.push(format!(
                "{name}: {status}, then {:?}",
                String::from_utf8_lossy(&rest)
            ));
        } else if !gateway_tests::l7::gateway::eventually(|| gateway.rejects().len() == before + 1) {
            wrong.push(format!("{name}: not counted"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let reached = upstream.requests();
    assert!(reached.is_empty(), "{reached:?}");
    assert!(
        gateway
            .rejects()
            .iter()
            .all(|reject| *reject == Reject::Malformed)
    );
}

#[test]
fn a_header_split_anywhere_is_judged_the_same() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream));
    for request in [LENGTHS[0].1, LINES[7].1, LINES[8].1] {
        for at in 1..request.find("\r\n\r\n").unwrap_or(request.len()) {
            let mut client = Client::connect(gateway.address());
            let status = client
                .send(&request[..at])
                .send(&request[at..])
                .try_response()
                .map_or(0, |r| r.status);
            assert_eq!(status, 400, "split at {at}: {request:?}");
        }
    }
    assert!(upstream.requests().is_empty());
    let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd";
    let mut client = Client::connect(gateway.address());
    for at in 1..good.len() {
        assert_eq!(
            client.send(&good[..at]).send(&good[at..]).response().status,
            200,
            "split at {at}"
        );
    }
}

#[test]
fn t03_chunks_that_lie_never_complete_a_request() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream));
    for body in [
        "0x5\r\nhello\r\n",
        "5\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "\r\nhello\r\n",
        "-1\r\n",
        "g\r\n",
        "fffffffffffffffff\r\nx\r\n",
        "5\r\nhelloX\r\n",
        "3\r\nhello\r\n",
        "5;a\nb\r\nhello\r\n",
        "5 5\r\nhello\r\n",
    ] {
        let mut client = Client::connect(gateway.address());
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n"
        ));
        let response = client
            .send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            .try_response();
        assert_eq!(response.map_or(0, |response| response.status), 400, "{body:?}");
        assert!(client.rest().is_empty(), "{body:?}");
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.target != "/second")
    );
    assert!(
        gateway
            .rejects()
            .iter()
            .all(|reject| *reject == Reject::Malformed),
        "{:?}",
        gateway.rejects()
    );
}

#[test]
fn a_body_that_looks_like_a_header_is_just_a_body() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    let body = "GET /x HTTP/1.1\nContent-Length: 3\nTransfer-Encoding: chunked\n\n";
    let length = body.len();
    for _ in 0..2 {
        client.send(format!(
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(client.response().status, 200);
        client.send(format!("POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x};x=y\r\n{body}\r\n0\r\nT: 1\r\n\r\n"));
        assert_eq!(client.response().status, 200);
    }
    // Pipelined, so that a header begins in the middle of what was read.
    client.send(format!("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!((client.response().status, client.response().status), (200, 200));
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn t04_an_unread_body_never_becomes_a_request() {
    let upstream = Upstream::text("in");
    let gateway = Gateway::start(&Site::to(&upstream).api_key(&[("right", "alice")]));
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\nX-API-Key: right\r\n\r\n";
    for framing in [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
            inner.len()
        ),
        format!("Content-Length: 100000\r\n\r\n{inner}"),
    ] {
        let mut client = Client::connect(gateway.address());
        let response = client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"))
            .response();
        assert_eq!(
            (response.status, response.header("connection")),
            (401, Some("close"))
        );
        assert!(client.rest().is_empty());
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn t08_hosts_must_be_one_and_valid() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream));
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
    ] {
        let response = Client::connect(gateway.address())
            .send(format!("{head}\r\n"))
            .response();
        assert_eq!(
            (response.status, response.code().as_deref()),
            (400, Some("bad_host")),
            "{head:?}"
        );
    }
    assert!(upstream.requests().is_empty());
    let response = Client::connect(gateway.address())
        .send("GET http://A/x HTTP/1.1\r\nHost: a\r\n\r\n")
        .response();
    assert_eq!((response.status, upstream.last().target.as_str()), (200, "/x"));
}

#[test]
fn t08_a_target_s_scheme_is_one_that_is_served_on_this_connection() {
    let upstream = Upstream::text("");
    let plain = Site::to(&upstream);
    let behind_tls = Site::to(&upstream).trusting(&["127.0.0.0/8"]);
    let ask = |site: &Site, target: &str| {
        let gateway = Gateway::start(site);
        let mut client = Client::connect(gateway.address());
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.send(head).response();
        (response.status, response.code().unwrap_or_default())
    };
    for target in [
        "ftp://a/",
        "ws://a/",
        "file://a/etc/passwd",
        "httpx://a/",
        "javascript://a/",
    ] {
        assert_eq!(ask(&plain, target), (400, "malformed".into()), "{target}");
    }
    assert_eq!(ask(&plain, "https://a/"), (421, "misdirected".into()));
    assert!(upstream.requests().is_empty());
    assert_eq!(ask(&plain, "HTTP://a/").0, 200);
    assert_eq!(ask(&behind_tls, "https://a/").0, 200, "who ended TLS is trusted");
}

#[test]
fn t09_connect_trace_and_upgrades_are_not_forwarded() {
    let upstream = Upstream::text("plain");
    let gateway = Gateway::start(&Site::to(&upstream));
    for request in [
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(
            Client::connect(gateway.address()).send(request).response().status,
            501
        );
    }
    assert!(upstream.requests().is_empty());
    for protocol in ["h2c", "websocket, h2c", "TLS/1.0"] {
        let upgrade = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AA\r\n\r\n"
        );
        let mut client = Client::connect(gateway.address());
        assert_eq!(client.send(upgrade).response().text(), "plain");
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(upstream.last().header(gone).is_empty(), "{protocol}: {gone}");
        }
    }
}

#[test]
fn one_path_for_policy_log_and_upstream() {
    let (open, secret) = (Upstream::text("open"), Upstream::text("secret"));
    let site = Site::new()
        .route("*", "/**", &[(open.address(), 1)])
        .route("*", "/admin/**", &[(secret.address(), 1)])
        .api_key(&[("right", "alice")]);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for path in [
        "/admin",
        "//admin",
        "/x/../admin",
        "/%61dmin/x",
        "/./admin",
        "/x/%2e%2e/admin",
        "/admin/../admin",
    ] {
        assert_eq!(client.get(path).status, 401, "{path}");
    }
    for path in [
        "/x%2f..%2fadmin",
        "/x\\..\\admin",
        "/x/..%5cadmin",
        "/..;/admin",
        "/a%00",
        "/../admin",
        "/%zz",
    ] {
        let mut client = Client::connect(gateway.address());
        let response = client.get(path);
        assert_eq!(
            (response.status, response.code().as_deref()),
            (400, Some("bad_path")),
            "{path}"
        );
    }
    assert!(open.requests().is_empty() && secret.requests().is_empty());
}

#[test]
fn forged_addresses_are_believed_from_trusted_proxies_only() {
    let upstream = Upstream::text("");
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\nX_Forwarded_For: 1.1.1.1\r\n\
        X-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Request-Id: chosen\r\nConnection: X-Forwarded-For\r\n\r\n";
    let gateway = Gateway::start(&Site::to(&upstream));
    Client::connect(gateway.address()).send(request).response();
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-real-ip"), ["127.0.0.1"]);
    assert_ne!(seen.header("x-request-id"), ["chosen"]);
    assert!(seen.header("forwarded").is_empty() && seen.header("x_forwarded_for").is_empty());

    let gateway = Gateway::start(&Site::to(&upstream).trusting(&["127.0.0.0/8"]).api_key(&[]));
    let trusted = request.replace("Connection: X-Forwarded-For\r\n", "");
    assert_eq!(
        Client::connect(gateway.address())
            .send(&trusted)
            .response()
            .status,
        401
    );
    let (client, _) = gateway.refusals()[0];
    assert_eq!(client.forwarded.unwrap().ip().to_string(), "198.51.100.7");
    assert_eq!(client.socket.ip().to_string(), "127.0.0.1");
    gateway
        .recorder
        .refused
        .lock()
        .unwrap()
        .insert("198.51.100.7".parse().unwrap());
    let blocked = Client::connect(gateway.address()).send(&trusted).response();
    assert_eq!(
        (blocked.status, blocked.code().as_deref()),
        (400 + 3, Some("blocked"))
    );
    assert_eq!(blocked.header("x-request-id"), Some("chosen"));
}

#[test]
fn t10_responses_that_lie_become_502_and_their_connection_is_not_used_again() {
    for lie in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n",
        "HTTP/1.1 600 Eh\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "garbage\r\n\r\n",
        "",
    ] {
        let upstream = Upstream::start(move |_, wire| {
            wire.send(lie);
            !lie.is_empty()
        });
        let gateway = Gateway::start(&Site::to(&upstream));
        for connection in 0..2 {
            let response = Client::connect(gateway.address()).get("/");
            assert_eq!(
                (response.status, response.code().as_deref()),
                (
                    502,
                    Some(if lie.is_empty() {
                        "upstream_closed"
                    } else {
                        "upstream_malformed"
                    })
                ),
                "{lie:?}"
            );
            assert_eq!(upstream.last().connection, connection, "{lie:?}");
        }
    }
}

#[test]
fn t10_bytes_after_a_response_do_not_reach_the_next_client() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    for _ in 0..20 {
        assert_eq!(Client::connect(gateway.address()).get("/").text(), "ok");
    }
}

#[test]
fn t10_a_response_cut_short_is_cut_short_for_the_client_too() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let error = Client::connect(gateway.address())
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .try_response()
        .unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    ));
    assert!(gateway.told(Reject::UpstreamClosed));
}
