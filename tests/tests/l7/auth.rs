//! Who may call, and what the upstream is told: keys, any and all, rules, and what clients make up.

use gateway::http::reject::Reject;
use gateway_tests::l7::raw::Response;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};
use sha2::{Digest as _, Sha256};

/// An entry of a list of keys.
fn key(secret: &str, more: &str) -> String {
    let hash: String = Sha256::digest(secret)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{{name: {secret}-holder, sha256: {hash}{more}}}")
}

fn outcome(answer: &Response) -> (u16, Option<String>) {
    (answer.status, answer.code())
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[test]
fn t36_a_key_is_taken_from_its_place_and_goes_no_further() {
    let upstream = Upstream::text("in");
    let ways = format!(
        "{{any: [{{api_key: {{header: X-Key, keys: [{a}]}}}}, {{api_key: {{query: key, keys: [{b}]}}}}, \
         {{api_key: {{cookie: k, keys: [{c}]}}}}], pass: {{X-User: name}}}}",
        a = key("one", ""),
        b = key("two", ""),
        c = key("three", ", expires: 2000-01-01T00:00:00Z"),
    );
    let gateway = Gateway::start(&Site::guarded(&ways, &upstream));
    assert_eq!(gateway.ask("GET /p?a=1", "X-Key: one\r\n").status, 200);
    let seen = upstream.last();
    assert_eq!(
        (seen.target.as_str(), seen.header("x-user")),
        ("/p?a=1", vec!["one-holder"])
    );
    assert!(seen.header("x-key").is_empty());

    for target in ["/p?a=1&key=two&b=2", "/p?a=1&k%65y=tw%6f&b=2"] {
        assert_eq!(gateway.ask(&format!("GET {target}"), "").status, 200);
        let seen = upstream.last();
        assert_eq!(
            (seen.target.as_str(), seen.header("x-user")),
            ("/p?a=1&b=2", vec!["two-holder"])
        );
    }
    // A credential that decided nothing goes no further either.
    assert_eq!(
        gateway
            .ask("GET /?key=zzz", "X-Key: one\r\nCookie: k=x; other=1\r\n")
            .status,
        200
    );
    let seen = upstream.last();
    assert_eq!(
        (seen.target.as_str(), seen.header("cookie")),
        ("/", vec!["other=1"])
    );

    let before = upstream.requests().len();
    for (line, lines, code) in [
        ("GET /", "", "credentials_missing"),
        ("GET /", "X-Key: two\r\n", "credentials_invalid"),
        ("GET /", "X-Key: one\r\nX-Key: one\r\n", "credentials_invalid"),
        ("GET /?key=two&key=two", "", "credentials_invalid"),
        ("GET /?key=two&%6bey=x", "", "credentials_invalid"),
        ("GET /", "Cookie: k=three\r\n", "credentials_invalid"),
        ("GET /?KEY=two", "", "credentials_missing"),
    ] {
        let answer = gateway.ask(line, lines);
        assert_eq!(outcome(&answer), refused(401, code), "{line} {lines}");
        assert_eq!(answer.header("www-authenticate"), Some("ApiKey"));
    }
    assert_eq!(upstream.requests().len(), before);
}

#[test]
fn t14_what_the_upstream_is_told_comes_from_the_gateway_alone() {
    let upstream = Upstream::text("in");
    let auth = format!(
        "{{api_key: {{keys: [{a}, {b}]}}, pass: {{X-User: name, X-Scopes: scopes, X-Tenant: \"claim:tenant\"}}}}",
        a = key("full", ", scopes: [read, write], labels: {tenant: \"a b\"}"),
        b = key("bare", ""),
    );
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    let forged = "X-User: root\r\nx-user: root\r\nX_User: root\r\nX-Scopes: admin\r\nX-Tenant: evil\r\nX_Tenant: evil\r\n";
    let told = |secret: &str| {
        assert_eq!(
            gateway
                .ask("GET /", &format!("X-API-Key: {secret}\r\n{forged}"))
                .status,
            200
        );
        let seen = upstream.last();
        assert!(
            seen.headers
                .iter()
                .all(|(_, value)| value != "root" && value != "evil" && value != "admin")
        );
        ["x-user", "x-scopes", "x-tenant"].map(|name| seen.header(name).concat())
    };
    assert_eq!(told("full"), ["full-holder", "read write", "a b"]);
    assert_eq!(told("bare"), ["bare-holder", "", ""]);
}

#[test]
fn any_asks_for_one_and_all_for_each() {
    let upstream = Upstream::text("in");
    let ways = |a: &str, b: &str| {
        format!("[{{api_key: {{header: X-A, keys: [{a}]}}}}, {{api_key: {{header: X-B, keys: [{b}]}}}}]")
    };
    let ways = ways(
        &key("a", ", scopes: [one], labels: {x: first}"),
        &key("b", ", scopes: [two], labels: {x: second, y: \"2\"}"),
    );
    let pass = "pass: {X-User: name, X-Scopes: scopes, X-X: \"claim:x\", X-Y: \"claim:y\"}";
    let any = Gateway::start(&Site::guarded(&format!("{{any: {ways}, {pass}}}"), &upstream));
    let all = Gateway::start(&Site::guarded(&format!("{{all: {ways}, {pass}}}"), &upstream));
    let both = "X-A: a\r\nX-B: b\r\n";
    for (lines, by_any, by_all) in [
        (
            "",
            refused(401, "credentials_missing"),
            refused(401, "credentials_missing"),
        ),
        ("X-A: a\r\n", (200, None), refused(401, "credentials_missing")),
        ("X-B: b\r\n", (200, None), refused(401, "credentials_missing")),
        (
            "X-A: z\r\nX-B: b\r\n",
            (200, None),
            refused(401, "credentials_invalid"),
        ),
        (
            "X-A: z\r\n",
            refused(401, "credentials_invalid"),
            refused(401, "credentials_invalid"),
        ),
        (both, (200, None), (200, None)),
    ] {
        assert_eq!(outcome(&any.ask("GET /", lines)), by_any, "any: {lines}");
        assert_eq!(outcome(&all.ask("GET /", lines)), by_all, "all: {lines}");
    }
    let told = || ["x-user", "x-scopes", "x-x", "x-y"].map(|name| upstream.last().header(name).concat());
    assert_eq!(
        told(),
        ["a-holder", "one two", "first", "2"],
        "by all, both are believed, the first first"
    );
    assert_eq!(any.ask("GET /", both).status, 200);
    assert_eq!(
        told(),
        ["a-holder", "one", "first", ""],
        "by any, the first that knows is enough"
    );
}

#[test]
fn rules_say_what_those_who_are_known_may_do() {
    let upstream = Upstream::text("in");
    let auth = format!(
        "{{api_key: {{keys: [{r}, {w}, {n}]}}, deny: [127.0.0.9/32], authorize: [{{methods: [GET], scopes: [read]}}, \
         {{paths: [/admin/**], claims: {{role: [admin, ops]}}}}, {{names: [local-holder], clients: [127.0.0.0/8]}}]}}",
        r = key("r", ", scopes: [read]"),
        w = key("w", ", labels: {role: ops}"),
        n = key("local", ""),
    );
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream).trusting(&["127.0.0.0/8"]));
    for (line, lines, status) in [
        ("GET /x", "X-API-Key: r\r\n", 200),
        ("DELETE /x", "X-API-Key: r\r\n", 403),
        ("GET /x", "X-API-Key: w\r\n", 403),
        ("DELETE /admin/x", "X-API-Key: w\r\n", 200),
        ("DELETE /admin", "X-API-Key: w\r\n", 200),
        ("DELETE /%61dmin/./x", "X-API-Key: w\r\n", 200),
        ("DELETE /administrator", "X-API-Key: w\r\n", 403),
        ("DELETE /x/../admin/../x", "X-API-Key: w\r\n", 403),
        ("PUT /y", "X-API-Key: local\r\n", 200),
        (
            "PUT /y",
            "X-API-Key: local\r\nX-Forwarded-For: 192.0.2.1\r\n",
            403,
        ),
        ("GET /x", "X-API-Key: r\r\nX-Forwarded-For: 127.0.0.9\r\n", 403),
        ("GET /x", "X-Forwarded-For: 127.0.0.9\r\n", 403),
        ("GET /x", "", 401),
    ] {
        assert_eq!(gateway.ask(line, lines).status, status, "{line} {lines}");
    }
    assert!(gateway.told(Reject::Forbidden));
    assert_eq!(Reject::Forbidden.default_strikes(), 0);
}

#[test]
fn addresses_alone_may_decide() {
    let upstream = Upstream::text("in");
    let gateway = Gateway::start(
        &Site::guarded("{authorize: [{clients: [10.0.0.0/8]}]}", &upstream).trusting(&["127.0.0.0/8"]),
    );
    assert_eq!(gateway.ask("GET /", "X-Forwarded-For: 10.1.2.3\r\n").status, 200);
    assert_eq!(
        outcome(&gateway.ask("GET /", "X-Forwarded-For: 192.0.2.1\r\n")),
        refused(403, "forbidden")
    );
}

#[test]
fn what_is_only_observed_refuses_nobody_and_is_counted() {
    let upstream = Upstream::text("in");
    let auth = format!(
        "{{api_key: {{query: key, keys: [{}]}}, observe: true, authorize: [{{scopes: [write]}}], pass: {{X-User: name}}}}",
        key("k", "")
    );
    let gateway = Gateway::start(&Site::guarded(&auth, &upstream));
    for (target, told) in [("/", ""), ("/?key=wrong", ""), ("/?key=k", "k-holder")] {
        let answer = gateway.ask(&format!("GET {target}"), "X-User: root\r\n");
        assert_eq!((answer.status, answer.header("www-authenticate")), (200, None));
        let seen = upstream.last();
        assert_eq!(
            (seen.target.as_str(), seen.header("x-user").concat().as_str()),
            ("/", told)
        );
    }
    let text = gateway.metrics.encode();
    for code in ["credentials_missing", "credentials_invalid", "forbidden"] {
        let line = format!("gateway_observed_rejects_total{{route=\"r\",code=\"{code}\"}} 1");
        assert!(text.contains(&line), "{line}\n{text}");
    }
    assert_eq!(gateway.rejects(), []);
}

#[test]
fn t04_a_refusal_before_the_body_is_read_leaves_the_connection_safe() {
    let upstream = Upstream::text("in");
    let gateway = Gateway::start(&Site::guarded(
        &format!("{{api_key: {{keys: [{}]}}}}", key("k", "")),
        &upstream,
    ));
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\nX-API-Key: k\r\n\r\n";
    let mut client = Client::connect(gateway.address());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a.example\r\nX-API-Key: no\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ));
    assert_eq!(client.response().status, 401);
    assert!(client.is_closed());
    // Without a body the connection goes on.
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.get("/").status, 401);
    assert_eq!(client.get("/").status, 401);
    assert!(upstream.requests().is_empty());
}

#[test]
fn one_auth_serves_several_routes_and_stays_over_a_reload() {
    let upstream = Upstream::text("in");
    let text = |more: &str| {
        format!(
            "auth: {{partners: {{api_key: {{keys: [{}]}}}}}}\nroutes:\n  - {{name: a, match: {{path: /a}}, auth: partners, upstream: UP}}\n  \
             - {{name: b, match: {{path: /b}}, auth: partners, upstream: UP}}\n{more}",
            key("k", "")
        )
    };
    let gateway = Gateway::start(&Site::written(&text(""), &upstream));
    let auths = || {
        let site = gateway.handle.load();
        let routes = &site.config.routes;
        [0, 1].map(|at| std::sync::Arc::clone(routes[at].auth.as_ref().expect("an auth")))
    };
    let [a, b] = auths();
    assert!(std::sync::Arc::ptr_eq(&a, &b));
    for path in ["/a", "/b"] {
        assert_eq!(
            gateway.ask(&format!("GET {path}"), "X-API-Key: k\r\n").status,
            200
        );
        assert_eq!(gateway.ask(&format!("GET {path}"), "").status, 401);
    }
    gateway.reload(&Site::written(
        &text("  - {name: c, match: {path: /c}, upstream: UP}\n"),
        &upstream,
    ));
    assert_eq!(gateway.ask("GET /a", "X-API-Key: k\r\n").status, 200);
    assert_eq!(gateway.ask("GET /a", "X-API-Key: l\r\n").status, 401);
    assert_eq!(gateway.ask("GET /c", "").status, 200);
}

#[test]
fn several_ways_that_ask_for_the_same_ask_once() {
    let upstream = Upstream::text("in");
    let sha = "c48a01f49fd0f2cc404bc3cbbc80e91457a3d41bb429a695243de4c61794155c";
    let keys = format!("keys: [{{name: a, sha256: {sha}}}]");
    let site = format!(
        "routes: [{{match: {{path: /**}}, auth: {{any: [{{api_key: {{{keys}}}}}, {{api_key: {{query: key, {keys}}}}}]}}, upstream: UP}}]"
    );
    let gateway = Gateway::start(&Site::written(&site, &upstream));
    let answer = Client::connect(gateway.address()).get("/");
    let asked = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "www-authenticate");
    assert_eq!((answer.status, asked.count()), (401, 1));
    assert_eq!(
        Client::connect(gateway.address()).get("/?key=demo-key").status,
        200
    );
}
