//! TCP (RFC 9293): is this the packet that opens a connection?

use gateway_common::outcome::DropReason;

use super::{Content, Cursor};

/// Shortest header, in bytes.
const HEADER: u32 = 20;

/// The bits of byte 13 that decide.
mod flag {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(super) const ACK: u8 = 0x10;
}

/// The flags that matter here, and the one bit between them.
const FLAGS: u8 = 0x1f;
/// Bit `n` says that flags `n` (under [`FLAGS`]) are sent by no stack.
const NEVER_SENT: u32 = never_sent();

/// None of the deciding flags; SYN with FIN or RST; FIN without ACK. Scanners send them to tell systems apart.
const fn never_sent() -> u32 {
    let (mut bits, mut flags) = (0, 0);
    while flags <= FLAGS {
        let syn = flags & flag::SYN != 0;
        let fin = flags & flag::FIN != 0;
        let rst = flags & flag::RST != 0;
        let ack = flags & flag::ACK != 0;
        if !(syn || fin || rst || ack) || syn && (fin || rst) || fin && !ack {
            bits |= 1 << flags;
        }
        flags += 1;
    }
    bits
}

/// Reads the header in the next `length` bytes. With the destination port, once that is known.
///
/// A first fragment too short for it is truncated too: RFC 7112 forbids it for IPv6, and for IPv4 its only use is
/// to hide the flags from a filter (RFC 1858, 3.1).
#[inline(always)]
pub(super) fn parse(mut rest: Cursor<'_>, length: u32) -> (Content, u16) {
    let header = if length < HEADER { None } else { rest.take::<20>() };
    let Some(header) = header else {
        return (Content::Malformed(DropReason::Truncated), 0);
    };
    let port = u16::from_be_bytes([header[2], header[3]]);
    let offset = u32::from(header[12] >> 4) * 4;
    if offset < HEADER {
        return (Content::Malformed(DropReason::BadHeader), port);
    }
    if offset > length {
        return (Content::Malformed(DropReason::Truncated), port);
    }
    if NEVER_SENT >> (header[13] & FLAGS) & 1 != 0 {
        return (Content::Malformed(DropReason::BadFlags), port);
    }
    // A listener makes a connection of SYN alone. It resets on ACK and discards on RST or FIN, so these cost it
    // nothing, and limiting them would let a reflected SYN-ACK spend the budget of its source.
    let deciding = header[13] & (flag::FIN | flag::SYN | flag::RST | flag::ACK);
    let transport = if deciding == flag::SYN {
        Content::Syn
    } else {
        Content::Tcp
    };
    (transport, port)
}
