//! What setup keeps for the tests outside of the workspace. The tests' harness includes this file, too.

use std::{env, path::PathBuf};

use crate::pins;

/// `~/.cache/tracer-xtask`. `cargo clean` leaves it, and all clones share it.
pub(crate) fn dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("tracer-xtask"))
}

/// The tree that the criu of `CRIU_SUITE` is unpacked in.
pub(crate) fn criu_tree() -> Option<PathBuf> {
    Some(dir()?.join(format!("criu-{}", pins::CRIU)))
}

/// The program in that tree, once it is there.
pub(crate) fn criu() -> Option<PathBuf> {
    criu_tree().map(|tree| tree.join("usr/sbin/criu")).filter(|file| file.is_file())
}
