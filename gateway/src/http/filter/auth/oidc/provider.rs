//! The provider: where it is asked, as its metadata has it, and what it gives for a code. Knows no browser and no session.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::browser::add;
use crate::config::model::{self, TokenAuth, Url};
use crate::upstream::fetch::{Bounds, Error, Kept, Service};

/// Largest answer, in bytes.
const MOST: usize = 64 << 10;

/// How long an access token is taken for good whose provider does not say, in seconds.
const LASTS: u64 = 3_600;

/// Where a provider is asked.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// Where browsers are sent.
    pub(super) authorization: String,
    /// Where a code is handed in.
    token: Service,
    /// Where browsers are sent to end the provider's own session.
    pub(super) end_session: Option<String>,
    /// Whether it says who it is when it sends a browser back (RFC 9207).
    pub(super) says_issuer: bool,
}

/// What a provider gives for a code.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) id: Option<String>,
    pub(super) access: Option<String>,
    pub(super) refresh: Option<String>,
    /// How long the access token is good, in seconds.
    pub(super) lasts: u64,
    /// What the access token may be used for; `None`: what was asked for (RFC 6749, 5.1).
    pub(super) scopes: Option<Vec<Box<str>>>,
}

/// Why a provider gives nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The code is not good.
    Refused(String),
    /// It can not be told now, or not to this gateway.
    Away(String),
}

impl Endpoints {
    /// # Errors
    /// What is wrong with the metadata, which is of the right issuer.
    pub(super) fn read(metadata: &Map<String, Value>, source: &model::KeySource) -> Result<Self, String> {
        let url = |name: &str| match metadata.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_str().and_then(|text| text.parse::<Url>().ok()) {
                None => Err(format!("the metadata has no good {name}")),
                Some(url) if source.url.tls && !url.tls => {
                    Err(format!("{name} of the metadata leads from HTTPS to plain HTTP"))
                }
                Some(url) => Ok(Some(url)),
            },
        };
        let must = |name: &str| url(name)?.ok_or_else(|| format!("the metadata has no {name}"));
        let authorization = must("authorization_endpoint")?.to_string();
        let token = Service::new(&must("token_endpoint")?, source.ca.as_deref())?;
        // Who lists methods without S256 has none (RFC 8414, 2); who lists nothing may have it.
        let methods = metadata.get("code_challenge_methods_supported");
        if methods.is_some_and(|all| {
            !all.as_array()
                .is_some_and(|all| all.iter().any(|one| one == "S256"))
        }) {
            return Err("the provider does not do PKCE with S256".to_owned());
        }
        Ok(Self {
            authorization,
            token,
            end_session: url("end_session_endpoint")?.map(|url| url.to_string()),
            says_issuer: metadata.get("authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
        })
    }

    /// Hands in a code (RFC 6749, 4.1.3). `redirect` is where the browser was sent back to.
    pub(super) async fn redeem(
        &self,
        model: &model::Oidc,
        kept: &Kept,
        code: &str,
        verifier: &str,
        redirect: &str,
    ) -> Result<Tokens, Trouble> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        self.ask(model, kept, &form)
            .await
            .map(|answer| Tokens::read(&answer))
    }

    /// Asks for a new access token (RFC 6749, 6).
    pub(super) async fn refresh(
        &self,
        model: &model::Oidc,
        kept: &Kept,
        token: &str,
    ) -> Result<Tokens, Trouble> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.ask(model, kept, &form)
            .await
            .map(|answer| Tokens::read(&answer))
    }

    async fn ask(
        &self,
        model: &model::Oidc,
        kept: &Kept,
        form: &[(&str, &str)],
    ) -> Result<Map<String, Value>, Trouble> {
        let mut body = String::new();
        for (name, value) in form {
            add(&mut body, name, value);
        }
        let mut credentials = None;
        match (&model.client_secret, model.client_auth) {
            (None, _) => add(&mut body, "client_id", &model.client_id),
            (Some(secret), TokenAuth::Post) => {
                add(&mut body, "client_id", &model.client_id);
                add(&mut body, "client_secret", secret.reveal());
            }
            (Some(secret), TokenAuth::Basic) => {
                credentials = Some(basic(&model.client_id, secret.reveal()));
            }
        }
        let mut request = self.token.request().map(|_| Bytes::from(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(mut line) = credentials.and_then(|line| HeaderValue::try_from(line).ok()) {
            line.set_sensitive(true);
            headers.insert(AUTHORIZATION, line);
        }
        let bounds = Bounds {
            time: model.timeout,
            bytes: MOST,
        };
        let answer = self.token.ask(request, kept, bounds).await;
        let answer = answer.map_err(|error| match error {
            // It would be no smaller another time, and the code is spent.
            Error::TooLarge(_) => {
                tracing::warn!(%error, "a provider gives tokens with too much in them");
                Trouble::Refused(error.to_string())
            }
            _ => Trouble::Away(error.to_string()),
        })?;
        let status = answer.status();
        let body: Option<Map<String, Value>> = serde_json::from_slice(answer.body()).ok();
        if status == StatusCode::OK {
            return body.ok_or_else(|| Trouble::Away("the answer is not a JSON object".to_owned()));
        }
        let error = body.as_ref().and_then(|body| body.get("error")?.as_str());
        let told = format!(
            "status {}, error {:?}",
            status.as_u16(),
            shown(error.unwrap_or("none"))
        );
        // What else is wrong is between the gateway and the provider, and no other code changes that (RFC 6749, 5.2).
        Err(match error {
            Some("invalid_grant") if status.is_client_error() => Trouble::Refused(told),
            _ => Trouble::Away(told),
        })
    }
}

impl Tokens {
    fn read(answer: &Map<String, Value>) -> Self {
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let owned = |name: &str| text(name).map(str::to_owned);
        Self {
            id: owned("id_token"),
            access: owned("access_token"),
            refresh: owned("refresh_token"),
            lasts: answer.get("expires_in").and_then(Value::as_u64).unwrap_or(LASTS),
            scopes: text("scope").map(|all| all.split_ascii_whitespace().map(Into::into).collect()),
        }
    }
}

/// RFC 6749, 2.3.1: both are encoded as in a form.
fn basic(id: &str, secret: &str) -> String {
    let encoded = |text: &str| {
        let mut out = String::new();
        add(&mut out, "", text);
        out.split_off(1)
    };
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)))
    )
}

/// What somebody else wrote, short enough for a log.
pub(super) fn shown(text: &str) -> &str {
    let mut end = text.len().min(64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(issuer: &str, change: Value) -> Result<Endpoints, String> {
        let mut metadata = json!({
            "authorization_endpoint": "https://i.example/auth?x=1", "token_endpoint": "https://i.example/token",
        });
        for (name, value) in change.as_object().unwrap() {
            metadata[name] = value.clone();
        }
        let source = model::KeySource {
            url: issuer.parse().unwrap(),
            discover: None,
            ca: None,
            refresh: std::time::Duration::from_secs(1),
            floor: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(1),
        };
        Endpoints::read(metadata.as_object().unwrap(), &source)
    }

    #[test]
    fn metadata_must_lead_somewhere_and_not_out_of_tls() {
        let good = read(
            "https://i.example/",
            json!({"code_challenge_methods_supported": ["plain", "S256"]}),
        )
        .unwrap();
        assert_eq!(good.authorization, "https://i.example/auth?x=1");
        assert!(good.end_session.is_none() && !good.says_issuer);
        for (change, expected) in [
            (
                json!({"token_endpoint": null}),
                "the metadata has no token_endpoint",
            ),
            (
                json!({"token_endpoint": 7}),
                "the metadata has no good token_endpoint",
            ),
            (
                json!({"token_endpoint": "ftp://x"}),
                "the metadata has no good token_endpoint",
            ),
            (
                json!({"authorization_endpoint": "javascript:alert(1)"}),
                "the metadata has no good authorization_endpoint",
            ),
            (
                json!({"end_session_endpoint": "http://i.example/end"}),
                "end_session_endpoint of the metadata leads from HTTPS to plain HTTP",
            ),
            (
                json!({"code_challenge_methods_supported": ["plain"]}),
                "the provider does not do PKCE with S256",
            ),
        ] {
            assert_eq!(read("https://i.example/", change).unwrap_err(), expected);
        }
        assert!(
            read(
                "http://i.example/",
                json!({"token_endpoint": "http://i.example/t"})
            )
            .is_ok()
        );
    }

    #[test]
    fn credentials_are_encoded_first() {
        assert_eq!(
            basic("a:b", "c d"),
            format!("Basic {}", STANDARD.encode("a%3Ab:c%20d"))
        );
        assert_eq!(shown(&"ü".repeat(40)).chars().count(), 32);
    }
}
