//! Names and directories that no other test, and no other run of the tests, can have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Eight random hex digits that stand in every name this process makes: two runs side by side never
/// meet, and what one of them left behind can be told from what others own.
pub fn token() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel's uuid source");
        uuid[..8].to_owned()
    })
}

/// `<prefix>-<token>-<n>`, with an `n` that is used once.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", token(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The directory below which everything of this process lives. Short, as unix socket paths end at
/// 107 bytes.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        // canonical: some tests compare with what the kernel says of open files.
        let base = fs::canonicalize(std::env::temp_dir()).expect("the temporary directory exists");
        let root = base.join(format!("tracer-test-{}", token()));
        fs::create_dir_all(&root).expect("the temporary directory can be written");
        root
    })
}

/// A directory of one test, removed when dropped.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// Makes a directory whose name begins with `label`.
    pub fn new(label: &str) -> Self {
        let path = root().join(unique(label));
        fs::create_dir(&path).expect("a fresh name below our own directory");
        Self(path)
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a tree, unless something is mounted in it: a bind mount that is still there would have
/// its *source* emptied.
pub fn remove(path: &Path) {
    let mounts = mounts_below(path);
    if !mounts.is_empty() {
        eprintln!("harness: {} stays, mounted below it: {mounts:?}", path.display());
        return;
    }
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("harness: cannot remove {}: {error}", path.display());
    }
}

/// Removes a cgroup at the top of every hierarchy, and what is left below it. What still runs in it gets some seconds
/// to end.
pub fn remove_cgroup(name: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let group = hierarchy.join(name);
        remove_groups(&group);
        while group.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            remove_groups(&group);
        }
    }
}

fn remove_groups(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        if below.path().is_dir() {
            remove_groups(&below.path());
        }
    }
    // Its files go with it.
    let _ = fs::remove_dir(group);
}

/// The mount points at or below `path`, deepest last.
pub fn mounts_below(path: &Path) -> Vec<PathBuf> {
    // The fifth field of mountinfo is the mount point; our own names need none of its escapes.
    fs::read_to_string("/proc/self/mountinfo")
        .expect("/proc is mounted")
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(path))
        .collect()
}
