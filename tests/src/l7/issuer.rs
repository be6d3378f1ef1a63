//! An issuer of tokens in another language, to be asked for tokens and told what to publish.

use serde_json::{Value, json};

use super::peer::Peer;

/// The running issuer. Ends when dropped.
#[derive(Debug)]
pub struct Issuer(Peer);

impl Issuer {
    #[must_use]
    pub fn start() -> Self {
        Self(Peer::serve("issuer.py"))
    }

    /// Its name, which is its address.
    #[must_use]
    pub fn name(&self) -> String {
        format!("http://{}", self.0.address())
    }

    /// # Panics
    /// If it gives no answer.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let answer = self.0.ask(method, path, body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.body
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        serde_json::from_slice(&self.ask(method, path, &body.to_string())).expect("JSON")
    }

    /// A token; and whether the issuer's own library takes it.
    ///
    /// # Panics
    /// If it can not be made.
    #[must_use]
    pub fn sign(&self, asked: &Value) -> (String, bool) {
        let mut asked = asked.clone();
        asked["issuer"] = json!(self.name());
        let made = self.json("POST", "/sign", &asked);
        (
            made["token"].as_str().expect("a token").to_owned(),
            made["good"].as_bool().expect("a verdict"),
        )
    }

    /// A token, and what three libraries say of it: its maker's, jwcrypto and Authlib.
    ///
    /// # Panics
    /// If it can not be made.
    #[must_use]
    pub fn judged(&self, asked: &Value) -> (String, [bool; 3]) {
        let mut asked = asked.clone();
        asked["issuer"] = json!(self.name());
        let made = self.json("POST", "/sign", &asked);
        let says = |of: &Value| of.as_bool().expect("a verdict");
        let others = &made["others"];
        (
            made["token"].as_str().expect("a token").to_owned(),
            [
                says(&made["good"]),
                says(&others["jwcrypto"]),
                says(&others["authlib"]),
            ],
        )
    }

    /// Good claims for now.
    #[must_use]
    pub fn claims(&self) -> Value {
        json!({"iss": self.name(), "aud": "orders", "sub": "alice", "exp": now() + 600})
    }

    /// A good token under a key.
    #[must_use]
    pub fn token(&self, key: &str, alg: &str) -> String {
        self.sign(&json!({"key": key, "alg": alg, "claims": self.claims()}))
            .0
    }

    /// Tells it what to publish, and how.
    pub fn publish(&self, how: &Value) {
        self.json("POST", "/publish", how);
    }

    /// How often its keys were asked for.
    ///
    /// # Panics
    /// If it does not say.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.json("GET", "/looks", &json!({}))["looks"]
            .as_u64()
            .expect("a number")
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
