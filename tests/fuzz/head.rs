//! Any bytes as what an HTTP/1 connection brings: however they are cut, the same headers and bodies are found, and what is
//! written of a header reads as the same again.
#![no_main]

use bytes::{Bytes, BytesMut};
use gateway::http1::body::{Decoder, Piece};
use gateway::http1::head::{self, Limits, Search};
use gateway::http1::write;
use libfuzzer_sys::fuzz_target;

const MOST: Limits = Limits {
    bytes: 1 << 12,
    lines: 32,
};

/// Lengths of the headers and bodies of a stream, up to what can not be read. `true` if all could.
fn found(stream: &[u8], step: usize) -> (Vec<usize>, bool) {
    let mut pieces = stream.chunks(step);
    let mut buffer = BytesMut::new();
    let mut lengths = Vec::new();
    loop {
        let mut search = Search::default();
        let end = loop {
            match search.end(&buffer, MOST.bytes) {
                Err(_) => return (lengths, false),
                Ok(Some(end)) => break end,
                Ok(None) => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return (lengths, true),
                },
            }
        };
        let bytes = buffer.split_to(end).freeze();
        let Ok((parts, meaning)) = head::request(&bytes, MOST) else {
            return (lengths, false);
        };
        again(&parts, meaning.framing);
        let mut decoder = Decoder::new(meaning.framing);
        let mut length = 0;
        loop {
            match decoder.take(&mut buffer) {
                Err(_) => return (lengths, false),
                Ok(Piece::Data(data)) => length += data.len(),
                Ok(Piece::Trailer(_)) => {}
                Ok(Piece::End) => break,
                Ok(Piece::More) => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return (lengths, true),
                },
            }
        }
        lengths.push(end);
        lengths.push(length);
    }
}

fn again(parts: &http::request::Parts, framing: head::Framing) {
    let mut out = BytesMut::new();
    write::request(&mut out, parts, framing, false);
    let most = Limits {
        bytes: usize::MAX,
        lines: usize::MAX,
    };
    // What has no path, as CONNECT, is written otherwise; no such request is sent on.
    if parts
        .uri
        .path_and_query()
        .is_some_and(|target| target.as_str().starts_with('/'))
        && parts.uri.authority().is_none()
    {
        let (read, meaning) = head::request(&Bytes::from(out), most).expect("what is written can be read");
        assert_eq!((read.method, read.uri), (parts.method.clone(), parts.uri.clone()));
        assert_eq!(meaning.framing, framing);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let bytewise = found(stream, 1);
    assert_eq!(found(stream, usize::from(size).max(1)), bytewise);
    // A header that is too long and has a bad line is refused for whichever is seen first.
    assert_eq!(found(stream, stream.len().max(1)).0, bytewise.0);
});
