//! Beginning, change and end of serving.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use gateway::http::Server;
use gateway::http::reject::Reject;
use gateway::runtime::Runtime;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// An upstream that answers when told, and says when it has been asked.
fn on_call() -> (Upstream, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (asked, was_asked) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (asked, may_go) = (Mutex::new(asked), Mutex::new(may_go));
    let upstream = Upstream::start(move |_, wire| {
        asked.lock().unwrap().send(()).unwrap();
        let _ = may_go.lock().unwrap().recv_timeout(Duration::from_secs(10));
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
        true
    });
    (upstream, was_asked, go)
}

#[test]
fn a_stop_lets_requests_finish_and_turns_newcomers_away() {
    let (upstream, was_asked, go) = on_call();
    let gateway = Gateway::start(&Site::to(&upstream));
    let address = gateway.address();
    let mut idle = Client::connect(address);
    let mut busy = Client::connect(address);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    was_asked.recv_timeout(Duration::from_secs(10)).unwrap();
    let stopping = std::thread::spawn(move || gateway.shutdown(Duration::from_secs(10)));
    assert!(eventually(|| std::net::TcpStream::connect(address).is_err()));
    assert!(idle.is_closed());
    go.send(()).unwrap();
    let response = busy.response();
    assert_eq!(response.text(), "late");
    assert!(busy.is_closed());
    assert!(stopping.join().unwrap(), "everything finished");
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let (upstream, was_asked, _go) = on_call();
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut busy = Client::connect(gateway.address());
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    was_asked.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(
        !gateway.shutdown(Duration::from_millis(100)),
        "one did not finish, and that is said"
    );
    assert!(busy.is_closed());
}

#[test]
fn all_connections_of_an_address_can_be_closed_at_once() {
    let (upstream, was_asked, _go) = on_call();
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut idle = Client::connect(gateway.address());
    let mut busy = Client::connect(gateway.address());
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    was_asked.recv_timeout(Duration::from_secs(10)).unwrap();
    let connections = gateway.server().connections();
    assert!(eventually(|| connections.len() == 2));
    assert_eq!(connections.close("127.0.0.2".parse().unwrap()), 0);
    assert_eq!(connections.close("127.0.0.1".parse().unwrap()), 2);
    assert!(idle.is_closed() && busy.is_closed());
    assert!(eventually(|| connections.is_empty()));
}

#[test]
fn a_blocked_client_is_not_even_greeted() {
    let upstream = Upstream::text("ok");
    let gateway = Gateway::start(&Site::to(&upstream));
    gateway
        .recorder
        .refused
        .lock()
        .unwrap()
        .insert("127.0.0.1".parse().unwrap());
    let mut client = Client::connect(gateway.address());
    assert!(client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_closed());
    assert!(gateway.told(Reject::Blocked));
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_reload_changes_the_next_request_and_keeps_what_is_equal() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let site = Site::new().route("*", "/**", &[(one.address(), 1)]);
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/new").text(), "one");
    let site = site.route("*", "/new", &[(two.address(), 1)]);
    let before = gateway.handle.load();
    let runtime = Runtime::compile(&site.config, Some(&before), &gateway.metrics).unwrap();
    assert!(Arc::ptr_eq(&runtime.upstreams()[0], &before.upstreams()[0]));
    gateway.handle.replace(runtime);
    assert_eq!(client.get("/new").text(), "two", "on the same connection");
    assert_eq!(client.get("/old").text(), "one");
    assert!(
        one.requests().iter().all(|request| request.connection == 0),
        "the pool was kept"
    );
}

#[test]
fn an_address_in_use_is_named_with_a_hint() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut site = Site::to(&upstream);
    site.config.listen[0].address = gateway.address();
    let (handle, recorder) = (gateway.handle.site(), gateway.recorder.clone());
    let started = Server::start(
        &site.config.listen,
        NonZeroU32::MIN,
        handle,
        recorder,
        gateway.metrics.clone(),
    );
    let message = started
        .expect_err("two gateways can not share an address by accident")
        .to_string();
    assert!(
        message.contains(&gateway.address().to_string()) && message.contains("another program"),
        "{message}"
    );
}

#[test]
fn several_workers_share_an_address() {
    let upstream = Upstream::text("ok");
    let mut site = Site::to(&upstream);
    site.config.workers = NonZeroU32::new(3).unwrap();
    let gateway = Gateway::start(&site);
    for _ in 0..50 {
        assert_eq!(Client::connect(gateway.address()).get("/").text(), "ok");
    }
    assert!(gateway.shutdown(Duration::from_secs(10)));
}

#[test]
fn curl_is_served() {
    let upstream = Upstream::text("hello");
    let gateway = Gateway::start(&Site::to(&upstream));
    let url = format!("http://{}/v1/x", gateway.address());
    for extra in [
        &["--http1.1"][..],
        &["--http1.0"],
        &["--http2-prior-knowledge"],
        &["--data", "a=b"],
    ] {
        let output = std::process::Command::new("curl")
            .args(["-sS", "-m", "10"])
            .args(extra)
            .arg(&url)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hello",
            "{extra:?}: {error}"
        );
    }
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn t54_series_of_what_a_reload_removed_go_with_its_last_request() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::start(move |request, wire| {
        if request.target == "/slow" {
            let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        true
    });
    let site = |name: &str| {
        let endpoints = [(upstream.address(), 1)];
        Site::new()
            .route(name, "/**", &endpoints)
            .route("kept.example", "/**", &endpoints)
    };
    let gateway = Gateway::start(&site("old.example"));
    let mut client = Client::connect(gateway.address());
    client.send("GET /slow HTTP/1.1\r\nHost: old.example\r\n\r\n");
    assert!(eventually(|| !upstream.requests().is_empty()));
    for round in 0..50 {
        gateway.reload(&site(&format!("round{round}.example")));
    }
    let text = gateway.metrics.encode();
    assert!(text.contains("old.example"), "its request is under way:\n{text}");
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "ok");
    assert!(eventually(|| !gateway.metrics.encode().contains("old.example")));
    let text = gateway.metrics.encode();
    let named = |name: &str| text.lines().filter(|line| line.contains(name)).count();
    assert_eq!(
        (named("round48.example"), named("round49.example")),
        (0, named("kept.example")),
        "{text}"
    );
}
