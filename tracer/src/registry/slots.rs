//! The kernel's side of container keys: slots and their generations, and the maps that user space shares with the programs.
//!
//! [`Slots`] has a lock of its own, which is taken last: none of its methods calls into the rest of the registry.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
};

use anyhow::Context as _;
use aya::maps::MapError;
use tracer_common::container::{
    Adoptee, ContainerKey, Decision, EPOCH_OF_USER, EXITED, Evidence, FollowedProcess, Slot, Suspect, TRACING,
};
use tracing::{debug, warn};

use crate::{
    bpf::ContainerMaps,
    model::ExitStatus,
    sys::{proc_table::start_ticks, thread::lock},
};

/// All slots.
pub(crate) struct Slots(Mutex<Inner>);

struct Inner {
    maps: ContainerMaps,
    /// By slot, the last generation that was given back.
    given_back: Vec<u32>,
    /// The user's epoch, as the programs have it.
    epoch: u64,
    /// The processes that were entered and may not have done anything yet, with their start times, by container.
    waiting: HashMap<ContainerKey, Vec<(u32, u64)>>,
    /// The evidence that was entered for each container.
    evidence: HashMap<ContainerKey, Vec<Evidence>>,
    /// The flags of keys in use that are not 0.
    flags: HashMap<ContainerKey, u32>,
}

impl Slots {
    pub(crate) fn new(maps: ContainerMaps) -> Self {
        Self(Mutex::new(Inner {
            given_back: vec![0; maps.free_slots.capacity() as usize],
            maps,
            epoch: 0,
            waiting: HashMap::new(),
            evidence: HashMap::new(),
            flags: HashMap::new(),
        }))
    }

    /// Takes a slot for a container whose runtime was started in this mount namespace. A slot that is reserved for
    /// trusted runtimes goes to a trusted one only.
    pub(crate) fn take(&self, runtime_mntns: u32, is_trusted: bool) -> Result<ContainerKey, MapError> {
        let mut inner = self.lock();
        let index = inner.maps.free_slots.take(is_trusted)?;
        let generation = inner.maps.slots.get(&index, 0)?.generation + 1;
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
            exit_status: 0,
            reserved: 0,
        };
        inner.maps.slots.set(index, &slot, 0)?;
        Ok(ContainerKey::new(index, generation))
    }

    /// Gives a slot back. Its key must be in use and is never used again.
    pub(crate) fn give_back(&self, key: ContainerKey) {
        let mut inner = self.lock();
        inner.waiting.remove(&key);
        inner.flags.remove(&key);
        debug!("slot {} is free again", key.slot());
        if let Some(last) = inner.given_back.get_mut(key.slot() as usize) {
            *last = key.generation();
        }
        if let Err(error) = inner.maps.free_slots.give_back(key.slot()) {
            warn!("cannot give back slot {}: {error}", key.slot());
        }
    }

    /// How the first process of a container has exited, if the programs have seen it.
    pub(crate) fn exit_status(&self, key: ContainerKey) -> Option<ExitStatus> {
        let slot = self.lock().maps.slots.get(&key.slot(), 0).ok()?;
        let is_known = slot.generation == key.generation() && slot.exit_status & EXITED != 0;
        is_known.then(|| ExitStatus::of_wait(slot.exit_status))
    }

    /// Whether a key was given out and not given back.
    pub(crate) fn is_in_use(&self, key: ContainerKey) -> bool {
        self.lock().is_in_use(key)
    }

    /// The keys in use of which the programs count no process.
    pub(crate) fn without_processes(&self) -> Vec<ContainerKey> {
        /// Slots that are read before the lock is released for a moment.
        const BATCH: usize = 1024;
        let slots: Vec<u32> = (0..self.lock().maps.free_slots.capacity()).collect();
        let batches = slots.chunks(BATCH).flat_map(|slots| {
            let inner = self.lock();
            slots.iter().filter_map(|slot| inner.without_processes(*slot)).collect::<Vec<_>>()
        });
        batches.collect()
    }

    /// Sets or clears a flag that the programs read of a key in use.
    pub(crate) fn flag(&self, key: ContainerKey, flag: u32, set: bool) {
        let mut inner = self.lock();
        let before = inner.flags.get(&key).copied().unwrap_or(0);
        let flags = if set { before | flag } else { before & !flag };
        if flags == before {
            return;
        }
        inner.flags.insert(key, flags);
        let decision = Decision { generation: key.generation(), flags };
        if let Err(error) = inner.maps.decisions.set(key.slot(), &decision, 0) {
            // Its events are filtered in user space all the same.
            warn!("cannot write the filter decision of container {}: {error}", key.slot());
        }
    }

    /// Has the programs trace events from now on.
    pub(crate) fn trace(&self) -> anyhow::Result<()> {
        let mut inner = self.lock();
        inner.epoch |= TRACING;
        inner.begin_epoch().context("starting to trace")
    }

    /// Enters a process of a container that was running already: the programs adopt it when it next does something.
    pub(crate) fn enter(&self, pid: u32, adoptee: &Adoptee) {
        if let Err(error) = self.lock().enter(pid, adoptee) {
            warn!("process {pid} of a container that was running already is left out: {error}");
        }
    }

    /// Has the programs recognise processes of a container that was running already by a namespace or a cgroup.
    pub(crate) fn enter_evidence(&self, evidence: Evidence, suspect: &Suspect) {
        if let Err(error) = self.lock().enter_evidence(evidence, suspect) {
            debug!("container {} is not recognised by {evidence:?}: {error}", suspect.container.slot());
        }
    }

    /// Removes the evidence of a container that has ended: its namespaces and cgroups may be used again.
    pub(crate) fn remove_evidence(&self, key: ContainerKey) {
        let mut inner = self.lock();
        for evidence in inner.evidence.remove(&key).unwrap_or_default() {
            if let Err(error) = inner.maps.evidence.remove(&evidence) {
                debug!("cannot remove {evidence:?} of container {}: {error}", key.slot());
            }
        }
    }

    /// Whether processes of an adopted container are left.
    pub(crate) fn has_processes(&self, key: ContainerKey) -> bool {
        self.lock().has_processes(key)
    }

    /// The processes that the programs follow.
    #[must_use]
    pub(crate) fn processes(&self) -> Vec<FollowedProcess> {
        self.lock().maps.processes.iter().filter_map(|entry| Some(entry.ok()?.1)).collect()
    }

    /// Their ids, in `tracer`'s pid namespace.
    #[must_use]
    pub(crate) fn followed(&self) -> HashSet<u32> {
        self.processes().into_iter().map(|process| process.pid).collect()
    }

    /// The processes that were entered and have not done anything yet, each with its start time in clock ticks.
    #[must_use]
    pub(crate) fn adoptees(&self) -> HashSet<(u32, u64)> {
        let inner = self.lock();
        let adoptees = inner.maps.adoptees.iter().filter_map(Result::ok);
        adoptees.map(|(pid, adoptee)| (pid, adoptee.start_ticks)).collect()
    }

    /// The container of a process that the programs follow or will adopt.
    #[must_use]
    pub(crate) fn container_of(&self, pid: u32) -> Option<ContainerKey> {
        let inner = self.lock();
        let adoptee = inner.maps.adoptees.get(&pid, 0).ok().map(|adoptee| adoptee.container);
        let followed = || {
            let mut processes = inner.maps.processes.iter().filter_map(Result::ok);
            processes.find(|(_, process)| process.pid == pid).map(|(_, process)| process.container)
        };
        adoptee.or_else(followed).filter(|container| *container != ContainerKey::HOST)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

impl Inner {
    fn is_in_use(&self, key: ContainerKey) -> bool {
        self.given_back.get(key.slot() as usize).is_some_and(|last| *last < key.generation())
    }

    /// The key of a slot that is in use without any process.
    fn without_processes(&self, index: u32) -> Option<ContainerKey> {
        let slot = self.maps.slots.get(&index, 0).ok()?;
        let key = ContainerKey::new(index, slot.generation);
        (slot.processes == 0 && self.is_in_use(key)).then_some(key)
    }

    /// Invalidates what the programs have looked up so far.
    fn begin_epoch(&mut self) -> Result<(), MapError> {
        self.epoch += 1;
        self.maps.epochs.set(EPOCH_OF_USER, &self.epoch, 0)
    }

    fn enter(&mut self, pid: u32, adoptee: &Adoptee) -> Result<(), MapError> {
        self.maps.adoptees.insert(&pid, adoptee, 0)?;
        for key in [adoptee.container, adoptee.preparing].into_iter().filter(|key| *key != ContainerKey::HOST)
        {
            self.waiting.entry(key).or_default().push((pid, adoptee.start_ticks));
        }
        self.begin_epoch()
    }

    /// Evidence that was entered for another container that lives stays.
    fn enter_evidence(&mut self, evidence: Evidence, suspect: &Suspect) -> Result<(), MapError> {
        let is_same = |entered: Suspect| entered.container == suspect.container;
        match self.maps.evidence.get(&evidence, 0) {
            Ok(entered) if is_same(entered) || self.is_in_use(entered.container) => return Ok(()),
            Ok(_) | Err(_) => self.maps.evidence.insert(&evidence, suspect, 0)?,
        }
        self.evidence.entry(suspect.container).or_default().push(evidence);
        self.begin_epoch()
    }

    /// The programs count the processes that have done something since; the others are still adoptees. A process turns
    /// from one to the other by being counted first, so it is found here in any case.
    fn has_processes(&mut self, key: ContainerKey) -> bool {
        let adoptees = &mut self.maps.adoptees;
        let is_waiting = |(pid, ticks): &(u32, u64)| {
            if adoptees.get(pid, 0).ok().is_none_or(|adoptee| adoptee.start_ticks != *ticks) {
                return false;
            }
            let lives = start_ticks(*pid) == Some(*ticks);
            if !lives && let Err(error) = adoptees.remove(pid) {
                debug!("process {pid} was removed by the programs: {error}");
            }
            lives
        };
        let is_waiting = self.waiting.get_mut(&key).is_some_and(|waiting| {
            waiting.retain(is_waiting);
            !waiting.is_empty()
        });
        is_waiting || self.maps.slots.get(&key.slot(), 0).is_ok_and(|slot| slot.processes > 0)
    }
}
