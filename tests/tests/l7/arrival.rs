//! What happens before a request: PROXY headers, redirects, listeners that come and go.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use gateway::config::model::Listener;
use gateway::http::reject::Reject;
use gateway::net::proxy_protocol::{Header, Version, encode};
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn behind_a_proxy(upstream: &Upstream) -> Site {
    let mut site = Site::to(upstream).trusting(&["127.0.0.1/32"]);
    site.config.listen[0].proxy_protocol = true;
    site
}

fn header(version: Version, source: &str) -> Vec<u8> {
    encode(
        version,
        &Header::Proxied {
            source: source.parse().unwrap(),
            destination: "198.51.100.1:443".parse().unwrap(),
        },
    )
}

#[test]
fn the_client_is_who_the_proxy_names() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&behind_a_proxy(&upstream));
    for version in [Version::V1, Version::V2] {
        for source in ["192.0.2.7:4711", "[2001:db8::7]:4711"] {
            let ip = source.parse::<SocketAddr>().unwrap().ip().to_string();
            let mut client = Client::connect(gateway.address());
            client.send(header(version, source));
            // Two requests, the second with a forged header: the named client is not a trusted proxy.
            client.send(GET);
            assert_eq!(client.response().text(), "ok", "{version:?} {source}");
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n");
            assert_eq!(client.response().status, 200);
            assert_eq!(upstream.last().header("x-forwarded-for"), [ip.as_str()]);
            assert_eq!(upstream.last().header("x-real-ip"), [ip.as_str()]);
        }
    }
    // Byte by byte, and the request in the same packets.
    let mut client = Client::connect(gateway.address());
    for byte in [header(Version::V1, "192.0.2.8:1"), GET.into()].concat() {
        client.send([byte]);
    }
    assert_eq!(client.response().status, 200);
    assert_eq!(upstream.last().header("x-real-ip"), ["192.0.2.8"]);
    // A health check of the proxy itself is from the proxy.
    for direct in [
        encode(Version::V1, &Header::Direct),
        encode(Version::V2, &Header::Direct),
    ] {
        let mut client = Client::connect(gateway.address());
        assert_eq!(client.send(direct).send(GET).response().status, 200);
        assert_eq!(upstream.last().header("x-real-ip"), ["127.0.0.1"]);
    }
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn a_client_that_a_proxy_header_names_is_never_taken_for_the_socket() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&behind_a_proxy(&upstream));
    let mut client = Client::connect(gateway.address());
    client.send(header(Version::V2, "192.0.2.7:1"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").rest();
    assert!(gateway.told(Reject::BadHost) || gateway.told(Reject::Malformed));
    let (who, _) = gateway.refusals()[0];
    assert_eq!(who.socket.ip().to_string(), "127.0.0.1");
    assert_eq!(who.forwarded.expect("named").ip().to_string(), "192.0.2.7");
    // One that is refused at layer 7 is refused here, and others are served.
    let blocked = "192.0.2.66".parse().unwrap();
    gateway.recorder.refused.lock().unwrap().insert(blocked);
    let mut client = Client::connect(gateway.address());
    client.send(header(Version::V1, "192.0.2.66:1"));
    assert!(client.send(GET).is_closed());
    assert!(gateway.told(Reject::Blocked));
    let mut client = Client::connect(gateway.address());
    client.send(header(Version::V1, "192.0.2.67:1"));
    assert_eq!(client.send(GET).response().status, 200);
}

#[test]
fn t16_a_proxy_header_that_lies_or_comes_from_a_stranger_closes_the_connection() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&behind_a_proxy(&upstream));
    let v2 = header(Version::V2, "192.0.2.7:1");
    let with = |at: usize, byte: u8| {
        let mut bytes = v2.clone();
        bytes[at] = byte;
        bytes
    };
    let lies: [&[u8]; 9] = [
        GET.as_bytes(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 99999\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        &[b'P', b'R', b'O', b'X', b'Y', b' ', b'x'].repeat(40),
        &with(12, 0x11),
        &with(12, 0x2f),
        &with(13, 0x12),
        &with(14, 0xff),
        &with(15, 0x05),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let mut client = Client::connect(gateway.address());
        client.send(lie).send(GET);
        assert!(client.is_closed(), "{index}");
        assert!(eventually(|| gateway.rejects().len() == index + 1), "{index}");
        assert_eq!(gateway.rejects()[index], Reject::ProxyProtocol);
    }
    // LOCAL without an address block is good, and so is an extension of 2 KiB.
    let mut client = Client::connect(gateway.address());
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").send(GET);
    assert_eq!(client.response().status, 200);
    let mut long = v2.clone();
    let extension = [&[0x04, 0x08, 0x00][..], &[b'x'; 2048]].concat();
    let length = u16::try_from(12 + extension.len()).unwrap();
    long[14..16].copy_from_slice(&length.to_be_bytes());
    let mut client = Client::connect(gateway.address());
    client.send(&long).send(&extension).send(GET);
    assert_eq!(client.response().status, 200);
    // One that is cut off is no proxy's doing, and is closed like any other.
    let served = upstream.requests().len();
    let mut client = Client::connect(gateway.address());
    assert!(client.send(&v2[..20]).end().is_closed());

    let site = behind_a_proxy(&upstream).trusting(&["192.0.2.1/32"]);
    let strict = Gateway::start(&site);
    let mut client = Client::connect(strict.address());
    assert!(client.send(&v2).send(GET).is_closed());
    assert!(strict.told(Reject::ProxyProtocol));
    assert_eq!(
        upstream.requests().len(),
        served,
        "nothing of all this was passed on"
    );
}

#[test]
fn t28_a_proxy_header_has_a_deadline() {
    let upstream = Upstream::text("ok");
    let short = Duration::from_millis(150);
    let gateway = Gateway::start(&behind_a_proxy(&upstream).limits(|limits| limits.request_header = short));
    let mut client = Client::connect(gateway.address());
    assert!(client.send("PROXY TCP4 ").is_closed());
    assert!(gateway.told(Reject::ProxyProtocol));
}

#[test]
fn a_redirecting_listener_sends_everybody_to_https() {
    let upstream = Upstream::text("ok");
    let mut site = Site::to(&upstream);
    site.config.listen[0].redirect_to_https = Some(8443);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    for (target, location) in [
        ("/", "https://a.example:8443/"),
        ("/x%41/../y?q=/%2f", "https://a.example:8443/y?q=/%2f"),
        ("http://B.example:81/z", "https://b.example:8443/z"),
        ("//evil.example", "https://a.example:8443/evil.example"),
    ] {
        let host = if target.starts_with("http:") {
            "B.example:81"
        } else {
            "a.example"
        };
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.response();
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)));
    }
    let mut client = Client::connect(gateway.address());
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome");
    let answer = client.response();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (308, Some("close")),
        "the body is not read"
    );
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\rLocation: z\r\n\r\n",
    ] {
        let answer = Client::connect(gateway.address()).send(bad).response();
        assert_eq!((answer.status, answer.header("location")), (400, None), "{bad:?}");
    }
    let url = format!("http://{}/h2?q", gateway.address());
    let words = [
        "-sS",
        "-m",
        "10",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{redirect_url}",
    ];
    let output = std::process::Command::new("curl")
        .args(words)
        .arg(&url)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "308 https://127.0.0.1:8443/h2?q"
    );
    assert!(upstream.requests().is_empty());
}

fn on(port: u16) -> Listener {
    Listener::plain(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn listeners_come_and_go_while_others_stay() {
    let upstream = Upstream::text("ok");
    let mut site = Site::to(&upstream);
    site.config.workers = 2.try_into().unwrap();
    let gateway = Gateway::start(&site);
    let first = gateway.address();
    let mut old = Client::connect(first);
    assert_eq!(old.get("/").text(), "ok");

    let second = free_port();
    let mut two = site.clone();
    two.config.listen.insert(0, on(second));
    gateway.reload(&two);
    assert_eq!(
        gateway.server().addresses(),
        [on(second).address, first],
        "port 0 was kept"
    );
    let mut new = Client::connect(on(second).address);
    assert_eq!(new.get("/").text(), "ok");

    // What a listener does changes without its socket.
    two.config.listen[0].redirect_to_https = Some(443);
    gateway.reload(&two);
    assert_eq!(Client::connect(on(second).address).get("/").status, 308);
    assert_eq!(new.get("/").text(), "ok", "a connection keeps what it came for");

    gateway.reload(&site);
    assert!(eventually(|| TcpStream::connect(on(second).address).is_err()));
    assert_eq!(
        new.get("/").text(),
        "ok",
        "connections of a removed listener go on"
    );
    assert_eq!(old.get("/").text(), "ok");
    assert_eq!(gateway.server().addresses(), [first]);

    // Wider than what there was, at the same port.
    let mut wide = site.clone();
    wide.config.listen = vec![Listener::plain(SocketAddr::from(([0, 0, 0, 0], first.port())))];
    gateway.reload(&wide);
    // Who connects in the very moment at which the narrow one closes is reset by the kernel.
    let narrow = format!(" 0100007F:{:04X} 00000000:0000 0A ", first.port());
    assert!(eventually(|| {
        !std::fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .contains(&narrow)
    }));
    assert_eq!(Client::connect(first).get("/").text(), "ok");
    assert_eq!(old.get("/").text(), "ok");
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn t46_a_listener_that_can_not_be_opened_changes_nothing() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let site = Site::to(&one);
    let gateway = Gateway::start(&site);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bad = Site::to(&two);
    let free = free_port();
    bad.config
        .listen
        .extend([on(free), on(taken.local_addr().unwrap().port())]);
    let error = gateway.try_reload(&bad).unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    assert_eq!(Client::connect(gateway.address()).get("/").text(), "one");
    assert!(
        TcpStream::connect(on(free).address).is_err(),
        "what was opened is closed again"
    );
    assert_eq!(gateway.server().addresses().len(), 1);
}

/// Clients that connected before the listener went are served, though nobody had accepted them.
#[test]
fn who_waits_in_the_queue_is_served_when_a_listener_goes() {
    let upstream = Upstream::text("ok");
    let mut site = Site::to(&upstream);
    let port = free_port();
    site.config.listen.push(on(port));
    let mut without = site.clone();
    without.config.listen.pop();
    for _ in 0..20 {
        let gateway = Gateway::start(&site);
        let mut clients: Vec<_> = (0..50).map(|_| Client::connect(on(port).address)).collect();
        gateway.reload(&without);
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "ok");
        }
        drop(gateway);
        assert!(eventually(|| TcpStream::connect(on(port).address).is_err()));
    }
}

#[test]
fn who_waits_in_the_queue_is_served_when_the_gateway_stops() {
    let upstream = Upstream::text("ok");
    for _ in 0..20 {
        let gateway = Gateway::start(&Site::to(&upstream));
        let mut clients: Vec<_> = (0..50)
            .map(|_| TcpStream::connect(gateway.address()).unwrap())
            .collect();
        for client in &mut clients {
            std::io::Write::write_all(client, GET.as_bytes()).unwrap();
        }
        assert!(gateway.shutdown(Duration::from_secs(10)));
        for client in &mut clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
                "{answer:?}"
            );
        }
    }
}
