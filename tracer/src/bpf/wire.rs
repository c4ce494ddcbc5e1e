//! Structures out of the bytes of a record.

use tracer_common::lifecycle::{Bound, Record, Runtime};

/// A structure of integers alone, which any bytes are a value of.
///
/// # Safety
/// Every bit pattern is a valid value, and there is no padding.
pub(crate) unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($type:ty),*) => {
        $(
            // SAFETY: `repr(C)` and made of integers and arrays of them; its layout assertion shows that there is no
            // padding.
            unsafe impl Wire for $type {}
        )*
    };
}
wire!(Record, Bound, Runtime);

/// The structure that `bytes` start with; None where they are too few.
#[must_use]
pub(crate) fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: there are as many bytes as the type has, any of them are a value of it, and a read that is not
    // aligned is what this is.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of a structure, as the programs write them.
#[must_use]
pub(crate) fn bytes<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: as many bytes as the type has, all of them initialised since there is no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_bytes_are_no_record() {
        assert!(read::<Runtime>(&[0; size_of::<Runtime>() - 1]).is_none());
        assert!(read::<Runtime>(&[0; size_of::<Runtime>() + 1]).is_some());
    }
}
