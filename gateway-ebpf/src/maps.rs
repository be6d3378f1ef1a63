//! The maps, and the kernel's answer to [`Tables`]. A static's name is its table's name in `gateway_common::tables`.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key};
use gateway_common::addr::Addr;
use gateway_common::limiter::{BUCKETS, Bucket, Step, WAYS};
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{Counter, Rule, Settings, capacity};
use gateway_ebpf::policy::{Table, Tables};

use crate::atomic;

/// Data of an IPv4 prefix key, as in the packet.
type Net4 = [u32; 1];
/// Data of an IPv6 prefix key, as in the packet.
type Net6 = [u32; 4];

#[map]
static SETTINGS: Array<Settings> = Array::pinned(2, 0);
#[map]
static SELECTOR: Array<u32> = Array::pinned(1, 0);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::pinned(SLOTS, 0);
/// When this processor last wrote a log line. Private to this program, so it is neither named nor pinned.
#[map]
pub static LAST_LOG: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SYN_LIMIT: Array<Bucket> = Array::pinned(BUCKETS, 0);

// Without preallocation an empty table costs nothing, and an entry that is read can not become another one.
#[map]
static ALLOW_ADDR: HashMap<Addr, Rule> = HashMap::pinned(capacity::ALLOW_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static ALLOW_NET4: LpmTrie<Net4, Rule> = LpmTrie::pinned(capacity::ALLOW_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static ALLOW_NET6: LpmTrie<Net6, Rule> = LpmTrie::pinned(capacity::ALLOW_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static DENY_ADDR: HashMap<Addr, Rule> = HashMap::pinned(capacity::DENY_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static DENY_NET4: LpmTrie<Net4, Rule> = LpmTrie::pinned(capacity::DENY_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static DENY_NET6: LpmTrie<Net6, Rule> = LpmTrie::pinned(capacity::DENY_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static BLOCK_ADDR: HashMap<Addr, Rule> = HashMap::pinned(capacity::BLOCKS, BPF_F_NO_PREALLOC);

/// Times a limiter step is tried again after another processor changed the word.
const RETRIES: u32 = 3;

/// The maps as [`Tables`].
pub struct Kernel;

impl Tables for Kernel {
    type Entry = NonNull<Rule>;

    /// The copy that the selector points at. It is rewritten only after the selector has moved away and come back:
    /// two reloads within one packet.
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(*SELECTOR.get(0)?)
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes no argument and has no effect.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn find(&self, table: Table, source: &Addr, bits: u32) -> Option<Self::Entry> {
        let net4 = || Key::new(bits, [source.0[3]]);
        let net6 = || Key::new(bits, source.0);
        match table {
            Table::AllowAddr => entry(ALLOW_ADDR.get_ptr(source)),
            Table::AllowNet4 => entry(ALLOW_NET4.get(net4()).map(core::ptr::from_ref)),
            Table::AllowNet6 => entry(ALLOW_NET6.get(net6()).map(core::ptr::from_ref)),
            Table::DenyAddr => entry(DENY_ADDR.get_ptr(source)),
            Table::DenyNet4 => entry(DENY_NET4.get(net4()).map(core::ptr::from_ref)),
            Table::DenyNet6 => entry(DENY_NET6.get(net6()).map(core::ptr::from_ref)),
            Table::BlockAddr => entry(BLOCK_ADDR.get_ptr(source)),
        }
    }

    #[inline(always)]
    fn deadline_ns(&self, entry: Self::Entry) -> u64 {
        // SAFETY: an entry of a map stays readable until the program ends (RCU).
        unsafe { (&raw const (*entry.as_ptr()).deadline_ns).read() }
    }

    #[inline(always)]
    fn prefix_len(&self, entry: Self::Entry) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*entry.as_ptr()).detail).read() }
    }

    /// A word is replaced only if it is still what the step was computed from. If another processor is faster three
    /// times in a row, the last result is written over its word: one SYN of either source is then not counted.
    #[inline(always)]
    fn limit(&self, bucket: u32, step: impl Fn(&[u64; WAYS]) -> Step) -> bool {
        let Some(bucket) = SYN_LIMIT.get_ptr_mut(bucket) else {
            return true;
        };
        let words = bucket.cast::<u64>();
        for _ in 0..RETRIES {
            let step = step(&read(words));
            // SAFETY: `way` is below `WAYS`, masked so that the verifier knows it too.
            let word = unsafe { words.add(step.way & (WAYS - 1)) };
            // SAFETY: an aligned word of a map, which every writer changes atomically.
            if step.new == step.old || unsafe { atomic::swap_if(word, step.old, step.new) } {
                return step.within;
            }
        }
        let step = step(&read(words));
        // SAFETY: as above.
        unsafe { words.add(step.way & (WAYS - 1)).write_volatile(step.new) };
        step.within
    }
}

/// The words of a bucket, each read once and whole.
#[inline(always)]
fn read(words: *const u64) -> [u64; WAYS] {
    // SAFETY: the pointer is to a `Bucket` of a map, which holds `WAYS` aligned words.
    core::array::from_fn(|way| unsafe { words.add(way).read_volatile() })
}

#[inline(always)]
fn entry(rule: Option<*const Rule>) -> Option<NonNull<Rule>> {
    NonNull::new(rule?.cast_mut())
}
