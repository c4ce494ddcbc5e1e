//! Programs of another architecture than this machine's: Debian's packages, unpacked in the cache.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::arch::Arch;
use crate::{
    cache,
    setup::suite::{self, Suite},
};

/// Where they are from.
const SUITE: &str = "bookworm";
/// What guests have programs of.
const PACKAGES: [&str; 7] = ["bpftool", "busybox-static", "coreutils", "crun", "dash", "runc", "util-linux"];

/// The tree that they are unpacked in, with all that they depend on. Fetched unless it is in the cache.
pub(crate) fn tree(arch: &Arch) -> Result<PathBuf> {
    let cache = cache::dir().context("neither XDG_CACHE_HOME nor HOME says where to keep packages")?;
    let place = cache.join(format!("guest-{}-{SUITE}", arch.name));
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    eprintln!(
        "xtask: fetching programs for {} from Debian {SUITE} to {} (60 MB)",
        arch.name,
        place.display()
    );
    let scratch = tempfile::tempdir_in(&cache)?;
    let suite = Suite::open(&suite::mirror()?, SUITE, Some(arch.debian), &scratch.path().join("apt"))?;
    let tree = scratch.path().join("tree");
    for package in suite.fetch(&PACKAGES)? {
        suite::unpack(&package, &tree)?;
    }
    fs::rename(&tree, &place).with_context(|| format!("making {}", place.display()))?;
    Ok(place)
}
