//! Memory that several CPUs access at once. Atomic arithmetic is inline assembly: Rust has no atomics for this
//! target.

use core::arch::asm;

/// Adds to a number that other CPUs may add to at the same time. Does not return the new value: an atomic
/// fetch-and-add needs Linux 5.12.
///
/// # Safety
/// `number` points to an aligned word of a map value that stays valid during the call. While other CPUs may access
/// it, it is only ever written by this function.
#[inline(always)]
pub unsafe fn add(number: *mut u64, change: i64) {
    // SAFETY: the instruction accesses only the eight bytes at `number`, which the caller guarantees to be valid and
    // aligned. It is atomic, so a concurrent addition is not lost. The verifier checks the pointer once more.
    unsafe {
        asm!("lock *(u64 *)({number} + 0) += {change}", number = in(reg) number, change = in(reg) change);
    }
}

/// Accessors for one field of a map value, in a tuple structure that holds a pointer to the value: a method that loads the
/// field and, if a name is given for it, one that stores it.
macro_rules! shared_field {
    ($field:ident: $type:ty, $setter:ident) => {
        shared_field!($field: $type);
        shared_field!(set $field: $type, $setter);
    };
    (set $field:ident: $type:ty, $setter:ident) => {
        #[inline(always)]
        pub fn $setter(self, value: $type) {
            // SAFETY: the pointer is to a map value, which stays valid as the structure's documentation says. The field is a
            // number, aligned and stored whole: a concurrent reader finds the old value or the new one.
            unsafe { (&raw mut (*self.0).$field).write_volatile(value) }
        }
    };
    ($field:ident: $type:ty) => {
        #[inline(always)]
        pub fn $field(self) -> $type {
            // SAFETY: the pointer is to a map value, which stays valid as the structure's documentation says. The field is a
            // number, aligned and stored whole by every writer, and every bit pattern of it is valid.
            unsafe { (&raw const (*self.0).$field).read_volatile() }
        }
    };
}
pub(crate) use shared_field;
