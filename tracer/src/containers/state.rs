//! What the registry holds: the keys in use, with whose slots they are, and the maps that it shares with the programs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use aya::maps::{Array, HashMap as KernelMap, MapData, MapError, Queue};
use tracer_common::container::{
    Adoptee, CLOSED, ContainerKey, EPOCH_OF_USER, Evidence, Process, Slot, Suspect, TRACING, Verdict,
};
use tracing::{debug, warn};

use super::{Attribution, Container, ContainerName, First};
use crate::runtime::{Root, processes::start_ticks};

/// Runtimes within a container that are followed at a time, those included whose slots are still to be given back:
/// whoever calls programs `runc` must not use up the slots of all.
const INNER_MAX: usize = 256;
/// Likewise, within a container whose runtimes name containers of their own: a whole node of kind.
const INNER_MAX_OF_NODE: usize = 8192;

pub(super) struct State {
    pub(super) entries: HashMap<ContainerKey, Entry>,
    /// Whose processes have ended, and whose slots are still to be given back.
    pub(super) ended: HashMap<ContainerKey, u64>,
    /// By slot, the last generation that was given back.
    pub(super) given_back: Vec<u32>,
    pub(super) maps: RegistryMaps,
    /// What the programs were last told of how often to look processes up anew.
    epoch: u64,
    /// Keys that were given to containers which ran already.
    pub(super) adopted: HashSet<ContainerKey>,
    /// Those of them whose processes are still being entered: none of them ends before that.
    pub(super) entering: HashSet<ContainerKey>,
    /// The labels of pods.
    pub(super) labels: HashMap<Sandbox, BTreeMap<String, String>>,
    /// Keys that were missed, as long as they are in use.
    pub(super) missing: HashSet<ContainerKey>,
    /// Keys of containers that no runtime was seen to start, as long as they are in use.
    pub(super) unannounced: HashSet<ContainerKey>,
    /// The processes that were entered and may not have done anything yet, with their start times, by container.
    waiting: HashMap<ContainerKey, Vec<(u32, u64)>>,
    /// What was entered as evidence for each of the containers that ran already.
    evidence: HashMap<ContainerKey, Vec<Evidence>>,
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
    /// How often user space has made the programs look processes up anew, among others'.
    pub epochs: Array<MapData, u64>,
    /// Processes that the programs follow.
    pub processes: KernelMap<MapData, u32, Process>,
    /// Namespaces and cgroups by which the programs recognise processes of containers that ran already.
    pub evidence: KernelMap<MapData, Evidence, Suspect>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// None for what joined a container, and for containers that have ended.
    pub(super) name: Option<ContainerName>,
    /// None while its bundle is being read.
    pub(super) attribution: Option<Arc<Attribution>>,
    /// None before it is started.
    pub(super) first: Option<First>,
    /// Its root directory, where runtimes work within it.
    pub(super) root: Option<Arc<Root>>,
    /// Whose share of slots it uses; [`ContainerKey::HOST`] for none's.
    pub(super) charged: ContainerKey,
    /// Slots used of its own share.
    pub(super) inner: usize,
    /// What the programs are told.
    pub(super) verdict: u32,
}

impl State {
    pub(super) fn new(maps: RegistryMaps) -> Self {
        Self {
            entries: HashMap::new(),
            ended: HashMap::new(),
            given_back: vec![0; maps.free_slots.capacity() as usize],
            maps,
            epoch: 0,
            adopted: HashSet::new(),
            entering: HashSet::new(),
            labels: HashMap::new(),
            missing: HashSet::new(),
            unannounced: HashSet::new(),
            waiting: HashMap::new(),
            evidence: HashMap::new(),
        }
    }

    pub(super) fn take_slot(&mut self, runtime_mntns: u32) -> Result<ContainerKey, MapError> {
        let index = self.maps.free_slots.pop(0)?;
        let generation = self.maps.slots.get(&index, 0)?.generation + 1;
        let slot = Slot {
            generation,
            runtime_mntns,
            processes: 0,
            runtime_root: 0,
            restorer: 0,
            runtime_tgid: 0,
            bound_mntns: 0,
            bound_pidns: 0,
            bound_container_pid: 0,
            bound_root: 0,
        };
        self.maps.slots.set(index, &slot, 0)?;
        Ok(ContainerKey::new(index, generation))
    }

    /// Has the programs recognise processes of a container by a namespace or a cgroup. What was entered for another
    /// container that lives stays.
    pub(super) fn enter_evidence(&mut self, evidence: Evidence, suspect: &Suspect) -> Result<(), MapError> {
        let is_same = |known: Suspect| known.container == suspect.container;
        match self.maps.evidence.get(&evidence, 0) {
            Ok(known) if is_same(known) || self.is_in_use(known.container) => return Ok(()),
            Ok(_) | Err(_) => self.maps.evidence.insert(&evidence, suspect, 0)?,
        }
        self.evidence.entry(suspect.container).or_default().push(evidence);
        self.begin_epoch()
    }

    /// The container has ended: its numbers may be used again.
    pub(super) fn remove_evidence(&mut self, key: ContainerKey) {
        for evidence in self.evidence.remove(&key).unwrap_or_default() {
            if let Err(error) = self.maps.evidence.remove(&evidence) {
                debug!("removing {evidence:?} of container {}: {error}", key.slot());
            }
        }
    }

    /// Has the programs trace events from now on.
    pub(super) fn trace(&mut self) -> Result<(), MapError> {
        self.epoch |= TRACING;
        self.begin_epoch()
    }

    /// What the programs have looked up before may hold no more.
    fn begin_epoch(&mut self) -> Result<(), MapError> {
        self.epoch += 1;
        self.maps.epochs.set(EPOCH_OF_USER, &self.epoch, 0)
    }

    /// Hands a process to the programs, which may have looked it up before.
    pub(super) fn adopt(&mut self, pid: u32, adoptee: &Adoptee) -> Result<(), MapError> {
        self.maps.adoptees.insert(&pid, adoptee, 0)?;
        for key in [adoptee.container, adoptee.preparing].into_iter().filter(|key| *key != ContainerKey::HOST)
        {
            self.waiting.entry(key).or_default().push((pid, adoptee.start_ticks));
        }
        self.begin_epoch()
    }

    /// Whether processes of a container that ran already are left. The programs count those that have done
    /// something since; the others are still adoptees. A process turns from one to the other by being counted
    /// first, so it is found here in any case.
    pub(super) fn has_processes(&mut self, key: ContainerKey) -> bool {
        let adoptees = &mut self.maps.adoptees;
        let is_waiting = |(pid, ticks): &(u32, u64)| {
            if adoptees.get(pid, 0).ok().is_none_or(|adoptee| adoptee.start_ticks != *ticks) {
                return false;
            }
            let lives = start_ticks(*pid) == Some(*ticks);
            if !lives && let Err(error) = adoptees.remove(pid) {
                debug!("process {pid} has been removed by the programs: {error}");
            }
            lives
        };
        let waiting = self.waiting.get_mut(&key).is_some_and(|waiting| {
            waiting.retain(is_waiting);
            !waiting.is_empty()
        });
        waiting || self.maps.slots.get(&key.slot(), 0).is_ok_and(|slot| slot.processes > 0)
    }

    /// Whether a key was given out and not given back.
    pub(super) fn is_in_use(&self, key: ContainerKey) -> bool {
        self.given_back.get(key.slot() as usize).is_some_and(|last| *last < key.generation())
    }

    /// The key of a slot that is in use without any process.
    pub(super) fn vacant(&self, index: u32) -> Option<ContainerKey> {
        let slot = self.maps.slots.get(&index, 0).ok()?;
        let key = ContainerKey::new(index, slot.generation);
        let is_vacant = slot.processes == 0 && self.is_in_use(key) && !self.entering.contains(&key);
        (is_vacant && !self.ended.contains_key(&key)).then_some(key)
    }

    /// Sets or clears a bit of what the programs are told of a container.
    pub(super) fn mark(&mut self, key: ContainerKey, bit: u32, set: bool) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let bits = if set { entry.verdict | bit } else { entry.verdict & !bit };
        if bits == entry.verdict {
            return;
        }
        entry.verdict = bits;
        let verdict = Verdict { generation: key.generation(), verdict: bits };
        if let Err(error) = self.maps.verdicts.set(key.slot(), &verdict, 0) {
            // Its events are filtered in user space all the same.
            warn!("telling the programs what is decided about container {}: {error}", key.slot());
        }
    }

    /// Charges one more runtime in the container `outer` to the share of whom it belongs to: what joined a container has
    /// none of its own, unless the container has ended before.
    pub(super) fn charge(&mut self, outer: ContainerKey) -> ContainerKey {
        let Some(entry) = self.entries.get(&outer) else { return ContainerKey::HOST };
        if entry.attribution.as_ref().is_some_and(|known| known.host) {
            return ContainerKey::HOST;
        }
        let own = entry.attribution.as_ref().filter(|known| known.container.inner.is_none());
        let own = own.map(|known| known.key).filter(|key| self.entries.contains_key(key));
        let payer = match own {
            Some(key) => key,
            None if entry.charged == ContainerKey::HOST => outer,
            None => entry.charged,
        };
        if let Some(share) = self.entries.get_mut(&payer) {
            share.inner += 1;
            if share.inner > share.inner_max() && share.verdict & CLOSED == 0 {
                warn!("too many runtimes within one container: those that follow pass for what runs in it");
                self.close(payer, true);
            }
        }
        payer
    }

    /// Has the programs leave out, or follow again, what is executed as a runtime in a container and those within it.
    fn close(&mut self, payer: ContainerKey, closed: bool) {
        let shares = |entry: &Entry| {
            entry.charged == payer || entry.attribution.as_ref().is_some_and(|known| known.key == payer)
        };
        let sharing = self.entries.iter().filter(|(_, entry)| shares(entry));
        let keys: Vec<ContainerKey> = sharing.map(|(key, _)| *key).chain([payer]).collect();
        for key in keys {
            self.mark(key, CLOSED, closed);
        }
    }

    pub(super) fn remove(&mut self, key: ContainerKey) {
        self.waiting.remove(&key);
        let Some(removed) = self.entries.remove(&key) else { return };
        if let Some(share) = self.entries.get_mut(&removed.charged) {
            share.inner -= 1;
            if share.verdict & CLOSED != 0 && share.inner <= share.inner_max() / 2 {
                self.close(removed.charged, false);
            }
        }
        if let Some(sandbox) = removed.sandbox()
            && !self.entries.values().any(|entry| entry.sandbox().as_ref() == Some(&sandbox))
        {
            self.labels.remove(&sandbox);
        }
    }

    /// The container with its pod's labels, if they are known; else they are from now on, if it has them.
    pub(super) fn labelled(&mut self, mut container: Container) -> Container {
        let sandbox = Sandbox::of(&container);
        if let (Some(pod), Some(sandbox)) = (&mut container.pod, sandbox) {
            match &pod.labels {
                Some(labels) => drop(self.labels.insert(sandbox, labels.clone())),
                None => pod.labels = self.labels.get(&sandbox).cloned(),
            }
        }
        container
    }
}

impl Entry {
    fn inner_max(&self) -> usize {
        let is_node = self.attribution.as_ref().is_some_and(|known| known.container.may_name_others());
        if is_node { INNER_MAX_OF_NODE } else { INNER_MAX }
    }

    pub(super) fn sandbox(&self) -> Option<Sandbox> {
        Sandbox::of(&self.attribution.as_ref()?.container)
    }
}

/// A pod's sandbox: ids are unique in one place only, the host or a container with an engine of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sandbox {
    /// The id of the container that it is in; none for the host.
    outer: Option<String>,
    /// The sandbox's own.
    id: String,
}

impl Sandbox {
    pub(super) fn of_host(id: &str) -> Self {
        Self { outer: None, id: id.to_owned() }
    }

    pub(super) fn of(container: &Container) -> Option<Self> {
        let outer = container.outer.as_ref().map(|outer| outer.id.clone());
        Some(Self { outer, id: container.sandbox_id.clone()? })
    }
}
