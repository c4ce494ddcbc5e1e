//! Reading memory that is not the program's own: the unsafe of these programs lives here and in [`crate::emit`].

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    helpers::generated::{
        bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
    },
};
use tracer_common::offsets::UNKNOWN;

/// An address in the kernel. Reading at a wrong one, null included, fails; it does no harm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelAddress(pub u64);

impl KernelAddress {
    /// Reads the field at `offset`; `None` where the kernel has no such field or the address is wrong.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: &Global<u32>) -> Option<T> {
        let offset = offset.load();
        if offset == UNKNOWN {
            return None;
        }
        self.read_at(u64::from(offset))
    }

    /// Reads the pointer at `offset`; null, at which every read fails, where that is not possible.
    #[inline(always)]
    pub fn follow(self, offset: &Global<u32>) -> Self {
        Self(self.read(offset).unwrap_or(0))
    }

    /// Reads the number at `offset`; 0 where that is not possible.
    #[inline(always)]
    pub fn number(self, offset: &Global<u32>) -> u32 {
        self.read(offset).unwrap_or(0)
    }

    /// Reads what lies `offset` bytes further.
    #[inline(always)]
    pub fn read_at<T: Copy>(self, offset: u64) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the destination is `size_of::<T>()` bytes of the program's stack, and the helper checks the
        // source. On success it has written all of them, and the callers read integers only.
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

/// Cuts a number to the bits of `MASK`, where the verifier sees it. In assembly, because the compiler leaves out
/// what it knows to be idle, and the verifier, which forgets a bound when registers are copied about, does not
/// know it any more.
#[inline(always)]
pub fn bounded<const MASK: u32>(number: u32) -> u32 {
    let mut number = u64::from(number);
    // SAFETY: a plain operation on one register.
    unsafe {
        asm!("{number} &= {mask}", number = inout(reg) number, mask = const MASK, options(pure, nomem, nostack));
    }
    number as u32
}

/// Cuts a number to `MAX`, where the verifier sees it. In assembly for the same reason.
#[inline(always)]
pub fn capped<const MAX: u32>(number: u32) -> u32 {
    let mut number = u64::from(number);
    // SAFETY: plain operations on one register.
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

/// A number less one, but 0 of 0. In assembly, because the compiler would branch: the verifier then follows strings
/// of known and of unknown lengths separately, and through a loop every mixture of them.
#[inline(always)]
fn less_one_unless_zero(mut number: u64) -> u64 {
    // SAFETY: plain operations on two registers.
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
    // SAFETY: as in `KernelAddress::read_at`; the helper refuses what is not the process's memory.
    unsafe {
        let failed =
            bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        (failed == 0).then(|| value.assume_init())
    }
}

/// What became of reading a string or block into a record.
#[derive(Clone, Copy)]
pub struct Copied {
    /// Bytes copied, without a string's NUL.
    pub len: u32,
    /// There was more than the record holds.
    pub truncated: bool,
    /// Nothing could be read.
    pub fault: bool,
}

impl Copied {
    pub const FAULT: Self = Self { len: 0, truncated: false, fault: true };

    /// From what the string helpers return: a length that counts the NUL, or a negative errno. They were
    /// asked for one byte more than `max` and a NUL, so a longer string is told from one that just fits.
    /// Of an empty string, kernels before 6.13 return 0: they did not count its NUL.
    #[inline(always)]
    fn from_str_helper(returned: i64, max: u32) -> Self {
        if returned < 0 {
            return Self::FAULT;
        }
        let len = less_one_unless_zero(returned as u64) as u32;
        if len > max {
            return Self { len: max, truncated: true, fault: false };
        }
        Self { len, truncated: false, fault: false }
    }

    /// `truncated` and `fault` as the flags that a record has for them.
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

/// Copies a string of the current process, `max` bytes at the most.
///
/// # Safety
/// `destination` is valid for `max` + 2 bytes, as far as the verifier can tell too.
#[inline(always)]
pub unsafe fn user_str(destination: *mut u8, max: u32, source: u64) -> Copied {
    // SAFETY: the caller vouches for the destination; the helper checks the source.
    let returned = unsafe { bpf_probe_read_user_str(destination.cast(), max + 2, source as *const _) };
    Copied::from_str_helper(returned, max)
}

/// Copies a string of the kernel, `max` bytes at the most.
///
/// # Safety
/// As for [`user_str`].
#[inline(always)]
pub unsafe fn kernel_str(destination: *mut u8, max: u32, source: KernelAddress) -> Copied {
    // SAFETY: the caller vouches for the destination; the helper checks the source.
    let returned = unsafe { bpf_probe_read_kernel_str(destination.cast(), max + 2, source.0 as *const _) };
    Copied::from_str_helper(returned, max)
}

/// Copies `len` bytes of the current process, `max` at the most.
///
/// # Safety
/// `destination` is valid for `max` bytes, as far as the verifier can tell too.
#[inline(always)]
pub unsafe fn user_block(destination: *mut u8, max: u32, source: u64, len: u64) -> Copied {
    let truncated = len > u64::from(max);
    let len = if truncated { max } else { len as u32 };
    // SAFETY: the caller vouches for the destination; the helper checks the source.
    let failed = unsafe { bpf_probe_read_user(destination.cast(), len, source as *const _) };
    if failed == 0 { Copied { len, truncated, fault: false } } else { Copied::FAULT }
}
