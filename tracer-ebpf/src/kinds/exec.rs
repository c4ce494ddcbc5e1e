//! execve and execveat: the successful ones when the new program is in place, the others when they return.

use core::mem::offset_of;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::{
    container::ContainerKey,
    kinds::{
        ARGS_FAULT, ARGS_TRUNCATED, PATH_FAULT, PATH_TRUNCATED,
        exec::{self, ARGS_MAX, AT, COMPAT, Exec, HAS_DIRFD, IS_CHECK, PATH_MAX},
    },
};

use super::{EventKind, seccomp::Answer};
use crate::{
    arch::{self, Call, Registers},
    current::Current,
    emit::Scratch,
    filter,
    globals::offsets,
    identity::{self, Identity},
    lifecycle,
    preemption::without_preemption,
    read::{self, Copied, KernelAddress, bounded},
    state::{ProgramState, programs},
    task::{Task, find_tracer_level},
};

programs! {
    /// Failed calls, and checks.
    AT_SYS_EXIT = SYS_EXIT_EXEC, Long;
    /// Programs that were executed.
    AT_EXEC = EXEC_SUCCESS, Long;
}

offsets! {
    BPRM_FILENAME = offset__linux_binprm__filename;
}

/// Programs executed.
pub enum Events {}

const FIXED: u32 = size_of::<Exec>() as u32;
/// Arguments of a failed execution that are read at the most; more are marked as truncated.
const FAILED_ARGS_MAX: u32 = 128;
/// A flag of execveat since 6.14, include/uapi/linux/fcntl.h: the file is checked, not executed.
const AT_EXECVE_CHECK: u32 = 0x1_0000;

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, include/trace/events/sched.h. The program
/// `process_exec`, which is attached before, has bound the process to its container.
#[btf_tracepoint(function = "sched_process_exec")]
#[inline(always)]
pub fn exec_success(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        if identity::is_tracing() {
            emit_executed(KernelAddress(ctx.arg(2)).follow(&BPRM_FILENAME).0);
        }
    });
    0
}

/// The current task has executed a program from the file with the name at this address; its arguments are the block that the
/// kernel has just laid out. A function of its own for the verifier, as in [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit_executed(filename: u64) -> u32 {
    let Some(epoch) = identity::epoch() else { return 0 };
    let Some(state) = ProgramState::of(AT_EXEC) else { return 0 };
    state.count(|stats| &mut stats.seen);
    let task = Current::task();
    let identity = Identity::look_up(state, task, epoch);
    let Some(header) = filter::admit(state, exec::NUMBER, task, &identity, false) else { return 0 };
    let Some(mut scratch) = Scratch::take(AT_EXEC) else { return 0 };
    scratch.write(header);
    let filename = KernelAddress(filename);
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::kernel_str(scratch.at(FIXED), PATH_MAX as u32, filename) };
    let args = match Task::current().arguments() {
        // SAFETY: the buffer is longer than all three together.
        Some((start, len)) => unsafe {
            read::user_block(scratch.at(FIXED + path.len), ARGS_MAX as u32, start, len)
        },
        None => Copied::FAULT,
    };
    submit(state, scratch, Outcome { ret: 0, dirfd: 0, flags: 0 }, path, args);
    1
}

/// How a call ended.
struct Outcome {
    ret: i32,
    dirfd: i32,
    /// `SECCOMP_*` flags and the kind's own.
    flags: u16,
}

impl EventKind for Events {
    const NUMBER: u32 = exec::NUMBER;

    /// A call that returns to its caller has failed, or has executed nothing since it was only a check. The argument block is
    /// still the old program's: the new arguments are in the caller's memory.
    #[inline(always)]
    fn on_return(call: &Call, registers: &Registers, ret: i64) {
        if !identity::is_tracing() || ret > 0 && !arch::is_rolled_back(registers, ret) {
            return;
        }
        let is_at = call.id & AT != 0;
        let [first, second, third, _, fifth] = call.arguments.0;
        let Answer { ret, mut flags } = Answer::of(registers, ret);
        // The registers of a program that was executed are all 0.
        if is_at && fifth as u32 & AT_EXECVE_CHECK != 0 {
            flags |= IS_CHECK;
        } else if ret >= 0 {
            return;
        }
        let (path, argv) = if is_at { (second, third) } else { (first, second) };
        let (dirfd, at) = if is_at { (first as u32, HAS_DIRFD) } else { (0, 0) };
        let compat = if call.id & COMPAT != 0 { COMPAT_POINTERS } else { 0 };
        let container = lifecycle::container_of_failed_exec(AT_SYS_EXIT, call.task.tgid());
        let outcome = u64::from(dirfd) << 32 | u64::from(ret as u32);
        emit_failed(path, argv, outcome, u32::from(flags | at) | compat, container.0);
    }
}

/// Beside the flags of [`emit_failed`]: pointers have 32 bits.
const COMPAT_POINTERS: u32 = 1 << 31;

/// Emits a call that has failed, or was a check. `outcome` is the directory's descriptor and, in the lower half, the result;
/// `flags` are those of the record, and [`COMPAT_POINTERS`]. A function of its own for the verifier, as in
/// [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit_failed(path: u64, argv: u64, outcome: u64, flags: u32, container: u64) -> u32 {
    let Some(state) = ProgramState::of(AT_SYS_EXIT) else { return 0 };
    state.count(|stats| &mut stats.seen);
    let task = Current::task();
    let ret = outcome as i32;
    let identity = Identity::of_container(ContainerKey(container), task.tgid());
    let Some(header) = filter::admit(state, exec::NUMBER, task, &identity, ret < 0) else { return 0 };
    let Some(mut scratch) = Scratch::take(AT_SYS_EXIT) else { return 0 };
    scratch.write(header);
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::user_str(scratch.at(FIXED), PATH_MAX as u32, path) };
    let args = copy_argv(FIXED + path.len, argv, flags & COMPAT_POINTERS != 0);
    let outcome = Outcome { ret, dirfd: (outcome >> 32) as i32, flags: flags as u16 };
    submit(state, scratch, outcome, path, args);
    1
}

/// Submits the record, whose header is written already: what is written early needs no room on the stack.
#[inline(always)]
fn submit(state: ProgramState, mut scratch: Scratch, outcome: Outcome, path: Copied, args: Copied) {
    const RET: u32 = offset_of!(Exec, ret) as u32;
    const PATH_LEN: u32 = offset_of!(Exec, path_len) as u32;
    let Outcome { ret, dirfd, flags } = outcome;
    let event_flags = path.flags(PATH_TRUNCATED, PATH_FAULT) | args.flags(ARGS_TRUNCATED, ARGS_FAULT) | flags;
    scratch.write_at::<RET, _>([ret, dirfd]);
    scratch.write_at::<PATH_LEN, _>([path.len as u16, args.len as u16, event_flags, 0]);
    scratch.submit_event(state, FIXED + path.len + args.len);
}

/// Copies an argument vector, string after string, each with its NUL. What was read before a fault stays.
#[inline(always)]
fn copy_argv(at: u32, argv: u64, compat: bool) -> Copied {
    const MAX: u32 = ARGS_MAX as u32;
    // Cuts the length at every turn to the same range, so that the verifier finds each turn's state in the last
    // one's and need not follow all their ends separately.
    const MASK: u32 = 2 * MAX - 1;
    let mut copied = Copied { len: 0, truncated: true, fault: false };
    // One turn more, to see whether the vector ends there.
    for index in 0..=FAILED_ARGS_MAX {
        let pointer = match (argv, compat) {
            // execve takes a null pointer for an empty vector.
            (0, _) => Some(0),
            (_, true) => read::user::<u32>(argv + u64::from(index) * 4).map(u64::from),
            (_, false) => read::user::<u64>(argv + u64::from(index) * 8),
        };
        let Some(pointer) = pointer else {
            copied.fault = true;
            break;
        };
        if pointer == 0 {
            copied.truncated = false;
            break;
        }
        if copied.len >= MAX || index == FAILED_ARGS_MAX {
            break;
        }
        let argument = copy_argument(at + copied.len, MAX - copied.len, pointer);
        if argument & ARGUMENT_FAULT != 0 {
            copied.fault = true;
            break;
        }
        copied.len = bounded::<MASK>(copied.len + (argument & !ARGUMENT_TRUNCATED) + 1);
        if argument & ARGUMENT_TRUNCATED != 0 {
            break;
        }
    }
    copied.len = if copied.len > MAX { MAX } else { bounded::<MASK>(copied.len) };
    copied
}

/// Beside the length that [`copy_argument`] returns: nothing could be read.
const ARGUMENT_FAULT: u32 = 1 << 31;
/// Likewise: there was more than the record has room for.
const ARGUMENT_TRUNCATED: u32 = 1 << 30;

/// Copies an argument to `at` in the buffer, `left` bytes at the most. Returns its length, with `ARGUMENT_*` bits. A function of
/// its own for the verifier, which looks at each turn of the loop.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn copy_argument(at: u32, left: u32, pointer: u64) -> u32 {
    const MASK: u32 = 2 * ARGS_MAX as u32 - 1;
    let Some(scratch) = Scratch::take(AT_SYS_EXIT) else { return ARGUMENT_FAULT };
    // SAFETY: the buffer is longer than the largest offset and the longest string together.
    let argument = unsafe { read::user_str(scratch.at(at), bounded::<MASK>(left), pointer) };
    if argument.fault {
        ARGUMENT_FAULT
    } else if argument.truncated {
        argument.len | ARGUMENT_TRUNCATED
    } else {
        argument.len
    }
}
