//! What a caller's credentials cost a worker, in processor time of one core, beside the cryptography alone.
//!
//! `cargo run --release -p gateway-tests --example auth_cost`. To be held against what a plain request costs in all
//! (`cargo xtask bench http --case plain`).

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use gateway::config::model::{self, Algorithm, ApiKeyAuth, Jwt, Key, Place, VerifyKey, Way};
use gateway::http::client::{Client, ClientAddr};
use gateway::http::filter::auth::jwt::KeySets;
use gateway::http::filter::auth::{Auth, Progress};
use gateway::http::filter::{Exchange, Local};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Different tokens of one kind: more than are asked for twice within one measurement without the memory.
const TOKENS: usize = 4_000;

fn head(name: &'static str, value: &str) -> Parts {
    let mut request = Request::new(());
    for (name, value) in [
        ("host", "api.example.com"),
        ("user-agent", "curl/8.0"),
        ("accept", "*/*"),
        ("x-forwarded-for", "192.0.2.1"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let value = HeaderValue::from_str(value).expect("a value");
    request.headers_mut().insert(name, value);
    request.into_parts().0
}

/// Nanoseconds of one call, the least of several rounds.
fn measure(calls: usize, mut call: impl FnMut(usize)) -> f64 {
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        for at in 0..calls {
            call(at);
        }
        least = least.min(begun.elapsed());
    }
    least.as_secs_f64() * 1e9 / calls as f64
}

fn check(auth: &Auth, local: &Local, head: &Parts) {
    let client = Client {
        socket: ClientAddr::of_socket([192, 0, 2, 1].into()),
        forwarded: None,
    };
    let mut exchange = Exchange::new(client);
    let mut head = head.clone();
    let outcome = auth.check(&mut exchange, &mut head, local);
    assert!(matches!(outcome, Ok(Progress::Passed)), "{outcome:?}");
    black_box(&exchange);
}

fn compile(way: Way) -> Auth {
    Auth::compile(&Arc::new(model::Auth::by(way)), &mut KeySets::default())
}

fn jwt(keys: Vec<VerifyKey>) -> Auth {
    compile(Way::Jwt(Box::new(Jwt {
        place: Place::Bearer,
        keep: true,
        issuers: vec!["https://idp.example.com".into()],
        audiences: Some(vec!["orders".into()]),
        algorithms: Algorithm::ALL.map(|(_, algorithm)| algorithm).into(),
        keys,
        published: None,
        leeway: 30,
        require: vec![],
        name_claim: "sub".into(),
        scope_claim: "scope".into(),
        scopes: vec![],
        claims: vec![],
    })))
}

fn tokens(alg: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<String> {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "k", "typ": "JWT"}).to_string());
    let token = |at: usize| {
        let claims = json!({"iss": "https://idp.example.com", "aud": ["orders"], "sub": format!("user-{at}"), "iat": 1,
            "exp": 4_000_000_000_u64, "scope": "read write", "jti": "0123456789abcdef", "tenant": {"id": 7}});
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    };
    (0..TOKENS).map(token).collect()
}

/// The cryptography alone, then a token that is new each time, then one that is known.
fn token_costs(name: &str, auth: &Auth, tokens: &[String], alone: impl Fn(&[u8], &[u8])) {
    let parts: Vec<_> = tokens
        .iter()
        .map(|token| {
            let (signed, signature) = token.rsplit_once('.').expect("three parts");
            (
                signed.as_bytes(),
                URL_SAFE_NO_PAD.decode(signature).expect("base64"),
            )
        })
        .collect();
    let crypto = measure(TOKENS, |at| alone(parts[at].0, &parts[at].1));
    let heads: Vec<_> = tokens
        .iter()
        .map(|token| head("authorization", &format!("Bearer {token}")))
        .collect();
    // Fresh every time: nothing is remembered from one round to the next.
    let mut least = f64::MAX;
    for _ in 0..3 {
        let local = Local::default();
        let begun = Instant::now();
        for head in &heads {
            check(auth, &local, head);
        }
        least = least.min(begun.elapsed().as_secs_f64() * 1e9 / TOKENS as f64);
    }
    let local = Local::default();
    let known = measure(200_000, |at| check(auth, &local, &heads[at % 64]));
    println!("{name:28} {crypto:9.0} {least:9.0} {known:9.0}");
}

fn main() {
    let open = head("x-api-key", "none");
    let copied = measure(1_000_000, |_| {
        black_box(open.clone());
    });
    println!("ns on one core; the copy of a header that each measurement makes is in them: {copied:.0}\n");
    println!("{:28} {:>9} {:>9} {:>9}", "", "crypto", "new", "known");
    let random = SystemRandom::new();
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let pair =
        EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).expect("a key");
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
        "y": URL_SAFE_NO_PAD.encode(&point[33..65])});
    let key = VerifyKey::from_jwk(&jwk).expect("a key");
    let alone = key.parsed(Algorithm::Es256).expect("a key");
    let made = tokens("ES256", |bytes| {
        pair.sign(&random, bytes).expect("a signature").as_ref().to_vec()
    });
    token_costs("token, ES256", &jwt(vec![key]), &made, |signed, signature| {
        alone.verify_sig(signed, signature).expect("good");
    });

    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a key");
    let pem = STANDARD.encode(der.as_ref());
    let lines: Vec<_> = pem.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    );
    let key = VerifyKey::from_pem(&pem).expect("a key").remove(0);
    let alone = key.parsed(Algorithm::Rs256).expect("a key");
    let made = tokens("RS256", |bytes| {
        let mut out = vec![0; pair.public_modulus_len()];
        pair.sign(&signature::RSA_PKCS1_SHA256, &random, bytes, &mut out)
            .expect("a signature");
        out
    });
    token_costs(
        "token, RS256 (2048 bits)",
        &jwt(vec![key]),
        &made,
        |signed, signature| {
            alone.verify_sig(signed, signature).expect("good");
        },
    );

    println!();
    for count in [10, 100_000] {
        let secret = |at: usize| format!("gk_{at:043}");
        let key = |at: usize| Key {
            name: format!("holder-{at}"),
            ..Key::default()
        };
        let keys = (0..count)
            .map(|at| (Sha256::digest(secret(at)).into(), key(at)))
            .collect();
        let auth = compile(Way::ApiKey(ApiKeyAuth {
            place: Place::Header(HeaderName::from_static("x-api-key")),
            keep: false,
            keys: Arc::new(keys),
            file: None,
        }));
        // In no order, so that the processor's caches help as little as they would.
        let heads: Vec<_> = (0..count.min(20_000))
            .map(|at| head("x-api-key", &secret(at.wrapping_mul(7_919) % count)))
            .collect();
        let local = Local::default();
        let cost = measure(400_000, |at| check(&auth, &local, &heads[at % heads.len()]));
        println!("key among {count:<18} {:>9} {:>9} {cost:9.0}", "", "");
    }
}
