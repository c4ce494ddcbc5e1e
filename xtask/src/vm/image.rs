//! The guests' root file system: an initramfs of programs of this machine with their libraries.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{arch::Arch, packages};
use crate::{
    elf,
    process::{clean, find, quietly},
};

/// The first process.
const INIT: &str = include_str!("init.sh");

/// A tree that becomes an initramfs.
#[derive(Debug)]
pub(crate) struct Image {
    tree: PathBuf,
}

impl Image {
    /// One that boots, with busybox and these programs, made below `scratch`.
    pub(crate) fn new(scratch: &Path, arch: &Arch, programs: &[&str]) -> Result<Self> {
        let image = Self { tree: scratch.join("tree") };
        // As distributions have it: what is in one place, is found in the other.
        for (dir, target) in
            [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")]
        {
            fs::create_dir_all(image.tree.join(target))?;
            symlink(target, image.tree.join(dir))?;
        }
        for dir in ["dev", "etc", "new", "proc", "root", "run", "sys", "tmp"] {
            fs::create_dir_all(image.tree.join(dir))?;
        }
        image.executable("/init", INIT)?;
        if arch.is_native() {
            let busybox = find("busybox").context("busybox is missing")?;
            image.add(&busybox, Path::new("/bin/busybox"))?;
            for name in programs {
                let path = find(name).with_context(|| format!("{name} is missing"))?;
                image.add(&path, &path)?;
            }
        } else {
            image.add_packaged(&packages::tree(arch)?, programs)?;
        }
        Ok(image)
    }

    /// Adds busybox and programs out of the tree of unpacked packages, with all libraries that are in it: what needs which
    /// only their own loader can tell.
    fn add_packaged(&self, tree: &Path, programs: &[&str]) -> Result<()> {
        const DIRECTORIES: [&str; 4] = ["bin", "usr/bin", "sbin", "usr/sbin"];
        for name in programs.iter().copied().chain(["busybox"]) {
            let found =
                DIRECTORIES.iter().map(|dir| Path::new(dir).join(name)).find(|path| tree.join(path).exists());
            let path = found.with_context(|| format!("no package has {name}"))?;
            self.copy(&tree.join(&path), &Path::new("/").join(path))?;
        }
        for dir in ["lib", "usr/lib"] {
            for library in libraries_below(&tree.join(dir))? {
                let path = library.strip_prefix(tree).context("it is below the tree")?;
                self.copy(&library, &Path::new("/").join(path))?;
            }
        }
        Ok(())
    }

    /// Adds a program, and the libraries it needs at their own places.
    pub(crate) fn add(&self, program: &Path, at: &Path) -> Result<()> {
        self.copy(program, at)?;
        let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        if elf::architecture(&bytes).is_some() && !elf::is_static(&bytes) {
            // What ldd does.
            let listed = quietly(clean(program.as_os_str()).env("LD_TRACE_LOADED_OBJECTS", "1"))?;
            for library in libraries(&listed)? {
                self.copy(library, library)?;
            }
        }
        Ok(())
    }

    /// Adds an executable file.
    pub(crate) fn executable(&self, at: &str, content: &str) -> Result<()> {
        let path = self.inside(Path::new(at))?;
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Adds an empty directory.
    pub(crate) fn directory(&self, at: &Path) -> Result<()> {
        fs::create_dir_all(self.inside(at)?)?;
        Ok(())
    }

    /// Adds a file as it is.
    pub(crate) fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let path = self.inside(to)?;
        fs::copy(from, &path).with_context(|| format!("copying {} to {}", from.display(), path.display()))?;
        Ok(())
    }

    /// Where that file of the guest is, in a directory that is there.
    fn inside(&self, at: &Path) -> Result<PathBuf> {
        let path = self.tree.join(at.strip_prefix("/").context("a path in the guest is absolute")?);
        fs::create_dir_all(path.parent().context("the root is no file")?)?;
        Ok(path)
    }

    /// Packs it into `file`, as root's.
    pub(crate) fn pack(&self, file: &Path) -> Result<()> {
        let names = quietly(clean(OsStr::new("find")).arg(".").current_dir(&self.tree))?;
        let output = fs::File::create(file).with_context(|| format!("writing {}", file.display()))?;
        let mut cpio = clean(OsStr::new("cpio"))
            .args(["--quiet", "--create", "--format=newc", "--owner=0:0"])
            .current_dir(&self.tree)
            .stdin(Stdio::piped())
            .stdout(output)
            .spawn()
            .context("starting cpio")?;
        let mut stdin = cpio.stdin.take().context("cpio's stdin is not a pipe")?;
        std::io::Write::write_all(&mut stdin, names.as_bytes()).context("naming the files to cpio")?;
        drop(stdin);
        let status = cpio.wait()?;
        ensure!(status.success(), "cpio failed ({status})");
        Ok(())
    }
}

/// The files among what a dynamic loader lists.
fn libraries(listed: &str) -> Result<Vec<&Path>> {
    let mut files = Vec::new();
    for line in listed.lines() {
        if line.contains("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`; the vDSO is no file.
        files.extend(line.split_whitespace().find(|word| word.starts_with('/')).map(Path::new));
    }
    Ok(files)
}

/// The shared libraries in a directory and those below it.
fn libraries_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !path.is_symlink() {
            found.extend(libraries_below(&path)?);
        } else if name.contains(".so") && path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Runs a program that fills a directory.
pub(crate) fn fill(program: &mut Command, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    quietly(program.arg(dir)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_files() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe2)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007fe2)\n";
        let files = libraries(listed).unwrap();
        assert_eq!(
            files,
            [Path::new("/lib/x86_64-linux-gnu/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(libraries("\tlibyajl.so.2 => not found\n").is_err());
    }

    #[test]
    fn packages_bring_programs_and_all_libraries() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, image) = (scratch.path().join("packages"), Image { tree: scratch.path().join("tree") });
        for file in
            ["bin/busybox", "usr/sbin/runc", "usr/lib/vax/libc.so.6", "usr/lib/vax/libc.a", "lib/ld.so.1"]
        {
            fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
            fs::write(tree.join(file), file).unwrap();
        }
        image.add_packaged(&tree, &["runc"]).unwrap();
        let mut files = walk(&image.tree);
        files.sort();
        let expected = ["bin/busybox", "lib/ld.so.1", "usr/lib/vax/libc.so.6", "usr/sbin/runc"];
        assert_eq!(files, expected.map(|file| image.tree.join(file)));
        assert!(image.add_packaged(&tree, &["crun"]).is_err());
    }

    #[test]
    fn programs_bring_what_they_need() {
        let scratch = tempfile::tempdir().unwrap();
        let image = Image { tree: scratch.path().to_owned() };
        let sh = find("sh").unwrap();
        image.add(&sh, Path::new("/opt/sh")).unwrap();
        assert!(scratch.path().join("opt/sh").is_file());
        if !elf::is_static(&fs::read(sh).unwrap()) {
            let has_libc = |dir: &str| {
                let entries = walk(&scratch.path().join(dir));
                entries.iter().any(|file| file.to_string_lossy().contains("libc.so"))
            };
            assert!(has_libc("lib") || has_libc("usr"), "{:?}", walk(scratch.path()));
        }
        assert!(image.add(Path::new("/no/such/program"), Path::new("/opt/x")).is_err());
    }

    fn walk(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
        }
        found
    }
}
