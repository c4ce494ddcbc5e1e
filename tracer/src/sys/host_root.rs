//! The node's file system, whether `tracer` runs on the node itself or in a container that shares no directory with
//! it. In such a container, the root directory of process 1 is the node's if the pid namespace is (`hostPID`).
//! Opening it requires the same capabilities as inspecting runtimes, so the container needs no directory of the node
//! mounted.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::OnceLock,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, StatxFlags},
    io::Errno,
};
use tracing::{debug, warn};

use crate::sys::{proc_table, process_handle::INITIAL_PID_NS};

/// Bytes that are read of a file that describes the node; no such file has more than a few lines.
const READ_MAX: u64 = 4096;

/// The node's root directory. If it cannot be opened, `tracer`'s own: a process that lacks the capability for it is
/// at least running on that node.
pub(crate) fn root() -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    init_root().or_else(|_| Ok(rustix::fs::openat(CWD, "/", directory, Mode::empty())?))
}

/// The root directory of init. If access to init is denied, because it has more capabilities or by a security module,
/// that of another process with the same root: see `substitute`.
pub(crate) fn init_root() -> io::Result<OwnedFd> {
    match process_root(1) {
        Ok(root) => Ok(root),
        Err(error) => substitute().map_or(Err(error), |substitute| substitute.root.try_clone()),
    }
}

/// The process that the node's root directory is taken from.
pub(crate) fn root_process() -> io::Result<u32> {
    process_root(1).map(|_| 1).or_else(|error| substitute().map(|substitute| substitute.pid).ok_or(error))
}

/// A process with its root directory.
#[derive(Debug)]
struct ProcessRoot {
    pid: u32,
    root: OwnedFd,
}

/// A process that has the node's root directory, for when init's cannot be opened. Before Linux 7.3 that is the first
/// kernel thread (kthreadd); since then kernel threads have an empty root directory of their own, and the root
/// directory that most children of init share is used: those are the node's services. Searched once.
fn substitute() -> Option<&'static ProcessRoot> {
    static SUBSTITUTE: OnceLock<Option<ProcessRoot>> = OnceLock::new();
    let find = || {
        if !is_initial_pid_namespace() {
            return None;
        }
        let kthreadd = process_root(2).map(|root| ProcessRoot { pid: 2, root });
        kthreadd
            .or_else(|error| {
                let found = most_common_root(&children_of_init())?;
                warn!(
                    "cannot access the root directory of init ({error}); using that of process {} for the node's",
                    found.pid
                );
                Ok(found)
            })
            // What needs it reports what is missing.
            .inspect_err(|error: &io::Error| debug!("cannot find the node's root directory: {error}"))
            .ok()
    };
    SUBSTITUTE.get_or_init(find).as_ref()
}

/// The children of init, in the order of their pids.
fn children_of_init() -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    let mut children: Vec<u32> = pids.filter(|pid| proc_table::parent(*pid) == Some(1)).collect();
    children.sort_unstable();
    children
}

/// The root directory that most of these processes have, with the first process that has it. Processes with another
/// one are in containers or confined.
fn most_common_root(pids: &[u32]) -> io::Result<ProcessRoot> {
    let mut roots: Vec<((u64, u64), usize, ProcessRoot)> = Vec::new();
    for pid in pids {
        let Ok(root) = open_root(*pid) else { continue };
        // Cached attributes only: a file system that hangs is not queried.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let Ok(stat) = rustix::fs::statx(&root, "", flags, StatxFlags::INO) else { continue };
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        let which = (device, stat.stx_ino);
        match roots.iter_mut().find(|(root, ..)| *root == which) {
            Some((_, count, _)) => *count += 1,
            None => roots.push((which, 1, ProcessRoot { pid: *pid, root })),
        }
    }
    // The first one if several are equally common.
    let most = roots.into_iter().rev().max_by_key(|(_, count, _)| *count);
    let (.., found) = most.ok_or(io::ErrorKind::NotFound)?;
    refuse_empty(&found.root, found.pid)?;
    Ok(found)
}

/// Inode number of the node's mount namespace, found in the same way. None if neither process may be inspected.
pub(crate) fn mount_namespace() -> Option<u64> {
    let namespace = |pid: u32| Some(fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino());
    namespace(1).or_else(|| is_initial_pid_namespace().then(|| namespace(2)).flatten())
}

/// Whether this process is in the initial pid namespace.
pub(crate) fn is_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == INITIAL_PID_NS)
}

/// The root directory of a process, unless that is empty.
fn process_root(pid: u32) -> io::Result<OwnedFd> {
    let root = open_root(pid)?;
    refuse_empty(&root, pid)?;
    Ok(root)
}

fn open_root(pid: u32) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/{pid}/root"), directory, Mode::empty())?)
}

/// Fails if a directory is empty: then it is not the node's root.
fn refuse_empty(root: &OwnedFd, pid: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = Dir::new(rustix::fs::openat(root, ".", flags, Mode::empty())?)?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_owned()));
    if names.any(|name| name.as_c_str() != c"." && name.as_c_str() != c"..") {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("the root directory of process {pid} is empty")))
}

/// Opens a file by its absolute path: `tracer`'s own file, or else the node's.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        // Absolute links in the node's file system start at the node's root, not at `tracer`'s.
        Err(Errno::NOENT | Errno::NOTDIR) => {
            Ok(rustix::fs::openat2(root()?, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
        }
        opened => Ok(opened?),
    }
}

/// Opens a path without opening the file itself (`O_PATH`).
pub(crate) fn look_at(path: &Path) -> io::Result<OwnedFd> {
    open(path, OFlags::PATH)
}

/// Reads a short text file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::from(open(path, OFlags::RDONLY | OFlags::NONBLOCK)?).take(READ_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether the path names a socket.
pub(crate) fn is_socket(path: &Path) -> bool {
    use rustix::fs::{FileType, fstat};
    let stat = look_at(path).and_then(|file| Ok(fstat(file.as_fd())?));
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_file_is_an_error() {
        assert_eq!(read(Path::new("/no/such/file")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn an_empty_root_directory_is_refused() {
        let empty = std::env::temp_dir().join(format!("tracer-host-{}", std::process::id()));
        fs::create_dir(&empty).unwrap();
        let open =
            |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let refused = refuse_empty(&open(&empty), 2).unwrap_err();
        assert!(refused.to_string().contains("process 2 is empty"), "{refused}");
        fs::write(empty.join("file"), "").unwrap();
        refuse_empty(&open(&empty), 2).unwrap();
        fs::remove_dir_all(&empty).unwrap();
    }

    #[test]
    fn most_common_root_directory_is_used() {
        let me = std::process::id();
        let found = most_common_root(&[0, me, me]).unwrap();
        assert_eq!(found.pid, me);
        let (own, taken) = (fs::metadata("/").unwrap(), File::from(found.root).metadata().unwrap());
        assert_eq!((own.dev(), own.ino()), (taken.dev(), taken.ino()));
        assert_eq!(most_common_root(&[0]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn children_of_init_have_the_nodes_root() {
        // Other users may not inspect init, and in a container init is the container's.
        if !rustix::process::geteuid().is_root() || !is_initial_pid_namespace() {
            return;
        }
        let children = children_of_init();
        assert!(children.iter().all(|pid| proc_table::parent(*pid) == Some(1)), "{children:?}");
        let which =
            |root: OwnedFd| File::from(root).metadata().map(|found| (found.dev(), found.ino())).unwrap();
        // Nothing to compare if all children of init are in containers.
        if let Ok(found) = most_common_root(&children) {
            assert_eq!(which(found.root), which(init_root().unwrap()));
        }
        assert!(root_process().is_ok());
    }

    #[test]
    fn regular_and_missing_files_are_not_sockets() {
        assert!(!is_socket(Path::new("/proc/self/exe")));
        assert!(!is_socket(Path::new("/nonexistent")));
    }

    #[test]
    fn short_file_is_read() {
        assert!(read(Path::new("/proc/sys/kernel/ostype")).unwrap().starts_with("Linux"));
    }
}
