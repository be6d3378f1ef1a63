//! The ABI as it was built: the kernel program's object beside `gateway-common` as the gateway compiled it.
//!
//! Two compilers read the same source. What they made of it is compared here without loading anything: the tables by their
//! definitions in the object, the layouts of keys and values by its debug information.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{offset_of, size_of};

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_RINGBUF};
use aya_obj::maps::PinningType;
use aya_obj::{Object, ProgramSection};
use gateway::dataplane::kernel::OBJECT;
use gateway_common::addresses::{Bucket4, Bucket6, PROBES};
use gateway_common::limiter::{BUCKETS, Bucket};
use gateway_common::networks::{Network, Range4, Range6, SPANS, Span};
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{Counter, EVENTS_BYTES, Event, Limit, Settings, names};

#[path = "abi/debug_info.rs"]
mod debug_info;

use debug_info::{DebugInfo, Layout};

/// `BPF_F_MMAPABLE` (linux/bpf.h): user space writes the lists through its own memory.
const MAPPED: u32 = 1 << 10;

/// A table as it must be. `holds` is how the program itself calls what is in it.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    holds: &'static str,
}

fn bytes_of<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("a small type")
}

fn expected() -> BTreeMap<&'static str, Table> {
    let array = |value, entries, holds| Table {
        kind: BPF_MAP_TYPE_ARRAY as u32,
        key: 4,
        value,
        entries,
        flags: 0,
        holds,
    };
    let mapped = |value, entries, holds| Table {
        flags: MAPPED,
        ..array(value, entries, holds)
    };
    let halves = |entries| 2 * entries;
    BTreeMap::from([
        (
            names::SETTINGS,
            array(
                bytes_of::<Settings>(),
                2,
                "Array<gateway_common::tables::Settings>",
            ),
        ),
        (names::SELECTOR, array(bytes_of::<u32>(), 1, "Array<u32>")),
        (
            names::COUNTERS,
            Table {
                kind: BPF_MAP_TYPE_PERCPU_ARRAY as u32,
                ..array(
                    bytes_of::<Counter>(),
                    SLOTS,
                    "PerCpuArray<gateway_common::tables::Counter>",
                )
            },
        ),
        (
            names::LIMITER,
            array(
                bytes_of::<Bucket>(),
                BUCKETS,
                "Array<gateway_common::limiter::Bucket>",
            ),
        ),
        (
            names::ADDRESSES4,
            mapped(
                bytes_of::<Bucket4>(),
                halves(PROBES + 1),
                "Array<gateway_common::addresses::Bucket4>",
            ),
        ),
        (
            names::ADDRESSES6,
            mapped(
                bytes_of::<Bucket6>(),
                halves(PROBES + 1),
                "Array<gateway_common::addresses::Bucket6>",
            ),
        ),
        (
            names::SPANS4,
            mapped(
                bytes_of::<Span>(),
                halves(SPANS),
                "Array<gateway_common::networks::Span>",
            ),
        ),
        (
            names::RANGES4,
            mapped(
                bytes_of::<Range4>(),
                halves(1),
                "Array<gateway_common::networks::Range4>",
            ),
        ),
        (
            names::RANGES6,
            mapped(
                bytes_of::<Range6>(),
                halves(1),
                "Array<gateway_common::networks::Range6>",
            ),
        ),
        (
            names::NETWORKS,
            mapped(
                bytes_of::<Network>(),
                halves(1),
                "Array<gateway_common::networks::Network>",
            ),
        ),
        (
            names::EVENTS,
            Table {
                kind: BPF_MAP_TYPE_RINGBUF as u32,
                key: 0,
                value: 0,
                entries: EVENTS_BYTES,
                flags: 0,
                holds: "RingBuf",
            },
        ),
    ])
}

#[test]
fn each_table_is_the_one_that_user_space_writes_to() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let info = DebugInfo::read(OBJECT)?;
    for (name, wanted) in expected() {
        let map = object
            .maps
            .get(name)
            .with_context(|| format!("no table {name}"))?;
        let holds = info.variables.get(name).map_or("", String::as_str);
        let built = Table {
            kind: map.map_type(),
            key: map.key_size(),
            value: map.value_size(),
            entries: map.max_entries(),
            flags: map.map_flags(),
            holds: if holds == wanted.holds { wanted.holds } else { "" },
        };
        assert_eq!(built, wanted, "{name}, which holds {holds}");
        assert_eq!(map.pinning(), PinningType::ByName, "{name}");
        assert!(name.len() <= 15, "{name} is longer than the kernel takes");
    }
    Ok(())
}

#[test]
fn nothing_else_outlives_the_program() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let pinned: BTreeSet<&str> = object
        .maps
        .iter()
        .filter(|(_, map)| map.pinning() != PinningType::None)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(pinned, expected().keys().copied().collect());
    Ok(())
}

#[test]
fn there_is_one_program_and_the_kernel_may_have_it() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let programs: Vec<_> = object.programs.iter().collect();
    let [(name, program)] = programs[..] else {
        anyhow::bail!("{} programs", programs.len());
    };
    assert_eq!(name, names::PROGRAM);
    assert!(
        matches!(program.section, ProgramSection::Xdp { frags: false, .. }),
        "{:?}",
        program.section
    );
    assert_eq!(object.license.to_str()?, "Dual MIT/GPL");
    assert!(object.btf.is_some(), "the kernel's tools show names by it");
    Ok(())
}

/// The layout of a struct on this side.
macro_rules! layout {
    ($name:ty { $($field:tt),* }) => {
        Layout {
            size: size_of::<$name>() as u64,
            members: vec![$((stringify!($field).to_owned(), offset_of!($name, $field) as u64)),*],
        }
    };
}

/// Every field is named, so a new one is missed here once the object has it.
fn layouts() -> Vec<(&'static str, Layout)> {
    vec![
        (
            "gateway_common::tables::Counter",
            layout!(Counter { packets, bytes }),
        ),
        (
            "gateway_common::tables::Settings",
            layout!(Settings {
                features,
                ready,
                malformed,
                observe,
                hash_key,
                layout,
                limits,
                log_interval_ns,
                event_interval_ns,
                bypass_until_ns
            }),
        ),
        (
            "gateway_common::tables::Layout",
            layout!(gateway_common::tables::Layout {
                mix,
                addresses4,
                buckets4,
                addresses6,
                buckets6,
                spans4,
                ranges4,
                ranges6,
                last6,
                networks,
                _pad
            }),
        ),
        (
            "gateway_common::tables::Limit",
            layout!(Limit {
                interval,
                tolerance,
                longest,
                mask4,
                mask6
            }),
        ),
        (
            "gateway_common::tables::Event",
            layout!(Event {
                time_ns,
                source,
                slot,
                ifindex,
                length,
                port,
                protocol,
                _pad
            }),
        ),
        (
            "gateway_common::addresses::Bucket4",
            layout!(Bucket4 { slots, tallies }),
        ),
        (
            "gateway_common::addresses::Bucket6",
            layout!(Bucket6 {
                keys,
                stamps,
                tallies,
                _pad
            }),
        ),
        ("gateway_common::networks::Span", layout!(Span { first, last })),
        (
            "gateway_common::networks::Range4",
            layout!(Range4 {
                start,
                allow,
                deny,
                _pad
            }),
        ),
        (
            "gateway_common::networks::Range6",
            layout!(Range6 {
                start,
                allow,
                deny,
                _pad
            }),
        ),
        (
            "gateway_common::networks::Network",
            layout!(Network {
                addr,
                bits,
                stamp,
                tally
            }),
        ),
        ("gateway_common::limiter::Bucket", layout!(Bucket { 0 })),
    ]
}

#[test]
fn both_compilers_lay_out_keys_and_values_alike() -> Result<()> {
    let info = DebugInfo::read(OBJECT)?;
    let mut seen = 0;
    for (name, wanted) in layouts() {
        for built in info.structs.get(name).into_iter().flatten() {
            // A field of a tuple is `__0` in debug information.
            let mut built = built.clone();
            for (field, _) in &mut built.members {
                *field = field.trim_start_matches("__").to_owned();
            }
            assert_eq!(built, wanted, "{name}");
            seen += 1;
        }
        // What the program only ever reaches through a pointer to its first word is known by its size alone, above.
        if name != "gateway_common::limiter::Bucket" {
            assert!(
                info.structs.contains_key(name),
                "no {name} in the object's debug information"
            );
        }
    }
    assert!(seen >= 10, "{seen}");
    Ok(())
}
