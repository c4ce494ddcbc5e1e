//! Annotation keys of containerd's CRI plugin.
//!
//! Source: `pkg/cri/annotations` of containerd 2.x (`pkg/cri/annotations` and `internal/cri/annotations` of other
//! versions), and the bundles of 1.6, 1.7 and 2.1 that this crate is tested with. The plugin writes its keys last,
//! over any annotation of the pod that containerd is configured to pass on.

use crate::Engine;
use crate::dialect::{Dialect, Marker};

/// `sandbox` or `container`. Present on every container of the CRI plugin, and on no other container of containerd.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The pod's namespace.
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// The pod's name.
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// The pod's uid, since 1.6.11.
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// The id of the pod's sandbox container; also present on the sandbox itself.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// The container's name in the pod's spec. The sandbox has none.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// The image of a container other than the sandbox.
pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// The image of the sandbox, since 2.0.
pub const SANDBOX_IMAGE_NAME: &str = "io.kubernetes.cri.podsandbox.image-name";

pub(crate) static DIALECT: Dialect = Dialect {
    engine: Engine::Containerd,
    marker: Marker { key: CONTAINER_TYPE, value: None },
    kind: CONTAINER_TYPE,
    namespace: SANDBOX_NAMESPACE,
    pod: SANDBOX_NAME,
    pod_uid: SANDBOX_UID,
    container: CONTAINER_NAME,
    sandbox_container: None,
    image: IMAGE_NAME,
    sandbox_image: SANDBOX_IMAGE_NAME,
    sandbox_id: SANDBOX_ID,
    labels: None,
};
