//! Reads kernel and user memory. Together with [`crate::emit`] this holds most of the unsafe code of the programs.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    helpers::generated::{
        bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
    },
};
use tracer_common::offsets::UNKNOWN;

/// An address in the kernel. A read at an invalid address, null included, fails and does no harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelAddress(pub u64);

impl KernelAddress {
    /// Reads the field at `offset`; `None` if the kernel has no such field or the address is invalid.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: &Global<u32>) -> Option<T> {
        let offset = offset.load();
        if offset == UNKNOWN {
            return None;
        }
        self.read_at(u64::from(offset))
    }

    /// Reads the pointer at `offset`; null, at which every read fails, if that is not possible.
    #[inline(always)]
    pub fn follow(self, offset: &Global<u32>) -> Self {
        Self(self.read(offset).unwrap_or(0))
    }

    /// Reads the number at `offset`; 0 if that is not possible.
    #[inline(always)]
    pub fn number(self, offset: &Global<u32>) -> u32 {
        self.read(offset).unwrap_or(0)
    }

    /// Reads the value `offset` bytes after this address.
    #[inline(always)]
    pub fn read_at<T: Copy>(self, offset: u64) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the destination is `size_of::<T>()` bytes of the program's stack, and the helper checks the source.
        // On success it has written all of them, and callers read only integers and pointers, for which every bit
        // pattern is valid.
        unsafe {
            let failed = bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                (self.0 + offset) as *const _,
            );
            (failed == 0).then(|| value.assume_init())
        }
    }
}

/// Masks a number with `MASK` where the verifier sees it. Inline assembly, because the compiler removes masks that it
/// can prove redundant, while the verifier, which loses a bound when a register is copied, still needs them.
#[inline(always)]
pub fn bounded<const MASK: u32>(number: u32) -> u32 {
    bounded_index::<MASK>(number) as u32
}

/// The same for an index.
#[inline(always)]
pub fn bounded_index<const MASK: u32>(number: u32) -> usize {
    let mut number = u64::from(number);
    // SAFETY: one arithmetic instruction on one register.
    unsafe {
        asm!("{number} &= {mask}", number = inout(reg) number, mask = const MASK, options(pure, nomem, nostack));
    }
    number as usize
}

/// Limits a number to `MAX` where the verifier sees it. Inline assembly for the same reason.
#[inline(always)]
pub fn capped<const MAX: u32>(number: u32) -> u32 {
    let mut number = u64::from(number);
    // SAFETY: arithmetic on one register and a jump within the block.
    unsafe {
        asm!(
            "if {number} <= {max} goto +1",
            "{number} = {max}",
            number = inout(reg) number,
            max = const MAX,
            options(pure, nomem, nostack),
        );
    }
    number as u32
}

/// `number` - 1, but 0 for 0. Inline assembly, because the compiler would emit a branch: the verifier would then
/// follow strings of known and unknown length separately, and every combination of them through a loop.
#[inline(always)]
fn saturating_decrement(mut number: u64) -> u64 {
    // SAFETY: arithmetic on two registers.
    unsafe {
        asm!(
            "{one} = {number}",
            "{one} = -{one}",
            "{one} |= {number}",
            "{one} >>= 63",
            "{number} -= {one}",
            number = inout(reg) number,
            one = out(reg) _,
            options(pure, nomem, nostack),
        );
    }
    number
}

/// Reads a value from the memory of the current process.
#[inline(always)]
pub fn user<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as in `KernelAddress::read_at`; the helper refuses addresses outside of the process's memory.
    unsafe {
        let failed =
            bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        (failed == 0).then(|| value.assume_init())
    }
}

/// Result of copying a string or block into a record.
#[derive(Clone, Copy)]
pub struct Copied {
    /// Bytes copied, without the NUL of a string.
    pub len: u32,
    /// The source is longer than the record holds.
    pub truncated: bool,
    /// Nothing could be read.
    pub fault: bool,
}

impl Copied {
    pub const FAULT: Self = Self { len: 0, truncated: false, fault: true };

    /// Converts the result of the string helpers: a length that includes the NUL, or a negative errno. They are
    /// called for two bytes more than `max`, which distinguishes a longer string from one that just fits. For an
    /// empty string, kernels before 6.13 return 0: they do not count its NUL.
    #[inline(always)]
    fn from_str_helper(returned: i64, max: u32) -> Self {
        if returned < 0 {
            return Self::FAULT;
        }
        let len = saturating_decrement(returned as u64) as u32;
        if len > max {
            return Self { len: max, truncated: true, fault: false };
        }
        Self { len, truncated: false, fault: false }
    }

    /// The flag of the record for this result: `fault` if nothing could be read, `truncated` if the source was
    /// longer, else 0.
    #[inline(always)]
    pub fn flags(self, truncated: u16, fault: u16) -> u16 {
        if self.fault {
            fault
        } else if self.truncated {
            truncated
        } else {
            0
        }
    }
}

/// Copies a NUL-terminated string from the current process, at most `max` bytes.
///
/// # Safety
/// `destination` is valid for writes of `max` + 2 bytes, and the verifier can prove it.
#[inline(always)]
pub unsafe fn user_str(destination: *mut u8, max: u32, source: u64) -> Copied {
    // SAFETY: the helper writes at most `max` + 2 bytes to the destination, which the caller guarantees to be valid;
    // it checks the source itself.
    let returned = unsafe { bpf_probe_read_user_str(destination.cast(), max + 2, source as *const _) };
    Copied::from_str_helper(returned, max)
}

/// Copies a NUL-terminated string from the kernel, at most `max` bytes.
///
/// # Safety
/// As for [`user_str`]: `destination` is valid for writes of `max` + 2 bytes, and the verifier can prove it.
#[inline(always)]
pub unsafe fn kernel_str(destination: *mut u8, max: u32, source: KernelAddress) -> Copied {
    // SAFETY: the helper writes at most `max` + 2 bytes to the destination, which the caller guarantees to be valid;
    // it checks the source itself.
    let returned = unsafe { bpf_probe_read_kernel_str(destination.cast(), max + 2, source.0 as *const _) };
    Copied::from_str_helper(returned, max)
}

/// Copies `len` bytes from the current process, at most `max`.
///
/// # Safety
/// `destination` is valid for writes of `max` bytes, and the verifier can prove it.
#[inline(always)]
pub unsafe fn user_block(destination: *mut u8, max: u32, source: u64, len: u64) -> Copied {
    let truncated = len > u64::from(max);
    let len = if truncated { max } else { len as u32 };
    // SAFETY: the helper writes `len` bytes, at most `max`, to the destination, which the caller guarantees to be
    // valid; it checks the source itself.
    let failed = unsafe { bpf_probe_read_user(destination.cast(), len, source as *const _) };
    if failed == 0 { Copied { len, truncated, fault: false } } else { Copied::FAULT }
}
