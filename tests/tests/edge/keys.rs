//! Keys of callers: made and revoked by the command line while the gateway runs, and what it logs of them.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gateway_tests::gateway::wait_until;
use gateway_tests::l7::{Client, Upstream};

use super::Stage;

#[test]
fn keys_come_and_go_while_the_gateway_runs() -> Result<()> {
    let stage = Stage::new()?;
    let upstream = Upstream::text("in");
    let file = stage.file("keys.yaml");
    let shown = file.display().to_string();
    let new = |name: &str| -> Result<String> {
        let made = stage.expect(
            0,
            &[
                "key", "new", name, "--file", &shown, "--scope", "read", "--ttl", "1d", "--label", "team=a b",
            ],
        )?;
        Ok(made.trim().to_owned())
    };
    let first = new("first")?;
    // Nobody could ever show what nobody has seen.
    let unseen = std::process::Command::new(gateway_tests::gateway::binary()?)
        .args(["key", "new", "unseen", "--file", &shown])
        .stdout(std::fs::File::create("/dev/full")?)
        .stderr(std::process::Stdio::piped())
        .output()?;
    let said = String::from_utf8(unseen.stderr)?;
    ensure!(
        unseen.status.code() == Some(1) && said.contains("taken back"),
        "{said}"
    );
    let left = stage.expect(0, &["key", "list", "--file", &shown])?;
    ensure!(left.contains("first") && !left.contains("unseen"), "{left}");
    for end in [
        ["--ttl", "0s"],
        ["--ttl", "0"],
        ["--expires", "2020-01-01T00:00:00Z"],
    ] {
        let words = [&["key", "new", "dead", "--file", &shown][..], &end].concat();
        stage.expect(2, &words)?;
    }
    stage.write(
        "",
        &format!(
            "log: {{format: json}}\nauth: {{partners: {{any: [{{api_key: {{keys: {{file: {shown}}}}}}}, {{api_key: {{query: key, keys: {{file: \
             {shown}}}}}}}], pass: {{X-User: name, X-Team: \"claim:team\"}}}}}}\nroutes:\n  - {{match: {{path: /**}}, auth: partners, \
             upstream: [{{url: 'http://{}'}}]}}\n",
            upstream.address()
        ),
    )?;
    let gateway = stage.start()?;
    let ask = |target: &str, secret: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\n\r\n");
        Client::connect(stage.address).send(request).response().status
    };
    let by_query = |secret: &str| {
        Client::connect(stage.address)
            .get(&format!("/q?a=1&key={secret}"))
            .status
    };
    assert_eq!((ask("/", &first), ask("/", "gk_made-up")), (200, 401));
    assert_eq!(upstream.last().header("x-team"), ["a b"]);

    let second = new("second")?;
    ensure!(
        first != second && second.starts_with("gk_") && second.len() == 46,
        "{second}"
    );
    wait_until("the second key is taken up", || Ok(ask("/", &second) == 200))?;
    assert_eq!(ask("/", &first), 200);
    let listed = stage.expect(0, &["key", "list", "--file", &shown])?;
    ensure!(
        listed.contains("  first  [read]  until 20") && listed.contains("  team=a b"),
        "{listed}"
    );
    ensure!(!listed.contains(&first), "a key is shown once");
    let listed: serde_json::Value =
        serde_json::from_str(&stage.expect(0, &["--json", "key", "list", "--file", &shown])?)?;
    assert_eq!(listed.as_array().map(Vec::len), Some(2));

    stage.expect(0, &["key", "revoke", "--name", "first", "--file", &shown])?;
    wait_until("the first key is refused", || Ok(ask("/", &first) == 401))?;
    assert_eq!(ask("/", &second), 200);
    stage.expect(2, &["key", "revoke", "--name", "first", "--file", &shown])?;

    // A file that can not be used leaves what is in force.
    let good = std::fs::read_to_string(&file)?;
    std::fs::write(&file, "- hunter2\n")?;
    gateway.wait_for_log("KEYS NOT TAKEN OVER")?;
    ensure!(!gateway.log().contains("hunter2"), "a secret in the log");
    assert_eq!(ask("/", &second), 200);
    let status = stage.expect(0, &["status"])?;
    let told = format!("CALLERS NOT TAKEN OVER, as before: {shown}:1: ");
    ensure!(status.contains(&told) && !status.contains("hunter2"), "{status}");
    // A reload wants it, and in vain; that is over as soon as the file is good again.
    stage.expect(2, &["reload"])?;
    let status = stage.expect(0, &["status"])?;
    ensure!(status.contains("CONFIGURATION NOT TAKEN OVER"), "{status}");
    let status: serde_json::Value = serde_json::from_str(&stage.expect(0, &["--json", "status"])?)?;
    ensure!(
        status["proxy"]["stale_callers"].as_array().map(Vec::len) == Some(1),
        "{status}"
    );
    // So does one that a copy which failed has left empty.
    let told = gateway.log().len();
    std::fs::write(&file, "# keys\n")?;
    wait_until("the empty file is told of", || {
        Ok(gateway
            .log()
            .get(told..)
            .is_some_and(|log| log.contains("there is nothing in it")))
    })?;
    assert_eq!(ask("/", &second), 200);
    std::fs::write(&file, "[]\n")?;
    wait_until("a file that says so has no keys", || Ok(ask("/", &second) == 401))?;
    std::fs::write(&file, good)?;
    wait_until("the key is back", || Ok(ask("/", &second) == 200))?;
    let status = stage.expect(0, &["status"])?;
    ensure!(!status.contains("NOT TAKEN OVER"), "{status}");

    // T36: a key in the query is in no line of the log, and the caller's name is.
    assert_eq!(by_query(&second), 200);
    assert_eq!(upstream.last().target, "/q?a=1");
    wait_until("the record is written", || {
        Ok(gateway.log().contains("\"path\":\"/q\""))
    })?;
    let log = gateway.log();
    ensure!(
        !log.contains(&second) && !log.contains(&first),
        "a key in the log:\n{log}"
    );
    ensure!(log.contains("\"caller\":\"second\""), "{log}");
    Ok(())
}

#[test]
fn passwords_come_and_go_while_the_gateway_runs() -> Result<()> {
    // The cheapest that is taken; the password is myPassword.
    const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    let stage = Stage::new()?;
    let upstream = Upstream::text("in");
    let file = stage.file("passwords");
    std::fs::write(&file, format!("ann:{HASH}\n"))?;
    let route = format!(
        "routes:\n  - {{match: {{path: /**}}, auth: {{basic: {{users: {{file: {}}}}}}}, upstream: [{{url: 'http://{}'}}]}}\n",
        file.display(),
        upstream.address()
    );
    stage.write("", &route)?;
    let gateway = stage.start()?;
    let ask = |name: &str| {
        let credentials = STANDARD.encode(format!("{name}:myPassword"));
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credentials}\r\n\r\n");
        Client::connect(stage.address).send(request).response().status
    };
    assert_eq!((ask("ann"), ask("bob")), (200, 401));
    std::fs::write(&file, format!("bob:{HASH}\n"))?;
    wait_until("bob is let in", || Ok(ask("bob") == 200))?;
    assert_eq!(ask("ann"), 401, "what was remembered of her is worth nothing");

    for (text, said) in [
        ("bob:hunter2\n", "passwords:1: this is no argon2id or bcrypt hash"),
        ("# users\n", "there is nobody in it"),
    ] {
        std::fs::write(&file, text)?;
        wait_until("word of the bad file", || {
            let status = stage.expect(0, &["status"])?;
            Ok(status.contains("CALLERS NOT TAKEN OVER") && status.contains(said))
        })?;
        assert_eq!((ask("ann"), ask("bob")), (401, 200), "{text}");
    }
    let log = gateway.log();
    ensure!(
        log.contains("PASSWORDS NOT TAKEN OVER") && !log.contains("hunter2"),
        "{log}"
    );
    std::fs::write(&file, format!("ann:{HASH}\nbob:{HASH}\n"))?;
    wait_until("both are let in", || Ok((ask("ann"), ask("bob")) == (200, 200)))?;
    let status = stage.expect(0, &["status"])?;
    ensure!(!status.contains("NOT TAKEN OVER"), "{status}");
    Ok(())
}

#[test]
fn a_password_is_hashed_from_standard_input() -> Result<()> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(gateway_tests::gateway::binary()?)
        .args(["key", "hash-password", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(input) = &mut child.stdin {
        input.write_all(b"secret\n")?;
    }
    let output = child.wait_with_output()?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let hash = told["hash"].as_str().unwrap_or_default();
    ensure!(
        output.status.success() && hash.starts_with("$argon2id$"),
        "{told}"
    );
    let hash = gateway::config::model::PasswordHash::new(hash).map_err(anyhow::Error::msg)?;
    ensure!(
        hash.verify(b"secret") && !hash.verify(b"secret\n"),
        "without the end of the line"
    );
    Ok(())
}
