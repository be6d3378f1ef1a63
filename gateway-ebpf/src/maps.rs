//! The maps, and the kernel's answer to [`Tables`]. A static's name is its table's name in `gateway_common::tables`.
//!
//! All but the ring of events are arrays: the JIT compiler turns a look-up in one into a few instructions, where a hash
//! map or trie costs a call. The lists and the limiter build what they need on top. The numbers of entries here are
//! the least there can be; user space sets the configured ones.

use core::ptr::NonNull;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use gateway_common::addr::Addr;
use gateway_common::addresses::{Bucket4, Bucket6, EMPTY6, PROBES, WAYS4, WAYS6, home4, home6};
use gateway_common::entry::{Kind, Stamp};
use gateway_common::limiter::{BUCKETS, Bucket, Step, WAYS};
use gateway_common::networks::{Network, Range4, Range6, SPANS, Span, number4, number6, search};
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{Counter, EVENTS_BYTES, Layout, Settings};
use gateway_ebpf::policy::{Found, Tables, rank};

use crate::atomic;

/// `BPF_F_MMAPABLE` of `linux/bpf.h` (kernel 5.5): user space writes the lists through its own memory.
const MAPPED: u32 = 1 << 10;

#[map]
static SETTINGS: Array<Settings> = Array::pinned(2, 0);
#[map]
static SELECTOR: Array<u32> = Array::pinned(1, 0);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::pinned(SLOTS, 0);
#[map]
static ADDRESSES4: Array<Bucket4> = Array::pinned(2 * (PROBES + 1), MAPPED);
#[map]
static ADDRESSES6: Array<Bucket6> = Array::pinned(2 * (PROBES + 1), MAPPED);
#[map]
static SPANS4: Array<Span> = Array::pinned(2 * SPANS, MAPPED);
#[map]
static RANGES4: Array<Range4> = Array::pinned(2, MAPPED);
#[map]
static RANGES6: Array<Range6> = Array::pinned(2, MAPPED);
#[map]
static NETWORKS: Array<Network> = Array::pinned(2, MAPPED);
#[map]
static LIMITER: Array<Bucket> = Array::pinned(BUCKETS, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(EVENTS_BYTES, 0);
/// What this processor remembers between packets. Private to this program, so it is neither named nor pinned.
#[map]
pub static PROCESSOR: PerCpuArray<Processor> = PerCpuArray::with_max_entries(1, 0);

/// Memory of one processor.
#[repr(C)]
pub struct Processor {
    /// Tick of the kernel's timer at which `now_ns` was read.
    tick: u64,
    now_ns: u64,
    /// `CLOCK_BOOTTIME` of the last log line.
    pub logged_ns: u64,
    /// `CLOCK_BOOTTIME` of the last event.
    pub told_ns: u64,
}

/// Times a limiter step is tried again after another processor changed the word.
const RETRIES: u32 = 3;

/// The maps as [`Tables`].
pub struct Kernel;

/// An entry is its tally.
type Entry = NonNull<u64>;

impl Tables for Kernel {
    type Entry = Entry;

    /// The copy that the selector points at. It is rewritten only after the selector has moved away and come back:
    /// two reloads within one packet.
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(*SELECTOR.get(0)?)
    }

    #[inline(always)]
    fn address(&self, source: &Addr, settings: &Settings) -> Option<Found<Entry>> {
        let (layout, observe) = (&settings.layout, settings.observe);
        if source.is_v4() {
            address4(source.0[3], layout, observe)
        } else {
            address6(source.halves(), layout, observe)
        }
    }

    #[inline(always)]
    fn network(&self, source: &Addr, settings: &Settings) -> Option<Found<Entry>> {
        let layout = &settings.layout;
        let (allow, deny) = if source.is_v4() {
            around4(number4(source), layout)?
        } else {
            around6(number6(source), layout)?
        };
        // The allow list is never observed, so a live allow rule can not be outranked.
        if let Some(entry) = live_network(allow, layout) {
            return Some(Found {
                rank: Kind::Allow as u32,
                entry,
            });
        }
        Some(Found {
            rank: rank(Kind::Deny as u32, settings.observe),
            entry: live_network(deny, layout)?,
        })
    }

    /// Reading the clock is a call and costs more than the rest of the program; the tick of the timer is a load. So
    /// the clock is read once a tick on each processor: never when it matters little, seldom when it matters much.
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes no argument and has no effect.
        let tick = unsafe { bpf_jiffies64() };
        let Some(processor) = PROCESSOR.get_ptr_mut(0) else {
            return 0;
        };
        // SAFETY: this processor's own value of the map, and XDP runs without preemption.
        let processor = unsafe { &mut *processor };
        if processor.tick != tick {
            processor.tick = tick;
            // SAFETY: the helper takes no argument and has no effect.
            processor.now_ns = unsafe { bpf_ktime_get_boot_ns() };
        }
        processor.now_ns
    }

    /// A word is replaced only if it is still what the step was computed from. If another processor is faster three
    /// times in a row, the last result is written over its word: one SYN of either source is then not counted.
    #[inline(always)]
    fn limit(&self, bucket: u32, step: impl Fn(&[u64; WAYS]) -> Step) -> bool {
        let Some(bucket) = LIMITER.get_ptr_mut(bucket) else {
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

/// Whether an entry is in force. The clock is read only if the entry has an end.
#[inline(always)]
fn live(stamp: Stamp) -> bool {
    !stamp.ends() || stamp.lasts_at(Kernel.now_ns())
}

/// Prefers `tally` to what was found so far if its list speaks more strongly.
#[inline(always)]
fn consider(best: &mut Option<Found<Entry>>, stamp: Stamp, tally: *mut u64, observe: u32) {
    // A place whose entry is gone has no kind.
    if stamp.kind() == 0 || !live(stamp) {
        return;
    }
    let rank = rank(stamp.kind(), observe);
    if best.is_none_or(|best| rank < best.rank)
        && let Some(entry) = NonNull::new(tally)
    {
        *best = Some(Found { rank, entry });
    }
}

#[inline(always)]
fn address4(addr: u32, layout: &Layout, observe: u32) -> Option<Found<Entry>> {
    let mut best = None;
    let first = layout.addresses4 + home4(addr, &layout.mix, layout.buckets4);
    for probe in 0..PROBES {
        let Some(bucket) = ADDRESSES4.get_ptr_mut(first + probe) else {
            break;
        };
        let mut slot = 0;
        for way in 0..WAYS4 {
            // SAFETY: an aligned word of the bucket, read whole, whatever user space does to it meanwhile.
            slot = unsafe { (&raw const (*bucket).slots[way]).read_volatile() };
            if slot as u32 == addr {
                // SAFETY: a place of the bucket.
                let tally = unsafe { &raw mut (*bucket).tallies[way] };
                consider(&mut best, Stamp((slot >> 32) as u32), tally, observe);
            }
        }
        // The last place tells whether the bucket was ever full.
        if slot == 0 {
            break;
        }
    }
    best
}

#[inline(always)]
fn address6(key: [u64; 2], layout: &Layout, observe: u32) -> Option<Found<Entry>> {
    let mut best = None;
    let first = layout.addresses6 + home6(key, &layout.mix, layout.buckets6);
    for probe in 0..PROBES {
        let Some(bucket) = ADDRESSES6.get_ptr_mut(first + probe) else {
            break;
        };
        let mut there = EMPTY6;
        for way in 0..WAYS6 {
            there = key6(bucket, way);
            if there == key {
                // SAFETY: an aligned word of the bucket, read whole.
                let stamp = unsafe { (&raw const (*bucket).stamps[way]).read_volatile() };
                // The place may have been given to another address between the two reads.
                if key6(bucket, way) == key {
                    // SAFETY: a place of the bucket.
                    let tally = unsafe { &raw mut (*bucket).tallies[way] };
                    consider(&mut best, Stamp(stamp), tally, observe);
                }
            }
        }
        if there == EMPTY6 {
            break;
        }
    }
    best
}

#[inline(always)]
fn key6(bucket: *const Bucket6, way: usize) -> [u64; 2] {
    // SAFETY: aligned words of a bucket in a map, each read whole.
    core::array::from_fn(|half| unsafe { (&raw const (*bucket).keys[way][half]).read_volatile() })
}

/// References to the longest allow and deny networks around an address.
#[inline(always)]
fn around4(number: u32, layout: &Layout) -> Option<(u32, u32)> {
    let span = SPANS4.get(layout.spans4 + (number >> 16))?;
    let at = |index: u32| RANGES4.get(layout.ranges4 + index);
    let range = at(search(span.first, span.last, |index| Some(at(index)?.start <= number))?)?;
    Some((range.allow, range.deny))
}

#[inline(always)]
fn around6(number: [u64; 2], layout: &Layout) -> Option<(u32, u32)> {
    let at = |index: u32| RANGES6.get(layout.ranges6 + index);
    let begins = |index| {
        let [high, low] = at(index)?.start;
        Some(high < number[0] || high == number[0] && low <= number[1])
    };
    let range = at(search(0, layout.last6, begins)?)?;
    Some((range.allow, range.deny))
}

/// The entry of a network if there is one and it is in force.
#[inline(always)]
fn live_network(reference: u32, layout: &Layout) -> Option<Entry> {
    if reference == 0 {
        return None;
    }
    let network = NETWORKS.get_ptr_mut(layout.networks + reference)?;
    // SAFETY: an aligned word of a map value.
    let stamp = Stamp(unsafe { (&raw const (*network).stamp).read_volatile() });
    if !live(stamp) {
        return None;
    }
    // SAFETY: a field of a map value.
    NonNull::new(unsafe { &raw mut (*network).tally })
}
