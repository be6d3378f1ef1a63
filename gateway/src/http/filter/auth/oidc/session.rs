//! What stands in the cookies, unsealed: a session, and an attempt to log in. Owns their form and their ages. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::model;
use crate::http::filter::Identity;

/// How long a browser may take to log in, in seconds: somebody looks for a second factor.
pub(super) const ATTEMPT: u64 = 1_800;

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
