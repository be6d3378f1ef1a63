//! A connection for a request: a new one if the upstream takes one more, else the wait for one.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Course, Failure, Reach, race};
use crate::config::model::Protocol;
use crate::telemetry::metrics::Rare;
use crate::upstream::Upstream;
use crate::upstream::breaker::{Breaker, Permit};
use crate::upstream::connect;
use crate::upstream::connect::Preface;
use crate::upstream::endpoint::Open;
use crate::upstream::link::Link;
use crate::upstream::multiplex::Session;
use crate::upstream::pool::{Conn, Local};
use crate::upstream::reason::{NoHttp2, Shortage};

/// What came of it.
pub(super) enum Opened<B> {
    New(Conn<B>),
    /// One that another request of this worker was done with.
    Kept(Conn<B>),
}

enum Right<B> {
    New(Option<Permit>),
    Kept(Conn<B>),
}

/// A connection to the endpoint that is to be reached, or to another that answers sooner.
pub(super) async fn open<B>(course: &Course<'_, B>, reach: &mut Reach) -> Result<Opened<B>, Failure>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (upstream, index) = (course.upstream, reach.index);
    let http2 = upstream.model.protocol == Protocol::Http2;
    let _opening = if http2 {
        let slot = &course.view.slots[index];
        let since = Instant::now();
        // No longer than it may take by itself: each that holds it may find nobody there.
        let opening = timeout(course.deadlines.connect, slot.opening.lock()).await.ok();
        reach.waited += since.elapsed();
        // Who held it before may have left room.
        if let Some(conn) = course.kept(slot, Instant::now()) {
            return Ok(Opened::Kept(conn));
        }
        opening
    } else {
        None
    };
    let permit = match &upstream.breaker {
        None => None,
        Some(breaker) => {
            let right = match breaker.try_connect() {
                Ok(permit) => Right::New(permit),
                Err(_) => wait(course, breaker, reach).await.inspect_err(|_| {
                    upstream.metrics.count(Rare::Overload);
                })?,
            };
            match right {
                Right::New(permit) => permit,
                Right::Kept(conn) => return Ok(Opened::Kept(conn)),
            }
        }
    };
    let connecting = async {
        let configs = upstream.tls.as_ref();
        let tls = configs.map(|configs| if http2 { &configs.http2 } else { &configs.http1 });
        let preface = upstream.model.proxy_protocol.map(|version| Preface {
            version,
            source: course.wish.source,
        });
        let stream = race::socket(course, reach).await?;
        let (endpoint, slot) = (
            &course.view.endpoints[reach.index],
            &course.view.slots[reach.index],
        );
        let transport = connect::begin(stream, endpoint, tls, preface).await?;
        let dies = upstream.model.caps.connection_age.map(|age| Instant::now() + age);
        if !http2 {
            return Ok(Conn::new(Link::http1(transport), endpoint, dies, permit));
        }
        if !connect::speaks_http2(&transport) {
            return Err(io::Error::other(NoHttp2));
        }
        let session = Session::open(transport, endpoint.name(), dies, Open::new(endpoint), permit).await?;
        Ok(slot.share(session))
    };
    let conn = timeout(course.deadlines.connect, connecting)
        .await
        .map_err(|_| Failure::ConnectTimeout)?
        .map_err(|error| match (Shortage::of(&error), error.kind()) {
            (Some(shortage), _) => {
                upstream.metrics.count(Rare::Overload);
                Failure::Short(shortage)
            }
            (None, io::ErrorKind::TimedOut) => Failure::ConnectTimeout,
            (None, _) => Failure::Connect(error),
        })?;
    upstream.metrics.connects.inc();
    Ok(Opened::New(conn))
}

/// A request that waits, for as long as it does.
struct Queued<'a>(&'a Cell<u32>);

impl<'a> Queued<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Waits for the right to a connection, or for a kept one: for all tries of a request, no longer than requests may.
async fn wait<B>(course: &Course<'_, B>, breaker: &Breaker, reach: &mut Reach) -> Result<Right<B>, Failure>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slot = &course.view.slots[reach.index];
    // What idles here, at another endpoint, gives way; what is shared there does when its exchanges are over.
    if course.local.close_one() {
        if let Ok(permit) = breaker.try_connect() {
            return Ok(Right::New(permit));
        }
    } else if slot.len() == 0 {
        course.local.retire_one();
    }
    let _waiting = breaker.wait().map_err(|_| Failure::Overloaded)?;
    let _queued = Queued::new(&course.local.waiting);
    let since = Instant::now();
    let right = async {
        let mut permit = pin!(breaker.connect());
        loop {
            let leaves = slot.leaves_until(Instant::now());
            tokio::select! {
                biased;
                permit = &mut permit => return Right::New(permit),
                // It may not have ended.
                () = sleep_until(leaves.unwrap_or(since)), if leaves.is_some() => {
                    if let Some(conn) = course.kept(slot, Instant::now()) {
                        return Right::Kept(conn);
                    }
                }
                () = course.local.freed.notified() => {
                    if let Some(conn) = course.kept(slot, Instant::now()) {
                        return Right::Kept(conn);
                    }
                    course.local.close_one();
                }
            }
        }
    };
    let right = timeout(breaker.patience.saturating_sub(reach.waited), right).await;
    reach.waited += since.elapsed();
    right.map_err(|_| Failure::Overloaded)
}

/// Has a worker close connections that idle while requests elsewhere wait for one, if the upstream has a cap on them.
pub(super) fn yield_when_squeezed<B>(upstream: &Upstream, local: &Rc<Local<B>>)
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(breaker) = upstream
        .breaker
        .as_ref()
        .filter(|breaker| breaker.caps_connections())
    else {
        return;
    };
    let (mut squeezed, local) = (breaker.squeezed(), Rc::downgrade(local));
    tokio::task::spawn_local(async move {
        while squeezed.changed().await.is_ok() {
            let Some(local) = local.upgrade() else { return };
            local.give_way();
        }
    });
}
