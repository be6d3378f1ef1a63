//! Callers that somebody else vouches for: a password, a certificate, a service that decides, a service that knows tokens.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::config::model::hash_password;
use gateway_tests::l7::issuer::now;
use gateway_tests::l7::{Client, Gateway, Issuer, Site, Upstream};
use serde_json::json;

/// Base64 of a short text.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let word = chunk
            .iter()
            .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}

fn basic(user: &str, password: &str) -> String {
    format!(
        "Authorization: Basic {}\r\n",
        base64(&format!("{user}:{password}"))
    )
}

#[test]
fn passwords_are_verified_once_in_a_while_and_go_no_further() {
    let upstream = Upstream::text("in");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    // The second by `htpasswd -nbB`, in the manual of Apache's server.
    let bcrypt = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    let text = format!(
        "# users\nalice:{}\n\nbob:{bcrypt}\n",
        hash_password("pass:word").unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let auth = format!(
        "{{basic: {{realm: here, users: {{file: {}}}}}, pass: {{X-User: name}}}}",
        file.display()
    );
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let begun = Instant::now();
    assert_eq!(gateway.ask("GET /", &basic("alice", "pass:word")).status, 200);
    let first = begun.elapsed();
    let seen = upstream.last();
    assert_eq!(
        (seen.header("x-user"), seen.header("authorization")),
        (vec!["alice"], vec![])
    );
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(gateway.ask("GET /", &basic("alice", "pass:word")).status, 200);
    }
    assert!(
        begun.elapsed() < first * 5,
        "{:?} after {first:?}",
        begun.elapsed()
    );
    assert_eq!(gateway.ask("GET /", &basic("bob", "myPassword")).status, 200);
    for lines in [
        basic("alice", "pass"),
        basic("alice", ""),
        basic("bob", "myPasswor"),
        basic("mallory", "pass:word"),
        "Authorization: Basic !!!\r\n".to_owned(),
        basic("alice", &"x".repeat(5_000)),
        [basic("alice", "pass:word"), basic("bob", "myPassword")].concat(),
    ] {
        let answer = gateway.ask("GET /", &lines);
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (401, Some("credentials_invalid")),
            "{lines}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Basic realm="here", charset="UTF-8""#)
        );
    }
    assert_eq!(
        gateway.ask("GET /", "").code().as_deref(),
        Some("credentials_missing")
    );
}

#[test]
fn a_crowd_that_guesses_passwords_does_not_stop_the_others() {
    let upstream = Upstream::text("in");
    let auth = format!(
        "{{basic: {{users: [{{name: alice, hash: \"{}\"}}]}}}}",
        hash_password("right").unwrap()
    );
    let mut site = Site::guarded(&auth, &upstream);
    let open = Site::written("routes: [{match: {path: /open}, upstream: UP}]\n", &upstream);
    let mut route = (*open.config.routes[0]).clone();
    route.action = site.config.routes[0].action.clone();
    site.config.routes.push(Arc::new(route));
    let gateway = Gateway::start(&site);
    assert_eq!(gateway.ask("GET /", &basic("alice", "right")).status, 200);
    std::thread::scope(|scope| {
        for at in 0..60 {
            let gateway = &gateway;
            scope.spawn(move || {
                let status = gateway
                    .ask("GET /", &basic("alice", &format!("guess-{at}")))
                    .status;
                assert!([401, 503].contains(&status), "{status}");
            });
        }
        std::thread::sleep(Duration::from_millis(20));
        for (line, lines) in [("GET /open", String::new()), ("GET /", basic("alice", "right"))] {
            let begun = Instant::now();
            assert_eq!(gateway.ask(line, &lines).status, 200);
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
    });
}

/// A service that decides by the path that it is asked about, and the addresses it was asked about.
fn judge() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let service = Upstream::start(move |request, wire| {
        let uri = request.header("x-forwarded-uri").concat();
        seen.lock()
            .unwrap()
            .push(format!("{} {uri}", request.header("x-forwarded-method").concat()));
        let answer = match uri.as_str() {
            "/in" => {
                "HTTP/1.1 200 OK\r\nX-Auth-User: alice\r\nX-Auth-Role: a\r\nX-Auth-Role: b\r\nX-Secret: 1\r\nContent-Length: 2\r\n\r\nok"
            }
            "/two" => {
                "HTTP/1.1 200 OK\r\nX-Auth-User: alice\r\nX-Auth-User: root\r\nContent-Length: 2\r\n\r\nok"
            }
            "/far" => "HTTP/1.1 200 OK\r\nX-Auth-User: gr\u{f6}\u{df}e\r\nContent-Length: 0\r\n\r\n",
            "/empty" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/login" => {
                "HTTP/1.1 302 Found\r\nLocation: https://login.example/?r=1\r\nSet-Cookie: s=1; Path=/\r\nX-Secret: 1\r\nContent-Length: 0\r\n\r\n"
            }
            "/out" => {
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Custom a=\"b\"\r\nX-Why: no\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\ngo away"
            }
            "/unchanged" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            "/never" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            "/broken" => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            "/close" => return false,
            "/nonsense" => "what?\r\n\r\n",
            "/huge" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
                for _ in 0..100 {
                    wire.send([b'x'; 16 << 10]);
                }
                return true;
            }
            "/header" => {
                wire.send("HTTP/1.1 200 OK\r\n");
                for at in 0..100 {
                    wire.send(format!("X-{at}: {}\r\n", "y".repeat(2_000)));
                }
                return true;
            }
            "/slow" => {
                std::thread::sleep(Duration::from_secs(3));
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            }
            "/drip" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
                for _ in 0..40 {
                    wire.send("x");
                    std::thread::sleep(Duration::from_millis(100));
                }
                return false;
            }
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        };
        wire.send(answer);
        true
    });
    (service, asked)
}

fn forward(service: &Upstream, more: &str) -> String {
    format!(
        "{{forward: {{url: \"http://{}/verify?x=1\", timeout: 500ms, request_headers: [Cookie, X-Key], \
         response_headers: [X-Auth-User, X-Auth-Role], name: X-Auth-User, denial_headers: [X-Why]{more}}}, pass: {{X-User: name}}}}",
        service.address()
    )
}

#[test]
fn a_service_decides_and_chooses_what_the_upstream_is_told() {
    let (upstream, (service, asked)) = (Upstream::text("in"), judge());
    let gateway = Gateway::start(&Site::guarded(&forward(&service, ""), &upstream));
    let forged = "X-Auth-User: root\r\nX-Auth-Role: root\r\nX_Auth_User: root\r\nX-User: root\r\nX-Forwarded-Uri: /never\r\n\
        X-Forwarded-Method: TRACE\r\nX-Original-URL: /never\r\nX-Rewrite-URL: /never\r\nX-Original-Method: TRACE\r\nCookie: c=1\r\nX-Key: k\r\nX-Other: o\r\n";
    let answer = gateway.ask("DELETE /in", forged);
    assert_eq!((answer.status, answer.text().as_str()), (200, "in"));
    assert_eq!(*asked.lock().unwrap(), ["DELETE /in"]);
    let shown = service.last();
    assert_eq!(
        (shown.method.as_str(), shown.target.as_str()),
        ("GET", "/verify?x=1")
    );
    assert_eq!(
        (shown.header("cookie"), shown.header("x-key")),
        (vec!["c=1"], vec!["k"])
    );
    assert!(shown.header("x-other").is_empty() && shown.header("x-auth-user").is_empty());
    assert_eq!(shown.header("x-forwarded-host"), ["a.example"]);
    assert_eq!(shown.header("x-forwarded-for"), ["127.0.0.1"]);
    let seen = upstream.last();
    assert_eq!(seen.header("x-auth-user"), ["alice"]);
    assert_eq!(seen.header("x-auth-role"), ["a", "b"]);
    assert_eq!(seen.header("x-user"), ["alice"]);
    // What the service judged is what the upstream serves.
    for name in [
        "x-secret",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x-original-url",
        "x-rewrite-url",
        "x-original-method",
    ] {
        assert!(seen.header(name).is_empty(), "{name}");
    }
    assert_eq!(gateway.ask("GET /far", "").status, 200);
    assert_eq!(upstream.last().header("x-user"), ["gr%C3%B6%C3%9Fe"]);
    // Nothing is said: nothing that the client says takes its place.
    assert_eq!(gateway.ask("GET /empty", forged).status, 200);
    let seen = upstream.last();
    for name in ["x-auth-user", "x-auth-role", "x-user"] {
        assert!(seen.header(name).is_empty(), "{name}");
    }
    let before = upstream.requests().len();
    let answer = gateway.ask("GET /login", "");
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, Some("https://login.example/?r=1"))
    );
    assert_eq!(
        (answer.header("set-cookie"), answer.header("x-secret")),
        (Some("s=1; Path=/"), None)
    );
    let answer = gateway.ask("GET /out", "");
    assert_eq!((answer.status, answer.text().as_str()), (401, "go away"));
    assert_eq!(
        (answer.header("www-authenticate"), answer.header("x-why")),
        (Some("Custom a=\"b\""), Some("no"))
    );
    assert_eq!(gateway.ask("GET /never", "").status, 403);
    let answer = gateway.ask("GET /unchanged", "If-None-Match: \"a\"\r\n");
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (503, Some("auth_unavailable")),
        "it says nothing of what the client has"
    );
    assert_eq!(upstream.requests().len(), before);
    // It was asked on one connection, as long as it kept that open.
    assert!(service.requests().iter().all(|request| request.connection == 0));

    // Conditions are the upstream's to judge, where the service is shown all else.
    let auth = format!("{{forward: {{url: \"http://{}/\"}}}}", service.address());
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let lines = "If-None-Match: \"a\"\r\nIf-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT\r\nRange: bytes=0-1\r\nX-Other: o\r\n";
    assert_eq!(gateway.ask("GET /in", lines).status, 200);
    let (shown, seen) = (service.last(), upstream.last());
    assert_eq!(shown.header("x-other"), ["o"]);
    for name in ["if-none-match", "if-modified-since", "range"] {
        assert!(shown.header(name).is_empty(), "{name}");
        assert_eq!(seen.header(name).len(), 1, "{name}");
    }
}

#[test]
fn t35_a_service_that_is_down_slow_or_huge_lets_nobody_in() {
    let (upstream, (service, _)) = (Upstream::text("in"), judge());
    let gateway = Gateway::start(&Site::guarded(&forward(&service, ""), &upstream));
    for path in [
        "/two",
        "/broken",
        "/close",
        "/nonsense",
        "/huge",
        "/header",
        "/slow",
        "/drip",
        "/else",
    ] {
        let begun = Instant::now();
        let answer = gateway.ask(&format!("GET {path}"), "");
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (503, Some("auth_unavailable")),
            "{path}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{path}: {:?}",
            begun.elapsed()
        );
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(
        gateway.ask("GET /in", "").status,
        200,
        "and what comes after is served"
    );
    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let auth = forward(&service, "").replace(&service.address().to_string(), &free.to_string());
    let down = Gateway::start(&Site::guarded(&auth, &upstream));
    assert_eq!(down.ask("GET /in", "").status, 503);
    let open = auth.replace("timeout: 500ms", "timeout: 500ms, on_failure: open");
    let open = Gateway::start(&Site::guarded(&open, &upstream));
    assert_eq!(
        open.ask("GET /in", "X-Auth-User: root\r\nX-User: root\r\n")
            .status,
        200
    );
    let seen = upstream.last();
    assert!(seen.header("x-auth-user").is_empty() && seen.header("x-user").is_empty());
}

#[test]
fn t04_the_body_is_not_sent_to_whom_it_is_not_for() {
    let (upstream, (service, _)) = (Upstream::text("in"), judge());
    let gateway = Gateway::start(&Site::guarded(&forward(&service, ""), &upstream));
    let smuggled = "GET /in HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::connect(gateway.address());
    client.send(format!(
        "POST /out HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ));
    assert_eq!(client.response().status, 401);
    assert!(client.is_closed());
    assert_eq!(service.requests().len(), 1);
    assert!(upstream.requests().is_empty());
    let mut client = Client::connect(gateway.address());
    client.send("POST /in HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().status, 200);
    assert_eq!(service.last().header("content-length"), Vec::<&str>::new());
}

#[test]
fn a_token_is_looked_up_once_in_a_while() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "s:e%c\n").unwrap();
    let auth = format!(
        "{{introspect: {{url: \"{}/introspect\", client_id: gw, client_secret: {{file: {}}}, timeout: 500ms, remember: 2s, \
         scopes: [read]}}, pass: {{X-User: name, X-Scopes: scopes}}}}",
        issuer.name(),
        secret.display()
    );
    let _ = issuer.ask(
        "POST",
        "/tokens",
        &json!({
            "good &+%": {"active": true, "username": "alice", "scope": "read write", "exp": now() + 600},
            "short": {"active": true, "sub": "bob", "scope": "read", "exp": now() + 2},
            "ended": {"active": true, "sub": "bob", "scope": "read", "exp": now() - 1},
            "text": {"active": "true", "sub": "bob", "scope": "read"},
            "early": {"active": true, "sub": "bob", "scope": "read", "nbf": now() + 600},
            "unmade": {"active": true, "sub": "bob", "scope": "read", "iat": now() + 600},
            "oddly": {"active": true, "sub": "bob", "scope": "read", "nbf": "soon"},
            "broken": {"active": true, "sub": "dora", "scope": "read", "exp": now() as f64 + 600.5, "nbf": now(), "iat": now() + 5},
            "odd": {"active": true, "sub": "bob", "scope": "read", "exp": "tomorrow"},
            "lacking": {"active": true, "sub": "carol", "scope": "write"},
        })
        .to_string(),
    );
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let bearer = |token: &str| gateway.ask("GET /", &format!("Authorization: Bearer {token}\r\n"));
    // While it lasts.
    assert_eq!(bearer("short").status, 200);
    for _ in 0..20 {
        assert_eq!(bearer("good &+%").status, 200);
    }
    assert_eq!(upstream.last().header("x-user"), ["alice"]);
    assert_eq!(upstream.last().header("x-scopes"), ["read write"]);
    assert_eq!(
        issuer.looks(),
        2,
        "it was remembered, as the short one was asked for"
    );
    for (token, status, code) in [
        ("unknown", 401, "credentials_invalid"),
        ("ended", 401, "credentials_invalid"),
        ("text", 401, "credentials_invalid"),
        ("odd", 401, "credentials_invalid"),
        ("early", 401, "credentials_invalid"),
        ("unmade", 401, "credentials_invalid"),
        ("oddly", 401, "credentials_invalid"),
        ("lacking", 403, "forbidden"),
    ] {
        let answer = bearer(token);
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (status, Some(code)),
            "{token}"
        );
    }
    assert_eq!(
        gateway.ask("GET /", "").header("www-authenticate"),
        Some("Bearer")
    );
    assert_eq!(
        bearer("broken").status,
        200,
        "seconds may be broken (RFC 7519, 2)"
    );
    issuer.publish(&json!({"broken": true}));
    assert_eq!(bearer("good &+%").status, 200, "what is known needs nobody");
    std::thread::sleep(Duration::from_millis(2_200));
    for token in ["good &+%", "short", "unknown"] {
        let answer = bearer(token);
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (503, Some("auth_unavailable")),
            "{token}"
        );
    }
    issuer.publish(&json!({"broken": false, "slow": 2}));
    let begun = Instant::now();
    assert_eq!(bearer("good &+%").status, 503);
    assert!(
        begun.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_service_that_closes_its_connections_is_asked_again() {
    let upstream = Upstream::text("in");
    let count = Arc::new(AtomicUsize::new(0));
    let service = Upstream::start({
        let count = Arc::clone(&count);
        move |_, wire| {
            wire.send("HTTP/1.1 204 No Content\r\n\r\n");
            // Every third time it has had enough.
            count.fetch_add(1, Ordering::Relaxed) % 3 != 2
        }
    });
    let gateway = Gateway::start(&Site::guarded(&forward(&service, ""), &upstream));
    for _ in 0..30 {
        assert_eq!(gateway.ask("GET /", "").status, 200);
    }
    assert_eq!(count.load(Ordering::Relaxed), 30);
}

#[test]
fn t36_a_service_that_decides_never_sees_the_keys_that_are_the_gateway_s_to_check() {
    let upstream = Upstream::text("in");
    let service = Upstream::text("yes");
    let key = "keys: [{name: a, sha256: 27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9}]";
    let route = |path: &str, place: &str| {
        let address = service.address();
        format!(
            "  - {{match: {{path: {path}}}, upstream: UP, auth: {{all: [{{api_key: {{{place}{key}}}}}, {{forward: {{url: \"http://{address}/\"}}}}]}}}}\n"
        )
    };
    let routes = format!("routes:\n{}{}", route("/x", "query: key, "), route("/y", ""));
    let gateway = Gateway::start(&Site::written(&routes, &upstream));
    let answer = gateway.ask("GET /x?a=1&key=right", "X-Other: 1\r\n");
    assert_eq!(answer.status, 200);
    let seen = service.last();
    assert_eq!(
        (seen.header("x-forwarded-uri"), seen.header("x-other")),
        (vec!["/x?a=1"], vec!["1"])
    );
    assert_eq!(gateway.ask("GET /y", "X-API-Key: right\r\n").status, 200);
    assert!(service.last().header("x-api-key").is_empty());
}
