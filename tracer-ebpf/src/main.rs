//! tracer's eBPF programs.
//!
//! These programs are part of every run:
//!
//! | program | hook | purpose |
//! |---|---|---|
//! | `process_exec` | `tp_btf/sched_process_exec` | finds runtimes and entrypoints |
//! | `process_fork` | `tp_btf/sched_process_fork` | follows the processes that a runtime starts |
//! | `process_exit` | `tp_btf/sched_process_exit` | forgets them, and a container with its last one |
//! | `sys_exit` | `tp_btf/sys_exit` | dispatches the system calls of the traced kinds; binds what criu has restored |
//! | `sys_exit_event` | `raw_syscalls/sys_exit` | the same where the kernel may preempt `sys_exit` |
//!
//! A kind's own programs are in its module below [`kinds`]. Each needs Linux 5.8 (ring buffer; `tp_btf` and BTF came before),
//! those at `fexit` and at events 5.15. The hooks are thin, their work is in the modules. Nothing here waits, and nothing is
//! changed but the maps.
//!
//! They are inlined into the entry point that the macros make: a call within a program costs more than most of the system
//! calls that are looked at.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::inline_always,
    clippy::needless_pass_by_value,
    reason = "a program, not a library; the context is passed by value; registers and lengths change their width all the time; \
              what is not inlined the verifier sees without its bounds"
)]

mod arch;
mod atomic;
mod binding;
mod current;
mod emit;
mod exit_status;
mod filter;
mod globals;
mod identity;
mod kinds;
mod lifecycle;
mod maps;
mod preemption;
mod processes;
mod read;
mod slots;
mod state;
mod task;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};

use crate::{
    arch::Registers,
    current::Current,
    preemption::without_preemption,
    read::KernelAddress,
    state::SIGRETURN,
    task::{Task, find_tracer_level},
};

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, include/trace/events/sched.h.
#[btf_tracepoint(function = "sched_process_exec")]
#[inline(always)]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        lifecycle::on_exec();
    });
    0
}

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, include/trace/events/sched.h; called by
/// kernel_clone() before the child runs.
#[btf_tracepoint(function = "sched_process_fork")]
#[inline(always)]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        lifecycle::on_fork(&ctx, Task(KernelAddress(ctx.arg(0))), Task(KernelAddress(ctx.arg(1))));
    });
    0
}

/// `TP_PROTO(struct task_struct *p)`, with a second argument since 6.16; include/trace/events/sched.h.
#[btf_tracepoint(function = "sched_process_exit")]
#[inline(always)]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        lifecycle::on_exit(Task(KernelAddress(ctx.arg(0))));
    });
    0
}

/// `TP_PROTO(struct pt_regs *regs, long ret)`, include/trace/events/syscalls.h.
#[btf_tracepoint(function = "sys_exit")]
#[inline(always)]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    dispatch(registers(&ctx), arch::result(ctx.arg(1)));
    0
}

/// The same where the kernel may preempt programs at that tracepoint: it does not at the event made of it. An event has nothing
/// but the number of a call and its result (`TP_STRUCT__entry` of `sys_exit`, include/trace/events/syscalls.h); the number
/// rules most calls out.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
#[inline(always)]
pub fn sys_exit_event(ctx: TracePointContext) -> u32 {
    let Returned { number, ret } = returned(&ctx);
    if number == NO_CALL || arch::is_traced(number) {
        dispatch(current_registers(), arch::result(ret));
    }
    0
}

/// A system call has returned, or a signal's handler.
#[inline(always)]
fn dispatch(registers: &Registers, ret: i64) {
    let call = if arch::is_sigreturn(registers) {
        None
    } else {
        // Most calls end here.
        let Some(call) = arch::call(registers) else { return };
        Some(call)
    };
    find_tracer_level();
    match call {
        Some(call) => kinds::on_return(&call, registers, ret),
        None => lifecycle::on_sigreturn(SIGRETURN, current_tgid()),
    }
}

/// The fields of an event of `raw_syscalls/sys_exit`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Returned {
    number: i64,
    ret: i64,
}

/// The number if a signal's handler has returned, which is no call.
const NO_CALL: i64 = -1;

#[inline(always)]
fn returned(ctx: &TracePointContext) -> Returned {
    /// What all events begin with, `struct trace_entry`.
    const ENTRY: usize = 8;
    // SAFETY: plain loads from the context, which is longer.
    unsafe { *ctx.as_ptr().byte_add(ENTRY).cast::<Returned>() }
}

/// The registers that a system call was made with. Plain loads: the verifier knows the type.
#[inline(always)]
fn registers(ctx: &BtfTracePointContext) -> &Registers {
    let registers: *const Registers = ctx.arg(0);
    // SAFETY: the tracepoint's first argument, never null, valid while the program runs.
    unsafe { &*registers }
}

#[inline(always)]
fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The registers that the current system call was made with (`bpf_task_pt_regs`, 5.15).
#[inline(always)]
fn current_registers<'a>() -> &'a Registers {
    // SAFETY: the helper gives the current task's user registers, which are there as long as it is in a system call:
    // longer than the program runs.
    unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const Registers) }
}

/// Whether the task is of `tracer`. Those that read files for it are left out in user space, by their parent.
#[inline(always)]
fn is_tracer(task: Current) -> bool {
    let pid =
        if globals::TRACER_PID_NS.load() == 0 { task.tgid() } else { Task::current().process_ids().tracer };
    pid == globals::TRACER_PID.load()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Not `unreachable_unchecked`: a panic that could be reached is a loop that the verifier refuses.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
