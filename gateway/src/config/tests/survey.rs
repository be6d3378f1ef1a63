//! What is still known of a configuration that is not good.

use std::path::Path;

use super::{SMALL, etc};
use crate::config::{Config, Survey, defaults};

const HOME: &str = "admin: {socket: /run/test/admin.sock}\nstate_dir: /var/lib/test\n";

/// Text with `HOME` around something that is wrong: nothing of `HOME` may be lost.
fn keeps_home(broken: &str) -> Config {
    let text = format!("{HOME}{broken}\ntrusted_proxies: [172.16.0.0/12]\n");
    let read = Survey::of(&text, Path::new("/nowhere/g.yaml"));
    assert!(read.faults > 0, "{text}");
    assert_eq!(
        read.config.admin.socket,
        Path::new("/run/test/admin.sock"),
        "{text}"
    );
    assert_eq!(read.config.state_dir, Path::new("/var/lib/test"), "{text}");
    assert_eq!(read.config.trusted_proxies.len(), 1, "{text}");
    read.config
}

#[test]
fn a_good_configuration_is_read_as_it_is() {
    let read = Survey::of(SMALL, Path::new("/nowhere/g.yaml"));
    assert_eq!(read.faults, 0);
    let (config, _) = super::load(SMALL).expect("a good configuration");
    assert_eq!(read.config.xdp, config.xdp);
}

#[test]
fn faults_of_meaning_leave_the_rest_known() {
    let config =
        keeps_home("xdp: {mode: generic, pin_dir: /sys/fs/bpf/test}\nroutes: 7\nlisten: [{address: x}]");
    assert_eq!(config.xdp.pin_dir, Path::new("/sys/fs/bpf/test"));
}

#[test]
fn faults_of_form_leave_the_other_sections_known() {
    for broken in [
        "routes:\n  - match: {path: /**\n    upstream: [",
        "routes: \"never closed",
        "routes: [}]",
        "<<<<<<< HEAD\nworkers: 1\n=======\nworkers: 2\n>>>>>>> theirs",
        "\tworkers: 1",
        "  workers: 1",
        "routes: *alias",
        "listen:\n- address: 127.0.0.1:1\n  tls: {certificates: [",
    ] {
        keeps_home(broken);
    }
}

#[test]
fn a_broken_section_is_known_up_to_the_fault() {
    let config = keeps_home("xdp:\n  mode: generic\n  pin_dir: /sys/fs/bpf/test\n  deny: [192.0.2.1, {file");
    assert_eq!(config.xdp.pin_dir, Path::new("/sys/fs/bpf/test"));
}

#[test]
fn bytes_that_are_no_text_hide_nothing_else() {
    let dir = etc();
    let path = dir.path().join("g.yaml");
    let text = format!("# caf\u{fffd}\n{HOME}").replace('\u{fffd}', "\u{1}");
    let bytes: Vec<u8> = text.bytes().map(|b| if b == 1 { 0xe9 } else { b }).collect();
    std::fs::write(&path, bytes).expect("a file");
    let read = Config::survey(&path);
    assert!(read.faults > 0, "`gateway run` would not take it");
    assert_eq!(read.config.admin.socket, Path::new("/run/test/admin.sock"));
    assert_eq!(read.config.state_dir, Path::new("/var/lib/test"));
}

#[test]
fn what_is_no_configuration_at_all_is_the_defaults() {
    let dir = etc();
    let read = |text: &[u8]| {
        let path = dir.path().join("g.yaml");
        std::fs::write(&path, text).expect("a file");
        Config::survey(&path)
    };
    for text in [
        &b""[..],
        b"7",
        b"[]",
        b"\xff\xfe",
        b"\0",
        b": : :",
        b"{",
        b"a: &a [*a]",
    ] {
        let read = read(text);
        assert!(read.faults > 0, "{text:?}");
        assert_eq!(read.config.xdp.pin_dir, Path::new(defaults::PIN_DIR), "{text:?}");
        assert_eq!(
            read.config.admin.socket,
            Path::new(defaults::ADMIN_SOCKET),
            "{text:?}"
        );
    }
    assert_eq!(Config::survey(dir.path()).faults, 1, "a directory");
}

#[test]
fn certificates_and_keys_are_not_opened() {
    let text = "\
listen: [{address: 127.0.0.1:1, tls: {certificates: [{cert: /nowhere/a.crt, key: /nowhere/a.key}]}}]
xdp: {mode: none}
routes:
  - match: {path: /**}
    auth: {api_key: {keys: {file: /nowhere/keys.yaml}}}
    upstream: [{url: http://127.0.0.1:9000}]
";
    assert_eq!(Survey::of(text, Path::new("/nowhere/g.yaml")).faults, 0);
    assert!(super::load(text).is_err());
}
