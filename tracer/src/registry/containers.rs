//! The registry: one lock around the lives of keys, and the notifications of those who wait for a change.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::watch;
use tracer_common::container::ContainerKey;
use tracing::debug;

use crate::{
    bpf::ContainerMaps,
    model::{Container, EngineContainer, Selection, Unknown},
    registry::{
        Attribution, ContainerName, FirstProcess, Lookup, attribution::Attributions, keys::Key,
        labels::Sandbox, life::Refused, slots::Slots, state::State,
    },
    sys::{process_handle::Root, thread::lock},
};

/// What was lost of the programs' lifecycle records, as numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MissedRecords {
    /// Starts and ends of containers.
    pub(crate) records: u64,
    /// Processes and runtimes that the programs may not follow.
    pub(crate) processes: u64,
    /// Keys that events have and that were not announced.
    pub(crate) keys: u64,
}

/// All containers that run, and those whose last events are still on their way.
pub(crate) struct Registry {
    /// The kernel's side.
    pub(crate) slots: Slots,
    pub(super) attributions: Attributions,
    state: Mutex<State>,
    /// Notified whenever a container is resolved, begins or ends.
    changed: watch::Sender<()>,
    gaps: watch::Sender<MissedRecords>,
}

impl Registry {
    /// An empty registry. It has the programs reject what `selection` does, and the events of the host unless `host`.
    #[must_use]
    pub(crate) fn new(selection: Selection, host: bool, maps: ContainerMaps) -> Self {
        Self {
            slots: Slots::new(maps),
            attributions: Attributions::new(selection, host),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            gaps: watch::Sender::new(MissedRecords::default()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The life of a key.
impl Registry {
    /// A runtime was executed in the container `outer`, or on the host: its container will be resolved.
    pub(crate) fn announce(&self, key: ContainerKey, outer: ContainerKey, name: Option<ContainerName>) {
        note(key, "announced", self.lock().announce(key, outer, name, &self.slots));
    }

    /// Sets the name of a container that was announced without.
    pub(crate) fn set_name(&self, key: ContainerKey, name: ContainerName) {
        if let Some(entry) = self.lock().keys.get_mut(key)
            && entry.life.stage().is_announced()
            && entry.life.ended_at().is_none()
        {
            entry.name = Some(name);
        }
    }

    /// Resolves a key to its container.
    pub(crate) fn resolve(&self, key: ContainerKey, container: Container) {
        self.resolve_in(self.lock(), key, container);
    }

    /// Resolves the key of a process that joined a container which has no key: only its state tells of it.
    pub(crate) fn resolve_joined(&self, key: ContainerKey, container: Container) {
        let mut state = self.lock();
        if let Some(entry) = state.keys.get_mut(key) {
            entry.joins = true;
        }
        self.resolve_in(state, key, container);
    }

    fn resolve_in(&self, mut state: MutexGuard<'_, State>, key: ContainerKey, container: Container) {
        let container = state.labels.exchange(container);
        let attribution = Arc::new(self.attributions.of_container(key, container));
        self.resolve_to(state, key, attribution);
    }

    /// Resolves the key of a process that joined a container to that container.
    pub(crate) fn join(&self, key: ContainerKey, attribution: &Arc<Attribution>) {
        let state = self.lock();
        // More may be known of the container since it was looked up.
        let newest = state.keys.get(attribution.key).and_then(Key::attribution).cloned();
        self.resolve_to(state, key, newest.unwrap_or_else(|| Arc::clone(attribution)));
    }

    /// Resolves a key to no container: its processes are attributed to the host.
    pub(crate) fn resolve_as_host(&self, key: ContainerKey) {
        self.resolve_to(self.lock(), key, Arc::new(self.attributions.of_host(key)));
    }

    fn resolve_to(&self, mut state: MutexGuard<'_, State>, key: ContainerKey, to: Arc<Attribution>) {
        let resolved = state.resolve(key, to, &self.slots, &self.attributions);
        drop(state);
        note(key, "resolved", resolved);
        self.changed.send_replace(());
    }

    /// A process of a container has started: as far as known, its first. `at` is when, in nanoseconds of
    /// `CLOCK_BOOTTIME`.
    pub(crate) fn begin(&self, key: ContainerKey, pid: u32, container_pid: u32, at: u64) {
        /// The first process of a pid namespace.
        const INIT: u32 = 1;
        let first = FirstProcess { pid, since: at };
        note(key, "begun", self.lock().begin(key, first, container_pid == INIT));
        self.changed.send_replace(());
    }

    /// The last process of a key has exited, at `at` in nanoseconds of `CLOCK_BOOTTIME`. The key still resolves until
    /// [`Registry::forget`], for the events that are on their way.
    pub(crate) fn end(&self, key: ContainerKey, at: u64) {
        // The programs may report an end twice.
        let ended = self.lock().end(key, at, &self.slots);
        if ended.is_ok() {
            self.changed.send_replace(());
        }
        note(key, "ended", ended);
    }

    /// Forgets keys that have ended and of which no event can come any more, and gives their slots back.
    pub(crate) fn forget(&self, keys: &[ContainerKey]) {
        let mut state = self.lock();
        for key in keys {
            note(*key, "forgotten", state.forget(*key, &self.slots));
        }
    }

    /// Takes a slot for a container that was running already, whose runtime was started in this mount namespace. None when
    /// no slot is free, or none that an untrusted runtime may have. The key does not end before it is [`Self::entered`].
    #[must_use]
    pub(crate) fn take_slot(&self, runtime_mntns: u32, is_trusted: bool) -> Option<ContainerKey> {
        let mut state = self.lock();
        match self.slots.take(runtime_mntns, is_trusted) {
            Ok(key) => {
                state.keys.insert_taken(key);
                Some(key)
            }
            Err(error) => {
                debug!("a container that was running already is left out: no slot is free: {error}");
                None
            }
        }
    }

    /// Gives a slot back that was taken and not used.
    pub(crate) fn give_back(&self, key: ContainerKey) {
        self.forget(&[key]);
    }

    /// All processes of these containers were entered. Those that have exited meanwhile end now.
    pub(crate) fn entered(&self, keys: impl IntoIterator<Item = ContainerKey>, now: u64) {
        for key in keys {
            self.lock().entered(key);
            self.end(key, now);
        }
    }

    /// An event has a key that was not announced, although all records that came before were read.
    pub(crate) fn miss(&self, key: ContainerKey) {
        if self.lock().miss(key, &self.slots).is_ok() {
            self.gaps.send_modify(|gaps| gaps.keys += 1);
        }
    }

    /// Nothing available leads from a key, whose runtime was not seen, to a container: it has to be searched for.
    pub(crate) fn miss_unseen(&self, key: ContainerKey) {
        let missed = self.lock().miss_unseen(key, &self.slots);
        if missed.is_ok() {
            self.gaps.send_modify(|gaps| gaps.keys += 1);
        }
        note(key, "searched for", missed);
    }
}

/// What a key resolves to.
impl Registry {
    /// What is known of a key.
    #[must_use]
    pub(crate) fn look_up(&self, key: ContainerKey) -> Lookup {
        let state = self.lock();
        match state.keys.get_announced(key).map(Key::attribution) {
            Some(Some(attribution)) if !self.attributions.awaits_labels(attribution) => {
                Lookup::Known(Arc::clone(attribution))
            }
            Some(_) => Lookup::Pending,
            None => Lookup::Unknown,
        }
    }

    /// What a key was resolved to; its labels may be missing yet.
    #[must_use]
    pub(crate) fn resolved(&self, key: ContainerKey) -> Option<Arc<Attribution>> {
        self.lock().keys.get(key)?.attribution().cloned()
    }

    /// Whether the processes of a key are attributed to the host.
    #[must_use]
    pub(crate) fn is_host(&self, key: ContainerKey) -> bool {
        self.resolved(key).is_some_and(|attribution| attribution.host)
    }

    /// The attribution of events whose container did not become known in time.
    #[must_use]
    pub(crate) fn unknown(&self) -> Attribution {
        self.attributions.of_container(ContainerKey::HOST, Container::unknown(Unknown::Late))
    }

    /// Whether all containers are selected.
    #[must_use]
    pub(crate) fn selects_all(&self) -> bool {
        self.attributions.selects_all()
    }

    /// Whether a container is not selected, even if more becomes known of it.
    #[must_use]
    pub(crate) fn rejects(&self, container: &Container) -> bool {
        self.attributions.rejects(container)
    }

    /// The container with this name; its labels may be missing yet. A later claim to the name does not take it over.
    #[must_use]
    pub(crate) fn find(&self, name: &ContainerName) -> Option<Arc<Attribution>> {
        self.lock().keys.named(name)?.attribution().cloned()
    }

    /// The container with this name but another state directory, by its first process: the directory of a container that
    /// was running already may be known by another path, or not at all.
    #[must_use]
    pub(crate) fn find_running(&self, name: &ContainerName, pid: u32) -> Option<Arc<Attribution>> {
        let state = self.lock();
        let is_it = |entry: &Key| {
            entry.life.stage().first().is_some_and(|first| first.pid == pid)
                && entry.name.as_ref().is_some_and(|other| other.id == name.id && other.outer == name.outer)
        };
        let (_, entry) = state.keys.announced().find(|(_, entry)| is_it(entry))?;
        entry.attribution().cloned()
    }

    /// The root directory of a container. `open` opens it, with the container's first process; the result is cached.
    pub(crate) fn root(
        &self,
        key: ContainerKey,
        open: impl FnOnce(u32) -> Option<Root>,
    ) -> Option<Arc<Root>> {
        let first = {
            let state = self.lock();
            let entry = state.keys.get(key)?;
            if let Some(root) = &entry.root {
                return Some(Arc::clone(root));
            }
            entry.life.stage().first()?
        };
        let root = Arc::new(open(first.pid)?);
        self.lock().keys.get_mut(key)?.root = Some(Arc::clone(&root));
        Some(root)
    }
}

/// Labels, and what else engines know.
impl Registry {
    /// Sets whether labels that are missing will be fetched: then what needs them waits for them.
    pub(crate) fn expect_labels(&self, expected: bool) {
        self.attributions.expect_labels(expected);
    }

    /// The sandboxes of the pods whose labels are not known. Only the host's engines can be queried for them, so pods within
    /// a container are left out.
    #[must_use]
    pub(crate) fn lacking_labels(&self) -> HashSet<String> {
        let state = self.lock();
        let containers = state
            .keys
            .iter()
            .filter_map(|(_, key)| key.attribution())
            .map(|attribution| &attribution.container);
        let lacking = containers.filter(|container| container.lacks_labels() && container.outer.is_none());
        lacking.filter_map(|container| container.sandbox_id.clone()).collect()
    }

    /// Sets the labels of a pod of the host.
    pub(crate) fn label(&self, sandbox: &str, labels: &BTreeMap<String, String>) {
        let mut state = self.lock();
        let sandbox = Sandbox::of_host(sandbox);
        state.labels.insert(sandbox.clone(), labels.clone());
        self.change(&mut state, |container| {
            let lacking = container.lacks_labels() && Sandbox::of(container).as_ref() == Some(&sandbox);
            lacking.then(|| container.with_labels(labels.clone()))
        });
    }

    /// Completes containers with what an engine knows. Returns those that run and are not in the registry.
    pub(crate) fn complete(&self, from_engine: Vec<EngineContainer>) -> Vec<EngineContainer> {
        let mut by_id: HashMap<String, EngineContainer> =
            from_engine.into_iter().map(|container| (container.id.clone(), container)).collect();
        let mut state = self.lock();
        for EngineContainer { sandbox_id, pod, .. } in by_id.values() {
            if let Some(labels) = &pod.labels {
                state.labels.insert(Sandbox::of_host(sandbox_id), labels.clone());
            }
        }
        let mut found = HashSet::new();
        self.change(&mut state, |container| {
            let from_engine = by_id.get(&container.id)?;
            found.insert(container.id.clone());
            container.completed(from_engine)
        });
        by_id.retain(|id, container| container.running && !found.contains(id));
        let sandboxes = state.sandboxes().collect();
        state.labels.retain(&sandboxes);
        by_id.into_values().collect()
    }

    fn change(&self, state: &mut State, change: impl FnMut(&Container) -> Option<Container>) {
        if state.change(&self.slots, &self.attributions, change) > 0 {
            self.changed.send_replace(());
        }
    }
}

/// Notifications.
impl Registry {
    /// Notifies whenever a container is resolved, begins or ends.
    #[must_use]
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes whenever something that was known of a container has changed.
    #[must_use]
    pub(crate) fn revision(&self) -> u64 {
        self.attributions.revision()
    }

    /// Notifies when something was lost.
    #[must_use]
    pub(crate) fn gaps(&self) -> watch::Receiver<MissedRecords> {
        self.gaps.subscribe()
    }

    /// Sets how many lifecycle records and processes were lost so far.
    pub(crate) fn missed(&self, records: u64, processes: u64) {
        self.gaps.send_if_modified(|gaps| {
            let now = MissedRecords { records, processes, ..*gaps };
            std::mem::replace(gaps, now) != now
        });
    }
}

/// Logs a transition that was refused. That happens: bundles are read, and processes exit, in any order.
fn note(key: ContainerKey, what: &str, result: Result<(), Refused>) {
    if let Err(refused) = result {
        debug!("container {} is not {what}: {refused}", key.slot());
    }
}
