//! HTTP/2 clients that cost the gateway more than themselves: each ends with GOAWAY and a reject that counts as a strike,
//! with little memory taken, and the client beside it is served.

use std::time::Duration;

use gateway::http::reject::Reject;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::http2::*;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;

/// MiB that this process may grow by meanwhile; the tests beside this one are in it.
const LITTLE: usize = 60;

/// Of this process, in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024
}

/// Floods until the gateway closes, at most `most` times, and looks at all that must hold.
fn ends(
    upstream: &Upstream,
    most: u32,
    reject: Reject,
    codes: &[u32],
    mut once: impl FnMut(&mut Flood, u32) -> bool,
) {
    let gateway = Gateway::start(&Site::to(upstream));
    let mut beside = Client::connect(gateway.address());
    assert_eq!(beside.get("/beside").status, 200);
    let before = resident();
    let mut flood = Flood::open(gateway.address());
    for turn in 0..most {
        if !once(&mut flood, turn) {
            break;
        }
    }
    assert_eq!(beside.get("/beside").status, 200);
    let code = flood.goaway();
    assert!(code.is_some_and(|code| codes.contains(&code)), "GOAWAY {code:?}");
    assert!(gateway.told(reject), "{:?}", gateway.rejects());
    // Streams may have been refused on their own before.
    let told = gateway.rejects();
    assert!(
        told.iter()
            .all(|told| *told == reject || *told == Reject::Malformed),
        "{told:?}"
    );
    assert_eq!(told.iter().filter(|told| **told == reject).count(), 1);
    assert!(reject.default_strikes() > 0);
    let held = resident().saturating_sub(before);
    assert!(held < LITTLE, "{held} MiB");
    assert!(eventually(|| gateway.server().connections().len() == 1));
    assert_eq!(beside.get("/beside").status, 200);
}

fn asked(upstream: &Upstream) -> usize {
    let requests = upstream.requests();
    requests.iter().filter(|request| request.target == "/").count()
}

/// Answers `/beside`, and lets all else wait until it is given up.
fn hanging() -> Upstream {
    Upstream::start(|request, wire| {
        if request.target == "/beside" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            return true;
        }
        wire.wait_for_close();
        false
    })
}

#[test]
fn t22_requests_that_are_reset_at_once_end_the_connection() {
    let upstream = hanging();
    ends(
        &upstream,
        400,
        Reject::Http2Abuse,
        &[ENHANCE_YOUR_CALM],
        |flood, turn| {
            let mut bytes = Vec::new();
            for index in 0..200 {
                let stream = stream(turn * 200 + index);
                bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
                bytes.extend(frame(RST_STREAM, 0, stream, CANCEL));
            }
            flood.send(&bytes)
        },
    );
    assert!(asked(&upstream) < 1000, "{} requests", asked(&upstream));
}

#[test]
fn t22_requests_that_are_reset_once_they_are_under_way_end_the_connection() {
    let upstream = hanging();
    ends(
        &upstream,
        400,
        Reject::Http2Abuse,
        // The library's own, if what is sent apart is read at once.
        &[PROTOCOL_ERROR, ENHANCE_YOUR_CALM],
        |flood, turn| {
            // Half of what may be open, so that the library has no reason of its own to end it.
            let streams = (0..50).map(|index| stream(turn * 50 + index));
            let open: Vec<u8> = streams
                .clone()
                .flat_map(|stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, GET))
                .collect();
            let reset: Vec<u8> = streams
                .flat_map(|stream| frame(RST_STREAM, 0, stream, CANCEL))
                .collect();
            flood.send(&open);
            std::thread::sleep(Duration::from_millis(2));
            flood.send(&reset)
        },
    );
    assert!(asked(&upstream) <= 2100, "{} requests", asked(&upstream));
}

#[test]
fn t22_a_client_that_gives_up_all_it_asked_for_is_no_flood() {
    let upstream = hanging();
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Flood::open(gateway.address());
    for round in 0..3 {
        let streams = (0..90).map(|index| stream(round * 90 + index));
        for stream in streams.clone() {
            client.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        }
        for stream in streams {
            client.send(&frame(RST_STREAM, 0, stream, CANCEL));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // `:path: /beside`, as a literal.
    client.send(&frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1001,
        b"\x82\x86\x04\x07/beside\x41\x01a",
    ));
    std::thread::sleep(Duration::from_millis(300));
    client.end();
    let frames = client.frames();
    assert!(
        frames
            .iter()
            .any(|(kind, stream, _)| (*kind, *stream) == (DATA, 1001)),
        "{frames:?}"
    );
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn t23_a_header_of_endless_continuations_ends_the_connection() {
    let upstream = Upstream::text("ok");
    let endless = |payload: Vec<u8>, reject, code| {
        ends(&upstream, 10_000, reject, code, |flood, turn| match turn {
            0 => flood.send(&frame(HEADERS, END_STREAM, 1, GET)),
            _ => flood.send(&frame(CONTINUATION, 0, 1, &payload)),
        });
    };
    endless(vec![], Reject::Http2Abuse, &[ENHANCE_YOUR_CALM]);
    // Literal lines `x: xxxx…` that are not remembered, 100 bytes each.
    let mut line = b"\x00\x01x\x60".to_vec();
    line.extend([b'x'; 96]);
    endless(line.repeat(160), Reject::Http2Abuse, &[ENHANCE_YOUR_CALM]);
    assert_eq!(asked(&upstream), 0);
}

#[test]
fn t24_streams_that_the_gateway_is_made_to_reset_end_the_connection() {
    // `content-length: 1`, and four bytes.
    let short = [POST, b"\x0f\x0d\x011"].concat();
    let beyond = [0x7f, 0xff, 0xff, 0xff];
    for (flags, head, kind, payload) in [
        (END_STREAM | END_HEADERS, GET, WINDOW_UPDATE, &beyond),
        (END_HEADERS, &short, DATA, b"more"),
    ] {
        let upstream = hanging();
        let calm = &[ENHANCE_YOUR_CALM];
        ends(&upstream, 10_000, Reject::Http2Abuse, calm, |flood, turn| {
            let mut bytes = frame(HEADERS, flags, stream(turn), head);
            bytes.extend(frame(kind, 0, stream(turn), payload));
            flood.send(&bytes)
        });
        assert!(asked(&upstream) <= 2000, "{} requests", asked(&upstream));
    }
}

#[test]
fn t25_empty_and_tiny_pieces_of_a_body_end_the_connection() {
    for piece in [&b""[..], b"x"] {
        let upstream = hanging();
        ends(
            &upstream,
            2_000_000 / 100,
            Reject::Http2Abuse,
            &[ENHANCE_YOUR_CALM],
            |flood, turn| match turn {
                0 => flood.send(&frame(HEADERS, END_HEADERS, 1, POST)),
                _ => flood.send(&frame(DATA, 0, 1, piece).repeat(100)),
            },
        );
    }
}

#[test]
fn t26_frames_that_only_ask_for_answers_end_the_connection() {
    for asks in [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 1]),
        frame(0x77, 0, 0, b"unknown"),
    ] {
        let upstream = Upstream::text("ok");
        ends(
            &upstream,
            1000,
            Reject::Http2Abuse,
            &[PROTOCOL_ERROR],
            |flood, _| flood.send(&asks.repeat(100)),
        );
    }
}

#[test]
fn t26_a_small_header_that_unpacks_to_a_huge_one_is_not_unpacked() {
    let upstream = Upstream::text("ok");
    // `x: xxxx…` of 4,000 bytes is remembered once, and named 16,000 times: 64 MB.
    let mut bomb = GET.to_vec();
    bomb.extend(b"\x40\x01x\x7f\xa1\x1e");
    bomb.extend([b'x'; 4000]);
    bomb.extend([0xbe; 12_000]);
    ends(
        &upstream,
        1,
        Reject::Http2Abuse,
        &[ENHANCE_YOUR_CALM],
        |flood, turn| flood.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream(turn), &bomb)),
    );
    assert_eq!(asked(&upstream), 0);
}

#[test]
fn t26_windows_that_can_not_be_end_the_connection_at_once() {
    for (beyond, code) in [
        (
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            FLOW_CONTROL_ERROR,
        ),
        (frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), FLOW_CONTROL_ERROR),
    ] {
        let upstream = Upstream::text("ok");
        let codes = &[code, PROTOCOL_ERROR];
        ends(&upstream, 1, Reject::Malformed, codes, |flood, _| {
            flood.send(&beyond)
        });
    }
}
