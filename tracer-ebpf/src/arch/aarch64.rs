//! aarch64: 64-bit calls, and those of 32-bit arm programs.

use super::{Arguments, Call, traced};
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

/// The call's number as tracepoints report it.
#[inline(always)]
pub fn table_index(number: i64) -> u32 {
    number as u32
}

/// Whether the result may be what the kernel puts there for a call that seccomp ends by a signal: what the register held
/// when the call was made (`syscall_rollback`, arch/arm64/include/asm/syscall.h), the first argument.
#[inline(always)]
pub fn is_rolled_back(registers: &Registers, ret: i64) -> bool {
    ret as u32 == registers.orig_x0 as u32
}

/// A result as tracepoints report it: of a 32-bit call, some kernels leave the upper half empty, of errors too.
#[inline(always)]
pub fn result(ret: i64) -> i64 {
    i64::from(ret as i32)
}

/// The traced call that has just returned. The number comes first: it rules most calls out without a look at the task, which
/// says which table the number belongs to.
#[inline(always)]
pub fn call(registers: &Registers) -> Option<Call> {
    let entry = traced(table_index(registers.syscallno.into()))?;
    let task = Current::task();
    let compat = is_compat(task);
    Call::new(entry, compat, arguments(registers, compat), task)
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
