//! open, openat, openat2, creat, read when the call returns.

use tracer_common::{
    event::{Kind, OPEN_PATH_MAX, Open, PATH_FAULT, PATH_TRUNCATED},
    stats::Program,
};

use crate::{
    arch::{self, Arguments, OpenCall, Registers},
    emit::Scratch,
    filter,
    identity::{self, Identity},
    read,
    state::State,
};

const AT_FDCWD: i32 = -100;
/// `O_WRONLY | O_CREAT | O_TRUNC`: what creat stands for. The same on x86_64, aarch64 and their 32-bit kin.
const CREAT_FLAGS: u64 = 0o1 | 0o100 | 0o1000;
/// `O_CREAT` and `__O_TMPFILE`: with neither, the mode is unused and may be anything.
const MODE_FLAGS: u64 = 0o100 | 0o20_000_000;

/// `struct open_how` (include/uapi/linux/openat2.h) without what came after its first version's `mode`.
#[repr(C)]
#[derive(Clone, Copy)]
struct OpenHow {
    flags: u64,
    mode: u64,
}

/// A call that `program` answers for has returned.
#[inline(always)]
pub fn on_return(program: Program, registers: &Registers, ret: i64, is_its: impl FnOnce(OpenCall) -> bool) {
    const FIXED: u32 = size_of::<Open>() as u32;
    let Some((call, arguments, task)) = arch::open_call(registers) else { return };
    if !is_its(call) {
        return;
    }
    let Some(epoch) = identity::epoch() else { return };
    let Some(state) = State::of(program) else { return };
    state.count(|stats| &mut stats.seen);
    let identity = Identity::look_up(state, task, epoch);
    let Some(header) = filter::admit(state, Kind::Open, task, &identity, ret < 0) else { return };
    let Some(mut scratch) = Scratch::take(program) else { return };
    let Request { dirfd, path, flags, mode } = request(call, arguments);
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::user_str(scratch.at(FIXED), OPEN_PATH_MAX as u32, path) };
    scratch.write(Open {
        header,
        flags,
        ret: ret as i32,
        dirfd,
        mode: if flags & MODE_FLAGS == 0 { 0 } else { mode },
        path_len: path.len as u16,
        marks: path.marks(PATH_TRUNCATED, PATH_FAULT),
        reserved: 0,
    });
    scratch.submit_event(state, FIXED + path.len);
}

/// What was asked for, whichever call asked.
struct Request {
    dirfd: i32,
    path: u64,
    flags: u64,
    mode: u32,
}

/// Flags are an int but for openat2: the upper half of the register is not part of them.
#[inline(always)]
fn request(call: OpenCall, Arguments([first, second, third, fourth]): Arguments) -> Request {
    let int = |register: u64| register & 0xffff_ffff;
    match call {
        OpenCall::Open => Request { dirfd: AT_FDCWD, path: first, flags: int(second), mode: third as u32 },
        OpenCall::Creat => Request { dirfd: AT_FDCWD, path: first, flags: CREAT_FLAGS, mode: second as u32 },
        OpenCall::Openat => {
            Request { dirfd: first as i32, path: second, flags: int(third), mode: fourth as u32 }
        }
        OpenCall::Openat2 => {
            // Where it cannot be read the call has failed with EFAULT, and there are no flags to show.
            let how = read::user::<OpenHow>(third).unwrap_or(OpenHow { flags: 0, mode: 0 });
            Request { dirfd: first as i32, path: second, flags: how.flags, mode: how.mode as u32 }
        }
    }
}
