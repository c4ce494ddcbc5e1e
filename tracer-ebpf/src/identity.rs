//! Whose an event is, and whether anybody asked for it.

use tracer_common::container::{ContainerKey, Process, REJECTED};

use crate::{globals, lifecycle, maps::VERDICTS, task::Task};

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

    /// Whose a process that is followed is.
    #[inline(always)]
    pub fn of(process: &Process) -> Self {
        Self { container: process.container, pid: process.pid, container_pid: process.container_pid }
    }

    /// Looks the current process up.
    #[inline(always)]
    pub fn look_up(tgid: u32) -> Self {
        lifecycle::find_process(tgid).map_or(Self::HOST, |process| Self::of(process))
    }

    /// Whether its events are wanted, as far as is known by now. What user space has not decided yet is let
    /// through and decided there: fail open, never lose.
    #[inline(always)]
    pub fn is_selected(&self) -> bool {
        if self.container == ContainerKey::HOST {
            return globals::TRACE_HOST.load() != 0 && Task::current().is_visible();
        }
        verdict(self.container) & REJECTED == 0
    }
}

/// What user space has decided about a container, as far as it has.
#[inline(always)]
pub fn verdict(container: ContainerKey) -> u32 {
    match VERDICTS.get(container.slot()) {
        Some(verdict) if verdict.generation == container.generation() => verdict.verdict,
        _ => 0,
    }
}
