//! The bundle's `config.json` (OCI runtime specification, config.md) as far as it names the container.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};
use serde::{Deserialize, de::Error as _};
use serde_json::Value;
use tracer_annotations::{Engine, PodContainer, Role};

use super::files::{self, FileError};
use crate::{
    containers::{ContainerType, Pod},
    json::is_object,
};

/// Why a bundle does not name its container.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file was not read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file, from the runtime's root.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// It is not a `config.json`.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file, from the runtime's root.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Its annotations are incomplete.
    #[error("{}: annotations: {source}", path.display())]
    Annotations {
        /// The file, from the runtime's root.
        path: PathBuf,
        /// Why.
        source: tracer_annotations::Error,
    },
}

/// What a bundle says.
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The engine that wrote it; none where it does not show.
    pub engine: Option<&'static str>,
    /// Sandbox or container.
    pub kind: ContainerType,
    /// The image.
    pub image: Option<String>,
    /// The pod, if it belongs to one.
    pub pod: Option<Pod>,
    /// That pod's sandbox.
    pub sandbox_id: Option<String>,
    /// Whether it lets its container do all that root may.
    pub privileged: bool,
    /// Whether the runtime runs the program within itself (crun's and youki's wasm, krun): no entrypoint is executed.
    pub in_process: bool,
}

/// Reads `config`, the `config.json` of a bundle, below the runtime's root directory. It must belong to root or to
/// `owner`.
pub fn read_bytes(root: BorrowedFd<'_>, config: &Path, owner: u32) -> Result<Vec<u8>, BundleError> {
    let file = |source| BundleError::File { path: config.to_owned(), source };
    files::read_below(root, config, owner).map_err(file)
}

impl Bundle {
    /// From what the `config.json` at the path `config` holds.
    pub fn parse(bytes: &[u8], config: &Path) -> Result<Self, BundleError> {
        let config_json =
            parse(bytes).map_err(|source| BundleError::Json { path: config.to_owned(), source })?;
        let in_process = runs_in_process(&config_json.annotations);
        let bundle = interpret(config_json, config)
            .map_err(|source| BundleError::Annotations { path: config.to_owned(), source })?;
        Ok(Self { in_process, ..bundle })
    }
}

/// What is needed of a `config.json`.
#[derive(Debug, Default)]
struct ConfigJson {
    annotations: HashMap<String, String>,
    privileged: bool,
}

/// Should oci-spec refuse a value that it does not know, as newer runtimes may write, the annotations are read
/// without it.
fn parse(bytes: &[u8]) -> Result<ConfigJson, serde_json::Error> {
    /// The part of a `config.json` that is needed.
    #[derive(Deserialize)]
    struct Minimal {
        annotations: Option<HashMap<String, String>>,
    }
    if !is_object(bytes) {
        return Err(serde_json::Error::custom("not a JSON object"));
    }
    match serde_json::from_slice::<Spec>(bytes) {
        Ok(spec) => Ok(ConfigJson {
            privileged: is_privileged(&spec, bytes),
            annotations: spec.annotations().clone().unwrap_or_default(),
        }),
        Err(refused) => {
            let minimal: Minimal = serde_json::from_slice(bytes)?;
            tracing::debug!("config.json is read without the OCI specification: {refused}");
            Ok(ConfigJson { annotations: minimal.annotations.unwrap_or_default(), privileged: false })
        }
    }
}

/// Whether the runtime is told to run the container's program within itself: crun's handlers and youki's (crun(1), `run.oci.handler`
/// and `module.wasm.image/variant`). One that has no such handler executes the program all the same.
fn runs_in_process(annotations: &HashMap<String, String>) -> bool {
    annotations.contains_key("run.oci.handler") || annotations.contains_key("module.wasm.image/variant")
}

/// The capabilities with which each of the walls around a container comes down.
const PRIVILEGES: [(Capability, &str); 5] = [
    (Capability::SysAdmin, "CAP_SYS_ADMIN"),
    (Capability::SysModule, "CAP_SYS_MODULE"),
    (Capability::SysPtrace, "CAP_SYS_PTRACE"),
    (Capability::SysRawio, "CAP_SYS_RAWIO"),
    (Capability::DacReadSearch, "CAP_DAC_READ_SEARCH"),
];

/// Whether nothing keeps the container's root from being the host's: no user namespace of its own, and the capabilities
/// for all else.
fn is_privileged(spec: &Spec, bytes: &[u8]) -> bool {
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = capabilities.and_then(|capabilities| capabilities.bounding().as_ref());
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    bounding.is_some_and(|bounding| PRIVILEGES.iter().all(|(needed, _)| bounding.contains(needed)))
        && namespaces.iter().all(|namespace| namespace.typ() != LinuxNamespaceType::User)
        && grants_by_name(bytes)
}

/// Whether the capabilities are spelled as engines do. oci-spec takes `sys_admin` as well, which runc grants nothing for.
fn grants_by_name(bytes: &[u8]) -> bool {
    let config: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let bounding = config["process"]["capabilities"]["bounding"].as_array();
    let grants = |name: &str| bounding.is_some_and(|bounding| bounding.iter().any(|granted| granted == name));
    PRIVILEGES.iter().all(|(_, name)| grants(name))
}

fn interpret(config_json: ConfigJson, config: &Path) -> Result<Bundle, tracer_annotations::Error> {
    let ConfigJson { annotations, privileged } = config_json;
    let Some(resolved) = resolve(&annotations, config)? else {
        let engine = engine_without_pod(&annotations, config);
        let kind = ContainerType::Container;
        return Ok(Bundle {
            engine,
            kind,
            image: None,
            pod: None,
            sandbox_id: None,
            privileged,
            in_process: false,
        });
    };
    let kind = match resolved.role {
        Role::Sandbox => ContainerType::Sandbox,
        Role::Container(_) => ContainerType::Container,
    };
    // In containers that are no sandbox CRI-O's hold only what is known already.
    let labels: Option<BTreeMap<String, String>> = match &resolved.labels_json {
        Some(json) if kind == ContainerType::Sandbox => serde_json::from_str(json).ok(),
        _ => None,
    };
    let container = resolved.container().map(str::to_owned);
    Ok(Bundle {
        engine: Some(resolved.engine.as_str()),
        kind,
        image: resolved.image,
        pod: Some(Pod {
            namespace: resolved.namespace,
            name: resolved.pod,
            pod_uid: resolved.pod_uid,
            container,
            labels,
        }),
        sandbox_id: resolved.sandbox_id,
        privileged,
        in_process: false,
    })
}

/// Of annotations that two engines lay claim to only the engine that made the bundle counts, which its path
/// tells: CRI-O copies what a pod's author wrote, who could otherwise make their pod pass for another, or for none.
fn resolve(
    annotations: &HashMap<String, String>,
    config: &Path,
) -> Result<Option<PodContainer>, tracer_annotations::Error> {
    let contested = match tracer_annotations::resolve(annotations) {
        Err(error @ tracer_annotations::Error::Contested { .. }) => error,
        resolved => return resolved,
    };
    let path = config.to_string_lossy();
    if path.contains("/io.containerd.runtime.") {
        Engine::Containerd.resolve(annotations)
    } else if path.contains("/overlay-containers/") {
        Engine::CriO.resolve(annotations)
    } else {
        Err(contested)
    }
}

/// Which engine made a container that belongs to no pod: podman says so, containerd's clients show by the path.
fn engine_without_pod(annotations: &HashMap<String, String>, config: &Path) -> Option<&'static str> {
    if annotations.get("io.container.manager").is_some_and(|manager| manager == "libpod") {
        return Some("podman");
    }
    let path = config.to_string_lossy();
    if !path.contains("/io.containerd.runtime.") {
        return None;
    }
    Some(if path.contains("/moby/") { "docker" } else { "containerd" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpret_fixture(json: &str, config: &str) -> Bundle {
        interpret(parse(json.as_bytes()).unwrap(), Path::new(config)).unwrap()
    }

    #[test]
    fn both_dialects_name_pod_and_container() {
        let containerd = interpret_fixture(
            include_str!("../../annotations/tests/fixtures/kubelet-containerd-2.1.9-runc/bb2-one.json"),
            "",
        );
        let crio = interpret_fixture(
            include_str!("../../annotations/tests/fixtures/kubelet-crio-1.37-runc/bb2-one.json"),
            "",
        );
        assert_eq!((containerd.engine, crio.engine), (Some("containerd"), Some("cri-o")));
        for bundle in [containerd, crio] {
            let pod = bundle.pod.unwrap();
            assert_eq!((pod.name.as_str(), pod.container.as_deref()), ("bb2", Some("one")));
            assert_eq!(bundle.kind, ContainerType::Container);
        }
    }

    #[test]
    fn a_sandbox_of_crio_brings_the_labels_of_its_pod() {
        let bundle = interpret_fixture(
            include_str!("../../annotations/tests/fixtures/kubelet-crio-1.37-runc/bb-sandbox.json"),
            "",
        );
        assert_eq!(bundle.kind, ContainerType::Sandbox);
        let pod = bundle.pod.unwrap();
        assert_eq!(pod.container, None);
        assert!(pod.labels.is_some_and(|labels| !labels.is_empty()));
    }

    #[test]
    fn containers_without_pod_show_their_engine_where_they_can() {
        let engine = |json: &str, path: &str| interpret_fixture(json, path).engine;
        let task = "/run/containerd/io.containerd.runtime.v2.task";
        assert_eq!(engine("{}", &format!("{task}/moby/1/config.json")), Some("docker"));
        assert_eq!(
            engine(r#"{"annotations":null}"#, &format!("{task}/default/1/config.json")),
            Some("containerd")
        );
        assert_eq!(engine(r#"{"annotations":{"io.container.manager":"libpod"}}"#, ""), Some("podman"));
        assert_eq!(engine("{}", "/tmp/bundle/config.json"), None);
    }

    #[test]
    fn a_value_that_the_specification_does_not_know_costs_nothing_but_itself() {
        let json =
            r#"{"ociVersion":"9","linux":{"namespaces":[{"type":"unheard-of"}]},"annotations":{"a":"b"}}"#;
        assert!(serde_json::from_str::<Spec>(json).is_err());
        assert_eq!(parse(json.as_bytes()).unwrap().annotations["a"], "b");
    }

    #[test]
    fn privileged_is_what_has_every_capability_that_matters_and_no_user_namespace() {
        let privileged = |capabilities: &str, namespaces: &str| {
            let json = format!(
                r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/","capabilities":{{"bounding":[{capabilities}]}}}},
                "linux":{{"namespaces":[{namespaces}]}}}}"#
            );
            serde_json::from_str::<Spec>(&json).unwrap();
            parse(json.as_bytes()).unwrap().privileged
        };
        let all =
            r#""CAP_SYS_ADMIN","CAP_SYS_MODULE","CAP_SYS_PTRACE","CAP_SYS_RAWIO","CAP_DAC_READ_SEARCH""#;
        assert!(privileged(all, r#"{"type":"mount"}"#));
        assert!(!privileged(all, r#"{"type":"mount"},{"type":"user"}"#));
        assert!(!privileged(r#""CAP_SYS_ADMIN","CAP_SYS_PTRACE""#, r#"{"type":"mount"}"#));
        assert!(!privileged(&all.replace("CAP_SYS_RAWIO", "CAP_SYs_RAWIO"), r#"{"type":"mount"}"#));
        assert!(!parse(b"{}").unwrap().privileged);
    }

    #[test]
    fn a_list_is_no_configuration() {
        for json in [r#"[{"io.container.manager":"libpod"}]"#, "[null]", "[]", "7", ""] {
            assert!(parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn nesting_without_end_is_an_error() {
        let json = format!("{}{}", r#"{"x":"#.repeat(100_000), "1");
        assert!(parse(json.as_bytes()).is_err());
    }
}
