//! What belongs to one worker thread: its connections to upstreams, its request ids, its view of the site.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use bytes::{BufMut, BytesMut};
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::body::{RequestBody, Unread};
use super::budget::Pool;
use super::client::{Client, Watch};
use super::connections::Connections;
use super::filter::Local;
use super::reject::Reject;
use super::site::{Route, Site, SiteHandle};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{NO_ROUTE, RouteMetrics};
use crate::upstream;

/// One log line of what is only observed in this time, for each worker.
const OBSERVED_EVERY: Duration = Duration::from_secs(1);

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Still serving, and clients are told with each answer to go elsewhere.
    Leaving,
    /// Nothing new; what is under way may finish until then.
    Draining(tokio::time::Instant),
}

impl Phase {
    /// Whether nothing new may begin.
    pub(super) const fn is_last(&self) -> bool {
        matches!(self, Self::Draining(_))
    }
}

pub(super) struct Worker {
    site: SiteHandle,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) connections: Arc<Connections>,
    pub(super) upstreams: upstream::Client<RequestBody>,
    /// Copies of requests that are under way.
    pub(super) mirrors: Cell<u32>,
    /// Counts what was refused before its route was known.
    pub(super) unrouted: RouteMetrics,
    /// Takes the HTTP/2 bodies that nobody wants to read to their end.
    pub(super) unread: Unread,
    /// What the answers to HTTP/2 clients hold in memory.
    pub(super) pool: Rc<Pool>,
    pub(super) phase: watch::Receiver<Phase>,
    /// Whether answers are to end their connections; kept here, as each of them asks.
    pub(super) leaving: Cell<bool>,
    /// Connections over the cap that are being answered.
    pub(super) surplus: Cell<u32>,
    /// Connections of this worker, and the news that the last has ended.
    open: Cell<usize>,
    emptied: Notify,
    /// Whether a request or a connection has ended since the last look.
    pub(super) busy: Cell<bool>,
    /// When the log last showed what was only observed.
    told: Cell<Option<Instant>>,
    ids: RefCell<Ids>,
    /// What chains remember.
    pub(super) local: Local,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("open", &self.open.get())
            .finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(
        site: SiteHandle,
        watch: Arc<dyn Watch>,
        metrics: Arc<Metrics>,
        connections: Arc<Connections>,
        phase: watch::Receiver<Phase>,
        unread: Unread,
        seed: [u64; 2],
    ) -> Self {
        Self {
            site,
            watch,
            connections,
            upstreams: upstream::Client::new(seed[0]),
            mirrors: Cell::new(0),
            unrouted: metrics.route(NO_ROUTE),
            metrics,
            unread,
            pool: Rc::default(),
            phase,
            leaving: Cell::new(false),
            surplus: Cell::new(0),
            open: Cell::new(0),
            emptied: Notify::new(),
            busy: Cell::new(false),
            told: Cell::new(None),
            ids: RefCell::new(Ids {
                state: seed,
                slab: BytesMut::new(),
            }),
            local: Local::default(),
        }
    }

    /// The site in force. Not to be held across an await.
    pub(super) fn site(&self) -> Guard<Arc<Site>> {
        self.site.load()
    }

    /// The one place where a refusal is told: counted, logged, and passed to who watches.
    pub(super) fn refused(&self, client: Client, route: Option<&Route>, reject: Reject) {
        let name = route.map_or(NO_ROUTE, |route| &route.name);
        self.metrics.rejected(name, reject.code());
        tracing::debug!(
            code = reject.code(),
            client = %client.effective(),
            socket = %client.socket.ip(),
            route = name,
            "refused"
        );
        self.watch.rejected(client, reject);
    }

    /// What a policy that only observes would have refused: counted, and logged now and then.
    pub(super) fn observed(&self, client: Client, route: &Route, reject: Reject) {
        self.metrics.observed(&route.name, reject.code());
        let now = Instant::now();
        if self.told.get().is_none_or(|last| now - last >= OBSERVED_EVERY) {
            self.told.set(Some(now));
            tracing::info!(
                code = reject.code(),
                client = %client.effective(),
                route = &*route.name,
                "would be refused, but is only observed; the metrics count all of these, the log shows one a second"
            );
        }
    }

    /// A new request id: 128 random bits in hexadecimal. Unique, not secret.
    pub(super) fn request_id(&self) -> HeaderValue {
        self.ids.borrow_mut().next()
    }

    /// The text of a `Date` line.
    pub(super) fn date(&self) -> [u8; 29] {
        self.local.date()
    }

    pub(super) fn opened(&self) {
        self.open.set(self.open.get() + 1);
    }

    pub(super) fn ended(&self) {
        self.open.set(self.open.get() - 1);
        self.busy.set(true);
        if self.open.get() == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves when no connection is open.
    pub(super) async fn empty(&self) {
        while self.open.get() > 0 {
            let emptied = self.emptied.notified();
            if self.open.get() > 0 {
                emptied.await;
            }
        }
    }
}

/// Request ids, cut from a slab so that most of them cost no allocation.
struct Ids {
    state: [u64; 2],
    slab: BytesMut,
}

impl Ids {
    fn next(&mut self) -> HeaderValue {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        const LENGTH: usize = 32;
        if self.slab.capacity() < LENGTH {
            self.slab = BytesMut::with_capacity(128 * LENGTH);
        }
        for word in [self.draw(), self.draw()] {
            for shift in (0..16).rev() {
                self.slab.put_u8(HEX[(word >> (shift * 4)) as usize & 15]);
            }
        }
        let id = self.slab.split().freeze();
        HeaderValue::from_maybe_shared(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }

    /// xorshift128+.
    fn draw(&mut self) -> u64 {
        let [mut x, y] = self.state;
        x ^= x << 23;
        x ^= (x >> 17) ^ y ^ (y >> 26);
        self.state = [y, x];
        x.wrapping_add(y)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_and_of_one_form() {
        let mut ids = Ids {
            state: [1, 2],
            slab: BytesMut::new(),
        };
        let made: HashSet<_> = (0..10_000)
            .map(|_| ids.next().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(made.len(), 10_000);
        assert!(
            made.iter()
                .all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        );
    }
}
