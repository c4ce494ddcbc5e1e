//! Traced events: a [`Header`] that all kinds share, a structure per kind, then the kind's parts of variable length.
//!
//! A kind is one file here, which declares all of it, one file in `tracer-ebpf/src/kinds/`, which has its programs, and a
//! line in [`with_kinds`](crate::with_kinds).

pub mod schema;

pub use schema::Kind;
#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Comm, container::ContainerKey};

/// Calls `$with!` with the names of the kinds' modules: the one list of kinds.
#[macro_export]
macro_rules! with_kinds {
    ($with:ident) => {
        $with! {
            open
            exec
            exit
        }
    };
}

macro_rules! kinds {
    ($($kind:ident)*) => {
        $(pub mod $kind;)*

        /// Every kind.
        pub const KINDS: &[Kind] = &[$($kind::KIND),*];
    };
}
with_kinds!(kinds);

/// The path was longer than the record holds.
pub const PATH_TRUNCATED: u16 = 1;
/// The path could not be read from the process's memory.
pub const PATH_FAULT: u16 = 1 << 1;
/// The arguments were longer than the record holds.
pub const ARGS_TRUNCATED: u16 = 1 << 2;
/// The arguments could not be read from the process's memory.
pub const ARGS_FAULT: u16 = 1 << 3;
/// A seccomp filter ended the call by a signal that the process may handle (`SECCOMP_RET_TRAP`).
pub const SECCOMP_TRAP: u16 = 1 << 4;
/// A seccomp filter ended the call and the process or thread (`SECCOMP_RET_KILL_*`).
pub const SECCOMP_KILL: u16 = 1 << 5;
/// The first flag that kinds have for themselves. A record's flags are those above and its kind's.
pub const FIRST_OWN_FLAG: u16 = 1 << 8;

/// How a seccomp filter ended a call, by flag.
pub const SECCOMP: &[(u16, &str)] = &[(SECCOMP_KILL, "kill"), (SECCOMP_TRAP, "trap")];

/// What every traced event starts with.
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub timestamp: u64,
    /// The container that the task belongs to.
    pub container: ContainerKey,
    /// A [`Kind::number`].
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
    /// 0. Keeps what follows aligned.
    pub reserved: u32,
    /// The task's comm.
    pub comm: Comm,
}
