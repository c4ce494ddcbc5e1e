//! What is kept of containers, by slot, and the slots that no container uses.

use tracer_common::container::{ContainerKey, Slot};

use crate::{
    atomic::{self, shared_field},
    maps::{FREE_SLOTS, KEPT_SLOTS, SLOTS},
    task::Task,
};

/// A slot that no container uses, for the caller alone. Half of all are kept for trusted runtimes, which may have the
/// others as well: what anybody may execute uses up no more than those.
#[inline(always)]
pub fn take_free(is_trusted: bool) -> Option<u32> {
    let kept = if is_trusted { KEPT_SLOTS.pop().ok().flatten() } else { None };
    kept.or_else(|| FREE_SLOTS.pop().ok().flatten())
}

/// The slot of a container, in the map. Other CPUs read and write it at the same time, so fields are loaded and stored whole.
#[derive(Clone, Copy)]
pub struct SlotEntry(*mut Slot);

impl SlotEntry {
    shared_field!(generation: u32);
    shared_field!(runtime_mntns: u32);
    shared_field!(runtime_root: u64);
    shared_field!(runtime_tgid: u32);
    shared_field!(restorer: u64);
    shared_field!(bound_mntns: u32);
    shared_field!(bound_pidns: u32);
    shared_field!(bound_container_pid: u32);
    shared_field!(bound_root: u64);

    #[inline(always)]
    pub fn set_restorer(self, restorer: u64) {
        // SAFETY: a value of an array map, never removed.
        unsafe { (&raw mut (*self.0).restorer).write_volatile(restorer) }
    }

    /// A process was bound: that tells later ones apart.
    #[inline(always)]
    pub fn set_bound(self, task: Task, container_pid: u32) {
        // SAFETY: a value of an array map, never removed.
        unsafe {
            (&raw mut (*self.0).bound_pidns).write_volatile(task.own_pid_ns());
            (&raw mut (*self.0).bound_container_pid).write_volatile(container_pid);
            (&raw mut (*self.0).bound_root).write_volatile(task.root_dentry().unwrap_or(0));
            (&raw mut (*self.0).bound_mntns).write_volatile(task.mntns());
        }
    }

    /// Begins the next use of a slot that nobody else uses; returns its generation.
    #[inline(always)]
    pub fn begin(self, slot: Slot) -> u32 {
        let generation = self.generation() + 1;
        // SAFETY: a value of an array map, never removed; a slot taken from the queue is nobody else's.
        unsafe { self.0.write(Slot { generation, ..slot }) };
        generation
    }

    /// Counts processes up or down; returns how many there are, by then.
    #[inline(always)]
    pub fn add_processes(self, change: i64) -> u64 {
        // SAFETY: a value of an array map, never removed; all that write this field while the slot is in use do so
        // atomically.
        unsafe {
            let processes = &raw mut (*self.0).processes;
            atomic::add(processes, change);
            processes.read_volatile()
        }
    }
}

/// The slot of a container.
#[inline(always)]
pub fn slot_of(container: ContainerKey) -> Option<SlotEntry> {
    slot(container.slot())
}

/// The slot with this index.
#[inline(always)]
pub fn slot(index: u32) -> Option<SlotEntry> {
    SLOTS.get_ptr_mut(index).map(SlotEntry)
}
