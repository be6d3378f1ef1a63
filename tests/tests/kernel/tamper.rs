//! What someone else did to the tables that no list shows: keys, layout, ranges. Each is seen, told of and put right, by the
//! process that wrote them and by one that comes after it.

use std::ops::Range;

use aya::maps::{Array, Map, MapData};
use gateway_common::ABI_VERSION;

use super::*;

const SIZE: usize = size_of::<Settings>();
const SOURCES: [&str; 4] = ["192.0.2.7", "198.51.100.200", "2001:db8::7", "2001:db8:1:ffff::1"];

/// What is done to the tables, and its name.
type Tamper = (&'static str, fn(&Pins));

fn array<V: aya::Pod>(pins: &Pins, name: &str) -> Array<MapData, V> {
    let pin = pins.0.join(format!("v{ABI_VERSION}/{name}"));
    let map = Map::Array(MapData::from_pin(pin).expect("a pinned map"));
    map.try_into().expect("an array")
}

/// Zeroes these bytes of the copies of the settings.
fn wipe(pins: &Pins, copies: &[u32], bytes: Range<usize>) {
    let mut settings = array::<[u8; SIZE]>(pins, names::SETTINGS);
    for copy in copies {
        let mut value = settings.get(copy, 0).expect("reading");
        value[bytes.clone()].fill(0);
        settings.set(*copy, value, 0).expect("writing");
    }
}

/// Zeroes whole values of a table, of both halves.
fn empty<const WORDS: usize>(pins: &Pins, name: &str) {
    let mut map = array::<[u64; WORDS]>(pins, name);
    for index in 0..map.len() {
        map.set(index, [0; WORDS], 0).expect("writing");
    }
}

fn live_copy(pins: &Pins) -> u32 {
    let selector = array::<u32>(pins, names::SELECTOR);
    selector.get(&0, 0).expect("reading") & 1
}

fn ready() -> Change {
    Change::settings(Settings {
        ready: 1,
        ..Settings::default()
    })
}

/// Many addresses, so that some stand in every part of the tables, and networks of both families.
fn lists() -> Vec<Change> {
    let mut changes = vec![
        ready(),
        put(List::Deny, "198.51.100.0/24"),
        put(List::Deny, "2001:db8:1::/48"),
        put(List::Block, "203.0.113.5/32"),
        put(List::Deny, "192.0.2.7/32"),
        put(List::Deny, "2001:db8::7/128"),
    ];
    changes.extend((0..1000).map(|n| put(List::Deny, &format!("10.0.{}.{}/32", n / 250, n % 250))));
    changes
}

/// How many of the denied and blocked sources are dropped.
fn dropped(kernel: &mut Kernel) -> usize {
    let mut sources: Vec<String> = SOURCES.map(str::to_owned).to_vec();
    sources.push("203.0.113.5".to_owned());
    sources.extend((0..100).map(|n| format!("10.0.{}.{}", n % 4, n)));
    let frame = |source: &str| match source.contains(':') {
        true => Frame::v6(source).tcp(SYN).bytes(),
        false => Frame::v4(source).tcp(SYN).bytes(),
    };
    let mut run = |source: &String| kernel.test_run(&frame(source), 1).expect("a test run").0;
    sources.iter().filter(|source| run(source) == XDP_DROP).count()
}

const ALL: usize = 105;

/// What a comparison does, but for the lists themselves.
fn mend(kernel: &mut Kernel) -> Vec<String> {
    kernel.enforced().expect("reading");
    let mended = kernel.mend().expect("mending");
    mended.into_iter().map(|mended| mended.what).collect()
}

fn filled(pins: &Pins) -> Kernel {
    let mut kernel = pins.load();
    apply(&mut kernel, &lists());
    assert_eq!(mend(&mut kernel), [""; 0]);
    assert_eq!(dropped(&mut kernel), ALL);
    kernel
}

#[test]
fn settings_that_someone_else_wrote_are_put_back_whole() {
    let pins = Pins::new("wiped");
    let mut kernel = filled(&pins);
    let before = kernel.settings().expect("settings");
    for (bytes, part) in [
        (0..4, "marks of tables"),
        (16..32, "limiter's key"),
        (32..64, "key of single addresses"),
        (64..104, "layout"),
        (64..128, "layout"),
        (80..84, "layout"),
        (0..SIZE, "limiter's key, key of single addresses, layout"),
    ] {
        wipe(&pins, &[live_copy(&pins)], bytes.clone());
        let told = mend(&mut kernel);
        assert!(told.len() == 1 && told[0].contains(part), "{bytes:?}: {told:?}");
        // The lists' comparison sees to the rest of the settings.
        apply(&mut kernel, &[ready()]);
        assert_eq!(kernel.settings().expect("settings"), before, "{bytes:?}");
        assert_eq!(dropped(&mut kernel), ALL, "{bytes:?}");
        assert_eq!(mend(&mut kernel), [""; 0], "{bytes:?}");
    }
    let mut selector = array::<u32>(&pins, names::SELECTOR);
    selector.set(0, 2, 0).expect("writing");
    assert_eq!(dropped(&mut kernel), 0, "the program has no settings");
    assert_eq!(mend(&mut kernel).len(), 1);
    assert_eq!(dropped(&mut kernel), ALL);
}

#[test]
fn settings_wiped_before_a_restart_cost_no_entry_its_effect() {
    for (name, both, bytes) in [
        ("key", false, 32..64),
        ("keys", true, 32..64),
        ("limits", true, 16..32),
        ("layout", false, 64..104),
        ("all", false, 0..SIZE),
    ] {
        let pins = Pins::new(name);
        let mut kernel = filled(&pins);
        // Both copies name the same halves, as they do but for a moment after a switch.
        apply(&mut kernel, &[ready()]);
        drop(kernel);
        let copies = if both { vec![0, 1] } else { vec![live_copy(&pins)] };
        wipe(&pins, &copies, bytes);
        let mut kernel = pins.load();
        assert!(!mend(&mut kernel).is_empty(), "{name}");
        apply(&mut kernel, &[ready()]);
        assert_eq!(dropped(&mut kernel), ALL, "{name}");
        assert_eq!(mend(&mut kernel), [""; 0], "{name}");
        assert_ne!(kernel.settings().expect("settings").hash_key, [0; 2], "{name}");
    }
}

#[test]
fn a_key_that_looks_right_and_is_not_has_the_tables_written_anew() {
    let pins = Pins::new("rekeyed");
    drop(filled(&pins));
    let mut settings = array::<Settings>(&pins, names::SETTINGS);
    for copy in [0, 1] {
        let mut value = settings.get(&copy, 0).expect("reading");
        value.layout.mix = [0x9e37_79b9_7f4a_7c15, 5, 7, 9];
        settings.set(copy, value, 0).expect("writing");
    }
    let mut kernel = pins.load();
    assert!(
        dropped(&mut kernel) < ALL / 2,
        "the tables are hashed by another key"
    );
    let told = mend(&mut kernel);
    assert!(
        told.iter()
            .any(|what| what.contains("IPv4 addresses stood where")),
        "{told:?}"
    );
    assert_eq!(dropped(&mut kernel), ALL);
    assert_eq!(mend(&mut kernel), [""; 0]);
    let image = kernel.enforced().expect("reading");
    assert_eq!(image.deny.len() + image.block.len(), lists().len() - 1);
}

#[test]
fn ranges_and_spans_that_someone_else_wrote_are_made_anew() {
    let pins = Pins::new("ranges");
    let mut kernel = filled(&pins);
    let tamper: [Tamper; 4] = [
        ("spans", |pins| empty::<1>(pins, names::SPANS4)),
        ("ranges", |pins| empty::<2>(pins, names::RANGES4)),
        ("IPv6 ranges", |pins| empty::<4>(pins, names::RANGES6)),
        ("wild spans", |pins| {
            let mut spans = array::<u64>(pins, names::SPANS4);
            for index in 0..spans.len() {
                spans.set(index, u64::MAX, 0).expect("writing");
            }
        }),
    ];
    for (name, tamper) in tamper {
        for restart in [false, true] {
            tamper(&pins);
            assert!(dropped(&mut kernel) < ALL, "{name}");
            // `explain` leads nowhere, and ends.
            kernel
                .lookup("198.51.100.200".parse().expect("an address"))
                .expect("reading");
            if restart {
                kernel = pins.load();
            }
            let told = mend(&mut kernel);
            assert!(told.len() == 1 && told[0].contains("ranges"), "{name}: {told:?}");
            assert_eq!(dropped(&mut kernel), ALL, "{name}");
            assert_eq!(mend(&mut kernel), [""; 0], "{name}");
        }
    }
}

/// What the comparison of every 30 seconds costs beside reading the lists. Said, not judged: a debug build is no measure.
#[test]
fn a_comparison_of_full_tables_is_bounded() {
    let pins = Pins::new("cost");
    let most = defaults::capacity();
    let mut kernel = pins.try_load(most).expect("loading");
    let mut changes: Vec<Change> = (0..1_000_000_u32)
        .map(|n| put_net(IpNet::from(IpAddr::from((0x0b00_0000 + n * 13).to_be_bytes()))))
        .collect();
    changes.extend((0..100_000_u32).map(|n| {
        let addr = IpAddr::from((0x4000_0000 + (n << 9)).to_be_bytes());
        put_net(IpNet::new(addr, 24).expect("a network"))
    }));
    apply(&mut kernel, &changes);
    let began = Instant::now();
    kernel.enforced().expect("reading");
    let read = began.elapsed();
    assert_eq!(kernel.mend().expect("mending"), []);
    let all = began.elapsed();
    println!(
        "reading 1.1 million entries took {read:?}, looking after them {:?}",
        all - read
    );
    assert!(all < Duration::from_secs(25), "{all:?}");
}

fn put_net(net: IpNet) -> Change {
    Change::Put {
        list: List::Deny,
        net,
        rule: Rule::default(),
    }
}
