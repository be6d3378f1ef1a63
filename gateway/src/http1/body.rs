//! Where a body ends (RFC 9112, 6 and 7). Pure: bytes in, pieces out.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use memchr::memchr;

use super::Fault;
use super::head::{self, Framing, Search};

/// Most bytes of a chunk's size and extensions. Nobody needs more, and nobody may make us read them for ever.
const SIZE_LINE: usize = 256;
/// The most that the trailer may have.
const TRAILER: head::Limits = head::Limits {
    bytes: 16 << 10,
    lines: 64,
};

/// What comes next of a body.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// Only if there are any lines in it.
    Trailer(HeaderMap),
    /// There is nothing more.
    End,
    /// Not before more bytes have come.
    More,
}

/// Follows one body.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    Done,
    /// So many bytes are to come.
    Length(u64),
    UntilClose,
    Size,
    /// So many bytes of a chunk are to come.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailer(Search),
}

impl Decoder {
    /// For the body behind a header.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the end has been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// The bytes to come, where that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self.0 {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The bytes of the chunk under way that are still to come; zero outside of chunks.
    #[must_use]
    pub fn announced(&self) -> u64 {
        match self.0 {
            State::Chunk(left) => left,
            _ => 0,
        }
    }

    /// How many bytes to make room for, at most `most`, so that as much as possible of what is to come is read at once.
    #[must_use]
    pub fn wants(&self, most: usize) -> usize {
        let left = match self.0 {
            State::Length(left) | State::Chunk(left) => usize::try_from(left).unwrap_or(most),
            State::UntilClose => most,
            _ => 0,
        };
        // Small bodies come with what is around them.
        left.clamp(4 << 10, most)
    }

    /// Takes the next piece from the front of `buffer`. Framing that is there already is taken with it, so that a body
    /// whose last byte has come is known to be at its end.
    ///
    /// # Errors
    /// Framing that is not as RFC 9112 has it, or that is absurdly long.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, Fault> {
        if let Some(trailer) = self.advance(buffer)? {
            return Ok(Piece::Trailer(trailer));
        }
        let left = match self.0 {
            State::Done => return Ok(Piece::End),
            State::Length(left) | State::Chunk(left) => left,
            State::UntilClose => u64::MAX,
            State::Size | State::ChunkEnd | State::Trailer(_) => return Ok(Piece::More),
        };
        if buffer.is_empty() {
            return Ok(Piece::More);
        }
        let taken = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let data = buffer.split_to(taken).freeze();
        let left = left - taken as u64;
        match &mut self.0 {
            State::Length(_) => {
                self.0 = if left == 0 {
                    State::Done
                } else {
                    State::Length(left)
                }
            }
            State::Chunk(_) => {
                self.0 = if left == 0 {
                    State::ChunkEnd
                } else {
                    State::Chunk(left)
                }
            }
            _ => {}
        }
        if matches!(self.0, State::ChunkEnd) {
            self.look_ahead(buffer);
        }
        Ok(Piece::Data(data))
    }

    /// The connection has ended. Whether the body may end so.
    #[must_use]
    pub fn end_of_connection(&mut self) -> bool {
        if matches!(self.0, State::UntilClose) {
            self.0 = State::Done;
        }
        self.is_done()
    }

    /// Behind a chunk: goes on to the end if that is there and has no trailer.
    fn look_ahead(&mut self, buffer: &mut BytesMut) {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        if buffer.starts_with(END) {
            buffer.advance(END.len());
            self.0 = State::Done;
        }
    }

    /// Takes framing, as far as it has come. Returns a trailer if there was one.
    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Fault> {
        loop {
            match &mut self.0 {
                State::ChunkEnd => match buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.0 = State::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Fault::Malformed),
                },
                State::Size => {
                    let Some(lf) = memchr(b'\n', &buffer[..buffer.len().min(SIZE_LINE)]) else {
                        return if buffer.len() < SIZE_LINE {
                            Ok(None)
                        } else {
                            Err(Fault::TooLarge)
                        };
                    };
                    let size = chunk_size(&buffer[..=lf])?;
                    buffer.advance(lf + 1);
                    self.0 = match size {
                        0 => State::Trailer(Search::default()),
                        size => State::Chunk(size),
                    };
                }
                State::Trailer(search) => {
                    if buffer.starts_with(b"\r\n") {
                        buffer.advance(2);
                        self.0 = State::Done;
                        return Ok(None);
                    }
                    let Some(end) = search.end(buffer, TRAILER.bytes)? else {
                        return Ok(None);
                    };
                    let trailer = head::trailer(&buffer.split_to(end).freeze(), TRAILER.lines)?;
                    self.0 = State::Done;
                    return Ok((!trailer.is_empty()).then_some(trailer));
                }
                State::Done | State::Length(_) | State::UntilClose | State::Chunk(_) => return Ok(None),
            }
        }
    }
}

/// `1*HEXDIG`, blanks, and extensions that are thrown away (RFC 9112, 7.1.1), up to CR LF.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let line = line.strip_suffix(b"\r\n").ok_or(Fault::Malformed)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if !(1..=16).contains(&digits) {
        return Err(Fault::Malformed);
    }
    let rest = line[digits..].trim_ascii_start();
    let control = |b: &u8| (*b < b' ' && *b != b'\t') || *b == 0x7f;
    if !(rest.is_empty() || rest[0] == b';') || line.iter().any(control) {
        return Err(Fault::Malformed);
    }
    let digits = std::str::from_utf8(&line[..digits]).map_err(|_| Fault::Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything a body gives when its bytes come in pieces of `step`: data, trailer lines, and what was left over.
    fn read(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let mut decoder = Decoder::new(framing);
        let mut buffer = BytesMut::new();
        let (mut data, mut lines) = (Vec::new(), 0);
        let mut pieces = bytes.chunks(step);
        loop {
            match decoder.take(&mut buffer)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailer(trailer) => lines += trailer.len(),
                Piece::End => {
                    pieces.for_each(|piece| buffer.extend_from_slice(piece));
                    return Ok((data, lines, buffer.to_vec()));
                }
                Piece::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Err(Fault::TooLarge),
                },
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say_in_whatever_pieces() {
        let chunked = b"5\r\nhello\r\n00A ;x=\"1\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\nHost: no\r\n\r\nGET";
        for step in 1..chunked.len() {
            let (data, lines, rest) = read(Framing::Chunked, chunked, step).unwrap();
            assert_eq!(
                (&data[..], lines, &rest[..]),
                (&b"hello0123456789"[..], 1, &b"GET"[..])
            );
            let (data, _, rest) = read(Framing::Length(5), b"helloGET", step.min(8)).unwrap();
            assert_eq!((&data[..], &rest[..]), (&b"hello"[..], &b"GET"[..]));
        }
    }

    #[test]
    fn chunks_that_are_not_exact_are_refused() {
        for bad in [
            "0x5\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: 1\n\r\n",
            "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        ] {
            for step in [1, 7, bad.len()] {
                assert_eq!(
                    read(Framing::Chunked, bad.as_bytes(), step).unwrap_err(),
                    Fault::Malformed,
                    "{bad:?}"
                );
            }
        }
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(SIZE_LINE));
        assert_eq!(
            read(Framing::Chunked, long.as_bytes(), 9).unwrap_err(),
            Fault::TooLarge
        );
    }

    #[test]
    fn the_end_is_known_with_the_last_byte() {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut buffer = BytesMut::from(&b"2\r\nok\r\n0\r\n\r\n"[..]);
        assert!(matches!(decoder.take(&mut buffer), Ok(Piece::Data(data)) if data == "ok"));
        assert!(decoder.is_done() && buffer.is_empty());
        let mut decoder = Decoder::new(Framing::UntilClose);
        assert!(!decoder.is_done() && decoder.end_of_connection());
        assert!(!Decoder::new(Framing::Length(1)).end_of_connection());
    }

    proptest! {
        #[test]
        fn anything_is_taken_the_same_in_any_pieces(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'2'), Just(b';'), any::<u8>()], 0..60), step in 1_usize..20) {
            let whole = read(Framing::Chunked, &bytes, bytes.len().max(1));
            let pieces = read(Framing::Chunked, &bytes, step);
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
                prop_assert_eq!(whole, pieces);
            }
        }
    }
}
