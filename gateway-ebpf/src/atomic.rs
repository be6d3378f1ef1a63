//! Atomic instructions of the BPF machine. The target has none in `core::sync::atomic`, but the intrinsics below
//! them compile to the real ones with `-C target-cpu=v3` (kernel 5.12).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds `value` to `*target`.
///
/// # Safety
/// `target` must point to an aligned word that is shared through atomic accesses only.
#[inline(always)]
pub unsafe fn add(target: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(target, value) };
}

/// Stores `new` if `*target` is still `old`; says whether it did.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn swap_if(target: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(target, old, new).1 }
}
