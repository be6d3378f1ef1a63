//! The loaded program: the same packet table, a differential run against the host, adoption, and the ABI.
//!
//! Needs the privileges to load programs and fails without them; a skip would pass for a result. Frames go through
//! `BPF_PROG_TEST_RUN`, which refuses frames under 14 bytes, so those are run on the host only (`packets.rs`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gateway::config::defaults;
use gateway::config::model::{Capacity, Rate, SynCookies, Xdp};
use gateway::dataplane::cookies::Ability;
use gateway::dataplane::kernel::Options;
use gateway::dataplane::{Backend, Change, Counters, Error, Kernel, List, Memory};
use gateway_common::outcome::{DropReason, PassReason, SLOTS, Verdict};
use gateway_common::tables::{Layout, Limit, Listener, Rule, Settings, feature, limit, names, observe};
use gateway_ebpf::packet::{Cursor, parse};
use gateway_ebpf::policy::decide;
use gateway_tests::packet::{ACK, Frame, SYN};
use gateway_tests::table::{cases, hourly};
use ipnet::IpNet;

#[path = "kernel/clocks.rs"]
mod clocks;
#[path = "kernel/conformance.rs"]
mod conformance;
#[path = "kernel/crowd.rs"]
mod crowd;
#[path = "kernel/random.rs"]
mod random;
#[path = "kernel/speed.rs"]
mod speed;
#[path = "kernel/tamper.rs"]
mod tamper;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const HOUR_NS: u64 = 3600 * 1_000_000_000;
/// The shortest frame a test run takes.
const SHORTEST: usize = 14;

/// A private directory on bpffs, removed with everything in it.
struct Pins(PathBuf);

impl Pins {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(format!("/sys/fs/bpf/gateway-test-{}-{name}", std::process::id()));
        Kernel::remove(&dir).expect("an old directory can be removed");
        Self(dir)
    }

    fn load(&self) -> Kernel {
        self.try_load(small())
            .expect("loading needs root, or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and bpffs")
    }

    fn try_load(&self, capacity: Capacity) -> Result<Kernel, Error> {
        Kernel::load(&Options {
            pin_dir: self.0.clone(),
            capacity,
        })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = Kernel::remove(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

fn small() -> Capacity {
    Capacity {
        deny_addresses: 4096,
        deny_prefixes: 256,
        allow_addresses: 64,
        allow_prefixes: 64,
        blocks: 64,
    }
}

/// A configuration that asks for cookies, and changes no sysctl of the machine that the test runs on.
fn with_cookies() -> Xdp {
    let one = std::num::NonZeroU32::MIN;
    Xdp {
        syn_cookies: Some(SynCookies {
            above: Rate {
                count: one,
                per: Duration::from_secs(1),
            },
            burst: one,
            set_sysctls: false,
        }),
        ..defaults::xdp()
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network literal")
}

fn put(list: List, text: &str) -> Change {
    Change::Put {
        list,
        net: net(text),
        rule: Rule {
            origin: 1,
            ..Rule::default()
        },
    }
}

fn apply(backend: &mut impl Backend, changes: &[Change]) {
    let failures = backend.apply(changes);
    assert!(failures.is_empty(), "{failures:?}");
}

/// What a keeper holds, without how it lays it out.
fn image(backend: &mut impl Backend) -> gateway::dataplane::Image {
    let mut image = backend.enforced().expect("reading the tables");
    image.settings.layout = Layout::default();
    image
}

/// Removes every entry.
fn clear(backend: &mut impl Backend) {
    let image = backend.enforced().expect("reading the tables");
    let mut changes = Vec::new();
    for list in [List::Allow, List::Deny, List::Block] {
        changes.extend(
            image
                .list(list)
                .keys()
                .map(|net| Change::Remove { list, net: *net }),
        );
    }
    apply(backend, &changes);
}

/// The verdict, by the action and by the counters that rose: its own, and that of what was observed.
fn verdict(kernel: &mut Kernel, frame: &[u8]) -> (Verdict, Option<DropReason>) {
    let before = kernel.counters().expect("counters");
    let (action, _) = kernel.test_run(frame, 1).expect("a test run");
    let after = kernel.counters().expect("counters");
    let rose: Vec<u32> = (0..SLOTS)
        .filter(|slot| after.get(*slot) != before.get(*slot))
        .collect();
    for slot in &rose {
        let (old, new) = (before.get(*slot), after.get(*slot));
        assert_eq!(
            (new.packets - old.packets, new.bytes - old.bytes),
            (1, frame.len() as u64)
        );
    }
    let pass = PassReason::ALL.iter().map(|reason| Verdict::Pass(*reason));
    let drop = DropReason::ALL.iter().map(|reason| Verdict::Drop(*reason));
    let verdicts: Vec<_> = pass
        .chain(drop)
        .filter(|verdict| rose.contains(&verdict.slot()))
        .collect();
    let observed: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| rose.contains(&reason.observed_slot()))
        .copied()
        .collect();
    assert_eq!((verdicts.len(), observed.len()), (1, rose.len() - 1), "{rose:?}");
    assert_eq!(action, action_of(verdicts[0]), "{verdicts:?}");
    (verdicts[0], observed.first().copied())
}

fn action_of(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Answer(_) => XDP_TX,
    }
}

fn on_host(memory: &mut Memory, frame: &[u8]) -> Verdict {
    memory.now_ns = boottime_ns();
    let decision = decide(&parse(Cursor::new(frame)), memory);
    memory.leave(decision, frame.len() as u64)
}

/// Uptime to a hundredth of a second, which is enough beside limits of an hour.
fn boottime_ns() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("procfs");
    let seconds: f64 = uptime
        .split(' ')
        .next()
        .and_then(|s| s.parse().ok())
        .expect("a number");
    (seconds * 1e9) as u64
}

#[test]
fn the_packet_table_in_the_kernel() {
    let pins = Pins::new("table");
    let mut kernel = pins.load();
    let mut wrong = Vec::new();
    for case in cases() {
        if case.frame.len() < SHORTEST {
            continue;
        }
        clear(&mut kernel);
        apply(&mut kernel, &case.setup.changes());
        for frame in &case.before {
            kernel.test_run(frame, 1).expect("a test run");
        }
        let got = verdict(&mut kernel, &case.frame);
        let expected = (case.verdict, case.observed);
        if got != expected {
            wrong.push(format!("{}: {got:?}, expected {expected:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_cut_of_every_frame_is_decided_as_on_the_host() {
    let pins = Pins::new("cuts");
    let mut kernel = pins.load();
    let mut memory = Memory::new(kernel.settings().expect("settings").hash_key);
    let changes = [
        Change::settings(Settings {
            ready: 1,
            ..Settings::default()
        }),
        put(List::Deny, "192.0.2.0/24"),
    ];
    apply(&mut kernel, &changes);
    apply(&mut memory, &changes);
    for case in cases() {
        let mut expected = Vec::new();
        for length in SHORTEST..=case.frame.len() {
            let frame = &case.frame[..length];
            let verdict = on_host(&mut memory, frame);
            let (action, _) = kernel.test_run(frame, 1).expect("a test run");
            assert_eq!(
                action,
                action_of(verdict),
                "{} cut at {length}: {verdict:?}",
                case.name
            );
            expected.push(verdict);
        }
        let (on_host, in_kernel) = (
            memory.counters().expect("memory"),
            kernel.counters().expect("counters"),
        );
        assert_eq!(in_kernel, on_host, "{}: {expected:?}", case.name);
    }
}

#[test]
fn hits_are_counted_and_survive_a_replacement() {
    let pins = Pins::new("hits");
    let mut kernel = pins.load();
    apply(
        &mut kernel,
        &[
            Change::settings(Settings {
                ready: 1,
                ..Settings::default()
            }),
            put(List::Deny, "192.0.2.0/24"),
        ],
    );
    kernel
        .test_run(&Frame::v4("192.0.2.9").tcp(ACK).bytes(), 5)
        .expect("a test run");
    apply(&mut kernel, &[put(List::Deny, "192.0.2.0/24")]);
    let found = kernel
        .lookup("192.0.2.77".parse().expect("a literal"))
        .expect("a look-up");
    assert_eq!(
        found.deny_net,
        Some((
            net("192.0.2.0/24"),
            Rule {
                hits: 5,
                origin: 1,
                ..Rule::default()
            }
        ))
    );
}

#[test]
fn a_full_table_says_which_and_the_rest_is_applied() {
    let pins = Pins::new("full");
    let mut kernel = pins
        .try_load(Capacity {
            blocks: 2,
            deny_prefixes: 2,
            ..small()
        })
        .expect("loading");
    let changes = [
        put(List::Block, "192.0.2.1/32"),
        put(List::Block, "192.0.2.2/32"),
        put(List::Block, "192.0.2.3/32"),
        put(List::Deny, "10.0.0.0/8"),
        put(List::Deny, "11.0.0.0/8"),
        put(List::Deny, "12.0.0.0/8"),
        put(List::Deny, "192.0.2.3/32"),
    ];
    let failures = kernel.apply(&changes);
    let failed: Vec<_> = failures.iter().map(|(index, _)| *index).collect();
    assert_eq!(failed, [2, 5], "{failures:?}");
    assert!(
        matches!(
            failures[0].1,
            Error::Full {
                list: "blocks",
                capacity: 2
            }
        ),
        "{:?}",
        failures[0].1
    );
    assert!(
        matches!(
            failures[1].1,
            Error::Full {
                list: "deny_prefixes",
                capacity: 2
            }
        ),
        "{:?}",
        failures[1].1
    );
}

#[test]
fn a_full_list_is_replaced_by_another_one_as_long_and_no_trace_is_left() {
    let pins = Pins::new("replace");
    let mut kernel = pins.load();
    let capacity = small().deny_addresses;
    let list = |round: u32| {
        (0..capacity)
            .map(move |n| IpNet::from(IpAddr::from((0x0b00_0000 + round * capacity + n).to_be_bytes())))
    };
    let empty = image(&mut kernel);
    let mut old: Vec<IpNet> = Vec::new();
    for round in 0..4 {
        let new: Vec<IpNet> = list(round).collect();
        let puts = new.iter().map(|net| Change::Put {
            list: List::Deny,
            net: *net,
            rule: Rule::default(),
        });
        let removals = old.iter().map(|net| Change::Remove {
            list: List::Deny,
            net: *net,
        });
        let changes: Vec<Change> = puts.chain(removals).collect();
        let failures = kernel.apply_at_once(&changes);
        assert!(failures.is_empty(), "round {round}: {:?}", failures.first());
        assert_eq!(kernel.live(1).expect("reading"), [0, capacity as usize, 0]);
        for net in new.iter().step_by(97) {
            assert!(
                kernel.lookup(net.addr()).expect("reading").deny_addr.is_some(),
                "{net}"
            );
        }
        for net in old.iter().step_by(97) {
            assert!(
                kernel.lookup(net.addr()).expect("reading").deny_addr.is_none(),
                "{net}"
            );
        }
        old = new;
    }
    clear(&mut kernel);
    assert_eq!(image(&mut kernel), empty);
}

#[test]
fn pinned_tables_are_adopted_with_all_that_is_in_them() {
    let pins = Pins::new("adopt");
    assert!(matches!(Kernel::pinned(&pins.0), Err(Error::NotPinned { .. })));
    let mut first = pins.load();
    apply(
        &mut first,
        &[
            Change::settings(Settings {
                ready: 1,
                ..Settings::default()
            }),
            put(List::Deny, "192.0.2.1/32"),
        ],
    );
    let image = first.enforced().expect("reading");
    assert_ne!(image.settings.hash_key, [0, 0]);
    drop(first);

    let mut command = Kernel::pinned(&pins.0).expect("pinned");
    assert_eq!(command.enforced().expect("reading"), image);
    let mut second = pins
        .try_load(Capacity {
            blocks: 4096,
            ..small()
        })
        .expect("loading");
    assert_eq!(second.enforced().expect("reading"), image);
    // In the words of the configuration, with the room that there is and what is asked for.
    let [warning] = second.warnings() else {
        panic!("{:?}", second.warnings());
    };
    let room = |most: &Capacity| most.allow_addresses + most.deny_addresses + most.blocks;
    let (has, asked) = (room(&small()), room(&small()) + 4096 - small().blocks);
    for part in [
        format!("room for about {has} addresses"),
        format!("ask for {asked})"),
        "gateway detach".to_owned(),
    ] {
        assert!(warning.contains(&part), "no {part:?} in {warning}");
    }
    assert!(
        !warning.contains("ADDRESSES4") && !warning.contains("networks"),
        "{warning}"
    );
    assert_eq!(
        verdict(&mut second, &Frame::v4("192.0.2.1").tcp(SYN).bytes()),
        (Verdict::Drop(DropReason::Denied), None)
    );
}

#[test]
fn nothing_is_left_after_detaching() {
    let pins = Pins::new("left");
    let kernel = pins.load();
    assert!(pins.0.exists());
    kernel.detach_all().expect("detaching");
    assert!(!Path::new(&pins.0).exists());
}
