//! Everything that happens to a gateway in its life, under a flood from denied sources: not one packet reaches the stack.
//!
//! Counted where it matters, at a socket behind the filter; a source that is not denied sends beside them, so that an
//! empty socket proves something.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::*;

/// Inside a denied network.
const INSIDE: &str = "10.77.0.66";
const TARGET: &str = "10.77.0.1:9999";

/// Sends until it is told to stop; counts what the kernel took.
struct Sender {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    fn start(client: &Namespace, from: &str, pause: Option<Duration>) -> Result<Self> {
        let from: SocketAddr = format!("{from}:0").parse()?;
        let socket = client.within(move || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(from)?;
            socket.connect(TARGET)?;
            Ok(socket)
        })??;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if socket.send(b"flood").is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some(pause) = pause {
                        std::thread::sleep(pause);
                    }
                }
            }
        });
        Ok(Self {
            sent,
            stop,
            thread: Some(thread),
        })
    }

    /// How many it has sent, now that it sends no more.
    fn stop(mut self) -> u64 {
        self.end();
        self.sent.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
    }
}

/// Counts what arrives, by source: denied ones, and the other.
#[derive(Clone, Default)]
struct Receiver {
    denied: Arc<AtomicU64>,
    other: Arc<AtomicU64>,
}

impl Receiver {
    fn start(gateway: &Namespace) -> Result<Self> {
        let socket = gateway.within(|| UdpSocket::bind(TARGET))??;
        let receiver = Self::default();
        std::thread::spawn({
            let receiver = receiver.clone();
            move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let of = if from.ip().to_string() == B {
                        &receiver.other
                    } else {
                        &receiver.denied
                    };
                    of.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(receiver)
    }
}

#[test]
fn no_denied_packet_reaches_the_stack_whatever_happens_to_the_gateway() -> Result<()> {
    let stage = Stage::new("")?;
    let list = stage.home.path().join("drop.txt");
    let lists = |round: usize| -> Result<()> {
        // The network stays; hundreds of others come and go, so the tables are made anew.
        let others = (0..300).map(|n| format!("100.{}.{}.0/24\n", 64 + round, n % 256));
        let singles = (0..300).map(|n| format!("100.{}.{}.{}\n", 96 + round, n / 250, n % 250));
        std::fs::write(
            &list,
            others.chain(singles).collect::<String>() + "10.77.0.64/26\n",
        )?;
        Ok(())
    };
    lists(0)?;
    stage.home.write(&config(
        &format!("  deny: [{{file: {}}}]", list.display()),
        "1m",
        "",
    ))?;
    stage
        .wire
        .client
        .run(&["ip", "addr", "add", "10.77.0.66/24", "dev", "cl0"])?;
    let mut gateway = stage.start()?;
    stage.expect(0, &["deny", "add", A])?;

    let received = Receiver::start(&stage.wire.gateway)?;
    let client = &stage.wire.client;
    let flood = [
        Sender::start(client, A, None)?,
        Sender::start(client, INSIDE, None)?,
    ];
    let control = Sender::start(client, B, Some(Duration::from_millis(2)))?;
    let started = Instant::now();
    let mut programs = vec![stage.program_on_wire()?.context("a program")?];
    let mut round = 0;
    while round < 2 || started.elapsed() < Duration::from_secs(9) {
        round += 1;
        // New lists.
        lists(round % 16)?;
        stage.expect(0, &["reload"])?;
        // Entries around those that are met, which make the tables anew or are written in place.
        stage.expect(0, &["deny", "add", "10.77.0.128/25", "198.51.100.9"])?;
        stage.expect(0, &["deny", "del", "10.77.0.128/25", "198.51.100.9"])?;
        // A restart, then a death; each new process swaps its own program into the link.
        assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
        gateway = stage.start()?;
        programs.push(stage.program_on_wire()?.context("a program")?);
        ensure!(gateway.signal(Signal::KILL)?.is_none());
        // Lists change without a gateway, too.
        stage.expect(0, &["deny", "add", "198.51.100.0/24"])?;
        stage.expect(0, &["deny", "del", "198.51.100.0/24"])?;
        gateway = stage.start()?;
        programs.push(stage.program_on_wire()?.context("a program")?);
    }
    let sent = flood.map(Sender::stop).iter().sum::<u64>();
    let passed = control.stop();
    std::thread::sleep(Duration::from_millis(200));

    let (denied, other) = (
        received.denied.load(Ordering::Relaxed),
        received.other.load(Ordering::Relaxed),
    );
    println!(
        "{sent} packets of denied sources in {:.1?}, {denied} of them delivered; {other} of {passed} others; {} programs",
        started.elapsed(),
        programs.len()
    );
    assert_eq!(denied, 0, "of {sent} packets");
    assert!(sent > 100_000, "{sent} is no flood");
    // The flood fills the wire's queue at times, so some are lost on the way, but not to the filter.
    assert!(passed > 500 && other > passed / 2, "{other} of {passed} arrived");
    let dropped = stage.packets("denied")?;
    assert!(dropped > 100_000 && dropped <= sent, "{dropped} of {sent}");
    let distinct: std::collections::BTreeSet<_> = programs.iter().collect();
    assert_eq!(
        distinct.len(),
        programs.len(),
        "each start runs its own program: {programs:?}"
    );
    // It was the filter that kept them out.
    stage.expect(0, &["deny", "del", A])?;
    let late = Sender::start(client, A, Some(Duration::from_millis(2)))?;
    wait_until("packets of a source no longer denied", || {
        Ok(received.denied.load(Ordering::Relaxed) > 0)
    })?;
    drop(late);
    drop(gateway);
    Ok(())
}

#[test]
fn no_hit_is_lost_while_lists_are_replaced() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    stage
        .wire
        .client
        .run(&["ip", "addr", "add", "10.77.0.66/24", "dev", "cl0"])?;
    let _gateway = stage.start()?;
    let list = stage.home.path().join("drop.txt");
    let import = |round: usize| -> Result<()> {
        let others = (0..300).map(|n| format!("100.{}.{}.0/24\n", 64 + round, n % 256));
        let singles = (0..20_000).map(|n| format!("100.{}.{}.{}\n", 96 + round, n / 250, n % 250));
        let text = others.chain(singles).collect::<String>() + "10.77.0.64/26\n" + A + "\n";
        std::fs::write(&list, text)?;
        stage.expect(
            0,
            &[
                "deny",
                "import",
                "--replace",
                "--no-aggregate",
                &list.display().to_string(),
            ],
        )?;
        Ok(())
    };
    import(0)?;
    let flood = [
        Sender::start(&stage.wire.client, A, None)?,
        Sender::start(&stage.wire.client, INSIDE, None)?,
    ];
    for round in 1..16 {
        import(round)?;
    }
    let sent = flood.map(Sender::stop).iter().sum::<u64>();
    let dropped = stage.packets("denied")?;
    let hits = |addr: &str| -> Result<u64> {
        let explained = stage.json(&["explain", addr])?;
        explained["deny"][0]["hits"].as_u64().context("hits")
    };
    let counted = hits(A)? + hits(INSIDE)?;
    println!("{sent} sent, {dropped} dropped, {counted} counted by the two rules");
    assert!(dropped > 100_000, "{dropped} is no flood");
    assert_eq!(counted, dropped);
    Ok(())
}
