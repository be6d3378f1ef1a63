//! A SYN to the SYN-ACK that answers it. Owns how the answer's segment looks; knows no socket, no secret and no map.
//!
//! Works on a copy of the headers from IP on, in a buffer whose length is a power of two: any index is masked into it,
//! which both the compiler and the kernel's verifier can see.
//!
//! The kernel's listener, which gets the ACK, must be able to read everything from it: it keeps no state either. The
//! sequence number carries the segment size (the kernel's helper makes it), the timestamp window scale and SACK, as
//! `cookie_init_timestamp` of `net/ipv4/syncookies.c` writes them. Without timestamps there is room for neither, so then
//! neither is offered. ECN is never offered.

use gateway_common::branchless::{is_less, is_zero, opaque, smaller};

/// Room for the headers: IPv6 and the longest of TCP take 100 bytes.
pub const ROOM: usize = 128;
/// Most bytes of headers that are ever looked at.
pub const LONGEST: usize = IPV6 + 60;
/// Longest answer: IPv6, TCP and twenty bytes of options.
pub const LONGEST_ANSWER: usize = IPV6 + LONG;

const IPV4: usize = 20;
const IPV6: usize = 40;
/// A TCP header that offers the segment size only, and one with all options.
const SHORT: usize = 24;
const LONG: usize = 40;
const TCP: u8 = 6;

/// Bits of TCP's flags.
pub mod flag {
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// Hops an answer may take, as Linux starts with.
const HOPS: u8 = 64;
/// What a client may send before it hears of the connection itself: the ten segments that it would send at most (RFC 6928).
const WINDOW: u16 = 14_600;

/// Kinds of TCP options (IANA).
mod kind {
    pub(super) const END: u8 = 0;
    pub(super) const NOTHING: u8 = 1;
    pub(super) const SEGMENT_SIZE: u8 = 2;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const TIMESTAMPS: u8 = 8;
}

/// Largest shift of a window (RFC 7323, 2.3).
const SCALE_MAX: u64 = 14;
/// The part of a cookie's timestamp that carries options (`TSBITS`), and its bits.
const OPTION_BITS: u32 = 6;
const NO_SCALE: u32 = 0xf;
const SACK: u32 = 1 << 4;

/// Where headers lie in the buffer, and what was read of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    pub is_v6: bool,
    /// Length of the TCP header, 20 to 60.
    pub tcp_length: u32,
    pub flags: u8,
    /// Whether the segment ends with its header.
    pub bare: bool,
}

impl Heads {
    /// Reads the headers in the first `length` bytes of `bytes`. `None` if they are not a plain IPv4 or IPv6 header and a whole
    /// TCP header behind it: options, extension headers and fragments are nothing that an answer could be made of.
    #[inline(always)]
    #[must_use]
    pub fn read(bytes: &[u8; ROOM], length: u32) -> Option<Self> {
        let stated = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let (is_v6, ip, upper, protocol) = match bytes[0] >> 4 {
            4 => {
                // Any fragment, the first included; the bit that forbids them aside.
                if bytes[0] != 0x45 || stated(6) & 0x3fff != 0 {
                    return None;
                }
                (false, IPV4, stated(2).checked_sub(IPV4 as u32)?, bytes[9])
            }
            6 => (true, IPV6, stated(4), bytes[6]),
            _ => return None,
        };
        let tcp_length = u32::from(bytes[ip + 12] >> 4) * 4;
        if protocol != TCP || tcp_length < 20 || tcp_length > upper || ip as u32 + tcp_length > length {
            return None;
        }
        Some(Self {
            is_v6,
            tcp_length,
            flags: bytes[ip + 13],
            bare: upper == tcp_length,
        })
    }
}

/// What a SYN's options offer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The client's own timestamp, in network order as it lies in the packet.
    pub timestamp: u32,
    /// The client's window scale; [`NO_SCALE`] if it offers none.
    pub scale: u32,
    /// One if timestamps are offered.
    pub timestamps: u32,
    /// One if SACK is offered.
    pub sack: u32,
}

/// Options that are looked at, padding included. Linux and others send five to eight; what comes later is not offered.
const OPTIONS: usize = 20;

impl Offer {
    /// Reads the options of the TCP header at `tcp`, which is `length` bytes long, as `tcp_parse_options` does.
    ///
    /// By arithmetic: options come in any order, and the kernel's verifier would follow each.
    #[inline(always)]
    pub fn read(&mut self, bytes: &[u8; ROOM], tcp: usize, length: u32) {
        let length = u64::from(length);
        let (mut at, mut timestamp, mut scale) = (20, 0, u64::from(NO_SCALE));
        let (mut timestamps, mut sack) = (0, 0);
        for _ in 0..OPTIONS {
            if at >= length {
                break;
            }
            let byte = |ahead: usize| u64::from(bytes[(tcp + at as usize + ahead) & (ROOM - 1)]);
            let (kind, stated) = (byte(0), byte(1));
            let single = is_zero(kind ^ u64::from(kind::NOTHING));
            let size = choose(single, 1, stated);
            let bad = is_zero(kind ^ u64::from(kind::END))
                | is_less(size, 2) & (single ^ 1)
                | is_less(length, at + size);
            let is = |wanted: u8, of: u64| is_zero(kind ^ u64::from(wanted) | size ^ of) & (bad ^ 1);
            scale = choose(is(kind::WINDOW_SCALE, 3), smaller(byte(2), SCALE_MAX), scale);
            sack |= is(kind::SACK_PERMITTED, 2);
            let has_time = is(kind::TIMESTAMPS, 10);
            let theirs = u32::from_ne_bytes([byte(2) as u8, byte(3) as u8, byte(4) as u8, byte(5) as u8]);
            timestamp = choose(has_time, theirs.into(), timestamp);
            timestamps |= has_time;
            // Nothing is read behind what is no option.
            at = opaque(choose(bad, length, at + size));
        }
        *self = Self {
            timestamp: timestamp as u32,
            scale: scale as u32,
            timestamps: timestamps as u32,
            sack: sack as u32,
        };
    }

    /// The timestamp that carries the options, none later than `now_ms` so that the connection's own come after it.
    #[must_use]
    pub const fn carried(&self, now_ms: u32) -> u32 {
        let low = self.scale & NO_SCALE | if self.sack != 0 { SACK } else { 0 };
        let carried = now_ms & !((1 << OPTION_BITS) - 1) | low;
        if carried > now_ms {
            carried.wrapping_sub(1 << OPTION_BITS)
        } else {
            carried
        }
    }
}

/// `yes` if `which` is one, `no` if it is zero.
#[inline(always)]
fn choose(which: u64, yes: u64, no: u64) -> u64 {
    no ^ ((no ^ yes) & which.wrapping_neg())
}

/// What this host has to say in an answer.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// The cookie: the answer's sequence number.
    pub cookie: u32,
    /// Largest segment this host takes.
    pub segment_size: u16,
    /// Shift of this host's windows.
    pub scale: u8,
    /// The clock of the kernel's own timestamps: milliseconds of `CLOCK_MONOTONIC`.
    pub now_ms: u32,
}

/// Writes the answer to the SYN in `syn`, from the IP header on. Returns its length. Without an offer, or with one of no
/// timestamps, only the segment size is answered.
#[inline(always)]
#[must_use]
pub fn answer(syn: &[u8; ROOM], is_v6: bool, offer: Option<&Offer>, own: &Own, out: &mut [u8; ROOM]) -> u32 {
    let offer = offer.filter(|offer| offer.timestamps != 0);
    let tcp = if offer.is_some() { LONG } else { SHORT };
    *out = [0; ROOM];
    let pseudo = if is_v6 {
        segment::<IPV6>(syn, offer, own, out);
        out[0] = 0x60;
        out[4..6].copy_from_slice(&(tcp as u16).to_be_bytes());
        (out[6], out[7]) = (TCP, HOPS);
        out[8..24].copy_from_slice(&syn[24..40]);
        out[24..40].copy_from_slice(&syn[8..24]);
        sum::<8, 32>(out)
    } else {
        segment::<IPV4>(syn, offer, own, out);
        out[0] = 0x45;
        out[2..4].copy_from_slice(&((IPV4 + tcp) as u16).to_be_bytes());
        out[6] = 0x40;
        (out[8], out[9]) = (HOPS, TCP);
        out[12..16].copy_from_slice(&syn[16..20]);
        out[16..20].copy_from_slice(&syn[12..16]);
        let header = fold(sum::<0, IPV4>(out));
        out[10..12].copy_from_slice(&(!header).to_be_bytes());
        sum::<12, 8>(out)
    };
    let pseudo = pseudo + u32::from(TCP) + tcp as u32;
    // What lies behind a short header is zero.
    if is_v6 {
        let all = fold(pseudo + sum::<IPV6, LONG>(out));
        out[IPV6 + 16..IPV6 + 18].copy_from_slice(&(!all).to_be_bytes());
        (IPV6 + tcp) as u32
    } else {
        let all = fold(pseudo + sum::<IPV4, LONG>(out));
        out[IPV4 + 16..IPV4 + 18].copy_from_slice(&(!all).to_be_bytes());
        (IPV4 + tcp) as u32
    }
}

/// The TCP header at `AT`, without its checksum.
#[inline(always)]
fn segment<const AT: usize>(syn: &[u8; ROOM], offer: Option<&Offer>, own: &Own, out: &mut [u8; ROOM]) {
    let theirs = u32::from_be_bytes([syn[AT + 4], syn[AT + 5], syn[AT + 6], syn[AT + 7]]);
    out[AT..AT + 2].copy_from_slice(&syn[AT + 2..AT + 4]);
    out[AT + 2..AT + 4].copy_from_slice(&syn[AT..AT + 2]);
    out[AT + 4..AT + 8].copy_from_slice(&own.cookie.to_be_bytes());
    out[AT + 8..AT + 12].copy_from_slice(&theirs.wrapping_add(1).to_be_bytes());
    out[AT + 13] = flag::SYN | flag::ACK;
    out[AT + 14..AT + 16].copy_from_slice(&WINDOW.to_be_bytes());
    let size = own.segment_size.to_be_bytes();
    out[AT + 20..AT + 24].copy_from_slice(&[kind::SEGMENT_SIZE, 4, size[0], size[1]]);
    let Some(offer) = offer else {
        out[AT + 12] = ((SHORT / 4) as u8) << 4;
        return;
    };
    out[AT + 12] = ((LONG / 4) as u8) << 4;
    let sack = if offer.sack != 0 {
        [kind::SACK_PERMITTED, 2]
    } else {
        [kind::NOTHING; 2]
    };
    out[AT + 24..AT + 26].copy_from_slice(&sack);
    (out[AT + 26], out[AT + 27]) = (kind::TIMESTAMPS, 10);
    out[AT + 28..AT + 32].copy_from_slice(&offer.carried(own.now_ms).to_be_bytes());
    out[AT + 32..AT + 36].copy_from_slice(&offer.timestamp.to_ne_bytes());
    let scale = if offer.scale == NO_SCALE {
        [kind::NOTHING; 4]
    } else {
        [kind::NOTHING, kind::WINDOW_SCALE, 3, own.scale]
    };
    out[AT + 36..AT + 40].copy_from_slice(&scale);
}

/// How whole the checksum of a bare segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Whole,
    /// The addresses only: the sender left the rest to a device, and there was none (a veth pair, a virtual machine's
    /// neighbour). Linux takes it from such a device and only from such a device.
    Begun,
    Wrong,
}

/// Judges the checksum of a segment that is `length` bytes of header and nothing more.
#[inline(always)]
#[must_use]
pub fn checksum(bytes: &[u8; ROOM], is_v6: bool, length: u32) -> Checksum {
    let (pseudo, tcp) = if is_v6 {
        (sum::<8, 32>(bytes), IPV6)
    } else {
        (sum::<12, 8>(bytes), IPV4)
    };
    let pseudo = fold(pseudo + u32::from(TCP) + length);
    let mut all = u32::from(pseudo);
    for at in 0..30 {
        let within = is_less(at * 2, length.into()).wrapping_neg() as u32;
        let at = tcp + at as usize * 2;
        all += within & u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    }
    if fold(all) == u16::MAX {
        Checksum::Whole
    } else if u16::from_be_bytes([bytes[tcp + 16], bytes[tcp + 17]]) == pseudo {
        Checksum::Begun
    } else {
        Checksum::Wrong
    }
}

/// Sum of `LENGTH` bytes from `AT` on, as numbers of sixteen bits.
#[inline(always)]
fn sum<const AT: usize, const LENGTH: usize>(bytes: &[u8; ROOM]) -> u32 {
    let mut sum = 0;
    for pair in bytes[AT..AT + LENGTH].as_chunks::<2>().0 {
        sum += u32::from(u16::from_be_bytes(*pair));
    }
    sum
}

/// Ones' complement (RFC 1071).
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
