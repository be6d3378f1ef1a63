//! HTTP/2 to an endpoint (RFC 9113): one connection of a worker carries many exchanges at once.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version, request, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::Failure;
use super::breaker::Permit;
use super::endpoint::Open;
use super::link::{Broken, Error, Outbound};
use super::replay::Replay;
use crate::http1;
use crate::net::Transport;
use crate::net::executor::Local;
use crate::net::fields::has_outer_blanks;

/// Exchanges at once on one connection before another is opened; what the other side allows may be less, and then they
/// wait.
const STREAMS: u32 = 100;
/// Bytes that one stream may have under way to us, and all of a connection. The first is what a client that does not read
/// makes us hold.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of one stream that wait for the socket.
const SEND_BUFFER: usize = 64 << 10;
/// Most bytes of a response's header.
const HEADER_BYTES: u32 = 32 << 10;
/// A connection on which nothing comes is asked whether it is alive, and given up without an answer.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// A connection that was to end and did not is not asked to again for so long: what is on it may never end.
const LEAVE_AGAIN: Duration = Duration::from_secs(5);

/// One connection, with room for more exchanges or without.
#[derive(Debug)]
pub(super) struct Session<B> {
    sender: SendRequest<Replay<B>>,
    secure: bool,
    streams: Rc<Cell<u32>>,
    since: Cell<Instant>,
    dies: Option<Instant>,
    /// Until when it takes no exchanges, so that it may end and others have its right.
    leaves: Cell<Option<Instant>>,
    /// What a connection counts for lasts as long as any of its exchanges.
    rights: Rc<(Open, Option<Permit>)>,
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Stream<B> {
    sender: SendRequest<Replay<B>>,
    secure: bool,
    body: Option<Incoming>,
    count: Rc<Cell<u32>>,
    _rights: Rc<(Open, Option<Permit>)>,
}

impl<B> Session<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Begins to speak HTTP/2 on an open connection. `endpoint` is for the log.
    pub(super) async fn open(
        transport: Transport,
        endpoint: &Arc<str>,
        dies: Option<Instant>,
        open: Open,
        permit: Option<Permit>,
    ) -> std::io::Result<Self> {
        let secure = matches!(transport, Transport::Tls(_));
        let (sender, connection) = Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADER_BYTES)
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .handshake::<_, Replay<B>>(TokioIo::new(transport))
            .await
            .map_err(std::io::Error::other)?;
        let name = Arc::clone(endpoint);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(endpoint = %name, %error, "upstream connection ended");
            }
        });
        Ok(Self {
            sender,
            secure,
            streams: Rc::default(),
            since: Cell::new(Instant::now()),
            dies,
            leaves: Cell::new(None),
            rights: Rc::new((open, permit)),
        })
    }

    /// Whether it takes one more exchange.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        !self.sender.is_closed()
            && !self.is_leaving(now)
            && self.streams.get() < STREAMS
            && self.dies.is_none_or(|dies| now < dies)
    }

    /// One more exchange on it.
    pub(super) fn stream(&self, now: Instant) -> Stream<B> {
        self.streams.set(self.streams.get() + 1);
        self.since.set(now);
        Stream {
            sender: self.sender.clone(),
            secure: self.secure,
            body: None,
            count: Rc::clone(&self.streams),
            _rights: Rc::clone(&self.rights),
        }
    }

    /// Whether it should be closed: without exchanges for `idle`, too old for more, or closed already.
    pub(super) fn is_over(&self, now: Instant, idle: Duration) -> bool {
        let quiet = self
            .idle_since()
            .is_some_and(|since| self.is_leaving(now) || now.saturating_duration_since(since) >= idle);
        quiet || self.sender.is_closed() || self.dies.is_some_and(|dies| now >= dies)
    }
}

impl<B> Session<B> {
    /// Since when it is without exchanges, if it is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.since.get())
    }

    /// When the latest of its exchanges began.
    pub(super) fn since(&self) -> Instant {
        self.since.get()
    }

    /// Until when it takes no exchanges, if that is yet to come.
    pub(super) fn leaves_until(&self, now: Instant) -> Option<Instant> {
        self.leaves.get().filter(|until| now < *until)
    }

    pub(super) fn is_leaving(&self, now: Instant) -> bool {
        self.leaves_until(now).is_some()
    }

    /// Whether it has not been asked to leave of late.
    pub(super) fn may_leave(&self, now: Instant) -> bool {
        self.leaves.get().is_none_or(|until| now >= until + LEAVE_AGAIN)
    }

    /// Has it end with the exchanges that are on it, if these end by then. Else it goes on, as what is on it may never end.
    pub(super) fn leave(&self, until: Instant) {
        self.leaves.set(Some(until));
    }
}

impl<B> Stream<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends a request and waits for the response's header.
    pub(super) async fn send(&mut self, request: &mut Outbound<B>) -> Result<response::Parts, Broken> {
        let Some(body) = request.body.take() else {
            return Err(Broken {
                failure: Failure::Exchange(Error::Http1(http1::Error::Closed)),
                unsent: false,
                silent: false,
                refused: false,
            });
        };
        let mut parts = request.parts.clone();
        to_http2(&mut parts, self.secure);
        let body = Replay::new(body, std::mem::take(&mut request.sent));
        match self
            .sender
            .try_send_request(Request::from_parts(parts, body.clone()))
            .await
        {
            Ok(response) => {
                body.settle();
                let (head, body) = response.into_parts();
                let fits = http1::head::status(head.status.as_u16()).is_some();
                if !fits || has_outer_blanks(&head.headers) {
                    return Err(Broken {
                        failure: Failure::Exchange(Error::Malformed),
                        unsent: false,
                        silent: false,
                        refused: false,
                    });
                }
                self.body = Some(body);
                Ok(head)
            }
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                let error = error.into_error();
                let refused = is_refusal(&error);
                let silent = refused || error.is_canceled();
                if (unsent || refused)
                    && let Some((body, sent)) = body.take_back()
                {
                    (request.body, request.sent) = (Some(body), sent);
                }
                let error = if body.broke_off() {
                    Error::Http1(http1::Error::Body)
                } else {
                    Error::Http2(error)
                };
                Err(Broken {
                    silent,
                    refused,
                    failure: Failure::Exchange(error),
                    unsent: request.body.is_some(),
                })
            }
        }
    }
}

impl<B> Stream<B> {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) if frame.trailers_ref().is_some_and(has_outer_blanks) => Err(Error::Malformed),
            Ok(frame) => Ok(frame),
            Err(error) => Err(Error::Http2(error)),
        }))
    }

    pub(super) fn is_read(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B> Drop for Stream<B> {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
    }
}

/// `Host` becomes `:authority`; lines on a connection have no place here (RFC 9113, 8.2.2).
fn to_http2(parts: &mut request::Parts, secure: bool) {
    let host = parts.headers.remove(HOST);
    parts.headers.remove(CONNECTION);
    parts.headers.remove(UPGRADE);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = authority else { return };
    let target = parts.uri.path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(if secure { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(authority)
        .path_and_query(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = uri.build() {
        parts.uri = uri;
    }
    parts.version = Version::HTTP_2;
}

/// Whether the other side says that it has not looked at the request (RFC 9113, 8.7).
fn is_refusal(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|h2| {
        h2.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR))
    })
}
