//! The ABI as it was built: the kernel program's object beside `gateway-common` as the gateway compiled it.
//!
//! Two compilers read the same source. What they made of it is compared here without loading anything: the tables by their
//! definitions in the object, the layouts of keys and values by its debug information.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{offset_of, size_of};

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PROG_ARRAY, BPF_MAP_TYPE_RINGBUF,
};
use aya_obj::maps::PinningType;
use aya_obj::{Object, ProgramSection};
use gateway::dataplane::kernel::OBJECT;
use gateway_common::addresses::{Bucket4, Bucket6, PROBES};
use gateway_common::limiter::{BUCKETS, Bucket};
use gateway_common::networks::{Network, Range4, Range6, SPANS, Span};
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{
    ALL_LISTENERS, Answered, Cookies, Counter, EVENTS_BYTES, Event, Limit, Listener, Settings, names,
};

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
            names::ANSWERED,
            array(
                bytes_of::<Answered>(),
                ALL_LISTENERS + 1,
                "Array<gateway_common::tables::Answered>",
            ),
        ),
        (
            names::COOKIES,
            Table {
                kind: BPF_MAP_TYPE_PROG_ARRAY as u32,
                ..array(bytes_of::<u32>(), 1, "ProgramArray")
            },
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
fn there_are_two_programs_and_the_kernel_may_have_them() -> Result<()> {
    let object = Object::parse(OBJECT)?;
    let names: BTreeSet<_> = object.programs.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from([names::PROGRAM, names::COOKIE_PROGRAM]));
    for program in object.programs.values() {
        assert!(
            matches!(program.section, ProgramSection::Xdp { frags: false, .. }),
            "{:?}",
            program.section
        );
    }
    assert_eq!(object.license.to_str()?, "Dual MIT/GPL");
    assert!(object.btf.is_some(), "the kernel's tools show names by it");
    Ok(())
}

/// The helpers of Linux 6.0, `bpf_tcp_raw_gen_syncookie_ipv4` and the three after it, and the two of 5.18 that copy packets.
/// An older kernel refuses a program that calls one, and must be able to take the first.
#[test]
fn the_first_program_needs_nothing_that_only_the_second_does() -> Result<()> {
    /// `BPF_JMP | BPF_CALL`.
    const CALL: u8 = 0x85;
    let object = Object::parse(OBJECT)?;
    let recent = |name: &str| -> Result<BTreeSet<i32>> {
        let program = object.programs.get(name).context("a program")?;
        let function = object
            .functions
            .get(&program.function_key())
            .context("its function")?;
        let calls = function
            .instructions
            .iter()
            .filter(|insn| insn.code == CALL && insn.src_reg() == 0);
        let recent = |helper: &i32| (204..=207).contains(helper) || (188..=190).contains(helper);
        Ok(calls.map(|insn| insn.imm).filter(recent).collect())
    };
    assert_eq!(recent(names::PROGRAM)?, BTreeSet::new());
    assert_eq!(
        recent(names::COOKIE_PROGRAM)?,
        BTreeSet::from([189, 190, 204, 205, 206, 207])
    );
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
                bypass_until_ns,
                cookies
            }),
        ),
        (
            "gateway_common::tables::Cookies",
            layout!(Cookies {
                ports,
                listeners,
                mss4,
                mss6,
                window_scale,
                _pad
            }),
        ),
        (
            "gateway_common::tables::Listener",
            layout!(Listener { addr, port, _pad }),
        ),
        (
            "gateway_common::tables::Answered",
            layout!(Answered {
                answered_ns,
                refreshed_ns,
                _pad
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
