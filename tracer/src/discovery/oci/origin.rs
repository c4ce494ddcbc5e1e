//! The engine that made a bundle: by the bundle's path and the cgroup in it, which the author of a pod, an image or a container
//! cannot choose. Annotations decide only if neither shows an engine.

use std::{ffi::OsStr, path::Path};

use tracer_annotations::crio;

use crate::discovery::oci::config_json::ConfigJson;

/// The engine that made a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// containerd's CRI plugin, which has the namespace `k8s.io` to itself.
    ContainerdCri,
    /// Another client of containerd: `ctr`, nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// docker.
    Docker,
    /// podman.
    Podman,
    /// buildah, which `podman build` is as well.
    Buildah,
    /// BuildKit, within docker or alone.
    BuildKit,
}

/// Distinguishes podman from CRI-O, whose bundles have the same path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    CriO,
    Podman,
}

impl Origin {
    /// The engine's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ContainerdCri | Self::Containerd => "containerd",
            Self::CriO => crio::MANAGER_CRIO,
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
            Self::BuildKit => "buildkit",
        }
    }

    /// The engine that made the container `id` with the bundle `bundle`; None if that does not show. `is_stored` says
    /// whether the container is in the storage next to the bundle.
    pub(crate) fn of(
        bundle: &Path,
        id: &str,
        config: &ConfigJson,
        is_stored: impl FnOnce() -> bool,
    ) -> Option<Self> {
        let [last, above, top] = last_components(bundle);
        if let Some(namespace) = above.filter(|_| top.is_some_and(is_task_directory)) {
            return Some(Self::of_namespace(namespace));
        }
        // `STORAGE/DRIVER-containers/ID/userdata`.
        let storage = if last == Some("userdata") { top } else { above };
        if storage.is_some_and(|name| name.ends_with("-containers")) {
            let library = library_by_cgroup(config.cgroups_path(), id)
                .or_else(|| is_stored().then_some(Library::Podman))
                .unwrap_or_else(|| library_by_annotations(config));
            return Some(match library {
                Library::CriO => Self::CriO,
                Library::Podman => Self::Podman,
            });
        }
        if last.is_some_and(|name| name.starts_with("buildah") && id.strip_prefix("buildah-") == Some(name)) {
            return Some(Self::Buildah);
        }
        let is_buildkit = || {
            let named = bundle.components().any(|name| name.as_os_str() == OsStr::new("buildkit"));
            named || config.hostname() == Some("buildkitsandbox")
        };
        (above == Some("executor") && last == Some(id) && is_buildkit()).then_some(Self::BuildKit)
    }

    /// By containerd's namespace: each client has its own.
    fn of_namespace(namespace: &str) -> Self {
        match namespace {
            "k8s.io" => Self::ContainerdCri,
            "moby" | "plugins.moby" => Self::Docker,
            "buildkit" => Self::BuildKit,
            _ => Self::Containerd,
        }
    }
}

/// The last components of a path, the very last first.
fn last_components(path: &Path) -> [Option<&str>; 3] {
    let mut names = path.components().rev().map(|name| name.as_os_str().to_str());
    [names.next().flatten(), names.next().flatten(), names.next().flatten()]
}

/// `io.containerd.runtime.v2.task`, or that of version 1. In it are `NAMESPACE/ID`.
fn is_task_directory(name: &str) -> bool {
    name.starts_with("io.containerd.runtime.")
}

/// CRI-O names its cgroups `crio-ID`, podman `libpod-ID` or `libpod-payload-ID`; for systemd they are
/// `SLICE:crio:ID` and `SLICE:libpod:ID`. Authors may choose the parents, not this part. podman leaves it out if it is to create no cgroup.
fn library_by_cgroup(cgroups_path: Option<&str>, id: &str) -> Option<Library> {
    let prefix = cgroups_path?.trim_end_matches('/').strip_suffix(id)?;
    let name = prefix.rsplit(['/', ':']).find(|name| !name.is_empty())?;
    match name.trim_end_matches('-') {
        "crio" => Some(Library::CriO),
        "libpod" | "libpod-payload" => Some(Library::Podman),
        _ => None,
    }
}

/// The kubelet's keys are right in every bundle of CRI-O's. The manager's key is not: an image that a container is restored
/// from may set it to podman's.
fn library_by_annotations(config: &ConfigJson) -> Library {
    let has = |key| config.annotation(key).is_some_and(|value| !value.is_empty());
    let of_kubelet = [crio::POD_NAME, crio::POD_NAMESPACE, crio::POD_UID].into_iter().all(has);
    if of_kubelet || config.annotation(crio::MANAGER) == Some(crio::MANAGER_CRIO) {
        Library::CriO
    } else {
        Library::Podman
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";
    const STORAGE: &str = "/run/containers/storage/overlay-containers";

    #[track_caller]
    fn origin(bundle: &str, id: &str, json: &str) -> Option<&'static str> {
        let config = ConfigJson::parse(json.as_bytes()).unwrap();
        Origin::of(Path::new(bundle), id, &config, || false).map(Origin::as_str)
    }

    #[test]
    fn each_engine_has_its_path() {
        let at = |bundle: &str| origin(bundle, "1", "{}");
        assert_eq!(at(&format!("{TASKS}/k8s.io/1")), Some("containerd"));
        assert_eq!(at(&format!("{TASKS}/default/1")), Some("containerd"));
        assert_eq!(at(&format!("{TASKS}/moby/1")), Some("docker"));
        assert_eq!(at("/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/1"), Some("docker"));
        assert_eq!(at("/run/docker/containerd/io.containerd.runtime.v1.linux/moby/1"), Some("docker"));
        assert_eq!(at(&format!("{TASKS}/buildkit/1")), Some("buildkit"));
        assert_eq!(at(&format!("{STORAGE}/1/userdata")), Some("podman"));
        assert_eq!(at("/x/vfs-containers/1/userdata"), Some("podman"));
        assert_eq!(at("/var/lib/docker/buildkit/executor/1"), Some("buildkit"));
        let sandbox = r#"{"hostname":"buildkitsandbox"}"#;
        assert_eq!(origin("/x/runc-overlayfs/executor/1", "1", sandbox), Some("buildkit"));
        assert_eq!(origin("/var/tmp/buildah12345", "buildah-buildah12345", "{}"), Some("buildah"));
        for elsewhere in
            ["/tmp/bundle", "/", "", "/x/moby/1", "/x/executor/1", "/executor/2", &format!("{TASKS}/1")]
        {
            assert_eq!(at(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(origin("/var/tmp/buildah12345", "buildah-buildah1", "{}"), None);
        assert_eq!(origin("/var/tmp/x", "buildah-x", "{}"), None);
    }

    #[test]
    fn cgroup_distinguishes_podman_from_crio_whatever_annotations_say() {
        let forged = r#""annotations":{"io.container.manager":"MANAGER","io.kubernetes.pod.name":"p",
            "io.kubernetes.pod.namespace":"n","io.kubernetes.pod.uid":"u"}"#;
        let of = |cgroup: &str, manager: &str| {
            let json =
                format!(r#"{{"linux":{{"cgroupsPath":"{cgroup}"}},{}}}"#, forged.replace("MANAGER", manager));
            origin(&format!("{STORAGE}/1f/userdata"), "1f", &json)
        };
        for cgroup in ["/kubepods/podx/crio-1f", "kubepods-podx.slice:crio:1f"] {
            assert_eq!(of(cgroup, "libpod"), Some("cri-o"), "{cgroup}");
        }
        for cgroup in
            ["/libpod_parent/libpod-1f", "machine.slice:libpod:1f", "/user.slice/x/libpod-payload-1f"]
        {
            assert_eq!(of(cgroup, "cri-o"), Some("podman"), "{cgroup}");
        }
        // Neither: the kubelet's keys count, not the manager's.
        for cgroup in ["/1f", "/crio-2f", "/x/crio-1f/y", ""] {
            assert_eq!(of(cgroup, "libpod"), Some("cri-o"), "{cgroup}");
        }
    }

    #[test]
    fn without_cgroup_storage_next_to_bundle_is_podmans() {
        let json = r#"{"annotations":{"io.container.manager":"cri-o"}}"#;
        let config = ConfigJson::parse(json.as_bytes()).unwrap();
        let bundle = Path::new("/var/lib/containers/storage/overlay-containers/1/userdata");
        assert_eq!(Origin::of(bundle, "1", &config, || true), Some(Origin::Podman));
        assert_eq!(Origin::of(bundle, "1", &config, || false), Some(Origin::CriO));
    }
}
