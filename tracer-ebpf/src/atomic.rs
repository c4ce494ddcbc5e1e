//! Atomic arithmetic, in assembly: Rust has none for this target.

use core::arch::asm;

/// Adds to a number that others add to at the same time. What came of it is not known here: a fetching addition
/// needs Linux 5.12.
///
/// # Safety
/// `number` is valid, and written in no other way meanwhile.
#[inline(always)]
pub unsafe fn add(number: *mut u64, change: i64) {
    // SAFETY: the caller vouches for it.
    unsafe {
        asm!("lock *(u64 *)({number} + 0) += {change}", number = in(reg) number, change = in(reg) change);
    }
}
