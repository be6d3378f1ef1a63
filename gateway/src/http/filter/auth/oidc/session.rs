//! What stands in the cookies, unsealed: a session, and an attempt to log in. Owns their form and their ages. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::config::model;
use crate::http::filter::Identity;

/// How long a browser may take to log in, in seconds: somebody looks for a second factor.
pub(super) const ATTEMPT: u64 = 1_800;

/// All that decides whom a session speaks of. A session holds its caller ready made, so one that came about by other
/// settings, for another route of the same host, may mean somebody else by the same name.
pub(super) fn decided(model: &model::Oidc) -> [u8; 32] {
    // Every field, so that a new one is not forgotten.
    let model::Oidc {
        token,
        client_id,
        client_secret: _,
        client_auth: _,
        timeout: _,
        scopes,
        parameters,
        callback: _,
        logout: _,
        after_logout: _,
        end_session: _,
        claims,
        session: _,
    } = model;
    let model::Jwt {
        place: _,
        keep: _,
        issuers,
        audiences,
        algorithms,
        // There are none: they are found by the issuer's metadata.
        keys: _,
        published,
        leeway: _,
        require,
        name_claim,
        scope_claim,
        scopes: must,
        claims: matched,
    } = token;
    // Of sets the order decides nothing. The texts are of the model, and so the same on every gateway of a version.
    let sorted = |texts: &[String]| {
        let mut texts = texts.to_vec();
        texts.sort_unstable();
        texts
    };
    let mut algorithms: Vec<_> = algorithms.iter().map(|one| format!("{one:?}")).collect();
    algorithms.sort_unstable();
    let parameters = parameters
        .iter()
        .flat_map(|(name, value)| [name.clone(), value.clone()]);
    let lists = [
        sorted(issuers),
        published.iter().map(|source| source.url.to_string()).collect(),
        vec![client_id.clone()],
        sorted(audiences.as_deref().unwrap_or_default()),
        algorithms,
        sorted(require),
        vec![name_claim.clone(), scope_claim.clone()],
        sorted(must),
        matched.iter().map(|one| format!("{one:?}")).collect(),
        sorted(scopes),
        parameters.collect(),
        sorted(claims),
    ];
    let mut hash = Sha256::new();
    for list in &lists {
        hash.update((list.len() as u64).to_be_bytes());
        for text in list {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
    }
    hash.finalize().into()
}

/// One who has logged in. Short names: it travels with every request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    #[serde(rename = "n")]
    pub(super) name: String,
    #[serde(rename = "s", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scopes: Vec<Box<str>>,
    #[serde(rename = "c", default, skip_serializing_if = "Map::is_empty")]
    pub(super) claims: Map<String, Value>,
    /// When it began, in seconds since 1970.
    #[serde(rename = "b")]
    pub(super) begun: u64,
    /// When it was last known to be used.
    #[serde(rename = "u")]
    pub(super) used: u64,
    /// Where sessions are refreshed.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<Access>,
}

/// What a session goes on by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Access {
    /// Who must be the same in every further ID token.
    #[serde(rename = "i")]
    pub(super) subject: String,
    /// When the access token ends, in seconds since 1970.
    #[serde(rename = "e")]
    pub(super) until: u64,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh: Option<String>,
}

impl Session {
    /// Of whom an ID token speaks. Only the claims that are asked for are kept.
    pub(super) fn of(token: &Identity, scopes: Vec<Box<str>>, claims: &[String], now: u64) -> Self {
        let mut session = Self {
            name: String::new(),
            scopes,
            claims: Map::new(),
            begun: now,
            used: now,
            access: None,
        };
        session.learn(token, claims);
        session
    }

    /// Takes over what an ID token says of the caller.
    pub(super) fn learn(&mut self, token: &Identity, claims: &[String]) {
        let kept = claims
            .iter()
            .filter_map(|name| Some((name.clone(), token.claim(name)?.clone())));
        self.claims = kept.collect();
        self.name = token.name.to_string();
    }

    /// From when on the provider must be asked for a new access token, if sessions are refreshed.
    pub(super) fn due(&self, model: &model::OidcSession) -> u64 {
        match &self.access {
            _ if !model.refresh => u64::MAX,
            // It was made when sessions were not refreshed.
            None => 0,
            Some(access) => access.until,
        }
    }

    /// When it ends if nothing more is heard of it.
    pub(super) fn ends(&self, model: &model::OidcSession) -> u64 {
        let whole = self.begun.saturating_add(model.lifetime);
        whole.min(self.used.saturating_add(model.idle))
    }

    /// When a request is to be noted in the cookie: seldom, as that changes an answer.
    pub(super) fn stale(&self, model: &model::OidcSession) -> u64 {
        self.used.saturating_add((model.idle / 8).max(1))
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            name: self.name.as_str().into(),
            scopes: self.scopes.clone(),
            claims: self.claims.clone(),
        }
    }
}

/// A log-in that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// What the provider sends back.
    pub(super) state: String,
    /// What the ID token must hold.
    pub(super) nonce: String,
    /// What the code is worth nothing without (RFC 7636, 4.1).
    pub(super) verifier: String,
    /// Where the browser wanted to go.
    pub(super) target: String,
    /// Where it is; also of the callback.
    pub(super) origin: String,
    /// In seconds since 1970.
    pub(super) until: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_in_any_case() {
        let model = model::OidcSession {
            cookie: "s".into(),
            keys: vec![],
            idle: 80,
            lifetime: 1_000,
            refresh: false,
        };
        let mut session = Session::of(&Identity::named("a"), vec![], &[], 100);
        assert_eq!((session.ends(&model), session.stale(&model)), (180, 110));
        session.used = 1_090;
        assert_eq!(session.ends(&model), 1_100);
        session.used = u64::MAX;
        assert_eq!(session.ends(&model), 1_100);
    }

    #[test]
    fn of_a_token_it_keeps_what_is_asked_for() {
        let Value::Object(claims) =
            serde_json::json!({"email": "e", "realm": {"roles": ["r"]}, "picture": "long"})
        else {
            panic!("an object")
        };
        let token = Identity {
            claims,
            ..Identity::named("alice")
        };
        let kept = ["email", "realm.roles", "absent"].map(str::to_owned);
        let session = Session::of(&token, vec!["openid".into()], &kept, 1);
        let text = serde_json::to_string(&session).unwrap();
        let expected = r#"{"n":"alice","s":["openid"],"c":{"email":"e","realm.roles":["r"]},"b":1,"u":1}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Session>(&text).unwrap(), session);
        let identity = session.identity();
        assert_eq!(identity.claim("realm.roles"), Some(&serde_json::json!(["r"])));
        assert_eq!(identity.claim("picture"), None);
    }
}
