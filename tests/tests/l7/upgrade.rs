//! A change of protocol: WebSocket goes through, and nothing goes before the upstream has agreed.

use std::sync::mpsc;
use std::time::Duration;

use gateway_tests::l7::config::Site;
use gateway_tests::l7::gateway::Gateway;
use gateway_tests::l7::raw::Client;
use gateway_tests::l7::upstream::Upstream;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn t05_bytes_behind_an_upgrade_wait_for_the_101() {
    let (told, early) = mpsc::channel();
    let upstream = Upstream::start(move |_, wire| {
        let _ = told.send(wire.hears(Duration::from_millis(300)));
        wire.send(AGREE);
        wire.read_until(b"early");
        wire.send("hello");
        wire.read_until(b"late");
        wire.send("bye");
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    let head = client.send(format!("{ASK}early")).head().unwrap();
    assert_eq!(
        early.recv_timeout(Duration::from_secs(5)),
        Ok(false),
        "the upstream heard it too early"
    );
    assert_eq!(head.status, 101);
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert_eq!(head.header("connection"), Some("upgrade"));
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    let asked = upstream.last();
    assert_eq!(
        (asked.header("upgrade"), asked.header("connection")),
        (vec!["websocket"], vec!["upgrade"])
    );
    assert_eq!(asked.header("sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    client.send("late");
    assert_eq!(
        client.rest(),
        b"hellobye",
        "what the upstream says last arrives, and its end too"
    );
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn an_upgrade_that_is_turned_down_is_an_ordinary_answer() {
    let upstream = Upstream::start(|request, wire| {
        let agreed = request.target == "/chat";
        wire.send(if agreed {
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        });
        true
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    let answer = client.send(ASK).response();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(client.get("/after").text(), "ok");
}

#[test]
fn a_101_that_nobody_asked_for_is_no_answer() {
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", AGREE.to_owned()),
        (ASK, AGREE.replace("websocket", "h2c")),
        (ASK, AGREE.replace("Upgrade: websocket\r\n", "")),
    ] {
        let upstream = Upstream::start(move |_, wire| {
            wire.send(&answer);
            false
        });
        let gateway = Gateway::start(&Site::to(&upstream));
        let mut client = Client::connect(gateway.address());
        assert_eq!(client.send(request).response().status, 502, "{request}");
    }
}

#[test]
fn much_goes_both_ways_at_once() {
    const MUCH: usize = 8 << 20;
    let upstream = Upstream::start(|_, wire| {
        wire.send(AGREE);
        wire.echo(MUCH);
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.send(ASK).head().unwrap().status, 101);
    let sent: Vec<u8> = (0..MUCH).map(|at| (at * 31 % 251) as u8).collect();
    let mut writer = client.writer();
    let copy = sent.clone();
    let sending = std::thread::spawn(move || {
        use std::io::Write as _;
        writer.write_all(&copy).unwrap();
    });
    assert!(client.rest() == sent, "what comes back is what was sent");
    sending.join().unwrap();
}

#[test]
fn a_tunnel_outlives_its_route_s_deadline_and_ends_with_its_own() {
    let upstream = Upstream::start(|_, wire| {
        wire.send(AGREE);
        wire.echo(usize::MAX);
        false
    });
    let short = Duration::from_millis(300);
    let echoes = |site: &Site, times: u32| {
        let gateway = Gateway::start(site);
        let mut client = Client::connect(gateway.address());
        assert_eq!(client.send(ASK).head().unwrap().status, 101);
        for round in 0..times {
            std::thread::sleep(short / 3);
            if client.send("x").is_closed() {
                return round;
            }
        }
        times
    };
    let site = Site::to(&upstream).with(|route| route.total = Some(short));
    assert_eq!(echoes(&site, 9), 9, "the deadline is for the opening");
    let site = Site::to(&upstream).limits(|limits| limits.tunnel_life = Some(short * 2));
    let ended = echoes(&site, 20);
    assert!((4..8).contains(&ended), "talked on for {ended} rounds");
    let site = site.with(|route| route.tunnel_life = Some(None));
    assert_eq!(echoes(&site, 9), 9, "the route has the last word");
    let site = Site::to(&upstream).with(|route| route.tunnel_idle = Some(short));
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.send(ASK).head().unwrap().status, 101);
    let begun = std::time::Instant::now();
    assert!(client.is_closed());
    assert!(begun.elapsed() >= short && begun.elapsed() < short * 5);
}
