//! Counters: what the programs saw, and where an event can be lost.

use crate::{assert_layout, container::Recent, impl_pod};

/// What one program has counted for one kind of event on one CPU. Once the programs are detached:
/// `seen` = records submitted + `filtered` + `lost_buffer_full` + `lost_no_scratch`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Calls of the traced kind, by any process.
    pub seen: u64,
    /// Of those, what is not selected.
    pub filtered: u64,
    /// Records that found `EVENTS` full.
    pub lost_buffer_full: u64,
    /// Records that had no buffer to be put together in; the kernel has no known reason to refuse one.
    pub lost_no_scratch: u64,
    /// Records that found `LIFECYCLE` full: containers that were not learnt of, or whose end was not.
    pub lost_lifecycle: u64,
    /// Processes that `PROCESSES` had no room for: what they and their children do is attributed to the host.
    pub lost_processes_full: u64,
    /// Runtimes that no slot was free for: what their containers do is attributed to the host.
    pub lost_slots_full: u64,
    /// Runtimes that are not trusted, and came when `LIFECYCLE` was half full: likewise.
    pub lost_crowded: u64,
    /// Runtimes in user namespaces, where users' runtimes are not trusted: likewise.
    pub lost_user_namespace: u64,
}
assert_layout!(ProgramStats, size 72, seen @ 0, filtered @ 8, lost_buffer_full @ 16, lost_no_scratch @ 24,
    lost_lifecycle @ 32, lost_processes_full @ 40, lost_slots_full @ 48, lost_crowded @ 56,
    lost_user_namespace @ 64);

/// What a program keeps for one kind of event on one CPU, all in one place: a look-up more for each event would be felt.
/// Value of the map `STATE`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Its counters.
    pub stats: ProgramStats,
    /// Whose the task is that it ran for last.
    pub recent: Recent,
    /// Bytes that it has put into `EVENTS` since it last woke the reader.
    pub since_wake: u64,
}
assert_layout!(State, size 120, stats @ 0, recent @ 72, since_wake @ 112);
impl_pod!(ProgramStats, State);
