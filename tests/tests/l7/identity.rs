//! Who a request is from and what for, when client, proxies and paths lie: by the numbers of the failures seen elsewhere.

use gateway::config::model::Paths;
use gateway::http::client::ClientAddr;
use gateway_tests::l7::upstream::Request;
use gateway_tests::l7::{Client, Gateway, Site, Upstream};

/// Lines with which a client would be somebody else.
const FORGED: &str = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
    X-Forwarded-Prefix: /evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Server: evil\r\nX-Real-IP: 198.51.100.7\r\n\
    Forwarded: for=198.51.100.7;proto=https;host=evil.example\r\nX-Request-Id: chosen\r\n";

fn send(gateway: &Gateway, lines: &str) -> u16 {
    let request = format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n");
    Client::connect(gateway.address()).send(request).response().status
}

/// The forwarding lines that reached the upstream.
fn forwarding(request: &Request) -> [Vec<&str>; 5] {
    [
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
    ]
    .map(|name| request.header(name))
}

#[test]
fn t11_what_an_untrusted_client_says_of_itself_is_dropped_and_rewritten() {
    let upstream = Upstream::text("");
    for setting in ["", "forwarding_header: forwarded\n"] {
        let site = Site::written(
            &format!(
                "{setting}trusted_proxies: [192.0.2.0/24]\nroutes: [{{match: {{path: /**}}, upstream: UP}}]\n"
            ),
            &upstream,
        );
        let gateway = Gateway::start(&site);
        let mixed = FORGED.replace("X-Forwarded-For", "x-FORWARDED-for");
        for lines in [FORGED, &mixed, &format!("{FORGED}{FORGED}")] {
            assert_eq!(send(&gateway, lines), 200);
            let seen = upstream.last();
            let forwarded = match setting {
                "" => vec![],
                _ => vec!["for=127.0.0.1;proto=http;host=\"a.example\""],
            };
            assert_eq!(
                forwarding(&seen),
                [
                    vec!["127.0.0.1"],
                    vec!["127.0.0.1"],
                    vec!["http"],
                    vec!["a.example"],
                    forwarded
                ]
            );
            for name in ["x-forwarded-prefix", "x-forwarded-port", "x-forwarded-server"] {
                assert!(seen.header(name).is_empty(), "{name}");
            }
            assert_ne!(seen.header("x-request-id"), ["chosen"]);
            assert!(
                seen.headers
                    .iter()
                    .all(|(_, value)| !value.contains("198.51.100.7"))
            );
        }
    }
}

#[test]
fn t11_a_trusted_proxy_is_believed_from_the_right_and_in_one_header_only() {
    let upstream = Upstream::text("");
    let site = |setting: &str| {
        let text = format!(
            "{setting}trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\nroutes: [{{match: {{path: /**}}, upstream: UP}}]\n"
        );
        Gateway::start(&Site::written(&text, &upstream))
    };
    let gateway = site("");
    let lines = "X-Forwarded-For: 198.51.100.66, 203.0.113.5\r\nX-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: shop.example\r\nX-Real-IP: 198.51.100.66\r\nForwarded: for=198.51.100.66\r\n";
    assert_eq!(send(&gateway, lines), 200);
    assert_eq!(
        forwarding(&upstream.last()),
        [
            vec!["203.0.113.5, 10.0.0.9, 127.0.0.1"],
            vec!["203.0.113.5"],
            vec!["https"],
            vec!["shop.example"],
            vec![]
        ],
        "what the client made up does not reach the upstream"
    );
    // Nonsense for scheme and host is replaced; a header that nobody reads names nobody.
    assert_eq!(
        send(
            &gateway,
            "X-Forwarded-Proto: javascript\r\nX-Forwarded-Host: a, b\r\nForwarded: for=198.51.100.66\r\n"
        ),
        200
    );
    assert_eq!(
        forwarding(&upstream.last()),
        [
            vec!["127.0.0.1"],
            vec!["127.0.0.1"],
            vec!["http"],
            vec!["a.example"],
            vec![]
        ]
    );
    let gateway = site("forwarding_header: forwarded\n");
    let lines = "Forwarded: for=198.51.100.66, for=\"[2001:db8::7]:4711\";proto=https;host=shop.example\r\n\
        Forwarded: for=10.0.0.9;proto=http\r\nX-Forwarded-For: 198.51.100.66\r\nX-Forwarded-Proto: ftp\r\nX-Forwarded-Host: evil\r\n";
    assert_eq!(send(&gateway, lines), 200);
    assert_eq!(
        forwarding(&upstream.last()),
        [
            vec!["2001:db8::7, 10.0.0.9, 127.0.0.1"],
            vec!["2001:db8::7"],
            vec!["https"],
            vec!["shop.example"],
            vec!["for=\"[2001:db8::7]\";proto=https;host=\"shop.example\", for=10.0.0.9, for=127.0.0.1"],
        ]
    );
}

#[test]
fn t12_connection_takes_away_nothing_that_the_gateway_says() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| {
        route.request.set = vec![("x-auth-user".parse().unwrap(), "gateway".parse().unwrap())];
    }));
    let names = "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-IP, X-Request-Id, Host, Via, X-Auth-User, \
        Content-Length, Transfer-Encoding, X-Mine";
    let lines = format!(
        "Connection: {names}\r\nConnection: close, Cookie\r\nX-Mine: 1\r\nX-Auth-User: root\r\nCookie: a=b\r\n"
    );
    let body = "X-Smuggled: GET /evil HTTP/1.1";
    let mut client = Client::connect(gateway.address());
    client.send(format!(
        "POST /x HTTP/1.1\r\nHost: a.example\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response().status, 200);
    let seen = upstream.last();
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a.example"),
        ("x-real-ip", "127.0.0.1"),
        ("host", "a.example"),
        ("x-auth-user", "gateway"),
        ("via", "1.1 gateway"),
        ("content-length", "30"),
    ] {
        assert_eq!(seen.header(name), [value], "{name}");
    }
    assert_eq!(seen.header("x-request-id").len(), 1);
    assert!(seen.header("x-mine").is_empty() && seen.header("cookie").is_empty());
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn t13_underscore_variants_do_not_stand_beside_what_the_gateway_says() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream).with(|route| {
        route.request.set = vec![("x-auth-user".parse().unwrap(), "gateway".parse().unwrap())];
    }));
    let lines = "X_Auth_User: root\r\nX_Auth-User: root\r\nX-Auth_User: root\r\nX_Forwarded_For: 1.1.1.1\r\n\
        X_Real_IP: 1.1.1.1\r\nHost_: evil\r\nContent_Length: 5\r\n";
    assert_eq!(send(&gateway, lines), 200);
    let seen = upstream.last();
    assert!(
        seen.headers.iter().all(|(name, _)| !name.contains('_')),
        "{:?}",
        seen.headers
    );
    assert_eq!(seen.header("x-auth-user"), ["gateway"]);
}

#[test]
fn t14_what_the_gateway_sets_replaces_every_copy_of_the_client() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream).api_key(&[("right", "alice")]).with(|route| {
        route.request.set = vec![("x-auth-user".parse().unwrap(), "gateway".parse().unwrap())];
    }));
    assert_eq!(
        send(
            &gateway,
            "X-Auth-User: root\r\nx-auth-user: admin\r\nX-API-Key: right\r\nX_API_Key: right\r\n"
        ),
        200
    );
    let seen = upstream.last();
    assert_eq!(seen.header("x-auth-user"), ["gateway"]);
    assert!(seen.header("x-api-key").is_empty(), "the credential stays here");
    // A key whose line is named by Connection is a key that was not sent.
    assert_eq!(
        send(&gateway, "X-API-Key: right\r\nConnection: X-API-Key\r\n"),
        401
    );
}

#[test]
fn t15_a_mapped_address_is_the_ipv4_address_that_it_is() {
    let upstream = Upstream::text("");
    let trusting =
        "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]\nroutes: [{match: {path: /**}, upstream: UP}]\n";
    // Listeners take one family each, so no socket shows such an address; if one did, it would be held as what it is.
    let mapped = "::ffff:127.0.0.1".parse().unwrap();
    assert_eq!(ClientAddr::of_socket(mapped).ip().to_string(), "127.0.0.1");
    let gateway = Gateway::start(&Site::written(trusting, &upstream));
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ::ffff:203.0.113.5, ::ffff:10.0.0.9\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(
        upstream.last().header("x-forwarded-for"),
        ["203.0.113.5, 10.0.0.9, 127.0.0.1"]
    );
    gateway
        .recorder
        .refused
        .lock()
        .unwrap()
        .insert("203.0.113.5".parse().unwrap());
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ::ffff:203.0.113.5\r\n\r\n");
    assert_eq!(client.response().code().as_deref(), Some("blocked"));
}

#[test]
fn t17_a_request_within_a_request_has_the_address_of_its_own_socket() {
    // There are no sub-requests here; what comes close is a request that comes through the gateway twice.
    let upstream = Upstream::text("");
    let inner = Gateway::start(&Site::to(&upstream));
    let outer = Gateway::start(&Site::new().route("*", "/**", &[(inner.address(), 1)]));
    assert_eq!(send(&outer, FORGED), 200);
    let seen = upstream.last();
    assert_eq!(forwarding(&seen)[..2], [vec!["127.0.0.1"], vec!["127.0.0.1"]]);
    assert!(
        seen.headers
            .iter()
            .all(|(_, value)| !value.contains("198.51.100.7"))
    );
}

#[test]
fn t18_route_access_rule_and_upstream_see_one_path() {
    let (open, secret) = (Upstream::text("open"), Upstream::text("secret"));
    let site = Site::new()
        .route("*", "/**", &[(open.address(), 1)])
        .route("*", "/admin/**", &[(secret.address(), 1)])
        .api_key(&[("right", "alice")]);
    let gateway = Gateway::start(&site);
    let get = |path: &str, key: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{key}\r\n");
        Client::connect(gateway.address()).send(request).response().status
    };
    for path in [
        "/admin",
        "//admin",
        "///admin//x",
        "/x/../admin",
        "/%61dmin/x",
        "/./admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/admin/../admin",
        "/%2e/admin",
        "/x/y/../../admin",
        "http://a/x/../admin",
    ] {
        assert_eq!(get(path, ""), 401, "{path}");
        assert_eq!(get(path, "X-API-Key: right\r\n"), 200, "{path}");
        let target = secret.last().target;
        assert!(
            target == "/admin" || target == "/admin/x",
            "{path} reached the service as {target}"
        );
    }
    let refused = [
        "/x%2f..%2fadmin",
        "/x\\..\\admin",
        "/x/..%5cadmin",
        "/..;/admin",
        "/x/..;a=b/admin",
        "/.;/admin",
        "/a%00",
        "/../admin",
        "/%2e%2e/admin",
        "/x/../../admin",
        "/%zz",
        "/%",
        "/admin%2",
        "/%2fadmin",
        "/admin%0a",
        "/a%7f",
    ];
    for path in refused {
        assert_eq!(get(path, "X-API-Key: right\r\n"), 400, "{path}");
    }
    // What is another path stays another path, and is not decoded twice.
    for path in [
        "/ADMIN",
        "/admin;x",
        "/%2561dmin",
        "/%252e%252e/admin",
        "/admin%20",
        "/adminx",
        "/admin.",
    ] {
        assert_eq!(get(path, ""), 200, "{path}");
        assert_eq!(open.last().target, path, "as it was sent");
    }
}

#[test]
fn t20_encoded_slashes_pass_only_where_the_operator_says_so() {
    let upstream = Upstream::text("");
    let routes = "routes: [{match: {path: /**}, upstream: UP}]\n";
    let strict = Gateway::start(&Site::written(routes, &upstream));
    let refused = Client::connect(strict.address()).get("/repo/group%2fname");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (400, Some("bad_path"))
    );
    assert!(
        refused.text().contains("encoded slashes"),
        "the answer says what it was: {}",
        refused.text()
    );
    let kept = Gateway::start(&Site::written(
        &format!("paths: {{encoded_slashes: keep}}\n{routes}"),
        &upstream,
    ));
    assert_eq!(
        Client::connect(kept.address()).get("/repo/group%2fname/x").status,
        200
    );
    assert_eq!(upstream.last().target, "/repo/group%2Fname/x");
    for path in ["/a%2f..%2fadmin", "/..%2fadmin", "/a%00", "/a\\b", "/a%5c..%5cb"] {
        assert_eq!(Client::connect(kept.address()).get(path).status, 400, "{path}");
    }
}

#[test]
fn t20_a_listener_has_its_own_policy_on_paths_and_a_reload_changes_it_for_open_connections() {
    let upstream = Upstream::text("");
    let keep = Paths {
        keep_encoded_slashes: true,
        ..Paths::default()
    };
    let strict = Paths {
        refuse_parameters: true,
        ..Paths::default()
    };
    let mut site = Site::to(&upstream);
    site.config.listen = vec![site.config.listen[0].clone(); 3];
    site.config.listen[1].paths = Some(keep);
    site.config.listen[2].paths = Some(strict);
    let gateway = Gateway::start(&site);
    let mut clients: Vec<_> = gateway
        .server()
        .addresses()
        .into_iter()
        .map(Client::connect)
        .collect();
    let mut ask =
        |path: &str| -> Vec<u16> { clients.iter_mut().map(|client| client.get(path).status).collect() };
    assert_eq!(ask("/a%2fb"), [400, 200, 400]);
    assert_eq!(upstream.last().target, "/a%2Fb");
    assert_eq!(ask("/admin;x=1"), [200, 200, 400]);
    assert_eq!(ask("/admin%3Bx"), [200, 200, 400]);
    site.config.paths = keep;
    site.config.listen[1].paths = Some(strict);
    site.config.listen[2].paths = None;
    gateway.reload(&site);
    assert_eq!(ask("/a%2fb"), [200, 400, 200]);
    assert_eq!(ask("/admin;x"), [200, 400, 200]);
}

#[test]
fn t57_a_regex_takes_time_in_proportion_to_the_path() {
    let upstream = Upstream::text("");
    let site = Site::written(
        "routes: [{match: {path: {regex: \"/(a*)*(a*)*(a*)*b\"}}, respond: {body: found}}, {match: {path: /**}, respond: {body: other}}]\n",
        &upstream,
    );
    let gateway = Gateway::start(&site);
    let mut client = Client::connect(gateway.address());
    let long = "a".repeat(8000);
    let start = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(client.get(&format!("/{long}")).text(), "other");
    }
    assert_eq!(client.get(&format!("/{long}b")).text(), "found");
    assert!(
        start.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn t58_a_proxy_header_does_not_reach_what_would_make_it_a_variable() {
    let upstream = Upstream::text("");
    let gateway = Gateway::start(&Site::to(&upstream));
    assert_eq!(
        send(
            &gateway,
            "Proxy: http://evil\r\nproxy-connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nProxy_: x\r\n"
        ),
        200
    );
    assert!(
        upstream
            .last()
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with("proxy"))
    );
}

#[test]
fn what_a_client_must_not_say_in_the_header_it_must_not_say_in_the_trailer() {
    let upstream = Upstream::mirror("");
    let site = "
routes:
  - {match: {path: /plain}, upstream: UP}
  - {match: {path: /edited}, request: {headers: {remove: [X-Debug]}}, upstream: UP}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let reached = |path: &str, trailer: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailer}\r\n"
        );
        Client::connect(gateway.address())
            .send(request)
            .response()
            .text()
            .to_ascii_lowercase()
    };
    let forged = format!(
        "{FORGED}X_Forwarded_For: 1\r\nX-Client-Cert-Subject: CN=root\r\nVia: x\r\nRange: bytes=0-1\r\nX-Checksum: 7\r\n"
    );
    assert_eq!(
        reached("/plain", &forged),
        "2\r\nhi\r\n0\r\nx-checksum: 7\r\n\r\n"
    );
    // A route that looks at the header, or changes it, can not do so here.
    assert_eq!(
        reached("/edited", "X-Debug: 1\r\nX-Checksum: 7\r\n"),
        "2\r\nhi\r\n0\r\n\r\n"
    );
}

#[test]
fn what_other_products_call_the_client_passes_unless_a_route_removes_it() {
    let upstream = Upstream::text("");
    let site = "
routes:
  - {match: {path: /plain}, upstream: UP}
  - {match: {path: /strict}, request: {headers: {remove: [True-Client-IP, X-Original-URL]}}, upstream: UP}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let lines = "True-Client-IP: 1.1.1.1\r\nCF-Connecting-IP: 1.1.1.1\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n";
    let names = [
        "true-client-ip",
        "x-original-url",
        "cf-connecting-ip",
        "x-rewrite-url",
    ];
    for (path, passed) in [("/plain", [1, 1, 1, 1]), ("/strict", [0, 0, 1, 1])] {
        assert_eq!(gateway.ask(&format!("GET {path}"), lines).status, 200);
        let seen = upstream.last();
        assert_eq!(names.map(|name| seen.header(name).len()), passed, "{path}");
    }
}
