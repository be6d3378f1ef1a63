//! Which nonces have been used, by all workers of the process and over reloads. Owns the bound: where nothing can be
//! remembered any more, nothing is said to be new.
//!
//! A nonce is looked at with its signature and used up when all else of the request was found good, its body as well: of
//! several requests with the same one that come at once, one gets so far.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::http::reject::Reject;

/// Nonces that are remembered.
const MOST: usize = 1 << 18;

/// Those of this process. Shared, as a replay may come to any worker, and at any route.
static SEEN: LazyLock<Mutex<Seen>> = LazyLock::new(Mutex::default);

/// A nonce that came with a good signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// A hash of key and nonce.
    name: [u8; 16],
    /// The second from which the signature is worth nothing.
    until: u64,
}

impl Once {
    pub(super) fn new(name: [u8; 16], until: u64) -> Self {
        Self { name, until }
    }

    /// Whether it has been used up.
    pub(super) fn is_used(&self, now: u64) -> bool {
        seen().is_used(&self.name, now)
    }

    /// Uses it up, at the second `now`.
    ///
    /// # Errors
    /// Another request was faster, its time has run out meanwhile, or it can not be remembered.
    pub fn take(&self, now: u64) -> Result<(), Reject> {
        // By then it may be forgotten that it was used.
        if self.until <= now {
            tracing::debug!("a signature with a nonce became too old before its request was whole");
            return Err(Reject::CredentialsInvalid);
        }
        match seen().enter(self.name, now, self.until, MOST) {
            Nonce::New => Ok(()),
            Nonce::Used => {
                tracing::debug!("a nonce is used already");
                Err(Reject::CredentialsInvalid)
            }
            Nonce::Full => {
                tracing::warn!("no more nonces can be remembered: a signed request is refused");
                Err(Reject::AuthUnavailable)
            }
        }
    }
}

fn seen() -> MutexGuard<'static, Seen> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a nonce is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nonce {
    New,
    Used,
    /// Nobody can tell.
    Full,
}

/// Hashes of what was used, each with the second from which it need not be known any more.
#[derive(Debug, Default)]
struct Seen {
    until: HashMap<[u8; 16], u64>,
    /// When those that are over were last taken out.
    cleared: u64,
}

impl Seen {
    fn is_used(&self, name: &[u8; 16], now: u64) -> bool {
        self.until.get(name).is_some_and(|until| *until > now)
    }

    /// Takes a nonce of a key in, if it is new.
    fn enter(&mut self, name: [u8; 16], now: u64, until: u64, most: usize) -> Nonce {
        if self.is_used(&name, now) {
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
    fn one_of_several_gets_a_nonce_and_none_after_its_time() {
        let once = Once::new([0xee; 16], 200);
        assert!(!once.is_used(100) && !once.is_used(150));
        assert_eq!(once.take(150), Ok(()));
        assert!(once.is_used(150));
        assert_eq!(once.clone().take(199), Err(Reject::CredentialsInvalid));
        assert_eq!(once.take(200), Err(Reject::CredentialsInvalid), "it is over");
    }

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
