//! x86_64: 64-bit calls, x32, and 32-bit ones (`int 0x80`, `sysenter`, 32-bit `syscall`).

use super::{Arguments, Call, traced};
use crate::current::Current;

/// `struct pt_regs` (arch/x86/include/asm/ptrace.h), an ABI since `user_regs_struct` mirrors it.
#[repr(C)]
pub struct Registers {
    r15_to_r12: [u64; 4],
    bp: u64,
    bx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    ax: u64,
    cx: u64,
    dx: u64,
    si: u64,
    di: u64,
    /// The number of the call, of which the kernel takes the lower half (`do_syscall_64`, since 5.14: an `int`): the caller
    /// may fill the upper one with anything. Before, the kernel took the whole and refused numbers beyond the table, which
    /// is shown as it answered: ENOSYS.
    orig_ax: u64,
}

/// Marks a call of the x32 ABI (`__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h).
const X32: u64 = 0x4000_0000;
/// What there is of a number: the lower half without that mark, in one operation.
const NUMBER: u64 = 0xffff_ffff & !X32;
/// `thread_info.status`: the call came in as a 32-bit one (`TS_COMPAT`, arch/x86/include/asm/thread_info.h).
const TS_COMPAT: u32 = 2;

/// Whether a signal's handler has just returned: the kernel marks that call as none, so that it is not restarted
/// (`restore_sigcontext`, arch/x86/kernel/signal_64.c).
#[inline(always)]
pub fn is_sigreturn(registers: &Registers) -> bool {
    // The kernel sets all 64 bits.
    registers.orig_ax == u64::MAX
}

/// The call's number as tracepoints report it, without the mark of x32.
#[inline(always)]
pub fn table_index(number: i64) -> u32 {
    (number as u64 & NUMBER) as u32
}

/// Whether the result may be what the kernel puts there for a call that seccomp ends by a signal: what the register held
/// when the call was made (`syscall_rollback`, arch/x86/include/asm/syscall.h), the number.
#[inline(always)]
pub fn is_rolled_back(registers: &Registers, ret: i64) -> bool {
    ret as u64 == registers.orig_ax
}

/// A result as tracepoints report it.
#[inline(always)]
pub fn result(ret: i64) -> i64 {
    ret
}

/// The traced call that has just returned. The number comes first: it rules most calls out without a look at the task, which
/// says which table the number belongs to.
#[inline(always)]
pub fn call(registers: &Registers) -> Option<Call> {
    let entry = traced(table_index(registers.orig_ax as i64))?;
    let task = Current::task();
    let compat = is_compat(task);
    // A 32-bit call has no X32 bit: with it the number is in no table.
    if compat && registers.orig_ax & X32 != 0 {
        return None;
    }
    Call::new(entry, compat, arguments(registers, compat), task)
}

#[inline(always)]
fn is_compat(task: Current) -> bool {
    task.thread_status() & TS_COMPAT != 0
}

#[inline(always)]
fn arguments(registers: &Registers, compat: bool) -> Arguments {
    if compat {
        let low = |register: u64| register & 0xffff_ffff;
        let Registers { bx, cx, dx, si, di, .. } = *registers;
        Arguments([low(bx), low(cx), low(dx), low(si), low(di)])
    } else {
        let Registers { di, si, dx, r10, r8, .. } = *registers;
        Arguments([di, si, dx, r10, r8])
    }
}
