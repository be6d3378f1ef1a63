//! A service behind the gateway that writes down what reaches it, byte for byte, and answers as a test says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::raw::find;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Number of the connection it came on, from 0.
    pub connection: usize,
}

impl Request {
    /// The values of all such lines.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// The connection a request came on.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Waits until the body so far holds a pattern, and returns everything read.
    pub fn read_until(&mut self, pattern: &[u8]) -> Vec<u8> {
        while find(&self.buffer, pattern).is_none() && self.more().is_ok() {}
        self.buffer.clone()
    }

    /// Reads the whole body and takes it out of the buffer; a chunked one as it came, with its trailer.
    pub fn body(&mut self, request: &Request) -> Vec<u8> {
        if let Some(length) = request
            .header("content-length")
            .first()
            .and_then(|l| l.parse().ok())
        {
            while self.buffer.len() < length && self.more().is_ok() {}
            let length = length.min(self.buffer.len());
            return self.buffer.drain(..length).collect();
        }
        if request.header("transfer-encoding").is_empty() {
            return vec![];
        }
        let mut raw = Vec::new();
        while let Some(line) = self.line() {
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).unwrap_or(0);
            raw.extend(format!("{line}\r\n").into_bytes());
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 && self.more().is_ok() {}
            let size = (size + 2).min(self.buffer.len());
            raw.extend(self.buffer.drain(..size));
        }
        while let Some(line) = self.line() {
            raw.extend(format!("{line}\r\n").into_bytes());
            if line.is_empty() {
                break;
            }
        }
        raw
    }

    fn line(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                break end;
            }
            self.more().ok()?;
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Some(line)
    }

    /// Answers with server-sent events, one every `pause`, for as long as there is someone; then the connection is at its end.
    pub fn events(&mut self, pause: Duration) {
        self.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 0..100_000 {
            let event = format!("data: {number}\n\n");
            self.send(format!("{:x}\r\n{event}\r\n", event.len()));
            std::thread::sleep(pause);
        }
    }

    /// Sends back what comes, so many bytes.
    pub fn echo(&mut self, mut left: usize) {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            left = left.saturating_sub(bytes.len());
            self.send(bytes);
            if left == 0 || self.more().is_err() {
                return;
            }
        }
    }

    /// Whether anything more comes within a time.
    pub fn hears(&mut self, within: Duration) -> bool {
        let _ = self.stream.set_read_timeout(Some(within));
        let heard = !self.buffer.is_empty() || self.more().is_ok();
        let _ = self.stream.set_read_timeout(None);
        heard
    }

    /// Has the connection end with a reset.
    ///
    /// # Panics
    /// Never on Linux.
    pub fn reset(&mut self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }

    /// How the other side ends: [`io::ErrorKind::UnexpectedEof`], or that it breaks off.
    pub fn end(&mut self) -> io::ErrorKind {
        loop {
            if let Err(error) = self.more() {
                return error.kind();
            }
        }
    }

    /// Waits for the other side to close.
    pub fn wait_for_close(&mut self) {
        while self.more().is_ok() {}
    }

    fn more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            taken => {
                self.buffer.extend(&bytes[..taken]);
                Ok(())
            }
        }
    }

    fn request(&mut self, connection: usize) -> io::Result<Request> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or("").split(' ').map(str::to_owned);
        let split = |line: &str| {
            line.split_once(':')
                .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
        };
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Request {
            method,
            target,
            headers: lines.filter_map(split).collect(),
            connection,
        })
    }
}

/// The running service. Its threads end with its connections.
#[derive(Clone, Debug)]
pub struct Upstream {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Upstream {
    /// Answers by `answer`, which returns whether the connection stays open.
    pub fn start(answer: impl Fn(&Request, &mut Wire) -> bool + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// As [`Upstream::start`], at an address that must be free.
    pub fn at(
        address: SocketAddr,
        answer: impl Fn(&Request, &mut Wire) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (recorded, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (recorded, answer) = (Arc::clone(&recorded), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let mut wire = Wire {
                        stream,
                        buffer: vec![],
                    };
                    while let Ok(request) = wire.request(connection) {
                        recorded.lock().unwrap().push(request.clone());
                        if !answer(&request, &mut wire) {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// Answers 200 with a text, after reading the body.
    #[must_use]
    pub fn text(text: &'static str) -> Self {
        Self::start(saying(text))
    }

    /// Answers 200 with the body of the request, and these lines.
    #[must_use]
    pub fn mirror(lines: &'static str) -> Self {
        Self::start(move |request, wire| {
            let body = wire.body(request);
            wire.send(format!(
                "HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n",
                body.len()
            ));
            wire.send(body);
            true
        })
    }

    /// As [`Upstream::text`], at an address that must be free.
    #[must_use]
    pub fn text_at(address: SocketAddr, text: &'static str) -> Self {
        Self::at(address, saying(text))
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Forgets what was asked, for who asks for long.
    pub fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }

    /// The last request.
    #[must_use]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("a request reached the upstream")
    }
}

/// 200 with a text, after reading the body.
pub fn saying(text: &'static str) -> impl Fn(&Request, &mut Wire) -> bool + Send + Sync + 'static {
    move |request, wire| {
        wire.body(request);
        let body = if request.method == "HEAD" { "" } else { text };
        wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            text.len()
        ));
        true
    }
}
