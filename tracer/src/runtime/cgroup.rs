//! A container's id by the name of its cgroup: what is left where no command line and no bundle can be believed.

use std::path::Path;

/// The id by one of the container's processes: any of its cgroups that bears a container's name.
pub fn id_of_process(pid: u32) -> Option<String> {
    id_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// Likewise, from cgroups that root has made: others may give theirs any name.
pub fn id_of_roots_process(pid: u32) -> Option<String> {
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
    !owners.is_empty() && owners.iter().all(|owner| *owner == super::files::ROOT)
}

/// `/proc/PID/cgroup` has a line `HIERARCHY:CONTROLLERS:PATH` for each hierarchy (cgroups(7)).
fn id_in(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(|path| path.rsplit('/').next()).find_map(id_of)
}

/// The id in the last component of a cgroup's path; None where that is no container's.
///
/// cgroupfs driver: `ID`. systemd driver: `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`,
/// `libpod-ID.scope`.
pub fn id_of(name: &str) -> Option<String> {
    const HOSTS: [&str; 4] = [".service", ".slice", ".mount", ".socket"];
    if name.is_empty() || HOSTS.iter().any(|suffix| name.ends_with(suffix)) {
        return None;
    }
    let Some(scope) = name.strip_suffix(".scope") else { return Some(name.to_owned()) };
    // Scopes without an engine before the id are sessions and the like.
    let (engine, id) = scope.rsplit_once('-')?;
    matches!(engine, "cri-containerd" | "crio" | "docker" | "libpod" | "nerdctl").then(|| id.to_owned())
}

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
