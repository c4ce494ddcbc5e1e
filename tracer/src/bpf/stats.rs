//! What the programs counted, by hook and reason.

use std::os::fd::AsRawFd as _;

use aya::programs::ProgramFd;
use tracer_common::stats::{Program, ProgramStats};

/// Counters of one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookCounters {
    /// Calls of the traced kind.
    pub(crate) seen: u64,
    /// Of those, what the programs filtered out.
    pub(crate) filtered: u64,
    /// Of those, what found the ring full.
    pub(crate) buffer_full: u64,
    /// Calls that a program did not get to see or to put together.
    pub(crate) skipped: u64,
}

/// What was missed of containers: no events, but what tells whose events are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LifecycleCounters {
    /// Starts and ends of containers that found their ring full.
    pub(crate) full: u64,
    /// Processes that were not followed for want of room.
    pub(crate) processes_full: u64,
    /// Runtimes that were not followed for want of room.
    pub(crate) slots_full: u64,
    /// Runtimes that are not believed and were not followed, to keep room for the host's.
    pub(crate) crowded: u64,
    /// Runtimes in user namespaces that were not followed, since users' runtimes are not trusted.
    pub(crate) user_namespace: u64,
    /// Runs of what follows processes that the kernel left out.
    pub(crate) skipped: u64,
}

impl LifecycleCounters {
    /// By reason.
    #[must_use]
    pub(crate) const fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            ("lifecycle-full", self.full),
            ("process-map-full", self.processes_full),
            ("slots-full", self.slots_full),
            ("lifecycle-crowded", self.crowded),
            ("user-namespace", self.user_namespace),
            ("program-skipped", self.skipped),
        ]
    }

    /// Processes and runtimes that are followed by nobody, and may belong to containers that can be found. Whose
    /// runtimes are not believed cannot, and may come without end.
    #[must_use]
    pub(crate) const fn not_followed(&self) -> u64 {
        self.processes_full + self.slots_full + self.skipped
    }
}

/// One program's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramCounters {
    /// The program.
    pub(crate) program: Program,
    /// What it counted, on all CPUs.
    pub(crate) stats: ProgramStats,
    /// Its runs that the kernel left out.
    pub(crate) skipped: u64,
}

/// All counters, since the programs were attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Of the traced kind.
    pub(crate) events: HookCounters,
    /// Of what tells whose they are.
    pub(crate) lifecycle: LifecycleCounters,
    /// By program.
    pub(crate) programs: Vec<ProgramCounters>,
}

impl Counters {
    /// Adds what a program counted on each CPU, and its runs that the kernel left out. Of a hook of the traced kind each
    /// of those may have been an event: it counts as seen and lost. Of a program that follows processes each may have
    /// been one to follow.
    pub(crate) fn add<'a>(
        &mut self,
        program: Program,
        is_hook: bool,
        per_cpu: impl Iterator<Item = &'a ProgramStats>,
        skipped: u64,
    ) {
        let mut sum = ProgramStats::default();
        for stats in per_cpu {
            sum.seen += stats.seen;
            sum.filtered += stats.filtered;
            sum.lost_buffer_full += stats.lost_buffer_full;
            sum.lost_no_scratch += stats.lost_no_scratch;
            sum.lost_lifecycle += stats.lost_lifecycle;
            sum.lost_processes_full += stats.lost_processes_full;
            sum.lost_slots_full += stats.lost_slots_full;
            sum.lost_crowded += stats.lost_crowded;
            sum.lost_user_namespace += stats.lost_user_namespace;
        }
        self.events.seen += sum.seen;
        self.events.filtered += sum.filtered;
        self.events.buffer_full += sum.lost_buffer_full;
        self.events.skipped += sum.lost_no_scratch;
        self.lifecycle.full += sum.lost_lifecycle;
        self.lifecycle.processes_full += sum.lost_processes_full;
        self.lifecycle.slots_full += sum.lost_slots_full;
        self.lifecycle.crowded += sum.lost_crowded;
        self.lifecycle.user_namespace += sum.lost_user_namespace;
        if is_hook {
            self.events.seen += skipped;
            self.events.skipped += skipped;
        }
        if follows_processes(program) {
            self.lifecycle.skipped += skipped;
        }
        self.programs.push(ProgramCounters { program, stats: sum, skipped });
    }
}

/// Whether a program's runs are all there is to know of some process.
const fn follows_processes(program: Program) -> bool {
    matches!(program, Program::ProcessExec | Program::ProcessFork | Program::ProcessExit)
}

/// How often the kernel left a program out because it was running already (`recursion_misses`, since 5.12).
pub(crate) fn recursion_misses(program: &ProgramFd) -> u64 {
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
    use tracer_common::event::Kind;

    use super::*;
    use crate::bpf::hooks::is_hook_of;

    #[test]
    fn recursion_misses_are_read_where_the_kernel_shows_them() {
        assert_eq!(parse_recursion_misses("prog_type:\t26\nrecursion_misses:\t7\n"), 7);
        assert_eq!(parse_recursion_misses("prog_type:\t26\n"), 0);
    }

    #[test]
    fn a_run_that_was_left_out_counts_for_what_it_may_have_been() {
        let mut counters = Counters::default();
        let mut add = |program, kind, skipped| {
            counters.add(program, is_hook_of(program, kind), [].iter(), skipped);
        };
        add(Program::ProcessFork, Kind::Open, 2);
        add(Program::OpenExit, Kind::Open, 3);
        add(Program::ProcessExec, Kind::Exec, 5);
        assert_eq!(counters.lifecycle, LifecycleCounters { skipped: 7, ..LifecycleCounters::default() });
        assert_eq!(counters.events, HookCounters { seen: 8, skipped: 8, ..HookCounters::default() });
    }

    #[test]
    fn what_each_cpu_counted_adds_up() {
        let one = ProgramStats {
            seen: 10,
            filtered: 3,
            lost_buffer_full: 2,
            lost_no_scratch: 1,
            lost_lifecycle: 4,
            lost_processes_full: 5,
            lost_slots_full: 6,
            lost_crowded: 7,
            lost_user_namespace: 8,
        };
        let mut counters = Counters::default();
        counters.add(Program::OpenExit, true, [one, one].iter(), 1);
        assert_eq!(counters.events, HookCounters { seen: 21, filtered: 6, buffer_full: 4, skipped: 3 });
        let lifecycle = LifecycleCounters {
            full: 8,
            processes_full: 10,
            slots_full: 12,
            crowded: 14,
            user_namespace: 16,
            skipped: 0,
        };
        assert_eq!(counters.lifecycle, lifecycle);
    }
}
