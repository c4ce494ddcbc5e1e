//! execve and execveat: the successful ones when the new program is in place, the others when they return.

use tracer_common::{
    container::ContainerKey,
    event::{
        ARGS_FAULT, ARGS_TRUNCATED, EXEC_ARGS_MAX, EXEC_AT, EXEC_CHECK, EXEC_PATH_MAX, Exec, Header, Kind,
        PATH_FAULT, PATH_TRUNCATED,
    },
    stats::Program,
};

use super::seccomp::Answer;
use crate::{
    arch::{self, Registers},
    current::Current,
    emit::Scratch,
    filter, globals,
    identity::Identity,
    lifecycle,
    read::{self, Copied, KernelAddress, bounded},
    state::ProgramState,
    task::Task,
};

const FIXED: u32 = size_of::<Exec>() as u32;
/// Arguments of a failed execution that are read at the most; more are marked as truncated.
const FAILED_ARGS_MAX: u32 = 128;
/// A flag of execveat since 6.14, include/uapi/linux/fcntl.h: the file is checked, not executed.
const AT_EXECVE_CHECK: u32 = 0x1_0000;

/// The current task has executed a program; its arguments are the block that the kernel has just laid out.
#[inline(always)]
pub fn on_exec(container: ContainerKey, bprm: KernelAddress) {
    emit_executed(container.0, bprm.follow(&globals::BPRM_FILENAME).0);
}

/// [`on_exec`], with the address of the file's name: a function of its own for the verifier, as in [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit_executed(container: u64, filename: u64) -> u32 {
    let Some(state) = ProgramState::of(Program::ProcessExec) else { return 0 };
    state.count(|stats| &mut stats.seen);
    let task = Current::task();
    let identity = Identity::of_container(ContainerKey(container), task.tgid());
    let Some(header) = filter::admit(state, Kind::Exec, task, &identity, false) else { return 0 };
    let Some(scratch) = Scratch::take(Program::ProcessExec) else { return 0 };
    let filename = KernelAddress(filename);
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::kernel_str(scratch.at(FIXED), EXEC_PATH_MAX as u32, filename) };
    let args = match Task::current().arguments() {
        // SAFETY: the buffer is longer than all three together.
        Some((start, len)) => unsafe {
            read::user_block(scratch.at(FIXED + path.len), EXEC_ARGS_MAX as u32, start, len)
        },
        None => Copied::FAULT,
    };
    submit(state, scratch, header, Outcome { ret: 0, dirfd: 0, marks: 0 }, path, args);
    1
}

/// What came of a call.
struct Outcome {
    ret: i32,
    dirfd: i32,
    /// `SECCOMP_*` and `EXEC_*` bits.
    marks: u8,
}

/// A call to execute returned to its caller: it has failed, or has executed nothing since it was only a check. The argument
/// block is still the old program's: the new arguments are where the caller has them.
#[inline(always)]
pub fn on_exit(registers: &Registers, ret: i64) {
    // Most calls leave here.
    if ret > 0 && !arch::is_rolled_back(registers, ret) {
        return;
    }
    let Some((call, arguments, task)) = arch::exec_call(registers) else { return };
    let [first, second, third, _, fifth] = arguments.0;
    let mut answer = Answer::of(registers, ret);
    // The registers of a program that was executed are all 0.
    if call.at && fifth as u32 & AT_EXECVE_CHECK != 0 {
        answer.marks |= EXEC_CHECK;
    } else if answer.ret >= 0 {
        return;
    }
    let (path, argv) = if call.at { (second, third) } else { (first, second) };
    let (dirfd, at) = if call.at { (first as u32, EXEC_AT) } else { (0, 0) };
    let marks = u32::from(answer.marks | at);
    let container = lifecycle::container_of_failed_exec(task.tgid());
    let outcome = u64::from(dirfd) << 32 | u64::from(answer.ret as u32);
    emit_failed(path, argv, outcome, if call.compat { marks | COMPAT } else { marks }, container.0);
}

/// Beside the marks of [`emit_failed`]: pointers have 32 bits.
const COMPAT: u32 = 1 << 31;

/// A call to execute has failed, or was a check. `outcome` is the directory's descriptor and, in the lower half, the result;
/// `marks` are the `SECCOMP_*` and `EXEC_*` bits, and [`COMPAT`]. A function of its own for the verifier, as in
/// [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit_failed(path: u64, argv: u64, outcome: u64, marks: u32, container: u64) -> u32 {
    let Some(state) = ProgramState::of(Program::ExecExit) else { return 0 };
    state.count(|stats| &mut stats.seen);
    let task = Current::task();
    let ret = outcome as i32;
    let identity = Identity::of_container(ContainerKey(container), task.tgid());
    let Some(header) = filter::admit(state, Kind::Exec, task, &identity, ret < 0) else { return 0 };
    let Some(scratch) = Scratch::take(Program::ExecExit) else { return 0 };
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::user_str(scratch.at(FIXED), EXEC_PATH_MAX as u32, path) };
    let args = copy_argv(FIXED + path.len, argv, marks & COMPAT != 0);
    let outcome = Outcome { ret, dirfd: (outcome >> 32) as i32, marks: marks as u8 };
    submit(state, scratch, header, outcome, path, args);
    1
}

#[inline(always)]
fn submit(
    state: ProgramState,
    mut scratch: Scratch,
    header: Header,
    outcome: Outcome,
    path: Copied,
    args: Copied,
) {
    let Outcome { ret, dirfd, marks } = outcome;
    scratch.write(Exec {
        header,
        ret,
        path_len: path.len as u16,
        args_len: args.len as u16,
        dirfd,
        marks: path.marks(PATH_TRUNCATED, PATH_FAULT) | args.marks(ARGS_TRUNCATED, ARGS_FAULT) | marks,
        reserved: [0; 3],
    });
    scratch.submit_event(state, FIXED + path.len + args.len);
}

/// Copies an argument vector, string after string, each with its NUL. What was read before a fault stays.
#[inline(always)]
fn copy_argv(at: u32, argv: u64, compat: bool) -> Copied {
    const MAX: u32 = EXEC_ARGS_MAX as u32;
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
    const MASK: u32 = 2 * EXEC_ARGS_MAX as u32 - 1;
    let Some(scratch) = Scratch::take(Program::ExecExit) else { return ARGUMENT_FAULT };
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
