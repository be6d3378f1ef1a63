//! Kept connections of one worker, and the load that is counted while one is in use.
//!
//! Kept connections are taken last in, first out, so that what is not needed grows old and is closed. A connection
//! goes back when its response has been read to the end; whoever drops a [`Lease`] earlier closes the connection,
//! since nothing may be read from it that belonged to somebody else's response.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Upstream;
use super::balance::Turn;
use super::link::Link;
use crate::http1::Error;
use crate::http1::outgoing::Connection;

/// The connection a response is coming from. Call [`Lease::keep`] at the end of the response, or drop it to close.
#[derive(Debug)]
pub struct Lease<B> {
    link: Option<Link<B>>,
    local: Rc<Local<B>>,
    in_flight: InFlight,
    idle_connections: usize,
}

/// Counts a request in an endpoint's load for as long as it lives.
#[derive(Debug)]
pub(super) struct InFlight {
    upstream: Arc<Upstream>,
    index: usize,
}

/// Kept connections and turn of one upstream.
#[derive(Debug)]
pub(super) struct Local<B> {
    pub(super) upstream: Weak<Upstream>,
    pub(super) turn: RefCell<Turn>,
    pub(super) idle: RefCell<Vec<Vec<Idle<B>>>>,
}

#[derive(Debug)]
pub(super) struct Idle<B> {
    pub(super) link: Link<B>,
    pub(super) since: Instant,
}

impl<B> Local<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// A kept connection that is open still.
    pub(super) fn take(&self, index: usize, idle: Duration) -> Option<Link<B>> {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(index)?;
        let mut at = pool.len();
        while at > 0 {
            at -= 1;
            let mut kept = pool.remove(at);
            if kept.since.elapsed() < idle && !kept.link.is_closed() {
                return Some(kept.link);
            }
        }
        None
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(
        link: Link<B>,
        local: &Rc<Local<B>>,
        in_flight: InFlight,
        idle_connections: usize,
    ) -> Self {
        Self {
            link: Some(link),
            local: Rc::clone(local),
            in_flight,
            idle_connections,
        }
    }

    /// `host:port` of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<str> {
        self.in_flight.upstream.endpoints[self.in_flight.index].name()
    }

    /// The next piece of the response's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.link {
            Some(link) => link.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    /// Behind a 101, the bytes of another protocol. `None` if the connection is gone.
    pub fn tunnel(&mut self) -> Option<&mut Connection<B>> {
        self.link.as_mut().map(Link::tunnel)
    }

    /// Whether the response has been read to its end.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.link.as_ref().is_none_or(Link::is_read)
    }

    /// What is known of the length of what is left of the response.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.link.as_ref().map_or_else(SizeHint::default, Link::size_hint)
    }

    /// Keeps the connection for the next request. Only after the response has been read to its end.
    pub fn keep(mut self) {
        let Some(mut link) = self.link.take() else { return };
        let mut pools = self.local.idle.borrow_mut();
        if let Some(pool) = pools.get_mut(self.in_flight.index)
            && pool.len() < self.idle_connections
            && link.rest()
        {
            pool.push(Idle {
                link,
                since: Instant::now(),
            });
        }
    }
}

impl InFlight {
    pub(super) fn new(upstream: &Arc<Upstream>, index: usize) -> Self {
        upstream.endpoints[index]
            .in_flight
            .fetch_add(1, Ordering::Relaxed);
        Self {
            upstream: Arc::clone(upstream),
            index,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.upstream.endpoints[self.index]
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
    }
}
