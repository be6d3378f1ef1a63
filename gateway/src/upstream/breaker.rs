//! What an upstream takes at most, over all workers: connections, waiting requests, requests under way. Owns the counts;
//! knows nothing of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::model::Caps;

/// The counts of one upstream that has caps.
#[derive(Debug)]
pub(super) struct Breaker {
    connections: Option<Arc<Semaphore>>,
    pending: AtomicU32,
    most_pending: u32,
    pub(super) patience: Duration,
    requests: AtomicU32,
    most_requests: Option<u32>,
    /// Told when a request begins to wait: workers then give up a connection that idles.
    squeeze: watch::Sender<()>,
}

/// The right to one connection.
pub(super) type Permit = OwnedSemaphorePermit;

/// One request under way.
#[derive(Debug)]
pub(super) struct Place(Arc<Breaker>);

/// One request that waits.
#[derive(Debug)]
pub(super) struct Waiting<'b>(&'b Breaker);

/// There is too much under way already.
#[derive(Debug)]
pub(super) struct Overloaded;

impl Breaker {
    /// `None` without caps, so that nothing is counted that nobody asked for.
    pub(super) fn of(caps: &Caps) -> Option<Arc<Self>> {
        if caps.connections.is_none() && caps.requests.is_none() {
            return None;
        }
        let connections = caps
            .connections
            .map(|most| Arc::new(Semaphore::new(most.get() as usize)));
        Some(Arc::new(Self {
            connections,
            pending: AtomicU32::new(0),
            most_pending: caps.pending,
            patience: caps.pending_timeout,
            requests: AtomicU32::new(0),
            most_requests: caps.requests.map(std::num::NonZero::get),
            squeeze: watch::Sender::new(()),
        }))
    }

    /// Counts a request, if there is room for it.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Option<Place>, Overloaded> {
        let Some(most) = self.most_requests else {
            return Ok(None);
        };
        let place = Place(Arc::clone(self));
        if self.requests.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Overloaded);
        }
        Ok(Some(place))
    }

    pub(super) fn caps_connections(&self) -> bool {
        self.connections.is_some()
    }

    /// A connection at once, if it may be made. `Ok(None)`: as many as one likes.
    pub(super) fn try_connect(&self) -> Result<Option<Permit>, Overloaded> {
        match &self.connections {
            None => Ok(None),
            Some(left) => Arc::clone(left)
                .try_acquire_owned()
                .map(Some)
                .map_err(|_| Overloaded),
        }
    }

    /// As [`Breaker::try_connect`], when it may be made; in the order of asking.
    pub(super) async fn connect(&self) -> Option<Permit> {
        match &self.connections {
            None => None,
            Some(left) => Arc::clone(left).acquire_owned().await.ok(),
        }
    }

    /// A place in the queue, which asks all workers for a connection that idles.
    pub(super) fn wait(&self) -> Result<Waiting<'_>, Overloaded> {
        let waiting = Waiting(self);
        if self.pending.fetch_add(1, Ordering::Relaxed) >= self.most_pending {
            return Err(Overloaded);
        }
        self.squeeze.send_replace(());
        Ok(waiting)
    }

    /// Requests that wait for a connection.
    pub(super) fn waiting(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    pub(super) fn squeezed(&self) -> watch::Receiver<()> {
        self.squeeze.subscribe()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn places_are_given_back_and_never_more_than_there_are() {
        let caps = Caps {
            connections: NonZeroU32::new(1),
            requests: NonZeroU32::new(2),
            pending: 1,
            ..Caps::default()
        };
        let breaker = Breaker::of(&caps).unwrap();
        let (one, two) = (breaker.enter().unwrap(), breaker.enter().unwrap());
        assert!(breaker.enter().is_err());
        assert!(breaker.enter().is_err(), "a refused one is not counted");
        drop(one);
        let three = breaker.enter().unwrap();
        drop((two, three));
        let permit = breaker.try_connect().unwrap();
        assert!(breaker.try_connect().is_err());
        assert!(breaker.waiting() == 0);
        let waiting = breaker.wait().unwrap();
        assert!(breaker.wait().is_err());
        assert!(breaker.waiting() > 0);
        drop((permit, waiting));
        assert!(breaker.try_connect().is_ok() && breaker.waiting() == 0);
        assert!(Breaker::of(&Caps::default()).is_none());
    }
}
