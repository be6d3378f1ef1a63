//! Memory for bodies that are held whole. Owns its bounds, in all and for each client, and the count that goes with the bytes of
//! a body until the last of them has been sent or thrown away; knows nothing of what is in them.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Bytes of bodies that the process holds: each body is bounded, and so is what all of them take.
const MOST: usize = 256 << 20;
/// Bytes of one client's bodies, lest one takes what is there for all. The longest body that a route may hold has room.
const MOST_OF_CLIENT: usize = MOST / 4;

/// A client's cell is found by a hash whose key is the process's own. Two that meet in one have one share, and nobody can
/// choose with whom; so neither a lock nor a table that grows is needed.
const CELLS: usize = 1 << 16;

static HELD: AtomicUsize = AtomicUsize::new(0);
static BY_CLIENT: [AtomicUsize; CELLS] = [const { AtomicUsize::new(0) }; CELLS];
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What is counted for one body, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    of_client: &'static AtomicUsize,
    bytes: usize,
}

/// A body, all of it, with its count.
#[derive(Debug)]
pub(super) struct HeldBytes {
    bytes: Bytes,
    held: Held,
}

impl Held {
    /// Nothing yet. Addresses of one IPv6 network of 64 bits are one client.
    pub(super) fn of(client: IpAddr) -> Self {
        let network = match client {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits() >> 64 | 1 << 127,
        };
        let [first, ..] = &BY_CLIENT;
        let hash = KEY.hash_one(network) as usize;
        Self {
            of_client: BY_CLIENT.get(hash % CELLS).unwrap_or(first),
            bytes: 0,
        }
    }

    /// Counts more; `false` if there is no room for it.
    pub(super) fn take(&mut self, more: usize) -> bool {
        self.bytes += more;
        let of_client = self.of_client.fetch_add(more, Ordering::Relaxed) + more;
        let all = HELD.fetch_add(more, Ordering::Relaxed) + more;
        of_client <= MOST_OF_CLIENT && all <= MOST
    }

    /// Counts up to `total` bytes, if it does not yet; `false` if there is no room for them.
    pub(super) fn reach(&mut self, total: usize) -> bool {
        total.checked_sub(self.bytes).is_none_or(|more| self.take(more))
    }

    fn give_back(&mut self, less: usize) {
        self.bytes -= less;
        self.of_client.fetch_sub(less, Ordering::Relaxed);
        HELD.fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

impl HeldBytes {
    pub(super) fn new(bytes: Bytes, held: Held) -> Self {
        Self { bytes, held }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Another body in the place of this one; `None` if there is no room for it.
    pub(super) fn replace(self, bytes: Bytes) -> Option<Self> {
        let Self {
            bytes: before,
            mut held,
        } = self;
        // It may carry a count of its own.
        drop(before);
        held.give_back(held.bytes.saturating_sub(bytes.len()));
        held.reach(bytes.len()).then_some(Self { bytes, held })
    }

    /// To be sent. The count goes with what becomes of the bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.bytes.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Others hold bodies while this runs, if only small ones.
    const SOME: usize = 1 << 20;

    /// Clients that share no cell.
    fn clients() -> impl Iterator<Item = Held> {
        let mut seen = Vec::new();
        (0..=255u8).filter_map(move |last| {
            let held = Held::of(IpAddr::from([192, 0, 2, last]));
            let cell: *const AtomicUsize = held.of_client;
            let is_new = !seen.contains(&cell);
            seen.push(cell);
            is_new.then_some(held)
        })
    }

    #[test]
    fn one_client_has_its_share_and_all_have_the_whole_until_it_is_given_back() {
        let mut clients = clients();
        let mut next = || clients.next().expect("cells enough");
        let mut greedy = next();
        assert!(greedy.take(MOST_OF_CLIENT - SOME));
        let mut more = Held {
            of_client: greedy.of_client,
            bytes: 0,
        };
        assert!(!more.take(2 * SOME), "another body of the same client");
        drop(more);
        let mut honest = next();
        assert!(honest.take(SOME), "another client");
        let mut others: Vec<Held> = (0..3).map(|_| next()).collect();
        assert!(others.iter_mut().all(|held| held.take(MOST_OF_CLIENT - SOME)));
        let mut last = next();
        assert!(!last.take(MOST_OF_CLIENT), "all is more than the sum of shares");
        drop(last);
        drop(greedy);
        assert!(next().take(MOST_OF_CLIENT));
        drop(others);
        let small = HeldBytes::new(Bytes::from_static(b"x"), next());
        let cell = small.held.of_client;
        assert!(small.replace(vec![0; MOST_OF_CLIENT + 1].into()).is_none());
        assert_eq!(cell.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_count_follows_the_body_that_is_made_of_another_to_its_last_piece() {
        let held = Held::of(IpAddr::from([203, 0, 113, 1]));
        let cell = held.of_client;
        let count = || cell.load(Ordering::Relaxed);
        let mut first = HeldBytes::new(Bytes::from_static(b"body"), held);
        assert!(first.held.take(4));
        let longer = first.replace(Bytes::from_static(b"longer body")).expect("room");
        assert_eq!(count(), 11);
        let shorter = longer.replace(Bytes::from_static(b"less")).expect("room");
        assert_eq!(count(), 4);
        // What comes counted is not counted twice.
        let again = HeldBytes::new(shorter.into_bytes(), Held::of(IpAddr::from([203, 0, 113, 1])));
        let again = again.replace(Bytes::from_static(b"made of it")).expect("room");
        assert_eq!(count(), 10);
        let bytes = again.into_bytes();
        let piece = bytes.slice(3..4);
        drop(bytes);
        assert_eq!(count(), 10);
        drop(piece);
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let cell = |ip: &str| -> *const AtomicUsize { Held::of(ip.parse().expect("an address")).of_client };
        assert_eq!(cell("2001:db8::1"), cell("2001:db8::ffff:0:0:1"));
        let others = ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"];
        assert!(others.iter().any(|other| cell(other) != cell("2001:db8::1")));
    }
}
