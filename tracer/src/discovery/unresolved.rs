//! A container that neither bundle nor state leads to: only its cgroup can name it.

use tracer_common::container::ContainerKey;

use crate::{
    discovery::{pod_warning, resolver::Resolver},
    model::{Container, Nested, Unknown},
    sys::cgroup,
};

/// A container whose runtime is not trusted, or not understood.
#[derive(Debug)]
pub(crate) struct UnresolvedContainer {
    /// The runtime's name.
    pub(crate) runtime: String,
    /// Why no more is known.
    pub(crate) why: Unknown,
    /// Whether root made its cgroup. Another user may give one the name of another container's.
    pub(crate) has_roots_cgroup: bool,
    /// Whether it is known to belong to no pod: pods have runtimes of the host's only.
    pub(crate) pod_known: bool,
    /// The container that it is in.
    pub(crate) outer: Option<Nested>,
    /// The warning about it.
    pub(crate) warning: String,
}

impl UnresolvedContainer {
    /// Logs the warning for those who may have selected it.
    pub(crate) fn warn(&self, key: ContainerKey, resolver: &Resolver) {
        let container = Container { pod_known: self.pod_known, ..Container::unknown(self.why) };
        let Resolver { registry, readers } = resolver;
        pod_warning::warn(key, &container, self.warning.clone(), registry, readers.handle());
    }

    /// The container, with its first process and the name of that one's cgroup in the unified hierarchy; if that names
    /// no container, the process's other cgroups may.
    pub(crate) fn in_cgroup(self, cgroup: &str, pid: u32) -> Container {
        let id = self.has_roots_cgroup.then(|| cgroup::id_of(cgroup).or_else(|| cgroup::id_of_process(pid)));
        self.with_id(id.flatten().unwrap_or_default())
    }

    /// The container, without its cgroup.
    pub(crate) fn without_cgroup(self) -> Container {
        self.in_cgroup("", 0)
    }

    fn with_id(self, id: String) -> Container {
        Container {
            id,
            runtime: self.runtime,
            pod_known: self.pod_known,
            outer: self.outer,
            ..Container::unknown(self.why)
        }
    }
}
