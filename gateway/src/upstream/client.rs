//! One worker's connections to all upstreams: pools, deadlines, and the one retry that is always safe.
//!
//! Kept connections are taken last in, first out, so that what is not needed grows old and is closed. A connection
//! goes back when its response has been read to the end; whoever drops a [`Lease`] earlier closes the connection,
//! since nothing may be read from it that belonged to somebody else's response.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::balance::Turn;
use super::{Upstream, connect};

/// How many different endpoints one request may try to reach.
const CONNECT_ATTEMPTS: usize = 3;

/// Times and sizes that hold for one exchange.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    pub connect: Duration,
    /// Longest idle time of a kept connection.
    pub idle: Duration,
    /// Kept connections for one endpoint.
    pub idle_connections: usize,
}

/// Why there is no response.
#[derive(Debug)]
pub enum Failure {
    /// No endpoint could be reached; the last reason.
    Connect(std::io::Error),
    /// No endpoint took the connection in time.
    ConnectTimeout,
    /// The connection was made, and broke before a response's header ended, or what came is not HTTP.
    Exchange(hyper::Error),
    /// The answer did not begin in time.
    ResponseTimeout,
}

/// A response's header, with the body still to come.
#[derive(Debug)]
pub struct Sent<B> {
    pub response: Response<Incoming>,
    pub lease: Lease<B>,
}

/// The connection a response is coming from. Call [`Lease::keep`] at the end of the response, or drop it to close.
#[derive(Debug)]
pub struct Lease<B> {
    sender: Option<SendRequest<B>>,
    local: Rc<Local<B>>,
    in_flight: InFlight,
    idle_connections: usize,
}

/// Counts a request in an endpoint's load for as long as it lives.
#[derive(Debug)]
struct InFlight {
    upstream: Arc<Upstream>,
    index: usize,
}

/// Kept connections and turn of one upstream.
#[derive(Debug)]
struct Local<B> {
    upstream: Weak<Upstream>,
    turn: RefCell<Turn>,
    idle: RefCell<Vec<Vec<Idle<B>>>>,
}

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    since: Instant,
}

/// The pools of one worker.
#[derive(Debug)]
pub struct Client<B> {
    locals: RefCell<HashMap<u64, Rc<Local<B>>>>,
    random: Cell<u64>,
}

impl<B> Client<B>
where
    B: Body + 'static,
    B::Data: Send,
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
    /// `respond_by` resolves when the answer is overdue; it is made anew for each attempt. `again` makes the request
    /// a second time; it is called only if a kept connection turned out to be closed before any byte of a response,
    /// and returns `None` if repeating would not be safe.
    pub async fn send<T: Future<Output = ()>>(
        &self,
        upstream: &Arc<Upstream>,
        request: Request<B>,
        deadlines: &Deadlines,
        respond_by: impl Fn() -> T,
        again: impl FnOnce() -> Option<Request<B>>,
    ) -> Result<Sent<B>, Failure> {
        let local = self.local(upstream);
        let mut tried = Vec::new();
        let index = self.pick(upstream, &local, &tried).ok_or_else(no_endpoint)?;
        let mut request = request;
        if let Some(sender) = local.take(index, deadlines.idle) {
            upstream.metrics.reuses.inc();
            match exchange(sender, &local, upstream, index, request, deadlines, &respond_by).await {
                Ok(sent) => return Ok(sent),
                Err(broken) => {
                    let repeat = match broken.request {
                        // It never left: always safe.
                        Some(unsent) => Some(*unsent),
                        None if broken.silent => again(),
                        None => None,
                    };
                    let Some(repeat) = repeat else {
                        upstream.metrics.failures.inc();
                        return Err(broken.failure);
                    };
                    upstream.metrics.retries.inc();
                    request = repeat;
                }
            }
        }
        // A fresh connection, at the next endpoint if this one can not be reached.
        let mut index = index;
        loop {
            match self.open(upstream, index, deadlines.connect).await {
                Ok(sender) => {
                    let sent =
                        exchange(sender, &local, upstream, index, request, deadlines, &respond_by).await;
                    return sent.map_err(|broken| {
                        upstream.metrics.failures.inc();
                        broken.failure
                    });
                }
                Err(failure) => {
                    upstream.metrics.failures.inc();
                    tracing::debug!(endpoint = %upstream.endpoints[index].name, ?failure, "could not connect");
                    tried.push(index);
                    if tried.len() >= CONNECT_ATTEMPTS {
                        return Err(failure);
                    }
                    index = self.pick(upstream, &local, &tried).ok_or(failure)?;
                }
            }
        }
    }

    /// Closes what has been idle for longer than `idle`, and forgets upstreams that are configured no more.
    pub fn prune(&self, idle: Duration) {
        self.locals.borrow_mut().retain(|_, local| {
            for pool in local.idle.borrow_mut().iter_mut() {
                pool.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < idle);
            }
            local.upstream.strong_count() > 0
        });
    }

    /// Kept connections, for tests and status.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.locals
            .borrow()
            .values()
            .map(|l| l.idle.borrow().iter().map(Vec::len).sum::<usize>())
            .sum()
    }

    fn local(&self, upstream: &Arc<Upstream>) -> Rc<Local<B>> {
        let mut locals = self.locals.borrow_mut();
        let local = locals.entry(upstream.id).or_insert_with(|| {
            let idle = RefCell::new((0..upstream.endpoints.len()).map(|_| Vec::new()).collect());
            Rc::new(Local {
                upstream: Arc::downgrade(upstream),
                turn: RefCell::default(),
                idle,
            })
        });
        Rc::clone(local)
    }

    fn pick(&self, upstream: &Upstream, local: &Local<B>, tried: &[usize]) -> Option<usize> {
        let random = || {
            // xorshift64: picking endpoints needs spread, not secrecy.
            let mut x = self.random.get();
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            self.random.set(x);
            x >> 16
        };
        local
            .turn
            .borrow_mut()
            .pick(upstream.model.balance, &upstream.endpoints, tried, random)
    }

    async fn open(
        &self,
        upstream: &Upstream,
        index: usize,
        limit: Duration,
    ) -> Result<SendRequest<B>, Failure> {
        let connecting = async {
            let transport = connect::connect(&upstream.endpoints[index], upstream.tls.as_ref()).await?;
            http1::Builder::new()
                .max_buf_size(BUFFER)
                .handshake::<_, B>(TokioIo::new(transport))
                .await
                .map_err(std::io::Error::other)
        };
        let (sender, connection) = timeout(limit, connecting)
            .await
            .map_err(|_| Failure::ConnectTimeout)?
            .map_err(Failure::Connect)?;
        upstream.metrics.connects.inc();
        let name = Arc::clone(&upstream.endpoints[index].name);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(endpoint = %name, %error, "upstream connection ended");
            }
        });
        Ok(sender)
    }
}

fn no_endpoint() -> Failure {
    Failure::Connect(std::io::Error::other("no endpoint"))
}

/// Most bytes that are read from an upstream at a time, and the most that a response's header can have. It is what a
/// client that does not read makes us hold, several times over.
const BUFFER: usize = 32 << 10;

/// An exchange without a response.
struct Broken<B> {
    failure: Failure,
    /// The request, if no byte of it was taken.
    request: Option<Box<Request<B>>>,
    /// Whether the connection closed without a byte of a response.
    silent: bool,
}

async fn exchange<B, T: Future<Output = ()>>(
    mut sender: SendRequest<B>,
    local: &Rc<Local<B>>,
    upstream: &Arc<Upstream>,
    index: usize,
    request: Request<B>,
    deadlines: &Deadlines,
    respond_by: &impl Fn() -> T,
) -> Result<Sent<B>, Broken<B>>
where
    B: Body + 'static,
{
    let in_flight = InFlight::new(upstream, index);
    let answer = tokio::select! {
        biased;
        answer = sender.try_send_request(request) => answer,
        () = respond_by() => {
            return Err(Broken { failure: Failure::ResponseTimeout, request: None, silent: false });
        }
    };
    match answer {
        Ok(response) => {
            let idle_connections = deadlines.idle_connections;
            let lease = Lease {
                sender: Some(sender),
                local: Rc::clone(local),
                in_flight,
                idle_connections,
            };
            Ok(Sent { response, lease })
        }
        Err(mut error) => {
            let request = error.take_message().map(Box::new);
            let error = error.into_error();
            let silent = error.is_incomplete_message() || error.is_canceled() || reset(&error);
            Err(Broken {
                failure: Failure::Exchange(error),
                request,
                silent,
            })
        }
    }
}

/// Whether the other side reset the connection, which is how a close meets bytes that were under way.
fn reset(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<std::io::Error>());
    source.is_some_and(|e| matches!(e.kind(), BrokenPipe | ConnectionReset))
}

impl<B> Local<B> {
    /// A kept connection that can take a request at once.
    fn take(&self, index: usize, idle: Duration) -> Option<SendRequest<B>> {
        let mut pools = self.idle.borrow_mut();
        let pool = pools.get_mut(index)?;
        let mut at = pool.len();
        while at > 0 {
            at -= 1;
            if pool[at].sender.is_closed() || pool[at].since.elapsed() >= idle {
                pool.swap_remove(at);
            } else if pool[at].sender.is_ready() {
                return Some(pool.remove(at).sender);
            }
        }
        None
    }
}

impl<B> Lease<B> {
    /// `host:port` of the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<str> {
        self.in_flight.upstream.endpoints[self.in_flight.index].name()
    }

    /// Keeps the connection for the next request. Only after the response has been read to its end.
    pub fn keep(mut self) {
        let Some(sender) = self.sender.take() else { return };
        let mut pools = self.local.idle.borrow_mut();
        if let Some(pool) = pools.get_mut(self.in_flight.index)
            && pool.len() < self.idle_connections
            && !sender.is_closed()
        {
            pool.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }
}

impl InFlight {
    fn new(upstream: &Arc<Upstream>, index: usize) -> Self {
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
