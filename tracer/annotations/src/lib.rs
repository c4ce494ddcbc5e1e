#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod containerd;
pub mod crio;
mod dialect;
mod error;
mod lookup;

use std::fmt;

pub use error::Error;
pub use lookup::Annotations;

use dialect::{Dialect, Subject};

/// A container of a pod, as its engine describes it in the annotations of the bundle.
///
/// Every string is copied from the annotations byte for byte: untrusted, of any length, with any characters. Required
/// ones ([`namespace`](Self::namespace), [`pod`](Self::pod), the name in [`Role::Container`]) are not empty. Optional
/// ones are `None` if the annotation is absent or empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodContainer {
    /// The engine whose keys the annotations use.
    pub engine: Engine,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, which containerd writes since 1.6.11. For a static pod it is the hash of the manifest, not the
    /// uid that the API server shows.
    pub pod_uid: Option<String>,
    /// Whether the container is the pod's sandbox or a container of its spec.
    pub role: Role,
    /// The image, by a name that the engine has for it. CRI-O has none for an image that was requested by id.
    pub image: Option<String>,
    /// The id of the pod's sandbox; for a sandbox, its own id.
    pub sandbox_id: Option<String>,
    /// A JSON object of labels, not parsed. Only CRI-O writes it. For a sandbox it contains the pod's labels, for
    /// other containers only names that the fields above have as well.
    pub labels_json: Option<String>,
}

impl PodContainer {
    /// The container's name in the pod's spec; `None` for the sandbox, which is not in the spec.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match &self.role {
            Role::Sandbox => None,
            Role::Container(name) => Some(name),
        }
    }
}

/// The role of a container in its pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The container that holds the pod's namespaces ("pause").
    Sandbox,
    /// An init, ordinary or ephemeral container of the pod's spec, with its name.
    Container(String),
}

impl Role {
    /// `sandbox` or `container`, the values that both engines use.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sandbox => SANDBOX,
            Self::Container(_) => CONTAINER,
        }
    }
}

// Values of the container type, the same for both engines.
pub(crate) const SANDBOX: &str = "sandbox";
pub(crate) const CONTAINER: &str = "container";

/// A container engine that serves Kubernetes and has its own annotation keys.
///
/// To add one, add a module with a table of its keys, a variant here, and an entry in [`Engine::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// containerd with its CRI plugin: see [`containerd`] for its keys.
    Containerd,
    /// CRI-O: see [`crio`] for its keys.
    CriO,
}

impl Engine {
    /// Every engine that [`resolve`] recognises.
    pub const ALL: [Self; 2] = [Self::Containerd, Self::CriO];

    /// The engine's name as it writes it: `containerd`, `cri-o`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => crio::MANAGER_CRIO,
        }
    }

    /// Reads `annotations` with this engine's keys alone, for callers that know which engine wrote them and so are
    /// not affected by [`Error::Contested`]. `Ok(None)` if this engine's marker is not present.
    pub fn resolve<'a>(self, annotations: impl Annotations<'a>) -> Result<Option<PodContainer>, Error> {
        let dialect = self.dialect();
        if dialect.marker.matches(annotations) {
            dialect.read(annotations, Subject::Any).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads the annotations of the container `id`, for callers that know from elsewhere, such as the path of the
    /// bundle, that this engine created it. The engine's marker is not checked.
    ///
    /// Keys that a pod's author can set do not make the container look like another one: a sandbox's `sandbox_id` is
    /// its own id, and a sandbox whose annotations name another one has no labels ([`crio`] explains why).
    pub fn read<'a>(self, annotations: impl Annotations<'a>, id: &str) -> Result<PodContainer, Error> {
        self.dialect().read(annotations, Subject::Container(id))
    }

    const fn dialect(self) -> &'static Dialect {
        match self {
            Self::Containerd => &containerd::DIALECT,
            Self::CriO => &crio::DIALECT,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads the pod from the annotations of an OCI bundle.
///
/// `Ok(None)` means that the container belongs to no pod: docker and `ctr` write no annotations, podman writes
/// `io.container.manager` = `libpod` (and, in pods of its own kind, some of CRI-O's keys). Annotations that have an
/// engine's marker but are incomplete are an error that names the engine and the key.
///
/// Pass a map, or an `Option` of one, by reference. A closure must declare the type of its argument:
///
/// ```
/// let json = [("io.container.manager", "libpod")];
/// let get = |key: &str| json.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
/// assert_eq!(tracer_annotations::resolve(get), Ok(None));
/// ```
pub fn resolve<'a>(annotations: impl Annotations<'a>) -> Result<Option<PodContainer>, Error> {
    // By the key alone, whatever its value: `libpod` next to containerd's marker is ambiguous as well.
    let mut claims =
        Engine::ALL.into_iter().map(Engine::dialect).filter(|dialect| dialect.marker.is_present(annotations));
    match (claims.next(), claims.next()) {
        (Some(one), Some(other)) => Err(Error::Contested { keys: [one.marker.key, other.marker.key] }),
        (Some(only), None) if only.marker.matches(annotations) => {
            only.read(annotations, Subject::Any).map(Some)
        }
        _ => Ok(None),
    }
}
