//! What an ID token must say beyond what every token must. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::session::ATTEMPT;
use crate::config::model::{self, Algorithm};
use crate::http::filter::Identity;
use crate::http::filter::auth::jwt::algorithm_of;

/// What an ID token must say beyond what every token must (OpenID Connect Core 1.0, 3.1.3.7).
pub(super) fn fits(
    model: &model::Oidc,
    token: &Identity,
    signed: &str,
    access: Option<&str>,
    now: u64,
) -> Result<(), &'static str> {
    let text = |name: &str| token.claims.get(name).and_then(serde_json::Value::as_str);
    if text("sub").is_none_or(str::is_empty) {
        return Err("it has no sub");
    }
    let several = token
        .claims
        .get("aud")
        .and_then(|aud| aud.as_array())
        .is_some_and(|all| all.len() > 1);
    match token.claims.get("azp") {
        None if several => return Err("it is for several, and does not say who may present it"),
        None => {}
        Some(azp) if azp.as_str() == Some(&model.client_id) => {}
        Some(_) => return Err("it was issued to another client"),
    }
    let leeway = model.token.leeway;
    let issued = token
        .claims
        .get("iat")
        .and_then(serde_json::Value::as_f64)
        .unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit for ages")]
    let (oldest, newest) = (now.saturating_sub(ATTEMPT + leeway) as f64, (now + leeway) as f64);
    if !(oldest..=newest).contains(&issued) {
        return Err("it was not issued for this log-in by its iat");
    }
    match (token.claims.get("at_hash"), access) {
        (None, _) => Ok(()),
        (Some(hash), Some(access)) => {
            let hash = hash.as_str().ok_or("its at_hash is not text")?;
            let own = algorithm_of(signed.as_bytes()).map(|algorithm| half_hash(algorithm, access));
            if own.is_some_and(|own| same(&own, hash)) {
                Ok(())
            } else {
                Err("its at_hash is of another access token")
            }
        }
        (Some(_), None) => Err("it has at_hash and there is no access token"),
    }
}

/// The left half of a hash by the algorithm's own function (OpenID Connect Core 1.0, 3.1.3.6).
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = match algorithm {
        Algorithm::Hs256 | Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 => {
            Sha256::digest(text).to_vec()
        }
        Algorithm::Hs384 | Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Es384 => {
            Sha384::digest(text).to_vec()
        }
        Algorithm::Hs512 | Algorithm::Rs512 | Algorithm::Ps512 | Algorithm::Es512 | Algorithm::EdDsa => {
            Sha512::digest(text).to_vec()
        }
    };
    URL_SAFE_NO_PAD.encode(hash.get(..hash.len() / 2).unwrap_or_default())
}

/// Tells nothing by how long it takes.
pub(super) fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}
