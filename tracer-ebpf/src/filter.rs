//! What is asked of an event besides its container. What nobody asked for is a branch that the verifier leaves out.

use aya_ebpf::{Global, maps::HashMap};
use tracer_common::{
    event::Header,
    filter::{ANY, ONLY},
};

use crate::{
    globals,
    maps::{COMMS, PIDS, UIDS},
};

/// Whether an event with this header is asked for.
#[inline(always)]
pub fn selects(header: &Header) -> bool {
    selects_value(&globals::FILTER_PIDS, &PIDS, &header.pid)
        && selects_value(&globals::FILTER_UIDS, &UIDS, &header.uid)
        && selects_value(&globals::FILTER_COMMS, &COMMS, &header.comm)
}

#[inline(always)]
fn selects_value<T>(filter: &Global<u32>, listed: &HashMap<T, u8>, value: &T) -> bool {
    let filter = filter.load();
    // SAFETY: the map is written before the programs run.
    filter == ANY || (filter == ONLY) == unsafe { listed.get(value) }.is_some()
}
