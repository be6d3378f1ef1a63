//! What the gateway's own errors look like.

use gateway_tests::l7::{Client, Gateway, Site, Upstream};

#[test]
fn a_refusal_is_told_in_the_form_that_its_client_reads() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::written(
        "routes: [{match: {path: /a}, upstream: UP}]",
        &upstream,
    ));
    let ask = |lines: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        Client::connect(gateway.address()).send(request).response()
    };
    let json = ask("Accept: */*\r\n");
    assert_eq!(json.header("content-type"), Some("application/problem+json"));
    assert_eq!(json.code().as_deref(), Some("no_route"));
    let text = ask("Accept: text/plain\r\n");
    assert_eq!(
        (text.status, text.header("content-type")),
        (404, Some("text/plain; charset=utf-8"))
    );
    let id = text.header("x-request-id").unwrap();
    assert_eq!(
        text.text(),
        format!("404 Nothing is served here.\ncode: no_route\nrequest id: {id}\n")
    );
    let call = ask("Content-Type: application/grpc\r\n");
    assert_eq!((call.status, call.header("grpc-status")), (200, Some("12")));
    assert_eq!(
        call.header("grpc-message"),
        Some("no_route: Nothing is served here.")
    );
    assert_eq!(
        (call.header("content-type"), call.text().as_str()),
        (Some("application/grpc"), "")
    );
}

#[test]
fn an_operator_s_own_pages_stand_for_statuses_and_classes() {
    let upstream = Upstream::text("ok");
    let site = "
errors:
  404: {content_type: text/html, body: \"<style>p {color: red}</style><p>{status} {code} {request_id} { other }</p>\"}
  4xx: {content_type: application/json, body: '{\"error\": \"{title}\"}'}
routes:
  - {match: {path: /a, methods: [POST]}, upstream: UP}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let missing = Client::connect(gateway.address()).get("/");
    let id = missing.header("x-request-id").unwrap();
    assert_eq!(
        (missing.status, missing.header("content-type")),
        (404, Some("text/html"))
    );
    let expected = format!("<style>p {{color: red}}</style><p>404 no_route {id} {{ other }}</p>");
    assert_eq!(missing.text(), expected);
    let method = Client::connect(gateway.address()).get("/a");
    assert_eq!((method.status, method.header("allow")), (405, Some("POST")));
    assert_eq!(method.text(), "{\"error\": \"This method is not served here.\"}");
}

#[test]
fn a_route_s_own_pages_come_before_those_of_all() {
    let upstream = Upstream::text("ok");
    let site = "
errors:
  404: {body: all 404}
  401: {body: all 401}
  5xx: {body: all 5xx}
routes:
  - match: {path: /a}
    errors: {4xx: {content_type: application/json, body: '{\"code\": \"{code}\"}'}, 503: {body: own 503}}
    auth: {api_key: {keys: [{name: a, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}]}}
    upstream: [{url: \"http://127.0.0.1:1\"}]
  - {match: {path: /b}, errors: {502: {body: own 502}}, upstream: [{url: \"http://127.0.0.1:1\"}]}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let ask = |path: &str, lines: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let answer = Client::connect(gateway.address()).send(request).response();
        (answer.status, answer.text())
    };
    assert_eq!(ask("/", ""), (404, "all 404".into()));
    assert_eq!(ask("/a", ""), (401, "{\"code\": \"credentials_missing\"}".into()));
    assert_eq!(ask("/a", "X-API-Key: demo-key\r\n"), (502, "all 5xx".into()));
    assert_eq!(ask("/b", ""), (502, "own 502".into()));
    let call = Client::connect(gateway.address())
        .send("GET /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n\r\n")
        .response();
    assert_eq!(call.header("grpc-status"), Some("16"), "who calls reads no page");
}
