//! A client that speaks in bytes, to say what no library would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first such line.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `code` of the gateway's own answer.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(body["code"].as_str()?.to_owned())
    }
}

impl Client {
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are. A connection closed by the other side is no error here: the answer tells.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Sends `GET path` for host `a.example`.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
            .response()
    }

    /// A second handle on the connection, to send while this one reads.
    ///
    /// # Panics
    /// Without descriptors.
    #[must_use]
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor")
    }

    /// No more will be sent.
    pub fn end(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self
    }

    /// The next whole response.
    pub fn response(&mut self) -> Response {
        self.try_response().expect("a whole response")
    }

    /// The next whole response, or why there is none.
    pub fn try_response(&mut self) -> io::Result<Response> {
        let mut response = self.head()?;
        while response.status == 100 {
            response = self.head()?;
        }
        if response.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                response.body.extend(chunk);
            }
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().map_err(io::Error::other)?;
            response.body = self.take(length)?;
        } else if !matches!(response.status, 204 | 304) {
            response.body = self.rest();
        }
        Ok(response)
    }

    /// The next response's header.
    pub fn head(&mut self) -> io::Result<Response> {
        let head = self.line_block()?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|l| l.split(' ').nth(1))
            .and_then(|s| s.parse().ok());
        let split = |line: &str| {
            line.split_once(':')
                .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
        };
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?;
        Ok(Response {
            status,
            headers: lines.filter_map(split).collect(),
            body: vec![],
        })
    }

    /// The next chunk of a chunked body; `None` after the last.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&line[..end]).into_owned();
                break usize::from_str_radix(&text, 16).map_err(io::Error::other)?;
            }
            self.more()?;
        };
        if size == 0 {
            // Trailers, if any, and the empty line.
            while find(&self.buffer, b"\r\n").is_none() {
                self.more()?;
            }
            self.buffer.clear();
            return Ok(None);
        }
        let mut data = self.take(size + 2)?;
        data.truncate(size);
        Ok(Some(data))
    }

    /// So many bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.take(count).expect("so many bytes")
    }

    /// What comes until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more().is_ok() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side has closed, without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.more() {
            Ok(()) => false,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    fn line_block(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head[..end]).into_owned());
            }
            self.more()?;
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        Ok(self.buffer.drain(..count).collect())
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
}

/// Where a pattern begins.
#[must_use]
pub fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
