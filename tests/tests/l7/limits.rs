//! Sizes and deadlines, each with an answer and a count.

use std::time::{Duration, Instant};

use gateway::http::reject::Reject;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

const SHORT: Duration = Duration::from_millis(150);

#[test]
fn t31_sizes_are_capped() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.uri_bytes = 1000));
    let long = "x".repeat(2000);
    let huge = "x".repeat(20_000);
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    for (request, status, reject) in [
        (
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            414,
            Reject::UriTooLong,
        ),
        (
            format!("GET /?{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            414,
            Reject::UriTooLong,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {huge}\r\n\r\n"),
            431,
            Reject::HeaderTooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            431,
            Reject::HeaderTooLarge,
        ),
    ] {
        let response = Client::connect(gateway.address()).send(&request).try_response();
        assert_eq!(response.map_or(0, |r| r.status), status, "{reject:?}");
        assert!(gateway.told(reject), "{reject:?}: {:?}", gateway.rejects());
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn t29_a_body_over_the_cap_is_refused_early_or_cut_off() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| route.body_bytes = Some(10)));
    let at_cap = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789";
    assert_eq!(
        Client::connect(gateway.address()).send(at_cap).response().status,
        200
    );
    let told = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n";
    let response = Client::connect(gateway.address()).send(told).response();
    assert_eq!(
        (response.status, response.code().as_deref()),
        (413, Some("body_too_large"))
    );
    assert_eq!(
        upstream.requests().len(),
        1,
        "a length over the cap is refused before the upstream hears of it"
    );
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n";
    let response = Client::connect(gateway.address()).send(chunked).response();
    assert_eq!(
        (response.status, response.code().as_deref()),
        (413, Some("body_too_large"))
    );
    assert_eq!(gateway.rejects(), [Reject::BodyTooLarge, Reject::BodyTooLarge]);
}

#[test]
fn t29_a_chunk_that_announces_too_much_is_refused_before_it_comes() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| route.body_bytes = Some(10)));
    let post = |chunks: &str| {
        let since = Instant::now();
        let mut client = Client::connect(gateway.address());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(chunks);
        let response = client.response();
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "nothing more is waited for"
        );
        (response.status, response.code().unwrap_or_default())
    };
    let too_large = (413, "body_too_large".to_owned());
    assert_eq!(post("b\r\n"), too_large);
    assert_eq!(post("ffffffffffffffff\r\nabc"), too_large);
    assert_eq!(post("6\r\n012345\r\n5\r\n"), too_large);
    assert_eq!(post("6\r\n012345\r\n4\r\n0123\r\n0\r\n\r\n").0, 200);
    assert_eq!(gateway.rejects(), [Reject::BodyTooLarge; 3]);
}

#[test]
fn t28_a_header_that_does_not_end_is_waited_for_so_long_and_silence_is_no_offence() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.request_header = SHORT));
    assert!(Client::connect(gateway.address()).is_closed(), "said nothing");
    let mut idle = Client::connect(gateway.address());
    assert_eq!(idle.get("/").status, 200);
    assert!(idle.is_closed(), "said nothing more");
    assert_eq!(gateway.rejects(), []);
    let answer = Client::connect(gateway.address())
        .send("GET / HTTP/1.1\r\nHost:")
        .response();
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (408, Some("header_timeout"))
    );
    assert!(Client::connect(gateway.address()).send("PRI * HT").is_closed());
    assert!(gateway_tests::l7::gateway::eventually(
        || gateway.rejects() == [Reject::HeaderTimeout; 2]
    ));
}

#[test]
fn t28_a_body_that_stops_is_waited_for_so_long() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.body_progress = SHORT));
    let mut client = Client::connect(gateway.address());
    let response = client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .response();
    assert_eq!(
        (response.status, response.code().as_deref()),
        (408, Some("body_timeout"))
    );
    assert_eq!(gateway.rejects(), [Reject::BodyTimeout]);
}

#[test]
fn an_upstream_that_does_not_answer_is_waited_for_so_long() {
    let upstream = Upstream::start(|_, wire| {
        wire.wait_for_close();
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| route.response_header = Some(SHORT)));
    let response = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (response.status, response.code().as_deref()),
        (504, Some("upstream_timeout"))
    );
    let mut client = Client::connect(gateway.address());
    assert_eq!(
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
            .response()
            .status,
        504
    );
    assert_eq!(gateway.rejects(), [Reject::UpstreamTimeout; 2]);
}

#[test]
fn a_response_that_stops_is_cut_off() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        wire.wait_for_close();
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.body_progress = SHORT));
    let cut = Client::connect(gateway.address())
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .try_response();
    assert!(cut.is_err());
    assert!(gateway.told(Reject::UpstreamTimeout));
}

#[test]
fn t28_a_client_that_does_not_read_is_given_up() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        for _ in 0..1000 {
            wire.send(vec![b'x'; 100_000]);
        }
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.body_progress = SHORT));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let connections = gateway.server().connections();
    assert!(gateway_tests::l7::gateway::eventually(|| connections.len() == 1));
    assert!(gateway_tests::l7::gateway::eventually(|| connections.is_empty()));
}

#[test]
fn connections_are_capped_for_each_client() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.connections_per_client = 2));
    let mut first = Client::connect(gateway.address());
    let mut second = Client::connect(gateway.address());
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let turned_away = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (turned_away.status, turned_away.code().as_deref()),
        (503, Some("too_many_connections"))
    );
    assert_eq!(
        (
            turned_away.header("retry-after"),
            turned_away.header("connection")
        ),
        (Some("5"), Some("close"))
    );
    let mut head = Client::connect(gateway.address());
    head.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let told = head.head().expect("a header");
    assert_eq!(told.status, 503);
    assert!(told.header("content-length").is_some_and(|length| length != "0"));
    assert_eq!(head.rest(), b"", "an answer to HEAD has no body");
    assert!(gateway.told(Reject::TooManyConnections));
    assert_eq!(upstream.requests().len(), 2);
    drop(first);
    assert!(gateway_tests::l7::gateway::eventually(|| gateway
        .server()
        .connections()
        .len()
        == 1));
    assert_eq!(Client::connect(gateway.address()).get("/").status, 200);
}

#[test]
fn connections_over_the_cap_are_waited_for_a_moment_and_only_a_few_of_them() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).limits(|limits| limits.connections = 1));
    let mut inside = Client::connect(gateway.address());
    assert_eq!(inside.get("/").status, 200);
    let mut http2 = Client::connect(gateway.address());
    http2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(http2.rest(), b"");
    let since = Instant::now();
    let mut silent: Vec<_> = (0..64).map(|_| Client::connect(gateway.address())).collect();
    assert!(gateway_tests::l7::gateway::eventually(
        || gateway.rejects().len() == 65
    ));
    // Nobody is waited for any more.
    assert!(
        Client::connect(gateway.address())
            .send("GET / HTTP/1.1\r\n")
            .is_closed()
    );
    assert!(
        since.elapsed() < Duration::from_millis(900),
        "{:?}",
        since.elapsed()
    );
    let answer = silent[0]
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n")
        .send([b'x'; 3000])
        .response();
    assert_eq!(answer.status, 503);
    for client in &mut silent[1..] {
        assert_eq!(client.rest(), b"", "silence has no answer");
    }
    let waited = since.elapsed();
    assert!(
        waited > Duration::from_millis(900) && waited < Duration::from_secs(3),
        "{waited:?}"
    );
    let answer = Client::connect(gateway.address()).get("/");
    assert_eq!(answer.status, 503, "there is room for others");
    assert_eq!(inside.get("/").status, 200);
    assert_eq!(gateway.rejects(), vec![Reject::TooManyConnections; 67]);
}

#[test]
fn a_trusted_proxy_may_have_more_connections_than_a_client_and_no_more_than_all() {
    let upstream = Upstream::text("ok");
    let site = Site::to(&upstream).trusting(&["127.0.0.0/8"]).limits(|limits| {
        limits.connections_per_client = 2;
        limits.connections = 5;
    });
    let gateway = Gateway::start(&site);
    let mut held: Vec<_> = (0..5).map(|_| Client::connect(gateway.address())).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(gateway.rejects(), []);
    assert!(Client::connect(gateway.address()).is_closed());
    assert!(gateway.told(Reject::TooManyConnections));
}

#[test]
fn a_refusal_before_the_request_is_parsed_is_answered_like_any_other() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream));
    let huge = "x".repeat(40_000);
    for (request, status, code) in [
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "malformed"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {huge}\r\n\r\n"),
            431,
            "header_too_large",
        ),
    ] {
        let mut client = Client::connect(gateway.address());
        assert_eq!(client.get("/before").text(), "ok");
        let answer = client.send(&request).response();
        assert_eq!((answer.status, answer.code().as_deref()), (status, Some(code)));
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    }
}

#[test]
fn a_header_in_pieces_arrives_whole_with_what_follows_it() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream));
    let all =
        "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /two HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::connect(gateway.address());
    for piece in all.as_bytes().chunks(7) {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(
        (client.response().text(), client.response().text()),
        ("ok".into(), "ok".into())
    );
    let paths: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(paths, ["/one", "/two"]);
}

#[test]
fn a_client_that_ends_its_side_is_not_waited_for_as_one_that_is_there() {
    let (told, tells) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |request, wire| {
        if request.target == "/begins" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
            for byte in ["l", "a", "t"] {
                wire.send(byte);
                std::thread::sleep(Duration::from_millis(1_200));
            }
        }
        if request.target != "/" {
            wire.end();
            told.send(request.target.clone()).unwrap();
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    });
    let mut site = Site::to(&upstream);
    site.config.limits.response_header = Duration::from_secs(30);
    let gateway = Gateway::start(&site);
    for path in ["/never", "/begins"] {
        let begun = Instant::now();
        let mut client = Client::connect(gateway.address());
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .end();
        let got = client.rest();
        // What comes in pieces is passed on, however long it takes in all.
        assert!(
            got.ends_with(if path == "/begins" { b"lat" } else { b"" }),
            "{got:?}"
        );
        assert!((1_900..7_000).contains(&begun.elapsed().as_millis()), "{path}");
        let left = tells.recv_timeout(Duration::from_secs(5));
        assert_eq!(left.as_deref(), Ok(path), "the upstream is told");
    }
    let mut patient = Client::connect(gateway.address());
    assert_eq!(patient.get("/").text(), "ok");
}

#[test]
fn a_client_that_ends_its_side_gets_its_answer() {
    let upstream = Upstream::start(|_, wire| {
        std::thread::sleep(Duration::from_millis(600));
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    let answer = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").end().response();
    assert_eq!(answer.text(), "late");
    assert!(client.is_closed());
    assert!(gateway_tests::l7::gateway::eventually(|| gateway
        .server()
        .connections()
        .is_empty()));
}

#[test]
fn curl_sees_the_early_answer_to_an_http2_upload() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| route.body_bytes = Some(10)));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("upload");
    std::fs::write(&file, vec![0; 500_000]).unwrap();
    let output = std::process::Command::new("curl")
        .args(["-s", "-m", "10", "--http2-prior-knowledge", "-w", "%{http_code}"])
        .args(["-o", "/dev/null", "--data-binary"])
        .arg(format!("@{}", file.display()))
        .arg(format!("http://{}/", gateway.address()))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "413");
    assert!(output.status.success(), "{:?}", output.status);
}
