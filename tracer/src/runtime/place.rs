//! A place where runtimes work, the host or a container that has runtimes of its own, and the containers that can be
//! found there without having seen them start.

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::debug;

use super::{
    files,
    invocation::Outer,
    process::{Root, RuntimeProcess},
    processes::{self, Process, Processes},
    state::{self, State},
    watcher,
};
use crate::render::line;

/// Where runtimes keep their state unless they are told otherwise, and where engines tell them to.
const STATE_ROOTS: [&str; 4] = ["/run/runc", "/run/crun", "/run/youki", "/run/crio/runc"];
/// Directories of such directories, of runc: one for each of the engine's namespaces.
const STATE_ROOT_PARENTS: [&str; 3] =
    ["/run/containerd/runc", "/run/docker/runtime-runc", "/run/k3s/containerd/runc"];

/// A container that runs, or is about to.
#[derive(Debug)]
pub struct Running {
    /// The runtime's state directory, where that is known.
    pub state_root: Option<PathBuf>,
    /// As the runtime was told.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// The runtime's name.
    pub runtime: String,
    /// Its first process, or, of one whose processes this kernel does not see, what watches over it.
    pub init: u32,
    /// The root directory that its paths start from; none for the host's.
    pub view: Option<Arc<Root>>,
}

/// A place where runtimes work.
#[derive(Debug)]
pub struct Place {
    root: Arc<Root>,
    /// The container that it is; none for the host.
    outer: Option<Outer>,
    /// From process ids in that container to `tracer`'s.
    pids: HashMap<u32, u32>,
}

impl Place {
    /// The host.
    pub fn host() -> std::io::Result<Self> {
        Ok(Self { root: Arc::new(Root::of_host()?), outer: None, pids: HashMap::new() })
    }

    /// A container, of which these are processes; None if it has ended.
    pub fn inside(outer: Outer, init: &Process, members: &[u32]) -> Option<Self> {
        let depth = processes::namespace_pids(init.pid)?.len();
        let pids = members.iter().filter_map(|pid| {
            let seen_inside = *processes::namespace_pids(*pid)?.get(depth - 1)?;
            Some((seen_inside, *pid))
        });
        let root = RuntimeProcess::open(init.pid, init.start_ticks).ok()?.into_root();
        Some(Self { root: Arc::new(root), pids: pids.collect(), outer: Some(outer) })
    }

    /// Whether it is the host.
    pub const fn is_host(&self) -> bool {
        self.outer.is_none()
    }

    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A process by the number that it has here.
    pub fn pid(&self, number: u32) -> Option<u32> {
        if self.is_host() { Some(number) } else { self.pids.get(&number).copied() }
    }

    /// Its root directory as [`Running`] has it.
    pub fn view(&self) -> Option<Arc<Root>> {
        (!self.is_host()).then(|| Arc::clone(&self.root))
    }

    /// Every container that a runtime's state tells of, and then those that only their watchers do. `members` are the
    /// processes of this place that no container within it has.
    pub fn containers(&self, processes: &Processes, members: &[u32]) -> Vec<Running> {
        let mut found = self.stated(processes);
        for watcher in members.iter().filter_map(|pid| processes.get(*pid)) {
            for container in watcher::containers(self, watcher, processes) {
                found.entry(container.init).or_insert(container);
            }
        }
        found.into_values().collect()
    }

    fn stated(&self, processes: &Processes) -> HashMap<u32, Running> {
        let last = |root: &Path| root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut roots: Vec<(PathBuf, String)> =
            STATE_ROOTS.map(Path::new).map(|root| (root.to_owned(), last(root))).into();
        for parent in STATE_ROOT_PARENTS.map(Path::new) {
            let below = files::list_below(self.root(), parent).into_iter();
            roots.extend(below.map(|name| (parent.join(name), "runc".to_owned())));
        }
        let mut containers = HashMap::new();
        for (root, runtime) in roots {
            for id in files::list_below(self.root(), &root) {
                if let Some(container) = self.by_state(&root, runtime.clone(), id, processes) {
                    containers.insert(container.init, container);
                }
            }
        }
        containers
    }

    /// A container by its runtime's state, if its first process is the one that the state tells of.
    fn by_state(&self, root: &Path, runtime: String, id: String, processes: &Processes) -> Option<Running> {
        let State { bundle, init, init_start_ticks } = match state::read(self.root(), root, &id, files::ROOT)
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
        let state_root = Some(root.to_owned());
        Some(Running { state_root, id, bundle, runtime, init: process.pid, view: self.view() })
    }
}
