//! The container that a process of `/proc` belongs to, by cgroups and pid namespaces that are one container's alone.

use std::collections::HashMap;

use tracer_common::container::ContainerKey;

use crate::sys::{
    host_root,
    proc_table::{Process, Processes},
    process_handle,
};

/// A container with its first process.
#[derive(Clone, Debug)]
pub(crate) struct ContainerInit<'p> {
    /// The container.
    pub(crate) key: ContainerKey,
    /// The container that it is in.
    pub(crate) outer: Option<ContainerKey>,
    /// Its first process.
    pub(crate) init: &'p Process,
    /// Those of its cgroups that may be the container's alone.
    pub(crate) cgroups: Vec<&'p str>,
}

/// Cgroups and pid namespaces that are one container's alone.
#[derive(Debug, Default)]
pub(crate) struct Membership<'p> {
    inits: HashMap<u32, ContainerKey>,
    cgroups: HashMap<&'p str, ContainerInit<'p>>,
    pid_namespaces: HashMap<u64, ContainerInit<'p>>,
    /// The host's mount namespace.
    host_mntns: Option<u64>,
}

impl<'p> Membership<'p> {
    /// Of these containers. A cgroup or namespace is not a container's alone if the first process of another container is in
    /// it, or the parent of its own first process. Containers within the container do not count as others.
    pub(crate) fn new(containers: &[ContainerInit<'p>], processes: &'p Processes) -> Self {
        Self::on_host(containers, processes, host_root::mount_namespace())
    }

    fn on_host(containers: &[ContainerInit<'p>], processes: &'p Processes, host_mntns: Option<u64>) -> Self {
        let (mut in_cgroup, mut in_pid_namespace) = (HashMap::new(), HashMap::new());
        for container in containers {
            for cgroup in container.init.all_cgroups() {
                in_cgroup.entry(cgroup).or_insert_with(Vec::new).push(container);
            }
            in_pid_namespace.entry(container.init.pidns).or_insert_with(Vec::new).push(container);
        }
        // A pid namespace that is shared with the host or with `tracer` is no container's.
        let shared =
            [process_handle::INITIAL_PID_NS, processes.get(std::process::id()).map_or(0, |me| me.pidns)];
        let is_alone = |container: &ContainerInit<'_>, those: &[&ContainerInit<'_>]| {
            those.iter().all(|other| other.key == container.key || other.outer == Some(container.key))
        };
        let mut membership = Self { host_mntns, ..Self::default() };
        for container in containers {
            let (key, init) = (container.key, container.init);
            let parent = processes.get(init.ppid);
            let is_parents =
                |cgroup: &str| parent.is_some_and(|parent| parent.all_cgroups().any(|other| other == cgroup));
            membership.inits.insert(init.pid, key);
            for cgroup in container.cgroups.iter().copied() {
                if in_cgroup.get(cgroup).is_some_and(|those| is_alone(container, those))
                    && !is_parents(cgroup)
                {
                    membership.cgroups.insert(cgroup, container.clone());
                }
            }
            if !shared.contains(&init.pidns)
                && in_pid_namespace.get(&init.pidns).is_some_and(|those| is_alone(container, those))
                && parent.is_none_or(|parent| parent.pidns != init.pidns)
            {
                membership.pid_namespaces.insert(init.pidns, container.clone());
            }
        }
        membership
    }

    /// The container that a process itself is in, not by its ancestors.
    pub(crate) fn of(&self, process: &Process) -> Option<ContainerKey> {
        if let Some(key) = self.inits.get(&process.pid) {
            return Some(*key);
        }
        let by_pid_namespace = self.pid_namespaces.get(&process.pidns);
        // Host programs may be in a container's cgroup: `runc exec` is cloned into it, and engines put their own there.
        let is_hosts = by_pid_namespace.is_none() && Some(process.mntns) == self.host_mntns;
        let by_cgroup =
            self.in_cgroup(process).filter(|container| !is_hosts || container.init.mntns == process.mntns);
        // A nested container may share one of them with its outer one.
        let mut found = [by_cgroup, by_pid_namespace].into_iter().flatten();
        let first = found.next()?;
        Some(found.find(|other| other.outer.is_some()).filter(|_| first.outer.is_none()).unwrap_or(first).key)
    }

    /// The container alone in a cgroup of the process.
    pub(crate) fn in_cgroup(&self, process: &Process) -> Option<&ContainerInit<'p>> {
        process.all_cgroups().find_map(|cgroup| self.cgroups.get(cgroup))
    }

    /// Whether a cgroup is this container's alone.
    pub(crate) fn is_own_cgroup(&self, key: ContainerKey, cgroup: &str) -> bool {
        self.cgroups.get(cgroup).is_some_and(|container| container.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, ppid: u32, mntns: u64, pidns: u64, cgroup: &str) -> Process {
        let cgroups = vec![format!("0::{cgroup}")];
        Process { pid, ppid, start_ticks: 0, comm: String::new(), mntns, pidns, cgroups }
    }

    const ONE: ContainerKey = ContainerKey::new(1, 1);
    const TWO: ContainerKey = ContainerKey::new(2, 1);
    const HOST: u64 = process_handle::INITIAL_PID_NS;

    fn container(key: ContainerKey, outer: Option<ContainerKey>, init: &Process) -> ContainerInit<'_> {
        ContainerInit { key, outer, init, cgroups: init.cgroups.iter().map(String::as_str).collect() }
    }

    fn processes(of: &[&Process]) -> Processes {
        of.iter().map(|process| (*process).clone()).collect()
    }

    #[test]
    fn process_belongs_to_container_with_its_cgroup_or_pid_namespace() {
        let (host, init) = (process(1, 0, 1, HOST, "/"), process(10, 1, 2, 20, "/c1"));
        let all = processes(&[&host, &init]);
        let membership = Membership::on_host(&[container(ONE, None, &init)], &all, Some(1));
        assert_eq!(membership.of(&process(11, 10, 2, 20, "/elsewhere")), Some(ONE));
        assert_eq!(membership.of(&process(11, 10, 3, 30, "/c1/below")), Some(ONE));
        assert_eq!(membership.of(&process(11, 10, 3, 30, "/c10")), None);
        assert_eq!(membership.of(&host), None);
    }

    #[test]
    fn host_program_in_containers_cgroup_belongs_to_host() {
        let (host, init) = (process(1, 0, 1, HOST, "/"), process(10, 1, 2, 20, "/c1"));
        let all = processes(&[&host, &init]);
        let membership = Membership::on_host(&[container(ONE, None, &init)], &all, Some(1));
        assert_eq!(membership.of(&process(11, 1, 1, HOST, "/c1")), None);
    }

    #[test]
    fn shared_cgroup_belongs_to_outer_container_only_if_other_is_nested() {
        let host = process(1, 0, 1, HOST, "/");
        let (one, two) = (process(10, 1, 2, 20, "/pod"), process(11, 1, 3, 20, "/pod"));
        let all = processes(&[&host, &one, &two]);
        let beside =
            Membership::on_host(&[container(ONE, None, &one), container(TWO, None, &two)], &all, Some(1));
        assert_eq!(beside.of(&process(12, 1, 4, 20, "/pod")), None);
        assert_eq!(beside.of(&two), Some(TWO));
        let inside = process(11, 10, 3, 20, "/pod/inner");
        let within = Membership::on_host(
            &[container(ONE, None, &one), container(TWO, Some(ONE), &inside)],
            &all,
            Some(1),
        );
        assert_eq!(within.of(&process(12, 10, 4, 20, "/pod")), Some(ONE));
        assert_eq!(within.of(&process(12, 11, 4, 20, "/pod/inner")), Some(TWO));
    }

    #[test]
    fn cgroup_of_runtimes_parent_is_not_containers_own() {
        let (shim, init) = (process(9, 1, 1, HOST, "/system"), process(10, 9, 2, 20, "/system"));
        let all = processes(&[&shim, &init]);
        let membership = Membership::on_host(&[container(ONE, None, &init)], &all, Some(1));
        assert!(!membership.is_own_cgroup(ONE, "0::/system"));
    }
}
