//! Kept connections of one worker, and the load that is counted while one is in use.
//!
//! Kept connections are taken last in, first out, so that what is not needed grows old and is closed. A connection
//! goes back when its response has been read to the end; whoever drops a [`Lease`] earlier closes the connection,
//! since nothing may be read from it that belonged to somebody else's response.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::balance::Turn;
use super::breaker::{Breaker, Permit, Place};
use super::endpoint::{InFlight, Open};
use super::link::{Error, Link};
use super::multiplex::Session;
use super::{Endpoint, Upstream};
use crate::http1::outgoing::Connection;

/// The part of the time that requests wait for a connection in which a shared one takes none, so that it may end: those
/// that wait for this one are served after all if it does not.
const LEAVE_SHARE: u32 = 4;

/// The connection a response is coming from. Call [`Lease::keep`] at the end of the response, or drop it to close.
#[derive(Debug)]
pub struct Lease<B> {
    conn: Option<Conn<B>>,
    slot: Rc<Slot<B>>,
    local: Rc<Local<B>>,
    in_flight: InFlight,
    idle_connections: usize,
    place: Option<Place>,
}

/// An open connection with its history and its rights.
#[derive(Debug)]
pub(super) struct Conn<B> {
    pub(super) link: Link<B>,
    /// Requests so far.
    served: u32,
    /// Present if connections have an age to die at.
    dies: Option<Instant>,
    /// Of a connection of its own; a shared one holds them itself.
    _rights: Option<(Open, Option<Permit>)>,
}

/// What one worker has of one upstream.
#[derive(Debug)]
pub(super) struct Local<B> {
    pub(super) upstream: Weak<Upstream>,
    pub(super) turn: RefCell<Turn>,
    view: RefCell<Rc<View<B>>>,
    breaker: Option<Arc<Breaker>>,
    most_served: u32,
    keeps: bool,
    /// Requests of this worker that wait for a connection, and the news that one is free.
    pub(super) waiting: Cell<u32>,
    pub(super) freed: Notify,
}

/// The endpoints as one worker sees them, each with its kept connections.
#[derive(Debug)]
pub(super) struct View<B> {
    version: u64,
    pub(super) endpoints: Arc<Vec<Arc<Endpoint>>>,
    pub(super) slots: Vec<Rc<Slot<B>>>,
}

/// The kept connections to one endpoint.
#[derive(Debug)]
pub(super) struct Slot<B> {
    idle: RefCell<Vec<Idle<B>>>,
    /// Connections that are shared; empty unless the upstream speaks HTTP/2.
    sessions: RefCell<Vec<Session<B>>>,
    /// Held by who opens a session, so that many requests at once do not open one each.
    pub(super) opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Idle<B> {
    conn: Conn<B>,
    since: Instant,
}

impl<B> Conn<B> {
    pub(super) fn new(
        link: Link<B>,
        endpoint: &Arc<Endpoint>,
        dies: Option<Instant>,
        permit: Option<Permit>,
    ) -> Self {
        Self {
            link,
            served: 0,
            dies,
            _rights: Some((Open::new(endpoint), permit)),
        }
    }

    /// An exchange on a connection that is shared.
    pub(super) fn shared(session: &Session<B>, now: Instant) -> Self
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self {
            link: Link::Http2(session.stream(now)),
            served: 0,
            dies: None,
            _rights: None,
        }
    }
}

impl<B> Slot<B> {
    /// Until when one of its shared connections takes no exchanges, if one does.
    pub(super) fn leaves_until(&self, now: Instant) -> Option<Instant> {
        let sessions = self.sessions.borrow();
        sessions
            .iter()
            .filter_map(|session| session.leaves_until(now))
            .min()
    }

    /// Since when its oldest connection idles.
    fn idle_since(&self) -> Option<Instant> {
        let sessions = self.sessions.borrow();
        let shared = sessions.iter().filter_map(Session::idle_since).min();
        shared.or(self.idle.borrow().first().map(|kept| kept.since))
    }

    /// Closes the one that has idled longest.
    fn close_one(&self) {
        let mut sessions = self.sessions.borrow_mut();
        let idle = |(at, session): (usize, &Session<B>)| Some((session.idle_since()?, at));
        if let Some((_, at)) = sessions.iter().enumerate().filter_map(idle).min() {
            let closed = sessions.remove(at);
            drop((sessions, closed));
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            let closed = idle.remove(0);
            drop((idle, closed));
        }
    }
}

impl<B> Slot<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A kept connection that can take a request at once. `now` may be a moment ago.
    pub(super) fn take(&self, idle: Duration, now: Instant) -> Option<Conn<B>> {
        if !self.sessions.borrow().is_empty() {
            let sessions = self.sessions.borrow();
            let roomy = sessions.iter().find(|session| session.has_room(now));
            return roomy.map(|session| Conn::shared(session, now));
        }
        let mut pool = self.idle.borrow_mut();
        let mut at = pool.len();
        while at > 0 {
            at -= 1;
            let mut kept = pool.remove(at);
            if now.saturating_duration_since(kept.since) < idle && !kept.conn.link.is_closed() {
                return Some(kept.conn);
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len() + self.sessions.borrow().len()
    }

    /// Shares a new connection. Its first exchange.
    pub(super) fn share(&self, session: Session<B>) -> Conn<B> {
        let conn = Conn::shared(&session, Instant::now());
        self.sessions.borrow_mut().push(session);
        conn
    }

    pub(super) fn prune(&self, idle: Duration) {
        let now = Instant::now();
        self.sessions
            .borrow_mut()
            .retain(|session| !session.is_over(now, idle));
        self.idle.borrow_mut().retain_mut(|kept| {
            let old = now.saturating_duration_since(kept.since) >= idle;
            !old && kept.conn.dies.is_none_or(|dies| now < dies) && !kept.conn.link.is_closed()
        });
    }
}

impl<B> Local<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(upstream: &Arc<Upstream>) -> Self {
        let caps = &upstream.model.caps;
        Self {
            upstream: Arc::downgrade(upstream),
            turn: RefCell::default(),
            view: RefCell::new(Rc::new(View::of(upstream, None))),
            breaker: upstream
                .breaker
                .clone()
                .filter(|breaker| breaker.caps_connections()),
            most_served: caps.connection_requests.map_or(u32::MAX, std::num::NonZero::get),
            keeps: upstream.model.proxy_protocol.is_none(),
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// The endpoints there are now.
    pub(super) fn view(&self, upstream: &Upstream) -> Rc<View<B>> {
        let mut view = self.view.borrow_mut();
        if view.version != upstream.version.load(std::sync::atomic::Ordering::Acquire) {
            *view = Rc::new(View::of(upstream, Some(&view)));
        }
        Rc::clone(&view)
    }
}

impl<B> Local<B> {
    pub(super) fn seen(&self) -> Rc<View<B>> {
        Rc::clone(&self.view.borrow())
    }

    /// Closes as many connections as requests of other workers wait for.
    pub(super) fn give_way(&self) {
        let waiting = self.breaker.as_ref().map_or(0, |breaker| breaker.waiting());
        for _ in self.waiting.get()..waiting {
            if !self.close_one() {
                self.retire_one();
                return;
            }
        }
    }

    /// Closes the connection that has idled longest; whether there was one.
    pub(super) fn close_one(&self) -> bool {
        let view = self.seen();
        let oldest = view
            .slots
            .iter()
            .filter_map(|slot| Some((slot.idle_since()?, slot)))
            .min_by_key(|(since, _)| *since);
        let Some((_, slot)) = oldest else { return false };
        slot.close_one();
        true
    }

    /// Has a shared connection take no exchanges for a while, as one that is always in use would never be given up. One at a
    /// time: a worker that waits for its own successor is served meanwhile by the others.
    pub(super) fn retire_one(&self) {
        let Some(breaker) = &self.breaker else { return };
        let (view, now) = (self.seen(), Instant::now());
        let leaving = |slot: &Rc<Slot<B>>| slot.leaves_until(now).is_some();
        if view.slots.iter().any(leaving) {
            return;
        }
        let candidate = |slot: &Rc<Slot<B>>| {
            let sessions = slot.sessions.borrow();
            let able = sessions.iter().filter(|session| session.may_leave(now));
            able.map(Session::since).min()
        };
        let oldest = view
            .slots
            .iter()
            .filter_map(|slot| Some((candidate(slot)?, slot)))
            .min_by_key(|(since, _)| *since);
        let Some((since, slot)) = oldest else { return };
        let sessions = slot.sessions.borrow();
        let chosen = sessions
            .iter()
            .find(|session| session.may_leave(now) && session.since() == since);
        if let Some(session) = chosen {
            session.leave(now + breaker.patience / LEAVE_SHARE);
        }
    }

    /// Ends the use of a connection that is not to be kept, and lets those know who wait for one.
    pub(super) fn part(&self, conn: Conn<B>) {
        let shared = matches!(conn.link, Link::Http2(_));
        drop(conn);
        let Some(breaker) = self.breaker.as_ref().filter(|_| shared) else {
            return;
        };
        let now = Instant::now();
        for slot in &self.seen().slots {
            let left = |session: &Session<B>| session.is_leaving(now) && session.idle_since().is_some();
            slot.sessions.borrow_mut().retain(|session| !left(session));
        }
        // In this worker someone gets the room on the connection, in another the right to its own.
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        } else if breaker.waiting() > 0 {
            self.give_way();
        }
    }
}

impl<B> View<B> {
    fn of(upstream: &Upstream, before: Option<&Self>) -> Self {
        // The version first: if the endpoints change meanwhile, the next look finds an old version.
        let version = upstream.version.load(std::sync::atomic::Ordering::Acquire);
        let endpoints = upstream.endpoints();
        let kept = |endpoint: &Arc<Endpoint>| {
            let before = before?;
            let at = before.endpoints.iter().position(|e| Arc::ptr_eq(e, endpoint))?;
            before.slots.get(at).cloned()
        };
        let fresh = || {
            Rc::new(Slot {
                idle: RefCell::default(),
                sessions: RefCell::default(),
                opening: tokio::sync::Mutex::new(()),
            })
        };
        let slots = endpoints.iter().map(|e| kept(e).unwrap_or_else(fresh)).collect();
        Self {
            version,
            endpoints,
            slots,
        }
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(
        conn: Conn<B>,
        slot: &Rc<Slot<B>>,
        local: &Rc<Local<B>>,
        in_flight: InFlight,
        idle_connections: usize,
        place: Option<Place>,
    ) -> Self {
        Self {
            conn: Some(conn),
            slot: Rc::clone(slot),
            local: Rc::clone(local),
            in_flight,
            idle_connections,
            place,
        }
    }

    /// Name of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<str> {
        self.in_flight.endpoint().name()
    }

    /// The cookie that brings the client back here, unless it has it already.
    #[must_use]
    pub fn set_cookie(&self, sent: Option<&str>, tls: bool) -> Option<&HeaderValue> {
        let endpoint = self.in_flight.endpoint();
        if sent.is_some_and(|cookie| endpoint.is_named(cookie)) {
            return None;
        }
        endpoint.set_cookie(tls)
    }

    /// Gives back the place among the requests under way.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// The next piece of the response's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.conn {
            Some(conn) => conn.link.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    /// Behind a 101, the bytes of another protocol. `None` if the connection is gone.
    pub fn tunnel(&mut self) -> Option<&mut Connection<B>> {
        self.conn.as_mut().and_then(|conn| conn.link.tunnel())
    }

    /// Whether the response has been read to its end.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.conn.as_ref().is_none_or(|conn| conn.link.is_read())
    }

    /// What is known of the length of what is left of the response.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.conn
            .as_ref()
            .map_or_else(SizeHint::default, |conn| conn.link.size_hint())
    }

    /// Keeps the connection for the next request, if the response has been read to its end; else it is closed.
    pub fn keep(mut self) {
        // Else it is closed as the lease is dropped.
        let Some(mut conn) = self
            .conn
            .take_if(|conn| conn.link.is_read() && !conn.link.is_shared())
        else {
            return;
        };
        conn.served = conn.served.saturating_add(1);
        if !self.local.keeps || !conn.link.rest() || conn.served >= self.local.most_served {
            return;
        }
        let since = Instant::now();
        if conn.dies.is_some_and(|dies| since >= dies) || self.in_flight.endpoint().is_gone() {
            return;
        }
        if let Some(breaker) = &self.local.breaker
            && breaker.waiting() > 0
        {
            // Someone waits for a connection: in this worker it gets this one, in another the right to its own.
            if self.local.waiting.get() == 0 {
                return;
            }
            self.local.freed.notify_one();
        }
        let mut pool = self.slot.idle.borrow_mut();
        if pool.len() < self.idle_connections {
            pool.push(Idle { conn, since });
        }
    }
}

impl<B> Drop for Lease<B> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.local.part(conn);
        }
    }
}
