//! A criu that works with the running kernel, for the tests that restore containers.
//!
//! A distribution's own need not: Debian 12's fails with kernels that are newer than itself. In that case the criu of a
//! newer Debian is unpacked together with its libraries, and changed to use these.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use crate::{
    cache, debian,
    pins::{CRIU, CRIU_SUITE},
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
    eprintln!("xtask: fetching criu {CRIU} of Debian {CRIU_SUITE} into {} (20 MB)", tree.display());
    let scratch = tempfile::tempdir_in(setup::cache_dir()?)?;
    let [tree, scratch] = [tree, scratch.path()].map(Path::to_string_lossy);
    debian::run(sh, include_str!("criu.sh"), &[CRIU, CRIU_SUITE, &tree, &scratch])
}
