//! An upstream's side of a connection: one exchange after another, without a task of its own.
//!
//! Whoever waits for an answer moves the request; whoever reads the answer's body moves what is left of the request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, request, response};
use http_body::{Body, Frame, SizeHint};

use super::body::{Decoder, Piece};
use super::head::{self, Framing, Limits, Search};
use super::stream::Stream;
use super::write;
use super::{Error, Upgrade};
use crate::net::Transport;

/// Room made for a header; most fit, with a small body behind them.
const HEAD_ROOM: usize = 4 << 10;
/// Most bytes that are read at a time. It is what a client that does not read makes us hold, several times over.
const BODY_ROOM: usize = 32 << 10;
/// Room made for what comes behind a 101, which is mostly little.
const TUNNEL_ROOM: usize = 8 << 10;
/// The most that a response's header can have.
const MOST: Limits = Limits {
    bytes: 32 << 10,
    lines: 200,
};
/// Most interim answers before the answer, in number and in bytes together.
const INTERIM: u32 = 16;
const INTERIM_BYTES: usize = 32 << 10;

/// A connection that requests are sent on.
#[derive(Debug)]
pub struct Connection<B> {
    stream: Stream<Bytes>,
    search: Search,
    decoder: Decoder,
    upload: Upload<B>,
    /// How the request's body is delimited.
    framing: Framing,
    /// Whether the other side leaves the connection open.
    keep_alive: bool,
    broken: bool,
    /// An interim answer to the request under way has come.
    heard: bool,
}

/// What is left of the request.
#[derive(Debug)]
enum Upload<B> {
    Done,
    Body(B),
    /// The other side takes no more of it; it may still answer.
    Abandoned,
}

/// A request and what was asked of the answer, while the answer is waited for.
#[derive(Debug)]
pub struct Wanted {
    to_head: bool,
    /// The protocol that was asked for.
    upgrade: Option<HeaderValue>,
    interim: u32,
    interim_bytes: usize,
}

/// What comes before a body.
#[derive(Debug)]
pub enum Head {
    /// 1xx, but not 101; the answer is still to come.
    Interim(response::Parts),
    Answer(response::Parts),
}

fn same(asked: &HeaderValue, agreed: &HeaderValue) -> bool {
    asked.as_bytes().eq_ignore_ascii_case(agreed.as_bytes())
}

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self {
            stream: Stream::new(transport, BytesMut::new()),
            search: Search::default(),
            decoder: Decoder::new(Framing::None),
            upload: Upload::Done,
            framing: Framing::None,
            keep_alive: true,
            broken: false,
            heard: false,
        }
    }

    /// Whether the other side has closed, or said something that nobody asked for. Looks at the socket only if there is news.
    pub fn is_stale(&mut self, cx: &mut Context<'_>) -> bool {
        !self.stream.ahead.is_empty() || self.stream.poll_fill(cx, HEAD_ROOM).is_ready()
    }

    /// As [`Connection::is_stale`], from the kernel itself.
    pub fn is_stale_now(&mut self) -> bool {
        self.stream.transport().has_news()
    }

    /// Begins an exchange. Only if the one before has ended with [`Connection::is_reusable`].
    ///
    /// A body is taken only if there is something to come of it: a request without one stays whole, to be made again.
    pub fn begin(&mut self, parts: &request::Parts, body: &mut Option<B>) -> Wanted {
        let (hint, ended) = match body {
            Some(body) => (body.size_hint(), body.is_end_stream()),
            None => (SizeHint::with_exact(0), true),
        };
        let upgrade = match parts.extensions.get::<Upgrade>() {
            Some(Upgrade) => parts.headers.get(UPGRADE).cloned(),
            None => None,
        };
        let meant_to_have = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
        self.framing = match hint.exact() {
            Some(0) if !meant_to_have => Framing::None,
            Some(length) => Framing::Length(length),
            None if ended => Framing::Length(0),
            None => Framing::Chunked,
        };
        write::request(self.stream.gather(), parts, self.framing, upgrade.is_some());
        self.upload = match body.take_if(|_| !ended) {
            Some(body) => Upload::Body(body),
            None => Upload::Done,
        };
        self.search = Search::default();
        self.heard = false;
        Wanted {
            to_head: parts.method == Method::HEAD,
            upgrade,
            interim: 0,
            interim_bytes: 0,
        }
    }

    /// Whether any byte of an answer has come, be it an interim one.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.heard || !self.stream.ahead.is_empty()
    }

    /// Sends, and waits for a header.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, wanted: &mut Wanted) -> Poll<Result<Head, Error>> {
        self.poll_upload(cx)?;
        loop {
            if let Some(end) = self.search.end(&self.stream.ahead, MOST.bytes)? {
                let bytes = self.stream.ahead.split_to(end).freeze();
                self.search = Search::default();
                let (parts, meaning) = head::response(&bytes, MOST, wanted.to_head)?;
                if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                    // What was not asked for is no answer.
                    let agreed = parts.headers.get(UPGRADE);
                    if !matches!((&wanted.upgrade, agreed), (Some(asked), Some(agreed)) if same(asked, agreed))
                    {
                        return Poll::Ready(Err(Error::Malformed));
                    }
                } else if parts.status.is_informational() {
                    self.heard = true;
                    wanted.interim += 1;
                    wanted.interim_bytes += end;
                    if wanted.interim > INTERIM || wanted.interim_bytes > INTERIM_BYTES {
                        return Poll::Ready(Err(Error::TooLarge));
                    }
                    return Poll::Ready(Ok(Head::Interim(parts)));
                }
                self.decoder = Decoder::new(meaning.framing);
                self.keep_alive = meaning.keep_alive;
                return Poll::Ready(Ok(Head::Answer(parts)));
            }
            if ready!(self.stream.poll_fill(cx, HEAD_ROOM))? == 0 {
                return Poll::Ready(Err(Error::Closed));
            }
        }
    }

    /// Moves what is left of the request. An endpoint that takes no more of it may have answered before it closed.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            let waiting = self.gather_upload(cx)?;
            match self.stream.poll_write(cx) {
                Poll::Ready(Ok(())) if !waiting => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => {
                    self.abandon();
                    return Ok(());
                }
            }
        }
    }

    /// Gathers what there is of the body and room for. Whether there is nothing more for now.
    fn gather_upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        while self.stream.has_room() {
            let Upload::Body(body) = &mut self.upload else {
                return Ok(true);
            };
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                return Ok(true);
            };
            match frame.transpose() {
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let ended = body.is_end_stream();
                        self.stream.push_framed(self.framing, data);
                        if ended {
                            self.finish(None);
                        }
                    }
                    Err(frame) => self.finish(frame.into_trailers().ok().as_ref()),
                },
                Ok(None) => self.finish(None),
                Err(_) => {
                    self.abandon();
                    return Err(Error::Body);
                }
            }
        }
        Ok(false)
    }

    fn abandon(&mut self) {
        self.upload = Upload::Abandoned;
        self.broken = true;
    }

    fn finish(&mut self, trailer: Option<&HeaderMap>) {
        self.upload = Upload::Done;
        self.stream.finish(self.framing, trailer);
    }

    /// The next piece of the answer's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !matches!(self.upload, Upload::Done | Upload::Abandoned) || !self.stream.is_written() {
            self.poll_upload(cx)?;
        }
        loop {
            match self.decoder.take(&mut self.stream.ahead) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailer(trailer)) => return Poll::Ready(Some(Ok(Frame::trailers(trailer)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            }
            let room = self.decoder.wants(BODY_ROOM);
            match ready!(self.stream.poll_fill(cx, room)) {
                Ok(0) if self.decoder.end_of_connection() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(Error::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Whether the answer's body has been read to its end.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.decoder.is_done()
    }

    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.decoder
            .left()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Whether another exchange can follow: both directions are at their end and nothing came behind the answer.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.keep_alive
            && !self.broken
            && !self.stream.ended
            && matches!(self.upload, Upload::Done)
            && self.decoder.is_done()
            && self.stream.is_written()
            && self.stream.ahead.is_empty()
    }

    /// Gives back memory that an idle connection has no use for.
    pub fn rest(&mut self) {
        self.stream.rest();
    }

    /// Behind a 101: takes what the other side has sent; `None` at its end.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.stream.poll_take(cx, TUNNEL_ROOM)
    }

    /// Behind a 101: whether bytes can be passed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.stream.has_room()
    }

    /// Behind a 101: gathers bytes for the other side. Only while there is room.
    pub fn pass(&mut self, piece: Bytes) {
        self.stream.push(piece, b"");
    }

    /// Behind a 101: ready when all that was passed is written.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write(cx)
    }

    /// Behind a 101: ready when our direction is ended.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }

    /// Has the other side see, when this is dropped, that it broke off.
    pub fn reset(&mut self) {
        self.stream.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_close_that_the_event_loop_has_not_heard_of_is_known_to_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut other, _) = listener.accept().unwrap();
        let mut kept: Connection<Full<Bytes>> = Connection::new(Transport::Plain(stream));
        let is_stale = |kept: &mut Connection<_>| kept.is_stale(&mut Context::from_waker(Waker::noop()));
        assert!(!is_stale(&mut kept) && !kept.is_stale_now());
        io::Write::write_all(&mut other, b"unasked").unwrap();
        assert!(kept.is_stale_now());
        drop(other);
        // Nothing of this test has let the event loop run since.
        assert!(!is_stale(&mut kept), "the case that the kernel is asked for");
        assert!(kept.is_stale_now());
    }
}
