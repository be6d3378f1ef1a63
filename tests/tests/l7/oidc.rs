//! Browsers that log in at a provider, which is another program in another language: the way there and back, and out.

#[path = "oidc/answers.rs"]
mod answers;
#[path = "oidc/refresh.rs"]
mod refresh;
#[path = "oidc/routes.rs"]
mod routes;
#[path = "oidc/sessions.rs"]
mod sessions;

use std::path::Path;

use gateway::http::reject::Reject;
use gateway_tests::l7::raw::Response;
use gateway_tests::l7::{Browser, Gateway, Provider, Site, Upstream};
use serde_json::json;

const KEY: &str = "the first key of sessions, long enough";

/// A gateway in front of an upstream, a provider, and files for both.
struct Scene {
    provider: Provider,
    upstream: Upstream,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s:e%c +\n").unwrap();
        std::fs::write(dir.path().join("keys"), format!("# sessions\n{KEY}\n")).unwrap();
        Self {
            provider: Provider::start(),
            upstream: Upstream::text("in"),
            dir,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A site with settings of the log-in and its session besides the usual ones, and others of `auth`.
    fn site(&self, oidc: &str, session: &str, auth: &str) -> Site {
        let written = |path: &Path| path.display().to_string();
        let text = format!(
            "routes: [{{name: r, match: {{path: /**}}, auth: {{oidc: {{issuer: \"{}\", client_id: web, client_secret: {{file: {}}}, \
             scopes: [orders], logout: /oauth2/logout, claims: [email, roles], session: {{keys: {{file: {}}}{session}}}{oidc}}}, \
             pass: {{X-User: name, X-Roles: \"claim:roles\", X-Scopes: scopes}}{auth}}}, upstream: UP}}]\n",
            self.provider.name(),
            written(&self.file("secret")),
            written(&self.file("keys")),
        );
        Site::written(&text, &self.upstream)
    }

    fn start(&self) -> Gateway {
        Gateway::start(&self.site("", "", ""))
    }
}

fn failed(answer: &Response, status: u16, code: &str) {
    let told = (answer.status, answer.code());
    assert_eq!(told, (status, Some(code.to_owned())), "{}", answer.text());
    assert_eq!(answer.header("location"), None, "it ends here");
}

fn lines(answer: &Response, name: &str) -> Vec<String> {
    let all = answer.headers.iter().filter(|(own, _)| own == name);
    all.map(|(_, value)| value.clone()).collect()
}

#[test]
fn a_person_logs_in_is_known_and_logs_out() {
    let scene = Scene::new();
    let roles = json!({"claims": {"sub": "alice", "roles": ["editor", "x,y"], "picture": "p"}});
    scene.provider.set(&roles);
    let gateway = scene.start();
    let mut browser = Browser::new(gateway.address());
    let answer = browser.open("/orders/7?q=a%20b&c");
    assert_eq!(
        (answer.status, answer.header("cache-control")),
        (302, Some("no-store"))
    );
    let location = answer.header("location").unwrap().to_owned();
    for part in [
        "/authorize?tenant=t&response_type=code&client_id=web&",
        "redirect_uri=http%3A%2F%2Fa.example%2Foauth2%2Fcallback&",
        "scope=openid%20orders&",
        "code_challenge_method=S256",
    ] {
        assert!(location.contains(part), "{location}");
    }
    let [attempt] = browser.names()[..] else {
        panic!("{:?}", browser.cookies)
    };
    assert!(attempt.starts_with("gateway-session-login-"), "{attempt}");
    let back = scene.provider.visit(&location);
    assert!(scene.upstream.requests().is_empty(), "nobody is in yet");
    let answer = browser.open(back.strip_prefix("http://a.example").unwrap());
    assert_eq!(
        (
            answer.status,
            answer.header("location"),
            answer.header("cache-control")
        ),
        (302, Some("/orders/7?q=a%20b&c"), Some("no-store"))
    );
    assert_eq!(browser.names(), ["gateway-session"], "the attempt is over");
    let set = lines(&answer, "set-cookie");
    let session = set
        .iter()
        .find(|line| line.starts_with("gateway-session=1."))
        .unwrap();
    assert!(
        session.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
        "{session}"
    );
    assert!(!session.contains("alice"));

    browser.cookies.insert("own".into(), "1".into());
    let forged = "X-User: root\r\nX-Roles: root\r\nSec-Fetch-Mode: cors\r\n";
    let answer = browser.send("POST /orders/7", forged);
    assert_eq!((answer.status, answer.header("set-cookie")), (200, None));
    let seen = scene.upstream.last();
    assert_eq!(seen.header("x-user"), ["alice"]);
    assert_eq!(seen.header("x-roles"), ["editor,x%2Cy"]);
    assert_eq!(seen.header("x-scopes"), ["openid orders"]);
    assert_eq!(
        seen.header("cookie"),
        ["own=1"],
        "the session is not the upstream's"
    );

    let old = browser.clone();
    for (line, from) in [
        (
            "GET",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n",
        ),
        ("POST", "Origin: https://evil.example\r\n"),
        ("GET", "Referer: http://evil.example/http://a.example/\r\n"),
        ("GET", ""),
    ] {
        failed(
            &browser.send(&format!("{line} /oauth2/logout"), from),
            403,
            "forbidden",
        );
    }
    failed(
        &browser.send("DELETE /oauth2/logout", ""),
        405,
        "method_not_allowed",
    );
    assert_eq!(
        browser.open("/orders/7").status,
        200,
        "nobody else ends a session"
    );
    let answer = browser.open("/oauth2/logout");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    assert_eq!(browser.names(), ["own"]);
    assert_eq!(browser.open("/orders/7").status, 302);
    let mut script = old.clone();
    let answer = script.send(
        "POST /oauth2/logout",
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n",
    );
    assert_eq!((answer.status, script.names()), (204, vec!["own"]));
    assert_eq!(scene.provider.redeemed(), 1);
    assert_eq!(scene.provider.seen()["refused"], json!([]));
    assert!(!gateway.told(Reject::LoginFailed) && !gateway.told(Reject::CredentialsMissing));
}

#[test]
fn only_a_page_is_sent_to_log_in() {
    let scene = Scene::new();
    let gateway = scene.start();
    let page = "Accept: text/html\r\n";
    for (line, lines) in [
        ("POST /", page),
        ("PUT /", "Sec-Fetch-Mode: navigate\r\n"),
        ("GET /", "Accept: application/json\r\n"),
        ("GET /", ""),
        ("GET /", "Accept: text/html\r\nSec-Fetch-Mode: cors\r\n"),
        (
            "GET /",
            "Accept: text/html\r\nX-Requested-With: XMLHttpRequest\r\n",
        ),
        ("GET /", "Sec-Fetch-Mode: navigate\r\nSec-Purpose: prefetch\r\n"),
        ("GET /", "Upgrade: websocket\r\nConnection: Upgrade\r\n"),
        ("GET /", "Cookie: gateway-session=1.AAAA\r\n"),
    ] {
        let mut browser = Browser::new(gateway.address());
        let answer = browser.send(line, lines);
        failed(&answer, 401, "credentials_missing");
        assert!(browser.cookies.is_empty(), "{line} {lines}");
    }
    let mut old = Browser::new(gateway.address());
    assert_eq!(old.send("GET /", page).status, 302);
    assert_eq!(old.send("HEAD /", page).status, 302);
    assert!(scene.upstream.requests().is_empty());
    assert!(
        !gateway.told(Reject::CredentialsInvalid),
        "nobody is struck for a session that is over"
    );
}

#[test]
fn several_tabs_log_in_at_once_and_their_number_is_bounded() {
    let scene = Scene::new();
    let gateway = scene.start();
    let mut browser = Browser::new(gateway.address());
    let backs: Vec<_> = (0..4)
        .map(|tab| browser.begin(&scene.provider, &format!("/tab/{tab}")))
        .collect();
    assert_eq!(browser.cookies.len(), 4);
    for (tab, back) in backs.iter().enumerate().rev() {
        let answer = browser.open(back);
        assert_eq!(answer.header("location"), Some(&*format!("/tab/{tab}")));
    }
    assert_eq!(browser.names(), ["gateway-session"]);

    let mut crowd = Browser::new(gateway.address());
    crowd
        .cookies
        .insert("gateway-session-login-zzzzzzzz".into(), "garbage".into());
    let first = crowd.begin(&scene.provider, "/first");
    assert!(!crowd.cookies.contains_key("gateway-session-login-zzzzzzzz"));
    let backs: Vec<_> = (0..30)
        .map(|at| crowd.begin(&scene.provider, &format!("/{at}")))
        .collect();
    assert_eq!(crowd.cookies.len(), 8);
    for old in [&first, &backs[0], &backs[21]] {
        failed(&crowd.open(old), 400, "login_failed");
    }
    for (at, back) in backs.iter().enumerate().skip(22) {
        assert_eq!(crowd.open(back).header("location"), Some(&*format!("/{at}")));
    }

    // Tabs that a browser opens again all at once know nothing of each other.
    let mut again = Browser::new(gateway.address());
    let backs: Vec<_> = (0..20)
        .map(|at| {
            let mut tab = Browser::new(gateway.address());
            let back = tab.begin(&scene.provider, &format!("/{at}"));
            again.join(tab);
            back
        })
        .collect();
    let last = again.begin(&scene.provider, "/last");
    assert_eq!(again.cookies.len(), 8);
    failed(&again.open(&backs[12]), 400, "login_failed");
    assert_eq!(again.open(&backs[13]).header("location"), Some("/13"));
    assert_eq!(again.open(&backs[19]).header("location"), Some("/19"));
    assert_eq!(again.open(&last).header("location"), Some("/last"));

    // A long way back fits, and many of them do not fill the header.
    let mut site = scene.site("", "", "");
    site.config.limits.header_bytes = gateway::config::defaults::limits().header_bytes;
    let gateway = Gateway::start(&site);
    let mut deep = Browser::new(gateway.address());
    let long = |at: usize| format!("/deep?q={}{at}", "x".repeat(2_039));
    let backs: Vec<_> = (0..8).map(|at| deep.begin(&scene.provider, &long(at))).collect();
    let pairs = deep
        .cookies
        .iter()
        .map(|(name, value)| name.len() + value.len() + 1);
    let pairs: Vec<_> = pairs.collect();
    assert!(pairs.iter().all(|length| *length <= 4_096), "{pairs:?}");
    assert!(pairs.iter().sum::<usize>() <= 17 << 10, "{pairs:?}");
    failed(&deep.open(&backs[0]), 400, "login_failed");
    assert_eq!(deep.open(&backs[7]).header("location"), Some(&*long(7)));
}

#[test]
fn a_callback_that_this_browser_did_not_ask_for_ends_there() {
    let scene = Scene::new();
    let gateway = scene.start();
    let mut browser = Browser::new(gateway.address());
    let back = browser.begin(&scene.provider, "/x");
    // The victim is led to the attacker's callback: with no attempt, or with another one of its own.
    let mut victim = Browser::new(gateway.address());
    failed(&victim.open(&back), 400, "login_failed");
    let _ = victim.begin(&scene.provider, "/y");
    failed(&victim.open(&back), 400, "login_failed");
    let stolen = victim.cookies.clone();
    let state = back
        .split("state=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .to_owned();
    for other in [
        back.replace(&state, ""),
        back.replace(&state, "x"),
        back.replace(&state, &state.to_lowercase()),
        back.replace(&state, &format!("{}AAAAAAAA", &state[..state.len() - 8])),
        format!("{back}&state={state}"),
        back.split('?').next().unwrap().to_owned(),
        format!("/oauth2/callback?code=x&state={}", "%ff".repeat(20)),
    ] {
        failed(&browser.open(&other), 400, "login_failed");
    }
    assert_eq!(
        victim.cookies, stolen,
        "an attempt is ended by its own state alone"
    );
    failed(&browser.send(&format!("POST {back}"), ""), 400, "login_failed");
    assert_eq!(
        scene.provider.redeemed(),
        0,
        "the provider is not asked for any of it"
    );
    // The attempt's cookie under another name, and of another host, is none.
    let mut renamed = browser.clone();
    let (name, value) = renamed.cookies.pop_first().unwrap();
    renamed.cookies.insert(name.replace("login-", "login-x"), value);
    failed(&renamed.open(&back), 400, "login_failed");
    let mut moved = browser.clone();
    moved.host = "b.example".into();
    failed(&moved.open(&back), 400, "login_failed");

    assert_eq!(browser.open(&back).status, 302);
    let with = browser.clone();
    failed(&browser.open(&back), 400, "login_failed");
    assert_eq!(browser.cookies, with.cookies, "a session stays what it was");
    assert_eq!(scene.provider.redeemed(), 1);
    // With the attempt kept, the provider does not take the code twice.
    let mut again = Browser::new(gateway.address());
    let back = again.begin(&scene.provider, "/x");
    let before = again.clone();
    assert_eq!(again.open(&back).status, 302);
    let mut replay = before;
    failed(&replay.open(&back), 400, "login_failed");
    assert!(replay.cookies.is_empty(), "{:?}", replay.cookies);
    assert_eq!(scene.provider.seen()["refused"], json!(["code"]));
    assert!(scene.upstream.requests().is_empty());
    assert!(gateway.told(Reject::LoginFailed));
    assert_eq!(
        Reject::LoginFailed.default_strikes(),
        0,
        "a victim is not struck for it"
    );
}

#[test]
fn nobody_is_sent_to_another_host() {
    let scene = Scene::new();
    let gateway = scene.start();
    for (asked, expected) in [
        ("//evil.example/x", "/evil.example/x"),
        ("/x/..//evil.example", "/evil.example"),
        (
            "/a?next=//evil.example&u=https://evil.example",
            "/a?next=//evil.example&u=https://evil.example",
        ),
        ("/x?\\evil.example", "/x"),
        (&format!("/x?{}", "y".repeat(3_000)), "/x"),
    ] {
        let mut browser = Browser::new(gateway.address());
        let answer = browser.log_in(&scene.provider, asked);
        assert_eq!(
            (answer.status, answer.header("location")),
            (302, Some(expected)),
            "{asked}"
        );
    }
    for asked in [
        "/\\evil.example",
        "/%5cevil.example",
        "http://evil.example/x",
        "/\t/evil.example",
    ] {
        let mut browser = Browser::new(gateway.address());
        let answer = browser.open(asked);
        let location = answer.header("location");
        let inside = location.is_none_or(|location| location.starts_with(&scene.provider.name()));
        assert!(inside, "{asked}: {location:?}");
        if answer.status == 302 {
            let back = scene.provider.visit(location.unwrap());
            let (origin, path) = back.split_at(back.find("/oauth2").unwrap());
            browser.host = origin.strip_prefix("http://").unwrap().to_owned();
            let answer = browser.open(path);
            assert_eq!(answer.header("location"), Some("/x"), "{asked}");
        }
    }
}

#[test]
fn whoever_may_not_is_told_so_and_not_sent_round_in_circles() {
    let scene = Scene::new();
    scene
        .provider
        .set(&json!({"claims": {"sub": "bob", "roles": ["viewer"], "email": "b@example.com"}}));
    let rules = ", authorize: [{claims: {roles: admin}}, {methods: [GET], paths: [/open], scopes: [orders]}], \
                 deny: [198.51.100.0/24]";
    let site = scene.site(", name: email", "", rules).trusting(&["127.0.0.0/8"]);
    let gateway = Gateway::start(&site);
    let mut browser = Browser::new(gateway.address());
    assert_eq!(browser.log_in(&scene.provider, "/").status, 302);
    for _ in 0..3 {
        failed(&browser.open("/"), 403, "forbidden");
    }
    assert_eq!(browser.open("/open").status, 200);
    assert_eq!(scene.upstream.last().header("x-user"), ["b@example.com"]);
    // Who is refused whatever he brings is not sent to log in.
    let denied = "X-Forwarded-For: 198.51.100.7\r\nAccept: text/html\r\n";
    let mut other = Browser::new(gateway.address());
    failed(&other.send("GET /", denied), 403, "forbidden");
    failed(
        &other.send("GET /oauth2/callback?state=xxxxxxxxxxxxxxx", denied),
        403,
        "forbidden",
    );
}

#[test]
fn behind_a_proxy_with_tls_the_cookies_are_those_of_tls() {
    let scene = Scene::new();
    let trusting = Gateway::start(&scene.site("", "", "").trusting(&["127.0.0.0/8"]));
    let page = "X-Forwarded-Proto: https\r\nAccept: text/html\r\n";
    let mut browser = Browser::new(trusting.address());
    let answer = browser.send("GET /", page);
    let location = answer.header("location").unwrap();
    assert!(
        location.contains("redirect_uri=https%3A%2F%2Fa.example%2F"),
        "{location}"
    );
    assert!(browser.names()[0].starts_with("__Host-gateway-session-login-"));
    assert!(answer.header("set-cookie").unwrap().ends_with("; Secure"));
    let plain = scene.start();
    let mut forging = Browser::new(plain.address());
    let answer = forging.send("GET /", page);
    assert!(
        answer
            .header("location")
            .is_none_or(|location| location.contains("redirect_uri=http%3A"))
    );
}

#[test]
fn who_only_observes_sends_nobody_to_log_in() {
    let scene = Scene::new();
    let gateway = Gateway::start(&scene.site("", "", ", observe: true"));
    let mut browser = Browser::new(gateway.address());
    assert_eq!(browser.open("/").status, 200);
    assert!(browser.cookies.is_empty());
    assert!(scene.upstream.last().header("x-user").is_empty());
}

#[test]
fn curl_logs_in_over_tls_with_a_cookie_jar() {
    let scene = Scene::new();
    let made = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    let (cert, key) = (scene.file("app.crt"), scene.file("app.key"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut site = scene.site("", "", "");
    let pair = gateway::config::model::Certificate {
        cert: cert.clone(),
        key,
    };
    site.config.listen[0].tls = Some(gateway::config::model::Tls::with(vec![pair]));
    let gateway = Gateway::start(&site);
    let (port, jar) = (gateway.address().port(), scene.file("jar"));
    let curl = |path: &str, more: &[&str]| {
        let output = std::process::Command::new("curl")
            .args(["-sS", "-m", "10", "-L", "--max-redirs", "6"])
            .args(["-H", "Accept: text/html", "-w", " %{http_code} %{num_redirects}"])
            .args(["--resolve", &format!("app.test:{port}:127.0.0.1"), "--cacert"])
            .arg(&cert)
            .arg("-b")
            .arg(&jar)
            .arg("-c")
            .arg(&jar)
            .args(more)
            .arg(format!("https://app.test:{port}{path}"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    };
    for protocol in ["--http1.1", "--http2"] {
        std::fs::write(&jar, "").unwrap();
        assert_eq!(curl("/deep/x?y=1", &[protocol]), "in 200 3", "{protocol}");
        assert_eq!(scene.upstream.last().target, "/deep/x?y=1");
        assert_eq!(scene.upstream.last().header("x-user"), ["alice"]);
        assert!(scene.upstream.last().header("cookie").is_empty());
        let kept = std::fs::read_to_string(&jar).unwrap();
        let session = kept
            .lines()
            .find(|line| line.contains("__Host-gateway-session\t"))
            .unwrap();
        let fields: Vec<_> = session.split('\t').collect();
        assert_eq!(
            fields[..4],
            ["#HttpOnly_app.test", "FALSE", "/", "TRUE"],
            "this host, with TLS alone"
        );
        assert!(!kept.contains("-login-"), "{kept}");
        assert_eq!(curl("/again", &[protocol]), "in 200 0");
        // Without TLS's own prefix it is not taken: a neighbour could have set it.
        let tossed = session.replace("__Host-", "");
        std::fs::write(&jar, format!("{}\n", tossed)).unwrap();
        assert_eq!(
            curl("/", &[protocol, "--max-redirs", "0"]).split(' ').nth(1),
            Some("302")
        );
    }
}
