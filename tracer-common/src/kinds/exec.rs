//! Kind `exec`: programs executed by execve and execveat.

use core::mem::offset_of;

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    ARGS_FAULT, ARGS_TRUNCATED, FIRST_OWN_FLAG, Header, PATH_FAULT, PATH_TRUNCATED, SECCOMP,
    schema::{Buffer, Column, Example, Field, Kind, Shows, SystemCall, Tracepoint},
};

/// Bytes of the executed file's path that a record holds at the most.
pub const PATH_MAX: usize = 4095;
/// Bytes of arguments that a record holds at the most.
pub const ARGS_MAX: usize = 8192;

/// Calls: which one it is in the lowest bit, and how wide its pointers are in the next.
pub const EXECVE: u8 = 2;
/// See [`EXECVE`]: a directory's descriptor comes first.
pub const EXECVEAT: u8 = 3;
/// Bit of a call that is execveat.
pub const AT: u8 = 1;
/// Bit of a call whose argument vector has 32-bit pointers: i386, arm, x32.
pub const COMPAT: u8 = 4;

/// The call only checked whether it could execute the file (`AT_EXECVE_CHECK`, Linux 6.14).
pub const IS_CHECK: u16 = FIRST_OWN_FLAG;
/// The record has [`Exec::dirfd`].
pub const HAS_DIRFD: u16 = FIRST_OWN_FLAG << 1;

/// One execution. The path follows, then the arguments, each with a NUL behind it.
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    /// What all events share.
    pub header: Header,
    /// 0, or a negated errno.
    pub ret: i32,
    /// The directory or file that execveat was given; 0 without [`HAS_DIRFD`].
    pub dirfd: i32,
    /// Bytes of the path, without a NUL.
    pub path_len: u16,
    /// Bytes of the arguments, each with its NUL.
    pub args_len: u16,
    /// `PATH_*`, `ARGS_*`, `SECCOMP_*` and the kind's own flags.
    pub event_flags: u16,
    /// 0.
    pub reserved: u16,
}

/// [`Kind::number`].
pub const NUMBER: u32 = 2;

/// The declaration.
pub const KIND: Kind = Kind {
    number: NUMBER,
    name: "exec",
    help: "Programs executed: execve, execveat",
    doc: "One event for each program that was executed, when it is in place, and for each execve or execveat that failed. The \
          arguments of a success are those that the kernel has laid out for the program; of a failure those in the caller's \
          memory, 128 at the most. A check with AT_EXECVE_CHECK (Linux 6.14) is marked as such.",
    examples: &[
        Example::new("Programs that the pods of a namespace execute", "-n kube-system"),
        Example::new("Programs of root, with user, runtime and image of the container", "-A --uid 0 -o wide"),
        Example::new("Programs that could not be executed", "-p 'web-*' --failed"),
    ],
    since: (5, 8),
    failure: Some("calls that returned an error"),
    record_size: size_of::<Exec>(),
    flags_at: offset_of!(Exec, event_flags),
    parts: &[offset_of!(Exec, path_len), offset_of!(Exec, args_len)],
    fields: &[
        Field::texts("args", 1, "arguments, the program's name first"),
        Field::text("path", 0, "path of the executed file as the process gave it"),
        Field::i32("dirfd", offset_of!(Exec, dirfd), "directory or file that execveat was given")
            .when(HAS_DIRFD),
        Field::errno("errno", offset_of!(Exec, ret), "error number; 0 if the program was executed"),
        Field::flag(
            "truncated",
            PATH_TRUNCATED | ARGS_TRUNCATED,
            "whether the path or the arguments were longer than the record holds (4095 and 8192 bytes)",
        ),
        Field::only_if(
            "fault",
            PATH_FAULT | ARGS_FAULT,
            "the path or the arguments could not be read from the process's memory",
        ),
        Field::first_flag("seccomp", SECCOMP, "how a seccomp filter ended the call"),
        Field::only_if("check", IS_CHECK, "the file was only checked, not executed (AT_EXECVE_CHECK)"),
    ],
    columns: &[
        Column::new("PPID", 7, Shows::Ppid),
        Column::new("RET", 6, Shows::Error("errno")).alarm(),
        Column::field("PATH", 24, "path").wide(),
        Column::new("ARGS", 32, Shows::CommandLine("args", "path")),
    ],
    calls: &[
        SystemCall { id: EXECVE, x86_64: 59, i386: 0, aarch64: 221, arm: 0 },
        SystemCall { id: EXECVEAT, x86_64: 322, i386: 0, aarch64: 281, arm: 0 },
        SystemCall { id: EXECVE | COMPAT, x86_64: 0, i386: 11, aarch64: 0, arm: 11 },
        SystemCall { id: EXECVEAT | COMPAT, x86_64: 0, i386: 358, aarch64: 0, arm: 387 },
        // x32 has numbers of its own for them, with 32-bit pointers.
        SystemCall { id: EXECVE | COMPAT, x86_64: 520, i386: 0, aarch64: 0, arm: 0 },
        SystemCall { id: EXECVEAT | COMPAT, x86_64: 545, i386: 0, aarch64: 0, arm: 0 },
    ],
    call_buffer: Buffer::Long,
    fexit: &[],
    tracepoints: &[Tracepoint {
        program: "exec_success",
        buffer: Buffer::Long,
        tracepoint: "sched_process_exec",
        first: false,
    }],
};
