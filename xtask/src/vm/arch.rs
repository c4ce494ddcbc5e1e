//! The architectures of guests: what QEMU and Debian call them, and how they are started.

use std::env::consts::ARCH;

use anyhow::{Context as _, Result};

use crate::setup::Scope;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arch {
    /// As Rust names it.
    pub(crate) name: &'static str,
    /// As Debian does.
    pub(crate) debian: &'static str,
    pub(crate) qemu: &'static str,
    /// The machine that QEMU is to be.
    pub(crate) machine: &'static [&'static str],
    /// Where the steps write: a serial line.
    pub(crate) steps: &'static str,
    /// Where the kernel does: another one, unless there is none.
    pub(crate) console: &'static str,
    /// What cross-compiles C for it.
    pub(crate) compiler: &'static str,
}

/// All of them.
const ALL: [Arch; 2] = [
    Arch {
        name: "x86_64",
        debian: "amd64",
        qemu: "qemu-system-x86_64",
        machine: &["-cpu", "Nehalem,-cx16"],
        steps: "ttyS1",
        console: "ttyS0",
        compiler: "x86_64-linux-gnu-gcc",
    },
    Arch {
        name: "aarch64",
        debian: "arm64",
        qemu: "qemu-system-aarch64",
        machine: &["-machine", "virt", "-cpu", "cortex-a72"],
        steps: "ttyAMA0",
        console: "ttyAMA0",
        compiler: "aarch64-linux-gnu-gcc",
    },
];

impl Arch {
    /// The one of that name.
    pub(crate) fn of(name: &str) -> Result<&'static Self> {
        ALL.iter().find(|arch| arch.name == name).with_context(|| format!("there are no guests for {name}"))
    }

    /// Whether it is this machine's, whose programs run in the guest.
    pub(crate) fn is_native(&self) -> bool {
        self.name == ARCH
    }

    /// What guests of it take.
    pub(crate) fn scope(&self) -> Scope {
        if self.is_native() { Scope::Vm } else { Scope::VmElsewhere }
    }

    /// Whether the kernel has a serial line for itself.
    pub(crate) fn has_console(&self) -> bool {
        self.console != self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_guests() {
        assert!(Arch::of(ARCH).unwrap().is_native());
        assert!(ALL.iter().any(|arch| !arch.is_native()));
        assert!(Arch::of("vax").is_err());
    }
}
