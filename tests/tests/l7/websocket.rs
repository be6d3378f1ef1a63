//! WebSocket over HTTP/2 (RFC 8441) from clients, HTTP/1.1 to the upstream; by the frames of the `h2` library and a server in
//! Python.

use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway::http::reject::Reject;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::peer::Peer;
use gateway_tests::l7::{Gateway, Site, Upstream};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode, Version};

type Requests = h2::client::SendRequest<Bytes>;

/// A connection whose SETTINGS have been seen, run by the runtime.
async fn connect(address: SocketAddr) -> Requests {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    requests = requests.ready().await.unwrap();
    // The other side's SETTINGS come with the first round trip.
    let warm = Request::get("http://a/warm")
        .version(Version::HTTP_2)
        .body(())
        .unwrap();
    let _ = requests.send_request(warm, true).unwrap().0.await;
    assert!(requests.is_extended_connect_protocol_enabled());
    requests
}

async fn open(
    requests: &mut Requests,
    protocol: &str,
    path: &str,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://a{path}"))
        .version(Version::HTTP_2)
        .extension(Protocol::from(protocol))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (answer, sending) = requests.send_request(request, false).unwrap();
    (answer.await.unwrap(), sending)
}

/// Reads so many bytes.
async fn read(stream: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut all = BytesMut::new();
    while all.len() < count {
        let piece = tokio::time::timeout(Duration::from_secs(10), stream.data());
        let piece = piece.await.expect("in time").expect("more").expect("no error");
        let _ = stream.flow_control().release_capacity(piece.len());
        all.extend_from_slice(&piece);
    }
    all.to_vec()
}

/// A masked text frame, and what its echo is.
fn text(text: &str) -> (Bytes, Vec<u8>) {
    let length = u8::try_from(text.len()).unwrap();
    let mut sent = vec![0x81, 0x80 | length, 1, 2, 3, 4];
    sent.extend(
        text.bytes()
            .zip([1, 2, 3, 4].iter().cycle())
            .map(|(b, mask)| b ^ mask),
    );
    let mut echo = vec![0x81, length];
    echo.extend(text.bytes());
    (sent.into(), echo)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.unwrap().block_on(test)
}

#[test]
fn many_websockets_share_a_connection_and_end_one_by_one() {
    let peer = Peer::serve("websocket.py");
    let gateway = Gateway::start(&Site::new().route("*", "/**", &[(peer.address(), 1)]));
    run(async {
        let mut requests = connect(gateway.address()).await;
        let mut open_ones = vec![];
        for _ in 0..20 {
            let (answer, sending) = open(&mut requests, "websocket", "/chat").await;
            assert_eq!(answer.status(), StatusCode::OK);
            for gone in ["sec-websocket-accept", "upgrade", "connection"] {
                assert!(!answer.headers().contains_key(gone), "{gone}");
            }
            open_ones.push((answer.into_body(), sending));
        }
        for round in 0..3 {
            for (receiving, sending) in &mut open_ones {
                let (sent, echo) = text(&format!("round {round}"));
                sending.send_data(sent, false).unwrap();
                assert_eq!(read(receiving, echo.len()).await, echo);
            }
        }
        for (mut receiving, mut sending) in open_ones {
            // A close frame, masked; its echo, and then the end of the stream.
            sending
                .send_data(Bytes::from_static(b"\x88\x82\0\0\0\0\x03\xe8"), true)
                .unwrap();
            assert_eq!(read(&mut receiving, 4).await, b"\x88\x02\x03\xe8");
            let end = receiving.data().await;
            assert!(
                end.as_ref()
                    .is_none_or(|end| end.as_ref().is_ok_and(Bytes::is_empty)),
                "{end:?}"
            );
        }
    });
    assert_eq!(gateway.rejects(), []);
    assert!(eventually(|| gateway.server().connections().is_empty()));
}

#[test]
fn much_goes_both_ways_and_a_client_that_does_not_read_holds_the_upstream() {
    const MUCH: usize = 4 << 20;
    let upstream = Upstream::start(|request, wire| {
        if request.target == "/warm" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return true;
        }
        wire.send(agree(request.header("sec-websocket-key")[0]));
        wire.echo(MUCH);
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    run(async {
        let mut requests = connect(gateway.address()).await;
        let (answer, mut sending) = open(&mut requests, "websocket", "/echo").await;
        let mut receiving = answer.into_body();
        let sent: Vec<u8> = (0..MUCH).map(|at| (at * 31 % 251) as u8).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            for piece in copy.chunks(16 << 10) {
                sending.reserve_capacity(piece.len());
                let mut rest = Bytes::copy_from_slice(piece);
                while !rest.is_empty() {
                    let room = std::future::poll_fn(|cx| sending.poll_capacity(cx))
                        .await
                        .unwrap()
                        .unwrap();
                    let part = rest.split_to(room.min(rest.len()));
                    sending.send_data(part, false).unwrap();
                }
            }
            sending.send_data(Bytes::new(), true).unwrap();
        });
        assert!(
            read(&mut receiving, MUCH).await == sent,
            "what comes back is what was sent"
        );
        writer.await.unwrap();
    });
    let asked = upstream.last();
    assert_eq!(
        (asked.method.as_str(), asked.header("upgrade")),
        ("GET", vec!["websocket"])
    );
    assert_eq!(asked.header("connection"), ["upgrade"]);
}

fn agree(key: &str) -> String {
    let script = format!(
        "import base64,hashlib;print(base64.b64encode(hashlib.sha1(b'{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()).decode())"
    );
    let output = std::process::Command::new("/usr/bin/python3")
        .args(["-c", &script])
        .output()
        .unwrap();
    let accept = String::from_utf8(output.stdout).unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept.trim()
    )
}

#[test]
fn an_opening_that_is_turned_down_or_not_understood_opens_nothing() {
    let upstream = Upstream::start(|request, wire| {
        wire.send(match request.target.as_str() {
            "/403" => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(),
            "/forged" => agree("dGhlIHNhbXBsZSBub25jZQ=="),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        });
        request.target != "/forged"
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    run(async {
        let mut requests = connect(gateway.address()).await;
        for (path, status) in [("/403", 403), ("/forged", 502), ("/200", 502)] {
            let (answer, _sending) = open(&mut requests, "websocket", path).await;
            assert_eq!(answer.status(), status, "{path}");
        }
        // Other protocols, and CONNECT itself, go nowhere.
        let before = upstream.requests().len();
        let (answer, _sending) = open(&mut requests, "connect-udp", "/").await;
        assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
        let plain = Request::builder()
            .method(Method::CONNECT)
            .uri("a:80")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        let (answer, _sending) = requests.send_request(plain, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(upstream.requests().len(), before);
        // The policy holds for it as for any request.
        drop(requests);
    });
    let rejects = gateway.rejects();
    let of = |reject| rejects.iter().filter(|told| **told == reject).count();
    assert_eq!(
        (of(Reject::UpstreamMalformed), of(Reject::NotSupported)),
        (2, 2),
        "{rejects:?}"
    );
}

#[test]
fn the_policy_of_the_route_holds() {
    let upstream = Upstream::text("warm");
    let gateway = Gateway::start(&Site::to(&upstream).api_key(&[("right", "alice")]));
    run(async {
        let mut requests = connect(gateway.address()).await;
        let (answer, _sending) = open(&mut requests, "websocket", "/chat").await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    });
    assert!(upstream.requests().is_empty());
}

/// Opens, and tells how the client's side ended. `/reset` breaks off when something comes, `/end` ends then.
fn watching() -> (Upstream, mpsc::Receiver<ErrorKind>) {
    let (told, ends) = mpsc::channel();
    let told = Mutex::new(told);
    let upstream = Upstream::start(move |request, wire| {
        if request.target == "/warm" {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return true;
        }
        wire.send(agree(request.header("sec-websocket-key")[0]));
        wire.send("hello");
        match request.target.as_str() {
            "/reset" => {
                wire.read_until(b"go");
                wire.reset();
            }
            "/end" => {
                wire.read_until(b"go");
            }
            _ => told.lock().unwrap().send(wire.end()).unwrap(),
        }
        false
    });
    (upstream, ends)
}

const SOON: Duration = Duration::from_secs(5);

#[test]
fn an_upstream_sees_a_reset_where_the_client_broke_off_and_an_end_where_it_ended() {
    let (upstream, ends) = watching();
    let gateway = Gateway::start(&Site::to(&upstream));
    run(async {
        for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
            let mut requests = connect(gateway.address()).await;
            let (answer, mut sending) = open(&mut requests, "websocket", "/").await;
            assert_eq!(read(&mut answer.into_body(), 5).await, b"hello");
            sending.send_reset(reason);
            assert_eq!(
                ends.recv_timeout(SOON),
                Ok(ErrorKind::ConnectionReset),
                "{reason}"
            );
        }
        let mut requests = connect(gateway.address()).await;
        let (answer, mut sending) = open(&mut requests, "websocket", "/").await;
        assert_eq!(read(&mut answer.into_body(), 5).await, b"hello");
        sending.send_data(Bytes::new(), true).unwrap();
        assert_eq!(ends.recv_timeout(SOON), Ok(ErrorKind::UnexpectedEof));
    });
    // Those whose connection is gone.
    let lost = run(async {
        let mut requests = connect(gateway.address()).await;
        let (answer, sending) = open(&mut requests, "websocket", "/").await;
        let mut receiving = answer.into_body();
        assert_eq!(read(&mut receiving, 5).await, b"hello");
        (receiving, sending)
    });
    assert_eq!(ends.recv_timeout(SOON), Ok(ErrorKind::ConnectionReset));
    drop(lost);
    assert_eq!(gateway.rejects(), []);
    assert!(eventually(|| gateway.server().connections().is_empty()));
}

#[test]
fn a_client_sees_a_reset_where_the_upstream_broke_off_and_an_end_where_it_ended() {
    let (upstream, _ends) = watching();
    let gateway = Gateway::start(&Site::to(&upstream));
    run(async {
        let mut requests = connect(gateway.address()).await;
        for (path, wanted) in [("/reset", Some(Reason::CANCEL)), ("/end", None)] {
            let (answer, mut sending) = open(&mut requests, "websocket", path).await;
            let mut receiving = answer.into_body();
            assert_eq!(read(&mut receiving, 5).await, b"hello");
            sending.send_data(Bytes::from_static(b"go"), false).unwrap();
            let end = tokio::time::timeout(SOON, async {
                loop {
                    match receiving.data().await {
                        Some(Ok(piece)) => assert!(piece.is_empty(), "{piece:?}"),
                        Some(Err(error)) => return error.reason(),
                        None => return None,
                    }
                }
            });
            assert_eq!(end.await.expect("an end"), wanted, "{path}");
        }
    });
    // HTTP/1.1, which has no other way.
    for (path, wanted) in [("/reset", Err(ErrorKind::ConnectionReset)), ("/end", Ok(0))] {
        let mut client = gateway_tests::l7::Client::connect(gateway.address());
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        assert_eq!(client.head().unwrap().status, 101);
        assert_eq!(client.exactly(5), b"hello");
        client.send("go");
        let mut stream = client.writer();
        assert_eq!(
            stream.read(&mut [0; 8]).map_err(|error| error.kind()),
            wanted,
            "{path}"
        );
    }
    assert_eq!(gateway.rejects(), []);
}
