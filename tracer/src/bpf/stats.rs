//! Counters of the programs, by kind and reason.

use std::os::fd::AsRawFd as _;

use aya::programs::ProgramFd;
use tracer_common::stats::ProgramStats;

/// Counters of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KindCounters {
    /// Events of the kind.
    pub(crate) seen: u64,
    /// Of those, what the programs filtered out.
    pub(crate) filtered: u64,
    /// Of those, what found the ring full.
    pub(crate) buffer_full: u64,
    /// Events that a program did not see, or could not put together.
    pub(crate) skipped: u64,
}

/// What was missed of containers: not events, but what events are attributed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LifecycleCounters {
    /// Starts and ends of containers that found their ring full.
    pub(crate) full: u64,
    /// Processes that were not followed for want of room.
    pub(crate) processes_full: u64,
    /// Runtimes that were not followed for want of room.
    pub(crate) slots_full: u64,
    /// Untrusted runtimes that were not followed, to keep room for the host's.
    pub(crate) crowded: u64,
    /// Runtimes in user namespaces that were not followed, since users' runtimes are not trusted.
    pub(crate) user_namespace: u64,
    /// Runs of the programs that follow processes which the kernel skipped.
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

    /// Processes and runtimes that are not followed, and may belong to containers that can be found. Those of untrusted
    /// runtimes cannot, and their number has no bound.
    #[must_use]
    pub(crate) const fn not_followed(&self) -> u64 {
        self.processes_full + self.slots_full + self.skipped
    }
}

/// What one program counted, for one kind or for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramCounters {
    /// The program's name in the object.
    pub(crate) program: &'static str,
    /// Position of the kind.
    pub(crate) kind: Option<usize>,
    /// The counters, of all CPUs.
    pub(crate) stats: ProgramStats,
    /// Runs of the program that the kernel skipped.
    pub(crate) skipped: u64,
}

/// All counters, since the programs were attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// By the position of the kind.
    pub(crate) kinds: Vec<KindCounters>,
    /// Lost lifecycle records, and what was not followed.
    pub(crate) lifecycle: LifecycleCounters,
    /// By program and kind.
    pub(crate) programs: Vec<ProgramCounters>,
}

impl Counters {
    pub(crate) fn new(kinds: usize) -> Self {
        Self { kinds: vec![KindCounters::default(); kinds], ..Self::default() }
    }

    /// The sum over all kinds.
    pub(crate) fn events(&self) -> KindCounters {
        let mut sum = KindCounters::default();
        for kind in &self.kinds {
            sum.seen += kind.seen;
            sum.filtered += kind.filtered;
            sum.buffer_full += kind.buffer_full;
            sum.skipped += kind.skipped;
        }
        sum
    }

    /// Adds what a program counted on each CPU for the kind at this position.
    pub(crate) fn add<'a>(
        &mut self,
        program: &'static str,
        kind: Option<usize>,
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
        if let Some(counters) = kind.and_then(|kind| self.kinds.get_mut(kind)) {
            counters.seen += sum.seen;
            counters.filtered += sum.filtered;
            counters.buffer_full += sum.lost_buffer_full;
            counters.skipped += sum.lost_no_scratch;
        }
        self.lifecycle.full += sum.lost_lifecycle;
        self.lifecycle.processes_full += sum.lost_processes_full;
        self.lifecycle.slots_full += sum.lost_slots_full;
        self.lifecycle.crowded += sum.lost_crowded;
        self.lifecycle.user_namespace += sum.lost_user_namespace;
        self.programs.push(ProgramCounters { program, kind, stats: sum, skipped });
    }

    /// Adds runs of a program that the kernel skipped. Each may have been an event of the first kind that the program sees: it
    /// counts as seen and lost. Of a program that follows processes each may have been a process to follow.
    pub(crate) fn add_skipped(&mut self, kind: Option<usize>, follows_processes: bool, skipped: u64) {
        if let Some(counters) = kind.and_then(|kind| self.kinds.get_mut(kind)) {
            counters.seen += skipped;
            counters.skipped += skipped;
        }
        if follows_processes {
            self.lifecycle.skipped += skipped;
        }
    }
}

/// How often the kernel skipped a program because it was running already (`recursion_misses`, since 5.12).
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
    use super::*;

    #[test]
    fn recursion_misses_are_read_where_the_kernel_shows_them() {
        assert_eq!(parse_recursion_misses("prog_type:\t26\nrecursion_misses:\t7\n"), 7);
        assert_eq!(parse_recursion_misses("prog_type:\t26\n"), 0);
    }

    #[test]
    fn skipped_run_counts_for_what_it_may_have_been() {
        let mut counters = Counters::new(2);
        counters.add_skipped(None, true, 2);
        counters.add_skipped(Some(0), false, 3);
        counters.add_skipped(Some(1), true, 5);
        assert_eq!(counters.lifecycle, LifecycleCounters { skipped: 7, ..LifecycleCounters::default() });
        assert_eq!(counters.events(), KindCounters { seen: 8, skipped: 8, ..KindCounters::default() });
        assert_eq!(counters.kinds[1].seen, 5);
    }

    #[test]
    fn counters_of_all_cpus_add_up() {
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
        let mut counters = Counters::new(1);
        counters.add("sys_exit", Some(0), [one, one].iter(), 1);
        counters.add_skipped(Some(0), false, 1);
        assert_eq!(counters.events(), KindCounters { seen: 21, filtered: 6, buffer_full: 4, skipped: 3 });
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
