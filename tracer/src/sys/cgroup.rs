//! A container's id by the name of its cgroup: what is left where no command line and no bundle can be believed.

use std::path::Path;

/// The id by one of the container's processes: any of its cgroups that bears a container's name.
pub(crate) fn id_of_process(pid: u32) -> Option<String> {
    id_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// Likewise, from cgroups that root has made: others may give theirs any name.
pub(crate) fn id_of_roots_process(pid: u32) -> Option<String> {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroups.lines().filter(|line| is_roots(line)).find_map(id_in)
}

/// Whether root has made a cgroup, wherever its hierarchy is mounted: the unified one alone or beside the others.
fn is_roots(line: &str) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const MOUNTS: &str = "/sys/fs/cgroup";
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(hierarchy), Some(path)) = (fields.next(), fields.next()) else { return false };
    let places = match hierarchy.strip_prefix("name=").unwrap_or(hierarchy) {
        "" => vec![Path::new(MOUNTS).to_owned(), Path::new(MOUNTS).join("unified")],
        name => vec![Path::new(MOUNTS).join(name)],
    };
    let owners = places.iter().filter_map(|place| {
        let cgroup = place.join(path.trim_start_matches('/'));
        Some(std::fs::symlink_metadata(cgroup).ok()?.uid())
    });
    let owners: Vec<u32> = owners.collect();
    !owners.is_empty() && owners.iter().all(|owner| *owner == crate::sys::files::ROOT)
}

/// `/proc/PID/cgroup` has a line `HIERARCHY:CONTROLLERS:PATH` for each hierarchy (cgroups(7)).
fn id_in(cgroups: &str) -> Option<String> {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // crun makes one more cgroup within the container's, and an init system makes many.
    let of_engine = || paths().find_map(|path| path.rsplit('/').find_map(id_of_engine));
    paths().filter_map(|path| path.rsplit('/').next()).find_map(id_of).or_else(of_engine).or_else(|| {
        paths().filter_map(|path| path.rsplit('/').next()).find(|name| *name == SUBGROUP).map(str::to_owned)
    })
}

/// What crun calls the cgroup that it makes within a container's, unless an annotation (`run.oci.systemd.subgroup`) says
/// otherwise.
const SUBGROUP: &str = "container";

/// The id in the last component of a cgroup's path; None where that is no container's.
///
/// cgroupfs driver: `ID`, `crio-ID`, `libpod-ID`. systemd driver: `cri-containerd-ID.scope`, `crio-ID.scope`,
/// `docker-ID.scope`, `libpod-ID.scope`.
pub(crate) fn id_of(name: &str) -> Option<String> {
    const HOSTS: [&str; 4] = [".service", ".slice", ".mount", ".socket"];
    if name.is_empty() || name == SUBGROUP || HOSTS.iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    if let Some(id) = id_of_engine(name) {
        return Some(id);
    }
    // Scopes without an engine before the id are sessions and the like.
    name.strip_suffix(".scope").is_none().then(|| name.to_owned())
}

/// The id in a component that is an engine's beyond doubt.
fn id_of_engine(name: &str) -> Option<String> {
    const ENGINES: [&str; 5] = ["cri-containerd-", "crio-", "docker-", "libpod-", "nerdctl-"];
    let is_id = |id: &str| id.len() == ID_LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let scope = name.strip_suffix(".scope");
    let bare = scope.unwrap_or(name);
    let id = ENGINES.iter().find_map(|engine| bare.strip_prefix(engine)).unwrap_or(bare);
    // In a scope an engine's name suffices. Elsewhere a user may call a container so.
    let is_engines = if scope.is_some() { id.len() < bare.len() && !id.contains('-') } else { is_id(id) };
    is_engines.then(|| id.to_owned())
}

/// The digits of the ids that engines make up.
const ID_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_drivers_names() {
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
    fn a_cgroup_within_the_containers_is_not_its_id() {
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
        // conmon is beside the container.
        assert_eq!(id_in(&format!("0::/machine.slice/libpod-conmon-{id}.scope")), None);
    }

    #[test]
    fn a_cgroup_is_roots_only_if_it_is_there() {
        for line in ["", "9:no-such-controller:/", "0::/no/such/cgroup"] {
            assert!(!is_roots(line), "{line}");
        }
    }

    #[test]
    fn what_is_the_hosts_is_no_container() {
        for cgroups in
            ["", "0::/", "0::/user.slice/session-3.scope", "1:cpu:/\n0::/system.slice/ssh.service", "x"]
        {
            assert_eq!(id_in(cgroups), None, "{cgroups}");
        }
    }
}
