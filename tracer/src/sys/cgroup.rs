//! Container ids in cgroup names: the fallback when neither the runtime's command line nor its bundle can be trusted.

use std::path::Path;

/// The container id in any of the cgroups of one of the container's processes.
pub(crate) fn id_of_process(pid: u32) -> Option<String> {
    id_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// Like [`id_of_process`], but only from cgroups that root has created: other users may give theirs any name.
pub(crate) fn id_of_root_process(pid: u32) -> Option<String> {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroups.lines().filter(|line| is_roots(line)).find_map(id_in)
}

/// Whether root owns the cgroup in a line of `/proc/PID/cgroup`, in every place where its hierarchy may be mounted:
/// the unified one alone or next to the others.
fn is_roots(line: &str) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const MOUNTS: &str = "/sys/fs/cgroup";
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(hierarchy), Some(path)) = (fields.next(), fields.next()) else { return false };
    let mounts = match hierarchy.strip_prefix("name=").unwrap_or(hierarchy) {
        "" => vec![Path::new(MOUNTS).to_owned(), Path::new(MOUNTS).join("unified")],
        name => vec![Path::new(MOUNTS).join(name)],
    };
    let owners = mounts.iter().filter_map(|mount| {
        let cgroup = mount.join(path.trim_start_matches('/'));
        Some(std::fs::symlink_metadata(cgroup).ok()?.uid())
    });
    let owners: Vec<u32> = owners.collect();
    !owners.is_empty() && owners.iter().all(|owner| *owner == crate::sys::files::ROOT)
}

/// The container id in the text of `/proc/PID/cgroup`, which has a line `HIERARCHY:CONTROLLERS:PATH` for each
/// hierarchy (cgroups(7)).
fn id_in(cgroups: &str) -> Option<String> {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // crun creates another cgroup within the container's, and an init system creates many.
    let of_engine = || paths().find_map(|path| path.rsplit('/').find_map(id_of_engine));
    paths().filter_map(|path| path.rsplit('/').next()).find_map(id_of).or_else(of_engine).or_else(|| {
        paths().filter_map(|path| path.rsplit('/').next()).find(|name| *name == SUBGROUP).map(str::to_owned)
    })
}

/// The name of the cgroup that crun creates within the container's, unless the annotation `run.oci.systemd.subgroup`
/// names another.
const SUBGROUP: &str = "container";

/// The container id in the last component of a cgroup's path; None if that does not name a container.
///
/// cgroupfs driver: `ID`, `crio-ID`, `libpod-ID`. systemd driver: `cri-containerd-ID.scope`, `crio-ID.scope`,
/// `docker-ID.scope`, `libpod-ID.scope`.
pub(crate) fn id_of(name: &str) -> Option<String> {
    const HOST_UNITS: [&str; 4] = [".service", ".slice", ".mount", ".socket"];
    if name.is_empty() || name == SUBGROUP || HOST_UNITS.iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    if let Some(id) = id_of_engine(name) {
        return Some(id);
    }
    // A scope without an engine's prefix is a user session or the like.
    name.strip_suffix(".scope").is_none().then(|| name.to_owned())
}

/// The container id in a path component that certainly is an engine's.
fn id_of_engine(name: &str) -> Option<String> {
    const ENGINES: [&str; 5] = ["cri-containerd-", "crio-", "docker-", "libpod-", "nerdctl-"];
    let is_id = |id: &str| id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let scope = name.strip_suffix(".scope");
    let bare = scope.unwrap_or(name);
    let id = ENGINES.iter().find_map(|engine| bare.strip_prefix(engine)).unwrap_or(bare);
    // In a scope the engine's prefix is sufficient. Elsewhere a user may have given a container such a name.
    let is_engines = if scope.is_some() { id.len() < bare.len() && !id.contains('-') } else { is_id(id) };
    is_engines.then(|| id.to_owned())
}

/// Number of hexadecimal digits in the ids that engines generate.
const ID_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_id_is_found_in_names_of_every_cgroup_driver() {
        let id = |cgroups: &str| id_in(cgroups);
        assert_eq!(id("0::/kubepods/burstable/pod1/abc").as_deref(), Some("abc"));
        assert_eq!(
            id("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope").as_deref(),
            Some("abc")
        );
        assert_eq!(id("1:cpu:/x/abc\n0::/").as_deref(), Some("abc"));
        assert_eq!(id("0::/machine.slice/libpod-abc.scope").as_deref(), Some("abc"));
    }

    #[test]
    fn nested_cgroup_does_not_hide_the_container_id() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/kubepods.slice/kubepods-pod1.slice/crio-{id}.scope/container"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods/pod1/crio-{id}/container"),
            format!("/kubepods/pod1/{id}/init.scope"),
            format!("/docker/{id}/system.slice/ssh.service"),
            format!("/libpod_parent/libpod-{id}"),
        ] {
            assert_eq!(id_in(&format!("0::{path}")).as_deref(), Some(&*id), "{path}");
        }
        assert_eq!(id_in("0::/default/container").as_deref(), Some("container"));
        assert_eq!(id_of("container"), None);
        // conmon runs next to the container, not in it.
        assert_eq!(id_in(&format!("0::/machine.slice/libpod-conmon-{id}.scope")), None);
    }

    #[test]
    fn missing_cgroup_does_not_count_as_owned_by_root() {
        for line in ["", "9:no-such-controller:/", "0::/no/such/cgroup"] {
            assert!(!is_roots(line), "{line}");
        }
    }

    #[test]
    fn host_cgroups_have_no_container_id() {
        for cgroups in
            ["", "0::/", "0::/user.slice/session-3.scope", "1:cpu:/\n0::/system.slice/ssh.service", "x"]
        {
            assert_eq!(id_in(cgroups), None, "{cgroups}");
        }
    }
}
