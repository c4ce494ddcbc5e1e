//! A criu that works with the running kernel, for the tests that restore containers.
//!
//! A distribution's own need not: Debian 12's fails with kernels that are newer than itself. In that case the criu of a
//! newer Debian is unpacked together with its libraries, and changed to use these.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    cache,
    debian::{self, Suite},
    pins,
    process::{as_root, is_root, quietly},
    setup,
};

/// The criu for the tests: the one that `TRACER_TEST_CRIU` names, or one that works here, downloaded where there is
/// none. Where none can be had, the reason is printed; all other tests run without.
pub(crate) fn prepare(sh: &Shell) -> Option<PathBuf> {
    if let Some(named) = env::var_os("TRACER_TEST_CRIU") {
        return Some(named.into());
    }
    let found = find_or_fetch(sh);
    if let Err(error) = &found {
        eprintln!("xtask: no working criu, so tests that restore containers will be skipped: {error:#}");
    }
    found.ok()
}

fn find_or_fetch(sh: &Shell) -> Result<PathBuf> {
    ensure!(is_root() || setup::has_sudo(sh), "checking whether one works takes root");
    // criu itself knows whether it works with this kernel. The answer takes a tenth of a second.
    let check = |criu: &Path| quietly(as_root(sh, criu, &[])?.arg("check"));
    let candidates = [cache::criu(), which::which("criu").ok()];
    if let Some(working) = candidates.into_iter().flatten().find(|criu| check(criu).is_ok()) {
        return Ok(working);
    }
    if cache::criu().is_none() {
        fetch(sh, &cache::criu_tree().context("neither XDG_CACHE_HOME nor HOME says where to keep it")?)?;
    }
    let criu = cache::criu().context("the package has no /usr/sbin/criu")?;
    check(&criu)?;
    Ok(criu)
}

/// Downloads the pinned criu into `tree`, which exists only once it is complete.
fn fetch(sh: &Shell, tree: &Path) -> Result<()> {
    let (version, suite) = (pins::CRIU, pins::CRIU_SUITE);
    eprintln!("xtask: fetching criu {version} of Debian {suite} into {} (20 MB)", tree.display());
    let scratch = tempfile::tempdir_in(setup::cache_dir()?)?;
    let suite = Suite::open(sh, suite, None, &scratch.path().join("apt"))?;
    let new = scratch.path().join("tree");
    for package in suite.fetch(sh, &[&format!("criu={version}*"), "patchelf"])? {
        debian::unpack(sh, &package, &new)?;
    }
    use_own_libraries(sh, &new, tree)?;
    match fs::rename(&new, tree) {
        // Another run was faster.
        Err(_) if tree.exists() => Ok(()),
        result => result.with_context(|| format!("cannot make {}", tree.display())),
    }
}

/// Makes the criu in `tree` use the libraries beside it, the C library included, at the place where they will be:
/// `target`. The executed program remains criu itself, so that tracer recognises it.
fn use_own_libraries(sh: &Shell, tree: &Path, target: &Path) -> Result<()> {
    let loader = dynamic_loader(tree)?;
    let libraries = loader.parent().context("the loader is in a directory")?;
    let (own_loader, own_libraries) = (tree.join(&loader), tree.join(libraries));
    let (interpreter, rpath) = (target.join(&loader), target.join(libraries));
    let (patchelf, criu) = (tree.join("usr/bin/patchelf"), tree.join("usr/sbin/criu"));
    // patchelf comes from the same suite and needs its libraries as well. An RPATH holds for libraries of libraries,
    // too; a RUNPATH does not.
    quietly(cmd!(
        sh,
        "{own_loader} --library-path {own_libraries} {patchelf} --set-interpreter {interpreter} --force-rpath
         --set-rpath {rpath} {criu}"
    ))?;
    Ok(())
}

/// The dynamic loader in `tree`, relative to it: `usr/lib/x86_64-linux-gnu/ld-linux-…`, among the libraries.
fn dynamic_loader(tree: &Path) -> Result<PathBuf> {
    for directory in fs::read_dir(tree.join("usr/lib"))? {
        for file in fs::read_dir(directory?.path()).into_iter().flatten() {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(b"ld-linux") {
                return Ok(file.path().strip_prefix(tree)?.to_owned());
            }
        }
    }
    anyhow::bail!("the packages have no dynamic loader")
}
