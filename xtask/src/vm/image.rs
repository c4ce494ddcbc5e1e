//! A guest's root file system: an initramfs of programs with their libraries.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use super::guest::Arch;
use crate::{debian, elf, process::quietly, setup};

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
        for (dir, target) in
            [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")]
        {
            fs::create_dir_all(image.tree.join(target))?;
            symlink(target, image.tree.join(dir))?;
        }
        for dir in ["dev", "etc", "new", "proc", "root", "run", "sys", "tmp"] {
            fs::create_dir_all(image.tree.join(dir))?;
        }
        image.executable("/init", include_str!("init.sh"))?;
        let programs = programs.iter().copied().chain(["busybox"]);
        if arch == Arch::here() {
            for name in programs {
                let path = which::which(name).with_context(|| format!("{name} is missing"))?;
                image.add(&path, &path.to_string_lossy())?;
            }
        } else {
            image.add_packaged(&packages(sh, arch)?, programs)?;
        }
        Ok(image)
    }

    /// Adds programs from a tree of unpacked packages, with all libraries in it: only their own loader could tell which
    /// are needed.
    fn add_packaged<'b>(&self, tree: &Path, programs: impl Iterator<Item = &'b str>) -> Result<()> {
        let mut files = Vec::new();
        for name in programs {
            let places = ["bin", "usr/bin", "sbin", "usr/sbin"].map(|dir| tree.join(dir).join(name));
            let found = places.into_iter().find(|path| path.exists());
            files.push(found.with_context(|| format!("no package has {name}"))?);
        }
        let libraries = quietly(cmd!(self.sh, "find {tree} -path '*/lib/*.so*' -not -type d"))?;
        files.extend(libraries.lines().map(PathBuf::from).filter(|path| path.is_file()));
        for file in files {
            let at = Path::new("/").join(file.strip_prefix(tree)?);
            self.copy(&file, &at.to_string_lossy())?;
        }
        Ok(())
    }

    /// Adds a program and, if it is one of this machine, the libraries that it needs.
    pub(crate) fn add(&self, program: &Path, at: &str) -> Result<()> {
        self.copy(program, at)?;
        let bytes = fs::read(program)?;
        if elf::architecture(&bytes) == Some(Arch::here().name) && !elf::is_static(&bytes) {
            // As ldd does.
            let listed = quietly(cmd!(self.sh, "{program}").env("LD_TRACE_LOADED_OBJECTS", "1"))?;
            ensure!(
                !listed.contains("not found"),
                "libraries of {} are missing: {listed}",
                program.display()
            );
            // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`; the vDSO is not a file.
            let file =
                |line: &'_ str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
            for library in listed.lines().filter_map(file) {
                self.copy(Path::new(&library), &library)?;
            }
        }
        Ok(())
    }

    /// Adds an executable file.
    pub(crate) fn executable(&self, at: &str, content: &str) -> Result<()> {
        let path = self.inside(at)?;
        fs::write(&path, content)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// Adds a file as it is.
    pub(crate) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let path = self.inside(to)?;
        fs::copy(from, &path)
            .with_context(|| format!("cannot copy {} to {}", from.display(), path.display()))?;
        Ok(())
    }

    /// Path of a file of the guest, in a directory that exists.
    pub(crate) fn inside(&self, at: &str) -> Result<PathBuf> {
        let path = self.tree.join(at.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("the root is not a file")?)?;
        Ok(path)
    }

    /// Packs it into `file`, owned by root.
    pub(crate) fn pack(&self, file: &Path) -> Result<()> {
        let _inside = self.sh.push_dir(&self.tree);
        let script = "find . | cpio --quiet --create --format=newc --owner=0:0 > \"$1\"";
        quietly(cmd!(self.sh, "sh -c {script} pack {file}")).map(drop)
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
            let libraries = quietly(cmd!(sh, "find {tree} -name 'libc.so*'")).unwrap();
            assert!(!libraries.is_empty());
        }
        assert!(image.add(Path::new("/no/such/program"), "/opt/x").is_err());
    }
}
