//! A strict look at each request's header before hyper parses it.
//!
//! hyper is lenient where being lenient is allowed: of a `Content-Length` next to a `Transfer-Encoding` it drops the one,
//! of two equal lengths it keeps one, and it takes a bare LF for the end of a line. Each of these is a way in which two servers
//! can disagree on where a request ends, and none can be seen any more once hyper has parsed. So the bytes are
//! looked at on their way: the scanner finds where headers begin and end, and tells the first one that it would not let pass.
//! It builds nothing and decides nothing else: hyper still parses, and refuses more than this does.
//!
//! A header that arrives in one read, which is nearly all, is judged in place. What arrives in pieces is collected, up to the
//! limit on headers, and is passed on when it is whole: hyper never sees half a header, so that what is wrong with one
//! can still be answered as any other request is.

/// The scanner found a header that is not unambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous {
    /// Bytes of the piece that belong to requests before the bad one.
    pub before: usize,
    pub fault: Fault,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed,
    TooLarge,
}

/// Follows one connection's bytes.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// The beginning of a header whose end has not come.
    partial: Vec<u8>,
    /// A header that was partial and is whole now.
    completed: Vec<u8>,
    /// Whole headers so far.
    heads: u64,
    /// Most bytes of a header, and most lines.
    most: (usize, usize),
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    /// So many bytes of a body are to come.
    Body(u64),
    Chunks(Chunk),
    /// The framing is beyond this scanner; hyper refuses it and the connection ends.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In the size, with its value so far.
    Size(u64),
    /// Behind the size, up to the end of the line.
    Extension(u64),
    /// So many bytes of data, and the line end behind them.
    Data(u64),
    /// In the trailer: whether the line has any byte so far.
    Trailer(bool),
}

/// What a header says of the body behind it.
enum Framing {
    Length(u64),
    Chunked,
    Unclear,
}

impl Scanner {
    /// `bytes` and `lines` are the most that a header may have.
    pub(super) fn new(bytes: usize, lines: usize) -> Self {
        Self {
            state: State::Header,
            partial: Vec::new(),
            completed: Vec::new(),
            heads: 0,
            most: (bytes, lines),
        }
    }

    /// Whole headers so far.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Bytes of the header that is not whole yet.
    pub(super) fn held(&self) -> usize {
        self.partial.len()
    }

    /// The header that the last piece made whole, with its part of that piece.
    pub(super) fn completed(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.completed)
    }

    /// Whether a header comes next: all that was announced has arrived.
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Header
    }

    /// Takes the next piece. Returns how much of it belongs to whole headers and their bodies; the rest is held.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<usize, Ambiguous> {
        let mut at = 0;
        while at < piece.len() {
            match self.state {
                State::Header => match self.header(piece, at)? {
                    Some(next) => at = next,
                    None => return Ok(at),
                },
                State::Body(left) => {
                    let taken = left.min((piece.len() - at) as u64);
                    at += taken as usize;
                    self.state = if taken == left {
                        State::Header
                    } else {
                        State::Body(left - taken)
                    };
                }
                State::Chunks(chunk) => at = self.chunks(chunk, piece, at),
                State::Lost => return Ok(piece.len()),
            }
        }
        Ok(at)
    }

    /// Judges the header that begins at `at`, or goes on with the partial one. Returns where it ends.
    fn header(&mut self, piece: &[u8], at: usize) -> Result<Option<usize>, Ambiguous> {
        let refuse = |fault| Err(Ambiguous { before: at, fault });
        let (most, lines) = self.most;
        let rest = &piece[at..];
        let (framing, end) = if self.partial.is_empty() {
            // Empty lines between requests are tolerated (RFC 9112, 2.2).
            let skip = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            if skip == rest.len() {
                return Ok(Some(piece.len()));
            }
            let Some(end) = end_of(&rest[skip..], 0) else {
                if rest.len() - skip > most {
                    return refuse(Fault::TooLarge);
                }
                self.partial.extend_from_slice(&rest[skip..]);
                return Ok(None);
            };
            if end > most {
                return refuse(Fault::TooLarge);
            }
            (judge(&rest[skip..skip + end], lines), skip + end)
        } else {
            let known = self.partial.len();
            self.partial.extend_from_slice(rest);
            let end = end_of(&self.partial, known);
            if end.unwrap_or(self.partial.len()) > most {
                return refuse(Fault::TooLarge);
            }
            let Some(end) = end else {
                return Ok(None);
            };
            let framing = judge(&self.partial[..end], lines);
            let mut header = std::mem::take(&mut self.partial);
            if framing.is_ok() {
                header.truncate(end);
                self.completed = header;
            }
            (framing, end - known)
        };
        self.state = match framing {
            Err(fault) => return refuse(fault),
            Ok(Framing::Length(0)) => State::Header,
            Ok(Framing::Length(length)) => State::Body(length),
            Ok(Framing::Chunked) => State::Chunks(Chunk::Size(0)),
            Ok(Framing::Unclear) => State::Lost,
        };
        self.heads += 1;
        Ok(Some(at + end))
    }

    fn chunks(&mut self, chunk: Chunk, piece: &[u8], at: usize) -> usize {
        let byte = piece[at];
        let digit = char::from(byte).to_digit(16);
        let (next, taken) = match (chunk, byte) {
            (Chunk::Size(size), _) if digit.is_some() => {
                let size = size
                    .checked_mul(16)
                    .and_then(|s| s.checked_add(u64::from(digit.unwrap_or(0))));
                match size {
                    Some(size) => (State::Chunks(Chunk::Size(size)), 1),
                    None => (State::Lost, 1),
                }
            }
            (Chunk::Size(size) | Chunk::Extension(size), b'\n') => match size {
                0 => (State::Chunks(Chunk::Trailer(false)), 1),
                // Two more for the line end behind the data.
                _ => (
                    size.checked_add(2)
                        .map_or(State::Lost, |all| State::Chunks(Chunk::Data(all))),
                    1,
                ),
            },
            (Chunk::Size(size) | Chunk::Extension(size), _) => (State::Chunks(Chunk::Extension(size)), 1),
            (Chunk::Data(left), _) => {
                let taken = left.min((piece.len() - at) as u64);
                let next = if taken == left {
                    Chunk::Size(0)
                } else {
                    Chunk::Data(left - taken)
                };
                (State::Chunks(next), taken as usize)
            }
            (Chunk::Trailer(false), b'\n') => (State::Header, 1),
            (Chunk::Trailer(_), b'\n') => (State::Chunks(Chunk::Trailer(false)), 1),
            (Chunk::Trailer(some), b'\r') => (State::Chunks(Chunk::Trailer(some)), 1),
            (Chunk::Trailer(_), _) => (State::Chunks(Chunk::Trailer(true)), 1),
        };
        self.state = next;
        at + taken
    }
}

/// Where a header ends, as hyper would see it: behind an empty line, with whichever line ends. `known` bytes have been
/// searched before.
fn end_of(bytes: &[u8], known: usize) -> Option<usize> {
    let mut from = known.saturating_sub(3);
    while let Some(lf) = bytes[from..].iter().position(|b| *b == b'\n') {
        let after = from + lf + 1;
        match bytes[after..] {
            [b'\n', ..] => return Some(after + 1),
            [b'\r', b'\n', ..] => return Some(after + 2),
            _ => from = after,
        }
    }
    None
}

/// What a whole header of at most so many lines says.
fn judge(header: &[u8], most: usize) -> Result<Framing, Fault> {
    // The request's own line and the empty one do not count.
    let most = most.saturating_add(1);
    let (mut length, mut chunked, mut unclear) = (None, false, false);
    let header = header.strip_suffix(b"\n").ok_or(Fault::Malformed)?;
    for (index, line) in header.split(|b| *b == b'\n').enumerate() {
        // Every line must end in CR LF, the empty one too.
        let line = line.strip_suffix(b"\r").ok_or(Fault::Malformed)?;
        if index >= most && !line.is_empty() {
            return Err(Fault::TooLarge);
        }
        let fits = match index {
            0 => is_request_line(line),
            _ => line.is_empty() || is_field(line),
        };
        if !fits {
            return Err(Fault::Malformed);
        }
        // Only these two names matter, and their first letters are rare enough to pass most lines by.
        let first = line.first().map(u8::to_ascii_lowercase);
        if index == 0 || !matches!(first, Some(b'c' | b't')) {
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Fault::Malformed);
            }
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let digits = std::str::from_utf8(value)
                .ok()
                .filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            let digits = digits.and_then(|digits| digits.parse::<u64>().ok());
            length = Some(digits.ok_or(Fault::Malformed)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            unclear |= chunked || !value.eq_ignore_ascii_case(b"chunked");
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Fault::Malformed),
        _ if unclear => Ok(Framing::Unclear),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// The letters of a token (RFC 9110, 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        table[at] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        at += 1;
    }
    table
};

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| TOKEN[usize::from(*b)])
}

/// Method, target and version; what the target means is for others.
fn is_request_line(line: &[u8]) -> bool {
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let target_fits = !target.is_empty() && target.iter().all(|b| *b > b' ' && *b != 0x7f);
    is_token(method) && target_fits && matches!(version, b"HTTP/1.1" | b"HTTP/1.0")
}

/// A name, a colon, and a value without control characters. A line that goes on with the one before has no name.
fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|b| *b == b':') else {
        return false;
    };
    let (name, value) = line.split_at(colon);
    is_token(name) && value.iter().all(|b| (*b >= b' ' && *b != 0x7f) || *b == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bytes: &[u8], cut: usize) -> Result<State, Ambiguous> {
        let mut scanner = Scanner::default();
        scanner.take(&bytes[..cut])?;
        scanner.take(&bytes[cut..])?;
        Ok(scanner.state)
    }

    /// Whatever the pieces, the verdict is the same.
    fn whole(text: &str) -> bool {
        let verdicts: Vec<bool> = (0..=text.len())
            .map(|cut| verdict(text.as_bytes(), cut).is_ok())
            .collect();
        assert!(
            verdicts.iter().all(|v| *v == verdicts[0]),
            "{text:?}: {verdicts:?}"
        );
        verdicts[0]
    }

    #[test]
    fn what_hyper_would_smooth_over_is_seen() {
        let bad = [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding:chunked\r\nCONTENT-LENGTH:1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\nX: 1\r\n",
            "X: 1\nY: 2\r\n",
        ];
        for lines in bad {
            assert!(!whole(&format!("POST / HTTP/1.1\r\n{lines}\r\n")), "{lines:?}");
        }
        assert!(!whole("GET / HTTP/1.1\nHost: a\n\n"));
        assert!(!whole("GET / HTTP/1.1\r\nHost: a\r\n\n"));
        assert!(whole(
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nTe: trailers\r\n\r\n"
        ));
    }

    #[test]
    fn bodies_are_skipped_and_the_next_header_is_judged() {
        let evil = "POST /b HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n";
        let innocent = "a\r\n\r\nContent-Length: 1\nContent-Length: 1\n\n";
        let length = innocent.len();
        let bodies = [
            format!("Content-Length: {length}\r\n\r\n{innocent}"),
            format!(
                "Transfer-Encoding: chunked\r\n\r\n{length:X};x=\"1\"\r\n{innocent}\r\n1\r\nz\r\n0\r\nT: 1\r\nU: 2\r\n\r\n"
            ),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x} \r\n{innocent}\r\n0\r\n\r\n\r\n"),
        ];
        for body in bodies {
            let request = format!("POST /a HTTP/1.1\r\n{body}");
            assert!(whole(&format!("{request}{request}")), "{request:?}");
            let two = format!("{request}{evil}");
            assert!(!whole(&two), "{two:?}");
            let error = verdict(two.as_bytes(), 0).unwrap_err();
            // Empty lines in front count as part of the bad one.
            assert!((request.len() - 2..=request.len()).contains(&error.before));
        }
    }
}
