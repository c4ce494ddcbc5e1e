//! Engines say the same things under different keys: a dialect is a table of keys, and one reader serves them all.

use crate::{Annotations, CONTAINER, Engine, Error, PodContainer, Role, SANDBOX};

/// Whose annotations are read.
#[derive(Clone, Copy)]
pub(crate) enum Reader<'a> {
    /// Anybody's: what they say is what is returned.
    Any,
    /// Those of the container with this id. Keys that a pod's author can reach count for nothing against it.
    Of(&'a str),
}

/// What tells an engine's annotations from others.
pub(crate) struct Mark {
    pub(crate) key: &'static str,
    /// The value that means this engine; `None` where any does.
    pub(crate) value: Option<&'static str>,
}

impl Mark {
    pub(crate) fn is_there<'a>(&self, annotations: impl Annotations<'a>) -> bool {
        annotations.get(self.key).is_some()
    }

    pub(crate) fn fits<'a>(&self, annotations: impl Annotations<'a>) -> bool {
        annotations.get(self.key).is_some_and(|found| self.value.is_none_or(|wanted| found == wanted))
    }
}

/// The keys under which an engine says what a [`PodContainer`] holds.
pub(crate) struct Dialect {
    pub(crate) engine: Engine,
    pub(crate) mark: Mark,
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) pod: &'static str,
    pub(crate) pod_uid: &'static str,
    pub(crate) container: &'static str,
    /// The container name that means the sandbox, of an engine whose own keys a pod's author can reach in there.
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
        reader: Reader<'_>,
    ) -> Result<PodContainer, Error> {
        let engine = self.engine;
        let required = |key| match annotations.get(key) {
            None => Err(Error::Missing { engine, key }),
            Some("") => Err(Error::Empty { engine, key }),
            Some(value) => Ok(value),
        };
        let optional = |key| annotations.get(key).filter(|value| !value.is_empty()).map(str::to_owned);

        let is_sandbox = match (reader, self.sandbox_container) {
            (Reader::Of(id), Some(name)) => self.is_sandbox(annotations, id, name)?,
            _ => self.says_sandbox(annotations)?,
        };
        let (role, image) = if is_sandbox {
            (Role::Sandbox, self.sandbox_image)
        } else {
            (Role::Container(required(self.container)?.to_owned()), self.image)
        };
        let mut sandbox_id = optional(self.sandbox_id);
        let mut labels_json = self.labels.and_then(optional);
        if let Reader::Of(id) = reader
            && is_sandbox
            && self.sandbox_container.is_some()
            && sandbox_id.as_deref() != Some(id)
        {
            // A sandbox is its own. One that names another is forged, and its labels with it.
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

    /// Whether the key for it says so.
    fn says_sandbox<'a>(&self, annotations: impl Annotations<'a>) -> Result<bool, Error> {
        let (engine, key) = (self.engine, self.kind);
        match annotations.get(key) {
            Some(SANDBOX) => Ok(true),
            Some(CONTAINER) => Ok(false),
            None => Err(Error::Missing { engine, key }),
            Some("") => Err(Error::Empty { engine, key }),
            Some(other) => Err(Error::UnknownType { engine, key, value: other.to_owned() }),
        }
    }

    /// Whether the container `id` is a sandbox, in a dialect whose sandboxes have the container name `name`, which no
    /// container of a pod can have. That name is the engine's. What the key for it says may be the author's.
    fn is_sandbox<'a>(&self, annotations: impl Annotations<'a>, id: &str, name: &str) -> Result<bool, Error> {
        match annotations.get(self.container) {
            Some(found) if found == name => Ok(true),
            None | Some("") => self.says_sandbox(annotations),
            Some(_) => {
                Ok(annotations.get(self.kind) == Some(SANDBOX)
                    && annotations.get(self.sandbox_id) == Some(id))
            }
        }
    }
}
