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
    pins,
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
    find("busybox").filter(|file| fs::read(file).is_ok_and(|bytes| is_static_elf(&bytes)))
}

fn is_there(package: &Package) -> bool {
    match package.probe {
        Probe::Program(name) => find(name).is_some(),
        Probe::StaticProgram(name) => {
            find(name).is_some_and(|file| fs::read(file).is_ok_and(|bytes| is_static_elf(&bytes)))
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

/// Whether these bytes are an ELF program without an interpreter (64 bits, this machine's byte order).
fn is_static_elf(bytes: &[u8]) -> bool {
    const MAGIC_64: &[u8] = b"\x7fELF\x02";
    const PROGRAM_HEADERS: usize = 0x20;
    const HEADER_SIZE: usize = 0x36;
    const HEADER_COUNT: usize = 0x38;
    const PT_INTERP: u32 = 3;

    fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
        bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }
    let has_interpreter = || {
        let start = usize::try_from(u64::from_ne_bytes(field(bytes, PROGRAM_HEADERS)?)).ok()?;
        let size = usize::from(u16::from_ne_bytes(field(bytes, HEADER_SIZE)?));
        let count = usize::from(u16::from_ne_bytes(field(bytes, HEADER_COUNT)?));
        for index in 0..count {
            let at = start.checked_add(index.checked_mul(size)?)?;
            if u32::from_ne_bytes(field(bytes, at)?) == PT_INTERP {
                return Some(true);
            }
        }
        Some(false)
    };
    bytes.starts_with(MAGIC_64) && has_interpreter() == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of 64 bytes and one program header of that type.
    fn elf(program_header: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[0x20..0x28].copy_from_slice(&64u64.to_ne_bytes());
        bytes[0x36..0x38].copy_from_slice(&56u16.to_ne_bytes());
        bytes[0x38..0x3a].copy_from_slice(&1u16.to_ne_bytes());
        bytes[64..68].copy_from_slice(&program_header.to_ne_bytes());
        bytes
    }

    #[test]
    fn static_means_no_interpreter() {
        assert!(is_static_elf(&elf(1)));
        assert!(!is_static_elf(&elf(3)));
    }

    #[test]
    fn broken_files_are_not_static() {
        assert!(!is_static_elf(b""));
        assert!(!is_static_elf(b"#!/bin/sh\n"));
        assert!(!is_static_elf(&elf(1)[..66]));
        let mut far = elf(1);
        far[0x20..0x28].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert!(!is_static_elf(&far));
    }

    #[test]
    fn tests_themselves_are_not_static() {
        // Built for the host's libc, which is a shared library wherever these tests run in CI.
        if cfg!(target_env = "gnu") {
            let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
            assert!(!is_static_elf(&bytes));
        }
    }
}
