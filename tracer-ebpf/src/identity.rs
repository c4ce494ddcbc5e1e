//! Whose an event is, and whether anybody asked for it.

use tracer_common::container::{ContainerKey, MEMBER, Process, REJECTED};

use crate::{globals, lifecycle, maps::VERDICTS};

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
    /// A process of the host. A runtime that prepares a container is one, whichever namespaces it is in.
    pub const HOST: Self = Self { container: ContainerKey::HOST, pid: 0, container_pid: 0 };

    /// A process of the container that `process` belongs to or prepares.
    #[inline(always)]
    pub fn of(process: &Process) -> Self {
        Self { container: process.container, pid: process.pid, container_pid: process.container_pid }
    }

    /// Looks the current process up.
    #[inline(always)]
    pub fn look_up(tgid: u32) -> Self {
        match lifecycle::find_process(tgid) {
            Some(process) if process.stage == MEMBER => Self::of(process),
            _ => Self::HOST,
        }
    }

    /// Whether its events are wanted, as far as is known by now. What user space has not decided yet is let
    /// through and decided there: fail open, never lose.
    #[inline(always)]
    pub fn is_selected(&self) -> bool {
        if self.container == ContainerKey::HOST {
            return globals::TRACE_HOST.load() != 0;
        }
        match VERDICTS.get(self.container.slot()) {
            Some(verdict) => verdict.generation != self.container.generation() || verdict.verdict != REJECTED,
            None => true,
        }
    }
}
