//! Taking the right to change maps away from processes, this one included.
//!
//! Whoever has `CAP_SYS_ADMIN` in the initial user namespace may open any map by its id. A frozen one can only be read
//! then; the programs change it as before (`BPF_MAP_FREEZE`, Linux 5.2).

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
};

use anyhow::anyhow;
use aya::{Ebpf, maps::Map};
use tracing::warn;

/// What user space does not change once the programs are attached. Not among them are what it does change, and ring
/// buffers, whose readers have to write their position.
const FROZEN: [&str; 13] = [
    "RUNTIMES",
    "SYSTEM_CALLS",
    "PIDS",
    "UIDS",
    "COMMS",
    "PROCESSES",
    "BINDING",
    "TRACER_LEVEL",
    "STATE",
    "SCRATCH",
    "SHORT_SCRATCH",
    "REQUESTS",
    "REPORTS",
];

/// Freezes what is only read from here on. Should the kernel refuse that, since somebody is writing just then, tracing
/// works all the same.
pub(crate) fn freeze_maps(ebpf: &Ebpf) -> anyhow::Result<()> {
    for name in FROZEN {
        let map = ebpf.map(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
        let (Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data)) = map
        else {
            return Err(anyhow!("the BPF map {name} is of a kind that is not frozen"));
        };
        if let Err(error) = freeze(data.fd().as_fd()) {
            warn!("the BPF map {name} can be changed by other processes: it cannot be frozen: {error}");
        }
    }
    Ok(())
}

fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    /// A command of bpf(2) (`enum bpf_cmd`, include/uapi/linux/bpf.h).
    const BPF_MAP_FREEZE: c_int = 22;
    /// What it takes of `union bpf_attr`.
    #[repr(C)]
    struct Attributes {
        map: RawFd,
    }
    let attributes = Attributes { map: map.as_raw_fd() };
    // SAFETY: the kernel reads as many bytes of the attributes as it is told that there are, writes none, and keeps nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, &raw const attributes, size_of::<Attributes>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
