//! Queries over all keys: lists of containers, and the keys that a recovery has to resolve.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tracer_common::container::ContainerKey;

use crate::{
    model::{Choice, Container, ExitStatus, Isolation, Matches},
    registry::{
        ContainerName, FirstProcess, Registry,
        keys::{Key, RuntimeStart},
        life::{Custody, Life, Stage},
        wait::{Wait, wait_for},
    },
};

/// A container with its first process.
#[derive(Clone, Debug)]
pub(crate) struct ListedContainer {
    /// Its key.
    pub(crate) key: ContainerKey,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// The process that it started with.
    pub(crate) first: FirstProcess,
    /// Whether its last process has exited.
    pub(crate) ended: bool,
    /// How its first process has exited, if it has ended and that is known.
    pub(crate) exit: Option<ExitStatus>,
}

impl ListedContainer {
    /// What is shown of this and differs from what was shown `before`, by the names of JSON's fields.
    #[must_use]
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<&'static str> {
        let mut changes = self.container.changes_since(&before.container);
        let FirstProcess { pid, since } = self.first;
        let first = [("pid", pid != before.first.pid), ("startedAt", since != before.first.since)];
        changes.extend(first.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name));
        changes
    }
}

/// A container whose first process has started.
#[derive(Clone, Debug)]
pub(crate) struct StartedContainer {
    /// Its key.
    pub(crate) key: ContainerKey,
    /// The name that its runtime has for it, if it is known.
    pub(crate) name: Option<ContainerName>,
    /// The process that it started with, in `tracer`'s pid namespace.
    pub(crate) init: u32,
    /// What keeps its processes from this kernel.
    pub(crate) isolation: Option<Isolation>,
}

impl Registry {
    /// The containers that have started and are selected, until they are forgotten.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<ListedContainer> {
        let state = self.lock();
        let listed = |(key, entry): (ContainerKey, &Key)| {
            let Stage::Running(first, attribution) = entry.life.stage() else { return None };
            let own = entry.is_container(key, attribution) && attribution.choice == Choice::Selected;
            let container = Arc::clone(&attribution.container);
            let ended = entry.life.ended_at().is_some();
            let exit = if ended && own { self.slots.exit_status(key) } else { None };
            own.then_some(ListedContainer { key, container, first: *first, ended, exit })
        };
        state.keys.iter().filter_map(listed).collect()
    }

    /// What the selection matches.
    #[must_use]
    pub(crate) fn matches(&self) -> Matches {
        let (state, mut matches) = (self.lock(), Matches::default());
        for (key, entry) in state.keys.iter() {
            if let Life::Live(Stage::Running(_, attribution)) = &entry.life
                && entry.is_container(key, attribution)
            {
                self.attributions.add_to(&mut matches, attribution);
            }
        }
        matches
    }

    /// The containers that have started, known or not; without what joined them.
    #[must_use]
    pub(crate) fn started_containers(&self) -> Vec<StartedContainer> {
        let state = self.lock();
        let started = |(key, entry): (ContainerKey, &Key)| {
            let (first, attribution) = match entry.life.stage() {
                Stage::Begun(first) => (first, None),
                Stage::Running(first, attribution) => (first, Some(attribution)),
                Stage::Taken | Stage::Missing | Stage::Announced | Stage::Resolved(_) => return None,
            };
            let is_own = attribution.is_none_or(|attribution| entry.is_container(key, attribution));
            let isolation = attribution.and_then(|attribution| attribution.container.isolation);
            is_own.then(|| StartedContainer { key, name: entry.name.clone(), init: first.pid, isolation })
        };
        state.keys.iter().filter_map(started).collect()
    }

    /// Waits, within bounds, for the bundles that are being read now.
    pub(crate) async fn settled(&self, timeout: Duration) -> Wait {
        let mut unresolved = self.begun_and_unresolved();
        // Not those that come meanwhile: they may be many, and without an end.
        let holds = || {
            let still = self.begun_and_unresolved();
            unresolved.retain(|key| still.contains(key));
            unresolved.is_empty()
        };
        self.wait_for(timeout, holds).await
    }

    /// Waits within bounds until `holds`, which changes of containers bring about.
    pub(crate) async fn wait_for(&self, timeout: Duration, holds: impl FnMut() -> bool) -> Wait {
        wait_for(self.changes(), timeout, holds).await
    }

    fn begun_and_unresolved(&self) -> HashSet<ContainerKey> {
        self.keys_where(|entry| matches!(entry.life.stage(), Stage::Begun(_))).into_iter().collect()
    }

    /// The announced keys without a first process.
    #[must_use]
    pub(crate) fn not_begun(&self) -> HashSet<ContainerKey> {
        let is_waiting = |entry: &Key| matches!(entry.life.stage(), Stage::Announced | Stage::Resolved(_));
        self.keys_where(is_waiting).into_iter().collect()
    }

    /// The keys that have ended, and when.
    #[must_use]
    pub(crate) fn ended(&self) -> Vec<(ContainerKey, u64)> {
        let state = self.lock();
        state.keys.iter().filter_map(|(key, entry)| Some((key, entry.life.ended_at()?))).collect()
    }

    /// The keys in use whose runtime was not seen, and that were searched for or are to be.
    #[must_use]
    pub(crate) fn with_unseen_runtime(&self) -> Vec<ContainerKey> {
        self.keys_where(|entry| entry.runtime == RuntimeStart::Unseen)
    }

    /// Whether the runtime of a key was not seen.
    #[must_use]
    pub(crate) fn is_runtime_unseen(&self, key: ContainerKey) -> bool {
        self.lock().keys.get(key).is_some_and(|entry| entry.runtime == RuntimeStart::Unseen)
    }

    /// Whether a key is in use and was not announced.
    #[must_use]
    pub(crate) fn is_missing(&self, key: ContainerKey) -> bool {
        let state = self.lock();
        key != ContainerKey::HOST && state.keys.get_announced(key).is_none() && self.slots.is_in_use(key)
    }

    /// The keys in use of which the programs count no process, and which are not known to have ended.
    #[must_use]
    pub(crate) fn vacant(&self) -> Vec<ContainerKey> {
        let mut vacant = self.slots.without_processes();
        let state = self.lock();
        vacant.retain(|key| match state.keys.get(*key) {
            Some(entry) => entry.custody != Custody::Entering && entry.life.ended_at().is_none(),
            // It is not known yet, or was forgotten just now.
            None => self.slots.is_in_use(*key),
        });
        vacant
    }

    /// How many keys were announced: containers, what joined them, and running runtimes.
    #[must_use]
    pub(crate) fn keys_in_use(&self) -> usize {
        self.lock().keys.announced().count()
    }

    fn keys_where(&self, is_it: impl Fn(&Key) -> bool) -> Vec<ContainerKey> {
        let state = self.lock();
        state.keys.iter().filter(|(_, entry)| is_it(entry)).map(|(key, _)| key).collect()
    }
}
