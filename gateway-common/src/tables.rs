//! The kernel tables: names, key and value layouts, capacities, settings.
//!
//! Owns what is stored where. Must not know who reads or writes. Each layout is `repr(C)` with named padding and
//! asserted size, since a value is shared byte by byte between a program that may be older than its reader.

/// A table's name is also its pin's name. At most 15 bytes (`BPF_OBJ_NAME_LEN`).
pub mod names {
    pub const SETTINGS: &str = "SETTINGS";
    pub const SELECTOR: &str = "SELECTOR";
    pub const COUNTERS: &str = "COUNTERS";
    pub const ALLOW_ADDR: &str = "ALLOW_ADDR";
    pub const ALLOW_NET4: &str = "ALLOW_NET4";
    pub const ALLOW_NET6: &str = "ALLOW_NET6";
    pub const DENY_ADDR: &str = "DENY_ADDR";
    pub const DENY_NET4: &str = "DENY_NET4";
    pub const DENY_NET6: &str = "DENY_NET6";
    pub const BLOCK_ADDR: &str = "BLOCK_ADDR";
    pub const SYN_LIMIT: &str = "SYN_LIMIT";
    /// The program itself, as the kernel lists it.
    pub const PROGRAM: &str = "gateway_xdp";
}

/// Most entries a table can hold unless the configuration says otherwise.
pub mod capacity {
    /// Single addresses in the deny list.
    pub const DENY_ADDRESSES: u32 = 1 << 20;
    /// Prefixes in the deny list, for each family.
    pub const DENY_PREFIXES: u32 = 1 << 17;
    /// Single addresses in the allow list.
    pub const ALLOW_ADDRESSES: u32 = 1 << 16;
    /// Prefixes in the allow list, for each family.
    pub const ALLOW_PREFIXES: u32 = 1 << 14;
    /// Sources blocked at one time.
    pub const BLOCKS: u32 = 1 << 18;
}

/// A deadline that never comes.
pub const NEVER: u64 = 0;

/// One entry of an allow, deny or block table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `CLOCK_BOOTTIME` in nanoseconds at which the kernel stops honouring the entry; [`NEVER`] for no end.
    pub deadline_ns: u64,
    /// Packets that met this entry. Written by the kernel program; user space carries it over when it rewrites.
    pub hits: u64,
    /// Who put it there: the number of an [`Origin`].
    pub origin: u32,
    /// In the block table the reject code that tipped the scale, for user space only. In a prefix table the
    /// prefix's own length, which the keeper of the tables fills in and hides again: the program needs it to step
    /// from a prefix that has ended to the shorter ones around it. Otherwise zero.
    pub detail: u32,
}

impl Rule {
    /// Whether the entry is in force at `now_ns` (`CLOCK_BOOTTIME`).
    #[inline(always)]
    #[must_use]
    pub const fn live(&self, now_ns: u64) -> bool {
        self.deadline_ns == NEVER || now_ns < self.deadline_ns
    }
}

/// Who asked for a rule or block.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file, or a list it names.
    Config = 1,
    /// An operator's command.
    Command = 2,
    /// A list fetched from elsewhere.
    Feed = 3,
    /// Misbehaviour seen in requests.
    Strike = 4,
}

impl Origin {
    /// From the number in a table; `None` if a newer version wrote it.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Config),
            2 => Some(Self::Command),
            3 => Some(Self::Feed),
            4 => Some(Self::Strike),
            _ => None,
        }
    }
}

/// Packets and bytes of one outcome on one processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    /// Length of the frames as the driver handed them over, link layer included.
    pub bytes: u64,
}

/// Bits of [`Settings::features`]. A clear bit means that the program does not even look.
pub mod feature {
    pub const ALLOW_ADDR: u32 = 1 << 0;
    pub const ALLOW_NET4: u32 = 1 << 1;
    pub const ALLOW_NET6: u32 = 1 << 2;
    pub const DENY_ADDR: u32 = 1 << 3;
    pub const DENY_NET4: u32 = 1 << 4;
    pub const DENY_NET6: u32 = 1 << 5;
    pub const BLOCK_ADDR: u32 = 1 << 6;
    pub const SYN_LIMIT: u32 = 1 << 7;
    /// Write a log line for a drop now and then.
    pub const LOG_DROPS: u32 = 1 << 8;
    /// The bits that say "this table has entries". Whoever keeps the tables sets them, since only it knows; the
    /// other bits are choices.
    pub const TABLES: u32 =
        ALLOW_ADDR | ALLOW_NET4 | ALLOW_NET6 | DENY_ADDR | DENY_NET4 | DENY_NET6 | BLOCK_ADDR;
}

/// What the program reads once for each packet.
///
/// Two copies stand in `SETTINGS`; `SELECTOR` holds the index of the live one. User space fills the idle copy and
/// then writes the selector, one aligned word, so a packet sees the old settings or the new ones and never a mix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which tables have entries and which limits are on; see [`feature`].
    pub features: u32,
    /// Zero until user space has written the settings once: a fresh table passes everything.
    pub ready: u32,
    /// Key of the limiter's hash, chosen at random when the tables are made.
    pub hash_key: [u64; 2],
    /// Nanoseconds that one SYN of a source costs: the inverse of the rate.
    pub syn_interval_ns: u64,
    /// Nanoseconds a source may be ahead of its rate: the burst, less one, times the interval.
    pub syn_tolerance_ns: u64,
    /// Bits of an IPv6 source that count as one source for the limiter, 1 to 128.
    pub syn_v6_prefix: u32,
    pub _pad: u32,
    /// At most one log line of a drop in so many nanoseconds on one processor.
    pub log_interval_ns: u64,
}

/// Key of a prefix table: the kernel compares `len` leading bits of `data` (`struct bpf_lpm_trie_key`).
///
/// One trie for each family. In a shared trie a short IPv6 prefix such as `::/0` would also cover every mapped
/// IPv4 address, and IPv4 keys would be twice as long.
pub const NET4_BITS: u32 = 32;
/// See [`NET4_BITS`].
pub const NET6_BITS: u32 = 128;

const _: () = {
    assert!(size_of::<Rule>() == 24 && align_of::<Rule>() == 8);
    assert!(size_of::<Counter>() == 16 && align_of::<Counter>() == 8);
    assert!(size_of::<Settings>() == 56 && align_of::<Settings>() == 8);
    assert!(size_of::<crate::addr::Addr>() == 16 && align_of::<crate::addr::Addr>() == 4);
};

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding that is not a named field (the sizes are asserted above), and
    // every bit pattern is a valid value.
    unsafe impl aya::Pod for super::Rule {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::addr::Addr {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::limiter::Bucket {}
}
