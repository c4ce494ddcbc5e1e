//! The names that docker and podman give their containers, from files that they keep next to bundles.

use std::path::Path;

use serde::Deserialize;

use crate::discovery::oci::config_json::ConfigJson;

/// Reads a file as the runtime sees it; None if that is not possible.
pub(crate) type Read<'a> = &'a dyn Fn(&Path) -> Option<Vec<u8>>;

/// Longer names are left out, since each event would repeat them. Engines accept up to about 255 bytes.
const NAME_MAX: usize = 1024;

/// `DATA-ROOT/containers/ID/config.v2.json`, as far as it is needed.
#[derive(Deserialize)]
struct DockerContainer {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: String,
}

/// An entry of `STORAGE/DRIVER-containers/containers.json`, which containers/storage writes.
#[derive(Deserialize)]
struct StoredContainer {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
}

/// A container in podman's storage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodmanContainer {
    /// The container's name.
    pub(crate) name: Option<String>,
}

/// The name of a docker container.
///
/// Its data root is above the container's root file system (`DATA-ROOT/overlay2/…/merged`, `DATA-ROOT/rootfs/…/ID`) or,
/// if docker does not mount that, above the files that docker mounts (`DATA-ROOT/containers/ID/hostname`).
pub(crate) fn docker(id: &str, config: &ConfigJson, read: Read<'_>) -> Option<String> {
    /// How far below the data root a root file system is: `overlay2/ID/merged`, `vfs/dir/ID`.
    const DEPTH: usize = 4;
    if id.is_empty() || id.contains('/') {
        return None;
    }
    let own = Path::new("containers").join(id);
    let rootfs = config.rootfs().filter(|path| path.is_absolute());
    let roots = rootfs.iter().flat_map(|path| path.ancestors().skip(1).take(DEPTH));
    let mounted =
        config.mount_sources().filter_map(|source| source.parent()?.to_str()?.strip_suffix(own.to_str()?));
    let name_in = |root: &Path| {
        let bytes = read(&root.join(&own).join("config.v2.json"))?;
        let container: DockerContainer = serde_json::from_slice(&bytes).ok()?;
        (container.id == id).then(|| container.name.trim_start_matches('/').to_owned())
    };
    roots.chain(mounted.map(Path::new).take(1)).find_map(name_in).filter(|name| is_name(name))
}

/// A container in the storage above podman's bundle `STORAGE/DRIVER-containers/ID/userdata`; None if it is not there.
/// Containers that are deleted at the host's next boot are in a separate file.
pub(crate) fn stored(bundle: &Path, id: &str, read: Read<'_>) -> Option<PodmanContainer> {
    let storage = bundle.parent()?.parent()?;
    let stored_in = |file: &str| {
        let containers: Vec<StoredContainer> = serde_json::from_slice(&read(&storage.join(file))?).ok()?;
        let found = containers.into_iter().find(|container| container.id == id)?;
        let name = found.names.and_then(|names| names.into_iter().next()).filter(|name| is_name(name));
        Some(PodmanContainer { name })
    };
    ["containers.json", "volatile-containers.json"].into_iter().find_map(stored_in)
}

/// Whether this is the name that podman gives the container which holds a pod's namespaces: `PODID-infra`, with the first
/// twelve digits of the id.
pub(crate) fn is_infra(name: &str) -> bool {
    name.strip_suffix("-infra")
        .is_some_and(|pod| pod.len() == 12 && pod.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_name_is_found_by_root_file_system_or_mounts() {
        let file = |path: &'static str, text: &'static str| {
            move |asked: &Path| (asked == Path::new(path)).then(|| text.as_bytes().to_owned())
        };
        let name =
            |json: &str, read: Read<'_>| docker("1f", &ConfigJson::parse(json.as_bytes()).unwrap(), read);
        let own = file(
            "/data/containers/1f/config.v2.json",
            r#"{"ID":"1f","Name":"/web","Config":{"Hostname":"h"}}"#,
        );
        for path in ["/data/overlay2/abc/merged", "/data/vfs/dir/abc", "/data/rootfs/overlayfs/1f"] {
            let json = format!(r#"{{"root":{{"path":"{path}"}}}}"#);
            assert_eq!(name(&json, &own).as_deref(), Some("web"), "{path}");
        }
        let mounted = r#"{"root":{"path":"rootfs"},"mounts":[{"destination":"/x","source":"/x"},
            {"destination":"/etc/hosts","source":"/data/containers/1f/hosts"}]}"#;
        assert_eq!(name(mounted, &own).as_deref(), Some("web"));
        let json = r#"{"root":{"path":"/data/overlay2/abc/merged"}}"#;
        for text in [r#"{"ID":"2f","Name":"/web"}"#, r#"{"ID":"1f","Name":"/"}"#, r#"{"ID":"1f"}"#, "["] {
            assert_eq!(name(json, &|_| Some(text.as_bytes().to_owned())), None, "{text}");
        }
        assert_eq!(name("{}", &own), None);
    }

    #[test]
    fn podman_name_is_read_from_storage_above_bundle() {
        let bundle = Path::new("/s/overlay-containers/1f/userdata");
        let read = |file: &'static str, text: &'static str| {
            let read = move |path: &Path| (path == Path::new(file)).then(|| text.as_bytes().to_owned());
            stored(bundle, "1f", &read)
        };
        let text = r#"[{"id":"2f","names":["other"]},{"id":"1f","names":["web"],"image":"x"}]"#;
        let web = || Some(PodmanContainer { name: Some("web".into()) });
        assert_eq!(read("/s/overlay-containers/containers.json", text), web());
        assert_eq!(read("/s/overlay-containers/volatile-containers.json", text), web());
        assert_eq!(
            read("/s/overlay-containers/containers.json", r#"[{"id":"1f"}]"#),
            Some(PodmanContainer { name: None })
        );
        assert_eq!(read("/s/overlay-containers/containers.json", r#"[{"id":"2f","names":["x"]}]"#), None);
        assert_eq!(read("/s/containers.json", text), None);
    }

    #[test]
    fn infra_container_is_named_after_its_pod() {
        assert!(is_infra("0123456789ab-infra"));
        for name in ["web-infra", "0123456789ab", "0123456789abc-infra", "-infra", "é23456789ab-infra"] {
            assert!(!is_infra(name), "{name}");
        }
    }
}
