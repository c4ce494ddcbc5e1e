//! Disables preemption while a program runs.
//!
//! The kernel does not run a program recursively on a CPU: while a task is preempted within the program, the program
//! is skipped for all other tasks of that CPU, and their events are lost. Since Linux 7.0 tracepoints no longer
//! disable preemption around programs, and trampolines never have on preemptible kernels, so the programs do it
//! themselves. On kernels before 7.0 user space removes the calls ([`tracer_common::preemption`]).

use core::{arch::asm, mem::MaybeUninit};

use tracer_common::preemption::{IRQ_RESTORE, IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE};

/// Runs `body` with preemption disabled.
///
/// A task that is due for preemption would be preempted as soon as preemption is enabled again, which is still within
/// the program. Preemption is therefore enabled with interrupts off, when the kernel does not check for it; it checks
/// when the program has ended.
#[inline(always)]
pub fn without_preemption<T>(body: impl FnOnce() -> T) -> T {
    let mut flags = MaybeUninit::<u64>::uninit();
    // SAFETY: `bpf_preempt_disable()` takes no arguments. It is enabled again below on every path, as the verifier
    // requires.
    unsafe { call::<PREEMPT_DISABLE>() };
    let result = body();
    // SAFETY: `bpf_local_irq_save()` and `bpf_local_irq_restore()` take a pointer to one word, which `flags`
    // provides: the first writes it, the second reads it. `bpf_preempt_enable()` takes no arguments and undoes
    // exactly the call above.
    unsafe {
        call_with::<IRQ_SAVE>(flags.as_mut_ptr());
        call::<PREEMPT_ENABLE>();
        call_with::<IRQ_RESTORE>(flags.as_mut_ptr());
    }
    result
}

/// Calls the kernel function that user space substitutes for this number.
///
/// # Safety
/// The function takes no arguments and may be called at this point (balanced with its counterpart).
#[inline(always)]
unsafe fn call<const FUNCTION: u32>() {
    // SAFETY: a call in the BPF calling convention: it clobbers r0 to r5, which are declared as outputs, and leaves
    // r6 to r9 and the stack alone. The caller guarantees that the function has no arguments and may be called here.
    unsafe {
        asm!(
            "call {function}",
            function = const FUNCTION,
            lateout("r0") _, lateout("r1") _, lateout("r2") _, lateout("r3") _, lateout("r4") _, lateout("r5") _,
            options(nostack),
        );
    }
}

/// [`call`] with one argument.
///
/// # Safety
/// The function takes one pointer to a word, `argument` is valid for it, and the function may be called at this
/// point.
#[inline(always)]
unsafe fn call_with<const FUNCTION: u32>(argument: *mut u64) {
    // SAFETY: the BPF calling convention, as in [`call`], with the argument in r1. The caller guarantees that it is
    // valid.
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
