//! A guest's root file system: an initramfs of programs with their libraries. [`SCRIPT`] packs it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::guest::Arch;
use crate::{debian, elf, process::quietly, setup};

const SCRIPT: &str = include_str!("image.sh");

/// A tree that becomes an initramfs.
pub(crate) struct Image<'a> {
    sh: &'a Shell,
    tree: PathBuf,
}

impl<'a> Image<'a> {
    /// One that boots, with busybox and these programs, made below `scratch`: this machine's programs or, for another
    /// architecture, Debian's.
    pub(crate) fn new(sh: &'a Shell, scratch: &Path, arch: &Arch, programs: &[&str]) -> Result<Self> {
        let image = Self { sh, tree: scratch.join("tree") };
        image.script("make", &[])?;
        image.executable("/init", include_str!("init.sh"))?;
        let programs = programs.iter().copied().chain(["busybox"]);
        if arch == Arch::here() {
            for name in programs {
                let path = which::which(name).with_context(|| format!("{name} is missing"))?;
                image.add(&path, &path.to_string_lossy())?;
            }
        } else {
            let packages = packages(sh, arch)?.to_string_lossy().into_owned();
            image.script(
                "add_packaged",
                &[&[packages.as_str()], &programs.collect::<Vec<_>>()[..]].concat(),
            )?;
        }
        Ok(image)
    }

    /// Adds a program and, if it is one of this machine, the libraries that it needs.
    pub(crate) fn add(&self, program: &Path, at: &str) -> Result<()> {
        let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        let is_native = elf::architecture(&bytes) == Some(Arch::here().name) && !elf::is_static(&bytes);
        let how = if is_native { "add_with_libraries" } else { "add" };
        self.script(how, &[&program.to_string_lossy(), at])
    }

    /// Adds an executable file.
    pub(crate) fn executable(&self, at: &str, content: &str) -> Result<()> {
        let path = self.inside(at)?;
        fs::write(&path, content)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// Path of a file of the guest, in a directory that exists.
    pub(crate) fn inside(&self, at: &str) -> Result<PathBuf> {
        let path = self.tree.join(at.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("the root is not a file")?)?;
        Ok(path)
    }

    /// Packs it into `file`, owned by root.
    pub(crate) fn pack(&self, file: &Path) -> Result<()> {
        self.script("pack", &[&file.to_string_lossy()])
    }

    fn script(&self, function: &str, arguments: &[&str]) -> Result<()> {
        let script = tempfile::NamedTempFile::new()?;
        fs::write(&script, SCRIPT)?;
        let (script, tree) = (script.path(), &self.tree);
        quietly(cmd!(self.sh, "sh {script} {tree} {function} {arguments...}")).map(drop)
    }
}

/// A tree with runtimes and tools of another architecture, and all that they depend on. It stays in the cache.
fn packages(sh: &Shell, arch: &Arch) -> Result<PathBuf> {
    const SUITE: &str = "bookworm";
    const SCRIPT: &str = "open_suite \"$1\" \"$2\" \"$4/apt\"
        unpack_with_dependencies \"$4/tree\" bpftool busybox-static coreutils crun dash runc util-linux
        mv -T \"$4/tree\" \"$3\"";
    let cache = setup::cache_dir()?;
    let place = cache.join(format!("guest-{}-{SUITE}", arch.name));
    if !place.is_dir() {
        eprintln!("xtask: fetching programs for {} from Debian {SUITE} (60 MB)", arch.name);
        let scratch = tempfile::tempdir_in(&cache)?;
        let [tree, scratch] = [place.as_path(), scratch.path()].map(Path::to_string_lossy);
        debian::run(sh, SCRIPT, &[SUITE, arch.debian, &tree, &scratch])?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_bring_their_libraries() {
        let (sh, scratch) = (crate::process::shell().unwrap(), tempfile::tempdir().unwrap());
        let image = Image { sh: &sh, tree: scratch.path().to_owned() };
        let program = which::which("sh").unwrap();
        image.add(&program, "/opt/sh").unwrap();
        assert!(scratch.path().join("opt/sh").is_file());
        if !elf::is_static(&fs::read(program).unwrap()) {
            let tree = scratch.path();
            assert!(!quietly(cmd!(sh, "find {tree} -name 'libc.so*'")).unwrap().is_empty());
        }
        assert!(image.add(Path::new("/no/such/program"), "/opt/x").is_err());
    }
}
