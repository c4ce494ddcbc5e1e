//! Tables of annotation keys, one for each engine, and the reader that they share.

use crate::{Annotations, CONTAINER, Engine, Error, PodContainer, Role, SANDBOX};

/// The container that the annotations are read for.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// Any container: the annotations are taken as they are.
    Any,
    /// The container with this id. Keys that a pod's author can set are not trusted if they contradict it.
    Container(&'a str),
}

/// The annotation that identifies an engine.
pub(crate) struct Marker {
    pub(crate) key: &'static str,
    /// The value that identifies this engine; `None` if any does.
    pub(crate) value: Option<&'static str>,
}

impl Marker {
    /// Whether the key is present, with any value.
    pub(crate) fn is_present<'a>(&self, annotations: impl Annotations<'a>) -> bool {
        annotations.get(self.key).is_some()
    }

    /// Whether the key is present with a value that identifies this engine.
    pub(crate) fn matches<'a>(&self, annotations: impl Annotations<'a>) -> bool {
        annotations.get(self.key).is_some_and(|found| self.value.is_none_or(|wanted| found == wanted))
    }
}

/// The keys under which an engine writes the fields of a [`PodContainer`].
pub(crate) struct Dialect {
    pub(crate) engine: Engine,
    pub(crate) marker: Marker,
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) pod: &'static str,
    pub(crate) pod_uid: &'static str,
    pub(crate) container: &'static str,
    /// The container name of sandboxes, for an engine whose own keys a pod's author can set in sandboxes.
    pub(crate) sandbox_container: Option<&'static str>,
    pub(crate) image: &'static str,
    pub(crate) sandbox_image: &'static str,
    pub(crate) sandbox_id: &'static str,
    pub(crate) labels: Option<&'static str>,
}

impl Dialect {
    pub(crate) fn read<'a>(
        &self,
        annotations: impl Annotations<'a>,
        subject: Subject<'_>,
    ) -> Result<PodContainer, Error> {
        let engine = self.engine;
        let required = |key| match annotations.get(key) {
            None => Err(Error::Missing { engine, key }),
            Some("") => Err(Error::Empty { engine, key }),
            Some(value) => Ok(value),
        };
        let optional = |key| annotations.get(key).filter(|value| !value.is_empty()).map(str::to_owned);

        let is_sandbox = match (subject, self.sandbox_container) {
            (Subject::Container(id), Some(name)) => self.is_sandbox(annotations, id, name)?,
            _ => self.has_sandbox_type(annotations)?,
        };
        let (role, image) = if is_sandbox {
            (Role::Sandbox, self.sandbox_image)
        } else {
            (Role::Container(required(self.container)?.to_owned()), self.image)
        };
        let mut sandbox_id = optional(self.sandbox_id);
        let mut labels_json = self.labels.and_then(optional);
        if let Subject::Container(id) = subject
            && is_sandbox
            && self.sandbox_container.is_some()
            && sandbox_id.as_deref() != Some(id)
        {
            // A sandbox's `sandbox_id` is its own id. If the annotation names another one, it is forged, and so may
            // be the labels.
            (sandbox_id, labels_json) = (Some(id.to_owned()), None);
        }
        Ok(PodContainer {
            engine,
            namespace: required(self.namespace)?.to_owned(),
            pod: required(self.pod)?.to_owned(),
            pod_uid: optional(self.pod_uid),
            role,
            image: optional(image),
            sandbox_id,
            labels_json,
        })
    }

    /// Whether the container type is `sandbox`.
    fn has_sandbox_type<'a>(&self, annotations: impl Annotations<'a>) -> Result<bool, Error> {
        let (engine, key) = (self.engine, self.kind);
        match annotations.get(key) {
            Some(SANDBOX) => Ok(true),
            Some(CONTAINER) => Ok(false),
            None => Err(Error::Missing { engine, key }),
            Some("") => Err(Error::Empty { engine, key }),
            Some(other) => Err(Error::UnknownType { engine, key, value: other.to_owned() }),
        }
    }

    /// Whether the container `id` is a sandbox, for an engine whose sandboxes have the container name `name`, which
    /// no container of a pod can have. The engine always writes that name, while a pod's author may have set the
    /// container type.
    fn is_sandbox<'a>(&self, annotations: impl Annotations<'a>, id: &str, name: &str) -> Result<bool, Error> {
        match annotations.get(self.container) {
            Some(found) if found == name => Ok(true),
            None | Some("") => self.has_sandbox_type(annotations),
            Some(_) => {
                Ok(annotations.get(self.kind) == Some(SANDBOX)
                    && annotations.get(self.sandbox_id) == Some(id))
            }
        }
    }
}
