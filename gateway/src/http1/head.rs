//! A whole header, read strictly (RFC 9112, 2 to 6).
//!
//! httparse finds the parts and checks their letters. It lets through what a recipient may tolerate, so what it can not tell
//! is looked at here: every line ends in CR LF, and the framing is said once, in one way.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request, response};
use memchr::memchr;

use super::Fault;

/// Lines that the parser has room for without an allocation.
const INLINE: usize = 100;

/// The most that a header may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes, with every line end.
    pub bytes: usize,
    /// Lines, without the first and the empty one.
    pub lines: usize,
}

/// How the body behind a header is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes. Zero is a body, if an empty one.
    Length(u64),
    Chunked,
    /// Everything up to the end of the connection.
    UntilClose,
}

/// What a header says beside its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// Whether the sender waits for `100 Continue` before its body.
    pub expects_continue: bool,
}

/// Looks for the end of a header in a buffer that grows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// Bytes that hold no end.
    known: usize,
}

impl Search {
    /// Where the header that begins the buffer ends; `None` if it is not whole yet.
    ///
    /// # Errors
    /// A line that does not end in CR LF, or too many bytes.
    pub fn end(&mut self, buffer: &[u8], most: usize) -> Result<Option<usize>, Fault> {
        let mut from = self.known;
        while let Some(found) = memchr(b'\n', &buffer[from..]) {
            let lf = from + found;
            if lf == 0 || buffer[lf - 1] != b'\r' {
                return Err(Fault::Malformed);
            }
            if lf >= 3 && buffer[lf - 3..lf] == *b"\r\n\r" {
                return if lf < most {
                    Ok(Some(lf + 1))
                } else {
                    Err(Fault::TooLarge)
                };
            }
            from = lf + 1;
        }
        self.known = buffer.len();
        if buffer.len() > most {
            Err(Fault::TooLarge)
        } else {
            Ok(None)
        }
    }
}

/// Reads a request's header, whole and with the empty line behind it.
///
/// # Errors
/// Whatever is not one unambiguous HTTP/1.0 or 1.1 request.
pub fn request(bytes: &Bytes, most: Limits) -> Result<(request::Parts, Meaning), Fault> {
    let config = httparse::ParserConfig::default();
    let mut inline = [const { std::mem::MaybeUninit::uninit() }; INLINE];
    let mut room = Vec::new();
    let mut parsed = httparse::Request::new(&mut []);
    let mut outcome = config.parse_request_with_uninit_headers(&mut parsed, bytes, &mut inline);
    if outcome == Err(httparse::Error::TooManyHeaders) && most.lines > INLINE {
        room.resize(lines_of(bytes).min(most.lines), httparse::EMPTY_HEADER);
        parsed = httparse::Request::new(&mut room);
        outcome = config.parse_request(&mut parsed, bytes);
    }
    outcome.map_err(fault)?;
    let lines = read_lines(parsed.headers, bytes, most)?;
    let (Some(method), Some(path), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Fault::Malformed);
    };
    let version = version(minor);
    let framing = match (lines.length, lines.chunked) {
        // Transfer codings came with HTTP/1.1; an older sender that names one is not understood by all (6.1).
        (None, true) if version == Version::HTTP_11 => Framing::Chunked,
        (_, true) => return Err(Fault::Malformed),
        (Some(length), false) => Framing::Length(length),
        (None, false) => Framing::None,
    };
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Fault::Malformed)?;
    parts.uri = Uri::from_maybe_shared(bytes.slice_ref(path.as_bytes())).map_err(|_| Fault::Malformed)?;
    parts.version = version;
    let meaning = Meaning {
        framing,
        keep_alive: lines.keep_alive(version),
        expects_continue: version == Version::HTTP_11 && lines.expects_continue,
    };
    parts.headers = lines.headers;
    Ok((parts, meaning))
}

/// Reads a response's header, whole and with the empty line behind it. `to_head` if the request was a HEAD.
///
/// # Errors
/// Whatever is not one unambiguous HTTP/1.0 or 1.1 response.
pub fn response(bytes: &Bytes, most: Limits, to_head: bool) -> Result<(response::Parts, Meaning), Fault> {
    let config = httparse::ParserConfig::default();
    let mut inline = [const { std::mem::MaybeUninit::uninit() }; INLINE];
    let mut room = Vec::new();
    let mut parsed = httparse::Response::new(&mut []);
    let mut outcome = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut inline);
    if outcome == Err(httparse::Error::TooManyHeaders) && most.lines > INLINE {
        room.resize(lines_of(bytes).min(most.lines), httparse::EMPTY_HEADER);
        parsed = httparse::Response::new(&mut room);
        outcome = config.parse_response(&mut parsed, bytes);
    }
    outcome.map_err(fault)?;
    let lines = read_lines(parsed.headers, bytes, most)?;
    let (Some(minor), Some(code)) = (parsed.version, parsed.code) else {
        return Err(Fault::Malformed);
    };
    let version = version(minor);
    let status = status(code).ok_or(Fault::Malformed)?;
    if lines.chunked && (lines.length.is_some() || version != Version::HTTP_11) {
        return Err(Fault::Malformed);
    }
    let framing = if to_head || has_no_body(status) {
        Framing::None
    } else if lines.chunked {
        Framing::Chunked
    } else {
        lines.length.map_or(Framing::UntilClose, Framing::Length)
    };
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = version;
    let meaning = Meaning {
        framing,
        keep_alive: framing != Framing::UntilClose && lines.keep_alive(version),
        expects_continue: false,
    };
    parts.headers = lines.headers;
    Ok((parts, meaning))
}

/// Three digits are not enough: what is beyond 599 is invalid, and libraries use it for errors of their own (RFC 9110, 15).
#[must_use]
pub fn status(code: u16) -> Option<StatusCode> {
    StatusCode::from_u16(code).ok().filter(|_| code <= 599)
}

/// Whether an answer of this status never has a body, whatever its lines say (RFC 9112, 6.3).
#[must_use]
pub fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Reads the lines of a trailer, whole and with the empty line behind them. Those that belong into a header (RFC 9110,
/// 6.5.1) are left out.
///
/// # Errors
/// Lines that are none, or too many of them.
pub fn trailer(bytes: &Bytes, most: usize) -> Result<HeaderMap, Fault> {
    let mut room = vec![httparse::EMPTY_HEADER; lines_of(bytes).min(most)];
    let lines = match httparse::parse_headers(bytes, &mut room).map_err(fault)? {
        httparse::Status::Complete((_, lines)) => lines,
        httparse::Status::Partial => return Err(Fault::Malformed),
    };
    let mut trailer = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let (name, value) = field(line, bytes)?;
        if !belongs_in_header(&name) {
            trailer.append(name, value);
        }
    }
    Ok(trailer)
}

/// Whether a line says how a message is framed, routed, vouched for or read, and so means nothing in a trailer.
#[must_use]
pub fn belongs_in_header(name: &HeaderName) -> bool {
    use http::header::{
        AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, TE, TRAILER, UPGRADE,
    };
    [
        AUTHORIZATION,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        HOST,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
}

/// The lines of a header and what they say of framing.
struct Lines {
    headers: HeaderMap,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    stay: bool,
    expects_continue: bool,
}

impl Lines {
    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.stay)
    }
}

fn read_lines(parsed: &[httparse::Header<'_>], bytes: &Bytes, most: Limits) -> Result<Lines, Fault> {
    if parsed.len() > most.lines {
        return Err(Fault::TooLarge);
    }
    // A few of the gateway's own will follow.
    let mut lines = Lines {
        headers: HeaderMap::with_capacity(parsed.len() + 8),
        length: None,
        chunked: false,
        close: false,
        stay: false,
        expects_continue: false,
    };
    for line in parsed {
        let (name, value) = field(line, bytes)?;
        if name == CONTENT_LENGTH {
            let length = length(value.as_bytes()).ok_or(Fault::Malformed)?;
            if lines.length.replace(length).is_some() {
                return Err(Fault::Malformed);
            }
        } else if name == TRANSFER_ENCODING {
            if lines.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Malformed);
            }
            lines.chunked = true;
        } else if name == CONNECTION {
            for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                lines.close |= token.eq_ignore_ascii_case(b"close");
                lines.stay |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == EXPECT {
            lines.expects_continue |= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
        lines
            .headers
            .try_append(name, value)
            .map_err(|_| Fault::TooLarge)?;
    }
    if lines.length.is_some() && lines.chunked {
        return Err(Fault::Malformed);
    }
    Ok(lines)
}

fn field(line: &httparse::Header<'_>, bytes: &Bytes) -> Result<(HeaderName, HeaderValue), Fault> {
    let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Fault::Malformed)?;
    let value = line.value.trim_ascii();
    let value = if value.is_empty() {
        HeaderValue::from_static("")
    } else {
        HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| Fault::Malformed)?
    };
    Ok((name, value))
}

/// Digits and nothing else (RFC 9110, 8.6): no sign, no blank, no list.
fn length(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

fn lines_of(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

fn fault(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => Fault::TooLarge,
        _ => Fault::Malformed,
    }
}

#[cfg(test)]
mod tests;
