//! Requests and answers held against OpenAPI documents.

use std::path::PathBuf;

use gateway::http::reject::Reject;
use gateway_tests::l7::peer::talk;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};
use serde_json::{Value, json};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data/openapi")
        .join(name)
}

/// A gateway with everything behind one document.
fn gateway(document: &str, more: &str, upstream: &Upstream) -> Gateway {
    let file = data(document);
    let routes = format!(
        "routes: [{{match: {{path: /**}}, validate: {{openapi: {{file: \"{}\"{more}}}}}, upstream: UP}}]\n",
        file.display()
    );
    Gateway::start(&Site::written(&routes, upstream))
}

fn ask(client: &mut Client, line: &str, lines: &str, body: Option<&Value>) -> Response {
    let body = body.map(Value::to_string);
    let framing = body.as_ref().map_or_else(String::new, |body| {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    });
    let body = body.unwrap_or_default();
    client
        .send(format!(
            "{line} HTTP/1.1\r\nHost: a\r\n{lines}{framing}\r\n{body}"
        ))
        .response()
}

/// The places that a refusal names.
fn places(response: &Response) -> Vec<String> {
    let document: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let errors = document["errors"].as_array().cloned().unwrap_or_default();
    let place = |error: &Value| {
        let name = error["pointer"].as_str().or(error["name"].as_str());
        name.unwrap_or_default().to_owned()
    };
    errors.iter().map(place).collect()
}

const TENANT: &str = "X-Tenant: de-1\r\n";

#[test]
fn requests_are_as_described_or_go_no_further() {
    let upstream = Upstream::text("ok");
    let gateway = gateway("orders.yaml", "", &upstream);
    let mut client = Client::connect(gateway.address());
    let order = json!({"customer": {"name": "n"}, "lines": [{"sku": "a", "quantity": 1}], "note": null});
    for (line, lines, body) in [
        ("GET /v1/orders", TENANT, None),
        ("HEAD /v1/orders/7", "", None),
        (
            "GET /v1/orders?limit=100&status=open&status=paid&ids=1,2,3&price[min]=1.5&paid=true&other=1",
            TENANT,
            None,
        ),
        ("GET /v1/orders?price%5Bmax%5D=2", TENANT, None),
        (
            "GET /v1/orders",
            "X-Tenant: de-1\r\nCookie: a=1; session=abcd\r\n",
            None,
        ),
        ("GET /v1/orders/mine", "", None),
        ("GET /v1/orders/%37", "", None),
        ("POST /v1/orders", "", Some(&order)),
        ("PUT /v1/orders/7", "", None),
    ] {
        if line.starts_with("HEAD") {
            client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.head().expect("a header").status, 200, "{line}");
            continue;
        }
        let response = ask(&mut client, line, lines, body);
        assert_eq!(response.status, 200, "{line}: {}", response.text());
    }
    let count = upstream.requests().len();
    let with = |pointer: &str, value: Value| {
        let mut order = order.clone();
        match pointer.rsplit_once('/') {
            Some((holder, name)) => order.pointer_mut(holder).expect("there")[name] = value,
            None => order = value,
        }
        order
    };
    for (line, lines, body, status, place) in [
        ("GET /v1/orders", "", None, 400, "X-Tenant"),
        ("GET /v1/orders", "X-Tenant: nobody\r\n", None, 400, "X-Tenant"),
        ("GET /v1/orders?limit=0", TENANT, None, 400, "limit"),
        ("GET /v1/orders?limit=x", TENANT, None, 400, "limit"),
        ("GET /v1/orders?limit=1&limit=2", TENANT, None, 400, "limit"),
        ("GET /v1/orders?status=lost", TENANT, None, 400, "status"),
        ("GET /v1/orders?ids=1,x", TENANT, None, 400, "ids"),
        ("GET /v1/orders?ids=1,2,3,4", TENANT, None, 400, "ids"),
        ("GET /v1/orders?price[min]=x", TENANT, None, 400, "price"),
        ("GET /v1/orders?price[other]=1", TENANT, None, 400, "price"),
        ("GET /v1/orders?paid=yes", TENANT, None, 400, "paid"),
        (
            "GET /v1/orders",
            "X-Tenant: de-1\r\nCookie: session=abc\r\n",
            None,
            400,
            "session",
        ),
        ("GET /v1/orders/x", "", None, 400, "orderId"),
        ("GET /v1/orders/0", "", None, 400, "orderId"),
        ("POST /v1/orders", "", None, 400, "#"),
        ("POST /v1/orders", "", Some(json!([])), 400, "#"),
        ("POST /v1/orders", "", Some(with("/unknown", json!(1))), 400, "#"),
        (
            "POST /v1/orders",
            "",
            Some(with("/lines", json!([]))),
            400,
            "#/lines",
        ),
        (
            "POST /v1/orders",
            "",
            Some(with("/lines", json!([{"sku": "a", "quantity": 0}]))),
            400,
            "#/lines/0/quantity",
        ),
        (
            "POST /v1/orders",
            "",
            Some(with("/customer/mail", json!("nobody"))),
            400,
            "#/customer/mail",
        ),
        (
            "POST /v1/orders",
            "",
            Some(with("/discount", json!(0))),
            400,
            "#/discount",
        ),
        (
            "POST /v1/orders",
            "",
            Some(with("/parent", json!({"customer": {}}))),
            400,
            "#/parent",
        ),
        ("GET /v1/orders/mine", "", Some(json!({})), 400, "#"),
        ("GET /v1/nothing", "", None, 404, ""),
        ("GET /orders", "", None, 404, ""),
        ("GET /v1/orders/7/lines", "", None, 404, ""),
        ("PATCH /v1/orders/7", "", None, 405, ""),
        ("POST /v1/orders/mine", "", None, 405, ""),
    ] {
        let response = ask(&mut client, line, lines, body.as_ref());
        assert_eq!(response.status, status, "{line} {body:?}: {}", response.text());
        let places = places(&response);
        assert!(
            place.is_empty() || places.iter().any(|at| at.starts_with(place)),
            "{line}: {places:?}"
        );
        if status == 405 {
            assert!(response.header("allow").is_some());
        }
        if response.header("connection") == Some("close") {
            client = Client::connect(gateway.address());
        }
    }
    let xml = client.send("POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/xml\r\nContent-Length: 2\r\n\r\n<>").response();
    assert_eq!(
        (xml.status, xml.code().as_deref()),
        (415, Some("unsupported_media_type"))
    );
    assert_eq!(upstream.requests().len(), count, "the upstream heard of none");
    let form = |body: &str| {
        let head =
            "PUT /v1/orders/7 HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let mut client = Client::connect(gateway.address());
        client
            .send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
            .response()
            .status
    };
    assert_eq!(
        (
            form("note=a+b&count=3&tag=x&tag=y"),
            form("count=3"),
            form("note=a&count=x")
        ),
        (200, 400, 400)
    );
    assert!(gateway.told(Reject::RequestInvalid) && gateway.told(Reject::MethodNotAllowed));
}

#[test]
fn a_refusal_tells_the_place_and_the_rule_and_never_the_value_or_a_file() {
    let upstream = Upstream::text("ok");
    let gateway = gateway("bookings.yaml", ", unknown_query: refuse", &upstream);
    let mut client = Client::connect(gateway.address());
    let booking =
        json!({"from": "9:00", "to": "10:00", "guest": {"name": "secret-name", "size": 3}, "odd": 1});
    let line = "POST /api/v2/rooms/A10/bookings";
    let response = ask(&mut client, line, "Idempotency-Key: 12345678\r\n", Some(&booking));
    let text = response.text();
    assert_eq!(
        (response.status, response.code().as_deref()),
        (400, Some("request_invalid")),
        "{text}"
    );
    assert!(places(&response).contains(&"#/from".to_owned()), "{text}");
    for inside in ["secret-name", "bookings-schemas", "$defs", "urn:", "tests/data"] {
        assert!(!text.contains(inside), "{inside}: {text}");
    }
    let good = json!({"from": "09:00", "to": "10:00", "guest": {"name": "n", "friends": [{"name": "m"}]}, "position": [1, 2.5]});
    assert_eq!(
        ask(&mut client, line, "Idempotency-Key: 12345678\r\n", Some(&good)).text(),
        "ok"
    );
    let list = |query: &str| {
        let mut client = Client::connect(gateway.address());
        client.get(&format!("/api/v2/rooms/A10/bookings?day=2026-01-01{query}"))
    };
    assert_eq!(list("").status, 200, "{}", list("").text());
    assert_eq!(list("&sort=asc&filter=%7B%22who%22:%22me%22%7D").status, 200);
    assert_eq!(
        places(&list("&debug=1")),
        ["debug"],
        "unknown parameters are refused here"
    );
    assert_eq!(places(&list("&filter=%7B")), ["filter"]);
    assert_eq!(places(&list("&sort=up")), ["sort"]);
    assert_eq!(client.get("/api/v2/files/plan.2026.pdf").status, 200);
    assert_eq!(places(&client.get("/api/v2/files/plan.exe")), ["ext"]);
}

#[test]
fn who_only_observes_counts_and_lets_pass() {
    let upstream = Upstream::text("ok");
    let gateway = gateway("orders.yaml", ", observe: true", &upstream);
    let mut client = Client::connect(gateway.address());
    for (line, body) in [
        ("GET /nothing", None),
        ("PATCH /v1/orders/7", None),
        ("GET /v1/orders", None),
        ("POST /v1/orders", Some(json!({"a": 1}))),
    ] {
        assert_eq!(ask(&mut client, line, "", body.as_ref()).status, 200, "{line}");
    }
    assert_eq!(gateway.rejects(), []);
    assert_eq!(upstream.requests().len(), 4);
    assert_eq!(upstream.last().header("content-length"), ["7"]);
    let metrics = gateway.metrics.encode();
    for (code, count) in [("no_route", 1), ("method_not_allowed", 1), ("request_invalid", 2)] {
        let line = format!("gateway_observed_rejects_total{{route=\"/**\",code=\"{code}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

/// Answers with what the path's last segment says.
fn service() -> Upstream {
    Upstream::start(|request, wire| {
        let order = r#"{"id":1,"customer":{"name":"n"},"lines":[{"sku":"a","quantity":1}]}"#;
        let id = request.target.rsplit('/').next().unwrap_or_default().to_owned();
        let (status, kind, body) = match id.as_str() {
            "1" => ("200 OK", "application/json", order.to_owned()),
            "2" => ("200 OK", "application/json", "{\"id\":1}".to_owned()),
            "3" => ("200 OK", "text/html", "<p>".to_owned()),
            "4" => ("404 Not Found", "application/json", "{}".to_owned()),
            "5" => ("200 OK", "application/json", order.replace("\"id\":1,", "")),
            _ => (
                "200 OK",
                "application/json",
                format!("[{}{order}]", format!("{order},").repeat(20_000)),
            ),
        };
        wire.send(format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        wire.send(body);
        true
    })
}

#[test]
fn answers_are_held_against_the_document_too() {
    let upstream = service();
    let enforcing = gateway("orders.yaml", ", response: enforce", &upstream);
    let mut client = Client::connect(enforcing.address());
    for (id, status) in [(1, 200), (2, 502), (3, 502), (4, 502), (5, 502), (6, 502)] {
        let response = client.get(&format!("/v1/orders/{id}"));
        assert_eq!(response.status, status, "{id}");
        if status == 502 {
            assert_eq!(response.code().as_deref(), Some("response_invalid"));
            assert!(
                places(&response).is_empty(),
                "nothing of it is the client's to know"
            );
        }
    }
    let observing = gateway("orders.yaml", ", response: observe", &upstream);
    let mut client = Client::connect(observing.address());
    for id in 1..=6 {
        let response = client.get(&format!("/v1/orders/{id}"));
        assert_eq!(response.status, if id == 4 { 404 } else { 200 }, "{id}");
        assert!(
            id != 6 || response.body.len() > 1 << 20,
            "whole, though too long to be looked at"
        );
    }
    let line = "gateway_observed_rejects_total{route=\"/**\",code=\"response_invalid\"} 4";
    assert!(
        observing.metrics.encode().contains(line),
        "{}",
        observing.metrics.encode()
    );
    assert_eq!(observing.rejects(), []);
}

#[test]
fn an_answer_that_is_empty_or_a_part_is_not_what_is_described_and_one_without_a_body_is() {
    let upstream = Upstream::start(|request, wire| {
        let order = r#"{"id":1,"customer":{"name":"n"},"lines":[{"sku":"a","quantity":1}]}"#;
        let id = request.target.rsplit('/').next().unwrap_or_default().to_owned();
        let json = "Content-Type: application/json\r\n";
        let whole = format!("{json}Content-Length: {}\r\n\r\n{order}", order.len());
        let head = format!("{json}Content-Length: {}\r\n\r\n", order.len());
        let (status, rest) = match id.as_str() {
            _ if request.method == "HEAD" => ("200 OK", head),
            "2" => ("200 OK", format!("{json}Content-Length: 0\r\n\r\n")),
            "3" => (
                "200 OK",
                format!("{json}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ),
            "4" => ("200 OK", "Content-Length: 0\r\n\r\n".to_owned()),
            "5" => ("200 OK", format!("{json}{whole}")),
            "6" => ("206 Partial", whole),
            _ if !request.header("range").is_empty() => ("206 Partial", whole),
            _ => ("200 OK", whole),
        };
        wire.send(format!("HTTP/1.1 {status}\r\n{rest}"));
        true
    });
    let enforcing = gateway("orders.yaml", ", response: enforce", &upstream);
    let mut client = Client::connect(enforcing.address());
    for (id, status) in [(1, 200), (2, 502), (3, 502), (4, 502), (5, 502), (6, 502)] {
        let target = format!("GET /v1/orders/{id} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n\r\n");
        let response = client.send(target).response();
        assert_eq!(response.status, status, "{id}");
    }
    client.send("HEAD /v1/orders/2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("a header").status, 200);
    let observing = gateway("orders.yaml", ", response: observe", &upstream);
    let mut client = Client::connect(observing.address());
    let target = "GET /v1/orders/1 HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n\r\n";
    assert_eq!(
        client.send(target).response().status,
        206,
        "who observes changes nothing"
    );
    assert_eq!(client.get("/v1/orders/2").status, 200);
}

/// Thousands of bodies and parameters made from the schemas, right and wrong, judged by python3-jsonschema too.
#[test]
fn both_implementations_judge_alike() {
    let upstream = Upstream::text("ok");
    for document in ["orders.yaml", "bookings.yaml", "library.json"] {
        let gateway = gateway(document, "", &upstream);
        let file = data(document);
        talk(
            "openapi_peer.py",
            &[&gateway.address().to_string(), &file.to_string_lossy()],
        );
    }
}
