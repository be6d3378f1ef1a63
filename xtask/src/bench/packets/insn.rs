//! BPF instructions as values: the few that the generator and the empty programs need.
//!
//! Programs of a dozen instructions are easier to keep here than a second kernel crate with its own toolchain.
//! Numbers are those of linux/bpf.h and linux/bpf_common.h; the kernel's verifier checks whatever is built from them.

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. R1 to R5 are lost in a call, R6 to R9 are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    R0 = 0,
    R1 = 1,
    R6 = 6,
    R7 = 7,
    R8 = 8,
    R9 = 9,
}

/// Width of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Word = 0x00,
    Half = 0x08,
}

/// An operation on a register, with its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Or = 0x40,
    And = 0x50,
    Shl = 0x60,
    Shr = 0x70,
    Mod = 0x90,
    Xor = 0xa0,
    Mov = 0xb0,
}

// Instruction classes and modifiers.
const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const ALU32: u8 = 0x04;
const JMP: u8 = 0x05;
const ALU64: u8 = 0x07;
const MEM: u8 = 0x60;
const FROM_REGISTER: u8 = 0x08;
const TO_BIG_ENDIAN: u8 = 0xd8;
const JUMP_IF_GREATER: u8 = 0x20;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

/// `BPF_FUNC_get_prandom_u32`.
const GET_PRANDOM_U32: i32 = 7;

const fn insn(code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers: to as u8 | (from as u8) << 4,
        offset,
        immediate,
    }
}

/// `to = to op value`, on the lower 32 bits; the upper ones become zero.
pub const fn op(op: Op, to: Reg, value: u32) -> Insn {
    insn(ALU32 | op as u8, to, Reg::R0, 0, value.cast_signed())
}

/// `to = to op from`, on the lower 32 bits; the upper ones become zero.
pub const fn op_reg(op: Op, to: Reg, from: Reg) -> Insn {
    insn(ALU32 | FROM_REGISTER | op as u8, to, from, 0, 0)
}

/// `to = from`, all 64 bits: for addresses.
pub const fn copy(to: Reg, from: Reg) -> Insn {
    insn(ALU64 | FROM_REGISTER | Op::Mov as u8, to, from, 0, 0)
}

/// `to = to + value`, all 64 bits: for addresses.
pub const fn advance(to: Reg, value: i32) -> Insn {
    insn(ALU64 | Op::Add as u8, to, Reg::R0, 0, value)
}

/// The lower 16 or 32 bits of a register in the order of the network.
pub const fn big_endian(to: Reg, bits: i32) -> Insn {
    insn(TO_BIG_ENDIAN | ALU32, to, Reg::R0, 0, bits)
}

/// `to = *(from + offset)`.
pub const fn load(width: Width, to: Reg, from: Reg, offset: i16) -> Insn {
    insn(LDX | MEM | width as u8, to, from, offset, 0)
}

/// `*(to + offset) = from`.
pub const fn store(width: Width, to: Reg, offset: i16, from: Reg) -> Insn {
    insn(STX | MEM | width as u8, to, from, offset, 0)
}

/// Skips `count` instructions if `a > b`, unsigned.
pub const fn skip_if_greater(a: Reg, b: Reg, count: i16) -> Insn {
    insn(JMP | FROM_REGISTER | JUMP_IF_GREATER, a, b, count, 0)
}

/// A random number into R0.
pub const fn random() -> Insn {
    insn(JMP | CALL, Reg::R0, Reg::R0, 0, GET_PRANDOM_U32)
}

/// Ends the program with what is in R0.
pub const fn exit() -> Insn {
    insn(JMP | EXIT, Reg::R0, Reg::R0, 0, 0)
}

/// A program that answers every packet with the same action.
pub const fn constant(action: u32) -> [Insn; 2] {
    [op(Op::Mov, Reg::R0, action), exit()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodings as the kernel's own assembler macros give them.
    #[test]
    fn encodes_as_the_kernel_does() {
        let bytes = |i: Insn| (i.code, i.registers, i.offset, i.immediate);
        assert_eq!(bytes(op(Op::Mov, Reg::R0, 2)), (0xb4, 0x00, 0, 2));
        assert_eq!(bytes(copy(Reg::R6, Reg::R1)), (0xbf, 0x16, 0, 0));
        assert_eq!(bytes(load(Width::Word, Reg::R7, Reg::R6, 4)), (0x61, 0x67, 4, 0));
        assert_eq!(
            bytes(store(Width::Half, Reg::R7, 24, Reg::R1)),
            (0x6b, 0x17, 24, 0)
        );
        assert_eq!(bytes(big_endian(Reg::R1, 32)), (0xdc, 0x01, 0, 32));
        assert_eq!(bytes(skip_if_greater(Reg::R1, Reg::R8, 3)), (0x2d, 0x81, 3, 0));
        assert_eq!(bytes(random()), (0x85, 0, 0, 7));
        assert_eq!(bytes(exit()), (0x95, 0, 0, 0));
    }
}
