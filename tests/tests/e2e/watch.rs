//! Drops told of as they happen, and reasons that are only observed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use gateway::dataplane::{Backend as _, Kernel};
use gateway_common::tables::feature;
use gateway_tests::gateway::binary;

use super::*;

/// A `gateway watch` that runs. Killed when dropped.
struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    fn start(stage: &Stage, words: &[&str]) -> Result<Self> {
        let mut command = stage.wire.gateway.command(binary()?);
        command.arg("watch").args(words);
        command.arg("--config").arg(stage.home.config());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().context("piped")?),
            Box::new(child.stderr.take().context("piped")?),
        ];
        for out in out {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    lines.lock().expect("no writer panics").push(line);
                }
            });
        }
        Ok(Self { child, lines })
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no writer panics").clone()
    }

    /// Waits for a line beyond the first `known` and reads it.
    fn drop_after(&self, known: usize) -> Result<Value> {
        wait_until("drop told of", || Ok(self.lines().len() > known))?;
        let line = self.lines().swap_remove(known);
        serde_json::from_str(&line).with_context(|| line)
    }

    fn signal(&mut self, signal: Signal) -> Result<Option<i32>> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)?;
        self.ended()
    }

    fn ended(&mut self) -> Result<Option<i32>> {
        let mut status = None;
        wait_until("end of the watch", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })
        .with_context(|| format!("{:?}", self.lines()))?;
        Ok(status.and_then(|status| status.code()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the program writes events now.
fn events(stage: &Stage) -> Result<bool> {
    let settings = Kernel::pinned(stage.home.pins())?.settings()?;
    Ok(settings.features & feature::EVENTS != 0)
}

fn wait_events(stage: &Stage, on: bool) -> Result<()> {
    wait_until(&format!("events {on}"), || Ok(events(stage)? == on))
}

/// One SYN, or two, that are not waited for.
fn knock(stage: &Stage, from: &str) -> Result<()> {
    let (code, _) = stage.wire.curl(from, &["--max-time", "0.2", URL])?;
    ensure!(code == 28, "{from} was answered, with {code}");
    Ok(())
}

#[test]
fn watchers_are_told_of_a_denied_syn_and_without_them_no_event_is_written() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let _gateway = stage.start()?;
    assert!(!events(&stage)?);
    let mut all = Watch::start(&stage, &["--json"])?;
    let mut blocked = Watch::start(&stage, &["--json", "--reason", "blocked"])?;
    let mut other = Watch::start(&stage, &["--json", "--source", B])?;
    wait_events(&stage, true)?;
    let before = stage.packets("denied")?;
    let seen = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    // The first of the three has turned events on; the one that is asked may not be there yet.
    wait_until("a drop told of", || {
        knock(&stage, A)?;
        Ok(!all.lines().is_empty())
    })?;
    let told = all.drop_after(0)?;
    let words = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        ["verdict", "reason", "source", "protocol", "interface"].map(words),
        ["drop", "denied", A, "tcp", "gw0"]
    );
    assert_eq!(told["port"], 8080);
    assert!(told["length"].as_u64() >= Some(54), "{told}");
    let late = told["time_ms"]
        .as_u64()
        .map(|ms| ms.abs_diff(seen.as_millis() as u64));
    assert!(late < Some(20_000), "{told}");
    assert!(stage.packets("denied")? > before, "the counters have it besides");

    // A reconcile and a reload leave the watch alone, and clean traffic is not told of.
    stage.expect(0, &["deny", "add", "203.0.113.9"])?;
    stage.expect(0, &["reload"])?;
    assert!(events(&stage)?);
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    let known = all.lines().len();
    knock(&stage, A)?;
    assert_eq!(all.drop_after(known)?["source"], A);
    let nothing: [Vec<String>; 2] = [blocked.lines(), other.lines()];
    assert_eq!(nothing, [Vec::<String>::new(), Vec::new()]);

    // The last one turns it off, however each of them ends.
    assert_eq!(blocked.signal(Signal::INT)?, Some(0));
    assert_eq!(other.signal(Signal::TERM)?, Some(0));
    assert!(events(&stage)?);
    assert_eq!(all.signal(Signal::KILL)?, None);
    wait_events(&stage, false)?;

    // One drop for people; and who is dropped most.
    let mut one = Watch::start(&stage, &["--count", "1", "--duration", "20s"])?;
    let mut top = Watch::start(&stage, &["--top", "3", "--json", "--duration", "1500ms"])?;
    wait_events(&stage, true)?;
    wait_until("the watch's first words", || Ok(!one.lines().is_empty()))?;
    wait_until("drops told of", || {
        knock(&stage, A)?;
        Ok(top.child.try_wait()?.is_some())
    })?;
    assert_eq!((one.ended()?, top.ended()?), (Some(0), Some(0)));
    let text = one.lines().join("\n");
    assert!(
        text.contains("a sample") && text.contains("tcp port 8080"),
        "{text}"
    );
    let tables: Vec<Value> = top
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    let last = tables.last().context("a table")?;
    assert_eq!(last["sample"], true);
    assert_eq!(
        (&last["top"][0]["source"], &last["top"][0]["reason"]),
        (&A.into(), &"denied".into())
    );
    assert_eq!(last["top"][0]["in_all"], last["sampled_in_all"]);
    wait_events(&stage, false)?;

    // A misspelt reason is told with those that there are.
    let text = stage.expect(2, &["watch", "--reason", "denyed"])?;
    assert!(text.contains("syn_aggregate_limit"), "{text}");
    Ok(())
}

#[test]
fn watching_ends_with_the_gateway_and_goes_on_without_one() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let gateway = stage.start()?;
    let mut watch = Watch::start(&stage, &["--json"])?;
    wait_events(&stage, true)?;
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    assert!(!events(&stage)?, "a gateway that stops turns it off");
    assert_eq!(watch.ended()?, Some(1));
    assert!(
        watch.lines().join("\n").contains("has stopped"),
        "{:?}",
        watch.lines()
    );

    // A gateway that dies can not; the next one does at its start.
    let gateway = stage.start()?;
    let mut watch = Watch::start(&stage, &["--json"])?;
    wait_events(&stage, true)?;
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    assert_eq!(watch.ended()?, Some(1));
    assert!(events(&stage)?);
    let gateway = stage.start()?;
    assert!(!events(&stage)?);
    ensure!(gateway.signal(Signal::KILL)?.is_none());

    // Without one, straight from the ring: one process at a time, and other commands work beside it.
    let mut watch = Watch::start(&stage, &["--json"])?;
    wait_events(&stage, true)?;
    knock(&stage, A)?;
    assert_eq!(watch.drop_after(0)?["reason"], "denied");
    let text = stage.expect(1, &["watch", "--json"])?;
    assert!(text.contains("another `gateway watch`"), "{text}");
    stage.expect(0, &["deny", "add", "203.0.113.9"])?;
    wait_events(&stage, true)?;
    // The watch may still hold the tables, as any command does while it writes.
    std::thread::sleep(std::time::Duration::from_millis(300));
    // A gateway that starts takes over, and the watch goes on through it.
    let gateway = stage.start()?;
    let known = watch.lines().len();
    wait_until("a drop told of by the gateway", || {
        knock(&stage, A)?;
        Ok(watch.lines().len() > known && events(&stage)?)
    })?;
    assert_eq!(watch.signal(Signal::INT)?, Some(0));
    wait_events(&stage, false)?;

    drop(gateway);
    let mut watch = Watch::start(&stage, &["--duration", "100ms"])?;
    assert_eq!(watch.ended()?, Some(0));
    assert!(!events(&stage)?);
    stage.expect(0, &["detach"])?;
    let text = stage.expect(1, &["watch"])?;
    assert!(text.contains("nothing is pinned"), "{text}");
    Ok(())
}

#[test]
fn what_is_observed_passes_and_is_counted_and_everyone_says_so() -> Result<()> {
    let observing = "  deny: [10.77.0.2]\n  observe: [deny, blocks]\n  log_drops_every: 1ms";
    let whole = config(observing, "1m", "trusted_proxies: ['fd77::2']\n");
    let stage = Stage::new(&whole)?;
    let gateway = stage.start()?;
    gateway.wait_for_log("OBSERVING: deny, blocks (counted, nothing dropped)")?;
    let wire = &stage.wire;
    let watch = Watch::start(&stage, &["--json"])?;
    wait_events(&stage, true)?;

    // Denied: served, counted, told of.
    assert_eq!(wire.status(A, URL, GOOD)?, Ok(200));
    let told = watch.drop_after(0)?;
    assert_eq!(
        (&told["verdict"], &told["reason"]),
        (&"observed".into(), &"denied".into())
    );
    drop(watch);
    gateway.wait_for_log("observed reason=denied source=10.77.0.2 ")?;
    assert!(!gateway.log().contains("drop reason="), "{}", gateway.log());
    let status = stage.json(&["status"])?;
    assert_eq!(status["observing"], serde_json::json!(["deny", "blocks"]));
    let rows = status["counters"].as_array().context("counters")?;
    let count = |verdict: &str| {
        let row = rows
            .iter()
            .find(|row| row["verdict"] == verdict && row["reason"] == "denied");
        row.and_then(|row| row["packets"].as_u64())
    };
    assert!(
        count("observed") > Some(0) && count("drop") == Some(0),
        "{rows:?}"
    );
    let text = stage.expect(0, &["status"])?;
    assert!(
        text.contains("OBSERVING: deny, blocks (counted, nothing dropped)"),
        "{text}"
    );
    let text = stage.expect(0, &["deny", "list"])?;
    assert!(
        text.starts_with("OBSERVING: deny ") && text.contains("observed"),
        "{text}"
    );
    let text = stage.expect(0, &["deny", "add", "203.0.113.9"])?;
    assert!(text.contains("nothing is dropped"), "{text}");
    let (outcome, explained) = stage.verdict(A)?;
    assert_eq!(
        (outcome.as_str(), &explained["verdict"]),
        ("clean", &"pass".into())
    );
    assert_eq!(explained["observed"], "denied");
    let text = stage.expect(0, &["explain", A])?;
    assert!(
        text.contains("only observed") && text.contains("would be dropped as denied"),
        "{text}"
    );
    let metrics = wire
        .gateway
        .run(&["curl", "-sf", "--noproxy", "*", "http://127.0.0.1:9901/metrics"])?;
    let metrics = String::from_utf8(metrics.stdout)?;
    let line = r#"gateway_packets_total{verdict="observed",reason="denied"} "#;
    let value = metrics.lines().find_map(|metric| metric.strip_prefix(line));
    assert!(value.is_some_and(|value| value != "0"), "{metrics}");
    assert!(
        metrics.contains(r#"gateway_observing{what="blocks"} 1"#),
        "{metrics}"
    );
    assert_eq!(stage.ready()?.0, "200");

    // Blocked: nothing is done to the client, on connections that are open or new.
    let open = wire.client.connect(B, &format!("{GATEWAY}:8080"))?;
    wait_until("connection", || Ok(stage.metric("gateway_connections")? >= 1.0))?;
    for _ in 0..3 {
        assert_eq!(wire.status(B, URL, BAD)?, Ok(401));
    }
    gateway.wait_for_log("would be blocked, but blocks are only observed")?;
    wait_until("the block of B", || {
        Ok(stage.verdict(B)?.1["observed"] == "blocked")
    })?;
    assert_eq!(wire.status(B, URL, GOOD)?, Ok(200));
    assert!(
        stage.metric("gateway_connections")? >= 1.0,
        "the open one was not closed"
    );
    assert!(!gateway.log().contains("connections_closed"), "{}", gateway.log());
    let text = stage.expect(0, &["block", "list"])?;
    assert!(text.starts_with("OBSERVING: blocks "), "{text}");
    // A client that a proxy names is not refused either.
    let url = format!("http://[{GATEWAY6}]:8080/");
    let named = |key: &'static str| wire.status(A6, &url, &[key, "X-Forwarded-For: 203.0.113.5"]);
    for _ in 0..3 {
        assert_eq!(named(BAD[0])?, Ok(401));
    }
    assert_eq!(named(GOOD[0])?, Ok(200));
    gateway.wait_for_log("would be refused at layer 7")?;
    let explained = stage.json(&["explain", "203.0.113.5"])?;
    assert_eq!(explained["refused_when_forwarded"], false);
    drop(open);

    // Enforced from the next reload on, all of it.
    stage
        .home
        .write(&whole.replace("observe: [deny, blocks]", "observe: []"))?;
    stage.expect(0, &["reload"])?;
    knock(&stage, A)?;
    knock(&stage, B)?;
    assert_eq!(named(GOOD[0])?, Ok(403));
    assert_eq!(stage.json(&["status"])?["observing"], serde_json::json!([]));
    stage.home.write(&whole)?;
    let text = stage.expect(0, &["reload"])?;
    assert!(text.contains("observed"), "{text}");
    let loud = || gateway.log().matches("OBSERVING: ").count();
    wait_until("the second warning", || Ok(loud() == 2))?;
    Ok(())
}
