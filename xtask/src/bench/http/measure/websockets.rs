//! WebSockets that nobody uses: what each keeps. Both ends are here; frames are those of RFC 6455, section 5.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Given, Sample};
use crate::bench::http::cases::Entry;
use crate::bench::http::paced;
use crate::bench::http::peers::{Program, WEBSOCKETS};
use crate::bench::http::process::{PROXY_CORE, Running};

/// The example of RFC 6455, section 1.3: a key and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MESSAGE: &[u8] = b"hello";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const PATIENCE: Duration = Duration::from_secs(10);
const STACK: usize = 64 << 10;

pub fn sample(entry: &Entry, count: u32, given: &Given<'_>) -> Result<Sample> {
    let _upstream = Upstream::start(SocketAddr::from(WEBSOCKETS))?;
    let peer = entry.program.peer(given.files, &entry.setup)?;
    let running = Running::start(&peer, PROXY_CORE)?;
    let mut first = match open(peer.address)? {
        Opened::Socket(socket) => socket,
        Opened::Refused(answer) if entry.program == Program::Gateway => {
            return Ok(Sample::Skipped(format!(
                "this version does not switch protocols; it answered {answer:?}"
            )));
        }
        Opened::Refused(answer) => bail!("{}: no 101 but {answer:?}", peer.name),
    };
    talk(&mut first).with_context(|| format!("{}: the first message", peer.name))?;
    std::thread::sleep(Duration::from_millis(300));
    let before = running.resident()?;
    let mut sockets = Vec::new();
    for number in 0..count {
        let Opened::Socket(mut socket) = open(peer.address)? else {
            bail!("{}: WebSocket {number} was refused", peer.name);
        };
        talk(&mut socket).with_context(|| format!("{}: WebSocket {number}", peer.name))?;
        sockets.push(socket);
    }
    std::thread::sleep(Duration::from_millis(500));
    let after = running.resident()?;
    let spent = running.processor_time()?;
    let idle = Duration::from_secs(if given.quick { 2 } else { 5 });
    std::thread::sleep(idle);
    let spent = running.processor_time()?.saturating_sub(spent);
    for (number, socket) in sockets.iter_mut().enumerate() {
        talk(socket).with_context(|| format!("{}: WebSocket {number}, after its rest", peer.name))?;
    }
    Ok(Sample::Values(vec![
        (after - before) / 1024.0 / f64::from(count),
        spent.as_secs_f64() * 1e3 / idle.as_secs_f64(),
    ]))
}

enum Opened {
    Socket(TcpStream),
    /// The first line of another answer.
    Refused(String),
}

fn open(address: SocketAddr) -> Result<Opened> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE)).context("a deadline")?;
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let request = format!(
        "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .context("sending a request")?;
    let head = head(&mut stream).context("the answer to an upgrade")?;
    let good = head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT);
    Ok(if good {
        Opened::Socket(stream)
    } else {
        Opened::Refused(head.lines().next().unwrap_or_default().to_owned())
    })
}

/// Up to the empty line, byte by byte: what follows belongs to the WebSocket.
fn head(stream: &mut impl Read) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 8 << 10, "a head without end");
        stream.read_exact(&mut byte).context("reading a head")?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// One message there and back.
fn talk(stream: &mut TcpStream) -> Result<()> {
    let mut frame = vec![0x81, 0x80 | MESSAGE.len() as u8];
    frame.extend_from_slice(&MASK);
    frame.extend(
        MESSAGE
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    stream.write_all(&frame).context("sending a message")?;
    let mut back = [0; 2 + MESSAGE.len()];
    stream
        .read_exact(&mut back)
        .context("waiting for it to come back")?;
    let right = back.starts_with(&[0x81, MESSAGE.len() as u8]) && back.ends_with(MESSAGE);
    ensure!(right, "another message came back: {back:?}");
    Ok(())
}

/// The other end: sends messages back, on a thread for each connection. Stops to listen when dropped.
#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    fn start(address: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address} for WebSockets"))?;
        let thread = std::thread::spawn(move || {
            // Threads made here stay on the core, too.
            let pinned = paced::pin();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                // The one that stops it says nothing and is local: see `drop`.
                let builder = std::thread::Builder::new().stack_size(STACK);
                let mut first = [0];
                if pinned.is_err() || matches!(stream.peek(&mut first), Ok(0) | Err(_)) {
                    break;
                }
                // A proxy that goes away ends the connection; there is nobody to tell.
                let _ = builder.spawn(move || drop(echo(stream)));
            }
        });
        Ok(Self {
            address,
            thread: Some(thread),
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let head = head(&mut stream)?;
    let lower = head.to_lowercase();
    if !head.contains(KEY) || !lower.contains("upgrade: websocket") {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    loop {
        let mut begin = [0; 6];
        stream.read_exact(&mut begin)?;
        let [first, length, mask @ ..] = begin;
        let mut payload = vec![0; usize::from(length & 0x7f)];
        stream.read_exact(&mut payload)?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let mut back = vec![first, length & 0x7f];
        back.extend_from_slice(&payload);
        stream.write_all(&back)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ends_understand_each_other() {
        let address = SocketAddr::from(([127, 0, 0, 1], 18191));
        let upstream = Upstream::start(address).expect("a free port");
        let Opened::Socket(mut socket) = open(address).expect("an answer") else {
            panic!("refused");
        };
        talk(&mut socket).expect("an echo");
        talk(&mut socket).expect("another");
        drop(upstream);
        assert!(TcpStream::connect(address).is_err(), "it still listens");
    }
}
