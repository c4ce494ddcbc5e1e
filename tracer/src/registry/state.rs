//! What the registry holds: the keys in use, with whose slots they are, and the maps that it shares with the programs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use aya::maps::{Array, HashMap as KernelMap, MapData, MapError, Queue};
use tracer_common::container::{
    Adoptee, CLOSED, ContainerKey, Decision, EPOCH_OF_USER, Evidence, FollowedProcess, Slot, Suspect, TRACING,
};
use tracing::{debug, warn};

use crate::{
    bpf::ContainerMaps,
    model::Container,
    registry::{
        Attribution, ContainerName, First,
        shares::{Change, Shares},
    },
    sys::{proc_table::start_ticks, process_handle::Root},
};

pub(crate) struct State {
    pub(crate) entries: HashMap<ContainerKey, Entry>,
    /// Whose processes have ended, and whose slots are still to be given back.
    pub(crate) ended: HashMap<ContainerKey, u64>,
    /// By slot, the last generation that was given back.
    pub(crate) given_back: Vec<u32>,
    pub(crate) maps: ContainerMaps,
    /// What the programs were last told of how often to look processes up anew.
    epoch: u64,
    /// Keys that were given to containers which ran already.
    pub(crate) adopted: HashSet<ContainerKey>,
    /// Those of them whose processes are still being entered: none of them ends before that.
    pub(crate) entering: HashSet<ContainerKey>,
    /// The labels of pods.
    pub(crate) labels: HashMap<Sandbox, BTreeMap<String, String>>,
    /// Keys that were missed, as long as they are in use.
    pub(crate) missing: HashSet<ContainerKey>,
    /// Keys of containers that no runtime was seen to start, as long as they are in use.
    pub(crate) unannounced: HashSet<ContainerKey>,
    /// The processes that were entered and may not have done anything yet, with their start times, by container.
    waiting: HashMap<ContainerKey, Vec<(u32, u64)>>,
    /// What was entered as evidence for each of the containers that ran already.
    evidence: HashMap<ContainerKey, Vec<Evidence>>,
    shares: Shares,
    /// How many entries there have been.
    entered: u64,
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// None for what joined a container, and for containers that have ended.
    pub(crate) name: Option<ContainerName>,
    /// None while its bundle is being read.
    pub(crate) attribution: Option<Arc<Attribution>>,
    /// None before it is started.
    pub(crate) first: Option<First>,
    /// Its root directory, where runtimes work within it.
    pub(crate) root: Option<Arc<Root>>,
    /// Whose share of slots it uses; [`ContainerKey::HOST`] for none's.
    pub(crate) charged: ContainerKey,
    /// How many were entered before.
    pub(crate) number: u64,
    /// What the programs are told.
    pub(crate) flags: u32,
}

impl State {
    pub(crate) fn new(maps: ContainerMaps) -> Self {
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
            shares: Shares::default(),
            entered: 0,
        }
    }

    pub(crate) fn take_slot(
        &mut self,
        runtime_mntns: u32,
        is_trusted: bool,
    ) -> Result<ContainerKey, MapError> {
        let index = self.maps.free_slots.take(is_trusted)?;
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
    pub(crate) fn enter_evidence(&mut self, evidence: Evidence, suspect: &Suspect) -> Result<(), MapError> {
        let is_same = |known: Suspect| known.container == suspect.container;
        match self.maps.evidence.get(&evidence, 0) {
            Ok(known) if is_same(known) || self.is_in_use(known.container) => return Ok(()),
            Ok(_) | Err(_) => self.maps.evidence.insert(&evidence, suspect, 0)?,
        }
        self.evidence.entry(suspect.container).or_default().push(evidence);
        self.begin_epoch()
    }

    /// The container has ended: its numbers may be used again.
    pub(crate) fn remove_evidence(&mut self, key: ContainerKey) {
        for evidence in self.evidence.remove(&key).unwrap_or_default() {
            if let Err(error) = self.maps.evidence.remove(&evidence) {
                debug!("removing {evidence:?} of container {}: {error}", key.slot());
            }
        }
    }

    /// Has the programs trace events from now on.
    pub(crate) fn trace(&mut self) -> Result<(), MapError> {
        self.epoch |= TRACING;
        self.begin_epoch()
    }

    /// What the programs have looked up before may hold no more.
    fn begin_epoch(&mut self) -> Result<(), MapError> {
        self.epoch += 1;
        self.maps.epochs.set(EPOCH_OF_USER, &self.epoch, 0)
    }

    /// Hands a process to the programs, which may have looked it up before.
    pub(crate) fn adopt(&mut self, pid: u32, adoptee: &Adoptee) -> Result<(), MapError> {
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
    pub(crate) fn has_processes(&mut self, key: ContainerKey) -> bool {
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
    pub(crate) fn is_in_use(&self, key: ContainerKey) -> bool {
        self.given_back.get(key.slot() as usize).is_some_and(|last| *last < key.generation())
    }

    /// The key of a slot that is in use without any process.
    pub(crate) fn vacant(&self, index: u32) -> Option<ContainerKey> {
        let slot = self.maps.slots.get(&index, 0).ok()?;
        let key = ContainerKey::new(index, slot.generation);
        let is_vacant = slot.processes == 0 && self.is_in_use(key) && !self.entering.contains(&key);
        (is_vacant && !self.ended.contains_key(&key)).then_some(key)
    }

    /// Sets or clears a bit of what the programs are told of a container.
    pub(crate) fn mark(&mut self, key: ContainerKey, bit: u32, set: bool) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let bits = if set { entry.flags | bit } else { entry.flags & !bit };
        if bits == entry.flags {
            return;
        }
        entry.flags = bits;
        let decision = Decision { generation: key.generation(), flags: bits };
        if let Err(error) = self.maps.decisions.set(key.slot(), &decision, 0) {
            // Its events are filtered in user space all the same.
            warn!("telling the programs what is decided about container {}: {error}", key.slot());
        }
    }

    /// Enters a key that a runtime in the container `outer` has been given, or one on the host.
    pub(crate) fn enter(&mut self, key: ContainerKey, outer: ContainerKey, name: Option<ContainerName>) {
        // The same invocation: a wrapper has executed the runtime.
        if let Some(entry) = self.entries.get_mut(&key) {
            if name.is_some() {
                entry.name = name;
            }
            return;
        }
        let charged = self.payer(outer);
        let entry = Entry {
            name,
            attribution: None,
            first: None,
            root: None,
            charged,
            number: self.entered,
            flags: 0,
        };
        self.entered += 1;
        self.entries.insert(key, entry);
        let payer = self.entries.get(&charged).and_then(|payer| payer.attribution.as_ref());
        let is_node = payer.is_some_and(|payer| payer.container.may_name_others());
        if self.shares.charge(charged, is_node) == Change::Closed {
            warn!("too many runtimes within one container: further ones are attributed to the container");
            self.close(charged, true);
        }
        if self.shares.is_closed(charged) {
            self.mark(key, CLOSED, true);
        }
    }

    /// Whose share the runtimes of a container use: what joined a container, or runs within one that may name no others, has
    /// none of its own. The share of a container that has ended goes on, as long as something uses it.
    fn payer(&self, outer: ContainerKey) -> ContainerKey {
        let Some(entry) = self.entries.get(&outer) else { return outer };
        if entry.attribution.as_ref().is_some_and(|known| known.host) {
            return ContainerKey::HOST;
        }
        match entry.attribution.as_ref().filter(|known| known.container.inner.is_none()) {
            Some(own) => own.key,
            None if entry.charged == ContainerKey::HOST => outer,
            None => entry.charged,
        }
    }

    /// Gives a slot of a share back.
    fn release(&mut self, payer: ContainerKey) {
        if self.shares.release(payer) == Change::Opened {
            self.close(payer, false);
        }
    }

    /// Whether no further runtime within a container is followed.
    pub(crate) fn is_closed(&self, container: ContainerKey) -> bool {
        self.shares.is_closed(container)
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

    pub(crate) fn remove(&mut self, key: ContainerKey) {
        self.waiting.remove(&key);
        let Some(removed) = self.entries.remove(&key) else { return };
        self.release(removed.charged);
        if let Some(sandbox) = removed.sandbox()
            && !self.entries.values().any(|entry| entry.sandbox().as_ref() == Some(&sandbox))
        {
            self.labels.remove(&sandbox);
        }
    }

    /// The container with its pod's labels, if they are known; else they are from now on, if it has them.
    pub(crate) fn labelled(&mut self, mut container: Container) -> Container {
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
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        Sandbox::of(&self.attribution.as_ref()?.container)
    }
}

/// A pod's sandbox: ids are unique in one place only, the host or a container with an engine of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sandbox {
    /// The id of the container that it is in; none for the host.
    outer: Option<String>,
    /// The sandbox's own.
    id: String,
}

impl Sandbox {
    pub(crate) fn of_host(id: &str) -> Self {
        Self { outer: None, id: id.to_owned() }
    }

    pub(crate) fn of(container: &Container) -> Option<Self> {
        let outer = container.outer.as_ref().map(|outer| outer.id.clone());
        Some(Self { outer, id: container.sandbox_id.clone()? })
    }
}
