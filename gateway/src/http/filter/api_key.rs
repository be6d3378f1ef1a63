//! Callers known by a secret in a header.
//!
//! Only hashes are kept. A presented key is hashed and its hash looked up; what the time of the look-up could tell is
//! something about the hash of a guess, not about a key, and the last comparison takes the same time for all.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Exchange, Identity};
use crate::config::model::ApiKeyAuth;
use crate::http::reject::Reject;

/// Hashes, sorted, with their holders.
#[derive(Debug)]
pub(super) struct ApiKey {
    header: HeaderName,
    keys: Vec<([u8; 32], Arc<Identity>)>,
}

impl ApiKey {
    pub(super) fn new(model: &ApiKeyAuth) -> Self {
        let keys = model
            .keys
            .iter()
            .map(|(hash, holder)| (*hash, Arc::new(Identity::named(holder))))
            .collect();
        Self {
            header: model.header.clone(),
            keys,
        }
    }

    /// Learns the caller, and takes the key out of the header: the upstream has no use for it. A refusal says what is asked
    /// for (RFC 9110, 11.6.1).
    pub(super) fn check(&self, exchange: &mut Exchange, headers: &mut HeaderMap) -> Result<(), Reject> {
        match self.find(headers) {
            Ok(holder) => exchange.identity = Some(Arc::clone(holder)),
            Err(reject) => {
                let challenge = HeaderValue::from_static("ApiKey");
                exchange.lines.push((WWW_AUTHENTICATE, challenge));
                return Err(reject);
            }
        }
        headers.remove(&self.header);
        Ok(())
    }

    fn find(&self, headers: &HeaderMap) -> Result<&Arc<Identity>, Reject> {
        let mut presented = headers.get_all(&self.header).iter();
        let key = presented.next().ok_or(Reject::CredentialsMissing)?;
        if presented.next().is_some() {
            return Err(Reject::CredentialsInvalid);
        }
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let at = self.keys.partition_point(|(known, _)| *known < hash);
        let (known, holder) = self.keys.get(at).ok_or(Reject::CredentialsInvalid)?;
        if !bool::from(known.ct_eq(&hash)) {
            return Err(Reject::CredentialsInvalid);
        }
        Ok(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client::{Client, ClientAddr};

    fn nobody() -> Client {
        Client {
            socket: ClientAddr::of_socket([192, 0, 2, 1].into()),
            forwarded: None,
        }
    }

    #[test]
    fn the_right_key_is_known_and_taken_away_and_nothing_else_passes() {
        let header = HeaderName::from_static("x-api-key");
        let keys = (0..100)
            .map(|i| (Sha256::digest(format!("key-{i}")).into(), format!("holder-{i}")))
            .collect();
        let filter = ApiKey::new(&ApiKeyAuth {
            header: header.clone(),
            keys: Arc::new(keys),
        });
        let ask = |presented: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for key in presented {
                headers.append(&header, HeaderValue::from_static(key));
            }
            let mut exchange = Exchange::new(nobody());
            let outcome = filter.check(&mut exchange, &mut headers);
            (
                outcome,
                exchange.identity.map(|who| who.name.to_string()),
                headers.contains_key(&header),
            )
        };
        for i in [0, 42, 99] {
            let key: &'static str = Box::leak(format!("key-{i}").into_boxed_str());
            assert_eq!(ask(&[key]), (Ok(()), Some(format!("holder-{i}")), false));
        }
        assert_eq!(ask(&[]).0, Err(Reject::CredentialsMissing));
        for bad in [
            &["wrong"][..],
            &[""],
            &["key-1", "key-1"],
            &["key-1", "wrong"],
            &["key-1 "],
            &["KEY-1"],
        ] {
            assert_eq!(ask(bad).0, Err(Reject::CredentialsInvalid), "{bad:?}");
        }
    }
}
