//! How a client's connection ends when it asks for nothing, and when the gateway wants it to go elsewhere.

use std::time::{Duration, Instant};

use gateway::http::reject::Reject;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::http2::{END_HEADERS, END_STREAM, Flood, GET, GOAWAY, HEADERS, frame};
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

const LIMIT: Duration = Duration::from_secs(1);
/// What a connection may take to end, and this machine to notice.
const SLACK: Duration = Duration::from_millis(900);

fn impatient(upstream: &Upstream) -> Gateway {
    Gateway::start(&Site::to(upstream).limits(|limits| limits.request_header = LIMIT))
}

/// When the gateway closed, counted from `since`.
fn ended(flood: Flood, since: Instant) -> Duration {
    let _ = flood.frames();
    since.elapsed()
}

fn is_in_time(took: Duration) -> bool {
    took >= LIMIT - Duration::from_millis(20) && took < LIMIT + SLACK
}

#[test]
fn t28_an_http2_connection_without_a_request_ends_when_a_header_is_overdue() {
    let upstream = Upstream::text("ok");
    let gateway = impatient(&upstream);
    let since = Instant::now();
    // It never answers a PING.
    let took = ended(Flood::open(gateway.address()), since);
    assert!(is_in_time(took), "{took:?}");
    let mut flood = Flood::open(gateway.address());
    std::thread::sleep(LIMIT / 2);
    flood.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET));
    let since = Instant::now();
    let frames = flood.frames();
    let took = since.elapsed();
    assert!(is_in_time(took), "counted from the answer: {took:?}");
    assert!(
        frames
            .iter()
            .any(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 1))
    );
    assert_eq!(gateway.rejects(), [], "silence is no offence");
}

#[test]
fn t28_an_http2_header_that_does_not_end_is_waited_for_so_long_and_no_longer() {
    let upstream = Upstream::text("ok");
    let gateway = impatient(&upstream);
    for begun in [
        frame(HEADERS, END_STREAM, 1, GET),
        frame(HEADERS, END_HEADERS, 1, GET)[..11].to_vec(),
    ] {
        let mut flood = Flood::open(gateway.address());
        let since = Instant::now();
        flood.send(&begun);
        let took = ended(flood, since);
        assert!(is_in_time(took), "{took:?}");
    }
    // Told when the connection has ended.
    assert!(eventually(|| gateway.rejects() == [Reject::HeaderTimeout; 2]));
}

#[test]
fn t28_bytes_that_only_tell_the_protocol_do_not_buy_more_time() {
    let upstream = Upstream::text("ok");
    let gateway = impatient(&upstream);
    for first in ["PRI * HTT", "G"] {
        let since = Instant::now();
        let mut client = Client::connect(gateway.address());
        std::thread::sleep(LIMIT * 3 / 4);
        client.send(first);
        let _ = client.rest();
        let took = since.elapsed();
        assert!(is_in_time(took), "{first:?}: {took:?}");
    }
    assert!(gateway.told(Reject::HeaderTimeout));
}

#[test]
fn an_http2_client_that_is_there_is_told_to_go_away() {
    let upstream = Upstream::text("ok");
    let gateway = impatient(&upstream);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let since = Instant::now();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let (_client, connection) = h2::client::handshake(stream).await.unwrap();
        connection.await.expect("GOAWAY without an error");
    });
    assert!(is_in_time(since.elapsed()), "{:?}", since.elapsed());
}

#[test]
fn a_gateway_that_is_leaving_says_so_with_each_answer_and_serves_on() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut kept = Client::connect(gateway.address());
    assert_eq!(kept.get("/").header("connection"), None);
    let mut other = Client::connect(gateway.address());
    assert_eq!(other.get("/").status, 200);
    let mut http2 = Flood::open(gateway.address());
    http2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET));
    std::thread::sleep(Duration::from_millis(200));

    gateway.server().leave();
    std::thread::sleep(Duration::from_millis(200));
    let answer = kept.get("/");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(kept.is_closed());
    let answer = Client::connect(gateway.address())
        .send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        .response();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    // One without a request is not cut off: a request may be on its way.
    http2.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, GET));
    std::thread::sleep(Duration::from_millis(200));
    http2.end();
    let frames = http2.frames();
    let at = |kind, stream| {
        let found = frames.iter().position(|(k, s, _)| (*k, *s) == (kind, stream));
        found.unwrap_or_else(|| panic!("{frames:?}"))
    };
    let (first, second, away) = (at(HEADERS, 1), at(HEADERS, 3), at(GOAWAY, 0));
    assert!(first < away && first < second, "{frames:?}");
    assert_eq!(frames[away].2[4..8], [0; 4], "no error");
    // Who says nothing is let go at the end of the delay, by an end and not by a reset.
    assert!(gateway.shutdown(Duration::from_secs(10)));
    assert_eq!(
        other.try_response().unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    assert_eq!(upstream.requests().len(), 6);
}
