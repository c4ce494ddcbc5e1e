//! Whose an event is, and whether anybody asked for it.

use tracer_common::container::{ContainerKey, EPOCH_OF_PROGRAMS, EPOCH_OF_USER, REJECTED, Recent, TRACING};

use crate::{
    atomic, binding,
    current::Current,
    globals,
    maps::{EPOCHS, DECISIONS},
    processes::{self, Entry},
    state::ProgramState,
    task::Task,
};

/// Whose the current process is.
#[derive(Clone, Copy)]
pub struct Identity {
    /// The container, or none.
    pub container: ContainerKey,
    /// Process id in `tracer`'s pid namespace where it is known already, else 0.
    pub pid: u32,
    /// Process id in the container's pid namespace; 0 for host processes.
    pub container_pid: u32,
}

impl Identity {
    /// A process of the host. A runtime there that prepares a container is one, whichever namespaces it is in.
    pub const HOST: Self = Self { container: ContainerKey::HOST, pid: 0, container_pid: 0 };

    /// The container that a process which is followed belongs to.
    #[inline(always)]
    pub fn of(process: Entry) -> Self {
        Self { container: process.container(), pid: process.pid(), container_pid: process.container_pid() }
    }

    /// A process that is the container's, or about to be.
    #[inline(always)]
    pub fn of_container(container: ContainerKey, tgid: u32) -> Self {
        match Entry::of(tgid) {
            Some(process) => Self { container, ..Self::of(process) },
            None => Self { container, ..Self::HOST },
        }
    }

    /// Looks the current process up, unless it is the one that the program last did that for on this CPU. One that
    /// prepares a container may have become a member.
    #[inline(always)]
    pub fn look_up(state: ProgramState, task: Current, epoch: u64) -> Self {
        let (address, start_time) = (task.address(), task.start_time());
        let recent = state.recent();
        if recent.task == address && recent.start_time == start_time && recent.epoch == epoch {
            let Recent { container, pid, container_pid, .. } = recent;
            return Self { container, pid, container_pid };
        }
        let tgid = task.tgid();
        let identity = match processes::find(state.program(), tgid) {
            None => Self::HOST,
            Some(process) if process.preparing() == ContainerKey::HOST => Self::of(process),
            Some(process) => {
                binding::settle(state.program(), process);
                return Self::of(process);
            }
        };
        let Self { container, pid, container_pid } = identity;
        state.set_recent(Recent { task: address, start_time, epoch, container, pid, container_pid });
        identity
    }

    /// Whether its events are wanted, as far as is known by now. What user space has not decided yet is let
    /// through and decided there: fail open, never lose.
    #[inline(always)]
    pub fn is_selected(&self) -> bool {
        if self.container == ContainerKey::HOST {
            return globals::TRACE_HOST.load() != 0 && Task::current().is_visible();
        }
        decision_flags(self.container) & REJECTED == 0
    }
}

/// A process that runs has become a container's: what was looked up before may not hold any more.
#[inline(always)]
pub fn begin_epoch() {
    if let Some(epoch) = EPOCHS.get_ptr_mut(EPOCH_OF_PROGRAMS) {
        // SAFETY: a value of an array map, never removed; the programs write it atomically, and user space does not.
        unsafe { atomic::add(epoch, 1) };
    }
}

/// The epoch, once events are traced; None while user space still looks for the containers that run. Both counts only
/// grow, and so does their sum. Read before what it is about, lest something old be taken for new.
#[inline(always)]
pub fn epoch() -> Option<u64> {
    let [programs, user] = [EPOCH_OF_PROGRAMS, EPOCH_OF_USER].map(|index| {
        // SAFETY: a value of an array map, never removed.
        EPOCHS.get_ptr(index).map_or(0, |epoch| unsafe { epoch.read_volatile() })
    });
    (user & TRACING != 0).then_some(programs + user)
}

/// Whether events are traced.
#[inline(always)]
pub fn is_tracing() -> bool {
    epoch().is_some()
}

/// What user space has decided about a container, as far as it has.
#[inline(always)]
pub fn decision_flags(container: ContainerKey) -> u32 {
    match DECISIONS.get(container.slot()) {
        Some(decision) if decision.generation == container.generation() => decision.flags,
        _ => 0,
    }
}
