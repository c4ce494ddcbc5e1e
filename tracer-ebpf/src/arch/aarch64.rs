//! aarch64: 64-bit calls, and those of 32-bit arm programs.

use tracer_common::event::OpenCall;

use super::{Arguments, ExecCall};
use crate::current::Current;

/// `struct pt_regs` (arch/arm64/include/asm/ptrace.h, since 4.15): `orig_x0` keeps the first argument, whose
/// register the return value overwrites.
#[repr(C)]
pub struct Registers {
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
    orig_x0: u64,
    syscallno: i32,
}

/// `thread_info.flags`: a 32-bit program (`TIF_32BIT`, arch/arm64/include/asm/thread_info.h).
const TIF_32BIT: u64 = 1 << 22;

/// Whether a signal's handler has just returned: the kernel marks that call as none, so that it is not restarted
/// (`forget_syscall`, arch/arm64/kernel/signal.c).
#[inline(always)]
pub fn is_sigreturn(registers: &Registers) -> bool {
    registers.syscallno == -1
}

/// Whether a call of that number, as tracepoints tell it, may be an open: for those that look at it only then.
#[inline(always)]
pub fn may_open(number: i64) -> bool {
    is_open(number as i32)
}

/// The same of executions.
#[inline(always)]
pub fn may_execute(number: i64) -> bool {
    is_exec(number as i32)
}

/// Whether the result may be what the kernel puts there for a call that seccomp ends by a signal: what the register held
/// when the call was made (`syscall_rollback`, arch/arm64/include/asm/syscall.h), the first argument.
#[inline(always)]
pub fn is_rolled_back(registers: &Registers, ret: i64) -> bool {
    ret as u32 == registers.orig_x0 as u32
}

/// The same, as far as tracepoints tell: not at all.
#[inline(always)]
pub fn may_be_rolled_back(_number: i64, _ret: i64) -> bool {
    true
}

/// A result as tracepoints report it: of a 32-bit call, some kernels leave the upper half empty, of errors too.
#[inline(always)]
pub fn result(ret: i64) -> i64 {
    i64::from(ret as i32)
}

#[inline(always)]
fn is_open(number: i32) -> bool {
    matches!(number, 5 | 8 | 56 | 265 | 322 | 371 | 437)
}

#[inline(always)]
fn is_exec(number: i32) -> bool {
    matches!(number, 11 | 221 | 281 | 387)
}

/// Which of the open calls this is, and the task that makes it.
#[inline(always)]
pub fn open_call(registers: &Registers) -> Option<(OpenCall, Arguments, Current)> {
    let number = registers.syscallno;
    if !is_open(number) {
        return None;
    }
    let task = Current::task();
    let compat = is_compat(task);
    let call = match (compat, number) {
        (true, 5) => OpenCall::Open,
        (true, 8) => OpenCall::Creat,
        (false, 56) | (true, 322) => OpenCall::Openat,
        (_, 437) => OpenCall::Openat2,
        (false, 265) | (true, 371) => OpenCall::OpenByHandleAt,
        _ => return None,
    };
    Some((call, arguments(registers, compat), task))
}

/// Which of the exec calls this is, and the task that makes it.
#[inline(always)]
pub fn exec_call(registers: &Registers) -> Option<(ExecCall, Arguments, Current)> {
    let number = registers.syscallno;
    if !is_exec(number) {
        return None;
    }
    let task = Current::task();
    let compat = is_compat(task);
    let call = match (compat, number) {
        (false, 221) | (true, 11) => ExecCall { at: false, compat },
        (false, 281) | (true, 387) => ExecCall { at: true, compat },
        _ => return None,
    };
    Some((call, arguments(registers, compat), task))
}

#[inline(always)]
fn is_compat(task: Current) -> bool {
    task.thread_flags() & TIF_32BIT != 0
}

#[inline(always)]
fn arguments(registers: &Registers, compat: bool) -> Arguments {
    let Registers { x, orig_x0, .. } = registers;
    if compat {
        // An exception from 32-bit code may leave anything in the upper halves.
        let low = |register: u64| register & 0xffff_ffff;
        Arguments([low(*orig_x0), low(x[1]), low(x[2]), low(x[3]), low(x[4])])
    } else {
        Arguments([*orig_x0, x[1], x[2], x[3], x[4]])
    }
}
