//! Searches for containers that were running already, by the runtimes' state on disk and the containers' monitors.
//!
//! The programs are attached before this starts, so nothing that starts in the meantime is missed. The processes that it
//! finds are entered as *adoptees*; the programs adopt each when it next does something. What is a container's alone is
//! entered as evidence (`evidence.rs`): by that the programs recognise processes that were not found, since they start and
//! exit faster than this can look. For the rest it looks again until nothing new turns up.

mod members;
mod process_tree;
mod running_runtimes;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracer_common::{
    comm_bytes, comm_of,
    container::{Adoptee, ContainerKey, FollowedProcess},
};
use tracing::{debug, warn};

use crate::{
    discovery::{
        Runtimes,
        environment::{Environment, RunningContainer},
        invocation::Invocation,
        node_container::NodeContainer,
        readers::UntrustedOwner,
        resolver::Resolver,
    },
    model::{Container, EngineContainer, Isolation},
    registry::{ContainerName, Registry, StartedContainer},
    sys::{
        clock::WallClock,
        proc_table::{Process, Processes, start_ticks},
    },
};
use process_tree::ProcessTree;

/// How often a search reads /proc at most. What forks faster than it is found is recognised by evidence.
const ROUNDS: usize = 10;
/// How long to wait for a bundle before its container is searched for further ones.
const BUNDLE_TIMEOUT: Duration = Duration::from_millis(500);
/// By how much a process may seem to have started after its container, in nanoseconds.
const START_TOLERANCE: i128 = 1_000_000_000;

/// Finds the containers that run, has them resolved, and enters their processes.
pub(crate) fn find(resolver: &Resolver, runtimes: &Runtimes) -> anyhow::Result<()> {
    Search::new(resolver, runtimes).look_around()?;
    Ok(())
}

/// Resolves containers that only their engine knows, and enters their processes.
pub(crate) fn adopt(containers: &[EngineContainer], resolver: &Resolver) -> anyhow::Result<()> {
    if containers.is_empty() {
        return Ok(());
    }
    Search::new(resolver, &Runtimes::default()).run(|search, processes, is_unfollowed| {
        for container in containers {
            search.announce_from_engine(container, processes, is_unfollowed);
        }
    })
}

/// Whether a process is neither followed by the programs nor entered.
type IsUnfollowed<'a> = &'a dyn Fn(&Process) -> bool;

/// A search for containers on disk and in /proc.
pub(crate) struct Search<'a> {
    resolver: &'a Resolver,
    runtimes: &'a Runtimes,
    trees: Vec<ProcessTree>,
    /// How many of the trees were searched for nested containers.
    searched_inside: usize,
    /// Running runtimes, by process, with the keys of the containers that they start.
    running_runtimes: HashMap<u32, ContainerKey>,
    /// Keys that were given out here.
    taken: Vec<ContainerKey>,
    missing: Missing,
    adoption: Adoption,
    coverage: Coverage,
}

/// How far the runtime of a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The container has a process of its own.
    Begun,
    /// For all that is known, its first process is still the runtime's.
    Prepared,
}

/// Whether a search enters processes that are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// It does.
    Enter,
    /// All processes that belong to a container are followed.
    Skip,
}

/// Whether a search has covered all that is to be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// It has.
    Complete,
    /// No slot was free for some: it is to be repeated.
    SlotsExhausted,
}

/// The outcome of resolving one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The container was found.
    Found,
    /// It was not.
    NotFound,
}

/// Keys that were not announced, with the processes that have them.
pub(crate) type Missing = HashMap<ContainerKey, Vec<FollowedProcess>>;

impl<'a> Search<'a> {
    pub(crate) fn new(resolver: &'a Resolver, runtimes: &'a Runtimes) -> Self {
        Self {
            resolver,
            runtimes,
            trees: Vec::new(),
            searched_inside: 0,
            running_runtimes: HashMap::new(),
            taken: Vec::new(),
            missing: Missing::new(),
            adoption: Adoption::Enter,
            coverage: Coverage::Complete,
        }
    }

    /// The search for `missing` keys, when other containers are in the registry already.
    pub(crate) fn again(self, missing: Missing, adoption: Adoption) -> Self {
        let tree = |started: StartedContainer| {
            let name = started.name.as_ref();
            ProcessTree {
                init: started.init,
                key: started.key,
                outer: name.map(|name| name.outer).filter(|outer| *outer != ContainerKey::HOST),
                name: name.map(|name| (name.root.clone(), name.id.clone())),
                in_vm: started.isolation == Some(Isolation::Kata),
                known_before: true,
                has_evidence: true,
            }
        };
        let slots = &self.resolver.registry.slots;
        let followed: HashMap<u32, ContainerKey> =
            slots.processes().into_iter().map(|process| (process.pid, process.container)).collect();
        // The id of a first process that has exited may be another's by now.
        let lives = |started: &StartedContainer| {
            let container = followed.get(&started.init).copied();
            container.or_else(|| slots.container_of(started.init)) == Some(started.key)
        };
        let trees = self.registry().started_containers().into_iter().filter(lives).map(tree).collect();
        Self { trees, missing, adoption, ..self }
    }

    /// Searches the host and the node containers.
    pub(crate) fn look_around(&mut self) -> anyhow::Result<Coverage> {
        let host =
            Environment::host(&self.runtimes.state_roots).context("opening the host's root directory")?;
        self.run(|search, processes, is_unfollowed| search.discover(&host, processes, is_unfollowed))?;
        Ok(self.coverage)
    }

    /// A key for a container that is not followed.
    fn take_slot(&mut self, runtime_mntns: u32, is_trusted: bool) -> Option<ContainerKey> {
        let key = self.registry().take_slot(runtime_mntns, is_trusted);
        if key.is_none() {
            self.coverage = Coverage::SlotsExhausted;
        }
        key
    }

    pub(crate) fn registry(&self) -> &'a Registry {
        &self.resolver.registry
    }

    /// Reads for an untrusted owner, and waits within bounds.
    fn block_on_untrusted<T: Send + 'static>(
        &self,
        owner: UntrustedOwner,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let readers = &self.resolver.readers;
        readers.handle().block_on(readers.untrusted(owner, read))
    }

    /// Takes the keys that are still missing.
    pub(crate) fn take_missing(&mut self) -> Missing {
        std::mem::take(&mut self.missing)
    }

    /// Sets the keys that are missing.
    pub(crate) fn set_missing(&mut self, missing: Missing) {
        self.missing = missing;
    }

    /// Whether a process has a runtime's name.
    pub(crate) fn is_runtime(&self, process: &Process) -> bool {
        is_runtime(&self.runtimes.names, &process.comm)
    }

    /// Reads /proc again and again until no unfollowed process turns up. `discover` announces containers.
    fn run(
        &mut self,
        mut discover: impl FnMut(&mut Self, &Arc<Processes>, IsUnfollowed<'_>),
    ) -> anyhow::Result<()> {
        let slots = &self.resolver.registry.slots;
        let mut count = 0;
        for _ in 0..ROUNDS {
            let processes = Arc::new(Processes::read().context("reading /proc")?);
            // Read after the processes: what the programs know by now need not be entered. And in this order, since the
            // programs follow a process before they remove it from the adoptees.
            let entered = slots.adoptees();
            let followed = slots.followed();
            let adoption = self.adoption;
            let is_unfollowed = |process: &Process| {
                adoption == Adoption::Enter
                    && !followed.contains(&process.pid)
                    && !entered.contains(&(process.pid, process.start_ticks))
            };
            discover(self, &processes, &is_unfollowed);
            if adoption == Adoption::Skip {
                break;
            }
            self.enter_evidence(&processes);
            let mut found = self.look(&processes, &followed);
            found.retain(|pid, _| processes.get(*pid).is_some_and(is_unfollowed));
            if found.is_empty() {
                break;
            }
            for (pid, adoptee) in &found {
                slots.enter(*pid, adoptee);
            }
            count += found.len();
        }
        self.registry().entered(self.taken.drain(..), WallClock::boot_now());
        if self.coverage == Coverage::SlotsExhausted {
            warn!("containers that were running already are left out for now: no slot is free");
        }
        let found = self.trees.iter().filter(|tree| !tree.known_before).count();
        debug!("{found} containers with {count} processes were running already");
        Ok(())
    }

    /// Announces containers whose first process is unfollowed: on the host, and then in its node containers.
    fn discover(&mut self, host: &Environment, processes: &Arc<Processes>, is_unfollowed: IsUnfollowed<'_>) {
        // What runs in a container is not a monitor of the host's.
        let members = self.members(processes);
        let hosts: Vec<u32> =
            processes.iter().map(|process| process.pid).filter(|pid| !members.contains_key(pid)).collect();
        for container in host.containers(processes, &hosts) {
            self.announce(&container, None, processes, is_unfollowed);
        }
        for container in self.rootless(processes) {
            self.announce(&container, None, processes, is_unfollowed);
        }
        for index in self.searched_inside..self.trees.len() {
            self.discover_inside(index, processes, is_unfollowed);
        }
        self.searched_inside = self.trees.len();
    }

    /// The containers of users, if those are trusted. Files that hang delay this within bounds.
    fn rootless(&self, processes: &Arc<Processes>) -> Vec<RunningContainer> {
        if !self.runtimes.trust_rootless {
            return Vec::new();
        }
        let processes = Arc::clone(processes);
        let look = move || Some(Environment::host(&[]).ok()?.containers_of_users(&processes));
        let found = self.block_on_untrusted(UntrustedOwner::Rootless, look);
        found.flatten().unwrap_or_default()
    }

    /// Searches a node container. Files that hang delay this within bounds.
    fn discover_inside(&mut self, index: usize, processes: &Arc<Processes>, is_unfollowed: IsUnfollowed<'_>) {
        let ProcessTree { init, key, .. } = self.trees[index];
        let (Some(outer), Some(init)) = (self.node_container(key), processes.get(init).cloned()) else {
            return;
        };
        let members: Vec<u32> =
            self.members(processes).iter().filter(|(_, of)| **of == key).map(|(pid, _)| *pid).collect();
        let inside = {
            let (processes, outer) = (Arc::clone(processes), outer.clone());
            move || Some(Environment::inside(outer, &init, &members)?.containers(&processes, &members))
        };
        let found = self.block_on_untrusted(UntrustedOwner::Container(key), inside);
        for container in found.flatten().unwrap_or_default() {
            self.announce(&container, Some(outer.clone()), processes, is_unfollowed);
        }
    }

    /// The container of a key, if it is a node container. That takes its bundle.
    fn node_container(&self, key: ContainerKey) -> Option<NodeContainer> {
        // The bundle of a container that was known before has been read, or is not waited for.
        let known_before = self.trees.iter().any(|tree| tree.key == key && tree.known_before);
        let deadline = Instant::now() + if known_before { Duration::ZERO } else { BUNDLE_TIMEOUT };
        loop {
            if let Some(attribution) = self.registry().resolved(key) {
                return NodeContainer::new(&attribution, self.registry());
            }
            if Instant::now() >= deadline {
                return None;
            }
            // Bundles are read by other threads, in far less than this.
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Announces a container, if its first process is unfollowed or its key is missing. Its bundle is read in the background.
    fn announce(
        &mut self,
        running: &RunningContainer,
        outer: Option<NodeContainer>,
        processes: &Processes,
        is_unfollowed: IsUnfollowed<'_>,
    ) {
        let Some(init) = processes.get(running.init) else { return };
        let Some((key, progress)) = self.key_of(init, is_unfollowed) else { return };
        let tree = ProcessTree {
            init: init.pid,
            key,
            outer: outer.as_ref().map(|outer| outer.key),
            name: running.state_root.clone().map(|root| (root, running.id.clone())),
            in_vm: Isolation::of_runtime(&running.runtime) == Some(Isolation::Kata),
            known_before: false,
            has_evidence: false,
        };
        self.resolver.resolve(Invocation::of_running(key, running, outer));
        if progress == Progress::Begun {
            self.registry().begin(key, init.pid, 1, init.start_time());
        }
        self.trees.push(tree);
    }

    /// The key of the container with this first process: the missing one that it has, or a new one if it is unfollowed. With
    /// it, whether the process is known to be the container's.
    fn key_of(
        &mut self,
        init: &Process,
        is_unfollowed: IsUnfollowed<'_>,
    ) -> Option<(ContainerKey, Progress)> {
        let of_init = |process: &FollowedProcess| process.pid == init.pid;
        let missing = self.missing.iter().find_map(|(key, processes)| {
            let process = processes.iter().find(|process| of_init(process))?;
            let is_bound = process.container == *key;
            Some((*key, if is_bound { Progress::Begun } else { Progress::Prepared }))
        });
        if let Some((key, progress)) = missing {
            debug!("container {} is known again: its first process is {}", key.slot(), init.pid);
            self.missing.remove(&key);
            return Some((key, progress));
        }
        // A process that has exited by now may have been followed until then.
        let is_new = is_unfollowed(init)
            && !self.trees.iter().any(|tree| tree.init == init.pid)
            && start_ticks(init.pid) == Some(init.start_ticks);
        let key = is_new.then(|| self.take_slot(0, true))??;
        self.taken.push(key);
        Some((key, Progress::Begun))
    }

    /// Announces a container that its engine knows, if the engine names its first process, and that one is unfollowed.
    fn announce_from_engine(
        &mut self,
        container: &EngineContainer,
        processes: &Processes,
        is_unfollowed: IsUnfollowed<'_>,
    ) {
        let Some(init) = container.pid.and_then(|pid| processes.get(pid)) else { return };
        // Another process may have its id by now.
        let started = WallClock::new().wall_time(init.start_time());
        let is_later = container.started_at.is_some_and(|at| started > i128::from(at) + START_TOLERANCE);
        if is_later {
            return;
        }
        let Some((key, _)) = self.key_of(init, is_unfollowed) else { return };
        // Its runtime's state directory is not known.
        let name =
            ContainerName { outer: ContainerKey::HOST, root: PathBuf::new(), id: container.id.clone() };
        self.registry().announce(key, ContainerKey::HOST, Some(name));
        self.registry().resolve(key, Container::of_engine(container));
        self.registry().begin(key, init.pid, 1, init.start_time());
        let runtime = container.runtime_handler.as_deref().unwrap_or_default();
        let in_vm = Isolation::of_runtime(runtime) == Some(Isolation::Kata);
        self.trees.push(ProcessTree {
            init: init.pid,
            key,
            outer: None,
            name: None,
            in_vm,
            known_before: false,
            has_evidence: false,
        });
    }
}

/// Whether a comm, 15 bytes of a name, is a runtime's.
fn is_runtime(runtimes: &[String], comm: &str) -> bool {
    runtimes.iter().any(|name| comm_bytes(&comm_of(name)) == comm.as_bytes())
}

fn adoptee(process: &Process, container: ContainerKey, preparing: ContainerKey) -> Adoptee {
    Adoptee { container, preparing, start_ticks: process.start_ticks }
}
