//! Counters of the programs: what they saw, and where an event can be lost.

use crate::{assert_layout, container::Recent, impl_pod};

/// The programs; their value is the index into the per-program map `STATE`.
///
/// Each counts for itself, because the kernel never runs a program within itself on one CPU, but may run one
/// program in the middle of another: so no counter is written from two sides.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `sys_exit`: calls that open files.
    OpenExit = 0,
    /// `sched_process_exec`: runtimes, entrypoints, successful executions.
    ProcessExec = 1,
    /// `sys_exit`: failed executions.
    ExecExit = 2,
    /// `sched_process_fork`: follows the processes of a container.
    ProcessFork = 3,
    /// `sched_process_exit`: forgets them.
    ProcessExit = 4,
    /// Return of `do_sys_openat2`: calls that open files, openat2 left out.
    OpenReturn = 5,
    /// Return of the system call openat2.
    Openat2Return = 6,
    /// The same, called by a 32-bit program.
    Openat2CompatReturn = 7,
    /// Return of the system call open_by_handle_at.
    HandleReturn = 8,
    /// The same, called by a 32-bit program.
    HandleCompatReturn = 9,
    /// `io_uring_submit_req`: requests to open files.
    UringSubmit = 10,
    /// `io_uring_complete`: what came of them.
    UringComplete = 11,
    /// `io_uring_cqe_overflow`: likewise, where the completion found no room.
    UringOverflow = 12,
    /// `io_uring_req_failed`: entries that did not become requests.
    UringRefusal = 13,
}

impl From<Program> for u32 {
    fn from(program: Program) -> Self {
        program as Self
    }
}

impl Program {
    /// All programs, in the order of their index.
    pub const ALL: [Self; 14] = [
        Self::OpenExit,
        Self::ProcessExec,
        Self::ExecExit,
        Self::ProcessFork,
        Self::ProcessExit,
        Self::OpenReturn,
        Self::Openat2Return,
        Self::Openat2CompatReturn,
        Self::HandleReturn,
        Self::HandleCompatReturn,
        Self::UringSubmit,
        Self::UringComplete,
        Self::UringOverflow,
        Self::UringRefusal,
    ];

    /// The program's name in the object file and in the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenExit => "open_exit",
            Self::ProcessExec => "process_exec",
            Self::ExecExit => "exec_exit",
            Self::ProcessFork => "process_fork",
            Self::ProcessExit => "process_exit",
            Self::OpenReturn => "open_return",
            Self::Openat2Return => "openat2_return",
            Self::Openat2CompatReturn => "openat2_compat_return",
            Self::HandleReturn => "handle_return",
            Self::HandleCompatReturn => "handle_compat_return",
            Self::UringSubmit => "uring_submit",
            Self::UringComplete => "uring_complete",
            Self::UringOverflow => "uring_overflow",
            Self::UringRefusal => "uring_refusal",
        }
    }
}

/// A buffer that a program puts records together in, on each CPU: by map, the index into it. No two programs that can run
/// within each other have the same, and the kernel lets programs preempt each other. Memory for all possible CPUs is what
/// the buffers cost: so there are no more, and no longer ones, than loaded programs take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// For records with arguments, in `SCRATCH`.
    Long(u32),
    /// For records with a path at the most, in `SHORT_SCRATCH`.
    Short(u32),
}

impl Program {
    /// Its buffer; none where its records fit on the stack. At `sys_exit` and at fexit opens are hooked by turns: the
    /// programs of one way are loaded when those of the other have ended.
    #[must_use]
    pub const fn scratch(self) -> Option<Scratch> {
        match self {
            Self::ProcessExec => Some(Scratch::Long(0)),
            Self::ExecExit => Some(Scratch::Long(1)),
            Self::OpenExit | Self::OpenReturn => Some(Scratch::Short(0)),
            // Neither runs within the other: both are at tracepoints, which are not preempted before 7.0, and disable
            // preemption from there on.
            Self::UringSubmit | Self::UringRefusal => Some(Scratch::Short(1)),
            Self::Openat2Return => Some(Scratch::Short(2)),
            Self::Openat2CompatReturn => Some(Scratch::Short(3)),
            Self::HandleReturn => Some(Scratch::Short(4)),
            Self::HandleCompatReturn => Some(Scratch::Short(5)),
            Self::ProcessFork | Self::ProcessExit | Self::UringComplete | Self::UringOverflow => None,
        }
    }
}

/// One program's counters on one CPU. Once the programs are detached:
/// `seen` = records submitted + `filtered` + `lost_buffer_full` + `lost_no_scratch`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Calls of the traced kind, by any process.
    pub seen: u64,
    /// Of those, what nobody asked for.
    pub filtered: u64,
    /// Records that found `EVENTS` full.
    pub lost_buffer_full: u64,
    /// Records that had no buffer to be put together in; the kernel has no known reason to refuse one.
    pub lost_no_scratch: u64,
    /// Records that found `LIFECYCLE` full: containers that were not learnt of, or whose end was not.
    pub lost_lifecycle: u64,
    /// Processes that `PROCESSES` had no room for: what they and their children do passes for the host's.
    pub lost_processes_full: u64,
    /// Runtimes that no slot was free for: their containers pass for the host's.
    pub lost_slots_full: u64,
    /// Runtimes that are not believed, and came when `LIFECYCLE` was half full: likewise.
    pub lost_crowded: u64,
    /// Runtimes in user namespaces, where users' runtimes are not trusted: likewise.
    pub lost_user_namespace: u64,
}
assert_layout!(ProgramStats, size 72, seen @ 0, filtered @ 8, lost_buffer_full @ 16, lost_no_scratch @ 24,
    lost_lifecycle @ 32, lost_processes_full @ 40, lost_slots_full @ 48, lost_crowded @ 56,
    lost_user_namespace @ 64);

/// What a program keeps on a CPU, all in one place: a look-up more for each event would be felt. Value of the map `STATE`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Its counters.
    pub stats: ProgramStats,
    /// Whose the task is that it ran for last.
    pub recent: Recent,
    /// Bytes that it has put into `EVENTS` since it last woke the reader.
    pub since_wake: u64,
}
assert_layout!(State, size 120, stats @ 0, recent @ 72, since_wake @ 112);
impl_pod!(ProgramStats, State);
