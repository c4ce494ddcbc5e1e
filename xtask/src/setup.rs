//! What each command needs, and installing what of that is missing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::{
    dist, elf,
    pins::{self, LLVM, NIGHTLY, STABLE},
    process::{is_root, quietly},
};

/// A group of commands with the same needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Build,
    Demo,
    /// `dist` and `image`: static binaries, for other architectures as well.
    Dist,
    Deb,
    Man,
    Kind,
    Bench,
    /// The tracers that the benchmark compares with. It runs without them, too.
    Peers,
    /// `test --quick`.
    Quick,
    Test,
    Fuzz,
    Vm,
    /// `vm` with a guest of the other architecture.
    VmForeign,
}

/// Something that can be installed.
#[derive(Debug, Clone, Copy)]
enum Need {
    /// Components and targets of a Rust toolchain, beyond rustup's minimal profile.
    Toolchain { name: &'static str, components: &'static [&'static str], targets: &'static [&'static str] },
    /// A program that cargo installs, with these arguments.
    Tool { name: &'static str, version: &'static str, arguments: &'static [&'static str] },
    /// A Debian package, and what shows that its content is there, from whatever source. `service` is what its
    /// installation starts.
    Package { name: &'static str, probe: Probe, service: Option<&'static str> },
}

#[derive(Debug, Clone, Copy)]
enum Probe {
    Program(&'static str),
    /// One that runs in an empty root directory.
    StaticBusybox,
    File(&'static str),
}

use Probe::{File, Program, StaticBusybox};

const fn tool(name: &'static str, version: &'static str) -> Need {
    Need::Tool { name, version, arguments: &[] }
}

const fn package(name: &'static str, probe: Probe) -> Need {
    Need::Package { name, probe, service: None }
}

const fn service(name: &'static str, program: &'static str, service: &'static str) -> Need {
    Need::Package { name, probe: Program(program), service: Some(service) }
}

const LINKER: Need = tool("bpf-linker", pins::BPF_LINKER);
/// Without seccomp and systemd it needs no library of the system.
const YOUKI: Need = Need::Tool {
    name: "youki",
    version: pins::YOUKI,
    arguments: &["--no-default-features", "--features", "v1,v2"],
};
const RUNC: Need = package("runc", Program("runc"));
const CRUN: Need = package("crun", Program("crun"));
const BUSYBOX: Need = package("busybox-static", StaticBusybox);
const GCC: Need = package("gcc", Program("gcc"));
const BPFTOOL: Need = package("bpftool", Program("bpftool"));
const CPIO: Need = package("cpio", Program("cpio"));
const QEMU_X86: Need = package("qemu-system-x86", Program("qemu-system-x86_64"));
const QEMU_ARM: Need = package("qemu-system-arm", Program("qemu-system-aarch64"));
const GCC_FOREIGN: Need = if cfg!(target_arch = "aarch64") {
    package("gcc-x86-64-linux-gnu", Program("x86_64-linux-gnu-gcc"))
} else {
    package("gcc-aarch64-linux-gnu", Program("aarch64-linux-gnu-gcc"))
};
const LIBC_FOREIGN: Need = if cfg!(target_arch = "aarch64") {
    package("libc6-dev-amd64-cross", File("/usr/x86_64-linux-gnu/lib/libc.a"))
} else {
    package("libc6-dev-arm64-cross", File("/usr/aarch64-linux-gnu/lib/libc.a"))
};

impl Scope {
    fn needs(self) -> Vec<Need> {
        if self == Self::Peers {
            return vec![
                package("libbpf-tools", Program("opensnoop")),
                package("bpftrace", Program("bpftrace")),
            ];
        }
        let lints = matches!(self, Self::Quick | Self::Test);
        let is_static = matches!(self, Self::Dist | Self::Deb | Self::Kind | Self::Vm | Self::VmForeign);
        let mut needs = vec![
            Need::Toolchain {
                name: STABLE,
                components: if lints { &["clippy", "rustfmt"] } else { &[] },
                targets: if is_static { &dist::TRIPLES } else { &[] },
            },
            Need::Toolchain {
                name: NIGHTLY,
                components: if lints { &["rust-src", "clippy"] } else { &["rust-src"] },
                targets: &[],
            },
            LINKER,
        ];
        let (native, foreign) =
            if cfg!(target_arch = "aarch64") { (QEMU_ARM, QEMU_X86) } else { (QEMU_X86, QEMU_ARM) };
        let nextest = tool("cargo-nextest", pins::CARGO_NEXTEST);
        let further: &[Need] = match self {
            Self::Build | Self::Peers => &[],
            Self::Demo => &[RUNC, BUSYBOX],
            Self::Dist => &[GCC, GCC_FOREIGN, LIBC_FOREIGN],
            Self::Deb => &[tool("cargo-deb", pins::CARGO_DEB), GCC],
            Self::Man => &[GCC],
            Self::Kind => &[GCC, BUSYBOX],
            Self::Bench => &[RUNC, BUSYBOX, GCC],
            Self::Quick => &[nextest],
            Self::Test => &[
                nextest,
                tool("cargo-deny", pins::CARGO_DENY),
                YOUKI,
                RUNC,
                BUSYBOX,
                CRUN,
                service("containerd", "containerd", "containerd"),
                // The daemon: a client alone may come from elsewhere.
                service("docker.io", "dockerd", "docker"),
                service("podman", "podman", "podman.socket"),
                GCC,
                BPFTOOL,
                package("kubernetes-client", Program("kubectl")),
            ],
            Self::Fuzz => &[tool("cargo-fuzz", pins::CARGO_FUZZ), package("g++", Program("c++"))],
            Self::Vm => &[RUNC, BUSYBOX, CRUN, GCC, BPFTOOL, native, CPIO],
            Self::VmForeign => &[foreign, GCC_FOREIGN, LIBC_FOREIGN, CPIO],
        };
        needs.extend(further);
        needs
    }
}

/// Installs what `scope` needs and lacks, and prints a line for each. Where it may not install, the error lists all
/// that is missing.
pub(crate) fn ensure(sh: &Shell, scope: Scope) -> Result<()> {
    let missing: Vec<Need> = scope.needs().into_iter().filter(|need| !need.is_there(sh)).collect();
    let steps = steps(&missing, Path::new(&llvm_prefix()).join("include/llvm-c/Core.h").exists());
    let may_install = |step: &Step| match step.command[0].as_str() {
        "apt-get" => has_apt() && (is_root() || has_sudo(sh)),
        program => which::which(program).is_ok(),
    };
    if !steps.iter().all(may_install) {
        let lines: Vec<String> = steps.iter().map(Step::to_string).collect();
        bail!(
            "something is missing that cannot be installed from here. As root, or with your package manager (the names \
             are Debian's):\n\n  {}\n\nrustup is at https://rustup.rs. {PREBUILT_LINKER}",
            lines.join("\n  ")
        );
    }
    steps.iter().try_for_each(|step| step.run(sh))
}

const PREBUILT_LINKER: &str =
    "Where apt lacks this LLVM, `cargo binstall bpf-linker` installs a prebuilt linker.";

/// Whether everything can be installed here without asking anybody.
pub(crate) fn can_install_everything() -> bool {
    is_root() && has_apt()
}

/// Whether packages are installed with apt here.
pub(crate) fn has_apt() -> bool {
    which::which("apt-get").is_ok()
}

/// Whether sudo works without a password.
pub(crate) fn has_sudo(sh: &Shell) -> bool {
    quietly(cmd!(sh, "sudo -n true")).is_ok()
}

/// The busybox that needs no shared library.
pub(crate) fn static_busybox() -> Option<PathBuf> {
    which::which("busybox").ok().filter(|file| fs::read(file).is_ok_and(|bytes| elf::is_static(&bytes)))
}

/// Where Debian's packages put the LLVM that bpf-linker is built against.
fn llvm_prefix() -> String {
    format!("/usr/lib/llvm-{LLVM}")
}

impl Need {
    fn is_there(&self, sh: &Shell) -> bool {
        match *self {
            Self::Toolchain { name, components, targets } => {
                // Looking must not install the toolchain.
                let list = cmd!(sh, "rustup component list --installed --toolchain {name}");
                let Ok(installed) = quietly(list.env("RUSTUP_AUTO_INSTALL", "0")) else { return false };
                let has = |part: &str| installed.lines().any(|line| is_component(line, part));
                components.iter().all(|component| has(component))
                    && targets.iter().all(|target| has(&format!("rust-std-{target}")))
            }
            // One whose libraries are missing does not start.
            Self::Tool { name, version, .. } => quietly(cmd!(sh, "{name} --version"))
                .is_ok_and(|output| output.split_whitespace().any(|word| word == version)),
            Self::Package { probe, .. } => match probe {
                Program(name) => which::which(name).is_ok(),
                StaticBusybox => static_busybox().is_some(),
                File(path) => Path::new(path).exists(),
            },
        }
    }
}

/// Whether rustup's line names the component: `rust-src`, or `clippy-x86_64-unknown-linux-gnu`.
fn is_component(line: &str, component: &str) -> bool {
    line.strip_prefix(component).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// A command that installs something.
#[derive(Debug)]
struct Step {
    message: String,
    command: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Step {
    fn new(message: String, command: &[&str]) -> Self {
        let command = command.iter().map(ToString::to_string).collect();
        Self { message, command, variables: Vec::new() }
    }

    fn apt(message: String, arguments: &[&str]) -> Self {
        let command = [&["apt-get", "-o", "DPkg::Lock::Timeout=120"], arguments].concat();
        Self { variables: vec![("DEBIAN_FRONTEND", "noninteractive".into())], ..Self::new(message, &command) }
    }

    /// Runs the command, and shows its output only if it fails.
    fn run(&self, sh: &Shell) -> Result<()> {
        eprintln!("xtask: {}", self.message);
        let (program, arguments) = (&self.command[0], &self.command[1..]);
        let variables = self.variables.iter().map(|(name, value)| format!("{name}={value}"));
        let command: Cmd<'_> = if program == "apt-get" && !is_root() {
            cmd!(sh, "sudo -n env {variables...} {program} {arguments...}")
        } else {
            cmd!(sh, "env {variables...} {program} {arguments...}")
        };
        // apt and rustup must not wait for an answer.
        let output = std::process::Command::from(command).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            bail!("`{self}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&text).trim_end());
        }
        Ok(())
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={value} ")?;
        }
        write!(f, "{}", self.command.join(" "))
    }
}

/// The commands that install what is missing, in an order that works. `llvm` says whether bpf-linker can be built.
fn steps(missing: &[Need], llvm: bool) -> Vec<Step> {
    let (mut rust, mut tools) = (Vec::new(), Vec::new());
    let (mut packages, mut services, mut further) = (Vec::new(), Vec::new(), Vec::new());
    let llvm_package = format!("llvm-{LLVM}-dev");
    for need in missing {
        match *need {
            Need::Toolchain { name, components, targets } => {
                let mut step = Step::new(
                    format!("installing Rust {name}"),
                    &["rustup", "toolchain", "install", name, "--profile", "minimal", "--no-self-update"],
                );
                for (option, parts) in [("--component", components), ("--target", targets)] {
                    step.command.extend(parts.iter().flat_map(|part| [option.into(), (*part).into()]));
                }
                rust.push(step);
            }
            Need::Tool { name, version, arguments } => {
                // By force: where the program is broken or old, cargo may believe that it is installed.
                let command = [
                    "rustup",
                    "run",
                    STABLE,
                    "cargo",
                    "install",
                    "--locked",
                    "--force",
                    name,
                    "--version",
                    version,
                ];
                let message = format!("building {name} {version} (takes some minutes)");
                let mut step = Step::new(message, &[&command, arguments].concat());
                if name == "bpf-linker" {
                    let features = format!("--no-default-features --features llvm-{LLVM}");
                    step.command.extend(features.split(' ').map(str::to_owned));
                    step.variables.push(("LLVM_PREFIX", llvm_prefix()));
                    further.extend((!llvm).then_some(llvm_package.as_str()));
                }
                tools.push(step);
            }
            Need::Package { name, service, .. } => {
                packages.push(name);
                services.extend(service);
            }
        }
    }
    packages.extend(further);
    if !packages.is_empty() {
        let mut message = format!("installing {} (apt)", packages.join(", "));
        if !services.is_empty() {
            message += &format!("; where systemd runs, this starts {}", services.join(", "));
        }
        rust.push(Step::apt("updating the package lists (apt)".into(), &["update"]));
        let install = ["install", "-y", "--no-install-recommends"];
        rust.push(Step::apt(message, &[&install, &packages[..]].concat()));
    }
    rust.extend(tools);
    rust
}

/// The directory for what setup keeps for all clones.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let Some(dir) = crate::cache::dir() else {
        bail!("neither XDG_CACHE_HOME nor HOME says where to keep downloads");
    };
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Whether a test that cannot run is a failure: in CI, and wherever setup can install what the tests need.
pub(crate) fn must_run_all() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true") || can_install_everything()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_machine_gets_everything_in_order() {
        let lines: Vec<String> = steps(&Scope::Test.needs(), false).iter().map(Step::to_string).collect();
        let order = [
            &format!("toolchain install {STABLE} ") as &str,
            "--component rust-src --component clippy",
            "apt-get -o DPkg::Lock::Timeout=120 update",
            "runc busybox-static crun containerd docker.io podman gcc bpftool kubernetes-client llvm-22-dev",
            "install --locked --force bpf-linker",
            "install --locked --force cargo-nextest",
            "install --locked --force cargo-deny",
            "install --locked --force youki --version 0.7.0 --no-default-features --features v1,v2",
        ];
        assert_eq!(lines.len(), order.len(), "{lines:#?}");
        for (line, part) in lines.iter().zip(order) {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        assert!(!steps(&[LINKER], true).iter().any(|step| step.to_string().contains("apt-get")));
    }

    #[test]
    fn component_names_match_whole_words() {
        assert!(is_component("rust-src", "rust-src"));
        assert!(is_component("clippy-x86_64-unknown-linux-gnu", "clippy"));
        assert!(!is_component("clippyish", "clippy"));
    }
}
