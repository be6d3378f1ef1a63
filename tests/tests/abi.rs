//! The ABI as it was built: the kernel program's object beside `gateway-common` as the gateway compiled it.
//!
//! Two compilers read the same source. What they made of it is compared here without loading anything: the tables by their
//! definitions in the object, the layouts of keys and values by its debug information.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{offset_of, size_of};

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_PERCPU_ARRAY,
};
use aya_obj::maps::PinningType;
use aya_obj::{Object, ProgramSection};
use gateway::dataplane::kernel::OBJECT;
use gateway_common::addr::Addr;
use gateway_common::limiter::{BUCKETS, Bucket};
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{Counter, NET4_BITS, NET6_BITS, Rule, Settings, capacity, names};

#[path = "abi/debug_info.rs"]
mod debug_info;

use debug_info::{DebugInfo, Layout};

/// `BPF_F_NO_PREALLOC` (linux/bpf.h): the kernel demands it of a trie.
const NO_PREALLOC: u32 = 1;
/// Bytes of the length in front of a trie's key (`struct bpf_lpm_trie_key`).
const PREFIX_LEN: u32 = 4;

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
    const RULES: &str = "HashMap<gateway_common::addr::Addr, gateway_common::tables::Rule>";
    let array = |value, entries, holds| Table {
        kind: BPF_MAP_TYPE_ARRAY as u32,
        key: 4,
        value,
        entries,
        flags: 0,
        holds,
    };
    let hash = |entries| Table {
        kind: BPF_MAP_TYPE_HASH as u32,
        key: bytes_of::<Addr>(),
        value: bytes_of::<Rule>(),
        entries,
        flags: NO_PREALLOC,
        holds: RULES,
    };
    let trie = |bits, entries, holds| Table {
        kind: BPF_MAP_TYPE_LPM_TRIE as u32,
        key: PREFIX_LEN + bits / 8,
        value: bytes_of::<Rule>(),
        entries,
        flags: NO_PREALLOC,
        holds,
    };
    let net4 = |entries| {
        trie(
            NET4_BITS,
            entries,
            "LpmTrie<[u32; 1], gateway_common::tables::Rule>",
        )
    };
    let net6 = |entries| {
        trie(
            NET6_BITS,
            entries,
            "LpmTrie<[u32; 4], gateway_common::tables::Rule>",
        )
    };
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
            names::SYN_LIMIT,
            array(
                bytes_of::<Bucket>(),
                BUCKETS,
                "Array<gateway_common::limiter::Bucket>",
            ),
        ),
        (names::ALLOW_ADDR, hash(capacity::ALLOW_ADDRESSES)),
        (names::ALLOW_NET4, net4(capacity::ALLOW_PREFIXES)),
        (names::ALLOW_NET6, net6(capacity::ALLOW_PREFIXES)),
        (names::DENY_ADDR, hash(capacity::DENY_ADDRESSES)),
        (names::DENY_NET4, net4(capacity::DENY_PREFIXES)),
        (names::DENY_NET6, net6(capacity::DENY_PREFIXES)),
        (names::BLOCK_ADDR, hash(capacity::BLOCKS)),
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

/// Every field is named, so a new one does not compile until it is here.
fn layouts() -> [(&'static str, Layout); 5] {
    let Rule {
        deadline_ns: _,
        hits: _,
        origin: _,
        detail: _,
    } = Rule::default();
    let Counter { packets: _, bytes: _ } = Counter::default();
    let Settings {
        features: _,
        ready: _,
        hash_key: _,
        syn_interval_ns: _,
        syn_tolerance_ns: _,
        syn_v6_prefix: _,
        _pad: _,
        log_interval_ns: _,
    } = Settings::default();
    let rule = layout!(Rule {
        deadline_ns,
        hits,
        origin,
        detail
    });
    let settings = layout!(Settings {
        features,
        ready,
        hash_key,
        syn_interval_ns,
        syn_tolerance_ns,
        syn_v6_prefix,
        _pad,
        log_interval_ns
    });
    [
        ("gateway_common::tables::Rule", rule),
        (
            "gateway_common::tables::Counter",
            layout!(Counter { packets, bytes }),
        ),
        ("gateway_common::tables::Settings", settings),
        ("gateway_common::addr::Addr", layout!(Addr { 0 })),
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
    assert!(seen >= 4);
    Ok(())
}
