//! Everything at once for a while: every kind of client beside reloads. Nothing that behaves is failed, memory is flat, and
//! when all have gone nothing is left of them. `cargo xtask soak` does it for long.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Stage;

/// How long, in seconds, unless the environment says otherwise.
const SECONDS: u64 = 20;
const VARIABLE: &str = "GATEWAY_SOAK_SECONDS";
const LARGE: usize = 256 << 10;
/// A pause between what one client does, so that all of them have their part of a small machine.
const BREATH: Duration = Duration::from_millis(2);
const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

fn upstream() -> Upstream {
    Upstream::start(|request, wire| {
        match request.target.as_str() {
            "/chat" => {
                wire.send(AGREE);
                wire.echo(usize::MAX);
                return false;
            }
            "/large" => {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
                wire.send(vec![b'x'; LARGE]);
            }
            "/hinted" => {
                wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            "/dies" => {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                return false;
            }
            _ => {
                wire.body(request);
                wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            }
        }
        true
    })
}

/// What all clients know.
#[derive(Clone)]
struct Load {
    plain: SocketAddr,
    secure: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    done: Arc<AtomicBool>,
    /// Things that went well.
    went: Arc<AtomicU64>,
}

impl Load {
    /// Does something over and over. Whatever fails ends it.
    fn run(
        &self,
        what: &'static str,
        mut once: impl FnMut(&Self) -> Result<()> + Send + 'static,
    ) -> std::thread::JoinHandle<Result<()>> {
        let load = self.clone();
        std::thread::spawn(move || {
            while !load.done.load(Ordering::Relaxed) {
                if let Err(error) = once(&load) {
                    load.done.store(true, Ordering::Relaxed);
                    return Err(error.context(what));
                }
                load.went.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(BREATH);
            }
            Ok(())
        })
    }

    fn connected(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.plain)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream)
    }
}

fn good(client: &mut Client, request: &str) -> Result<()> {
    let answer = client.send(request).try_response()?;
    ensure!(answer.status == 200 && answer.body == b"ok", "{answer:?}");
    Ok(())
}

const GET: &str = "GET /text HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /text HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

/// Requests over TLS, on a new connection each time.
fn over_tls(load: &Load) -> Result<()> {
    let name = "a.test".try_into()?;
    let session = rustls::ClientConnection::new(Arc::clone(&load.tls), name)?;
    let stream = TcpStream::connect(load.secure)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = rustls::StreamOwned::new(session, stream);
    stream.write_all(b"GET /text HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"2\r\nok\r\n0\r\n\r\n"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

/// Many streams of one HTTP/2 connection, some of which are given up.
fn over_http2(load: &Load) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let talk = async {
        let stream = tokio::net::TcpStream::connect(load.plain).await?;
        let (mut requests, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        for round in 0..20 {
            let mut answers = vec![];
            for index in 0..10 {
                let path = if index == 9 { "/large" } else { "/text" };
                let request = http::Request::get(format!("http://a{path}")).body(())?;
                requests = requests.ready().await?;
                answers.push(requests.send_request(request, true)?.0);
            }
            // Given up, before or behind its header.
            let large = answers.pop().context("ten of them")?;
            if round % 2 == 0 {
                drop(large.await);
            } else {
                drop(large);
            }
            for answer in answers {
                let answer = answer.await?;
                ensure!(answer.status() == 200, "{answer:?}");
                let mut body = answer.into_body();
                let mut all = vec![];
                while let Some(piece) = body.data().await {
                    all.extend(piece?);
                }
                ensure!(all == b"ok", "{all:?}");
            }
        }
        Ok(())
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), talk).await? })
}

/// A WebSocket that echoes for a while.
fn websocket(load: &Load) -> Result<()> {
    let mut stream = load.connected()?;
    stream.write_all(ASK.as_bytes())?;
    let mut seen = Vec::new();
    let mut bytes = [0; 1024];
    while !seen.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut bytes)?;
        ensure!(read > 0, "{:?}", String::from_utf8_lossy(&seen));
        seen.extend(&bytes[..read]);
    }
    for round in 0..50_u8 {
        stream.write_all(&[round; 100])?;
        stream.read_exact(&mut bytes[..100])?;
        ensure!(bytes[..100] == [round; 100]);
        std::thread::sleep(BREATH);
    }
    Ok(())
}

/// Goes away in the middle of things. Nothing is expected of the gateway but to bear it.
fn aborted(load: &Load, turn: usize) -> Result<()> {
    let mut stream = load.connected()?;
    let text = match turn % 5 {
        0 => "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
        1 => "GET /text HTTP/1.1\r\nHost:",
        2 => "POST /text HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
        3 => ASK,
        _ => "GET /dies HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    stream.write_all(text.as_bytes())?;
    if turn.is_multiple_of(2) {
        let _ = stream.read(&mut [0; 100]);
    }
    Ok(())
}

/// Reads a large answer in small bites.
fn slow(load: &Load) -> Result<()> {
    let mut stream = load.connected()?;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut all = 0;
    let mut bytes = [0; 8 << 10];
    loop {
        match stream.read(&mut bytes)? {
            0 => break,
            read => all += read,
        }
        std::thread::sleep(BREATH * 5);
    }
    ensure!(all > LARGE, "{all} bytes");
    Ok(())
}

fn trusting(cert: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert)?)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn middle(sizes: &[u64]) -> u64 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.get(sizes.len() / 2).copied().unwrap_or(0)
}

#[test]
fn soak_under_mixed_load_memory_is_flat_and_nothing_is_left() -> Result<()> {
    let seconds = match std::env::var(VARIABLE) {
        Ok(text) => text.parse().with_context(|| format!("{VARIABLE}={text}"))?,
        Err(_) => SECONDS,
    };
    let upstream = upstream();
    let stage = Stage::new()?;
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()])?;
    let (cert, key) = (stage.file("a.crt"), stage.file("a.key"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let secure = SocketAddr::from(([127, 0, 0, 1], super::free_port()?));
    let listeners = format!(
        "\n  - address: {secure}\n    tls: {{certificates: [{{cert: {}, key: {}}}]}}",
        cert.display(),
        key.display()
    );
    let routes = |round: u64| {
        // A name and an upstream that were never there before, beside those that stay.
        format!(
            "limits: {{upstream_idle: 1s, request_header: 2s, body_progress: 5s}}\nroutes:\n  - match: {{path: /**}}\n    upstream: \
             [{{url: 'http://{0}'}}]\n  - match: {{path: /round{round}/**}}\n    upstream: [{{url: 'http://{0}'}}]\n",
            upstream.address()
        )
    };
    stage.write(&listeners, &routes(0))?;
    let gateway = stage.start()?;
    ensure!(Client::connect(stage.address).get("/text").status == 200);
    wait_until("quiet beginning", || {
        Ok(stage.metric("gateway_connections")? == 0.0)
    })?;
    let before = descriptors(gateway.pid())?;

    let load = Load {
        plain: stage.address,
        secure,
        tls: trusting(&cert)?,
        done: Arc::default(),
        went: Arc::default(),
    };
    let mut kept = Client::connect(stage.address);
    let mut turn = 0;
    let clients = vec![
        load.run("kept connection", move |_| {
            good(&mut kept, GET)?;
            good(&mut kept, POST)
        }),
        load.run("new connections", |load| {
            good(&mut Client::connect(load.plain), GET)
        }),
        load.run("hints", |load| {
            let mut client = Client::connect(load.plain);
            client.send("GET /hinted HTTP/1.1\r\nHost: a\r\n\r\n");
            ensure!(client.head()?.status == 103);
            good(&mut client, "")
        }),
        load.run("TLS", over_tls),
        load.run("HTTP/2", over_http2),
        load.run("WebSocket", websocket),
        load.run("WebSocket", websocket),
        load.run("aborted", move |load| {
            turn += 1;
            aborted(load, turn)
        }),
        load.run("slow reader", slow),
        load.run("slow reader", slow),
    ];
    let start = Instant::now();
    let mut sizes = vec![];
    let mut round = 0;
    let (mut most, mut trouble) = (0, None);
    while start.elapsed() < Duration::from_secs(seconds) && !load.done.load(Ordering::Relaxed) {
        round += 1;
        stage.write(&listeners, &routes(round))?;
        if let Err(error) = stage.expect(0, &["reload"]) {
            trouble = Some(error);
            break;
        }
        upstream.forget();
        std::thread::sleep(Duration::from_millis(250));
        sizes.push(gateway.resident()?);
        most = most.max(descriptors(gateway.pid())?);
    }
    load.done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| anyhow!("a client panicked"))??;
    }
    trouble.map_or(Ok(()), Err)?;

    let went = load.went.load(Ordering::Relaxed);
    let third = sizes.len() / 3;
    let (early, late) = (middle(&sizes[third..2 * third]), middle(&sizes[2 * third..]));
    println!(
        "{} s, {went} things done, {round} reloads, at most {most} descriptors; resident {early} KiB, then {late} KiB",
        start.elapsed().as_secs()
    );
    ensure!(
        went > seconds * 50,
        "{went} things done in {seconds} s: there was no load"
    );
    ensure!(late <= early + early / 20 + 1024, "memory grows: {sizes:?}");
    // Whoever is there no more has left nothing: no connection, no request, no descriptor, no series.
    wait_until("last connection", || {
        Ok(stage.metric("gateway_connections")? == 0.0)
    })?;
    wait_until("last descriptor", || {
        // Beside two that a scrape may have for itself.
        Ok(descriptors(gateway.pid())? <= before + 2)
    })?;
    let (_, metrics) = stage.asked("/metrics")?;
    let rounds = metrics.lines().filter(|line| line.contains("/round")).count();
    let now = metrics
        .lines()
        .filter(|line| line.contains(&format!("/round{round}/")))
        .count();
    ensure!(rounds == now, "series of removed routes:\n{metrics}");
    ensure!(
        gateway.log().lines().all(|line| !line.contains(" ERROR ")),
        "{}",
        gateway.log()
    );
    Ok(())
}
