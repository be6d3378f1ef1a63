//! IPv6 (RFC 8200): source, and a bounded walk over the extension headers to the layer above.

use gateway_common::addr::Addr;
use gateway_common::outcome::DropReason;

use super::{Content, Cursor, Lie, Packet, source_lies, transport};

/// Extension headers that are walked over. RFC 8200 4.1 recommends an order of at most seven, and RFC 8883 lets a
/// node set a limit; what is longer is no traffic of any stack but a way around filters.
const EXTENSIONS: usize = 8;

/// IANA protocol numbers of the extension headers that are walked over.
mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

#[inline(always)]
pub(super) fn parse(mut rest: Cursor<'_>) -> Packet {
    let Some(header) = rest.take::<40>() else {
        return Packet::unreadable(DropReason::Truncated);
    };
    if header[0] >> 4 != 6 {
        return Packet::unreadable(DropReason::BadHeader);
    }
    let source = address(header, 8);
    if source.is_v4() {
        // Would be looked up as the IPv4 host it pretends to be.
        return Packet::unreadable(DropReason::MappedSource);
    }
    Packet::from(source, above(header, &source, rest))
}

#[inline(always)]
fn address(header: &[u8; 40], at: usize) -> Addr {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&header[at..at + 16]);
    Addr::v6(bytes)
}

/// `::1`.
const LOOPBACK: Addr = Addr::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Checks the source, then walks to the layer above, measuring each header against the stated payload.
#[inline(always)]
fn above(header: &[u8; 40], source: &Addr, mut rest: Cursor<'_>) -> Result<(Content, u16), Lie> {
    let destination = address(header, 24);
    let (multicast, loopback) = (header[8] == 0xff, *source == LOOPBACK);
    if let Some(lie) = source_lies(*source == destination, multicast, loopback) {
        return Err(lie);
    }
    let stated = u16::from_be_bytes([header[4], header[5]]);
    let mut kind = header[6];
    // A jumbogram (RFC 2675) states zero and its true length in a hop-by-hop option. Linux sends them to itself
    // above 64 KiB ("BIG TCP", 5.19); the frame is then the only measure.
    let jumbo = stated == 0 && kind == next::HOP_BY_HOP;
    if !rest.holds(stated) {
        return Err(DropReason::Truncated);
    }
    let mut left = if jumbo {
        u32::from(u16::MAX)
    } else {
        u32::from(stated)
    };

    for _ in 0..EXTENSIONS {
        // Units of the length byte, and what it leaves out: RFC 8200 4.3 to 4.6; RFC 4302 2.2 for authentication.
        let (unit, base) = match kind {
            next::HOP_BY_HOP | next::ROUTING | next::DESTINATION => (8, 8),
            next::AUTHENTICATION => (4, 8),
            next::FRAGMENT => (0, 8),
            _ => return Ok(transport(kind, rest, left)),
        };
        let Some(start) = rest.take::<8>() else {
            return Err(DropReason::Truncated);
        };
        let length = u32::from(start[1]) * unit + base;
        if length > left {
            return Err(DropReason::Truncated);
        }
        left -= length;
        rest.skip((length - base) as u16);
        if kind == next::FRAGMENT && u16::from_be_bytes([start[2], start[3]]) >> 3 != 0 {
            return Ok((Content::Other, 0));
        }
        kind = start[0];
    }
    match kind {
        next::HOP_BY_HOP | next::ROUTING | next::DESTINATION | next::AUTHENTICATION | next::FRAGMENT => {
            Err(DropReason::TooManyHeaders)
        }
        _ => Ok(transport(kind, rest, left)),
    }
}
