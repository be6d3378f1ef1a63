//! Callers known by a signed token (RFC 7519).
//!
//! The algorithm is what the key is for, never what the token says; keys that a token brings along (`jwk`, `jku`, `x5c`,
//! `x5u`) are not looked at. A token that was found good is remembered by a hash until it ends, or until the published
//! keys change; one that was not is verified again, so that guesses take no room.

mod claims;
pub(super) mod keys;
mod set;
mod token;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::grant::holds;
use super::place::{Found, find};
use super::{Call, Glance, Identity, Verdict};
use crate::config::model::{Algorithm, Jwt as Model};
use crate::http::reject::Reject;
use keys::{Keys, Outcome};
use token::Token;

use set::Published;
pub use set::keeper::KeyKeeper;
pub use set::{KeySet, KeySets};

#[derive(Debug)]
pub(super) struct Jwt {
    /// Distinguishes what is remembered for it.
    id: u64,
    model: Box<Model>,
    own: Keys,
    published: Option<Arc<KeySet>>,
}

/// What can be said of a token.
enum Judged {
    Good(Arc<Identity>),
    Not(Unproven),
}

/// Why a token is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    Bad(token::Fault),
    /// Good or not, the key is not here.
    KeyMissing,
}

/// What a token says it is signed by.
pub(super) fn algorithm_of(token: &[u8]) -> Option<Algorithm> {
    Token::read(token).ok().map(|token| token.algorithm)
}

impl Jwt {
    pub(super) fn new(model: &Model, sets: &mut KeySets) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            own: Keys::new(&model.keys, &model.algorithms),
            published: model.published.as_ref().map(|source| sets.get(source)),
            model: Box::new(model.clone()),
        }
    }

    pub(super) fn key_set(&self) -> Option<&Arc<KeySet>> {
        self.published.as_ref()
    }

    pub(super) fn glance(&self, call: Call<'_>) -> Glance {
        let token = match find(&self.model.place, call.head) {
            Found::None => return Glance::Seen(Verdict::Missing),
            Found::Several => return Glance::Seen(Verdict::Invalid),
            Found::One(token) => token,
        };
        match self.judge(&token, call) {
            Judged::Not(Unproven::KeyMissing)
                if self.published.as_ref().is_some_and(|set| set.may_be_asked()) =>
            {
                Glance::Ask
            }
            // A look may have ended meanwhile.
            Judged::Not(Unproven::KeyMissing) => Glance::Seen(self.verdict(self.judge(&token, call))),
            judged => Glance::Seen(self.verdict(judged)),
        }
    }

    /// Waits for the published keys to be looked at, and judges again.
    pub(super) async fn ask(&self, call: Call<'_>) -> Verdict {
        if let Some(set) = &self.published {
            set.look().await;
        }
        match find(&self.model.place, call.head) {
            Found::None => Verdict::Missing,
            Found::Several => Verdict::Invalid,
            Found::One(token) => self.verdict(self.judge(&token, call)),
        }
    }

    fn judge(&self, token: &[u8], call: Call<'_>) -> Judged {
        let published = self.published.as_ref().map(|set| set.load());
        let epoch = published.as_ref().map_or(0, |set| set.epoch);
        let name = call.local.name(self.id, token);
        if let Some(identity) = call.local.known(&name, epoch) {
            return Judged::Good(identity);
        }
        match self.verify(token, published.as_deref().map(|set| &**set), call.local.now()) {
            Ok((identity, until)) => {
                call.local.remember(name, until, &identity, epoch);
                Judged::Good(identity)
            }
            Err(unproven) => Judged::Not(unproven),
        }
    }

    /// Whom a token speaks of that did not come from a client, waiting for newer keys if it asks for them.
    pub(super) async fn prove(&self, token: &[u8], now: u64) -> Result<Arc<Identity>, Unproven> {
        let verify = || {
            let published = self.published.as_ref().map(|set| set.load());
            let verified = self.verify(token, published.as_deref().map(|set| &**set), now);
            verified.map(|(identity, _)| identity)
        };
        match (verify(), &self.published) {
            (Err(Unproven::KeyMissing), Some(set)) if set.may_be_asked() => {
                set.look().await;
                verify()
            }
            (verified, _) => verified,
        }
    }

    /// Whom a token speaks of, and until when that holds.
    fn verify(
        &self,
        token: &[u8],
        published: Option<&Published>,
        now: u64,
    ) -> Result<(Arc<Identity>, u64), Unproven> {
        let token = Token::read(token).map_err(Unproven::Bad)?;
        if !self.model.algorithms.contains(&token.algorithm) {
            return Err(Unproven::Bad("its alg is not among those that are taken"));
        }
        let check = |keys: &Keys| {
            keys.check(
                token.algorithm,
                token.key.as_deref(),
                token.signed,
                &token.signature,
            )
        };
        let mut outcome = check(&self.own);
        if outcome != Outcome::Good
            && let Some(set) = published
        {
            outcome = check(&set.keys);
        }
        match outcome {
            Outcome::Good => {}
            Outcome::Bad => return Err(Unproven::Bad("its signature is not good")),
            Outcome::Unknown => return Err(Unproven::KeyMissing),
        }
        let claims = token.claims().map_err(Unproven::Bad)?;
        claims::judge(&self.model, claims, now).map_err(Unproven::Bad)
    }

    fn verdict(&self, judged: Judged) -> Verdict {
        match judged {
            Judged::Good(identity) if holds(&self.model.scopes, &self.model.claims, &identity) => {
                Verdict::Known(identity)
            }
            Judged::Good(_) => Verdict::Forbidden,
            Judged::Not(Unproven::Bad(fault)) => {
                tracing::debug!(fault, "a token is refused");
                Verdict::Invalid
            }
            // While no set has ever been read, nobody can say that a key does not exist.
            Judged::Not(Unproven::KeyMissing)
                if self.published.as_ref().is_some_and(|set| !set.is_loaded()) =>
            {
                Verdict::Unavailable
            }
            Judged::Not(Unproven::KeyMissing) => {
                tracing::debug!(fault = "its key is not known", "a token is refused");
                Verdict::Invalid
            }
        }
    }

    pub(super) fn challenge(&self, reject: Reject) -> Cow<'static, str> {
        bearer_challenge(reject, &self.model.scopes)
    }
}

/// What a bearer of tokens is told (RFC 6750, 3).
pub(super) fn bearer_challenge(reject: Reject, scopes: &[String]) -> Cow<'static, str> {
    match reject {
        Reject::CredentialsMissing => Cow::Borrowed("Bearer"),
        Reject::Forbidden if scopes.is_empty() => Cow::Borrowed(r#"Bearer error="insufficient_scope""#),
        // A scope has no quotes and no backslashes.
        Reject::Forbidden => Cow::Owned(format!(
            r#"Bearer error="insufficient_scope", scope="{}""#,
            scopes.join(" ")
        )),
        _ => Cow::Borrowed(r#"Bearer error="invalid_token""#),
    }
}
