//! The perf event of the tracepoint `raw_syscalls:sys_exit`: its id in tracefs, and programs attached to it. Own
//! code, because aya reads the id from a tracefs that is mounted in `tracer`'s own mount namespace; an agent has none
//! mounted and reads the node's.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use anyhow::Context as _;

use crate::{bpf::ways::explain_refused_event, sys::host_root};

/// File with the id of the tracepoint, below the mount point of tracefs.
const ID_FILE: &str = "events/raw_syscalls/sys_exit/id";
/// Where tracefs may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `enum perf_type_id` and flags of perf_event_open(2), include/uapi/linux/perf_event.h.
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const PERF_ATTR_SIZE_VER0: u32 = 64;
/// `_IO('$', 0)` and `_IOW('$', 8, __u32)`.
const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;

/// `struct perf_event_attr`, up to the end of its first version (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    address: u64,
}

/// Whether tracefs is mounted, here or on the node, and has the tracepoint.
pub(crate) fn is_available() -> bool {
    tracepoint_id().is_ok()
}

/// Id of the tracepoint, from the tracefs that is mounted here or on the node.
fn tracepoint_id() -> io::Result<u64> {
    let mut last = io::ErrorKind::NotFound.into();
    for tracefs in TRACEFS {
        let path = Path::new(tracefs).join(ID_FILE);
        match fs::read_to_string(&path).or_else(|_| host_root::read(&path)) {
            Ok(text) => return text.trim().parse().map_err(io::Error::other),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Attaches a program to the event, on all processors, until the returned descriptor is closed.
pub(crate) fn attach(program: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let id = tracepoint_id().context("tracefs is not mounted, here or on the node")?;
    let event = open(id).map_err(explain)?;
    control(&event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()).map_err(explain)?;
    control(&event, PERF_EVENT_IOC_ENABLE, 0).map_err(explain)?;
    Ok(event)
}

/// Opens the perf event. A program attached to a tracepoint runs on all processors, whichever one the event is for.
fn open(id: u64) -> io::Result<OwnedFd> {
    const ALL_PROCESSES: libc::pid_t = -1;
    const FIRST_PROCESSOR: libc::c_int = 0;
    const NO_GROUP: RawFd = -1;
    let attributes = PerfEventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: PERF_ATTR_SIZE_VER0,
        config: id,
        sample_period: 1,
        sample_type: 0,
        read_format: 0,
        flags: 0,
        wakeup_events: 1,
        breakpoint: 0,
        address: 0,
    };
    // SAFETY: the kernel reads `attributes.size` bytes at this address. They are initialised and live until the call
    // returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            ALL_PROCESSES,
            FIRST_PROCESSOR,
            NO_GROUP,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn control(event: &OwnedFd, request: libc::Ioctl, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the arguments of both requests are numbers, not addresses, so the kernel accesses no memory of this
    // process.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Adds the reason why a program could not be attached.
fn explain(error: io::Error) -> anyhow::Error {
    let refused = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
    let error = anyhow::Error::new(error).context("perf_event_open(2)");
    if !refused {
        return error;
    }
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let paranoid = paranoid.ok().and_then(|level| level.trim().parse().ok());
    error.context(explain_refused_event(paranoid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_event_attr_has_the_layout_of_its_first_version() {
        assert_eq!(u32::try_from(size_of::<PerfEventAttr>()), Ok(PERF_ATTR_SIZE_VER0));
        assert_eq!(std::mem::offset_of!(PerfEventAttr, wakeup_events), 48);
    }
}
