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

use dialect::{Dialect, Reader};

/// A container of a pod, as its engine described it in the annotations of the bundle.
///
/// Every string is what the annotations say, byte for byte: untrusted, of any length, and with any characters.
/// The required ones ([`namespace`](Self::namespace), [`pod`](Self::pod), the name in [`Role::Container`]) are not
/// empty. The optional ones are `None` where the annotation is absent or empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodContainer {
    /// The engine whose dialect the annotations are written in.
    pub engine: Engine,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid. containerd writes it since 1.6.11. Of a static pod it is the hash of the manifest,
    /// not the uid that the API server shows.
    pub pod_uid: Option<String>,
    /// What the container is in its pod.
    pub role: Role,
    /// The image, by a name the engine has for it. CRI-O has none for an image that was asked for by id.
    pub image: Option<String>,
    /// The id of the pod's sandbox, which of a sandbox is the container's own.
    pub sandbox_id: Option<String>,
    /// A JSON object of labels, not parsed. Only CRI-O writes it; in a sandbox it holds the pod's own labels, in
    /// other containers no more than the names that are here already.
    pub labels_json: Option<String>,
}

impl PodContainer {
    /// The container's name in the pod's spec: `None` for the sandbox, which is in no spec.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match &self.role {
            Role::Sandbox => None,
            Role::Container(name) => Some(name),
        }
    }
}

/// What a container is in its pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The container that holds the pod's namespaces ("pause").
    Sandbox,
    /// A container of the pod's spec, be it an init, an ordinary or an ephemeral one, with its name.
    Container(String),
}

impl Role {
    /// `sandbox` or `container`: the word both engines use.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sandbox => SANDBOX,
            Self::Container(_) => CONTAINER,
        }
    }
}

// Both engines' values of the container type.
pub(crate) const SANDBOX: &str = "sandbox";
pub(crate) const CONTAINER: &str = "container";

/// A container engine that serves Kubernetes, each with a dialect of annotations.
///
/// A new one is a module with a table of its keys, a variant here and an entry in [`Engine::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// containerd with its CRI plugin: see [`containerd`] for its keys.
    Containerd,
    /// CRI-O: see [`crio`] for its keys.
    CriO,
}

impl Engine {
    /// Every engine that [`resolve`] knows.
    pub const ALL: [Self; 2] = [Self::Containerd, Self::CriO];

    /// The engine's name as it writes it itself: `containerd`, `cri-o`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => crio::MANAGER_CRIO,
        }
    }

    /// Reads `annotations` in this engine's dialect alone, for callers who know which engine wrote them and so need
    /// not fear what [`Error::Contested`] is about. `Ok(None)` where this engine's mark is not there.
    pub fn resolve<'a>(self, annotations: impl Annotations<'a>) -> Result<Option<PodContainer>, Error> {
        let dialect = self.dialect();
        if dialect.mark.fits(annotations) {
            dialect.read(annotations, Reader::Any).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads the annotations of the container `id`, for callers who know from elsewhere that this engine made its
    /// bundle: where the bundle is, say. The engine's mark is not looked at.
    ///
    /// Keys that a pod's author can reach do not make the container pass for another: a sandbox's `sandbox_id` is its own
    /// id, and one whose annotations name another sandbox has no labels ([`crio`] has the reasons).
    pub fn read<'a>(self, annotations: impl Annotations<'a>, id: &str) -> Result<PodContainer, Error> {
        self.dialect().read(annotations, Reader::Of(id))
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

/// Reads the pod out of the annotations of an OCI bundle.
///
/// `Ok(None)` says that the container belongs to no pod: docker and `ctr` write no annotations, podman writes
/// `io.container.manager` = `libpod` (and, in its own kind of pods, some of CRI-O's keys). Annotations that an
/// engine has marked as its own but left incomplete are an error, which names the engine and the key.
///
/// A map goes in by reference, and so does an `Option` of one; a closure has to name its argument's type:
///
/// ```
/// let json = [("io.container.manager", "libpod")];
/// let get = |key: &str| json.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
/// assert_eq!(tracer_annotations::resolve(get), Ok(None));
/// ```
pub fn resolve<'a>(annotations: impl Annotations<'a>) -> Result<Option<PodContainer>, Error> {
    // By the key alone, whatever its value: `libpod` beside containerd's mark is a contest as well.
    let mut claims =
        Engine::ALL.into_iter().map(Engine::dialect).filter(|dialect| dialect.mark.is_there(annotations));
    match (claims.next(), claims.next()) {
        (Some(one), Some(other)) => Err(Error::Contested { keys: [one.mark.key, other.mark.key] }),
        (Some(only), None) if only.mark.fits(annotations) => only.read(annotations, Reader::Any).map(Some),
        _ => Ok(None),
    }
}
