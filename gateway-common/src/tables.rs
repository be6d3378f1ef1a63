//! The kernel tables: names, capacities, settings, counters, events. The lists' own layouts are in `addresses` and
//! `networks`.
//!
//! Owns what is stored where. Must not know who reads or writes. Each layout is `repr(C)` with named padding and
//! asserted size, since a value is shared byte by byte between a program that may be older than its reader.

/// A table's name is also its pin's name. At most 15 bytes (`BPF_OBJ_NAME_LEN`).
pub mod names {
    pub const SETTINGS: &str = "SETTINGS";
    pub const SELECTOR: &str = "SELECTOR";
    pub const COUNTERS: &str = "COUNTERS";
    pub const ADDRESSES4: &str = "ADDRESSES4";
    pub const ADDRESSES6: &str = "ADDRESSES6";
    pub const SPANS4: &str = "SPANS4";
    pub const RANGES4: &str = "RANGES4";
    pub const RANGES6: &str = "RANGES6";
    pub const NETWORKS: &str = "NETWORKS";
    pub const LIMITER: &str = "LIMITER";
    pub const EVENTS: &str = "EVENTS";
    /// Where the first program finds the second: an array of programs.
    pub const COOKIES: &str = "COOKIES";
    pub const ANSWERED: &str = "ANSWERED";
    /// The program itself, as the kernel lists it.
    pub const PROGRAM: &str = "gateway_xdp";
    /// The second program, which answers SYNs and checks what comes back: see `gateway-ebpf/src/answer.rs`.
    pub const COOKIE_PROGRAM: &str = "gateway_cookie";
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

/// One entry of a list, as both sides speak of it. In the tables it is packed: see [`crate::entry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `CLOCK_BOOTTIME` in nanoseconds at which the kernel stops honouring the entry; [`NEVER`] for no end.
    pub deadline_ns: u64,
    /// Packets that met this entry. Written by the kernel program; user space carries it over when it rewrites.
    pub hits: u64,
    /// Who put it there: the number of an [`Origin`].
    pub origin: u32,
    /// In the block list the reject code that tipped the scale, for user space only; otherwise zero. Twelve bits.
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
#[repr(u8)]
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
    /// There are single IPv4 addresses in a list.
    pub const ADDRESSES4: u32 = 1 << 0;
    /// There are single IPv6 addresses in a list.
    pub const ADDRESSES6: u32 = 1 << 1;
    /// There are IPv4 networks in a list.
    pub const NETWORKS4: u32 = 1 << 2;
    /// There are IPv6 networks in a list.
    pub const NETWORKS6: u32 = 1 << 3;
    /// SYNs are limited, by source at least.
    pub const SYN_LIMIT: u32 = 1 << 4;
    /// SYNs are limited by the network they come from.
    pub const SYN_AGGREGATE_LIMIT: u32 = 1 << 5;
    /// SYNs are limited for the host as a whole.
    pub const SYN_GLOBAL_LIMIT: u32 = 1 << 6;
    pub const ICMP_LIMIT: u32 = 1 << 7;
    pub const UDP_LIMIT: u32 = 1 << 8;
    /// SYNs over the rate of their listener are answered by cookies.
    pub const SYN_COOKIES: u32 = 1 << 9;
    /// Write a log line for a drop now and then.
    pub const LOG_DROPS: u32 = 1 << 10;
    /// Somebody reads the ring of events.
    pub const EVENTS: u32 = 1 << 11;
    /// Pass everything, whatever the lists say, until [`Settings::bypass_until_ns`].
    pub const BYPASS: u32 = 1 << 12;
    /// Cookies carry window scale and SACK in their timestamp.
    pub const COOKIE_OPTIONS: u32 = 1 << 13;
    /// The bits that say "this table has entries". Whoever keeps the tables sets them, since only it knows; the
    /// other bits are choices.
    pub const TABLES: u32 = ADDRESSES4 | ADDRESSES6 | NETWORKS4 | NETWORKS6;
    /// The bits of limits.
    pub const LIMITS: u32 = SYN_LIMIT | SYN_AGGREGATE_LIMIT | SYN_GLOBAL_LIMIT | ICMP_LIMIT | UDP_LIMIT;
}

/// Bits of [`Settings::observe`]: what counts but drops nothing.
pub mod observe {
    /// The deny list; its bit is `1 << Kind::Deny`, so that the program needs no table for it.
    pub const DENY: u32 = 1 << 2;
    /// The block list; its bit is `1 << Kind::Block`.
    pub const BLOCK: u32 = 1 << 3;
    pub const MALFORMED: u32 = 1 << 4;
    pub const SYN_LIMIT: u32 = 1 << 5;
    pub const SYN_AGGREGATE_LIMIT: u32 = 1 << 6;
    pub const SYN_GLOBAL_LIMIT: u32 = 1 << 7;
    pub const ICMP_LIMIT: u32 = 1 << 8;
    pub const UDP_LIMIT: u32 = 1 << 9;
    /// Everything. There is no bit for the allow list: what is allowed is let through.
    pub const ALL: u32 = (1 << 10) - DENY;
}

/// One limit. Times are in units of [`crate::limiter::UNIT_NS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What one packet costs: the inverse of the rate.
    pub interval: u64,
    /// How far a source may be ahead of its rate: the burst, less one, times the interval.
    pub tolerance: u64,
    /// The furthest that a packet can leave a source ahead, whichever processor looks: interval, tolerance, and how far the
    /// processors' clocks may be apart.
    pub longest: u64,
    /// What of the second of an IPv4 source's `Addr::halves` makes one source.
    pub mask4: u64,
    /// What of an IPv6 source's `Addr::halves` makes one source.
    pub mask6: [u64; 2],
}

impl Limit {
    /// A limit of cost and tolerance as [`crate::limiter::cost`] makes them, under which the first bits of an address
    /// make one source: 0 to 32 of IPv4, 0 to 128 of IPv6.
    #[must_use]
    pub const fn new((interval_ns, tolerance_ns): (u64, u64), v4_bits: u32, v6_bits: u32) -> Self {
        let (interval, tolerance, longest) = crate::limiter::units(interval_ns, tolerance_ns);
        Self {
            interval,
            tolerance,
            longest,
            // The address is the last of four words; the one before it marks it as mapped.
            mask4: leading_ones(32 + v4_bits),
            mask6: [leading_ones(v6_bits), leading_ones(v6_bits.saturating_sub(64))],
        }
    }

    /// The same limit, under which all sources of both families are one.
    #[must_use]
    pub const fn of_all(self) -> Self {
        Self {
            mask4: 0,
            mask6: [0; 2],
            ..self
        }
    }
}

/// A word as it lies in memory, whose first `bits` bits are set; all of them from 64 on.
const fn leading_ones(bits: u32) -> u64 {
    let number = match bits {
        0 => 0,
        1..64 => u64::MAX << (64 - bits),
        _ => u64::MAX,
    };
    number.to_be()
}

/// Indices of [`Settings::limits`], in the order of the bits of `feature` and `observe` and of the reasons' numbers.
pub mod limit {
    pub const SYN: u32 = 0;
    pub const SYN_AGGREGATE: u32 = 1;
    pub const SYN_GLOBAL: u32 = 2;
    pub const ICMP: u32 = 3;
    pub const UDP: u32 = 4;
    /// SYNs to one listening port, whoever sends them: what is over this is answered by a cookie.
    pub const SYN_COOKIES: u32 = 5;
    /// Room for more; a power of two, so that an index is masked into range.
    pub const COUNT: u32 = 8;
}

/// Where the live tables lie in their maps, and how they are hashed. The keeper's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Keys of the hash of single addresses, drawn at random when the tables are made.
    pub mix: [u64; 4],
    /// First bucket of the live half.
    pub addresses4: u32,
    /// Buckets that the hash reaches; [`crate::addresses::PROBES`] more follow.
    pub buckets4: u32,
    pub addresses6: u32,
    pub buckets6: u32,
    /// First span of the live half. A span's numbers count from the first range of the half.
    pub spans4: u32,
    /// First range of the live half.
    pub ranges4: u32,
    pub ranges6: u32,
    /// Number of the last IPv6 range of the live half, counted from its first.
    pub last6: u32,
    /// First network of the live half.
    pub networks: u32,
    pub _pad: u32,
}

/// A socket that the gateway listens on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// As [`crate::addr::Addr`]; zero, or the mapped zero, for every address of its family.
    pub addr: [u32; 4],
    /// In the processor's byte order; zero if there is no listener here.
    pub port: u16,
    pub _pad: [u16; 3],
}

/// Most listeners whose SYNs are answered by cookies.
pub const LISTENERS: usize = 16;

/// What the second program needs to know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    /// Ports of the listeners, four to a word: see [`Cookies::has_port`].
    pub ports: [u64; LISTENERS / 4],
    pub listeners: [Listener; LISTENERS],
    /// Largest segment that this host takes over IPv4.
    pub mss4: u16,
    /// The same over IPv6.
    pub mss6: u16,
    /// The window scale that this host's own sockets would answer.
    pub window_scale: u16,
    pub _pad: u16,
}

impl Cookies {
    /// Puts listener `index`, below [`LISTENERS`], in its place.
    pub const fn listen(&mut self, index: usize, listener: Listener) {
        self.listeners[index] = listener;
        self.ports[index / 4] |= (listener.port as u64) << (index % 4 * 16);
    }

    /// Whether a listener has this port, which is not zero. Four ports at a time, without a branch: a zero among the
    /// differences borrows into the uppermost bit of its sixteen.
    #[inline(always)]
    #[must_use]
    pub const fn has_port(&self, port: u16) -> bool {
        const ONES: u64 = 0x0001_0001_0001_0001;
        let all = port as u64 * ONES;
        let mut found = 0;
        let mut index = 0;
        while index < self.ports.len() {
            let differs = self.ports[index] ^ all;
            found |= differs.wrapping_sub(ONES) & !differs;
            index += 1;
        }
        found & ONES << 15 != 0
    }
}

/// When a listener's SYNs were last answered, and when one was last let through so that the listener goes on to accept
/// cookies. `CLOCK_BOOTTIME` in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub answered_ns: u64,
    /// For SYNs with a whole checksum, and for those whose sender left it to a device that is none, as on veth.
    pub refreshed_ns: [u64; 2],
    pub _pad: u64,
}

/// Entry of `ANSWERED` for all listeners together; those of the listeners lie below it.
pub const ALL_LISTENERS: u32 = LISTENERS as u32;

/// So long after the last answer, ACKs are still checked: a client's may take its time, and a flood comes in waves.
pub const ANSWERING_NS: u64 = 5_000_000_000;

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
    /// Which checks for malformed packets are on: bits by `DropReason::malformed_bit`.
    pub malformed: u32,
    /// What only counts; see [`observe`].
    pub observe: u32,
    /// Key of the limiter's hash, chosen at random when the tables are made.
    pub hash_key: [u64; 2],
    pub layout: Layout,
    pub limits: [Limit; limit::COUNT as usize],
    /// At most one log line of a drop in so many nanoseconds on one processor.
    pub log_interval_ns: u64,
    /// At most one event of a drop in so many nanoseconds on one processor.
    pub event_interval_ns: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds at which [`feature::BYPASS`] ends. The kernel itself compares it, so that a
    /// bypass ends whether or not a gateway is there to end it; there is none without an end.
    pub bypass_until_ns: u64,
    pub cookies: Cookies,
}

/// A dropped packet, as the ring of events tells of it: a sample, the counters have the true numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_BOOTTIME` in nanoseconds, to a tick of the kernel's timer.
    pub time_ns: u64,
    /// The source, as [`crate::addr::Addr`]; zero if the frame ended before it.
    pub source: [u32; 4],
    /// Number of the reason, or of its observed twin.
    pub slot: u32,
    pub ifindex: u32,
    /// Length of the frame.
    pub length: u32,
    /// Destination port, in the processor's byte order; zero if there is none.
    pub port: u16,
    /// As IANA numbers it; zero if unknown.
    pub protocol: u8,
    pub _pad: u8,
}

/// Bytes of the ring of events.
pub const EVENTS_BYTES: u32 = 1 << 18;

const _: () = {
    assert!(size_of::<Counter>() == 16 && align_of::<Counter>() == 8);
    assert!(size_of::<Cookies>() == 424 && align_of::<Cookies>() == 8);
    assert!(size_of::<Settings>() == 936 && align_of::<Settings>() == 8);
    assert!(size_of::<Answered>() == 32 && align_of::<Answered>() == 8);
    assert!(size_of::<Event>() == 40 && align_of::<Event>() == 8);
    assert!(size_of::<crate::addr::Addr>() == 16 && align_of::<crate::addr::Addr>() == 8);
};

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding that is not a named field (the sizes are asserted), and every bit
    // pattern is a valid value.
    unsafe impl aya::Pod for super::Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Answered {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_in_each_place_and_no_other_is() {
        let ports = [
            443,
            80,
            8080,
            1,
            u16::MAX,
            0x8000,
            0x7fff,
            256,
            0x0100,
            22,
            23,
            24,
            25,
            26,
            27,
            2,
        ];
        let mut cookies = Cookies::default();
        for (index, port) in ports.into_iter().enumerate() {
            cookies.listen(
                index,
                Listener {
                    port,
                    ..Listener::default()
                },
            );
        }
        for port in 1..=u16::MAX {
            assert_eq!(cookies.has_port(port), ports.contains(&port), "{port}");
        }
        assert!((1..=u16::MAX).all(|port| !Cookies::default().has_port(port)));
    }
}
