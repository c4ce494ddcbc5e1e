//! Containers that no runtime was seen to start: it has a name that nobody knows, or is a part of the engine. Who watches over
//! the container knows it; else a search of all that is on disk may find it ([`recovery`](crate::discovery::recovery)).

use std::sync::Arc;

use crate::{
    discovery::{
        claim,
        invocation::{Invocation, learn},
        place::Place,
        readers::Readers,
        shims,
    },
    registry::Registry,
    sys::{files, proc_table, process_handle::RuntimeProcess},
};
use tracer_common::{
    container::ContainerKey,
    lifecycle::{Bound, TRUSTED},
};

/// Has the container of a process found out without waiting for it. Takes hold of the process's parent at once: both may be
/// gone soon.
pub(crate) fn find(bound: &Bound, registry: &Arc<Registry>, readers: &Arc<Readers>) {
    let (key, pid) = (bound.record.container, bound.record.pid);
    let parent = proc_table::stat(bound.ppid)
        .and_then(|stat| Some((open_trusted(bound.ppid, stat.start_ticks)?, stat.comm)));
    let (bound, registry, of_guests) = (*bound, Arc::clone(registry), Arc::clone(readers));
    readers.host(move || match parent.and_then(|(parent, comm)| by_parent(key, pid, parent, &comm)) {
        Some(invocation) => {
            learn(invocation, &registry, &of_guests);
            registry.begin(key, pid, bound.container_pid, bound.record.timestamp);
        }
        None => registry.miss_unannounced(key),
    });
}

/// A process, if it is the host's root.
pub(crate) fn open_trusted(pid: u32, start_ticks: u64) -> Option<RuntimeProcess> {
    let process = RuntimeProcess::open(pid, start_ticks).ok()?;
    process.trust().is_ok_and(|trust| trust == TRUSTED).then_some(process)
}

/// The container of process `pid`, by what watches over it, or by the command line of the runtime that runs it.
pub(crate) fn by_parent(
    key: ContainerKey,
    pid: u32,
    parent: RuntimeProcess,
    comm: &str,
) -> Option<Invocation> {
    if shims::is_watcher(comm) {
        let running = shims::container_of(&Place::host(&[]).ok()?, parent, comm, pid)?;
        return Some(Invocation::of_running(key, &running, None));
    }
    let line = claim::parse(&parent.cmdline().ok()?, false, comm).ok()?;
    // Any program may have such words on its command line: the bundle shows that it is a runtime.
    let bundle = line.command.creation()?.bundle.clone().unwrap_or_default();
    let is_runtime = parent.has(&parent.absolute(&bundle).join("config.json"));
    is_runtime.then(|| Invocation::new(key, comm.to_owned(), Some(parent), files::ROOT, None, line))?
}
