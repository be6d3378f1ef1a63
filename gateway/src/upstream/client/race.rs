//! Whose socket answers first (RFC 8305, 5): an address that swallows packets must not cost a request the whole of
//! `limits.connect`. Only connecting is raced. Nothing has been sent by then, so it is safe for every request.
//!
//! A request has one right to a connection, however many endpoints it asks: its caller holds it, and the winner takes it.
//! Those that lost are only watched; what they still open is closed at once, and counts for no cap.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Course, Reach};
use crate::upstream::Upstream;
use crate::upstream::connect;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::reason::Shortage;
use crate::upstream::retry::Cause;

/// How long an endpoint may take before another is asked as well: what RFC 8305 recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// One endpoint's turn.
struct Turn {
    index: usize,
    endpoint: Arc<Endpoint>,
    outcome: io::Result<TcpStream>,
}

impl Turn {
    async fn take(index: usize, endpoint: Arc<Endpoint>, limit: Duration) -> Self {
        let outcome = timeout(limit, connect::socket(&endpoint.origin)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        Self {
            index,
            endpoint,
            outcome,
        }
    }
}

/// Connects to the endpoint that is to be reached, or to another if that one keeps us waiting; `reach` says to which in the end.
pub(super) async fn socket<B>(course: &Course<'_, B>, reach: &mut Reach) -> io::Result<TcpStream>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let endpoints = &course.view.endpoints;
    let limit = course.deadlines.connect;
    let turn = |index: usize| Turn::take(index, Arc::clone(&endpoints[index]), limit);
    let mut first = Box::pin(turn(reach.index));
    if endpoints.len() == 1 {
        return first.await.outcome;
    }
    if let Ok(first) = timeout(HEAD_START, &mut first).await {
        return first.outcome;
    }
    let mut turns = JoinSet::new();
    turns.spawn_local(first);
    let (mut asked, mut waiting) = (vec![reach.index], 1_usize);
    let mut next = another(course, reach, &asked);
    let ended = loop {
        if let Some(index) = next.take() {
            tracing::debug!(endpoint = %endpoints[index].name(), "asked as well: another does not answer");
            asked.push(index);
            waiting += 1;
            reach.tries += 1;
            turns.spawn_local(turn(index));
        }
        let ended = tokio::select! {
            biased;
            ended = turns.join_next() => ended,
            () = sleep(HEAD_START) => {
                next = another(course, reach, &asked);
                continue;
            }
        };
        let Some(Ok(ended)) = ended else {
            return Err(io::Error::other("a connection was given up"));
        };
        waiting -= 1;
        if ended.outcome.is_ok() || waiting == 0 {
            break ended;
        }
        blame(course.upstream, &ended);
    };
    asked.retain(|index| *index != ended.index);
    reach.tried.extend(asked);
    reach.index = ended.index;
    if waiting > 0 {
        let upstream = Arc::clone(course.upstream);
        tokio::task::spawn_local(see_off(upstream, turns));
    }
    ended.outcome
}

/// One more to ask, as after a failure: as often, and within the retries' budget.
fn another<B>(course: &Course<'_, B>, reach: &Reach, asked: &[usize]) -> Option<usize>
where
    B: Body<Data = Bytes> + Default + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !course.covers(Cause::Connect, reach.tries) {
        return None;
    }
    let but = [&reach.tried, asked].concat();
    let index = course.client.pick(course, &but)?;
    course.pays().then_some(index)
}

/// Waits for those that lost, so that one that never answers is known for it, and not asked for ever.
async fn see_off(upstream: Arc<Upstream>, mut turns: JoinSet<Turn>) {
    while let Some(Ok(ended)) = turns.join_next().await {
        blame(&upstream, &ended);
    }
}

/// Counts a turn that failed, for the endpoint's fault or not.
fn blame(upstream: &Upstream, ended: &Turn) {
    let Err(error) = &ended.outcome else { return };
    upstream.metrics.failures.inc();
    if Shortage::of(error).is_none() {
        upstream.fared(&ended.endpoint, false);
    }
}
