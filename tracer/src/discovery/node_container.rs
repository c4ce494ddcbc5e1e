//! Containers whose runtimes may name containers of their own, as the host's do: nodes of kind, docker in docker.

use std::sync::Arc;

use tracer_common::container::ContainerKey;

use crate::{
    model::{Container, Nested},
    registry::{Attribution, Registry},
    sys::{
        proc_table,
        process_handle::{Root, RuntimeProcess},
    },
};

/// A container whose runtimes may name containers of their own.
#[derive(Clone, Debug)]
pub(crate) struct NodeContainer {
    /// Its key.
    pub(crate) key: ContainerKey,
    /// As the containers within it show it.
    pub(crate) shown: Nested,
    /// Its root directory. It is taken for that of a runtime which has exited.
    pub(crate) root: Option<Arc<Root>>,
}

impl NodeContainer {
    /// A container, if it may name others.
    pub(crate) fn new(attribution: &Attribution, registry: &Registry) -> Option<Self> {
        let Container { id, runtime, .. } = &*attribution.container;
        if !attribution.container.may_name_others() {
            return None;
        }
        let shown = Nested { id: id.clone(), runtime: runtime.clone() };
        let root = registry.root(attribution.key, |init| {
            Some(RuntimeProcess::open(init, proc_table::start_ticks(init)?).ok()?.into_root())
        });
        Some(Self { key: attribution.key, shown, root })
    }
}
