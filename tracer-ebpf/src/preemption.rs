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
pub fn without_preemption<T>(body: impl FnOnce() -> T) -> T {
    let mut flags = MaybeUninit::<u64>::uninit();
    // SAFETY: these take nothing.
    unsafe { call::<PREEMPT_DISABLE>() };
    let result = body();
    // SAFETY: they take nothing, or room for one word, which `flags` is. What was disabled above is enabled here, on every
    // way, and nothing else is.
    unsafe {
        call_with::<IRQ_SAVE>(flags.as_mut_ptr());
        call::<PREEMPT_ENABLE>();
        call_with::<IRQ_RESTORE>(flags.as_mut_ptr());
    }
    result
}

/// Calls what user space has put in for this number.
///
/// # Safety
/// That takes no argument, and may be called here.
#[inline(always)]
unsafe fn call<const FUNCTION: u32>() {
    // SAFETY: a call, which leaves r6 to r9 alone; the caller vouches for the rest.
    unsafe {
        asm!(
            "call {function}",
            function = const FUNCTION,
            lateout("r0") _, lateout("r1") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack),
        );
    }
}

/// Likewise, with an argument.
///
/// # Safety
/// That takes such an argument, and may be called here.
#[inline(always)]
unsafe fn call_with<const FUNCTION: u32>(argument: *mut u64) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "call {function}",
            function = const FUNCTION,
            inlateout("r1") argument => _,
            lateout("r0") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack),
        );
    }
}
