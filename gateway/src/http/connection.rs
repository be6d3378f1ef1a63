//! One client connection, once it has arrived: its protocol, and its end, whoever brings it about.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::accept::{Arrival, arrive};
use super::body::Incoming;
use super::budget::{self, Budget, Found, Streams};
use super::client::ClientAddr;
use super::connections::Guest;
use super::door::Door;
use super::reject::Reject;
use super::service::{self, Conn};
use super::turns;
use super::websocket;
use super::wire::Wire;
use super::worker::{Phase, Worker};
use crate::config::model::Limits;

/// Bytes that an HTTP/2 stream may have in hand for the socket; what all of a connection's may, `budget` says.
const SEND_BUFFER: usize = 64 << 10;
/// Largest HTTP/2 frame taken, in bytes: the least that RFC 9113 (4.2) allows. Together with `limits.header_bytes` it says
/// how many CONTINUATION frames a header may have (CVE-2024-27316).
const FRAME: u32 = 16 << 10;
/// Bytes of a client's headers that HPACK may remember (RFC 9113, 6.5.2: the value in force until another is agreed).
const HEADER_TABLE: u32 = 4096;
/// Streams of one connection that may end by the client's errors (CVE-2025-8671). A client without faults gets there only by
/// sending on while its stream is being refused.
const ERRED_STREAMS: usize = 1024;
/// How long a connection may take to end that was told to because nothing was asked on it: a round trip to a client that is
/// there. Bytes of a header that never ends do not lengthen it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves a connection to its end, or until it must be closed.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, door: Arc<Door>, guest: Guest) {
    tokio::select! {
        biased;
        () = guest.closed() => tracing::debug!(client = %guest.client().ip(), "connection closed: client is blocked"),
        () = speak(&worker, stream, door, guest.client()) => {}
    }
}

async fn speak(worker: &Rc<Worker>, stream: TcpStream, door: Arc<Door>, client: ClientAddr) {
    let Some(arrival) = arrive(worker, stream, &door, client).await else {
        return;
    };
    let Arrival {
        transport,
        http2,
        ahead,
        caller,
        secure,
        since,
    } = arrival;
    let limits = worker.site().limits;
    let partial = Rc::new(Cell::new(false));
    let Ok(peer) = HeaderValue::from_str(&caller.effective().to_string()) else {
        return;
    };
    let conn = Rc::new(Conn {
        worker: Rc::clone(worker),
        caller,
        peer,
        door,
        secure,
        partial: Rc::clone(&partial),
        budget: http2.then(|| Budget::new(&worker.pool)),
        active: Cell::new(0),
        alarm: RefCell::default(),
        hints: RefCell::default(),
        quiet_since: Cell::new(since),
    });
    let Some(budget) = &conn.budget else {
        turns::take(&conn, transport, ahead.get(), &limits).await;
        return;
    };
    let flood = Rc::new(Cell::new(false));
    let wire = Wire::new(transport, ahead, partial, Rc::clone(&flood), limits.body_progress);
    // Apart: a connection of HTTP/1 need not have room for it.
    let ended = Box::pin(speak_http2(&conn, budget, wire, &limits)).await;
    if flood.get() {
        worker.refused(caller, None, Reject::Http2Abuse);
        return;
    }
    match ended {
        Ok(()) => {}
        // Silence is how an honest client keeps a spare connection; a header that does not end is not.
        Err(Ended::Overdue) if !conn.partial.get() => {}
        Err(Ended::Overdue) => worker.refused(caller, None, Reject::HeaderTimeout),
        Err(Ended::Error(error)) => match reject_of(&error, &conn) {
            Some(reject) => worker.refused(caller, None, reject),
            None => tracing::debug!(client = %client.ip(), %error, "connection ended"),
        },
    }
}

async fn speak_http2(conn: &Rc<Conn>, budget: &Rc<Budget>, wire: Wire, limits: &Limits) -> Result<(), Ended> {
    let mut builder = http2::Builder::new(Streams(Rc::clone(budget)));
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        // Reset before they were looked at (CVE-2023-44487); those reset later, `meter` counts.
        .max_pending_accept_reset_streams(limits.streams as usize)
        .max_local_error_reset_streams(ERRED_STREAMS)
        .max_header_list_size(limits.header_bytes)
        .max_frame_size(FRAME)
        .header_table_size(HEADER_TABLE)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.request_header)
        .keep_alive_timeout(limits.request_header);
    let shared = Rc::clone(conn);
    // Told with the first answer once the gateway is leaving. hyper calls this as it polls the connection.
    let leave = Rc::new(Cell::new(false));
    let asked = Rc::clone(&leave);
    let service = service_fn(move |mut request: http::Request<_>| {
        let conn = Rc::clone(&shared);
        asked.set(conn.worker.leaving.get());
        websocket::recognise(&mut request);
        let request = request.map(Incoming::Http2);
        async move { Ok::<_, Infallible>(service::serve(conn, request, None).await) }
    });
    let connection = builder.serve_connection(wire, service);
    let ended = drive(connection, conn, limits, &leave, |c| c.graceful_shutdown()).await;
    budget.close();
    ended
}

/// How a connection ended that did not just end.
enum Ended {
    /// As hyper says.
    Error(hyper::Error),
    /// It had its time without a request, and did not answer when it was told to end.
    Overdue,
}

/// Runs a connection; tells it to finish when the server drains, when the server is `leave`d and it has asked once more, when
/// it has been idle for longer than a header may take, or when its client has left bytes of an ended stream untaken for a pause.
/// The last can not be mended, so it ends a pause later; one that idled is cut off when it has not ended in a moment.
async fn drive<C>(
    connection: C,
    conn: &Conn,
    limits: &Limits,
    leave: &Cell<bool>,
    finish: impl Fn(Pin<&mut C>),
) -> Result<(), Ended>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let mut phase = conn.worker.phase.clone();
    let limit = limits.request_header;
    let mut finishing = false;
    // When it must have ended, once it was told so for its idleness.
    let mut farewell: Option<Instant> = None;
    let (pause, mut stuck) = (limits.body_progress / budget::LOOKS, 0);
    let mut look = Instant::now() + pause;
    loop {
        let idle_over = conn.quiet_since.get() + limit;
        let wake = match farewell {
            Some(end) => look.min(end),
            None if finishing => look,
            None => look.min(idle_over),
        };
        tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome.map_err(Ended::Error),
            () = poll_fn(|_| if leave.get() { Poll::Ready(()) } else { Poll::Pending }), if !finishing => {
                finishing = true;
                finish(connection.as_mut());
            }
            _ = phase.wait_for(Phase::is_last), if !finishing => {
                finishing = true;
                finish(connection.as_mut());
            }
            () = sleep_until(wake) => {
                let now = Instant::now();
                let idle = !finishing && now >= idle_over && conn.quiet_since.get() + limit <= now;
                if idle && conn.active.get() > 0 {
                    // Counted from the end of the last request; look again later.
                    conn.quiet_since.set(now);
                } else if idle {
                    finishing = true;
                    farewell = Some(now + FAREWELL.min(limit));
                    finish(connection.as_mut());
                }
                if farewell.is_some_and(|end| now >= end) {
                    if conn.active.get() == 0 {
                        return Err(Ended::Overdue);
                    }
                    // It asked for something in the last moment, which is served.
                    farewell = None;
                }
                if now < look {
                    continue;
                }
                look = now + pause;
                let found = conn.budget.as_ref().map(|budget| budget.look());
                stuck = if found == Some(Found::Stuck) { stuck + 1 } else { 0 };
                if stuck > budget::LOOKS {
                    // Others have had their time to end.
                    return Ok(());
                }
                if stuck > 0 && !finishing {
                    finishing = true;
                    finish(connection.as_mut());
                }
            }
        }
    }
}

/// What a connection's error says of the client; nothing if it merely went away.
fn reject_of(error: &hyper::Error, conn: &Conn) -> Option<Reject> {
    if error.is_parse_too_large() {
        return Some(Reject::HeaderTooLarge);
    }
    if error.is_parse() {
        return Some(Reject::Malformed);
    }
    if error.is_timeout() {
        return conn.partial.get().then_some(Reject::HeaderTimeout);
    }
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    let h2 = source.filter(|h2| h2.is_library() && !h2.is_io())?;
    let abuse = h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    Some(if abuse {
        Reject::Http2Abuse
    } else {
        Reject::Malformed
    })
}
