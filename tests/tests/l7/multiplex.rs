//! Upstreams that speak HTTP/2: what they say they have not begun with, and caps on connections that are shared.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::config::model::Protocol;
use gateway_tests::l7::{Client, Gateway, Response, Site};

/// How long requests wait for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server of HTTP/2 that sends back what it was sent; at `/endless` it goes on for ever.
struct Echo {
    addresses: Vec<SocketAddr>,
    /// Streams so far.
    asked: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl Echo {
    /// At so many addresses. It takes its time for each answer; the streams of which `refuses` is true, counted from 1, it
    /// reads whole and then says that it has not begun with them.
    fn start(addresses: usize, takes: Duration, refuses: fn(usize) -> bool) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let bind = |_| {
            let listener = runtime
                .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
                .unwrap();
            let address = listener.local_addr().unwrap();
            runtime.spawn(serve(listener, Arc::clone(&asked), takes, refuses));
            address
        };
        Self {
            addresses: (0..addresses).map(bind).collect(),
            asked,
            _runtime: runtime,
        }
    }

    fn site(&self, connections: Option<u32>, workers: u32) -> Site {
        let endpoints: Vec<_> = self.addresses.iter().map(|address| (*address, 1)).collect();
        let mut site = Site::new().route("*", "/**", &endpoints).upstream(|upstream| {
            upstream.protocol = Protocol::Http2;
            upstream.caps.connections = connections.and_then(NonZeroU32::new);
            upstream.caps.pending = 1_000;
            upstream.caps.pending_timeout = PATIENCE;
        });
        site.config.workers = NonZeroU32::new(workers).unwrap();
        site
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    asked: Arc<AtomicUsize>,
    takes: Duration,
    refuses: fn(usize) -> bool,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
                let refused = refuses(number);
                // Not in step, so that there is always one under way where there are many.
                let takes = takes * (number as u32 % 4 + 1);
                tokio::spawn(async move {
                    let endless = request.uri().path() == "/endless";
                    let mut body = request.into_body();
                    let mut whole = Vec::new();
                    while let Some(Ok(piece)) = body.data().await {
                        let _ = body.flow_control().release_capacity(piece.len());
                        whole.extend_from_slice(&piece);
                    }
                    if refused {
                        answer.send_reset(h2::Reason::REFUSED_STREAM);
                        return;
                    }
                    tokio::time::sleep(takes).await;
                    let mut send = answer.send_response(http::Response::new(()), false).unwrap();
                    let _ = send.send_data(Bytes::from(whole), !endless);
                    if endless {
                        std::future::pending().await
                    }
                });
            }
        });
    }
}

fn post(gateway: &Gateway, length: usize) -> Response {
    let body: String = ('a'..='z').cycle().take(length).collect();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let answer = Client::connect(gateway.address()).send(head + &body).response();
    assert!(
        answer.status != 200 || answer.text() == body,
        "{length} bytes came back otherwise"
    );
    answer
}

/// As many at once as are asked for; how many were answered well.
fn answered(gateway: &Gateway, at_once: usize, each: usize) -> usize {
    std::thread::scope(|scope| {
        let ask = || (0..each).filter(|_| post(gateway, 5).status == 200).count();
        let clients: Vec<_> = (0..at_once).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

#[test]
fn t53_what_an_upstream_has_not_begun_with_is_sent_again_with_its_body() {
    let echo = Echo::start(1, Duration::ZERO, |stream| stream % 2 == 0);
    let gateway = Gateway::start(&echo.site(None, 1));
    for length in [0, 1, 9, 20_000] {
        for _ in 0..4 {
            assert_eq!(post(&gateway, length).status, 200, "{length}");
        }
    }
    // So much is not kept, and nothing is sent twice of what was not all there.
    let before = echo.asked.load(Ordering::Relaxed);
    let statuses: Vec<_> = (0..4).map(|_| post(&gateway, 100_000).status).collect();
    assert!(statuses.contains(&200) && statuses.contains(&502), "{statuses:?}");
    assert_eq!(echo.asked.load(Ordering::Relaxed), before + 4);
}

#[test]
fn t53_who_refuses_every_time_is_not_asked_for_ever() {
    let echo = Echo::start(1, Duration::ZERO, |_| true);
    let gateway = Gateway::start(&echo.site(None, 1));
    let answer = post(&gateway, 5);
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (502, Some("upstream_closed"))
    );
    let asked = echo.asked.load(Ordering::Relaxed);
    assert!((2..=4).contains(&asked), "{asked}");
}

#[test]
fn an_upstream_that_closes_a_shared_connection_is_told_from_one_that_speaks_something_else() {
    for (says, code) in [
        (&b""[..], "upstream_closed"),
        // Its settings, and half a frame.
        (b"\0\0\0\x04\0\0\0\0\0\0\0\x40\x01", "upstream_closed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "upstream_malformed"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut site = Site::new()
            .route("*", "/**", &[(listener.local_addr().unwrap(), 1)])
            .upstream(|upstream| upstream.protocol = Protocol::Http2);
        site.config.workers = NonZeroU32::new(1).unwrap();
        let gateway = Gateway::start(&site);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(says);
                // Until it was read.
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let answer = post(&gateway, 5);
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (502, Some(code)),
            "{says:?}"
        );
    }
}

#[test]
fn a_shared_connection_that_idles_gives_way_to_another_worker_or_endpoint() {
    for (endpoints, workers) in [(1, 2), (2, 1), (2, 2)] {
        let echo = Echo::start(endpoints, Duration::ZERO, |_| false);
        let gateway = Gateway::start(&echo.site(Some(1), workers));
        assert_eq!(
            answered(&gateway, 1, 12),
            12,
            "{endpoints} endpoints, {workers} workers"
        );
    }
}

#[test]
fn a_shared_connection_that_is_always_in_use_gives_way_too() {
    for (endpoints, workers) in [(1, 2), (2, 1)] {
        let echo = Echo::start(endpoints, Duration::from_millis(50), |_| false);
        let gateway = Gateway::start(&echo.site(Some(1), workers));
        let end = Instant::now() + PATIENCE + Duration::from_secs(1);
        // Each stays with its worker, and they are never all done at the same time.
        let ask = || {
            let mut client = Client::connect(gateway.address());
            while Instant::now() < end {
                assert_eq!(
                    client.get("/").status,
                    200,
                    "{endpoints} endpoints, {workers} workers"
                );
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(ask);
            }
        });
    }
}

#[test]
fn a_shared_connection_that_never_ends_is_used_by_those_who_can() {
    let echo = Echo::start(2, Duration::ZERO, |_| false);
    let gateway = Gateway::start(&echo.site(Some(1), 1));
    let mut endless = Client::connect(gateway.address());
    endless.send("POST /endless HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1");
    assert_eq!(endless.head().unwrap().status, 200);
    // Every other one is to go to the other endpoint, to which no connection may be made.
    let statuses: Vec<_> = (0..4).map(|_| post(&gateway, 5).status).collect();
    assert!(
        statuses == [503, 200, 503, 200] || statuses == [200, 503, 200, 503],
        "{statuses:?}"
    );
    drop(endless);
    assert_eq!(answered(&gateway, 1, 4), 4);
}

#[test]
fn who_waits_for_room_on_a_shared_connection_is_told_of_it() {
    let echo = Echo::start(1, Duration::from_millis(150), |_| false);
    let gateway = Gateway::start(&echo.site(Some(1), 1));
    assert_eq!(answered(&gateway, 130, 1), 130);
}
