//! The ways to see the system calls of a run's kinds: which programs, attached where, the best first. Which of them a kernel
//! has is tried by loading and attaching: kernels of one version differ, and so do the permissions of `tracer`.

use std::{collections::VecDeque, fmt};

use tracer_common::kinds::schema::Kind;

use crate::{
    bpf::{
        hooks::Hook,
        programs::{Hooked, any_with_calls},
        sys_exit_event,
    },
    error::Unsupported,
};

/// Programs that are loaded and attached together.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) hook: Hook,
    pub(crate) programs: Vec<Hooked>,
    /// Whether the kernel may preempt programs there.
    preempted: bool,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.hook, self.programs.iter().any(Hooked::is_at_event)) {
            (Hook::SysExit, true) => f.write_str("the event raw_syscalls/sys_exit"),
            (hook, _) => hook.fmt(f),
        }
    }
}

/// Where this kernel preempts the programs that see every call, and whether it can be helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preemption {
    /// At no tracepoint.
    Never,
    /// At the tracepoint, not at the event that is made of it.
    AtTracepoint,
    /// At the tracepoint, and tracefs, which has the event, is not mounted.
    AtTracepointWithoutTracefs,
}

impl Preemption {
    /// That of the running kernel.
    pub(crate) fn of_kernel() -> Self {
        match (crate::bpf::preemption::programs_are_preemptible(), sys_exit_event::is_available()) {
            (false, _) => Self::Never,
            (true, true) => Self::AtTracepoint,
            (true, false) => Self::AtTracepointWithoutTracefs,
        }
    }
}

/// The ways that are left to try, and why better ones were refused.
#[derive(Debug)]
pub(crate) struct Ways {
    left: VecDeque<Way>,
    refused: Vec<String>,
    /// Why the event cannot be used.
    no_event: Option<String>,
    forced: Option<Hook>,
}

impl Ways {
    /// What can be tried for these kinds; without any, to follow containers. Kinds whose events are no system calls need
    /// nothing. `at_functions` are the programs at the return of functions, if they see all calls.
    pub(crate) fn new(
        kinds: &[&'static Kind],
        forced: Option<Hook>,
        preemption: Preemption,
        at_functions: Option<Vec<Hooked>>,
    ) -> Self {
        let mut left = VecDeque::new();
        let mut no_event = None;
        let traces_calls = any_with_calls(kinds);
        let at = |programs: Vec<Hooked>, preempted| Way { hook: Hook::SysExit, programs, preempted };
        if !kinds.is_empty() && !traces_calls {
            left.push_back(at(Vec::new(), false));
            return Self { left, refused: Vec::new(), no_event, forced };
        }
        if let Some(programs) = at_functions.filter(|_| forced != Some(Hook::SysExit)) {
            left.push_back(Way { hook: Hook::Fexit, programs, preempted: false });
        }
        if forced != Some(Hook::Fexit) {
            let program = Hooked::at_sys_exit(kinds);
            // Where no call is traced, little is lost with a call that is not seen.
            if traces_calls && preemption == Preemption::AtTracepoint {
                left.push_back(at(vec![program.clone().at_event()], false));
            }
            if traces_calls && preemption == Preemption::AtTracepointWithoutTracefs {
                no_event = Some("tracefs is not mounted".to_owned());
            }
            left.push_back(at(vec![program], traces_calls && preemption != Preemption::Never));
        }
        Self { left, refused: Vec::new(), no_event, forced }
    }

    /// Nothing to try.
    pub(crate) const fn none() -> Self {
        Self { left: VecDeque::new(), refused: Vec::new(), no_event: None, forced: None }
    }

    /// The programs of each way that may be tried.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &[Hooked]> {
        self.left.iter().map(|way| &way.programs[..])
    }

    /// The best that `works`.
    pub(crate) fn first(&mut self, mut works: impl FnMut(&Way) -> anyhow::Result<()>) -> anyhow::Result<Way> {
        let mut last = None;
        while let Some(way) = self.left.pop_front() {
            match works(&way) {
                Ok(()) => return Ok(way),
                Err(error) => last = Some(self.refuse(&way, error)),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no hook is left to try")))
    }

    /// Records why a way cannot be used. Returns the error for a run that must use this one.
    pub(crate) fn refuse(&mut self, way: &Way, error: anyhow::Error) -> anyhow::Error {
        self.refused.push(format!("{way}: {error:#}"));
        if way.programs.iter().any(Hooked::is_at_event) {
            self.no_event = Some(format!("{error:#}"));
        }
        if self.forced == Some(Hook::Fexit) {
            let problem =
                format!("this kernel does not let system calls be traced at {}: {error:#}", way.hook);
            return Unsupported::new(problem, format!("leave --hook out, or give it {}", Hook::SysExit))
                .into();
        }
        error
    }

    /// Whether one is left.
    pub(crate) fn is_any_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// What came of it, when `way` was taken.
    pub(crate) fn taken(&self, way: &Way) -> Taken {
        let cost = way.preempted.then(|| {
            let why = self.no_event.as_deref().unwrap_or_default();
            format!(
                "every system call is seen at the tracepoint sys_exit, where this kernel may preempt programs: what is \
                 called meanwhile on that CPU can be lost (program-skipped). Better is the event of it, which is not to \
                 be had: {why}"
            )
        });
        Taken { hook: way.hook, refused: self.refused.clone(), cost, without_uring: None }
    }
}

/// How calls are seen.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Where.
    pub(crate) hook: Hook,
    /// The better ways that were tried, with the reason why each cannot be used.
    pub(crate) refused: Vec<String>,
    /// What is worse than it could be.
    pub(crate) cost: Option<String>,
    /// Why opens of io_uring are not traced, if they are to be.
    pub(crate) without_uring: Option<String>,
}

/// Explains why perf events are refused.
pub(crate) fn explain_refused_event(paranoid: Option<i32>) -> String {
    match paranoid {
        Some(level @ 3..) => format!(
            "kernel.perf_event_paranoid is {level}, which reserves perf events for CAP_SYS_ADMIN: set it to 2, or grant \
             that"
        ),
        _ => "a security module or a seccomp filter may forbid perf_event_open(2)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, bail};
    use tracer_common::kinds::KINDS;

    use super::*;

    fn kinds(names: &[&str]) -> Vec<&'static Kind> {
        KINDS.iter().filter(|kind| names.contains(&kind.name)).collect()
    }

    fn new(names: &[&str], forced: Option<Hook>, preemption: Preemption) -> Ways {
        let kinds = kinds(names);
        let at_functions = Hooked::all_at_functions(&kinds, |_| true);
        Ways::new(&kinds, forced, preemption, at_functions)
    }

    fn ways(names: &[&str], forced: Option<Hook>, preemption: Preemption) -> Vec<String> {
        new(names, forced, preemption).left.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn event_is_tried_before_a_tracepoint_that_is_preempted() {
        const EVENT: &str = "the event raw_syscalls/sys_exit";
        let open = |forced, preemption| ways(&["open"], forced, preemption);
        assert_eq!(open(None, Preemption::Never), ["fexit", "sys-exit"]);
        assert_eq!(open(None, Preemption::AtTracepoint), ["fexit", EVENT, "sys-exit"]);
        assert_eq!(open(None, Preemption::AtTracepointWithoutTracefs), ["fexit", "sys-exit"]);
        assert_eq!(open(Some(Hook::SysExit), Preemption::AtTracepoint), [EVENT, "sys-exit"]);
        assert_eq!(open(Some(Hook::Fexit), Preemption::AtTracepoint), ["fexit"]);
        assert_eq!(ways(&["exec"], None, Preemption::AtTracepoint), [EVENT, "sys-exit"]);
        assert_eq!(ways(&["exec"], None, Preemption::Never), ["sys-exit"]);
        // No call is traced.
        assert_eq!(ways(&[], None, Preemption::AtTracepoint), ["sys-exit"]);
    }

    #[test]
    fn several_kinds_share_one_program_at_sys_exit() {
        let ways = new(&["open", "exec", "exit"], None, Preemption::Never);
        assert_eq!((ways.left.len(), ways.programs().flatten().count()), (1, 1));
        assert_eq!(new(&["exit"], None, Preemption::Never).programs().flatten().count(), 0);
    }

    #[test]
    fn refused_event_costs_what_is_preempted_and_says_why() {
        let mut ways = new(&["exec"], None, Preemption::AtTracepoint);
        let way =
            ways.first(|way| if way.preempted { Ok(()) } else { bail!("refused for a reason") }).unwrap();
        let Taken { hook, refused, cost, .. } = ways.taken(&way);
        assert_eq!(hook, Hook::SysExit);
        assert_eq!(refused, ["the event raw_syscalls/sys_exit: refused for a reason"]);
        let cost = cost.unwrap();
        assert!(cost.contains("program-skipped") && cost.contains("refused for a reason"), "{cost}");

        let mut ways = new(&["exec"], None, Preemption::AtTracepoint);
        let way = ways.first(|_| Ok(())).unwrap();
        assert!(ways.taken(&way).cost.is_none() && ways.is_any_left());

        let mut ways = new(&["open"], None, Preemption::AtTracepointWithoutTracefs);
        let way = ways.first(|way| if way.preempted { Ok(()) } else { bail!("no fexit") }).unwrap();
        assert!(ways.taken(&way).cost.unwrap().ends_with("tracefs is not mounted"));
    }

    #[test]
    fn fexit_that_attaches_no_more_is_replaced_unless_it_is_forced() {
        let full = || anyhow!("Argument list too long");
        let mut ways = new(&["open"], None, Preemption::Never);
        let fexit = ways.first(|_| Ok(())).unwrap();
        ways.refuse(&fexit, full());
        let other = ways.first(|_| Ok(())).unwrap();
        assert_eq!(ways.taken(&other).hook, Hook::SysExit);
        assert_eq!(ways.taken(&other).refused, ["fexit: Argument list too long"]);

        let mut ways = new(&["open"], Some(Hook::Fexit), Preemption::Never);
        let fexit = ways.first(|_| Ok(())).unwrap();
        let error = ways.refuse(&fexit, full());
        assert!(error.is::<Unsupported>() && !ways.is_any_left());
        let error = error.to_string();
        assert!(error.contains("too long") && error.contains("--hook"), "{error}");
    }

    #[test]
    fn level_that_reserves_perf_events_is_named() {
        assert!(explain_refused_event(Some(3)).contains("kernel.perf_event_paranoid is 3"));
        for level in [None, Some(-1), Some(2)] {
            assert!(!explain_refused_event(level).contains("paranoid"), "{level:?}");
        }
    }
}
