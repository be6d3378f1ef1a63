//! Endpoints that are not well, and what becomes of requests meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use gateway::config::model::{Ejection, Health, Probe};
use gateway::upstream::Standing;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

fn health(probe: Probe) -> Health {
    Health {
        probe,
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(40),
        healthy: 2,
        unhealthy: 2,
        slow_start: Duration::ZERO,
    }
}

fn http() -> Probe {
    Probe::Http {
        path: "/healthz?x".into(),
        host: Some("probe.example".into()),
        status: (200, 299),
    }
}

/// Answers everything with the status that is set.
fn moody(name: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let mood = Arc::clone(&status);
    let upstream = Upstream::start(move |_, wire| {
        let status = mood.load(Ordering::Relaxed);
        wire.send(format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{name}",
            name.len()
        ));
        true
    });
    (upstream, status)
}

fn standing(gateway: &Gateway, index: usize) -> Standing {
    gateway.handle.load().upstreams()[0].endpoints()[index].standing()
}

fn texts(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut client = Client::connect(gateway.address());
    (0..count).map(|_| client.get("/").text()).collect()
}

#[test]
fn an_endpoint_whose_check_fails_gets_nothing_until_it_is_well_again() {
    let ((good, _), (bad, mood)) = (moody("good"), moody("bad"));
    let site = Site::among(&[&good, &bad]).upstream(|upstream| upstream.health = Some(health(http())));
    let gateway = Gateway::start(&site);
    assert!(eventually(|| bad.requests().len() > 1));
    let probe = bad.requests()[0].clone();
    assert_eq!(
        (probe.method.as_str(), probe.target.as_str()),
        ("GET", "/healthz?x")
    );
    assert_eq!(probe.header("host"), ["probe.example"]);
    mood.store(503, Ordering::Relaxed);
    assert!(eventually(|| standing(&gateway, 1) == Standing::Down));
    assert!(texts(&gateway, 20).iter().all(|text| text == "good"));
    let endpoint = format!(
        r#"gateway_upstream_endpoint_up{{upstream="*/**",endpoint="{}"}}"#,
        bad.address()
    );
    assert!(gateway.metrics.encode().contains(&format!("{endpoint} 0")));
    mood.store(204, Ordering::Relaxed);
    assert!(eventually(|| standing(&gateway, 1) == Standing::Well));
    assert!(gateway.metrics.encode().contains(&format!("{endpoint} 1")));
    mood.store(200, Ordering::Relaxed);
    assert!(texts(&gateway, 20).iter().any(|text| text == "bad"));
}

#[test]
fn checks_are_made_once_and_not_by_each_worker() {
    let (upstream, _) = moody("x");
    let mut site = Site::to(&upstream).upstream(|upstream| upstream.health = Some(health(http())));
    site.config.workers = std::num::NonZeroU32::new(4).unwrap();
    let _gateway = Gateway::start(&site);
    assert!(eventually(|| !upstream.requests().is_empty()));
    let before = upstream.requests().len();
    std::thread::sleep(Duration::from_millis(1000));
    let made = upstream.requests().len() - before;
    assert!((10..=24).contains(&made), "{made} in a second, one every 50 ms");
}

#[test]
fn a_connection_is_enough_for_a_check_by_tcp() {
    let good = Upstream::text("good");
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoints = [(good.address(), 1), (dead, 1)];
    let site = Site::new()
        .route("*", "/**", &endpoints)
        .upstream(|upstream| upstream.health = Some(health(Probe::Tcp)));
    let gateway = Gateway::start(&site);
    assert!(eventually(|| standing(&gateway, 1) == Standing::Down));
    assert_eq!(standing(&gateway, 0), Standing::Well);
}

/// A server of `grpc.health.v1.Health` that says whether it serves.
async fn grpc(listener: tokio::net::TcpListener, serves: Arc<AtomicBool>) {
    while let Ok((stream, _)) = listener.accept().await {
        let serves = Arc::clone(&serves);
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else {
                return;
            };
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let mut body = request.into_body();
                let serves = Arc::clone(&serves);
                tokio::spawn(async move {
                    let asked = body.data().await.unwrap().unwrap();
                    assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03abc");
                    let response = http::Response::builder().header("content-type", "application/grpc");
                    let mut send = answer.send_response(response.body(()).unwrap(), false).unwrap();
                    let status = if serves.load(Ordering::Relaxed) { 1 } else { 2 };
                    let frame = vec![0, 0, 0, 0, 2, 8, status];
                    send.send_data(frame.into(), false).unwrap();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    send.send_trailers(trailers).unwrap();
                });
            }
        });
    }
}

#[test]
fn a_check_by_grpc_hears_what_the_server_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let serves = Arc::new(AtomicBool::new(false));
    runtime.spawn(grpc(listener, Arc::clone(&serves)));
    let probe = Probe::Grpc {
        service: "abc".into(),
    };
    let site = Site::new().route("*", "/**", &[(address, 1)]);
    let gateway = Gateway::start(&site.upstream(|upstream| upstream.health = Some(health(probe))));
    assert!(eventually(|| standing(&gateway, 0) == Standing::Down));
    serves.store(true, Ordering::Relaxed);
    assert!(eventually(|| standing(&gateway, 0) == Standing::Well));
}

#[test]
fn when_too_few_are_well_all_are_used_unless_that_is_refused() {
    let ((one, mood_one), (two, mood_two)) = (moody("one"), moody("two"));
    let site = Site::among(&[&one, &two]).upstream(|upstream| upstream.health = Some(health(http())));
    let gateway = Gateway::start(&site);
    let strict = Gateway::start(&site.clone().upstream(|upstream| upstream.panic_percent = 0));
    let down = |gateway: &Gateway| (0..2).all(|index| standing(gateway, index) == Standing::Down);
    for mood in [&mood_one, &mood_two] {
        mood.store(500, Ordering::Relaxed);
    }
    assert!(eventually(|| down(&gateway) && down(&strict)));
    assert!(eventually(|| gateway.handle.load().upstreams()[0].panics()));
    let seen = texts(&gateway, 4);
    assert!(seen.contains(&"one".to_owned()) && seen.contains(&"two".to_owned()));
    let refused = Client::connect(strict.address()).get("/");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (503, Some("upstream_unhealthy"))
    );
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn one_that_comes_back_starts_slowly() {
    let ((steady, _), (new, mood)) = (moody("steady"), moody("new"));
    let slow = Health {
        slow_start: Duration::from_secs(3),
        ..health(http())
    };
    let gateway =
        Gateway::start(&Site::among(&[&steady, &new]).upstream(|upstream| upstream.health = Some(slow)));
    mood.store(500, Ordering::Relaxed);
    assert!(eventually(|| standing(&gateway, 1) == Standing::Down));
    mood.store(200, Ordering::Relaxed);
    assert!(eventually(|| standing(&gateway, 1) == Standing::Starting));
    let share = texts(&gateway, 100).iter().filter(|text| *text == "new").count();
    assert!(share < 40, "{share} of 100 at the start");
    assert!(eventually(|| standing(&gateway, 1) == Standing::Well));
    let share = texts(&gateway, 100).iter().filter(|text| *text == "new").count();
    assert!((48..=52).contains(&share), "{share} of 100 in the end");
}

fn ejection(share_percent: u8) -> Ejection {
    Ejection {
        failures: 3,
        lasts: Duration::from_millis(400),
        at_most: Duration::from_secs(60),
        share_percent,
    }
}

#[test]
fn failures_in_a_row_set_an_endpoint_aside_for_longer_each_time() {
    let ((good, _), (bad, mood)) = (moody("good"), moody("bad"));
    let site = Site::among(&[&good, &bad]).upstream(|upstream| upstream.ejection = Some(ejection(50)));
    let gateway = Gateway::start(&site);
    mood.store(500, Ordering::Relaxed);
    let mut times = vec![];
    for _ in 0..2 {
        assert!(eventually(|| {
            texts(&gateway, 2);
            standing(&gateway, 1) == Standing::Ejected
        }));
        let begun = std::time::Instant::now();
        let before = bad.requests().len();
        assert!(texts(&gateway, 10).iter().all(|text| text == "good"));
        assert_eq!(bad.requests().len(), before);
        assert!(eventually(|| standing(&gateway, 1) == Standing::Well));
        times.push(begun.elapsed());
    }
    assert!(
        times[0] >= Duration::from_millis(300) && times[1] > times[0].mul_f64(1.5),
        "{times:?}"
    );
    let text = gateway.metrics.encode();
    assert!(
        text.contains(r#"gateway_upstream_ejections_total{upstream="*/**"} 2"#),
        "{text}"
    );
}

#[test]
fn never_more_than_their_share_are_set_aside() {
    let ((one, mood_one), (two, mood_two)) = (moody("one"), moody("two"));
    let site = Site::among(&[&one, &two]).upstream(|upstream| upstream.ejection = Some(ejection(50)));
    let gateway = Gateway::start(&site);
    for mood in [&mood_one, &mood_two] {
        mood.store(500, Ordering::Relaxed);
    }
    texts(&gateway, 20);
    let out = (0..2)
        .filter(|index| standing(&gateway, *index) == Standing::Ejected)
        .count();
    assert_eq!(out, 1);
}

#[test]
fn t44_an_unchanged_upstream_keeps_its_health_and_its_connections_over_a_reload() {
    let ((good, _), (bad, mood)) = (moody("good"), moody("bad"));
    let site = Site::among(&[&good, &bad]).upstream(|upstream| upstream.health = Some(health(http())));
    let gateway = Gateway::start(&site);
    mood.store(500, Ordering::Relaxed);
    assert!(eventually(|| standing(&gateway, 1) == Standing::Down));
    texts(&gateway, 3);
    let asked = |upstream: &Upstream| {
        let requests = upstream.requests();
        let served = requests.iter().filter(|request| request.target == "/");
        served
            .map(|request| request.connection)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = asked(&good);
    for limit in 1..=3 {
        let changed = site.clone().limits(|limits| limits.header_count = 100 + limit);
        let old = gateway.handle.load();
        let new = gateway::runtime::Runtime::compile(&changed.config, Some(&old), &gateway.metrics).unwrap();
        gateway.handle.replace(new);
        assert_eq!(standing(&gateway, 1), Standing::Down);
        assert!(texts(&gateway, 5).iter().all(|text| text == "good"));
    }
    assert_eq!(asked(&good), before, "on the connections that there were");
    let probes = |upstream: &Upstream| upstream.requests().iter().filter(|r| r.target != "/").count();
    let so_far = probes(&good);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        probes(&good) - so_far <= 14,
        "still checked once, not once for each reload"
    );
}

#[test]
fn t54_nothing_that_a_client_sends_makes_a_series() {
    let ((one, _), (two, _)) = (moody("one"), moody("two"));
    let site = Site::among(&[&one, &two]).upstream(|upstream| upstream.health = Some(health(http())));
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    client.get("/first");
    let series = || {
        gateway
            .metrics
            .encode()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let before = series();
    for n in 0..200 {
        let request =
            format!("GET /{n}?{n} HTTP/1.1\r\nHost: h{n}.example\r\nCookie: c={n}\r\nX-User: {n}\r\n\r\n");
        assert_eq!(client.send(request).response().status, 200);
    }
    assert_eq!(series(), before);
}
