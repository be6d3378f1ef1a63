//! Bytes to facts. Owns how Ethernet, VLAN, IPv4, IPv6 and TCP headers are read; must not know tables or policy.
//!
//! Reads no further than the policy needs: the source address, and whether the packet opens a TCP connection.
//! Anything that is not IP is a fact ([`Content::NotIp`]) and not an error. Errors are for bytes that lie: a frame
//! shorter than its headers say, a length that can not be. Once the source is known, a lie further in is carried
//! along with it ([`Content::Malformed`]), so that it still meets the allow and deny lists first.
//!
//! Bytes after the IP datagram (Ethernet pads short frames to 60 bytes) are never read: headers are measured
//! against the length that IP states, not only against the frame.

mod cursor;
mod ipv4;
mod ipv6;
mod tcp;
mod udp;

pub use cursor::Cursor;

use gateway_common::addr::Addr;
use gateway_common::outcome::DropReason;

/// What a frame is, as far as the policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// All zero if there is none, or none that can be believed: then [`Content`] is `NotIp` or `Unreadable`.
    pub source: Addr,
    pub content: Content,
    /// Destination port of TCP and UDP; otherwise zero. For samples only.
    pub port: u16,
}

/// What is known of a packet besides its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// ARP, LLDP, MPLS, LLC, more than two VLAN tags: not ours to filter.
    NotIp,
    /// The bytes lie before a source could be read, or the source itself is a lie.
    Unreadable(DropReason),
    /// The source is known, but it or what follows it lies.
    Malformed(DropReason),
    /// The first packet of a TCP connection.
    Syn,
    /// Any other TCP.
    Tcp,
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// Any other protocol, and every fragment but the first.
    Other,
}

impl Packet {
    /// Without a source.
    #[inline(always)]
    const fn nobody_s(content: Content) -> Self {
        Self {
            source: Addr([0; 4]),
            content,
            port: 0,
        }
    }

    #[inline(always)]
    const fn unreadable(reason: DropReason) -> Self {
        Self::nobody_s(Content::Unreadable(reason))
    }

    /// From `source`, with what was found behind it.
    #[inline(always)]
    fn from(source: Addr, found: Result<(Content, u16), Lie>) -> Self {
        let (content, port) = match found {
            Ok(known) => known,
            Err(lie) => (Content::Malformed(lie), 0),
        };
        Self {
            source,
            content,
            port,
        }
    }
}

/// Bytes that lie.
type Lie = DropReason;

/// VLAN tags that are looked through: an 802.1ad service tag and an 802.1Q tag.
const VLAN_TAGS: usize = 2;

/// IEEE 802 numbers.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const SERVICE_VLAN: u16 = 0x88a8;
}

/// Reads a frame that begins with its Ethernet header.
#[inline(always)]
#[must_use]
pub fn parse(mut frame: Cursor<'_>) -> Packet {
    let Some(ethernet) = frame.take::<14>() else {
        return Packet::unreadable(DropReason::Truncated);
    };
    let mut kind = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    for _ in 0..VLAN_TAGS {
        if kind != ethertype::VLAN && kind != ethertype::SERVICE_VLAN {
            break;
        }
        let Some(tag) = frame.take::<4>() else {
            return Packet::unreadable(DropReason::Truncated);
        };
        kind = u16::from_be_bytes([tag[2], tag[3]]);
    }
    match kind {
        ethertype::IPV4 => ipv4::parse(frame),
        ethertype::IPV6 => ipv6::parse(frame),
        _ => Packet::nobody_s(Content::NotIp),
    }
}

/// IANA protocol numbers.
mod protocol {
    pub(super) const ICMP: u8 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ICMPV6: u8 = 58;
}

/// The layer above IP: `protocol` as IANA numbers it, in the next `length` bytes. With the destination port.
#[inline(always)]
fn transport(protocol: u8, rest: Cursor<'_>, length: u32) -> (Content, u16) {
    match protocol {
        protocol::TCP => tcp::parse(rest, length),
        protocol::UDP => udp::parse(rest, length),
        protocol::ICMP | protocol::ICMPV6 => (Content::Icmp, 0),
        _ => (Content::Other, 0),
    }
}

/// A source that no packet from a wire can have, seen beside its destination.
#[inline(always)]
fn source_lies(is_destination: bool, multicast: bool, loopback: bool) -> Option<Lie> {
    if is_destination {
        Some(DropReason::SourceIsDestination)
    } else if multicast {
        Some(DropReason::MulticastSource)
    } else if loopback {
        Some(DropReason::LoopbackSource)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Packet {
        parse(Cursor::new(bytes))
    }

    /// An Ethernet header in front of `rest`.
    fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(kind.to_be_bytes());
        frame.extend(rest);
        frame
    }

    #[test]
    fn nothing_and_too_little_is_truncated() {
        for length in 0..14 {
            assert_eq!(
                read(&[0; 14][..length]),
                Packet::unreadable(DropReason::Truncated)
            );
        }
    }

    #[test]
    fn what_is_not_ip_is_a_fact() {
        assert_eq!(
            read(&ethernet(0x0806, &[0; 28])),
            Packet::nobody_s(Content::NotIp)
        );
        assert_eq!(
            read(&ethernet(0x0026, &[0x45; 60])),
            Packet::nobody_s(Content::NotIp),
            "an 802.3 length field is no EtherType"
        );
    }

    #[test]
    fn a_third_tag_is_not_looked_through() {
        let tags = [0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0, 0x45];
        assert_eq!(read(&ethernet(0x88a8, &tags)), Packet::nobody_s(Content::NotIp));
    }
}
