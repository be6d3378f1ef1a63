//! The demonstration's upstream: a small HTTP/1.1 server that answers every request with JSON about it.
//!
//! Threads and the standard library only. Bounded in connections, header size and time, since the gateway in front of
//! it is what people will try to break.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MAX_CONNECTIONS: usize = 256;
const MAX_HEADER: u64 = 64 << 10;
const MAX_BODY: u64 = 1 << 30;
const IDLE: Duration = Duration::from_secs(60);

/// Listens and serves on threads of its own until the process ends.
pub fn start(address: &str) -> io::Result<()> {
    serve(TcpListener::bind(address)?);
    Ok(())
}

fn serve(listener: TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of file descriptors, most likely: wait for some to be closed.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let open = Arc::clone(&open);
            std::thread::spawn(move || {
                // The other end going away is how a connection ends; there is nobody to tell.
                let _ = connection(&stream);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

/// Serves one connection until it is closed, breaks or sends something that can not be served.
fn connection(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        let request = Request::parse(&head);
        let keep = match &request {
            Some(request) if request.length <= MAX_BODY => {
                let skipped = io::copy(&mut reader.by_ref().take(request.length), &mut io::sink())?;
                skipped == request.length && request.keep_alive
            }
            _ => false,
        };
        let mut writer = stream;
        writer.write_all(answer(request.as_ref(), keep).as_bytes())?;
        if !keep {
            break;
        }
    }
    Ok(())
}

/// The lines up to the empty one; `None` at a clean end.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    let mut left = reader.take(MAX_HEADER);
    loop {
        let mut line = Vec::new();
        if left.read_until(b'\n', &mut line)? == 0 {
            let clean = lines.is_empty() && left.limit() > 0;
            return if clean {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            return Ok(Some(lines));
        }
        lines.push(line);
    }
}

/// What the answer tells of a request.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    length: u64,
    keep_alive: bool,
}

impl Request {
    /// `None` if the head is not HTTP/1.1 or its body's end can not be told by a length.
    fn parse(head: &[String]) -> Option<Self> {
        let (line, fields) = head.split_first()?;
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if version != "HTTP/1.1" {
            return None;
        }
        let headers: Vec<(String, String)> = fields
            .iter()
            .filter_map(|field| field.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let value = |wanted: &str| {
            headers
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        let length = match value("content-length") {
            Some(length) => length.parse().ok()?,
            None if value("transfer-encoding").is_some() => u64::MAX,
            None => 0,
        };
        let keep_alive = !value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            length,
            keep_alive,
            headers,
        })
    }
}

/// A whole response. A body of unknown length is answered at once, and the connection closed after it.
fn answer(request: Option<&Request>, keep: bool) -> String {
    let (status, body) = match request {
        Some(request) => {
            let headers: Vec<String> = request
                .headers
                .iter()
                .map(|(name, value)| format!("{}:{}", json(name), json(value)))
                .collect();
            let (method, path) = (json(&request.method), json(&request.target));
            let head = format!("\"from\":\"demonstration upstream\",\"method\":{method},\"path\":{path}");
            (
                "200 OK",
                format!("{{{head},\"headers\":{{{}}}}}\n", headers.join(",")),
            )
        }
        None => ("400 Bad Request", "{\"error\":\"not a request\"}\n".to_owned()),
    };
    let length = body.len();
    let connection = if keep { "keep-alive" } else { "close" };
    let body = if request.is_some_and(|request| request.method == "HEAD") {
        String::new()
    } else {
        body
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n{body}"
    )
}

/// A JSON string (RFC 8259, section 7).
fn json(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends bytes on one connection, ends the sending side, and returns everything that came back.
    fn exchange(sent: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
        let address = listener.local_addr().expect("bound");
        serve(listener);
        let mut stream = TcpStream::connect(address).expect("connected");
        // A server that closes early resets the connection; what it said before counts.
        let _ = stream.write_all(sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn keeps_the_connection_for_the_next_request() {
        let answer =
            exchange(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /b\"c HTTP/1.1\r\nX: y\r\n\r\n");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert!(
            answer.contains(r#""path":"/b\"c""#) && answer.contains(r#""x":"y""#),
            "{answer}"
        );
    }

    #[test]
    fn answers_a_chunked_request_and_closes() {
        let answer = exchange(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.contains("Connection: close"), "{answer}");
    }

    #[test]
    fn survives_garbage() {
        assert!(exchange(b"\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(exchange(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert_eq!(exchange(b"GET / HTTP/1.1\r\nBroken"), "");
        assert_eq!(exchange(&vec![b'a'; 1 << 20]), "");
    }
}
