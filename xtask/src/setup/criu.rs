//! A criu that works with the kernel that runs, for the tests that restore containers.
//!
//! That of a distribution need not: Debian 12's fails with kernels that are newer than itself. Then that of a newer
//! Debian is unpacked beside its own libraries and changed to use these.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    machine::{Privilege, privilege},
    suite::{self, Suite},
};
use crate::{
    cache, pins,
    process::{as_root, clean, find, quietly},
};

/// The criu for the tests: the one that `TRACER_TEST_CRIU` names, or one that works with this kernel, fetched where
/// there is none. Where none can be had, says why: all other tests do without.
pub(crate) fn criu() -> Option<PathBuf> {
    if let Some(named) = env::var_os("TRACER_TEST_CRIU") {
        return Some(named.into());
    }
    let found = working();
    if let Err(why) = &found {
        eprintln!("xtask: no working criu, so tests that restore containers will be skipped: {why:#}");
    }
    found.ok()
}

fn working() -> Result<PathBuf> {
    ensure!(privilege() != Privilege::None, "looking for one takes root");
    let prepared = cache::criu();
    let there = [prepared.clone(), find("criu")];
    if let Some(criu) = there.into_iter().flatten().find(|criu| check(criu).is_ok()) {
        return Ok(criu);
    }
    if prepared.is_none() {
        prepare(&cache::criu_tree().context("neither XDG_CACHE_HOME nor HOME says where to keep one")?)?;
    }
    let criu = cache::criu().context("the package has no /usr/sbin/criu")?;
    check(&criu)?;
    Ok(criu)
}

/// Asks criu itself. Its answer takes a tenth of a second.
fn check(criu: &Path) -> Result<()> {
    quietly(as_root(criu, &[])?.arg("check")).map(drop)
}

/// Fetches the pinned criu into `tree`, which is there only when it is complete.
fn prepare(tree: &Path) -> Result<()> {
    let mirror = suite::mirror()?;
    let (version, suite) = (pins::CRIU, pins::CRIU_SUITE);
    eprintln!("xtask: fetching criu {version} of Debian {suite} into {} (20 MB)", tree.display());
    let cache = tree.parent().context("the root directory is no place for it")?;
    fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    let scratch = tempfile::tempdir_in(cache)?;
    let suite = Suite::open(&mirror, suite, None, &scratch.path().join("apt"))?;
    let new = scratch.path().join("tree");
    for package in suite.fetch(&[&format!("criu={version}*"), "patchelf"])? {
        suite::unpack(&package, &new)?;
    }
    use_own_libraries(&new, tree)?;
    match fs::rename(&new, tree) {
        // Another run was faster.
        Err(_) if tree.exists() => Ok(()),
        result => result.with_context(|| format!("making {}", tree.display())),
    }
}

/// Has the criu in `tree` use the libraries beside it, the C library included, where they will be: in `target`.
/// As the program that is executed stays criu itself, tracer knows it.
fn use_own_libraries(tree: &Path, target: &Path) -> Result<()> {
    let loader = loader(tree)?;
    let libraries = loader.parent().unwrap_or(Path::new(""));
    // patchelf is of the same suite, and so needs its libraries as well.
    let mut patchelf = clean(tree.join(&loader).as_os_str());
    patchelf.arg("--library-path").arg(tree.join(libraries)).arg(tree.join("usr/bin/patchelf"));
    patchelf.arg("--set-interpreter").arg(target.join(&loader));
    // An RPATH is good for libraries of libraries, too; a RUNPATH is not.
    patchelf.arg("--force-rpath").arg("--set-rpath").arg(target.join(libraries));
    quietly(patchelf.arg(tree.join("usr/sbin/criu"))).map(drop)
}

/// The dynamic loader in `tree`, relative to it: `usr/lib/x86_64-linux-gnu/ld-linux-…`, among the libraries.
fn loader(tree: &Path) -> Result<PathBuf> {
    for directory in fs::read_dir(tree.join("usr/lib"))? {
        for file in fs::read_dir(directory?.path()).into_iter().flatten() {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(b"ld-linux") {
                return Ok(file.path().strip_prefix(tree)?.to_owned());
            }
        }
    }
    anyhow::bail!("there is no dynamic loader among the packages")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_stands_among_the_libraries() {
        let tree = tempfile::tempdir().unwrap();
        let libraries = tree.path().join("usr/lib/riscv64-linux-gnu");
        fs::create_dir_all(&libraries).unwrap();
        fs::write(tree.path().join("usr/lib/os-release"), "").unwrap();
        fs::write(libraries.join("libc.so.6"), "").unwrap();
        assert!(loader(tree.path()).is_err());
        fs::write(libraries.join("ld-linux-riscv64-lp64d.so.1"), "").unwrap();
        let found = loader(tree.path()).unwrap();
        assert_eq!(found, Path::new("usr/lib/riscv64-linux-gnu/ld-linux-riscv64-lp64d.so.1"));
    }

    #[test]
    fn cache_is_outside_of_the_workspace_and_goes_by_version() {
        if let Some(tree) = cache::criu_tree() {
            assert!(tree.is_absolute() && !tree.starts_with(crate::process::root()), "{}", tree.display());
            assert!(tree.ends_with(format!("tracer-xtask/criu-{}", pins::CRIU)), "{}", tree.display());
        }
    }
}
