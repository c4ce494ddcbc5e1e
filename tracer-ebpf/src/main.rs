//! tracer's eBPF programs.
//!
//! | program | hook | purpose |
//! |---|---|---|
//! | `process_exec` | `tp_btf/sched_process_exec` | finds runtimes and entrypoints; traces executions |
//! | `process_fork` | `tp_btf/sched_process_fork` | follows the processes that a runtime starts |
//! | `process_exit` | `tp_btf/sched_process_exit` | forgets them, and a container with its last one |
//! | `open_exit` | `tp_btf/sys_exit` | traces open, openat, openat2, creat; binds what criu has restored |
//! | `open_exit_event` | `raw_syscalls/sys_exit` | the same where the kernel may preempt `open_exit` |
//! | `open_return` | `fexit/do_sys_openat2` | the same in place of `open_exit`, at no cost for other calls |
//! | `openat2_return` | `fexit/__x64_sys_openat2` | openat2, of which `do_sys_openat2` does not get to see all |
//! | `openat2_compat_return` | `fexit/__ia32_sys_openat2` | openat2 of 32-bit programs |
//! | `handle_return` | `fexit/__x64_sys_open_by_handle_at` | open_by_handle_at, which does not come to `do_sys_openat2` |
//! | `handle_compat_return` | `fexit/__ia32_compat_sys_open_by_handle_at` | the same of 32-bit programs |
//! | `uring_submit` | `tp_btf/io_uring_submit_req` | notes what io_uring shall open |
//! | `uring_complete` | `tp_btf/io_uring_complete` | traces what came of it |
//! | `uring_overflow` | `tp_btf/io_uring_cqe_overflow` | the same where the completion found no room |
//! | `uring_refusal` | `tp_btf/io_uring_req_failed` | traces what was refused before it was submitted |
//! | `exec_exit` | `tp_btf/sys_exit` | traces failed execve, execveat; binds what criu has restored |
//! | `exec_exit_event` | `raw_syscalls/sys_exit` | the same where the kernel may preempt `exec_exit` |
//!
//! Each needs Linux 5.8 (ring buffer; `tp_btf` and BTF came before), those at `fexit` and at events 5.15. The hooks are thin, what they do is in the
//! modules. Nothing here waits, and nothing is changed but the maps.
//!
//! They are inlined into what the macros make the entry point: a call within a program costs more than what most system
//! calls that are looked at take.

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
mod filter;
mod globals;
mod identity;
mod lifecycle;
mod maps;
mod preemption;
mod probes;
mod processes;
mod read;
mod slots;
mod state;
mod task;

use core::arch::asm;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::{btf_tracepoint, fexit, tracepoint},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use tracer_common::{event::OpenCall, stats::Program};

use crate::{
    arch::Registers,
    current::Current,
    preemption::without_preemption,
    probes::{exec, open, uring},
    read::KernelAddress,
    task::{Task, find_tracer_level},
};

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, include/trace/events/sched.h.
#[btf_tracepoint(function = "sched_process_exec")]
#[inline(always)]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        let container = lifecycle::on_exec();
        if globals::TRACE_EXEC.load() != 0 && identity::is_tracing() {
            exec::on_exec(container, KernelAddress(ctx.arg(2)));
        }
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
pub fn open_exit(ctx: BtfTracePointContext) -> i32 {
    find_tracer_level();
    trace_open(registers(&ctx), arch::result(ctx.arg(1)));
    0
}

/// The same where the kernel may preempt programs at that tracepoint: it does not at the event made of it. Of the number of
/// a call and what it returned, which is all that an event has (`TP_STRUCT__entry` of `sys_exit`,
/// include/trace/events/syscalls.h), the number tells most calls from an open.
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
#[inline(always)]
pub fn open_exit_event(ctx: TracePointContext) -> u32 {
    let Returned { number, ret } = returned(&ctx);
    if number == NO_CALL || arch::may_open(number) {
        find_tracer_level();
        trace_open(current_registers(), arch::result(ret));
    }
    0
}

#[inline(always)]
fn trace_open(registers: &Registers, ret: i64) {
    if arch::is_sigreturn(registers) {
        lifecycle::on_sigreturn(Program::OpenExit, current_tgid());
    } else {
        open::on_return(Program::OpenExit, registers, ret, |_| true);
    }
}

/// `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`, fs/open.c: where all open calls
/// come to, but not all of openat2's.
#[fexit(function = "do_sys_openat2")]
#[inline(always)]
pub fn open_return(ctx: FExitContext) -> i32 {
    on_open_return(Program::OpenReturn, ctx.arg(3), |call| !call.has_extra())
}

/// `long __x64_sys_openat2(const struct pt_regs *regs)`, and its like on other architectures.
#[fexit(function = "__x64_sys_openat2")]
#[inline(always)]
pub fn openat2_return(ctx: FExitContext) -> i32 {
    on_open_return(Program::Openat2Return, ctx.arg(1), |call| call == OpenCall::Openat2)
}

/// As [`openat2_return`], where 32-bit programs have an entry of their own.
#[fexit(function = "__ia32_sys_openat2")]
#[inline(always)]
pub fn openat2_compat_return(ctx: FExitContext) -> i32 {
    on_open_return(Program::Openat2CompatReturn, ctx.arg(1), |call| call == OpenCall::Openat2)
}

/// `long __x64_sys_open_by_handle_at(const struct pt_regs *regs)`, and its like on other architectures.
#[fexit(function = "__x64_sys_open_by_handle_at")]
#[inline(always)]
pub fn handle_return(ctx: FExitContext) -> i32 {
    on_open_return(Program::HandleReturn, ctx.arg(1), |call| call == OpenCall::OpenByHandleAt)
}

/// As [`handle_return`], for 32-bit programs.
#[fexit(function = "__ia32_compat_sys_open_by_handle_at")]
#[inline(always)]
pub fn handle_compat_return(ctx: FExitContext) -> i32 {
    on_open_return(Program::HandleCompatReturn, ctx.arg(1), |call| call == OpenCall::OpenByHandleAt)
}

#[inline(always)]
fn on_open_return(program: Program, ret: i32, is_its: impl FnOnce(OpenCall) -> bool) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        open::on_return(program, current_registers(), i64::from(ret), is_its);
    });
    0
}

/// `TP_PROTO(struct io_kiocb *req)`, include/trace/events/io_uring.h; `io_uring_submit_sqe` before 6.4, in 5.18 and 5.19 with
/// the ring first.
#[btf_tracepoint(function = "io_uring_submit_req")]
#[inline(always)]
pub fn uring_submit(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        let request = if globals::URING_REQUEST_ARGUMENT.load() == 0 {
            argument::<0>(&ctx)
        } else {
            argument::<1>(&ctx)
        };
        uring::on_submit(KernelAddress(request));
    });
    0
}

/// `TP_PROTO(struct io_ring_ctx *ctx, void *req, struct io_uring_cqe *cqe)`; before 6.10 with the result as the fourth.
#[btf_tracepoint(function = "io_uring_complete")]
#[inline(always)]
pub fn uring_complete(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        let request = KernelAddress(ctx.arg(1));
        let ret: i32 = if globals::URING_RESULT_ARGUMENT.load() == 0 {
            request.number(&globals::IO_KIOCB_RESULT) as i32
        } else {
            ctx.arg(3)
        };
        uring::on_complete(request, ret);
    });
    0
}

/// `TP_PROTO(void *ctx, unsigned long long user_data, s32 res, u32 cflags, void *ocqe)`, since 5.18.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
#[inline(always)]
pub fn uring_overflow(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| uring::on_overflow(ctx.arg(0), ctx.arg(1), ctx.arg(2)));
    0
}

/// `TP_PROTO(const struct io_uring_sqe *sqe, struct io_kiocb *req, int error)`; before 6.0 with the ring between.
#[btf_tracepoint(function = "io_uring_req_failed")]
#[inline(always)]
pub fn uring_refusal(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        let error =
            if globals::URING_ERROR_ARGUMENT.load() == 2 { argument::<2>(&ctx) } else { argument::<3>(&ctx) };
        uring::on_refusal(KernelAddress(ctx.arg(0)), error as i32);
    });
    0
}

/// As for [`open_exit`].
#[btf_tracepoint(function = "sys_exit")]
#[inline(always)]
pub fn exec_exit(ctx: BtfTracePointContext) -> i32 {
    find_tracer_level();
    trace_exec(registers(&ctx), arch::result(ctx.arg(1)));
    0
}

/// As [`open_exit_event`].
#[tracepoint(category = "raw_syscalls", name = "sys_exit")]
#[inline(always)]
pub fn exec_exit_event(ctx: TracePointContext) -> u32 {
    let Returned { number, ret } = returned(&ctx);
    let ret = arch::result(ret);
    let may_have_failed = ret <= 0 || arch::may_be_rolled_back(number, ret);
    if number == NO_CALL || (may_have_failed && arch::may_execute(number)) {
        find_tracer_level();
        trace_exec(current_registers(), ret);
    }
    0
}

#[inline(always)]
fn trace_exec(registers: &Registers, ret: i64) {
    if arch::is_sigreturn(registers) {
        lifecycle::on_sigreturn(Program::ExecExit, current_tgid());
    } else if globals::TRACE_EXEC.load() != 0 && identity::is_tracing() {
        exec::on_exit(registers, ret);
    }
}

/// An argument of a tracepoint whose place differs between kernels. The assembly, which changes nothing, keeps the compiler
/// from making one load of two, at a place that it computes: the verifier refuses that.
#[inline(always)]
fn argument<const INDEX: usize>(ctx: &BtfTracePointContext) -> u64 {
    let mut argument: u64 = ctx.arg(INDEX);
    // SAFETY: plain operations on one register.
    unsafe {
        asm!(
            "{argument} += {index}",
            "{argument} -= {index}",
            argument = inout(reg) argument,
            index = const INDEX,
            options(nomem, nostack),
        );
    }
    argument
}

/// What an event of `raw_syscalls/sys_exit` says.
#[repr(C)]
#[derive(Clone, Copy)]
struct Returned {
    number: i64,
    ret: i64,
}

/// The number of what is no call: a signal's handler has returned.
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
