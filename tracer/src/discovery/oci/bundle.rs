//! The container that a bundle's `config.json` (OCI runtime specification, config.md) names.

use std::{
    collections::BTreeMap,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use tracer_annotations::{Engine, Error as AnnotationsError, PodContainer, Role, crio};

use crate::{
    discovery::oci::{config_json::ConfigJson, names, origin::Origin},
    model::{ContainerType, Pod, without_added_labels},
    sys::{files, files::FileError},
};

/// Why a bundle does not name its container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file, from the runtime's root.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// The file is not a `config.json`.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file, from the runtime's root.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The annotations are incomplete.
    #[error("{}: annotations: {source}", path.display())]
    Annotations {
        /// The file, from the runtime's root.
        path: PathBuf,
        /// Why.
        source: tracer_annotations::Error,
    },
}

/// The container in a bundle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// The engine that wrote it; none if that does not show.
    pub(crate) engine: Option<&'static str>,
    /// Sandbox or container.
    pub(crate) kind: ContainerType,
    /// The name that its engine gave it, if it belongs to no pod of Kubernetes.
    pub(crate) name: Option<String>,
    /// The image.
    pub(crate) image: Option<String>,
    /// The pod, if it belongs to one.
    pub(crate) pod: Option<Pod>,
    /// That pod's sandbox.
    pub(crate) sandbox_id: Option<String>,
    /// Whether the container's root is equivalent to the host's.
    pub(crate) privileged: bool,
    /// Whether the runtime runs the program within itself (crun's and youki's wasm, krun): no entrypoint is executed.
    pub(crate) in_process: bool,
}

/// Reads `config`, the `config.json` of a bundle, below the runtime's root directory. It must belong to root or to
/// `owner`.
pub(crate) fn read(root: BorrowedFd<'_>, config: &Path, owner: u32) -> Result<Vec<u8>, BundleError> {
    let file = |source| BundleError::File { path: config.to_owned(), source };
    files::read_below(root, config, owner).map_err(file)
}

impl Bundle {
    /// Parses the `config.json` at the path `config`, of the container `id`. `read` reads other files of the engine's.
    pub(crate) fn parse(
        bytes: &[u8],
        config: &Path,
        id: &str,
        read: names::Read<'_>,
    ) -> Result<Self, BundleError> {
        let config_json = ConfigJson::parse(bytes)
            .map_err(|source| BundleError::Json { path: config.to_owned(), source })?;
        let context = Context { config: &config_json, bundle: config.parent().unwrap_or(config), id, read };
        context.interpret().map_err(|source| BundleError::Annotations { path: config.to_owned(), source })
    }
}

/// The value of [`crio::MANAGER`] that means podman.
const LIBPOD: &str = "libpod";

/// A `config.json` with what identifies its container.
struct Context<'a> {
    config: &'a ConfigJson,
    bundle: &'a Path,
    id: &'a str,
    read: names::Read<'a>,
}

impl Context<'_> {
    fn interpret(&self) -> Result<Bundle, AnnotationsError> {
        let origin = Origin::of(self.bundle, self.id, self.config, || self.stored().is_some());
        Ok(match (self.pod(origin)?, origin) {
            (Some(pod), _) => self.of_pod(pod),
            (None, Some(origin)) => self.without_pod(origin),
            // podman's transient storage may be anywhere.
            (None, None) if self.config.annotation(crio::MANAGER) == Some(LIBPOD) => {
                self.without_pod(Origin::Podman)
            }
            (None, None) => Bundle { engine: None, ..self.without_pod(Origin::Containerd) },
        })
    }

    /// The pod that a bundle of this origin belongs to. Only two engines serve Kubernetes.
    fn pod(&self, origin: Option<Origin>) -> Result<Option<PodContainer>, AnnotationsError> {
        let annotations = |key: &str| self.config.annotation(key);
        let engine = match origin {
            // This annotation is always in a pod's bundle, and nowhere else.
            Some(Origin::ContainerdCri) => Engine::Containerd.resolve(annotations)?.map(|pod| pod.engine),
            Some(Origin::CriO) => Some(Engine::CriO),
            Some(_) => None,
            None => tracer_annotations::resolve(annotations)?.map(|pod| pod.engine),
        };
        engine.map(|engine| engine.read(annotations, self.id)).transpose()
    }

    fn of_pod(&self, resolved: PodContainer) -> Bundle {
        let kind = match resolved.role {
            Role::Sandbox => ContainerType::Sandbox,
            Role::Container(_) => ContainerType::Container,
        };
        // CRI-O's labels of a container that is not a sandbox have only what is known already.
        let labels: Option<BTreeMap<String, String>> = match &resolved.labels_json {
            Some(json) if kind == ContainerType::Sandbox => {
                serde_json::from_str(json).ok().map(without_added_labels)
            }
            _ => None,
        };
        let container = resolved.container().map(str::to_owned);
        Bundle {
            engine: Some(resolved.engine.as_str()),
            kind,
            name: None,
            image: resolved.image,
            pod: Some(Pod {
                namespace: resolved.namespace,
                name: resolved.pod,
                pod_uid: resolved.pod_uid,
                container,
                labels,
            }),
            sandbox_id: resolved.sandbox_id,
            privileged: self.config.is_privileged(),
            in_process: self.runs_in_process(),
        }
    }

    fn without_pod(&self, origin: Origin) -> Bundle {
        let name = match origin {
            Origin::Docker => names::docker(self.id, self.config, self.read),
            Origin::Podman => self.stored().and_then(|stored| stored.name),
            _ => None,
        };
        let is_infra = origin == Origin::Podman
            && (name.as_deref().is_some_and(names::is_infra)
                // podman up to 5.7 has an annotation for it.
                || self.config.annotation(crio::CONTAINER_TYPE) == Some(ContainerType::Sandbox.as_str()));
        Bundle {
            engine: Some(origin.as_str()),
            kind: if is_infra { ContainerType::Sandbox } else { ContainerType::Container },
            name,
            image: None,
            pod: None,
            sandbox_id: None,
            privileged: self.config.is_privileged(),
            in_process: self.runs_in_process(),
        }
    }

    /// Whether the runtime is to run the container's program within itself: crun's handlers and youki's (crun(1)). A runtime
    /// without that handler executes the program all the same.
    fn runs_in_process(&self) -> bool {
        ["run.oci.handler", "module.wasm.image/variant"]
            .iter()
            .any(|key| self.config.annotation(key).is_some())
    }

    fn stored(&self) -> Option<names::PodmanContainer> {
        names::stored(self.bundle, self.id, self.read)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn parse(json: &str, bundle: &str, id: &str) -> Bundle {
        Bundle::parse(json.as_bytes(), &Path::new(bundle).join("config.json"), id, &|_| None).unwrap()
    }

    #[test]
    fn annotations_of_both_engines_name_pod_and_container() {
        let containerd = parse(
            include_str!("../../../annotations/tests/fixtures/kubelet-containerd-2.1.9-runc/bb2-one.json"),
            "",
            "",
        );
        let crio = parse(
            include_str!("../../../annotations/tests/fixtures/kubelet-crio-1.37-runc/bb2-one.json"),
            "",
            "",
        );
        assert_eq!((containerd.engine, crio.engine), (Some("containerd"), Some("cri-o")));
        for bundle in [containerd, crio] {
            let pod = bundle.pod.unwrap();
            assert_eq!((pod.name.as_str(), pod.container.as_deref()), ("bb2", Some("one")));
            assert_eq!(bundle.kind, ContainerType::Container);
        }
    }

    const SANDBOX: &str =
        include_str!("../../../annotations/tests/fixtures/kubelet-crio-1.37-runc/bb-sandbox.json");
    const SANDBOX_ID: &str = "8b1afba8aec8ae9655720352543f23566a342226f709eff2c1ccebe09b54de2f";

    #[test]
    fn crio_sandbox_has_labels_of_its_pod() {
        let bundle = parse(SANDBOX, "", SANDBOX_ID);
        assert_eq!(bundle.kind, ContainerType::Sandbox);
        let pod = bundle.pod.unwrap();
        assert_eq!(pod.container, None);
        let labels = pod.labels.unwrap();
        assert!(!labels.is_empty());
        // They are in the annotation and not on the API server.
        for added in crio::ADDED_LABELS {
            assert!(SANDBOX.contains(added) && !labels.contains_key(added), "{added}: {labels:?}");
        }
        // With another container's id it has no labels, and no other's sandbox.
        let bundle = parse(SANDBOX, "", "other");
        assert_eq!(bundle.sandbox_id.as_deref(), Some("other"));
        assert_eq!(bundle.pod.unwrap().labels, None);
    }

    /// Annotations of a pod in the form of both engines, as `--annotation` of docker and podman can have them.
    fn of_pod() -> String {
        let annotations = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-namespace": "ns",
            "io.kubernetes.cri.sandbox-name": "pod",
            "io.kubernetes.cri.container-name": "app",
            "io.container.manager": "cri-o",
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.pod.namespace": "ns",
            "io.kubernetes.pod.name": "pod",
            "io.kubernetes.pod.uid": "uid",
            "io.kubernetes.container.name": "app",
        });
        json!({"annotations": annotations, "linux": {"cgroupsPath": "/x/libpod-1f"}}).to_string()
    }

    #[test]
    fn only_kubernetes_engines_have_pods() {
        let task = "/run/containerd/io.containerd.runtime.v2.task";
        for (bundle, id, engine, has_pod) in [
            (format!("{task}/moby/1f"), "1f", "docker", false),
            (format!("{task}/default/1f"), "1f", "containerd", false),
            (format!("{task}/k8s.io/1f"), "1f", "containerd", true),
            ("/s/overlay-containers/1f/userdata".into(), "1f", "podman", false),
            ("/s/overlay-containers/2f/userdata".into(), "2f", "cri-o", true),
            ("/var/tmp/buildah1".into(), "buildah-buildah1", "buildah", false),
            ("/var/lib/docker/buildkit/executor/1f".into(), "1f", "buildkit", false),
        ] {
            let found = parse(&of_pod(), &bundle, id);
            assert_eq!((found.engine, found.pod.is_some()), (Some(engine), has_pod), "{bundle}");
        }
    }

    #[test]
    fn containers_without_pod_show_their_engine() {
        let engine = |json: &str, path: &str| parse(json, path, "1").engine;
        let task = "/run/containerd/io.containerd.runtime.v2.task";
        assert_eq!(engine("{}", &format!("{task}/moby/1")), Some("docker"));
        assert_eq!(engine(r#"{"annotations":null}"#, &format!("{task}/default/1")), Some("containerd"));
        assert_eq!(engine("{}", &format!("{task}/k8s.io/1")), Some("containerd"));
        assert_eq!(engine(r#"{"annotations":{"io.container.manager":"libpod"}}"#, "/b"), Some("podman"));
        assert_eq!(engine("{}", "/tmp/bundle"), None);
    }

    #[test]
    fn podman_infra_containers_are_sandboxes() {
        let bundle = "/s/overlay-containers/1f/userdata";
        let said = r#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"sandbox","io.container.manager":"libpod"}}"#;
        assert_eq!(parse(said, bundle, "1f").kind, ContainerType::Sandbox);
        let kind = |name: &str| {
            let storage = format!(r#"[{{"id":"1f","names":["{name}"]}}]"#);
            let config = Path::new(bundle).join("config.json");
            let beside = |_: &Path| Some(storage.clone().into_bytes());
            let found = Bundle::parse(b"{}", &config, "1f", &beside).unwrap();
            assert_eq!((found.engine, found.name.as_deref()), (Some("podman"), Some(name)));
            found.kind
        };
        assert_eq!(kind("0123456789ab-infra"), ContainerType::Sandbox);
        assert_eq!(kind("web"), ContainerType::Container);
    }
}
