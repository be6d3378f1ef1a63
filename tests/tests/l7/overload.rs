//! The caps of an upstream.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gateway::config::model::Caps;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};

/// Answers one request for each message that is sent.
fn on_call() -> (Upstream, mpsc::Sender<()>) {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let upstream = Upstream::start(move |_, wire| {
        let _ = may_go.lock().unwrap().recv_timeout(Duration::from_secs(10));
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    });
    (upstream, go)
}

fn capped(site: Site, change: impl FnOnce(&mut Caps)) -> Site {
    site.upstream(|upstream| change(&mut upstream.caps))
}

fn ask(gateway: &Gateway) -> JoinHandle<Response> {
    let address = gateway.address();
    std::thread::spawn(move || Client::connect(address).get("/"))
}

#[test]
fn requests_beyond_the_cap_are_refused_at_once() {
    let (upstream, go) = on_call();
    let gateway = Gateway::start(&capped(Site::to(&upstream), |caps| {
        caps.requests = NonZeroU32::new(2)
    }));
    let held = [ask(&gateway), ask(&gateway)];
    assert!(eventually(|| upstream.requests().len() == 2));
    let refused = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (503, Some("upstream_overloaded"))
    );
    assert!(refused.header("retry-after").is_some());
    assert!(
        gateway
            .metrics
            .encode()
            .contains(r#"gateway_upstream_overloads_total{upstream="*/**"} 1"#)
    );
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert!(held.into_iter().all(|held| held.join().unwrap().status == 200));
    go.send(()).unwrap();
    assert_eq!(
        ask(&gateway).join().unwrap().status,
        200,
        "the places are given back"
    );
}

#[test]
fn a_request_waits_for_a_connection_and_takes_the_one_that_is_free() {
    let (upstream, go) = on_call();
    let gateway = Gateway::start(&capped(Site::to(&upstream), |caps| {
        caps.connections = NonZeroU32::new(1);
        caps.pending_timeout = Duration::from_secs(10);
    }));
    let asked: Vec<_> = (0..5).map(|_| ask(&gateway)).collect();
    for _ in 0..5 {
        go.send(()).unwrap();
    }
    assert!(asked.into_iter().all(|asked| asked.join().unwrap().status == 200));
    let on: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(on, [0; 5], "all on the one connection");
}

#[test]
fn the_queue_has_an_end_and_a_deadline() {
    let (upstream, go) = on_call();
    let gateway = Gateway::start(&capped(Site::to(&upstream), |caps| {
        caps.connections = NonZeroU32::new(1);
        caps.pending = 1;
        caps.pending_timeout = Duration::from_millis(600);
    }));
    let served = ask(&gateway);
    assert!(eventually(|| upstream.requests().len() == 1));
    let begun = Instant::now();
    let answers: Vec<_> = [ask(&gateway), ask(&gateway)]
        .into_iter()
        .map(|asked| asked.join().unwrap())
        .collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer.code().as_deref() == Some("upstream_overloaded"))
    );
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(500) && waited < Duration::from_secs(5),
        "{waited:?}"
    );
    go.send(()).unwrap();
    assert_eq!(served.join().unwrap().status, 200);
}

#[test]
fn the_cap_holds_over_all_workers_and_none_starves() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, top) = (Arc::clone(&open), Arc::clone(&most));
    let upstream = Upstream::start(move |_, wire| {
        let before = now.fetch_add(1, Ordering::SeqCst);
        top.fetch_max(before + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        now.fetch_sub(1, Ordering::SeqCst);
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    });
    let mut site = capped(Site::to(&upstream), |caps| {
        caps.connections = NonZeroU32::new(3);
        caps.pending_timeout = Duration::from_secs(10);
    });
    site.config.workers = NonZeroU32::new(4).unwrap();
    let gateway = Gateway::start(&site);
    let address = gateway.address();
    let clients: Vec<_> = (0..24)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..25).all(|_| client.get("/").status == 200)
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?} at once");
    assert!(gateway.handle.load().upstreams()[0].endpoints()[0].connections() <= 3);
}

#[test]
fn a_connection_serves_so_many_requests_and_lives_so_long() {
    let upstream = Upstream::text("x");
    let gateway = Gateway::start(&capped(Site::to(&upstream), |caps| {
        caps.connection_requests = NonZeroU32::new(3);
    }));
    let mut client = Client::connect(gateway.address());
    assert!((0..7).all(|_| client.get("/").status == 200));
    let on: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert_eq!(on, [0, 0, 0, 1, 1, 1, 2]);
    let upstream = Upstream::text("x");
    let gateway = Gateway::start(&capped(Site::to(&upstream), |caps| {
        caps.connection_age = Some(Duration::from_millis(200));
    }));
    let mut client = Client::connect(gateway.address());
    assert!((0..2).all(|_| client.get("/").status == 200));
    std::thread::sleep(Duration::from_millis(300));
    assert!((0..2).all(|_| client.get("/").status == 200));
    let on: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert!(on.starts_with(&[0, 0]) && on.last() == Some(&1), "{on:?}");
}
