//! One exchange with an endpoint, on a connection of its own or on one that it shares. Knows nothing of pools, retries or
//! deadlines.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{StatusCode, request, response};
use http_body::{Body, Frame, SizeHint};

use super::multiplex::Stream;
use super::{Failure, Hints};
use crate::http1;
use crate::http1::outgoing::{Connection, Head};
use crate::net::Transport;

/// What takes one request at a time.
#[derive(Debug)]
pub(super) enum Link<B> {
    /// A connection. Boxed, as it moves between pool, exchange and body.
    Http1(Box<Connection<B>>),
    /// A stream of a connection that others use too.
    Http2(Stream<B>),
}

/// Why an exchange broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Http1(#[from] http1::Error),
    #[error(transparent)]
    Http2(hyper::Error),
    /// What hyper takes and HTTP/2 forbids.
    #[error("the answer is not well-formed HTTP/2")]
    Malformed,
}

/// A request on its way. It stays where it is while it is tried, so that it can be tried again, and nothing moves it from
/// hand to hand.
#[derive(Debug)]
pub struct Outbound<B> {
    pub parts: request::Parts,
    /// Gone once something was taken of it; a body without anything to take stays.
    pub body: Option<B>,
    /// What was taken of a body that was taken back; it goes before the rest.
    pub(super) sent: Vec<Bytes>,
}

impl<B> Outbound<B> {
    #[must_use]
    pub fn new(parts: request::Parts, body: B) -> Self {
        Self {
            parts,
            body: Some(body),
            sent: Vec::new(),
        }
    }
}

/// An exchange without a response.
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// Whether no byte of the request was taken for good.
    pub(super) unsent: bool,
    /// Whether the other side has certainly not begun with it, or closed without a byte of a response.
    pub(super) silent: bool,
    /// Whether the other side said that it has not begun with it. No such word is a fault of this one connection.
    pub(super) refused: bool,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Begins to speak HTTP/1 on an open connection.
    pub(super) fn http1(transport: Transport) -> Self {
        Self::Http1(Box::new(Connection::new(transport)))
    }

    /// Sends a request and waits for the response's header. Interim answers go to `hints`; over HTTP/2 they go unseen.
    pub(super) async fn send(
        &mut self,
        request: &mut Outbound<B>,
        hints: Option<Hints<'_>>,
    ) -> Result<response::Parts, Broken> {
        let connection = match self {
            Self::Http1(connection) => connection,
            Self::Http2(stream) => {
                // Apart, as it is large, and most upstreams speak HTTP/1.
                return Box::pin(stream.send(request)).await;
            }
        };
        let mut wanted = connection.begin(&request.parts, &mut request.body);
        loop {
            match poll_fn(|cx| connection.poll_head(cx, &mut wanted)).await {
                Ok(Head::Answer(head)) => return Ok(head),
                Ok(Head::Interim(head)) => {
                    if let Some(Hints(take)) = hints
                        && head.status != StatusCode::CONTINUE
                    {
                        take(head);
                    }
                }
                Err(error) => {
                    let gone = matches!(&error, http1::Error::Closed) || reset(&error);
                    return Err(Broken {
                        silent: gone && !connection.has_answered(),
                        failure: Failure::Exchange(error.into()),
                        unsent: false,
                        refused: false,
                    });
                }
            }
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Http1(connection) => connection.poll_frame(cx).map_err(Error::Http1),
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether the response has been read to its end.
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_read(),
            Self::Http2(stream) => stream.is_read(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(connection) => connection.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }

    /// Whether the other side has closed it. Only of a connection that is not in use.
    pub(super) fn is_closed(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_stale(&mut Context::from_waker(Waker::noop())),
            Self::Http2(_) => true,
        }
    }

    /// The same at this very moment, at the cost of a system call. A shared connection tells of what it did not begin with.
    pub(super) fn is_closed_now(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_stale_now(),
            Self::Http2(_) => false,
        }
    }

    /// Behind a 101, the bytes of another protocol. HTTP/2 has no 101.
    pub(super) fn tunnel(&mut self) -> Option<&mut Connection<B>> {
        match self {
            Self::Http1(connection) => Some(connection),
            Self::Http2(_) => None,
        }
    }

    /// Makes it fit for the pool. Whether it is: a stream has served its one request.
    pub(super) fn rest(&mut self) -> bool {
        match self {
            Self::Http1(connection) => {
                connection.rest();
                connection.is_reusable()
            }
            Self::Http2(_) => false,
        }
    }
}

/// Whether the other side reset the connection, which is how a close meets bytes that were under way.
fn reset(error: &http1::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error, http1::Error::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
}
