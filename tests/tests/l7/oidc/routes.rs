//! Several routes of one host, some of which have log-ins: whose session is good where, and who gets to see it.

use std::process::Command;

use gateway_tests::l7::{Browser, Client, Gateway, Site, Upstream};
use serde_json::json;

use super::{Scene, failed};

/// The route's settings of `oidc`: what all have, and some more.
fn oidc(scene: &Scene, more: &str) -> String {
    format!(
        "{{issuer: \"{}\", client_id: open, session: {{keys: {{file: {}}}}}{more}}}",
        scene.provider.name(),
        scene.file("keys").display()
    )
}

#[test]
fn a_session_is_good_where_it_would_have_been_the_same() {
    let scene = Scene::new();
    // What the person chooses himself, and what he does not.
    let claims = json!({"claims": {"sub": "u7", "nickname": "root@corp", "email": "eve@evil"}});
    scene.provider.set(&claims);
    let text = format!(
        "routes:\n\
         - {{match: {{path: /**}}, auth: {{oidc: {}, pass: {{X-User: name}}}}, upstream: UP}}\n\
         - {{match: {{path: /same/**}}, auth: {{oidc: {}, pass: {{X-User: name}}}}, upstream: UP}}\n\
         - {{match: {{path: /admin/**}}, auth: {{oidc: {}, authorize: [{{names: [root@corp]}}], pass: {{X-User: name}}}}, upstream: UP}}\n\
         - {{match: {{path: /claims/**}}, auth: {{oidc: {}}}, upstream: UP}}\n\
         - {{match: {{path: /scopes/**}}, auth: {{oidc: {}}}, upstream: UP}}\n\
         - {{match: {{path: /algorithms/**}}, auth: {{oidc: {}}}, upstream: UP}}\n\
         - {{match: {{path: /parameters/**}}, auth: {{oidc: {}}}, upstream: UP}}\n",
        oidc(&scene, ", name: nickname, scopes: [a, b]"),
        oidc(
            &scene,
            ", name: nickname, scopes: [b, openid, a], callback: /same/oauth2/callback, logout: /same/out, timeout: 3s"
        ),
        oidc(
            &scene,
            ", name: email, scopes: [a, b], callback: /admin/oauth2/callback"
        ),
        oidc(
            &scene,
            ", name: nickname, scopes: [a, b], claims: [email], callback: /claims/oauth2/callback"
        ),
        oidc(
            &scene,
            ", name: nickname, scopes: [a], callback: /scopes/oauth2/callback"
        ),
        oidc(
            &scene,
            ", name: nickname, scopes: [a, b], algorithms: [RS256], callback: /algorithms/oauth2/callback"
        ),
        oidc(
            &scene,
            ", name: nickname, scopes: [a, b], parameters: {acr_values: x}, callback: /parameters/oauth2/callback"
        ),
    );
    let gateway = Gateway::start(&Site::written(&text, &scene.upstream));
    let mut browser = Browser::new(gateway.address());
    browser.log_in(&scene.provider, "/page");
    for good in ["/page", "/same/page"] {
        assert_eq!(browser.open(good).status, 200, "{good}");
        assert_eq!(scene.upstream.last().header("x-user"), ["root@corp"]);
    }
    let before = scene.upstream.requests().len();
    for other in ["admin", "claims", "scopes", "algorithms", "parameters"] {
        let mut browser = browser.clone();
        let page = format!("/{other}/page");
        assert_eq!(browser.open(&page).status, 302, "{other}");
        let script = browser.send(&format!("GET {page}"), "Sec-Fetch-Mode: cors\r\n");
        failed(&script, 401, "credentials_missing");
    }
    assert_eq!(scene.upstream.requests().len(), before);

    // Logged in anew he is who he is there; and it ends there.
    let back = browser.begin(&scene.provider, "/admin/page");
    let tab = browser.begin(&scene.provider, "/claims/page");
    assert_eq!(browser.open(&back).header("location"), Some("/admin/page"));
    for _ in 0..2 {
        failed(&browser.open("/admin/page"), 403, "forbidden");
    }
    // The one route's attempt has not ended the other's.
    assert_eq!(browser.open(&tab).header("location"), Some("/claims/page"));
    assert_eq!(browser.open("/claims/page").status, 200);
    assert_eq!(browser.names(), ["gateway-session"]);
}

#[test]
fn sessions_go_to_no_upstream_of_another_route() {
    let scene = Scene::new();
    let service = Upstream::text("yes");
    let named = |name: &str, path: &str| {
        let keys = scene.file("keys");
        let keys = keys.display();
        format!(
            "{{issuer: \"{}\", client_id: open, callback: /{path}/oauth2/callback, session: {{cookie: {name}, keys: {{file: {keys}}}}}}}",
            scene.provider.name()
        )
    };
    let routes = |last: &str| {
        format!(
            "routes:\n\
             - {{match: {{path: /**}}, upstream: UP}}\n\
             - {{match: {{path: /one/**}}, auth: {{oidc: {}}}, upstream: UP}}\n\
             - {{match: {{path: /key/**}}, auth: {{api_key: {{cookie: k, keys: [{{name: p, sha256: c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c}}]}}}}, upstream: UP}}\n\
             - {{match: {{path: /asked/**}}, auth: {{forward: {{url: \"http://{}/\"}}}}, upstream: UP}}\n{last}",
            named("one", "one"),
            service.address(),
        )
    };
    let two = format!(
        "- {{match: {{path: /two/**}}, auth: {{oidc: {}}}, upstream: UP}}\n",
        named("one-two", "two")
    );
    let gateway = Gateway::start(&Site::written(&routes(&two), &scene.upstream));
    let mut browser = Browser::new(gateway.address());
    browser.log_in(&scene.provider, "/one/page");
    browser.log_in(&scene.provider, "/two/page");
    assert_eq!(browser.names(), ["one", "one-two"]);
    for (name, value) in [
        ("one-login-AAAAAAAA", "a"),
        ("one-1", "b"),
        ("__Host-one", "c"),
        ("__Host-one-two-login-x", "d"),
        ("ones", "own"),
        ("k", "demo-key"),
    ] {
        browser.cookies.insert(name.into(), value.into());
    }
    for (path, left) in [
        ("/", "k=demo-key; ones=own"),
        ("/one/page", "k=demo-key; ones=own"),
        ("/two/page", "k=demo-key; ones=own"),
        ("/key/page", "ones=own"),
        ("/asked/page", "k=demo-key; ones=own"),
    ] {
        assert_eq!(browser.open(path).status, 200, "{path}");
        assert_eq!(scene.upstream.last().header("cookie"), [left], "{path}");
    }
    assert_eq!(service.last().header("cookie"), ["k=demo-key; ones=own"]);
    // Over HTTP/2 they come in crumbs.
    let mut curl = Command::new("curl");
    curl.args([
        "-s",
        "--http2-prior-knowledge",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
    ]);
    for (name, value) in &browser.cookies {
        curl.args(["-H", &format!("Cookie: {name}={value}")]);
    }
    let told = curl.arg(format!("http://{}/", gateway.address())).output();
    assert_eq!(String::from_utf8_lossy(&told.expect("curl runs").stdout), "2 200");
    assert_eq!(scene.upstream.last().header("cookie"), ["k=demo-key; ones=own"]);

    // A route that is what it was is made anew when a log-in comes beside it.
    let none = "routes: [{match: {path: /**}, upstream: UP}]\n";
    let gateway = Gateway::start(&Site::written(none, &scene.upstream));
    let ask = "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: one=1.x; a=b\r\n\r\n";
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.send(ask).response().status, 200);
    assert_eq!(scene.upstream.last().header("cookie"), ["one=1.x; a=b"]);
    gateway.reload(&Site::written(&routes(""), &scene.upstream));
    assert_eq!(client.send(ask).response().status, 200);
    assert_eq!(scene.upstream.last().header("cookie"), ["a=b"]);
}
