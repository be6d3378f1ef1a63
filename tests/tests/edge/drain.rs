//! The end: readiness first, then listeners, then connections, then the deadline.

use std::net::TcpStream;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};
use rustix::process::Signal;

use super::{SHORT, Stage, everything_to};

/// Answers `/fast` at once, `/slow` when told to, and `/events` for ever.
fn upstream() -> (Upstream, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (asked, was_asked) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let (asked, may_go) = (Mutex::new(asked), Arc::new(Mutex::new(may_go)));
    let upstream = Upstream::start(move |request, wire| {
        match request.target.as_str() {
            "/slow" => {
                asked
                    .lock()
                    .expect("no panic")
                    .send(())
                    .expect("the test listens");
                let _ = may_go
                    .lock()
                    .expect("no panic")
                    .recv_timeout(Duration::from_secs(20));
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
            }
            "/events" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                for _ in 0..1_000 {
                    wire.send("7\r\ndata: x\r\n");
                    std::thread::sleep(SHORT);
                }
            }
            _ => wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast"),
        }
        true
    });
    (upstream, was_asked, go)
}

fn rest(upstream: &Upstream, limits: &str) -> String {
    format!("limits: {limits}\n{}", everything_to(upstream))
}

#[test]
fn readiness_goes_first_then_listeners_then_connections() -> Result<()> {
    let (upstream, was_asked, go) = upstream();
    let stage = Stage::new()?;
    // The delay is read when it is needed: a reload can have changed it.
    stage.write("", &rest(&upstream, "{drain: 10s}"))?;
    let mut gateway = stage.start()?;
    stage.write("", &rest(&upstream, "{drain: 10s, drain_delay: 1500ms}"))?;
    stage.expect(0, &["reload"])?;
    let mut kept = Client::connect(stage.address);
    assert_eq!(kept.get("/fast").text(), "fast");
    let mut idle = Client::connect(stage.address);
    assert_eq!(idle.get("/fast").header("connection"), None);
    let mut slow = Client::connect(stage.address);
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    was_asked.recv_timeout(Duration::from_secs(10))?;
    let mut curl = std::process::Command::new("curl");
    curl.args([
        "-sS",
        "-m",
        "15",
        "--http2-prior-knowledge",
        "-w",
        " %{http_code}",
    ]);
    curl.arg(format!("http://{}/slow", stage.address));
    let http2 = std::thread::spawn(move || curl.output());
    wait_until("second slow request", || {
        Ok(upstream.requests().iter().filter(|r| r.target == "/slow").count() == 2)
    })?;

    gateway.tell(Signal::TERM)?;
    let told = Instant::now();
    wait_until("503 of /readyz", || Ok(stage.asked("/readyz")?.0 == "503"))?;
    ensure!(stage.asked("/healthz")?.0 == "200", "it is alive");
    assert_eq!(
        Client::connect(stage.address).get("/fast").text(),
        "fast",
        "it still takes who comes"
    );
    let answer = kept.get("/fast");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    ensure!(kept.is_closed(), "it was told so");
    ensure!(
        told.elapsed() < Duration::from_millis(1_400),
        "{:?}",
        told.elapsed()
    );

    wait_until("closed port", || Ok(TcpStream::connect(stage.address).is_err()))?;
    ensure!(
        told.elapsed() >= Duration::from_millis(1_500),
        "{:?}",
        told.elapsed()
    );
    let end = idle.try_response().expect_err("nothing was under way on it");
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "no reset");
    go.send(())?;
    go.send(())?;
    let answer = slow.response();
    assert_eq!(
        (answer.text().as_str(), answer.header("connection")),
        ("late", Some("close"))
    );
    let output = http2.join().expect("no panic")?;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "late 200",
        "{:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(gateway.wait()?, Some(0));
    ensure!(
        told.elapsed() < Duration::from_secs(8),
        "it did not wait for the deadline"
    );
    Ok(())
}

#[test]
fn http2_clients_are_told_to_go_away_and_finish_what_they_began() -> Result<()> {
    let (upstream, was_asked, go) = upstream();
    let stage = Stage::new()?;
    stage.write("", &rest(&upstream, "{drain: 10s}"))?;
    let mut gateway = stage.start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(stage.address).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get("http://a.example/slow").body(())?;
        let (answer, _) = client.send_request(request, true)?;
        let answer = tokio::spawn(answer);
        tokio::task::spawn_blocking(move || was_asked.recv_timeout(Duration::from_secs(10))).await??;
        gateway.tell(Signal::TERM)?;
        // GOAWAY: nothing new can begin, and what has begun is answered.
        let away = async {
            loop {
                let request = http::Request::get("http://a.example/fast").body(())?;
                match std::future::poll_fn(|cx| client.poll_ready(cx)).await {
                    Ok(()) => {}
                    Err(error) => return Ok::<_, anyhow::Error>(error),
                }
                match client.send_request(request, true) {
                    Ok((answer, _)) => {
                        if let Err(error) = answer.await {
                            return Ok(error);
                        }
                    }
                    Err(error) => return Ok(error),
                }
                tokio::time::sleep(SHORT).await;
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(10), away).await??;
        ensure!(
            error.reason() == Some(h2::Reason::NO_ERROR) || error.is_go_away() || error.is_reset(),
            "{error:?}"
        );
        go.send(())?;
        let mut answer = answer.await??;
        assert_eq!(answer.status(), 200);
        let mut text = vec![];
        while let Some(piece) = answer.body_mut().data().await {
            text.extend(piece?);
        }
        assert_eq!(text, b"late");
        tokio::time::timeout(Duration::from_secs(10), connection).await???;
        Ok(())
    })?;
    assert_eq!(gateway.wait()?, Some(0));
    Ok(())
}

#[test]
fn a_stream_that_does_not_end_is_cut_at_the_deadline() -> Result<()> {
    let (upstream, _was_asked, _go) = upstream();
    let stage = Stage::new()?;
    stage.write("", &rest(&upstream, "{drain: 1s}"))?;
    let mut gateway = stage.start()?;
    let mut stream = Client::connect(stage.address);
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(stream.head()?.status, 200);
    stream.chunk()?;
    gateway.tell(Signal::TERM)?;
    let told = Instant::now();
    while stream.chunk().is_ok_and(|chunk| chunk.is_some()) {}
    let cut = told.elapsed();
    ensure!(
        cut >= Duration::from_millis(900) && cut < Duration::from_secs(4),
        "{cut:?}"
    );
    assert_eq!(gateway.wait()?, Some(0));
    ensure!(gateway.log().contains("cut off"), "{}", gateway.log());
    Ok(())
}

#[test]
fn a_second_signal_ends_the_delay() -> Result<()> {
    let (upstream, _was_asked, _go) = upstream();
    let stage = Stage::new()?;
    stage.write("", &rest(&upstream, "{drain_delay: 1h}"))?;
    let mut gateway = stage.start()?;
    gateway.tell(Signal::TERM)?;
    gateway.wait_for_log("not ready any more")?;
    assert_eq!(Client::connect(stage.address).get("/fast").text(), "fast");
    gateway.tell(Signal::HUP)?;
    gateway.wait_for_log("SIGHUP is ignored: the gateway is stopping")?;
    wait_until("an end", || {
        gateway.tell(Signal::INT)?;
        Ok(gateway.log().contains("stopped"))
    })?;
    assert_eq!(gateway.wait()?, Some(0));
    Ok(())
}
