//! Freezes maps, so that user space, this process included, can no longer write them.
//!
//! A process with `CAP_SYS_ADMIN` in the initial user namespace may open any map by its id. If the map is frozen, it
//! can only read it; the programs write it as before (`BPF_MAP_FREEZE`, Linux 5.2).

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
};

use anyhow::anyhow;
use aya::{Ebpf, maps::Map};
use tracing::warn;

/// Maps that user space does not write once the programs are attached. Maps that it does write are not included, nor
/// are ring buffers, because their readers write their position.
const FROZEN: [&str; 12] = [
    "RUNTIMES",
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

/// Freezes the maps that user space only reads from now on. If the kernel refuses it because another process is
/// writing a map, tracing works all the same.
pub(crate) fn freeze_maps(ebpf: &Ebpf) -> anyhow::Result<()> {
    for name in FROZEN {
        let map = ebpf.map(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
        let (Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data)) = map
        else {
            return Err(anyhow!("the BPF map {name} has a type that cannot be frozen here"));
        };
        if let Err(error) = freeze(data.fd().as_fd()) {
            warn!("cannot freeze the BPF map {name}, other privileged processes can write it: {error}");
        }
    }
    Ok(())
}

fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    /// A command of bpf(2) (`enum bpf_cmd`, include/uapi/linux/bpf.h).
    const BPF_MAP_FREEZE: c_int = 22;
    /// The part of `union bpf_attr` that the command uses.
    #[repr(C)]
    struct FreezeAttr {
        map: RawFd,
    }
    let attributes = FreezeAttr { map: map.as_raw_fd() };
    // SAFETY: the kernel reads `size_of::<FreezeAttr>()` bytes at this address, which are initialised and live until
    // the call returns. It writes none and keeps no pointer to them.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, &raw const attributes, size_of::<FreezeAttr>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
