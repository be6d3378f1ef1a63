//! Who is connected. Owns the caps on connections and the power to close all of one client's at once.
//!
//! Touched when a connection is accepted and when it ends, never by a request; so one lock for all workers will do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::client::ClientAddr;
use super::seldom::Seldom;

/// All open client connections.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: u32,
    next: u64,
    by_client: HashMap<IpAddr, Vec<(u64, Arc<Closing>)>>,
}

/// One open connection; dropping it takes it off the books.
#[derive(Debug)]
pub struct Guest {
    connections: Arc<Connections>,
    client: ClientAddr,
    id: u64,
    closed: Arc<Closing>,
}

/// Whether a connection must be closed.
#[derive(Debug, Default)]
struct Closing {
    due: AtomicBool,
    told: Notify,
}

impl Connections {
    /// Enters a connection, unless there are `most` already, or `most_per_client` of this client's.
    #[must_use]
    pub fn enter(self: &Arc<Self>, client: ClientAddr, most: u32, most_per_client: u32) -> Option<Guest> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = open.by_client.get(&client.ip()).map_or(0, Vec::len);
        if open.total >= most || of_client >= most_per_client as usize {
            return None;
        }
        let id = open.next;
        let closed = Arc::<Closing>::default();
        open.next += 1;
        open.total += 1;
        open.by_client
            .entry(client.ip())
            .or_default()
            .push((id, Arc::clone(&closed)));
        Some(Guest {
            connections: Arc::clone(self),
            client,
            id,
            closed,
        })
    }

    /// Closes every connection from a socket address at once, in the middle of whatever they do. Returns how many.
    pub fn close(&self, client: IpAddr) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(guests) = open.by_client.get(&client.to_canonical()) else {
            return 0;
        };
        for (_, closed) in guests {
            closed.due.store(true, Ordering::Release);
            // Keeps a permit if the connection is not waiting at this moment.
            closed.told.notify_one();
        }
        guests.len()
    }

    /// Connections open now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total as usize
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Guest {
    #[must_use]
    pub fn client(&self) -> ClientAddr {
        self.client
    }

    /// Resolves when the connection must be closed.
    pub async fn closed(&self) {
        let mut told = pin!(self.closed.told.notified());
        let mut seldom = Seldom::default();
        poll_fn(|cx| seldom.poll(cx, told.as_mut(), self.closed.due.load(Ordering::Acquire))).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self
            .connections
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.by_client.entry(self.client.ip()) {
            entry.get_mut().retain(|(id, _)| *id != self.id);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        open.total = open.total.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> ClientAddr {
        ClientAddr::of_socket(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn caps_hold_in_all_and_for_each_and_free_up() {
        let connections = Arc::new(Connections::default());
        let first = connections.enter(client(1), 3, 2).unwrap();
        let _second = connections.enter(client(1), 3, 2).unwrap();
        assert!(
            connections.enter(client(1), 3, 2).is_none(),
            "two are enough for one client"
        );
        let _third = connections.enter(client(2), 3, 2).unwrap();
        assert!(
            connections.enter(client(3), 3, 2).is_none(),
            "three are enough for all"
        );
        drop(first);
        assert!(connections.enter(client(1), 3, 2).is_some());
    }

    #[tokio::test]
    async fn close_reaches_all_of_one_client_and_nobody_else() {
        let connections = Arc::new(Connections::default());
        let mine = [
            connections.enter(client(1), 9, 9).unwrap(),
            connections.enter(client(1), 9, 9).unwrap(),
        ];
        let other = connections.enter(client(2), 9, 9).unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(connections.close(mapped), 2);
        for guest in &mine {
            guest.closed().await;
        }
        let untouched =
            tokio::select! { biased; () = other.closed() => false, () = std::future::ready(()) => true };
        assert!(untouched);
    }
}
