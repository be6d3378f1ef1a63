//! What the provider says, and does not say: tokens that are not of this log-in, outages, metadata that lead astray.

use std::time::{Duration, Instant};

use gateway_tests::l7::provider::as_usual;
use gateway_tests::l7::{Browser, Gateway, Site};
use serde_json::{Value, json};

use super::{Scene, failed};

#[test]
fn tokens_that_are_not_of_this_log_in_make_no_session() {
    let scene = Scene::new();
    let gateway = scene.start();
    let other = "http://127.0.0.1:1";
    let now = gateway_tests::l7::issuer::now();
    let cases: Vec<(&str, Value)> = vec![
        (
            "nonce of another",
            json!({"change": {"nonce": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}),
        ),
        ("no nonce", json!({"change": {"nonce": null}})),
        ("nonce a list", json!({"change": {"nonce": ["x"]}})),
        ("other client", json!({"change": {"aud": "open"}})),
        ("no audience", json!({"change": {"aud": null}})),
        (
            "several, nobody presents",
            json!({"change": {"aud": ["web", "open"]}}),
        ),
        (
            "issued to another",
            json!({"change": {"aud": ["web", "open"], "azp": "open"}}),
        ),
        ("azp of another", json!({"change": {"azp": "open"}})),
        ("other issuer", json!({"change": {"iss": other}})),
        ("expired", json!({"change": {"exp": now - 60}})),
        ("no end", json!({"change": {"exp": null}})),
        ("of long ago", json!({"change": {"iat": now - 86_400}})),
        ("of tomorrow", json!({"change": {"iat": now + 86_400}})),
        ("no iat", json!({"change": {"iat": null}})),
        ("no sub", json!({"change": {"sub": null}})),
        ("empty sub", json!({"change": {"sub": ""}})),
        ("stranger's key", json!({"key": "stranger"})),
        (
            "stranger under a known name",
            json!({"key": "stranger", "header": {"kid": "rsa"}}),
        ),
        ("none", json!({"alg": "none"})),
        ("the secret as key", json!({"alg": "HS256"})),
        ("other access token", json!({"at_hash": "bad"})),
        ("hash without token", json!({"token": {"access_token": null}})),
        ("no ID token", json!({"token": {"id_token": null}})),
        ("no token", json!({"token": {"id_token": "x.y.z"}})),
        ("other provider answers", json!({"callback": {"iss": other}})),
        ("nobody says who answers", json!({"callback": {"iss": null}})),
        (
            "refused",
            json!({"callback": {"error": "access_denied", "error_description": "<script>", "code": null}}),
        ),
        (
            "refused and a code",
            json!({"callback": {"error": "access_denied"}}),
        ),
        ("no code", json!({"callback": {"code": null}})),
        ("empty code", json!({"callback": {"code": ""}})),
        ("wrong code", json!({"callback": {"code": "x&client_id=open"}})),
    ];
    for (name, how) in cases {
        scene.provider.set(&as_usual());
        scene.provider.set(&how);
        let mut browser = Browser::new(gateway.address());
        let answer = browser.log_in(&scene.provider, "/x");
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        failed(&answer, 400, "login_failed");
        assert!(!answer.text().contains("script"), "{}", answer.text());
        assert!(browser.cookies.is_empty(), "{name}: {:?}", browser.cookies);
    }
    for how in [
        json!({}),
        json!({"key": "p256", "alg": "ES256"}),
        json!({"at_hash": "none"}),
        json!({"change": {"aud": ["web", "open"], "azp": "web"}}),
        json!({"change": {"aud": ["web"]}, "token": {"scope": null}}),
    ] {
        scene.provider.set(&as_usual());
        scene.provider.set(&how);
        let mut browser = Browser::new(gateway.address());
        assert_eq!(browser.log_in(&scene.provider, "/x").status, 302, "{how}");
        assert_eq!(browser.open("/x").status, 200, "{how}");
    }
}

#[test]
fn a_provider_that_is_away_lets_nobody_in_and_nobody_out() {
    let scene = Scene::new();
    let gateway = scene.start();
    let mut known = Browser::new(gateway.address());
    known.log_in(&scene.provider, "/");
    let slow = Gateway::start(&scene.site(", timeout: 1s", "", ""));
    for (how, spent) in [
        (json!({"status": 500}), false),
        (json!({"status": 302}), false),
        (json!({"slow": 3}), true),
    ] {
        let mut browser = Browser::new(slow.address());
        let back = browser.begin(&scene.provider, "/x");
        let before = browser.cookies.clone();
        scene.provider.set(&how);
        let begun = Instant::now();
        let answer = browser.open(&back);
        failed(&answer, 503, "auth_unavailable");
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{how}: {:?}",
            begun.elapsed()
        );
        assert_eq!(browser.cookies, before, "the attempt stays");
        scene.provider.set(&as_usual());
        let again = browser.open(&back).status;
        // A slow provider may take the code from either request.
        let expected = if spent { &[400, 302][..] } else { &[302] };
        assert!(expected.contains(&again), "{how}: and then it is back: {again}");
    }
    // What is too large would be no smaller another time.
    let mut browser = Browser::new(slow.address());
    let back = browser.begin(&scene.provider, "/x");
    scene.provider.set(&json!({"large": 100_000}));
    failed(&browser.open(&back), 400, "login_failed");
    assert!(browser.cookies.is_empty());
    drop(scene.provider);
    assert_eq!(known.open("/").status, 200, "a session needs no provider");
    // One that never saw it can send nobody there; sessions go on, and the others are told to come again.
    let text = format!(
        "routes: [{{match: {{path: /**}}, auth: {{oidc: {{issuer: \"http://127.0.0.1:1\", client_id: web, \
         session: {{keys: {{file: {}}}}}}}}}, upstream: UP}}]\n",
        scene.dir.path().join("keys").display()
    );
    let down = Gateway::start(&Site::written(&text, &scene.upstream));
    let mut browser = Browser::new(down.address());
    let answer = browser.open("/");
    failed(&answer, 503, "auth_unavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
    failed(
        &browser.send("GET /", "Accept: */*\r\n"),
        401,
        "credentials_missing",
    );
}

#[test]
fn a_provider_that_is_another_or_leads_astray_is_not_believed() {
    for metadata in [
        json!({"issuer": "http://127.0.0.1:1"}),
        json!({"issuer": null}),
        json!({"token_endpoint": null}),
        json!({"authorization_endpoint": "javascript:alert(1)"}),
        json!({"code_challenge_methods_supported": ["plain"]}),
    ] {
        let scene = Scene::new();
        scene.provider.set(&json!({"metadata": metadata}));
        let gateway = scene.start();
        let mut browser = Browser::new(gateway.address());
        failed(&browser.open("/"), 503, "auth_unavailable");
        assert!(browser.cookies.is_empty());
    }
}

#[test]
fn the_secret_goes_in_the_form_if_the_provider_wants_it_there() {
    let scene = Scene::new();
    for (method, own, status) in [
        ("client_secret_post", "post", 302),
        ("client_secret_basic", "basic", 302),
        ("client_secret_basic", "post", 503),
        ("client_secret_post", "basic", 503),
    ] {
        scene.provider.set(&json!({"method": method}));
        let gateway = Gateway::start(&scene.site(&format!(", client_auth: {own}"), "", ""));
        let mut browser = Browser::new(gateway.address());
        assert_eq!(
            browser.log_in(&scene.provider, "/").status,
            status,
            "{method} {own}"
        );
    }
}

#[test]
fn the_provider_is_asked_to_end_its_session_too() {
    let scene = Scene::new();
    let gateway = Gateway::start(&scene.site(", end_session: true, after_logout: /bye", "", ""));
    let mut browser = Browser::new(gateway.address());
    browser.log_in(&scene.provider, "/");
    let answer = browser.open("/oauth2/logout");
    assert!(browser.cookies.is_empty());
    let back = scene.provider.visit(answer.header("location").unwrap());
    assert_eq!(back, "http://a.example/bye");
    let told = json!([{"client_id": "web", "post_logout_redirect_uri": "http://a.example/bye"}]);
    assert_eq!(scene.provider.seen()["end"], told);
}
