//! Callers who log in by name and password (RFC 7617).
//!
//! Verifying a password is slow on purpose: it is done off the worker's thread, a few at a time for the whole process, and
//! a good one is remembered by a keyed hash for a while. A name that nobody has takes as long as one that somebody has.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use super::place::{Found, authorization};
use super::{Call, Glance, Identity, Verdict};
use crate::config::model::{self, Users};
use crate::http::reject::Reject;

/// Log-ins that may wait to be verified, in the whole process; beyond, nobody is verified.
const MOST_WAITING: usize = 256;

/// One processor is left to those who are known already.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(processors.saturating_sub(1).max(1))
});
static WAITING: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
pub(super) struct Basic {
    /// Distinguishes what is remembered for it.
    id: u64,
    users: Arc<Users>,
    remember: u64,
    challenge: String,
}

/// One more who waits.
struct Waiting;

impl Waiting {
    fn begin() -> Option<Self> {
        // Counted at once, so that no two take the last place.
        let waiting = Self;
        (WAITING.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Basic {
    pub(super) fn new(model: &model::Basic) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            // Far from the ids of tokens.
            id: 1 << 63 | NEXT.fetch_add(1, Ordering::Relaxed),
            users: Arc::clone(&model.users),
            remember: model.remember,
            challenge: format!(r#"Basic realm="{}", charset="UTF-8""#, model.realm),
        }
    }

    pub(super) fn glance(&self, call: Call<'_>) -> Glance {
        let credentials = match authorization(&call.head.headers, "basic") {
            Found::None => return Glance::Seen(Verdict::Missing),
            Found::Several => return Glance::Seen(Verdict::Invalid),
            Found::One(credentials) => credentials,
        };
        match call.local.known(&call.local.name(self.id, &credentials), 0) {
            Some(identity) => Glance::Seen(Verdict::Known(identity)),
            None if split(&credentials).is_none() => Glance::Seen(Verdict::Invalid),
            None => Glance::Ask,
        }
    }

    pub(super) async fn ask(&self, call: Call<'_>) -> Verdict {
        let Found::One(credentials) = authorization(&call.head.headers, "basic") else {
            return Verdict::Invalid;
        };
        let Some((name, password)) = split(&credentials) else {
            return Verdict::Invalid;
        };
        let known = self.users.get(&name).cloned();
        let Some(user) = known.as_ref().or_else(|| self.users.values().next()).cloned() else {
            return Verdict::Invalid;
        };
        let Some(waiting) = Waiting::begin() else {
            return Verdict::Unavailable;
        };
        let Ok(turn) = TURNS.acquire().await else {
            return Verdict::Unavailable;
        };
        let verified = tokio::task::spawn_blocking(move || {
            let _held = (waiting, turn);
            user.hash.verify(&password)
        });
        match (verified.await, known) {
            (Ok(true), Some(user)) => {
                let identity = Arc::new(Identity {
                    scopes: user.scopes.iter().map(|scope| scope.as_str().into()).collect(),
                    ..Identity::named(&name)
                });
                let until = call.local.now() + self.remember;
                call.local
                    .remember(call.local.name(self.id, &credentials), until, &identity, 0);
                Verdict::Known(identity)
            }
            (Ok(_), _) => Verdict::Invalid,
            (Err(_), _) => Verdict::Unavailable,
        }
    }

    pub(super) fn challenge(&self, reject: Reject) -> Option<Cow<'static, str>> {
        (reject != Reject::Forbidden).then(|| Cow::Owned(self.challenge.clone()))
    }
}

/// Name and password.
fn split(credentials: &[u8]) -> Option<(String, Vec<u8>)> {
    if credentials.len() > 4 * model::MOST_PASSWORD {
        return None;
    }
    let bytes = STANDARD.decode(credentials).ok()?;
    let at = bytes.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(bytes.get(..at)?).ok()?;
    Some((name.to_owned(), bytes.get(at + 1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_parts_name_and_password() {
        let of = |text: &str| split(STANDARD.encode(text).as_bytes());
        assert_eq!(of("a:b"), Some(("a".into(), b"b".to_vec())));
        assert_eq!(of("a:b:c"), Some(("a".into(), b"b:c".to_vec())));
        assert_eq!(of(":"), Some((String::new(), vec![])));
        assert_eq!(of("ab"), None);
        for bad in [&b"YTpi="[..], b"YTp", b"YT pi", b"", b"YTpi\xff"] {
            assert_eq!(split(bad), None, "{bad:?}");
        }
        assert_eq!(split(STANDARD.encode(b"\xff:b").as_bytes()), None);
    }
}
