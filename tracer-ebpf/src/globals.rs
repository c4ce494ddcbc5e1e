//! Read-only globals, set by user space before the programs are loaded. The verifier takes them for constants,
//! so that what they switch off costs nothing.

use aya_ebpf::Global;
use tracer_common::offsets::UNKNOWN;

/// Process id of `tracer` itself in its pid namespace: its own events are never shown.
#[unsafe(no_mangle)]
pub static TRACER_PID: Global<u32> = Global::new(0);

/// Inode number of the pid namespace that `tracer` runs in, or 0 for the initial one.
#[unsafe(no_mangle)]
pub static TRACER_PID_NS: Global<u32> = Global::new(0);

/// Whether executions are traced, not only followed: 1 or 0.
#[unsafe(no_mangle)]
pub static TRACE_EXEC: Global<u32> = Global::new(0);

/// Whether events of host processes are wanted: 1 or 0.
#[unsafe(no_mangle)]
pub static TRACE_HOST: Global<u32> = Global::new(0);

/// Whether only failed calls are wanted: 1 or 0.
#[unsafe(no_mangle)]
pub static FAILED_ONLY: Global<u32> = Global::new(0);

/// Bytes in `EVENTS` at which its reader is woken.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: Global<u64> = Global::new(0);

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
