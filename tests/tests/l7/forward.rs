//! What reaches the upstream, and what comes back.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use gateway::config::model::HeaderEdit;
use gateway::http::reject::Reject;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};
use http::{HeaderName, HeaderValue};

#[test]
fn a_request_goes_through_and_back_with_the_forwarding_headers() {
    let upstream = Upstream::text("hello");
    let gateway = Gateway::start(&Site::to(&upstream));
    let response = Client::connect(gateway.address()).get("/x/../v1//orders?q=%2F..&a=b");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    let request = upstream.last();
    assert_eq!(
        request.target, "/v1/orders?q=%2F..&a=b",
        "canonical path, query untouched"
    );
    assert_eq!(request.header("host"), ["a.example"]);
    assert_eq!(request.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.header("x-forwarded-proto"), ["http"]);
    assert_eq!(
        request.header("x-request-id"),
        [response.header("x-request-id").unwrap()]
    );
    // Counted once the answer has left, which the client may see first.
    let line = r#"gateway_requests_total{route="*/**",status="2xx"} 1"#;
    let counted = eventually(|| gateway.metrics.encode().contains(line));
    assert!(counted, "{}", gateway.metrics.encode());
}

#[test]
fn routes_are_chosen_by_host_and_path() {
    let names = ["exact", "suffix", "any", "capture"];
    let upstreams = names.map(Upstream::text);
    let [exact, suffix, any, capture] = upstreams.each_ref().map(|u| [(u.address(), 1)]);
    let site = Site::new()
        .route("api.example", "/v1/**", &exact)
        .route("*.example", "/**", &suffix)
        .route("*", "/**", &any)
        .route("api.example", "/v1/{id}/x", &capture);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for (host, path, expected) in [
        ("API.example:80", "/v1/a", "exact"),
        ("api.example", "/v1", "exact"),
        ("api.example", "/v1/7/x", "capture"),
        ("api.example", "/v2", "suffix"),
        ("b.c.example", "/", "suffix"),
        ("other", "/v1/a", "any"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(client.send(request).response().text(), expected, "{host}{path}");
    }
}

#[test]
fn nothing_is_served_without_a_route() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::new().route("*", "/only", &[(upstream.address(), 1)]));
    let response = Client::connect(gateway.address()).get("/other");
    assert_eq!(
        (response.status, response.code().as_deref()),
        (404, Some("no_route"))
    );
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(gateway.rejects(), [Reject::NoRoute]);
    assert!(upstream.requests().is_empty());
}

#[test]
fn keys_are_checked_and_do_not_travel_on() {
    let upstream = Upstream::text("in");
    let gateway = Gateway::start(&Site::to(&upstream).api_key(&[("right", "alice")]));
    let mut client = Client::connect(gateway.address());
    let mut ask = |keys: &str| {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{keys}\r\n"))
            .response()
    };
    assert_eq!(ask("X-API-Key: right\r\n").text(), "in");
    assert!(upstream.last().header("x-api-key").is_empty());
    let missing = ask("");
    assert_eq!(
        (missing.status, missing.code().as_deref()),
        (401, Some("credentials_missing"))
    );
    assert!(missing.header("www-authenticate").is_some());
    for wrong in [
        "X-API-Key: wrong\r\n",
        "X-API-Key: right\r\nX-API-Key: right\r\n",
        "X-API-Key:\r\n",
    ] {
        assert_eq!(
            ask(wrong).code().as_deref(),
            Some("credentials_invalid"),
            "{wrong}"
        );
    }
    assert_eq!(upstream.requests().len(), 1);
    let client = gateway.refusals()[1].0;
    assert_eq!(client.socket.ip().to_string(), "127.0.0.1");
    assert_eq!(gateway.metrics.rejects("*/**", "credentials_invalid"), 3);
}

#[test]
fn header_lines_are_edited_both_ways() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nServer: secret\r\nX-Old: 1\r\nConnection: X-Gone\r\nX-Gone: 1\r\nContent-Length: 0\r\n\r\n");
        true
    });
    let edit = |remove: &'static str, set: &'static str| HeaderEdit {
        remove: vec![HeaderName::from_static(remove)],
        set: vec![(HeaderName::from_static(set), HeaderValue::from_static("edge"))],
        add: vec![(HeaderName::from_static("x-more"), HeaderValue::from_static("1"))],
        ..HeaderEdit::default()
    };
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| {
        route.request = edit("user-agent", "x-gateway").into();
        route.response = edit("server", "x-old").into();
    }));
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\nX-Gateway: forged\r\nX-More: 0\r\n\r\n";
    let response = Client::connect(gateway.address()).send(request).response();
    let seen = upstream.last();
    assert!(seen.header("user-agent").is_empty());
    assert_eq!(seen.header("x-gateway"), ["edge"]);
    assert_eq!(seen.header("x-more"), ["0", "1"]);
    assert_eq!(
        (response.header("server"), response.header("x-gone")),
        (None, None)
    );
    assert_eq!(response.header("x-old"), Some("edge"));
}

#[test]
fn weights_share_out_the_requests() {
    let (heavy, light) = (Upstream::text("heavy"), Upstream::text("light"));
    let endpoints = [(heavy.address(), 3), (light.address(), 1)];
    let gateway = Gateway::start(&Site::new().route("*", "/**", &endpoints));
    let mut client = Client::connect(gateway.address());
    for _ in 0..40 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((heavy.requests().len(), light.requests().len()), (30, 10));
}

#[test]
fn connections_to_the_upstream_are_kept_and_used_again() {
    let upstream = Upstream::text("x");
    let gateway = Gateway::start(&Site::to(&upstream));
    for _ in 0..5 {
        assert_eq!(Client::connect(gateway.address()).get("/").status, 200);
    }
    assert!(upstream.requests().iter().all(|request| request.connection == 0));
}

#[test]
fn a_body_streams_up_while_the_response_streams_down() {
    let (first, got_first) = mpsc::channel();
    let first = Mutex::new(first);
    let upstream = Upstream::start(move |_, wire| {
        wire.read_until(b"one");
        first.lock().unwrap().send(()).unwrap();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nearl\r\n");
        wire.read_until(b"0\r\n\r\n");
        wire.send("4\r\nlate\r\n0\r\n\r\n");
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    let patience = std::time::Duration::from_secs(10);
    got_first
        .recv_timeout(patience)
        .expect("the upstream has the first piece before the last is sent");
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(
        client.chunk().unwrap().unwrap(),
        b"earl",
        "the client has it before its request has ended"
    );
    client.send("3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.chunk().unwrap().unwrap(), b"late");
    assert_eq!(client.chunk().unwrap(), None);
}

#[test]
fn responses_without_a_body_are_told_from_those_with_one() {
    let upstream = Upstream::start(|request, wire| {
        wire.send(match request.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "/103" => {
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            }
            "/205" => "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        });
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    for (method, path, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("HEAD", "/", 200, Some("5")),
        ("GET", "/103", 200, Some("2")),
        ("GET", "/205", 205, Some("0")),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        if path == "/103" {
            assert_eq!(client.head().unwrap().status, 103);
        }
        let bodiless = method == "HEAD" || status == 304;
        let response = if bodiless {
            client.head().unwrap()
        } else {
            client.response()
        };
        assert_eq!(
            (response.status, response.header("content-length")),
            (status, length),
            "{path}"
        );
    }
    assert!(
        upstream.requests().iter().all(|request| request.connection == 0),
        "each left the connection clean"
    );
}

#[test]
fn a_205_has_no_body_whatever_the_upstream_sends() {
    for body in [
        "Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
        "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "Content-Type: text/plain\r\nContent-Length: 40\r\n\r\nbody",
    ] {
        let upstream = Upstream::start(move |_, wire| {
            wire.send(format!("HTTP/1.1 205 Reset Content\r\nX-Kept: 1\r\n{body}"));
            true
        });
        let gateway = Gateway::start(&Site::to(&upstream));
        let mut client = Client::connect(gateway.address());
        for connection in 0..2 {
            let answer = client.get("/");
            assert_eq!((answer.status, answer.text().as_str()), (205, ""));
            assert_eq!(
                (answer.header("x-kept"), answer.header("content-type")),
                (Some("1"), None)
            );
            assert_eq!(
                upstream.last().connection,
                connection,
                "not clean to be used again"
            );
        }
    }
}

#[test]
fn a_closed_idle_connection_is_retried_once_for_a_get_and_never_for_a_post() {
    // Each connection answers once, takes a second request, and closes without a word.
    let served = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let upstream = Upstream::start(move |request, wire| {
        wire.body(request);
        if !served.lock().unwrap().insert(request.connection) {
            return false;
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/1").text(), "ok");
    assert_eq!(client.get("/2").text(), "ok", "sent again on a fresh connection");
    let post = client
        .send("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        .response();
    assert_eq!(
        (post.status, post.code().as_deref()),
        (502, Some("upstream_closed"))
    );
    let targets: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.target.clone())
        .collect();
    assert_eq!(targets, ["/1", "/2", "/2", "/3"]);
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    let upstream = Upstream::text("alive");
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Gateway::start(&Site::new().route("*", "/**", &[(dead, 1), (upstream.address(), 1)]));
    let mut client = Client::connect(gateway.address());
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "alive");
    }
    let gateway = Gateway::start(&Site::new().route("*", "/**", &[(dead, 1)]));
    let response = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (response.status, response.code().as_deref()),
        (502, Some("upstream_unreachable"))
    );
}

#[test]
fn expect_100_continue_is_answered_when_the_body_is_wanted() {
    let upstream = Upstream::text("got it");
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 100);
    assert_eq!(client.send("ok").response().text(), "got it");
    assert!(upstream.last().header("expect").is_empty());
}

#[test]
fn a_request_that_comes_back_again_and_again_ends() {
    let upstream = Upstream::text("there");
    let gateway = Gateway::start(&Site::to(&upstream));
    // As behind a few other gateways.
    let via = "Via: 1.1 a, 2 gateway, 1.1 b\r\nVia: 1.1 gateway\r\n";
    assert_eq!(gateway.ask("GET /", via).status, 200);
    assert_eq!(upstream.last().header("via").last(), Some(&"1.1 gateway"));
    gateway.reload(&Site::new().route("*", "/**", &[(gateway.address(), 1)]));
    let answer = gateway.ask("GET /", "");
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (508, Some("loop_detected"))
    );
    assert_eq!(gateway.rejects(), [Reject::LoopDetected]);
    let counted = r#"gateway_requests_total{route="*/**",status="5xx"} 9"#;
    assert!(eventually(|| gateway.metrics.encode().contains(counted)));
}
