//! Upstreams by name: T51.

use std::net::SocketAddr;
use std::time::Duration;

use gateway::config::model::{Address, Dns as Settings, Endpoint};
use gateway_tests::l7::dns::{Data, Dns};
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// Everything to a name, which `dns` knows.
fn site(dns: &Dns, address: Address) -> Site {
    let endpoint = Endpoint {
        address,
        tls: false,
        weight: std::num::NonZeroU32::MIN,
    };
    let settings = Settings {
        servers: vec![dns.address],
        refresh: Duration::from_millis(50),
        stale: Duration::from_millis(800),
        timeout: Duration::from_millis(100),
    };
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    Site::new()
        .route("*", "/**", &[(nowhere, 1)])
        .upstream(|upstream| {
            upstream.endpoints = vec![endpoint];
            upstream.dns = settings;
        })
}

fn name(port: u16) -> Address {
    Address::Name {
        host: "app.test".into(),
        port,
    }
}

/// Two services at one port of two addresses.
fn twins() -> (Upstream, Upstream, u16) {
    loop {
        let one = Upstream::text("one");
        let port = one.address().port();
        let other = SocketAddr::from(([127, 0, 0, 2], port));
        if std::net::TcpListener::bind(other).is_ok() {
            return (one, Upstream::text_at(other, "two"), port);
        }
    }
}

fn text(gateway: &Gateway) -> String {
    Client::connect(gateway.address()).get("/").text()
}

fn addresses(gateway: &Gateway) -> usize {
    gateway.handle.load().upstreams()[0].endpoints().len()
}

#[test]
fn t51_a_change_of_address_is_followed_in_the_background() {
    let (dns, (one, two, port)) = (Dns::start(), twins());
    dns.point("app.test", &["127.0.0.1"]);
    let gateway = Gateway::start(&site(&dns, name(port)));
    assert_eq!(
        text(&gateway),
        "one",
        "the first request waits for the first answer"
    );
    dns.point("app.test", &["127.0.0.2"]);
    assert!(eventually(|| text(&gateway) == "two"));
    let before = (one.requests().len(), dns.zone.lock().unwrap().asked);
    for _ in 0..50 {
        assert_eq!(text(&gateway), "two");
    }
    assert_eq!(one.requests().len(), before.0);
    assert!(
        dns.zone.lock().unwrap().asked - before.1 < 40,
        "nothing is asked for a request"
    );
    dns.point("app.test", &["127.0.0.1", "127.0.0.2"]);
    assert!(eventually(|| addresses(&gateway) == 2));
    let seen: std::collections::BTreeSet<_> = (0..4).map(|_| text(&gateway)).collect();
    assert_eq!(seen.len(), 2, "all addresses are endpoints");
    assert!(two.requests().len() > 50);
}

#[test]
fn t51_an_old_answer_is_used_while_there_is_no_new_one_and_not_for_ever() {
    let (dns, (_one, _two, port)) = (Dns::start(), twins());
    dns.point("app.test", &["127.0.0.1"]);
    let gateway = Gateway::start(&site(&dns, name(port)));
    assert_eq!(text(&gateway), "one");
    for (case, change) in [
        (
            "no such name",
            (|zone| zone.records.clear()) as fn(&mut gateway_tests::l7::dns::Zone),
        ),
        ("SERVFAIL", |zone| zone.fails = true),
        ("silence", |zone| zone.silent = true),
    ] {
        dns.set(change);
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(text(&gateway), "one", "{case}: stale, but used");
        assert!(eventually(|| addresses(&gateway) == 0), "{case}");
        let begun = std::time::Instant::now();
        let gone = Client::connect(gateway.address()).get("/");
        assert_eq!(
            (gone.status, gone.code().as_deref()),
            (502, Some("upstream_unresolved")),
            "{case}"
        );
        assert!(begun.elapsed() < Duration::from_secs(2), "{case}: told at once");
        dns.set(|zone| (zone.fails, zone.silent) = (false, false));
        dns.point("app.test", &["127.0.0.1"]);
        assert!(eventually(|| text(&gateway) == "one"), "{case}: it comes back");
    }
    assert!(
        gateway
            .metrics
            .encode()
            .contains(r#"gateway_upstream_lookup_failures_total{upstream="*/**"} "#)
    );
}

#[test]
fn t51_both_families_are_used_and_a_dead_one_is_passed_over() {
    let dns = Dns::start();
    let upstream = Upstream::text("v4");
    dns.point("app.test", &["127.0.0.1", "::1"]);
    let gateway = Gateway::start(&site(&dns, name(upstream.address().port())));
    for _ in 0..6 {
        assert_eq!(text(&gateway), "v4", "::1 refuses");
    }
    assert_eq!(addresses(&gateway), 2);
}

#[test]
fn t51_a_long_answer_comes_by_tcp_and_a_time_to_live_is_kept() {
    let (dns, (_one, _two, port)) = (Dns::start(), twins());
    dns.set(|zone| (zone.truncates, zone.ttl) = (true, 3600));
    dns.point("app.test", &["127.0.0.1"]);
    let gateway = Gateway::start(&site(&dns, name(port)));
    assert_eq!(text(&gateway), "one");
    let asked = dns.zone.lock().unwrap().asked;
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(dns.zone.lock().unwrap().asked, asked, "an hour is not over");
}

#[test]
fn a_service_record_says_hosts_ports_and_weights() {
    let dns = Dns::start();
    let (heavy, light, spare) = (
        Upstream::text("heavy"),
        Upstream::text("light"),
        Upstream::text("spare"),
    );
    let srv = |upstream: &Upstream, priority, weight| {
        let data = Data::Srv(priority, weight, upstream.address().port(), "host.test".into());
        ("_http._tcp.app.test".to_owned(), data)
    };
    dns.set(|zone| zone.records = vec![srv(&heavy, 1, 3), srv(&light, 1, 1), srv(&spare, 2, 100)]);
    dns.point("host.test", &["127.0.0.1"]);
    let gateway = Gateway::start(&site(&dns, Address::Service("_http._tcp.app.test".into())));
    let mut client = Client::connect(gateway.address());
    for _ in 0..40 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((heavy.requests().len(), light.requests().len()), (30, 10));
    assert!(spare.requests().is_empty(), "a worse priority is not used");
}

#[test]
fn t51_the_system_s_resolver_is_asked_where_no_server_is_named() {
    let upstream = Upstream::text("local");
    let host = Address::Name {
        host: "localhost".into(),
        port: upstream.address().port(),
    };
    let site = site(&Dns::start(), host).upstream(|upstream| upstream.dns.servers.clear());
    assert_eq!(text(&Gateway::start(&site)), "local");
}
