//! A position in a frame and its end: the only place that touches packet memory.

use core::marker::PhantomData;

/// Hands out bytes of a frame, never beyond its end.
///
/// Two raw pointers, because that is what the kernel gives and what its verifier reasons about: it accepts a load
/// only after a comparison of that very pointer with the end, which is what [`Cursor::take`] compiles to. On the
/// host the same code runs over a slice.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    at: *const u8,
    end: *const u8,
    frame: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `frame`.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        let range = frame.as_ptr_range();
        Self {
            at: range.start,
            end: range.end,
            frame: PhantomData,
        }
    }

    /// At `start` of a frame that ends before `end`.
    ///
    /// # Safety
    /// Every byte from `start` up to `end` must be readable for `'a`, and `end` must be the frame's true end.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn from_raw(start: *const u8, end: *const u8) -> Self {
        Self {
            at: start,
            end,
            frame: PhantomData,
        }
    }

    /// The next `N` bytes, or `None` if the frame ends before.
    #[inline(always)]
    pub fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let next = self.at.wrapping_add(N);
        if next > self.end {
            return None;
        }
        // SAFETY: `at..next` lies within the frame: `at` started at its beginning and only moves forward by less
        // than 2^17 bytes in all (see `skip`), so it can not wrap, and `next` was just compared with the end.
        let bytes = unsafe { &*self.at.cast::<[u8; N]>() };
        self.at = next;
        Some(bytes)
    }

    /// Moves on by `length` bytes, at most 65,535, without reading. Whether they exist is found by the next `take`.
    #[inline(always)]
    pub fn skip(&mut self, length: u16) {
        self.at = self.at.wrapping_add(length as usize);
    }

    /// Whether at least `length` more bytes follow.
    #[inline(always)]
    #[must_use]
    pub fn holds(&self, length: u16) -> bool {
        self.at.wrapping_add(length as usize) <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_up_to_the_end_and_not_beyond() {
        let bytes = [1, 2, 3, 4, 5];
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.take::<2>(), Some(&[1, 2]));
        assert!(cursor.holds(3) && !cursor.holds(4));
        assert_eq!(cursor.take::<4>(), None);
        assert_eq!(cursor.take::<3>(), Some(&[3, 4, 5]));
        assert_eq!(cursor.take::<1>(), None);
    }

    #[test]
    fn a_skip_beyond_the_end_reads_nothing() {
        let mut cursor = Cursor::new(&[1, 2, 3]);
        cursor.skip(u16::MAX);
        assert_eq!(cursor.take::<1>(), None);
        assert!(!cursor.holds(0));
    }
}
