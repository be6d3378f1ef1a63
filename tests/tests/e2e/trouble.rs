//! The commands when something is wrong: a half-edited configuration, none at all, a missing right.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use gateway_common::ABI_VERSION;

use super::*;
use gateway_tests::gateway::binary;

/// A good configuration, and the same in the middle of an edit: the lists can not be read, nor what comes after.
fn before_and_during_an_edit() -> (String, String) {
    let whole = config("  allow: [10.77.0.3]\n  deny: [203.0.113.0/24]", "1m", "");
    let half = whole.replace("[10.77.0.3]", "[10.77.0.3");
    (whole, half)
}

/// The gateway's command without any option but `words`.
fn bare(stage: &Stage, words: &[&str]) -> Result<(i32, String, String)> {
    finish(stage.wire.gateway.command(binary()?).args(words))
}

#[test]
fn a_half_edited_configuration_keeps_nobody_from_the_running_gateway() -> Result<()> {
    let (whole, half) = before_and_during_an_edit();
    let stage = Stage::new(&whole)?;
    let _gateway = stage.start()?;
    stage.home.write(&half)?;
    for words in [
        &["status"][..],
        &["explain", A],
        &["deny", "add", A],
        &["deny", "list"],
        &["deny", "del", A],
        &["deny", "export"],
        &["allow", "add", A],
        &["allow", "list"],
        &["allow", "del", A],
        &["block", "list"],
        &["deny", "flush"],
    ] {
        let (code, out, err) = command(&stage.wire.gateway, &stage.home, words)?;
        ensure!(code == 0, "{words:?}: {code}\n{out}{err}");
        let warnings: Vec<&str> = err.lines().collect();
        ensure!(
            matches!(warnings[..], [one] if one.contains("fault") && one.contains("gateway check --config")),
            "{words:?}: {err}"
        );
    }
    // The gateway itself says what is wrong, and that nothing was changed by it.
    let text = stage.expect(2, &["reload"])?;
    assert!(text.contains("gateway.yaml:"), "{text}");
    assert_eq!(
        stage.verdict(B)?.0,
        "allowed",
        "the gateway's own configuration answers"
    );
    let text = stage.expect(1, &["detach"])?;
    assert!(text.contains("stop the gateway first"), "{text}");
    Ok(())
}

#[test]
fn a_half_edited_configuration_undoes_nothing_when_no_gateway_runs() -> Result<()> {
    let (whole, half) = before_and_during_an_edit();
    let stage = Stage::new(&whole.replace("xdp:\n", "xdp:\n  syn_limit: {rate: 7/s, burst: 30}\n"))?;
    let gateway = stage.start()?;
    stage.expect(0, &["deny", "add", "198.51.100.7", "--ttl", "1h"])?;
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    // The worst case: the state directory is not the one that the commands were remembered in.
    let elsewhere = tempfile::tempdir()?;
    let text = half.replace("{state}", &elsewhere.path().display().to_string());
    stage.home.write(&text)?;

    let lists = |stage: &Stage| -> Result<Value> { Ok(stage.json(&["status"])?["lists"].clone()) };
    let before = lists(&stage)?;
    for words in [["deny", "add", A], ["deny", "del", A]] {
        let (code, out, err) = command(&stage.wire.gateway, &stage.home, &words)?;
        ensure!(
            code == 0 && err.lines().count() == 1 && err.contains("--socket PATH"),
            "{words:?}: {code}\n{out}{err}"
        );
    }
    assert_eq!(lists(&stage)?, before);
    assert_eq!(stage.verdict(B)?.0, "allowed");
    assert_eq!(stage.verdict("203.0.113.9")?.0, "denied");
    assert_eq!(stage.verdict("198.51.100.7")?.0, "denied");
    let features = |stage: &Stage| -> Result<u32> {
        let pin = stage.home.pins().join(format!("v{ABI_VERSION}/SETTINGS"));
        let map = aya::maps::Map::Array(aya::maps::MapData::from_pin(pin)?);
        let map: aya::maps::Array<_, gateway_common::tables::Settings> = map.try_into()?;
        let copies = [map.get(&0, 0)?, map.get(&1, 0)?];
        Ok(copies.iter().fold(0, |bits, copy| bits | copy.features))
    };
    assert_ne!(features(&stage)? & gateway_common::tables::feature::SYN_LIMIT, 0);

    // With the tables as they were, one command still takes all of it away.
    stage.expect(0, &["detach"])?;
    assert_eq!(stage.program_on_wire()?, None);
    assert!(!stage.home.pins().exists());
    let text = stage.expect(1, &["reload"])?;
    assert!(
        text.contains("nothing to reload") && text.contains("--socket PATH"),
        "{text}"
    );
    Ok(())
}

#[test]
fn with_its_socket_a_gateway_is_reached_without_any_configuration() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let socket = stage.home.path().join("admin.sock");
    let socket = socket.to_str().context("a path")?;
    std::fs::remove_file(stage.home.config())?;
    let nowhere = stage.home.config();
    let nowhere = nowhere.to_str().context("a path")?;

    for words in [
        &["status"][..],
        &["explain", A],
        &["deny", "list"],
        &["deny", "add", A],
    ] {
        let (code, out, err) = bare(&stage, &[words, &["--socket", socket]].concat())?;
        ensure!(code == 0 && err.is_empty(), "{words:?}: {code}\n{out}{err}");
        // A name that leads nowhere is more likely wrong than meant, unless nothing depends on it.
        assert_eq!(
            bare(&stage, &[words, &["--config", nowhere]].concat())?.0,
            2,
            "{words:?}"
        );
        assert_eq!(
            bare(
                &stage,
                &[words, &["--config", nowhere, "--socket", socket]].concat()
            )?
            .0,
            0,
            "{words:?}"
        );
    }
    let (code, _, err) = bare(&stage, &["detach", "--socket", socket])?;
    assert!(code == 1 && err.contains("stop the gateway first"), "{err}");
    let (code, _, err) = bare(&stage, &["status", "--socket", "/nowhere/admin.sock"])?;
    assert!(
        code == 1 && err.contains("no gateway answers on /nowhere/admin.sock"),
        "{err}"
    );
    Ok(())
}

#[test]
fn what_explain_advises_reaches_the_same_gateway() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    for _ in 0..3 {
        stage.wire.status(A, URL, BAD)?.ok();
    }
    wait_until("block", || Ok(stage.verdict(A)?.0 == "blocked"))?;
    let text = stage.expect(0, &["explain", A])?;
    let advice = text.lines().last().and_then(|line| line.split_once(": gateway "));
    let words: Vec<&str> = advice.context("an advice")?.1.split(' ').collect();
    let (code, out, err) = bare(&stage, &words)?;
    ensure!(code == 0, "{words:?}: {out}{err}");
    assert_eq!(stage.verdict(A)?.0, "clean");
    Ok(())
}

/// A copy of the binary and a directory that everyone can reach: the build may lie where only its owner can.
fn open_to_all(stage: &Stage) -> Result<String> {
    let copy = stage.home.path().join("gateway");
    std::fs::copy(binary()?, &copy)?;
    for path in [stage.home.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy.to_str().context("a path")?.to_owned())
}

#[test]
fn without_rights_each_command_says_once_what_is_missing() -> Result<()> {
    const VERBS: &[&[&str]] = &[
        &["status"],
        &["explain", A],
        &["deny", "add", A],
        &["deny", "del", A],
        &["deny", "list"],
        &["deny", "export"],
        &["deny", "flush"],
        &["allow", "add", A],
        &["allow", "del", A],
        &["allow", "list"],
        &["block", "list"],
        &["block", "del", A],
        &["watch"],
        &["detach"],
        &["run"],
    ];
    let stage = Stage::new(&config("", "1m", ""))?;
    let copy = open_to_all(&stage)?;
    let nobody = |words: &[&str]| -> Result<(i32, String, String)> {
        let mut setpriv: Command = stage.wire.gateway.command("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        finish(
            setpriv
                .arg(&copy)
                .args(words)
                .arg("--config")
                .arg(stage.home.config()),
        )
    };
    let refused = |words: &[&str]| -> Result<()> {
        let (code, out, err) = nobody(words)?;
        ensure!(
            code == 1
                && out.is_empty()
                && err.lines().count() == 1
                && err.matches("ermission").count() + err.matches("not permitted").count() == 1
                && err.contains("needs root")
                && err.contains("try sudo"),
            "{words:?}: {code}\n{out}{err}"
        );
        Ok(())
    };
    let gateway = stage.start()?;
    assert_eq!(nobody(&["check"])?.0, 0);
    VERBS.iter().try_for_each(|words| refused(words))?;
    refused(&["reload"])?;
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    VERBS.iter().try_for_each(|words| refused(words))?;
    stage.expect(0, &["detach"])?;
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_a_warning_of_check() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let text = stage.expect(0, &["check"])?;
    assert!(!text.contains("warning"), "{text}");
    stage
        .home
        .write(&config("", "1m", "").replace("[gw0]", "[gw0, gw7]"))?;
    let text = stage.expect(0, &["check"])?;
    assert!(
        text.contains("warning") && text.contains("no interface gw7"),
        "{text}"
    );
    Ok(())
}

#[test]
fn damaged_rules_keep_nobody_from_looking() -> Result<()> {
    let stage = Stage::new(&config("  deny: [203.0.113.0/24]", "1m", ""))?;
    let gateway = stage.start()?;
    stage.expect(0, &["deny", "add", "198.51.100.7"])?;
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    let rules = stage.home.path().join("state/rules.txt");
    let text = std::fs::read_to_string(&rules)?;
    std::fs::write(&rules, text.replace("198.51.100.7", "198.51.100.8"))?;

    // The tables go on, and are shown; the exit code says that not all is well.
    let text = stage.expect(1, &["status"])?;
    assert!(
        text.contains("STATE: ")
            && text.contains("is damaged")
            && text.contains("2 desired         2 in force"),
        "{text}"
    );
    let (code, out, err) = command(&stage.wire.gateway, &stage.home, &["status", "--json"])?;
    let status: Value = serde_json::from_str(&out).with_context(|| format!("{code}: {out}{err}"))?;
    assert!(
        status["fault"]
            .as_str()
            .is_some_and(|fault| fault.contains("rules.txt")),
        "{status}"
    );
    for question in [&["deny", "list"][..], &["explain", "198.51.100.7"]] {
        let text = stage.expect(1, question)?;
        assert!(
            text.contains("198.51.100.7") && text.contains("warning"),
            "{text}"
        );
    }
    let explained = stage.json_ending(1, &["explain", "198.51.100.7"])?;
    assert_eq!(explained["outcome"], "denied", "{explained}");
    // What would write over it is refused, and leaves it as it is.
    let damaged = std::fs::read(&rules)?;
    let text = stage.expect(1, &["deny", "add", "198.51.100.9"])?;
    assert!(
        text.contains("is damaged") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(std::fs::read(&rules)?, damaged);
    Ok(())
}

/// What the unit says is run as it stands there: `systemctl reload` has its exit code.
#[test]
fn the_unit_s_reload_fails_with_a_faulty_file() -> Result<()> {
    let (whole, half) = before_and_during_an_edit();
    let stage = Stage::new(&whole)?;
    let _gateway = stage.start()?;
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/systemd/gateway.service");
    let unit = std::fs::read_to_string(unit)?;
    let order = unit.lines().find_map(|line| line.strip_prefix("ExecReload="));
    let order = order.context("an ExecReload")?;
    let words: Vec<&str> = order.split(' ').collect();
    let [
        "/usr/local/bin/gateway",
        verb,
        "--config",
        "/etc/gateway/gateway.yaml",
    ] = words[..]
    else {
        anyhow::bail!("{order}");
    };
    stage.expect(0, &[verb])?;
    stage.home.write(&half)?;
    let text = stage.expect(2, &[verb])?;
    assert!(text.contains("gateway.yaml:"), "{text}");
    Ok(())
}

#[test]
fn commands_without_a_gateway_wait_for_each_other() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    for pinned in [false, true] {
        if pinned {
            assert_eq!(stage.start()?.signal(Signal::TERM)?, Some(0));
        }
        let nets: Vec<String> = (0..6).map(|n| format!("198.51.100.{n}")).collect();
        let ends: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = nets
                .iter()
                .map(|net| {
                    let stage = &stage;
                    scope.spawn(move || command(&stage.wire.gateway, &stage.home, &["deny", "add", net]))
                })
                .collect();
            all.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        for end in ends {
            let (code, out, err) = end?;
            assert_eq!(code, if pinned { 0 } else { 5 }, "{out}{err}");
        }
        assert_eq!(stage.expect(0, &["deny", "export"])?.lines().count(), nets.len());
        stage.expect(0, &["deny", "flush"])?;
    }
    // Who stays is named for what it is: here a process that is no gateway.
    let lock = stage.home.path().join("state/lock");
    let mut holder = stage.wire.gateway.command("flock");
    let mut holder = holder.arg(&lock).args(["sleep", "60"]).spawn()?;
    wait_until("hold on the lock", || {
        Ok(!std::process::Command::new("flock")
            .arg("-n")
            .arg(&lock)
            .arg("true")
            .status()?
            .success())
    })?;
    let text = stage.expect(1, &["deny", "add", A])?;
    holder.kill()?;
    holder.wait()?;
    assert!(
        text.contains("another command") && text.contains("sleep 60") && !text.contains("a gateway"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_gateway_that_is_stopped_by_a_signal_keeps_no_command_for_ever() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    gateway.tell(Signal::STOP)?;
    let list = stage.home.path().join("long.txt");
    let text: String = (0..200_000_u32)
        .map(|n| format!("{}\n", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n * 2)))
        .collect();
    std::fs::write(&list, text)?;
    let list = list.display().to_string();
    let cont = format!("kill -CONT {}", gateway.pid());
    for words in [
        &["status"][..],
        &["deny", "add", A],
        &["deny", "import", &list],
        &["watch", "--count", "1"],
    ] {
        let began = std::time::Instant::now();
        let text = stage.expect(1, &[words, &["--timeout", "1s"]].concat())?;
        assert!(
            text.contains("silent for 1s") && text.contains(&cont),
            "{words:?}: {text}"
        );
        assert!(began.elapsed().as_secs() < 10, "{words:?}");
    }
    gateway.tell(Signal::CONT)?;
    stage.expect(0, &["status"])?;
    // A long job is waited for, however short the patience: it gives signs of life.
    stage.expect(0, &["deny", "import", &list, "--timeout", "3s"])?;
    Ok(())
}

#[test]
fn where_nothing_is_attached_status_says_so_and_what_should_be() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    stage.expect(5, &["deny", "add", A, B])?;
    let text = stage.expect(5, &["status"])?;
    for part in [
        "NOT FILTERED",
        "no gateway is attached",
        "gw0 not filtered: nothing is pinned under",
        "2 desired         0 in force",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let text = stage.expect(5, &["verify"])?;
    assert!(text.contains("NOT FILTERED"), "{text}");
    Ok(())
}

#[test]
fn an_order_that_was_given_up_is_not_done_later() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid())?).context("a process")?;
    rustix::process::kill_process(pid, Signal::STOP)?;
    let text = stage.expect(1, &["deny", "add", A, "--timeout", "300ms"])?;
    assert!(
        text.contains("has been silent") && text.contains("may have been done"),
        "{text}"
    );
    let text = stage.expect(1, &["status", "--timeout", "300ms"])?;
    assert!(!text.contains("may have been done"), "{text}");
    rustix::process::kill_process(pid, Signal::CONT)?;
    // It takes connections in their order.
    stage.expect(0, &["deny", "add", B])?;
    assert_eq!(stage.expect(0, &["deny", "export"])?, format!("{B}/32\n"));
    gateway.wait_for_log("an order was not begun")
}
