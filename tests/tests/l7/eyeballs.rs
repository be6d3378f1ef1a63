//! Endpoints that swallow connections: another is asked soon, and they are known for it in the end.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use gateway::config::model::{Address, Dns as Settings, Ejection, Endpoint};
use gateway::upstream::Standing;
use gateway_tests::l7::dns::Dns;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// What one more endpoint costs (RFC 8305, 5), and this machine.
const SOON: Duration = Duration::from_millis(1_000);
const HEAD_START: Duration = Duration::from_millis(250);

/// A listener whose queue is full: further SYNs are dropped, as on their way to an address that is not there.
struct Swallower {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Swallower {
    fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
    }

    fn at(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        rustix::net::listen(&listener, 0)?;
        let address = listener.local_addr()?;
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queued: Vec<_> = std::iter::from_fn(connect).take(64).collect();
        assert!(queued.len() < 64, "it still takes connections");
        Ok(Self {
            address,
            _listener: listener,
            _queued: queued,
        })
    }
}

fn among(endpoints: &[SocketAddr]) -> Site {
    let endpoints: Vec<_> = endpoints.iter().map(|address| (*address, 1)).collect();
    Site::new().route("*", "/**", &endpoints)
}

/// How long a request takes; it must be answered with 200.
fn takes(gateway: &Gateway, request: &str) -> Duration {
    let since = Instant::now();
    let response = Client::connect(gateway.address()).send(request).response();
    assert_eq!(response.status, 200, "{}", response.text());
    since.elapsed()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

#[test]
fn an_endpoint_that_swallows_connections_costs_a_moment_and_is_set_aside() {
    let (dead, live) = (Swallower::start(), Upstream::text("ok"));
    let site = among(&[dead.address, live.address()])
        .limits(|limits| limits.connect = Duration::from_secs(2))
        .upstream(|upstream| {
            upstream.ejection = Some(Ejection {
                failures: 2,
                ..gateway::config::defaults::ejection()
            });
        });
    let gateway = Gateway::start(&site);
    let (mut slow, mut requests) = (0, 0);
    while slow < 2 {
        let took = takes(&gateway, if requests % 2 == 0 { POST } else { GET });
        assert!(took < SOON, "{took:?}");
        slow += u32::from(took >= HEAD_START);
        requests += 1;
    }
    assert!(requests <= 6, "it is asked in its turn");
    assert!(eventually(|| dead_is_out(&gateway)));
    for _ in 0..6 {
        let took = takes(&gateway, POST);
        assert!(took < HEAD_START, "it is asked no more: {took:?}");
        requests += 1;
    }
    assert_eq!(live.requests().len(), requests, "each once");
}

fn dead_is_out(gateway: &Gateway) -> bool {
    gateway.handle.load().upstreams()[0].endpoints()[0].standing() == Standing::Ejected
}

#[test]
fn each_further_endpoint_is_asked_in_its_turn_and_a_refusal_ends_no_race() {
    let dead = [Swallower::start(), Swallower::start()];
    let live = Upstream::text("ok");
    let gateway = Gateway::start(&among(&[dead[0].address, dead[1].address, live.address()]));
    for _ in 0..3 {
        let took = takes(&gateway, POST);
        assert!(took < 2 * HEAD_START + SOON, "{took:?}");
    }
    // One swallows, one refuses.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(&among(&[dead[0].address, closed, live.address()]));
    for _ in 0..3 {
        let took = takes(&gateway, GET);
        assert!(took < SOON, "{took:?}");
    }
    assert_eq!(live.requests().len(), 6);
}

#[test]
fn a_request_that_races_has_one_right_and_one_that_lost_holds_none() {
    let (dead, live) = (Swallower::start(), Upstream::text("ok"));
    let site = among(&[dead.address, live.address()])
        .limits(|limits| limits.connect = Duration::from_secs(20))
        .upstream(|upstream| upstream.caps.connections = NonZeroU32::new(1));
    let gateway = Gateway::start(&site);
    for _ in 0..6 {
        let took = takes(&gateway, GET);
        assert!(took < SOON, "those that are watched hold no right: {took:?}");
    }
    assert!(gateway.handle.load().upstreams()[0].endpoints()[1].connections() <= 1);
    // More at once than there are rights, half of them to the one that swallows.
    let site = site.upstream(|upstream| upstream.caps.connections = NonZeroU32::new(3));
    let gateway = Gateway::start(&site);
    let address = gateway.address();
    let clients: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                let since = Instant::now();
                let status = Client::connect(address).get("/").status;
                (status, since.elapsed())
            })
        })
        .collect();
    for client in clients {
        let (status, took) = client.join().unwrap();
        assert!(status == 200 && took < 2 * SOON, "{status} after {took:?}");
    }
}

#[test]
fn a_request_waits_for_a_right_no_longer_than_it_may() {
    let dead = [Swallower::start(), Swallower::start()];
    let connect = Duration::from_secs(5);
    let site = among(&[dead[0].address, dead[1].address])
        .limits(|limits| limits.connect = connect)
        .upstream(|upstream| {
            upstream.caps.connections = NonZeroU32::new(1);
            upstream.caps.pending_timeout = Duration::from_millis(500);
        });
    let gateway = Gateway::start(&site);
    let address = gateway.address();
    let held = std::thread::spawn(move || Client::connect(address).get("/").status);
    std::thread::sleep(Duration::from_millis(400));
    let since = Instant::now();
    let refused = Client::connect(address).get("/");
    let took = since.elapsed();
    let code = refused.code();
    assert_eq!(
        (refused.status, code.as_deref()),
        (503, Some("upstream_overloaded"))
    );
    assert!(took >= Duration::from_millis(400) && took < 2 * SOON, "{took:?}");
    assert_eq!(held.join().unwrap(), 504);
}

#[test]
fn t51_a_dead_address_of_a_name_costs_a_moment() {
    let (live, dead) = loop {
        let live = Upstream::text("ok");
        let beside = SocketAddr::from(([127, 0, 0, 2], live.address().port()));
        if let Ok(dead) = Swallower::at(beside) {
            break (live, dead);
        }
    };
    let dns = Dns::start();
    dns.point("app.test", &["127.0.0.1", "127.0.0.2"]);
    let site = among(&[dead.address]).upstream(|upstream| {
        upstream.endpoints = vec![Endpoint {
            address: Address::Name {
                host: "app.test".into(),
                port: live.address().port(),
            },
            tls: false,
            weight: NonZeroU32::MIN,
        }];
        upstream.dns = Settings {
            servers: vec![dns.address],
            refresh: Duration::from_secs(5),
            stale: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
        };
    });
    let gateway = Gateway::start(&site);
    for request in [POST, GET, POST, GET] {
        let took = takes(&gateway, request);
        assert!(took < SOON, "{took:?}");
    }
}
