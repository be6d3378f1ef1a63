//! Interfaces that vanish, come back, or are taken over while the gateway runs: told at once, and mended where it can be.

use gateway::dataplane::kernel::Options;
use gateway::dataplane::{Backend as _, Kernel};
use gateway_common::ABI_VERSION;

use super::*;

/// A program that is not this gateway's, in its place on the wire.
struct Foreign {
    kernel: Kernel,
    /// Where it is pinned.
    _home: Home,
}

impl Foreign {
    fn take(stage: &Stage) -> Result<Self> {
        let home = Home::new()?;
        let pin_dir = home.pins().to_owned();
        let kernel = stage.wire.gateway.within(move || -> Result<_> {
            let capacity = gateway::config::defaults::capacity();
            let mut kernel = Kernel::load(&Options { pin_dir, capacity })?;
            kernel.attach("gw0", gateway::config::model::XdpMode::Native)?;
            Ok(kernel)
        })??;
        Ok(Self { kernel, _home: home })
    }
}

/// Both must be told: what is not filtered, and by whom.
fn assert_not_filtered(stage: &Stage, why: &str) -> Result<()> {
    let text = stage.wait_ready("503")?;
    assert!(text.contains("gw0") && text.contains(why), "{text}");
    let status = stage.expect(5, &["status"])?;
    assert!(
        status.contains("NOT FILTERED") && status.contains("gw0 not filtered: ") && status.contains(why),
        "{status}"
    );
    assert!(!status.contains("none mode"), "{status}");
    // The tables hold the list, but nothing looks at them.
    let list = &stage.json_ending(5, &["status"])?["lists"][1];
    assert_eq!(
        (&list["list"], &list["enforced"]),
        (&"deny".into(), &0.into()),
        "{list}"
    );
    assert!(status.contains("0 in force  <- DIFFER"), "{status}");
    assert_eq!(stage.metric("gateway_interface_attached")?, 0.0);
    // A reload does not mend it, and does not sound as if all were well.
    let text = stage.expect(5, &["reload"])?;
    assert!(
        text.contains("NOT FILTERED") && text.contains("gw0") && text.contains(why),
        "{text}"
    );
    // A rule is remembered, and nobody is told that it works.
    let text = stage.expect(5, &["deny", "add", "203.0.113.9"])?;
    assert!(
        text.contains("nothing enforces") && text.contains("gw0") && text.contains(why),
        "{text}"
    );
    let text = stage.expect(0, &["explain", "203.0.113.9"])?;
    assert!(text.contains("passes") && text.contains(why), "{text}");
    assert_eq!(stage.verdict("203.0.113.9")?.1["enforced"], false);
    let text = stage.expect(0, &["deny", "list"])?;
    assert!(text.contains("NO") && text.contains(why), "{text}");
    Ok(())
}

fn assert_filtered(stage: &Stage) -> Result<()> {
    stage.wait_ready("200")?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28), "the list is in force");
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    assert_eq!(stage.metric("gateway_interface_attached")?, 1.0);
    let status = stage.expect(0, &["status"])?;
    assert!(status.contains("gw0 filtered in native mode"), "{status}");
    Ok(())
}

#[test]
fn an_interface_that_vanishes_is_told_and_filtered_again_when_it_is_back() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let gateway = stage.start()?;
    assert_filtered(&stage)?;
    for _ in 0..2 {
        stage.wire.cut()?;
        assert_not_filtered(&stage, "no interface of this name")?;
        stage.wire.join()?;
        assert_filtered(&stage)?;
    }
    let log = gateway.log();
    assert!(log.contains("WARN") && log.contains("NOT FILTERED"), "{log}");
    gateway.wait_for_log("filtered again")
}

#[test]
fn an_interface_that_moves_away_is_told_and_filtered_again_when_it_is_back() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let _gateway = stage.start()?;
    let away = Namespace::new("away")?;
    stage
        .wire
        .gateway
        .run(&["ip", "link", "set", "gw0", "netns", away.name()])?;
    assert_not_filtered(&stage, "no interface of this name")?;
    // A device of the same name in its place is another one.
    away.run(&["ip", "link", "del", "gw0"])?;
    stage.wire.join()?;
    assert_filtered(&stage)
}

#[test]
fn a_renamed_interface_is_found_again_by_its_name() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let _gateway = stage.start()?;
    let wire = &stage.wire.gateway;
    wire.run(&["ip", "link", "set", "gw0", "name", "other"])?;
    assert_not_filtered(&stage, "no interface of this name")?;
    wire.run(&["ip", "link", "set", "other", "name", "gw0"])?;
    assert_filtered(&stage)
}

#[test]
fn a_program_that_was_detached_is_put_back() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let gateway = stage.start()?;
    // The last reference to a link is its pin.
    std::fs::remove_file(stage.home.pins().join(format!("v{ABI_VERSION}/link-gw0")))?;
    gateway.wait_for_log("putting it back")?;
    wait_until("program", || Ok(stage.program_on_wire()?.is_some()))?;
    assert_filtered(&stage)
}

#[test]
fn a_foreign_program_that_took_the_place_is_named_and_left_alone() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let gateway = stage.start()?;
    stage.wire.cut()?;
    stage.wait_ready("503")?;
    // Whoever stops the gateway for a moment is faster than it.
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid())?).context("a process")?;
    rustix::process::kill_process(pid, Signal::STOP)?;
    stage.wire.join()?;
    let foreign = Foreign::take(&stage)?;
    let held = stage.program_on_wire()?;
    rustix::process::kill_process(pid, Signal::CONT)?;
    gateway.wait_for_log("another XDP program")?;
    assert_not_filtered(&stage, "gateway_xdp")?;
    assert_eq!(stage.program_on_wire()?, held, "left alone");
    // When it is gone, the place is taken again.
    foreign.kernel.detach_all()?;
    assert_filtered(&stage)
}

#[test]
fn pins_that_an_operator_removed_are_not_made_again() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let _gateway = stage.start()?;
    std::fs::remove_dir_all(stage.home.pins())?;
    assert_not_filtered(&stage, "removed by hand")?;
    assert_eq!(
        stage.wire.status(A, URL, GOOD)?,
        Ok(200),
        "the emergency exit is open"
    );
    assert_eq!(stage.program_on_wire()?, None);
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_at_the_start_is_waited_for_and_the_others_are_filtered() -> Result<()> {
    let text = config("  deny: [10.77.0.2]", "1m", "").replace("[gw0]", "[gw0, spare0]");
    let stage = Stage::new(&text)?;
    let gateway = stage.start_unready()?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28), "the list is in force");
    let text = stage.wait_ready("503")?;
    assert!(
        text.contains("spare0: there is no interface of this name"),
        "{text}"
    );
    let status = stage.expect(0, &["status"])?;
    assert!(
        status.contains("gw0 filtered") && status.contains("spare0 not filtered: "),
        "{status}"
    );
    let log = gateway.log();
    let loud = |line: &str| line.contains("WARN") && line.contains("NOT FILTERED") && line.contains("spare0");
    assert_eq!(log.lines().filter(|line| loud(line)).count(), 1, "{log}");
    let spare = [
        "ip", "link", "add", "spare0", "type", "veth", "peer", "name", "spare1",
    ];
    stage.wire.gateway.run(&spare)?;
    stage.wait_ready("200")?;
    let status = stage.expect(0, &["status"])?;
    assert!(status.contains("spare0 filtered"), "{status}");
    Ok(())
}

#[test]
fn the_only_interface_is_waited_for_at_the_start() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    stage.wire.cut()?;
    let _gateway = stage.start_unready()?;
    assert_not_filtered(&stage, "no interface of this name")?;
    stage.wire.join()?;
    assert_filtered(&stage)
}

#[test]
fn a_foreign_program_is_refused_though_another_interface_is_not_there() -> Result<()> {
    let text = config("", "1m", "").replace("[gw0]", "[spare0, gw0]");
    let stage = Stage::new(&text)?;
    let foreign = Foreign::take(&stage)?;
    stage.expect(4, &["run"])?;
    foreign.kernel.detach_all()?;
    Ok(())
}

#[test]
fn with_one_interface_of_two_gone_rules_are_in_force_on_the_other_and_the_gap_is_named() -> Result<()> {
    let text = config("", "1m", "").replace("[gw0]", "[gw0, spare0]");
    let stage = Stage::new(&text)?;
    let spare = [
        "ip", "link", "add", "spare0", "type", "veth", "peer", "name", "spare1",
    ];
    stage.wire.gateway.run(&spare)?;
    let _gateway = stage.start()?;
    stage.wire.gateway.run(&["ip", "link", "del", "spare0"])?;
    assert!(stage.wait_ready("503")?.contains("spare0"));
    let text = stage.expect(0, &["deny", "add", A])?;
    assert!(
        text.contains("in force") && text.contains("not filtered: spare0"),
        "{text}"
    );
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    let text = stage.expect(0, &["explain", A])?;
    assert!(text.contains("is dropped") && text.contains("spare0"), "{text}");
    stage.wire.gateway.run(&spare)?;
    stage.wait_ready("200")?;
    Ok(())
}

#[test]
fn an_interface_that_is_no_longer_configured_is_released() -> Result<()> {
    let text = config("", "1m", "").replace("[gw0]", "[gw0, spare0]");
    let stage = Stage::new(&text)?;
    stage.wire.gateway.run(&[
        "ip", "link", "add", "spare0", "type", "veth", "peer", "name", "spare1",
    ])?;
    assert_eq!(stage.start()?.signal(Signal::TERM)?, Some(0));
    let status = stage.expect(0, &["status"])?;
    assert!(status.contains("spare0 filtered"), "{status}");
    stage.home.write(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let status = stage.expect(0, &["status"])?;
    assert!(
        status.contains("gw0 filtered") && !status.contains("spare0"),
        "{status}"
    );
    let out = stage
        .wire
        .gateway
        .run(&["ip", "-j", "-d", "link", "show", "dev", "spare0"])?;
    let links: Value = serde_json::from_slice(&out.stdout)?;
    assert!(links[0]["xdp"]["prog"].is_null(), "{links}");
    Ok(())
}
