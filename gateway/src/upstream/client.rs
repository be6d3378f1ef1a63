//! One worker's way to all upstreams: which endpoint, deadlines, and the one retry that is always safe.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, response};
use http_body::Body;
use tokio::time::timeout;

use super::link::{Broken, Link};
use super::pool::{InFlight, Lease, Local};
use super::{Upstream, connect};
use crate::http1::Error;

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
    Exchange(Error),
    /// The answer did not begin in time.
    ResponseTimeout,
}

/// A response's header; the body is still to come, by the lease.
#[derive(Debug)]
pub struct Sent<B> {
    pub head: response::Parts,
    pub lease: Lease<B>,
}

/// The pools of one worker.
#[derive(Debug)]
pub struct Client<B> {
    locals: RefCell<HashMap<u64, Rc<Local<B>>>>,
    random: Cell<u64>,
}

impl<B> Client<B>
where
    B: Body<Data = Bytes> + Unpin,
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
        if let Some(link) = local.take(index, deadlines.idle) {
            upstream.metrics.reuses.inc();
            match exchange(link, &local, upstream, index, request, deadlines, &respond_by).await {
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
                Ok(link) => {
                    let sent = exchange(link, &local, upstream, index, request, deadlines, &respond_by).await;
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
                pool.retain_mut(|kept| kept.since.elapsed() < idle && !kept.link.is_closed());
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

    async fn open(&self, upstream: &Upstream, index: usize, limit: Duration) -> Result<Link<B>, Failure> {
        let endpoint = &upstream.endpoints[index];
        let connecting = async {
            let transport = connect::connect(endpoint, upstream.tls.as_ref()).await?;
            Link::open(transport, &endpoint.name).await
        };
        let link = timeout(limit, connecting)
            .await
            .map_err(|_| Failure::ConnectTimeout)?
            .map_err(Failure::Connect)?;
        upstream.metrics.connects.inc();
        Ok(link)
    }
}

fn no_endpoint() -> Failure {
    Failure::Connect(std::io::Error::other("no endpoint"))
}

async fn exchange<B, T: Future<Output = ()>>(
    mut link: Link<B>,
    local: &Rc<Local<B>>,
    upstream: &Arc<Upstream>,
    index: usize,
    request: Request<B>,
    deadlines: &Deadlines,
    respond_by: &impl Fn() -> T,
) -> Result<Sent<B>, Broken<B>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let in_flight = InFlight::new(upstream, index);
    let head = tokio::select! {
        biased;
        answer = link.send(request) => answer?,
        () = respond_by() => {
            return Err(Broken { failure: Failure::ResponseTimeout, request: None, silent: false });
        }
    };
    let lease = Lease::new(link, local, in_flight, deadlines.idle_connections);
    Ok(Sent { head, lease })
}
