//! Any bytes as credentials, wherever a request may carry them, and as a published key set: nothing panics, and nobody is
//! let in.
#![no_main]

use std::sync::{Arc, LazyLock};

use gateway::config::model::{
    self, Algorithm, ApiKeyAuth, Jwt, PasswordHash, Place, Url, VerifyKey, Way, key_set,
};
use gateway::http::client::{Client, ClientAddr};
use gateway::http::filter::auth::Auth;
use gateway::http::filter::auth::jwt::KeySets;
use gateway::http::filter::{Exchange, Local};
use http::{HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;

fn jwt(place: Place) -> Way {
    let secret = VerifyKey::secret(vec![7; 64]).expect("a secret");
    let jwk = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let (mut keys, _) = key_set(jwk.as_bytes(), false).expect("a set");
    keys.push(secret);
    Way::Jwt(Box::new(Jwt {
        place,
        keep: false,
        issuers: vec![],
        audiences: None,
        algorithms: Algorithm::ALL.map(|(_, algorithm)| algorithm).into(),
        keys,
        published: None,
        leeway: 0,
        require: vec![],
        name_claim: "sub".into(),
        scope_claim: "scope".into(),
        scopes: vec![],
        claims: vec![],
    }))
}

fn key(place: Place) -> Way {
    Way::ApiKey(ApiKeyAuth {
        place,
        keep: false,
        keys: Arc::new([([9; 32], model::Key::default())].into()),
        file: None,
    })
}

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let header = Place::Header(HeaderName::from_static("x-key"));
    let ways = vec![
        jwt(Place::Bearer),
        jwt(Place::Cookie("t".into())),
        key(Place::Query("k".into())),
        key(header),
    ];
    let model = model::Auth {
        ways: model::Ways::Any(ways),
        ..model::Auth::default()
    };
    Auth::compile(&Arc::new(model), &mut KeySets::default())
});

fuzz_target!(|data: &[u8]| {
    let _ = key_set(data, true);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = VerifyKey::from_pem(text);
        let _ = PasswordHash::new(text);
        if let Ok(url) = text.parse::<Url>() {
            assert_eq!(
                url.to_string().parse::<Url>().as_ref(),
                Ok(&url),
                "an address is written as it is read"
            );
        }
    }
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let mut request = Request::new(());
    for name in ["authorization", "cookie", "x-key"] {
        if let Ok(value) = HeaderValue::from_bytes(parts.next().unwrap_or_default()) {
            request.headers_mut().append(name, value);
        }
    }
    let query = String::from_utf8_lossy(parts.next().unwrap_or_default());
    if let Ok(uri) = format!("/p?{query}").parse() {
        *request.uri_mut() = uri;
    }
    let (mut head, ()) = request.into_parts();
    let client = Client {
        socket: ClientAddr::of_socket([192, 0, 2, 1].into()),
        forwarded: None,
    };
    let mut exchange = Exchange::new(client);
    let outcome = AUTH.check(&mut exchange, &mut head, &Local::default());
    assert!(
        outcome.is_err() && exchange.identity.is_none(),
        "somebody was let in"
    );
    // What stood in the places of credentials is gone.
    assert!(!head.headers.contains_key("x-key"));
});
