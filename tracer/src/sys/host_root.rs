//! The node's files, wherever `tracer` runs: on the node itself, or in a container that shares no directory with it. There
//! the root directory of process 1 is the node's, as long as the pid namespace is (`hostPID`), and looking into it takes
//! what looking into runtimes takes anyway. So a container of `tracer`'s needs nothing of the node's mounted.

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
use tracing::warn;

use crate::sys::{proc_table, process_handle::INITIAL_PID_NS};

/// What is read of a file that says something of the node: no such file has more than a few lines.
const READ_MAX: u64 = 4096;

/// The node's root directory. Where it may not be looked at it is our own: whoever may not do that on a node, for
/// want of a capability, is on that node at least.
pub(crate) fn root() -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    look_at_init().or_else(|_| Ok(rustix::fs::openat(CWD, "/", directory, Mode::empty())?))
}

/// The root directory of init. Where init is guarded, by a capability that only it has or by a security module, that of
/// another process which has the same: see `stand_in`.
pub(crate) fn look_at_init() -> io::Result<OwnedFd> {
    match look_into(1) {
        Ok(root) => Ok(root),
        Err(error) => stand_in().map_or(Err(error), |stand_in| stand_in.root.try_clone()),
    }
}

/// The process whose root directory is taken for the node's.
pub(crate) fn root_process() -> io::Result<u32> {
    look_into(1).map(|_| 1).or_else(|error| stand_in().map(|stand_in| stand_in.pid).ok_or(error))
}

/// A process with its root directory.
#[derive(Debug)]
struct StandIn {
    pid: u32,
    root: OwnedFd,
}

/// A process that shows the node's root directory where init does not. Before Linux 7.3 that is the kernel's own first one
/// (kthreadd); since then kernel threads have an empty root directory of their own. Then it is the one that most of what
/// init has started has: the node's services. Looked for once.
fn stand_in() -> Option<&'static StandIn> {
    static STAND_IN: OnceLock<Option<StandIn>> = OnceLock::new();
    let find = || {
        if !is_initial_pid_namespace() {
            return None;
        }
        let kernels = look_into(2).map(|root| StandIn { pid: 2, root });
        kernels
            .or_else(|error| {
                let found = most_common_root(&started_by_init())?;
                warn!(
                    "{error}: the node's root directory is taken from process {}, since init is guarded",
                    found.pid
                );
                Ok(found)
            })
            .inspect_err(|error: &io::Error| warn!("the node's root directory cannot be found: {error}"))
            .ok()
    };
    STAND_IN.get_or_init(find).as_ref()
}

/// The children of init, the first first.
fn started_by_init() -> Vec<u32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    let mut children: Vec<u32> = pids.filter(|pid| proc_table::parent(*pid) == Some(1)).collect();
    children.sort_unstable();
    children
}

/// The root directory that most of these processes have, with the first of them. What has another is a container, or has
/// been confined.
fn most_common_root(pids: &[u32]) -> io::Result<StandIn> {
    let mut roots: Vec<((u64, u64), usize, StandIn)> = Vec::new();
    for pid in pids {
        let Ok(root) = open_root(*pid) else { continue };
        // As far as this kernel knows: a file system that hangs is not asked.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let Ok(stat) = rustix::fs::statx(&root, "", flags, StatxFlags::INO) else { continue };
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        let which = (device, stat.stx_ino);
        match roots.iter_mut().find(|(root, ..)| *root == which) {
            Some((_, count, _)) => *count += 1,
            None => roots.push((which, 1, StandIn { pid: *pid, root })),
        }
    }
    // Of several the first.
    let most = roots.into_iter().rev().max_by_key(|(_, count, _)| *count);
    let (.., found) = most.ok_or(io::ErrorKind::NotFound)?;
    refuse_empty(&found.root, found.pid)?;
    Ok(found)
}

/// The inode number of the node's mount namespace, likewise. None where neither may be looked at.
pub(crate) fn mount_namespace() -> Option<u64> {
    let namespace = |pid: u32| Some(fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino());
    namespace(1).or_else(|| is_initial_pid_namespace().then(|| namespace(2)).flatten())
}

/// Whether this process is in the pid namespace that the kernel has started with.
pub(crate) fn is_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == INITIAL_PID_NS)
}

/// The root directory of a process, unless there is nothing in it.
fn look_into(pid: u32) -> io::Result<OwnedFd> {
    let root = open_root(pid)?;
    refuse_empty(&root, pid)?;
    Ok(root)
}

fn open_root(pid: u32) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/{pid}/root"), directory, Mode::empty())?)
}

/// An error where a directory has nothing in it: it shows nothing of the node.
fn refuse_empty(root: &OwnedFd, pid: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = Dir::new(rustix::fs::openat(root, ".", flags, Mode::empty())?)?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_owned()));
    if names.any(|name| name.as_c_str() != c"." && name.as_c_str() != c"..") {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("the root directory of process {pid} is empty")))
}

/// A file by its absolute path: ours, or else the node's.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        // Absolute links there start at the node's root, not at ours.
        Err(Errno::NOENT | Errno::NOTDIR) => {
            Ok(rustix::fs::openat2(root()?, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
        }
        opened => Ok(opened?),
    }
}

/// What is at this path, without opening it.
pub(crate) fn look_at(path: &Path) -> io::Result<OwnedFd> {
    open(path, OFlags::PATH)
}

/// The text of a short file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::from(open(path, OFlags::RDONLY | OFlags::NONBLOCK)?).take(READ_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether that is a socket.
pub(crate) fn is_socket(path: &Path) -> bool {
    use rustix::fs::{FileType, fstat};
    let stat = look_at(path).and_then(|file| Ok(fstat(file.as_fd())?));
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nowhere_is_an_error() {
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
    fn the_root_directory_of_most_processes_is_taken() {
        let me = std::process::id();
        let found = most_common_root(&[0, me, me]).unwrap();
        assert_eq!(found.pid, me);
        let (own, taken) = (fs::metadata("/").unwrap(), File::from(found.root).metadata().unwrap());
        assert_eq!((own.dev(), own.ino()), (taken.dev(), taken.ino()));
        assert_eq!(most_common_root(&[0]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_init_has_started_shows_the_nodes_files() {
        // Others may not look, and in a container init is what was started there.
        if !rustix::process::geteuid().is_root() || !is_initial_pid_namespace() {
            return;
        }
        let children = started_by_init();
        assert!(children.iter().all(|pid| proc_table::parent(*pid) == Some(1)), "{children:?}");
        let which =
            |root: OwnedFd| File::from(root).metadata().map(|found| (found.dev(), found.ino())).unwrap();
        // Where init has no children but what is in containers there is nothing to see.
        if let Ok(found) = most_common_root(&children) {
            assert_eq!(which(found.root), which(look_at_init().unwrap()));
        }
        assert!(root_process().is_ok());
    }

    #[test]
    fn a_file_is_no_socket() {
        assert!(!is_socket(Path::new("/proc/self/exe")));
        assert!(!is_socket(Path::new("/nonexistent")));
    }

    #[test]
    fn a_short_file_is_read() {
        assert!(read(Path::new("/proc/sys/kernel/ostype")).unwrap().starts_with("Linux"));
    }
}
