//! What a route changes in messages: header lines, paths, queries, hosts, statuses.

use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

fn gateway(routes: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(&Site::written(routes, upstream))
}

#[test]
fn lines_are_made_of_facts_and_a_client_s_own_never_stand_in_for_them() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nX-Version: 1\r\nX-Version: 2\r\nX-Served-For: forged\r\nContent-Length: 0\r\n\r\n");
        true
    });
    let routes = r#"
routes:
  - match: {path: "/u/{id}/**"}
    request:
      headers:
        rename: {X-Old: X-New}
        remove: [X-Gone]
        set: {X-User: "u-{id}", X-Caller: "{identity}", X-From: "{client_ip}", X-Copy: "{header.x-gone}", X-Rest: "{rest}{{}}", X-Q: "{query.q}"}
        add: {X-More: ["{method} {scheme}", "{request_id}"], X-Missing: "{claim.sub}"}
    response:
      headers:
        rename: {X-Version: X-Renamed}
        set: {X-Served-For: "{id}", X-Path: "{path}", X-Empty: "{identity}"}
    upstream: UP
"#;
    let gateway = gateway(routes, &upstream);
    let mut client = Client::connect(gateway.address());
    let request = "GET /u/7/a/b?q=a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: a\r\nX-Old: 1\r\nX-New: 2\r\nX-Gone: kept\r\nX-Caller: admin\r\n\
                   X-Q: forged\r\n\r\n";
    let response = client.send(request).response();
    let seen = upstream.last();
    assert_eq!(seen.header("x-new"), ["1"]);
    assert_eq!(
        seen.header("x-copy"),
        ["kept"],
        "facts are those before the edits"
    );
    for gone in ["x-old", "x-gone", "x-caller", "x-missing", "x-q", "x-evil"] {
        assert!(seen.header(gone).is_empty(), "{gone}");
    }
    assert_eq!(seen.header("x-user"), ["u-7"]);
    assert_eq!(seen.header("x-from"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-rest"), ["a/b{}"]);
    let id = response.header("x-request-id").expect("an id").to_owned();
    assert_eq!(seen.header("x-more"), ["GET http", id.as_str()]);
    let all = |name: &str| -> Vec<&str> {
        let lines = response.headers.iter().filter(|(own, _)| own == name);
        lines.map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(all("x-renamed"), ["1", "2"]);
    assert_eq!(all("x-served-for"), ["7"]);
    assert_eq!(response.header("x-path"), Some("/u/7/a/b"));
    assert_eq!(
        (response.header("x-version"), response.header("x-empty")),
        (None, None)
    );
    let quiet = client
        .send("GET /u/8?q=plain HTTP/1.1\r\nHost: a\r\n\r\n")
        .response();
    assert_eq!(quiet.status, 200);
    assert_eq!(upstream.last().header("x-q"), ["plain"]);
}

#[test]
fn the_upstream_is_asked_for_another_path_query_and_host() {
    let upstream = Upstream::text("ok");
    let routes = r#"
routes:
  - {match: {path: /api/**}, rewrite: {strip_prefix: /api, add_prefix: /v2, host: upstream}, upstream: UP}
  - {match: {path: /r/**}, rewrite: {regex: {pattern: "^/r/([a-z]+)-", replace: "/{1}/"}, host: "orders.internal:8080"}, upstream: UP}
  - {match: {path: /cut/**}, rewrite: {regex: {pattern: "%", replace: ""}}, upstream: UP}
  - match: {path: "/q/{id}"}
    request: {query: {rename: {a: b}, remove: [secret], set: {id: "{id}", who: "{identity}"}, add: {ip: "{client_ip}"}}}
    upstream: UP
"#;
    let gateway = gateway(routes, &upstream);
    let mut client = Client::connect(gateway.address());
    let port = upstream.address().port();
    for (asked, target, host) in [
        ("/api/x/?a=1", "/v2/x/?a=1", format!("127.0.0.1:{port}")),
        ("/api", "/v2", format!("127.0.0.1:{port}")),
        ("/r/ab-c-d", "/ab/c-d", "orders.internal:8080".to_owned()),
        (
            "/q/7?a=1&secret=x&c=%20&id=forged&who=me",
            "/q/7?b=1&c=%20&id=7&ip=127.0.0.1",
            "a.example".to_owned(),
        ),
        (
            "/q/a%26x",
            "/q/a%26x?id=a%2526x&ip=127.0.0.1",
            "a.example".to_owned(),
        ),
    ] {
        assert_eq!(client.get(asked).status, 200, "{asked}");
        let seen = upstream.last();
        assert_eq!(
            (seen.target.as_str(), seen.header("host")),
            (target, vec![host.as_str()]),
            "{asked}"
        );
        assert_eq!(seen.header("x-forwarded-host"), ["a.example"]);
    }
    let count = upstream.requests().len();
    assert_eq!(client.get("/cut/a%20b").status, 200, "what comes of it is a path");
    assert_eq!(client.get("/cut/%C3%A4").status, 200);
    assert_eq!(upstream.requests().len(), count + 2);
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn a_rewritten_path_that_is_no_path_is_refused_and_the_connection_lives() {
    let upstream = Upstream::text("ok");
    let routes = r#"
routes: [{match: {path: /**}, rewrite: {regex: {pattern: "^/up", replace: "/.."}}, upstream: UP}]
"#;
    let gateway = gateway(routes, &upstream);
    let mut client = Client::connect(gateway.address());
    let refused = client.get("/up/etc");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (400, Some("bad_path"))
    );
    assert_eq!(client.get("/fine").status, 200);
    assert_eq!(
        (gateway.rejects(), upstream.requests().len()),
        (vec![Reject::BadPath], 1)
    );
}

#[test]
fn statuses_are_mapped_and_bodies_go_where_there_are_none() {
    let upstream = Upstream::start(|request, wire| {
        let status = request.target.trim_start_matches('/').to_owned();
        let body = if status == "204" {
            ""
        } else {
            "Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody"
        };
        let end = if status == "204" { "\r\n" } else { "" };
        wire.send(format!("HTTP/1.1 {status} Any\r\n{body}{end}"));
        true
    });
    let routes = "routes: [{match: {path: /**}, response: {status: {404: 204, 4xx: 400, 5xx: 502, 503: 503, 204: 200}}, upstream: UP}]\n";
    let gateway = gateway(routes, &upstream);
    let mut client = Client::connect(gateway.address());
    for (sent, seen, body) in [
        (404, 204, ""),
        (410, 400, "body"),
        (500, 502, "body"),
        (503, 503, "body"),
        (200, 200, "body"),
        (204, 200, ""),
        (301, 301, "body"),
    ] {
        let response = client.get(&format!("/{sent}"));
        assert_eq!(
            (response.status, response.text()),
            (seen, body.to_owned()),
            "{sent}"
        );
        assert_eq!(
            response.header("content-type").is_some(),
            !body.is_empty(),
            "{sent}"
        );
    }
    assert_eq!(gateway.rejects(), []);
}
