//! Annotation keys of CRI-O, and the labels of the kubelet that CRI-O writes as annotations.
//!
//! Source: `pkg/annotations/internal.go` of CRI-O, `pkg/kubelet/types/labels.go` of Kubernetes, and the bundles of
//! CRI-O 1.37 that this crate is tested with.
//!
//! CRI-O copies the annotations of a pod, which the pod's author chose, into the bundles. It always writes the
//! kubelet's labels (`POD_*` and [`CONTAINER_NAME`]) over them, so those can be trusted. For CRI-O's own keys it
//! depends on the bundle (`sandbox_run_linux.go`, `container.go`, `restore.go`):
//!
//! | bundle | what determines CRI-O's own keys |
//! |---|---|
//! | container | CRI-O |
//! | sandbox | CRI-O up to 1.32, the pod's author in 1.33 to 1.37 |
//! | container restored from a checkpoint image | the image, but for [`SANDBOX_ID`] |
//!
//! [`Engine::read`] therefore prefers the kubelet's keys, and of a sandbox's other keys uses only those that agree
//! with its own id.

use crate::Engine;
use crate::dialect::{Dialect, Marker};

/// The program that created the container. podman writes it too, with another value, and some of the keys below: only
/// [`MANAGER_CRIO`] identifies CRI-O.
pub const MANAGER: &str = "io.container.manager";
/// The value of [`MANAGER`] that identifies CRI-O.
pub const MANAGER_CRIO: &str = "cri-o";
/// `sandbox` or `container`.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri-o.ContainerType";
/// The pod's namespace, a label of the kubelet.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's name, a label of the kubelet.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's uid, a label of the kubelet.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name in the pod's spec, a label of the kubelet. For a sandbox it is [`SANDBOX_CONTAINER_NAME`].
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The value of [`CONTAINER_NAME`] for a sandbox. No container can have it, because names in a pod's spec are
/// lower-case.
pub const SANDBOX_CONTAINER_NAME: &str = "POD";
/// The labels that the kubelet and CRI-O add to a pod's, wherever an engine lists a pod's labels. The API server does
/// not have them.
pub const ADDED_LABELS: [&str; 4] = [POD_NAME, POD_NAMESPACE, POD_UID, CONTAINER_NAME];
/// One of the names of the image; empty if it has none.
pub const IMAGE_NAME: &str = "io.kubernetes.cri-o.ImageName";
/// The id of the pod's sandbox container; also present on the sandbox itself.
pub const SANDBOX_ID: &str = "io.kubernetes.cri-o.SandboxID";
/// The labels of the container, or for a sandbox the labels of the pod, as a JSON object.
pub const LABELS: &str = "io.kubernetes.cri-o.Labels";

pub(crate) static DIALECT: Dialect = Dialect {
    engine: Engine::CriO,
    marker: Marker { key: MANAGER, value: Some(MANAGER_CRIO) },
    kind: CONTAINER_TYPE,
    namespace: POD_NAMESPACE,
    pod: POD_NAME,
    pod_uid: POD_UID,
    container: CONTAINER_NAME,
    sandbox_container: Some(SANDBOX_CONTAINER_NAME),
    image: IMAGE_NAME,
    sandbox_image: IMAGE_NAME,
    sandbox_id: SANDBOX_ID,
    labels: Some(LABELS),
};
