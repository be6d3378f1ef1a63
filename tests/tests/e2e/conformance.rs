//! The conformance checklist: bugs seen elsewhere, and the test here that keeps each away. A test sees to it that the
//! tests named exist.

use std::path::Path;

use gateway::dataplane::{Backend as _, Change, Kernel, List};

use super::*;

/// A bug, and the tests that would find it: functions, or rows of the packet table in quotes.
const ROWS: &[(&str, &[&str])] = &[
    (
        "a tagged frame skips the filter",
        &[
            "a_denied_source_is_dropped_whatever_the_protocol_and_behind_tags",
            "\"denied in two tags\"",
        ],
    ),
    (
        "a family is silently unsupported",
        &[
            "every_accepted_deny_of_either_family_is_read_back",
            "ipv6_clients_are_blocked_just_the_same",
        ],
    ),
    (
        "networks are silently unsupported",
        &[
            "a_denied_source_is_dropped_whatever_the_protocol_and_behind_tags",
            "time_limited_denies_end_in_the_kernel_and_prefixes_reach_inside",
        ],
    ),
    (
        "a protocol escapes the check",
        &["a_denied_source_is_dropped_whatever_the_protocol_and_behind_tags"],
    ),
    (
        "a constant of the other family",
        &[
            "the_packet_table_in_the_kernel",
            "\"a second icmpv6 from one /64\"",
        ],
    ),
    (
        "a fragment is read as a header",
        &[
            "\"a late fragment is not read as tcp\"",
            "\"a late ipv6 fragment is not read as tcp\"",
        ],
    ),
    (
        "a spoofed packet bans its source",
        &["no_packet_puts_anyone_into_a_list", "only_what_is_scored_counts"],
    ),
    (
        "temporary becomes permanent",
        &[
            "time_limited_denies_end_in_the_kernel_and_prefixes_reach_inside",
            "an_unconfirmed_deny_ends_by_itself_after_sigkill_and_a_confirmed_one_stays",
        ],
    ),
    (
        "what was deleted is not asserted again",
        &[
            "what_is_deleted_behind_the_gateway_s_back_is_restored_and_reported_by_itself",
            "verify_finds_and_repairs_what_was_done_behind_the_gateway_s_back",
        ],
    ),
    (
        "a failed update is recorded as applied",
        &[
            "a_full_table_is_named_and_shown_as_not_enforced",
            "a_full_table_says_which_and_the_rest_is_applied",
        ],
    ),
    (
        "a foreign program is displaced",
        &[
            "a_foreign_program_is_refused_by_name_and_left_alone",
            "a_foreign_program_that_took_the_place_is_named_and_left_alone",
        ],
    ),
    (
        "an allow loses to an earlier ban",
        &[
            "a_deny_of_an_allowed_address_has_no_effect_and_says_so",
            "an_allow_lifts_the_blocks_under_it",
        ],
    ),
    (
        "kept tables are read under another policy",
        &[
            "tables_of_another_version_are_not_touched",
            "pinned_tables_are_adopted_with_all_that_is_in_them",
        ],
    ),
    (
        "stale pins block the start",
        &["after_sigkill_denies_hold_and_the_next_start_adopts_the_program"],
    ),
    (
        "counters are doubled or contended",
        &["counters_of_all_processors_add_up_to_the_packets_sent"],
    ),
    (
        "a flood evicts bans",
        &["a_flood_of_spoofed_sources_leaves_bans_blocks_and_allows_as_they_are"],
    ),
];
// The last row of the list, "a cookie program starves the stack", comes with the cookies and their own tests.

#[test]
fn every_row_of_the_checklist_has_its_tests() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the root")?;
    let mut sources = String::new();
    let mut open = vec![
        root.join("tests/tests"),
        root.join("tests/src"),
        root.join("gateway/src"),
    ];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("e2e/conformance.rs")
            {
                sources.push_str(&std::fs::read_to_string(path)?);
            }
        }
    }
    // Of this file the part behind the list.
    let own = include_str!("conformance.rs");
    sources.push_str(own.split_once("];\n// The last row").context("the list's end")?.1);
    let missing: Vec<&str> = ROWS
        .iter()
        .flat_map(|(_, tests)| tests.iter())
        .filter(|test| {
            let row = test.starts_with('"');
            !sources.contains(&if row {
                (**test).to_owned()
            } else {
                format!("fn {test}(")
            })
        })
        .copied()
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
    Ok(())
}

#[test]
fn every_accepted_deny_of_either_family_is_read_back() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let nets = ["192.0.2.7", "198.51.100.0/24", "2001:db8::7", "2001:db8:1::/48"];
    for net in nets {
        stage.expect(0, &["deny", "add", net])?;
    }
    let image = Kernel::pinned(stage.home.pins())?.enforced()?;
    for net in nets {
        let full = if net.contains(':') { "/128" } else { "/32" };
        let net = if net.contains('/') {
            net.to_owned()
        } else {
            format!("{net}{full}")
        };
        assert!(
            image.deny.contains_key(&net.parse()?),
            "{net} is not in the kernel"
        );
    }
    for (inside, outside) in [
        ("198.51.100.200", "198.51.101.1"),
        ("2001:db8:1:f::1", "2001:db8:2::1"),
    ] {
        assert_eq!(stage.verdict(inside)?.0, "denied");
        assert_eq!(stage.verdict(outside)?.0, "clean");
    }
    Ok(())
}

#[test]
fn a_full_table_is_named_and_shown_as_not_enforced() -> Result<()> {
    let stage = Stage::new(&config(
        "  capacity: {deny_prefixes: 2, deny_addresses: 4}",
        "1m",
        "",
    ))?;
    let _gateway = stage.start()?;
    let nets = [
        "198.51.100.0/24",
        "198.51.101.0/24",
        "198.51.102.0/24",
        "198.51.103.0/24",
    ];
    let text = stage.expect(1, &[&["deny", "add"][..], &nets].concat())?;
    assert!(
        text.contains("table is full") && text.contains("not in force"),
        "{text}"
    );
    let status = stage.json(&["status"])?;
    let deny = status["lists"]
        .as_array()
        .context("lists")?
        .iter()
        .find(|row| row["list"] == "deny");
    let deny = deny.context("deny")?;
    assert_eq!((&deny["desired"], &deny["enforced"]), (&4.into(), &2.into()));
    assert!(stage.expect(0, &["status"])?.contains("DIFFER"));
    // Verification does not gloss over it, and what fits after a removal is put in.
    let text = stage.expect(1, &["verify"])?;
    assert!(
        text.contains("2 found, 0 repaired") && text.contains("NOT repaired"),
        "{text}"
    );
    let list = stage.json(&["deny", "list"])?;
    let rows = list.as_array().context("rows")?;
    assert_eq!(rows.iter().filter(|row| row["enforced"] == false).count(), 2);
    let there = rows.iter().filter(|row| row["enforced"] == true);
    let there: Vec<&str> = there.filter_map(|row| row["net"].as_str()).collect();
    // New entries go in before old ones go out, so these two fit at the next comparison.
    command(
        &stage.wire.gateway,
        &stage.home,
        &[&["deny", "del"][..], &there].concat(),
    )?;
    let text = stage.expect(1, &["verify"])?;
    assert!(text.contains("2 found, 2 repaired"), "{text}");
    stage.expect(0, &["verify"])?;
    Ok(())
}

#[test]
fn what_is_deleted_behind_the_gateway_s_back_is_restored_and_reported_by_itself() -> Result<()> {
    let stage = Stage::new(&config("  deny: [10.77.0.2]", "1m", ""))?;
    let gateway = stage.start()?;
    let mut tables = Kernel::pinned(stage.home.pins())?;
    let net = "10.77.0.2/32".parse()?;
    let list = List::Deny;
    ensure!(
        tables.apply(&[Change::Remove { list, net }]).is_empty(),
        "not removed"
    );
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    // The comparison is due every 30 seconds.
    std::thread::sleep(std::time::Duration::from_secs(20));
    gateway.wait_for_log("drift: deny 10.77.0.2 was not in the kernel's table")?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert_eq!(stage.metric("gateway_drift_repaired_total")?, 1.0);
    assert!(
        stage
            .expect(0, &["status"])?
            .contains("1 difference between kernel and intent was found")
    );
    Ok(())
}

#[test]
fn tables_of_another_version_are_not_touched() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let gateway = stage.start()?;
    let ours = format!("v{}", gateway_common::ABI_VERSION);
    assert!(
        stage.home.pins().join(&ours).join("SETTINGS").exists(),
        "the version is part of the path"
    );
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    // As if an older version had left its tables, which lie elsewhere.
    let old = stage.home.pins().join("v0");
    std::fs::create_dir(&old)?;
    let gateway = stage.start()?;
    assert!(old.exists() && stage.program_on_wire()?.is_some());
    drop(gateway);
    std::fs::remove_dir(&old)?;
    Ok(())
}

#[test]
fn doctor_names_what_must_be_mended() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let text = stage.expect(0, &["doctor"])?;
    for part in [
        "kernel",
        "BTF",
        "bpffs",
        "JIT",
        "tcp_syncookies",
        "capabilities",
        "veth",
        "gw0 MTU",
        "0 to mend",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let gateway = stage.start()?;
    let text = stage.expect(0, &["doctor"])?;
    assert!(text.contains("filtered by this gateway's program"), "{text}");
    // To a gateway with other pins that program is a foreign one; and an interface may be missing.
    let other = Home::new()?;
    other.write(&config("", "1m", "").replace("[gw0]", "[gw0, gw7]"))?;
    let (code, out, _) = command(&stage.wire.gateway, &other, &["doctor", "--json"])?;
    let found: Value = serde_json::from_str(&out)?;
    assert_eq!((code, &found["ok"]), (1, &false.into()), "{out}");
    let fails: Vec<&Value> = found["checks"]
        .as_array()
        .context("checks")?
        .iter()
        .filter(|check| check["level"] == "fail")
        .collect();
    assert_eq!(fails.len(), 2, "{out}");
    assert!(fails[0]["found"].to_string().contains("gateway_xdp"));
    // What removes one that hangs on a link, too.
    let todo = fails[0]["todo"].to_string();
    assert!(
        todo.contains("bpftool link detach") && todo.contains("gateway detach"),
        "{todo}"
    );
    assert_eq!(fails[1]["name"], "gw7");
    drop(gateway);
    Ok(())
}
