//! An admitted request on its way to the upstream, and what comes of it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, response};
use http_body::Body;
use tokio::time::{Instant, sleep_until};

use super::body::{Progress, RequestBody};
use super::client::Client;
use super::filter::{Admitted, Exchange};
use super::reject::Reject;
use super::site::Route;
use super::worker::Worker;
use super::{headers, mirror};
use crate::config::model::{Balance, HostRewrite, Limits};
use crate::http1::alarm::Alarm;
use crate::upstream::{self, Deadlines, Failed, Failure, Hints, Outbound, Sent, Upstream, Wish};

/// What is known of a request on its way, beside itself.
pub(super) struct Way<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) route: &'a Route,
    /// What the route's policy has learnt.
    pub(super) exchange: &'a Exchange,
    /// The first, if the route has several.
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) limits: &'a Limits,
    /// How long the answer's header may take.
    pub(super) patience: Duration,
    /// The time, read a moment ago.
    pub(super) now: Instant,
    pub(super) client: Client,
    /// Whether the client came by TLS.
    pub(super) tls: bool,
    /// The connection's own timer, if it has one request at a time.
    pub(super) alarm: Option<&'a RefCell<Alarm>>,
    /// Where interim answers go, if the client's protocol has a way for them.
    pub(super) hints: Option<&'a RefCell<Vec<response::Parts>>>,
}

/// What came back, and the cookie that goes with it.
pub(super) type Forwarded = (Sent<RequestBody>, Option<HeaderValue>);

impl Way<'_> {
    /// Resolves at a time. Under HTTP/1 the connection has one timer for all its requests.
    async fn until(&self, time: Instant) {
        match self.alarm {
            Some(alarm) => poll_fn(|cx| alarm.borrow_mut().poll(cx, time)).await,
            None => sleep_until(time).await,
        }
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        Deadlines {
            now: self.now,
            connect: self.limits.connect,
            idle: self.limits.upstream_idle,
            idle_connections: self.limits.upstream_idle_connections as usize,
        }
    }

    /// The route's upstream, or the one of several whose turn it is.
    fn pick(&self, headers: &HeaderMap) -> &Arc<Upstream> {
        let Some(split) = &self.route.split else {
            return self.upstream;
        };
        let key = split
            .by
            .as_ref()
            .and_then(|by| upstream::key(by, headers, self.client.effective()));
        let draw = key.unwrap_or_else(|| self.worker.upstreams.draw());
        split.at(draw).unwrap_or(self.upstream)
    }
}

/// Sends an admitted request to its route's upstream.
pub(super) async fn forward(
    _admitted: Admitted,
    way: &Way<'_>,
    request: &mut Outbound<RequestBody>,
    progress: Option<&Progress>,
) -> Result<Forwarded, Failed> {
    let (route, client) = (way.route, way.client);
    let deadlines = way.deadlines();
    let upstream = way.pick(&request.parts.headers);
    let model = &upstream.model;
    if route.model.rewrite.host == HostRewrite::Upstream
        && let Some(host) = &upstream.host
    {
        request.parts.headers.insert(HOST, host.clone());
    }
    let cookie = model
        .sticky
        .as_ref()
        .and_then(|sticky| upstream::cookie(&request.parts.headers, &sticky.cookie).map(str::to_owned));
    let by = model
        .hash_by
        .as_ref()
        .filter(|_| model.balance == Balance::ConsistentHash);
    if let Some(mirror) = &route.mirror {
        mirror::begin(mirror, way, request);
    }
    // Only what changes nothing, or changes the same twice, and has no body that is gone already.
    let repeatable =
        request.parts.method.is_idempotent() && request.body.as_ref().is_none_or(RequestBody::is_end_stream);
    let hint = |mut head: response::Parts| {
        if let Some(hints) = way.hints {
            headers::prepare_interim(&mut head);
            route.chain.respond(way.exchange, &mut head.headers);
            hints.borrow_mut().push(head);
        }
    };
    let wish = Wish {
        key: by.and_then(|by| upstream::key(by, &request.parts.headers, client.effective())),
        cookie: cookie.as_deref(),
        source: model.proxy_protocol.map(|_| client.effective()),
        repeatable,
        hints: way.hints.map(|_| Hints(&hint)),
    };
    // The clock runs from the last piece of the request, so that a long upload is no slow answer. It is one for all tries.
    let first = Cell::new(None);
    let respond_by = |now| {
        let begun = first.get().unwrap_or(now);
        first.set(Some(begun));
        async move {
            let last = || progress.map_or(begun, |progress| progress.moved().max(begun));
            loop {
                let since = last();
                way.until(since + way.patience).await;
                if last() == since {
                    return;
                }
            }
        }
    };
    let sending = way
        .worker
        .upstreams
        .send(upstream, request, &deadlines, &wish, respond_by);
    let sent = sending.await?;
    let cookie = sent.lease.set_cookie(cookie.as_deref(), way.tls).cloned();
    Ok((sent, cookie))
}

pub(super) fn reject_of(failed: &Failed, route: &Route) -> Reject {
    tracing::debug!(route = &*route.name, ?failed, "no response");
    match failed.failure {
        Failure::Connect(_) => Reject::UpstreamUnreachable,
        Failure::ConnectTimeout | Failure::TryTimeout | Failure::ResponseTimeout => Reject::UpstreamTimeout,
        Failure::Exchange(ref error) if error.is_closed() => Reject::UpstreamClosed,
        Failure::Exchange(_) => Reject::UpstreamMalformed,
        Failure::Overloaded | Failure::Short(_) => Reject::UpstreamOverloaded,
        Failure::Unwell => Reject::UpstreamUnhealthy,
        Failure::Unresolved => Reject::UpstreamUnresolved,
    }
}
