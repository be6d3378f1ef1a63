//! Bodies that a route changes: JSON by pointer, forms, templates; whole and in pieces, plain and coded, wrong and too large.

use gateway::config::model::Coding;
use gateway::http::coding::decode::Decoder;
use gateway::http::coding::encode::Encoder;
use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};

/// Answers with the body it gets, in JSON.
fn echo() -> Upstream {
    Upstream::mirror("Content-Type: application/json\r\n")
}

fn post(client: &mut Client, path: &str, kind: &str, body: &str) -> Response {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request).response()
}

const JSON: &str = "application/json";

#[test]
fn a_request_s_json_is_changed_by_pointer_and_nothing_else_of_it() {
    let upstream = echo();
    let routes = r#"
routes:
  - match: {path: "/u/{id}"}
    request:
      body:
        json:
          - {set: /user/id, value: "{id}"}
          - {set: /from, value: ["{client_ip}", 1, 1.50, true, "1", {a: null}]}
          - {set: /no, value: "{claim.sub}"}
          - {set: /null, value: null}
          - {remove: /secret}
          - {rename: /old, to: new}
          - {move: /deep/x, to: /x}
    upstream: UP
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    let body =
        r#"{"big":12345678901234567890123,"secret":1,"old":1.10,"deep":{"x":[ 1 ]},"user":{"name":"n"}}"#;
    let expected = r#"{"big":12345678901234567890123,"new":1.10,"deep":{},"user":{"name":"n","id":"7"},"from":["127.0.0.1",1,1.5,true,"1",{"a":null}],"null":null,"x":[ 1 ]}"#;
    let response = post(&mut client, "/u/7", JSON, body);
    assert_eq!((response.status, response.text().as_str()), (200, expected));
    assert_eq!(
        upstream.last().header("content-length"),
        [expected.len().to_string()]
    );
    // In pieces, and coded.
    let chunked = format!(
        "POST /u/7 HTTP/1.1\r\nHost: a\r\nContent-Type: application/vnd.a+json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &body[..5],
        body.len() - 5,
        &body[5..]
    );
    assert_eq!(client.send(chunked).response().text(), expected);
    let packed = Encoder::new(Coding::Gzip)
        .and_then(|encoder| encoder.whole(body.as_bytes()))
        .expect("packed");
    let head = format!(
        "POST /u/7 HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    assert_eq!(
        client.send([head.as_bytes(), &packed].concat()).response().text(),
        expected
    );
    assert!(upstream.last().header("content-encoding").is_empty());
    // Without a body there is nothing to change.
    assert_eq!(client.get("/u/7").status, 200);
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn t29_a_body_that_can_not_be_changed_is_refused_before_the_upstream_hears_of_it() {
    let upstream = echo();
    let routes = r#"
routes: [{match: {path: /**}, request: {body: {json: [{remove: /a}], max_bytes: 1KiB, max_depth: 8}}, upstream: UP}]
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    let deep = format!("{}1{}", "[".repeat(9), "]".repeat(9));
    for (kind, body, status, code) in [
        (JSON, "{", 400, "bad_body"),
        (JSON, "{\"a\":1,\"a\":2}", 400, "bad_body"),
        (JSON, deep.as_str(), 400, "bad_body"),
        ("text/plain", "{}", 415, "unsupported_media_type"),
    ] {
        let response = post(&mut client, "/", kind, body);
        assert_eq!(
            (response.status, response.code().as_deref()),
            (status, Some(code)),
            "{body}"
        );
    }
    assert!(client.is_closed(), "a body that was not read ends the connection");
    // Here `+AGE-` is a text, and for who believes the charset an `a`.
    let mut client = Client::connect(gateway.address());
    let response = post(
        &mut client,
        "/",
        "application/json; charset=UTF-7",
        "{\"+AGE-\":1}",
    );
    assert_eq!(
        (response.status, response.code().as_deref()),
        (415, Some("unsupported_media_type"))
    );
    let mut client = Client::connect(gateway.address());
    let document: serde_json::Value =
        serde_json::from_slice(&post(&mut client, "/", JSON, "{").body).expect("JSON");
    assert_eq!(document["errors"][0]["pointer"], "#");
    let long = format!("{{\"b\":\"{}\"}}", "x".repeat(2000));
    let response = post(&mut client, "/", JSON, &long);
    assert_eq!(
        (response.status, response.code().as_deref()),
        (413, Some("body_too_large"))
    );
    assert!(client.is_closed());
    let mut client = Client::connect(gateway.address());
    // A bomb: little over the wire, much in memory.
    let bomb = Encoder::new(Coding::Gzip)
        .and_then(|encoder| encoder.whole(&vec![b' '; 1 << 24]))
        .expect("packed");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    let response = client.send([head.as_bytes(), &bomb].concat()).response();
    assert_eq!(
        (response.status, response.code().as_deref()),
        (413, Some("body_too_large"))
    );
    assert!(upstream.requests().is_empty());
    assert!(gateway.told(Reject::UnsupportedMediaType) && gateway.told(Reject::BadBody));
}

#[test]
fn forms_become_json_and_json_forms() {
    let upstream = echo();
    let routes = r#"
routes:
  - {match: {path: /in}, request: {body: {from: form, json: [{remove: /csrf}, {set: /by, value: "{client_ip}"}]}}, upstream: UP}
  - {match: {path: /out}, request: {body: {to: form}}, upstream: UP}
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    let form = "application/x-www-form-urlencoded";
    let response = post(&mut client, "/in", form, "name=a+b%26c&tag=1&csrf=x&tag=2");
    assert_eq!(
        response.text(),
        r#"{"name":"a b&c","tag":["1","2"],"by":"127.0.0.1"}"#
    );
    assert_eq!(upstream.last().header("content-type"), [JSON]);
    let response = post(
        &mut client,
        "/out",
        JSON,
        r#"{"name":"a b&c","tag":[1,2],"none":null}"#,
    );
    assert_eq!(response.text(), "name=a+b%26c&tag=1&tag=2");
    assert_eq!(upstream.last().header("content-type"), [form]);
    let response = post(
        &mut client,
        "/out",
        JSON,
        r#"{"n":123456789012345678901234567890,"f":1.10}"#,
    );
    assert_eq!(response.text(), "n=123456789012345678901234567890&f=1.10");
    let response = post(&mut client, "/out", JSON, r#"{"a":1,"a":2}"#);
    assert_eq!(response.code().as_deref(), Some("bad_body"));
    let response = post(&mut client, "/out", JSON, r#"{"a":{"b":1}}"#);
    assert_eq!(response.code().as_deref(), Some("bad_body"));
    assert!(response.text().contains("can not be made a form"));
    let response = post(&mut client, "/in", form, "");
    assert_eq!(response.text(), r#"{"by":"127.0.0.1"}"#, "a form without a field");
    assert_eq!(upstream.last().header("content-type"), [JSON]);
    for (body, told) in [
        ("a=1&".repeat(1_001), "more than 1000 fields"),
        ("a=%ff".into(), "UTF-8"),
    ] {
        let response = post(&mut client, "/in", form, &body);
        assert_eq!(
            (response.status, response.code().as_deref()),
            (400, Some("bad_body"))
        );
        assert!(response.text().contains(told), "{}", response.text());
    }
}

#[test]
fn a_template_that_runs_on_is_the_gateway_s_fault_and_one_that_lacks_something_the_client_s() {
    let upstream = echo();
    let routes = r#"
routes:
  - match: {path: /in/**}
    request: {body: {template: "{% for a in body.l %}{% for b in body.l %}{{ body.o.p }}{% endfor %}{% endfor %}"}}
    upstream: UP
  - match: {path: /out}
    response: {body: {template: "{% for a in body.l %}{% for b in body.l %}{% endfor %}{% endfor %}"}}
    upstream: UP
  - match: {path: /own}
    request: {body: {template: "{{ body.l|map('nofilter')|list }}"}}
    upstream: UP
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    let long = format!("{{\"l\":[{}1],\"o\":{{}}}}", "1,".repeat(999));
    for path in ["/in/a", "/out", "/own"] {
        let mut client = Client::connect(gateway.address());
        let response = post(&mut client, path, JSON, &long);
        assert_eq!(
            (response.status, response.code().as_deref()),
            (500, Some("internal")),
            "{path}"
        );
    }
    assert_eq!(
        post(&mut client, "/in/a", JSON, r#"{"l":[1]}"#).code().as_deref(),
        Some("bad_body")
    );
    assert_eq!(
        gateway.rejects(),
        [
            Reject::Internal,
            Reject::Internal,
            Reject::Internal,
            Reject::BadBody
        ]
    );
    assert_eq!(Reject::Internal.blame(), gateway::http::reject::Blame::Gateway);
}

#[test]
fn edits_of_an_object_let_no_list_pass_and_head_tells_nothing_of_what_get_does_not_get() {
    let upstream = service();
    let routes = r#"
routes:
  - match: {path: /long}
    response: {body: {json: [{remove: /password}]}}
    upstream: UP
  - match: {path: /pass/**}
    rewrite: {path: /long}
    response: {body: {json: [{remove: /password}], wrong: pass}}
    upstream: UP
  - match: {path: /page}
    response: {body: {template: "<p>{{ body.id }}</p>", content_type: text/html}}
    upstream: UP
  - {match: {path: /in}, request: {body: {json: [{remove: /password}]}}, upstream: UP}
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/long").code().as_deref(), Some("response_invalid"));
    assert_eq!(client.get("/pass/x").status, 200);
    let response = post(&mut client, "/in", JSON, r#"[{"password":1}]"#);
    assert_eq!(response.code().as_deref(), Some("bad_body"));
    assert!(
        response.text().contains("is not an object"),
        "{}",
        response.text()
    );
    let got = client.get("/page");
    let mut client = Client::connect(gateway.address());
    client.send("HEAD /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let told = String::from_utf8_lossy(&client.rest()).to_ascii_lowercase();
    assert!(told.starts_with("http/1.1 200 ok\r\n"), "{told}");
    assert!(told.contains("content-type: text/html\r\n"), "{told}");
    assert_eq!(got.header("content-type"), Some("text/html"));
    for line in ["content-length", "etag", "content-encoding"] {
        assert!(!told.contains(line), "{told}");
    }
    assert!(told.ends_with("\r\n\r\n"), "no body: {told}");
}

/// Answers as the path says.
fn service() -> Upstream {
    Upstream::start(|request, wire| {
        let json = "Content-Type: application/json\r\nETag: \"a\"\r\n";
        let good = br#"{"id":1,"password":"secret","n":1.50}"#.to_vec();
        let packed = Encoder::new(Coding::Brotli)
            .and_then(|encoder| encoder.whole(&good))
            .expect("packed");
        let (lines, body) = match request.target.as_str() {
            "/old" => ("Content-Type: Text/JSON; charset=utf-8\r\n".to_owned(), good),
            "/coded" => (format!("{json}Content-Encoding: br\r\n"), packed.to_vec()),
            "/unknown" => (format!("{json}Content-Encoding: x\r\n"), good),
            "/wrong" => (json.to_owned(), b"{".to_vec()),
            "/text" => (
                "Content-Type: text/html\r\n".to_owned(),
                b"<p>password</p>".to_vec(),
            ),
            "/long" => (json.to_owned(), format!("[{}1]", "1,".repeat(2000)).into_bytes()),
            _ => (json.to_owned(), good),
        };
        wire.send(format!(
            "HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        ));
        if request.method != "HEAD" {
            wire.send(body);
        }
        true
    })
}

#[test]
fn an_answer_s_json_is_changed_and_coded_again_as_the_client_likes() {
    let upstream = service();
    let routes = r#"
routes:
  - match: {path: /**}
    compress: {min_bytes: 1B}
    response: {body: {json: [{remove: /password}, {set: /for, value: "{path}"}], max_bytes: 1KiB}}
    upstream: UP
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    for path in ["/", "/coded", "/old"] {
        let expected = format!(r#"{{"id":1,"n":1.50,"for":"{path}"}}"#);
        let response = client.get(path);
        assert_eq!(response.text(), expected, "{path}");
        assert_eq!(
            response.header("content-length"),
            Some(expected.len().to_string().as_str())
        );
        assert_eq!(
            (response.header("etag"), response.header("content-encoding")),
            (None, None)
        );
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
        let response = client.send(request).response();
        assert_eq!(response.header("content-encoding"), Some("gzip"));
        let mut decoder = Decoder::new(Coding::Gzip, 1 << 20).expect("a decoder");
        let mut plain = decoder.push(&response.body).expect("coded").to_vec();
        plain.extend(decoder.finish().expect("whole"));
        assert_eq!(plain, expected.as_bytes());
    }
    assert_eq!(
        client.get("/text").text(),
        "<p>password</p>",
        "no JSON, so not looked at"
    );
    for path in ["/wrong", "/unknown", "/long"] {
        let response = client.get(path);
        assert_eq!(
            (response.status, response.code().as_deref()),
            (502, Some("response_invalid")),
            "{path}"
        );
    }
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().expect("a header").status, 200);
    assert_eq!(client.get("/").status, 200, "no body followed");
}

#[test]
fn an_answer_that_can_not_be_changed_passes_where_the_operator_says_so() {
    let upstream = service();
    let routes = r#"
routes: [{match: {path: /**}, response: {body: {json: [{remove: /password}], max_bytes: 1KiB, wrong: pass}}, upstream: UP}]
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/").text(), r#"{"id":1,"n":1.50}"#);
    assert_eq!(client.get("/wrong").text(), "{");
    assert_eq!(client.get("/unknown").header("content-encoding"), Some("x"));
    let long = client.get("/long");
    assert_eq!(
        (long.status, long.text()),
        (200, format!("[{}1]", "1,".repeat(2000)))
    );
    assert_eq!(client.get("/").status, 200);
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn templates_write_bodies_anew() {
    let upstream = echo();
    let routes = r#"
routes:
  - match: {path: "/orders/{id}"}
    request:
      body:
        content_type: application/xml
        template: "<order id=\"{{ captures.id }}\" by=\"{{ client_ip }}\">{% for l in body.lines %}<line>{{ l.sku }}</line>{% endfor %}</order>"
    upstream: UP
  - match: {path: /wrapped}
    response: {body: {template: "{\"data\": {{ body }}, \"status\": {{ status }}, \"path\": {{ path }}}"}}
    upstream: UP
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    let response = post(
        &mut client,
        "/orders/7",
        JSON,
        r#"{"lines":[{"sku":"<a>"},{"sku":"b"}]}"#,
    );
    assert_eq!(
        response.text(),
        "<order id=\"7\" by=\"127.0.0.1\"><line>&lt;a&gt;</line><line>b</line></order>"
    );
    assert_eq!(upstream.last().header("content-type"), ["application/xml"]);
    let response = post(&mut client, "/wrapped", JSON, r#"{"a":"\"b\""}"#);
    let value: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(
        value,
        serde_json::json!({"data": {"a": "\"b\""}, "status": 200, "path": "/wrapped"})
    );
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn no_part_and_no_unclear_type_carries_past_the_edits_what_they_take_out() {
    // As the path says; a range where one is asked for, and one that nobody asked for.
    let upstream = Upstream::start(|request, wire| {
        let body = r#"{"id":1,"password":"secret"}"#;
        let target = request.target.as_str();
        let (status, lines) = match target.rsplit('/').next().unwrap_or_default() {
            _ if !request.header("range").is_empty() => (
                "206 Partial",
                "Content-Type: application/json\r\nContent-Range: bytes 0-27/28\r\n",
            ),
            "part" => (
                "206 Partial",
                "Content-Type: application/json\r\nContent-Range: bytes 0-27/28\r\n",
            ),
            "parts" => (
                "206 Partial",
                "Content-Type: multipart/byteranges; boundary=a\r\n",
            ),
            "range" => (
                "200 OK",
                "Content-Type: application/json\r\nContent-Range: bytes 0-27/28\r\n",
            ),
            "latin" => ("200 OK", "Content-Type: application/json; charset=iso-8859-1\r\n"),
            "charset" => ("200 OK", "Content-Type: application/json; charset\r\n"),
            "listed" => ("200 OK", "Content-Type: application/json, application/json\r\n"),
            "second" => (
                "200 OK",
                "Content-Type: text/plain\r\nContent-Type: application/json\r\n",
            ),
            "first" => (
                "200 OK",
                "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
            ),
            "untold" => ("200 OK", ""),
            "nothing" => ("200 OK", "Content-Type: \r\n"),
            "parameter" => ("200 OK", "Content-Type: ;application/json\r\n"),
            "sequence" => ("200 OK", "Content-Type: application/json-seq\r\n"),
            "lines" => ("200 OK", "Content-Type: application/x-ndjson\r\n"),
            "html" => ("200 OK", "Content-Type: text/html; charset=iso-8859-1\r\n"),
            _ => ("200 OK", "Content-Type: application/json\r\n"),
        };
        wire.send(format!(
            "HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        true
    });
    let routes = r#"
routes:
  - {match: {path: /pass/**}, response: {body: {json: [{remove: /password}], wrong: pass}}, upstream: UP}
  - {match: {path: /in}, request: {body: {json: [{remove: /password}]}}, upstream: UP}
  - {match: {path: /**}, response: {body: {json: [{remove: /password}]}}, upstream: UP}
"#;
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    for path in ["/", "/pass/"] {
        let asked = format!("GET {path} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-99\r\nIf-Range: \"a\"\r\n\r\n");
        let response = client.send(asked).response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, r#"{"id":1}"#),
            "{path}"
        );
        assert!(upstream.last().header("if-range").is_empty());
    }
    let whole = client.get("/range");
    assert_eq!(whole.text(), r#"{"id":1}"#);
    assert_eq!(whole.header("content-range"), None);
    for path in [
        "part",
        "parts",
        "latin",
        "charset",
        "listed",
        "second",
        "first",
        "untold",
        "nothing",
        "parameter",
        "sequence",
        "lines",
    ] {
        let response = client.get(&format!("/{path}"));
        assert_eq!(
            (response.status, response.code().as_deref()),
            (502, Some("response_invalid")),
            "{path}"
        );
        let passed = client.get(&format!("/pass/{path}"));
        assert!(passed.text().contains("secret"), "the operator's word: {path}");
    }
    assert!(
        client.get("/html").text().contains("secret"),
        "no JSON, and says so"
    );
    let count = upstream.requests().len();
    for lines in [
        "Content-Type: application/json\r\nContent-Type: text/plain",
        "Content-Type: text/plain\r\nContent-Type: application/json",
        "Content-Type: application/json, application/json",
        "Content-Type: application/json; charset",
    ] {
        let mut client = Client::connect(gateway.address());
        let request = format!("POST /in HTTP/1.1\r\nHost: a\r\n{lines}\r\nContent-Length: 2\r\n\r\n{{}}");
        let response = client.send(request).response();
        assert_eq!(
            (response.status, response.code().as_deref()),
            (415, Some("unsupported_media_type")),
            "{lines}"
        );
    }
    assert_eq!(upstream.requests().len(), count);
}

#[test]
fn an_answer_without_a_type_goes_on_if_it_has_no_bytes() {
    let upstream = Upstream::start(|request, wire| {
        match request.target.as_str() {
            "/length" => wire.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            "/chunked" => wire.send("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            _ => {
                wire.send("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
            }
        }
        true
    });
    let routes = "routes: [{match: {path: /**}, response: {body: {json: [{remove: /a}]}}, upstream: UP}]\n";
    let gateway = Gateway::start(&Site::written(routes, &upstream));
    let mut client = Client::connect(gateway.address());
    for _ in 0..2 {
        for path in ["/length", "/chunked"] {
            let response = client.get(path);
            assert_eq!((response.status, response.text().as_str()), (404, ""), "{path}");
        }
    }
    assert_eq!(
        client.get("/something").code().as_deref(),
        Some("response_invalid")
    );
    assert_eq!(gateway.rejects(), [Reject::ResponseInvalid]);
}
