//! Traced events: a [`Header`] that all kinds share, a payload per kind, then the kind's bytes.

mod exec;
mod open;

pub use exec::{EXEC_ARGS_MAX, EXEC_PATH_MAX, Exec};
pub use open::{HANDLE_MAX, OPEN_PATH_MAX, Open, OpenCall, OpenExtra};

use crate::{Comm, assert_layout, container::ContainerKey};

/// The kinds of traced events.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file was opened, or was not: [`Open`].
    Open = 1,
    /// A program was executed, or was not: [`Exec`].
    Exec = 2,
}

impl TryFrom<u32> for Kind {
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::Open),
            2 => Ok(Self::Exec),
            unknown => Err(unknown),
        }
    }
}

/// The path was longer than the record holds.
pub const PATH_TRUNCATED: u8 = 1;
/// The path could not be read from the process's memory.
pub const PATH_FAULT: u8 = 1 << 1;
/// The arguments were longer than the record holds.
pub const ARGS_TRUNCATED: u8 = 1 << 2;
/// The arguments could not be read from the process's memory.
pub const ARGS_FAULT: u8 = 1 << 3;
/// A seccomp filter ended the call by a signal that the process may handle (`SECCOMP_RET_TRAP`).
pub const SECCOMP_TRAP: u8 = 1 << 4;
/// A seccomp filter ended the call and the process or thread (`SECCOMP_RET_KILL_*`).
pub const SECCOMP_KILL: u8 = 1 << 5;
/// The file was installed in io_uring's table: the result is an index in that table, not a file descriptor.
pub const OPEN_FIXED_FILE: u8 = 1 << 6;
/// The result was not reported: io_uring was asked to report failures only, or the report was not seen.
pub const OPEN_UNREPORTED: u8 = 1 << 7;
/// The call only asked whether it could execute the file (`AT_EXECVE_CHECK`).
pub const EXEC_CHECK: u8 = 1 << 6;
/// The record has the descriptor that execveat was given.
pub const EXEC_AT: u8 = 1 << 7;

/// What every traced event starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub timestamp: u64,
    /// The container it happened in.
    pub container: ContainerKey,
    /// A [`Kind`].
    pub kind: u32,
    /// Process id (thread group id) in the pid namespace of `tracer`.
    pub pid: u32,
    /// Thread id in the pid namespace of `tracer`.
    pub tid: u32,
    /// Process id of the parent, in the pid namespace of `tracer`.
    pub ppid: u32,
    /// Process id in the container's own pid namespace; 0 for host processes.
    pub container_pid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Real group id in the initial user namespace.
    pub gid: u32,
    /// Keeps what follows aligned; 0.
    pub reserved: u32,
    /// The task's comm.
    pub comm: Comm,
}
assert_layout!(Header, size 64, timestamp @ 0, container @ 8, kind @ 16, pid @ 20, tid @ 24, ppid @ 28,
    container_pid @ 32, uid @ 36, gid @ 40, reserved @ 44, comm @ 48);
