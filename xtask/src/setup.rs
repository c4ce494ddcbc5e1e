//! Installing what each command needs and lacks: [`SCRIPT`] does it.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::{
    elf, pins,
    process::{is_root, quietly},
};

const SCRIPT: &str = include_str!("setup.sh");

/// Commands with the same needs, which the script lists.
#[derive(Debug, Clone, Copy)]
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

/// Installs what `scope` needs and lacks, and prints a line for each. Fails where it may not install, and prints all that
/// is missing.
pub(crate) fn ensure(sh: &Shell, scope: Scope) -> Result<()> {
    let status = Command::from(script(sh, scope)).status()?;
    ensure!(status.success(), "cannot set up what this needs");
    Ok(())
}

fn script(sh: &Shell, scope: Scope) -> Cmd<'_> {
    let (scope, busybox) = (format!("{scope:?}"), static_busybox().unwrap_or_default());
    cmd!(sh, "sh -c {SCRIPT} setup {scope}").envs(pins::ALL).env("static_busybox", busybox).quiet()
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

/// The directory for what setup keeps for all clones.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let dir = crate::cache::dir().context("neither XDG_CACHE_HOME nor HOME says where to keep downloads")?;
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Whether a test that cannot run is a failure: in CI, and wherever setup can install what the tests need.
pub(crate) fn must_run_all() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true") || is_root() && has_apt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with nothing but the tools of the script itself.
    #[test]
    fn everything_missing_is_listed_in_an_order_that_works() {
        let (sh, bin) = (crate::process::shell().unwrap(), tempfile::tempdir().unwrap());
        for name in ["env", "sh", "grep", "tr", "uname", "id"] {
            std::os::unix::fs::symlink(which::which(name).unwrap(), bin.path().join(name)).unwrap();
        }
        let bare = script(&sh, Scope::Test).env("static_busybox", "").env("PATH", bin.path());
        let output = bare.ignore_status().output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        let parts = [
            &format!("\nrustup toolchain install {} ", pins::STABLE) as &str,
            "--component rust-src --component clippy\n",
            "install -y --no-install-recommends",
            "runc busybox-static crun containerd docker.io podman gcc bpftool kubernetes-client\n",
            "cargo install --locked --force bpf-linker",
            "cargo install --locked --force cargo-nextest",
            "cargo install --locked --force cargo-deny",
            "cargo install --locked --force youki --version 0.7.0 --no-default-features --features v1,v2\n",
        ];
        let places: Vec<_> = parts.iter().map(|part| text.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {text}");
    }
}
