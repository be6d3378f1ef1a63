//! One established connection to an endpoint, and one exchange on it. Knows nothing of pools, retries or deadlines.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, response};
use http_body::{Body, Frame, SizeHint};

use super::Failure;
use crate::http1::Error;
use crate::http1::outgoing::{Connection, Head};
use crate::net::Transport;

/// A connection that takes one request at a time. Boxed, as it moves between pool, exchange and body.
#[derive(Debug)]
pub(super) struct Link<B>(Box<Connection<B>>);

/// An exchange without a response.
pub(super) struct Broken<B> {
    pub(super) failure: Failure,
    /// The request, if no byte of it was taken.
    pub(super) request: Option<Box<Request<B>>>,
    /// Whether the connection closed without a byte of a response.
    pub(super) silent: bool,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Begins to speak HTTP on an open connection. `endpoint` is for the log.
    #[expect(clippy::unused_async, reason = "another protocol has something to say here")]
    pub(super) async fn open(transport: Transport, _endpoint: &Arc<str>) -> std::io::Result<Self> {
        Ok(Self(Box::new(Connection::new(transport))))
    }

    /// Sends a request and waits for the response's header.
    pub(super) async fn send(&mut self, request: Request<B>) -> Result<response::Parts, Broken<B>> {
        let mut wanted = self.0.begin(request);
        loop {
            match poll_fn(|cx| self.0.poll_head(cx, &mut wanted)).await {
                Ok(Head::Answer(head)) => return Ok(head),
                Ok(Head::Interim(status, _)) => tracing::trace!(%status, "interim answer"),
                Err(error) => {
                    let gone = matches!(&error, Error::Closed) || reset(&error);
                    return Err(Broken {
                        silent: gone && !self.0.has_answered(),
                        failure: Failure::Exchange(error),
                        request: None,
                    });
                }
            }
        }
    }

    /// Whether the other side has closed it. Only of a connection that is not in use.
    pub(super) fn is_closed(&mut self) -> bool {
        self.0.is_stale(&mut Context::from_waker(Waker::noop()))
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_frame(cx)
    }

    /// Whether the response has been read to its end.
    pub(super) fn is_read(&self) -> bool {
        self.0.is_read()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }

    /// Behind a 101, the bytes of another protocol.
    pub(super) fn tunnel(&mut self) -> &mut Connection<B> {
        &mut self.0
    }

    /// Makes it fit for the pool. Whether it is.
    pub(super) fn rest(&mut self) -> bool {
        self.0.rest();
        self.0.is_reusable()
    }
}

/// Whether the other side reset the connection, which is how a close meets bytes that were under way.
fn reset(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error, Error::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
}
