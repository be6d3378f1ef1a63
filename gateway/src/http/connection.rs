//! One client connection: handshake, choice of protocol, and its end, whoever brings it about.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::body::Incoming;
use super::budget::Budget;
use super::client::{Client, ClientAddr};
use super::connections::Guest;
use super::reject::Reject;
use super::service::{self, Conn};
use super::turns;
use super::wire::{Ahead, Wire};
use super::worker::{Phase, Worker};
use crate::config::model::Limits;
use crate::net::Transport;

/// What a client sends first to speak HTTP/2 without asking (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that an HTTP/2 stream may have in hand for the socket; what all of a connection's may, `budget` says.
const SEND_BUFFER: usize = 64 << 10;

/// Runs HTTP/2 streams on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection to its end, or until it must be closed.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, listener: usize, guest: Guest) {
    tokio::select! {
        biased;
        () = guest.closed() => tracing::debug!(client = %guest.client().ip(), "connection closed: client is blocked"),
        () = speak(&worker, stream, listener, guest.client()) => {}
    }
}

async fn speak(worker: &Rc<Worker>, stream: TcpStream, listener: usize, client: ClientAddr) {
    let (limits, tls) = {
        let site = worker.site();
        (site.limits, site.tls.get(listener).cloned().flatten())
    };
    let caller = Client {
        socket: client,
        forwarded: None,
    };
    let mut ahead = Ahead::default();
    let (transport, http2) = match &tls {
        Some(config) => match handshake(stream, config, limits.tls_handshake).await {
            Ok((stream, http2)) => (Transport::Tls(Box::new(stream)), http2),
            Err(blame) => {
                worker.metrics.tls_failures.inc();
                if blame {
                    worker.refused(caller, None, Reject::TlsHandshake);
                }
                return;
            }
        },
        None => {
            let mut stream = stream;
            let mut phase = worker.phase.clone();
            let sniffed = tokio::select! {
                biased;
                sniffed = timeout(limits.request_header, sniff(&mut stream, &mut ahead)) => sniffed,
                // A connection on which nothing has begun has nothing to finish.
                _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
            };
            match sniffed {
                Ok(Ok(http2)) => (Transport::Plain(stream), http2),
                Ok(Err(_)) => return,
                Err(_) => {
                    // Silence is how an honest client keeps a spare connection; half a preface is not.
                    if !ahead.get().is_empty() {
                        worker.refused(caller, None, Reject::HeaderTimeout);
                    }
                    return;
                }
            }
        }
    };
    let partial = Rc::new(Cell::new(false));
    let Ok(socket) = HeaderValue::from_str(&client.ip().to_string()) else {
        return;
    };
    let conn = Rc::new(Conn {
        worker: Rc::clone(worker),
        client,
        socket,
        tls: tls.is_some(),
        partial: Rc::clone(&partial),
        budget: http2.then(|| Budget::new(&worker.pool)),
        active: Cell::new(0),
        quiet_since: Cell::new(Instant::now()),
    });
    if !http2 {
        turns::take(&conn, transport, ahead.get(), &limits).await;
        return;
    }
    let wire = Wire::new(transport, ahead, partial, limits.body_progress);
    if let Err(error) = speak_http2(&conn, wire, &limits).await {
        match reject_of(&error, &conn) {
            Some(reject) => worker.refused(caller, None, reject),
            None => tracing::debug!(client = %client.ip(), %error, "connection ended"),
        }
    }
}

/// `Err(true)` if the client is to blame; not for one that only knocked.
async fn handshake(
    stream: TcpStream,
    config: &Arc<rustls::ServerConfig>,
    limit: Duration,
) -> Result<(TlsStream<TcpStream>, bool), bool> {
    let accepting = TlsAcceptor::from(Arc::clone(config)).accept(stream);
    match timeout(limit, accepting).await {
        Ok(Ok(stream)) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok((TlsStream::Server(stream), http2))
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            Err(error.kind() == std::io::ErrorKind::InvalidData)
        }
        Err(_) => Err(true),
    }
}

/// Reads until it is clear whether the client opens with the HTTP/2 preface. What was read stays in `ahead`.
async fn sniff(stream: &mut TcpStream, ahead: &mut Ahead) -> std::io::Result<bool> {
    loop {
        let mut bytes = [0; PREFACE.len()];
        let room = PREFACE.len() - ahead.get().len();
        let taken = stream.read(&mut bytes[..room]).await?;
        if taken == 0 && ahead.get().is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        ahead.push(&bytes[..taken]);
        let so_far = ahead.get();
        if !PREFACE.starts_with(so_far) || taken == 0 {
            return Ok(false);
        }
        if so_far.len() == PREFACE.len() {
            return Ok(true);
        }
    }
}

async fn speak_http2(conn: &Rc<Conn>, wire: Wire, limits: &Limits) -> Result<(), hyper::Error> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.request_header)
        .keep_alive_timeout(limits.request_header);
    let shared = Rc::clone(conn);
    let service = service_fn(move |request: http::Request<_>| {
        let conn = Rc::clone(&shared);
        let request = request.map(Incoming::Http2);
        async move { Ok::<_, Infallible>(service::serve(conn, request, None).await) }
    });
    let connection = builder.serve_connection(wire, service);
    drive(connection, conn, limits.request_header, |c| c.graceful_shutdown()).await
}

/// Runs a connection; tells it to finish when the server drains, or when it has been idle for longer than `limit`.
async fn drive<C>(
    connection: C,
    conn: &Conn,
    limit: Duration,
    finish: impl Fn(Pin<&mut C>),
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut connection = pin!(connection);
    let mut phase = conn.worker.phase.clone();
    let mut finishing = false;
    loop {
        let idle_over = sleep_until(conn.quiet_since.get() + limit);
        tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome,
            _ = phase.wait_for(|phase| *phase != Phase::Serving), if !finishing => {
                finishing = true;
                finish(connection.as_mut());
            }
            () = idle_over, if !finishing => {
                if conn.active.get() > 0 {
                    // Counted from the end of the last request; look again later.
                    conn.quiet_since.set(Instant::now());
                } else if conn.quiet_since.get().elapsed() >= limit {
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
    source
        .filter(|h2| h2.is_library() && !h2.is_io())
        .map(|_| Reject::Malformed)
}
