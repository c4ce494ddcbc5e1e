//! A container as its engine reports it through the CRI.

use crate::model::{ContainerType, Isolation, Pod};

/// A container as its engine describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineContainer {
    /// The engine's id, which the runtime is told too.
    pub(crate) id: String,
    /// A pod's sandbox (pause) or a container proper.
    pub(crate) kind: ContainerType,
    /// The pod it belongs to, with the pod's labels.
    pub(crate) pod: Pod,
    /// As the pod's author or else the engine names it; the engine may have only a digest.
    pub(crate) image: Option<String>,
    /// The engine's name: `containerd`, `cri-o`.
    pub(crate) runtime: String,
    /// What the pod's RuntimeClass selects, such as `runsc` or `kata`; none for the engine's default.
    pub(crate) runtime_handler: Option<String>,
    /// Its first process, if it has one and the engine tells: in the pid namespace of the engine.
    pub(crate) pid: Option<u32>,
    /// When it was started, of a sandbox when it was created: nanoseconds since 1970.
    pub(crate) started_at: Option<i64>,
    /// Whether it runs; else it is yet to start, or has ended.
    pub(crate) running: bool,
    /// The id of its pod's sandbox, which for the sandbox is its own.
    pub(crate) sandbox_id: String,
}

impl EngineContainer {
    /// What isolates it from this kernel, by the name that the cluster's administrator gave its runtime.
    #[must_use]
    pub(crate) fn isolation(&self) -> Option<Isolation> {
        self.runtime_handler.as_deref().and_then(Isolation::of_runtime)
    }
}
