//! What each command needs.

use crate::pins;

/// For which command. Each asks for no more than it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Building and running.
    Build,
    /// Building, and running a container with runc.
    Demo,
    /// Format, lints and unit tests.
    Quick,
    /// Everything.
    Test,
}

/// What must be there.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) toolchains: Vec<Toolchain>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) packages: Vec<Package>,
}

/// A Rust toolchain and its components beyond rustup's minimal profile.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) name: &'static str,
    pub(crate) components: Vec<&'static str>,
}

/// A program that cargo installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    BpfLinker,
    CargoDeny,
}

impl Tool {
    /// Name of the crate and of the program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BpfLinker => "bpf-linker",
            Self::CargoDeny => "cargo-deny",
        }
    }

    /// The pinned version.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::BpfLinker => pins::BPF_LINKER,
            Self::CargoDeny => pins::CARGO_DENY,
        }
    }
}

/// A Debian package, and what shows that what it holds is there, from whatever source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) probe: Probe,
}

/// How to see that something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A program of that name.
    Program(&'static str),
    /// A program of that name that needs no shared library, so that it runs in an empty root.
    StaticProgram(&'static str),
}

const RUNC: Package = Package { name: "runc", probe: Probe::Program("runc") };
const BUSYBOX: Package = Package { name: "busybox-static", probe: Probe::StaticProgram("busybox") };
const CRUN: Package = Package { name: "crun", probe: Probe::Program("crun") };
const CONTAINERD: Package = Package { name: "containerd", probe: Probe::Program("containerd") };
/// Compiles the tests' own programs; Rust itself is content with any `cc`.
const GCC: Package = Package { name: "gcc", probe: Probe::Program("gcc") };
const BPFTOOL: Package = Package { name: "bpftool", probe: Probe::Program("bpftool") };

impl Scope {
    /// What the command needs.
    pub(crate) fn needs(self) -> Needs {
        let lints = matches!(self, Self::Quick | Self::Test);
        Needs {
            toolchains: vec![
                Toolchain {
                    name: pins::STABLE,
                    components: if lints { vec!["clippy", "rustfmt"] } else { vec![] },
                },
                Toolchain {
                    name: pins::NIGHTLY,
                    components: if lints { vec!["rust-src", "clippy"] } else { vec!["rust-src"] },
                },
            ],
            tools: match self {
                Self::Build | Self::Demo | Self::Quick => vec![Tool::BpfLinker],
                Self::Test => vec![Tool::BpfLinker, Tool::CargoDeny],
            },
            packages: match self {
                Self::Build | Self::Quick => vec![],
                Self::Demo => vec![RUNC, BUSYBOX],
                Self::Test => vec![RUNC, BUSYBOX, CRUN, CONTAINERD, GCC, BPFTOOL],
            },
        }
    }
}
