//! Finds the container of a process by its parent, where no runtime was seen to start it: the runtime has an unknown name, or
//! is a part of the engine. The parent is the container's monitor, or the runtime that waits for it. Otherwise a search of what
//! is on disk may find the container ([`recovery`](crate::discovery::recovery)).

use std::sync::Arc;

use crate::{
    discovery::{environment::Environment, invocation::Invocation, resolver::Resolver, runtime_name, shims},
    sys::{files, proc_table, process_handle::RuntimeProcess},
};
use tracer_common::{
    container::ContainerKey,
    lifecycle::{Bound, TRUSTED},
};

/// Looks the container of a process up in the background. Opens the process's parent at once: both may exit soon.
pub(crate) fn find_container(bound: &Bound, resolver: &Resolver) {
    let (key, pid) = (bound.record.container, bound.record.pid);
    let parent = proc_table::stat(bound.ppid)
        .and_then(|stat| Some((open_trusted(bound.ppid, stat.start_ticks)?, stat.comm)));
    let (bound, resolver) = (*bound, resolver.clone());
    let readers = Arc::clone(&resolver.readers);
    readers.host(move || match parent.and_then(|(parent, comm)| by_parent(key, pid, parent, &comm)) {
        Some(invocation) => {
            resolver.resolve(invocation);
            resolver.registry.begin(key, pid, bound.container_pid, bound.record.timestamp);
        }
        None => resolver.registry.miss_unseen(key),
    });
}

/// A process, if it is the host's root.
pub(crate) fn open_trusted(pid: u32, start_ticks: u64) -> Option<RuntimeProcess> {
    let process = RuntimeProcess::open(pid, start_ticks).ok()?;
    process.trust().is_ok_and(|trust| trust == TRUSTED).then_some(process)
}

/// The container of process `pid`, by its monitor or by the command line of the runtime that runs it.
pub(crate) fn by_parent(
    key: ContainerKey,
    pid: u32,
    parent: RuntimeProcess,
    comm: &str,
) -> Option<Invocation> {
    if shims::is_monitor(comm) {
        let running = shims::container_of(&Environment::host(&[]).ok()?, parent, comm, pid)?;
        return Some(Invocation::of_running(key, &running, None));
    }
    let line = runtime_name::parse(&parent.cmdline().ok()?, false, comm).ok()?;
    // Any program may have such a command line: the bundle shows that it is a runtime.
    let bundle = line.command.creation()?.bundle.clone().unwrap_or_default();
    let is_runtime = parent.has(&parent.absolute(&bundle).join("config.json"));
    is_runtime.then(|| Invocation::new(key, comm.to_owned(), Some(parent), files::ROOT, None, line))?
}
