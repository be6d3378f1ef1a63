//! A strict look at each request's header before hyper parses it.
//!
//! hyper is lenient where being lenient is allowed: of a `Content-Length` next to a `Transfer-Encoding` it drops the one,
//! of two equal lengths it keeps one, and it takes a bare LF for the end of a line. Each of these is a way in which two servers
//! can disagree on where a request ends, and none can be seen any more once hyper has parsed. So the bytes are
//! looked at on their way: the scanner finds where headers begin and end, and tells the first one that it would not let pass.
//! It builds nothing and decides nothing else: hyper still parses, and refuses more than this does.
//!
//! A header that arrives in one read, which is nearly all, is judged in place. What arrives in pieces is collected; hyper's own
//! limit ends the connection before that can grow beyond it.

/// The scanner found a header that is not unambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous {
    /// Bytes of the piece that belong to requests before the bad one.
    pub before: usize,
}

/// Follows one connection's bytes.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    state: State,
    /// The beginning of a header whose end has not come.
    partial: Vec<u8>,
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
    /// Takes the next piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while at < piece.len() {
            match self.state {
                State::Header => match self.header(piece, at)? {
                    Some(next) => at = next,
                    None => return Ok(()),
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
                State::Lost => return Ok(()),
            }
        }
        Ok(())
    }

    /// Judges the header that begins at `at`, or goes on with the partial one. Returns where it ends.
    fn header(&mut self, piece: &[u8], at: usize) -> Result<Option<usize>, Ambiguous> {
        let ambiguous = Err(Ambiguous { before: at });
        let rest = &piece[at..];
        let (framing, end) = if self.partial.is_empty() {
            // Empty lines between requests are tolerated (RFC 9112, 2.2).
            let skip = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            if skip == rest.len() {
                return Ok(Some(piece.len()));
            }
            let Some(end) = end_of(&rest[skip..], 0) else {
                self.partial.extend_from_slice(&rest[skip..]);
                return Ok(None);
            };
            (judge(&rest[skip..skip + end]), skip + end)
        } else {
            let known = self.partial.len();
            self.partial.extend_from_slice(rest);
            let Some(end) = end_of(&self.partial, known) else {
                return Ok(None);
            };
            let framing = judge(&self.partial[..end]);
            self.partial = Vec::new();
            (framing, end - known)
        };
        self.state = match framing {
            None => return ambiguous,
            Some(Framing::Length(0)) => State::Header,
            Some(Framing::Length(length)) => State::Body(length),
            Some(Framing::Chunked) => State::Chunks(Chunk::Size(0)),
            Some(Framing::Unclear) => State::Lost,
        };
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

/// What a whole header says; `None` if it must be refused.
fn judge(header: &[u8]) -> Option<Framing> {
    let (mut length, mut chunked, mut unclear) = (None, false, false);
    for (index, line) in header.strip_suffix(b"\n")?.split(|b| *b == b'\n').enumerate() {
        // Every line must end in CR LF, the empty one too.
        let line = line.strip_suffix(b"\r")?;
        // Only these two names matter, and their first letters are rare enough to pass most lines by.
        let first = line.first().map(u8::to_ascii_lowercase);
        if index == 0 || !matches!(first, Some(b'c' | b't')) {
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return None;
            }
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            let digits = std::str::from_utf8(value)
                .ok()
                .filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            length = Some(digits.and_then(|digits| digits.parse::<u64>().ok())?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            unclear |= chunked || !value.eq_ignore_ascii_case(b"chunked");
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => None,
        _ if unclear => Some(Framing::Unclear),
        (_, true) => Some(Framing::Chunked),
        (length, false) => Some(Framing::Length(length.unwrap_or(0))),
    }
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
