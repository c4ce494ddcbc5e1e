//! Containers as an engine reports them through the CRI.

use crate::model::{ContainerType, Isolation, Pod};

/// A container as its engine describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineContainer {
    /// Its id, which the runtime is given too.
    pub id: String,
    /// Whether it is a pod's sandbox (pause) or another container.
    pub kind: ContainerType,
    /// The pod that it belongs to, with the pod's labels.
    pub pod: Pod,
    /// The image as the pod's spec names it, else as the engine names it, which may be a digest.
    pub image: Option<String>,
    /// The engine's name: `containerd`, `cri-o`.
    pub runtime: String,
    /// The handler of the pod's RuntimeClass, such as `runsc` or `kata`; None for the engine's default.
    pub runtime_handler: Option<String>,
    /// Process id of its first process in the engine's pid namespace, if there is one and the engine reports it.
    pub pid: Option<u32>,
    /// When it was started, or for a sandbox, created: nanoseconds since 1970.
    pub started_at: Option<i64>,
    /// Whether it is running. If not, it has not started yet, or it has ended.
    pub running: bool,
    /// Id of its pod's sandbox; a sandbox's own id.
    pub sandbox_id: String,
}

impl EngineContainer {
    /// The sandbox that hides its processes from this kernel, by the name of its runtime handler, which the cluster's
    /// administrator chose.
    #[must_use]
    pub(crate) fn isolation(&self) -> Option<Isolation> {
        self.runtime_handler.as_deref().and_then(Isolation::of_runtime)
    }
}
