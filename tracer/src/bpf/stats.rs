//! What the programs counted, by hook and reason.

use std::os::fd::AsRawFd as _;

use aya::programs::ProgramFd;
use tracer_common::stats::ProgramStats;

/// Counters of one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCounters {
    /// Calls of the traced kind.
    pub seen: u64,
    /// Of those, what the programs filtered out.
    pub filtered: u64,
    /// Of those, what found the ring full.
    pub buffer_full: u64,
    /// Calls that a program did not get to see or to put together.
    pub skipped: u64,
}

/// All counters, since the programs were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of the traced kind.
    pub events: HookCounters,
    /// Lifecycle records that found their ring full: containers not learnt of.
    pub lifecycle_lost: u64,
    /// Processes and runtimes that were not followed, for want of room in a map.
    pub not_followed: u64,
}

impl Counters {
    /// Starts, processes and ends of containers that were missed.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.lifecycle_lost + self.not_followed
    }

    pub(super) fn add(&mut self, stats: &ProgramStats) {
        self.events.seen += stats.seen;
        self.events.filtered += stats.filtered;
        self.events.buffer_full += stats.lost_buffer_full;
        self.events.skipped += stats.lost_no_scratch;
        self.lifecycle_lost += stats.lost_lifecycle;
        self.not_followed += stats.lost_processes_full + stats.lost_slots_full;
    }

    /// Adds runs that the kernel left out. Of a hook of the traced kind each may have been an event: it counts as
    /// seen and lost.
    pub(super) fn add_skipped(&mut self, is_hook: bool, skipped: u64) {
        if is_hook {
            self.events.seen += skipped;
            self.events.skipped += skipped;
        } else {
            self.lifecycle_lost += skipped;
        }
    }
}

/// How often the kernel left a program out because it was running already (`recursion_misses`, since 5.12).
pub(super) fn recursion_misses(program: &ProgramFd) -> u64 {
    use std::os::fd::AsFd as _;
    let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
    std::fs::read_to_string(path).map_or(0, |fdinfo| parse_recursion_misses(&fdinfo))
}

fn parse_recursion_misses(fdinfo: &str) -> u64 {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recursion_misses_are_read_where_the_kernel_shows_them() {
        assert_eq!(parse_recursion_misses("prog_type:\t26\nrecursion_misses:\t7\n"), 7);
        assert_eq!(parse_recursion_misses("prog_type:\t26\n"), 0);
    }

    #[test]
    fn a_fork_that_was_missed_is_no_event() {
        let mut counters = Counters::default();
        counters.add_skipped(false, 2);
        counters.add_skipped(true, 3);
        assert_eq!(counters.lifecycle_lost, 2);
        assert_eq!(counters.events, HookCounters { seen: 3, skipped: 3, ..HookCounters::default() });
    }
}
