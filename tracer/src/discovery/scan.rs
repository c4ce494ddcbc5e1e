//! Containers that run already: found through the runtimes' state on disk and the processes that watch over them.
//!
//! The programs are attached before this looks, so nothing that starts meanwhile is missed. What is found is entered
//! as *adoptees*, process by process; the programs adopt each when it next does something. What is a container's alone is
//! entered as evidence (`evidence.rs`): by that the programs recognise processes that were not found, since they come and go faster than
//! this can look. For the rest it is looked again until nothing new turns up.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tracer_common::{
    comm_bytes, comm_of,
    container::{Adoptee, ContainerKey, FollowedProcess},
    lifecycle::{TRUST_ROOT, TRUST_USER_NS, TRUSTED},
};
use tracing::{debug, warn};

use crate::{
    discovery::{
        Runtimes, claim, evidence,
        evidence::{CgroupTree, Shared},
        invocation::{Invocation, Outer, learn},
        membership::{Member, Membership},
        oci::cmdline::CommandLine,
        place,
        place::{Place, Running},
        readers::{Guest, Readers},
        unannounced,
    },
    model::{Container, EngineContainer, Isolation, Unknown},
    registry::{ContainerName, Known, Registry},
    sys::{
        clock::WallClock,
        files,
        proc_table::{Process, Processes, start_ticks},
        process_handle::RuntimeProcess,
    },
};

/// Looks at the most. What forks faster than it is found is recognised by evidence.
const LOOKS: usize = 10;
/// How long bundles may take to be read before it is looked into containers for further ones.
const BUNDLES: Duration = Duration::from_millis(500);
/// By how much a process may seem to have started after its container, in nanoseconds.
const START_TOLERANCE: i128 = 1_000_000_000;

/// Finds the containers that run, makes them known to `registry`, and hands their processes to the programs.
pub(crate) fn find(
    registry: &Arc<Registry>,
    readers: &Arc<Readers>,
    runtimes: &Runtimes,
) -> anyhow::Result<()> {
    Search::new(registry, readers, runtimes).look_around()?;
    Ok(())
}

/// Makes containers known that only their engine tells of, and hands their processes to the programs.
pub(crate) fn adopt(
    containers: &[EngineContainer],
    registry: &Arc<Registry>,
    readers: &Arc<Readers>,
) -> anyhow::Result<()> {
    if containers.is_empty() {
        return Ok(());
    }
    Search::new(registry, readers, &Runtimes::default()).run(|search, processes, is_news| {
        for container in containers {
            search.announce_witnessed(container, processes, is_news);
        }
    })
}

/// Whether a process is neither followed by the programs nor entered.
type IsNews<'a> = &'a dyn Fn(&Process) -> bool;

/// A look for containers on disk and in /proc.
pub(crate) struct Search<'a> {
    registry: &'a Arc<Registry>,
    readers: &'a Arc<Readers>,
    runtimes: &'a Runtimes,
    trees: Vec<Tree>,
    /// How many of the trees have been looked into for further containers.
    looked_into: usize,
    /// Runtimes at work, by process: the key of what they bring about.
    at_work: HashMap<u32, ContainerKey>,
    /// Keys that were given out here.
    taken: Vec<ContainerKey>,
    missing: Missing,
    /// Whether processes that nobody follows are handed to the programs.
    adopts: bool,
    /// Whether no slot was free for some.
    left_out: bool,
}

/// Keys that processes have and nobody knows, with those processes, as the programs know them.
pub(crate) type Missing = HashMap<ContainerKey, Vec<FollowedProcess>>;

/// A container with the tree of its processes.
struct Tree {
    /// Its first process.
    init: u32,
    key: ContainerKey,
    /// The container that it is in.
    outer: Option<ContainerKey>,
    /// The runtime's state directory and the id there, where they are known.
    name: Option<(PathBuf, String)>,
    /// Whether its processes are in a virtual machine: there are only those around it.
    hidden: bool,
    /// Whether it was known before.
    known: bool,
    /// Whether what is its alone has been entered.
    evident: bool,
}

impl Tree {
    /// The cgroups of its first process that may be its alone. A user's runtime may leave its container in the cgroup of the
    /// user's session: there only one that is named after the container counts.
    fn cgroups<'p>(&self, init: &'p Process) -> Vec<&'p str> {
        let of_user = self.name.as_ref().filter(|(root, _)| place::is_of_user(root)).map(|(_, id)| id);
        let may_be_own = |cgroup: &&str| of_user.is_none_or(|id| is_named_after(cgroup, id));
        init.cgroups.iter().map(String::as_str).filter(may_be_own).collect()
    }
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        registry: &'a Arc<Registry>,
        readers: &'a Arc<Readers>,
        runtimes: &'a Runtimes,
    ) -> Self {
        Self {
            registry,
            readers,
            runtimes,
            trees: Vec::new(),
            looked_into: 0,
            at_work: HashMap::new(),
            taken: Vec::new(),
            missing: Missing::new(),
            adopts: true,
            left_out: false,
        }
    }

    /// The same, when containers are known already, and keys are missing. Unless it `adopts`, all processes are followed
    /// that belong to any.
    pub(crate) fn again(self, missing: Missing, adopts: bool) -> Self {
        let tree = |known: Known| {
            let name = known.name.as_ref();
            Tree {
                init: known.init,
                key: known.key,
                outer: name.map(|name| name.outer).filter(|outer| *outer != ContainerKey::HOST),
                name: name.map(|name| (name.root.clone(), name.id.clone())),
                hidden: known.isolation == Some(Isolation::Kata),
                known: true,
                evident: true,
            }
        };
        let followed: HashMap<u32, ContainerKey> =
            self.registry.processes().into_iter().map(|process| (process.pid, process.container)).collect();
        // The number of a first process that has ended may be another's by now.
        let lives = |known: &Known| {
            let container = followed.get(&known.init).copied();
            container.or_else(|| self.registry.container_of(known.init)) == Some(known.key)
        };
        let trees = self.registry.known_containers().into_iter().filter(lives).map(tree).collect();
        Self { trees, missing, adopts, ..self }
    }

    /// Looks at the host and at the containers that may have others. Returns whether all that is to be followed is.
    pub(crate) fn look_around(&mut self) -> anyhow::Result<bool> {
        let host = Place::host(&self.runtimes.state_roots).context("opening the host's root directory")?;
        self.run(|search, processes, is_news| search.discover(&host, processes, is_news))?;
        Ok(!self.left_out)
    }

    /// A key for what nobody follows.
    fn take_slot(&mut self, runtime_mntns: u32, is_trusted: bool) -> Option<ContainerKey> {
        let key = self.registry.take_slot(runtime_mntns, is_trusted);
        self.left_out |= key.is_none();
        key
    }

    pub(crate) const fn registry(&self) -> &'a Arc<Registry> {
        self.registry
    }

    /// The keys that are missing still: none, from now on.
    pub(crate) fn take_missing(&mut self) -> Missing {
        std::mem::take(&mut self.missing)
    }

    /// Keys that are missing.
    pub(crate) fn miss(&mut self, missing: Missing) {
        self.missing = missing;
    }

    /// Whether a process is called like a runtime.
    pub(crate) fn is_runtime(&self, process: &Process) -> bool {
        is_runtime(&self.runtimes.names, &process.comm)
    }

    /// The first processes of the containers.
    pub(crate) fn inits<'p>(
        &self,
        processes: &'p Processes,
    ) -> impl Iterator<Item = (ContainerKey, &'p Process)> {
        self.trees.iter().filter_map(|tree| Some((tree.key, processes.get(tree.init)?)))
    }

    /// The container whose cgroup, and no other's, a process is in.
    pub(crate) fn in_cgroup_of(&self, process: &Process, processes: &Processes) -> Option<ContainerKey> {
        let containers = self.containers(processes);
        Some(Membership::new(&containers, processes).in_cgroup(process)?.key)
    }

    /// The containers with their first processes.
    fn containers<'p>(&self, processes: &'p Processes) -> Vec<Member<'p>> {
        let container = |tree: &Tree| {
            let init = processes.get(tree.init)?;
            Some(Member { key: tree.key, outer: tree.outer, init, cgroups: tree.cgroups(init) })
        };
        self.trees.iter().filter_map(container).collect()
    }

    /// Enters what is the containers' alone, of those within others first: these are in their outer ones' namespaces, too.
    fn enter_evidence(&mut self, processes: &Processes) {
        if self.trees.iter().all(|tree| tree.evident) {
            return;
        }
        let containers = self.containers(processes);
        let membership = Membership::new(&containers, processes);
        let inits = containers.iter().map(|container| container.init);
        // What is the host's, or the engines', is no container's alone.
        let parents = inits.clone().filter_map(|init| processes.get(init.ppid));
        let hosts = [1, 2, std::process::id()].into_iter().filter_map(|pid| processes.get(pid));
        let distinct: HashMap<u32, &Process> =
            inits.chain(parents).chain(hosts).map(|process| (process.pid, process)).collect();
        let shared = Shared::among(distinct.into_values());
        let cgroups = CgroupTree::open();
        let mut new: Vec<&mut Tree> = self.trees.iter_mut().filter(|tree| !tree.evident).collect();
        new.sort_by_key(|tree| tree.outer.is_none());
        for tree in new {
            tree.evident = true;
            let Some(init) = processes.get(tree.init).filter(|_| !tree.hidden) else { continue };
            let own = |cgroup: &&str| membership.is_own_cgroup(tree.key, &format!("0::{cgroup}"));
            let cgroup = init.unified_cgroup().filter(own);
            for (evidence, suspect) in evidence::of(tree.key, init, &shared, cgroup, cgroups.as_ref()) {
                self.registry.enter_evidence(evidence, &suspect);
            }
        }
    }

    /// Looks again and again until nothing is news any more. `discover` makes containers known.
    fn run(
        &mut self,
        mut discover: impl FnMut(&mut Self, &Arc<Processes>, IsNews<'_>),
    ) -> anyhow::Result<()> {
        let mut count = 0;
        for _ in 0..LOOKS {
            let processes = Arc::new(Processes::read().context("reading /proc")?);
            // Read after the processes: what the programs know by now they need not be told of. And in this order,
            // since the programs follow a process before they take it from those that are entered.
            let entered = self.registry.adoptees();
            let followed = self.registry.followed();
            let adopts = self.adopts;
            let is_news = |process: &Process| {
                adopts
                    && !followed.contains(&process.pid)
                    && !entered.contains(&(process.pid, process.start_ticks))
            };
            discover(self, &processes, &is_news);
            if !adopts {
                break;
            }
            self.enter_evidence(&processes);
            let mut found = self.look(&processes, &followed);
            found.retain(|pid, _| processes.get(*pid).is_some_and(is_news));
            if found.is_empty() {
                break;
            }
            for (pid, adoptee) in &found {
                self.registry.enter(*pid, adoptee);
            }
            count += found.len();
        }
        self.registry.entered(self.taken.drain(..), WallClock::boot_now());
        if self.left_out {
            warn!("containers that run already are left out for now: no slot is free");
        }
        let found = self.trees.iter().filter(|tree| !tree.known).count();
        debug!("{found} containers with {count} processes ran already");
        Ok(())
    }

    /// Makes containers known whose first process is news: on the host, and then in those of them that may have more.
    fn discover(&mut self, host: &Place, processes: &Arc<Processes>, is_news: IsNews<'_>) {
        // What a container runs watches over nothing.
        let members = self.members(processes);
        let hosts: Vec<u32> =
            processes.iter().map(|process| process.pid).filter(|pid| !members.contains_key(pid)).collect();
        for container in host.containers(processes, &hosts) {
            self.announce(&container, None, processes, is_news);
        }
        for container in self.rootless(processes) {
            self.announce(&container, None, processes, is_news);
        }
        for index in self.looked_into..self.trees.len() {
            self.discover_inside(index, processes, is_news);
        }
        self.looked_into = self.trees.len();
    }

    /// The containers of users, if those are to be trusted. Should a user's files hang, nobody waits for long.
    fn rootless(&self, processes: &Arc<Processes>) -> Vec<Running> {
        if !self.runtimes.trust_rootless {
            return Vec::new();
        }
        let processes = Arc::clone(processes);
        let look = move || Some(Place::host(&[]).ok()?.containers_of_users(&processes));
        let found = self.readers.handle().block_on(self.readers.guest(Guest::Rootless, look));
        found.flatten().unwrap_or_default()
    }

    /// Looks into a container that may have containers of its own. Should its files hang, nobody waits for long.
    fn discover_inside(&mut self, index: usize, processes: &Arc<Processes>, is_news: IsNews<'_>) {
        let Tree { init, key, .. } = self.trees[index];
        let (Some(outer), Some(init)) = (self.outer(key), processes.get(init).cloned()) else { return };
        let members: Vec<u32> =
            self.members(processes).iter().filter(|(_, of)| **of == key).map(|(pid, _)| *pid).collect();
        let inside = {
            let (processes, outer) = (Arc::clone(processes), outer.clone());
            move || Some(Place::inside(outer, &init, &members)?.containers(&processes, &members))
        };
        let found = self.readers.handle().block_on(self.readers.guest(Guest::Container(key), inside));
        for container in found.flatten().unwrap_or_default() {
            self.announce(&container, Some(outer.clone()), processes, is_news);
        }
    }

    /// The container of a key, if it may have containers of its own. That takes knowing its bundle.
    fn outer(&self, key: ContainerKey) -> Option<Outer> {
        // Of one that was known before the bundle has been read, or takes its time.
        let is_known = self.trees.iter().any(|tree| tree.key == key && tree.known);
        let deadline = Instant::now() + if is_known { Duration::ZERO } else { BUNDLES };
        loop {
            if let Some(attribution) = self.registry.resolved(key) {
                return Outer::new(&attribution, self.registry);
            }
            if Instant::now() >= deadline {
                return None;
            }
            // Bundles are read by other threads, in far less than this.
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Makes a container known, if its first process is news or its key is missing. Its bundle is read elsewhere.
    fn announce(
        &mut self,
        running: &Running,
        outer: Option<Outer>,
        processes: &Processes,
        is_news: IsNews<'_>,
    ) {
        let Some(init) = processes.get(running.init) else { return };
        let Some((key, began)) = self.key_of(init, is_news) else { return };
        let tree = Tree {
            init: init.pid,
            key,
            outer: outer.as_ref().map(|outer| outer.key),
            name: running.state_root.clone().map(|root| (root, running.id.clone())),
            hidden: Isolation::of_runtime(&running.runtime) == Some(Isolation::Kata),
            known: false,
            evident: false,
        };
        learn(Invocation::of_running(key, running, outer), self.registry, self.readers);
        if began {
            self.registry.begin(key, init.pid, 1, init.start_time());
        }
        self.trees.push(tree);
    }

    /// The key of the container with this first process: the one that it has and nobody knows, or one more, if nobody
    /// follows it. With it, whether the container has begun, for all that is known.
    fn key_of(&mut self, init: &Process, is_news: IsNews<'_>) -> Option<(ContainerKey, bool)> {
        let of_init = |process: &FollowedProcess| process.pid == init.pid;
        let missing = self.missing.iter().find_map(|(key, processes)| {
            let process = processes.iter().find(|process| of_init(process))?;
            Some((*key, process.container == *key))
        });
        if let Some((key, began)) = missing {
            debug!("container {} is known again: its first process is {}", key.slot(), init.pid);
            self.missing.remove(&key);
            return Some((key, began));
        }
        // What has ended by now may have been followed until it did.
        let is_new = is_news(init)
            && !self.trees.iter().any(|tree| tree.init == init.pid)
            && start_ticks(init.pid) == Some(init.start_ticks);
        let key = is_new.then(|| self.take_slot(0, true))??;
        self.taken.push(key);
        Some((key, true))
    }

    /// Makes a container known that its engine tells of, if it names the process that it started, and that one is
    /// news.
    fn announce_witnessed(
        &mut self,
        container: &EngineContainer,
        processes: &Processes,
        is_news: IsNews<'_>,
    ) {
        let Some(init) = container.pid.and_then(|pid| processes.get(pid)) else { return };
        // Another process may have its number by now.
        let started = WallClock::new().wall_time(init.start_time());
        let is_later = container.started_at.is_some_and(|at| started > i128::from(at) + START_TOLERANCE);
        if is_later {
            return;
        }
        let Some((key, _)) = self.key_of(init, is_news) else { return };
        // Where its runtime keeps its state is not known.
        let name =
            ContainerName { outer: ContainerKey::HOST, root: PathBuf::new(), id: container.id.clone() };
        self.registry.announce(key, ContainerKey::HOST, Some(name));
        self.registry.resolve(key, Container::of_engine(container));
        self.registry.begin(key, init.pid, 1, init.start_time());
        let runtime = container.runtime_handler.as_deref().unwrap_or_default();
        let hidden = Isolation::of_runtime(runtime) == Some(Isolation::Kata);
        self.trees.push(Tree {
            init: init.pid,
            key,
            outer: None,
            name: None,
            hidden,
            known: false,
            evident: false,
        });
    }

    /// The processes of all containers, and the runtimes at work with theirs.
    fn look(&mut self, processes: &Processes, followed: &HashSet<u32>) -> HashMap<u32, Adoptee> {
        let members = self.members(processes);
        let mut found: HashMap<u32, Adoptee> = HashMap::new();
        for (pid, key) in &members {
            if let Some(process) = processes.get(*pid) {
                found.insert(*pid, self.member(process, *key));
            }
        }
        let runtimes = &self.runtimes.names;
        // What a runtime forks without executing anything, as crun does, is no other runtime.
        let is_fork =
            |process: &Process| processes.get(process.ppid).is_some_and(|parent| parent.comm == process.comm);
        let is_runtime = |process: &&Process| is_runtime(runtimes, &process.comm) && !is_fork(process);
        for runtime in processes.iter().filter(is_runtime) {
            if followed.contains(&runtime.pid) {
                continue;
            }
            let outer = members.get(&runtime.pid).copied();
            let Some(key) = self.key_at_work(runtime, outer, None) else { continue };
            for process in
                processes.iter().filter(|process| processes.descends_from(process.pid, runtime.pid))
            {
                if members.get(&process.pid).copied() != outer {
                    continue;
                }
                let adoptee = if has_executed(process, runtime, processes) {
                    self.registry.begin(key, process.pid, 0, process.start_time());
                    adoptee(process, key, ContainerKey::HOST)
                } else {
                    adoptee(process, outer.unwrap_or(ContainerKey::HOST), key)
                };
                found.insert(process.pid, adoptee);
            }
        }
        found
    }

    /// A process of a container. Of one that this kernel does not see inside there are only those around it.
    fn member(&self, process: &Process, key: ContainerKey) -> Adoptee {
        if self.trees.iter().any(|tree| tree.key == key && tree.hidden) {
            adoptee(process, ContainerKey::HOST, key)
        } else {
            adoptee(process, key, ContainerKey::HOST)
        }
    }

    /// The processes of the containers: their first ones; those in a cgroup or pid namespace that is one container's
    /// alone; and what descends from those, each from the nearest.
    fn members(&self, processes: &Processes) -> HashMap<u32, ContainerKey> {
        let containers = self.containers(processes);
        let membership = Membership::new(&containers, processes);
        let key_of = |process: &Process| processes.lineage(process.pid).find_map(|one| membership.of(one));
        processes.iter().filter_map(|process| Some((process.pid, key_of(process)?))).collect()
    }

    /// The key of what a runtime is bringing about, on the host or in a container: the one that it has and nobody knows,
    /// or one that is known already, or one more.
    pub(crate) fn key_at_work(
        &mut self,
        runtime: &Process,
        around: Option<ContainerKey>,
        missing: Option<ContainerKey>,
    ) -> Option<ContainerKey> {
        if let Some(key) = self.at_work.get(&runtime.pid) {
            return Some(*key);
        }
        let outer = around.map(|key| self.outer(key));
        // What works within a container that may name no other is that container's.
        let outer = if let Some(outer) = outer { Some(outer?) } else { None };
        let said = self.look_at(runtime, outer.as_ref())?;
        let distrust = said.as_ref().err().copied();
        let key = match missing {
            Some(key) => key,
            None => self.take_slot(u32::try_from(runtime.mntns).unwrap_or(0), distrust.is_none())?,
        };
        let invocation = said.ok().and_then(|(line, process)| {
            Invocation::new(key, runtime.comm.clone(), Some(process), files::ROOT, outer, line)
        });
        let known = invocation.as_ref().and_then(Invocation::name).and_then(|name| {
            let is_it = |tree: &&Tree| {
                tree.name.as_ref().is_some_and(|(root, id)| *root == name.root && *id == name.id)
            };
            self.trees.iter().find(is_it).map(|tree| tree.key)
        });
        let key = match (known, invocation) {
            (None, Some(invocation)) => {
                learn(invocation, self.registry, self.readers);
                key
            }
            (None, None) if let Some(why) = distrust => {
                self.registry.announce(key, ContainerKey::HOST, None);
                let stray = Container { pod_known: true, ..Container::unknown(why) };
                self.registry.resolve(key, Container { runtime: runtime.comm.clone(), ..stray });
                key
            }
            _ if missing.is_some() => return None,
            (known, _) => {
                self.registry.give_back(key);
                self.at_work.insert(runtime.pid, known?);
                return known;
            }
        };
        if missing.is_none() {
            self.taken.push(key);
        }
        self.at_work.insert(runtime.pid, key);
        Some(key)
    }

    /// Has the container of a key known by the command line of its first process's parent, or of that one's, if that is the
    /// runtime which runs it, whatever its name. Returns whether that is so.
    pub(crate) fn learn_from_parent(
        &self,
        key: ContainerKey,
        first: &Process,
        processes: &Processes,
    ) -> bool {
        processes.lineage(first.pid).skip(1).take(2).any(|parent| {
            let invocation = unannounced::open_trusted(parent.pid, parent.start_ticks)
                .and_then(|process| unannounced::by_parent(key, first.pid, process, &parent.comm));
            let Some(invocation) = invocation else { return false };
            learn(invocation, self.registry, self.readers);
            self.registry.begin(key, first.pid, 1, first.start_time());
            true
        })
    }

    /// What a runtime at work was asked for, if it is believed; else nothing of it is looked at. None if it is gone, or
    /// makes no sense.
    fn look_at(
        &self,
        runtime: &Process,
        outer: Option<&Outer>,
    ) -> Option<Result<(CommandLine, RuntimeProcess), Unknown>> {
        let (pid, start_ticks, comm) = (runtime.pid, runtime.start_ticks, runtime.comm.clone());
        let needed = if outer.is_none() { TRUSTED } else { TRUST_ROOT | TRUST_USER_NS };
        let look = move || {
            let process = RuntimeProcess::open(pid, start_ticks).ok()?;
            let trust = process.trust().ok()?;
            // In a user namespace anybody may have as many processes as a user may.
            if trust & TRUST_USER_NS == 0 {
                return None;
            }
            if trust & needed != needed {
                return Some(Err(Unknown::Untrusted));
            }
            let line = claim::parse(&process.cmdline().ok()?, false, &comm).ok()?;
            Some(Ok((line, process)))
        };
        match outer {
            None => look(),
            Some(outer) => {
                let guest = Guest::Container(outer.key);
                self.readers.handle().block_on(self.readers.guest(guest, look)).flatten()
            }
        }
    }
}

/// Whether a component of a cgroup's path is a container's: `ID`, `ENGINE-ID`, `ENGINE-ID.scope`.
fn is_named_after(cgroup: &str, id: &str) -> bool {
    cgroup.rsplit('/').any(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        name.strip_suffix(id).is_some_and(|engine| engine.is_empty() || engine.ends_with('-'))
    })
}

/// Whether a descendant of a runtime runs the container's program already, or descends from what does: a process in
/// a mount namespace that is neither the runtime's nor its parent's, which is not called like the runtime any more.
/// What executes it only now the programs find out when they adopt it.
fn has_executed(process: &Process, runtime: &Process, processes: &Processes) -> bool {
    let is_entrypoint = |one: &Process| {
        let parent = processes.get(one.ppid);
        one.mntns != runtime.mntns
            && parent.is_some_and(|parent| parent.mntns != one.mntns)
            && !one.comm.starts_with(&runtime.comm)
    };
    processes.lineage(process.pid).take_while(|one| one.pid != runtime.pid).any(is_entrypoint)
}

/// A comm has 15 bytes of a name.
fn is_runtime(runtimes: &[String], comm: &str) -> bool {
    runtimes.iter().any(|name| comm_bytes(&comm_of(name)) == comm.as_bytes())
}

fn adoptee(process: &Process, container: ContainerKey, preparing: ContainerKey) -> Adoptee {
    Adoptee { container, preparing, start_ticks: process.start_ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_users_session_is_not_the_containers() {
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
            let tree = Tree {
                init: 1,
                key: ContainerKey::HOST,
                outer: None,
                name,
                hidden: false,
                known: false,
                evident: false,
            };
            tree.cgroups(&init).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cgroups("/run/user/7/crun"), std::slice::from_ref(&own));
        assert_eq!(cgroups("/run/crun"), [session, own]);
    }
}
