//! The validated form of a log-in for browsers. A part of the model, which hands it on.
//!
//! Owns the types; knows nothing of YAML, of the provider, or of what a cookie looks like.

use std::time::Duration;

use super::{Jwt, Secret};

/// Callers who log in at a provider with their browser, by an authorization code with PKCE (OpenID Connect Core 1.0, 3.1),
/// and whose session is a cookie that only gateways with the same keys can read or make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// What an ID token must be: its one issuer, for this client, and keys that are found by the issuer's metadata.
    pub token: Jwt,
    pub client_id: String,
    /// `None`: a public client, which PKCE alone protects.
    pub client_secret: Option<Secret>,
    pub client_auth: TokenAuth,
    /// How long the provider may take for one answer.
    pub timeout: Duration,
    /// What is asked for; `openid` among it.
    pub scopes: Vec<String>,
    /// What else the provider's log-in page is asked with.
    pub parameters: Vec<(String, String)>,
    /// The path that the provider sends browsers back to. Canonical, without a query.
    pub callback: String,
    /// The path that ends a session.
    pub logout: Option<String>,
    /// Where a browser is sent then: a path of the same host.
    pub after_logout: String,
    /// Whether the provider is asked to end its own session, too (OpenID Connect RP-Initiated Logout 1.0).
    pub end_session: bool,
    /// Claims of the ID token that a session keeps, by name or path.
    pub claims: Vec<String>,
    pub session: OidcSession,
}

/// How the gateway says who it is when it hands in a code (OpenID Connect Core 1.0, 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenAuth {
    /// In `Authorization`.
    #[default]
    Basic,
    /// In the form.
    Post,
}

/// What is kept in the browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcSession {
    /// The cookie's name, and the beginning of the names of those beside it. With TLS, `__Host-` stands before it.
    pub cookie: String,
    /// The first encrypts, all decrypt.
    pub keys: Vec<Secret>,
    /// Without a request for so long it ends, in seconds.
    pub idle: u64,
    /// And after so long in any case, in seconds.
    pub lifetime: u64,
    /// Whether it goes on only as long as the provider gives new access tokens for it.
    pub refresh: bool,
}
