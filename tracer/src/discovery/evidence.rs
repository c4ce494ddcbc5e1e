//! Evidence that a process belongs to a container which was running already: the namespaces and cgroups that are the
//! container's alone. By these the programs look up a process that is not followed, in its own context, so that none is missed
//! for starting and exiting faster than `/proc` can be read.

use std::{
    collections::HashMap,
    fs,
    ops::ControlFlow,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use tracer_common::container::{
    ContainerKey, EVIDENCE_CGROUP, EVIDENCE_MNT_NS, EVIDENCE_PID_NS, Evidence, Suspect,
};

use crate::sys::{
    host_root,
    proc_table::{Process, namespace_pids},
};

/// Where the unified cgroup hierarchy is mounted: alone, or next to the others.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// Its type in `statfs` (`CGROUP2_SUPER_MAGIC`, include/uapi/linux/magic.h).
const CGROUP2: u64 = 0x6367_7270;
/// The most cgroups to visit, below one container's or to find one's own.
const CGROUPS_MAX: usize = 65_536;

/// How many of some processes are in each namespace.
#[derive(Debug, Default)]
pub(crate) struct NamespaceCounts {
    namespaces: HashMap<(u32, u64), usize>,
}

impl NamespaceCounts {
    /// Of these processes, which include those that must not be taken for a container's.
    pub(crate) fn among<'p>(processes: impl Iterator<Item = &'p Process>) -> Self {
        let mut namespaces = HashMap::new();
        for process in processes {
            for namespace in [(EVIDENCE_PID_NS, process.pidns), (EVIDENCE_MNT_NS, process.mntns)] {
                *namespaces.entry(namespace).or_default() += 1;
            }
        }
        Self { namespaces }
    }

    fn is_own(&self, kind: u32, id: u64) -> bool {
        self.namespaces.get(&(kind, id)) == Some(&1)
    }
}

/// The evidence for processes of a container with this key and first process. `cgroup` is that process's in the unified
/// hierarchy, if it is the container's alone.
pub(crate) fn of(
    key: ContainerKey,
    init: &Process,
    counts: &NamespaceCounts,
    cgroup: Option<&str>,
    tree: Option<&CgroupTree>,
) -> Vec<(Evidence, Suspect)> {
    let evidence = |kind, id, init_start_ticks| {
        (Evidence { kind, reserved: 0, id }, Suspect { container: key, init_start_ticks })
    };
    // The container's first process is the namespace's, so that both end together.
    let is_init = || namespace_pids(init.pid).and_then(|pids| pids.last().copied()) == Some(1);
    let pidns = (counts.is_own(EVIDENCE_PID_NS, init.pidns) && is_init())
        .then(|| evidence(EVIDENCE_PID_NS, init.pidns, init.start_ticks));
    let mntns = counts.is_own(EVIDENCE_MNT_NS, init.mntns).then(|| evidence(EVIDENCE_MNT_NS, init.mntns, 0));
    let cgroups = tree.zip(cgroup).map(|(tree, cgroup)| tree.ids(cgroup)).unwrap_or_default();
    let cgroups = cgroups.into_iter().map(|id| evidence(EVIDENCE_CGROUP, id, 0));
    pidns.into_iter().chain(mntns).chain(cgroups).collect()
}

/// The host's unified cgroup hierarchy.
#[derive(Debug)]
pub(crate) struct CgroupTree {
    root: OwnedFd,
    /// The root of `tracer`'s cgroup namespace, which paths in `/proc` start at.
    own: PathBuf,
}

impl CgroupTree {
    /// None if there is none, or it cannot be opened.
    pub(crate) fn open() -> Option<Self> {
        let host = host_root::root().ok()?;
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = MOUNTS.iter().find_map(|mount| {
            let flags = ResolveFlags::IN_ROOT;
            let root = rustix::fs::openat2(&host, *mount, directory, Mode::empty(), flags).ok()?;
            let magic = u64::try_from(rustix::fs::fstatfs(&root).ok()?.f_type).ok()?;
            (magic == CGROUP2).then_some(root)
        })?;
        let own = own_root(&root)?;
        Some(Self { root, own })
    }

    /// The ids of a cgroup and of those below it, by its path as `/proc/PID/cgroup` has it.
    fn ids(&self, path: &str) -> Vec<u64> {
        let path = normal(&self.own, path);
        // The root cgroup is not a container's.
        if path.as_os_str().is_empty() {
            return Vec::new();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(cgroup) = rustix::fs::openat2(&self.root, &path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        else {
            return Vec::new();
        };
        let Ok(stat) = rustix::fs::fstat(cgroup.as_fd()) else { return Vec::new() };
        let mut ids = vec![stat.st_ino];
        walk(&reopened(&cgroup), |_, ino| {
            ids.push(ino);
            continue_if(ids.len() < CGROUPS_MAX)
        });
        ids
    }
}

/// A path that opens what a descriptor has open.
fn reopened(directory: &OwnedFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// A path of `/proc/PID/cgroup`, which starts at `own` and may lead above it, from the hierarchy's root.
fn normal(own: &Path, path: &str) -> PathBuf {
    let mut normal = own.to_owned();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        if component == ".." {
            normal.pop();
        } else {
            normal.push(component);
        }
    }
    normal
}

/// The root of this process's cgroup namespace in the host's hierarchy. None if it is not there.
fn own_root(root: &OwnedFd) -> Option<PathBuf> {
    let namespace = |pid: &str| Some(fs::metadata(format!("/proc/{pid}/ns/cgroup")).ok()?.ino());
    if namespace("self") == namespace("1") {
        return Some(PathBuf::new());
    }
    // In a container with a cgroup namespace of its own, what is mounted there starts at that namespace's root.
    let own = MOUNTS.iter().find_map(|mount| {
        let magic = u64::try_from(rustix::fs::statfs(*mount).ok()?.f_type).ok()?;
        (magic == CGROUP2).then(|| fs::metadata(mount).ok())?.map(|metadata| metadata.ino())
    })?;
    let base = reopened(root);
    let (mut found, mut visited) = (None, 0);
    walk(&base, |path, ino| {
        visited += 1;
        if ino == own {
            found = path.strip_prefix(&base).ok().map(Path::to_owned);
        }
        continue_if(found.is_none() && visited < CGROUPS_MAX)
    });
    found
}

const fn continue_if(condition: bool) -> ControlFlow<()> {
    if condition { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Calls `visit` for each directory below another one, with its inode number, until that breaks.
fn walk(directory: &Path, mut visit: impl FnMut(&Path, u64) -> ControlFlow<()>) {
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            if visit(&path, entry.ino()).is_break() {
                return;
            }
            left.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_above_own_cgroup_are_resolved() {
        for (own, path, expected) in [
            ("", "/kubepods/pod1/c1", "kubepods/pod1/c1"),
            ("kubepods/pod1/me", "/", "kubepods/pod1/me"),
            ("kubepods/pod1/me", "/../../pod2/c2", "kubepods/pod2/c2"),
            ("", "/", ""),
            ("", "/../..", ""),
        ] {
            assert_eq!(normal(Path::new(own), path), Path::new(expected), "{own} {path}");
        }
    }

    #[test]
    fn namespace_shared_by_two_containers_is_no_evidence() {
        let process = |pidns, mntns| Process {
            pid: 1,
            ppid: 0,
            start_ticks: 0,
            comm: String::new(),
            mntns,
            pidns,
            cgroups: Vec::new(),
        };
        let (one, two) = (process(1, 2), process(1, 3));
        let counts = NamespaceCounts::among([&one, &two].into_iter());
        assert!(!counts.is_own(EVIDENCE_PID_NS, 1));
        assert!(counts.is_own(EVIDENCE_MNT_NS, 2) && counts.is_own(EVIDENCE_MNT_NS, 3));
        assert!(!counts.is_own(EVIDENCE_MNT_NS, 4));
    }
}
