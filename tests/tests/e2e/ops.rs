//! What operators do in trouble: bypass, verify, denies on probation. Each with a gateway, without one, and across
//! its death.

use std::net::IpAddr;

use gateway::dataplane::{Backend as _, Change, Kernel, List};

use super::*;

const PLAIN: &str = "http://10.77.0.1:8081/";

#[test]
fn a_bypass_passes_everything_loudly_and_ends_without_a_gateway() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.3]", "1m", ""))?;
    let _other = Origin::start(&stage.wire.gateway, "0.0.0.0:8081")?;
    // There is nothing to bypass yet, and no bypass without end or reason.
    stage.expect(1, &["bypass", "on", "--for", "1m", "--reason", "x"])?;
    for words in [
        &["bypass", "on", "--reason", "x"][..],
        &["bypass", "on", "--for", "1m"],
        &["bypass", "on", "--for", "25h", "--reason", "x"],
        &["bypass", "on", "--for", "0s", "--reason", "x"],
    ] {
        stage.expect(2, words)?;
    }
    let gateway = stage.start()?;
    let wire = &stage.wire;
    assert_eq!(wire.status(B, PLAIN, &[])?, Err(28));
    assert_eq!(stage.metric("gateway_bypass_left_seconds")?, 0.0);

    let text = stage.expect(0, &["bypass", "on", "--for", "10m", "--reason", "is it us?"])?;
    assert!(text.contains("BYPASS") && text.contains("is it us?"), "{text}");
    assert_eq!(wire.status(B, PLAIN, &[])?, Ok(200));
    for words in [
        &["status"][..],
        &["explain", B],
        &["bypass", "status"],
        &["verify"],
    ] {
        let text = stage.expect(0, words)?;
        assert!(
            text.contains("BYPASS") && text.contains("is it us?"),
            "{words:?}: {text}"
        );
    }
    assert_eq!(stage.verdict(B)?.0, "bypass");
    assert!(stage.packets("bypass")? > 0);
    assert!(stage.metric("gateway_bypass_left_seconds")? > 500.0);
    let (status, text) = stage.ready()?;
    assert!(
        status == "200" && text.contains("BYPASS") && text.contains("is it us?"),
        "{status} {text}"
    );
    gateway.wait_for_log("BYPASS: every packet passes")?;

    // It survives a reload, and the gateway's death; then the next one takes it over.
    stage
        .home
        .write(&config("  deny: [10.77.0.3, 198.51.100.1]", "1m", ""))?;
    stage.expect(0, &["reload"])?;
    assert_eq!(wire.status(B, PLAIN, &[])?, Ok(200));
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    assert_eq!(wire.status(B, PLAIN, &[])?, Ok(200));
    assert!(stage.expect(0, &["status"])?.contains("is it us?"));
    let gateway = stage.start()?;
    gateway.wait_for_log("is it us?")?;
    assert_eq!(wire.status(B, PLAIN, &[])?, Ok(200));
    let text = stage.expect(0, &["bypass", "off"])?;
    assert!(text.contains("filtered again"), "{text}");
    assert_eq!(wire.status(B, PLAIN, &[])?, Err(28));
    gateway.wait_for_log("bypass off, by command")?;
    assert_eq!(stage.ready()?.1, "ready");

    // Its end is the kernel's: the gateway is dead by then.
    stage.expect(0, &["bypass", "on", "--for", "3s", "--reason", "short"])?;
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    assert_eq!(wire.status(B, PLAIN, &[])?, Ok(200));
    wait_until("end of the bypass", || Ok(wire.status(B, PLAIN, &[])? == Err(28)))?;

    // Without a gateway the commands work on the pinned tables.
    stage.expect(0, &["bypass", "on", "--for", "10m", "--reason", "nobody is here"])?;
    assert_eq!(wire.status(B, PLAIN, &[])?, Ok(200));
    assert!(stage.expect(0, &["bypass", "status"])?.contains("nobody is here"));
    stage.expect(0, &["bypass", "off"])?;
    assert_eq!(wire.status(B, PLAIN, &[])?, Err(28));
    Ok(())
}

#[test]
fn verify_finds_and_repairs_what_was_done_behind_the_gateway_s_back() -> Result<()> {
    let stage = Stage::new(&config("  deny: [203.0.113.0/24]", "1m", ""))?;
    stage.expect(5, &["verify"])?;
    let gateway = stage.start()?;
    stage.expect(0, &["deny", "add", A])?;
    let text = stage.expect(0, &["verify"])?;
    assert!(text.contains("no drift") && text.contains("2 entries"), "{text}");

    let tamper = || -> Result<()> {
        let mut tables = Kernel::pinned(stage.home.pins())?;
        let removal = |net| Change::Remove {
            list: List::Deny,
            net,
        };
        let failures = tables.apply(&[
            removal(A.parse::<IpAddr>()?.into()),
            removal("203.0.113.0/24".parse()?),
        ]);
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    };
    tamper()?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    let text = stage.expect(1, &["verify"])?;
    assert!(
        text.contains("2 found, 2 repaired") && text.contains("deny 10.77.0.2 was not in the kernel"),
        "{text}"
    );
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    stage.expect(0, &["verify"])?;
    assert_eq!(stage.metric("gateway_drift_repaired_total")?, 2.0);
    // The same on the tables alone, in the form for programs.
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    tamper()?;
    let (code, out, _) = command(&stage.wire.gateway, &stage.home, &["verify", "--json"])?;
    let verified: Value = serde_json::from_str(&out)?;
    assert_eq!(
        (code, &verified["drift"], &verified["repaired"]),
        (1, &2.into(), &2.into())
    );
    assert_eq!(verified["differences"][0]["kind"], "missing");
    stage.expect(0, &["verify"])?;
    Ok(())
}

#[test]
fn an_unconfirmed_deny_ends_by_itself_after_sigkill_and_a_confirmed_one_stays() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _other = Origin::start(&stage.wire.gateway, "0.0.0.0:8081")?;
    let wire = &stage.wire;
    let gateway = stage.start()?;
    stage.expect(2, &["allow", "add", A, "--confirm", "9s"])?;
    stage.expect(2, &["deny", "add", A, "--confirm", "9s", "--ttl", "5s"])?;
    stage.expect(1, &["deny", "confirm"])?;
    let text = stage.expect(
        0,
        &["deny", "add", A, B, "--confirm", "6s", "--reason", "on trial"],
    )?;
    assert!(
        text.contains("undone in 6s") && text.contains("gateway deny confirm"),
        "{text}"
    );
    assert!(stage.expect(0, &["deny", "list"])?.contains("UNCONFIRMED"));
    for client in [A, B] {
        assert_eq!(wire.status(client, PLAIN, &[])?, Err(28), "{client}");
    }
    stage.expect(0, &["deny", "confirm", B])?;
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    wait_until("end of the deny that was not confirmed", || {
        Ok(wire.status(A, PLAIN, &[])? == Ok(200))
    })?;
    assert_eq!(wire.status(B, PLAIN, &[])?, Err(28), "this one was confirmed");
    // Nor does it come back, and without a gateway the same commands work.
    let gateway = stage.start()?;
    assert_eq!(wire.status(A, PLAIN, &[])?, Ok(200));
    assert_eq!(wire.status(B, PLAIN, &[])?, Err(28));
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    stage.expect(0, &["deny", "add", A, "--confirm", "1m"])?;
    let text = stage.expect(0, &["deny", "confirm"])?;
    assert!(text.contains("deny 10.77.0.2 is confirmed"), "{text}");
    let list = stage.expect(0, &["deny", "list"])?;
    assert!(!list.contains("UNCONFIRMED") && list.contains("no end"), "{list}");
    Ok(())
}
