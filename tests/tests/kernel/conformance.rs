//! Rows of the conformance checklist that need the loaded program and many frames; `e2e/conformance.rs` lists all rows.

use std::thread;

use gateway_common::limiter::{BUCKETS, WAYS};

use super::*;

/// A frame of `protocol` with bytes that fit no header in particular.
fn frame(v6: bool, source: &str, protocol: u8, tags: usize) -> Vec<u8> {
    let frame = if v6 { Frame::v6(source) } else { Frame::v4(source) };
    let frame = match tags {
        0 => frame,
        1 => frame.vlan(7),
        _ => frame.service_vlan(7).vlan(8),
    };
    frame.upper(protocol, &[0x45; 40]).bytes()
}

#[test]
fn a_denied_source_is_dropped_whatever_the_protocol_and_behind_tags() {
    let pins = Pins::new("protocols");
    let mut kernel = pins.load();
    let settings = Settings {
        ready: 1,
        malformed: u32::MAX,
        ..Settings::default()
    };
    let deny = [
        "192.0.2.7/32",
        "198.51.100.0/24",
        "2001:db8::7/128",
        "2001:db8:1::/48",
    ];
    let mut changes = vec![Change::settings(settings)];
    changes.extend(deny.iter().map(|net| put(List::Deny, net)));
    apply(&mut kernel, &changes);
    let sources = [
        (false, "192.0.2.7"),
        (false, "198.51.100.200"),
        (true, "2001:db8::7"),
        (true, "2001:db8:1:ffff::1"),
    ];
    let mut sent = 0;
    for (v6, source) in sources {
        // GRE is 47, IP in IP 4 and 41, ESP 50, SCTP 132, and so on: all there are.
        for protocol in 0..=u8::MAX {
            for tags in 0..3 {
                let (action, _) = kernel
                    .test_run(&frame(v6, source, protocol, tags), 1)
                    .expect("a test run");
                assert_eq!(action, XDP_DROP, "{source}, protocol {protocol}, {tags} tags");
                sent += 1;
            }
        }
    }
    let denied = kernel
        .counters()
        .expect("counters")
        .get(DropReason::Denied.slot());
    assert_eq!(
        denied.packets, sent,
        "each for being denied, before anything else is looked at"
    );
}

#[test]
fn a_flood_of_spoofed_sources_leaves_bans_blocks_and_allows_as_they_are() {
    const SOURCES: u32 = 10 * BUCKETS * WAYS as u32;
    let pins = Pins::new("spoofed");
    let mut kernel = pins.load();
    let mut settings = Settings {
        ready: 1,
        malformed: u32::MAX,
        features: feature::SYN_LIMIT,
        ..Settings::default()
    };
    let cost = gateway_common::limiter::cost(50, 1_000_000_000, 100);
    settings.limits[limit::SYN as usize] = Limit::new(cost, 32, 64);
    apply(
        &mut kernel,
        &[
            Change::settings(settings),
            put(List::Deny, "192.0.2.1/32"),
            put(List::Deny, "198.51.100.0/24"),
            put(List::Allow, "192.0.2.2/32"),
            put(List::Block, "192.0.2.3/32"),
        ],
    );
    let before = image(&mut kernel);
    // The lists are asked before the limiter, which has a table of its own. All from one /8 that no list names.
    let mut syn = Frame::v4("10.0.0.0").tcp(SYN).bytes();
    let source = 14 + 12;
    let checksum = 14 + 10;
    for number in 0..SOURCES {
        let bytes = number.to_be_bytes();
        syn[source + 1..source + 4].copy_from_slice(&bytes[1..]);
        // The program does not look at the checksum; it is kept plain.
        syn[checksum] = 0;
        kernel.test_run(&syn, 1).expect("a test run");
        if number % (SOURCES / 8) == 0 {
            for (from, wanted) in [
                ("192.0.2.1", XDP_DROP),
                ("198.51.100.9", XDP_DROP),
                ("192.0.2.2", XDP_PASS),
                ("192.0.2.3", XDP_DROP),
            ] {
                let (action, _) = kernel
                    .test_run(&Frame::v4(from).tcp(SYN).bytes(), 1)
                    .expect("a test run");
                assert_eq!(action, wanted, "{from} after {number} spoofed sources");
            }
        }
    }
    let mut after = image(&mut kernel);
    for list in [List::Allow, List::Deny, List::Block] {
        let hits: u64 = after.list(list).values().map(|rule| rule.hits).sum();
        assert!(hits >= 8, "{}: {hits}", list.name());
        for rule in after.list_mut(list).values_mut() {
            rule.hits = 0;
        }
    }
    assert_eq!(after, before, "nothing was evicted, added or changed");
}

#[test]
fn no_packet_puts_anyone_into_a_list() {
    let pins = Pins::new("promotion");
    let mut kernel = pins.load();
    let settings = Settings {
        ready: 1,
        malformed: u32::MAX,
        features: feature::SYN_LIMIT,
        ..Settings::default()
    };
    apply(&mut kernel, &[Change::settings(settings)]);
    let before = image(&mut kernel);
    // FIN, RST and UDP from whom nobody shook hands with, and every lie of the table.
    for case in cases().iter().filter(|case| case.frame.len() >= SHORTEST) {
        kernel.test_run(&case.frame, 100).expect("a test run");
    }
    assert_eq!(image(&mut kernel), before);
}

#[test]
fn counters_of_all_processors_add_up_to_the_packets_sent() {
    const EACH: u64 = 40_000;
    let pins = Pins::new("sums");
    let mut kernel = pins.load();
    let settings = Settings {
        ready: 1,
        ..Settings::default()
    };
    apply(
        &mut kernel,
        &[Change::settings(settings), put(List::Deny, "192.0.2.1/32")],
    );
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let denied = Frame::v4("192.0.2.1").tcp(ACK).bytes();
    let clean = Frame::v4("192.0.2.2").tcp(ACK).bytes();
    thread::scope(|scope| {
        for processor in 0..processors {
            let (pins, denied, clean) = (&pins, &denied, &clean);
            scope.spawn(move || {
                let mut cpus = rustix::thread::CpuSet::new();
                cpus.set(processor);
                rustix::thread::sched_setaffinity(None, &cpus).expect("a processor of this machine");
                // The same tables through another program, as during an upgrade.
                let mut kernel = pins.load();
                for _ in 0..EACH / 1_000 {
                    kernel.test_run(denied, 1_000).expect("a test run");
                    kernel.test_run(clean, 1_000).expect("a test run");
                }
            });
        }
    });
    let sent = EACH * processors as u64;
    let counters = kernel.counters().expect("counters");
    let of = |slot: u32| counters.get(slot);
    let denies = of(DropReason::Denied.slot());
    assert_eq!((denies.packets, denies.bytes), (sent, sent * denied.len() as u64));
    assert_eq!(of(PassReason::Clean.slot()).packets, sent);
    let total: u64 = counters.0.iter().map(|counter| counter.packets).sum();
    assert_eq!(total, 2 * sent, "each packet once");
    let hits = kernel.enforced().expect("tables").deny[&net("192.0.2.1/32")].hits;
    assert_eq!(hits, sent, "hits are shared by all processors and lose none");
}
