//! Per-CPU, per-program state.

use tracer_common::{
    container::Recent,
    stats::{Program, ProgramStats, State},
};

use crate::{globals, maps::STATE};

/// The state of a program on this CPU.
#[derive(Clone, Copy)]
pub struct ProgramState {
    values: *mut State,
    program: Program,
}

impl ProgramState {
    #[inline(always)]
    pub fn of(program: Program) -> Option<Self> {
        Some(Self { values: STATE.get_ptr_mut(program as u32)?, program })
    }

    /// The program that the state belongs to.
    #[inline(always)]
    pub const fn program(self) -> Program {
        self.program
    }

    /// Increments a counter.
    #[inline(always)]
    pub fn count(self, field: impl FnOnce(&mut ProgramStats) -> &mut u64) {
        *field(&mut self.values().stats) += 1;
    }

    /// Counts a record of `len` bytes; returns whether enough bytes have accumulated for the reader to be woken.
    #[inline(always)]
    pub fn is_time_to_wake(self, len: u32) -> bool {
        let since_wake = &mut self.values().since_wake;
        *since_wake += u64::from(len);
        let is_time = *since_wake >= globals::WAKE_BYTES.load();
        if is_time {
            *since_wake = 0;
        }
        is_time
    }

    /// The task that the program looked up last, with its container.
    #[inline(always)]
    pub fn recent(self) -> Recent {
        self.values().recent
    }

    #[inline(always)]
    pub fn set_recent(self, recent: Recent) {
        self.values().recent = recent;
    }

    /// The values themselves. The reference must not outlive the statement: no second one may exist at the same time.
    #[inline(always)]
    fn values<'a>(self) -> &'a mut State {
        // SAFETY: the pointer is to a per-CPU map value, which is never removed. The kernel does not run a program
        // recursively on a CPU, so no other reference to this program's values exists on this one; user space only
        // reads, whole words.
        unsafe { &mut *self.values }
    }
}

/// Increments a counter of a program on this CPU.
#[inline(always)]
pub fn count(program: impl Into<u32>, field: impl FnOnce(&mut ProgramStats) -> &mut u64) {
    if let Some(values) = STATE.get_ptr_mut(program.into()) {
        // SAFETY: a per-CPU map value that only this program writes on this CPU, as in `values` above.
        *field(unsafe { &mut (*values).stats }) += 1;
    }
}
