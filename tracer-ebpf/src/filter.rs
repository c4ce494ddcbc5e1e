//! Whether an event is selected. The verifier leaves out branches for filters that are not used.

use aya_ebpf::{Global, maps::HashMap};
use tracer_common::{
    filter::{ANY, ONLY},
    kinds::Header,
};

use crate::{
    current::Current,
    emit::{header, now},
    globals,
    identity::Identity,
    is_tracer,
    maps::{COMMS, PIDS, UIDS},
    state::ProgramState,
};

/// The header of an event of the current task, if it is selected; else it is counted as filtered. The container is checked
/// first: events of other containers cost no more than that check.
#[inline(always)]
pub fn admit(
    state: ProgramState,
    kind: u32,
    task: Current,
    identity: &Identity,
    failed: bool,
) -> Option<Header> {
    if identity.is_selected() && (failed || globals::FAILED_ONLY.load() == 0) && !is_tracer(task) {
        let header = header(kind, task, identity);
        if selects(&header) {
            return Some(Header { timestamp: now(), ..header });
        }
    }
    state.count(|stats| &mut stats.filtered);
    None
}

#[inline(always)]
fn selects(header: &Header) -> bool {
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
