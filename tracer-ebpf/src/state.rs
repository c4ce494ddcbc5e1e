//! What a program keeps on this CPU.

use tracer_common::{
    container::Recent,
    stats::{Program, ProgramStats, State as Values},
};

use crate::{globals, maps::STATE};

/// A program's values on this CPU.
#[derive(Clone, Copy)]
pub struct State {
    values: *mut Values,
    program: Program,
}

impl State {
    #[inline(always)]
    pub fn of(program: Program) -> Option<Self> {
        Some(Self { values: STATE.get_ptr_mut(program as u32)?, program })
    }

    /// The program whose values they are.
    #[inline(always)]
    pub const fn program(self) -> Program {
        self.program
    }

    /// Adds to a counter.
    #[inline(always)]
    pub fn count(self, field: impl FnOnce(&mut ProgramStats) -> &mut u64) {
        *field(&mut self.values().stats) += 1;
    }

    /// Takes note of a record of `len` bytes; returns whether so much has come together that the reader is to be woken.
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

    /// Whose the task is that the program ran for last.
    #[inline(always)]
    pub fn recent(self) -> Recent {
        self.values().recent
    }

    #[inline(always)]
    pub fn set_recent(self, recent: Recent) {
        self.values().recent = recent;
    }

    /// Not to be kept: nobody else has a reference at the same time.
    #[inline(always)]
    fn values<'a>(self) -> &'a mut Values {
        // SAFETY: the values are this CPU's, and a program never runs within itself there, so that nobody else writes
        // while the reference lives; user space reads whole words. They are a map's, and never removed.
        unsafe { &mut *self.values }
    }
}

/// Adds to a counter of a program on this CPU.
#[inline(always)]
pub fn count(program: impl Into<u32>, field: impl FnOnce(&mut ProgramStats) -> &mut u64) {
    if let Some(values) = STATE.get_ptr_mut(program.into()) {
        // SAFETY: as in `State::values`.
        *field(unsafe { &mut (*values).stats }) += 1;
    }
}
