//! What a route asks of callers, as an operator meets it: what only observes, and counts that outlive a crash.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Issuer, Upstream};
use serde_json::json;

use super::Stage;

#[test]
fn status_shows_what_only_observes_and_what_it_would_have_refused() -> Result<()> {
    let stage = Stage::new()?;
    let upstream = Upstream::text("in");
    let routes = |observe: bool| {
        format!(
            "rate_limits: {{all: {{rate: 1/h, burst: 2, observe: {observe}}}}}\nroutes:\n  - {{name: r, match: {{path: /**}}, rate_limit: all, \
             auth: {{deny: [127.0.0.0/8], observe: true}}, upstream: [{{url: 'http://{}'}}]}}\n  - {{match: {{path: /other}}, upstream: \
             [{{url: 'http://{}'}}]}}\n",
            upstream.address(),
            upstream.address()
        )
    };
    stage.write("", &routes(true))?;
    let _gateway = stage.start()?;
    let shown = |words: &[&str]| stage.expect(0, words);
    ensure!(shown(&["status"])?.contains(
        "OBSERVING on route r: auth, rate_limit all; nobody is refused by that, and nobody would have been so far"
    ));
    for _ in 0..5 {
        assert_eq!(Client::connect(stage.address).get("/").status, 200);
    }
    let text = shown(&["status"])?;
    ensure!(
        text.contains("so far would have been: 5 forbidden, 3 rate_limited"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&shown(&["--json", "status"])?)?;
    assert_eq!(
        json["proxy"]["observing"],
        json!([{"route": "r", "policies": ["auth", "rate_limit all"], "would_refuse": {"forbidden": 5, "rate_limited": 3}}])
    );
    stage.write("", &routes(false).replace("observe: true", "observe: false"))?;
    shown(&["reload"])?;
    ensure!(!shown(&["status"])?.contains("OBSERVING"));
    Ok(())
}

#[test]
fn a_quota_loses_no_more_than_seconds_by_a_crash() -> Result<()> {
    let stage = Stage::new()?;
    let upstream = Upstream::text("in");
    stage.write(
        "",
        &format!(
            "routes:\n  - {{name: r, match: {{path: /**}}, quota: {{requests: 30, per: month, by: route}}, upstream: [{{url: 'http://{}'}}]}}\n",
            upstream.address()
        ),
    )?;
    let granted = |count: usize| {
        let mut client = Client::connect(stage.address);
        (0..count).filter(|_| client.get("/").status == 200).count()
    };
    let gateway = stage.start()?;
    assert_eq!(granted(20), 20);
    let ledger = stage.file("state").join("quotas");
    wait_until("the counts are on disk", || Ok(ledger.exists()))?;
    let kept = std::fs::metadata(&ledger)?.modified()?;
    // Counted after that write, and before the next one.
    assert_eq!(granted(5), 5);
    let unwritten = std::fs::metadata(&ledger)?.modified()? == kept;
    gateway.signal(rustix::process::Signal::KILL)?;
    let gateway = stage.start()?;
    let left = granted(30);
    // What was on disk is known; what came after it may be granted again, and nothing more.
    ensure!((5..=10).contains(&left), "{left}");
    ensure!(!unwritten || left == 10, "{left}");
    assert_eq!(granted(1), 0);
    // An end in good order loses nothing.
    gateway.signal(rustix::process::Signal::TERM)?;
    let _gateway = stage.start()?;
    assert_eq!(granted(1), 0);
    Ok(())
}

#[test]
fn metrics_tell_of_an_issuer_and_a_redis_that_are_away() -> Result<()> {
    let stage = Stage::new()?;
    let (upstream, issuer) = (Upstream::text("in"), Issuer::start());
    let nobody = SocketAddr::from(([127, 0, 0, 1], super::free_port()?));
    stage.write(
        "",
        &format!(
            "redis: {{url: 'redis://{nobody}'}}\nroutes:\n  - {{match: {{path: /a}}, auth: {{jwt: {{issuer: '{0}', audience: off, keys: {{url: \
             '{0}/keys', refresh: 1s, floor: 100ms}}}}}}, upstream: [{{url: 'http://{1}'}}]}}\n  - {{match: {{path: /b}}, rate_limit: {{rate: \
             1/s, shared: true, when_away: open}}, upstream: [{{url: 'http://{1}'}}]}}\n",
            issuer.name(),
            upstream.address()
        ),
    )?;
    let _gateway = stage.start()?;
    let of = |name: &str| stage.metric(&format!("gateway_{name}{{url=\"{}/keys\"}}", issuer.name()));
    wait_until("the keys are read", || Ok(of("key_set_age_seconds").is_ok()))?;
    assert_eq!(of("key_set_failing")?, 0.0);
    assert_eq!(stage.metric("gateway_redis_away_workers")?, 0.0);
    issuer.publish(&json!({"broken": true}));
    wait_until("the issuer's failure is told of", || {
        Ok(of("key_set_failing")? == 1.0)
    })?;
    wait_until("the keys grow old", || Ok(of("key_set_age_seconds")? >= 2.0))?;
    issuer.publish(&json!({"broken": false}));
    wait_until("the issuer is back", || Ok(of("key_set_failing")? == 0.0))?;
    ensure!(of("key_set_age_seconds")? < 2.0);
    assert_eq!(Client::connect(stage.address).get("/b").status, 200);
    wait_until("redis is known to be away", || {
        Ok(stage.metric("gateway_redis_away_workers")? >= 1.0)
    })
}
