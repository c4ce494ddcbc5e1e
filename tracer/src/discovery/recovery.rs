//! When the programs could not tell of a container, for want of room in the ring: what is recovered from what they
//! know still, from the runtimes' state on disk and from /proc.
//!
//! The processes of a container have its key, whether its start was told or not. So a first process that a runtime's
//! state tells of says which container a key is. Who joined a container is found by where it is, and of what nothing
//! tells there is the name of its cgroup. A key without processes has ended.

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
        readers::Readers,
        scan::{Missing, Search},
    },
    model::{Container, Nested, Unknown},
    registry::Registry,
    sys::{
        cgroup,
        clock::WallClock,
        proc_table::{Process, Processes},
        thread::lock,
    },
};

/// Makes known what was missed. With `adopt`, processes may be followed by nobody: then it is looked for those as well,
/// as at the start. Returns whether that is to be repeated, since there was no room for some.
pub(crate) fn recover(
    registry: &Arc<Registry>,
    lifecycle: &Mutex<Lifecycle>,
    readers: &Arc<Readers>,
    runtimes: &Runtimes,
    adopt: bool,
) -> anyhow::Result<bool> {
    let mut again = false;
    let unannounced = registry.unannounced();
    let missing = missing(registry, lifecycle);
    if adopt || !missing.is_empty() {
        debug!("{} containers were missed", missing.len());
        let mut search = Search::new(registry, readers, runtimes).again(missing, adopt);
        // Who watches over containers does not tell a container's first process from one that joined it.
        search.join_known()?;
        again = !search.look_around()?;
        search.name_rest()?;
    }
    // What has ended meanwhile, and nothing at hand told of when it began.
    for key in unannounced.into_iter().filter(|key| registry.is_missing(*key)) {
        attribute_to_host(registry, key);
    }
    begin(registry, lifecycle);
    end(registry, lifecycle);
    Ok(again)
}

/// Lets the registry know all that was told by now: by programs that still run, too.
fn catch_up(lifecycle: &Mutex<Lifecycle>) {
    wait_for_running_programs();
    lock(lifecycle).drain();
}

/// The keys that nobody knows, with their processes.
fn missing(registry: &Registry, lifecycle: &Mutex<Lifecycle>) -> Missing {
    let mut missing = Missing::new();
    for process in registry.processes() {
        for key in [process.container, process.preparing] {
            if registry.is_missing(key) {
                missing.entry(key).or_default().push(process);
            }
        }
    }
    // A process has its key before that is told.
    catch_up(lifecycle);
    missing.retain(|key, _| registry.is_missing(*key));
    missing
}

/// Makes the first processes known of containers that have begun without telling.
fn begin(registry: &Registry, lifecycle: &Mutex<Lifecycle>) {
    let not_begun = registry.not_begun();
    let mut members: HashMap<ContainerKey, Vec<FollowedProcess>> = HashMap::new();
    for process in registry.processes() {
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
    // A slot is being taken, or its end was told just now.
    catch_up(lifecycle);
    let still = registry.vacant();
    let now = WallClock::boot_now();
    for key in vacant.into_iter().filter(|key| still.contains(key)) {
        lock(lifecycle).ended(key, now);
    }
}

/// What looked like a container is none that anything on disk tells of.
fn attribute_to_host(registry: &Registry, key: ContainerKey) {
    debug!("what looks like container {} is attributed to the host", key.slot());
    registry.announce(key, ContainerKey::HOST, None);
    registry.resolve_as_host(key);
}

/// Whether a container's id is one that an engine has made: 64 hexadecimal digits.
fn is_engines_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The processes of a key that are the container's, the oldest first.
fn members<'p>(key: ContainerKey, of_key: &[FollowedProcess], processes: &'p Processes) -> Vec<&'p Process> {
    let of_container = of_key.iter().filter(|process| process.container == key);
    let mut members: Vec<&Process> = of_container.filter_map(|process| processes.get(process.pid)).collect();
    members.sort_by_key(|process| process.start_ticks);
    members
}

impl Search<'_> {
    /// Names the keys whose processes have joined a container that was known before.
    fn join_known(&mut self) -> anyhow::Result<()> {
        let mut missing = self.take_missing();
        if !missing.is_empty() {
            let processes = Processes::read().context("reading /proc")?;
            missing.retain(|key, of_key| !self.join(*key, &members(*key, of_key, &processes), &processes));
        }
        self.miss(missing);
        Ok(())
    }

    /// Names a key whose processes are in a container's mount namespace. Returns whether that is so.
    fn join(&self, key: ContainerKey, members: &[&Process], processes: &Processes) -> bool {
        let is_within = |init: &Process| members.iter().any(|one| one.mntns == init.mntns);
        let container = self.inits(processes).find(|(of, init)| *of != key && is_within(init));
        let attribution = container.and_then(|(container, _)| self.registry().resolved(container));
        if let Some(attribution) = &attribution {
            debug!("container {} is known again: it has joined {:?}", key.slot(), attribution.container.id);
            self.registry().announce(key, ContainerKey::HOST, None);
            self.registry().join(key, attribution);
        }
        attribution.is_some()
    }

    /// Names the keys that no state on disk told of.
    fn name_rest(&mut self) -> anyhow::Result<()> {
        let missing = self.take_missing();
        if missing.is_empty() {
            return Ok(());
        }
        let processes = Processes::read().context("reading /proc")?;
        let followed: HashMap<u32, FollowedProcess> =
            self.registry().processes().into_iter().map(|process| (process.pid, process)).collect();
        for (key, of_key) in missing {
            if self.learn_at_work(key, &of_key, &processes) {
                debug!("container {} is known again: its runtime is at work", key.slot());
                continue;
            }
            let members = members(key, &of_key, &processes);
            if members.first().is_some_and(|first| self.learn_from_parent(key, first, &processes)) {
                debug!("container {} is known by the command line of its runtime", key.slot());
                continue;
            }
            // Before it is started there is nothing to name.
            if !members.is_empty() && !self.join(key, &members, &processes) {
                self.name(key, &members, &processes, &followed);
            }
        }
        Ok(())
    }

    /// Has a key that runtimes at work prepare known by what they were asked for. Returns whether that is so.
    fn learn_at_work(
        &mut self,
        key: ContainerKey,
        of_key: &[FollowedProcess],
        processes: &Processes,
    ) -> bool {
        let preparing = of_key.iter().filter(|process| process.preparing == key);
        let mut runtimes: Vec<(&Process, ContainerKey)> = preparing
            .filter_map(|process| Some((processes.get(process.pid)?, process.container)))
            .filter(|(process, _)| self.is_runtime(process))
            .collect();
        // The one that the others descend from.
        runtimes.sort_by_key(|(process, _)| process.start_ticks);
        runtimes.into_iter().any(|(runtime, outer)| {
            let around = (outer != ContainerKey::HOST).then_some(outer);
            self.key_at_work(runtime, around, Some(key)).is_some()
        })
    }

    /// Names a key by what its processes descend from, or the cgroup that they are in.
    fn name(
        &self,
        key: ContainerKey,
        members: &[&Process],
        processes: &Processes,
        followed: &HashMap<u32, FollowedProcess>,
    ) {
        let registry = self.registry();
        let container_of = |process: &Process| {
            let container = followed.get(&process.pid)?.container;
            (container != ContainerKey::HOST && container != key).then_some(container)
        };
        let around =
            || members.iter().find_map(|one| processes.lineage(one.pid).skip(1).find_map(container_of));
        let beside = || {
            let cgroups = |one: &&Process| self.in_cgroup_of(one, processes);
            members.iter().find_map(cgroups).filter(|tree| *tree != key)
        };
        let resolved = |tree: ContainerKey| registry.resolved(tree);
        match around().and_then(resolved).or_else(|| beside().and_then(resolved)) {
            // What runs within a container that names no others is that container's.
            Some(owner) if !owner.container.may_name_others() => {
                debug!("container {} is known again: it is in {:?}", key.slot(), owner.container.id);
                registry.announce(key, owner.key, None);
                registry.join(key, &owner);
            }
            Some(owner) => {
                let Container { id, runtime, .. } = &*owner.container;
                let outer = Some(Nested { id: id.clone(), runtime: runtime.clone() });
                registry.announce(key, owner.key, None);
                registry.resolve(key, Container { outer, ..Container::unknown(Unknown::Missed) });
            }
            None => {
                let id = members.iter().find_map(|one| cgroup::id_of_root_process(one.pid));
                let id = id.unwrap_or_default();
                if registry.is_unannounced(key) && !is_engines_id(&id) {
                    attribute_to_host(registry, key);
                    return;
                }
                debug!("container {} is known again by its cgroup: {id:?}", key.slot());
                registry.announce(key, ContainerKey::HOST, None);
                registry.resolve(key, Container { id, ..Container::unknown(Unknown::Missed) });
            }
        }
    }
}
