//! Recovers containers whose lifecycle records were lost, since the ring was full: from what the programs still know, from
//! the runtimes' state on disk and from /proc.
//!
//! The processes of a container have its key, whether the record was lost or not. So a first process in a runtime's state says
//! which container a key is. A process that joined a container is found by its mount namespace, and the rest by the name of its
//! cgroup. A key without processes has ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use tracer_common::container::{ContainerKey, FollowedProcess};
use tracing::debug;

use crate::{
    bpf::wait_for_running_programs,
    discovery::{
        Lifecycle, Runtimes,
        resolver::Resolver,
        scan::{Adoption, Coverage, Missing, Resolution, Search},
    },
    model::{Container, Nested, Unknown},
    registry::{Attribution, Registry},
    sys::{
        cgroup,
        clock::WallClock,
        proc_table::{Process, Processes},
        thread::lock,
    },
};

/// Recovers what was lost. With [`Adoption::Enter`], processes may be unfollowed: then it searches for those as well, as at
/// the start.
pub(crate) fn recover(
    resolver: &Resolver,
    lifecycle: &Mutex<Lifecycle>,
    runtimes: &Runtimes,
    adoption: Adoption,
) -> anyhow::Result<Coverage> {
    let registry = &resolver.registry;
    let mut coverage = Coverage::Complete;
    let with_unseen_runtime = registry.with_unseen_runtime();
    let missing = missing(registry, lifecycle);
    if adoption == Adoption::Enter || !missing.is_empty() {
        debug!("recovering {} containers", missing.len());
        let mut search = Search::new(resolver, runtimes).again(missing, adoption);
        // First, since a monitor does not distinguish a container's first process from one that joined it.
        search.join_started()?;
        coverage = search.look_around()?;
        search.resolve_rest()?;
    }
    // These have ended in the meantime, and nothing available led to a container when they began.
    for key in with_unseen_runtime.into_iter().filter(|key| registry.is_missing(*key)) {
        attribute_to_host(registry, key);
    }
    begin(registry, lifecycle);
    end(registry, lifecycle);
    Ok(coverage)
}

/// Handles all records that were submitted by now, also by programs that still run.
fn catch_up(lifecycle: &Mutex<Lifecycle>) {
    wait_for_running_programs();
    lock(lifecycle).drain();
}

/// The keys that were not announced, with their processes.
fn missing(registry: &Registry, lifecycle: &Mutex<Lifecycle>) -> Missing {
    let mut missing = Missing::new();
    for process in registry.slots.processes() {
        for key in [process.container, process.preparing] {
            if registry.is_missing(key) {
                missing.entry(key).or_default().push(process);
            }
        }
    }
    // A process has its key before the record is submitted.
    catch_up(lifecycle);
    missing.retain(|key, _| registry.is_missing(*key));
    missing
}

/// Finds the first processes of containers whose records of that were lost.
fn begin(registry: &Registry, lifecycle: &Mutex<Lifecycle>) {
    let not_begun = registry.not_begun();
    let mut members: HashMap<ContainerKey, Vec<FollowedProcess>> = HashMap::new();
    for process in registry.slots.processes() {
        if not_begun.contains(&process.container) {
            members.entry(process.container).or_default().push(process);
        }
    }
    catch_up(lifecycle);
    let not_begun = registry.not_begun();
    for (key, members) in members.into_iter().filter(|(key, _)| not_begun.contains(key)) {
        let stat = |process: &FollowedProcess| Some((*process, Process::read(process.pid)?));
        let first = members.iter().filter_map(stat).min_by_key(|(process, at)| {
            // The first process of a pid namespace is the container's own.
            (process.container_pid != 1, at.start_ticks)
        });
        if let Some((process, at)) = first {
            lock(lifecycle).begun(key, process.pid, process.container_pid, at.start_time());
        }
    }
}

/// Ends the keys that have no processes any more.
fn end(registry: &Registry, lifecycle: &Mutex<Lifecycle>) {
    let vacant = registry.vacant();
    if vacant.is_empty() {
        return;
    }
    // A slot may be being taken, or its end just submitted.
    catch_up(lifecycle);
    let still = registry.vacant();
    let now = WallClock::boot_now();
    for key in vacant.into_iter().filter(|key| still.contains(key)) {
        lock(lifecycle).ended(key, now);
    }
}

/// Nothing on disk leads from a key to a container.
fn attribute_to_host(registry: &Registry, key: ContainerKey) {
    debug!("no container found for key {}; its events are attributed to the host", key.slot());
    registry.announce(key, ContainerKey::HOST, None);
    registry.resolve_as_host(key);
}

/// Whether a container's id is an engine's: 64 hexadecimal digits.
fn is_engines_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The container's processes of those with a key, the oldest first.
fn members<'p>(key: ContainerKey, of_key: &[FollowedProcess], processes: &'p Processes) -> Vec<&'p Process> {
    let of_container = of_key.iter().filter(|process| process.container == key);
    let mut members: Vec<&Process> = of_container.filter_map(|process| processes.get(process.pid)).collect();
    members.sort_by_key(|process| process.start_ticks);
    members
}

impl Search<'_> {
    /// Resolves the keys whose processes have joined a container that started before.
    fn join_started(&mut self) -> anyhow::Result<()> {
        let mut missing = self.take_missing();
        if !missing.is_empty() {
            let processes = Processes::read().context("reading /proc")?;
            missing.retain(|key, of_key| {
                let members = members(*key, of_key, &processes);
                self.join(*key, &members, &processes) == Resolution::NotFound
            });
        }
        self.set_missing(missing);
        Ok(())
    }

    /// Resolves a key whose processes are in a container's mount namespace.
    fn join(&self, key: ContainerKey, members: &[&Process], processes: &Processes) -> Resolution {
        let is_within = |init: &Process| members.iter().any(|one| one.mntns == init.mntns);
        let container = self.inits(processes).find(|(of, init)| *of != key && is_within(init));
        let attribution = container.and_then(|(container, _)| self.registry().resolved(container));
        let Some(attribution) = attribution else { return Resolution::NotFound };
        debug!("container {} is known again: it has joined {:?}", key.slot(), attribution.container.id);
        self.registry().announce(key, ContainerKey::HOST, None);
        self.registry().join(key, &attribution);
        Resolution::Found
    }

    /// Resolves the keys that no state on disk led to.
    fn resolve_rest(&mut self) -> anyhow::Result<()> {
        let missing = self.take_missing();
        if missing.is_empty() {
            return Ok(());
        }
        let processes = Processes::read().context("reading /proc")?;
        let followed: HashMap<u32, FollowedProcess> =
            self.registry().slots.processes().into_iter().map(|process| (process.pid, process)).collect();
        for (key, of_key) in missing {
            if self.resolve_by_runtime(key, &of_key, &processes) == Resolution::Found {
                debug!("container {} is known again: its runtime is running", key.slot());
                continue;
            }
            let members = members(key, &of_key, &processes);
            // Before it has started there is nothing to resolve.
            let Some(first) = members.first() else { continue };
            if self.resolve_by_parent(key, first, &processes) == Resolution::Found {
                debug!("container {} is known by the command line of its runtime", key.slot());
            } else if self.join(key, &members, &processes) == Resolution::NotFound {
                self.resolve_by_surroundings(key, &members, &processes, &followed);
            }
        }
        Ok(())
    }

    /// Resolves a key by the request of a running runtime that prepares it.
    fn resolve_by_runtime(
        &mut self,
        key: ContainerKey,
        of_key: &[FollowedProcess],
        processes: &Processes,
    ) -> Resolution {
        let preparing = of_key.iter().filter(|process| process.preparing == key);
        let mut runtimes: Vec<(&Process, ContainerKey)> = preparing
            .filter_map(|process| Some((processes.get(process.pid)?, process.container)))
            .filter(|(process, _)| self.is_runtime(process))
            .collect();
        // The one first that the others descend from.
        runtimes.sort_by_key(|(process, _)| process.start_ticks);
        let found = runtimes.into_iter().any(|(runtime, outer)| {
            let around = (outer != ContainerKey::HOST).then_some(outer);
            self.key_of_runtime(runtime, around, Some(key)).is_some()
        });
        if found { Resolution::Found } else { Resolution::NotFound }
    }

    /// Resolves a key by the container that its processes descend from, by one whose cgroup they are in, or by the name of
    /// their cgroup.
    fn resolve_by_surroundings(
        &self,
        key: ContainerKey,
        members: &[&Process],
        processes: &Processes,
        followed: &HashMap<u32, FollowedProcess>,
    ) {
        let container_of = |process: &Process| {
            let container = followed.get(&process.pid)?.container;
            (container != ContainerKey::HOST && container != key).then_some(container)
        };
        let around =
            || members.iter().find_map(|one| processes.lineage(one.pid).skip(1).find_map(container_of));
        let beside = || {
            let cgroups = |one: &&Process| self.in_cgroup_of(one, processes);
            members.iter().find_map(cgroups).filter(|container| *container != key)
        };
        let resolved = |container: ContainerKey| self.registry().resolved(container);
        match around().and_then(resolved).or_else(|| beside().and_then(resolved)) {
            Some(owner) => self.resolve_within(key, &owner),
            None => self.resolve_by_cgroup(key, members),
        }
    }

    /// Resolves a key whose processes are within another container.
    fn resolve_within(&self, key: ContainerKey, owner: &Arc<Attribution>) {
        let registry = self.registry();
        let Container { id, runtime, .. } = &*owner.container;
        registry.announce(key, owner.key, None);
        if owner.container.may_name_others() {
            let outer = Some(Nested { id: id.clone(), runtime: runtime.clone() });
            registry.resolve(key, Container { outer, ..Container::unknown(Unknown::Missed) });
        } else {
            // What runs within a container that may not name others belongs to that container.
            debug!("container {} is known again: it is in {id:?}", key.slot());
            registry.join(key, owner);
        }
    }

    /// Resolves a key by the name of its processes' cgroup. If its runtime was not seen, only an engine's id shows that it
    /// is a container.
    fn resolve_by_cgroup(&self, key: ContainerKey, members: &[&Process]) {
        let registry = self.registry();
        let id = members.iter().find_map(|one| cgroup::id_of_root_process(one.pid)).unwrap_or_default();
        if registry.is_runtime_unseen(key) && !is_engines_id(&id) {
            attribute_to_host(registry, key);
            return;
        }
        debug!("container {} is known again by its cgroup: {id:?}", key.slot());
        registry.announce(key, ContainerKey::HOST, None);
        registry.resolve(key, Container { id, ..Container::unknown(Unknown::Missed) });
    }
}
