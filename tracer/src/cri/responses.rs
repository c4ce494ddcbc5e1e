//! Converts CRI messages to pods and containers.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    cri::proto,
    model::{ContainerType, EngineContainer, Pod, json::is_object, without_added_labels},
};

/// The metadata and labels of a pod, from its sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLabels {
    /// Id of its sandbox. A pod whose sandbox was replaced is listed once for each sandbox that has not been removed
    /// yet.
    pub sandbox_id: String,
    /// The pod's uid; empty if the engine was not given one.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's labels, as `kubectl get pod --show-labels` shows them.
    pub labels: BTreeMap<String, String>,
}

/// A pod sandbox, from a list or a status, which contain the same data.
pub(super) struct Sandbox {
    pub(super) pod: PodLabels,
    handler: Option<String>,
    pub(super) ready: bool,
    created_at: Option<i64>,
}

impl Sandbox {
    /// From a list; `None` if the sandbox has no metadata, which every real one has.
    pub(super) fn listed(sandbox: proto::PodSandbox) -> Option<Self> {
        Self::status(proto::PodSandboxStatus {
            id: sandbox.id,
            metadata: sandbox.metadata,
            state: sandbox.state,
            created_at: sandbox.created_at,
            labels: sandbox.labels,
            runtime_handler: sandbox.runtime_handler,
        })
    }

    /// From a status; `None` if the sandbox has no metadata, which every real one has.
    pub(super) fn status(status: proto::PodSandboxStatus) -> Option<Self> {
        let metadata = status.metadata?;
        Some(Self {
            pod: PodLabels {
                sandbox_id: status.id,
                uid: metadata.uid,
                namespace: metadata.namespace,
                name: metadata.name,
                labels: without_added_labels(status.labels),
            },
            handler: filled(status.runtime_handler),
            ready: status.state == proto::SANDBOX_READY,
            created_at: time(status.created_at),
        })
    }

    /// The sandbox as a container.
    pub(super) fn itself(&self, engine: &str) -> EngineContainer {
        EngineContainer {
            id: self.pod.sandbox_id.clone(),
            kind: ContainerType::Sandbox,
            pod: self.pod_of(None),
            image: None,
            runtime: engine.to_owned(),
            runtime_handler: self.handler.clone(),
            pid: None,
            started_at: self.created_at,
            running: self.ready,
            sandbox_id: self.pod.sandbox_id.clone(),
        }
    }

    /// A container of the pod, from a list, which lacks its start time.
    pub(super) fn container(&self, engine: &str, container: proto::Container) -> EngineContainer {
        self.member(
            engine,
            proto::ContainerStatus {
                id: container.id,
                metadata: container.metadata,
                state: container.state,
                started_at: 0,
                image: container.image,
            },
        )
    }

    /// A container of the pod, from a status.
    pub(super) fn member(&self, engine: &str, status: proto::ContainerStatus) -> EngineContainer {
        let name = status.metadata.and_then(|metadata| filled(metadata.name));
        EngineContainer {
            id: status.id,
            kind: ContainerType::Container,
            pod: self.pod_of(name),
            image: status.image.and_then(image),
            runtime: engine.to_owned(),
            runtime_handler: self.handler.clone(),
            pid: None,
            started_at: time(status.started_at),
            running: status.state == proto::CONTAINER_RUNNING,
            sandbox_id: self.pod.sandbox_id.clone(),
        }
    }

    fn pod_of(&self, container: Option<String>) -> Pod {
        Pod {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            pod_uid: filled(self.pod.uid.clone()),
            container,
            labels: Some(self.pod.labels.clone()),
        }
    }
}

/// Completes a container from a list with the data of its verbose status.
pub(super) fn complete(container: &mut EngineContainer, status: Option<proto::ContainerStatus>, info: &Info) {
    if let Some(status) = status {
        container.running = status.state == proto::CONTAINER_RUNNING;
        container.started_at = time(status.started_at);
        // The status has the resolved image, the list the image as it was requested.
        container.image = status.image.and_then(image).or(container.image.take());
    }
    container.image = container.image.take().or_else(|| info.image.clone());
    container.pid = info.pid;
}

/// The part that is used of the JSON that containerd and CRI-O put into a verbose status, under the key `info`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Info {
    /// Process id of the first process; None if there is none (0 or absent).
    #[serde(default, deserialize_with = "pid")]
    pub(crate) pid: Option<u32>,
    /// The image; only sandboxes have it here.
    #[serde(default)]
    pub(crate) image: Option<String>,
}

impl Info {
    /// Parses the JSON. Everything is None if it is absent or has another form.
    #[must_use]
    pub(crate) fn parse(info: &BTreeMap<String, String>) -> Self {
        let objects = info.get("info").filter(|json| is_object(json.as_bytes()));
        objects.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

fn pid<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.filter(|pid| *pid != 0))
}

fn image(spec: proto::ImageSpec) -> Option<String> {
    filled(spec.user_specified_image).or_else(|| filled(spec.image))
}

/// None for an empty string: proto3 does not distinguish it from an absent one.
fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// None for 0, which means that the time is absent.
fn time(nanoseconds: i64) -> Option<i64> {
    (nanoseconds > 0).then_some(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As containerd 1.6.20 wrote it for a sandbox, with the configuration removed from the end.
    const SANDBOX: &str = r#"{"pid":2574,"processStatus":"running","netNamespaceClosed":false,"image":"localhost/tracer-pause:1","snapshotKey":"e89881dc739c83da0e75cd3724bfbaa3fb3297c40266d2553821a83716407796","snapshotter":"native","runtimeHandler":"","runtimeType":"io.containerd.runc.v2","runtimeOptions":{"root":"/run/x"}}"#;
    /// As containerd wrote it for a container that had been created but not started.
    const CREATED: &str = r#"{"sandboxID":"e89881dc739c83da0e75cd3724bfbaa3fb3297c40266d2553821a83716407796","pid":0,"removing":false,"snapshotKey":"2165ec95f1d387ef1a53a8cb1789caa6b5acb803642a03cc7bce48289c5b96ae","snapshotter":"native","runtimeType":"io.containerd.runc.v2","runtimeOptions":{"root":"/run/x"},"config":{"metadata":{"name":"later"},"image":{"image":"localhost/tracer-test:1"}}}"#;

    fn info(key: &str, json: &str) -> Info {
        Info::parse(&[(key.to_owned(), json.to_owned())].into())
    }

    fn sandbox() -> Sandbox {
        let labels = [
            ("app", "web"),
            ("app.kubernetes.io/name", "web"),
            ("io.kubernetes.mine", "x"),
            ("io.kubernetes.pod.name", "web-1"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", "u"),
            ("io.kubernetes.container.name", "POD"),
        ];
        Sandbox::status(proto::PodSandboxStatus {
            id: "s".to_owned(),
            metadata: Some(proto::PodSandboxMetadata {
                name: "web-1".to_owned(),
                uid: "u".to_owned(),
                namespace: "shop".to_owned(),
            }),
            state: proto::SANDBOX_READY,
            created_at: 7,
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            runtime_handler: "runsc".to_owned(),
        })
        .unwrap()
    }

    fn spec(image: &str, user_specified: &str) -> proto::ImageSpec {
        proto::ImageSpec { image: image.to_owned(), user_specified_image: user_specified.to_owned() }
    }

    #[test]
    fn pid_and_image_are_parsed_from_info() {
        let sandbox = Info { pid: Some(2574), image: Some("localhost/tracer-pause:1".to_owned()) };
        assert_eq!(info("info", SANDBOX), sandbox);
        assert_eq!(info("info", CREATED), Info::default());
    }

    #[test]
    fn info_of_another_form_is_ignored() {
        for json in
            ["", "[]", r#"[1,"a"]"#, "null", "{", "{}", r#"{"pid":-1}"#, r#"{"pid":"1"}"#, r#"{"pid":null}"#]
        {
            assert_eq!(info("info", json), Info::default(), "{json}");
        }
        assert_eq!(info("other", SANDBOX), Info::default());
    }

    #[test]
    fn only_labels_that_kubectl_shows_are_kept() {
        let reported = sandbox().itself("containerd");
        let keys: Vec<&str> = reported.pod.labels.as_ref().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["app", "app.kubernetes.io/name", "io.kubernetes.mine"]);
        assert_eq!(reported.runtime_handler.as_deref(), Some("runsc"));
    }

    #[test]
    fn image_name_is_the_one_in_the_pod_spec() {
        let listed = |image| {
            let container = proto::Container { id: "c".to_owned(), image, ..Default::default() };
            sandbox().container("containerd", container)
        };
        assert_eq!(listed(Some(spec("sha256:1", "web:1"))).image.as_deref(), Some("web:1"));
        assert_eq!(listed(None).image, None);
        let mut container = listed(Some(spec("sha256:1", "")));
        let status = |image| proto::ContainerStatus { image, ..Default::default() };
        complete(&mut container, Some(status(None)), &Info::default());
        assert_eq!(container.image.as_deref(), Some("sha256:1"));
        complete(&mut container, Some(status(Some(spec("web:1", "")))), &Info::default());
        assert_eq!(container.image.as_deref(), Some("web:1"));
    }

    #[test]
    fn sandbox_without_metadata_is_skipped() {
        assert!(Sandbox::status(proto::PodSandboxStatus::default()).is_none());
    }
}
