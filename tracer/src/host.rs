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
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::runtime::INITIAL_PID_NS;

/// What is read of a file that says something of the node: no such file has more than a few lines.
const READ_MAX: u64 = 4096;

/// The node's root directory. Where it may not be looked at it is our own: whoever may not do that on a node, for
/// want of a capability, is on that node at least.
pub fn root() -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    look_at_init().or_else(|_| Ok(rustix::fs::openat(CWD, "/", directory, Mode::empty())?))
}

/// The root directory of init, or of the kernel's own first process (kthreadd), which has the same, where init is
/// guarded: by a capability that only it has, by a security module.
pub fn look_at_init() -> io::Result<OwnedFd> {
    look_into(1).or_else(|error| if is_initial_pid_namespace() { look_into(2) } else { Err(error) })
}

/// The inode number of the node's mount namespace, likewise. None where neither may be looked at.
pub fn mount_namespace() -> Option<u64> {
    let namespace = |pid: u32| Some(fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino());
    namespace(1).or_else(|| is_initial_pid_namespace().then(|| namespace(2)).flatten())
}

/// Whether this process is in the pid namespace that the kernel has started with.
pub fn is_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == INITIAL_PID_NS)
}

/// The root directory of a process.
fn look_into(pid: u32) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/{pid}/root"), directory, Mode::empty())?)
}

/// A file by its absolute path: ours, or else the node's.
pub fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
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
pub fn look_at(path: &Path) -> io::Result<OwnedFd> {
    open(path, OFlags::PATH)
}

/// The text of a short file.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::from(open(path, OFlags::RDONLY | OFlags::NONBLOCK)?).take(READ_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether that is a socket.
pub fn is_socket(path: &Path) -> bool {
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
    fn a_file_is_no_socket() {
        assert!(!is_socket(Path::new("/proc/self/exe")));
        assert!(!is_socket(Path::new("/nonexistent")));
    }

    #[test]
    fn a_short_file_is_read() {
        assert!(read(Path::new("/proc/sys/kernel/ostype")).unwrap().starts_with("Linux"));
    }
}
