//! UDP (RFC 768): the destination port.

use gateway_common::outcome::DropReason;

use super::{Content, Cursor};

/// Length of the header, in bytes.
const HEADER: u32 = 8;

/// Reads the header in the next `length` bytes.
#[inline(always)]
pub(super) fn parse(mut rest: Cursor<'_>, length: u32) -> (Content, u16) {
    let header = if length < HEADER { None } else { rest.take::<8>() };
    let Some(header) = header else {
        return (Content::Malformed(DropReason::Truncated), 0);
    };
    (Content::Udp, u16::from_be_bytes([header[2], header[3]]))
}
