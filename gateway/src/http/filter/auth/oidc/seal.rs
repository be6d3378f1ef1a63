//! Texts that only gateways with the same keys can read or make: AES-256-GCM under a key of its own for each text.
//!
//! A key that several gateways share for months must not meet the bound of GCM on random nonces (NIST SP 800-38D, 8.3), so
//! each text has a random salt, and HKDF (RFC 5869) makes its key of that. Pure but for the random bytes.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::model::Secret;

const SALT: usize = 16;

/// What a text is for; one of another purpose does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Session,
    Attempt,
}

impl Purpose {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Session => b"session",
            Self::Attempt => b"attempt",
        }
    }
}

/// Keys, made ready.
#[derive(Debug)]
pub(super) struct Sealer {
    keys: Vec<Prk>,
    /// What sessions are bound to besides.
    bound: [u8; 32],
}

impl Sealer {
    /// `about` parts those who share a file of keys and nothing else; `bound`, those whose sessions mean different callers.
    pub(super) fn new(keys: &[Secret], about: &[&str], bound: [u8; 32]) -> Self {
        let mut context = b"gateway oidc 1".to_vec();
        for part in about {
            context.extend((part.len() as u64).to_be_bytes());
            context.extend(part.as_bytes());
        }
        let salt = Salt::new(HKDF_SHA256, &context);
        let ready = |key: &Secret| salt.extract(key.reveal().as_bytes());
        Self {
            keys: keys.iter().map(ready).collect(),
            bound,
        }
    }

    /// What sessions are bound to besides keys and owner.
    pub(super) const fn bound(&self) -> &[u8; 32] {
        &self.bound
    }

    /// As text that may stand in a cookie. `None` without randomness or keys.
    pub(super) fn seal(&self, purpose: Purpose, mut text: Vec<u8>) -> Option<String> {
        let mut front = [0; SALT + NONCE_LEN];
        getrandom::fill(&mut front).ok()?;
        let (salt, nonce) = front.split_first_chunk::<SALT>()?;
        let key = self.derived(self.keys.first()?, purpose, salt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        key.seal_in_place_append_tag(nonce, Aad::from(purpose.name()), &mut text)
            .ok()?;
        Some(URL_SAFE_NO_PAD.encode([&front[..], &text].concat()))
    }

    /// What was sealed under one of the keys.
    pub(super) fn open(&self, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (salt, rest) = bytes.split_first_chunk::<SALT>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.keys.iter().find_map(|key| {
            let key = self.derived(key, purpose, salt)?;
            let mut text = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key
                .open_in_place(nonce, Aad::from(purpose.name()), &mut text)
                .ok()?
                .len();
            text.truncate(length);
            Some(text)
        })
    }

    fn derived(&self, key: &Prk, purpose: Purpose, salt: &[u8; SALT]) -> Option<LessSafeKey> {
        // What an attempt leads to is of whoever ends it, and tabs of several routes must not end each other's.
        let bound = match purpose {
            Purpose::Session => &self.bound[..],
            Purpose::Attempt => &[],
        };
        let info = [purpose.name(), &salt[..], bound];
        let made = key.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(made)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer(keys: &[&str], about: &[&str]) -> Sealer {
        let keys: Vec<_> = keys.iter().map(|key| Secret::from((*key).to_owned())).collect();
        Sealer::new(&keys, about, [0; 32])
    }

    #[test]
    fn a_text_opens_under_its_key_for_its_purpose_and_its_owner_alone() {
        let about = ["https://i", "client", "cookie"];
        let old = sealer(&["one"], &about);
        let sealed = old.seal(Purpose::Session, b"text".to_vec()).unwrap();
        assert_ne!(
            Some(&sealed),
            old.seal(Purpose::Session, b"text".to_vec()).as_ref()
        );
        let opened = |sealer: &Sealer, purpose| sealer.open(purpose, sealed.as_bytes());
        assert_eq!(opened(&old, Purpose::Session).as_deref(), Some(&b"text"[..]));
        assert_eq!(opened(&old, Purpose::Attempt), None);
        let rotated = sealer(&["two", "one"], &about);
        assert_eq!(opened(&rotated, Purpose::Session).as_deref(), Some(&b"text"[..]));
        let new = rotated.seal(Purpose::Session, b"new".to_vec()).unwrap();
        assert_eq!(
            old.open(Purpose::Session, new.as_bytes()),
            None,
            "the first seals"
        );
        assert_eq!(opened(&sealer(&["two"], &about), Purpose::Session), None);
        let other = sealer(&["one"], &["https://i", "clientc", "ookie"]);
        assert_eq!(opened(&other, Purpose::Session), None);
        assert!(sealer(&[], &about).seal(Purpose::Session, vec![]).is_none());
        let bound = Sealer {
            bound: [1; 32],
            ..sealer(&["one"], &about)
        };
        assert_eq!(opened(&bound, Purpose::Session), None);
        let attempt = old.seal(Purpose::Attempt, b"text".to_vec()).unwrap();
        assert!(bound.open(Purpose::Attempt, attempt.as_bytes()).is_some());
    }

    #[test]
    fn any_changed_letter_is_seen() {
        let sealer = sealer(&["one"], &[]);
        let sealed = sealer.seal(Purpose::Session, b"text".to_vec()).unwrap();
        for at in 0..sealed.len() {
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open(Purpose::Session, &other), None, "{at}");
            assert_eq!(
                sealer.open(Purpose::Session, &sealed.as_bytes()[..at]),
                None,
                "{at}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sealer = sealer(&["one"], &[]);
            prop_assert_eq!(sealer.open(Purpose::Session, &bytes), None);
            let text = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert_eq!(sealer.open(Purpose::Session, text.as_bytes()), None);
        }
    }
}
