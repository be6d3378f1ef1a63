//! Builds frames for tests. Owns how valid packets look, and the ways to make them lie; knows no policy.
//!
//! Lengths, next-header numbers and the IPv4 checksum are filled in by [`Frame::bytes`], so a frame is valid unless
//! a test asks for a lie by name.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const URG: u8 = 0x20;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// Protocol numbers of IANA.
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const GRE: u8 = 47;
    pub const ESP: u8 = 50;
    pub const ICMPV6: u8 = 58;
    pub const NONE: u8 = 59;
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

#[derive(Clone, Debug)]
enum Net {
    V4 {
        source: Ipv4Addr,
        options: Vec<u8>,
        fragment: u16,
    },
    V6 {
        source: Ipv6Addr,
        extensions: Vec<(u8, Vec<u8>)>,
    },
    Raw {
        kind: u16,
        bytes: Vec<u8>,
    },
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    tags: Vec<[u8; 4]>,
    net: Net,
    protocol: u8,
    upper: Vec<u8>,
    stated_length: Option<u16>,
    pad_to: usize,
    patches: Vec<(usize, u8)>,
}

impl Frame {
    fn new(net: Net) -> Self {
        let (tags, upper, patches) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            tags,
            net,
            protocol: protocol::NONE,
            upper,
            stated_length: None,
            pad_to: 0,
            patches,
        }
    }

    /// IPv4 from `source` (a literal) to 198.18.0.1.
    #[must_use]
    pub fn v4(source: &str) -> Self {
        let source = source.parse().expect("an IPv4 literal");
        Self::new(Net::V4 {
            source,
            options: Vec::new(),
            fragment: 0,
        })
    }

    /// IPv6 from `source` (a literal) to 2001:db8:ffff::1.
    #[must_use]
    pub fn v6(source: &str) -> Self {
        Self::new(Net::V6 {
            source: source.parse().expect("an IPv6 literal"),
            extensions: Vec::new(),
        })
    }

    /// Any EtherType with any bytes.
    #[must_use]
    pub fn raw(kind: u16, bytes: &[u8]) -> Self {
        Self::new(Net::Raw {
            kind,
            bytes: bytes.to_vec(),
        })
    }

    /// Adds an 802.1Q tag inside the ones there are.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push(tag(0x8100, id));
        self
    }

    /// Adds an 802.1ad service tag inside the ones there are.
    #[must_use]
    pub fn service_vlan(mut self, id: u16) -> Self {
        self.tags.push(tag(0x88a8, id));
        self
    }

    /// IPv4 options, `words` times four bytes of no-operation.
    #[must_use]
    pub fn options(mut self, words: usize) -> Self {
        if let Net::V4 { options, .. } = &mut self.net {
            *options = vec![1; words * 4];
        }
        self
    }

    /// Makes it a fragment at `offset` (units of eight bytes).
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        match &mut self.net {
            Net::V4 { fragment, .. } => *fragment = offset | u16::from(more) << 13,
            Net::V6 { extensions, .. } => {
                let word = (offset << 3 | u16::from(more)).to_be_bytes();
                extensions.push((FRAGMENT, vec![0, 0, word[0], word[1], 0, 0, 0, 7]));
            }
            Net::Raw { .. } => {}
        }
        self
    }

    fn extension(mut self, kind: u8, unit: usize, units: u8) -> Self {
        if let Net::V6 { extensions, .. } = &mut self.net {
            let mut bytes = vec![0; 8 + usize::from(units) * unit];
            bytes[1] = units;
            extensions.push((kind, bytes));
        }
        self
    }

    /// An IPv6 hop-by-hop header of `8 + 8 * units` bytes.
    #[must_use]
    pub fn hop_by_hop(self, units: u8) -> Self {
        self.extension(HOP_BY_HOP, 8, units)
    }

    /// An IPv6 routing header of `8 + 8 * units` bytes.
    #[must_use]
    pub fn routing(self, units: u8) -> Self {
        self.extension(ROUTING, 8, units)
    }

    /// An IPv6 destination-options header of `8 + 8 * units` bytes.
    #[must_use]
    pub fn destination(self, units: u8) -> Self {
        self.extension(DESTINATION, 8, units)
    }

    /// An IPv6 authentication header of `8 + 4 * units` bytes.
    #[must_use]
    pub fn authentication(self, units: u8) -> Self {
        self.extension(AUTHENTICATION, 4, units)
    }

    /// A TCP header with these flags and no payload.
    #[must_use]
    pub fn tcp(self, flags: u8) -> Self {
        let mut header = [0; 20];
        header[..4].copy_from_slice(&[0xc0, 0x00, 0x01, 0xbb]);
        header[12] = 5 << 4;
        header[13] = flags;
        header[14..16].copy_from_slice(&[0xff, 0xff]);
        self.upper(protocol::TCP, &header)
    }

    /// A UDP header and `length` bytes.
    #[must_use]
    pub fn udp(self, length: u16) -> Self {
        let mut bytes = vec![0xc0, 0, 0, 53];
        bytes.extend((8 + length).to_be_bytes());
        bytes.resize(8 + usize::from(length), 0);
        self.upper(protocol::UDP, &bytes)
    }

    /// An echo request, of the family's own ICMP.
    #[must_use]
    pub fn icmp(self) -> Self {
        match self.net {
            Net::V6 { .. } => self.upper(protocol::ICMPV6, &[128, 0, 0, 0, 0, 1, 0, 1]),
            _ => self.upper(protocol::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]),
        }
    }

    /// Any protocol with any bytes.
    #[must_use]
    pub fn upper(mut self, protocol: u8, bytes: &[u8]) -> Self {
        (self.protocol, self.upper) = (protocol, bytes.to_vec());
        self
    }

    /// Appends to the upper layer.
    #[must_use]
    pub fn payload(mut self, length: usize) -> Self {
        self.upper.resize(self.upper.len() + length, b'x');
        self
    }

    /// Cuts the upper layer, and lets IP state the shorter length.
    #[must_use]
    pub fn upper_cut(mut self, length: usize) -> Self {
        self.upper.truncate(length);
        self
    }

    /// States this IP length (IPv4: total, IPv6: payload) instead of the true one.
    #[must_use]
    pub fn stated_length(mut self, length: u16) -> Self {
        self.stated_length = Some(length);
        self
    }

    /// Pads the frame with bytes that look like a SYN's flags, as Ethernet pads with leftovers.
    #[must_use]
    pub fn pad_to(mut self, length: usize) -> Self {
        self.pad_to = length;
        self
    }

    /// Overwrites one byte of the finished frame, counted from the first byte of the IP header.
    #[must_use]
    pub fn patch(mut self, at: usize, byte: u8) -> Self {
        self.patches.push((at, byte));
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(self.tags.iter().flatten());
        let kind: u16 = match &self.net {
            Net::V4 { .. } => 0x0800,
            Net::V6 { .. } => 0x86dd,
            Net::Raw { kind, .. } => *kind,
        };
        frame.extend(kind.to_be_bytes());
        let start = frame.len();
        match &self.net {
            Net::V4 {
                source,
                options,
                fragment,
            } => frame.extend(self.ipv4(*source, options, *fragment)),
            Net::V6 { source, extensions } => frame.extend(self.ipv6(*source, extensions)),
            Net::Raw { bytes, .. } => frame.extend(bytes),
        }
        frame.resize(frame.len().max(self.pad_to), SYN);
        for (at, byte) in &self.patches {
            frame[start + at] = *byte;
        }
        frame
    }

    fn ipv4(&self, source: Ipv4Addr, options: &[u8], fragment: u16) -> Vec<u8> {
        let header = 20 + options.len();
        let total = self.stated_length.unwrap_or((header + self.upper.len()) as u16);
        let mut ip = vec![0x40 | (header / 4) as u8, 0];
        ip.extend(total.to_be_bytes());
        ip.extend([0x12, 0x34]);
        ip.extend(fragment.to_be_bytes());
        ip.extend([64, self.protocol, 0, 0]);
        ip.extend(source.octets());
        ip.extend([198, 18, 0, 1]);
        ip.extend(options);
        let sum = ip
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum::<u32>();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(&self.upper);
        ip
    }

    fn ipv6(&self, source: Ipv6Addr, extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let following = extensions
            .iter()
            .skip(1)
            .map(|(kind, _)| *kind)
            .chain([self.protocol]);
        let mut payload = Vec::new();
        for ((_, bytes), next) in extensions.iter().zip(following) {
            payload.push(next);
            payload.extend(&bytes[1..]);
        }
        payload.extend(&self.upper);
        let first = extensions.first().map_or(self.protocol, |(kind, _)| *kind);
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend(self.stated_length.unwrap_or(payload.len() as u16).to_be_bytes());
        ip.extend([first, 64]);
        ip.extend(source.octets());
        ip.extend(
            "2001:db8:ffff::1"
                .parse::<Ipv6Addr>()
                .expect("a literal")
                .octets(),
        );
        ip.extend(payload);
        ip
    }
}

fn tag(kind: u16, id: u16) -> [u8; 4] {
    let (kind, id) = (kind.to_be_bytes(), id.to_be_bytes());
    // In front of a frame's EtherType a tag is its own EtherType and then its control word.
    [kind[0], kind[1], id[0], id[1]]
}
