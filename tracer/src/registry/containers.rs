//! From container keys to containers, shared by those who learn of containers and those who show events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use tokio::{
    sync::watch,
    time::{Duration, Instant, timeout_at},
};
use tracer_common::container::{
    Adoptee, CLOSED, ContainerKey, Evidence, FollowedProcess, IN_PROCESS, REJECTED, Suspect,
};
use tracing::{debug, warn};

use crate::{
    bpf::ContainerMaps,
    model::{Choice, Container, EngineContainer, Isolation, Selection},
    registry::state::{Entry, Sandbox, State},
    sys::process_handle::Root,
};

/// What an event needs to know about its container.
#[derive(Debug)]
pub(crate) struct Attribution {
    /// The container's own key; that of a process that joined it resolves to the same.
    pub(crate) key: ContainerKey,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// Whether it is asked for.
    pub(crate) choice: Choice,
    /// Whether it turned out to be no container: its processes are attributed to the host.
    pub(crate) host: bool,
}

/// What is known of a key.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Everything.
    Known(Arc<Attribution>),
    /// That it exists: its bundle is being read, or its pod's labels are fetched.
    Pending,
    /// Nothing.
    Unknown,
}

/// By what a runtime's `exec` names a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerName {
    /// The container that the runtime runs in; [`ContainerKey::HOST`] for none.
    pub(crate) outer: ContainerKey,
    /// The runtime's state directory.
    pub(crate) root: PathBuf,
    /// The container's id.
    pub(crate) id: String,
}

/// A container with its first process.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Its key.
    pub(crate) key: ContainerKey,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// The process that it started with.
    pub(crate) first: First,
    /// Whether its last process is gone.
    pub(crate) ended: bool,
}

impl Listed {
    /// What is shown of this and differs from what was shown `before`, by the names of JSON's fields.
    #[must_use]
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<&'static str> {
        let mut changes = self.container.changes_since(&before.container);
        let First { pid, since } = self.first;
        let first = [("pid", pid != before.first.pid), ("startedAt", since != before.first.since)];
        changes.extend(first.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name));
        changes
    }
}

/// The process that a container started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    /// In `tracer`'s pid namespace; 0 where it has none there.
    pub(crate) pid: u32,
    /// When it began to be the container's, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) since: u64,
}

/// What was missed of what the programs tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// Starts and ends of containers.
    pub(crate) records: u64,
    /// Processes and runtimes that may be followed by nobody.
    pub(crate) processes: u64,
    /// Keys that events have and nobody knows.
    pub(crate) keys: u64,
}

/// A container that is known, or about to be.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Its key.
    pub(crate) key: ContainerKey,
    /// By what its runtime names it, where that is known.
    pub(crate) name: Option<ContainerName>,
    /// The process that it started with, in `tracer`'s pid namespace.
    pub(crate) init: u32,
    /// What keeps its processes from this kernel.
    pub(crate) isolation: Option<Isolation>,
}

/// All containers that live, and those whose last events are still on their way.
pub(crate) struct Registry {
    selection: Selection,
    /// Whether events of the host are selected.
    host: bool,
    state: Mutex<State>,
    /// Told whenever a container becomes known or ends.
    changed: watch::Sender<()>,
    /// Counts how often something that was known has changed.
    revision: AtomicU64,
    /// Whether somebody fetches labels.
    labels_to_come: AtomicBool,
    /// Told when something was missed.
    gaps: watch::Sender<Gaps>,
}

impl Registry {
    /// An empty registry that tells the programs what `selection` rejects, and the events of the host unless `host`.
    #[must_use]
    pub(crate) fn new(selection: Selection, host: bool, maps: ContainerMaps) -> Self {
        Self {
            selection,
            host,
            state: Mutex::new(State::new(maps)),
            changed: watch::Sender::new(()),
            revision: AtomicU64::new(0),
            labels_to_come: AtomicBool::new(false),
            gaps: watch::Sender::new(Gaps::default()),
        }
    }

    /// Tells whenever a container becomes known or ends.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Another number as soon as what was known of a container has changed.
    #[must_use]
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// What is done with the events of a container of which nothing became known in time.
    #[must_use]
    pub(crate) fn unknown(&self) -> Attribution {
        self.attribute(ContainerKey::HOST, Container::unknown(crate::model::Unknown::Late))
    }

    /// Whether all containers are selected.
    #[must_use]
    pub(crate) fn selects_all(&self) -> bool {
        self.selection == Selection::default()
    }

    /// Whether a container is not selected, whatever else becomes known of it.
    #[must_use]
    pub(crate) fn rejects(&self, container: &Container) -> bool {
        self.selection.judge(container) == Choice::Rejected
    }

    fn attribute(&self, key: ContainerKey, container: Container) -> Attribution {
        let choice = self.selection.judge(&container);
        Attribution { key, container: Arc::new(container), choice, host: false }
    }

    /// What looked like a container is none, for all that can be found: its processes are attributed to the host.
    pub(crate) fn resolve_as_host(&self, key: ContainerKey) {
        let choice = if self.host { Choice::Selected } else { Choice::Rejected };
        let container = Arc::new(Container::unknown(crate::model::Unknown::Missed));
        let mut state = self.lock();
        self.set(&mut state, key, Arc::new(Attribution { key, container, choice, host: true }));
        drop(state);
        self.changed.send_replace(());
    }

    /// Whether the processes of a key are attributed to the host.
    #[must_use]
    pub(crate) fn is_host(&self, key: ContainerKey) -> bool {
        self.resolved(key).is_some_and(|attribution| attribution.host)
    }

    /// A runtime was started, in the container `outer` or on the host: its container will be known soon.
    pub(crate) fn announce(&self, key: ContainerKey, outer: ContainerKey, name: Option<ContainerName>) {
        self.lock().enter(key, outer, name);
    }

    /// The name of a container that was announced without.
    pub(crate) fn name(&self, key: ContainerKey, name: ContainerName) {
        if let Some(entry) = self.lock().entries.get_mut(&key) {
            entry.name = Some(name);
        }
    }

    /// The living container with this name; its labels may be missing yet. A later claim to the name does not take it over:
    /// of several the first counts that has begun.
    #[must_use]
    pub(crate) fn find(&self, name: &ContainerName) -> Option<Arc<Attribution>> {
        let state = self.lock();
        let named = state.entries.values().filter(|entry| entry.name.as_ref() == Some(name));
        named.min_by_key(|entry| (entry.first.is_none(), entry.number))?.attribution.clone()
    }

    /// The living container with this name but another state directory: that of one which ran already may be known
    /// by another path, or not at all. Its first process tells that it is the same.
    #[must_use]
    pub(crate) fn find_running(&self, name: &ContainerName, pid: u32) -> Option<Arc<Attribution>> {
        let state = self.lock();
        let is_it = |entry: &&Entry| {
            entry.first.is_some_and(|first| first.pid == pid)
                && entry.name.as_ref().is_some_and(|known| known.id == name.id && known.outer == name.outer)
        };
        state.entries.values().find(is_it)?.attribution.clone()
    }

    /// What is known of a key.
    #[must_use]
    pub(crate) fn look_up(&self, key: ContainerKey) -> Lookup {
        self.known(self.lock().entries.get(&key))
    }

    /// What a key was resolved to; its labels may be missing yet.
    #[must_use]
    pub(crate) fn resolved(&self, key: ContainerKey) -> Option<Arc<Attribution>> {
        self.lock().entries.get(&key)?.attribution.clone()
    }

    /// The container of a key is known from now on.
    pub(crate) fn resolve(&self, key: ContainerKey, container: Container) {
        let mut state = self.lock();
        let container = state.labelled(container);
        self.set(&mut state, key, Arc::new(self.attribute(key, container)));
        drop(state);
        self.changed.send_replace(());
    }

    /// A process joins a container: their keys resolve to the same.
    pub(crate) fn join(&self, key: ContainerKey, attribution: &Arc<Attribution>) {
        let mut state = self.lock();
        // More may be known of the container since it was looked up.
        let newest = state.entries.get(&attribution.key).and_then(|entry| entry.attribution.clone());
        self.set(&mut state, key, newest.unwrap_or_else(|| Arc::clone(attribution)));
        drop(state);
        self.changed.send_replace(());
    }

    /// Enters what a key resolves to, and tells the programs if nobody asked for it.
    fn set(&self, state: &mut State, key: ContainerKey, attribution: Arc<Attribution>) {
        // A container may have ended, and its entry be gone, before its bundle was read.
        let Some(entry) = state.entries.get_mut(&key) else { return };
        let (rejected, container) = (attribution.choice == Choice::Rejected, attribution.key);
        let in_process = attribution.container.in_process;
        if entry.attribution.replace(attribution).is_some() {
            self.revision.fetch_add(1, Ordering::Release);
        }
        state.mark(key, REJECTED, rejected);
        state.mark(key, IN_PROCESS, in_process);
        if state.is_closed(container) {
            state.mark(key, CLOSED, true);
        }
    }

    /// A process of a container began: its first, for all that is known. `at` is when, in nanoseconds of
    /// `CLOCK_BOOTTIME`.
    pub(crate) fn begin(&self, key: ContainerKey, pid: u32, container_pid: u32, at: u64) {
        /// The first process of a pid namespace.
        const INIT: u32 = 1;
        if let Some(entry) = self.lock().entries.get_mut(&key)
            && (entry.first.is_none() || container_pid == INIT)
        {
            entry.first = Some(First { pid, since: at });
        }
        self.changed.send_replace(());
    }

    /// The root directory of a container, kept from the first time that it is asked for: by `open`, with the process
    /// that the container started with.
    pub(crate) fn root(
        &self,
        key: ContainerKey,
        open: impl FnOnce(u32) -> Option<Root>,
    ) -> Option<Arc<Root>> {
        let first = {
            let state = self.lock();
            let entry = state.entries.get(&key)?;
            if let Some(root) = &entry.root {
                return Some(Arc::clone(root));
            }
            entry.first?
        };
        let root = Arc::new(open(first.pid)?);
        self.lock().entries.get_mut(&key)?.root = Some(Arc::clone(&root));
        Some(root)
    }

    /// Waits, within bounds, for the bundles that are being read by now. Returns whether they have been.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        let mut changes = self.changes();
        let deadline = Instant::now() + patience;
        let mut learning = self.learning();
        while !learning.is_empty() {
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return false;
            }
            // Not those that have come since: they may be many, and without an end.
            let still = self.learning();
            learning.retain(|key| still.contains(key));
        }
        true
    }

    /// The containers that have been started, and whose bundles are being read.
    fn learning(&self) -> HashSet<ContainerKey> {
        let state = self.lock();
        let learning = |entry: &Entry| entry.attribution.is_none() && entry.first.is_some();
        state.entries.iter().filter(|(_, entry)| learning(entry)).map(|(key, _)| *key).collect()
    }

    /// How many containers run that may be asked for or not: it takes more than is known of them to tell.
    #[must_use]
    pub(crate) fn undecided(&self) -> usize {
        let state = self.lock();
        let undecided = |(key, entry): &(&ContainerKey, &Entry)| {
            let attribution = entry.attribution.as_ref();
            let is_own = |attribution: &Arc<Attribution>| {
                attribution.key == **key && attribution.choice == Choice::Undecidable
            };
            entry.first.is_some() && !state.ended.contains_key(key) && attribution.is_some_and(is_own)
        };
        state.entries.iter().filter(undecided).count()
    }

    /// The containers that have been started and are asked for, but not forgotten.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<Listed> {
        let state = self.lock();
        let listed = |(key, entry): (&ContainerKey, &Entry)| {
            let attribution = entry.attribution.as_ref()?;
            let own = attribution.key == *key && attribution.choice == Choice::Selected && !attribution.host;
            let container = Arc::clone(&attribution.container);
            let (first, ended) = (entry.first?, state.ended.contains_key(key));
            own.then_some(Listed { key: *key, container, first, ended })
        };
        state.entries.iter().filter_map(listed).collect()
    }

    /// Whether somebody fetches labels: then what needs them waits for them.
    pub(crate) fn expect_labels(&self, expected: bool) {
        self.labels_to_come.store(expected, Ordering::Relaxed);
    }

    /// The sandboxes of the pods whose labels are not known. It is the host's engines that know them: those of pods
    /// within a container are nobody's to ask.
    #[must_use]
    pub(crate) fn lacking_labels(&self) -> HashSet<String> {
        let state = self.lock();
        let attributions = state.entries.values().filter_map(|entry| entry.attribution.as_ref());
        attributions
            .filter(|attribution| {
                attribution.container.lacks_labels() && attribution.container.outer.is_none()
            })
            .filter_map(|attribution| attribution.container.sandbox_id.clone())
            .collect()
    }

    /// The labels of a pod of the host are known from now on.
    pub(crate) fn label(&self, sandbox: &str, labels: &BTreeMap<String, String>) {
        let mut state = self.lock();
        let sandbox = Sandbox::of_host(sandbox);
        state.labels.insert(sandbox.clone(), labels.clone());
        self.change(&mut state, |container| {
            let lacking = container.lacks_labels() && Sandbox::of(container).as_ref() == Some(&sandbox);
            lacking.then(|| container.with_labels(labels.clone()))
        });
    }

    /// What an engine says completes what is known. Returns the containers that run and are not known at all.
    pub(crate) fn witness(&self, witnessed: Vec<EngineContainer>) -> Vec<EngineContainer> {
        let mut by_id: HashMap<String, EngineContainer> =
            witnessed.into_iter().map(|witnessed| (witnessed.id.clone(), witnessed)).collect();
        let mut state = self.lock();
        for EngineContainer { sandbox_id, pod, .. } in by_id.values() {
            if let Some(labels) = &pod.labels {
                state.labels.insert(Sandbox::of_host(sandbox_id), labels.clone());
            }
        }
        let mut known = HashSet::new();
        self.change(&mut state, |container| {
            let witnessed = by_id.get(&container.id)?;
            known.insert(container.id.clone());
            container.completed(witnessed)
        });
        by_id.retain(|id, witnessed| witnessed.running && !known.contains(id));
        // What nobody has seen needs no labels kept.
        let sandboxes: HashSet<Sandbox> = state.entries.values().filter_map(Entry::sandbox).collect();
        state.labels.retain(|sandbox, _| sandboxes.contains(sandbox));
        by_id.into_values().collect()
    }

    /// Replaces what is known of containers by what `change` makes of it, if anything.
    fn change(&self, state: &mut State, mut change: impl FnMut(&Container) -> Option<Container>) {
        // What joined a container has its attribution.
        let mut changed: HashMap<ContainerKey, Option<Arc<Attribution>>> = HashMap::new();
        let mut replaced = Vec::new();
        for (key, entry) in &state.entries {
            let Some(attribution) = &entry.attribution else { continue };
            let new = changed.entry(attribution.key).or_insert_with(|| {
                let container = change(&attribution.container)?;
                Some(Arc::new(self.attribute(attribution.key, container)))
            });
            if let Some(new) = new {
                replaced.push((*key, Arc::clone(new)));
            }
        }
        for (key, attribution) in replaced {
            self.set(state, key, attribution);
            self.changed.send_replace(());
        }
    }

    /// A key for a container that runs already, whose runtime was started in this mount namespace; None when no slot is
    /// free, or none that an untrusted runtime may have. It does not end before it is [`Self::entered`].
    #[must_use]
    pub(crate) fn take_slot(&self, runtime_mntns: u32, is_trusted: bool) -> Option<ContainerKey> {
        let mut state = self.lock();
        match state.take_slot(runtime_mntns, is_trusted) {
            Ok(key) => {
                state.adopted.insert(key);
                state.entering.insert(key);
                Some(key)
            }
            Err(error) => {
                debug!("a container that runs already is left out: no slot is free: {error}");
                None
            }
        }
    }

    /// Gives a key back that was taken in vain.
    pub(crate) fn give_back(&self, key: ContainerKey) {
        self.forget(&[key]);
    }

    /// Hands a process of a container that runs already to the programs.
    pub(crate) fn enter(&self, pid: u32, adoptee: &Adoptee) {
        if let Err(error) = self.lock().adopt(pid, adoptee) {
            warn!("process {pid} of a container that runs already is left out: {error}");
        }
    }

    /// Has the programs recognise processes of a container that runs already by a namespace or a cgroup.
    pub(crate) fn enter_evidence(&self, evidence: Evidence, suspect: &Suspect) {
        if let Err(error) = self.lock().enter_evidence(evidence, suspect) {
            debug!("container {} is not recognised by {evidence:?}: {error}", suspect.container.slot());
        }
    }

    /// Has the programs trace events from now on.
    pub(crate) fn trace(&self) -> anyhow::Result<()> {
        self.lock().trace().context("starting to trace")
    }

    /// All processes of these containers that ran already are entered. What had ended before is told now.
    pub(crate) fn entered(&self, keys: impl IntoIterator<Item = ContainerKey>, now: u64) {
        for key in keys {
            self.lock().entering.remove(&key);
            self.end(key, now);
        }
    }

    /// The processes that the programs follow by now, as `tracer` sees their ids.
    #[must_use]
    pub(crate) fn followed(&self) -> HashSet<u32> {
        self.processes().into_iter().map(|process| process.pid).collect()
    }

    /// What the programs know of the processes that they follow.
    #[must_use]
    pub(crate) fn processes(&self) -> Vec<FollowedProcess> {
        self.lock().maps.processes.iter().filter_map(|entry| Some(entry.ok()?.1)).collect()
    }

    /// Tells when something was missed.
    #[must_use]
    pub(crate) fn gaps(&self) -> watch::Receiver<Gaps> {
        self.gaps.subscribe()
    }

    /// So many starts and ends of containers, and processes, have been missed by now.
    pub(crate) fn missed(&self, records: u64, processes: u64) {
        self.gaps.send_if_modified(|gaps| {
            let now = Gaps { records, processes, ..*gaps };
            std::mem::replace(gaps, now) != now
        });
    }

    /// An event has a key that nobody knows, though all is drained that was told before.
    pub(crate) fn miss(&self, key: ContainerKey) {
        if self.lock().missing.insert(key) {
            self.gaps.send_modify(|gaps| gaps.keys += 1);
        }
    }

    /// Nothing at hand tells of a container that no runtime was seen to start: it is to be searched for.
    pub(crate) fn miss_unannounced(&self, key: ContainerKey) {
        let mut state = self.lock();
        state.remove(key);
        state.unannounced.insert(key);
        drop(state);
        self.miss(key);
    }

    /// The keys in use of containers that no runtime was seen to start, and that were searched for or are to be.
    #[must_use]
    pub(crate) fn unannounced(&self) -> Vec<ContainerKey> {
        self.lock().unannounced.iter().copied().collect()
    }

    /// Whether no runtime was seen to start what has a key.
    #[must_use]
    pub(crate) fn is_unannounced(&self, key: ContainerKey) -> bool {
        self.lock().unannounced.contains(&key)
    }

    /// Whether a key is in use without anybody having told of it.
    #[must_use]
    pub(crate) fn is_missing(&self, key: ContainerKey) -> bool {
        let state = self.lock();
        key != ContainerKey::HOST && !state.entries.contains_key(&key) && state.is_in_use(key)
    }

    /// The containers with a first process.
    #[must_use]
    pub(crate) fn known_containers(&self) -> Vec<Known> {
        let state = self.lock();
        let known = |(key, entry): (&ContainerKey, &Entry)| {
            let attribution = entry.attribution.as_ref();
            let is_own = attribution.is_none_or(|attribution| attribution.key == *key);
            let isolation = attribution.and_then(|attribution| attribution.container.isolation);
            let (init, name) = (entry.first?.pid, entry.name.clone());
            let is_container = attribution.is_none_or(|attribution| !attribution.host);
            (is_own && is_container).then_some(Known { key: *key, name, init, isolation })
        };
        state.entries.iter().filter_map(known).collect()
    }

    /// How many keys stand for something: containers, what joined them, and runtimes at work.
    #[must_use]
    pub(crate) fn keys_in_use(&self) -> usize {
        self.lock().entries.len()
    }

    /// The keys of which it is not known that they have begun.
    #[must_use]
    pub(crate) fn not_begun(&self) -> HashSet<ContainerKey> {
        let state = self.lock();
        state.entries.iter().filter(|(_, entry)| entry.first.is_none()).map(|(key, _)| *key).collect()
    }

    /// The keys in use without any process that the programs count, of which it is not known that they have ended.
    #[must_use]
    pub(crate) fn vacant(&self) -> Vec<ContainerKey> {
        /// Slots that are looked at before it is somebody else's turn.
        const TURN: usize = 1024;
        let slots: Vec<u32> = (0..self.lock().maps.free_slots.capacity()).collect();
        let vacant = slots.chunks(TURN).flat_map(|slots| {
            let state = self.lock();
            slots.iter().filter_map(|slot| state.vacant(*slot)).collect::<Vec<_>>()
        });
        vacant.collect()
    }

    /// The container of a process that the programs follow, or will.
    #[must_use]
    pub(crate) fn container_of(&self, pid: u32) -> Option<ContainerKey> {
        let state = self.lock();
        let adoptee = state.maps.adoptees.get(&pid, 0).ok().map(|adoptee| adoptee.container);
        let followed = || {
            let mut processes = state.maps.processes.iter().filter_map(Result::ok);
            processes.find(|(_, process)| process.pid == pid).map(|(_, process)| process.container)
        };
        adoptee.or_else(followed).filter(|container| *container != ContainerKey::HOST)
    }

    /// The processes that were entered and have not done anything yet, each with its start time in clock ticks.
    #[must_use]
    pub(crate) fn adoptees(&self) -> HashSet<(u32, u64)> {
        let state = self.lock();
        let adoptees = state.maps.adoptees.iter().filter_map(Result::ok);
        adoptees.map(|(pid, adoptee)| (pid, adoptee.start_ticks)).collect()
    }

    /// The last process of a key is gone. Its name is kept until [`Registry::forget`], for the events
    /// that are still on their way.
    /// `at` is when it was, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn end(&self, key: ContainerKey, at: u64) {
        let mut state = self.lock();
        // The kernel side may report an end twice; a slot is given back once.
        if state.entering.contains(&key) || (state.adopted.contains(&key) && state.has_processes(key)) {
            return;
        }
        if state.is_in_use(key) && !state.ended.contains_key(&key) {
            state.ended.insert(key, at);
            state.remove_evidence(key);
            // The next container may have the same name.
            if let Some(entry) = state.entries.get_mut(&key) {
                entry.name = None;
            }
            drop(state);
            self.changed.send_replace(());
        }
    }

    /// The keys that have ended by now, and when.
    #[must_use]
    pub(crate) fn ended(&self) -> Vec<(ContainerKey, u64)> {
        self.lock().ended.iter().map(|(key, at)| (*key, *at)).collect()
    }

    /// Forgets keys of which no event can come any more, and gives their slots back.
    pub(crate) fn forget(&self, keys: &[ContainerKey]) {
        let mut state = self.lock();
        for key in keys {
            state.remove(*key);
            state.adopted.remove(key);
            state.entering.remove(key);
            state.missing.remove(key);
            state.unannounced.remove(key);
            state.ended.remove(key);
            debug!("slot {} is free again", key.slot());
            if let Some(last) = state.given_back.get_mut(key.slot() as usize) {
                *last = key.generation();
            }
            if let Err(error) = state.maps.free_slots.give_back(key.slot()) {
                warn!("giving back slot {}: {error}", key.slot());
            }
        }
    }

    fn known(&self, entry: Option<&Entry>) -> Lookup {
        match entry {
            Some(Entry { attribution: Some(attribution), .. }) if !self.awaits_labels(attribution) => {
                Lookup::Known(Arc::clone(attribution))
            }
            Some(_) => Lookup::Pending,
            None => Lookup::Unknown,
        }
    }

    fn awaits_labels(&self, attribution: &Attribution) -> bool {
        attribution.choice == Choice::Undecidable
            && attribution.container.lacks_labels()
            && attribution.container.outer.is_none()
            && self.labels_to_come.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change to the state is complete when a panic could happen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
