//! The maps, and the kernel's answer to [`Tables`]. A static's name is its table's name in `gateway_common::tables`.
//!
//! All but the ring of events are arrays: the JIT compiler turns a look-up in one into a few instructions, where a hash
//! map or trie costs a call. The lists and the limiter build what they need on top. The numbers of entries here are
//! the least there can be; user space sets the configured ones.

use core::num::NonZeroU64;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray, RingBuf};
use gateway_common::addr::Addr;
use gateway_common::addresses::{Bucket4, Bucket6, EMPTY6, PROBES, WAYS4, WAYS6, home4, home6};
use gateway_common::branchless::{is_zero, opaque, smaller};
use gateway_common::entry::{Kind, Stamp};
use gateway_common::limiter::{self, BUCKETS, Bucket, Place, WAYS};
use gateway_common::networks::{Network, Range4, Range6, SPANS, Span, number4, number6, search};
use gateway_common::outcome::SLOTS;
use gateway_common::tables::{
    ALL_LISTENERS, ANSWERING_NS, Answered, Counter, EVENTS_BYTES, Layout, Limit, Settings,
};
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
/// The second program, if the kernel has what it needs. Pinned, since the kernel empties such an array once user space holds
/// it no more.
#[map]
pub static COOKIES: ProgramArray = ProgramArray::pinned(1, 0);
#[map]
pub static ANSWERED: Array<Answered> = Array::pinned(ALL_LISTENERS + 1, 0);
/// What this processor remembers between packets. Private to this program, so it is neither named nor pinned.
#[map]
static PROCESSOR: PerCpuArray<Processor> = PerCpuArray::with_max_entries(1, 0);

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
    /// See [`Kernel::forget`].
    scratch: [u64; 2],
}

/// The maps as [`Tables`], and the memory of the processor that the packet is on.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// This processor's own value of a map: nobody else writes it, as XDP runs without preemption.
    processor: *mut Processor,
}

impl Kernel {
    /// `None` never happens, but the verifier does not know.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        let processor = PROCESSOR.get_ptr_mut(0)?;
        Some(Self { processor })
    }

    /// What the processor remembers.
    #[inline(always)]
    pub fn processor(&mut self) -> &mut Processor {
        // SAFETY: a map value of this processor alone.
        unsafe { &mut *self.processor }
    }

    /// A copy of `value` of which the verifier knows nothing.
    ///
    /// It follows each path on its own for as long as the paths differ in a number they will branch on. A packet has a
    /// dozen ways to be read and a decision twenty ways to be made; what comes after must not be followed for each.
    #[inline(always)]
    pub fn forget<T: Copy>(&self, value: T) -> T {
        const { assert!(size_of::<T>() <= size_of::<[u64; 2]>() && align_of::<T>() <= 8) };
        // SAFETY: a map value of this processor alone, with room for a `T`, which is read as it was written.
        unsafe {
            let scratch = (&raw mut (*self.processor).scratch).cast::<T>();
            scratch.write_volatile(value);
            scratch.read_volatile()
        }
    }
}

/// An entry by its place: a table, the number of a value in its map, and a place in that value.
///
/// A number and no pointer: the verifier follows each pointer on its own, and numbers together.
#[derive(Clone, Copy)]
pub struct Entry(NonZeroU64);

/// Values of the part of [`Entry`] that names the table.
mod table {
    pub(super) const ADDRESSES4: u64 = 0;
    pub(super) const ADDRESSES6: u64 = 1;
    pub(super) const NETWORKS: u64 = 2;
}

impl Entry {
    const TABLE: u32 = 48;
    const INDEX: u32 = 8;
    /// Never zero.
    const MARK: NonZeroU64 = NonZeroU64::new(1 << 56).unwrap();

    #[inline(always)]
    fn new(table: u64, index: u32, way: u32) -> Self {
        Self(Self::MARK | (table << Self::TABLE | u64::from(index) << Self::INDEX | u64::from(way)))
    }

    /// Counts a packet that met it.
    #[inline(always)]
    pub fn hit(self) {
        let number = self.0.get();
        let (index, way) = ((number >> Self::INDEX) as u32, number as usize & 7);
        let tally = match number >> Self::TABLE & 7 {
            table::ADDRESSES4 => ADDRESSES4
                .get_ptr_mut(index)
                // SAFETY: a place of a map value, which is there for as long as the map.
                .map(|bucket| unsafe { &raw mut (*bucket).tallies[way & (WAYS4 - 1)] }),
            table::ADDRESSES6 => ADDRESSES6
                .get_ptr_mut(index)
                // SAFETY: as above.
                .map(|bucket| unsafe { &raw mut (*bucket).tallies[way & (WAYS6 - 1)] }),
            _ => NETWORKS
                .get_ptr_mut(index)
                // SAFETY: as above.
                .map(|network| unsafe { &raw mut (*network).tally }),
        };
        if let Some(tally) = tally {
            // SAFETY: an aligned word of a map, whose lower bits count hits and have room for all there will ever be.
            unsafe { atomic::add(tally, 1) };
        }
    }
}

impl Tables for Kernel {
    type Entry = Entry;

    /// The copy that the selector points at. It is rewritten only after the selector has moved away and come back:
    /// two reloads within one packet.
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(*SELECTOR.get(0)?)
    }

    #[inline(always)]
    fn address(&self, source: &Addr, settings: &Settings, now_ns: u64) -> Found<Entry> {
        if source.is_v4() {
            address4(source.0[3], settings, now_ns)
        } else {
            address6(source.halves(), settings, now_ns)
        }
    }

    #[inline(always)]
    fn network(&self, source: &Addr, settings: &Settings, now_ns: u64) -> Found<Entry> {
        let layout = &settings.layout;
        let around = if source.is_v4() {
            around4(number4(source), layout)
        } else {
            around6(number6(source), layout)
        };
        let Some((allow, deny)) = around else {
            return Found::nothing();
        };
        // The allow list is never observed, so a live allow rule can not be outranked.
        let entry = live_network(allow, layout, now_ns);
        if entry.is_some() {
            return Found {
                rank: Kind::Allow as u32,
                entry,
            };
        }
        let entry = live_network(deny, layout, now_ns);
        if entry.is_none() {
            return Found::nothing();
        }
        Found {
            rank: rank(Kind::Deny as u32, settings.observe),
            entry,
        }
    }

    #[inline(always)]
    fn settle<V: Copy>(&self, value: V) -> V {
        self.forget(value)
    }

    /// Reading the clock is a call and costs more than the rest of the program; the tick of the timer is a load. So
    /// the clock is read once a tick on each processor: never when it matters little, seldom when it matters much.
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes no argument and has no effect.
        let tick = unsafe { bpf_jiffies64() };
        // SAFETY: a map value of this processor alone.
        let processor = unsafe { &mut *self.processor };
        if processor.tick != tick {
            processor.tick = tick;
            // SAFETY: the helper takes no argument and has no effect.
            processor.now_ns = unsafe { bpf_ktime_get_boot_ns() };
        }
        processor.now_ns
    }

    #[inline(always)]
    fn answering(&self, now_ns: u64) -> bool {
        let Some(answered) = ANSWERED.get_ptr(ALL_LISTENERS) else {
            return false;
        };
        // SAFETY: an aligned word of a map value.
        let last = unsafe { (&raw const (*answered).answered_ns).read_volatile() };
        // Another processor's clock may be a tick ahead of this one's.
        last != 0 && now_ns.saturating_sub(last) < ANSWERING_NS
    }

    /// A word is replaced only if it is still what the step was computed from. If another processor was faster, this
    /// packet is not counted: while a source is within its limit it may get as many packets more as there are
    /// processors at work on it; once it is over, there is nothing to write and nothing to lose.
    #[inline(always)]
    fn limit(&self, place: Place, limit: &Limit, charge: bool, now_ns: u64) -> bool {
        let Some(bucket) = LIMITER.get_ptr_mut(place.bucket) else {
            return true;
        };
        let words = bucket.cast::<u64>();
        // SAFETY: an aligned word of the bucket, read whole.
        let step = limiter::step(limit, place.fingerprint, now_ns, |way| unsafe {
            words.add(way & (WAYS - 1)).read_volatile()
        });
        if charge && step.new != step.old {
            // SAFETY: `way` is below `WAYS`, masked so that the verifier knows it too; and every writer changes the
            // word atomically.
            unsafe { atomic::swap_if(words.add(step.way & (WAYS - 1)), step.old, step.new) };
        }
        step.within
    }
}

/// An entry that a walk over buckets met, as one number: of two, the smaller speaks more strongly.
///
/// From the top: whether it is no entry after all, its rank, its bucket, its place. Made and compared by arithmetic: see
/// `gateway_common::branchless`.
#[derive(Clone, Copy)]
struct Met(u64);

impl Met {
    const NOTHING: Self = Self(1 << Self::VOID);
    const VOID: u32 = 62;
    const RANK: u32 = 48;

    #[inline(always)]
    fn new(stamp: Stamp, bucket: u32, way: u32, observe: u32, now_ns: u64) -> Self {
        // A place whose entry is gone has no kind.
        let void = is_zero(stamp.kind().into()) | stamp.ended_at(now_ns);
        let rank = rank(stamp.kind(), observe);
        Self(void << Self::VOID | u64::from(rank) << Self::RANK | u64::from(bucket) << 8 | u64::from(way))
    }

    #[inline(always)]
    fn stronger(self, other: Self) -> Self {
        Self(smaller(self.0, other.0))
    }

    #[inline(always)]
    fn found(self, table: u64) -> Found<Entry> {
        if self.0 >> Self::VOID != 0 {
            return Found::nothing();
        }
        Found {
            rank: (self.0 >> Self::RANK) as u32 & 7,
            entry: Some(Entry::new(table, (self.0 >> 8) as u32, self.0 as u32 & 7)),
        }
    }
}

/// Whether an entry is in force.
#[inline(always)]
fn live(stamp: Stamp, now_ns: u64) -> bool {
    stamp.ended_at(now_ns) == 0
}

/// The number of the lowest bit that is set in the eight lowest of `bits`.
#[inline(always)]
fn lowest(bits: u64) -> u32 {
    let one = bits & bits.wrapping_neg();
    let any = |mask: u64| 1 - is_zero(one & mask);
    (any(0xaa) | any(0xcc) << 1 | any(0xf0) << 2) as u32 & 7
}

#[inline(always)]
fn address4(addr: u32, settings: &Settings, now_ns: u64) -> Found<Entry> {
    let (layout, observe) = (&settings.layout, settings.observe);
    let mut best = Met::NOTHING;
    let first = layout.addresses4 + home4(addr, &layout.mix, layout.buckets4);
    for probe in 0..PROBES {
        // Or the loop might be counted by this, and its end the verifier can not see.
        let index = opaque(u64::from(first + probe)) as u32;
        let Some(bucket) = ADDRESSES4.get_ptr_mut(index) else {
            break;
        };
        // SAFETY: an aligned word of the bucket, read whole, whatever user space does to it meanwhile.
        let slot = |way: usize| unsafe { (&raw const (*bucket).slots[way]).read_volatile() };
        let mut matching = 0;
        for way in 0..WAYS4 {
            matching |= is_zero(u64::from(slot(way) as u32 ^ addr)) << way;
        }
        // Three lists, and each has an address once.
        for _ in 0..3 {
            if matching == 0 {
                break;
            }
            let way = lowest(matching);
            matching &= matching - 1;
            let stamp = Stamp((slot(way as usize) >> 32) as u32);
            best = best.stronger(Met::new(stamp, index, way, observe, now_ns));
        }
        // The last place tells whether the bucket was ever full.
        if slot(WAYS4 - 1) == 0 {
            break;
        }
    }
    best.found(table::ADDRESSES4)
}

#[inline(always)]
fn address6(key: [u64; 2], settings: &Settings, now_ns: u64) -> Found<Entry> {
    let (layout, observe) = (&settings.layout, settings.observe);
    let mut best = Met::NOTHING;
    let first = layout.addresses6 + home6(key, &layout.mix, layout.buckets6);
    for probe in 0..PROBES {
        // Or the loop might be counted by this, and its end the verifier can not see.
        let index = opaque(u64::from(first + probe)) as u32;
        let Some(bucket) = ADDRESSES6.get_ptr_mut(index) else {
            break;
        };
        let differs = |way: usize| {
            // SAFETY: aligned words of the bucket, each read whole.
            let there: [u64; 2] = core::array::from_fn(|half| unsafe {
                (&raw const (*bucket).keys[way][half]).read_volatile()
            });
            (there[0] ^ key[0]) | (there[1] ^ key[1])
        };
        let mut matching = 0;
        for way in 0..WAYS6 {
            matching |= is_zero(differs(way)) << way;
        }
        for _ in 0..3 {
            if matching == 0 {
                break;
            }
            let way = lowest(matching);
            matching &= matching - 1;
            let at = way as usize & (WAYS6 - 1);
            // SAFETY: an aligned word of the bucket, read whole.
            let stamp = Stamp(unsafe { (&raw const (*bucket).stamps[at]).read_volatile() });
            // The place may have been given to another address between the two reads.
            if differs(at) == 0 {
                best = best.stronger(Met::new(stamp, index, way, observe, now_ns));
            }
        }
        // SAFETY: as above.
        let last: [u64; 2] = core::array::from_fn(|half| unsafe {
            (&raw const (*bucket).keys[WAYS6 - 1][half]).read_volatile()
        });
        if last == EMPTY6 {
            break;
        }
    }
    best.found(table::ADDRESSES6)
}

/// References to the longest allow and deny networks around an address.
#[inline(always)]
fn around4(number: u32, layout: &Layout) -> Option<(u32, u32)> {
    let span = SPANS4.get(layout.spans4 + (number >> 16))?;
    let at = |index: u32| RANGES4.get(layout.ranges4 + index);
    let range = at(search(span.first, span.last, |index| {
        Some(at(index)?.start <= number)
    })?)?;
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
fn live_network(reference: u32, layout: &Layout, now_ns: u64) -> Option<Entry> {
    if reference == 0 {
        return None;
    }
    let index = layout.networks + reference;
    let network = NETWORKS.get_ptr(index)?;
    // SAFETY: an aligned word of a map value.
    let stamp = Stamp(unsafe { (&raw const (*network).stamp).read_volatile() });
    if !live(stamp, now_ns) {
        return None;
    }
    Some(Entry::new(table::NETWORKS, index, 0))
}
