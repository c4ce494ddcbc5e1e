//! From container keys to containers, shared by those who learn of containers and those who show events.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, MapData, Queue};
use tokio::sync::Notify;
use tracer_common::container::{ContainerKey, REJECTED, Verdict};
use tracing::warn;

use super::{Container, Selection};

/// What an event needs to know about its container.
#[derive(Debug)]
pub struct Attribution {
    /// The container.
    pub container: Arc<Container>,
    /// Whether it is asked for.
    pub selected: bool,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Lookup {
    /// Everything.
    Known(Arc<Attribution>),
    /// That it exists: its bundle is being read.
    Pending,
    /// Nothing.
    Unknown,
}

/// All containers that live, and those whose last events are still on their way.
pub struct Registry {
    selection: Selection,
    state: Mutex<State>,
    /// Told whenever a container becomes known.
    pub resolved: Notify,
}

struct State {
    entries: HashMap<ContainerKey, Entry>,
    /// Whose processes have ended, and whose slots are still to be given back.
    ended: Vec<(ContainerKey, u64)>,
    /// By slot, the last generation that was given back.
    given_back: Vec<u32>,
    verdicts: Array<MapData, Verdict>,
    free_slots: Queue<MapData, u32>,
}

#[derive(Debug)]
struct Entry {
    /// The runtime's state directory and the container's id, by which `exec` names it.
    name: Option<(PathBuf, String)>,
    /// None while its bundle is being read.
    attribution: Option<Arc<Attribution>>,
}

impl Registry {
    /// An empty registry that tells the programs what `selection` rejects.
    #[must_use]
    pub fn new(
        selection: Selection,
        verdicts: Array<MapData, Verdict>,
        free_slots: Queue<MapData, u32>,
    ) -> Self {
        let given_back = vec![0; free_slots.capacity() as usize];
        let state = State { entries: HashMap::new(), ended: Vec::new(), given_back, verdicts, free_slots };
        Self { selection, state: Mutex::new(state), resolved: Notify::new() }
    }

    /// Whether showing a container takes knowing its pod.
    #[must_use]
    pub fn needs_pod(&self) -> bool {
        self.selection.needs_pod()
    }

    /// A runtime was started: its container will be known soon. `name` is what `exec` will name it by.
    pub fn announce(&self, key: ContainerKey, name: Option<(PathBuf, String)>) {
        self.lock().entries.insert(key, Entry { name, attribution: None });
    }

    /// The living container that a runtime with this state directory calls `id`.
    #[must_use]
    pub fn find(&self, root: &Path, id: &str) -> Lookup {
        let state = self.lock();
        let named = |entry: &&Entry| entry.name.as_ref().is_some_and(|(r, i)| r == root && i == id);
        Self::known(state.entries.values().find(named))
    }

    /// What is known of a key.
    #[must_use]
    pub fn look_up(&self, key: ContainerKey) -> Lookup {
        Self::known(self.lock().entries.get(&key))
    }

    /// The container of a key is known from now on, and the programs are told if nobody asked for it.
    pub fn resolve(&self, key: ContainerKey, container: Arc<Container>) {
        let selected = self.selection.selects(&container);
        let mut state = self.lock();
        if !selected {
            let verdict = Verdict { generation: key.generation(), verdict: REJECTED };
            if let Err(error) = state.verdicts.set(key.slot(), &verdict, 0) {
                // Its events are filtered here all the same.
                warn!("telling the programs to leave out container {}: {error}", container.id);
            }
        }
        // A container may have ended, and its entry be gone, before its bundle was read.
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.attribution = Some(Arc::new(Attribution { container, selected }));
        }
        drop(state);
        self.resolved.notify_one();
    }

    /// The last process of a key is gone. Its name is kept until [`Registry::forget`], for the events
    /// that are still on their way.
    /// `at` is when it was, in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn end(&self, key: ContainerKey, at: u64) {
        let mut state = self.lock();
        // The kernel side may report an end twice; a slot is given back once.
        let is_news = state.given_back.get(key.slot() as usize).is_some_and(|last| *last < key.generation());
        if is_news && !state.ended.iter().any(|(ended, _)| *ended == key) {
            state.ended.push((key, at));
            // The next container may have the same name.
            if let Some(entry) = state.entries.get_mut(&key) {
                entry.name = None;
            }
        }
    }

    /// The keys that have ended by now, and when.
    #[must_use]
    pub fn ended(&self) -> Vec<(ContainerKey, u64)> {
        self.lock().ended.clone()
    }

    /// Forgets keys of which no event can come any more, and gives their slots back.
    pub fn forget(&self, keys: &[ContainerKey]) {
        let mut state = self.lock();
        for key in keys {
            state.entries.remove(key);
            if let Some(last) = state.given_back.get_mut(key.slot() as usize) {
                *last = key.generation();
            }
            if let Err(error) = state.free_slots.push(&key.slot(), 0) {
                warn!("giving back slot {}: {error}", key.slot());
            }
        }
        state.ended.retain(|(key, _)| !keys.contains(key));
    }

    fn known(entry: Option<&Entry>) -> Lookup {
        match entry {
            Some(Entry { attribution: Some(attribution), .. }) => Lookup::Known(Arc::clone(attribution)),
            Some(_) => Lookup::Pending,
            None => Lookup::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change to the state is complete when a panic could happen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
