//! A client's side of a connection: requests in, answers out, one after another.
//!
//! The connection and the body of its current request share one [`Stream`]: whoever sends the request on pulls the body
//! through, in the same task. Deadlines, refusals and the order of things are the caller's.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Version, request, response};
use http_body::{Body, Frame, SizeHint};

use super::body::{Decoder, Piece};
use super::head::{self, Framing, Limits, Meaning, Search};
use super::stream::Stream;
use super::write::{self, Answer};
use super::{Error, Fault};
use crate::net::Transport;

/// Room made for a header; most fit.
const HEAD_ROOM: usize = 4 << 10;
/// Most of a body that is read at once.
const BODY_ROOM: usize = 32 << 10;
/// Room made for what comes behind a 101, which is mostly little.
const TUNNEL_ROOM: usize = 8 << 10;
/// Most that is read of requests behind the one that is served.
const PIPELINED: usize = 16 << 10;

/// A connection that requests come on.
#[derive(Debug)]
pub struct Connection<D>(Rc<RefCell<Shared<D>>>);

#[derive(Debug)]
struct Shared<D> {
    stream: Stream<D>,
    most: Limits,
    search: Search,
    /// Of the current request's body.
    decoder: Decoder,
    /// The client waits for leave to send its body.
    continue_due: bool,
    /// How the answer under way is delimited.
    answer: Framing,
}

/// A request's body, as it comes. What is not read of it stays on the connection.
#[derive(Debug)]
pub struct Incoming<D> {
    shared: Rc<RefCell<Shared<D>>>,
    /// Kept here, as they are asked for often.
    done: bool,
    failed: bool,
}

/// What came instead of a header.
#[derive(Debug)]
pub enum NoHead {
    /// The client ended the connection, at most in the middle of a header.
    Ended,
    Io(io::Error),
    Fault(Fault),
}

/// How an answer is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Method and version of the request.
    pub method: &'a Method,
    pub version: Version,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Written, if there is one: an IMF-fixdate.
    pub date: Option<&'a [u8]>,
}

impl<D: Buf> Connection<D> {
    /// `ahead` has been read already.
    #[must_use]
    pub fn new(transport: Transport, ahead: &[u8], most: Limits) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            stream: Stream::new(transport, BytesMut::from(ahead)),
            most,
            search: Search::default(),
            decoder: Decoder::new(Framing::None),
            continue_due: false,
            answer: Framing::None,
        })))
    }

    /// Reads the next request's header. Only when the one before has been answered.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<(request::Parts, Meaning), NoHead>> {
        let shared = &mut *self.0.borrow_mut();
        let stream = &mut shared.stream;
        loop {
            // Empty lines between requests are tolerated (RFC 9112, 2.2).
            while stream.ahead.starts_with(b"\r\n") {
                stream.ahead.advance(2);
            }
            let end = shared.search.end(&stream.ahead, shared.most.bytes);
            if let Some(end) = end.map_err(NoHead::Fault)? {
                let bytes = stream.ahead.split_to(end).freeze();
                let (parts, meaning) = head::request(&bytes, shared.most).map_err(NoHead::Fault)?;
                shared.search = Search::default();
                shared.decoder = Decoder::new(meaning.framing);
                shared.continue_due = meaning.expects_continue && !shared.decoder.is_done();
                return Poll::Ready(Ok((parts, meaning)));
            }
            match stream.poll_fill(cx, HEAD_ROOM) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(NoHead::Ended)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(NoHead::Io(error))),
                Poll::Pending => {
                    stream.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether anything has come of the next request.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.0.borrow().stream.ahead.is_empty()
    }

    /// The body of the request whose header was just read.
    #[must_use]
    pub fn body(&self) -> Incoming<D> {
        Incoming {
            done: self.0.borrow().decoder.is_done(),
            failed: false,
            shared: Rc::clone(&self.0),
        }
    }

    /// Whether the current request's body has been read to its end.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.0.borrow().decoder.is_done()
    }

    /// Reads on while an answer is waited for, so that a client's departure is seen. Ready with the end of its direction,
    /// which may be no departure, or an error, which is one.
    pub fn poll_departure(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.0.borrow_mut();
        if !shared.decoder.is_done() {
            // Whoever reads the body will see it.
            return Poll::Pending;
        }
        while !shared.stream.ended {
            if shared.stream.ahead.len() >= PIPELINED {
                return Poll::Pending;
            }
            // Into what is left of the buffer: mostly nothing comes.
            ready!(shared.stream.poll_fill(cx, 1))?;
        }
        Poll::Ready(Ok(()))
    }

    /// The error that the socket holds, such as a reset that came while nobody read.
    ///
    /// # Errors
    /// That error.
    pub fn take_error(&self) -> io::Result<()> {
        let error = self.0.borrow_mut().stream.transport().tcp().take_error()?;
        error.map_or(Ok(()), Err)
    }

    /// Gathers an interim answer (1xx). Nobody counts on one, so it is left out if the client does not even take what there is.
    pub fn hint(&self, parts: &response::Parts) {
        let shared = &mut *self.0.borrow_mut();
        if shared.stream.has_room() {
            let bare = Answer {
                framing: Framing::None,
                keep_length: false,
                connection: None,
                date: None,
            };
            write::response(shared.stream.gather(), parts, &bare);
        }
    }

    /// Begins an answer. Returns whether the connection can stay open behind it.
    pub fn begin(&self, parts: &response::Parts, body: &SizeHint, ended: bool, reply: &Reply<'_>) -> bool {
        let shared = &mut *self.0.borrow_mut();
        // A body that is not asked for any more will not be sent.
        let abandoned = std::mem::take(&mut shared.continue_due);
        let old = reply.version == Version::HTTP_10;
        let bodiless = reply.method == Method::HEAD || head::has_no_body(parts.status);
        let framing = match body.exact() {
            _ if bodiless => Framing::None,
            Some(length) => Framing::Length(length),
            None if ended => Framing::Length(0),
            None if old => Framing::UntilClose,
            None => Framing::Chunked,
        };
        let keep_alive = reply.keep_alive && !abandoned && framing != Framing::UntilClose;
        let connection = match (keep_alive, old) {
            (false, _) => Some("close"),
            (true, true) => Some("keep-alive"),
            (true, false) => None,
        };
        let answer = Answer {
            framing,
            keep_length: reply.method == Method::HEAD && !head::has_no_body(parts.status),
            connection,
            date: reply.date,
        };
        write::response(shared.stream.gather(), parts, &answer);
        shared.answer = framing;
        keep_alive
    }

    /// Whether the answer under way has no body to be sent.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        self.0.borrow().answer == Framing::None
    }

    /// Whether the answer's end can be told from a connection that broke.
    #[must_use]
    pub fn is_delimited(&self) -> bool {
        self.0.borrow().answer != Framing::UntilClose
    }

    /// Whether a piece can be pushed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.borrow().stream.has_room()
    }

    /// Gathers a piece of the answer's body. Only while there is room.
    pub fn push(&self, piece: D) {
        let shared = &mut *self.0.borrow_mut();
        shared.stream.push_framed(shared.answer, piece);
    }

    /// Ends the answer's body.
    pub fn finish(&self, trailer: Option<&HeaderMap>) {
        let shared = &mut *self.0.borrow_mut();
        shared.stream.finish(shared.answer, trailer);
    }

    /// Ready when all that was gathered is written.
    pub fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().stream.poll_write(cx)
    }

    /// Ready when our direction is ended.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().stream.poll_shutdown(cx)
    }

    /// Reads and throws away; zero at the end.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().stream.poll_discard(cx)
    }

    /// Whether the client may still be sending something that nobody will read.
    #[must_use]
    pub fn is_owed_a_reading(&self) -> bool {
        let shared = self.0.borrow();
        !(shared.stream.ended || shared.decoder.is_done() && shared.stream.ahead.is_empty())
    }

    /// Has the client see, when this is dropped, that it broke off.
    pub fn reset(&self) {
        self.0.borrow_mut().stream.reset();
    }

    /// The socket, for options on it.
    pub fn with_transport<T>(&self, look: impl FnOnce(&mut Transport) -> T) -> T {
        look(self.0.borrow_mut().stream.transport())
    }

    /// Behind a 101: takes what the client has sent; `None` at its end.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.0.borrow_mut().stream.poll_take(cx, TUNNEL_ROOM)
    }

    /// Behind a 101: gathers bytes for the client. Only while there is room.
    pub fn pass(&self, piece: D) {
        self.0.borrow_mut().stream.push(piece, b"");
    }
}

impl<D> Incoming<D> {
    /// The bytes of the chunk under way that are still to come.
    #[must_use]
    pub fn announced(&self) -> u64 {
        self.shared.borrow().decoder.announced()
    }
}

impl<D: Buf> Body for Incoming<D> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if this.done || this.failed {
            return Poll::Ready(None);
        }
        let shared = &mut *this.shared.borrow_mut();
        if std::mem::take(&mut shared.continue_due) {
            shared
                .stream
                .gather()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let outcome = loop {
            match shared.decoder.take(&mut shared.stream.ahead) {
                Ok(Piece::Data(data)) => break Ok(Some(Frame::data(data))),
                Ok(Piece::Trailer(trailer)) => break Ok(Some(Frame::trailers(trailer))),
                Ok(Piece::End) => break Ok(None),
                Ok(Piece::More) => {}
                Err(fault) => break Err(fault.into()),
            }
            if !shared.stream.is_written() {
                // The leave to send: little enough to fit into any socket; if not, the answer will write it.
                if let Poll::Ready(Err(error)) = shared.stream.poll_write(cx) {
                    break Err(error.into());
                }
            }
            match ready!(shared.stream.poll_fill(cx, shared.decoder.wants(BODY_ROOM))) {
                Ok(0) => break Err(Error::Closed),
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
        };
        this.done = shared.decoder.is_done();
        this.failed = outcome.is_err();
        Poll::Ready(outcome.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.failed
    }

    fn size_hint(&self) -> SizeHint {
        match self.shared.borrow().decoder.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
