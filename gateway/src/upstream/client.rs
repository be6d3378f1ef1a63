//! One worker's way to all upstreams: which endpoint, deadlines, and what is tried again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::response;
use http_body::Body;
use tokio::time::{Instant, timeout};

use super::Upstream;
use super::balance::Choice;
use super::breaker::Place;
use super::endpoint::InFlight;
use super::link::{Broken, Error, Link, Outbound};
use super::pool::{Conn, Lease, Local, Slot, View};
use super::reason::Shortage;
use super::retry::Cause;
use crate::telemetry::metrics::Rare;

mod open;
mod race;

use open::Opened;

/// How many different endpoints one request may try to reach where nothing is said about retries.
const CONNECT_ATTEMPTS: u32 = 3;
/// Kept connections that one try may find closed.
const STALE_MOST: u32 = 3;

/// Times and sizes that hold for one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// When it begins, read from the clock a moment ago.
    pub now: Instant,
    pub connect: Duration,
    /// Longest idle time of a kept connection.
    pub idle: Duration,
    /// Kept connections for one endpoint.
    pub idle_connections: usize,
}

/// Takes interim answers (1xx), but `100 Continue` and 101, while the answer is waited for.
#[derive(Clone, Copy)]
pub struct Hints<'a>(pub &'a dyn Fn(response::Parts));

impl std::fmt::Debug for Hints<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hints")
    }
}

/// What a request wishes for beside being sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// See [`super::key`].
    pub key: Option<u64>,
    /// Value of the cookie that names an endpoint.
    pub cookie: Option<&'a str>,
    /// The client, for PROXY protocol.
    pub source: Option<IpAddr>,
    /// Whether it can be made again, so that a try may be given up.
    pub repeatable: bool,
    /// Who wants to see interim answers.
    pub hints: Option<Hints<'a>>,
}

/// Why there is no response.
#[derive(Debug)]
pub enum Failure {
    /// No endpoint could be reached; the last reason.
    Connect(std::io::Error),
    /// No endpoint took the connection in time.
    ConnectTimeout,
    /// The gateway lacks what one more connection takes.
    Short(Shortage),
    /// The connection was made, and broke before a response's header ended, or what came is not HTTP.
    Exchange(Error),
    /// The answer did not begin in the time of one try, though there would have been more.
    TryTimeout,
    /// The answer did not begin in the time of all tries.
    ResponseTimeout,
    /// The upstream's caps are reached.
    Overloaded,
    /// No endpoint is well.
    Unwell,
    /// Its name has no address.
    Unresolved,
}

/// The end of all tries.
#[derive(Debug)]
pub struct Failed {
    pub failure: Failure,
    /// The last one tried.
    pub endpoint: Option<Arc<str>>,
    pub tries: u32,
}

/// A response's header; the body is still to come, by the lease.
#[derive(Debug)]
pub struct Sent<B> {
    pub head: response::Parts,
    pub lease: Lease<B>,
    /// Endpoints tried, this one included.
    pub tries: u32,
}

/// The pools of one worker.
#[derive(Debug)]
pub struct Client<B> {
    locals: RefCell<HashMap<u64, Rc<Local<B>>>>,
    random: Cell<u64>,
}

/// What holds for all tries of one request.
struct Course<'a, B> {
    client: &'a Client<B>,
    upstream: &'a Arc<Upstream>,
    local: &'a Rc<Local<B>>,
    view: &'a View<B>,
    deadlines: &'a Deadlines,
    wish: &'a Wish<'a>,
}

/// Which endpoint a request is to reach, and which it has been tried on.
struct Reach {
    index: usize,
    /// Others, none of which is to be tried again.
    tried: Vec<usize>,
    /// Endpoints so far, this one included.
    tries: u32,
    /// How long it has waited for others before it might open a connection.
    waited: Duration,
}

/// A try without a response.
struct Lost {
    failure: Failure,
    cause: Cause,
    /// Whether no byte of the request was taken.
    unsent: bool,
    /// Whether it speaks against the endpoint.
    counts: bool,
}

impl<B> Client<B>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Without connections. `seed` varies the draws between workers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            locals: RefCell::default(),
            random: Cell::new(seed | 1),
        }
    }

    /// Sends a request and waits for the response's header.
    ///
    /// `respond_by` resolves when the answer is overdue; it is made anew for each attempt, with the time at which that begins,
    /// and nothing is tried again when it has resolved. What [`Wish::repeatable`] says of is made again where a kept connection turned out to be closed before any
    /// byte of a response, and for what the upstream's retries cover.
    pub async fn send<T: Future<Output = ()>>(
        &self,
        upstream: &Arc<Upstream>,
        request: &mut Outbound<B>,
        deadlines: &Deadlines,
        wish: &Wish<'_>,
        respond_by: impl Fn(Instant) -> T,
    ) -> Result<Sent<B>, Failed> {
        let mut place = enter(upstream)?;
        let local = self.local(upstream);
        let view = local.view(upstream);
        let view = if view.endpoints.is_empty() {
            Box::pin(resolved(upstream, &local, deadlines.connect)).await?
        } else {
            view
        };
        let course = Course {
            client: self,
            upstream,
            local: &local,
            view: &view,
            deadlines,
            wish,
        };
        let index = self
            .pick(&course, &[])
            .ok_or_else(|| Failed::untried(Failure::Unwell))?;
        let mut reach = Reach {
            index,
            tried: Vec::new(),
            tries: 0,
            waited: Duration::ZERO,
        };
        loop {
            reach.tries += 1;
            let attempted = attempt(&course, &mut reach, request, &mut place, &respond_by).await;
            let (endpoint, tries) = (&view.endpoints[reach.index], reach.tries);
            let (cause, failure) = match attempted {
                Ok(sent) => {
                    let status = sent.head.status;
                    upstream.fared(endpoint, !status.is_server_error());
                    let cause = Cause::Status(status);
                    if !course.covers(cause, tries) {
                        return Ok(sent);
                    }
                    if !course.may_repeat(request, false) {
                        return Ok(sent);
                    }
                    let Some(next) = self.another(&course, &mut reach) else {
                        return Ok(sent);
                    };
                    if !course.pays() {
                        return Ok(sent);
                    }
                    tracing::debug!(endpoint = %endpoint.name(), %status, "tried again elsewhere");
                    place = sent.give_up();
                    reach.index = next;
                    continue;
                }
                Err(lost) => {
                    upstream.metrics.failures.inc();
                    if lost.counts {
                        upstream.fared(endpoint, false);
                    }
                    if course.covers(lost.cause, tries)
                        && course.may_repeat(request, lost.unsent)
                        && let Some(next) = self.another(&course, &mut reach)
                        && course.pays()
                    {
                        tracing::debug!(endpoint = %endpoint.name(), failure = ?lost.failure, "tried again elsewhere");
                        if lost.cause != Cause::Connect {
                            upstream.metrics.retries.inc();
                        }
                        reach.index = next;
                        continue;
                    }
                    (lost.cause, lost.failure)
                }
            };
            tracing::debug!(endpoint = %endpoint.name(), ?cause, tries, "no answer");
            return Err(Failed {
                failure,
                endpoint: Some(Arc::clone(endpoint.name())),
                tries,
            });
        }
    }

    /// Closes what has been idle for longer than `idle`, and forgets upstreams that are configured no more.
    pub fn prune(&self, idle: Duration) {
        self.locals.borrow_mut().retain(|_, local| {
            for slot in &local.seen().slots {
                slot.prune(idle);
            }
            local.upstream.strong_count() > 0
        });
    }

    /// Kept connections, for tests and status.
    #[must_use]
    pub fn idle(&self) -> usize {
        let kept = |local: &Rc<Local<B>>| local.seen().slots.iter().map(|slot| slot.len()).sum::<usize>();
        self.locals.borrow().values().map(kept).sum()
    }

    fn local(&self, upstream: &Arc<Upstream>) -> Rc<Local<B>> {
        let mut locals = self.locals.borrow_mut();
        let local = locals.entry(upstream.id).or_insert_with(|| {
            let local = Rc::new(Local::new(upstream));
            open::yield_when_squeezed(upstream, &local);
            local
        });
        Rc::clone(local)
    }

    fn pick(&self, course: &Course<'_, B>, tried: &[usize]) -> Option<usize> {
        let upstream = course.upstream;
        let choice = Choice {
            endpoints: &course.view.endpoints,
            sifted: upstream.sifted.load(Ordering::Relaxed),
            tried,
        };
        if let Some(named) = course.wish.cookie.and_then(|cookie| choice.named(cookie)) {
            return Some(named);
        }
        let mut turn = course.local.turn.borrow_mut();
        turn.pick(upstream.model.balance, &choice, course.wish.key, || self.draw())
    }

    /// The next one to try.
    fn another(&self, course: &Course<'_, B>, reach: &mut Reach) -> Option<usize> {
        reach.tried.push(reach.index);
        self.pick(course, &reach.tried)
    }

    /// An even number that nobody should rely on. xorshift64: picking endpoints needs spread, not secrecy.
    pub fn draw(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x >> 16
    }
}

impl<B: Default> Course<'_, B> {
    /// Whether the request can be sent once more. If it has been sent, that is so only if it may be repeated; then it has
    /// no body, and one that was taken is made again.
    fn may_repeat(&self, request: &mut Outbound<B>, unsent: bool) -> bool {
        if self.wish.repeatable {
            request.body.get_or_insert_default();
        }
        request.body.is_some() && (unsent || self.wish.repeatable)
    }
}

impl<B> Course<'_, B> {
    /// Whether what failed like this may be tried again.
    fn covers(&self, cause: Cause, tries: u32) -> bool {
        match &self.upstream.model.retries {
            None => cause == Cause::Connect && tries < CONNECT_ATTEMPTS,
            Some(retries) => tries < retries.attempts && retries.covers(cause),
        }
    }

    /// A kept connection that can take the request at once. What can not be made again if it was sent into a closing
    /// connection is not sent into one whose close has arrived. `now` may be a moment ago.
    fn kept(&self, slot: &Slot<B>, now: Instant) -> Option<Conn<B>>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        loop {
            let mut conn = slot.take(self.deadlines.idle, now)?;
            if self.wish.repeatable || !conn.link.is_closed_now() {
                return Some(conn);
            }
        }
    }

    /// Whether the budget covers one more try.
    fn pays(&self) -> bool {
        let pays = self
            .upstream
            .budget
            .as_ref()
            .is_none_or(super::retry::Budget::withdraw);
        if !pays {
            self.upstream.metrics.count(Rare::Unpaid);
        }
        pays
    }

    /// How long this try may take, if there may be another.
    fn per_try(&self, tries: u32) -> Option<Duration> {
        let retries = self.upstream.model.retries.as_ref()?;
        let may = retries.timeout
            && self.wish.repeatable
            && tries < retries.attempts
            && self.view.endpoints.len() > 1;
        retries.per_try.filter(|_| may)
    }
}

impl Failed {
    fn untried(failure: Failure) -> Self {
        Self {
            failure,
            endpoint: None,
            tries: 0,
        }
    }
}

impl<B> Sent<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Forgets the response. The connection is kept if there is nothing more to read from it.
    fn give_up(mut self) -> Option<Place> {
        let place = self.lease.take_place();
        self.lease.keep();
        place
    }
}

/// A place among the requests under way, and its part of the retries' budget.
fn enter(upstream: &Upstream) -> Result<Option<Place>, Failed> {
    if let Some(budget) = &upstream.budget {
        budget.deposit();
    }
    let Some(breaker) = &upstream.breaker else {
        return Ok(None);
    };
    breaker.enter().map_err(|_| {
        upstream.metrics.count(Rare::Overload);
        Failed::untried(Failure::Overloaded)
    })
}

/// Waits until there is an endpoint, for an upstream whose names have not been looked up yet.
async fn resolved<B>(
    upstream: &Upstream,
    local: &Rc<Local<B>>,
    limit: Duration,
) -> Result<Rc<View<B>>, Failed>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Without names there is an endpoint from the beginning.
    let care = upstream
        .care
        .as_ref()
        .ok_or_else(|| Failed::untried(Failure::Unresolved))?;
    let mut changed = care.changed.subscribe();
    let wait = async {
        loop {
            let view = local.view(upstream);
            if !view.endpoints.is_empty() {
                return Some(view);
            }
            if care.lost.load(Ordering::Relaxed) || changed.changed().await.is_err() {
                return None;
            }
        }
    };
    let view = timeout(limit, wait).await.ok().flatten();
    view.ok_or_else(|| Failed::untried(Failure::Unresolved))
}

/// One try at one endpoint: on a kept connection if there is one, else on a new one.
async fn attempt<B, T>(
    course: &Course<'_, B>,
    reach: &mut Reach,
    request: &mut Outbound<B>,
    place: &mut Option<Place>,
    respond_by: &impl Fn(Instant) -> T,
) -> Result<Sent<B>, Lost>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: Future<Output = ()>,
{
    let (upstream, deadlines) = (course.upstream, course.deadlines);
    let mut now = if reach.tries == 1 {
        deadlines.now
    } else {
        Instant::now()
    };
    let mut kept = course.kept(&course.view.slots[reach.index], now);
    let mut stale = 0;
    loop {
        let opened = match kept.take() {
            Some(conn) => Opened::Kept(conn),
            // Apart: most requests find a connection, and need not have room for this.
            None => {
                let opened = Box::pin(open::open(course, reach)).await;
                now = Instant::now();
                opened.map_err(Lost::before)?
            }
        };
        let (mut conn, reused) = match opened {
            Opened::New(conn) => (conn, false),
            Opened::Kept(conn) => {
                upstream.metrics.reuses.inc();
                (conn, true)
            }
        };
        let (endpoint, slot) = (
            &course.view.endpoints[reach.index],
            &course.view.slots[reach.index],
        );
        let in_flight = InFlight::new(endpoint);
        let hints = course.wish.hints;
        let respond_by = || respond_by(now);
        let per_try = course.per_try(reach.tries);
        match exchange(&mut conn.link, request, hints, respond_by, per_try).await {
            Ok(head) => {
                let kept_most = deadlines.idle_connections;
                let lease = Lease::new(conn, slot, course.local, in_flight, kept_most, place.take());
                let tries = reach.tries;
                return Ok(Sent { head, lease, tries });
            }
            Err(broken) => {
                // It never left: always safe. Or the connection had been closed meanwhile, which is nobody's fault.
                let lost = (reused && (broken.unsent || broken.silent)) || broken.refused;
                let lost = lost && stale < STALE_MOST;
                course.local.part(conn);
                if !(lost && course.may_repeat(request, broken.unsent)) {
                    return Err(Lost::after(broken));
                }
                stale += 1;
                upstream.metrics.retries.inc();
            }
        }
    }
}

impl Lost {
    /// No connection.
    fn before(failure: Failure) -> Self {
        // What is lacking here is lacking for every endpoint, but for ports; none of it is the endpoint's fault.
        let (cause, counts) = match failure {
            Failure::Overloaded | Failure::Short(Shortage::Descriptors | Shortage::Memory) => {
                (Cause::Malformed, false)
            }
            Failure::Short(Shortage::Ports) => (Cause::Connect, false),
            _ => (Cause::Connect, true),
        };
        Self {
            failure,
            cause,
            unsent: true,
            counts,
        }
    }

    /// A connection, and no answer.
    fn after(broken: Broken) -> Self {
        let cause = match broken.failure {
            Failure::TryTimeout => Cause::Timeout,
            Failure::ResponseTimeout => Cause::Overdue,
            _ if broken.silent || broken.unsent => Cause::Reset,
            _ => Cause::Malformed,
        };
        // What is neither may be the client's doing, whose body broke off.
        let counts = cause != Cause::Malformed;
        Self {
            failure: broken.failure,
            cause,
            unsent: broken.unsent,
            counts,
        }
    }
}

async fn exchange<B, T: Future<Output = ()>>(
    link: &mut Link<B>,
    request: &mut Outbound<B>,
    hints: Option<Hints<'_>>,
    respond_by: impl FnOnce() -> T,
    per_try: Option<Duration>,
) -> Result<response::Parts, Broken>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let overdue = async {
        let expired = match per_try {
            None => {
                respond_by().await;
                false
            }
            Some(limit) => timeout(limit, respond_by()).await.is_err(),
        };
        if expired {
            Failure::TryTimeout
        } else {
            Failure::ResponseTimeout
        }
    };
    tokio::select! {
        biased;
        answer = link.send(request, hints) => answer,
        failure = overdue => Err(Broken { failure, unsent: false, silent: false, refused: false }),
    }
}
