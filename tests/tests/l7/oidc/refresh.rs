//! Sessions that go on only as long as the provider gives new access tokens for them.

use std::num::NonZeroU32;
use std::time::Duration;

use gateway_tests::l7::provider::as_usual;
use gateway_tests::l7::{Browser, Client, Gateway};
use serde_json::json;

use super::{Scene, failed};

/// Longer than the access tokens here are good, and than clocks of whole seconds may be late.
fn wait() {
    std::thread::sleep(Duration::from_millis(2_300));
}

/// A gateway with two workers, and one who has logged in with a token that is good for a second.
fn logged_in(scene: &Scene) -> (Gateway, Browser) {
    scene
        .provider
        .set(&json!({"expires_in": 1, "claims": {"sub": "alice", "roles": ["a"]}}));
    let mut site = scene.site("", ", refresh: true", "");
    site.config.workers = NonZeroU32::new(2).unwrap();
    let gateway = Gateway::start(&site);
    let mut browser = Browser::new(gateway.address());
    assert_eq!(browser.log_in(&scene.provider, "/").status, 302);
    (gateway, browser)
}

#[test]
fn many_requests_at_once_spend_a_refresh_token_once() {
    let scene = Scene::new();
    let (_gateway, mut browser) = logged_in(&scene);
    assert_eq!(scene.provider.redeemed(), 1);
    wait();
    scene
        .provider
        .set(&json!({"expires_in": 600, "slow": 0.3, "claims": {"sub": "alice", "roles": ["b"]}}));
    let old = browser.clone();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let mut tab = old.clone();
            scope.spawn(move || {
                let answer = tab.send("POST /", "Sec-Fetch-Mode: cors\r\n");
                assert_eq!(answer.status, 200, "{}", answer.text());
                let line = answer
                    .header("set-cookie")
                    .expect("each is given the new session");
                assert!(line.starts_with("gateway-session=1."), "{line}");
            });
        }
    });
    assert_eq!(scene.provider.redeemed(), 2);
    assert_eq!(
        scene.upstream.last().header("x-roles"),
        ["b"],
        "and what is new of the caller"
    );
    // One that was on its way with the old cookie.
    assert_eq!(browser.open("/").status, 200);
    assert_ne!(browser.cookies, old.cookies);
    assert!(
        browser.open("/").header("set-cookie").is_none(),
        "and is good for a while"
    );
    assert_eq!(scene.provider.redeemed(), 2);
    assert_eq!(
        scene.provider.seen()["refused"],
        json!([]),
        "no token was shown twice"
    );
}

#[test]
fn who_leaves_while_it_is_refreshed_loses_nothing() {
    let scene = Scene::new();
    let (gateway, mut browser) = logged_in(&scene);
    wait();
    scene.provider.set(&json!({"expires_in": 600, "slow": 1}));
    let mut leaving = Client::connect(gateway.address());
    let session = &browser.cookies["gateway-session"];
    leaving.send(format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: gateway-session={session}\r\n\r\n"
    ));
    std::thread::sleep(Duration::from_millis(300));
    drop(leaving);
    std::thread::sleep(Duration::from_millis(1_200));
    scene.provider.set(&as_usual());
    assert_eq!(browser.open("/").status, 200);
    assert_eq!(
        (scene.provider.redeemed(), &scene.provider.seen()["refused"]),
        (2, &json!([]))
    );
}

#[test]
fn a_session_ends_when_the_provider_says_so_and_not_when_it_is_away() {
    let scene = Scene::new();
    let (_gateway, mut browser) = logged_in(&scene);
    wait();
    scene.provider.set(&json!({"status": 500}));
    for _ in 0..3 {
        assert_eq!(browser.open("/").status, 200, "it goes on");
    }
    assert_eq!(scene.provider.redeemed(), 2, "and does not ask each time");
    std::thread::sleep(Duration::from_secs(5));
    scene.provider.set(&as_usual());
    assert_eq!(browser.open("/").status, 200);
    assert_eq!(scene.provider.redeemed(), 3);
    wait();
    scene.provider.set(&json!({"revoked": true}));
    failed(
        &browser.send("GET /", "Accept: */*\r\n"),
        401,
        "credentials_missing",
    );
    assert_eq!(browser.open("/").status, 302);
    scene.provider.set(&json!({"revoked": false}));

    for how in [
        json!({"change": {"sub": "mallory"}}),
        json!({"change": {"aud": "open"}}),
        json!({"key": "stranger"}),
        json!({"token": {"refresh_token": null}, "before": true}),
    ] {
        let early = how.get("before").is_some();
        scene.provider.set(&as_usual());
        if early {
            scene.provider.set(&how);
        }
        let (_gateway, mut browser) = logged_in(&scene);
        scene.provider.set(&how);
        wait();
        assert_eq!(browser.open("/").status, 302, "{how}");
    }
    // Without a new ID token, and without a new refresh token, it goes on as it was.
    scene.provider.set(&as_usual());
    let (_gateway, mut browser) = logged_in(&scene);
    scene
        .provider
        .set(&json!({"token": {"id_token": null, "refresh_token": null}, "rotate": false}));
    for _ in 0..2 {
        wait();
        assert_eq!(browser.open("/").status, 200);
        assert_eq!(scene.upstream.last().header("x-roles"), ["a"]);
    }
}
