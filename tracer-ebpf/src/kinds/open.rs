//! open, openat, openat2, creat, open_by_handle_at, read when the call returns.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use tracer_common::kinds::{
    PATH_FAULT, PATH_TRUNCATED,
    open::{
        self, CREAT, HANDLE_MAX, HAS_HANDLE, HAS_RESOLVE, OPEN, OPEN_BY_HANDLE_AT, OPENAT, OPENAT2, Open,
        PATH_MAX, URING_OPENAT, URING_OPENAT2,
    },
};

use super::{EventKind, seccomp::Answer};
use crate::{
    arch::{self, Arguments, Call, Registers},
    current::Current,
    current_registers,
    emit::Scratch,
    filter,
    identity::{self, Identity},
    preemption::without_preemption,
    read::{self, Copied, capped},
    state::{Program, ProgramState, programs},
    task::find_tracer_level,
};

const AT_FDCWD: i32 = -100;
/// `O_WRONLY | O_CREAT | O_TRUNC`: what creat stands for. The same on x86_64, aarch64 and their 32-bit kin.
const CREAT_FLAGS: u64 = 0o1 | 0o100 | 0o1000;
/// `O_CREAT` and `__O_TMPFILE`: with neither, the mode is unused and may be anything.
pub const MODE_FLAGS: u64 = 0o100 | 0o20_000_000;

/// `struct open_how` (include/uapi/linux/openat2.h) in its first version.
#[repr(C)]
#[derive(Clone, Copy)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

programs! {
    /// Opens at the return of every system call.
    AT_SYS_EXIT = SYS_EXIT_OPEN, Short;
    /// Calls that open files, openat2 left out.
    AT_OPEN = OPEN_RETURN, Short;
    /// openat2.
    AT_OPENAT2 = OPENAT2_RETURN, Short;
    /// openat2 of 32-bit programs.
    AT_OPENAT2_COMPAT = OPENAT2_COMPAT_RETURN, Short;
    /// open_by_handle_at.
    AT_HANDLE = HANDLE_RETURN, Short;
    /// open_by_handle_at of 32-bit programs.
    AT_HANDLE_COMPAT = HANDLE_COMPAT_RETURN, Short;
}

/// Files opened.
pub enum Events {}

impl EventKind for Events {
    const NUMBER: u32 = open::NUMBER;

    #[inline(always)]
    fn on_return(call: &Call, registers: &Registers, ret: i64) {
        emit(AT_SYS_EXIT, call.id, call.arguments, call.task, || Answer::of(registers, ret));
    }
}

/// `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`, fs/open.c: all open calls reach it, but
/// not every openat2.
#[fexit(function = "do_sys_openat2")]
#[inline(always)]
pub fn open_return(ctx: FExitContext) -> i32 {
    on_function_return(AT_OPEN, ctx.arg(3), |id| id != OPENAT2 && id != OPEN_BY_HANDLE_AT)
}

/// `long __x64_sys_openat2(const struct pt_regs *regs)`, and its like on other architectures.
#[fexit(function = "__x64_sys_openat2")]
#[inline(always)]
pub fn openat2_return(ctx: FExitContext) -> i32 {
    on_function_return(AT_OPENAT2, ctx.arg(1), |id| id == OPENAT2)
}

/// As [`openat2_return`], where 32-bit programs have an entry of their own.
#[fexit(function = "__ia32_sys_openat2")]
#[inline(always)]
pub fn openat2_compat_return(ctx: FExitContext) -> i32 {
    on_function_return(AT_OPENAT2_COMPAT, ctx.arg(1), |id| id == OPENAT2)
}

/// `long __x64_sys_open_by_handle_at(const struct pt_regs *regs)`, and its like on other architectures.
#[fexit(function = "__x64_sys_open_by_handle_at")]
#[inline(always)]
pub fn handle_return(ctx: FExitContext) -> i32 {
    on_function_return(AT_HANDLE, ctx.arg(1), |id| id == OPEN_BY_HANDLE_AT)
}

/// As [`handle_return`], for 32-bit programs.
#[fexit(function = "__ia32_compat_sys_open_by_handle_at")]
#[inline(always)]
pub fn handle_compat_return(ctx: FExitContext) -> i32 {
    on_function_return(AT_HANDLE_COMPAT, ctx.arg(1), |id| id == OPEN_BY_HANDLE_AT)
}

/// A function that opens files has returned, in a call that `is_its`. No seccomp filter has answered what reaches these
/// functions.
#[inline(always)]
fn on_function_return(program: Program, ret: i32, is_its: impl FnOnce(u8) -> bool) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        if let Some(call) = arch::call(current_registers())
            && call.kind == open::NUMBER
            && is_its(call.id)
        {
            emit(program, call.id, call.arguments, call.task, || Answer { ret, flags: 0 });
        }
    });
    0
}

/// Emits a call of the current task that has ended with this answer.
#[inline(always)]
pub fn emit(
    program: Program,
    call: u8,
    arguments: Arguments,
    task: Current,
    answer: impl FnOnce() -> Answer,
) {
    const FIXED: u32 = size_of::<Open>() as u32;
    let Some(epoch) = identity::epoch() else { return };
    let Some(state) = ProgramState::of(program) else { return };
    state.count(|stats| &mut stats.seen);
    let Answer { ret, flags: seccomp } = answer();
    let identity = Identity::look_up(state, task, epoch);
    let Some(header) = filter::admit(state, open::NUMBER, task, &identity, ret < 0) else { return };
    let Some(mut scratch) = Scratch::take(program) else { return };
    let Request { dirfd, path, flags, mode, extra } = request(call, arguments);
    let is_handle = call == OPEN_BY_HANDLE_AT;
    let copied = if is_handle {
        // If the header of the handle could not be read the call has failed with EFAULT.
        match extra {
            Some(head) => {
                const MAX: u32 = HANDLE_MAX as u32;
                let wanted = head as u32;
                let len = u64::from(capped::<MAX>(wanted));
                let handle = path + size_of::<u64>() as u64;
                // SAFETY: the buffer is longer than both together.
                let copied = unsafe { read::user_block(scratch.at(FIXED), MAX, handle, len) };
                Copied { truncated: wanted > MAX, ..copied }
            }
            None => Copied::FAULT,
        }
    } else {
        // SAFETY: the buffer is longer than both together.
        unsafe { read::user_str(scratch.at(FIXED), PATH_MAX as u32, path) }
    };
    let (extra_flag, extra) = match (call, extra) {
        (OPENAT2 | URING_OPENAT2, Some(resolve)) => (HAS_RESOLVE, resolve),
        (OPEN_BY_HANDLE_AT, Some(head)) => (HAS_HANDLE, head),
        // Flags that could not be read are marked as a path is.
        (OPENAT2 | URING_OPENAT2, None) => (HAS_RESOLVE | PATH_FAULT, 0),
        (OPEN_BY_HANDLE_AT, None) => (HAS_HANDLE | PATH_FAULT, 0),
        _ => (0, 0),
    };
    let len = copied.len as u16;
    scratch.write(Open {
        header,
        flags,
        resolve: if is_handle { 0 } else { extra },
        ret,
        dirfd,
        mode: if flags & MODE_FLAGS == 0 { 0 } else { mode },
        handle_type: if is_handle { (extra >> 32) as i32 } else { 0 },
        path_len: if is_handle { 0 } else { len },
        handle_len: if is_handle { len } else { 0 },
        event_flags: copied.flags(PATH_TRUNCATED, PATH_FAULT) | seccomp | extra_flag,
        call,
        reserved: 0,
    });
    scratch.submit_event(state, FIXED + copied.len);
}

/// What a call requests, whichever call it is.
struct Request {
    dirfd: i32,
    /// Address of the path in the process's memory, or of the handle.
    path: u64,
    flags: u64,
    mode: u32,
    /// `resolve` of openat2, or the head of a handle, its length and type; `None` if it could not be read.
    extra: Option<u64>,
}

impl Request {
    /// Of a call that has its flags and mode in registers, of which the kernel takes 32 and 16 bits (`int flags, umode_t
    /// mode`).
    #[inline(always)]
    fn new(dirfd: i32, path: u64, flags: u64, mode: u64) -> Self {
        Self { dirfd, path, flags: flags & 0xffff_ffff, mode: mode as u32 & 0xffff, extra: None }
    }
}

#[inline(always)]
fn request(call: u8, Arguments([first, second, third, fourth, _]): Arguments) -> Request {
    match call {
        OPEN => Request::new(AT_FDCWD, first, second, third),
        CREAT => Request::new(AT_FDCWD, first, CREAT_FLAGS, second),
        OPENAT | URING_OPENAT => Request::new(first as i32, second, third, fourth),
        OPENAT2 | URING_OPENAT2 => {
            // Where it cannot be read the call has failed with EFAULT, or by its size, and there are no flags to show.
            let how = read::user::<OpenHow>(third);
            let OpenHow { flags, mode, resolve } = how.unwrap_or(OpenHow { flags: 0, mode: 0, resolve: 0 });
            let mode = if mode > u64::from(u32::MAX) { u32::MAX } else { mode as u32 };
            let extra = how.map(|_| resolve);
            Request { dirfd: first as i32, path: second, flags, mode, extra }
        }
        OPEN_BY_HANDLE_AT => {
            let extra = read::user::<u64>(second);
            Request { extra, ..Request::new(first as i32, second, third, 0) }
        }
        _ => Request::new(AT_FDCWD, 0, 0, 0),
    }
}
