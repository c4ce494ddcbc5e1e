//! Calls that a seccomp filter ends by a signal: they were not made, and what looks like their result is none.

use tracer_common::event::{SECCOMP_KILL, SECCOMP_TRAP};

use crate::{
    arch::{self, Registers},
    current::Current,
};

const EPERM: i32 = 1;
const SIGSYS: u32 = 31;
/// `SECCOMP_MODE_FILTER`, include/uapi/linux/seccomp.h.
const MODE_FILTER: u32 = 2;
/// `SECCOMP_MODE_DEAD`, kernel/seccomp.c (5.17): a filter has killed the task.
const MODE_DEAD: u32 = 3;

/// What a call returned, and what a filter did to it.
#[derive(Clone, Copy)]
pub struct Answer {
    /// A negated errno, or what the call returned.
    pub ret: i32,
    /// `SECCOMP_*` bits.
    pub marks: u8,
}

impl Answer {
    /// Of a call that returned `ret`.
    ///
    /// The kernel puts back what the result's register held when the call was made, which may be what a call returned as
    /// well. The signal tells them apart: it is forced on the thread, so it is pending, not blocked, and delivered before
    /// the thread makes another call.
    #[inline(always)]
    pub fn of(registers: &Registers, ret: i64) -> Self {
        let unanswered = Self { ret: ret as i32, marks: 0 };
        if !arch::is_rolled_back(registers, ret) {
            return unanswered;
        }
        match marks_of_current() {
            0 => unanswered,
            marks => Self { ret: -EPERM, marks: marks as u8 },
        }
    }
}

/// What a filter has done to the current task, whose call looks as if one had ended it: `SECCOMP_*` bits. A function of its own
/// for the verifier, as in [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn marks_of_current() -> u32 {
    let task = Current::task();
    match task.seccomp_mode() {
        MODE_DEAD => SECCOMP_KILL.into(),
        MODE_FILTER if task.has_pending_signal(SIGSYS) => SECCOMP_TRAP.into(),
        _ => 0,
    }
}
