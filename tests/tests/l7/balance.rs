//! Which upstream and which endpoint a request goes to, and what else gets a copy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use gateway::config::model::{
    Action, Balance, Coding, HashBy, Mirror, Split, Sticky, Upstream as Model, UpstreamId,
};
use gateway::http::coding::encode::Encoder;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};

fn get(client: &mut Client, lines: &str) -> Response {
    client
        .send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"))
        .response()
}

/// Refuses connections.
fn dead() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_and_moves_only_if_that_is_gone() {
    let upstreams = ["a", "b", "c", "d"].map(Upstream::text);
    let by_user = |upstream: &mut Model| {
        upstream.balance = Balance::ConsistentHash;
        upstream.hash_by = Some(HashBy::Header("x-user".parse().unwrap()));
    };
    let all: Vec<_> = upstreams.iter().map(|u| (u.address(), 1)).collect();
    let site = Site::new().route("*", "/**", &all).upstream(by_user);
    let gateway = Gateway::start(&site);
    let ask = |gateway: &Gateway| -> BTreeMap<u32, String> {
        let mut client = Client::connect(gateway.address());
        let mut one = |user: u32| (user, get(&mut client, &format!("X-User: {user}\r\n")).text());
        (0..200).map(&mut one).collect()
    };
    let before = ask(&gateway);
    assert_eq!(before, ask(&gateway), "every time the same");
    assert_eq!(before, ask(&Gateway::start(&site)), "and at every gateway");
    let share = |name: &str| before.values().filter(|text| *text == name).count();
    assert!(
        ["a", "b", "c", "d"].iter().all(|name| share(name) > 20),
        "{before:?}"
    );
    let mut lame = all.clone();
    lame.remove(1);
    let after = ask(&Gateway::start(
        &Site::new().route("*", "/**", &lame).upstream(by_user),
    ));
    for (user, text) in &before {
        assert!(
            text == "b" || after[user] == *text,
            "{user} moved from {text} to {}",
            after[user]
        );
    }
    let mut client = Client::connect(gateway.address());
    let spread: std::collections::BTreeSet<_> = (0..8).map(|_| get(&mut client, "").text()).collect();
    assert_eq!(spread.len(), 4, "without the key in turn");
}

#[test]
fn a_cookie_brings_a_client_back_and_tells_nothing() {
    let upstreams = ["a", "b", "c"].map(Upstream::text);
    let sticky = |upstream: &mut Model| {
        upstream.sticky = Some(Sticky {
            cookie: "gw".into(),
            max_age: Some(Duration::from_secs(60)),
            secret: None,
        });
    };
    let site = Site::among(&upstreams.each_ref()).upstream(sticky);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    let first = get(&mut client, "");
    let cookie = first.header("set-cookie").unwrap().to_owned();
    assert!(
        cookie.starts_with("gw=") && cookie.contains("; HttpOnly") && cookie.contains("; Max-Age=60"),
        "{cookie}"
    );
    assert!(!cookie.contains("127.0.0.1"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    for _ in 0..12 {
        let again = get(&mut client, &format!("Cookie: other=1; {pair}\r\n"));
        assert_eq!(again.text(), first.text());
        assert_eq!(again.header("set-cookie"), None, "it has it already");
    }
    for forged in ["gw=", "gw=127.0.0.1:80", "gw=00000000000000000000000000000000"] {
        let other = get(&mut client, &format!("Cookie: {forged}\r\n"));
        assert!(
            other.status == 200 && other.header("set-cookie").is_some(),
            "{forged}"
        );
    }
}

#[test]
fn a_cookie_for_an_endpoint_that_is_away_leads_to_another() {
    let alive = Upstream::text("alive");
    let secret = Some(b"0123456789abcdef".to_vec());
    let site = |endpoints: &[(SocketAddr, u32)]| {
        let site = Site::new().route("*", "/**", endpoints);
        site.upstream(|upstream| {
            upstream.sticky = Some(Sticky {
                cookie: "gw".into(),
                max_age: None,
                secret: secret.clone(),
            });
        })
    };
    let goner = Upstream::text("goner");
    let gateway = Gateway::start(&site(&[(goner.address(), 1)]));
    let response = get(&mut Client::connect(gateway.address()), "");
    let cookie = response.header("set-cookie").unwrap();
    let cookie = cookie.split(';').next().unwrap();
    // The same secret: another gateway knows the cookie, but the endpoint is not its own.
    let gateway = Gateway::start(&site(&[(alive.address(), 1), (dead(), 1)]));
    let response = get(
        &mut Client::connect(gateway.address()),
        &format!("Cookie: {cookie}\r\n"),
    );
    assert_eq!(response.text(), "alive");
    assert!(
        response
            .header("set-cookie")
            .is_some_and(|new| !new.starts_with(cookie))
    );
}

/// A route with `parts` of several upstreams.
fn split(upstreams: &[&Upstream], weights: &[u32], by: Option<HashBy>) -> Site {
    let mut site = Site::new();
    for (index, upstream) in upstreams.iter().enumerate() {
        site = site.route("*", &format!("/unused/{index}"), &[(upstream.address(), 1)]);
    }
    let parts = weights
        .iter()
        .enumerate()
        .map(|(id, weight)| (UpstreamId(id), *weight));
    let split = Split {
        parts: parts.collect(),
        by,
    };
    site.route("*", "/**", &[(dead(), 1)]).with(|route| {
        route.action = Action::Forward(UpstreamId(0));
        route.split = Some(Box::new(split));
    })
}

#[test]
fn a_canary_gets_its_share_and_none_without_weight() {
    let (stable, canary, off) = (
        Upstream::text("stable"),
        Upstream::text("canary"),
        Upstream::text("off"),
    );
    let gateway = Gateway::start(&split(&[&stable, &canary, &off], &[90, 10, 0], None));
    let mut client = Client::connect(gateway.address());
    for _ in 0..1000 {
        assert_eq!(client.get("/").status, 200);
    }
    let share = canary.requests().len();
    assert!((60..150).contains(&share), "{share} of 1000");
    assert!(off.requests().is_empty());
}

#[test]
fn a_client_stays_at_its_part_if_asked_to() {
    let (stable, canary) = (Upstream::text("stable"), Upstream::text("canary"));
    let by = Some(HashBy::Cookie("session".into()));
    let gateway = Gateway::start(&split(&[&stable, &canary], &[50, 50], by));
    let mut client = Client::connect(gateway.address());
    let mut seen = std::collections::BTreeSet::new();
    for session in 0..40 {
        let lines = format!("Cookie: session={session}\r\n");
        let first = get(&mut client, &lines).text();
        assert!((0..3).all(|_| get(&mut client, &lines).text() == first));
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2);
}

fn mirrored(main: &Upstream, copy: &Upstream, share: u32, body_bytes: u32) -> Site {
    Site::new()
        .route("*", "/unused", &[(copy.address(), 1)])
        .route("*", "/**", &[(main.address(), 1)])
        .with(|route| {
            route.mirror = Some(Mirror {
                upstream: UpstreamId(0),
                share,
                body_bytes,
            });
        })
}

#[test]
fn a_mirror_sees_requests_with_their_small_bodies_and_nobody_sees_it() {
    let main = Upstream::text("main");
    let (body, bodies) = mpsc::channel();
    let body = std::sync::Mutex::new(body);
    let copy = Upstream::start(move |request, wire| {
        body.lock().unwrap().send(wire.body(request)).unwrap();
        wire.send("HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nnono");
        true
    });
    let gateway = Gateway::start(&mirrored(&main, &copy, 10_000, 8));
    let mut client = Client::connect(gateway.address());
    let patience = Duration::from_secs(10);
    assert_eq!(client.get("/x?q").text(), "main");
    assert_eq!(bodies.recv_timeout(patience).unwrap(), b"");
    assert_eq!(copy.last().target, "/x?q");
    let mut post = |framing: &str| {
        let request = format!("POST /p HTTP/1.1\r\nHost: a\r\n{framing}");
        client.send(request).response().text()
    };
    assert_eq!(post("Content-Length: 8\r\n\r\n12345678"), "main");
    assert_eq!(bodies.recv_timeout(patience).unwrap(), b"12345678");
    assert_eq!(
        post("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        "main"
    );
    let seen = bodies.recv_timeout(patience).unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("abcde"), "{seen:?}");
    // One that is known to be too long, and one that turns out to be.
    assert_eq!(post("Content-Length: 9\r\n\r\n123456789"), "main");
    assert_eq!(
        post("Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n3\r\nghi\r\n0\r\n\r\n"),
        "main"
    );
    assert!(eventually(|| {
        let text = gateway.metrics.encode();
        text.contains(r#"gateway_upstream_mirror_skipped_total{upstream="*/unused"} 2"#)
            && text.contains(r#"gateway_upstream_mirrored_total{upstream="*/unused"} 3"#)
    }));
    assert_eq!(copy.requests().len(), 3);
    assert_eq!(main.requests().len(), 5);
}

#[test]
fn a_mirror_sees_of_bodies_that_are_held_or_made_plain_what_the_upstream_sees() {
    let main = Upstream::mirror("");
    let (body, bodies) = mpsc::channel();
    let body = std::sync::Mutex::new(body);
    let copy = Upstream::start(move |request, wire| {
        let seen = (wire.body(request), request.header("content-length").join(","));
        body.lock().unwrap().send(seen).unwrap();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        true
    });
    let routes = format!(
        "upstreams: {{copy: {{endpoints: [{{url: 'http://{}'}}]}}}}\nroutes:\n  \
         - {{match: {{path: /edited}}, MIRROR, request: {{body: {{json: [{{set: /b, value: 1}}]}}}}, upstream: UP}}\n  \
         - {{match: {{path: /plain}}, MIRROR, decompress: {{max: 1MiB}}, upstream: UP}}\n",
        copy.address()
    )
    .replace("MIRROR", "mirror: {upstream: copy, percent: 100%, body_bytes: 16B}");
    let gateway = Gateway::start(&Site::written(&routes, &main));
    let mut client = Client::connect(gateway.address());
    let patience = Duration::from_secs(10);
    let mut post = |path: &str, line: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{line}Content-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head).send(body).response()
    };
    assert_eq!(post("/edited", "", br#"{"a":1}"#).text(), r#"{"a":1,"b":1}"#);
    let (seen, length) = bodies.recv_timeout(patience).unwrap();
    assert_eq!((&seen[..], length.as_str()), (&br#"{"a":1,"b":1}"#[..], "13"));
    let coded = |body: &[u8]| Encoder::new(Coding::Gzip).unwrap().whole(body).unwrap();
    let gzip = "Content-Encoding: gzip\r\n";
    assert!(
        post("/plain", gzip, &coded(br#"{"a":1}"#))
            .text()
            .contains(r#"{"a":1}"#)
    );
    let (seen, length) = bodies.recv_timeout(patience).unwrap();
    assert_eq!((&seen[..], length.as_str()), (&br#"{"a":1}"#[..], "7"));
    // What is longer than a copy may be.
    assert_eq!(post("/edited", "", br#"{"a":1234567}"#).status, 200);
    assert_eq!(post("/plain", gzip, &coded(br#"{"a":12345678901}"#)).status, 200);
    // What is cut off is no copy.
    let broken = coded(br#"{"a":1}"#);
    assert_eq!(post("/plain", gzip, &broken[..broken.len() - 4]).status, 400);
    assert!(eventually(|| {
        let text = gateway.metrics.encode();
        text.contains(r#"gateway_upstream_mirror_skipped_total{upstream="copy"} 3"#)
            && text.contains(r#"gateway_upstream_mirrored_total{upstream="copy"} 2"#)
    }));
}

#[test]
fn a_mirror_that_hangs_or_is_away_changes_nothing() {
    let main = Upstream::text("main");
    let copy = Upstream::start(|_, wire| {
        wire.wait_for_close();
        false
    });
    for site in [
        mirrored(&main, &copy, 10_000, 8),
        mirrored(&main, &Upstream::text("never"), 1, 8),
    ] {
        let gateway = Gateway::start(&site);
        let mut client = Client::connect(gateway.address());
        for _ in 0..300 {
            assert_eq!(client.get("/").text(), "main");
        }
        let text = gateway.metrics.encode();
        let connections = copy.requests().iter().map(|request| request.connection).max();
        assert!(
            connections.is_none_or(|most| most < 128),
            "copies under way are bounded: {text}"
        );
    }
}
