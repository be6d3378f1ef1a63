//! The validated form of who may call a route. A part of the model, which hands it on.
//!
//! Owns the types and what makes two of them equal; knows nothing of YAML, or of how credentials are verified.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::{Algorithm, Oidc, PasswordHash, PathMatch, VerifyKey};

/// Who may call, and what the upstream is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    pub ways: Ways,
    /// Networks whose clients are refused, whatever they bring.
    pub deny: Vec<IpNet>,
    /// One of these must hold; none: whoever is known may call.
    pub authorize: Vec<Grant>,
    /// Lines for the upstream. What a client sends under these names never gets there.
    pub pass: Vec<(HeaderName, Attribute)>,
    /// Count and log what would be refused, and refuse nothing.
    pub observe: bool,
}

impl Auth {
    /// One way, and nothing else.
    #[must_use]
    pub fn by(way: Way) -> Self {
        Self {
            ways: Ways::Any(vec![way]),
            ..Self::default()
        }
    }

    /// Every way that is asked for.
    pub fn ways(&self) -> &[Way] {
        match &self.ways {
            Ways::Any(ways) | Ways::All(ways) => ways,
        }
    }

    /// The same with keys and passwords as their files have them now; `None` if that is no change.
    #[must_use]
    pub fn with_callers(&self, read: &Callers) -> Option<Self> {
        fn renew<T: PartialEq>(held: &mut Arc<T>, file: Option<&PathBuf>, read: &BTreeMap<PathBuf, Arc<T>>) {
            if let Some(new) = file.and_then(|file| read.get(file))
                && held != new
            {
                *held = Arc::clone(new);
            }
        }
        let mut changed = self.clone();
        let (Ways::Any(ways) | Ways::All(ways)) = &mut changed.ways;
        for way in ways {
            match way {
                Way::ApiKey(auth) => renew(&mut auth.keys, auth.file.as_ref(), &read.keys),
                Way::Basic(auth) => renew(&mut auth.users, auth.file.as_ref(), &read.users),
                _ => {}
            }
        }
        (changed != *self).then_some(changed)
    }

    /// Files of keys and of passwords, which may change while the gateway runs.
    pub fn caller_files(&self) -> impl Iterator<Item = (&PathBuf, CallerFile)> {
        self.ways().iter().filter_map(|way| match way {
            Way::ApiKey(auth) => Some((auth.file.as_ref()?, CallerFile::Keys)),
            Way::Basic(auth) => Some((auth.file.as_ref()?, CallerFile::Passwords)),
            _ => None,
        })
    }
}

/// What a file of callers holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallerFile {
    Keys,
    Passwords,
}

/// What files of callers were found to hold, by their names.
#[derive(Debug, Default)]
pub struct Callers {
    pub keys: BTreeMap<PathBuf, Arc<Keys>>,
    pub users: BTreeMap<PathBuf, Arc<Users>>,
}

/// How many ways of authentication must say who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ways {
    /// The first that knows the caller. Without any way, nobody is asked who he is.
    Any(Vec<Way>),
    /// All of them. The name is what the first says; scopes and claims are of all.
    All(Vec<Way>),
}

impl Default for Ways {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

/// One way of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    ApiKey(ApiKeyAuth),
    Jwt(Box<Jwt>),
    Basic(Basic),
    ClientCertificate(ClientCertificate),
    Forward(Box<Forward>),
    Introspect(Box<Introspect>),
    Signature(Box<Signature>),
    Oidc(Box<Oidc>),
}

/// Where a request carries a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Lower-case name; the whole value.
    Header(HeaderName),
    /// `Authorization`, behind the word `Bearer` (RFC 6750, 2.1).
    Bearer,
    /// A parameter of the query, by its decoded name.
    Query(String),
    Cookie(String),
}

/// Callers known by a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyAuth {
    pub place: Place,
    /// Whether the key goes on to the upstream.
    pub keep: bool,
    pub keys: Arc<Keys>,
    /// Where the keys are from, if not from the configuration itself.
    pub file: Option<PathBuf>,
}

/// Keys by their SHA-256. Shared, as there may be 100,000.
pub type Keys = BTreeMap<[u8; 32], Key>;

/// What is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Who holds it.
    pub name: String,
    pub scopes: Vec<String>,
    /// From when on it is worth nothing, in seconds since 1970.
    pub expires: Option<u64>,
    /// What else is known of the holder; claims of the identity.
    pub labels: BTreeMap<String, String>,
}

/// What is told of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    Name,
    /// Parted by blanks.
    Scopes,
    /// By name or path.
    Claim(String),
}

/// What a request must be to be let through: all of it. What is empty does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Sorted; with GET there is always HEAD.
    pub methods: Vec<Method>,
    /// Of the canonical path that the route was found by.
    pub paths: Vec<PathMatch>,
    /// All of them.
    pub scopes: Vec<String>,
    pub claims: Vec<ClaimMatch>,
    /// The client's address is in one of them.
    pub clients: Vec<IpNet>,
    /// One of these is the caller's name.
    pub names: Vec<String>,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMatch {
    /// By name or path.
    pub claim: String,
    /// The claim, or one item of it if it is a list, is one of these. Numbers and truth values are compared as they are
    /// written. Empty: it is enough that it is there.
    pub values: Vec<String>,
}

/// Callers known by a signed token (RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    pub place: Place,
    /// Whether the token goes on to the upstream.
    pub keep: bool,
    /// One of these must have issued it; any may, if empty.
    pub issuers: Vec<String>,
    /// It must be meant for one of these; `None` does not look.
    pub audiences: Option<Vec<String>>,
    /// None but these; with each key, only what goes with it.
    pub algorithms: Vec<Algorithm>,
    pub keys: Vec<VerifyKey>,
    /// Where more keys are published.
    pub published: Option<KeySource>,
    /// How far clocks may be apart, in seconds.
    pub leeway: u64,
    /// Claims that must be there.
    pub require: Vec<String>,
    /// Where the caller's name stands.
    pub name_claim: String,
    /// Where the scopes stand: a text parted by blanks, or a list.
    pub scope_claim: String,
    pub scopes: Vec<String>,
    pub claims: Vec<ClaimMatch>,
}

/// Where a set of keys is published.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySource {
    /// Of the set, or of the issuer's metadata (OpenID Connect Discovery 1.0, 4).
    pub url: Url,
    /// The issuer, if `url` is that of its metadata.
    pub discover: Option<String>,
    /// Issuers of the server's certificate instead of the system's: a PEM file.
    pub ca: Option<PathBuf>,
    /// Between two looks.
    pub refresh: Duration,
    /// Shortest time between two looks, whatever key a token asks for.
    pub floor: Duration,
    /// How long one look may take.
    pub timeout: Duration,
}

/// The address of a service that the gateway itself asks. Plain HTTP or HTTPS, without credentials and fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub target: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

impl FromStr for Url {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let uri: http::Uri = text.parse().map_err(|_| ())?;
        if text.contains(['#', '@']) || text.len() > 2_048 {
            return Err(());
        }
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Ok(Self {
            tls,
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            host: bare.unwrap_or(host).to_ascii_lowercase(),
            target: uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
        })
    }
}

impl Url {
    /// Host and port, as a `Host` line has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// Whether it is on this host, so that nobody stands in between.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let ip = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

/// Callers who log in by name and password (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    /// Whether the password goes on to the upstream.
    pub keep: bool,
    /// What a browser shows when it asks.
    pub realm: String,
    /// How long a good password need not be verified again, in seconds.
    pub remember: u64,
    pub users: Arc<Users>,
    /// Where the users are from, if not from the configuration itself.
    pub file: Option<PathBuf>,
}

/// Users by their names.
pub type Users = BTreeMap<String, User>;

/// One who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub hash: PasswordHash,
    pub scopes: Vec<String>,
}

/// Callers known by the certificate of their connection, which the listener has verified. Names may end in `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// As RFC 4514 writes them. Empty, with `sans` empty: any.
    pub subjects: Vec<String>,
    /// Alternative names, such as `DNS:a.example` and `URI:spiffe://b/c`.
    pub sans: Vec<String>,
}

/// A service that the gateway asks about callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub url: Url,
    /// Issuers of its certificate instead of the system's: a PEM file.
    pub ca: Option<PathBuf>,
    /// From asking to the end of its answer.
    pub timeout: Duration,
}

/// A service decides about each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub service: Service,
    /// Lines of the request that it is shown; `None`: all but those of the connection and the body.
    pub request_headers: Option<Vec<HeaderName>>,
    /// Lines of its good answer that the upstream gets. What a client sends under these names never gets there.
    pub response_headers: Vec<HeaderName>,
    /// Lines of its refusal that the client gets, besides those that make it one.
    pub denial_headers: Vec<HeaderName>,
    /// The line of its good answer with the caller's name.
    pub name: Option<HeaderName>,
    /// Let everyone in when it can not be asked.
    pub open: bool,
}

/// A service says what a token is worth (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspect {
    pub place: Place,
    /// Whether the token goes on to the upstream.
    pub keep: bool,
    pub service: Service,
    pub client_id: String,
    pub client_secret: Secret,
    /// How long a good answer holds at most, in seconds.
    pub remember: u64,
    /// Where the caller's name stands; `None`: in `username`, else in `sub`, else in `client_id`.
    pub name_claim: Option<String>,
    pub scopes: Vec<String>,
    pub claims: Vec<ClaimMatch>,
}

/// Callers who sign their requests (RFC 9421).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// By the `keyid` that signatures name.
    pub keys: BTreeMap<String, SignatureKey>,
    /// What must be signed, besides what a body and a query ask for: names of derived components and of header lines.
    pub cover: Vec<String>,
    /// Longest body that is held against its digest (RFC 9530), in bytes; `None`: bodies are not signed.
    pub body: Option<u64>,
    /// How old a signature may be, in seconds.
    pub max_age: u64,
    /// How far clocks may be apart, in seconds.
    pub leeway: u64,
    /// Whether there must be a nonce. One that is there is good once, in any case.
    pub nonce: bool,
    /// The application that it must be made for.
    pub tag: Option<String>,
    /// Whether the signature goes on to the upstream.
    pub keep: bool,
}

/// Who signs with a key, and what it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureKey {
    pub name: String,
    pub scopes: Vec<String>,
    pub algorithm: Algorithm,
    pub key: VerifyKey,
}

/// Text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}
