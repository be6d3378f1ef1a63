//! What a session is worth, and for how long: here, on other gateways, beside other ways of authentication.

use std::time::{Duration, Instant};

use gateway_tests::l7::{Browser, Client, Gateway, Site};
use serde_json::json;

use super::{Scene, failed, lines};

/// A second key of sessions.
const OTHER: &str = "the second key of sessions, as long";

#[test]
fn a_session_that_was_touched_or_is_over_is_none() {
    let scene = Scene::new();
    let gateway = scene.start();
    let mut browser = Browser::new(gateway.address());
    browser.log_in(&scene.provider, "/");
    let good = browser.cookies["gateway-session"].clone();
    let attempt = {
        let mut other = Browser::new(gateway.address());
        other.open("/");
        other.cookies.into_values().next().unwrap()
    };
    for bad in [
        String::new(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        good.replacen("1.", "2.", 1),
        good.replacen("1.", "", 1),
        {
            let middle = good.len() / 2;
            let other = if &good[middle..=middle] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &good[..middle], &good[middle + 1..])
        },
        format!("1.{attempt}"),
        format!("1.{}", "A".repeat(6_000)),
    ] {
        let mut browser = browser.clone();
        browser.cookies.insert("gateway-session".into(), bad.clone());
        assert_eq!(browser.open("/").status, 302, "{bad}");
        failed(
            &browser.send("GET /", "Accept: */*\r\n"),
            401,
            "credentials_missing",
        );
    }
    assert!(scene.upstream.requests().is_empty());
    // One of two is good: which of them another would take does not matter, as nobody else can make one.
    let mut twice = browser.clone();
    let pair = format!("x; gateway-session={good}");
    twice.cookies.insert("gateway-session".into(), pair);
    assert_eq!(twice.open("/").status, 200);

    let short = Gateway::start(&scene.site("", ", idle: 4s, lifetime: 9s", ""));
    let mut browser = Browser::new(short.address());
    browser.log_in(&scene.provider, "/");
    let first = browser.clone();
    let begun = Instant::now();
    let mut renewed = 0;
    while begun.elapsed() < Duration::from_millis(5_500) {
        let answer = browser.open("/");
        assert_eq!(answer.status, 200, "{:?}", begun.elapsed());
        if answer.header("set-cookie").is_some() {
            renewed += 1;
            assert!(
                lines(&answer, "cache-control")
                    .iter()
                    .any(|line| line.contains("private"))
            );
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!((2..=6).contains(&renewed), "{renewed}");
    assert_eq!(first.clone().open("/").status, 302, "unused for too long");
    std::thread::sleep(Duration::from_millis(4_500));
    assert_eq!(browser.open("/").status, 302, "it has an end");
}

#[test]
fn gateways_share_sessions_and_keys_are_replaced_without_a_gap() {
    let scene = Scene::new();
    let one = scene.start();
    let mut browser = Browser::new(one.address());
    let back = browser.begin(&scene.provider, "/x");
    let two = scene.start();
    // What one has begun the other completes.
    let mut browser = browser.at(two.address());
    assert_eq!(browser.open(&back).header("location"), Some("/x"));
    assert_eq!(browser.at(one.address()).open("/").status, 200);
    std::fs::write(scene.file("keys"), format!("{OTHER}\n{}\n", super::KEY)).unwrap();
    one.reload(&scene.site("", "", ""));
    assert_eq!(browser.at(one.address()).open("/").status, 200);
    let mut new = Browser::new(one.address());
    new.log_in(&scene.provider, "/");
    assert_eq!(new.open("/").status, 200);
    assert_eq!(
        new.at(two.address()).open("/").status,
        302,
        "it does not know the new key yet"
    );
    std::fs::write(scene.file("keys"), format!("{OTHER}\n")).unwrap();
    one.reload(&scene.site("", "", ""));
    assert_eq!(new.at(one.address()).open("/").status, 200);
    assert_eq!(browser.at(one.address()).open("/").status, 302, "its key is gone");
    // The same keys for another client are other keys.
    let other = Gateway::start(&scene.site(", callback: /cb", "", "").tap_client());
    assert_eq!(new.at(other.address()).open("/").status, 302);
}

/// The same for another client of the provider.
trait Tap {
    fn tap_client(self) -> Self;
}

impl Tap for Site {
    fn tap_client(self) -> Self {
        use gateway::config::model::{Way, Ways};
        self.with(|route| {
            let mut auth = (**route.auth.as_ref().unwrap()).clone();
            if let Ways::Any(ways) = &mut auth.ways
                && let [Way::Oidc(oidc)] = &mut ways[..]
            {
                oidc.client_id = "open".into();
                oidc.client_secret = None;
            }
            route.auth = Some(std::sync::Arc::new(auth));
        })
    }
}

#[test]
fn a_session_stands_beside_other_ways() {
    let scene = Scene::new();
    let both = |list: &str| {
        let oidc = format!(
            "{{oidc: {{issuer: \"{}\", client_id: open, session: {{keys: {{file: {}}}}}}}}}",
            scene.provider.name(),
            scene.file("keys").display()
        );
        // SHA-256 of `demo-key`.
        let key = "{api_key: {keys: [{name: program, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}]}}";
        let text = format!(
            "routes: [{{match: {{path: /**}}, auth: {{{list}: [{oidc}, {key}], pass: {{X-User: name}}}}, upstream: UP}}]\n"
        );
        Gateway::start(&Site::written(&text, &scene.upstream))
    };
    let any = both("any");
    let mut program = Client::connect(any.address());
    let request = |key: &str| {
        format!("GET / HTTP/1.1\r\nHost: a.example\r\nAccept: text/html\r\nX-API-Key: {key}\r\n\r\n")
    };
    assert_eq!(program.send(request("demo-key")).response().status, 200);
    assert_eq!(scene.upstream.last().header("x-user"), ["program"]);
    failed(
        &program.send(request("wrong")).response(),
        401,
        "credentials_invalid",
    );
    // A public client.
    let mut browser = Browser::new(any.address());
    assert_eq!(browser.log_in(&scene.provider, "/").status, 302);
    assert_eq!(browser.open("/").status, 200);
    assert_eq!(
        scene.provider.seen()["token"],
        json!([{"grant_type": "authorization_code", "client_id": "open"}])
    );
    let all = both("all");
    let mut browser = browser.at(all.address());
    assert_eq!(browser.send("GET /", "X-API-Key: demo-key\r\n").status, 200);
    failed(
        &browser.send("GET /", "X-API-Key: wrong\r\nAccept: text/html\r\n"),
        401,
        "credentials_invalid",
    );
}

#[test]
fn a_large_session_is_parted_and_one_that_is_too_large_is_refused() {
    let scene = Scene::new();
    let gateway = scene.start();
    let mut browser = Browser::new(gateway.address());
    for (roles, count) in [(100, 1), (300, 3), (100, 1)] {
        let roles: Vec<_> = (0..roles)
            .map(|at| format!("a role with number {at:04}"))
            .collect();
        scene
            .provider
            .set(&json!({"claims": {"sub": "alice", "roles": roles}}));
        browser.cookies.remove("gateway-session");
        let answer = browser.log_in(&scene.provider, "/");
        assert_eq!(
            (answer.status, browser.cookies.len()),
            (302, count),
            "{:?}",
            browser.names()
        );
        assert_eq!(browser.open("/").status, 200);
        assert!(scene.upstream.last().header("cookie").is_empty());
    }
    scene
        .provider
        .set(&json!({"claims": {"sub": "alice", "roles": vec!["x".repeat(96); 110]}}));
    let mut browser = Browser::new(gateway.address());
    failed(&browser.log_in(&scene.provider, "/"), 500, "internal");
    assert!(browser.cookies.is_empty());
}
