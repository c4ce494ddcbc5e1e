//! A container as it is shown.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

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
    /// Why its bundle, and with that its pod, is not known; none where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Unknown>,
    /// The container that the runtime which started this one runs in (a node of kind), if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<Nested>,
    /// A container that a runtime within this one started, where it may not name containers of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<Nested>,
    /// What keeps what runs inside from this kernel, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// The pod it belongs to, if any.
    #[serde(skip)]
    pub pod: Option<Pod>,
    /// Whether that is known: without it the container may belong to a pod all the same.
    #[serde(skip)]
    pub pod_known: bool,
}

impl Container {
    /// A container of which nothing became known in time but that it is one.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            id: String::new(),
            runtime: String::new(),
            kind: ContainerType::Container,
            image: None,
            source: Source::Cgroup,
            why: Some(Unknown::Late),
            outer: None,
            inner: None,
            isolation: None,
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
    /// The pod's labels; none where they are not known.
    #[serde(serialize_with = "serialize_labels")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Labels that are not known are shown as none.
#[expect(clippy::ref_option, reason = "serde hands the field over like this")]
fn serialize_labels<S: Serializer>(
    labels: &Option<BTreeMap<String, String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().flatten())
}

/// A container that contains this one, or is contained in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nested {
    /// As its runtime was told.
    pub id: String,
    /// The engine, or the runtime where no engine is known.
    pub runtime: String,
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
    /// From the engine, over the CRI.
    Cri,
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
            Self::Cri => "cri",
            Self::Cgroup => "cgroup",
        }
    }
}

/// Why a container's bundle is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// The runtime is not believed.
    Untrusted,
    /// Bundle or state could not be read, or made no sense.
    Unreadable,
    /// The runtime's command line was not understood.
    NotUnderstood,
    /// It did not become known in time.
    Late,
}

impl Unknown {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Unreadable => "unreadable",
            Self::NotUnderstood => "not-understood",
            Self::Late => "late",
        }
    }
}

/// What stands between a container's processes and the host's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// gVisor, a kernel of its own in user space.
    Gvisor,
    /// Kata Containers, a virtual machine.
    Kata,
}

impl Isolation {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gvisor => "gvisor",
            Self::Kata => "kata",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn what_is_shown_is_what_json_has() {
        let quoted = |text: &str| format!("\"{text}\"");
        for kind in [ContainerType::Sandbox, ContainerType::Container] {
            assert_eq!(json(&kind), quoted(kind.as_str()));
        }
        for source in [Source::Bundle, Source::State, Source::Cri, Source::Cgroup] {
            assert_eq!(json(&source), quoted(source.as_str()));
        }
        for why in [Unknown::Untrusted, Unknown::Unreadable, Unknown::NotUnderstood, Unknown::Late] {
            assert_eq!(json(&why), quoted(why.as_str()));
        }
        for isolation in [Isolation::Gvisor, Isolation::Kata] {
            assert_eq!(json(&isolation), quoted(isolation.as_str()));
        }
    }

    #[test]
    fn what_does_not_apply_is_left_out() {
        let mut container = Container { why: None, ..Container::unknown() };
        assert_eq!(
            json(&container),
            r#"{"id":"","runtime":"","type":"container","image":null,"source":"cgroup"}"#
        );
        container.why = Some(Unknown::NotUnderstood);
        container.outer = Some(Nested { id: "node".into(), runtime: "docker".into() });
        container.inner = Some(Nested { id: "in".into(), runtime: "runc".into() });
        container.isolation = Some(Isolation::Kata);
        let fields = concat!(
            r#""source":"cgroup","why":"not-understood","outer":{"id":"node","runtime":"docker"},"#,
            r#""inner":{"id":"in","runtime":"runc"},"isolation":"kata"}"#
        );
        assert!(json(&container).ends_with(fields), "{}", json(&container));
    }

    #[test]
    fn labels_that_are_not_known_are_an_empty_object() {
        let mut pod = Pod {
            namespace: "n".into(),
            name: "p".into(),
            pod_uid: None,
            container: None,
            labels: Some([("a".into(), "b".into())].into()),
        };
        let start = r#"{"namespace":"n","pod":"p","podUid":null,"container":null,"labels":"#;
        assert_eq!(json(&pod), format!(r#"{start}{{"a":"b"}}}}"#));
        pod.labels = None;
        assert_eq!(json(&pod), format!("{start}{{}}}}"));
    }
}
