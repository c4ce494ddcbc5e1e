//! A container as it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_annotations::crio;

use crate::model::EngineContainer;

/// A container, once its bundle has been read or that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    /// As the runtime was told; empty where that is not known.
    pub(crate) id: String,
    /// The engine, or the runtime where no engine is known.
    pub(crate) runtime: String,
    /// A pod's sandbox (pause) or a container proper.
    #[serde(rename = "type")]
    pub(crate) kind: ContainerType,
    /// The name that its engine gave it, where it belongs to no pod of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// As the annotations name it.
    pub(crate) image: Option<String>,
    /// How it was learnt.
    pub(crate) source: Source,
    /// Why no more than that it is a container became known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Unknown>,
    /// The container within which its runtime ran: a node of kind, an engine in a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outer: Option<Nested>,
    /// A container that a runtime in this one says it has started. What runs in it counts as this one's: no container
    /// of a pod may name others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inner: Option<Nested>,
    /// What keeps its processes from this kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<Isolation>,
    /// The pod it belongs to, if any.
    #[serde(skip)]
    pub(crate) pod: Option<Pod>,
    /// Whether that is known: without it the container may belong to a pod all the same.
    #[serde(skip)]
    pub(crate) pod_known: bool,
    /// The pod's sandbox.
    #[serde(skip)]
    pub(crate) sandbox_id: Option<String>,
    /// Whether it is root on the host in all but name.
    #[serde(skip)]
    pub(crate) privileged: bool,
    /// Whether its runtime runs its program within itself, so that no entrypoint is executed.
    #[serde(skip)]
    pub(crate) in_process: bool,
}

impl Container {
    /// A container that nothing is known of but that it is one, and why.
    #[must_use]
    pub(crate) const fn unknown(why: Unknown) -> Self {
        Self {
            id: String::new(),
            runtime: String::new(),
            kind: ContainerType::Container,
            name: None,
            image: None,
            source: Source::Cgroup,
            why: Some(why),
            outer: None,
            inner: None,
            isolation: None,
            pod: None,
            pod_known: false,
            sandbox_id: None,
            privileged: false,
            in_process: false,
        }
    }

    /// Whether runtimes that run in it may name containers and their pods, as the host's do: it belongs to no pod
    /// and is root on the host in all but name, so that being believed gives it nothing that it has not got. A node
    /// of kind is such a container. A pod never is one, nor what runs within such a container.
    #[must_use]
    pub(crate) const fn may_name_others(&self) -> bool {
        self.privileged
            && self.pod_known
            && self.pod.is_none()
            && self.outer.is_none()
            && self.inner.is_none()
    }

    /// Whether it belongs to a pod whose labels are not known.
    #[must_use]
    pub(crate) fn lacks_labels(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.labels.is_none())
    }

    /// This container, with its pod's labels.
    #[must_use]
    pub(crate) fn with_labels(&self, labels: BTreeMap<String, String>) -> Self {
        let pod = self.pod.clone().map(|pod| Pod { labels: Some(labels), ..pod });
        Self { pod, ..self.clone() }
    }

    /// This container, with what its engine says where nothing better is known; None if that is nothing new. The host's
    /// engine knows nothing of containers within others, whatever id those give themselves.
    #[must_use]
    pub(crate) fn completed(&self, witnessed: &EngineContainer) -> Option<Self> {
        if self.outer.is_some() {
            return None;
        }
        let isolation = self.isolation.or_else(|| witnessed.isolation());
        let completed = match &witnessed.pod.labels {
            _ if !self.pod_known => {
                Self { inner: self.inner.clone(), isolation, ..Self::of_engine(witnessed) }
            }
            Some(labels) if self.lacks_labels() => Self { isolation, ..self.with_labels(labels.clone()) },
            _ => Self { isolation, ..self.clone() },
        };
        (completed != *self).then_some(completed)
    }

    /// A container that only its engine tells of.
    #[must_use]
    pub(crate) fn of_engine(witnessed: &EngineContainer) -> Self {
        Self {
            id: witnessed.id.clone(),
            runtime: witnessed.runtime.clone(),
            kind: witnessed.kind,
            name: None,
            image: witnessed.image.clone(),
            source: Source::Cri,
            why: None,
            outer: None,
            inner: None,
            isolation: witnessed.isolation(),
            pod: Some(witnessed.pod.clone()),
            pod_known: true,
            sandbox_id: Some(witnessed.sandbox_id.clone()),
            privileged: false,
            in_process: false,
        }
    }

    /// What is shown of this container and differs from `before`, by the names of JSON's fields.
    #[must_use]
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<&'static str> {
        // Each field is named, so that a new one is not forgotten here.
        let Self {
            id,
            runtime,
            kind,
            name,
            image,
            source,
            why,
            outer,
            inner,
            isolation,
            pod,
            pod_known: _,
            sandbox_id: _,
            privileged: _,
            in_process: _,
        } = self;
        let (pod, pod_before) = (pod.as_ref(), before.pod.as_ref());
        let differs = |field: fn(&Pod) -> Option<&str>| pod.and_then(field) != pod_before.and_then(field);
        let labels = |pod: Option<&Pod>| pod.and_then(|pod| pod.labels.clone());
        let fields = [
            ("namespace", differs(|pod| Some(&pod.namespace))),
            ("pod", differs(|pod| Some(&pod.name))),
            ("podUid", differs(|pod| pod.pod_uid.as_deref())),
            ("container", differs(|pod| pod.container.as_deref())),
            ("labels", labels(pod) != labels(pod_before)),
            ("id", *id != before.id),
            ("runtime", *runtime != before.runtime),
            ("type", *kind != before.kind),
            ("name", *name != before.name),
            ("image", *image != before.image),
            ("source", *source != before.source),
            ("why", *why != before.why),
            ("outer", *outer != before.outer),
            ("inner", *inner != before.inner),
            ("isolation", *isolation != before.isolation),
        ];
        fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// This container, with one that a runtime in it says it has started.
    #[must_use]
    pub(crate) fn with_inner(&self, inner: Nested) -> Self {
        Self { inner: Some(inner), ..self.clone() }
    }
}

/// A container around another one, or in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Nested {
    /// As its runtime was told.
    pub(crate) id: String,
    /// The engine, or the runtime.
    pub(crate) runtime: String,
}

/// Why a container's bundle and pod did not become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unknown {
    /// The runtime is not believed: it is not the host's root.
    Untrusted,
    /// Neither bundle nor state could be read, or they made no sense.
    Unreadable,
    /// The runtime's command line does not tell.
    NotUnderstood,
    /// It takes too long.
    Late,
    /// Its start was missed, and nothing on disk tells of it.
    Missed,
}

impl Unknown {
    /// As it is shown.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Unreadable => "unreadable",
            Self::NotUnderstood => "not-understood",
            Self::Late => "late",
            Self::Missed => "missed",
        }
    }
}

/// What runs a container's processes where this kernel does not see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Isolation {
    /// gVisor: a kernel in user space.
    Gvisor,
    /// Kata: a virtual machine.
    Kata,
}

impl Isolation {
    /// What a runtime or a CRI handler of this name isolates containers with, if it does.
    #[must_use]
    pub(crate) fn of_runtime(name: &str) -> Option<Self> {
        if name.contains("runsc") || name.contains("gvisor") {
            Some(Self::Gvisor)
        } else if name.contains("kata") {
            Some(Self::Kata)
        } else {
            None
        }
    }

    /// As it is shown.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gvisor => "gvisor",
            Self::Kata => "kata",
        }
    }
}

/// The Kubernetes side of a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// The pod's name.
    #[serde(rename = "pod")]
    pub(crate) name: String,
    /// The pod's uid; older containerds do not say.
    pub(crate) pod_uid: Option<String>,
    /// The container's name within the pod; none for the sandbox.
    pub(crate) container: Option<String>,
    /// The pod's labels; `None`, in JSON null, as long as they are unknown.
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

/// The labels that the API server has of a pod, from those that a bundle or an engine shows.
#[must_use]
pub(crate) fn without_added_labels(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|key, _| !crio::ADDED_LABELS.contains(&key.as_str()));
    labels
}

/// What kind of container it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ContainerType {
    /// Keeps a pod's namespaces (pause).
    Sandbox,
    /// Runs a program.
    Container,
}

impl ContainerType {
    /// As it is shown.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Container => "container",
        }
    }
}

/// How a container was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// From the bundle that the runtime was started with.
    Bundle,
    /// From the runtime's state on disk.
    State,
    /// From the container engine, over its CRI.
    Cri,
    /// From the process alone: neither bundle nor state could be read.
    Cgroup,
}

impl Source {
    /// As it is shown.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::State => "state",
            Self::Cri => "cri",
            Self::Cgroup => "cgroup",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_pod(labels: Option<&[(&str, &str)]>) -> Container {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let pod = Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            pod_uid: None,
            container: Some("nginx".into()),
            labels: labels.map(|labels| labels.iter().map(own).collect()),
        };
        Container { pod: Some(pod), pod_known: true, ..Container::unknown(Unknown::Late) }
    }

    #[test]
    fn unknown_labels_are_null_and_no_labels_are_empty() {
        for (labels, json) in [(None, "null"), (Some(&[][..]), "{}"), (Some(&[("a", "b")]), r#"{"a":"b"}"#)] {
            let pod = of_pod(labels).pod.unwrap();
            let text = serde_json::to_string(&pod).unwrap();
            assert!(text.contains(&format!(r#""labels":{json}"#)), "{text}");
            assert_eq!(serde_json::from_str::<Pod>(&text).unwrap(), pod);
        }
    }

    #[test]
    fn only_added_labels_are_left_out() {
        let own = [("app", "web"), ("io.kubernetes.mine", "x"), ("pod.name", "y")];
        let added = crio::ADDED_LABELS.map(|key| (key, "z"));
        let all = own.iter().chain(&added).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let left = without_added_labels(all.collect());
        assert_eq!(left.into_keys().collect::<Vec<_>>(), ["app", "io.kubernetes.mine", "pod.name"]);
    }

    #[test]
    fn changes_are_named_as_json_names_them() {
        let before = of_pod(None);
        assert_eq!(before.changes_since(&before), [""; 0]);
        assert_eq!(of_pod(Some(&[])).changes_since(&before), ["labels"]);
        let after = Container {
            image: Some("nginx".into()),
            why: None,
            source: Source::Cri,
            // Nobody sees it.
            sandbox_id: Some("s".into()),
            ..of_pod(Some(&[("a", "b")]))
        };
        assert_eq!(after.changes_since(&before), ["labels", "image", "source", "why"]);
        let podless = Container { pod: None, ..of_pod(None) };
        assert_eq!(before.changes_since(&podless), ["namespace", "pod", "container"]);
    }
}
