//! System calls as the architecture passes them.
//!
//! Only what `sys_exit` leaves readable: the registers that held the arguments still do when a call returns,
//! but for arm64's first one, which has a copy.

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64;
#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;

#[cfg(bpf_target_arch = "aarch64")]
pub use aarch64::{Registers, call, is_rolled_back, is_sigreturn, result, table_index};
#[cfg(bpf_target_arch = "x86_64")]
pub use x86_64::{Registers, call, is_rolled_back, is_sigreturn, result, table_index};

use tracer_common::programs::SYSTEM_CALLS as SYSTEM_CALLS_SIZE;

use crate::{current::Current, globals::SYSTEM_CALLS, read::bounded_index};

/// A system call that some kind traces, and the task that makes it.
#[derive(Clone, Copy)]
pub struct Call {
    /// The kind's number.
    pub kind: u32,
    /// Which of its calls (`tracer_common::kinds::schema::SystemCall::id`).
    pub id: u8,
    pub arguments: Arguments,
    pub task: Current,
}

impl Call {
    /// The 64-bit or the 32-bit call of an entry of `SYSTEM_CALLS`; `None` if that is not traced.
    #[inline(always)]
    fn new(entry: u32, compat: bool, arguments: Arguments, task: Current) -> Option<Self> {
        let call = if compat { entry >> 16 } else { entry & 0xffff };
        (call != 0).then_some(Self { kind: call >> 8, id: call as u8, arguments, task })
    }
}

/// Whether some kind traces calls with that number, as far as it says.
#[inline(always)]
pub fn is_traced(number: i64) -> bool {
    traced(table_index(number)).is_some()
}

/// The entry of a number in `SYSTEM_CALLS`, unless it is 0. This runs at each system call of the machine: no look-up in a map
/// is as cheap.
#[inline(always)]
fn traced(number: u32) -> Option<u32> {
    const LAST: u32 = SYSTEM_CALLS_SIZE as u32 - 1;
    if number > LAST {
        return None;
    }
    let entries: *const u32 = (&raw const SYSTEM_CALLS).cast();
    // SAFETY: the index is below the number of entries.
    let entry = unsafe { entries.add(bounded_index::<LAST>(number)).read_volatile() };
    (entry != 0).then_some(entry)
}

/// The first arguments of a system call. Of those of a 32-bit call the upper halves are 0; of a 64-bit call they are
/// what the caller left in the registers, also where the kernel takes an `int`.
#[derive(Clone, Copy)]
pub struct Arguments(pub [u64; 5]);
