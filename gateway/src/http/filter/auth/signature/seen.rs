//! Which nonces have been used, by all workers of the process and over reloads. Owns the bound: where nothing can be
//! remembered any more, nothing is said to be new.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Nonces that are remembered.
const MOST: usize = 1 << 18;

/// Those of this process. Shared, as a replay may come to any worker, and at any route.
pub(super) static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

/// What a nonce is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nonce {
    New,
    Used,
    /// Nobody can tell.
    Full,
}

/// Hashes of what was used, each with the second from which it need not be known any more.
#[derive(Debug, Default)]
pub(super) struct Seen {
    until: HashMap<[u8; 16], u64>,
    /// When those that are over were last taken out.
    cleared: u64,
}

impl Seen {
    /// Takes a nonce of a key in, if it is new.
    pub(super) fn take(name: [u8; 16], now: u64, until: u64) -> Nonce {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        seen.enter(name, now, until, MOST)
    }

    fn enter(&mut self, name: [u8; 16], now: u64, until: u64, most: usize) -> Nonce {
        if self.until.get(&name).is_some_and(|until| *until > now) {
            return Nonce::Used;
        }
        if self.until.len() >= most && self.cleared < now {
            // Once a second at most: it takes a look at all of them.
            self.cleared = now;
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= most {
            return Nonce::Full;
        }
        self.until.insert(name, until);
        Nonce::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_new_once_and_the_memory_bounded() {
        let mut seen = Seen::default();
        let name = |n: u8| [n; 16];
        let mut enter = |n, now, until| seen.enter(name(n), now, until, 3);
        assert_eq!(enter(1, 100, 110), Nonce::New);
        assert_eq!([enter(1, 100, 110), enter(1, 109, 119)], [Nonce::Used; 2]);
        assert_eq!([enter(2, 100, 105), enter(3, 100, 120)], [Nonce::New; 2]);
        assert_eq!(enter(4, 104, 120), Nonce::Full);
        assert_eq!(enter(4, 104, 120), Nonce::Full);
        assert_eq!(enter(4, 105, 120), Nonce::New, "the second is over");
        assert_eq!(
            enter(3, 105, 120),
            Nonce::Used,
            "and nothing that counts is forgotten"
        );
        assert_eq!(enter(1, 111, 120), Nonce::New);
        assert!(seen.until.len() <= 3);
    }
}
