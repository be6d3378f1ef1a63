//! Keys made ready, and the signature of one token held against them. Pure.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::ParsedPublicKey;

use crate::config::model::{Algorithm, VerifyKey};

/// A token that names no key is held against so many at most: each costs a verification.
const MOST_TRIES: usize = 8;

/// Keys, as they were given, and ready for each algorithm that goes with them.
#[derive(Debug, Default)]
pub struct Keys {
    keys: Vec<Ready>,
}

#[derive(Debug)]
struct Ready {
    id: Option<String>,
    ways: Vec<(Algorithm, Checker)>,
}

/// One key, ready for one algorithm.
#[derive(Debug)]
pub(in super::super) enum Checker {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// What came of holding a signature against keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Bad,
    /// There is no key of the name that the token asks for.
    Unknown,
}

impl Keys {
    /// With every algorithm of `allowed` that the key itself goes with.
    #[must_use]
    pub fn new(keys: &[VerifyKey], allowed: &[Algorithm]) -> Self {
        let ready = |key: &VerifyKey| Ready {
            id: key.id.clone(),
            ways: allowed
                .iter()
                .filter(|algorithm| key.fits(**algorithm))
                .filter_map(|algorithm| Some((*algorithm, Checker::new(key, *algorithm)?)))
                .collect(),
        };
        Self {
            keys: keys.iter().map(ready).collect(),
        }
    }

    /// Holds a signature against the keys of this name, or without one against all. A key without a name goes by any.
    #[must_use]
    pub fn check(&self, algorithm: Algorithm, id: Option<&str>, signed: &[u8], signature: &[u8]) -> Outcome {
        let mut named = self.keys.iter().filter(|key| match (id, &key.id) {
            (Some(id), Some(own)) => id == own,
            (_, _) => true,
        });
        let mut known = false;
        let good = named
            .by_ref()
            .inspect(|_| known = true)
            .filter_map(|key| key.ways.iter().find(|(own, _)| *own == algorithm))
            .take(MOST_TRIES)
            .any(|(_, checker)| checker.is_good(signed, signature));
        match (good, known) {
            (true, _) => Outcome::Good,
            (false, true) => Outcome::Bad,
            (false, false) => Outcome::Unknown,
        }
    }
}

impl Checker {
    /// `None` if they do not go together.
    pub(in super::super) fn new(key: &VerifyKey, algorithm: Algorithm) -> Option<Self> {
        let secret = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => return key.parsed(algorithm).map(Self::Public),
        };
        key.secret_bytes()
            .map(|bytes| Self::Secret(Box::new(hmac::Key::new(secret, bytes))))
    }

    pub(in super::super) fn is_good(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(signed, signature).is_ok(),
            // Compares in constant time.
            Self::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}
