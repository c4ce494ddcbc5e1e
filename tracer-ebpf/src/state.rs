//! Per-CPU, per-program state.

use aya_ebpf::Global;
use tracer_common::{
    container::Recent,
    kinds::schema::Buffer,
    programs::{buffer_index, state_index},
    stats::{ProgramStats, State},
};

use crate::{globals, maps::STATE};

/// A program, or what it does for one of several kinds: where its values are in the maps.
#[derive(Clone, Copy)]
pub struct Program {
    /// See [`tracer_common::programs`]: a constant for the verifier.
    indices: &'static Global<u64>,
    buffer: Buffer,
}

impl Program {
    /// User space numbers it by this global, and gives it this buffer.
    pub const fn new(indices: &'static Global<u64>, buffer: Buffer) -> Self {
        Self { indices, buffer }
    }

    /// The kind of buffer that it puts records together in.
    #[inline(always)]
    pub const fn buffer(self) -> Buffer {
        self.buffer
    }

    /// The buffer's index in its map.
    #[inline(always)]
    pub fn buffer_index(self) -> u32 {
        buffer_index(self.indices.load())
    }
}

/// The index into `STATE`, which stands for the program where functions of their own for the verifier take numbers only.
impl From<Program> for u32 {
    #[inline(always)]
    fn from(program: Program) -> Self {
        state_index(program.indices.load())
    }
}

/// Declares programs: a constant for each, and the global by which user space numbers it.
macro_rules! programs {
    ($($(#[$doc:meta])* $name:ident = $global:ident, $buffer:ident;)*) => {
        $(
            #[unsafe(no_mangle)]
            static $global: aya_ebpf::Global<u64> = aya_ebpf::Global::new(0);
            $(#[$doc])*
            pub const $name: $crate::state::Program =
                $crate::state::Program::new(&$global, tracer_common::kinds::schema::Buffer::$buffer);
        )*
    };
}
pub(crate) use programs;

programs! {
    /// Follows processes that execute programs.
    EXEC = PROCESS_EXEC, Long;
    /// Follows processes that fork.
    FORK = PROCESS_FORK, None;
    /// Forgets processes that exit.
    EXIT = PROCESS_EXIT, None;
    /// Sees the return of every system call; this is its part for what criu has restored.
    SIGRETURN = SYS_EXIT, None;
}

/// A program's values on this CPU.
#[derive(Clone, Copy)]
pub struct ProgramState {
    values: *mut State,
    program: Program,
}

impl ProgramState {
    #[inline(always)]
    pub fn of(program: Program) -> Option<Self> {
        Some(Self { values: STATE.get_ptr_mut(program.into())?, program })
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

    /// Counts a record of `len` bytes; returns whether enough bytes have been submitted since the last wake-up to wake the
    /// reader.
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

    /// The task that the program ran for last, with its container.
    #[inline(always)]
    pub fn recent(self) -> Recent {
        self.values().recent
    }

    #[inline(always)]
    pub fn set_recent(self, recent: Recent) {
        self.values().recent = recent;
    }

    /// Not to be kept: no other reference may exist at the same time.
    #[inline(always)]
    fn values<'a>(self) -> &'a mut State {
        // SAFETY: the values are this CPU's, and a program never runs within itself there, so that nothing else writes while
        // the reference lives; user space reads whole words. They are a map's, and never removed.
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
