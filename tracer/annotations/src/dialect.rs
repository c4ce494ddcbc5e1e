//! Engines say the same things under different keys: a dialect is a table of keys, and one reader serves them all.

use crate::{Annotations, CONTAINER, Engine, Error, PodContainer, Role, SANDBOX};

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
    pub(crate) image: &'static str,
    pub(crate) sandbox_image: &'static str,
    pub(crate) sandbox_id: &'static str,
    pub(crate) labels: Option<&'static str>,
}

impl Dialect {
    pub(crate) fn read<'a>(&self, annotations: impl Annotations<'a>) -> Result<PodContainer, Error> {
        let engine = self.engine;
        let required = |key| match annotations.get(key) {
            None => Err(Error::Missing { engine, key }),
            Some("") => Err(Error::Empty { engine, key }),
            Some(value) => Ok(value),
        };
        let optional = |key| annotations.get(key).filter(|value| !value.is_empty()).map(str::to_owned);

        let (role, image) = match required(self.kind)? {
            SANDBOX => (Role::Sandbox, self.sandbox_image),
            CONTAINER => (Role::Container(required(self.container)?.to_owned()), self.image),
            other => return Err(Error::UnknownType { engine, key: self.kind, value: other.to_owned() }),
        };
        Ok(PodContainer {
            engine,
            namespace: required(self.namespace)?.to_owned(),
            pod: required(self.pod)?.to_owned(),
            pod_uid: optional(self.pod_uid),
            role,
            image: optional(image),
            sandbox_id: optional(self.sandbox_id),
            labels_json: self.labels.and_then(optional),
        })
    }
}
