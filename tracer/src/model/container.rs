//! The metadata of a container, as it is displayed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracer_annotations::crio;

use crate::model::EngineContainer;

/// A container, once its bundle has been read or reading it has failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    /// The id that the runtime was given; empty if not known.
    pub(crate) id: String,
    /// The engine, or the runtime if the engine is not known.
    pub(crate) runtime: String,
    /// Whether it is a pod's sandbox (pause) or another container.
    #[serde(rename = "type")]
    pub(crate) kind: ContainerType,
    /// The name that its engine gave it, if it does not belong to a Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The image as the annotations name it.
    pub(crate) image: Option<String>,
    /// Where the metadata comes from.
    pub(crate) source: Source,
    /// Why nothing is known but that it is a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Unknown>,
    /// The container that its runtime runs in: a node of kind, an engine in a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outer: Option<Nested>,
    /// A container that a runtime in this container claims to have started. Its processes are attributed to this
    /// container: a container of a pod must not name others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inner: Option<Nested>,
    /// The sandbox that hides its processes from this kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) isolation: Option<Isolation>,
    /// The pod that it belongs to, if any.
    #[serde(skip)]
    pub(crate) pod: Option<Pod>,
    /// Whether `pod` is known. If not, the container may belong to a pod although `pod` is None.
    #[serde(skip)]
    pub(crate) pod_known: bool,
    /// Id of the pod's sandbox.
    #[serde(skip)]
    pub(crate) sandbox_id: Option<String>,
    /// Whether it has the powers of root on the host.
    #[serde(skip)]
    pub(crate) privileged: bool,
    /// Whether its runtime runs its program in the runtime's own process, so that no entrypoint is executed.
    #[serde(skip)]
    pub(crate) in_process: bool,
}

impl Container {
    /// A container without any known metadata, for this reason.
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

    /// The container of a pod, as its bundle says.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_pod(pod: Pod) -> Self {
        Self {
            source: Source::Bundle,
            why: None,
            pod: Some(pod),
            pod_known: true,
            ..Self::unknown(Unknown::Late)
        }
    }

    /// Whether runtimes in this container (a node container) may name containers and their pods, like those of the
    /// host: it belongs to no pod and has the powers of root on the host, so trusting it gives it nothing that it
    /// does not have already. A node of kind is such a container. A pod's container never is, nor is a container
    /// within another one.
    #[must_use]
    pub(crate) const fn may_name_others(&self) -> bool {
        self.privileged
            && self.pod_known
            && self.pod.is_none()
            && self.outer.is_none()
            && self.inner.is_none()
    }

    /// Whether it belongs to a pod with unknown labels.
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

    /// This container, completed with the engine's data where nothing better is known; None if that changes nothing.
    /// The host's engine does not know containers within others, whatever ids those have.
    #[must_use]
    pub(crate) fn completed(&self, reported: &EngineContainer) -> Option<Self> {
        if self.outer.is_some() {
            return None;
        }
        let isolation = self.isolation.or_else(|| reported.isolation());
        let completed = match &reported.pod.labels {
            _ if !self.pod_known => {
                Self { inner: self.inner.clone(), isolation, ..Self::of_engine(reported) }
            }
            Some(labels) if self.lacks_labels() => Self { isolation, ..self.with_labels(labels.clone()) },
            _ => Self { isolation, ..self.clone() },
        };
        (completed != *self).then_some(completed)
    }

    /// A container that is known from its engine only.
    #[must_use]
    pub(crate) fn of_engine(reported: &EngineContainer) -> Self {
        Self {
            id: reported.id.clone(),
            runtime: reported.runtime.clone(),
            kind: reported.kind,
            name: None,
            image: reported.image.clone(),
            source: Source::Cri,
            why: None,
            outer: None,
            inner: None,
            isolation: reported.isolation(),
            pod: Some(reported.pod.clone()),
            pod_known: true,
            sandbox_id: Some(reported.sandbox_id.clone()),
            privileged: false,
            in_process: false,
        }
    }

    /// The JSON names of the displayed fields that differ from `before`.
    #[must_use]
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<&'static str> {
        // The pattern names each field, so that a new one is not forgotten here.
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

    /// This container, with one that a runtime in it claims to have started.
    #[must_use]
    pub(crate) fn with_inner(&self, inner: Nested) -> Self {
        Self { inner: Some(inner), ..self.clone() }
    }
}

/// A container around another one, or within it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Nested {
    /// The id that its runtime was given.
    pub(crate) id: String,
    /// The engine, or the runtime.
    pub(crate) runtime: String,
}

/// Why a container's bundle and pod are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unknown {
    /// The runtime is not trusted, because it does not run as root of the host.
    Untrusted,
    /// Neither the bundle nor the runtime's state could be read, or they were invalid.
    Unreadable,
    /// The runtime's command line does not name the bundle.
    NotUnderstood,
    /// Reading the bundle takes too long.
    Late,
    /// Its start was missed, and no state on disk describes it.
    Missed,
}

impl Unknown {
    /// The value in JSON and columns.
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

/// A sandbox that runs a container's processes out of sight of this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// gVisor: a kernel in user space.
    Gvisor,
    /// Kata: a virtual machine.
    Kata,
}

impl Isolation {
    /// The sandbox that a runtime or CRI handler of this name uses, if any.
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

    /// The value in JSON and columns.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Gvisor => "gvisor",
            Self::Kata => "kata",
        }
    }
}

/// The pod that a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    #[serde(rename = "pod")]
    pub name: String,
    /// The pod's uid; containerd writes it since 1.6.11.
    pub pod_uid: Option<String>,
    /// The container's name in the pod's spec; None for the sandbox.
    pub container: Option<String>,
    /// The pod's labels; None, null in JSON, while they are unknown.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The labels that the API server has for a pod, from those that a bundle or an engine lists.
#[must_use]
pub(crate) fn without_added_labels(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.retain(|key, _| !crio::ADDED_LABELS.contains(&key.as_str()));
    labels
}

/// The type of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerType {
    /// Holds a pod's namespaces (pause).
    Sandbox,
    /// Runs a program.
    Container,
}

impl ContainerType {
    /// The value in JSON and columns.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Container => "container",
        }
    }
}

/// Where a container's metadata comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// The bundle that the runtime was started with.
    Bundle,
    /// The runtime's state on disk.
    State,
    /// The container engine, through the CRI.
    Cri,
    /// The process's cgroup only: neither bundle nor state could be read.
    Cgroup,
}

impl Source {
    /// The value in JSON and columns.
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
    fn only_added_labels_are_removed() {
        let own = [("app", "web"), ("io.kubernetes.mine", "x"), ("pod.name", "y")];
        let added = crio::ADDED_LABELS.map(|key| (key, "z"));
        let all = own.iter().chain(&added).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let left = without_added_labels(all.collect());
        assert_eq!(left.into_keys().collect::<Vec<_>>(), ["app", "io.kubernetes.mine", "pod.name"]);
    }

    #[test]
    fn changes_are_listed_by_their_json_names() {
        let before = of_pod(None);
        assert_eq!(before.changes_since(&before), [""; 0]);
        assert_eq!(of_pod(Some(&[])).changes_since(&before), ["labels"]);
        let after = Container {
            image: Some("nginx".into()),
            why: None,
            source: Source::Cri,
            // Not displayed.
            sandbox_id: Some("s".into()),
            ..of_pod(Some(&[("a", "b")]))
        };
        assert_eq!(after.changes_since(&before), ["labels", "image", "source", "why"]);
        let podless = Container { pod: None, ..of_pod(None) };
        assert_eq!(before.changes_since(&podless), ["namespace", "pod", "container"]);
    }
}
