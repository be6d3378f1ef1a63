//! The SYN-ACK that answers a SYN, for any SYN: read back and checked by code that shares nothing with what made it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gateway_ebpf::cookie::{Checksum, Heads, Offer, Own, ROOM, answer, checksum};
use gateway_tests::flood::{fold, segment, sum};
use gateway_tests::packet::SYN;
use proptest::prelude::*;

/// A client's options in some order, as they go over the wire.
#[derive(Clone, Debug)]
enum Option_ {
    Nothing,
    Size(u16),
    Scale(u8),
    Sack,
    Time(u32),
    Unknown(u8),
}

impl Option_ {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Nothing => vec![1],
            Self::Size(size) => [&[2, 4][..], &size.to_be_bytes()].concat(),
            Self::Scale(scale) => vec![3, 3, scale],
            Self::Sack => vec![4, 2],
            Self::Time(time) => [&[8, 10][..], &time.to_be_bytes(), &[0; 4]].concat(),
            Self::Unknown(length) => [&[253, length + 2][..], &vec![7; length.into()]].concat(),
        }
    }
}

fn options() -> impl Strategy<Value = Vec<Option_>> {
    let one = prop_oneof![
        Just(Option_::Nothing),
        any::<u16>().prop_map(Option_::Size),
        (0_u8..=20).prop_map(Option_::Scale),
        Just(Option_::Sack),
        any::<u32>().prop_map(Option_::Time),
        (0_u8..6).prop_map(Option_::Unknown),
    ];
    proptest::collection::vec(one, 0..8).prop_map(|mut options: Vec<Option_>| {
        while options.iter().map(|option| option.bytes().len()).sum::<usize>() > 40 {
            options.pop();
        }
        options
    })
}

fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = (any::<u32>(), any::<u32>())
        .prop_map(|(a, b)| (IpAddr::from(Ipv4Addr::from(a)), Ipv4Addr::from(b).into()));
    let v6 = (any::<u128>(), any::<u128>())
        .prop_map(|(a, b)| (IpAddr::from(Ipv6Addr::from(a)), Ipv6Addr::from(b).into()));
    (prop_oneof![v4, v6], any::<u16>(), any::<u16>())
        .prop_map(|((a, b), from, to)| (SocketAddr::new(a, from), SocketAddr::new(b, to)))
}

/// A SYN with these options, padded by the end of options and zeros.
fn syn(from: SocketAddr, to: SocketAddr, number: u32, options: &[Option_]) -> Vec<u8> {
    let mut packet = segment(from, to, number, SYN);
    let ip = packet.len() - 20;
    packet.extend(options.iter().flat_map(Option_::bytes));
    packet.resize(packet.len().next_multiple_of(4), 0);
    let tcp = packet.len() - ip;
    packet[ip + 12] = ((tcp / 4) as u8) << 4;
    if from.is_ipv4() {
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(tcp as u16).to_be_bytes());
    }
    packet[ip + 16..ip + 18].fill(0);
    let check = !fold(pseudo(&packet, ip) + sum(&packet[ip..]));
    packet[ip + 16..ip + 18].copy_from_slice(&check.to_be_bytes());
    packet
}

/// Of a packet with `ip` bytes of IP header.
fn pseudo(packet: &[u8], ip: usize) -> u32 {
    let addresses = if ip == 20 { &packet[12..20] } else { &packet[8..40] };
    sum(addresses) + 6 + (packet.len() - ip) as u32
}

fn room(packet: &[u8]) -> [u8; ROOM] {
    let mut room = [0xee; ROOM];
    room[..packet.len()].copy_from_slice(packet);
    room
}

/// What is offered: timestamp, scale, SACK. The last of its kind counts, as in Linux.
fn offered(options: &[Option_]) -> (Option<u32>, Option<u8>, bool) {
    let mut offered = (None, None, false);
    for option in options {
        match option {
            Option_::Time(time) => offered.0 = Some(*time),
            Option_::Scale(scale) => offered.1 = Some((*scale).min(14)),
            Option_::Sack => offered.2 = true,
            _ => {}
        }
    }
    offered
}

/// A segment's options, read as simply as can be.
fn read(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [kind, tail @ ..] = rest {
        match kind {
            0 => break,
            1 => rest = tail,
            _ => {
                let length = usize::from(tail[0]);
                found.push((*kind, rest[2..length].to_vec()));
                rest = &rest[length..];
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_answer_to_any_syn_is_a_good_segment(
        (from, to) in ends(),
        options in options(),
        number in any::<u32>(),
        cookie in any::<u32>(),
        now_ms in any::<u32>(),
        with_options in any::<bool>(),
    ) {
        let packet = syn(from, to, number, &options);
        let (bytes, is_v6) = (room(&packet), from.is_ipv6());
        let heads = Heads::read(&bytes, packet.len() as u32).expect("a plain segment");
        let ip = if is_v6 { 40 } else { 20 };
        prop_assert_eq!((heads.is_v6, heads.tcp_length as usize, heads.flags, heads.bare), (is_v6, packet.len() - ip, SYN, true));
        prop_assert_eq!(checksum(&bytes, is_v6, heads.tcp_length), Checksum::Whole);

        let mut offer = Offer::default();
        offer.read(&bytes, ip, heads.tcp_length);
        let own = Own { cookie, segment_size: 1460, scale: 9, now_ms };
        let mut out = [0xdd; ROOM];
        let length = answer(&bytes, is_v6, with_options.then_some(&offer), &own, &mut out) as usize;
        let back = &out[..length];

        // IP.
        if is_v6 {
            prop_assert_eq!(&back[..8], &[0x60, 0, 0, 0, 0, (length - 40) as u8, 6, 64]);
            prop_assert_eq!((&back[8..24], &back[24..40]), (&packet[24..40], &packet[8..24]));
        } else {
            prop_assert_eq!(&back[..10], &[0x45, 0, 0, length as u8, 0, 0, 0x40, 0, 64, 6]);
            prop_assert_eq!((&back[12..16], &back[16..20]), (&packet[16..20], &packet[12..16]));
            prop_assert_eq!(fold(sum(&back[..20])), 0xffff);
        }
        // TCP.
        prop_assert_eq!(fold(pseudo(back, ip) + sum(&back[ip..])), 0xffff);
        let tcp = &back[ip..];
        prop_assert_eq!((&tcp[..2], &tcp[2..4]), (&packet[ip + 2..ip + 4], &packet[ip..ip + 2]));
        prop_assert_eq!(&tcp[4..8], &cookie.to_be_bytes());
        prop_assert_eq!(&tcp[8..12], &number.wrapping_add(1).to_be_bytes());
        prop_assert_eq!((usize::from(tcp[12] >> 4) * 4, tcp[13]), (tcp.len(), 0x12));

        // What is answered is what was offered, and the timestamp says it once more for the listener.
        let (time, scale, sack) = offered(&options);
        let found = read(&tcp[20..]);
        let value = |kind: u8| found.iter().find(|(k, _)| *k == kind).map(|(_, value)| value.clone());
        prop_assert_eq!(value(2), Some(1460_u16.to_be_bytes().to_vec()));
        let carried = time.filter(|_| with_options);
        prop_assert_eq!(value(3).is_some(), carried.is_some() && scale.is_some());
        prop_assert!(value(3).is_none_or(|value| value == [9]));
        prop_assert_eq!(value(4).is_some(), carried.is_some() && sack);
        let times = value(8).map(|value| {
            let word = |at: usize| u32::from_be_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
            (word(0), word(4))
        });
        prop_assert_eq!(times.map(|(_, theirs)| theirs), carried);
        if let Some((ours, _)) = times {
            // As `cookie_timestamp_decode` reads it.
            prop_assert_eq!(ours & 0xf, scale.map_or(0xf, u32::from));
            prop_assert_eq!(ours & 0x10 != 0, sack);
            prop_assert_eq!(ours & 0x20, 0, "ECN");
            prop_assert!(now_ms.wrapping_sub(ours) < 128, "{} at {}", ours, now_ms);
        }
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_read(bytes in any::<[[u8; 32]; 4]>(), length in 40_u32..=100, plain in any::<bool>()) {
        let mut bytes: [u8; ROOM] = bytes.concat().try_into().expect("four times thirty-two");
        if plain {
            (bytes[0], bytes[2], bytes[3], bytes[6], bytes[7], bytes[9]) = (0x45, 0, 80, 0, 0, 6);
        }
        if let Some(heads) = Heads::read(&bytes, length) {
            let ip = if heads.is_v6 { 40 } else { 20 };
            prop_assert!(heads.tcp_length >= 20 && ip + heads.tcp_length <= length);
            let mut offer = Offer::default();
            offer.read(&bytes, ip as usize, heads.tcp_length);
            prop_assert!(offer.timestamps <= 1 && offer.sack <= 1 && offer.scale <= 15);
            let _ = checksum(&bytes, heads.is_v6, heads.tcp_length);
        }
    }
}

#[test]
fn a_checksum_is_whole_or_begun_or_wrong() {
    for (from, to) in [
        ("192.0.2.1:1000", "198.51.100.1:80"),
        ("[2001:db8::1]:1000", "[2001:db8::2]:80"),
    ] {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().expect("ends"), to.parse().expect("ends"));
        let is_v6 = from.is_ipv6();
        let packet = syn(from, to, 7, &[Option_::Sack, Option_::Time(9)]);
        let (ip, mut bytes) = (if is_v6 { 40 } else { 20 }, room(&packet));
        let length = (packet.len() - ip) as u32;
        assert_eq!(checksum(&bytes, is_v6, length), Checksum::Whole);
        bytes[ip + 17] ^= 1;
        assert_eq!(checksum(&bytes, is_v6, length), Checksum::Wrong);
        let begun = fold(pseudo(&packet, ip)).to_be_bytes();
        bytes[ip + 16..ip + 18].copy_from_slice(&begun);
        assert_eq!(checksum(&bytes, is_v6, length), Checksum::Begun);
    }
}

#[test]
fn what_no_answer_could_be_made_of_is_not_read() {
    let ends = (
        "192.0.2.1:1000".parse().expect("an end"),
        "198.51.100.1:80".parse().expect("an end"),
    );
    let good = syn(ends.0, ends.1, 7, &[]);
    let read = |change: &dyn Fn(&mut [u8; ROOM])| {
        let mut bytes = room(&good);
        change(&mut bytes);
        Heads::read(&bytes, good.len() as u32)
    };
    assert!(read(&|_| ()).is_some());
    assert!(read(&|b| b[6] = 0x40).is_some(), "the bit that forbids fragments");
    for (what, change) in [
        (
            "options of IPv4",
            (&|b: &mut [u8; ROOM]| b[0] = 0x46) as &dyn Fn(&mut [u8; ROOM]),
        ),
        ("the first of some fragments", &|b| b[6] = 0x20),
        ("a later fragment", &|b| b[7] = 1),
        ("another protocol", &|b| b[9] = 17),
        ("a TCP header longer than the packet", &|b| b[32] = 0xf0),
        ("a TCP header too short", &|b| b[32] = 0x40),
        ("a length shorter than the header", &|b| b[3] = 10),
        ("another version", &|b| b[0] = 0x55),
    ] {
        assert_eq!(read(change), None, "{what}");
    }
}
