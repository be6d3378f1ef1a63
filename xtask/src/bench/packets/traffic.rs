//! What is sent: which sources, which frames, and the program that makes frame after frame of them.
//!
//! Sources follow from a random number by arithmetic alone, so that a million of them cost the generator no look-up,
//! and so that the same arithmetic here writes the lists that the programs under test are given.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::insn::{
    Insn, Op, Reg, Width, advance, big_endian, copy, exit, load, op, op_reg, random, skip_if_greater, store,
};
use super::rig::{ADDRESS, MAC};
use super::sys::{Program, XDP_TX};

/// All listed sources lie in 128.0.0.0/2.
const BASE: u32 = 0x8000_0000;
const BASE_BITS: u32 = 30;
/// Odd, so that multiplying by it modulo a power of two maps different numbers to different numbers.
const SPREAD: u32 = 0x9e37_79b1;
/// `SPREAD * INVERSE` is 1 modulo 2^32.
const INVERSE: u32 = 0x0e8b_2f51;
/// A /19 for each prefix, so that none overlap.
const SLOT_BITS: u32 = 13;
/// Prefixes are /20 to /28 in turn.
const SHORTEST: u32 = 20;
const LENGTHS: u32 = 9;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// One address.
    One(Ipv4Addr),
    /// One of so many addresses, spread over 128.0.0.0/2, at random for each packet.
    Spread(u32),
    /// An address within one of so many prefixes, both at random for each packet. At most 131,072.
    Within(u32),
}

/// A network of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    pub addr: Ipv4Addr,
    pub bits: u32,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits {
            32 => write!(f, "{}", self.addr),
            bits => write!(f, "{}/{bits}", self.addr),
        }
    }
}

impl Sources {
    /// The networks that cover these sources and nothing else.
    pub fn nets(self) -> Box<dyn Iterator<Item = Net>> {
        let single = |addr| Net { addr, bits: 32 };
        match self {
            Self::One(addr) => Box::new(std::iter::once(single(addr))),
            Self::Spread(count) => Box::new((0..count).map(move |number| single(spread(number).into()))),
            Self::Within(count) => Box::new((0..count).map(within)),
        }
    }

    /// Whether an address is one of these sources.
    fn has(self, addr: Ipv4Addr) -> bool {
        let bits = addr.to_bits();
        match self {
            Self::One(one) => addr == one,
            Self::Spread(count) => {
                let number = bits.wrapping_mul(INVERSE) & ((1 << BASE_BITS) - 1);
                number < count && spread(number) == bits
            }
            Self::Within(count) => {
                let slot = (bits & !BASE) >> SLOT_BITS;
                let number = slot.wrapping_mul(INVERSE) & ((1 << (BASE_BITS - SLOT_BITS)) - 1);
                let net = within(number);
                number < count && bits & (u32::MAX << (32 - net.bits)) == net.addr.to_bits()
            }
        }
    }

    /// Puts a source into R9. Uses R0, R1 and R6.
    fn choose(self) -> Vec<Insn> {
        use Reg::{R0, R1, R6, R9};
        match self {
            Self::One(addr) => vec![op(Op::Mov, R9, addr.to_bits())],
            Self::Spread(count) => vec![
                random(),
                op(Op::Mod, R0, count),
                op(Op::Mul, R0, SPREAD),
                op(Op::And, R0, (1 << BASE_BITS) - 1),
                op(Op::Or, R0, BASE),
                op_reg(Op::Mov, R9, R0),
            ],
            Self::Within(count) => vec![
                random(),
                op(Op::Mod, R0, count),
                // R9: the prefix.
                op_reg(Op::Mov, R9, R0),
                op(Op::Mul, R9, SPREAD),
                op(Op::And, R9, (1 << (BASE_BITS - SLOT_BITS)) - 1),
                op(Op::Shl, R9, SLOT_BITS),
                op(Op::Or, R9, BASE),
                // R6: its host bits.
                op(Op::Mod, R0, LENGTHS),
                op(Op::Mov, R6, 32 - SHORTEST),
                op_reg(Op::Sub, R6, R0),
                // A host within it.
                random(),
                op(Op::Mov, R1, 1),
                op_reg(Op::Shl, R1, R6),
                op(Op::Sub, R1, 1),
                op_reg(Op::And, R0, R1),
                op_reg(Op::Or, R9, R0),
            ],
        }
    }
}

fn spread(number: u32) -> u32 {
    BASE | number.wrapping_mul(SPREAD) & ((1 << BASE_BITS) - 1)
}

fn within(number: u32) -> Net {
    let slot = number.wrapping_mul(SPREAD) & ((1 << (BASE_BITS - SLOT_BITS)) - 1);
    Net {
        addr: (BASE | slot << SLOT_BITS).into(),
        bits: SHORTEST + number % LENGTHS,
    }
}

/// A TCP segment without payload, in the shortest frame of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    Syn,
    Ack,
}

const IP: usize = 14;
const TCP: usize = 34;
const FRAME: usize = 60;
const SOURCE: usize = IP + 12;
const IP_CHECKSUM: usize = IP + 10;
const TCP_CHECKSUM: usize = TCP + 16;
const WHOLE: i32 = FRAME as i32;

/// A whole sum that makes the TCP checksum wrong in every packet, by one. Packets that a program under test lets through
/// end in the stack for that: after all hooks, counted, and at once. An answer to each would cost more than any filter.
const WRONG: u32 = 1;

/// A frame to the receiving end from 0.0.0.0, with checksums that lack the source.
pub fn frame(segment: Segment) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&MAC);
    frame[6..IP].copy_from_slice(&[2, 0, 0, 0, 0, 2, 8, 0]);
    frame[IP..IP + 10].copy_from_slice(&[0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6]);
    frame[SOURCE + 4..TCP].copy_from_slice(&ADDRESS.octets());
    let flags = match segment {
        Segment::Syn => 0x02,
        Segment::Ack => 0x10,
    };
    let tcp = [
        0xc0,
        0,
        0x01,
        0xbb,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        1,
        5 << 4,
        flags,
        0xff,
        0xff,
    ];
    frame[TCP..TCP + 16].copy_from_slice(&tcp);
    frame
}

/// Ones' complement sum of 16-bit words, not folded.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

/// Sends each frame back out with the next source, a good IP checksum and a TCP checksum that is wrong by one. `frame`
/// is what it will be run over.
pub fn program(sources: Sources, frame: &[u8]) -> Result<Program> {
    sender(sources, frame, WRONG)
}

/// As [`program`], with good checksums: what a stack would take.
pub fn flawless(sources: Sources, frame: &[u8]) -> Result<Program> {
    sender(sources, frame, 0)
}

fn sender(sources: Sources, frame: &[u8], wrong: u32) -> Result<Program> {
    use Reg::{R0, R1, R7, R8, R9};
    // Data and its end; too short a frame is sent as it is, which the check below would show.
    let mut code = vec![load(Width::Word, R7, R1, 0), load(Width::Word, R8, R1, 4)];
    let mut body = Vec::new();
    // Whole: the kernel uses the memory of a frame again, and who answers a SYN has written over it.
    for at in (0..FRAME).step_by(4) {
        let word = [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
        body.extend([
            op(Op::Mov, R1, u32::from_ne_bytes(word)),
            store(Width::Word, R7, at as i16, R1),
        ]);
    }
    body.extend(sources.choose());
    body.extend([
        op_reg(Op::Mov, R1, R9),
        big_endian(R1, 32),
        store(Width::Word, R7, SOURCE as i16, R1),
    ]);
    // TCP's sum takes in addresses, protocol and length; all but the source is the same in every packet.
    let segment = sum(&frame[TCP..IP + 40]) + sum(&ADDRESS.octets()) + 6 + 20 + wrong;
    for (constant, at) in [(sum(&frame[IP..TCP]), IP_CHECKSUM), (segment, TCP_CHECKSUM)] {
        body.extend([
            op_reg(Op::Mov, R0, R9),
            op(Op::Shr, R0, 16),
            op_reg(Op::Mov, R1, R9),
            op(Op::And, R1, 0xffff),
            op_reg(Op::Add, R0, R1),
            op(Op::Add, R0, constant),
        ]);
        // Twice, since the first folding may carry.
        for _ in 0..2 {
            body.extend([
                op_reg(Op::Mov, R1, R0),
                op(Op::Shr, R1, 16),
                op(Op::And, R0, 0xffff),
                op_reg(Op::Add, R0, R1),
            ]);
        }
        body.extend([
            op(Op::Xor, R0, 0xffff),
            big_endian(R0, 16),
            store(Width::Half, R7, at as i16, R0),
        ]);
    }
    let length = i16::try_from(body.len())?;
    code.extend([copy(R1, R7), advance(R1, WHOLE), skip_if_greater(R1, R8, length)]);
    code.extend(body);
    code.extend([op(Op::Mov, R0, XDP_TX), exit()]);
    let program = Program::load("bench_sender", &code)?;
    check(&program, sources, frame, wrong)?;
    Ok(program)
}

/// Looks at some of what the program makes: sources as listed, checksums as meant.
fn check(program: &Program, sources: Sources, frame: &[u8], wrong: u32) -> Result<()> {
    for _ in 0..1000 {
        let (action, made) = program.rewrite(frame)?;
        let source = Ipv4Addr::new(made[SOURCE], made[SOURCE + 1], made[SOURCE + 2], made[SOURCE + 3]);
        ensure!(
            action == XDP_TX && sources.has(source),
            "the sender made a packet from {source}"
        );
        let pseudo = sum(&made[SOURCE..TCP]) + 6 + 20;
        for sum in [sum(&made[IP..TCP]), sum(&made[TCP..IP + 40]) + pseudo + wrong] {
            let once = (sum & 0xffff) + (sum >> 16);
            ensure!(
                (once & 0xffff) + (once >> 16) == 0xffff,
                "the sender made a bad checksum"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn lists_have_no_doubles() {
        let all: HashSet<String> = Sources::Spread(100_000)
            .nets()
            .map(|net| net.to_string())
            .collect();
        assert_eq!(all.len(), 100_000);
        let slots: HashSet<u32> = Sources::Within(100_000)
            .nets()
            .map(|net| net.addr.to_bits() >> SLOT_BITS)
            .collect();
        assert_eq!(slots.len(), 100_000, "each prefix has a /19 of its own");
    }

    #[test]
    fn knows_its_own() {
        for sources in [
            Sources::Spread(1000),
            Sources::Within(1000),
            Sources::One([192, 0, 2, 1].into()),
        ] {
            assert!(sources.nets().all(|net| sources.has(net.addr)));
            assert!(!sources.has([10, 0, 0, 1].into()));
        }
        let (last, next) = (spread(1000), within(1000).addr);
        assert!(!Sources::Spread(1000).has(last.into()) && !Sources::Within(1000).has(next));
    }

    #[test]
    fn lengths_are_mixed_and_host_bits_are_clear() {
        let nets: Vec<Net> = Sources::Within(1000).nets().collect();
        for bits in SHORTEST..SHORTEST + LENGTHS {
            assert!(nets.iter().filter(|net| net.bits == bits).count() > 100);
        }
        assert!(
            nets.iter()
                .all(|net| net.addr.to_bits().trailing_zeros() >= 32 - net.bits)
        );
        assert_eq!(nets[0].to_string(), "128.0.0.0/20");
        assert_eq!(
            Sources::One([192, 0, 2, 1].into())
                .nets()
                .next()
                .map(|net| net.to_string()),
            Some("192.0.2.1".to_owned())
        );
    }
}
