//! A container's id by the name of its cgroup: what is left where no command line and no bundle can be believed.

/// The id in `/proc/PID/cgroup` of one of its processes; None where no cgroup bears a container's name.
///
/// cgroupfs driver: `…/ID`. systemd driver: `…/cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`,
/// `libpod-ID.scope`. The unified hierarchy (`0::`) comes first if it has one: the others are the same or less.
pub fn container_id(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let unified = cgroups.lines().filter_map(|line| line.strip_prefix("0::"));
    unified.chain(paths).find_map(|path| id_of(path.rsplit('/').next()?))
}

fn id_of(name: &str) -> Option<String> {
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
        let id = |cgroups: &str| container_id(cgroups);
        assert_eq!(id("0::/kubepods/burstable/pod1/abc").as_deref(), Some("abc"));
        assert_eq!(
            id("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope").as_deref(),
            Some("abc")
        );
        assert_eq!(id("1:cpu:/x/abc\n0::/").as_deref(), Some("abc"));
        assert_eq!(id("0::/machine.slice/libpod-abc.scope").as_deref(), Some("abc"));
    }

    #[test]
    fn what_is_the_hosts_is_no_container() {
        for cgroups in
            ["", "0::/", "0::/user.slice/session-3.scope", "1:cpu:/\n0::/system.slice/ssh.service", "x"]
        {
            assert_eq!(container_id(cgroups), None, "{cgroups}");
        }
    }
}
