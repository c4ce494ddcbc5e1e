//! The programs that every run loads, and where a program finds its own values in the maps.
//!
//! A program writes counters and puts records together in values that are its alone on a CPU: the kernel never runs a program
//! within itself, but may run one program in the middle of another. A program that sees events of several kinds has
//! counters for each of them. User space numbers them when it loads the programs, and tells each by a global of 64 bits,
//! named after the program in capitals (`OPEN_RETURN`), of the shared program at `sys_exit` with the kind behind it
//! (`SYS_EXIT_OPEN`).

use crate::kinds::schema::{Buffer, Tracepoint};

/// The value of such a global: the index into `STATE`, and the index into the map of the program's [`Buffer`].
#[must_use]
pub const fn indices(state: u32, buffer: u32) -> u64 {
    (buffer as u64) << 32 | state as u64
}

/// Index into `STATE`.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub const fn state_index(indices: u64) -> u32 {
    indices as u32
}

/// Index into the map of the program's buffer.
#[must_use]
pub const fn buffer_index(indices: u64) -> u32 {
    (indices >> 32) as u32
}

/// Programs that follow the processes of containers, in the order in which they are attached: exits and forks before
/// executions, so that no process that starts to be followed is missed.
pub const LIFECYCLE: [Tracepoint; 3] = [
    Tracepoint {
        program: "process_exit",
        buffer: Buffer::None,
        tracepoint: "sched_process_exit",
        first: false,
    },
    Tracepoint {
        program: "process_fork",
        buffer: Buffer::None,
        tracepoint: "sched_process_fork",
        first: false,
    },
    Tracepoint {
        program: "process_exec",
        buffer: Buffer::Long,
        tracepoint: "sched_process_exec",
        first: false,
    },
];

/// The program that sees the return of every system call, and binds what criu has restored. Its buffers are those of its kinds
/// ([`Kind::call_buffer`](crate::kinds::Kind::call_buffer)).
pub const SYS_EXIT: Tracepoint =
    Tracepoint { program: "sys_exit", buffer: Buffer::None, tracepoint: "sys_exit", first: false };

/// The same at the event `raw_syscalls/sys_exit`, for kernels that may preempt programs at the tracepoint itself.
pub const SYS_EXIT_EVENT: &str = "sys_exit_event";

/// Calls of the global `SYSTEM_CALLS`: numbers are below this on every architecture.
pub const SYSTEM_CALLS: usize = 1024;

/// A call that some kind traces: the kind's number and the call's id.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the schema's check admits no number above 255")]
pub const fn traced_call(kind: u32, id: u8) -> u16 {
    (kind as u16) << 8 | id as u16
}
