//! Where system calls are traced, and how programs are attached.

use std::{fmt, os::fd::AsFd as _, str::FromStr};

use aya::{
    Btf,
    programs::{self as aya_programs, ProgramError},
};

use crate::bpf::sys_exit_event;

/// Where system calls are traced. All hooks see the same calls and report the same of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// At the return of the kernel's functions for these calls: no other system call runs a program.
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
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|hook| hook.name() == name).ok_or_else(|| {
            format!("unknown hook {name:?}; expected one of: {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Loads a program for its target.
pub(crate) fn load(program: &mut aya_programs::Program, target: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        aya_programs::Program::FExit(program) => program.load(target, btf),
        aya_programs::Program::BtfTracePoint(program) => program.load(target, btf),
        aya_programs::Program::TracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Keeps a program attached: dropped, it detaches it.
pub(crate) type Link = Box<dyn Send>;

/// Attaches a program.
pub(crate) fn attach(program: &mut aya_programs::Program) -> anyhow::Result<Link> {
    Ok(match program {
        aya_programs::Program::FExit(program) => {
            let link = program.attach()?;
            Box::new(program.take_link(link)?)
        }
        aya_programs::Program::TracePoint(program) => {
            Box::new(sys_exit_event::attach(program.fd()?.as_fd())?)
        }
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
    fn hook_is_parsed_from_its_name() {
        for hook in Hook::ALL {
            assert_eq!(hook.name().parse(), Ok(hook));
        }
        assert!("kprobe".parse::<Hook>().unwrap_err().contains("\"kprobe\""));
    }
}
