//! A place where runtimes work, the host or a container that has runtimes of its own, and the containers that can be
//! found there without having seen them start.

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
        RUNTIMES,
        invocation::Outer,
        oci::{state, state::State},
        shims,
    },
    sanitize::line,
    sys::{
        files, proc_table,
        proc_table::{Process, Processes},
        process_handle::{INITIAL_USER_NS, Root, RuntimeProcess},
    },
};

/// Where runtimes keep their state unless they are told otherwise, and where engines tell them to.
const STATE_ROOTS: [&str; 6] =
    ["/run/runc", "/run/crun", "/run/youki", "/run/sysbox-runc", "/run/urunc", "/run/crio/runc"];
/// Directories of such directories, of runc: one for each of the engine's namespaces.
const STATE_ROOT_PARENTS: [&str; 3] =
    ["/run/containerd/runc", "/run/docker/runtime-runc", "/run/k3s/containerd/runc"];
/// The directories of users, by user id, in which their runtimes keep state.
const RUNTIME_DIRECTORIES: &str = "/run/user";
/// What users' runtimes call their directories there.
const ROOTLESS: [&str; 3] = ["runc", "crun", "youki"];

/// The usual state directories that this host has.
pub(crate) fn existing_state_roots() -> Vec<PathBuf> {
    let Ok(host) = Place::host(&[]) else { return Vec::new() };
    let roots = host.state_roots().into_iter();
    roots.filter(|root| files::has_below(host.root(), root)).collect()
}

/// Where a runtime of root's keeps its state unless it is told otherwise: below `/run`, in a directory that it has compiled
/// in. So that of a wrapper, or of a file that was renamed, is that of the runtime which is called in the end.
pub(crate) fn state_root(runtime: &str) -> PathBuf {
    Path::new("/run").join(directory(runtime))
}

/// Likewise, of a user's runtime, or of any that looks there: below the directory that the user's session has for such things.
pub(crate) fn state_root_of_user(runtime: &str, runtime_directory: &Path) -> PathBuf {
    runtime_directory.join(directory(runtime))
}

/// Whether a runtime is crun, by whatever name. It looks for `XDG_RUNTIME_DIR` even as root, and takes a relative state
/// directory from the bundle, where it makes one.
pub(crate) fn is_crun(runtime: &str) -> bool {
    directory(runtime) == "crun"
}

/// The directory that a user's session has for sockets and state.
pub(crate) fn runtime_directory(uid: u32) -> PathBuf {
    Path::new(RUNTIME_DIRECTORIES).join(uid.to_string())
}

/// Whether a state directory is in a user's session.
pub(crate) fn is_of_user(state_root: &Path) -> bool {
    state_root.starts_with(RUNTIME_DIRECTORIES)
}

fn directory(runtime: &str) -> &str {
    match runtime {
        "docker-runc" | "buildkit-runc" => "runc",
        "krun" => "crun",
        wrapper if wrapper.starts_with("nvidia-container-runtime") => "runc",
        // `runc-1.3`, `runc.amd64`, `crun-wasm`.
        named => {
            let base = named.split(['-', '.', '_']).next().unwrap_or(named);
            if ["runc", "crun", "youki", "runsc"].contains(&base) { base } else { named }
        }
    }
}

/// A container that runs, or is about to.
#[derive(Debug)]
pub(crate) struct Running {
    /// The runtime's state directory, where that is known.
    pub(crate) state_root: Option<PathBuf>,
    /// As the runtime was told.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// The runtime's name.
    pub(crate) runtime: String,
    /// Its first process, or, of one whose processes this kernel does not see, what watches over it.
    pub(crate) init: u32,
    /// The root directory that its paths start from; none for the host's.
    pub(crate) view: Option<Arc<Root>>,
    /// Who may own its files besides root.
    pub(crate) owner: u32,
}

/// A place where runtimes work.
#[derive(Debug)]
pub(crate) struct Place {
    root: Arc<Root>,
    /// The container that it is; none for the host.
    outer: Option<Outer>,
    /// From process ids in that container to `tracer`'s.
    pids: HashMap<u32, u32>,
    /// State directories besides the usual ones.
    state_roots: Vec<PathBuf>,
}

impl Place {
    /// The host.
    pub(crate) fn host(state_roots: &[PathBuf]) -> std::io::Result<Self> {
        let root = Arc::new(Root::of_host()?);
        Ok(Self { root, outer: None, pids: HashMap::new(), state_roots: state_roots.to_owned() })
    }

    /// A container, of which these are processes; None if it has ended.
    pub(crate) fn inside(outer: Outer, init: &Process, members: &[u32]) -> Option<Self> {
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

    /// A process by the number that it has here.
    pub(crate) fn pid(&self, number: u32) -> Option<u32> {
        if self.is_host() { Some(number) } else { self.pids.get(&number).copied() }
    }

    /// Its root directory as [`Running`] has it.
    pub(crate) fn view(&self) -> Option<Arc<Root>> {
        (!self.is_host()).then(|| Arc::clone(&self.root))
    }

    /// Every container that a runtime's state tells of, and then those that only their watchers do. `members` are the
    /// processes of this place that no container within it has.
    pub(crate) fn containers(&self, processes: &Processes, members: &[u32]) -> Vec<Running> {
        let mut found = self.stated(processes);
        for watcher in members.iter().filter_map(|pid| processes.get(*pid)) {
            for container in shims::containers(self, watcher, processes) {
                found.entry(container.init).or_insert(container);
            }
        }
        found.into_values().collect()
    }

    fn stated(&self, processes: &Processes) -> HashMap<u32, Running> {
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

    /// The directories in which state is looked for.
    fn state_roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = STATE_ROOTS.map(PathBuf::from).into();
        for parent in STATE_ROOT_PARENTS.map(Path::new) {
            roots.extend(files::list_below(self.root(), parent).into_iter().map(|name| parent.join(name)));
        }
        roots.extend(self.state_roots.iter().cloned());
        roots
    }

    /// The containers that users' runtimes tell of. Theirs are those in a user namespace that they have made.
    pub(crate) fn containers_of_users(&self, processes: &Processes) -> Vec<Running> {
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

    /// A container by its runtime's state, if its first process is the one that the state tells of.
    fn by_state(&self, root: &Path, id: String, owner: u32, processes: &Processes) -> Option<Running> {
        let State { bundle, init, init_start_ticks } = match state::read(self.root(), root, &id, owner) {
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
        Some(Running {
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

/// The runtime that has a state directory, by the directory's name. Engines' are runc's, for all that is known.
fn runtime_of(root: &Path) -> String {
    let name = root.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if RUNTIMES.contains(&name) { name.to_owned() } else { "runc".to_owned() }
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
    // SAFETY: this ioctl does nothing but what the line above says.
    unsafe { rustix::ioctl::ioctl(&namespace, get) }.ok()?;
    Some(owner)
}

/// `_IO(0xb7, 4)` of linux/nsfs.h.
const NS_GET_OWNER_UID: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0xb7, 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_runtime_has_the_state_directory_that_is_compiled_into_it() {
        for (runtime, root) in [
            ("runc", "/run/runc"),
            ("runc.amd64", "/run/runc"),
            ("runc-1.3", "/run/runc"),
            ("nvidia-container-runtime", "/run/runc"),
            ("nvidia-container-runtime.cdi", "/run/runc"),
            ("docker-runc", "/run/runc"),
            ("buildkit-runc", "/run/runc"),
            ("krun", "/run/crun"),
            ("crun-krun", "/run/crun"),
            ("crun-wasm", "/run/crun"),
            ("sysbox-runc", "/run/sysbox-runc"),
            ("urunc", "/run/urunc"),
            ("my-own", "/run/my-own"),
        ] {
            assert_eq!(state_root(runtime), Path::new(root), "{runtime}");
        }
        assert_eq!(state_root_of_user("crun", &runtime_directory(1000)), Path::new("/run/user/1000/crun"));
    }

    #[test]
    fn an_engines_state_directory_is_runcs() {
        for (root, runtime) in [
            ("/run/crun", "crun"),
            ("/run/sysbox-runc", "sysbox-runc"),
            ("/run/containerd/runc/k8s.io", "runc"),
            ("/snap/x/run/moby", "runc"),
        ] {
            assert_eq!(runtime_of(Path::new(root)), runtime);
        }
    }

    #[test]
    fn the_initial_user_namespace_is_no_users() {
        assert_eq!(user_namespace_owner(std::process::id()), None);
        assert_eq!(user_namespace_owner(0), None);
    }
}
