//! x86_64: 64-bit calls, x32, and 32-bit ones (`int 0x80`, `sysenter`, 32-bit `syscall`).

use super::{Arguments, ExecCall, OpenCall};
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
    orig_ax: u64,
}

/// Marks a call of the x32 ABI (`__X32_SYSCALL_BIT`, arch/x86/include/uapi/asm/unistd.h).
const X32: u64 = 0x4000_0000;
/// `thread_info.status`: the call came in as a 32-bit one (`TS_COMPAT`, arch/x86/include/asm/thread_info.h).
const TS_COMPAT: u32 = 2;

/// Whether a signal's handler has just returned: the kernel marks that call as none, so that it is not restarted
/// (`restore_sigcontext`, arch/x86/kernel/signal_64.c).
#[inline(always)]
pub fn is_sigreturn(registers: &Registers) -> bool {
    registers.orig_ax == u64::MAX
}

/// Whether a call of that number, as tracepoints tell it, may be an open: for those that look at it only then.
#[inline(always)]
pub fn may_open(number: i64) -> bool {
    is_open(number as u64 & !X32)
}

/// The same of executions.
#[inline(always)]
pub fn may_execute(number: i64) -> bool {
    is_exec(number as u64 & !X32)
}

#[inline(always)]
fn is_open(number: u64) -> bool {
    matches!(number, 2 | 5 | 8 | 85 | 257 | 295 | 437)
}

#[inline(always)]
fn is_exec(number: u64) -> bool {
    matches!(number, 11 | 59 | 322 | 358 | 520 | 545)
}

/// Which of the open calls this is, and the task that makes it. The numbers come first: they tell most calls from an open without asking
/// which table they belong to.
#[inline(always)]
pub fn open_call(registers: &Registers) -> Option<(OpenCall, Arguments, Current)> {
    let number = number(registers);
    if !is_open(number) {
        return None;
    }
    let task = Current::task();
    let compat = is_compat(task);
    let call = match (compat, number) {
        (false, 2) | (true, 5) => OpenCall::Open,
        (false, 85) | (true, 8) => OpenCall::Creat,
        (false, 257) | (true, 295) => OpenCall::Openat,
        (_, 437) => OpenCall::Openat2,
        _ => return None,
    };
    Some((call, arguments(registers, compat), task))
}

/// Which of the exec calls this is, and the task that makes it; x32 has numbers of its own for them, with 32-bit pointers.
#[inline(always)]
pub fn exec_call(registers: &Registers) -> Option<(ExecCall, Arguments, Current)> {
    let number = number(registers);
    if !is_exec(number) {
        return None;
    }
    let task = Current::task();
    let compat = is_compat(task);
    let call = match (compat, number) {
        (false, 59) => ExecCall { at: false, compat: false },
        (false, 322) => ExecCall { at: true, compat: false },
        (true, 11) | (false, 520) => ExecCall { at: false, compat: true },
        (true, 358) | (false, 545) => ExecCall { at: true, compat: true },
        _ => return None,
    };
    Some((call, arguments(registers, compat), task))
}

#[inline(always)]
fn number(registers: &Registers) -> u64 {
    registers.orig_ax & !X32
}

#[inline(always)]
fn is_compat(task: Current) -> bool {
    task.thread_status() & TS_COMPAT != 0
}

#[inline(always)]
fn arguments(registers: &Registers, compat: bool) -> Arguments {
    if compat {
        let low = |register: u64| register & 0xffff_ffff;
        Arguments([low(registers.bx), low(registers.cx), low(registers.dx), low(registers.si)])
    } else {
        Arguments([registers.di, registers.si, registers.dx, registers.r10])
    }
}
