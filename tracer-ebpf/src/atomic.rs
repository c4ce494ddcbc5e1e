//! Values that several CPUs use at once. Atomic arithmetic is in assembly: Rust has none for this target.

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

/// A method that loads a field of a map's value: of a tuple structure that has a pointer to it.
macro_rules! shared_field {
    ($field:ident: $type:ty) => {
        #[inline(always)]
        pub fn $field(self) -> $type {
            // SAFETY: a map's value, which stays as the type's comment says. Whoever writes it writes the field as a whole.
            unsafe { (&raw const (*self.0).$field).read_volatile() }
        }
    };
}
pub(crate) use shared_field;
