//! Which route takes a request, and what routes answer themselves.

use std::time::{Duration, Instant};

use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};

fn ask(client: &mut Client, method: &str, path: &str, lines: &str) -> Response {
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n"
    ));
    if method == "HEAD" {
        client.head().expect("a header")
    } else {
        client.response()
    }
}

#[test]
fn method_header_and_query_choose_and_other_methods_are_405() {
    let upstream = Upstream::text("up");
    let site = Site::written(
        r#"
routes:
  - {match: {path: /u, methods: [GET]}, respond: {body: get}}
  - {match: {path: /u, methods: [POST, PUT]}, respond: {body: post}}
  - {match: {path: /u, methods: [GET], headers: {X-Beta: "1"}}, respond: {body: beta}}
  - {match: {path: /u, methods: [PATCH], query: {v: "2"}}, respond: {body: two}}
  - {match: {path: {regex: "/v[0-9]+/.*"}}, respond: {body: regex}}
  - {match: {path: "/f/**/raw"}, respond: {body: raw}}
  - {match: {path: "/f/**"}, upstream: UP}
"#,
        &upstream,
    );
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for (method, path, lines, expected) in [
        ("GET", "/u", "", "get"),
        ("PUT", "/u", "", "post"),
        ("GET", "/u", "X-Beta: 1\r\n", "beta"),
        ("GET", "/u", "X-Beta: 1\r\nX-Beta: 1\r\n", "get"),
        ("PATCH", "/u?x=1&%76=%32", "", "two"),
        ("GET", "/v12/a/b", "", "regex"),
        ("GET", "/f/a/b/raw", "", "raw"),
        ("GET", "/f/a/b", "", "up"),
    ] {
        assert_eq!(
            ask(&mut client, method, path, lines).text(),
            expected,
            "{method} {path} {lines}"
        );
    }
    assert_eq!(
        ask(&mut client, "HEAD", "/u", "").header("content-length"),
        Some("3")
    );
    for method in ["DELETE", "OPTIONS", "PURGE"] {
        let refused = ask(&mut client, method, "/u", "");
        assert_eq!(
            (refused.status, refused.code().as_deref()),
            (405, Some("method_not_allowed"))
        );
        assert_eq!(refused.header("allow"), Some("GET, HEAD, POST, PUT"), "{method}");
    }
    assert_eq!(
        ask(&mut client, "GET", "/v/a", "").code().as_deref(),
        Some("no_route")
    );
    assert_eq!(gateway.metrics.rejects("-", "method_not_allowed"), 3);
}

#[test]
fn redirects_lead_where_the_operator_says() {
    let upstream = Upstream::text("");
    let site = Site::written(
        r#"
routes:
  - {match: {path: "/old/{id}/**"}, redirect: {to: "/new/{id}/{rest}{query}", status: 301}}
  - {match: {path: "/home/**"}, redirect: {to: "https://{host}{path}{query}"}}
  - match: {path: "/key/**"}
    auth: {api_key: {keys: [{name: a, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}]}}
    response: {headers: {set: {X-Frame-Options: DENY}}}
    redirect: {to: "https://elsewhere.example/"}
"#,
        &upstream,
    );
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for (path, status, to) in [
        ("/old/7/a/b?x=1", 301, "/new/7/a/b?x=1"),
        ("/old/%37/../8/", 301, "/new/8/"),
        ("/home/x?y=%20", 308, "https://a.example/home/x?y=%20"),
    ] {
        let response = client.get(path);
        assert_eq!(
            (response.status, response.header("location")),
            (status, Some(to)),
            "{path}"
        );
        assert_eq!(response.header("content-length"), Some("0"));
    }
    assert_eq!(client.get("/key/x").status, 401, "auth comes first");
    let response = ask(&mut client, "GET", "/key/x", "X-API-Key: demo-key\r\n");
    assert_eq!(
        (response.status, response.header("x-frame-options")),
        (308, Some("DENY"))
    );
    assert!(response.header("x-request-id").is_some());
    assert!(upstream.requests().is_empty());
}

#[test]
fn t21_a_redirect_can_neither_be_led_away_nor_split() {
    let upstream = Upstream::text("");
    let site = Site::written(
        r#"
routes:
  - {match: {path: "/go/**"}, redirect: {to: "/{rest}"}}
  - {match: {path: "/who/{who}"}, redirect: {to: "/s?who={who}&page=1"}}
  - {match: {path: "/**"}, redirect: {to: "https://{host}{path}{query}"}}
paths: {encoded_slashes: keep}
"#,
        &upstream,
    );
    let gateway = Gateway::start(&site);
    for (path, to) in [
        ("/go//evil.example", Some("/evil.example")),
        ("/go///evil.example/x", Some("/evil.example/x")),
        ("/go/%2f%2fevil.example", Some("/%2F%2Fevil.example")),
        ("/go/%09/evil.example", None),
        ("/go/\\evil.example", None),
        ("/go/%5Cevil.example", Some("/%5Cevil.example")),
        ("/go/a%0d%0aSet-Cookie:x", None),
        ("/who/me&page=2", Some("/s?who=me%26page%3D2&page=1")),
        ("/x?a=b'c", Some("https://a.example/x?a=b'c")),
    ] {
        let mut client = Client::connect(gateway.address());
        let response = client.get(path);
        assert_eq!(response.header("location"), to, "{path}");
        assert_eq!(response.header("set-cookie"), None);
    }
    // The host is the one that routes were chosen by, and has the form of one.
    for host in ["a.example/evil", "evil\\x", "a@evil", "a b", "a\tb"] {
        let mut client = Client::connect(gateway.address());
        let response = client
            .send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .response();
        assert_eq!(
            (response.status, response.header("location")),
            (400, None),
            "{host:?}"
        );
    }
}

#[test]
fn t04_an_own_answer_leaves_no_body_behind_that_becomes_a_request() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::written(
        "routes: [{match: {path: /**}, respond: {status: 404, body: gone}}]\n",
        &upstream,
    ));
    let inner = "GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::connect(gateway.address());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    ));
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (404, "gone"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.rest().is_empty());
    assert_eq!(gateway.rejects(), [], "an answer is no refusal");
}

#[test]
fn t19_a_rewritten_path_is_as_canonical_as_the_one_it_came_from() {
    let upstream = Upstream::text("up");
    let site = Site::written(
        r#"
routes:
  - {match: {path: "/api/**"}, rewrite: {path: "/{rest}"}, upstream: UP}
  - {match: {path: "/v/{a}/{b}"}, rewrite: {path: "/.{a}/{b}"}, upstream: UP}
  - {match: {path: {regex: "/r/(?P<it>.*)"}}, rewrite: {path: "/x/{it}"}, upstream: UP}
"#,
        &upstream,
    );
    let gateway = Gateway::start(&site);
    let get = |path: &str| Client::connect(gateway.address()).get(path).status;
    for (path, status, target) in [
        ("/api/x/y?q=%2F", 200, Some("/x/y?q=%2F")),
        ("/api", 200, Some("/")),
        ("/api/", 200, Some("/")),
        ("/api/a%20b", 200, Some("/a%20b")),
        ("/api/../x", 404, None),
        ("/api../x", 404, None),
        ("/api/..;/x", 400, None),
        ("/api/..%3B/x", 400, None),
        ("/v/a/b", 200, Some("/.a/b")),
        ("/r//a", 200, Some("/x/a")),
        ("/r/a//b", 200, Some("/x/a/b")),
        ("/v/;x/b", 400, None),
    ] {
        let before = upstream.requests().len();
        assert_eq!(get(path), status, "{path}");
        let reached = upstream
            .requests()
            .get(before)
            .map(|request| request.target.clone());
        assert_eq!(reached.as_deref(), target, "{path}");
    }
}

const CORS: &str = r#"
routes:
  - match: {path: /data/**, methods: [GET, PUT]}
    cors:
      origins: [https://app.example, "https://*.apps.example"]
      methods: [GET, PUT]
      headers: [X-API-Key]
      expose: [X-Total]
      credentials: true
      max_age: 5m
    auth: {api_key: {keys: [{name: a, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}]}}
    upstream: UP
  - {match: {path: /open/**}, cors: {origins: ["*"]}, upstream: UP}
  - {match: {path: /plain/**}, upstream: UP}
"#;

#[test]
fn preflights_are_answered_before_auth_and_never_forwarded() {
    let upstream = Upstream::text("up");
    let gateway = Gateway::start(&Site::written(CORS, &upstream));
    let mut client = Client::connect(gateway.address());
    let mut preflight = |path: &str, origin: &str, method: &str| {
        let lines = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: x-api-key\r\n"
        );
        ask(&mut client, "OPTIONS", path, &lines)
    };
    for origin in ["https://app.example", "https://a.b.apps.example"] {
        let answer = preflight("/data/x", origin, "PUT");
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (204, Some(origin))
        );
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("GET, HEAD, PUT")
        );
        assert_eq!(answer.header("access-control-allow-headers"), Some("x-api-key"));
        assert_eq!(answer.header("access-control-max-age"), Some("300"));
        assert!(answer.header("vary").unwrap().contains("Origin"));
    }
    for origin in [
        "https://evil.example",
        "null",
        "https://apps.example",
        "https://evil.com/.apps.example",
        "http://app.example",
    ] {
        let answer = preflight("/data/x", origin, "PUT");
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (204, None),
            "{origin}"
        );
        assert!(answer.header("vary").unwrap().contains("Origin"));
    }
    let answer = preflight("/open/x", "https://who.example", "POST");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(upstream.requests().is_empty());
    // A method that the route does not take, and a route that says nothing of other origins.
    assert_eq!(preflight("/data/x", "https://app.example", "DELETE").status, 405);
    assert_eq!(preflight("/plain/x", "https://app.example", "GET").text(), "up");
}

#[test]
fn answers_and_refusals_tell_a_script_s_origin_what_it_may_read() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\nContent-Length: 2\r\n\r\nup");
        true
    });
    let gateway = Gateway::start(&Site::written(CORS, &upstream));
    let mut client = Client::connect(gateway.address());
    let key = "X-API-Key: demo-key\r\n";
    let mut get = |path: &str, lines: &str| ask(&mut client, "GET", path, lines);
    let app = "Origin: https://app.example\r\n";
    let answer = get("/data/x", &format!("{app}{key}"));
    let all: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "access-control-allow-origin")
        .collect();
    assert_eq!(all.len(), 1);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
    let vary = |response: &Response| {
        let lines = response.headers.iter().filter(|(name, _)| name == "vary");
        lines
            .map(|(_, value)| value.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    assert_eq!(vary(&answer), "Accept, Origin");
    // A refusal can be read by the script that caused it.
    let refused = get("/data/x", app);
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin")),
        (401, Some("https://app.example"))
    );
    // What the upstream would grant is not passed on, and caches are told though nothing is granted.
    for lines in [
        key.to_owned(),
        format!("Origin: https://evil.example\r\n{key}"),
        format!("{app}{app}{key}"),
    ] {
        let answer = get("/data/x", &lines);
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, None),
            "{lines}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(vary(&answer), "Accept, Origin");
    }
    let open = get("/open/x", app);
    assert_eq!(
        (
            open.header("access-control-allow-origin"),
            open.header("access-control-allow-credentials")
        ),
        (Some("*"), None)
    );
    assert_eq!(
        get("/plain/x", app).header("access-control-allow-origin"),
        Some("*"),
        "left to the service"
    );
}

#[test]
fn an_exchange_as_a_whole_has_a_deadline_where_the_route_says_so() {
    let total = "routes: [{match: {path: /**}, limits: {total: 300ms}, upstream: UP}]\n";
    // An answer that comes in drops, none of which is late.
    let drops = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        for _ in 0..40 {
            wire.send("x");
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let silent = Upstream::start(|_, wire| {
        wire.wait_for_close();
        false
    });
    let start = Instant::now();
    let gateway = Gateway::start(&Site::written(total, &silent));
    let response = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (response.status, response.code().as_deref()),
        (504, Some("deadline_exceeded"))
    );
    let gateway = Gateway::start(&Site::written(total, &drops));
    let cut = Client::connect(gateway.address())
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .try_response();
    assert!(cut.is_err(), "{cut:?}");
    assert!(gateway.told(Reject::DeadlineExceeded));
    assert!(
        start.elapsed() < Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
}
