//! open, openat, openat2, creat, open_by_handle_at, read when the call returns.

use tracer_common::{
    event::{HANDLE_MAX, Kind, OPEN_PATH_MAX, Open, OpenCall, OpenExtra, PATH_FAULT, PATH_TRUNCATED},
    stats::Program,
};

use super::seccomp::Answer;
use crate::{
    arch::{self, Arguments, Registers},
    current::Current,
    emit::Scratch,
    filter,
    identity::{self, Identity},
    read::{self, Copied, capped},
    state::ProgramState,
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

/// A call that `program` answers for has returned.
#[inline(always)]
pub fn on_return(program: Program, registers: &Registers, ret: i64, is_its: impl FnOnce(OpenCall) -> bool) {
    let Some((call, arguments, task)) = arch::open_call(registers) else { return };
    if is_its(call) {
        emit(program, call, arguments, task, || {
            // What comes to the functions that open files no filter has answered.
            if program != Program::OpenExit {
                return (ret as i32, 0);
            }
            let Answer { ret, marks } = Answer::of(registers, ret);
            (ret, marks)
        });
    }
}

/// A call of the current task has come to its end: `answer` tells its result, and `SECCOMP_*` bits.
#[inline(always)]
pub fn emit(
    program: Program,
    call: OpenCall,
    arguments: Arguments,
    task: Current,
    answer: impl FnOnce() -> (i32, u8),
) {
    const FIXED: u32 = size_of::<Open>() as u32;
    let Some(epoch) = identity::epoch() else { return };
    let Some(state) = ProgramState::of(program) else { return };
    state.count(|stats| &mut stats.seen);
    let (ret, marks) = answer();
    let identity = Identity::look_up(state, task, epoch);
    let Some(header) = filter::admit(state, Kind::Open, task, &identity, ret < 0) else { return };
    let Some(mut scratch) = Scratch::take(program) else { return };
    let Request { dirfd, path, flags, mode, extra } = request(call, arguments);
    let start = if call.has_extra() { FIXED + size_of::<OpenExtra>() as u32 } else { FIXED };
    let path = if call == OpenCall::OpenByHandleAt {
        // What the header of the handle could not be read for has failed with EFAULT.
        match extra {
            Some(extra) => {
                const MAX: u32 = HANDLE_MAX as u32;
                let wanted = extra.handle_bytes();
                let len = u64::from(capped::<MAX>(wanted));
                let handle = path + size_of::<OpenExtra>() as u64;
                // SAFETY: the buffer is longer than both together.
                let copied = unsafe { read::user_block(scratch.at(start), MAX, handle, len) };
                Copied { truncated: wanted > MAX, ..copied }
            }
            None => Copied::FAULT,
        }
    } else {
        // SAFETY: the buffer is longer than both together.
        unsafe { read::user_str(scratch.at(start), OPEN_PATH_MAX as u32, path) }
    };
    // Flags that could not be read are marked as a path is.
    let fault = if call.has_extra() && extra.is_none() { PATH_FAULT } else { 0 };
    scratch.write(Open {
        header,
        flags,
        ret,
        dirfd,
        mode: if flags & MODE_FLAGS == 0 { 0 } else { mode },
        path_len: path.len as u16,
        marks: path.marks(PATH_TRUNCATED, PATH_FAULT) | marks | fault,
        call: call as u8,
    });
    if call.has_extra() {
        scratch.write_at::<FIXED, _>(extra.unwrap_or(OpenExtra(0)));
    }
    scratch.submit_event(state, start + path.len);
}

/// What was asked for, whichever call asked.
struct Request {
    dirfd: i32,
    /// Where the path is in the process's memory, or the handle.
    path: u64,
    flags: u64,
    mode: u32,
    extra: Option<OpenExtra>,
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
fn request(call: OpenCall, Arguments([first, second, third, fourth, _]): Arguments) -> Request {
    match call {
        OpenCall::Open => Request::new(AT_FDCWD, first, second, third),
        OpenCall::Creat => Request::new(AT_FDCWD, first, CREAT_FLAGS, second),
        OpenCall::Openat | OpenCall::UringOpenat => Request::new(first as i32, second, third, fourth),
        OpenCall::Openat2 | OpenCall::UringOpenat2 => {
            // Where it cannot be read the call has failed with EFAULT, or by its size, and there are no flags to show.
            let how = read::user::<OpenHow>(third);
            let OpenHow { flags, mode, resolve } = how.unwrap_or(OpenHow { flags: 0, mode: 0, resolve: 0 });
            let mode = if mode > u64::from(u32::MAX) { u32::MAX } else { mode as u32 };
            let extra = how.map(|_| OpenExtra(resolve));
            Request { dirfd: first as i32, path: second, flags, mode, extra }
        }
        OpenCall::OpenByHandleAt => {
            let extra = read::user::<u64>(second).map(OpenExtra);
            Request { extra, ..Request::new(first as i32, second, third, 0) }
        }
    }
}
