//! IPv4 (RFC 791): source, options skipped by their length, fragments.

use gateway_common::addr::Addr;
use gateway_common::outcome::DropReason;

use super::{Content, Cursor, Lie, Packet, source_lies, transport};

/// Shortest header, and what is read of every one.
const HEADER: u32 = 20;
/// Fragment offset, in units of eight bytes, within the flags word.
const OFFSET_MASK: u16 = 0x1fff;

#[inline(always)]
pub(super) fn parse(mut rest: Cursor<'_>) -> Packet {
    let start = rest;
    let Some(header) = rest.take::<20>() else {
        return Packet::unreadable(DropReason::Truncated);
    };
    if header[0] >> 4 != 4 {
        return Packet::unreadable(DropReason::BadHeader);
    }
    let source = Addr::v4([header[12], header[13], header[14], header[15]]);
    Packet::from(source, above(header, start, rest))
}

/// Checks the source, and the lengths against each other and the frame, then reads on.
#[inline(always)]
fn above(header: &[u8; 20], start: Cursor<'_>, mut rest: Cursor<'_>) -> Result<(Content, u16), Lie> {
    let first = header[12];
    let source = [header[12], header[13], header[14], header[15]];
    let destination = [header[16], header[17], header[18], header[19]];
    let multicast = first & 0xf0 == 0xe0 || source == [255; 4];
    if let Some(lie) = source_lies(source == destination, multicast, first == 127) {
        return Err(lie);
    }
    let length = u32::from(header[0] & 0x0f) * 4;
    let stated = u16::from_be_bytes([header[2], header[3]]);
    if length < HEADER {
        return Err(DropReason::BadHeader);
    }
    // Zero is how Linux marks a local datagram above 64 KiB ("BIG TCP", 6.3), and nothing else sends it: the frame
    // is then its only measure. From a wire the stack discards it by itself.
    let total = if stated == 0 {
        u32::from(u16::MAX)
    } else {
        u32::from(stated)
    };
    if total < length {
        return Err(DropReason::BadHeader);
    }
    if !start.holds(if stated == 0 { length as u16 } else { stated }) {
        return Err(DropReason::Truncated);
    }
    if u16::from_be_bytes([header[6], header[7]]) & OFFSET_MASK != 0 {
        return Ok((Content::Other, 0));
    }
    rest.skip((length - HEADER) as u16);
    Ok(transport(header[9], rest, total - length))
}
