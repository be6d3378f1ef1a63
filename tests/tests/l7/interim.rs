//! Interim answers (1xx) of an upstream, on their way to the client before the answer.

use std::sync::mpsc;
use std::time::Duration;

use gateway_tests::l7::{Client, Gateway, Site, Upstream};
use http::HeaderName;

const SAID: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Inner: secret\r\nConnection: X-Hop\r\n\
    X-Hop: 1\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn hints_arrive_before_the_answer_is_there() {
    let (go, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |_, wire| {
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        wire.send(SAID);
        let waited = wait.lock().unwrap().recv_timeout(Duration::from_secs(5));
        wire.send(if waited.is_ok() {
            ANSWER
        } else {
            "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
        });
        true
    });
    let site =
        Site::to(&upstream).with(|route| route.response.remove = vec![HeaderName::from_static("x-inner")]);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            client.head().unwrap().status,
            102,
            "and no 100, which nobody waits for"
        );
        let hint = client.head().unwrap();
        assert_eq!(hint.status, 103);
        assert_eq!(hint.header("link"), Some("</a.css>; rel=preload"));
        for gone in [
            "x-inner",
            "x-hop",
            "connection",
            "content-length",
            "transfer-encoding",
            "date",
        ] {
            assert_eq!(hint.header(gone), None, "{gone}");
        }
        go.send(()).unwrap();
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn an_old_client_never_sees_one() {
    let upstream = Upstream::start(|_, wire| {
        wire.send(format!("{SAID}{ANSWER}"));
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(client.rest().starts_with(b"HTTP/1.1 200 "));
    // The next connection of the same worker has nothing left over from it.
    assert_eq!(
        Client::connect(gateway.address())
            .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .head()
            .unwrap()
            .status,
        103
    );
}

#[test]
fn an_http2_client_gets_the_answer_alone() {
    let upstream = Upstream::start(|_, wire| {
        wire.send(format!("{SAID}{ANSWER}"));
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let url = format!("http://{}/", gateway.address());
    let words = [
        "-s",
        "-i",
        "-m",
        "5",
        "--noproxy",
        "*",
        "--http2-prior-knowledge",
        &url,
    ];
    let output = std::process::Command::new("curl")
        .args(words)
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("HTTP/2 200") && text.ends_with("ok"), "{text}");
}

#[test]
fn interim_answers_without_end_are_no_answer() {
    let many = format!("{}{ANSWER}", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17));
    let long = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "x".repeat(9 << 10)
    );
    for (case, answer) in [
        ("in number", many),
        ("in bytes", format!("{}{ANSWER}", long.repeat(4))),
    ] {
        let upstream = Upstream::start(move |_, wire| {
            wire.send(&answer);
            true
        });
        let gateway = Gateway::start(&Site::to(&upstream));
        let mut client = Client::connect(gateway.address());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let last = loop {
            let head = client.head().unwrap();
            if head.status != 103 {
                break head.status;
            }
        };
        assert_eq!(last, 502, "{case}");
    }
}

#[test]
fn whoever_has_hinted_has_answered() {
    // Closes a kept connection behind an interim answer: the request was taken up, and is not made again.
    let upstream = Upstream::start(|request, wire| {
        if request.target == "/second" {
            wire.send(SAID);
            return false;
        }
        wire.send(ANSWER);
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/first").text(), "ok");
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 103);
    assert_eq!(client.response().status, 502);
    let seconds = upstream
        .requests()
        .iter()
        .filter(|request| request.target == "/second")
        .count();
    assert_eq!(seconds, 1);
}

#[test]
fn a_client_that_reads_nothing_is_not_kept_hints_for() {
    let hints = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "x".repeat(7 << 10)
    )
    .repeat(4);
    let upstream = Upstream::start(move |_, wire| {
        wire.send(format!("{hints}{ANSWER}"));
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    // All asked at once; what can not be sent of hints is left out, and every answer comes.
    for _ in 0..50 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut answers = 0;
    while answers < 50 {
        if client.head().unwrap().status == 200 {
            answers += 1;
            assert_eq!(client.exactly(2), b"ok");
        }
    }
}
