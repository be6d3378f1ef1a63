//! More clients than there should be: ten thousand slow ones, and as many as take the last descriptor.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};
use rustix::process::{Pid, Resource, Rlimit};

use super::{Stage, everything_to};

/// Slow clients, by what they are slow at. Each of the last two holds a connection to the upstream, and a thread of it.
const SLOW_HEADERS: usize = 9_000;
const SLOW_BODIES: usize = 500;
const SLOW_READERS: usize = 500;
/// Longest that the honest client waits, in 99 of 100 requests.
const P99: Duration = Duration::from_millis(50);
/// KiB by which a gateway is larger when a crowd has gone.
const GIVEN_BACK: u64 = 32 << 10;
/// Bytes that a slow reader leaves unread.
const UNREAD: usize = 256 << 10;

fn rest(upstream: &Upstream, limits: &str) -> String {
    format!("limits: {limits}\n{}", everything_to(upstream))
}

fn held(stage: &Stage, text: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(stage.address)?;
    stream.write_all(text.as_bytes())?;
    Ok(stream)
}

#[test]
fn t28_ten_thousand_slow_clients_do_not_slow_an_honest_one() -> Result<()> {
    gateway::app::descriptors::raise();
    let most = rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    ensure!(
        most >= 12_000,
        "this test needs 12,000 descriptors, and `ulimit -Hn` is {most}"
    );
    let upstream = Upstream::start(|request, wire| {
        let length = match request.target.as_str() {
            "/large" => UNREAD,
            _ => 2,
        };
        wire.body(request);
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
        wire.send(vec![b'x'; length]);
        true
    });
    let stage = Stage::new()?;
    let limits =
        "{connections: 10100, connections_per_client: 10100, request_header: 60s, body_progress: 60s}";
    stage.write("", &rest(&upstream, limits))?;
    let gateway = stage.start()?;
    let mut honest = Client::connect(stage.address);
    ensure!(honest.get("/").status == 200);
    let before = gateway.resident()?;
    let mut slow = Vec::new();
    for _ in 0..SLOW_HEADERS {
        slow.push(held(&stage, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow:")?);
    }
    for _ in 0..SLOW_BODIES {
        slow.push(held(
            &stage,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf",
        )?);
    }
    for _ in 0..SLOW_READERS {
        slow.push(held(&stage, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")?);
    }
    let asked = |target: &str| upstream.requests().iter().filter(|r| r.target == target).count();
    wait_until("slow reader has its answer", || {
        Ok(asked("/large") == SLOW_READERS)
    })?;
    let mut took = Vec::new();
    for round in 0..1_000_usize {
        // They are slow, not still.
        for index in 0..5 {
            let at = (round * 5 + index) % SLOW_HEADERS;
            slow[at].write_all(b"x")?;
        }
        let start = Instant::now();
        // Now and then on a connection of its own.
        let status = match round % 10 {
            0 => Client::connect(stage.address).get("/").status,
            _ => honest.get("/").status,
        };
        took.push(start.elapsed());
        ensure!(status == 200, "{status}");
    }
    took.sort();
    let (half, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let grown = gateway.resident()?.saturating_sub(before) / slow.len() as u64;
    println!("p50 {half:?}, p99 {p99:?}; {grown} KiB for each slow client");
    ensure!(p99 < P99, "p99 {p99:?}");
    ensure!(grown < 48, "{grown} KiB for each slow client");
    drop(slow);
    ensure!(honest.get("/").status == 200);
    // And then nobody asks for anything.
    wait_until("the memory is given back", || {
        Ok(gateway.resident()? < before + GIVEN_BACK)
    })
}

#[test]
fn t28_a_gateway_out_of_descriptors_serves_who_is_there_says_so_once_and_recovers() -> Result<()> {
    const DESCRIPTORS: u64 = 128;
    let upstream = Upstream::text("ok");
    let stage = Stage::new()?;
    stage.write("", &rest(&upstream, "{}"))?;
    let gateway = stage.start()?;
    let pid = i32::try_from(gateway.pid())?;
    let few = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    rustix::process::prlimit(Pid::from_raw(pid), Resource::Nofile, few)?;
    let open = || Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    let mut early: Vec<_> = (0..8).map(|_| Client::connect(stage.address)).collect();
    for client in &mut early {
        ensure!(client.get("/").status == 200);
    }
    // The kernel completes their handshakes; the gateway can not accept the last of them.
    let crowd: Vec<_> = (0..2 * DESCRIPTORS)
        .map(|_| held(&stage, ""))
        .collect::<Result<_>>()?;
    wait_until("descriptor left", || Ok(open()? as u64 >= DESCRIPTORS))?;
    gateway.wait_for_log("could not be accepted")?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        for client in &mut early {
            let answer = client.get("/");
            ensure!(answer.status == 200, "{answer:?}");
        }
    }
    let log = gateway.log();
    let told = log
        .lines()
        .filter(|line| line.contains("could not be accepted"))
        .count();
    // Once for each listener of each of two workers.
    ensure!((1..=2).contains(&told), "told {told} times:\n{log}");
    drop(crowd);
    for _ in 0..20 {
        let answer = Client::connect(stage.address).get("/");
        ensure!(answer.status == 200, "{answer:?}");
    }
    wait_until("descriptor free", || Ok((open()? as u64) < DESCRIPTORS / 2))?;
    Ok(())
}

#[test]
fn t26_an_http2_client_that_does_not_read_is_not_bought_memory() -> Result<()> {
    let upstream = Upstream::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
        for _ in 0..1024 {
            wire.send([0; 65536]);
        }
        true
    });
    let stage = Stage::new()?;
    stage.write("", &rest(&upstream, "{}"))?;
    let gateway = stage.start()?;
    let before = gateway.resident()?;
    let mut client = TcpStream::connect(stage.address)?;
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        frame
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    bytes.extend(frame(8, 0, 0, &[0x7f, 0xff, 0, 0]));
    for stream in 0..100 {
        bytes.extend(frame(1, 5, 1 + 2 * stream, b"\x82\x86\x84\x41\x01a"));
    }
    client.write_all(&bytes)?;
    wait_until("every stream is asked for", || {
        Ok(upstream.requests().len() == 100)
    })?;
    std::thread::sleep(Duration::from_secs(3));
    let held = gateway.resident()?.saturating_sub(before) >> 10;
    // Without a budget it is over 100.
    ensure!(held < 40, "{held} MiB");
    Ok(())
}
