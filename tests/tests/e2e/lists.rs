//! Long lists: what does not fit, what replaces what, and files of several forms.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;

fn file(stage: &Stage, name: &str, text: &str) -> Result<String> {
    let path = stage.home.path().join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_str().context("a path")?.to_owned())
}

#[test]
fn a_list_is_replaced_under_a_flood_without_a_packet_of_a_denied_source() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    // A is in both lists: as an address, then inside a network, so that it moves from table to table.
    let other = |lead: &str| {
        (0..3_000)
            .map(|n| format!("{lead}.{}.{}\n", n / 250, n % 250))
            .collect::<String>()
    };
    let first = file(&stage, "first.txt", &format!("{A}\n{}", other("11.1")))?;
    let second = file(&stage, "second.txt", &format!("10.77.0.2/31\n{}", other("11.2")))?;
    let third = file(
        &stage,
        "third.csv",
        &format!("ip,reason\n{A},moved\n{}", other("11.3")),
    )?;
    stage.expect(0, &["deny", "import", "--replace", &first])?;

    let wire = &stage.wire;
    let receiver = wire.gateway.within(|| UdpSocket::bind("10.77.0.1:7777"))??;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let denied = wire.client.within(|| UdpSocket::bind(format!("{A}:0")))??;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let received = std::thread::scope(|scope| -> Result<u64> {
        let flood = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if denied.send_to(b"denied", "10.77.0.1:7777").is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let count = scope.spawn(|| {
            let (mut seen, mut buffer) = (0, [0; 64]);
            while !stop.load(Ordering::Relaxed) {
                seen += u64::from(receiver.recv_from(&mut buffer).is_ok());
            }
            seen
        });
        let replaced = (0..4).try_for_each(|_| {
            [&second, &third, &first]
                .into_iter()
                .try_for_each(|list| stage.expect(0, &["deny", "import", "--replace", list]).map(drop))
        });
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("no panic");
        let seen = count.join().expect("no panic");
        replaced.map(|()| seen)
    })?;
    let sent = sent.into_inner();
    ensure!(sent > 10_000, "a flood is more than {sent} packets");
    assert_eq!(received, 0, "of {sent} packets of a denied source");
    assert!(
        stage.packets("denied")? >= sent * 9 / 10,
        "the flood met the filter"
    );
    // The way is open for others: the receiver does count.
    let allowed = wire.client.within(|| UdpSocket::bind("10.77.0.3:0"))??;
    stage.expect(0, &["deny", "flush"])?;
    allowed.send_to(b"allowed", "10.77.0.1:7777")?;
    receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = [0; 64];
    let (size, from) = receiver.recv_from(&mut buffer)?;
    assert_eq!(
        (&buffer[..size], from.ip().to_string().as_str()),
        (&b"allowed"[..], B)
    );
    Ok(())
}

#[test]
fn what_does_not_fit_is_named_and_remembered_and_the_rest_is_in_force() -> Result<()> {
    let stage = Stage::new(&config("  capacity: {deny_addresses: 1024}", "1m", ""))?;
    let gateway = stage.start()?;
    let list: String = (0..1_500)
        .map(|n| format!("11.0.{}.{}\n", n / 250, n % 250))
        .collect();
    let list = file(&stage, "long.txt", &list)?;
    let text = stage.expect(1, &["deny", "import", "--no-aggregate", &list])?;
    assert!(text.contains("476 not in force"), "{text}");
    assert!(
        text.contains("deny_addresses table is full: 1024 entries; raise xdp.capacity"),
        "{text}"
    );
    assert!(text.contains("and 467 more"), "{text}");
    let told = |stage: &Stage| -> Result<(Value, Value)> {
        let status = stage.json(&["status"])?;
        let rows = status["lists"].as_array().context("lists")?;
        let row = rows.iter().find(|row| row["list"] == "deny").context("deny")?;
        Ok((row["desired"].clone(), row["enforced"].clone()))
    };
    assert_eq!(told(&stage)?, (1_500.into(), 1_024.into()));
    assert!(stage.expect(0, &["status"])?.contains("DIFFER"));
    // All of it is remembered, and what is let go of makes room.
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    let _gateway = stage.start()?;
    assert_eq!(told(&stage)?, (1_500.into(), 1_024.into()));
    assert_eq!(stage.expect(0, &["deny", "export"])?.lines().count(), 1_500);
    let few = file(&stage, "few.txt", &format!("{A}\n"))?;
    stage.expect(0, &["deny", "import", "--replace", &few])?;
    assert_eq!(told(&stage)?, (1.into(), 1.into()));
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    Ok(())
}

#[test]
fn a_list_that_does_not_fit_replaces_nothing() -> Result<()> {
    let stage = Stage::new(&config(
        "  deny: [192.0.2.77]\n  capacity: {deny_addresses: 1024, deny_prefixes: 16}",
        "1m",
        "",
    ))?;
    let list = |name: &str, most: u32, line: &dyn Fn(u32) -> String| {
        file(&stage, name, &(0..most).map(line).collect::<String>())
    };
    let address = |n: u32| format!("11.0.{}.{}\n", n / 250, n % 250);
    let whole = list("whole.txt", 1_023, &address)?;
    let gateway = stage.start()?;
    let replace =
        |code, file: &str| stage.expect(code, &["deny", "import", "--replace", "--no-aggregate", file]);
    replace(0, &whole)?;
    let untouched = || -> Result<()> {
        assert_eq!(stage.expect(0, &["deny", "export"])?.lines().count(), 1_023);
        assert_eq!(stage.verdict("11.0.4.22")?.0, "denied");
        assert_eq!(stage.verdict("11.0.4.23")?.0, "clean");
        let lists = &stage.json(&["status"])?["lists"][1];
        assert_eq!(
            (&lists["desired"], &lists["enforced"]),
            (&1_024.into(), &1_024.into())
        );
        Ok(())
    };
    untouched()?;
    for (file, setting, wanted) in [
        (list("more.txt", 1_024, &address)?, "deny_addresses", "1025"),
        (
            list("six.txt", 257, &|n| format!("2001:db8::{n:x}\n"))?,
            "deny_addresses",
            "257",
        ),
        (
            list("networks.txt", 17, &|n| format!("12.0.{n}.0/24\n"))?,
            "deny_prefixes",
            "17",
        ),
    ] {
        let text = replace(2, &file)?;
        assert!(
            text.contains("does not fit, and nothing was changed")
                && text.contains(&format!("xdp.capacity.{setting}"))
                && text.contains(wanted),
            "{text}"
        );
        untouched()?;
    }
    // The same when nobody runs, and after a start.
    ensure!(gateway.signal(Signal::KILL)?.is_none());
    let networks = list("many.txt", 20_000, &|n| {
        format!("12.{}.{}.0/24\n", n / 250, n % 250)
    })?;
    assert!(replace(2, &networks)?.contains("xdp.capacity.deny_prefixes"));
    untouched()?;
    let _gateway = stage.start()?;
    untouched()?;
    // One as long as the old one takes its place.
    let other = list("other.txt", 1_023, &|n| address(n + 2_000))?;
    replace(0, &other)?;
    assert_eq!(stage.verdict("11.0.4.22")?.0, "clean");
    Ok(())
}

#[test]
fn lists_of_every_form_are_read_and_a_strict_import_takes_all_or_nothing() -> Result<()> {
    let stage = Stage::new(&config("", "1m", ""))?;
    let _gateway = stage.start()?;
    let bad = file(
        &stage,
        "bad.csv",
        "id,cidr,reason\n1,11.0.0.0/9,x\n2,11.128.0.0/9,x\n3,oops,x\n",
    )?;
    let text = stage.expect(2, &["deny", "import", "--strict", "--replace", &bad])?;
    assert!(
        text.contains("line 4") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(stage.expect(0, &["deny", "export"])?, "");
    // A list that replaces another one is taken whole, or not at all, unless it is said otherwise.
    stage.expect(0, &["deny", "add", "192.0.2.0/24"])?;
    let text = stage.expect(2, &["deny", "import", "--replace", &bad])?;
    assert!(
        text.contains("line 4") && text.contains("nothing was changed") && text.contains("--lenient"),
        "{text}"
    );
    assert_eq!(stage.expect(0, &["deny", "export"])?, "192.0.2.0/24\n");
    stage.expect(1, &["deny", "import", "--replace", "--lenient", &bad])?;
    assert_eq!(stage.expect(0, &["deny", "export"])?, "11.0.0.0/8 # x\n");
    stage.expect(0, &["deny", "flush"])?;
    let text = stage.expect(1, &["deny", "import", &bad])?;
    assert!(text.contains("2 networks became 1"), "{text}");
    assert_eq!(stage.expect(0, &["deny", "export"])?, "11.0.0.0/8 # x\n");

    let json = r#"["10.77.0.2", {"ip": "2001:db8::7", "reason": "a \"b\"", "ttl": "1h"}]"#;
    let json = file(&stage, "list", json)?;
    stage.expect(0, &["deny", "import", "--replace", "--format", "json", &json])?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    for (words, name) in [
        (&["deny", "export"][..], "a.txt"),
        (&["deny", "export", "--json"], "a.json"),
    ] {
        let exported = stage.expect(0, words)?;
        let again = file(&stage, name, &exported)?;
        stage.expect(0, &["deny", "flush"])?;
        stage.expect(0, &["deny", "import", &again])?;
        assert_eq!(stage.expect(0, words)?, exported, "{name}");
    }
    let allow = file(&stage, "allow.txt", "10.77.0.2\n")?;
    stage.expect(0, &["allow", "import", &allow])?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Ok(200));
    assert_eq!(stage.expect(0, &["allow", "export"])?, "10.77.0.2/32\n");
    Ok(())
}

#[test]
fn a_list_file_that_changes_is_taken_over_and_a_bad_one_is_not() -> Result<()> {
    let stage = Stage::new("")?;
    let first = file(&stage, "drop.txt", &format!("{A}\n"))?;
    let other = file(&stage, "other.txt", "203.0.113.0/24\n")?;
    stage.home.write(&config(
        &format!("  deny: [198.51.100.7, {{file: {first}, every: 1s}}, {{file: {other}, every: off}}]"),
        "1m",
        "",
    ))?;
    let gateway = stage.start()?;
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    stage.expect(0, &["deny", "add", "192.0.2.77"])?;

    // Written in place, as `curl -o` would.
    std::fs::write(&first, format!("{B}\n"))?;
    wait_until("the new list", || Ok(stage.verdict(B)?.0 == "denied"))?;
    assert_eq!(stage.verdict(A)?.0, "clean");
    for kept in ["198.51.100.7", "203.0.113.9", "192.0.2.77"] {
        assert_eq!(stage.verdict(kept)?.0, "denied", "{kept}");
    }

    // A bad line, emptied, gone: the list of before stays, and everybody is told.
    for (what, said) in [
        (Some(format!("{A}\nnonsense\n")), "drop.txt:2: "),
        (Some(String::new()), "is empty now"),
        (None, "can not read"),
    ] {
        match &what {
            Some(text) => std::fs::write(&first, text)?,
            None => std::fs::remove_file(&first)?,
        }
        wait_until("word of the bad list", || {
            let status = stage.expect(0, &["status"])?;
            Ok(status.contains("LIST NOT TAKEN OVER") && status.contains(said))
        })
        .with_context(|| format!("{what:?}: {}", gateway.log()))?;
        assert_eq!(stage.verdict(B)?.0, "denied", "{what:?}");
        assert_eq!(stage.verdict(A)?.0, "clean", "{what:?}");
    }
    let log = gateway.log();
    assert!(log.contains("ERROR") && log.contains("NOT taken over"), "{log}");

    // Moved into its place, as a careful script does.
    let whole = file(&stage, "drop.txt.new", &format!("{A}\n"))?;
    std::fs::rename(&whole, &first)?;
    wait_until("the good list", || Ok(stage.verdict(A)?.0 == "denied"))?;
    assert_eq!(stage.verdict(B)?.0, "clean");
    let status = stage.expect(0, &["status"])?;
    assert!(!status.contains("NOT TAKEN OVER"), "{status}");
    // One that is not looked at is read by a reload, and emptied by one if that is meant.
    std::fs::write(&other, "")?;
    stage.expect(0, &["reload"])?;
    assert_eq!(stage.verdict("203.0.113.9")?.0, "clean");
    assert_eq!(stage.wire.status(A, URL, GOOD)?, Err(28));
    assert_eq!(stage.wire.status(B, URL, GOOD)?, Ok(200));
    Ok(())
}

#[test]
fn an_import_that_would_cut_someone_off_names_every_line_and_changes_nothing() -> Result<()> {
    let stage = Stage::new(&config("", "1m", "trusted_proxies: [192.0.2.9]\n"))?;
    let _gateway = stage.start()?;
    stage.expect(0, &["deny", "add", B])?;
    let text = format!("# ours\n11.0.0.0/24\n{GATEWAY}\n11.0.1.0/24\n192.0.2.8/31\n192.0.2.10/31\n");
    let list = file(&stage, "drop.txt", &text)?;
    let text = stage.expect(3, &["deny", "import", "--replace", &list])?;
    for part in [
        "nothing was changed",
        &format!("{list}:")[..],
        "line 3: 10.77.0.1 would cut off 10.77.0.1 is this host's own address on gw0",
        // Joined with the line behind it on its way.
        "line 5: 192.0.2.8/31 would cut off 192.0.2.9/32 is a trusted proxy",
        "--force",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains("line 6") && !text.contains("line 2"), "{text}");
    assert_eq!(stage.expect(0, &["deny", "export"])?, format!("{B}/32\n"));
    // The same where entries are counted, and by standing commands.
    let list = file(
        &stage,
        "drop.json",
        &format!("[\"11.0.0.0/24\", {{\"cidr\": \"{GATEWAY}\"}}]"),
    )?;
    let text = stage.expect(3, &["deny", "import", &list])?;
    assert!(text.contains("entry 2: 10.77.0.1 "), "{text}");
    let text = stage.expect(3, &["deny", "add", GATEWAY, "192.0.2.9"])?;
    assert!(
        text.contains("own address")
            && text.contains("trusted proxy")
            && text.contains("nothing was changed"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_capacity_that_is_raised_is_told_how_it_comes_into_force() -> Result<()> {
    let of = |most: u32| {
        config(
            &format!("  capacity: {{deny_prefixes: {most}, allow_prefixes: 1}}"),
            "1m",
            "",
        )
    };
    let stage = Stage::new(&of(2))?;
    let gateway = stage.start()?;
    stage.expect(1, &["deny", "add", "11.0.0.0/24", "11.0.2.0/24", "11.0.4.0/24"])?;
    let text = stage.expect(1, &["verify"])?;
    assert!(
        text.contains("failed: deny 11.0.")
            && text.contains("xdp.capacity.deny_prefixes")
            && text.contains("gateway detach"),
        "{text}"
    );
    drop(gateway);
    stage.home.write(&of(3))?;
    let gateway = stage.start()?;
    gateway.wait_for_log("xdp.capacity has changed")?;
    let log = gateway.log();
    assert!(
        log.contains("gateway detach") && log.contains("ask for 4") && !log.contains("RANGES4"),
        "{log}"
    );
    assert_eq!(gateway.signal(Signal::TERM)?, Some(0));
    stage.expect(0, &["detach"])?;
    let gateway = stage.start()?;
    stage.expect(0, &["verify"])?;
    assert!(
        !gateway.log().contains("xdp.capacity has changed"),
        "{}",
        gateway.log()
    );
    Ok(())
}
