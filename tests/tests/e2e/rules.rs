//! Operators' rules, by command and by list: in force at once, for as long as said, and never against the operator.

use std::net::IpAddr;

use gateway::dataplane::{Backend as _, Change, Kernel, List};

use super::*;

#[test]
fn a_deny_of_an_allowed_address_has_no_effect_and_says_so() -> Result<()> {
    let stage = Stage::new(&config("  allow: [10.77.0.2]", "1m", ""))?;
    let _gateway = stage.start()?;
    let text = stage.expect(0, &["deny", "add", A])?;
    assert!(text.contains("no effect"), "{text}");
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    let (outcome, explained) = stage.verdict(A)?;
    assert_eq!(
        (outcome.as_str(), &explained["strikes"]),
        ("allowed", &Value::Null)
    );
    let text = stage.expect(0, &["explain", A])?;
    assert!(
        text.contains("without effect") && !text.contains("strikes"),
        "{text}"
    );
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
fn entries_deleted_behind_the_gateway_s_back_are_shown_as_drift() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    stage.expect(0, &["deny", "add", A])?;
    let mut tables = Kernel::pinned(stage.home.pins())?;
    let removal = Change::Remove {
        list: List::Deny,
        net: A.parse::<IpAddr>()?.into(),
    };
    ensure!(tables.apply(&[removal]).is_empty(), "not removed");
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
    std::fs::write(
        &file,
        format!("\u{feff}# saved\n{exported}nonsense\n203.0.113.0/24\n"),
    )?;
    stage.expect(0, &["deny", "flush"])?;
    assert_eq!(stage.json(&["deny", "list"])?, serde_json::json!([]));
    let file = file.to_str().context("a path")?;
    let text = stage.expect(1, &["deny", "import", file])?;
    assert!(
        text.contains("3 networks added") && text.contains("line 5"),
        "{text}"
    );
    assert!(text.contains("1 line repeats"), "{text}");
    let text = stage.expect(1, &["deny", "import", file])?;
    assert!(text.contains("nothing new, 3 networks there already"), "{text}");
    std::fs::write(file, &exported)?;
    stage.expect(0, &["deny", "import", file])?;
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
        &["deny", "add", A, "--ttl", "0s"],
        &["deny", "import", "-", "--ttl", "0m"],
    ] {
        stage.expect(2, words)?;
    }
    Ok(())
}

/// The name servers of this host, each after a comma: the namespaces share its `resolv.conf`.
fn resolvers() -> Result<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
    Ok(servers.map(|server| format!(", '{}'", server.trim())).collect())
}

#[test]
fn the_default_gateway_and_the_name_servers_are_not_denied_without_force() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let wire = &stage.wire.gateway;
    wire.run(&["ip", "route", "add", "default", "via", B])?;
    wire.run(&["ip", "-6", "route", "add", "default", "via", B6])?;
    let _gateway = stage.start()?;
    for gateway in [B, B6, "10.77.0.2/31"] {
        let text = stage.expect(3, &["deny", "add", gateway])?;
        assert!(text.contains("default gateway on gw0"), "{text}");
    }
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver "));
    if let Some(server) = server.filter(|server| !server.starts_with("127.")) {
        let text = stage.expect(3, &["deny", "add", server.trim()])?;
        assert!(text.contains("name server of this host"), "{text}");
    }
    // Nor blocked, whatever it does.
    for _ in 0..6 {
        assert_eq!(stage.wire.status(B, URL, BAD)?, Ok(401));
    }
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    assert!(stage.expect(0, &["explain", B])?.contains("default gateway"));
    stage.expect(0, &["deny", "add", B, "--force"])?;
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Err(28));
    Ok(())
}

/// A connection from `client` to port 22, held by a process that looks like an SSH server's.
fn ssh(
    stage: &Stage,
    listener: &std::net::TcpListener,
    client: &str,
    title: &str,
) -> Result<(std::net::TcpStream, std::process::Child)> {
    use std::os::unix::process::CommandExt as _;
    let stream = stage.wire.client.connect(client, "10.77.0.1:22")?;
    let (accepted, _) = listener.accept()?;
    let server = stage.home.path().join("sshd");
    if !server.exists() {
        // A process is named after the path it was started by.
        std::os::unix::fs::symlink("/bin/sleep", &server)?;
    }
    let mut server = std::process::Command::new(server);
    server
        .arg0(title)
        .arg("120")
        .stdin(std::os::fd::OwnedFd::from(accepted));
    Ok((stream, server.spawn()?))
}

#[test]
fn a_connection_to_the_ssh_port_protects_nobody_who_has_not_logged_in() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let listener = stage
        .wire
        .gateway
        .within(|| std::net::TcpListener::bind("10.77.0.1:22"))??;
    let (_stranger, mut accepted) = ssh(&stage, &listener, A, "sshd: root [priv]")?;
    let (_operator, mut session) = ssh(&stage, &listener, B, "sshd: root@pts/0")?;
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let outcome = (|| {
        for client in [A, B] {
            for _ in 0..3 {
                assert_eq!(stage.wire.status(client, URL, BAD)?, Ok(401), "{client}");
            }
        }
        wait_until("block of the stranger", || Ok(stage.verdict(A)?.0 == "blocked"))?;
        assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
        let text = stage.expect(3, &["deny", "add", B])?;
        assert!(text.contains("SSH session"), "{text}");
        anyhow::Ok(())
    })();
    for server in [&mut accepted, &mut session] {
        server.kill()?;
        server.wait()?;
    }
    outcome
}

#[test]
fn configured_denies_that_would_cut_off_the_host_are_skipped_with_a_warning() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.1, 10.77.0.3]", "1m", ""))?;
    // Known before the start, too.
    let text = stage.expect(0, &["check"])?;
    assert!(text.contains("deny 10.77.0.1 is NOT enforced"), "{text}");
    let gateway = stage.start()?;
    gateway.wait_for_log("deny 10.77.0.1 is NOT enforced")?;
    let told = |text: &str| text.contains("SKIPPED") && text.contains("own address on gw0");
    let text = stage.expect(0, &["explain", GATEWAY])?;
    assert!(told(&text) && text.contains("passes"), "{text}");
    let text = stage.expect(0, &["deny", "list"])?;
    assert!(told(&text), "{text}");
    assert!(stage.expect(0, &["status"])?.contains("1 skipped, protected"));
    assert_eq!(stage.metric("gateway_denies_skipped")?, 1.0);
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Err(28), "the other is in force");

    // A reload that would deny everybody denies nobody, and says so.
    let list = stage.home.path().join("drop.txt");
    std::fs::write(&list, "0.0.0.0/0\n")?;
    let everybody = format!("  deny: [{{file: {}}}]", list.display());
    stage.home.write(&config(&everybody, "1m", ""))?;
    let text = stage.expect(0, &["reload"])?;
    assert!(
        text.contains("warning: deny 0.0.0.0/0 is NOT enforced") && text.contains("own address"),
        "{text}"
    );
    let warnings = stage.json(&["reload"])?["warnings"].clone();
    assert!(warnings.to_string().contains("NOT enforced"), "{warnings}");
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));

    // With the host itself allowed it is a default-deny firewall, and meant.
    // Its name servers are part of that.
    let resolvers = resolvers()?;
    let meant = format!("{everybody}\n  allow: [10.77.0.0/31, 10.77.0.3{resolvers}]");
    stage.home.write(&config(&meant, "1m", ""))?;
    let text = stage.expect(0, &["reload"])?;
    assert!(!text.contains("NOT enforced"), "{text}");
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    assert_eq!(stage.metric("gateway_denies_skipped")?, 0.0);

    // An address that comes later is safe within seconds.
    let wire = &stage.wire.gateway;
    wire.run(&["ip", "addr", "add", "10.99.0.1/24", "dev", "gw0"])?;
    gateway.wait_for_log("10.99.0.1 is this host's own address on gw0")?;
    assert_eq!(stage.verdict("10.99.0.1")?.0, "clean");
    wire.run(&["ip", "addr", "del", "10.99.0.1/24", "dev", "gw0"])?;
    wait_until("default-deny again", || Ok(stage.verdict(A)?.0 == "denied"))
}

#[test]
fn an_order_that_changes_a_rule_says_what_it_changed() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    stage.expect(0, &["deny", "add", A, "--reason", "noise"])?;
    let text = stage.expect(0, &["deny", "add", A, "--reason", "noise"])?;
    assert!(text.contains("nothing new, 1 network there already"), "{text}");
    let text = stage.expect(0, &["deny", "add", A, "--reason", "noise", "--ttl", "1h"])?;
    assert!(
        text.contains("1 network changed, and in force") && text.contains("ended never, and ends in 1h now"),
        "{text}"
    );
    // One that ends, and is added again before anybody has swept it out, is in force each time.
    for _ in 0..3 {
        stage.expect(0, &["deny", "add", B, "--ttl", "1s"])?;
        assert_eq!(stage.verdict(B)?.0, "denied");
        wait_until("end", || Ok(stage.verdict(B)?.0 == "clean"))?;
    }
    Ok(())
}

#[test]
fn the_operator_s_allow_rule_is_not_taken_away_nor_he_denied_by_a_reload() -> Result<()> {
    let before = config("  deny: [203.0.113.0/24]", "1m", "");
    let stage = Stage::new(&before)?;
    let _gateway = stage.start()?;
    let typed = |words: &[&str]| -> Result<(i32, String)> {
        let mut ssh = stage.wire.gateway.command(gateway_tests::gateway::binary()?);
        ssh.args(words).arg("--config").arg(stage.home.config());
        ssh.env("SSH_CONNECTION", "198.51.100.9 50000 10.77.0.1 22");
        let (code, out, err) = finish(&mut ssh)?;
        Ok((code, out + &err))
    };
    stage.expect(0, &["allow", "add", "198.51.100.9"])?;
    stage.expect(0, &["deny", "add", "198.51.100.0/24"])?;
    for words in [&["allow", "del", "198.51.100.9"][..], &["allow", "flush"]] {
        let (code, text) = typed(words)?;
        assert!(
            code == 3 && text.contains("198.51.100.0/24 would cut you off") && text.contains("--force"),
            "{code}: {text}"
        );
        assert_eq!(stage.verdict("198.51.100.9")?.0, "allowed");
    }
    let (code, text) = typed(&["allow", "del", "198.51.100.9", "--force"])?;
    assert_eq!(code, 0, "{text}");
    stage.expect(0, &["deny", "flush"])?;

    stage
        .home
        .write(&before.replace("203.0.113.0/24", "198.51.100.0/24"))?;
    let (code, text) = typed(&["reload"])?;
    assert!(code == 3 && text.contains("would cut you off"), "{code}: {text}");
    assert_eq!(stage.verdict("198.51.100.9")?.0, "clean");
    assert_eq!(
        stage.verdict("203.0.113.9")?.0,
        "denied",
        "the old one is in force"
    );
    let (code, text) = typed(&["reload", "--force"])?;
    assert_eq!(code, 0, "{text}");
    assert_eq!(stage.verdict("198.51.100.9")?.0, "denied");
    Ok(())
}
