//! HTTP/2 clients that ask and do not read: what waits for them is given up in time, and memory with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::http2::*;
use gateway_tests::l7::{Gateway, Site, Upstream};

/// Longest pause of a body.
const PAUSE: Duration = Duration::from_millis(400);
/// More than anybody between the two holds.
const MUCH: usize = 4 << 20;
const STREAMS: u32 = 20;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
fn window(size: u32) -> Vec<u8> {
    let mut payload = vec![0, 4];
    payload.extend(size.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// `GET http://a/beside`.
fn get_beside(stream: u32) -> Vec<u8> {
    let head = b"\x82\x86\x04\x07/beside\x41\x01a";
    frame(HEADERS, END_STREAM | END_HEADERS, stream, head)
}

/// Answers `/beside` shortly, and all else with much, some time after the header. Counts the connections that broke off.
fn much(after: Duration) -> (Upstream, Arc<AtomicUsize>) {
    let broken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&broken);
    let upstream = Upstream::start(move |request, wire| {
        if request.target == "/beside" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            return true;
        }
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
        std::thread::sleep(after);
        wire.send(vec![b'x'; MUCH]);
        wire.wait_for_close();
        count.fetch_add(1, Ordering::Relaxed);
        false
    });
    (upstream, broken)
}

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&Site::to(upstream).limits(|limits| limits.body_progress = PAUSE))
}

/// Streams that were reset.
fn resets(frames: &[(u8, u32, Vec<u8>)]) -> usize {
    frames.iter().filter(|(kind, ..)| *kind == RST_STREAM).count()
}

fn data_of(frames: &[(u8, u32, Vec<u8>)], stream: u32) -> usize {
    let of = |frame: &&(u8, u32, Vec<u8>)| (frame.0, frame.1) == (DATA, stream);
    frames.iter().filter(of).map(|(.., payload)| payload.len()).sum()
}

#[test]
fn t26_streams_of_a_client_that_keeps_its_windows_shut_are_given_up() {
    for (case, before, then, after) in [
        ("shut from the beginning", 0, 0, Duration::ZERO),
        // The answer has been asked for more when the window goes.
        ("shut in the middle", 1000, 0, Duration::from_millis(150)),
        ("taken once", 1000, 1000, Duration::ZERO),
    ] {
        let (upstream, broken) = much(after);
        let gateway = gateway(&upstream);
        let mut client = Flood::open(gateway.address());
        client.send(&window(before));
        for turn in 0..STREAMS {
            client.send(&get(stream(turn)));
        }
        std::thread::sleep(Duration::from_millis(50));
        client.send(&window(then));
        let begun = Instant::now();
        assert!(
            eventually(|| broken.load(Ordering::Relaxed) == STREAMS as usize),
            "{case}: {broken:?} connections given back"
        );
        let took = begun.elapsed();
        assert!(took < PAUSE * 3, "{case}: {took:?}");
        // The connection is as good as before.
        client.send(&window(1 << 20));
        client.send(&get_beside(1001));
        std::thread::sleep(Duration::from_millis(200));
        client.end();
        let frames = client.frames();
        assert_eq!(resets(&frames), STREAMS as usize, "{case}");
        assert_eq!(data_of(&frames, 1001), 2, "{case}");
        assert_eq!(gateway.rejects(), [], "{case}");
    }
}

#[test]
fn t26_the_gateway_s_own_answers_are_given_up_too() {
    let (upstream, _) = much(Duration::ZERO);
    let site = Site::new()
        .route("other.example", "/**", &[(upstream.address(), 1)])
        .limits(|limits| limits.body_progress = PAUSE);
    let gateway = Gateway::start(&site);
    let mut client = Flood::open(gateway.address());
    client.send(&window(0));
    client.send(&get(1));
    std::thread::sleep(PAUSE * 2);
    client.end();
    assert_eq!(resets(&client.frames()), 1);
}

#[test]
fn t26_a_connection_with_the_end_of_an_answer_untaken_ends() {
    let upstream = Upstream::text("0123456789");
    let gateway = gateway(&upstream);
    let mut client = Flood::open(gateway.address());
    client.send(&window(5));
    let begun = Instant::now();
    client.send(&get(1));
    let frames = client.frames();
    let took = begun.elapsed();
    assert!(took > PAUSE && took < PAUSE * 5, "{took:?}");
    assert_eq!(data_of(&frames, 1), 5);
    assert!(frames.iter().any(|(kind, ..)| *kind == GOAWAY));
    assert!(eventually(|| gateway.server().connections().is_empty()));
}

#[test]
fn a_client_that_takes_a_little_at_a_time_gets_all_of_it() {
    let upstream = Upstream::text("0123456789");
    let gateway = gateway(&upstream);
    let mut client = Flood::open(gateway.address());
    client.send(&window(0));
    client.send(&get(1));
    for _ in 0..10 {
        std::thread::sleep(PAUSE / 2);
        client.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    }
    std::thread::sleep(PAUSE / 2);
    client.end();
    let frames = client.frames();
    assert_eq!((data_of(&frames, 1), resets(&frames)), (10, 0));
}

#[test]
fn an_answer_that_the_upstream_is_slow_with_is_not_the_client_s_to_lose() {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 2\r\n\r\no");
        std::thread::sleep(PAUSE * 4);
        wire.send("k");
        true
    });
    let gateway = gateway(&upstream);
    let mut client = Flood::open(gateway.address());
    client.send(&get(1));
    std::thread::sleep(PAUSE * 5);
    client.end();
    let frames = client.frames();
    assert_eq!((data_of(&frames, 1), resets(&frames)), (2, 0));
}
