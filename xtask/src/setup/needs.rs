//! What each command needs.

use crate::{dist, pins};

/// For which command. Each asks for no more than it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Building and running.
    Build,
    /// Building, and running a container with runc.
    Demo,
    /// Building for any Linux, also of another architecture.
    Dist,
    /// Building what the container image holds, for any architecture.
    Image,
    /// Building the Debian package for this architecture.
    Deb,
    /// Building all that has manual pages.
    Man,
    /// Building what runs in, and beside, a cluster on this machine.
    Kind,
    /// Building, and running the benchmark's containers.
    Bench,
    /// What the benchmark compares with, and nothing else. It does without.
    Peers,
    /// Format, lints and unit tests.
    Quick,
    /// Everything.
    Test,
    /// Running the integration tests in virtual machines.
    Vm,
    /// Building the fuzz targets.
    Fuzz,
    /// The same, in one of another architecture.
    VmElsewhere,
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
    /// Targets beside the machine's own.
    pub(crate) targets: Vec<&'static str>,
}

/// A program that cargo installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    BpfLinker,
    CargoDeb,
    CargoDeny,
    CargoFuzz,
    Youki,
}

impl Tool {
    /// Name of the crate and of the program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BpfLinker => "bpf-linker",
            Self::CargoDeb => "cargo-deb",
            Self::CargoDeny => "cargo-deny",
            Self::CargoFuzz => "cargo-fuzz",
            Self::Youki => "youki",
        }
    }

    /// The pinned version.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::BpfLinker => pins::BPF_LINKER,
            Self::CargoDeb => pins::CARGO_DEB,
            Self::CargoDeny => pins::CARGO_DENY,
            Self::CargoFuzz => pins::CARGO_FUZZ,
            Self::Youki => pins::YOUKI,
        }
    }
}

/// A Debian package, and what shows that what it holds is there, from whatever source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) probe: Probe,
    /// What its installation starts where systemd runs.
    pub(crate) service: Option<&'static str>,
}

impl Package {
    const fn new(name: &'static str, probe: Probe) -> Self {
        Self { name, probe, service: None }
    }

    const fn starting(self, service: &'static str) -> Self {
        Self { service: Some(service), ..self }
    }
}

/// How to see that something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A program of that name.
    Program(&'static str),
    /// A program of that name that needs no shared library, so that it runs in an empty root.
    StaticProgram(&'static str),
    /// A file.
    File(&'static str),
}

const RUNC: Package = Package::new("runc", Probe::Program("runc"));
const BUSYBOX: Package = Package::new("busybox-static", Probe::StaticProgram("busybox"));
const CRUN: Package = Package::new("crun", Probe::Program("crun"));
const CONTAINERD: Package = Package::new("containerd", Probe::Program("containerd")).starting("containerd");
/// The daemon is what the tests need of it; a client alone may be there from elsewhere.
const DOCKER: Package = Package::new("docker.io", Probe::Program("dockerd")).starting("docker");
const PODMAN: Package = Package::new("podman", Probe::Program("podman")).starting("podman.socket");
/// Compiles the tests' own programs, and C in what static programs are made of; Rust itself is content with any `cc`.
const GCC: Package = Package::new("gcc", Probe::Program("gcc"));
/// Compiles libFuzzer.
const GXX: Package = Package::new("g++", Probe::Program("c++"));
const QEMU: Package = if cfg!(target_arch = "aarch64") {
    Package::new("qemu-system-arm", Probe::Program("qemu-system-aarch64"))
} else {
    Package::new("qemu-system-x86", Probe::Program("qemu-system-x86_64"))
};
/// Of the architecture that this machine's is not.
#[cfg(not(target_arch = "aarch64"))]
const QEMU_ELSEWHERE: Package = Package::new("qemu-system-arm", Probe::Program("qemu-system-aarch64"));
#[cfg(not(target_arch = "aarch64"))]
const GCC_ELSEWHERE: Package = Package::new("gcc-aarch64-linux-gnu", Probe::Program("aarch64-linux-gnu-gcc"));
#[cfg(not(target_arch = "aarch64"))]
const LIBC_ELSEWHERE: Package =
    Package::new("libc6-dev-arm64-cross", Probe::File("/usr/aarch64-linux-gnu/lib/libc.a"));
#[cfg(target_arch = "aarch64")]
const QEMU_ELSEWHERE: Package = Package::new("qemu-system-x86", Probe::Program("qemu-system-x86_64"));
#[cfg(target_arch = "aarch64")]
const GCC_ELSEWHERE: Package = Package::new("gcc-x86-64-linux-gnu", Probe::Program("x86_64-linux-gnu-gcc"));
#[cfg(target_arch = "aarch64")]
const LIBC_ELSEWHERE: Package =
    Package::new("libc6-dev-amd64-cross", Probe::File("/usr/x86_64-linux-gnu/lib/libc.a"));
const CPIO: Package = Package::new("cpio", Probe::Program("cpio"));
/// opensnoop and execsnoop.
const LIBBPF_TOOLS: Package = Package::new("libbpf-tools", Probe::Program("opensnoop"));
const BPFTRACE: Package = Package::new("bpftrace", Probe::Program("bpftrace"));
const BPFTOOL: Package = Package::new("bpftool", Probe::Program("bpftool"));
const KUBECTL: Package = Package::new("kubernetes-client", Probe::Program("kubectl"));

impl Scope {
    /// What the command needs.
    pub(crate) fn needs(self) -> Needs {
        let lints = matches!(self, Self::Quick | Self::Test);
        Needs {
            toolchains: match self {
                Self::Peers => vec![],
                _ => vec![
                    Toolchain {
                        name: pins::STABLE,
                        components: if lints { vec!["clippy", "rustfmt"] } else { vec![] },
                        targets: match self {
                            Self::Dist
                            | Self::Image
                            | Self::Deb
                            | Self::Kind
                            | Self::Vm
                            | Self::VmElsewhere => dist::TARGETS.iter().map(|target| target.triple).collect(),
                            Self::Build
                            | Self::Demo
                            | Self::Bench
                            | Self::Peers
                            | Self::Quick
                            | Self::Test
                            | Self::Fuzz
                            | Self::Man => vec![],
                        },
                    },
                    Toolchain {
                        name: pins::NIGHTLY,
                        components: if lints { vec!["rust-src", "clippy"] } else { vec!["rust-src"] },
                        targets: vec![],
                    },
                ],
            },
            tools: match self {
                Self::Peers => vec![],
                Self::Build
                | Self::Demo
                | Self::Dist
                | Self::Image
                | Self::Man
                | Self::Kind
                | Self::Bench
                | Self::Quick
                | Self::Vm
                | Self::VmElsewhere => {
                    vec![Tool::BpfLinker]
                }
                Self::Deb => vec![Tool::BpfLinker, Tool::CargoDeb],
                Self::Fuzz => vec![Tool::BpfLinker, Tool::CargoFuzz],
                Self::Test => vec![Tool::BpfLinker, Tool::CargoDeny, Tool::Youki],
            },
            packages: match self {
                Self::Build | Self::Image | Self::Quick => vec![],
                Self::Dist => vec![GCC, GCC_ELSEWHERE, LIBC_ELSEWHERE],
                Self::Deb | Self::Man => vec![GCC],
                Self::Kind => vec![GCC, BUSYBOX],
                // A static program takes what gcc's package has beside the compiler.
                Self::Bench => vec![RUNC, BUSYBOX, GCC],
                Self::Peers => vec![LIBBPF_TOOLS, BPFTRACE],
                Self::Demo => vec![RUNC, BUSYBOX],
                Self::Fuzz => vec![GXX],
                Self::Vm => vec![RUNC, BUSYBOX, CRUN, GCC, BPFTOOL, QEMU, CPIO],
                Self::VmElsewhere => vec![QEMU_ELSEWHERE, GCC_ELSEWHERE, LIBC_ELSEWHERE, CPIO],
                Self::Test => vec![RUNC, BUSYBOX, CRUN, CONTAINERD, DOCKER, PODMAN, GCC, BPFTOOL, KUBECTL],
            },
        }
    }
}
