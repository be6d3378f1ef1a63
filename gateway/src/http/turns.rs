//! A client's HTTP/1 connection: one request after another, in one task. Owns their order, the deadlines between them, and
//! the ways in which such a connection ends; [`service`] serves each.
//!
//! A header that can not be read is refused as any other request is. Nothing behind it is ever read.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, DATE};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::body::{Incoming, ResponseBody, Stall};
use super::budget::Charged;
use super::reject::Reject;
use super::seldom::Seldom;
use super::service::{self, Conn};
use super::tunnel;
use super::worker::Phase;
use crate::config::model::Limits;
use crate::http1::alarm::Alarm;
use crate::http1::incoming::{Connection, NoHead, Reply};
use crate::http1::{Fault, head};
use crate::net::Transport;

/// How often to look whether a client that has ended its side, as it may, has gone altogether.
const HALF_CLOSED_LOOK: Duration = Duration::from_millis(250);
/// How long it is waited for the upstream on behalf of such a client. Over cleartext most that end their side have gone, and
/// nothing else would tell: each would hold its request, and its place under all caps, for `limits.response_header`.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// What is still read of a client that has been answered early, in bytes and in time. Closing at once would reset the
/// connection, and the client's kernel would throw away the answer.
const LINGER_BYTES: usize = 1 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What a connection's turns share.
struct Turns<'a> {
    conn: &'a Rc<Conn>,
    wire: Connection<Charged>,
    limits: &'a Limits,
    stall: RefCell<Stall>,
}

/// Serves a connection to its end. `ahead` has been read of it already.
pub(super) async fn take(conn: &Rc<Conn>, transport: Transport, ahead: &[u8], limits: &Limits) {
    let most = head::Limits {
        bytes: limits.header_bytes as usize,
        lines: limits.header_count as usize,
    };
    let turns = Turns {
        conn,
        wire: Connection::new(transport, ahead, most),
        limits,
        stall: RefCell::new(Stall::new(limits.body_progress)),
    };
    if let Err(error) = turns.run().await {
        tracing::debug!(client = %conn.caller.socket.ip(), %error, "connection ended");
    }
}

/// What to do next on a connection without a request.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and a box would be an allocation a request"
)]
enum Next {
    Request(http::request::Parts, head::Meaning),
    Refuse(Reject),
    Close,
}

impl Turns<'_> {
    async fn run(&self) -> io::Result<()> {
        let mut phase = self.conn.worker.phase.clone();
        let (seen, mut seldom) = (phase.clone(), Seldom::default());
        let mut stopping = pin!(phase.wait_for(Phase::is_last));
        let mut stop = false;
        let mut look = |cx: &mut Context<'_>| {
            let news = seen.has_changed().unwrap_or(true);
            stop = stop || seldom.poll(cx, stopping.as_mut(), news).is_ready();
            stop
        };
        loop {
            let (request, meaning) = match poll_fn(|cx| self.poll_next(cx, &mut look)).await {
                Next::Request(parts, meaning) => (
                    Request::from_parts(parts, Incoming::Http1(self.wire.body())),
                    Some(meaning),
                ),
                Next::Refuse(reject) => return Box::pin(self.refuse(reject)).await,
                Next::Close => return self.close().await,
            };
            let (method, version) = (request.method().clone(), request.version());
            // A place of its own, which the next request of any connection can use: the connection's task is small while it
            // waits, and the place warm in the cache.
            let mut serving = Box::pin(service::serve(Rc::clone(self.conn), request, None));
            let mut departure = Departure::default();
            let mut hinted = false;
            let response = poll_fn(|cx| {
                let served = serving.as_mut().poll(cx);
                hinted |= self.pass_hints(version);
                if let Poll::Ready(response) = served {
                    return Poll::Ready(Some(response));
                }
                if hinted && self.wire.poll_write(cx).is_ready() {
                    // An error is seen by whoever looks for the client's departure.
                    hinted = false;
                }
                look(cx);
                departure.poll(&self.wire, cx).map(|()| None)
            });
            let Some(response) = response.await else {
                // Gone; what was under way is dropped.
                return Ok(());
            };
            drop(serving);
            let last = poll_fn(|cx| Poll::Ready(look(cx))).await;
            let keep_alive =
                meaning.is_some_and(|meaning| meaning.keep_alive) && !last && !self.conn.worker.leaving.get();
            if !self.answer(response, &method, version, keep_alive).await? {
                return self.close().await;
            }
        }
    }

    /// Gathers interim answers that have come, for clients that know of them (RFC 9110, 15.2). Whether there were any.
    fn pass_hints(&self, version: Version) -> bool {
        let mut hints = self.conn.hints.borrow_mut();
        let any = version == Version::HTTP_11 && !hints.is_empty();
        for hint in hints.drain(..) {
            if any {
                self.wire.hint(&hint);
            }
        }
        any
    }

    /// Waits for a header, no longer than a client may take for one. One that began is answered when it does not end; silence is
    /// how an honest client keeps a spare connection, and is only ended.
    fn poll_next(
        &self,
        cx: &mut Context<'_>,
        stopping: &mut impl FnMut(&mut Context<'_>) -> bool,
    ) -> Poll<Next> {
        match self.wire.poll_head(cx) {
            Poll::Ready(Ok((parts, meaning))) => return Poll::Ready(Next::Request(parts, meaning)),
            Poll::Ready(Err(NoHead::Ended | NoHead::Io(_))) => return Poll::Ready(Next::Close),
            Poll::Ready(Err(NoHead::Fault(Fault::Malformed))) => {
                return Poll::Ready(Next::Refuse(Reject::Malformed));
            }
            Poll::Ready(Err(NoHead::Fault(Fault::TooLarge))) => {
                return Poll::Ready(Next::Refuse(Reject::HeaderTooLarge));
            }
            Poll::Pending => {}
        }
        let stop = stopping(cx) && !self.wire.has_begun();
        let until = self.conn.quiet_since.get() + self.limits.request_header;
        if !stop {
            ready!(self.conn.alarm.borrow_mut().poll(cx, until));
        }
        Poll::Ready(if self.wire.has_begun() {
            Next::Refuse(Reject::HeaderTimeout)
        } else {
            Next::Close
        })
    }

    /// Answers what can not be read, and ends the connection.
    async fn refuse(&self, reject: Reject) -> io::Result<()> {
        let mut stand_in = Request::new(Incoming::Empty);
        if let Ok(unknown) = Method::from_bytes(b"-") {
            *stand_in.method_mut() = unknown;
        }
        let response = service::serve(Rc::clone(self.conn), stand_in, Some(reject)).await;
        self.answer(response, &Method::GET, Version::HTTP_11, false)
            .await?;
        self.close().await
    }

    /// Sends an answer. Returns whether another request may follow.
    async fn answer(
        &self,
        response: Response<ResponseBody>,
        method: &Method,
        version: Version,
        keep_alive: bool,
    ) -> io::Result<bool> {
        let (mut parts, mut body) = response.into_parts();
        // Only the gateway's own refusals say so; what an upstream said of its connection is gone.
        let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let close = !switching && parts.headers.remove(CONNECTION).is_some();
        // The time is asked for only if the upstream has not said it.
        let date = if parts.headers.contains_key(DATE) {
            None
        } else {
            Some(self.conn.worker.date())
        };
        let reply = Reply {
            method,
            version,
            keep_alive: keep_alive && !close,
            date: date.as_ref().map(<[u8; _]>::as_slice),
        };
        let keep_alive = self
            .wire
            .begin(&parts, &body.size_hint(), body.is_end_stream(), &reply);
        let mut ended = self.wire.is_bodiless();
        let mut departure = Departure::default();
        let sent = poll_fn(|cx| self.poll_send(cx, &mut body, &mut ended, &mut departure)).await;
        if sent.is_err() && !self.wire.is_delimited() {
            // A plain end would look like the end of the body.
            self.wire.reset();
        }
        sent?;
        if let Some((lease, finish)) = body.as_tunnel() {
            tunnel::carry(&mut &self.wire, lease, finish).await?;
            return Ok(false);
        }
        Ok(keep_alive && self.wire.is_read())
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        body: &mut ResponseBody,
        ended: &mut bool,
        departure: &mut Departure,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut waiting = false;
            while !*ended && !waiting && self.wire.has_room() {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        *departure = Departure::default();
                        let trailer = match frame.into_data() {
                            Ok(piece) => {
                                self.wire.push(piece);
                                None
                            }
                            Err(frame) => frame.into_trailers().ok(),
                        };
                        *ended = trailer.is_some() || body.is_end_stream();
                        if *ended {
                            self.wire.finish(trailer.as_ref());
                        }
                    }
                    Poll::Ready(None) => {
                        *ended = true;
                        self.wire.finish(None);
                    }
                    Poll::Ready(Some(Err(_))) => {
                        // What came before it is good.
                        let _ = self.wire.poll_write(cx);
                        return Poll::Ready(Err(io::Error::other("the answer broke off")));
                    }
                    Poll::Pending => waiting = true,
                }
            }
            let mut stall = self.stall.borrow_mut();
            match self.wire.poll_write(cx) {
                Poll::Ready(written) => {
                    written?;
                    stall.moved();
                }
                // Gives up on a client that takes nothing.
                Poll::Pending => return stall.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            }
            if *ended {
                return Poll::Ready(Ok(()));
            }
            if waiting {
                ready!(departure.poll(&self.wire, cx));
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }

    /// Ends our direction, and reads for a while what the client still sends.
    async fn close(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut stall = self.stall.borrow_mut();
            match self.wire.poll_shutdown(cx) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => stall.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            }
        })
        .await?;
        if !self.wire.is_owed_a_reading() {
            return Ok(());
        }
        let (until, mut left) = (Instant::now() + LINGER, LINGER_BYTES);
        poll_fn(|cx| {
            while left > 0 && self.conn.alarm.borrow_mut().poll(cx, until).is_pending() {
                match ready!(self.wire.poll_discard(cx)) {
                    Ok(taken) if taken > 0 => left = left.saturating_sub(taken),
                    _ => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// Notices a client that goes away while the upstream is waited for. One that only ends its side has not gone for a while.
#[derive(Default)]
struct Departure {
    look: Option<Look>,
}

struct Look {
    alarm: Alarm,
    next: Instant,
    last: Instant,
}

impl Departure {
    fn poll(&mut self, wire: &Connection<Charged>, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(wire.poll_departure(cx)).is_err() {
            return Poll::Ready(());
        }
        let look = self.look.get_or_insert_with(|| {
            let now = Instant::now();
            Look {
                alarm: Alarm::default(),
                next: now + HALF_CLOSED_LOOK,
                last: now + HALF_CLOSED,
            }
        });
        while look.alarm.poll(cx, look.next).is_ready() {
            let now = Instant::now();
            if now >= look.last || wire.take_error().is_err() {
                return Poll::Ready(());
            }
            look.next = now + HALF_CLOSED_LOOK;
        }
        Poll::Pending
    }
}
