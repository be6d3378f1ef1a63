//! The whole story on real packets: veth in network namespaces, XDP in native mode, real curl, the real binary.
//!
//! Proofs are counters and delivered requests, not the absence of something for a while.

use anyhow::{Context as _, Result, ensure};
use gateway_tests::gateway::{Gateway, Home, command, finish, wait_until};
use gateway_tests::net::{A, A6, B, B6, GATEWAY, GATEWAY6, Namespace, Wire};
use gateway_tests::origin::Origin;
use rustix::process::Signal;
use serde_json::Value;

const URL: &str = "http://10.77.0.1:8080/";
const GOOD: &[&str] = &["X-API-Key: right"];
const BAD: &[&str] = &["X-API-Key: wrong"];

/// SHA-256 of `right`.
const KEY_HASH: &str = "27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9";

fn config(xdp: &str, block_for: &str, more: &str) -> String {
    format!(
        "listen:
  - address: 0.0.0.0:8080
  - address: '[::]:8080'
admin: {{socket: {{socket}}, metrics: 127.0.0.1:9901}}
state_dir: {{state}}
workers: 2
xdp:
  interfaces: [gw0]
  mode: native
  pin_dir: {{pins}}
{xdp}
strikes:
  block: {{after: 3, within: 1m, for: {block_for}}}
routes:
  - match: {{path: /open/**}}
    upstream: [{{url: 'http://127.0.0.1:9000'}}]
  - match: {{path: /**}}
    auth: {{api_key: {{header: X-API-Key, keys: [{{name: tester, sha256: {KEY_HASH}}}]}}}}
    upstream: [{{url: 'http://127.0.0.1:9000'}}]
{more}"
    )
}

/// A wire, an upstream and directories, ready for a gateway.
struct Stage {
    wire: Wire,
    origin: Origin,
    home: Home,
}

impl Stage {
    fn new(config: &str) -> Result<Self> {
        let wire = Wire::new()?;
        let origin = Origin::start(&wire.gateway, "127.0.0.1:9000")?;
        let home = Home::new()?;
        home.write(config)?;
        Ok(Self { wire, origin, home })
    }

    fn start(&self) -> Result<Gateway> {
        Gateway::start(&self.wire.gateway, &self.home, &[])
    }

    /// A `gateway` command that must end with `code`; returns what it printed.
    fn expect(&self, code: i32, words: &[&str]) -> Result<String> {
        let (exit, out, err) = command(&self.wire.gateway, &self.home, words)?;
        ensure!(
            exit == code,
            "gateway {words:?} ended with {exit}, not {code}:\n{out}\n{err}"
        );
        Ok(out + &err)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let (exit, out, err) = command(&self.wire.gateway, &self.home, &[words, &["--json"]].concat())?;
        ensure!(exit == 0, "gateway {words:?} ended with {exit}:\n{out}\n{err}");
        serde_json::from_str(&out).with_context(|| format!("gateway {words:?} printed {out}"))
    }

    /// Packets counted for a reason.
    fn packets(&self, reason: &str) -> Result<u64> {
        let status = self.json(&["status"])?;
        let counters = status["counters"].as_array().context("counters")?;
        let row = counters
            .iter()
            .find(|row| row["reason"] == reason)
            .with_context(|| format!("no {reason}"))?;
        row["packets"].as_u64().context("a number")
    }

    fn verdict(&self, addr: &str) -> Result<(String, Value)> {
        let explained = self.json(&["explain", addr])?;
        let outcome = explained["outcome"].as_str().context("an outcome")?.to_owned();
        Ok((outcome, explained))
    }

    /// One number from the gateway's own metrics endpoint.
    fn metric(&self, name: &str) -> Result<f64> {
        let out =
            self.wire
                .gateway
                .run(&["curl", "-sf", "--noproxy", "*", "http://127.0.0.1:9901/metrics"])?;
        let text = String::from_utf8(out.stdout)?;
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']));
        let line = line.with_context(|| format!("no {name} in\n{text}"))?;
        Ok(line.rsplit(' ').next().context("a value")?.parse()?)
    }

    /// The XDP program of the gateway's interface as the kernel lists it.
    fn program_on_wire(&self) -> Result<Option<u64>> {
        let out = self
            .wire
            .gateway
            .run(&["ip", "-j", "-d", "link", "show", "dev", "gw0"])?;
        let links: Value = serde_json::from_slice(&out.stdout)?;
        Ok(links[0]["xdp"]["prog"]["id"].as_u64())
    }
}

#[test]
fn who_misbehaves_at_layer_7_is_dropped_in_the_kernel_until_the_time_is_over() -> Result<()> {
    let stage = Stage::new(&config("", "8s", ""))?;
    let gateway = stage.start()?;
    let Stage { wire, origin, .. } = &stage;

    // Both are served.
    assert_eq!(wire.status(A, URL, GOOD)?, Ok(200));
    assert_eq!(wire.status(B, URL, GOOD)?, Ok(200));
    let (outcome, explained) = stage.verdict(A)?;
    assert_eq!(
        (outcome.as_str(), explained["strikes"]["strikes"].as_u64()),
        ("clean", Some(0))
    );

    // Two bad keys: struck, not blocked.
    for _ in 0..2 {
        assert_eq!(wire.status(A, URL, BAD)?, Ok(401));
    }
    let (outcome, explained) = stage.verdict(A)?;
    assert_eq!(
        (outcome.as_str(), explained["strikes"]["strikes"].as_u64()),
        ("clean", Some(2))
    );
    assert_eq!(explained["strikes"]["block_after"].as_u64(), Some(3));

    // The third: blocked, and `explain` says why.
    assert_eq!(wire.status(A, URL, BAD)?, Ok(401));
    wait_until("block of A", || Ok(stage.verdict(A)?.0 == "blocked"))?;
    let explained = stage.verdict(A)?.1;
    assert_eq!(explained["verdict"], "drop");
    assert_eq!(explained["block"][0]["origin"], "strike");
    assert_eq!(explained["block"][0]["enforced"], true);
    let reason = explained["block"][0]["reason"].as_str().context("a reason")?;
    assert!(reason.contains("credentials_invalid"), "{reason}");
    let text = stage.expect(0, &["explain", A])?;
    assert!(
        text.contains("is dropped in the kernel") && text.contains(&format!("gateway block del {A}")),
        "{text}"
    );

    // Its next SYN is dropped in the kernel: the counter rises, and nothing reaches the proxy or the upstream.
    let (dropped, accepted) = (
        stage.packets("blocked")?,
        stage.metric("gateway_connections_accepted_total")?,
    );
    let requests = origin.seen().len();
    assert_eq!(wire.status(A, URL, GOOD)?, Err(28), "curl's code for a time-out");
    assert!(
        stage.packets("blocked")? > dropped,
        "the counter of that reason rises"
    );
    assert_eq!(
        stage.metric("gateway_connections_accepted_total")?,
        accepted,
        "nothing reaches the proxy"
    );
    assert_eq!(origin.seen().len(), requests, "nothing reaches the upstream");
    assert!(
        stage.verdict(A)?.1["block"][0]["hits"].as_u64() > Some(0),
        "the entry counts its hits"
    );

    // B is served throughout.
    assert_eq!(wire.status(B, URL, GOOD)?, Ok(200));
    assert_eq!(stage.verdict(B)?.0, "clean");

    // The daemon dies. The block holds until its time is over, and no longer: a plain server in its place shows it.
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    let _other = Origin::start(&wire.gateway, "0.0.0.0:8081")?;
    let other = "http://10.77.0.1:8081/";
    assert_eq!(wire.status(B, other, &[])?, Ok(200));
    let explained = stage.verdict(A)?.1;
    if explained["outcome"] == "blocked" {
        assert_eq!(wire.status(A, other, &[])?, Err(28));
    }
    wait_until("end of the block", || Ok(wire.status(A, other, &[])? == Ok(200)))?;
    assert_eq!(
        stage.verdict(A)?.0,
        "clean",
        "explain tells the truth without a daemon"
    );
    assert!(
        stage.program_on_wire()?.is_some(),
        "the program is still attached"
    );
    Ok(())
}

#[test]
fn open_connections_of_a_blocked_source_are_closed() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let wire = &stage.wire;
    // A slow download would do as well; an idle keep-alive connection is the simplest open one.
    let open = wire.client.within(|| {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        let from: std::net::SocketAddr = format!("{A}:0").parse()?;
        let to: std::net::SocketAddr = format!("{GATEWAY}:8080").parse()?;
        rustix::net::bind(&socket, &from)?;
        rustix::net::connect(&socket, &to)?;
        anyhow::Ok(std::net::TcpStream::from(socket))
    })??;
    wait_until("connection", || Ok(stage.metric("gateway_connections")? >= 1.0))?;
    for _ in 0..3 {
        wire.status(A, URL, BAD)?.ok();
    }
    wait_until("block", || Ok(stage.verdict(A)?.0 == "blocked"))?;
    wait_until("closing", || Ok(stage.metric("gateway_connections")? == 0.0))?;
    drop(open);
    Ok(())
}

#[test]
fn ipv6_clients_are_blocked_just_the_same() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let url = format!("http://[{GATEWAY6}]:8080/");
    for _ in 0..3 {
        assert_eq!(stage.wire.status(A6, &url, BAD)?, Ok(401));
    }
    wait_until("block", || Ok(stage.verdict(A6)?.0 == "blocked"))?;
    assert_eq!(stage.wire.status(A6, &url, GOOD)?, Err(28));
    assert_eq!(stage.wire.status(B6, &url, GOOD)?, Ok(200));
    // One command lifts it.
    let text = stage.expect(0, &["block", "del", A6])?;
    assert!(text.contains("no longer blocked"), "{text}");
    assert_eq!(stage.wire.status(A6, &url, GOOD)?, Ok(200));
    stage.expect(1, &["block", "del", A6])?;
    Ok(())
}

#[test]
fn after_sigkill_denies_hold_and_the_next_start_adopts_the_program() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.3]", "1m", ""))?;
    let gateway = stage.start()?;
    let wire = &stage.wire;
    stage.expect(0, &["deny", "add", A, "--reason", "by hand"])?;
    assert_eq!(wire.status(A, URL, GOOD)?, Err(28));
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    let program = stage.program_on_wire()?.context("a program after SIGKILL")?;

    // Without a daemon both still hold: a plain server would answer otherwise.
    let _other = Origin::start(&wire.gateway, "0.0.0.0:8081")?;
    for client in [A, B] {
        assert_eq!(
            wire.status(client, "http://10.77.0.1:8081/", &[])?,
            Err(28),
            "{client}"
        );
    }
    assert_eq!(stage.verdict(A)?.0, "denied");

    // The command line works on the pinned tables.
    stage.expect(0, &["deny", "del", A])?;
    assert_eq!(wire.status(A, "http://10.77.0.1:8081/", &[])?, Ok(200));
    stage.expect(0, &["deny", "add", A])?;
    assert_eq!(wire.status(A, "http://10.77.0.1:8081/", &[])?, Err(28));

    // The next start takes over while denied traffic keeps coming: not one packet slips through.
    let url = format!("http://{GATEWAY}:8081/");
    let mut knock = wire.client.command("sh");
    let script = format!(
        "for i in $(seq 40); do curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 0.1 --noproxy '*' \
         --interface {A} {url}; done"
    );
    let knocking = std::thread::spawn(move || finish(knock.args(["-c", &script])));
    let gateway = stage.start()?;
    let adopted = stage.program_on_wire()?.context("a program after the restart")?;
    assert_ne!(program, adopted, "the new gateway runs its own program");
    let (_, seen, _) = knocking.join().expect("no panic")?;
    assert!(
        seen.lines().count() == 40 && seen.lines().all(|code| code == "000"),
        "a denied packet passed:\n{seen}"
    );
    assert_eq!(wire.status(A, URL, GOOD)?, Err(28));

    // Exactly one program: the old one is gone from the kernel. A program leaves some time after its last reference.
    wait_until("end of the old program", || Ok(!program_exists(program)?))?;
    drop(gateway);
    Ok(())
}

/// Whether the kernel still has a program of this id.
fn program_exists(id: u64) -> Result<bool> {
    let programs = aya::programs::loaded_programs();
    Ok(programs
        .filter_map(Result::ok)
        .any(|program| u64::from(program.id()) == id))
}

#[test]
fn a_deny_of_an_allowed_address_has_no_effect_and_says_so() -> Result<()> {
    let stage = Stage::new(&config("  allow: [10.77.0.2]", "1m", ""))?;
    let _gateway = stage.start()?;
    let text = stage.expect(0, &["deny", "add", A])?;
    assert!(text.contains("no effect"), "{text}");
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    assert_eq!(stage.verdict(A)?.0, "allowed");
    // Nor is an allowed address ever blocked.
    for _ in 0..6 {
        assert_eq!(stage.wire.status(A, URL, BAD)?, Ok(401));
    }
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    assert_eq!(stage.json(&["block", "list"])?["blocks"], serde_json::json!([]));
    // An allow by command takes effect at once over an earlier deny.
    stage.expect(0, &["deny", "add", B])?;
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Err(28));
    stage.expect(0, &["allow", "add", B])?;
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    Ok(())
}

#[test]
fn the_host_and_the_operator_are_not_denied_without_force() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    for own in [GATEWAY, GATEWAY6, "127.0.0.1", "10.77.0.0/24"] {
        let text = stage.expect(3, &["deny", "add", own])?;
        assert!(text.contains("own address") && text.contains("--force"), "{text}");
    }
    // The client of the SSH session that the command is typed over.
    let mut ssh = stage.wire.gateway.command(gateway_tests::gateway::binary()?);
    ssh.args(["deny", "add", "198.51.100.0/24", "--config"])
        .arg(stage.home.config());
    ssh.env("SSH_CONNECTION", "198.51.100.9 50000 10.77.0.1 22");
    let (code, _, err) = finish(&mut ssh)?;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("198.51.100.9") && err.contains("SSH"), "{err}");
    let (code, _, err) = finish(ssh.arg("--force"))?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(stage.json(&["deny", "list"])?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn a_trusted_proxy_is_never_blocked_but_the_client_it_names_is_refused() -> Result<()> {
    let stage = Stage::new(&config("", "1m", "trusted_proxies: [10.77.0.2]\n"))?;
    let _gateway = stage.start()?;
    let wire = &stage.wire;
    let named = |key: &str, client: &str| -> Result<Result<u16, i32>> {
        wire.status(
            A,
            URL,
            &[
                &format!("X-API-Key: {key}"),
                &format!("X-Forwarded-For: {client}"),
            ],
        )
    };
    for _ in 0..3 {
        assert_eq!(named("wrong", "203.0.113.5")?, Ok(401));
    }
    assert_eq!(named("right", "203.0.113.5")?, Ok(403), "refused at layer 7");
    assert_eq!(
        named("right", "203.0.113.6")?,
        Ok(200),
        "others behind the proxy are served"
    );
    let blocks = stage.json(&["block", "list"])?;
    assert_eq!(
        blocks["blocks"],
        serde_json::json!([]),
        "no packet of the proxy is dropped"
    );
    assert_eq!(blocks["forwarded"][0]["addr"], "203.0.113.5");
    for _ in 0..5 {
        assert_eq!(
            wire.status(A, URL, BAD)?,
            Ok(401),
            "not even for its own requests"
        );
    }
    assert_eq!(wire.status(A, URL, GOOD)?, Ok(200));
    // A header from anyone else names nobody.
    for _ in 0..3 {
        wire.status(B, URL, &[BAD[0], "X-Forwarded-For: 203.0.113.7"])?
            .ok();
    }
    wait_until("block of B", || Ok(stage.verdict(B)?.0 == "blocked"))?;
    Ok(())
}

#[test]
fn time_limited_denies_end_in_the_kernel_and_prefixes_reach_inside() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    stage.expect(
        0,
        &["deny", "add", "10.77.0.2/31", "--ttl", "3s", "--reason", "short"],
    )?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert!(stage.expect(0, &["explain", A])?.contains("short"));
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    let _other = Origin::start(&stage.wire.gateway, "0.0.0.0:8081")?;
    wait_until("end of the deny", || {
        Ok(stage.wire.status(A, "http://10.77.0.1:8081/", &[])? == Ok(200))
    })?;
    Ok(())
}

#[test]
fn a_source_over_its_syn_limit_is_dropped_and_another_is_not() -> Result<()> {
    let stage = Stage::new(&config("  syn_limit: {rate: 1/m, burst: 3}", "1m", ""))?;
    let _gateway = stage.start()?;
    for _ in 0..3 {
        assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    }
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert!(stage.packets("syn_limit")? > 0);
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    Ok(())
}

#[test]
fn a_bad_configuration_changes_nothing_in_the_kernel() -> Result<()> {
    let stage = Stage::new("listen: [{address: nonsense}]\nroutes: 7\nxpd: {}\n")?;
    let (code, out, err) = command(&stage.wire.gateway, &stage.home, &["run"])?;
    assert_eq!(code, 2, "{out}{err}");
    for fault in ["gateway.yaml:1:", "gateway.yaml:2:", "gateway.yaml:3:", "xdp"] {
        assert!(err.contains(fault), "no {fault} in\n{err}");
    }
    assert!(!stage.home.pins().exists());
    assert_eq!(stage.program_on_wire()?, None);
    Ok(())
}

#[test]
fn a_foreign_program_is_refused_by_name_and_left_alone() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let first = stage.start()?;
    let held = stage.program_on_wire()?;
    // To a gateway with other pins, the first one's program is a foreign one.
    let other = Home::new()?;
    let mut text = config("", "1m", "")
        .replace("8080", "8090")
        .replace("9901", "9902");
    text = text.replace("  - address: '[::]:8090'\n", "");
    other.write(&text)?;
    let (code, out, err) = command(&stage.wire.gateway, &other, &["run"])?;
    assert_eq!(code, 4, "{out}{err}");
    assert!(err.contains("gateway_xdp") && err.contains("gw0"), "{err}");
    assert_eq!(stage.program_on_wire()?, held);
    assert!(!other.pins().exists(), "nothing of the refused gateway is left");
    drop(first);
    Ok(())
}

#[test]
fn detach_leaves_nothing_and_ephemeral_detaches_by_itself() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    stage.expect(1, &["detach"])?;
    assert!(
        stage.program_on_wire()?.is_some(),
        "a running gateway keeps its program"
    );
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    assert!(
        stage.program_on_wire()?.is_some(),
        "stopping does not stop the filter"
    );
    stage.expect(0, &["detach"])?;
    assert_eq!(stage.program_on_wire()?, None);
    assert!(!stage.home.pins().exists());
    // A rule is remembered with nothing attached, and says that nothing enforces it.
    let text = stage.expect(5, &["deny", "add", A])?;
    assert!(text.contains("nothing enforces"), "{text}");

    let gateway = Gateway::start(&stage.wire.gateway, &stage.home, &["--ephemeral"])?;
    assert_eq!(
        stage.wire.status(A, URL, GOOD)?,
        Err(28),
        "the remembered rule is in force"
    );
    assert_eq!(gateway.signal(Signal::INT)?, Some(0));
    assert_eq!(stage.program_on_wire()?, None);
    assert!(!stage.home.pins().exists());
    Ok(())
}

#[test]
fn entries_deleted_behind_the_gateway_s_back_are_shown_as_drift() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    stage.expect(0, &["deny", "add", A])?;
    let table = stage.home.pins().join("v1/DENY_ADDR");
    let mut map = aya::maps::MapData::from_pin(&table).map(aya::maps::Map::HashMap)?;
    let mut map: aya::maps::HashMap<_, gateway_common::addr::Addr, gateway_common::tables::Rule> =
        aya::maps::HashMap::try_from(&mut map)?;
    map.remove(&gateway_common::addr::Addr::from(A.parse::<std::net::IpAddr>()?))?;
    let status = stage.json(&["status"])?;
    let deny = status["lists"]
        .as_array()
        .context("lists")?
        .iter()
        .find(|row| row["list"] == "deny")
        .cloned();
    assert_eq!(
        deny.context("deny")?,
        serde_json::json!({"list": "deny", "desired": 1, "enforced": 0})
    );
    assert!(stage.expect(0, &["status"])?.contains("DIFFER"));
    Ok(())
}

#[test]
fn generic_mode_works_on_the_loopback_device() -> Result<()> {
    let namespace = Namespace::new("lo")?;
    let home = Home::new()?;
    let text = config("", "1m", "")
        .replace("[gw0]", "[lo]")
        .replace("mode: native", "mode: auto");
    home.write(&text)?;
    let _origin = Origin::start(&namespace, "127.0.0.1:9000")?;
    let _gateway = Gateway::start(&namespace, &home, &[])?;
    let curl = |from: &str, key: &str| {
        let mut curl = namespace.command("curl");
        curl.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "1",
            "--noproxy",
            "*",
        ]);
        curl.args([
            "--interface",
            from,
            "-H",
            &format!("X-API-Key: {key}"),
            "http://127.0.0.1:8080/",
        ]);
        finish(&mut curl).map(|(_, out, _)| out)
    };
    for _ in 0..3 {
        assert_eq!(curl("127.0.0.2", "wrong")?, "401");
    }
    wait_until("drop of 127.0.0.2", || Ok(curl("127.0.0.2", "right")? == "000"))?;
    assert_eq!(curl("127.0.0.1", "right")?, "200");
    let (_, status, _) = command(&namespace, &home, &["status"])?;
    assert!(
        status.contains("generic"),
        "the mode it got is reported:\n{status}"
    );
    Ok(())
}

#[test]
fn a_graceful_stop_finishes_the_request_in_flight() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    // An upload in two pieces with the stop in between.
    let mut upload = stage.wire.client.command("sh");
    let script = format!(
        "(printf 12345; sleep 1; printf 67890) | curl -sS -o /dev/null -w '%{{http_code}}' --max-time 8 --noproxy '*' \
         -T - -H 'Content-Length: 10' -H 'Transfer-Encoding:' --interface {A} http://{GATEWAY}:8080/open/slow"
    );
    let uploading = std::thread::spawn(move || finish(upload.args(["-c", &script])));
    wait_until("request", || {
        Ok(stage.origin.seen().iter().any(|line| line.contains("/open/slow")))
    })?;
    let stopped = gateway.signal(Signal::TERM)?;
    let (_, code, err) = uploading.join().expect("no panic")?;
    assert_eq!((code.as_str(), stopped), ("200", Some(0)), "{err}");
    Ok(())
}

#[test]
fn rules_travel_through_export_and_import() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    stage.expect(
        0,
        &[
            "deny",
            "add",
            "203.0.113.0/24",
            "2001:db8::/32",
            "--reason",
            "a list",
        ],
    )?;
    stage.expect(0, &["deny", "add", "198.51.100.7", "--ttl", "1h"])?;
    let exported = stage.expect(0, &["deny", "export"])?;
    let file = stage.home.path().join("list.txt");
    std::fs::write(&file, format!("# saved\n{exported}nonsense\n"))?;
    stage.expect(0, &["deny", "flush"])?;
    assert_eq!(stage.json(&["deny", "list"])?, serde_json::json!([]));
    let file = file.to_str().context("a path")?;
    let text = stage.expect(1, &["deny", "import", file])?;
    assert!(
        text.contains("3 networks added") && text.contains("line 5"),
        "{text}"
    );
    assert_eq!(stage.expect(0, &["deny", "export"])?, exported);
    Ok(())
}

#[test]
fn help_and_usage_errors_have_their_own_codes() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    assert!(stage.expect(0, &["--help"])?.contains("Exit codes"));
    for words in [
        &["nonsense"][..],
        &["deny", "add", "10.0.0.1/8"],
        &["deny", "add", "x"],
        &["deny", "add", A, "--ttl", "10"],
    ] {
        stage.expect(2, words)?;
    }
    Ok(())
}
