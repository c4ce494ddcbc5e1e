//! From container keys to containers, shared by those who learn of containers and those who show events.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, HashMap as KernelMap, MapData, MapError, Queue};
use tokio::sync::Notify;
use tracer_common::container::{Adoptee, ContainerKey, Process, REJECTED, Slot, Verdict};
use tracing::{debug, warn};

use super::{Choice, Container, Selection};
use crate::runtime::processes::start_ticks;

/// What an event needs to know about its container.
#[derive(Debug)]
pub struct Attribution {
    /// The container.
    pub container: Arc<Container>,
    /// Whether it is asked for.
    pub choice: Choice,
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
    maps: RegistryMaps,
    /// Keys that were given to containers which ran already.
    adopted: HashSet<ContainerKey>,
    /// Whether processes of such containers are still being entered: none of them ends before that.
    entering: bool,
}

/// The maps through which the registry and the programs tell each other of containers.
pub struct RegistryMaps {
    /// What is decided about containers, by slot.
    pub verdicts: Array<MapData, Verdict>,
    /// Slots for further containers.
    pub free_slots: Queue<MapData, u32>,
    /// What the programs keep of containers, by slot.
    pub slots: Array<MapData, Slot>,
    /// Processes of containers that ran already, by process id.
    pub adoptees: KernelMap<MapData, u32, Adoptee>,
    /// Processes that the programs follow.
    pub processes: KernelMap<MapData, u32, Process>,
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
    pub fn new(selection: Selection, maps: RegistryMaps) -> Self {
        let given_back = vec![0; maps.free_slots.capacity() as usize];
        let adopted = HashSet::new();
        let state =
            State { entries: HashMap::new(), ended: Vec::new(), given_back, maps, adopted, entering: true };
        Self { selection, state: Mutex::new(state), resolved: Notify::new() }
    }

    /// What is done with the events of a container of which nothing became known.
    #[must_use]
    pub fn unknown(&self) -> Attribution {
        self.attribute(Arc::new(Container::unknown()))
    }

    fn attribute(&self, container: Arc<Container>) -> Attribution {
        let choice = self.selection.judge(&container);
        Attribution { container, choice }
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
        let attribution = self.attribute(container);
        let mut state = self.lock();
        if attribution.choice == Choice::Rejected {
            let verdict = Verdict { generation: key.generation(), verdict: REJECTED };
            if let Err(error) = state.maps.verdicts.set(key.slot(), &verdict, 0) {
                // Its events are filtered here all the same.
                warn!("telling the programs to leave out container {:?}: {error}", attribution.container.id);
            }
        }
        // A container may have ended, and its entry be gone, before its bundle was read.
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.attribution = Some(Arc::new(attribution));
        }
        drop(state);
        self.resolved.notify_one();
    }

    /// A key for a container that runs already; None, with a warning, when no slot is free.
    #[must_use]
    pub fn take_slot(&self) -> Option<ContainerKey> {
        let mut state = self.lock();
        match state.take_slot() {
            Ok(key) => {
                state.adopted.insert(key);
                Some(key)
            }
            Err(error) => {
                warn!("a container that runs already is left out: no slot is free: {error}");
                None
            }
        }
    }

    /// Gives a key back that was taken in vain.
    pub fn give_back(&self, key: ContainerKey) {
        self.forget(&[key]);
    }

    /// Hands a process of a container that runs already to the programs.
    pub fn enter(&self, pid: u32, adoptee: &Adoptee) {
        if let Err(error) = self.lock().maps.adoptees.insert(&pid, adoptee, 0) {
            warn!("process {pid} of a container that runs already is left out: {error}");
        }
    }

    /// All processes of the containers that run already are entered. What had ended before is told now.
    pub fn all_entered(&self, now: u64) {
        let mut state = self.lock();
        state.entering = false;
        let adopted = state.adopted.clone();
        drop(state);
        for key in adopted {
            self.end(key, now);
        }
    }

    /// The processes that the programs follow by now, as `tracer` sees their ids.
    #[must_use]
    pub fn followed(&self) -> HashSet<u32> {
        self.lock().maps.processes.iter().filter_map(|entry| Some(entry.ok()?.1.pid)).collect()
    }

    /// The last process of a key is gone. Its name is kept until [`Registry::forget`], for the events
    /// that are still on their way.
    /// `at` is when it was, in nanoseconds of `CLOCK_BOOTTIME`.
    pub fn end(&self, key: ContainerKey, at: u64) {
        let mut state = self.lock();
        // The kernel side may report an end twice; a slot is given back once.
        if state.adopted.contains(&key) && (state.entering || state.has_processes(key)) {
            return;
        }
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
            state.adopted.remove(key);
            if let Some(last) = state.given_back.get_mut(key.slot() as usize) {
                *last = key.generation();
            }
            if let Err(error) = state.maps.free_slots.push(&key.slot(), 0) {
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

impl State {
    fn take_slot(&mut self) -> Result<ContainerKey, MapError> {
        let index = self.maps.free_slots.pop(0)?;
        let generation = self.maps.slots.get(&index, 0)?.generation + 1;
        self.maps.slots.set(index, &Slot { generation, reserved: 0, processes: 0 }, 0)?;
        Ok(ContainerKey::new(index, generation))
    }

    /// Whether processes of a container that ran already are left. The programs count those that have done
    /// something since; the others are still adoptees. A process turns from one to the other by being counted
    /// first, so it is found here in any case.
    fn has_processes(&mut self, key: ContainerKey) -> bool {
        let adoptees = &mut self.maps.adoptees;
        let of_key = |entry: Result<(u32, Adoptee), MapError>| {
            entry.ok().filter(|(_, adoptee)| adoptee.container == key)
        };
        let entered: Vec<(u32, Adoptee)> = adoptees.iter().filter_map(of_key).collect();
        let mut waiting = false;
        for (pid, adoptee) in entered {
            if start_ticks(pid) == Some(adoptee.start_ticks) {
                waiting = true;
            } else if let Err(error) = adoptees.remove(&pid) {
                debug!("process {pid} has been removed by the programs: {error}");
            }
        }
        waiting || self.maps.slots.get(&key.slot(), 0).is_ok_and(|slot| slot.processes > 0)
    }
}
