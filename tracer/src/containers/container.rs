//! A container as it is shown.

use std::collections::BTreeMap;

use serde::Serialize;

/// A container, once its bundle has been read or that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// As the runtime was told; empty where that is not known.
    pub id: String,
    /// The engine, or the runtime where no engine is known.
    pub runtime: String,
    /// A pod's sandbox (pause) or a container proper.
    #[serde(rename = "type")]
    pub kind: ContainerType,
    /// As the annotations name it.
    pub image: Option<String>,
    /// How it was learnt.
    pub source: Source,
    /// The pod it belongs to, if any.
    #[serde(skip)]
    pub pod: Option<Pod>,
    /// Whether that is known: without it the container may belong to a pod all the same.
    #[serde(skip)]
    pub pod_known: bool,
}

impl Container {
    /// A container that nothing is known of but that it is one.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            id: String::new(),
            runtime: String::new(),
            kind: ContainerType::Container,
            image: None,
            source: Source::Cgroup,
            pod: None,
            pod_known: false,
        }
    }
}

/// The Kubernetes side of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    #[serde(rename = "pod")]
    pub name: String,
    /// The pod's uid; older containerds do not say.
    pub pod_uid: Option<String>,
    /// The container's name within the pod; none for the sandbox.
    pub container: Option<String>,
    /// The pod's labels as far as the annotations have them.
    pub labels: BTreeMap<String, String>,
}

/// What kind of container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerType {
    /// Keeps a pod's namespaces (pause).
    Sandbox,
    /// Runs a program.
    Container,
}

impl ContainerType {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Container => "container",
        }
    }
}

/// How a container was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// From the bundle that the runtime was started with.
    Bundle,
    /// From the runtime's state on disk.
    State,
    /// From the process alone: neither bundle nor state could be read.
    Cgroup,
}

impl Source {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::State => "state",
            Self::Cgroup => "cgroup",
        }
    }
}
