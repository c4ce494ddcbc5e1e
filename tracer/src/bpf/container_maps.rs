//! The maps through which user space and the programs share what they know of containers.

use aya::maps::{Array, HashMap as KernelMap, MapData, MapError, Queue};
use tracer_common::container::{Adoptee, Decision, Evidence, FollowedProcess, Slot, Suspect};

/// The maps through which the registry and the programs tell each other of containers.
pub(crate) struct ContainerMaps {
    /// What is decided about containers, by slot.
    pub(crate) decisions: Array<MapData, Decision>,
    /// Slots for further containers.
    pub(crate) free_slots: FreeSlots,
    /// What the programs keep of containers, by slot.
    pub(crate) slots: Array<MapData, Slot>,
    /// Processes of containers that ran already, by process id.
    pub(crate) adoptees: KernelMap<MapData, u32, Adoptee>,
    /// How often user space has made the programs look processes up anew, among others'.
    pub(crate) epochs: Array<MapData, u64>,
    /// Processes that the programs follow.
    pub(crate) processes: KernelMap<MapData, u32, FollowedProcess>,
    /// Namespaces and cgroups by which the programs recognise processes of containers that ran already.
    pub(crate) evidence: KernelMap<MapData, Evidence, Suspect>,
}

/// The slots that no container uses.
pub(crate) struct FreeSlots {
    /// Those that are kept for trusted runtimes: the first of all.
    pub(crate) kept: Queue<MapData, u32>,
    /// The others.
    pub(crate) shared: Queue<MapData, u32>,
}

impl FreeSlots {
    /// How many slots there are, free or not.
    pub(crate) fn capacity(&self) -> u32 {
        self.kept.capacity() + self.shared.capacity()
    }

    /// Makes all of them free.
    pub(crate) fn fill(&mut self) -> Result<(), MapError> {
        (0..self.capacity()).try_for_each(|slot| self.give_back(slot))
    }

    /// One of them, for what a trusted runtime brings about or another one.
    pub(crate) fn take(&mut self, is_trusted: bool) -> Result<u32, MapError> {
        let kept = is_trusted.then(|| self.kept.pop(0).ok()).flatten();
        kept.map_or_else(|| self.shared.pop(0), Ok)
    }

    /// Makes one free again.
    pub(crate) fn give_back(&mut self, slot: u32) -> Result<(), MapError> {
        let queue = if slot < self.kept.capacity() { &mut self.kept } else { &mut self.shared };
        queue.push(&slot, 0)
    }
}
