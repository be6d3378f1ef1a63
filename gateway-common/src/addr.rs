//! Addresses as the kernel tables hold them. Owns the key layouts; knows nothing of the tables themselves.

/// An IPv4 or IPv6 address as a table key: 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// One type for both families keeps one code path up to the tables, which are apart: there an IPv4 key has four
/// bytes, and eight entries fit a cache line where two would. A packet can not forge the other family: an IPv6 packet
/// whose source lies in `::ffff:0:0/96` is malformed (see `packet`).
/// The words hold the bytes as they lie in the packet, so a load from the packet is a store into the key.
///
/// Aligned to eight bytes, so that two words may be moved at once: the kernel refuses that elsewhere on its stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr(pub [u32; 4]);

/// The third word of every mapped IPv4 address, `00 00 ff ff` in memory.
pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// From the four bytes of an IPv4 address, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// From the sixteen bytes of an IPv6 address, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Two words of eight bytes each, as they lie in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn halves(&self) -> [u64; 2] {
        let words = &self.0;
        [
            u64::from_le(words[0].to_le() as u64 | (words[1].to_le() as u64) << 32),
            u64::from_le(words[2].to_le() as u64 | (words[3].to_le() as u64) << 32),
        ]
    }

    /// The sixteen bytes in network order.
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        let (c, d) = (self.0[2].to_ne_bytes(), self.0[3].to_ne_bytes());
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3],
        ]
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(ip) => Self::v4(ip.octets()),
            core::net::IpAddr::V6(ip) => Self::v6(ip.octets()),
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    /// A mapped address comes back as IPv4, so that the two spellings of one host are one value.
    fn from(addr: Addr) -> Self {
        core::net::Ipv6Addr::from(addr.octets()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn both_spellings_of_an_ipv4_host_are_one_key() {
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        let key = Addr::from(IpAddr::V4(v4));
        assert_eq!(key, Addr::from(IpAddr::V6(v4.to_ipv6_mapped())));
        assert!(key.is_v4());
        assert_eq!(IpAddr::from(key), IpAddr::V4(v4));
    }

    #[test]
    fn ipv6_round_trips_in_network_order() {
        let ip: Ipv6Addr = "2001:db8::1".parse().expect("a literal");
        let key = Addr::from(IpAddr::V6(ip));
        assert!(!key.is_v4());
        assert_eq!(key.octets(), ip.octets());
        assert_eq!(IpAddr::from(key), IpAddr::V6(ip));
    }
}
