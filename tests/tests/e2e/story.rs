//! Misbehaviour at layer 7 and floods end in the kernel, for those who misbehave and for nobody else.

use super::*;

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
    let open = wire.client.connect(A, &format!("{GATEWAY}:8080"))?;
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
