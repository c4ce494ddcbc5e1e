//! Slots: per-container values in the map `SLOTS`, and the queues of free slots.

use tracer_common::container::{ContainerKey, Slot};

use crate::{
    atomic::{self, shared_field},
    maps::{FREE_SLOTS, KEPT_SLOTS, SLOTS},
    task::Task,
};

/// Takes a free slot for the caller alone; None if there is none. Half of all slots are reserved for trusted
/// runtimes, which may take the others as well: programs that any user may execute cannot use up more than the other
/// half.
#[inline(always)]
pub fn take_free(is_trusted: bool) -> Option<u32> {
    let reserved = if is_trusted { KEPT_SLOTS.pop().ok().flatten() } else { None };
    reserved.or_else(|| FREE_SLOTS.pop().ok().flatten())
}

/// Pointer to the value of a container in the map `SLOTS`, an array, whose values are never removed. Other CPUs read
/// and write it at the same time, so fields are loaded and stored whole.
#[derive(Clone, Copy)]
pub struct SlotEntry(*mut Slot);

impl SlotEntry {
    shared_field!(generation: u32);
    shared_field!(runtime_mntns: u32);
    shared_field!(runtime_root: u64);
    shared_field!(runtime_tgid: u32);
    shared_field!(restorer: u64, set_restorer);
    shared_field!(bound_mntns: u32, set_bound_mntns);
    shared_field!(bound_pidns: u32, set_bound_pidns);
    shared_field!(bound_container_pid: u32, set_bound_container_pid);
    shared_field!(bound_root: u64, set_bound_root);
    // User space reads it.
    shared_field!(set exit_status: u32, set_exit_status);

    /// Records where a process was bound, which later ones are compared with. The mount namespace is stored last: it shows
    /// that the other fields are set.
    #[inline(always)]
    pub fn set_bound(self, task: Task, container_pid: u32) {
        self.set_bound_pidns(task.own_pid_ns());
        self.set_bound_container_pid(container_pid);
        self.set_bound_root(task.root_dentry().unwrap_or(0));
        self.set_bound_mntns(task.mntns());
    }

    /// Begins the next use of a slot that the caller has taken; returns its generation.
    #[inline(always)]
    pub fn begin(self, slot: Slot) -> u32 {
        let generation = self.generation() + 1;
        // SAFETY: the pointer is to a value of an array map, which is never removed. The slot was taken from a queue
        // of free ones, so no other program writes it.
        unsafe { self.0.write(Slot { generation, ..slot }) };
        generation
    }

    /// Adds to the count of processes; returns the count after that, which may include concurrent changes.
    #[inline(always)]
    pub fn add_processes(self, change: i64) -> u64 {
        // SAFETY: the pointer is to a value of an array map, which is never removed. While the slot is in use, this
        // field is written by atomic additions only.
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
