//! Keeping the processor while a program has something to do.
//!
//! The kernel does not run a program within itself: while a task is preempted in it, the program is skipped for every other
//! task of that CPU, and what they do is lost. Since Linux 7.0 tracepoints no longer disable preemption around programs, and
//! trampolines never have where the kernel is preemptible, so the programs do it themselves. On kernels before 7.0 user space
//! takes the calls out ([`tracer_common::preemption`]).

use core::{arch::asm, mem::MaybeUninit};

use tracer_common::preemption::{IRQ_RESTORE, IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE};

/// Runs `body` without being preempted.
///
/// A task that was to be preempted meanwhile would be as soon as preemption is enabled: still within the program. So that
/// happens while interrupts are off, when the kernel does not look whether it is time; it does when the program has ended.
#[inline(always)]
pub fn undisturbed<T>(body: impl FnOnce() -> T) -> T {
    let mut flags = MaybeUninit::<u64>::uninit();
    // SAFETY: a call, which leaves r6 to r9 alone, of a function that takes nothing and touches no memory of the program's.
    unsafe {
        asm!(
            "call {function}",
            function = const PREEMPT_DISABLE,
            lateout("r0") _, lateout("r1") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nomem, nostack),
        );
    }
    let result = body();
    // SAFETY: likewise, or of functions that take room for a word, which `flags` is. What was disabled above is enabled here,
    // on every way, and nothing else is.
    unsafe {
        asm!(
            "call {function}",
            function = const IRQ_SAVE,
            inlateout("r1") flags.as_mut_ptr() => _,
            lateout("r0") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack),
        );
        asm!(
            "call {function}",
            function = const PREEMPT_ENABLE,
            lateout("r0") _, lateout("r1") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack),
        );
        asm!(
            "call {function}",
            function = const IRQ_RESTORE,
            inlateout("r1") flags.as_mut_ptr() => _,
            lateout("r0") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack),
        );
    }
    result
}
