//! What each command needs, and installing what of that is missing.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

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
    Tool { name: &'static str, version: &'static str, arguments: &'static str },
    /// A Debian package, and what shows that its content is there, from whatever source.
    Package { name: &'static str, probe: Probe },
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
    Need::Tool { name, version, arguments: "" }
}

const fn package(name: &'static str, probe: Probe) -> Need {
    Need::Package { name, probe }
}

const LINKER: Need = tool("bpf-linker", pins::BPF_LINKER);
/// Without seccomp and systemd it needs no library of the system.
const YOUKI: Need =
    Need::Tool { name: "youki", version: pins::YOUKI, arguments: "--no-default-features --features v1,v2" };
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
                package("containerd", Program("containerd")),
                // The daemon: a client alone may come from elsewhere.
                package("docker.io", Program("dockerd")),
                package("podman", Program("podman")),
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
    let llvm = Path::new(&format!("/usr/lib/llvm-{LLVM}/include/llvm-c/Core.h")).exists();
    let steps = steps(&missing, llvm);
    let (apt, rustup) = (has_apt() && (is_root() || has_sudo(sh)), which::which("rustup").is_ok());
    if !steps.iter().all(|step| if step.as_root { apt } else { rustup }) {
        let commands: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
        bail!(
            "something is missing that cannot be installed from here. Install it by hand (names of packages are Debian's, \
             rustup is at https://rustup.rs; where apt lacks LLVM {LLVM}, `cargo binstall bpf-linker` installs a prebuilt \
             linker):\n\n  {}",
            commands.join("\n  ")
        );
    }
    steps.iter().try_for_each(|step| step.run(sh))
}

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

/// A command for the shell that installs something.
struct Step {
    message: String,
    command: String,
    as_root: bool,
}

impl Step {
    /// Runs the command, and shows its output only if it fails.
    fn run(&self, sh: &Shell) -> Result<()> {
        eprintln!("xtask: {}", self.message);
        let (command, sudo) = (&self.command, (self.as_root && !is_root()).then_some(["sudo", "-n"]));
        let sudo = sudo.into_iter().flatten();
        // apt and rustup must not wait for an answer.
        let output = cmd!(sh, "env {sudo...} sh -c {command}").stdin("").quiet().ignore_status().output()?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            bail!("`{command}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&text).trim_end());
        }
        Ok(())
    }
}

/// The commands that install what is missing, in an order that works. `llvm` says whether bpf-linker can be built.
fn steps(missing: &[Need], llvm: bool) -> Vec<Step> {
    let (mut steps, mut tools, mut packages) = (Vec::new(), Vec::new(), Vec::new());
    for need in missing {
        match *need {
            Need::Toolchain { name, components, targets } => {
                let components = components.iter().map(|component| format!(" --component {component}"));
                let parts: String =
                    components.chain(targets.iter().map(|target| format!(" --target {target}"))).collect();
                steps.push(Step {
                    message: format!("installing Rust {name}"),
                    command: format!(
                        "rustup toolchain install {name} --profile minimal --no-self-update{parts}"
                    ),
                    as_root: false,
                });
            }
            Need::Tool { name, version, arguments } => {
                // By force: where the program is broken or old, cargo may believe that it is installed.
                let mut command = format!(
                    "rustup run {STABLE} cargo install --locked --force {name} --version {version} {arguments}"
                );
                if name == "bpf-linker" {
                    command = format!(
                        "LLVM_PREFIX=/usr/lib/llvm-{LLVM} {command}--no-default-features --features llvm-{LLVM}"
                    );
                }
                let message = format!("building {name} {version} (takes some minutes)");
                tools.push(Step { message, command: command.trim_end().to_owned(), as_root: false });
            }
            Need::Package { name, .. } => packages.push(name.to_owned()),
        }
    }
    let needs_llvm = |need: &Need| matches!(need, Need::Tool { name: "bpf-linker", .. });
    if !llvm && missing.iter().any(needs_llvm) {
        packages.push(format!("llvm-{LLVM}-dev"));
    }
    if !packages.is_empty() {
        let packages = packages.join(" ");
        let apt = "DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120";
        steps.push(Step {
            message: format!("installing {packages} (apt)"),
            command: format!("{apt} update && {apt} install -y --no-install-recommends {packages}"),
            as_root: true,
        });
    }
    steps.extend(tools);
    steps
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
        let steps = steps(&Scope::Test.needs(), false);
        let order = [
            &format!("toolchain install {STABLE} ") as &str,
            "--component rust-src --component clippy",
            "install -y --no-install-recommends runc busybox-static crun containerd docker.io podman gcc bpftool \
             kubernetes-client llvm-",
            "LLVM_PREFIX=/usr/lib/llvm-",
            "install --locked --force cargo-nextest --version",
            "install --locked --force cargo-deny",
            "install --locked --force youki --version 0.7.0 --no-default-features --features v1,v2",
        ];
        assert_eq!(steps.len(), order.len());
        for (step, part) in steps.iter().zip(order) {
            assert!(step.command.contains(part), "{part:?} is not in {}", step.command);
        }
    }

    #[test]
    fn component_names_match_whole_words() {
        assert!(is_component("rust-src", "rust-src"));
        assert!(is_component("clippy-x86_64-unknown-linux-gnu", "clippy"));
        assert!(!is_component("clippyish", "clippy"));
    }
}
