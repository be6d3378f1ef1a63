//! Callers who sign their requests (RFC 9421), with a shared secret or a key of their own.
//!
//! The algorithm is what the key is for. A signature must speak of all that decides what is asked for, and of the body by its
//! digest; the body is held against that before the upstream hears of the request. Nothing is remembered but nonces.

mod base;
mod seen;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::HeaderValue;
use http::request::Parts;
use sfv::{Dictionary, InnerList, ListEntry, Parser};
use sha2::{Digest as _, Sha256};

use super::jwt::keys::Checker;
use super::{Call, Glance, Identity, Verdict};
use crate::config::model::{self, Algorithm};
use crate::http::digest::{CONTENT_DIGEST, Digest, Expected};
use crate::http::headers::joined;
use base::Fault;
pub use seen::Once;

pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub(super) const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
pub(super) const ACCEPT_SIGNATURE: HeaderName = HeaderName::from_static("accept-signature");

/// Most signatures of one request that are looked at: each costs a verification.
const MOST_SIGNATURES: usize = 4;
/// Longest nonce, in bytes.
const MOST_NONCE: usize = 256;

#[derive(Debug)]
pub(super) struct Signature {
    model: Box<model::Signature>,
    keys: BTreeMap<String, Key>,
    /// What a client is told that it must sign (RFC 9421, 5).
    asked: Option<HeaderValue>,
    /// It is judged only when others may be asked: a glance may be followed by another, and each costs a verification.
    once: bool,
}

#[derive(Debug)]
struct Key {
    identity: Arc<Identity>,
    algorithm: Algorithm,
    checker: Checker,
}

/// What a signature says of itself (RFC 9421, 2.3).
struct Parameters<'a> {
    created: u64,
    expires: Option<u64>,
    keyid: &'a str,
    nonce: Option<&'a str>,
}

impl Signature {
    pub(super) fn new(model: &model::Signature, once: bool) -> Self {
        let keys = model.keys.iter().filter_map(|(id, key)| {
            let identity = Identity {
                scopes: key.scopes.iter().map(|scope| scope.as_str().into()).collect(),
                ..Identity::named(&key.name)
            };
            let made = Key {
                identity: Arc::new(identity),
                algorithm: key.algorithm,
                checker: Checker::new(&key.key, key.algorithm)?,
            };
            Some((id.clone(), made))
        });
        let names: Vec<_> = model.cover.iter().map(|name| format!("\"{name}\"")).collect();
        let nonce = if model.nonce { ";nonce" } else { "" };
        let asked = format!("sig=({});created;keyid{nonce}", names.join(" "));
        Self {
            keys: keys.collect(),
            asked: HeaderValue::try_from(asked).ok(),
            model: Box::new(model.clone()),
            once,
        }
    }

    /// What a client that may not pass is told.
    pub(super) fn asked(&self) -> Option<&HeaderValue> {
        self.asked.as_ref()
    }

    pub(super) fn glance(&self, call: Call<'_>) -> Glance {
        match self.once {
            true => Glance::Ask,
            false => Glance::Seen(self.check(call)),
        }
    }

    pub(super) fn check(&self, call: Call<'_>) -> Verdict {
        let headers = &call.head.headers;
        if !headers.contains_key(SIGNATURE) && !headers.contains_key(SIGNATURE_INPUT) {
            return Verdict::Missing;
        }
        match self.judge(call.head, call.local.now()) {
            Ok((identity, body)) => Verdict::Signed(identity, body.map(Box::new)),
            Err(fault) => {
                tracing::debug!(fault, "a signature is refused");
                Verdict::Invalid
            }
        }
    }

    /// Who has signed, and what must hold besides. The first good signature counts.
    fn judge(&self, head: &Parts, now: u64) -> Result<(Arc<Identity>, Option<Expected>), Fault> {
        let read = |name: &HeaderName| -> Result<Dictionary, Fault> {
            let line = joined(&head.headers, name).ok_or("one of its two lines is missing")?;
            Parser::new(&*line)
                .parse()
                .map_err(|_| "its lines are no structured fields")
        };
        let (inputs, signatures) = (read(&SIGNATURE_INPUT)?, read(&SIGNATURE)?);
        if inputs.len() > MOST_SIGNATURES {
            return Err("there are too many");
        }
        let mut last = "there is none";
        for (label, input) in &inputs {
            let signature = match signatures.get(label) {
                Some(ListEntry::Item(item)) => item.bare_item.as_byte_sequence(),
                _ => None,
            };
            let (ListEntry::InnerList(list), Some(signature)) = (input, signature) else {
                last = "its lines do not go together";
                continue;
            };
            match self.judge_one(list, signature, head, now) {
                Ok(good) => return Ok(good),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    fn judge_one(
        &self,
        list: &InnerList,
        signature: &[u8],
        head: &Parts,
        now: u64,
    ) -> Result<(Arc<Identity>, Option<Expected>), Fault> {
        let model = &self.model;
        let told = Parameters::read(list)?;
        let text = |name: &str| {
            list.params
                .get(name)
                .map(|value| value.as_string().map(sfv::StringRef::as_str))
        };
        if let Some(tag) = &model.tag
            && text("tag") != Some(Some(tag))
        {
            return Err("it is made for another application");
        }
        let (latest, leeway) = (now.saturating_add(model.leeway), model.leeway);
        let end = told.created.saturating_add(model.max_age).saturating_add(leeway);
        let end = told
            .expires
            .map_or(end, |expires| end.min(expires.saturating_add(leeway)));
        if told.created > latest {
            return Err("it is made in the future");
        }
        if end <= now {
            return Err("it is too old");
        }
        let key = self.keys.get(told.keyid).ok_or("its key is not known")?;
        if text("alg").is_some_and(|alg| alg != Some(name_of(key.algorithm))) {
            return Err("its alg is not what its key is for");
        }
        let (digest, most) = self.covers(list, head)?;
        let base = base::text(list, head)?;
        if !key.checker.is_good(base.as_bytes(), signature) {
            return Err("it is not good");
        }
        let once = told.nonce.map(|nonce| Once::new(name(told.keyid, nonce), end));
        match &once {
            None if model.nonce => return Err("it has no nonce"),
            Some(once) if once.is_used(now) => return Err("its nonce is used already"),
            _ => {}
        }
        let expected = (most.is_some() || once.is_some()).then(|| Expected {
            digest,
            most,
            once: once.into_iter().collect(),
        });
        Ok((Arc::clone(&key.identity), expected))
    }

    /// Whether all is covered that must be; what the body must be, and how long at most, where that is looked at.
    fn covers(&self, list: &InnerList, head: &Parts) -> Result<(Option<Digest>, Option<u64>), Fault> {
        let has = |name: &str| base::covered(list).any(|(own, plain)| own == name && plain);
        let whole = has("@target-uri");
        let target = whole || has("@request-target");
        for name in &self.model.cover {
            let covered = match name.as_str() {
                "@authority" | "@scheme" => whole || has(name),
                "@path" => target || has(name),
                // Where there is none, one that is added must be covered and can not be.
                "@query" => target || head.uri.query().is_none() || has(name),
                name => has(name),
            };
            if !covered {
                return Err("it does not cover all that it must");
            }
        }
        if self.model.body.is_none() {
            return Ok((None, None));
        }
        let digest = match has(CONTENT_DIGEST.as_str()) {
            true => Some(Digest::read(&head.headers).ok_or("its digest of the body can not be read")?),
            false => None,
        };
        Ok((digest, self.model.body))
    }
}

impl<'a> Parameters<'a> {
    fn read(list: &'a InnerList) -> Result<Self, Fault> {
        let seconds = |name: &str| match list.params.get(name) {
            None => Ok(None),
            Some(value) => {
                let value = value.as_integer().map(i64::from);
                let value = value.and_then(|value| u64::try_from(value).ok());
                value.map(Some).ok_or("a time of it is none")
            }
        };
        let text = |name: &str| match list.params.get(name) {
            None => Ok(None),
            Some(value) => {
                let text = value.as_string().map(sfv::StringRef::as_str);
                text.map(Some).ok_or("a parameter of it is no string")
            }
        };
        let nonce = text("nonce")?;
        if nonce.is_some_and(|nonce| nonce.is_empty() || nonce.len() > MOST_NONCE) {
            return Err("its nonce is empty or too long");
        }
        Ok(Self {
            created: seconds("created")?.ok_or("it does not say when it was made")?,
            expires: seconds("expires")?,
            keyid: text("keyid")?.ok_or("it names no key")?,
            nonce,
        })
    }
}

/// The name under which a nonce is remembered.
fn name(keyid: &str, nonce: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((keyid.len() as u64).to_le_bytes());
    hash.update(keyid);
    hash.update(nonce);
    let hash: [u8; 32] = hash.finalize().into();
    let mut name = [0; 16];
    name.copy_from_slice(hash.split_at(16).0);
    name
}

/// As the registry of RFC 9421, 6.2 has it.
fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Hs256 => "hmac-sha256",
        Algorithm::EdDsa => "ed25519",
        Algorithm::Es256 => "ecdsa-p256-sha256",
        Algorithm::Es384 => "ecdsa-p384-sha384",
        Algorithm::Ps512 => "rsa-pss-sha512",
        Algorithm::Rs256 => "rsa-v1_5-sha256",
        // These sign tokens, and no requests.
        _ => "",
    }
}

#[cfg(test)]
mod tests;
