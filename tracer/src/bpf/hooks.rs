//! Which program is attached to what, and where opens are hooked.

use std::{fmt, os::fd::AsFd as _, str::FromStr};

use aya::{
    Btf,
    programs::{self as aya_programs, ProgramError},
};
use tracer_common::{event::Kind, stats::Program};

use crate::bpf::{btf::KernelTypes, sys_exit_event};

/// Where opens are hooked. All ways see the same calls and tell the same of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// At the return of the kernel's functions that open files: no other system call runs a program.
    Fexit,
    /// At the return of every system call.
    SysExit,
}

impl Hook {
    /// All of them, the best first.
    pub(crate) const ALL: [Self; 2] = [Self::Fexit, Self::SysExit];

    /// As `--hook` takes it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::SysExit => "sys-exit",
        }
    }

    /// What has to be attached to see opens.
    pub(crate) const fn programs(self) -> &'static [Hooked] {
        match self {
            Self::Fexit => OPEN_AT_FEXIT,
            Self::SysExit => OPEN_AT_SYS_EXIT,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|hook| hook.name() == name)
            .ok_or_else(|| format!("there is no hook {name:?}"))
    }
}

/// A program and what it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hooked {
    pub(crate) program: Program,
    pub(crate) target: &'static str,
    /// A function without which there is nothing to attach to: it is needed only where the kernel has this.
    only_with: Option<&'static str>,
    /// The name of the program in the object that stands in for it at an event of the kernel's tracing.
    at_event: Option<&'static str>,
}

impl Hooked {
    const fn new(program: Program, target: &'static str) -> Self {
        Self { program, target, only_with: None, at_event: None }
    }

    /// Only where the kernel has this function.
    const fn only_with(self, function: &'static str) -> Self {
        Self { only_with: Some(function), ..self }
    }

    /// At a function that not every kernel has.
    const fn where_it_is(program: Program, target: &'static str) -> Self {
        Self::new(program, target).only_with(target)
    }

    /// What the program is called that is loaded for it.
    pub(crate) fn name(&self) -> &'static str {
        self.at_event.unwrap_or(self.program.name())
    }

    /// Whether it is attached to an event of the kernel's tracing.
    pub(crate) const fn is_at_event(&self) -> bool {
        self.at_event.is_some()
    }

    /// Whether this kernel has calls for it to see.
    pub(crate) fn is_needed(&self, types: &KernelTypes) -> bool {
        self.only_with.is_none_or(|function| types.has_function(function))
    }
}

/// Exits and forks before executions: what starts to be followed must not slip away.
pub(crate) const LIFECYCLE: [Hooked; 3] = [
    Hooked::new(Program::ProcessExit, "sched_process_exit"),
    Hooked::new(Program::ProcessFork, "sched_process_fork"),
    Hooked::new(Program::ProcessExec, "sched_process_exec"),
];

/// What executions take besides, and following containers does.
pub(crate) const EXEC: &[Hooked] = &[Hooked::new(Program::ExecExit, "sys_exit")];

/// How the kernel's tracepoints tell of io_uring, which opens files without a system call for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uring {
    pub(crate) programs: Vec<Hooked>,
    /// Which argument of the first one is the request.
    pub(crate) request_argument: u32,
    /// Whether the second one has the result as an argument.
    pub(crate) has_result: bool,
    /// Which argument of the one for refused entries is the error.
    pub(crate) error_argument: u32,
}

impl Uring {
    /// As this kernel has them; none where they do not tell which request they are about.
    pub(crate) fn of_kernel(types: &KernelTypes) -> Option<Self> {
        Self::find(|tracepoint| types.tracepoint_arguments(tracepoint))
    }

    fn find<'t>(arguments: impl Fn(&str) -> Option<Vec<&'t str>>) -> Option<Self> {
        let (target, of_submission) = ["io_uring_submit_req", "io_uring_submit_sqe"]
            .into_iter()
            .find_map(|target| Some((target, arguments(target)?)))?;
        let request_argument = match of_submission[..] {
            ["io_kiocb", ..] => 0,
            // The ring, then the request.
            ["void", "void", ..] => 1,
            _ => return None,
        };
        let of_completion = arguments("io_uring_complete")?;
        if !matches!(of_completion.get(1), Some(&("void" | "io_kiocb"))) {
            return None;
        }
        let mut programs = vec![
            // What is submitted is complete later.
            Hooked::new(Program::UringComplete, "io_uring_complete"),
            Hooked::new(Program::UringSubmit, target),
        ];
        let overflow = "io_uring_cqe_overflow";
        if arguments(overflow).is_some() {
            programs.insert(0, Hooked::new(Program::UringOverflow, overflow));
        }
        let refusal = "io_uring_req_failed";
        let of_refusal = arguments(refusal).unwrap_or_default();
        let error_argument = match of_refusal[..] {
            ["io_uring_sqe", _, _] => 2,
            ["io_uring_sqe", _, _, _] => 3,
            _ => 0,
        };
        if error_argument > 0 {
            programs.push(Hooked::new(Program::UringRefusal, refusal));
        }
        Some(Self { programs, request_argument, has_result: of_completion.len() > 3, error_argument })
    }
}

const OPEN_AT_SYS_EXIT: &[Hooked] = &[Hooked::new(Program::OpenExit, "sys_exit")];

/// The same hook where the kernel does not preempt what it runs, for kernels that preempt programs at the tracepoint
/// itself. Costs every system call more, so it is for those only, and takes tracefs.
pub(crate) fn at_event(hooked: Hooked) -> Hooked {
    let at_event = match hooked.program {
        Program::OpenExit => "open_exit_event",
        Program::ExecExit => "exec_exit_event",
        _ => return hooked,
    };
    Hooked { at_event: Some(at_event), ..hooked }
}

#[cfg(target_arch = "x86_64")]
const OPEN_AT_FEXIT: &[Hooked] = &[
    Hooked::new(Program::OpenReturn, "do_sys_openat2"),
    Hooked::new(Program::Openat2Return, "__x64_sys_openat2"),
    // Of IA32_EMULATION, as the entry for openat2 is.
    Hooked::new(Program::Openat2CompatReturn, "__ia32_sys_openat2").only_with("__ia32_compat_sys_open"),
    Hooked::where_it_is(Program::HandleReturn, "__x64_sys_open_by_handle_at"),
    Hooked::where_it_is(Program::HandleCompatReturn, "__ia32_compat_sys_open_by_handle_at"),
];

/// For openat2 32-bit programs have no entry of their own.
#[cfg(target_arch = "aarch64")]
const OPEN_AT_FEXIT: &[Hooked] = &[
    Hooked::new(Program::OpenReturn, "do_sys_openat2"),
    Hooked::new(Program::Openat2Return, "__arm64_sys_openat2"),
    Hooked::where_it_is(Program::HandleReturn, "__arm64_sys_open_by_handle_at"),
    Hooked::where_it_is(Program::HandleCompatReturn, "__arm64_compat_sys_open_by_handle_at"),
];

/// Whether a program's runs are calls of the traced kind.
pub(crate) fn is_hook_of(program: Program, kind: Kind) -> bool {
    match program {
        Program::OpenExit
        | Program::OpenReturn
        | Program::Openat2Return
        | Program::Openat2CompatReturn
        | Program::HandleReturn
        | Program::HandleCompatReturn
        | Program::UringSubmit
        | Program::UringComplete
        | Program::UringOverflow
        | Program::UringRefusal => kind == Kind::Open,
        Program::ProcessExec | Program::ExecExit => kind == Kind::Exec,
        Program::ProcessFork | Program::ProcessExit => false,
    }
}

/// Loads a program for what it is attached to.
pub(crate) fn load(program: &mut aya_programs::Program, target: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        aya_programs::Program::FExit(program) => program.load(target, btf),
        aya_programs::Program::BtfTracePoint(program) => program.load(target, btf),
        aya_programs::Program::TracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// What keeps a program attached: dropped, it detaches it.
pub(crate) type Link = Box<dyn Send>;

/// Attaches a program.
pub(crate) fn attach(program: &mut aya_programs::Program) -> anyhow::Result<Link> {
    Ok(match program {
        aya_programs::Program::FExit(program) => {
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        aya_programs::Program::TracePoint(program) => Box::new(sys_exit_event::attach(program.fd()?.as_fd())?),
        aya_programs::Program::BtfTracePoint(program) => {
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_told_by_its_name() {
        for hook in Hook::ALL {
            assert_eq!(hook.name().parse(), Ok(hook));
        }
        assert!("kprobe".parse::<Hook>().unwrap_err().contains("\"kprobe\""));
    }

    /// Their arguments, as kernels of these versions have them.
    fn uring(submission: (&str, &[&'static str]), completion: &[&'static str]) -> Option<Uring> {
        Uring::find(|tracepoint| match tracepoint {
            "io_uring_complete" => Some(completion.to_vec()),
            _ if tracepoint == submission.0 => Some(submission.1.to_vec()),
            _ => None,
        })
    }

    #[test]
    fn request_is_found_among_the_arguments_of_every_kernel() {
        let arguments = |found: Option<Uring>| found.map(|found| (found.request_argument, found.has_result));
        let newest = uring(("io_uring_submit_req", &["io_kiocb"]), &["io_ring_ctx", "void", "io_uring_cqe"]);
        assert_eq!(arguments(newest), Some((0, false)));
        let result = ["void", "void", "", "", "", "", ""];
        let of_6_1 = uring(("io_uring_submit_sqe", &["io_kiocb", ""]), &result);
        assert_eq!(arguments(of_6_1), Some((0, true)));
        let of_5_18 = uring(("io_uring_submit_sqe", &["void", "void", "", "", "", "", ""]), &result);
        assert_eq!(arguments(of_5_18), Some((1, true)));
        assert_eq!(uring(("io_uring_submit_sqe", &["void", "", "", "", ""]), &["void", "", ""]), None);
        assert_eq!(uring(("io_uring_submit_sqe", &["void", "void", ""]), &["void", "", ""]), None);
    }

    #[test]
    fn only_what_sees_every_call_has_an_event_in_its_place() {
        let names =
            |hooked: &[Hooked]| hooked.iter().map(|hooked| at_event(*hooked).name()).collect::<Vec<_>>();
        assert_eq!(names(OPEN_AT_SYS_EXIT), ["open_exit_event"]);
        assert_eq!(names(EXEC), ["exec_exit_event"]);
        for others in [OPEN_AT_FEXIT, &LIFECYCLE] {
            assert_eq!(names(others), others.iter().map(Hooked::name).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_program_that_sees_opens_counts_as_their_hook() {
        for hooked in Hook::ALL.iter().flat_map(|hook| hook.programs()) {
            assert!(is_hook_of(hooked.program, Kind::Open), "{hooked:?}");
        }
    }
}
