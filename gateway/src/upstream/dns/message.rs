//! Questions and answers as bytes (RFC 1035; SRV: RFC 2782; the size that is taken: RFC 6891). Pure; everything that
//! comes may be forged, so every length is looked at and nothing is followed twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Longest answer over UDP that is asked for, in bytes: fits a packet everywhere.
pub(super) const MOST_UDP: usize = 1232;
const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const CNAME: u16 = 5;
const OPT: u16 = 41;
const MOST_LABEL: usize = 63;
const MOST_NAME: usize = 253;
/// Pointers followed in one name.
const MOST_JUMPS: usize = 32;
/// Aliases followed from the name asked for.
const MOST_ALIASES: usize = 16;
/// Records looked at.
const MOST_RECORDS: usize = 1024;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A = 1,
    Aaaa = 28,
    Srv = 33,
}

/// What a reply says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) records: Vec<Record>,
    /// The shortest of the records'.
    pub(super) ttl: Option<Duration>,
    /// There is more than fitted.
    pub(super) truncated: bool,
    /// The server failed or would not say; records then mean nothing.
    pub(super) refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Ip(IpAddr),
    Srv(Srv),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Srv {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// In lower case, without the final dot.
    pub(super) target: String,
}

/// A question; `None` if the name is none.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 17);
    out.extend(id.to_be_bytes());
    // Recursion desired; one question and one additional record.
    out.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1]);
    let name = name.trim_end_matches('.');
    if name.is_empty() || name.len() > MOST_NAME {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > MOST_LABEL {
            return None;
        }
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend((kind as u16).to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out.push(0);
    out.extend(OPT.to_be_bytes());
    out.extend(u16::try_from(MOST_UDP).unwrap_or(512).to_be_bytes());
    out.extend([0; 6]);
    Some(out)
}

/// What `bytes` say to that question; `None` if they do not answer it, or are not to be read.
pub(super) fn reply(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Option<Reply> {
    let mut at = 0;
    let header: [u16; 6] = std::array::from_fn(|_| take_u16(bytes, &mut at).unwrap_or_default());
    let [its_id, flags, questions, answers, ..] = header;
    if bytes.len() < HEADER || its_id != id || flags & 0x8000 == 0 || questions != 1 {
        return None;
    }
    let asked = canonical(name);
    if take_name(bytes, &mut at)? != asked || take_u16(bytes, &mut at)? != kind as u16 {
        return None;
    }
    if take_u16(bytes, &mut at)? != CLASS_IN {
        return None;
    }
    let mut reply = Reply {
        truncated: flags & 0x0200 != 0,
        // No error, and no such name, are answers.
        refused: !matches!(flags & 0x000f, 0 | 3),
        ..Reply::default()
    };
    if reply.truncated || reply.refused {
        return Some(reply);
    }
    let mut found: Vec<(String, u32, Record)> = Vec::new();
    let mut aliases: Vec<(String, String)> = Vec::new();
    for _ in 0..usize::from(answers).min(MOST_RECORDS) {
        let owner = take_name(bytes, &mut at)?;
        let (its_kind, class) = (take_u16(bytes, &mut at)?, take_u16(bytes, &mut at)?);
        let ttl = u32::from(take_u16(bytes, &mut at)?) << 16 | u32::from(take_u16(bytes, &mut at)?);
        let length = usize::from(take_u16(bytes, &mut at)?);
        let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
        if class == CLASS_IN && its_kind == CNAME {
            aliases.push((owner, take_name(bytes, &mut at.clone())?));
        } else if class == CLASS_IN && its_kind == kind as u16 {
            let record = record(bytes, at, end, kind)?;
            found.push((owner, ttl, record));
        }
        at = end;
    }
    // Only what is said of the name itself, or of what it is an alias of.
    let mut names = vec![asked];
    while names.len() <= MOST_ALIASES {
        let next = aliases.iter().find(|(owner, _)| names.last() == Some(owner));
        match next {
            Some((_, target)) if !names.contains(target) => names.push(target.clone()),
            _ => break,
        }
    }
    found.retain(|(owner, _, _)| names.contains(owner));
    // The highest bit of a time to live counts as zero (RFC 2181, 8).
    let ttl = found
        .iter()
        .map(|(_, ttl, _)| if *ttl >> 31 == 1 { 0 } else { *ttl })
        .min();
    reply.ttl = ttl.map(|seconds| Duration::from_secs(seconds.into()));
    reply.records = found.into_iter().map(|(_, _, record)| record).collect();
    Some(reply)
}

fn record(bytes: &[u8], at: usize, end: usize, kind: Kind) -> Option<Record> {
    let data = bytes.get(at..end)?;
    Some(match kind {
        Kind::A => Record::Ip(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        Kind::Aaaa => Record::Ip(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        Kind::Srv => {
            let mut at = at;
            let (priority, weight) = (take_u16(bytes, &mut at)?, take_u16(bytes, &mut at)?);
            let port = take_u16(bytes, &mut at)?;
            let target = take_name(bytes, &mut at)?;
            if at != end {
                return None;
            }
            Record::Srv(Srv {
                priority,
                weight,
                port,
                target,
            })
        }
    })
}

fn take_u16(bytes: &[u8], at: &mut usize) -> Option<u16> {
    let pair = bytes.get(*at..at.checked_add(2)?)?;
    *at += 2;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

/// A name in lower case and without a final dot; `at` is put behind it. Only host-like bytes are taken.
fn take_name(bytes: &[u8], at: &mut usize) -> Option<String> {
    let mut name = String::new();
    let mut from = *at;
    let mut behind = None;
    let mut jumps = 0;
    loop {
        let length = usize::from(*bytes.get(from)?);
        match length >> 6 {
            0 if length == 0 => {
                *at = behind.unwrap_or(from + 1);
                return Some(name);
            }
            0 => {
                let label = bytes.get(from + 1..from + 1 + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                for byte in label {
                    if !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'_') {
                        return None;
                    }
                    name.push(byte.to_ascii_lowercase().into());
                }
                if name.len() > MOST_NAME {
                    return None;
                }
                from += 1 + length;
            }
            3 => {
                let low = usize::from(*bytes.get(from + 1)?);
                behind.get_or_insert(from + 2);
                from = (length & 0x3f) << 8 | low;
                jumps += 1;
                if jumps > MOST_JUMPS {
                    return None;
                }
            }
            _ => return None,
        }
    }
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reply to `question` with records of `(owner as bytes, kind, ttl, data)`.
    fn answer(question: &[u8], flags: u16, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question.to_vec();
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        out.truncate(out.len() - 11);
        out[10..12].copy_from_slice(&[0, 0]);
        for (owner, kind, ttl, data) in records {
            out.extend(*owner);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(ttl.to_be_bytes());
            out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend(*data);
        }
        out
    }

    /// A pointer to the name in the question.
    const SAME: &[u8] = &[0xc0, 12];

    #[test]
    fn addresses_and_aliases_are_read_and_others_are_not_believed() {
        let asked = question(7, "App.internal", Kind::A).unwrap();
        let other = b"\x05other\x00";
        let bytes = answer(
            &asked,
            0x8180,
            &[
                (SAME, CNAME, 60, other),
                (other, 1, 30, &[10, 0, 0, 1]),
                (b"\x03foe\x00", 1, 1, &[6, 6, 6, 6]),
            ],
        );
        let reply = reply(&bytes, 7, "app.internal.", Kind::A).unwrap();
        assert_eq!(reply.records, [Record::Ip([10, 0, 0, 1].into())]);
        assert_eq!(reply.ttl, Some(Duration::from_secs(30)));
        assert_eq!(
            super::reply(&bytes, 8, "app.internal", Kind::A),
            None,
            "another id"
        );
        assert_eq!(
            super::reply(&bytes, 7, "b.internal", Kind::A),
            None,
            "another name"
        );
        assert_eq!(super::reply(&bytes, 7, "app.internal", Kind::Aaaa), None);
        for end in 0..bytes.len() {
            assert_eq!(
                super::reply(&bytes[..end], 7, "app.internal", Kind::A),
                None,
                "cut at {end}"
            );
        }
    }

    #[test]
    fn no_such_name_is_an_answer_and_a_failure_is_none() {
        let asked = question(7, "a", Kind::Srv).unwrap();
        let read = |flags| reply(&answer(&asked, flags, &[]), 7, "a", Kind::Srv).unwrap();
        assert_eq!(read(0x8183), Reply::default());
        assert!(read(0x8182).refused && read(0x8185).refused);
        assert!(read(0x8380).truncated);
    }

    #[test]
    fn services_are_read() {
        let asked = question(7, "_http._tcp.a", Kind::Srv).unwrap();
        let data = b"\x00\x01\x00\x05\x1f\x90\x03App\xc0\x17";
        let reply = reply(
            &answer(&asked, 0x8180, &[(SAME, 33, 0, data)]),
            7,
            "_http._tcp.a",
            Kind::Srv,
        );
        let srv = Srv {
            priority: 1,
            weight: 5,
            port: 8080,
            target: "app.a".into(),
        };
        assert_eq!(reply.unwrap().records, [Record::Srv(srv)]);
    }

    #[test]
    fn names_that_lead_in_circles_end() {
        let asked = question(7, "a", Kind::A).unwrap();
        let bytes = answer(&asked, 0x8180, &[(&[0xc0, 19], 1, 0, &[1, 2, 3, 4])]);
        assert_eq!(reply(&bytes, 7, "a", Kind::A), None);
        let circle = answer(
            &asked,
            0x8180,
            &[
                (SAME, CNAME, 0, b"\x01b\x00"),
                (b"\x01b\x00", CNAME, 0, b"\x01a\x00"),
            ],
        );
        assert_eq!(reply(&circle, 7, "a", Kind::A).unwrap().records, []);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200), records in any::<u16>()) {
            let _ = reply(&bytes, 7, "a", Kind::A);
            let mut whole = question(7, "a", Kind::Srv).unwrap();
            whole[2] = 0x81;
            whole[6..8].copy_from_slice(&records.to_be_bytes());
            whole.truncate(HEADER + 7);
            whole.extend(bytes);
            let _ = reply(&whole, 7, "a", Kind::Srv);
        }
    }
}
