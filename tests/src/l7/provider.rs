//! An OpenID provider in another language, and a browser that is sent to and fro between it and the gateway.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::peer::Peer;
use super::raw::{Client, Response};

/// The running provider. Ends when dropped.
#[derive(Debug)]
pub struct Provider(Peer);

impl Default for Provider {
    fn default() -> Self {
        Self::start()
    }
}

impl Provider {
    #[must_use]
    pub fn start() -> Self {
        Self(Peer::serve("oidc.py"))
    }

    /// Its name, which is its address.
    #[must_use]
    pub fn name(&self) -> String {
        format!("http://{}", self.0.address())
    }

    /// How it behaves from now on; what is not named stays.
    ///
    /// # Panics
    /// If it does not understand.
    pub fn set(&self, how: &Value) {
        assert_eq!(self.0.ask("POST", "/set", &how.to_string()).status, 200);
    }

    /// What it was asked for so far, by kind.
    ///
    /// # Panics
    /// If it does not say.
    #[must_use]
    pub fn seen(&self) -> Value {
        serde_json::from_slice(&self.0.ask("GET", "/seen", "").body).expect("JSON")
    }

    /// How often it was asked for tokens.
    #[must_use]
    pub fn redeemed(&self) -> usize {
        self.seen()["token"].as_array().map_or(0, Vec::len)
    }

    /// What it answers to a browser that is sent to `location`: where that is sent on to.
    ///
    /// # Panics
    /// If it is not sent on.
    #[must_use]
    pub fn visit(&self, location: &str) -> String {
        let path = location.strip_prefix(&self.name());
        let path = path.unwrap_or_else(|| panic!("{location} is not at the provider"));
        let answer = self.0.ask("GET", path, "");
        assert_eq!(answer.status, 302, "{}", answer.text());
        answer.header("location").expect("a place").to_owned()
    }
}

/// A browser at one host, over plain HTTP: it keeps cookies, and says what browsers say when a person opens a page.
#[derive(Clone, Debug)]
pub struct Browser {
    gateway: SocketAddr,
    pub host: String,
    pub cookies: BTreeMap<String, String>,
    /// Names in the order in which they first came: so browsers send them (RFC 6265, 5.4).
    born: Vec<String>,
}

impl Browser {
    #[must_use]
    pub fn new(gateway: SocketAddr) -> Self {
        Self {
            gateway,
            host: "a.example".to_owned(),
            cookies: BTreeMap::new(),
            born: Vec::new(),
        }
    }

    /// Another gateway of the same name.
    #[must_use]
    pub fn at(&self, gateway: SocketAddr) -> Self {
        Self {
            gateway,
            ..self.clone()
        }
    }

    /// Sends a request with these lines besides its own, and keeps what cookies it is given.
    pub fn send(&mut self, line: &str, lines: &str) -> Response {
        let mut known: Vec<_> = self.cookies.iter().collect();
        known.sort_by_key(|(name, _)| self.born.iter().position(|own| own == *name));
        let pairs: Vec<_> = known
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let cookie = if pairs.is_empty() {
            String::new()
        } else {
            format!("Cookie: {}\r\n", pairs.join("; "))
        };
        let request = format!("{line} HTTP/1.1\r\nHost: {}\r\n{cookie}{lines}\r\n", self.host);
        let answer = Client::connect(self.gateway).send(request).response();
        for (_, value) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = value.split_once(';').unwrap_or((value, ""));
            let (name, value) = pair.split_once('=').expect("a cookie");
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
                self.born.retain(|own| own != name);
            } else {
                if !self.cookies.contains_key(name) {
                    self.born.push(name.to_owned());
                }
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Opens a page.
    pub fn open(&mut self, path: &str) -> Response {
        let lines = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nAccept: text/html,*/*;q=0.8\r\n";
        self.send(&format!("GET {path}"), lines)
    }

    /// Opens a page, and where that leads to the provider: what it sends back with.
    ///
    /// # Panics
    /// If it leads elsewhere.
    pub fn begin(&mut self, provider: &Provider, path: &str) -> String {
        let answer = self.open(path);
        assert_eq!(answer.status, 302, "{}", answer.text());
        let back = provider.visit(answer.header("location").expect("a place"));
        let own = format!("http://{}", self.host);
        back.strip_prefix(&own).expect("back at the host").to_owned()
    }

    /// A whole log-in that begins at `path`; the answer to the callback.
    pub fn log_in(&mut self, provider: &Provider, path: &str) -> Response {
        let back = self.begin(provider, path);
        self.open(&back)
    }

    /// Takes over what another window of the same browser was given.
    pub fn join(&mut self, other: Self) {
        self.cookies.extend(other.cookies);
        self.born.extend(other.born);
    }

    /// The names of its cookies.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.cookies.keys().map(String::as_str).collect()
    }
}

/// Answers that change nothing.
#[must_use]
pub fn as_usual() -> Value {
    json!({
        "change": {}, "key": "rsa", "alg": "RS256", "header": {}, "callback": {}, "token": {}, "status": 0, "slow": 0,
        "large": 0, "at_hash": "good"
    })
}
