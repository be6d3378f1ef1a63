//! Conversations that go on while everything around them changes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::peer::{Held, Peer};
use gateway_tests::l7::{Client, Upstream};

use super::{SHORT, Stage};

/// As server-sent events, without end.
fn events() -> Upstream {
    Upstream::start(|_, wire| {
        wire.events(SHORT);
        false
    })
}

#[test]
fn t44_websockets_events_and_grpc_calls_outlive_a_hundred_reloads() -> Result<()> {
    let (echo, calls, events, other) = (
        Peer::serve("websocket.py"),
        Peer::serve("grpc_peer.py"),
        events(),
        Upstream::text("other"),
    );
    let stage = Stage::new()?;
    // Every second configuration has other routes and other upstreams of other names: what is open has lost its route.
    let routes = format!(
        "limits: {{body_bytes: off}}\nupstreams:\n  calls: {{protocol: http2, endpoints: [{{url: 'http://{}'}}]}}\nroutes:\n  \
         - {{match: {{path: /chat}}, upstream: [{{url: 'http://{}'}}]}}\n  - {{match: {{path: /events}}, upstream: [{{url: \
         'http://{}'}}]}}\n  - {{match: {{path: /test.Echo/**}}, upstream: calls}}\n",
        calls.address(),
        echo.address(),
        events.address()
    );
    let elsewhere = format!(
        "limits: {{body_bytes: off, tunnel_idle: 1m}}\nroutes:\n  - {{match: {{path: /**}}, upstream: [{{url: 'http://{}'}}]}}\n",
        other.address()
    );
    stage.write("", &routes)?;
    let _gateway = stage.start()?;
    let address = stage.address.to_string();
    let chat = Held::talk("websocket.py", &[&format!("ws://{address}/chat")]);
    let call = Held::talk("grpc_peer.py", &[&address, "grpc.example"]);
    let mut stream = Client::connect(stage.address);
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    ensure!(stream.head()?.status == 200);
    let start = Instant::now();
    for round in 0..100 {
        stage.write("", if round % 2 == 1 { &routes } else { &elsewhere })?;
        stage.expect(0, &["reload"])?;
        if round % 2 == 0 {
            ensure!(Client::connect(stage.address).get("/chat").text() == "other");
        }
        let event = stream.chunk()?.expect("the stream goes on");
        ensure!(String::from_utf8_lossy(&event) == format!("data: {round}\n\n"));
    }
    let took = start.elapsed();
    let turns = [chat.end(), call.end()];
    println!("100 reloads in {took:?}; {turns:?} turns of a WebSocket and a gRPC call meanwhile");
    let least = u64::try_from(took.min(Duration::from_secs(20)).as_millis())? / 100;
    ensure!(
        turns.iter().all(|turns| *turns > least),
        "{turns:?} turns in {took:?}"
    );
    // What has lost its route and its conversations has left nothing behind.
    stage.write("", &elsewhere)?;
    stage.expect(0, &["reload"])?;
    drop(stream);
    wait_until("end of the series", || {
        let (_, metrics) = stage.asked("/metrics")?;
        let gone = |name: &str| !metrics.contains(&format!("=\"{name}\""));
        Ok(["calls", "/chat", "/events", "/test.Echo/**"]
            .into_iter()
            .all(gone))
    })
}
