//! What must not load, and how that is told: the report is part of the interface, so it is compared letter by letter.

use std::path::Path;

use proptest::prelude::*;

use super::{HASH, SMALL, etc, load, load_in};
use crate::config::{Config, Faults};

/// Cases: `=== name`, the configuration, `>>>`, the report's lines with the directory named /etc/gateway.
const CASES: &str = include_str!("bad.txt");

/// The headline of every error, with `dir` written as /etc/gateway.
fn told(faults: &Faults, dir: &Path) -> String {
    let lines: Vec<_> = faults.errors.iter().map(crate::config::Fault::headline).collect();
    lines
        .join("\n")
        .replace(&dir.display().to_string(), "/etc/gateway")
}

#[test]
fn each_bad_configuration_is_told_exactly() {
    let dir = etc();
    let mut cases = 0;
    for case in CASES.split("=== ").skip(1) {
        let (name, rest) = case.split_once('\n').expect("a name");
        let (text, expected) = rest.split_once(">>>\n").expect("a report");
        let faults = load_in(dir.path(), text).expect_err(name);
        assert_eq!(told(&faults, dir.path()), expected.trim_end(), "{name}");
        cases += 1;
    }
    assert!(cases > 70, "the cases were read");
}

#[test]
fn faults_of_all_files_come_in_one_report_in_order() {
    let dir = etc();
    let write = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).expect("a file");
    write(
        "drop.txt",
        b"10.0.0.0/8 # fine\n  10.0.0.1/8\n; nothing\n\xff\n1.2.3.4 5\n1.2.3.4\n1.2.3.4\n",
    );
    write("keys.yaml", b"- {name: a, sha256: hunter2}\n- {nam: b}\n");
    let text = SMALL.replace("{mode: none}", "{mode: none, deny: [{file: drop.txt}]}");
    let text = format!("{text}    auth: {{api_key: {{keys: {{file: keys.yaml}}}}}}\nlimts: {{}}\n");
    let faults = load_in(dir.path(), &text).expect_err("faults in three files");
    assert_eq!(
        told(&faults, dir.path()).lines().collect::<Vec<_>>(),
        [
            "gateway.yaml:7:1: unknown key \"limts\"; did you mean \"limits\"?",
            "/etc/gateway/drop.txt:2:3: xdp.deny[0].file: \"10.0.0.1/8\" has bits set beyond its length; write 10.0.0.0/8 \
             for the whole network, or 10.0.0.1 for the one address",
            "/etc/gateway/drop.txt:4:1: xdp.deny[0].file: the line is not text",
            "/etc/gateway/drop.txt:5:1: xdp.deny[0].file: \"1.2.3.4 5\" is not an address or network; \
             write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32",
            "/etc/gateway/keys.yaml:1:21: routes[0].auth.api_key.keys[0].sha256: this is not a SHA-256 hash: \
             64 hexadecimal digits; make it with: printf %s \"$KEY\" | sha256sum",
            "/etc/gateway/keys.yaml:2:3: routes[0].auth.api_key.keys[1]: key \"name\" is missing; \
             who holds the key, for logs and for the upstream",
            "/etc/gateway/keys.yaml:2:3: routes[0].auth.api_key.keys[1]: key \"sha256\" is missing; \
             make it with: printf %s \"$KEY\" | sha256sum",
            "/etc/gateway/keys.yaml:2:4: routes[0].auth.api_key.keys[1]: unknown key \"nam\"; did you mean \"name\"?",
        ]
    );
    assert_eq!(faults.warnings.len(), 1, "the repeated line of the list");
}

#[test]
fn the_report_shows_the_line_and_counts() {
    let faults = load(&format!("{SMALL}limits: {{drain: 10}}\n")).expect_err("no unit");
    assert_eq!(
        faults.to_string(),
        "g.yaml:6:17: limits.drain: \"10\" has no unit; write 10s, or another of ms, s, m, h, d\n\
         \x20    6 | limits: {drain: 10}\n\
         \x20      |                 ^\n\
         1 error, 0 warnings"
    );
    let json = serde_json::to_value(&faults).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({
            "errors": [{
                "file": "g.yaml", "line": 6, "column": 17, "path": "limits.drain",
                "message": "\"10\" has no unit", "hint": "write 10s, or another of ms, s, m, h, d"
            }],
            "warnings": [], "left_out": 0
        })
    );
}

#[test]
fn a_long_report_is_cut_and_says_so() {
    let text = format!(
        "{SMALL}{}",
        (0..250).map(|n| format!("x{n}: 1\n")).collect::<String>()
    );
    let faults = load(&text).expect_err("unknown keys");
    assert_eq!((faults.errors.len(), faults.left_out), (100, 150));
    assert!(faults.to_string().contains("and 150 more"));

    let dir = etc();
    std::fs::write(dir.path().join("drop.txt"), "x\n".repeat(50)).expect("a file");
    let text = SMALL.replace("{mode: none}", "{mode: none, deny: [{file: drop.txt}]}");
    let faults = load_in(dir.path(), &text).expect_err("bad lines");
    assert_eq!(faults.errors.len(), 21);
    let first = told(&faults, dir.path()).lines().next().map(str::to_owned);
    let more = "gateway.yaml:2:33: xdp.deny[0].file: and 30 more bad lines in \"/etc/gateway/drop.txt\"";
    assert_eq!(first.as_deref(), Some(more));
}

#[test]
fn a_file_that_can_not_be_read_is_a_fault() {
    let dir = etc();
    let load = |name: &str| {
        Config::load(&dir.path().join(name))
            .map(drop)
            .expect_err(name)
            .to_string()
    };
    assert!(load("gone.yaml").contains("No such file"));
    assert!(load("tls").contains("it is a directory"));
    std::fs::write(dir.path().join("latin1.yaml"), b"a: b\nc: \xe9\n").expect("a file");
    assert!(load("latin1.yaml").contains("is not text in UTF-8: see line 2"));
    assert!(
        Config::load(Path::new("/dev/zero"))
            .map(drop)
            .expect_err("endless")
            .to_string()
            .contains("ordinary")
    );
}

#[test]
fn what_is_allowed_and_hardly_meant_is_warned_about() {
    let unused = "upstreams: {spare: {endpoints: [{url: http://a}]}}\n";
    let lists = "{mode: none, allow: [192.0.2.0/24, '::/0'], deny: [192.0.2.7, 0.0.0.0/0, 2001:db8::1, 198.51.100.1]}";
    let text = format!(
        "{}{unused}trusted_proxies: [0.0.0.0/0]\n",
        SMALL.replace("{mode: none}", lists)
    );
    let (_, warnings) = load(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let told: Vec<_> = warnings.iter().map(|warning| warning.0.headline()).collect();
    assert_eq!(
        told,
        [
            "g.yaml:2:41: xdp.allow[1]: ::/0 is every IPv6 address: their packets pass unseen, and none of them is \
             ever denied or blocked",
            "g.yaml:2:57: xdp.deny[0]: 192.0.2.7 has no effect: it is under an allow entry, and allow comes first",
            "g.yaml:2:68: xdp.deny[1]: 0.0.0.0/0 is every IPv4 address: nothing gets through but what is allowed",
            "g.yaml:2:79: xdp.deny[2]: 2001:db8::1 has no effect: it is under an allow entry, and allow comes first",
            "g.yaml:6:13: upstreams.spare: no route uses the upstream \"spare\"",
            "g.yaml:7:19: trusted_proxies[0]: 0.0.0.0/0 is everyone: any client can claim any address, and none is \
             ever blocked; name the proxies' own networks",
        ]
    );
}

#[test]
fn claims_that_a_session_does_not_keep_are_told() {
    let dir = etc();
    let oidc =
        "{issuer: https://i.example, client_id: web, claims: [realm], session: {keys: {file: session.keys}}}";
    let rules = "authorize: [{claims: {role: admin, realm.role: x}}], pass: {X-Mail: \"claim:email\", X-Realm: \"claim:realm\"}";
    let told = |ways: &str| {
        let text = format!("{SMALL}    auth: {{{ways}, {rules}}}\n");
        let (_, warnings) = load_in(dir.path(), &text).unwrap_or_else(|faults| panic!("{faults}"));
        let told = warnings.iter().map(|warning| warning.0.headline());
        told.collect::<Vec<_>>()
    };
    let lacking = ["email", "role"].map(|claim| {
        format!(
            "gateway.yaml:6:11: routes[0].auth: a session does not keep the claim \"{claim}\"; list it in oidc.claims"
        )
    });
    assert_eq!(told(&format!("oidc: {oidc}")), lacking);
    let other = "{jwt: {issuer: https://i.example, audience: a}}";
    assert_eq!(told(&format!("any: [{{oidc: {oidc}}}, {other}]")), [""; 0]);
}

/// Ways to write a key where it does not belong, and other faults on the same line.
fn misplaced(secret: &str) -> Vec<String> {
    let auth = |inner: &str| format!("{SMALL}    auth: {inner}\n");
    vec![
        auth(secret),
        auth(&format!("[{secret}]")),
        auth(&format!("{{api_key: {secret}}}")),
        auth(&format!("{{api_kye: {{keys: [{secret}]}}}}")),
        auth(&format!("{{api_key: {{key: {secret}}}}}")),
        auth(&format!("{{api_key: {{keys: {secret}}}}}")),
        auth(&format!("{{api_key: {{keys: [{secret}]}}}}")),
        auth(&format!("{{api_key: {{keys: [{{name: a, key: {secret}}}]}}}}")),
        auth(&format!("{{api_key: {{keys: [{{name: a, sha256: {secret}}}]}}}}")),
        auth(&format!(
            "{{api_key: {{keys: [{{name: a, sha256: {secret}, sha256: {HASH}}}]}}}}"
        )),
        auth(&format!("{{api_key: {{keys: {{a: {secret}}}}}}}")),
        auth(&format!(
            "\n      api_key:\n        keys:\n          - name: a\n            value: {secret}"
        )),
        format!("{SMALL}  - {{match: {{path: /a}}, auth: {{api_key: {{keys: [{secret}]}}}}, upstreem: 1}}\n"),
    ]
}

#[test]
fn a_key_in_clear_is_never_shown() {
    for text in misplaced("hunter2hunter2") {
        let faults = load(&text).expect_err(&text);
        assert!(!faults.to_string().contains("hunter2"), "{text}\n{faults}");
        assert!(!format!("{faults:?}").contains("hunter2"), "{text}\n{faults:?}");
    }
    let url = SMALL.replace("http://", "http://user:hunter2@");
    assert!(
        !load(&url)
            .expect_err("a password")
            .to_string()
            .contains("hunter2")
    );
    let dir = etc();
    let text = format!("{SMALL}    auth: {{api_key: {{keys: {{file: keys.yaml}}}}}}\n");
    for keys in [
        "hunter2",
        "- hunter2",
        "- {name: a, sha256: hunter2",
        "a: hunter2",
        "- *hunter2",
        "- hunter2: [\n",
        "- hunter2: a",
        "- {name: a, hunter2: b}",
    ] {
        std::fs::write(dir.path().join("keys.yaml"), keys).expect("a file");
        let faults = load_in(dir.path(), &text).expect_err(keys);
        assert!(!faults.to_string().contains("hunter2"), "{keys}\n{faults}");
    }
}

proptest! {
    #[test]
    fn a_report_steers_no_terminal(key in "\\PC*|[\x00-\x1f\x7f-\u{9f}\u{202e}a]*") {
        let mut text = SMALL.to_owned();
        text += &format!("{}: 1\n", serde_json::to_string(&key).expect("JSON"));
        let report = load(&text).map(drop).err().map(|faults| faults.to_string()).unwrap_or_default();
        prop_assert!(!report.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{report:?}");
    }
}
