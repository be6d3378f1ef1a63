//! Limits of callers: how often, and how many at once.

use std::time::{Duration, Instant};

use gateway::http::reject::Reject;
use gateway_tests::l7::gateway::eventually;
use gateway_tests::l7::upstream::saying;
use gateway_tests::l7::{Client, Gateway, NOON, Site, Upstream};

fn get(gateway: &Gateway, path: &str, lines: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    Client::connect(gateway.address()).send(request).response().status
}

#[test]
fn t43_over_the_rate_it_is_429_with_the_time_to_wait_and_nothing_reaches_the_upstream() {
    let upstream = Upstream::text("ok");
    let site = "routes: [{match: {path: /**}, upstream: UP, rate_limit: {rate: 6/m, burst: 3}}]";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let mut client = Client::connect(gateway.address());
    for left in [2, 1, 0] {
        let answer = client.get("/");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"default\";q=3;w=30"));
        let standing = format!("\"default\";r={left};t={}", (3 - left) * 10);
        assert_eq!(answer.header("ratelimit"), Some(standing.as_str()));
    }
    let refused = client.get("/");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (429, Some("rate_limited"))
    );
    assert_eq!(refused.header("retry-after"), Some("10"));
    assert!(
        refused
            .header("ratelimit")
            .is_some_and(|line| line.starts_with("\"default\";r=0;t="))
    );
    assert_eq!(client.get("/").status, 429, "and the connection goes on");
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(gateway.rejects(), [Reject::RateLimited; 2]);
}

#[test]
fn t04_a_request_that_is_refused_before_its_body_is_no_beginning_of_the_next() {
    let upstream = Upstream::text("ok");
    let site =
        "routes: [{match: {path: /**}, upstream: UP, rate_limit: {rate: 1/h}, concurrency: {at_once: 1}}]";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    assert_eq!(get(&gateway, "/", ""), 200);
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let outer = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        inner.len()
    );
    let mut client = Client::connect(gateway.address());
    let refused = client.send(outer).response();
    assert_eq!(
        (refused.status, refused.header("connection")),
        (429, Some("close"))
    );
    client.send(inner);
    assert_eq!(client.rest(), b"", "nothing that follows is answered");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn t40_a_limit_with_a_name_is_one_for_all_routes_and_others_are_each_route_s_own() {
    let upstream = Upstream::text("ok");
    let site = "
rate_limits: {all: {rate: 1/h, burst: 2}}
routes:
  - {match: {path: /a}, upstream: UP, rate_limit: all}
  - {match: {path: /b}, upstream: UP, rate_limit: [all]}
  - {match: {path: /c}, upstream: UP, rate_limit: {rate: 1/h, burst: 2}}
  - {match: {path: /d}, upstream: UP, rate_limit: {rate: 1/h, burst: 2}}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let ask = |paths: &[&str]| {
        paths
            .iter()
            .map(|path| get(&gateway, path, ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(&["/a", "/b", "/a", "/b"]), [200, 200, 429, 429]);
    assert_eq!(
        ask(&["/c", "/c", "/c", "/d", "/d", "/d"]),
        [200, 200, 429, 200, 200, 429]
    );
}

#[test]
fn t44_a_reload_that_leaves_a_limit_alone_leaves_its_counts_alone() {
    let upstream = Upstream::text("ok");
    let site = |limit: &str, rest: &str| {
        let text =
            format!("routes: [{{name: r, match: {{path: /**}}, upstream: UP, rate_limit: {limit}{rest}}}]");
        Site::written(&text, &upstream)
    };
    let gateway = Gateway::start(&site("{rate: 1/h, burst: 2}", ""));
    assert_eq!([get(&gateway, "/", ""), get(&gateway, "/", "")], [200, 200]);
    gateway.reload(&site("{rate: 1/h, burst: 2}", ", limits: {total: 9s}"));
    assert_eq!(get(&gateway, "/", ""), 429, "another setting of the route");
    gateway.reload(&site("{rate: 1/h, burst: 3}", ""));
    assert_eq!(
        [get(&gateway, "/", ""), get(&gateway, "/", "")],
        [200, 429],
        "one more than before"
    );
    gateway.reload(&site("{rate: 1/h, burst: 3, by: host}", ""));
    assert_eq!(get(&gateway, "/", ""), 200, "other callers, other counts");
}

#[test]
fn several_limits_must_all_admit_and_what_one_refuses_is_not_charged_to_the_others() {
    let upstream = Upstream::text("ok");
    let site = "
routes:
  - match: {path: /**}
    upstream: UP
    rate_limit: [{rate: 1/h, burst: 4, by: route}, {rate: 1/h, burst: 2, by: \"header:X-Tenant\"}]";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let of = |tenant: &str| get(&gateway, "/", &format!("X-Tenant: {tenant}\r\n"));
    assert_eq!(
        [of("a"), of("a"), of("a"), of("a"), of("a")],
        [200, 200, 429, 429, 429]
    );
    assert_eq!(
        [of("b"), of("b"), of("b")],
        [200, 200, 429],
        "three refusals cost the route nothing"
    );
    assert_eq!(of("c"), 429, "but now it has had its four");
}

#[test]
fn who_names_two_tenants_is_no_new_one_with_each_pair() {
    let upstream = Upstream::text("ok");
    let site = "
routes:
  - {match: {path: /h}, upstream: UP, rate_limit: {rate: 1/h, burst: 2, by: \"header:X-Tenant\"}}
  - {match: {path: /c}, upstream: UP, rate_limit: {rate: 1/h, burst: 2, by: \"cookie:tenant\"}}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let two = |n: usize| get(&gateway, "/h", &format!("X-Tenant: a\r\nX-Tenant: {n}\r\n"));
    assert_eq!([two(1), two(2), two(3)], [200, 200, 429]);
    assert_eq!(get(&gateway, "/h", ""), 429, "as those who name none");
    assert_eq!(get(&gateway, "/h", "X-Tenant: a\r\n"), 200);
    let two = |n: usize| get(&gateway, "/c", &format!("Cookie: tenant=a; tenant={n}\r\n"));
    assert_eq!([two(1), two(2), two(3)], [200, 200, 429]);
}

#[test]
fn who_is_one_too_many_at_once_is_charged_to_no_rate() {
    let upstream = Upstream::start(|request, wire| {
        if request.target == "/slow" {
            std::thread::sleep(Duration::from_millis(700));
        }
        saying("ok")(request, wire)
    });
    let site = "
routes:
  - match: {path: /**}
    upstream: UP
    rate_limit: {rate: 1/h, burst: 2}
    concurrency: {at_once: 1}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let mut slow = Client::connect(gateway.address());
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(eventually(|| !upstream.requests().is_empty()));
    for _ in 0..5 {
        assert_eq!(get(&gateway, "/", ""), 429);
    }
    assert_eq!(gateway.rejects(), [Reject::ConcurrencyLimited; 5]);
    assert_eq!(slow.response().status, 200);
    assert!(
        eventually(|| get(&gateway, "/", "") == 200),
        "of two, one is left"
    );
    // What the rate refuses is not under way either.
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/", ""), 429);
    }
    assert_eq!(gateway.rejects().last(), Some(&Reject::RateLimited));
}

#[test]
fn holders_of_keys_are_limited_each_and_guesses_by_address() {
    let upstream = Upstream::text("ok");
    let site = "
routes:
  - match: {path: /**}
    upstream: UP
    rate_limit: [{rate: 1/h, burst: 2, by: identity}, {rate: 1/h, burst: 6}]";
    let site = Site::written(site, &upstream).api_key(&[("one", "one"), ("uno", "one"), ("two", "two")]);
    let gateway = Gateway::start(&site);
    let with = |key: &str| get(&gateway, "/", &format!("X-API-Key: {key}\r\n"));
    assert_eq!(
        [with("one"), with("uno"), with("one")],
        [200, 200, 429],
        "two keys of one holder"
    );
    assert_eq!(with("two"), 200);
    assert_eq!([with("guess"), with("guess"), with("guess")], [401, 401, 429]);
}

#[test]
fn all_workers_count_together_to_the_last_request() {
    let upstream = Upstream::text("ok");
    let site =
        "routes: [{match: {path: /**}, upstream: UP, rate_limit: {rate: 1/h, burst: 100, headers: false}}]";
    let mut site = Site::written(site, &upstream);
    site.config.workers = 4.try_into().unwrap();
    let gateway = Gateway::start(&site);
    let admitted: usize = std::thread::scope(|scope| {
        let client = || {
            let mut client = Client::connect(gateway.address());
            (0..30).filter(|_| client.get("/").status == 200).count()
        };
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(client)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((admitted, upstream.requests().len()), (100, 100));
}

#[test]
fn what_only_observes_counts_and_refuses_nothing() {
    let upstream = Upstream::text("ok");
    let site = "
routes:
  - name: r
    match: {path: /**}
    upstream: UP
    rate_limit: {rate: 1/h, burst: 2, observe: true}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let answers: Vec<_> = (0..5)
        .map(|_| Client::connect(gateway.address()).get("/"))
        .collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.header("ratelimit").is_none())
    );
    assert_eq!(gateway.rejects(), []);
    let counted = r#"gateway_observed_rejects_total{route="r",code="rate_limited"} 3"#;
    assert!(gateway.metrics.encode().contains(counted));
}

#[test]
fn t41_requests_at_once_are_counted_down_however_they_end() {
    let upstream = Upstream::start(|request, wire| {
        if request.target.contains("slow") {
            std::thread::sleep(Duration::from_millis(300));
        }
        !request.target.contains("broken") && saying("ok")(request, wire)
    });
    let site = "
routes:
  - match: {path: /**}
    upstream: UP
    limits: {response_header: 200ms}
    concurrency: {at_once: 2}
  - {match: {path: /free/**}, upstream: UP, concurrency: {at_once: 1, observe: true}}";
    let gateway = Gateway::start(&Site::written(site, &upstream));
    let ask = |path: &str| {
        let mut client = Client::connect(gateway.address());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client
    };
    // Two wait for the upstream, so a third is refused; both end by their deadline.
    let mut waiting = [ask("/slow"), ask("/slow")];
    assert!(eventually(|| upstream.requests().len() == 2));
    let third = Client::connect(gateway.address()).get("/");
    assert_eq!(
        (third.status, third.code().as_deref()),
        (429, Some("concurrency_limited"))
    );
    assert_eq!(
        waiting.each_mut().map(|client| client.response().status),
        [504, 504]
    );
    // Ends of every kind: answered, the upstream breaks off, the client goes away.
    for path in ["/", "/broken", "/slow", "/", "/broken", "/slow"] {
        let client = ask(path);
        if path == "/slow" {
            let seen = upstream.requests().len();
            assert!(eventually(|| upstream.requests().len() >= seen));
            drop(client);
        } else {
            let mut client = client;
            assert_ne!(client.response().status, 429, "{path}");
        }
        let begun = Instant::now();
        assert!(eventually(|| get(&gateway, "/", "") == 200), "{path} leaked");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    let mut two = [ask("/free/slow"), ask("/free/slow")];
    assert_eq!(two.each_mut().map(|client| client.response().status), [200, 200]);
    let counted = r#"code="concurrency_limited"} 1"#;
    assert!(
        gateway
            .metrics
            .encode()
            .lines()
            .any(|line| line.contains("observed") && line.ends_with(counted))
    );
}

#[test]
fn a_quota_holds_for_its_day_and_is_known_to_the_next_life_of_the_gateway() {
    let upstream = Upstream::text("ok");
    let site = "
quotas: {plan: {requests: 3, per: day, by: \"header:X-A\"}}
routes:
  - {match: {path: /a}, upstream: UP, quota: plan}
  - {match: {path: /b}, upstream: UP, quota: [plan, {requests: 100, per: month, by: route}]}";
    let site = Site::written(site, &upstream);
    let gateway = Gateway::start(&site);
    let first = Client::connect(gateway.address()).get("/a");
    assert_eq!(first.header("ratelimit-policy"), Some("\"plan\";q=3;w=86400"));
    assert_eq!(first.header("ratelimit"), Some("\"plan\";r=2;t=43200"));
    assert_eq!([get(&gateway, "/b", ""), get(&gateway, "/a", "")], [200, 200]);
    let refused = Client::connect(gateway.address()).get("/b");
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (429, Some("quota_exceeded"))
    );
    assert_eq!(refused.header("retry-after"), Some("43200"), "until midnight");
    assert_eq!(get(&gateway, "/a", "X-A: other\r\n"), 200);

    let ledger = gateway.handle.load().limits().ledger().expect("there are counts");
    assert_eq!(gateway.handle.load().limits().ledger(), None, "and no new ones");
    let next = Gateway::start(&site);
    next.handle.load().limits().restore(&ledger);
    let others = [
        get(&next, "/a", "X-A: other\r\n"),
        get(&next, "/a", "X-A: other\r\n"),
        get(&next, "/a", "X-A: other\r\n"),
    ];
    assert_eq!((get(&next, "/a", ""), others), (429, [200, 200, 429]));
    next.handle.load().limits().tick(NOON + 43_200);
    assert_eq!(get(&next, "/a", ""), 200, "a new day");
}
