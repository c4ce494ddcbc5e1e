//! Containers that run already: found through the runtimes' state on disk and the processes that watch over them.
//!
//! The programs are attached before this looks, so nothing that starts meanwhile is missed. What is found is entered
//! as *adoptees*, process by process; the programs adopt each when it next does something. Processes that were
//! forked before their parent was entered are found by looking again, until nothing new turns up.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use tokio::runtime::Handle;
use tracer_common::{
    comm_bytes, comm_of,
    container::{Adoptee, ContainerKey, MEMBER, PREPARING},
};
use tracing::debug;

use super::{
    files,
    invocation::{Invocation, learn},
    process::{self, RuntimeProcess},
    processes::{Process, Processes},
    state::{self, State},
    watcher,
};
use crate::{clock::WallClock, containers::Registry};

/// Where runtimes keep their state unless they are told otherwise, and where engines tell them to.
const STATE_ROOTS: [&str; 4] = ["/run/runc", "/run/crun", "/run/youki", "/run/crio/runc"];
/// Directories of such directories: one for each of the engine's namespaces.
const STATE_ROOT_PARENTS: [&str; 2] = ["/run/containerd/runc", "/run/docker/runtime-runc"];
/// Looks at the most: processes that fork faster than they are found are a fork bomb.
const LOOKS: usize = 10;

/// A container that runs, or is about to.
#[derive(Debug, PartialEq, Eq)]
pub struct Running {
    /// The runtime's state directory, where that is known.
    pub state_root: Option<PathBuf>,
    /// As the runtime was told.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// The runtime's name.
    pub runtime: String,
    /// Its first process.
    pub init: u32,
}

/// Finds the containers that run, makes them known to `registry`, and hands their processes to the programs.
pub fn find(registry: &Arc<Registry>, readers: &Handle, runtimes: &[String]) -> anyhow::Result<()> {
    let host = process::host_root().context("opening the host's root directory")?;
    let mut search = Search { registry, readers, runtimes, trees: Vec::new(), at_work: HashMap::new() };
    let mut entered: HashSet<(u32, u64)> = HashSet::new();
    for _ in 0..LOOKS {
        let processes = Processes::read().context("reading /proc")?;
        // Read after the processes: what the programs follow by now they need not be told of.
        let followed = registry.followed();
        let is_news = |process: &Process| {
            !followed.contains(&process.pid) && !entered.contains(&(process.pid, process.start_ticks))
        };
        search.discover(host.as_fd(), &processes, &is_news);
        let found: Vec<(u32, Adoptee)> = search
            .look(&processes, &followed)
            .into_iter()
            .filter(|(pid, _)| processes.get(*pid).is_some_and(&is_news))
            .collect();
        if found.is_empty() {
            break;
        }
        for (pid, adoptee) in found {
            registry.enter(pid, &adoptee);
            entered.insert((pid, adoptee.start_ticks));
        }
    }
    registry.all_entered(WallClock::boot_now());
    debug!("{} containers with {} processes ran already", search.trees.len(), entered.len());
    Ok(())
}

struct Search<'a> {
    registry: &'a Arc<Registry>,
    readers: &'a Handle,
    runtimes: &'a [String],
    /// Containers, each with its key.
    trees: Vec<(Running, ContainerKey)>,
    /// Runtimes at work, by process: the key of what they bring about.
    at_work: HashMap<u32, ContainerKey>,
}

impl Search<'_> {
    /// Makes containers known whose first process is news: by their runtime's state, else by who watches over them.
    fn discover(&mut self, host: BorrowedFd<'_>, processes: &Processes, is_news: &impl Fn(&Process) -> bool) {
        let is_new = |search: &Self, init: u32| {
            processes.get(init).is_some_and(is_news) && search.trees.iter().all(|(tree, _)| tree.init != init)
        };
        for container in stated(host, processes) {
            if is_new(self, container.init) {
                self.announce(container);
            }
        }
        // What a container runs watches over nothing.
        let members = self.members(processes);
        for process in processes.iter().filter(|process| !members.contains_key(&process.pid)) {
            for container in watcher::containers(process, processes) {
                if !members.contains_key(&container.init) && is_new(self, container.init) {
                    self.announce(container);
                }
            }
        }
    }

    /// Makes a container known. Its bundle is read elsewhere.
    fn announce(&mut self, container: Running) {
        let Some(key) = self.registry.take_slot() else { return };
        let invocation = Invocation::of_running(key, &container);
        learn(invocation, self.registry, self.readers);
        self.trees.push((container, key));
    }

    /// The processes of all containers, and the runtimes at work with theirs.
    fn look(&mut self, processes: &Processes, followed: &HashSet<u32>) -> HashMap<u32, Adoptee> {
        let mut found = self.members(processes);
        let runtimes = self.runtimes;
        for runtime in processes.iter().filter(|process| is_runtime(runtimes, &process.comm)) {
            if followed.contains(&runtime.pid) || found.contains_key(&runtime.pid) {
                continue;
            }
            let Some(key) = self.key_at_work(runtime) else { continue };
            for process in
                processes.iter().filter(|process| processes.descends_from(process.pid, runtime.pid))
            {
                found.entry(process.pid).or_insert_with(|| adoptee(process, key, PREPARING, runtime.mntns));
            }
        }
        found
    }

    /// The processes of the containers: their first ones; those in a cgroup or pid namespace that is one container's
    /// alone; and what descends from those, each from the nearest.
    fn members(&self, processes: &Processes) -> HashMap<u32, Adoptee> {
        let inits: Vec<(&Process, ContainerKey)> =
            self.trees.iter().filter_map(|(tree, key)| Some((processes.get(tree.init)?, *key))).collect();
        // A pid namespace that is shared with the host or with `tracer` is nobody's own.
        let shared = [process::INITIAL_PID_NS, processes.get(std::process::id()).map_or(0, |me| me.pidns)];
        let mut core: HashMap<u32, ContainerKey> = inits.iter().map(|(init, key)| (init.pid, *key)).collect();
        for (init, key) in &inits {
            let others: Vec<&Process> = inits
                .iter()
                .map(|(other, _)| *other)
                .filter(|other| other.pid != init.pid)
                .chain(processes.get(init.ppid))
                .collect();
            let cgroups: Vec<&String> = init
                .cgroups
                .iter()
                .filter(|cgroup| !others.iter().any(|other| other.is_in(cgroup)))
                .collect();
            let own_pidns =
                !shared.contains(&init.pidns) && !others.iter().any(|other| other.pidns == init.pidns);
            for process in processes.iter() {
                if cgroups.iter().any(|cgroup| process.is_in(cgroup))
                    || own_pidns && process.pidns == init.pidns
                {
                    core.entry(process.pid).or_insert(*key);
                }
            }
        }
        let key_of =
            |process: &Process| processes.lineage(process.pid).find_map(|one| core.get(&one.pid).copied());
        let member = |process: &Process| Some((process.pid, adoptee(process, key_of(process)?, MEMBER, 0)));
        processes.iter().filter_map(member).collect()
    }

    /// The key of what a runtime is bringing about: a container that is known already, or one more.
    fn key_at_work(&mut self, runtime: &Process) -> Option<ContainerKey> {
        if let Some(key) = self.at_work.get(&runtime.pid) {
            return Some(*key);
        }
        let process = RuntimeProcess::open(runtime.pid, runtime.start_ticks).ok()?;
        let args = process.cmdline().ok()?;
        let trust = process.trust().ok()?;
        let key = self.registry.take_slot()?;
        let invocation = Invocation::of_process(key, runtime.comm.clone(), process, &args, trust);
        let known = invocation.as_ref().and_then(Invocation::name).and_then(|(root, id)| {
            let is_it = |(container, _): &&(Running, ContainerKey)| {
                container.state_root.as_ref() == Some(&root) && container.id == id
            };
            self.trees.iter().find(is_it).map(|(_, key)| *key)
        });
        let key = match (known, invocation) {
            (None, Some(invocation)) => {
                learn(invocation, self.registry, self.readers);
                key
            }
            (known, _) => {
                self.registry.give_back(key);
                known?
            }
        };
        self.at_work.insert(runtime.pid, key);
        Some(key)
    }
}

/// A comm has 15 bytes of a name.
fn is_runtime(runtimes: &[String], comm: &str) -> bool {
    runtimes.iter().any(|name| comm_bytes(&comm_of(name)) == comm.as_bytes())
}

fn adoptee(process: &Process, container: ContainerKey, stage: u32, runtime_mntns: u64) -> Adoptee {
    let runtime_mntns = u32::try_from(runtime_mntns).unwrap_or(0);
    Adoptee { container, start_ticks: process.start_ticks, stage, runtime_mntns }
}

/// Every container that a runtime's state tells of, once.
fn stated(host: BorrowedFd<'_>, processes: &Processes) -> Vec<Running> {
    let mut roots: Vec<PathBuf> = STATE_ROOTS.iter().map(PathBuf::from).collect();
    for parent in STATE_ROOT_PARENTS.map(Path::new) {
        roots.extend(files::list_below(host, parent).into_iter().map(|name| parent.join(name)));
    }
    let mut containers: HashMap<u32, Running> = HashMap::new();
    for root in roots {
        for id in files::list_below(host, &root) {
            if let Some(container) = from_state(host, &root, id, processes) {
                containers.insert(container.init, container);
            }
        }
    }
    containers.into_values().collect()
}

/// A container by its runtime's state, if its first process is the one that the state tells of.
fn from_state(host: BorrowedFd<'_>, root: &Path, id: String, processes: &Processes) -> Option<Running> {
    let State { bundle, init, init_start_ticks } = match state::read(host, root, &id) {
        Ok(state) => state,
        Err(error) => {
            debug!("{error}");
            return None;
        }
    };
    let process = processes.get(init?)?;
    if init_start_ticks.is_some_and(|ticks| ticks != process.start_ticks) {
        return None;
    }
    let runtime = root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Some(Running { state_root: Some(root.to_owned()), id, bundle, runtime, init: process.pid })
}
