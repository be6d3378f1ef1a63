//! Comparisons by arithmetic.
//!
//! The kernel's verifier follows both sides of each branch. Where eight places of a bucket are compared one after the
//! other, that makes 2^8 ways through one bucket; a number that merely *is* zero or one makes one. The compiler has to
//! be kept from turning the arithmetic back into the branches it stands for.

/// `number`, of which the compiler knows nothing.
#[inline(always)]
#[must_use]
pub fn opaque(number: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: moves a register to itself. (Without any instruction, the line information would name one address
        // twice, which the kernel refuses.)
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
        }
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// The uppermost bit.
#[inline(always)]
fn sign(number: u64) -> u64 {
    opaque(number >> 63)
}

/// One if `number` is zero, else zero.
#[inline(always)]
#[must_use]
pub fn is_zero(number: u64) -> u64 {
    sign(number | opaque(number.wrapping_neg())) ^ 1
}

/// One if `a < b`, else zero; both below 2^63.
#[inline(always)]
#[must_use]
pub fn is_less(a: u64, b: u64) -> u64 {
    sign(opaque(a.wrapping_sub(b)))
}

/// The smaller of two numbers below 2^63.
#[inline(always)]
#[must_use]
pub fn smaller(a: u64, b: u64) -> u64 {
    a ^ ((a ^ b) & 0_u64.wrapping_sub(is_less(b, a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_says_what_comparisons_say() {
        let most = u64::MAX >> 1;
        for a in [0, 1, 2, 77, 1 << 32, most - 1, most] {
            assert_eq!(is_zero(a), u64::from(a == 0));
            for b in [0, 1, 2, 77, 1 << 32, most - 1, most] {
                assert_eq!(is_less(a, b), u64::from(a < b));
                assert_eq!(smaller(a, b), a.min(b));
            }
        }
        assert_eq!(is_zero(u64::MAX), 0);
        assert_eq!(is_zero(1 << 63), 0);
    }
}
