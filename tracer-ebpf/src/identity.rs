//! Attributes events to containers and applies the selection.

use tracer_common::container::{ContainerKey, EPOCH_OF_PROGRAMS, EPOCH_OF_USER, REJECTED, Recent, TRACING};

use crate::{
    atomic, binding,
    current::Current,
    globals,
    maps::{DECISIONS, EPOCHS},
    processes::{self, ProcessEntry},
    state::ProgramState,
    task::Task,
};

/// The container that the current process belongs to.
#[derive(Clone, Copy)]
pub struct Identity {
    /// The container, or [`ContainerKey::HOST`].
    pub container: ContainerKey,
    /// Process id in `tracer`'s pid namespace; 0 if it has not been looked up yet.
    pub pid: u32,
    /// Process id in the container's pid namespace; 0 for host processes.
    pub container_pid: u32,
}

impl Identity {
    /// A host process. A runtime on the host that prepares a container is one, whatever namespaces it is in.
    pub const HOST: Self = Self { container: ContainerKey::HOST, pid: 0, container_pid: 0 };

    /// The container that a followed process belongs to.
    #[inline(always)]
    pub fn of(process: ProcessEntry) -> Self {
        Self { container: process.container(), pid: process.pid(), container_pid: process.container_pid() }
    }

    /// A process that is a member of the container or is about to become one.
    #[inline(always)]
    pub fn of_container(container: ContainerKey, tgid: u32) -> Self {
        match ProcessEntry::of(tgid) {
            Some(process) => Self { container, ..Self::of(process) },
            None => Self { container, ..Self::HOST },
        }
    }

    /// Looks up the current process, unless it is the one that this program looked up last on this CPU. A process
    /// that prepares a container may have become a member, so it is checked each time.
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

    /// Whether the selection includes its events, as far as user space has decided by now. Events of undecided
    /// containers are let through and decided in user space: nothing is lost by deciding late.
    #[inline(always)]
    pub fn is_selected(&self) -> bool {
        if self.container == ContainerKey::HOST {
            return globals::TRACE_HOST.load() != 0 && Task::current().is_visible();
        }
        decision_flags(self.container) & REJECTED == 0
    }
}

/// Invalidates cached look-ups: a running process has become a member of a container.
#[inline(always)]
pub fn begin_epoch() {
    if let Some(epoch) = EPOCHS.get_ptr_mut(EPOCH_OF_PROGRAMS) {
        // SAFETY: the pointer is to a value of an array map, which is never removed. The programs write it
        // atomically, and user space does not write it.
        unsafe { atomic::add(epoch, 1) };
    }
}

/// The current epoch; None while user space is still scanning for running containers, before events are traced. Both
/// counts only grow, and so does their sum. Read it before the data that it is to validate: otherwise stale data
/// could be cached under a newer epoch.
#[inline(always)]
pub fn epoch() -> Option<u64> {
    let [programs, user] = [EPOCH_OF_PROGRAMS, EPOCH_OF_USER].map(|index| {
        // SAFETY: the pointer is to a value of an array map, which is never removed.
        EPOCHS.get_ptr(index).map_or(0, |epoch| unsafe { epoch.read_volatile() })
    });
    (user & TRACING != 0).then_some(programs + user)
}

/// Whether events are traced: user space has finished its scan.
#[inline(always)]
pub fn is_tracing() -> bool {
    epoch().is_some()
}

/// The flags that user space has set for a container; 0 while it has not decided.
#[inline(always)]
pub fn decision_flags(container: ContainerKey) -> u32 {
    match DECISIONS.get(container.slot()) {
        Some(decision) if decision.generation == container.generation() => decision.flags,
        _ => 0,
    }
}
