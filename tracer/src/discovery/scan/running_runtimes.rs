//! Runtimes that run during a search: their processes, and the containers that they start.

use std::collections::{HashMap, HashSet};

use tracer_common::{
    container::{Adoptee, ContainerKey},
    lifecycle::{TRUST_ROOT, TRUST_USER_NS, TRUSTED},
};

use super::{Resolution, Search, adoptee, is_runtime, process_tree::ProcessTree};
use crate::{
    discovery::{
        invocation::Invocation, node_container::NodeContainer, oci::cmdline::CommandLine, parent_process,
        readers::UntrustedOwner, runtime_name,
    },
    model::{Container, Unknown},
    sys::{
        files,
        proc_table::{Process, Processes},
        process_handle::RuntimeProcess,
    },
};

/// Why a running runtime needs no separate key.
enum NoKey {
    /// Its container was found already, and has this key.
    Found(ContainerKey),
    /// It brings no process into any container.
    Nothing,
}

impl Search<'_> {
    /// The processes of all containers, and the running runtimes with theirs.
    pub(super) fn look(&mut self, processes: &Processes, followed: &HashSet<u32>) -> HashMap<u32, Adoptee> {
        let members = self.members(processes);
        let mut found: HashMap<u32, Adoptee> = HashMap::new();
        for (pid, key) in &members {
            if let Some(process) = processes.get(*pid) {
                found.insert(*pid, self.member(process, *key));
            }
        }
        let runtimes = &self.runtimes.names;
        // What a runtime forks without executing anything, as crun does, is not another runtime.
        let is_fork =
            |process: &Process| processes.get(process.ppid).is_some_and(|parent| parent.comm == process.comm);
        let is_runtime = |process: &&Process| is_runtime(runtimes, &process.comm) && !is_fork(process);
        for runtime in processes.iter().filter(is_runtime) {
            if followed.contains(&runtime.pid) {
                continue;
            }
            let outer = members.get(&runtime.pid).copied();
            let Some(key) = self.key_of_runtime(runtime, outer, None) else { continue };
            for process in
                processes.iter().filter(|process| processes.descends_from(process.pid, runtime.pid))
            {
                if members.get(&process.pid).copied() != outer {
                    continue;
                }
                let adoptee = if has_executed(process, runtime, processes) {
                    self.registry().begin(key, process.pid, 0, process.start_time());
                    adoptee(process, key, ContainerKey::HOST)
                } else {
                    adoptee(process, outer.unwrap_or(ContainerKey::HOST), key)
                };
                found.insert(process.pid, adoptee);
            }
        }
        found
    }

    /// The key of the container that a running runtime starts, on the host or in the container `around`: the `missing` key
    /// that it has, that of a container which was found already, or a new one.
    pub(crate) fn key_of_runtime(
        &mut self,
        runtime: &Process,
        around: Option<ContainerKey>,
        missing: Option<ContainerKey>,
    ) -> Option<ContainerKey> {
        if let Some(key) = self.running_runtimes.get(&runtime.pid) {
            return Some(*key);
        }
        let node = match around {
            // What runs within a container that may not name others belongs to that container.
            Some(around) => Some(self.node_container(around)?),
            None => None,
        };
        let request = self.request_of_runtime(runtime, node.as_ref())?;
        let key = match missing {
            Some(key) => key,
            None => self.take_slot(u32::try_from(runtime.mntns).unwrap_or(0), request.is_ok())?,
        };
        let found = match request {
            Err(why) => {
                self.resolve_untrusted(key, runtime, why);
                None
            }
            Ok((line, process)) => {
                let (comm, owner) = (runtime.comm.clone(), files::ROOT);
                match Invocation::new(key, comm, Some(process), owner, node, line) {
                    Some(invocation) => self.resolve_by_request(invocation),
                    None => Some(NoKey::Nothing),
                }
            }
        };
        match found {
            None => {
                if missing.is_none() {
                    self.taken.push(key);
                }
                self.running_runtimes.insert(runtime.pid, key);
                Some(key)
            }
            Some(_) if missing.is_some() => None,
            Some(other) => {
                self.resolver.registry.give_back(key);
                let NoKey::Found(key) = other else { return None };
                self.running_runtimes.insert(runtime.pid, key);
                Some(key)
            }
        }
    }

    fn resolve_untrusted(&self, key: ContainerKey, runtime: &Process, why: Unknown) {
        let container = Container { pod_known: true, ..Container::unknown(why) };
        let registry = self.registry();
        registry.announce(key, ContainerKey::HOST, None);
        registry.resolve(key, Container { runtime: runtime.comm.clone(), ..container });
    }

    /// Has the container of an invocation resolved, unless it was found already.
    fn resolve_by_request(&self, invocation: Invocation) -> Option<NoKey> {
        let found = invocation.name().and_then(|name| {
            let is_it = |tree: &&ProcessTree| {
                tree.name.as_ref().is_some_and(|(root, id)| *root == name.root && *id == name.id)
            };
            self.trees.iter().find(is_it).map(|tree| NoKey::Found(tree.key))
        });
        if found.is_none() {
            self.resolver.resolve(invocation);
        }
        found
    }

    /// Has a key resolved by its first process's parent or that one's parent, if that is the container's monitor or the runtime
    /// which runs it, whatever its name.
    pub(crate) fn resolve_by_parent(
        &self,
        key: ContainerKey,
        first: &Process,
        processes: &Processes,
    ) -> Resolution {
        let resolved = processes.lineage(first.pid).skip(1).take(2).any(|parent| {
            let invocation = parent_process::open_trusted(parent.pid, parent.start_ticks)
                .and_then(|process| parent_process::by_parent(key, first.pid, process, &parent.comm));
            let Some(invocation) = invocation else { return false };
            self.resolver.resolve(invocation);
            self.registry().begin(key, first.pid, 1, first.start_time());
            true
        });
        if resolved { Resolution::Found } else { Resolution::NotFound }
    }

    /// The request of a running runtime. An untrusted one is not looked into. None if it has exited, or its command line is
    /// not a runtime's.
    fn request_of_runtime(
        &self,
        runtime: &Process,
        node: Option<&NodeContainer>,
    ) -> Option<Result<(CommandLine, RuntimeProcess), Unknown>> {
        let (pid, start_ticks, comm) = (runtime.pid, runtime.start_ticks, runtime.comm.clone());
        let needed = if node.is_none() { TRUSTED } else { TRUST_ROOT | TRUST_USER_NS };
        let look = move || {
            let process = RuntimeProcess::open(pid, start_ticks).ok()?;
            let trust = process.trust().ok()?;
            // In a user namespace any user may have processes.
            if trust & TRUST_USER_NS == 0 {
                return None;
            }
            if trust & needed != needed {
                return Some(Err(Unknown::Untrusted));
            }
            let line = runtime_name::parse(&process.cmdline().ok()?, false, &comm).ok()?;
            Some(Ok((line, process)))
        };
        match node {
            None => look(),
            Some(node) => {
                let owner = UntrustedOwner::Container(node.key);
                self.block_on_untrusted(owner, look).flatten()
            }
        }
    }
}

/// Whether a descendant of a runtime runs the container's program already, or descends from what does: a process in
/// a mount namespace that is neither the runtime's nor its parent's, which is not called like the runtime any more.
/// What executes it only now the programs find out when they adopt it.
fn has_executed(process: &Process, runtime: &Process, processes: &Processes) -> bool {
    let is_entrypoint = |one: &Process| {
        let parent = processes.get(one.ppid);
        one.mntns != runtime.mntns
            && parent.is_some_and(|parent| parent.mntns != one.mntns)
            && !one.comm.starts_with(&runtime.comm)
    };
    processes.lineage(process.pid).take_while(|one| one.pid != runtime.pid).any(is_entrypoint)
}
