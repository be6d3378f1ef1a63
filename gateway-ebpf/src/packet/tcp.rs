//! TCP (RFC 9293): is this the packet that opens a connection?

use gateway_common::outcome::DropReason;

use super::{Cursor, Transport};

/// IANA protocol number.
pub(super) const PROTOCOL: u8 = 6;
/// Shortest header, in bytes.
const HEADER: u32 = 20;

/// The bits of byte 13 that decide.
mod flag {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(super) const ACK: u8 = 0x10;
}

/// Reads the header in the next `length` bytes.
///
/// A first fragment too short for it is truncated too: RFC 7112 forbids it for IPv6, and for IPv4 its only use is
/// to hide the flags from a filter (RFC 1858, 3.1).
#[inline(always)]
pub(super) fn parse(mut rest: Cursor<'_>, length: u32) -> Transport {
    if length < HEADER {
        return Transport::Malformed(DropReason::Truncated);
    }
    let Some(header) = rest.take::<20>() else {
        return Transport::Malformed(DropReason::Truncated);
    };
    let offset = u32::from(header[12] >> 4) * 4;
    if offset < HEADER {
        return Transport::Malformed(DropReason::BadHeader);
    }
    if offset > length {
        return Transport::Malformed(DropReason::Truncated);
    }
    // A listener makes a connection of SYN alone. It resets on ACK and discards on RST or FIN, so these cost it
    // nothing, and limiting them would let a reflected SYN-ACK spend the budget of its source.
    let deciding = header[13] & (flag::FIN | flag::SYN | flag::RST | flag::ACK);
    if deciding == flag::SYN {
        Transport::Syn
    } else {
        Transport::Other
    }
}
