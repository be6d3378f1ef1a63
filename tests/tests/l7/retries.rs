//! What is sent again, and what never is.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::config::defaults;
use gateway::config::model::Retries;
use gateway_tests::l7::{Client, Gateway, Response, Site, Upstream};
use http::StatusCode;

fn retries(change: impl FnOnce(&mut Retries)) -> Retries {
    let mut retries = Retries {
        budget_per_second: 1000,
        ..defaults::retries()
    };
    change(&mut retries);
    retries
}

/// The first takes requests and does `first`; the other answers.
fn pair(
    first: impl Fn(&mut gateway_tests::l7::upstream::Wire) + Send + Sync + 'static,
) -> (Upstream, Upstream) {
    let bad = Upstream::start(move |request, wire| {
        wire.body(request);
        first(wire);
        false
    });
    (bad, Upstream::text("good"))
}

fn post(client: &mut Client) -> Response {
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        .response()
}

#[test]
fn t53_a_get_is_tried_elsewhere_and_a_post_is_never_repeated() {
    for (case, answer) in [
        ("closes", ""),
        ("says 503", "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let (bad, good) = pair(move |wire| wire.send(answer));
        let again = retries(|retries| retries.statuses = vec![StatusCode::SERVICE_UNAVAILABLE]);
        let site = Site::among(&[&bad, &good]).upstream(|upstream| upstream.retries = Some(again));
        let gateway = Gateway::start(&site);
        let mut client = Client::connect(gateway.address());
        for _ in 0..6 {
            assert_eq!(client.get("/").text(), "good", "{case}");
        }
        let posts = (0..6).map(|_| post(&mut Client::connect(gateway.address())).status);
        let (served, failed): (Vec<_>, Vec<_>) = posts.partition(|status| *status == 200);
        assert_eq!((served.len(), failed.len()), (3, 3), "{case}");
        let posts = |upstream: &Upstream| upstream.requests().iter().filter(|r| r.method == "POST").count();
        assert_eq!(
            (posts(&bad), posts(&good)),
            (3, 3),
            "{case}: each reached one upstream, once"
        );
    }
}

#[test]
fn t53_without_retries_configured_nothing_that_was_sent_is_repeated() {
    let (bad, good) = pair(|_| ());
    let gateway = Gateway::start(&Site::among(&[&bad, &good]));
    let statuses: Vec<_> = (0..6)
        .map(|_| Client::connect(gateway.address()).get("/").status)
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 502).count(),
        3,
        "{statuses:?}"
    );
}

#[test]
fn t53_a_request_that_was_never_sent_is_tried_elsewhere_whatever_it_is() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let good = Upstream::text("good");
    let gateway = Gateway::start(&Site::new().route("*", "/**", &[(dead, 1), (good.address(), 1)]));
    for _ in 0..4 {
        assert_eq!(post(&mut Client::connect(gateway.address())).text(), "good");
    }
    assert_eq!(good.requests().len(), 4);
}

#[test]
fn t53_the_budget_caps_a_storm() {
    let (bad, worse) = (Upstream::start(|_, _| false), Upstream::start(|_, _| false));
    let few = retries(|retries| {
        retries.budget_percent = 20;
        retries.budget_per_second = 0;
    });
    let gateway =
        Gateway::start(&Site::among(&[&bad, &worse]).upstream(|upstream| upstream.retries = Some(few)));
    let mut client = Client::connect(gateway.address());
    for _ in 0..100 {
        assert_eq!(client.get("/").status, 502);
    }
    let reached = bad.requests().len() + worse.requests().len();
    assert!(
        (115..=121).contains(&reached),
        "{reached} for 100 requests and a fifth"
    );
    assert!(
        gateway
            .metrics
            .encode()
            .contains(r#"gateway_upstream_retries_unpaid_total{upstream="*/**"} "#)
    );
}

#[test]
fn a_slow_endpoint_is_given_up_for_another() {
    let (slow, good) = pair(|wire| wire.wait_for_close());
    let again = retries(|retries| {
        retries.timeout = true;
        retries.per_try = Some(Duration::from_millis(100));
    });
    let gateway =
        Gateway::start(&Site::among(&[&slow, &good]).upstream(|upstream| upstream.retries = Some(again)));
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(Client::connect(gateway.address()).get("/").text(), "good");
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(slow.requests().len(), 2);
}

#[test]
fn all_tries_together_have_one_deadline() {
    // Each closes after a while, without an answer.
    let while_ = Duration::from_millis(200);
    let closes = || {
        Upstream::start(move |_, _| {
            std::thread::sleep(while_);
            false
        })
    };
    let upstreams: Vec<_> = (0..6).map(|_| closes()).collect();
    let all: Vec<_> = upstreams.iter().collect();
    let again = retries(|retries| retries.attempts = 6);
    let site = Site::among(&all).upstream(|upstream| upstream.retries = Some(again));
    let reached = || {
        upstreams
            .iter()
            .map(|upstream| upstream.requests().len())
            .sum::<usize>()
    };
    for (case, site) in [
        (
            "for the answer",
            site.clone()
                .with(|route| route.response_header = Some(while_ * 5 / 2)),
        ),
        (
            "for the whole",
            site.with(|route| route.total = Some(while_ * 5 / 2)),
        ),
    ] {
        let before = reached();
        let gateway = Gateway::start(&site);
        let begun = std::time::Instant::now();
        assert_eq!(Client::connect(gateway.address()).get("/").status, 504, "{case}");
        let took = begun.elapsed();
        assert!(
            took >= while_ * 5 / 2 && took < while_ * 7 / 2,
            "{case}: {took:?}"
        );
        assert_eq!(reached() - before, 3, "{case}");
    }
}

#[test]
fn tries_end_and_the_last_answer_is_passed_on() {
    let unwell = || {
        Upstream::start(|_, wire| {
            wire.send("HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy");
            true
        })
    };
    let upstreams = [unwell(), unwell(), unwell(), unwell()];
    let again = retries(|retries| retries.statuses = vec![StatusCode::SERVICE_UNAVAILABLE]);
    let site = Site::among(&upstreams.each_ref()).upstream(|upstream| upstream.retries = Some(again));
    let gateway = Gateway::start(&site);
    let response = Client::connect(gateway.address()).get("/");
    assert_eq!((response.status, response.text().as_str()), (503, "busy"));
    let reached: Vec<_> = upstreams
        .iter()
        .map(|upstream| upstream.requests().len())
        .collect();
    assert_eq!(reached.iter().sum::<usize>(), 3, "{reached:?}");
    assert!(
        reached.iter().all(|count| *count <= 1),
        "each at most once: {reached:?}"
    );
}

#[test]
fn t52_no_request_is_lost_when_the_upstream_closes_idle_connections() {
    // Closes each connection right after an answer, without saying so.
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let upstream = Upstream::start(move |request, wire| {
        wire.body(request);
        count.fetch_add(1, Ordering::Relaxed);
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        false
    });
    let gateway = Gateway::start(&Site::to(&upstream));
    let mut client = Client::connect(gateway.address());
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "ok");
    }
    for _ in 0..50 {
        // The close has been seen by then, or nothing has been sent.
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(post(&mut client).text(), "ok");
    }
    assert_eq!(answered.load(Ordering::Relaxed), 250, "and none twice");
}

#[test]
fn an_upstream_that_dies_in_mid_answer_is_told_apart_from_one_that_ends() {
    for (case, answer) in [
        (
            "short of its length",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        ),
        (
            "in a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
        ),
        (
            "before the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ),
    ] {
        let (dying, _) = pair(move |wire| wire.send(answer));
        let site = Site::to(&dying).upstream(|upstream| upstream.retries = Some(retries(|_| ())));
        let gateway = Gateway::start(&site);
        let mut client = Client::connect(gateway.address());
        let cut = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").try_response();
        assert!(cut.is_err(), "{case}: the client can tell: {cut:?}");
        assert_eq!(
            dying.requests().len(),
            1,
            "{case}: what has begun is not begun again"
        );
    }
}
