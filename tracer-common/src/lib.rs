//! The one ABI between tracer's eBPF programs and its user space.
//!
//! Every structure here is `repr(C)`, without implicit padding, and has its size and the offsets of its fields
//! asserted at compile time, because it is written by one compiler target and read by another.

#![no_std]

pub mod container;
pub mod event;
pub mod lifecycle;
pub mod offsets;
pub mod stats;

/// Length of a task's comm, its NUL included (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// A task's comm: NUL-terminated, NUL-padded, any bytes.
pub type Comm = [u8; COMM_LEN];

/// Asserts at compile time the size of a structure and the offsets of the fields named.
macro_rules! assert_layout {
    ($type:ty, size $size:literal $(, $field:ident @ $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use assert_layout;

/// Marks map values and keys as plain bytes for aya.
macro_rules! impl_pod {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)`, integers only, and the layout assertion shows that there is no padding.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $type {}
        )*
    };
}
pub(crate) use impl_pod;
