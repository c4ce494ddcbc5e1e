//! What is kept of containers, by slot, and the slots that no container uses.

use tracer_common::container::{ContainerKey, Slot};

use crate::{
    atomic,
    maps::{FREE_SLOTS, KEPT_SLOTS, SLOTS},
};

/// A slot that no container uses, for the caller alone. Half of all are kept for trusted runtimes, which may have the
/// others as well: what anybody may execute uses up no more than those.
#[inline(always)]
pub fn take_free(is_trusted: bool) -> Option<u32> {
    let kept = if is_trusted { KEPT_SLOTS.pop().ok().flatten() } else { None };
    kept.or_else(|| FREE_SLOTS.pop().ok().flatten())
}

/// What is kept of a container. Programs on other CPUs read and write it at the same time, so there is no reference to it:
/// each field is read and written as a whole.
#[derive(Clone, Copy)]
pub struct Values(*mut Slot);

impl Values {
    /// Of a container that has processes, and so is in use.
    #[inline(always)]
    pub fn of(container: ContainerKey) -> Option<Self> {
        Self::at(container.slot())
    }

    /// Of the container that uses a slot.
    #[inline(always)]
    pub fn at(slot: u32) -> Option<Self> {
        SLOTS.get_ptr_mut(slot).map(Self)
    }

    #[inline(always)]
    pub fn generation(self) -> u32 {
        // SAFETY: a value of an array map, never removed; so below.
        unsafe { (&raw const (*self.0).generation).read_volatile() }
    }

    #[inline(always)]
    pub fn runtime_mntns(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).runtime_mntns).read_volatile() }
    }

    #[inline(always)]
    pub fn runtime_root(self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).runtime_root).read_volatile() }
    }

    #[inline(always)]
    pub fn restorer(self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).restorer).read_volatile() }
    }

    #[inline(always)]
    pub fn set_restorer(self, restorer: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).restorer).write_volatile(restorer) }
    }

    /// Begins with a container that nobody else knows yet.
    #[inline(always)]
    pub fn begin(self, values: Slot) {
        // SAFETY: as above; the slot has been taken from the free ones, so nobody else reads or writes it.
        unsafe { self.0.write_volatile(values) }
    }

    /// Counts processes of the container up or down; returns how many there are, by then.
    #[inline(always)]
    pub fn add_processes(self, change: i64) -> u64 {
        // SAFETY: as above; all that write this field while the slot is in use do so atomically.
        unsafe {
            let processes = &raw mut (*self.0).processes;
            atomic::add(processes, change);
            processes.read_volatile()
        }
    }
}
