//! The one ABI between tracer's eBPF programs and its user space.
//!
//! Every structure here is `repr(C)`, without implicit padding, and has its size and the offsets of its fields
//! asserted at compile time, because it is written by one compiler target and read by another.

#![no_std]

pub mod container;
pub mod filter;
pub mod kinds;
pub mod lifecycle;
pub mod offsets;
pub mod preemption;
pub mod programs;
pub mod stats;

/// Length of a task's comm, its NUL included (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// A task's comm: NUL-terminated, NUL-padded, any bytes.
pub type Comm = [u8; COMM_LEN];

/// A file name as the kernel makes it a comm: its first 15 bytes.
#[must_use]
pub fn comm_of(name: &str) -> Comm {
    let mut comm = Comm::default();
    let len = name.len().min(COMM_LEN - 1);
    comm[..len].copy_from_slice(&name.as_bytes()[..len]);
    comm
}

/// A comm up to its NUL.
#[must_use]
pub fn comm_bytes(comm: &Comm) -> &[u8] {
    comm.split(|byte| *byte == 0).next().unwrap_or(comm)
}

/// Asserts at compile time the size of a structure, the offsets of its fields, and that there is nothing between them:
/// fields with padding, or those left out here, do not add up to the size.
macro_rules! assert_layout {
    ($type:ty, size $size:literal $(, $field:ident @ $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
            let fields = 0 $(+ $crate::size_of_field(|value: &$type| &value.$field))*;
            assert!(fields == $size, "padding, or a field that is not named");
        };
    };
}

/// The size of the field that `_field` is about.
pub(crate) const fn size_of_field<T, F>(_field: fn(&T) -> &F) -> usize {
    size_of::<F>()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_as_the_kernel_cuts_a_comm() {
        assert_eq!(&comm_of("nvidia-container-runtime"), b"nvidia-containe\0");
        assert_eq!(&comm_of("runc"), b"runc\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(comm_bytes(&comm_of("runc")), b"runc");
    }
}
