//! Starts, stops, deaths and adoptions: what the kernel holds before, during and after.

use super::*;

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
    let text = stage.expect(0, &["deny", "flush"])?;
    assert!(
        text.contains("1 network removed") && text.contains("nothing was in force"),
        "{text}"
    );
    stage.expect(5, &["deny", "add", A])?;

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
fn two_gateways_on_the_same_pins_are_refused_with_the_other_s_name() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let gateway = stage.start()?;
    let program = stage.program_on_wire()?;
    let other = Home::new()?;
    let text = config("", "1m", "")
        .replace("8080", "8090")
        .replace("9901", "9902")
        .replace("{pins}", &stage.home.pins().display().to_string());
    other.write(&text)?;
    let (code, out, err) = command(&stage.wire.gateway, &other, &["run"])?;
    assert_eq!(code, 1, "{out}{err}");
    let pid = format!("process {}", gateway.pid());
    assert!(err.contains("pin_dir") && err.contains(&pid), "{err}");
    // Nor does a command write there behind the first one's back.
    let (code, out, err) = command(&stage.wire.gateway, &other, &["deny", "add", B])?;
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains(&pid), "{err}");
    let (code, out, err) = command(&stage.wire.gateway, &other, &["detach"])?;
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("stop the gateway first") && err.contains(&pid),
        "{err}"
    );
    assert_eq!(stage.program_on_wire()?, program);
    assert_eq!(
        stage.wire.status(A, URL, GOOD)?,
        Err(28),
        "the first's list is untouched"
    );
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    // With the same state directory it is refused before that.
    let err = stage.expect(1, &["run"])?;
    assert!(err.contains("state_dir") && err.contains(&pid), "{err}");
    // When the first has gone, by whatever cause, the second may have the tables.
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    let _second = Gateway::start_probed(&stage.wire.gateway, &other, 9902)?;
    Ok(())
}

#[test]
fn detach_speaks_of_a_running_gateway_only_if_there_is_one() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    let text = stage.expect(1, &["detach"])?;
    assert!(
        text.contains("stop the gateway first") && text.contains(&format!("process {}", gateway.pid())),
        "{text}"
    );
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    let lock = stage.home.path().join("state/lock");
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o000))?;
    let mut powerless = stage.wire.gateway.command("setpriv");
    powerless.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
    powerless.arg(gateway_tests::gateway::binary()?);
    let (code, out, err) = finish(powerless.args(["detach", "--config"]).arg(stage.home.config()))?;
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("Permission denied") && !err.contains("stop the gateway"),
        "{err}"
    );
    Ok(())
}

/// A number behind `name=` in the last line of a log that holds `needle`.
fn number(log: &str, needle: &str, name: &str) -> Result<f64> {
    let line = log
        .lines()
        .rfind(|line| line.contains(needle))
        .context("no such line")?;
    let plain: String = line
        .split('\u{1b}')
        .map(|part| part.split_once('m').map_or(part, |(_, rest)| rest))
        .collect();
    let value = plain
        .split(&format!("{name}="))
        .nth(1)
        .with_context(|| plain.clone())?;
    Ok(value.split_whitespace().next().context("a value")?.parse()?)
}

#[test]
fn a_change_of_mode_is_told_loudly_with_the_time_it_was_open() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.3]", "1m", ""))?;
    let told = "xdp.mode has changed";
    assert_eq!(stage.start()?.signal(Signal::TERM)?, Some(0));
    for (from, to) in [("native", "generic"), ("generic", "native")] {
        let text = config("  deny: [10.77.0.3]", "1m", "").replace("mode: native", &format!("mode: {to}"));
        stage.home.write(&text)?;
        let gateway = stage.start()?;
        gateway.wait_for_log(told)?;
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains(told)).context("the line")?;
        assert!(
            line.contains("WARN") && line.contains("gw0") && line.contains(from) && line.contains(to),
            "{line}"
        );
        let open_ms = number(&log, told, "open_ms")?;
        println!("{from} to {to}: open for {open_ms} ms");
        assert!(open_ms > 0.0 && open_ms < 1_000.0, "{line}");
        let status = stage.expect(0, &["status"])?;
        assert!(status.contains(&format!("gw0 filtered in {to} mode")), "{status}");
        assert_eq!(stage.wire.status(B, URL, GOOD)?, Err(28));
        assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
        // In the same mode nothing is open.
        let gateway = stage.start()?;
        assert!(!gateway.log().contains(told), "{}", gateway.log());
        assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    }
    Ok(())
}

#[test]
fn an_interface_that_refuses_the_new_mode_keeps_the_old_one() -> Result<()> {
    // The loopback device has no native mode.
    let text = config("", "1m", "").replace("[gw0]", "[lo]");
    let stage = Stage::new(&text.replace("mode: native", "mode: generic"))?;
    assert_eq!(stage.start()?.signal(Signal::TERM)?, Some(0));
    stage.home.write(&text)?;
    let (code, out, err) = command(&stage.wire.gateway, &stage.home, &["run"])?;
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("lo") && err.contains("generic mode as before") && (out + &err).contains("open_ms"),
        "{err}"
    );
    let status = stage.expect(0, &["status"])?;
    assert!(status.contains("lo filtered in generic mode"), "{status}");
    Ok(())
}
