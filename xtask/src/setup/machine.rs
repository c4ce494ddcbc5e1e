//! What is there: quick looks only, nothing is changed and no network used.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::needs::{Needs, Package, Probe, Tool, Toolchain};
use crate::{
    elf, pins,
    process::{clean, find, is_root},
};

/// What was found, of the things that were looked for.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) rustup: bool,
    /// Installed components of each installed toolchain, as rustup names them (some with the target).
    pub(crate) toolchains: BTreeMap<&'static str, Vec<String>>,
    /// Version of each tool that starts.
    pub(crate) tools: BTreeMap<&'static str, String>,
    /// Names of the packages whose content is there.
    pub(crate) packages: Vec<&'static str>,
    /// Whether bpf-linker can be built.
    pub(crate) llvm: bool,
    pub(crate) apt: bool,
    pub(crate) privilege: Privilege,
}

/// How to become root without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Is root.
    Root,
    /// sudo does it without a password.
    Sudo,
    /// Not at all.
    None,
}

impl Machine {
    /// Looks for what `needs` names.
    pub(crate) fn look(needs: &Needs) -> Result<Self> {
        let rustup = find("rustup").is_some();
        Ok(Self {
            rustup,
            toolchains: if rustup { toolchains(&needs.toolchains)? } else { BTreeMap::new() },
            tools: needs.tools.iter().filter_map(|&tool| Some((tool.name(), version(tool)?))).collect(),
            packages: needs
                .packages
                .iter()
                .filter(|package| is_there(package))
                .map(|package| package.name)
                .collect(),
            llvm: Path::new(&llvm_prefix()).join("include/llvm-c/Core.h").exists(),
            apt: has_apt(),
            privilege: privilege(),
        })
    }
}

/// Where Debian's packages put the LLVM that bpf-linker is built against.
pub(crate) fn llvm_prefix() -> String {
    format!("/usr/lib/llvm-{}", pins::LLVM)
}

/// Whether packages are installed with apt here.
pub(crate) fn has_apt() -> bool {
    find("apt-get").is_some()
}

/// The program `busybox` that needs no shared library.
pub(crate) fn static_busybox() -> Option<PathBuf> {
    find("busybox").filter(|file| fs::read(file).is_ok_and(|bytes| elf::is_static(&bytes)))
}

fn is_there(package: &Package) -> bool {
    match package.probe {
        Probe::Program(name) => find(name).is_some(),
        Probe::File(path) => fs::exists(path).unwrap_or(false),
        Probe::StaticProgram(name) => {
            find(name).is_some_and(|file| fs::read(file).is_ok_and(|bytes| elf::is_static(&bytes)))
        }
    }
}

/// How to become root here.
pub(crate) fn privilege() -> Privilege {
    let sudo = || {
        let status = clean(OsStr::new("sudo"))
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    if is_root() {
        Privilege::Root
    } else if sudo() {
        Privilege::Sudo
    } else {
        Privilege::None
    }
}

fn toolchains(wanted: &[Toolchain]) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let installed = lines(rustup().args(["toolchain", "list"]))?;
    let mut found = BTreeMap::new();
    for toolchain in wanted {
        let prefix = format!("{}-", toolchain.name);
        // `1.98.0-x86_64-unknown-linux-gnu (active, default)`
        if installed.iter().any(|line| line.starts_with(&prefix)) {
            let list = ["component", "list", "--installed", "--toolchain", toolchain.name];
            found.insert(toolchain.name, lines(rustup().args(list))?);
        }
    }
    Ok(found)
}

fn rustup() -> Command {
    let mut rustup = clean(OsStr::new("rustup"));
    // Looking must not install what is missing.
    rustup.env("RUSTUP_AUTO_INSTALL", "0");
    rustup
}

fn lines(command: &mut Command) -> Result<Vec<String>> {
    let name = crate::process::name(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting {name}"))?;
    anyhow::ensure!(output.status.success(), "{name} failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The tool's version, if it is there and starts: one whose libraries are gone does not.
fn version(tool: Tool) -> Option<String> {
    let output = clean(find(tool.name())?.as_os_str()).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // `bpf-linker 0.13.0`, `youki version: 0.7.0`
    text.lines().next()?.split_whitespace().last().map(str::to_owned)
}
