//! One client connection, once it has arrived: its protocol, and its end, whoever brings it about.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
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
        quiet_since: Cell::new(Instant::now()),
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
    } else if let Err(error) = ended {
        match reject_of(&error, &conn) {
            Some(reject) => worker.refused(caller, None, reject),
            None => tracing::debug!(client = %client.ip(), %error, "connection ended"),
        }
    }
}

async fn speak_http2(
    conn: &Rc<Conn>,
    budget: &Rc<Budget>,
    wire: Wire,
    limits: &Limits,
) -> Result<(), hyper::Error> {
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
    let service = service_fn(move |mut request: http::Request<_>| {
        let conn = Rc::clone(&shared);
        websocket::recognise(&mut request);
        let request = request.map(Incoming::Http2);
        async move { Ok::<_, Infallible>(service::serve(conn, request, None).await) }
    });
    let connection = builder.serve_connection(wire, service);
    let outcome = drive(
        connection,
        conn,
        limits.request_header,
        limits.body_progress,
        |c| c.graceful_shutdown(),
    );
    let outcome = outcome.await;
    budget.close();
    outcome
}

/// Runs a connection; tells it to finish when the server drains, when it has been idle for longer than `limit`, or when its
/// client has left bytes of an ended stream untaken for `pause`. That can not be mended, so it ends a `pause` later.
async fn drive<C>(
    connection: C,
    conn: &Conn,
    limit: Duration,
    pause: Duration,
    finish: impl Fn(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let mut phase = conn.worker.phase.clone();
    let mut finishing = false;
    let (pause, mut stuck) = (pause / budget::LOOKS, 0);
    let mut look = Instant::now() + pause;
    loop {
        let idle_over = conn.quiet_since.get() + limit;
        let wake = if finishing { look } else { look.min(idle_over) };
        tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome,
            _ = phase.wait_for(|phase| *phase != Phase::Serving), if !finishing => {
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
                    finish(connection.as_mut());
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
