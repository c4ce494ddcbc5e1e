//! Kind `exit`: processes that have exited.

use core::mem::offset_of;

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    FIRST_OWN_FLAG, Header,
    schema::{Buffer, Column, Example, Field, Kind, Tracepoint},
};

/// The kernel has written a core dump, or passed one on.
pub const CORE_DUMPED: u16 = FIRST_OWN_FLAG;
/// The kernel's OOM killer chose the process.
pub const OOM_KILLED: u16 = FIRST_OWN_FLAG << 1;
/// It was the container's first process.
pub const IS_FIRST: u16 = FIRST_OWN_FLAG << 2;
/// It exited by itself: the record has [`Exit::code`].
pub const HAS_CODE: u16 = FIRST_OWN_FLAG << 3;

/// One process that has exited, with the last of its threads.
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// What all events share.
    pub header: Header,
    /// How long it lived: nanoseconds from the start of its first thread.
    pub lifetime: u64,
    /// The kind's own flags.
    pub event_flags: u16,
    /// What it gave to exit(2); 0 if a signal killed it.
    pub code: u8,
    /// The signal that killed it; 0 if none did.
    pub signal: u8,
    /// 0.
    pub reserved: u32,
}

/// [`Kind::number`].
pub const NUMBER: u32 = 3;

/// The declaration.
pub const KIND: Kind = Kind {
    number: NUMBER,
    name: "exit",
    help: "Processes that exited, with exit code or signal",
    doc: "One event for each process, when the last of its threads exits: with its exit code, or the signal that killed it, and \
          how long it lived. The exit of the container's first process is the end of the container.",
    examples: &[
        Example::new("Processes that failed: exit codes, signals, OOM kills", "-n kube-system --failed"),
        Example::new(
            "Ends of containers only: the exit of the first process",
            "-A -o json | jq 'select(.exit.first)'",
        ),
        Example::new(
            "How long the processes of a container live",
            "-c app -o custom-columns=pod,comm,lifetime,code",
        ),
    ],
    since: (5, 8),
    failure: Some("processes with an exit code other than 0, or killed by a signal"),
    record_size: size_of::<Exit>(),
    flags_at: offset_of!(Exit, event_flags),
    parts: &[],
    fields: &[
        Field::u8("code", offset_of!(Exit, code), "exit code; absent if a signal killed the process")
            .when(HAS_CODE),
        Field::signal("signal", offset_of!(Exit, signal), "signal that killed the process"),
        Field::only_if("coreDumped", CORE_DUMPED, "the kernel has dumped the process's memory (core(5))"),
        Field::only_if("oomKilled", OOM_KILLED, "the kernel's OOM killer killed the process"),
        Field::flag("first", IS_FIRST, "whether it was the container's first process"),
        Field::nanoseconds(
            "lifetimeNs",
            offset_of!(Exit, lifetime),
            "how long the process lived, in nanoseconds",
        ),
    ],
    columns: &[
        Column::field("CODE", 4, "code").alarm(),
        Column::field("SIGNAL", 8, "signal").alarm(),
        Column::field("OOM", 5, "oomKilled"),
        Column::field("FIRST", 5, "first"),
        Column::field("LIFETIME", 10, "lifetimeNs"),
    ],
    calls: &[],
    call_buffer: Buffer::None,
    fexit: &[],
    tracepoints: &[Tracepoint {
        program: "exit_last_thread",
        buffer: Buffer::None,
        tracepoint: "sched_process_exit",
        first: true,
    }],
};
