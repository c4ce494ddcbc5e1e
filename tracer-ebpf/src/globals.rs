//! Read-only globals, set by user space before the programs are loaded. The verifier takes them for constants,
//! so that what they switch off costs nothing.

use aya_ebpf::Global;
use tracer_common::{filter::ANY, offsets::UNKNOWN};

/// Process id of `tracer` itself in its pid namespace: its own events are never shown.
#[unsafe(no_mangle)]
pub static TRACER_PID: Global<u32> = Global::new(0);

/// Inode number of the pid namespace that `tracer` runs in, or 0 for the initial one.
#[unsafe(no_mangle)]
pub static TRACER_PID_NS: Global<u32> = Global::new(0);

/// Inode number of the host's mount namespace, that of the first process of `tracer`'s pid namespace; 0 where user space may
/// not look at that: then the programs do.
#[unsafe(no_mangle)]
pub static HOST_MNT_NS: Global<u32> = Global::new(0);

/// Whether executions are traced, not only followed: 1 or 0.
#[unsafe(no_mangle)]
pub static TRACE_EXEC: Global<u32> = Global::new(0);

/// Whether events of host processes are wanted: 1 or 0.
#[unsafe(no_mangle)]
pub static TRACE_HOST: Global<u32> = Global::new(0);

/// Whether only failed calls are wanted: 1 or 0.
#[unsafe(no_mangle)]
pub static FAILED_ONLY: Global<u32> = Global::new(0);

/// Whether runtimes of users are trusted, who have user namespaces of their own: 1 or 0.
#[unsafe(no_mangle)]
pub static TRUST_ROOTLESS: Global<u32> = Global::new(0);

/// Whether the kernel gives the current task as a pointer that the verifier knows (`bpf_get_current_task_btf`, 5.11):
/// 1 or 0.
#[unsafe(no_mangle)]
pub static TYPED_TASKS: Global<u32> = Global::new(0);

/// Which process ids are asked for: one of `tracer_common::filter`, about the map `PIDS`.
#[unsafe(no_mangle)]
pub static FILTER_PIDS: Global<u32> = Global::new(ANY);

/// Which real user ids are asked for, likewise.
#[unsafe(no_mangle)]
pub static FILTER_UIDS: Global<u32> = Global::new(ANY);

/// Which comms are asked for, likewise.
#[unsafe(no_mangle)]
pub static FILTER_COMMS: Global<u32> = Global::new(ANY);

/// Bytes that a CPU puts into `EVENTS` between two wake-ups of its reader.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: Global<u64> = Global::new(0);

/// Which argument of the tracepoint that tells of io_uring's submissions is the request.
#[unsafe(no_mangle)]
pub static URING_REQUEST_ARGUMENT: Global<u32> = Global::new(0);

/// Whether the tracepoint that tells of io_uring's completions has the result as an argument: 1 or 0. Where it has not, it
/// is read from the request: what the tracepoint points to instead, the process may write.
#[unsafe(no_mangle)]
pub static URING_RESULT_ARGUMENT: Global<u32> = Global::new(0);

/// Which argument of the tracepoint that tells of refused entries is the error.
#[unsafe(no_mangle)]
pub static URING_ERROR_ARGUMENT: Global<u32> = Global::new(2);

macro_rules! offsets {
    ($($global:ident: $structure:literal $member:literal $required:tt;)*) => {
        $(
            #[doc = concat!("Offset of `", $structure, ".", $member, "` in bytes, or [`UNKNOWN`].")]
            #[unsafe(no_mangle)]
            pub static $global: Global<u32> = Global::new(UNKNOWN);
        )*
    };
}
tracer_common::with_offsets!(offsets);
