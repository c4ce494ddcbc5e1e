//! A container with the tree of its processes, as a search found it.

use std::path::PathBuf;

use tracer_common::container::ContainerKey;

use crate::{discovery::state_roots, sys::proc_table::Process};

/// A container with the tree of its processes.
#[derive(Debug)]
pub(super) struct ProcessTree {
    /// Its first process.
    pub(super) init: u32,
    pub(super) key: ContainerKey,
    /// The container that it is in.
    pub(super) outer: Option<ContainerKey>,
    /// The runtime's state directory and the id there, where they are known.
    pub(super) name: Option<(PathBuf, String)>,
    /// Its processes are in a virtual machine: this kernel sees only those around it.
    pub(super) in_vm: bool,
    /// It was in the registry before the search.
    pub(super) known_before: bool,
    /// Its evidence was entered.
    pub(super) has_evidence: bool,
}

impl ProcessTree {
    /// The cgroups of its first process that may be its alone. A user's runtime may leave its container in the cgroup of the
    /// user's session, so of a user's container only a cgroup that is named after it counts.
    pub(super) fn cgroups<'p>(&self, init: &'p Process) -> Vec<&'p str> {
        let of_user = self.name.as_ref().filter(|(root, _)| state_roots::is_of_user(root)).map(|(_, id)| id);
        let may_be_own = |cgroup: &&str| of_user.is_none_or(|id| is_named_after(cgroup, id));
        init.cgroups.iter().map(String::as_str).filter(may_be_own).collect()
    }
}

/// Whether a component of a cgroup's path is a container's: `ID`, `ENGINE-ID`, `ENGINE-ID.scope`.
fn is_named_after(cgroup: &str, id: &str) -> bool {
    cgroup.rsplit('/').any(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        name.strip_suffix(id).is_some_and(|engine| engine.is_empty() || engine.ends_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_of_users_session_is_not_containers_own() {
        let session = "0::/user.slice/user-7.slice/session-3.scope".to_owned();
        let own = "1:pids:/user.slice/libpod-1f.scope/container".to_owned();
        let init = Process {
            pid: 1,
            ppid: 0,
            start_ticks: 0,
            comm: String::new(),
            mntns: 0,
            pidns: 0,
            cgroups: vec![session.clone(), own.clone()],
        };
        let cgroups = |root: &str| {
            let name = Some((PathBuf::from(root), "1f".to_owned()));
            let tree = ProcessTree {
                init: 1,
                key: ContainerKey::HOST,
                outer: None,
                name,
                in_vm: false,
                known_before: false,
                has_evidence: false,
            };
            tree.cgroups(&init).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cgroups("/run/user/7/crun"), std::slice::from_ref(&own));
        assert_eq!(cgroups("/run/crun"), [session, own]);
    }
}
