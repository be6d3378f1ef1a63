//! Tokens: made by another implementation, good and bad; keys that are published, change, and can not be had.

use std::path::Path;
use std::time::{Duration, Instant};

use gateway::config::Config;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::issuer::now;
use gateway_tests::l7::raw::Response;
use gateway_tests::l7::{Client, Gateway, Issuer, Site, Upstream};
use serde_json::{Value, json};

/// By the issuer's metadata, with little patience.
fn discovering(issuer: &Issuer, more: &str) -> String {
    format!(
        "{{jwt: {{issuer: \"{}\", audience: orders, leeway: 5s, keys: {{refresh: 1h, floor: 200ms, timeout: 2s}}{more}}}, \
         pass: {{X-User: name, X-Scopes: scopes}}}}",
        issuer.name()
    )
}

fn ask(gateway: &Gateway, token: &str) -> Response {
    gateway.ask("GET /", &format!("Authorization: Bearer {token}\r\n"))
}

fn with(claims: &Value, change: Value) -> Value {
    let (mut claims, Value::Object(change)) = (claims.clone(), change) else {
        panic!("an object")
    };
    for (name, value) in change {
        claims[name] = value;
    }
    claims
}

#[test]
fn tokens_of_another_implementation_are_taken_in_every_algorithm() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let gateway = Gateway::start(&Site::guarded(&discovering(&issuer, ""), &upstream));
    for (key, alg) in [
        ("rsa", "RS256"),
        ("rsa", "RS384"),
        ("rsa", "RS512"),
        ("rsa", "PS256"),
        ("rsa", "PS384"),
        ("rsa", "PS512"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("p521", "ES512"),
        ("ed", "EdDSA"),
    ] {
        let claims = with(
            &issuer.claims(),
            json!({"scope": "read write", "aud": ["x", "orders"]}),
        );
        let (token, good) = issuer.sign(&json!({"key": key, "alg": alg, "claims": claims}));
        assert!(good, "{alg}");
        for _ in 0..2 {
            assert_eq!(ask(&gateway, &token).status, 200, "{alg}");
            let seen = upstream.last();
            assert_eq!(seen.header("x-user"), ["alice"]);
            assert_eq!(seen.header("x-scopes"), ["read write"]);
            assert_eq!(
                seen.header("authorization"),
                [format!("Bearer {token}")],
                "it goes on by default"
            );
        }
        // One bit of any part changed is another token.
        for at in [token.len() - 6, token.find('.').unwrap() + 9, 5] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let answer = ask(&gateway, std::str::from_utf8(&bytes).unwrap());
            assert_eq!(answer.status, 401, "{alg} at {at}");
        }
    }
    assert_eq!(issuer.looks(), 1);
}

#[test]
fn three_libraries_and_the_gateway_say_the_same_of_tokens_of_each() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let gateway = Gateway::start(&Site::guarded(&discovering(&issuer, ""), &upstream));
    let claims = issuer.claims();
    // Without an algorithm that Authlib lacks.
    for (key, alg) in [
        ("rsa", "RS256"),
        ("rsa", "RS512"),
        ("rsa", "PS256"),
        ("rsa", "PS384"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("p521", "ES512"),
        ("ed", "EdDSA"),
    ] {
        for by in ["", "jwcrypto", "authlib"] {
            for (change, good) in [
                (json!({}), true),
                (json!({"aud": ["x", "orders"], "name": "größe", "n": 1.5}), true),
                (json!({"exp": now() - 3600}), false),
                (json!({"nbf": now() + 3600}), false),
                (json!({"iss": "https://other.example"}), false),
                (json!({"aud": "other"}), false),
            ] {
                let asked =
                    json!({"key": key, "alg": alg, "by": by, "claims": with(&claims, change.clone())});
                let (token, says) = issuer.judged(&asked);
                assert_eq!(says, [good; 3], "{by} {alg} {change}");
                let status = if good { 200 } else { 401 };
                assert_eq!(ask(&gateway, &token).status, status, "{by} {alg} {change}");
            }
        }
    }
}

#[test]
fn t32_bad_tokens_are_refused_as_by_another_implementation() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let gateway = Gateway::start(&Site::guarded(&discovering(&issuer, ""), &upstream));
    let claims = issuer.claims();
    let case = |claims: Value| json!({"key": "rsa", "alg": "RS256", "claims": claims});
    let header =
        |headers: Value| json!({"key": "stranger", "alg": "RS256", "claims": claims, "headers": headers});
    let twice = format!(
        r#"{{"iss":"{}","aud":"orders","sub":"alice","sub":"root","exp":{}}}"#,
        issuer.name(),
        now() + 600
    );
    let bad = [
        json!({"key": "rsa", "alg": "none", "claims": claims}),
        json!({"key": "rsa", "alg": "None", "claims": claims}),
        json!({"key": "rsa", "alg": "nOnE", "claims": claims}),
        // The public key as a secret.
        json!({"key": "public-rsa", "alg": "HS256", "claims": claims, "headers": {"kid": "rsa"}}),
        json!({"key": "public-p256", "alg": "HS256", "claims": claims, "headers": {"kid": "p256"}}),
        json!({"key": "secret", "alg": "HS256", "claims": claims, "headers": {"kid": "rsa"}}),
        // Keys that the token brings along, under a known name and without one.
        header(json!({"kid": "rsa", "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}})),
        header(json!({"kid": "rsa", "jku": format!("{}/keys", issuer.name())})),
        header(json!({"kid": "rsa", "x5u": "https://evil.example/x"})),
        header(json!({"kid": "rsa", "x5c": ["AQAB"]})),
        header(json!({"kid": "../../dev/null"})),
        header(json!({"kid": "' OR 1=1 --"})),
        header(json!({"kid": "rsa", "crit": ["exp"]})),
        json!({"key": "rsa", "alg": "RS256", "claims": claims, "headers": {"crit": ["b64"], "b64": true}}),
        json!({"key": "rsa", "alg": "RS256", "claims": claims, "headers": {"kid": 7}}),
        json!({"key": "rsa", "alg": "RS256", "raw": twice}),
        case(with(&claims, json!({"exp": Value::Null}))),
        case(with(&claims, json!({"exp": format!("{}", now() + 600)}))),
        case(with(&claims, json!({"exp": true}))),
        case(with(&claims, json!({"exp": [now() + 600]}))),
        case(with(&claims, json!({"exp": now() - 60}))),
        case(with(&claims, json!({"nbf": now() + 60}))),
        case(with(&claims, json!({"nbf": "0"}))),
        case(with(&claims, json!({"aud": ["other"]}))),
        case(with(&claims, json!({"aud": "order"}))),
        case(with(&claims, json!({"aud": {"orders": true}}))),
        case(with(&claims, json!({"aud": Value::Null}))),
        case(with(&claims, json!({"iss": "https://other.example"}))),
        case(with(&claims, json!({"iss": [issuer.name()]}))),
        case(with(&claims, json!({"sub": {"a": 1}}))),
    ];
    let mut taken_by_the_other = Vec::new();
    for asked in &bad {
        let (token, good) = issuer.sign(asked);
        let answer = ask(&gateway, &token);
        assert_eq!(
            (answer.status, answer.code().as_deref()),
            (401, Some("credentials_invalid")),
            "{asked}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Bearer error="invalid_token""#)
        );
        if good {
            taken_by_the_other.push(asked.to_string());
        }
    }
    // The other one, which was given the right key and algorithm, lets these pass: extensions that it does not understand,
    // the last of two names, text for a number, and a subject that is no text.
    let known = ["\"crit\"", "\"raw\"", "\"exp\":\"", "\"nbf\":\"", "\"sub\":{"];
    assert!(
        taken_by_the_other
            .iter()
            .all(|asked| known.iter().any(|known| asked.contains(known))),
        "{taken_by_the_other:#?}"
    );
    assert!(upstream.requests().is_empty());
    for (lines, code, challenge) in [
        ("", "credentials_missing", "Bearer"),
        ("Authorization: Basic YTpi\r\n", "credentials_missing", "Bearer"),
        (
            "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
            "credentials_invalid",
            r#"Bearer error="invalid_token""#,
        ),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let answer = Client::connect(gateway.address()).send(request).response();
        assert_eq!(
            (answer.code().as_deref(), answer.header("www-authenticate")),
            (Some(code), Some(challenge))
        );
    }
}

#[test]
fn t32_a_remembered_token_ends_when_it_ends() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let auth = discovering(&issuer, "").replace("leeway: 5s", "leeway: 0s");
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let claims = with(&issuer.claims(), json!({"exp": now() + 3}));
    let (token, _) = issuer.sign(&json!({"key": "p256", "alg": "ES256", "claims": claims}));
    let begun = Instant::now();
    assert_eq!(ask(&gateway, &token).status, 200);
    assert!(eventually(|| ask(&gateway, &token).status == 401));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn t33_a_new_key_is_taken_up_by_one_look_for_all_who_wait() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let gateway = Gateway::start(&Site::guarded(&discovering(&issuer, ""), &upstream));
    let old = issuer.token("rsa", "RS256");
    assert_eq!(ask(&gateway, &old).status, 200);
    assert_eq!(issuer.looks(), 1);
    let new = issuer.token("rsa2", "RS256");
    std::thread::sleep(Duration::from_millis(300));
    // Both are published for a while, and the issuer is slow.
    issuer.publish(&json!({"keys": ["rsa", "rsa2"], "slow": 0.3}));
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| ask(&gateway, &new).status))
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 20]);
    assert_eq!(issuer.looks(), 2, "one look for all");
    assert_eq!(ask(&gateway, &old).status, 200, "in the overlap both are good");
    // The old key is withdrawn: what was remembered by it is forgotten with the next look.
    issuer.publish(&json!({"keys": ["rsa2", "p256"], "slow": 0}));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ask(&gateway, &issuer.token("p256", "ES256")).status, 200);
    assert_eq!(issuer.looks(), 3);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ask(&gateway, &old).status, 401);
    assert_eq!(ask(&gateway, &new).status, 200);
}

#[test]
fn t33_a_flood_of_made_up_keys_makes_few_looks() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let auth = discovering(&issuer, "").replace("floor: 200ms", "floor: 1s");
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let good = issuer.token("ed", "EdDSA");
    assert_eq!(ask(&gateway, &good).status, 200);
    let tokens: Vec<_> = (0..300)
        .map(|at| {
            let headers = json!({"kid": format!("made-up-{at}")});
            issuer.sign(&json!({"key": "stranger", "alg": "RS256", "claims": issuer.claims(), "headers": headers})).0
        })
        .collect();
    let before = (Instant::now(), issuer.looks());
    for token in &tokens {
        assert_eq!(ask(&gateway, token).status, 401);
    }
    let most = before.0.elapsed().as_secs() + 2;
    let looks = issuer.looks() - before.1;
    assert!(looks <= most, "{looks} looks in {:?}", before.0.elapsed());
    assert_eq!(ask(&gateway, &good).status, 200);
}

#[test]
fn t33_while_the_issuer_is_down_the_last_keys_stay() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let auth = discovering(&issuer, "").replace("refresh: 1h", "refresh: 1s");
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    assert_eq!(ask(&gateway, &issuer.token("rsa", "RS256")).status, 200);
    issuer.publish(&json!({"broken": true}));
    let looks = issuer.looks();
    assert!(eventually(|| issuer.looks() >= looks + 2));
    assert_eq!(
        ask(&gateway, &issuer.token("rsa", "PS256")).status,
        200,
        "another token, by the keys of before"
    );
    let unknown = issuer.token("rsa2", "RS256");
    assert_eq!(ask(&gateway, &unknown).status, 401);
    issuer.publish(&json!({"broken": false, "keys": ["rsa2"]}));
    assert!(eventually(|| ask(&gateway, &unknown).status == 200));
}

#[test]
fn t33_without_any_keys_nobody_is_let_in_and_nobody_is_blamed() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    issuer.publish(&json!({"broken": true}));
    let gateway = Gateway::start(&Site::guarded(&discovering(&issuer, ""), &upstream));
    let token = issuer.token("rsa", "RS256");
    let answer = ask(&gateway, &token);
    assert_eq!(
        (answer.status, answer.code().as_deref()),
        (503, Some("auth_unavailable"))
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(ask(&gateway, "no.token.atall").status, 401);
    issuer.publish(&json!({"broken": false}));
    assert!(eventually(|| ask(&gateway, &token).status == 200));
}

#[test]
fn static_keys_and_secrets_need_nobody() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("rsa.pem", &issuer.ask("GET", "/pem/rsa", ""));
    write(
        "all.pem",
        &[
            issuer.ask("GET", "/pem/p256", ""),
            issuer.ask("GET", "/pem/ed", ""),
        ]
        .concat(),
    );
    write("set.json", &issuer.ask("GET", "/keys", ""));
    write(
        "secret",
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
    );
    let looks = issuer.looks();
    let gateway = |keys: &str| {
        let auth = format!(
            "{{jwt: {{issuer: \"{}\", audience: orders, keys: {{{keys}}}}}}}",
            issuer.name()
        );
        let keys = auth.replace("DIR", &dir.path().display().to_string());
        Gateway::start(&Site::guarded(&keys, &upstream))
    };
    let (pem, both, set) = (
        gateway("pem: DIR/rsa.pem"),
        gateway("pem: DIR/all.pem"),
        gateway("jwks: DIR/set.json"),
    );
    let secret = gateway("secret: {file: DIR/secret}");
    for (key, alg, good) in [
        ("rsa", "PS512", [true, false, true, false]),
        ("p256", "ES256", [false, true, true, false]),
        ("ed", "EdDSA", [false, true, true, false]),
        ("p521", "ES512", [false, false, true, false]),
        ("secret", "HS256", [false, false, false, true]),
        ("secret", "HS512", [false, false, false, true]),
        ("public-rsa", "HS256", [false; 4]),
    ] {
        let token = issuer.token(key, alg);
        let seen = [&pem, &both, &set, &secret].map(|gateway| ask(gateway, &token).status == 200);
        assert_eq!(seen, good, "{key} {alg}");
    }
    assert_eq!(issuer.looks(), looks);
}

#[test]
fn scopes_and_claims_that_lack_are_told() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let auth = discovering(
        &issuer,
        ", scopes: [read, write], claims: {plan: gold}, require: [tenant.id], name: email, keep: false",
    );
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let ask = |change: Value| {
        let claims = with(&issuer.claims(), change);
        ask(
            &gateway,
            &issuer
                .sign(&json!({"key": "ed", "alg": "EdDSA", "claims": claims}))
                .0,
        )
    };
    let good = json!({"scope": "write read x", "plan": ["gold"], "tenant": {"id": 1}, "email": "a@b"});
    assert_eq!(ask(good.clone()).status, 200);
    let seen = upstream.last();
    assert_eq!(
        (seen.header("x-user"), seen.header("authorization")),
        (vec!["a@b"], vec![])
    );
    let lacking = ask(with(&good, json!({"scope": "read"})));
    assert_eq!(
        (lacking.status, lacking.code().as_deref()),
        (403, Some("forbidden"))
    );
    assert_eq!(
        lacking.header("www-authenticate"),
        Some(r#"Bearer error="insufficient_scope", scope="read write""#)
    );
    assert_eq!(ask(with(&good, json!({"plan": "silver"}))).status, 403);
    assert_eq!(ask(with(&good, json!({"tenant": {}}))).status, 401);
}

#[test]
fn a_token_may_stand_elsewhere() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    for (place, target, lines, left) in [
        ("header: X-Token", "/?a=1", "X-Token: TOKEN\r\n", "/?a=1"),
        (
            "cookie: session",
            "/?a=1",
            "Cookie: a=b; session=TOKEN\r\n",
            "/?a=1",
        ),
        ("query: token", "/?a=1&token=TOKEN", "", "/?a=1"),
    ] {
        let auth = discovering(&issuer, &format!(", {place}, keep: false"));
        let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
        let token = issuer.token("p256", "ES256");
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n").replace("TOKEN", &token);
        assert_eq!(
            Client::connect(gateway.address()).send(request).response().status,
            200,
            "{place}"
        );
        let seen = upstream.last();
        assert_eq!(seen.target, left);
        assert!(
            seen.headers.iter().all(|(_, value)| !value.contains(&token)),
            "{place}"
        );
        assert_eq!(
            ask(&gateway, &token).status,
            401,
            "it is not looked for in Authorization"
        );
    }
}

#[test]
fn a_key_set_outlives_a_reload() {
    let (issuer, upstream) = (Issuer::start(), Upstream::text("in"));
    let auth = discovering(&issuer, "");
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let token = issuer.token("rsa", "RS256");
    assert_eq!(ask(&gateway, &token).status, 200);
    issuer.publish(&json!({"broken": true}));
    gateway.reload(&Site::guarded(&auth.replace("X-User", "X-Caller"), &upstream));
    assert_eq!(ask(&gateway, &token).status, 200);
    assert_eq!(upstream.last().header("x-caller"), ["alice"]);
    assert_eq!(issuer.looks(), 1);
}

#[test]
fn keys_that_are_not_there_refuse_the_configuration() {
    let text = "listen: [{address: 127.0.0.1:1}]\nxdp: {mode: none}\nroutes:\n  - match: {path: /**}\n    \
        auth: {jwt: {issuer: i, audience: a, keys: {pem: /nonexistent.pem}}}\n    upstream: [{url: http://127.0.0.1:2}]\n";
    let faults = Config::parse(text, "t.yaml", Path::new("/"))
        .expect_err("no file")
        .to_string();
    assert!(faults.contains("can not read \"/nonexistent.pem\""), "{faults}");
}
