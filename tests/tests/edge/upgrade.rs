//! A new binary in the place of the old one, with listening sockets that a service manager holds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::gateway::{binary, wait_until};
use gateway_tests::l7::{Client, Upstream};

use super::{SHORT, Stage, everything_to};

/// Starts gateways one after another, and keeps the socket between them.
struct Manager {
    child: Child,
    /// Its end ends the manager, and the gateway with it.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Manager {
    fn start(stage: &Stage, held: SocketAddr) -> Result<Self> {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/hold.py");
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(script)
            .args([held.ip().to_string(), held.port().to_string()]);
        command
            .arg(binary()?)
            .args(["run", "--config"])
            .arg(stage.home.config());
        let log = std::fs::File::create(stage.file("held.log"))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("an output")?);
        Ok(Self { child, input, output })
    }

    /// The process that was started last.
    fn started(&mut self) -> Result<u32> {
        let mut line = String::new();
        // The gateway writes nothing there.
        self.output.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    fn again(&mut self) -> Result<u32> {
        self.input.as_mut().context("an input")?.write_all(b"\n")?;
        self.started()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

#[test]
fn t49_an_upgrade_refuses_no_connection_where_the_sockets_are_held() -> Result<()> {
    let upstream = Upstream::text("ok");
    let stage = Stage::new()?;
    let routes = everything_to(&upstream);
    stage.write("", &routes)?;
    let mut manager = Manager::start(&stage, stage.address)?;
    let mut last = manager.started()?;
    let ready = || -> Result<()> {
        let shown = || std::fs::read_to_string(stage.file("held.log")).unwrap_or_default();
        wait_until("readiness", || Ok(stage.asked("/readyz")?.0 == "200")).with_context(shown)
    };
    ready()?;
    // New connections all the while, each for one request: none may be refused, reset or left without an answer.
    let (served, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (served, over, address) = (Arc::clone(&served), Arc::clone(&over), stage.address);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                    let answer = client.try_response().expect("an answer");
                    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
                    served.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(SHORT / 4);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let next = manager.again()?;
        ensure!(next != last, "another process");
        last = next;
        ready()?;
        let before = served.load(Ordering::Relaxed);
        wait_until("answers of the new one", || {
            Ok(served.load(Ordering::Relaxed) > before + 20)
        })?;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("no client was refused");
    }
    println!(
        "{} connections over five upgrades",
        served.load(Ordering::Relaxed)
    );

    // A reload may take the listener away and bring it back: the socket is still there.
    let beside = SocketAddr::from(([127, 0, 0, 1], super::free_port()?));
    let with = std::fs::read_to_string(stage.home.config())?;
    let without = with.replace(&stage.address.to_string(), &beside.to_string());
    std::fs::write(stage.home.config(), without)?;
    stage.expect(0, &["reload"])?;
    assert_eq!(Client::connect(beside).get("/").status, 200);
    let mut waiting = Client::connect(stage.address);
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::fs::write(stage.home.config(), with)?;
    stage.expect(0, &["reload"])?;
    assert_eq!(waiting.response().status, 200);
    Ok(())
}
