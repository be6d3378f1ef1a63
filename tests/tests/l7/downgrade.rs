//! What HTTP/2 can carry and HTTP/1 can not say: none of it reaches an HTTP/1 upstream.

use std::time::Duration;

use gateway::config::model::Protocol;
use gateway::http::reject::Reject;
use gateway_tests::l7::http2::*;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// A line as a literal that is not remembered.
fn line(name: &str, value: &str) -> Vec<u8> {
    let mut line = vec![0];
    for text in [name, value] {
        line.push(u8::try_from(text.len()).unwrap());
        line.extend(text.bytes());
    }
    line
}

/// `GET http://a/` but for its path.
fn to_path(path: &str) -> Vec<u8> {
    let mut head = b"\x82\x86\x41\x01a\x04".to_vec();
    head.push(u8::try_from(path.len()).unwrap());
    head.extend(path.bytes());
    head
}

fn with(name: &str, value: &str) -> Vec<u8> {
    [GET, &line(name, value)].concat()
}

/// Whether a request is refused: its stream or its connection ended, or status 400.
fn is_refused(frames: &[(u8, u32, Vec<u8>)]) -> bool {
    frames.iter().any(|(kind, stream, payload)| match *kind {
        RST_STREAM => *stream == 1,
        // With an error.
        GOAWAY => payload.get(4..8) != Some(&[0; 4]),
        // `:status: 400`, as in the static table.
        HEADERS => payload.first() == Some(&0x8c),
        _ => false,
    })
}

#[test]
fn t06_what_http1_can_not_say_is_refused_in_http2() {
    let upstream = Upstream::text("downgraded");
    let gateway = Gateway::start(&Site::to(&upstream));
    let sent = |head: &[u8]| {
        let mut client = Flood::open(gateway.address());
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, head));
        std::thread::sleep(Duration::from_millis(50));
        client.end();
        client.frames()
    };
    assert!(!is_refused(&sent(&with("x-fine", "1 \t2"))));
    assert!(!is_refused(&sent(&with("x-empty", ""))));
    assert_eq!(upstream.requests().len(), 2);
    let mut wrong = vec![];
    for (case, head) in [
        ("CR LF in a value", with("x", "1\r\nx-b: 2")),
        ("LF in a value", with("x", "1\nx-b: 2")),
        ("CR in a value", with("x", "1\rx-b: 2")),
        ("NUL in a value", with("x", "a\0b")),
        ("CR LF in a name", with("x\r\ny", "1")),
        ("colon in a name", with("x: 1\r\ny", "1")),
        ("colon alone", with("x:", "1")),
        ("space in a name", with("x y", "1")),
        ("upper case", with("X-A", "1")),
        ("an empty name", with("", "1")),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "1")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("upgrade", with("upgrade", "websocket")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("te", with("te", "gzip")),
        ("another host", with("host", "b")),
        ("a space in the path", to_path("/ HTTP/1.1\r\nx: 1")),
        ("a space alone", to_path("/a b")),
        ("an empty path", to_path("")),
        ("no slash", to_path("a")),
        ("an absolute path", to_path("http://b/")),
        ("two methods", [GET, b"\x83"].concat()),
        ("two paths", [GET, b"\x84"].concat()),
        ("two authorities", [GET, b"\x41\x01b"].concat()),
        ("an unknown pseudo line", with(":x", "1")),
        (
            "a pseudo line behind a line",
            [GET, &line("x", "1"), b"\x86"].concat(),
        ),
        ("no path", b"\x82\x86\x41\x01a".to_vec()),
        ("another scheme", b"\x82\x06\x03ftp\x84\x41\x01a".to_vec()),
        ("no scheme", b"\x82\x84\x41\x01a".to_vec()),
        ("no method", b"\x86\x84\x41\x01a".to_vec()),
        ("a bad authority", b"\x82\x86\x84\x41\x03a b".to_vec()),
        ("somebody at an authority", b"\x82\x86\x84\x41\x03u@a".to_vec()),
        ("a length that is none", with("content-length", "+3")),
        (
            "two lengths",
            [GET, &line("content-length", "0"), &line("content-length", "0")].concat(),
        ),
        ("a length without a body", with("content-length", "3")),
        ("a blank before a value", with("x", " 1")),
        ("a blank behind a value", with("x", "1 ")),
        ("a tab before a value", with("x", "\t1")),
        ("a tab behind a value", with("x", "1\t")),
        ("a blank and nothing", with("x", " ")),
        ("a blank behind the host", with("host", "a ")),
    ] {
        let frames = sent(&head);
        if !is_refused(&frames) {
            wrong.push(format!("{case}: {frames:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let reached = upstream.requests();
    assert_eq!(reached.len(), 2, "{reached:?}");
}

#[test]
fn t06_pseudo_lines_of_a_trailer_go_nowhere() {
    let upstream = Upstream::start(|request, wire| {
        let raw = wire.body(request);
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            raw.len()
        ));
        wire.send(raw);
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let behind = |trailer: &[u8]| {
        let mut client = Flood::open(gateway.address());
        client.send(&frame(HEADERS, END_HEADERS, 1, POST));
        client.send(&frame(DATA, 0, 1, b"abc"));
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, trailer));
        std::thread::sleep(Duration::from_millis(50));
        client.end();
        client.frames()
    };
    let text = |frames: &[(u8, u32, Vec<u8>)]| {
        let data = frames.iter().filter(|(kind, ..)| *kind == DATA);
        let bytes: Vec<u8> = data.flat_map(|(.., payload)| payload.clone()).collect();
        String::from_utf8(bytes).unwrap()
    };
    let plain = text(&behind(&line("x-fine", "1")));
    assert!(plain.ends_with("0\r\nx-fine: 1\r\n\r\n"), "{plain:?}");
    // The library takes them out unseen where they may stand in a header; the rest of the trailer is what it is.
    for pseudo in [
        b"\x87".to_vec(),
        b"\x83".to_vec(),
        b"\x88".to_vec(),
        b"\x04\x02/x".to_vec(),
    ] {
        let frames = behind(&[pseudo, line("x-fine", "1")].concat());
        if !is_refused(&frames) {
            assert_eq!(text(&frames), plain);
        }
    }
    for wrong in [
        [line("x-fine", "1"), b"\x87".to_vec()].concat(),
        line(":x", "1"),
        line("x-fine", "1 "),
        line("x-fine", "\t1"),
    ] {
        assert!(is_refused(&behind(&wrong)), "{wrong:?}");
    }
}

#[test]
fn t06_a_body_is_as_long_as_it_says_or_the_request_never_completes() {
    for (length, data) in [("5", "abc"), ("2", "abc"), ("0", "abc")] {
        let upstream = Upstream::start(|request, wire| {
            let length: usize = request
                .header("content-length")
                .first()
                .and_then(|l| l.parse().ok())
                .unwrap_or(0);
            if wire.body(request).len() == length {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
            }
            true
        });
        let gateway = Gateway::start(&Site::to(&upstream));
        let mut client = Flood::open(gateway.address());
        let head = [POST, &line("content-length", length)].concat();
        client.send(&frame(HEADERS, END_HEADERS, 1, &head));
        client.send(&frame(DATA, END_STREAM, 1, data.as_bytes()));
        std::thread::sleep(Duration::from_millis(200));
        client.end();
        let frames = client.frames();
        assert!(is_refused(&frames), "{length} and {data:?}: {frames:?}");
        let whole = frames.iter().any(|(.., payload)| payload.as_slice() == b"whole");
        assert!(!whole, "{length} and {data:?}");
        // The upstream's connection is not what a next request comes on.
        assert_eq!(Client::connect(gateway.address()).get("/after").status, 200);
        let reached = upstream.requests();
        let before = reached.iter().filter(|request| request.target == "/");
        let after = reached.last().expect("a request");
        for request in before {
            assert_ne!(request.connection, after.connection, "{length} and {data:?}");
        }
    }
}

#[test]
fn t06_blanks_around_a_value_of_an_http2_upstream_make_no_answer() {
    let answer = |head: &[u8], trailer: &[u8]| {
        let bytes = [
            frame(SETTINGS, 0, 0, &[]),
            frame(SETTINGS, 1, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &[b"\x88", head].concat()),
            frame(DATA, 0, 1, b"abc"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, trailer),
        ];
        let upstream = Upstream::start(move |_, wire| {
            // The header of the request.
            wire.read_until(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])[3..]);
            wire.send(bytes.concat());
            wire.wait_for_close();
            false
        });
        let site = Site::to(&upstream).upstream(|upstream| upstream.protocol = Protocol::Http2);
        let gateway = Gateway::start(&site);
        let answer = Client::connect(gateway.address())
            .send("GET / HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n\r\n")
            .try_response();
        let malformed = gateway.rejects() == [Reject::UpstreamMalformed];
        (
            answer.ok().map(|answer| (answer.status, answer.text())),
            malformed,
        )
    };
    let fine = line("x-fine", "1 2");
    assert_eq!(answer(&fine, &fine), (Some((200, "abc".to_owned())), false));
    for value in [" 1", "1 ", "\t1", "1\t", " "] {
        let wrong = line("x", value);
        let (told, malformed) = answer(&wrong, &fine);
        assert!(
            malformed && told.is_some_and(|(status, _)| status == 502),
            "{value:?}"
        );
        let (told, malformed) = answer(&fine, &wrong);
        assert!(malformed && told.is_none(), "{value:?} in the trailer");
    }
}
