//! Sizes of maps.

use std::fs;

use rustix::param::page_size;

/// Containers and runtime invocations that can be known at a time. More are counted as lost.
pub(crate) const SLOTS: u32 = 32_768;
/// How many of them are for trusted runtimes only.
pub(crate) const KEPT_SLOTS: u32 = SLOTS / 2;
/// Processes in containers that can be followed at a time, whatever the kernel would allow to exist.
const PROCESSES_MAX: u32 = 1 << 18;
/// Opens that io_uring may have under way at a time, 4 KiB each. More are counted as lost.
pub(crate) const REQUESTS: u32 = 256;
/// Bytes that a CPU submits to the event ring at the most between two wake-ups of its reader, which drains the ring every few
/// milliseconds anyway.
const WAKE_BYTES_MAX: u64 = 256 * 1024;

/// Bytes of the ring for log messages of the programs, of which there are none unless debug messages are logged.
pub(crate) fn log_size(log: bool) -> u32 {
    const LOG: u32 = 128 * 1024;
    if log { LOG } else { u32::try_from(page_size()).unwrap_or(LOG) }
}

/// Bytes that a program may submit to the event ring on a CPU before it wakes the reader: a quarter of the ring for all together.
pub(crate) fn wake_bytes(buffer_size: u32, programs: u32) -> u64 {
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus.get().into());
    (u64::from(buffer_size) / 4 / cpus / u64::from(programs.max(1))).min(WAKE_BYTES_MAX)
}

/// How many processes there can be at all, within bounds: the map is allocated at once, 80 bytes an entry.
pub(crate) fn processes_max() -> u32 {
    let limit = |path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"]
        .into_iter()
        .filter_map(limit)
        .min()
        .unwrap_or(PROCESSES_MAX)
        .clamp(4096, PROCESSES_MAX)
}

/// How many processes there are now, and some more: only they can be adopted.
pub(crate) fn adoptees_max() -> u32 {
    let processes = fs::read_dir("/proc").map_or(0, Iterator::count);
    u32::try_from(2 * processes + 1024).unwrap_or(u32::MAX).min(PROCESSES_MAX)
}
