//! What the gateway itself lacks is no fault of those it talks to.

use anyhow::{Result, ensure};
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{Stage, everything_to};

#[test]
fn without_descriptors_requests_are_shed_and_no_endpoint_is_taken_away() -> Result<()> {
    let stage = Stage::new()?;
    let upstreams = [Upstream::text("ok"), Upstream::text("ok")];
    let [one, two] = upstreams.each_ref().map(Upstream::address);
    let rest = format!(
        "log: {{format: json}}
upstreams:
  app:
    endpoints: [{{url: 'http://{one}'}}, {{url: 'http://{two}'}}]
    ejection: {{failures: 2, for: 30s, share: 100%}}
    health: {{http: {{path: /}}, interval: 100ms, timeout: 90ms, unhealthy: 2}}
    panic_threshold: 0%
routes:
  - {{match: {{path: /app}}, upstream: app}}
"
    );
    stage.write("", &rest)?;
    let gateway = stage.start()?;
    let mut client = Client::connect(stage.address);
    let mut ask = |path: &str| {
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .response()
    };
    // From here on it has this connection, and none to an endpoint.
    ensure!(ask("/other").status == 404);
    let pid = Pid::from_raw(i32::try_from(gateway.pid())?);
    let none = Rlimit {
        current: Some(3),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    let before = prlimit(pid, Resource::Nofile, none)?;
    for _ in 0..6 {
        let refused = ask("/app");
        let told = (refused.status, refused.code());
        ensure!(
            told == (503, Some("upstream_overloaded".into())),
            "{told:?}: {}",
            gateway.log()
        );
        ensure!(refused.header("retry-after").is_some());
    }
    wait_until("that a health check could not be made is told", || {
        Ok(gateway.log().contains("a health check could not be made"))
    })?;
    // Time for more of them than take an endpoint away.
    std::thread::sleep(std::time::Duration::from_millis(600));
    prlimit(pid, Resource::Nofile, before)?;
    for _ in 0..4 {
        let served = ask("/app");
        ensure!(served.status == 200, "{}: {}", served.status, gateway.log());
    }
    let log = gateway.log();
    ensure!(log.matches("\"reason\":\"no_descriptors\"").count() == 6, "{log}");
    ensure!(
        !log.contains("is set aside") && !log.contains("endpoint is down"),
        "{log}"
    );
    Ok(())
}

#[test]
fn without_descriptors_probes_and_operators_are_answered() -> Result<()> {
    let stage = Stage::new()?;
    let upstream = Upstream::text("ok");
    stage.write("", &everything_to(&upstream))?;
    let gateway = stage.start()?;
    let pid = Pid::from_raw(i32::try_from(gateway.pid())?);
    let descriptors =
        || Ok::<_, std::io::Error>(std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))?.count());
    let few = Rlimit {
        current: Some(descriptors()? as u64 + 20),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(pid, Resource::Nofile, few)?;
    let crowd: Vec<Client> = (0..60).map(|_| Client::connect(stage.address)).collect();
    gateway.wait_for_log("a connection could not be accepted")?;
    for round in 0..5 {
        for path in ["/readyz", "/healthz", "/metrics"] {
            let (status, text) = stage.asked(path)?;
            ensure!(
                status == "200",
                "{path} in round {round}: {status} {text}\n{}",
                gateway.log()
            );
        }
        stage.expect(0, &["status"])?;
    }
    let none_left = stage.metric("gateway_accept_errors_total")?;
    drop(crowd);
    wait_until("service", || {
        Ok(Client::connect(stage.address).get("/").status == 200)
    })?;
    ensure!(none_left > 0.0, "it had some all the time");
    Ok(())
}
