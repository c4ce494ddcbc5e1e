//! An environment in which runtimes work, the host or a node container, and the containers that can be found there without
//! their start having been seen.

use std::{
    collections::HashMap,
    fs::File,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::debug;

use crate::{
    discovery::{
        node_container::NodeContainer,
        oci::{state, state::RuntimeState},
        shims,
        state_roots::{
            ROOTLESS, RUNTIME_DIRECTORIES, STATE_ROOT_PARENTS, STATE_ROOTS, runtime_directory, runtime_of,
        },
    },
    sanitize::line,
    sys::{
        files, proc_table,
        proc_table::{Process, Processes},
        process_handle::{INITIAL_USER_NS, Root, RuntimeProcess},
    },
};

/// The usual state directories that this host has.
pub(crate) fn existing_state_roots() -> Vec<PathBuf> {
    let Ok(host) = Environment::host(&[]) else { return Vec::new() };
    let roots = host.state_roots().into_iter();
    roots.filter(|root| files::has_below(host.root(), root)).collect()
}

/// A container that runs, or is about to.
#[derive(Debug)]
pub(crate) struct RunningContainer {
    /// The runtime's state directory, if it is known.
    pub(crate) state_root: Option<PathBuf>,
    /// Its id, as the runtime was given it.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// The runtime's name.
    pub(crate) runtime: String,
    /// Its first process, or its monitor if this kernel does not see its processes.
    pub(crate) init: u32,
    /// The root directory that its paths start at; none for the host's.
    pub(crate) view: Option<Arc<Root>>,
    /// The user who may own its files besides root.
    pub(crate) owner: u32,
}

/// An environment in which runtimes work.
#[derive(Debug)]
pub(crate) struct Environment {
    root: Arc<Root>,
    /// The node container; none for the host.
    outer: Option<NodeContainer>,
    /// Maps process ids in that container to `tracer`'s.
    pids: HashMap<u32, u32>,
    /// State directories in addition to the default ones.
    state_roots: Vec<PathBuf>,
}

impl Environment {
    /// The host.
    pub(crate) fn host(state_roots: &[PathBuf]) -> std::io::Result<Self> {
        let root = Arc::new(Root::of_host()?);
        Ok(Self { root, outer: None, pids: HashMap::new(), state_roots: state_roots.to_owned() })
    }

    /// A node container with these processes; None if it has ended.
    pub(crate) fn inside(outer: NodeContainer, init: &Process, members: &[u32]) -> Option<Self> {
        let depth = proc_table::namespace_pids(init.pid)?.len();
        let pids = members.iter().filter_map(|pid| {
            let seen_inside = *proc_table::namespace_pids(*pid)?.get(depth - 1)?;
            Some((seen_inside, *pid))
        });
        let root = RuntimeProcess::open(init.pid, init.start_ticks).ok()?.into_root();
        let (root, pids) = (Arc::new(root), pids.collect());
        Some(Self { root, pids, outer: Some(outer), state_roots: Vec::new() })
    }

    /// Whether it is the host.
    pub(crate) const fn is_host(&self) -> bool {
        self.outer.is_none()
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A process, by its id in this environment.
    pub(crate) fn pid(&self, number: u32) -> Option<u32> {
        if self.is_host() { Some(number) } else { self.pids.get(&number).copied() }
    }

    /// Its root directory as [`RunningContainer`] has it.
    pub(crate) fn view(&self) -> Option<Arc<Root>> {
        (!self.is_host()).then(|| Arc::clone(&self.root))
    }

    /// The containers that a runtime's state has, and then those that only their monitors know. `members` are the processes
    /// of this environment that belong to no container within it.
    pub(crate) fn containers(&self, processes: &Processes, members: &[u32]) -> Vec<RunningContainer> {
        let mut found = self.with_state(processes);
        for monitor in members.iter().filter_map(|pid| processes.get(*pid)) {
            for container in shims::containers(self, monitor, processes) {
                found.entry(container.init).or_insert(container);
            }
        }
        found.into_values().collect()
    }

    fn with_state(&self, processes: &Processes) -> HashMap<u32, RunningContainer> {
        let mut containers = HashMap::new();
        for root in self.state_roots() {
            for id in files::list_below(self.root(), &root) {
                if let Some(container) = self.by_state(&root, id, files::ROOT, processes) {
                    containers.insert(container.init, container);
                }
            }
        }
        containers
    }

    /// The state directories to search.
    fn state_roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = STATE_ROOTS.map(PathBuf::from).into();
        for parent in STATE_ROOT_PARENTS.map(Path::new) {
            roots.extend(files::list_below(self.root(), parent).into_iter().map(|name| parent.join(name)));
        }
        roots.extend(self.state_roots.iter().cloned());
        roots
    }

    /// The containers in the state of users' runtimes. A container is a user's if it is in a user namespace that the user has
    /// made.
    pub(crate) fn containers_of_users(&self, processes: &Processes) -> Vec<RunningContainer> {
        let mut containers = Vec::new();
        let users = files::list_below(self.root(), Path::new(RUNTIME_DIRECTORIES));
        for uid in users.iter().filter_map(|name| name.parse().ok()) {
            for root in ROOTLESS.map(|name| runtime_directory(uid).join(name)) {
                let ids = files::list_below(self.root(), &root).into_iter();
                let found = ids.filter_map(|id| self.by_state(&root, id, uid, processes));
                containers
                    .extend(found.filter(|container| user_namespace_owner(container.init) == Some(uid)));
            }
        }
        containers
    }

    /// A container by its runtime's state, if its first process is the one in the state.
    fn by_state(
        &self,
        root: &Path,
        id: String,
        owner: u32,
        processes: &Processes,
    ) -> Option<RunningContainer> {
        let RuntimeState { bundle, init, init_start_ticks } = match state::read(self.root(), root, &id, owner)
        {
            Ok(state) => state,
            Err(error) => {
                debug!("{}", line(&error.to_string()));
                return None;
            }
        };
        let process = processes.get(self.pid(init?)?)?;
        if init_start_ticks.is_some_and(|ticks| ticks != process.start_ticks) {
            return None;
        }
        Some(RunningContainer {
            state_root: Some(root.to_owned()),
            id,
            bundle,
            runtime: runtime_of(root),
            init: process.pid,
            view: self.view(),
            owner,
        })
    }
}

/// The user who made a process's user namespace (ioctl_ns(2)), if that is not the initial one.
fn user_namespace_owner(pid: u32) -> Option<u32> {
    let namespace = File::open(format!("/proc/{pid}/ns/user")).ok()?;
    if namespace.metadata().ok()?.ino() == INITIAL_USER_NS {
        return None;
    }
    let mut owner: u32 = 0;
    // SAFETY: NS_GET_OWNER_UID writes a uid_t, which is what the pointer is to.
    let get = unsafe { rustix::ioctl::Updater::<NS_GET_OWNER_UID, _>::new(&mut owner) };
    // SAFETY: this ioctl does only what the line above says.
    unsafe { rustix::ioctl::ioctl(&namespace, get) }.ok()?;
    Some(owner)
}

/// `_IO(0xb7, 4)` of linux/nsfs.h.
const NS_GET_OWNER_UID: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0xb7, 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_user_namespace_has_no_owner() {
        assert_eq!(user_namespace_owner(std::process::id()), None);
        assert_eq!(user_namespace_owner(0), None);
    }
}
