//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte. Both directions, pure.
//!
//! Owns the form of the header (HAProxy's proxy-protocol.txt) and nothing else: who is believed, deadlines and sockets are
//! the callers' matter. Strict, as the sender is a program that was configured to send this: what a header does not say
//! plainly is refused, not guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header taken, in bytes. Version 1 ends at 107; the addresses of version 2 need 52, and 4 KiB hold every extension
/// that is in use.
pub const MOST: usize = 4096;
/// Longest header of version 1, in bytes, with its CRLF.
const MOST_V1: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family, length.
const FIXED: usize = 16;
const V1: &[u8] = b"PROXY ";

/// Who the connection is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// From the proxy itself (`LOCAL`), or from someone without an IP address (`UNKNOWN`, a Unix socket): what the socket
    /// says holds.
    Direct,
    /// From `source`, who connected to `destination`.
    Proxied {
        source: SocketAddr,
        destination: SocketAddr,
    },
}

/// Which form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What has been read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A beginning: all of these bytes are the header's, and more must come.
    Partial,
    /// The first `length` bytes are the header.
    Whole { header: Header, length: usize },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header: {0}")]
pub struct Malformed(pub &'static str);

/// Reads a header at the beginning of `bytes`.
///
/// # Errors
/// As soon as no further byte could make it one; at the latest at [`MOST`] bytes.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if begins(bytes, SIGNATURE) {
        v2(bytes)
    } else if begins(bytes, V1) {
        v1(bytes)
    } else {
        Err(Malformed("it begins otherwise"))
    }
}

/// Whether `bytes` and `prefix` are the same as far as both go.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(a, b)| a == b)
}

fn v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let seen = bytes.get(..MOST_V1).unwrap_or(bytes);
    let Some(end) = seen.iter().position(|b| *b == b'\n') else {
        return if seen.len() < MOST_V1 {
            Ok(Parsed::Partial)
        } else {
            Err(Malformed("the line does not end"))
        };
    };
    let line = seen
        .get(V1.len()..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(Malformed("the line does not end in CRLF"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("the line is not text"))?;
    let whole = |header| {
        Ok(Parsed::Whole {
            header,
            length: end + 1,
        })
    };
    // What follows UNKNOWN is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return whole(Header::Direct);
    }
    let words: Vec<_> = line.split(' ').collect();
    let [family, source, destination, from, to] = words.as_slice() else {
        return Err(Malformed("the line has not five parts"));
    };
    let ip = |text: &str| -> Result<IpAddr, Malformed> {
        match *family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
            _ => return Err(Malformed("the protocol is not TCP4, TCP6 or UNKNOWN")),
        }
        .ok_or(Malformed("an address is not of its family"))
    };
    whole(Header::Proxied {
        source: SocketAddr::new(ip(source)?, port(from)?),
        destination: SocketAddr::new(ip(destination)?, port(to)?),
    })
}

fn port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let port = if plain { text.parse().ok() } else { None };
    port.ok_or(Malformed("a port is not a number"))
}

fn v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(Malformed("neither LOCAL nor PROXY of version 2"));
    }
    let Some(&[_, family, high, low]) = bytes.get(12..FIXED) else {
        return Ok(Parsed::Partial);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(Malformed("it is longer than any is"));
    }
    let Some(block) = bytes.get(FIXED..length) else {
        return Ok(Parsed::Partial);
    };
    // Of a local connection the block is to be ignored, whatever it says.
    let header = if command == Some(0x20) {
        Header::Direct
    } else {
        proxied(family, block)?
    };
    Ok(Parsed::Whole { header, length })
}

/// The addresses of a block, with what follows them looked through.
fn proxied(family: u8, block: &[u8]) -> Result<Header, Malformed> {
    let short = Malformed("it is shorter than its addresses");
    let (header, rest) = match family {
        0x00 => (Header::Direct, block),
        0x11 => {
            let (addresses, rest) = block.split_first_chunk::<12>().ok_or(short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            let ips = [[a, b, c, d], [e, f, g, h]].map(|ip| IpAddr::from(Ipv4Addr::from(ip)));
            (between(ips, ports), rest)
        }
        0x21 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
            let ips = [*source, *destination].map(|ip| IpAddr::from(Ipv6Addr::from(ip)));
            (between(ips, *ports), rest)
        }
        0x31 => (Header::Direct, block.get(216..).ok_or(short)?),
        // Datagrams among them: this is a stream.
        _ => return Err(Malformed("no such protocol on a stream")),
    };
    extensions(rest)?;
    Ok(header)
}

fn between([source, destination]: [IpAddr; 2], [a, b, c, d]: [u8; 4]) -> Header {
    Header::Proxied {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

/// Walks type, length and value to their end. None is used; one that runs over the end is a header that lies.
fn extensions(mut rest: &[u8]) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let lies = Malformed("an extension is longer than what is left");
        let ([_, high, low], value) = rest.split_first_chunk::<3>().ok_or(lies)?;
        rest = value
            .get(usize::from(u16::from_be_bytes([*high, *low]))..)
            .ok_or(lies)?;
    }
    Ok(())
}

/// Writes a header. Addresses of two families go as IPv6, the IPv4 one mapped.
#[must_use]
pub fn encode(version: Version, header: &Header) -> Vec<u8> {
    let (source, destination) = match *header {
        Header::Direct => {
            return match version {
                Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
                Version::V2 => [&SIGNATURE[..], &[0x20, 0x00, 0, 0]].concat(),
            };
        }
        Header::Proxied { source, destination } => (source, destination),
    };
    let (from, to) = (source.port(), destination.port());
    let ips = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ok((source, destination)),
        (source, destination) => Err((v6(source), v6(destination))),
    };
    match (version, ips) {
        (Version::V1, Ok((a, b))) => format!("PROXY TCP4 {a} {b} {from} {to}\r\n").into_bytes(),
        (Version::V1, Err((a, b))) => format!("PROXY TCP6 {a} {b} {from} {to}\r\n").into_bytes(),
        (Version::V2, ips) => {
            let (family, addresses) = match ips {
                Ok((a, b)) => (0x11, [a.octets(), b.octets()].concat()),
                Err((a, b)) => (0x21, [a.octets(), b.octets()].concat()),
            };
            let length: u8 = if family == 0x11 { 12 } else { 36 };
            let mut out = [&SIGNATURE[..], &[0x21, family, 0, length], &addresses].concat();
            out.extend_from_slice(&from.to_be_bytes());
            out.extend_from_slice(&to.to_be_bytes());
            out
        }
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    /// A header of version 2 by hand.
    fn by_hand(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    #[test]
    fn headers_of_others_are_read() {
        let one = proxied("192.0.2.7:56324", "198.51.100.1:443");
        let six = proxied("[2001:db8::7]:1", "[::1]:65535");
        for (bytes, header) in [
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), one),
            (b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n".to_vec(), six),
            (b"PROXY UNKNOWN\r\n".to_vec(), Header::Direct),
            (b"PROXY UNKNOWN ffff:: f 1 2\r\n".to_vec(), Header::Direct),
            // HAProxy's, with a TLV behind the addresses.
            (
                by_hand(
                    0x21,
                    0x11,
                    b"\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\x00\x02ab",
                ),
                one,
            ),
            (by_hand(0x20, 0x00, b""), Header::Direct),
            (by_hand(0x20, 0xff, b"whatever"), Header::Direct),
            (by_hand(0x21, 0x00, b"\x01\x00\x00"), Header::Direct),
            (by_hand(0x21, 0x31, &[0; 216]), Header::Direct),
        ] {
            let length = bytes.len();
            assert_eq!(parse(&bytes), Ok(Parsed::Whole { header, length }), "{bytes:?}");
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&more), Ok(Parsed::Whole { header, length }));
            for cut in 0..length {
                assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Partial), "{bytes:?} at {cut}");
            }
        }
    }

    #[test]
    fn what_lies_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'a'; 100]].concat();
        let huge = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.7  198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 01 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1  443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 localhost 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY UNKNOWNX\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            b"PROXY \n".to_vec(),
            long,
            huge,
            by_hand(0x11, 0x11, &[0; 12]),
            by_hand(0x22, 0x11, &[0; 12]),
            by_hand(0x21, 0x11, &[0; 11]),
            by_hand(0x21, 0x21, &[0; 35]),
            by_hand(0x21, 0x31, &[0; 215]),
            by_hand(0x21, 0x12, &[0; 12]),
            by_hand(0x21, 0x41, &[0; 12]),
            by_hand(0x21, 0x11, &[0; 14]),
            by_hand(
                0x21,
                0x11,
                b"\x01\x02\x03\x04\x01\x02\x03\x04\0\x01\0\x02\x04\x00\x05abc",
            ),
        ] {
            assert!(parse(&bytes).is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
            any::<([u16; 8], u16)>().prop_map(SocketAddr::from)
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_verdict_within_the_bound(
            start in prop::sample::select(vec![&b""[..], V1, b"PROXY TCP4 1.2.3.4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
            tail in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let bytes = [start, &tail].concat();
            match parse(&bytes) {
                Ok(Parsed::Whole { length, header }) => {
                    prop_assert!(length <= bytes.len() && length <= MOST);
                    // Nothing behind the header changes it, and nothing less is one.
                    prop_assert_eq!(parse(&bytes[..length]), Ok(Parsed::Whole { header, length }));
                    prop_assert_eq!(parse(&bytes[..length - 1]), Ok(Parsed::Partial));
                }
                Ok(Parsed::Partial) => prop_assert!(bytes.len() < MOST),
                Err(_) => {}
            }
        }

        #[test]
        fn what_is_written_is_read(source in address(), destination in address()) {
            for version in [Version::V1, Version::V2] {
                let bytes = encode(version, &Header::Proxied { source, destination });
                let Ok(Parsed::Whole { header: Header::Proxied { source: s, destination: d }, length }) = parse(&bytes) else {
                    return Err(TestCaseError::fail(format!("{bytes:?}")));
                };
                prop_assert_eq!(length, bytes.len());
                prop_assert_eq!((s.ip().to_canonical(), s.port()), (source.ip().to_canonical(), source.port()));
                prop_assert_eq!((d.ip().to_canonical(), d.port()), (destination.ip().to_canonical(), destination.port()));
                if version == Version::V1 {
                    prop_assert!(bytes.len() <= MOST_V1);
                }
                let direct = encode(version, &Header::Direct);
                prop_assert_eq!(parse(&direct), Ok(Parsed::Whole { header: Header::Direct, length: direct.len() }));
            }
        }
    }
}
