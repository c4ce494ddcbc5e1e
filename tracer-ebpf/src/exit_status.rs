//! How processes exit, and whether a container's first one has.

use tracer_common::container::{ContainerKey, EVIDENCE_PID_NS, EXITED, Evidence};

use crate::{
    globals::offsets,
    maps::EVIDENCE,
    slots::{SlotEntry, slot_of},
    task::Task,
};

offsets! {
    TASK_EXIT_CODE = offset__task_struct__exit_code;
    SIGNAL_FLAGS = offset__signal_struct__flags;
    SIGNAL_GROUP_EXIT_CODE = offset__signal_struct__group_exit_code;
}

/// `signal_struct.flags`: the threads exit together, with the code of the whole group (include/linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// The status that the parent's wait(2) gives: that of the group where the threads exit together, else that of the first
/// thread (`wait_task_zombie`, kernel/exit.c).
#[inline(always)]
pub fn wait_status() -> u32 {
    let task = Task::current();
    let signal = task.signal();
    if signal.number(&SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
        signal.number(&SIGNAL_GROUP_EXIT_CODE)
    } else {
        task.leader().number(&TASK_EXIT_CODE)
    }
}

/// The container's slot, if the process was its first: the one that was bound, which is number 1 of a pid namespace of the
/// container's own. Of a container that ran before the programs did, its pid namespace is evidence.
#[inline(always)]
pub fn slot_of_first(task: Task, container: ContainerKey, container_pid: u32) -> Option<SlotEntry> {
    if container == ContainerKey::HOST || container_pid != 1 {
        return None;
    }
    let slot = slot_of(container)?;
    let pid_ns = task.own_pid_ns();
    let is_first = if slot.bound_container_pid() == 0 {
        let evidence = Evidence { kind: EVIDENCE_PID_NS, reserved: 0, id: pid_ns.into() };
        // SAFETY: the value is read at once; user space replaces it as a whole.
        unsafe { EVIDENCE.get(&evidence) }.is_some_and(|suspect| suspect.container == container)
    } else {
        slot.bound_container_pid() == 1 && slot.bound_pidns() == pid_ns
    };
    is_first.then_some(slot)
}

/// Stores how the current process has exited, if it is its container's first one. A function of its own for the verifier, as
/// in [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn store_exit_status(container: u64, container_pid: u32) -> u32 {
    if let Some(slot) = slot_of_first(Task::current(), ContainerKey(container), container_pid) {
        slot.set_exit_status(wait_status() | EXITED);
    }
    0
}
