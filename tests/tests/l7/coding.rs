//! Compressed answers and requests, with real clients and with bodies that are not what they say.

use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::config::model::Coding;
use gateway::http::coding::decode::Decoder;
use gateway::http::coding::encode::Encoder;
use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};

const COMPRESS: &str = "routes: [{match: {path: /**}, compress: true, upstream: UP}]\n";
const DECOMPRESS: &str = "routes: [{match: {path: /**}, decompress: {max: 1MiB}, upstream: UP}]\n";

fn text() -> String {
    "{\"name\":\"gateway\",\"kind\":\"edge\"},".repeat(1000)
}

fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(coding).expect("an encoder");
    let mut out = encoder.push(plain).expect("coded").to_vec();
    out.extend(encoder.finish().expect("finished"));
    out
}

fn plain(coding: Coding, coded: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(coding, 1 << 30).expect("a decoder");
    let mut out = decoder.push(coded).expect("well coded").to_vec();
    out.extend(decoder.finish().expect("complete"));
    out
}

/// Answers as the path says.
fn service() -> Upstream {
    Upstream::start(|request, wire| {
        let body = text();
        let json = "Content-Type: application/json\r\n";
        let (lines, body) = match request.target.as_str() {
            "/small" => (json.to_owned(), "{}"),
            "/image" => ("Content-Type: image/png\r\n".to_owned(), &*body),
            "/range" => (format!("{json}Content-Range: bytes 0-9/100\r\n"), &*body),
            "/fixed" => (format!("{json}Cache-Control: no-transform\r\n"), &*body),
            "/coded" => (format!("{json}Content-Encoding: br\r\n"), &*body),
            "/grpc" => ("Content-Type: application/grpc+json\r\n".to_owned(), &*body),
            _ => (format!("{json}ETag: \"v1\"\r\nAccept-Ranges: bytes\r\n"), &*body),
        };
        let status = if request.target == "/range" {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(if request.method == "HEAD" {
            head
        } else {
            format!("{head}{body}")
        });
        true
    })
}

fn get(client: &mut Client, path: &str, accept: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {accept}\r\n\r\n");
    client.send(request).response()
}

#[test]
fn answers_are_coded_as_the_client_likes_and_only_if_it_is_worth_it() {
    let upstream = service();
    let gateway = Gateway::start(&Site::written(COMPRESS, &upstream));
    let mut client = Client::connect(gateway.address());
    for (accept, name, coding) in [
        ("gzip, br, zstd", "zstd", Coding::Zstd),
        ("gzip;q=1, br;q=0.9", "gzip", Coding::Gzip),
        ("br", "br", Coding::Brotli),
    ] {
        let response = get(&mut client, "/", accept);
        assert_eq!(response.header("content-encoding"), Some(name));
        assert_eq!(response.header("vary"), Some("Accept-Encoding"));
        assert_eq!(response.header("etag"), Some("W/\"v1\""));
        assert_eq!(
            (
                response.header("content-length"),
                response.header("accept-ranges")
            ),
            (None, None)
        );
        assert!(response.body.len() * 10 < text().len(), "{}", response.body.len());
        assert_eq!(plain(coding, &response.body), text().into_bytes());
    }
    for accept in ["", "deflate", "gzip;q=0", "identity, gzip;q=0.1"] {
        let response = get(&mut client, "/", accept);
        assert_eq!(
            (response.header("content-encoding"), response.text()),
            (None, text()),
            "{accept}"
        );
        assert_eq!(
            response.header("vary"),
            Some("Accept-Encoding"),
            "a cache must know"
        );
        assert_eq!(response.header("etag"), Some("\"v1\""));
    }
    for path in ["/small", "/image", "/range", "/fixed", "/coded", "/grpc"] {
        let response = get(&mut client, path, "gzip");
        assert_ne!(response.header("content-encoding"), Some("gzip"), "{path}");
        assert!(
            response.header("content-length").is_some() && response.header("vary").is_none(),
            "{path}"
        );
    }
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head().expect("a header");
    assert_eq!(
        (head.header("content-encoding"), head.header("content-length")),
        (Some("gzip"), None)
    );
    assert_eq!(
        get(&mut client, "/small", "gzip").text(),
        "{}",
        "no body followed"
    );
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn curl_reads_what_was_coded_over_http2() {
    let upstream = service();
    let gateway = Gateway::start(&Site::written(COMPRESS, &upstream));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "10",
                "--noproxy",
                "*",
                "--compressed",
                version,
            ])
            .arg(format!("http://{}/", gateway.address()))
            .output()
            .expect("curl runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.stdout, text().into_bytes(), "{version}");
    }
}

#[test]
fn a_coded_stream_is_not_held_back_while_the_service_pauses() {
    let (go, told) = mpsc::channel::<()>();
    let told = Arc::new(Mutex::new(told));
    let upstream = Upstream::start(move |_, wire| {
        wire.send(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        for n in 0..3 {
            wire.send(format!("9\r\n{{\"n\": {n}}}\n\r\n"));
            let _ = told.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        wire.send("0\r\n\r\n");
        true
    });
    let gateway = Gateway::start(&Site::written(COMPRESS, &upstream));
    for (name, coding) in [
        ("gzip", Coding::Gzip),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ] {
        let mut client = Client::connect(gateway.address());
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {name}\r\n\r\n"
        ));
        assert_eq!(client.head().unwrap().header("content-encoding"), Some(name));
        let mut decoder = Decoder::new(coding, 1 << 20).unwrap();
        for n in 0..3 {
            let mut line = Vec::new();
            while line.len() < 9 {
                let chunk = client.chunk().unwrap().expect("a line before the next is sent");
                line.extend(decoder.push(&chunk).unwrap());
            }
            assert_eq!(line, format!("{{\"n\": {n}}}\n").into_bytes(), "{name}");
            go.send(()).unwrap();
        }
        while let Some(chunk) = client.chunk().unwrap() {
            assert!(decoder.push(&chunk).unwrap().is_empty());
        }
        assert!(decoder.finish().is_ok());
    }
}

#[test]
fn a_coded_answer_cut_short_is_cut_short_for_the_client_too() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10000\r\n\r\nhalf");
        false
    });
    let gateway = Gateway::start(&Site::written(COMPRESS, &upstream));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert!(client.try_response().is_err());
    assert!(gateway.told(Reject::UpstreamClosed));
}

fn post(gateway: &Gateway, coding: &str, body: &[u8]) -> Response {
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut client = Client::connect(gateway.address());
    client.send([head.as_bytes(), body].concat()).response()
}

/// Takes the chunks of a body apart.
fn unchunked(raw: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), raw);
    loop {
        let end = gateway_tests::l7::raw::find(rest, b"\r\n").expect("a chunk");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return out;
        }
        out.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

#[test]
fn coded_requests_reach_the_service_plain() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let upstream = Upstream::start(move |request, wire| {
        let body = wire.body(request);
        seen.lock().unwrap().push(body);
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    });
    let gateway = Gateway::start(&Site::written(DECOMPRESS, &upstream));
    for (name, coding) in [
        ("gzip", Coding::Gzip),
        ("br", Coding::Brotli),
        ("ZSTD", Coding::Zstd),
    ] {
        assert_eq!(
            post(&gateway, name, &coded(coding, text().as_bytes())).status,
            200
        );
        let request = upstream.last();
        assert!(request.header("content-encoding").is_empty() && request.header("content-length").is_empty());
        assert_eq!(request.header("transfer-encoding"), ["chunked"]);
        assert_eq!(
            unchunked(&bodies.lock().unwrap().pop().unwrap()),
            text().into_bytes(),
            "{name}"
        );
    }
    assert_eq!(post(&gateway, "identity", b"plain").status, 200);
    assert_eq!(bodies.lock().unwrap().pop().unwrap(), b"plain");
    // Without the setting nothing is touched.
    let gateway = Gateway::start(&Site::to(&upstream));
    let body = coded(Coding::Gzip, b"x");
    assert_eq!(post(&gateway, "gzip", &body).status, 200);
    assert_eq!(upstream.last().header("content-encoding"), ["gzip"]);
    assert_eq!(bodies.lock().unwrap().pop().unwrap(), body);
}

#[test]
fn t29_a_body_that_becomes_too_large_is_refused_and_so_is_one_that_lies() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::written(DECOMPRESS, &upstream));
    for (name, coding) in [
        ("gzip", Coding::Gzip),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ] {
        let bomb = coded(coding, &vec![0; 64 << 20]);
        let refused = post(&gateway, name, &bomb);
        assert_eq!(
            (refused.status, refused.code().as_deref()),
            (413, Some("body_too_large")),
            "{name}"
        );
        let whole = coded(coding, text().as_bytes());
        for bad in [
            &whole[..whole.len() - 1],
            b"not coded at all",
            &[&whole[..], b"more"].concat(),
        ] {
            let refused = post(&gateway, name, bad);
            assert_eq!(
                (refused.status, refused.code().as_deref()),
                (400, Some("bad_body")),
                "{name} {}",
                bad.len()
            );
        }
    }
    for unknown in ["deflate", "gzip, gzip", "x"] {
        let refused = post(&gateway, unknown, b"abc");
        assert_eq!(
            (refused.status, refused.code().as_deref()),
            (415, Some("unsupported_coding")),
            "{unknown}"
        );
        assert_eq!(refused.header("accept-encoding"), Some("zstd, br, gzip"));
    }
}
