//! Headers and framing to bytes, plainly (RFC 9112, 2 to 7).

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, request, response};

use super::head::Framing;

/// Writes a request's header. The framing is the caller's; lines that would contradict it are left out.
pub fn request(out: &mut BytesMut, parts: &request::Parts, framing: Framing, upgrade: bool) {
    out.reserve(256 + parts.headers.len() * 48);
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !target.starts_with('/') && target != "*" {
        out.put_u8(b'/');
    }
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    lines(out, &parts.headers, upgrade);
    framing_line(out, framing);
    out.put_slice(b"\r\n");
}

/// What an answer's header is written with.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub framing: Framing,
    /// Keep a `Content-Length` that describes the body of another answer: that to a GET, in one to a HEAD.
    pub keep_length: bool,
    /// What to say of the connection, if anything.
    pub connection: Option<&'static str>,
    /// Written, if there is one: an IMF-fixdate.
    pub date: Option<&'a [u8]>,
}

/// Writes an answer's header. Its lines on framing are replaced by what `answer` says.
pub fn response(out: &mut BytesMut, parts: &response::Parts, answer: &Answer<'_>) {
    out.reserve(256 + parts.headers.len() * 48);
    if parts.status == StatusCode::OK {
        out.put_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.put_slice(b"HTTP/1.1 ");
        out.put_slice(parts.status.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(parts.status.canonical_reason().unwrap_or("Unknown").as_bytes());
        out.put_slice(b"\r\n");
    }
    let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    lines(out, &parts.headers, switching);
    if answer.keep_length
        && let Some(length) = parts.headers.get(CONTENT_LENGTH)
    {
        line(out, b"content-length", length.as_bytes());
    }
    if let Some(date) = answer.date.filter(|_| !parts.status.is_informational()) {
        line(out, b"date", date);
    }
    if let Some(connection) = answer.connection.filter(|_| !switching) {
        line(out, b"connection", connection.as_bytes());
    }
    framing_line(out, answer.framing);
    out.put_slice(b"\r\n");
}

/// Writes the last chunk and the trailer.
pub fn trailer(out: &mut BytesMut, trailer: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    if let Some(trailer) = trailer {
        lines(out, trailer, false);
    }
    out.put_slice(b"\r\n");
}

/// Lines on the connection belong to it, so they are written only where they are meant: `whole`.
fn lines(out: &mut BytesMut, headers: &HeaderMap, whole: bool) {
    for (name, value) in headers {
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING || (*name == CONNECTION && !whole) {
            continue;
        }
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

fn framing_line(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.put_slice(b"content-length: ");
            out.put_slice(itoa::Buffer::new().format(length).as_bytes());
            out.put_slice(b"\r\n");
        }
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Writes what stands before a chunk of so many bytes.
pub fn chunk_size(out: &mut BytesMut, size: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.put_u8(HEX[(size >> (digit * 4)) & 15]);
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http1::head;

    #[test]
    fn what_is_written_reads_as_the_same() {
        let text = "POST /a?b=%20 HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\nConnection: close\r\nContent-Length: 77\r\n\r\n";
        let most = head::Limits {
            bytes: 4096,
            lines: 16,
        };
        let (parts, _) = head::request(&Bytes::from(text), most).unwrap();
        let mut out = BytesMut::new();
        request(&mut out, &parts, Framing::Length(5), false);
        let written = "POST /a?b=%20 HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(std::str::from_utf8(&out), Ok(written));
        for (size, hex) in [(0, "0"), (9, "9"), (16, "10"), (0xfff, "fff"), (0x10000, "10000")] {
            let mut out = BytesMut::new();
            chunk_size(&mut out, size);
            assert_eq!(out, format!("{hex}\r\n"));
        }
    }
}
