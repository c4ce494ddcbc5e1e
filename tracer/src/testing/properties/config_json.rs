//! The `config.json` of a bundle. Input: where the bundle is, and what the file holds.

use std::path::Path;

use crate::{
    discovery::oci::bundle::Bundle,
    model::{Container, ContainerType, Unknown},
};
use serde_json::Value;

use super::{Target, fixtures, shown};

pub(super) const TARGET: Target = Target { name: "config_json", check, seeds };

/// Bundles of containerd's pods, docker's containers, CRI-O's or podman's containers, and of nobody's.
const PATHS: [&str; 4] = [
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/1/config.json",
    "/run/containerd/io.containerd.runtime.v2.task/moby/1/config.json",
    "/run/containers/storage/overlay-containers/1/userdata/config.json",
    "/tmp/b/config.json",
];

/// The container whose bundle it is.
const ID: &str = "1";

/// What a container needs to be as good as root on the host.
const PRIVILEGES: [&str; 5] =
    ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_DAC_READ_SEARCH"];

fn seeds() -> Vec<Vec<u8>> {
    let privileges = PRIVILEGES.map(|name| format!("{name:?}")).join(",");
    let written = [
        "{}".to_owned(),
        r#"{"annotations":null}"#.into(),
        r#"{"annotations":{"io.container.manager":"libpod"}}"#.into(),
        r#"{"ociVersion":"9","linux":{"namespaces":[{"type":"unheard-of"}]},"annotations":{"a":"b"}}"#.into(),
        r#"{"annotations":{"io.container.manager":"cri-o","io.kubernetes.cri.container-type":"sandbox"}}"#.into(),
        format!(
            r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/","capabilities":{{"bounding":[{privileges}]}}}},"linux":{{"namespaces":[{{"type":"mount"}}]}}}}"#
        ),
        // What only some runtimes take for a capability's name.
        format!(
            r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"cwd":"/","capabilities":{{"bounding":[{}]}}}}}}"#,
            privileges.replace("SYS_RAWIO", "SYs_RAWIO")
        ),
        // Names with what acts on terminals and readers of lines.
        r#"{"annotations":{"io.container.manager":"cri-o","io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.pod.name":"\u001b[2J\u202e\n","io.kubernetes.pod.namespace":"\u2028{\"","io.kubernetes.cri-o.Labels":"{\"\\u0085\":\"\\ud83d\\ude00\"}"}}"#.into(),
    ];
    let written = written.into_iter().map(String::into_bytes);
    let files = fixtures::bundles().into_iter().chain(written);
    files.zip(0_u8..).map(|(file, number)| [vec![number], file].concat()).collect()
}

fn check(input: &[u8]) {
    let Some((place, bytes)) = input.split_first() else { return };
    let path = Path::new(PATHS[usize::from(*place) % PATHS.len()]);
    let Ok(bundle) = Bundle::parse(bytes, path, ID, &|_| None) else { return };
    // What the text does not show in another way is not checked against it.
    if let Ok(config) = serde_json::from_slice::<Value>(bytes) {
        check_names(&bundle, &config);
        assert!(!bundle.privileged || is_privileged(&config), "privileged: {config}");
    }
    let Bundle { engine, kind, name, image, pod, sandbox_id, privileged, in_process } = bundle;
    shown::check_container(&Container {
        id: ID.into(),
        runtime: engine.unwrap_or("runc").into(),
        kind,
        name,
        image,
        pod,
        pod_known: true,
        sandbox_id,
        privileged,
        in_process,
        ..Container::unknown(Unknown::Unreadable)
    });
}

/// A pod is named as the annotations of its engine name it, all of it by the same engine.
fn check_names(bundle: &Bundle, config: &Value) {
    let Some(pod) = &bundle.pod else {
        assert_eq!((&bundle.image, &bundle.sandbox_id), (&None, &None));
        return;
    };
    let of_containerd = match bundle.engine {
        Some("containerd") => true,
        Some("cri-o") => false,
        engine => panic!("a pod of {engine:?}"),
    };
    let annotation = |containerd: &str, crio: &str| {
        let key = if of_containerd { containerd } else { crio };
        config["annotations"][key].as_str()
    };
    if of_containerd {
        let kind = annotation("io.kubernetes.cri.container-type", "");
        assert_eq!(kind, Some(bundle.kind.as_str()));
    }
    let namespace = annotation("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace");
    assert_eq!(namespace, Some(&*pod.namespace));
    assert_eq!(annotation("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"), Some(&*pod.name));
    if let Some(container) = &pod.container {
        let name = annotation("io.kubernetes.cri.container-name", "io.kubernetes.container.name");
        assert_eq!(name, Some(&**container));
    }
    assert_eq!(pod.container.is_none(), bundle.kind == ContainerType::Sandbox);
    if !of_containerd && bundle.kind == ContainerType::Sandbox {
        // A sandbox is its own, and labels are those of a sandbox that says so.
        assert_eq!(bundle.sandbox_id.as_deref(), Some(ID));
        assert!(pod.labels.is_none() || annotation("", "io.kubernetes.cri-o.SandboxID") == Some(ID));
    }
    assert!(!pod.namespace.is_empty() && !pod.name.is_empty() && pod.container.as_deref() != Some(""));
}

fn is_privileged(config: &Value) -> bool {
    let list =
        |pointer: &str| config.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let bounding = list("/process/capabilities/bounding");
    PRIVILEGES.iter().all(|needed| bounding.iter().any(|name| name == needed))
        && list("/linux/namespaces").iter().all(|namespace| namespace["type"] != "user")
}
