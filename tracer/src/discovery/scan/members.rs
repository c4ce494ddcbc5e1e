//! The processes of the containers that a search found, and the evidence for those that it did not.

use std::collections::HashMap;

use tracer_common::container::{Adoptee, ContainerKey};

use super::{Search, adoptee, process_tree::ProcessTree};
use crate::{
    discovery::{
        evidence,
        evidence::{CgroupTree, NamespaceCounts},
        membership::{ContainerInit, Membership},
    },
    sys::proc_table::{Process, Processes},
};

impl Search<'_> {
    /// The first processes of the containers.
    pub(crate) fn inits<'p>(
        &self,
        processes: &'p Processes,
    ) -> impl Iterator<Item = (ContainerKey, &'p Process)> {
        self.trees.iter().filter_map(|tree| Some((tree.key, processes.get(tree.init)?)))
    }

    /// The container alone in a cgroup of the process.
    pub(crate) fn in_cgroup_of(&self, process: &Process, processes: &Processes) -> Option<ContainerKey> {
        let containers = self.containers(processes);
        Some(Membership::new(&containers, processes).in_cgroup(process)?.key)
    }

    /// The containers with their first processes.
    fn containers<'p>(&self, processes: &'p Processes) -> Vec<ContainerInit<'p>> {
        let container = |tree: &ProcessTree| {
            let init = processes.get(tree.init)?;
            Some(ContainerInit { key: tree.key, outer: tree.outer, init, cgroups: tree.cgroups(init) })
        };
        self.trees.iter().filter_map(container).collect()
    }

    /// Enters the evidence of containers, of nested ones first: these are in their outer ones' namespaces, too.
    pub(super) fn enter_evidence(&mut self, processes: &Processes) {
        if self.trees.iter().all(|tree| tree.has_evidence) {
            return;
        }
        let containers = self.containers(processes);
        let membership = Membership::new(&containers, processes);
        let inits = containers.iter().map(|container| container.init);
        // What the host or the engines are in is not a container's alone.
        let parents = inits.clone().filter_map(|init| processes.get(init.ppid));
        let hosts = [1, 2, std::process::id()].into_iter().filter_map(|pid| processes.get(pid));
        let distinct: HashMap<u32, &Process> =
            inits.chain(parents).chain(hosts).map(|process| (process.pid, process)).collect();
        let counts = NamespaceCounts::among(distinct.into_values());
        let cgroups = CgroupTree::open();
        let mut new: Vec<&mut ProcessTree> =
            self.trees.iter_mut().filter(|tree| !tree.has_evidence).collect();
        new.sort_by_key(|tree| tree.outer.is_none());
        for tree in new {
            tree.has_evidence = true;
            let Some(init) = processes.get(tree.init).filter(|_| !tree.in_vm) else { continue };
            let own = |cgroup: &&str| membership.is_own_cgroup(tree.key, &format!("0::{cgroup}"));
            let cgroup = init.unified_cgroup().filter(own);
            for (evidence, suspect) in evidence::of(tree.key, init, &counts, cgroup, cgroups.as_ref()) {
                self.resolver.registry.slots.enter_evidence(evidence, &suspect);
            }
        }
    }

    /// A process of a container as an adoptee. Of a container in a virtual machine there are only those around it.
    pub(super) fn member(&self, process: &Process, key: ContainerKey) -> Adoptee {
        if self.trees.iter().any(|tree| tree.key == key && tree.in_vm) {
            adoptee(process, ContainerKey::HOST, key)
        } else {
            adoptee(process, key, ContainerKey::HOST)
        }
    }

    /// The processes of the containers: the first ones; those in a cgroup or pid namespace that is one container's alone; and
    /// their descendants, each of the nearest.
    pub(super) fn members(&self, processes: &Processes) -> HashMap<u32, ContainerKey> {
        let containers = self.containers(processes);
        let membership = Membership::new(&containers, processes);
        let key_of = |process: &Process| processes.lineage(process.pid).find_map(|one| membership.of(one));
        processes.iter().filter_map(|process| Some((process.pid, key_of(process)?))).collect()
    }
}
