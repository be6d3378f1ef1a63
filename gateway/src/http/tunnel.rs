//! Bytes both ways behind a 101 (RFC 9110, 7.8), until one side ends, nobody says anything for long, it has lived for as long
//! as it may, or the worker is over.
//!
//! Nothing of the client's goes up before the upstream has agreed: what was sent early waits on the connection.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::body::RequestBody;
use super::budget::Charged;
use super::record::Finish;
use crate::http1::alarm::Alarm;
use crate::http1::incoming::Connection;
use crate::upstream::Lease;

/// What the other side may still say when one has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The client's side: an HTTP/1 connection, or a stream of HTTP/2.
pub(super) trait Side {
    /// Takes what the client has sent; `None` at its end.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;
    /// Whether bytes can be passed.
    fn has_room(&self) -> bool;
    /// Gathers bytes for the client. Only while there is room.
    fn pass(&mut self, piece: Bytes);
    /// Ready when all that was passed is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when our direction is ended.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Has the client see, when this is dropped, that it broke off.
    fn reset(&mut self);
}

impl Side for &Connection<Charged> {
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        Connection::poll_take(self, cx)
    }

    fn has_room(&self) -> bool {
        Connection::has_room(self)
    }

    fn pass(&mut self, piece: Bytes) {
        Connection::pass(self, Charged::new(piece, None));
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Connection::poll_write(self, cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Connection::poll_shutdown(self, cx)
    }

    fn reset(&mut self) {
        Connection::reset(self);
    }
}

/// Which sides will say no more, and whether the other has been told.
#[derive(Default)]
struct Ends {
    client: bool,
    client_told: bool,
    upstream: bool,
    upstream_told: bool,
}

/// Carries bytes to the end. What its route says of silence and length of life holds.
///
/// # Errors
/// A side that broke off; the other then sees the same.
pub(super) async fn carry(
    wire: &mut impl Side,
    lease: &mut Lease<RequestBody>,
    finish: &mut Finish,
) -> io::Result<()> {
    let (idle, life) = match &finish.route {
        Some(route) => (route.tunnel_idle, route.tunnel_life),
        // Without a route nothing is forwarded.
        None => (LAST_WORDS, None),
    };
    let (mut ends, mut alarm) = (Ends::default(), Alarm::default());
    let mut quiet_since = Instant::now();
    let dies = life.map(|life| quiet_since + life);
    let clean = poll_fn(|cx| {
        if let Poll::Ready(ended) = step(cx, wire, lease, finish, &mut ends, &mut quiet_since) {
            return Poll::Ready(ended.map(|()| true));
        }
        let patience = if ends.client || ends.upstream {
            LAST_WORDS
        } else {
            idle
        };
        let until = quiet_since + patience;
        let until = dies.map_or(until, |dies| dies.min(until));
        alarm.poll(cx, until).map(|()| Ok(false))
    })
    .await;
    match clean {
        Ok(clean) => finish.complete = clean,
        // TLS that is closed without a word is how many end who have nothing more to say.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => {
            wire.reset();
            if let Some(upstream) = lease.tunnel() {
                upstream.reset();
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Moves what can be moved. Ready when both sides have ended by themselves, or one broke off.
fn step(
    cx: &mut Context<'_>,
    wire: &mut impl Side,
    lease: &mut Lease<RequestBody>,
    finish: &mut Finish,
    ends: &mut Ends,
    quiet_since: &mut Instant,
) -> Poll<io::Result<()>> {
    let Some(upstream) = lease.tunnel() else {
        return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
    };
    let mut moved = true;
    while std::mem::take(&mut moved) {
        let was_full = (!upstream.has_room(), !wire.has_room());
        while !ends.client && upstream.has_room() {
            match wire.poll_take(cx) {
                Poll::Ready(Ok(Some(bytes))) => upstream.pass(bytes),
                Poll::Ready(Ok(None)) => ends.client = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            moved = true;
        }
        while !ends.upstream && wire.has_room() {
            match upstream.poll_take(cx) {
                Poll::Ready(Ok(Some(bytes))) => {
                    finish.bytes += bytes.len() as u64;
                    wire.pass(bytes);
                }
                Poll::Ready(Ok(None)) => ends.upstream = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
            moved = true;
        }
        let up = upstream.poll_write(cx)?;
        let down = wire.poll_write(cx)?;
        if ends.client && !ends.client_told && up.is_ready() {
            ends.client_told = upstream.poll_shutdown(cx).is_ready();
        }
        if ends.upstream && !ends.upstream_told && down.is_ready() {
            ends.upstream_told = wire.poll_shutdown(cx).is_ready();
        }
        if moved {
            *quiet_since = Instant::now();
        }
        // What there was no room for has not been asked for, so nobody will wake us for it.
        let freed = (was_full.0 && upstream.has_room()) || (was_full.1 && wire.has_room());
        moved = freed || (moved && (up.is_ready() || down.is_ready()));
    }
    if ends.client_told && ends.upstream_told {
        Poll::Ready(Ok(()))
    } else {
        Poll::Pending
    }
}
