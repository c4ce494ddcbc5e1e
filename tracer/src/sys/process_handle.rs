//! Access to a runtime's process through /proc, for as long as it exists.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags},
    io::Errno,
};
use tracer_common::lifecycle::{TRUST_PID_NS, TRUST_ROOT, TRUST_ROOT_DIR, TRUST_USER_NS};

use crate::sys::{
    files,
    files::FileError,
    host_root,
    proc_table::{Stat, status_numbers},
};

/// Inode number of the initial user namespace (`PROC_USER_INIT_INO`, include/linux/proc_ns.h).
pub(crate) const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;
/// Inode number of the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
pub(crate) const INITIAL_PID_NS: u64 = 0xEFFF_FFFC;

/// Why a process could not be inspected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// It has exited or is not visible.
    #[error("cannot inspect process {pid}: {what}: {source}")]
    Io {
        /// The process.
        pid: u32,
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Its process id belongs to another process by now.
    #[error("process {0} has exited, and its pid has been reused")]
    Reused(u32),
}

/// A root directory, with everything that is mounted below it while this value exists.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    /// Its mount namespace, which keeps the mounts below when its last process exits; None for the host's.
    _mounts: Option<OwnedFd>,
}

impl Root {
    /// The host's root directory.
    pub(crate) fn of_host() -> std::io::Result<Self> {
        Ok(Self { directory: host_root::root()?, _mounts: None })
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// A process whose view of the file system is used, such as a runtime.
#[derive(Debug)]
pub(crate) struct RuntimeProcess {
    /// `/proc/PID`, which refers to this process even if its id is reused.
    proc_dir: OwnedFd,
    pid: u32,
    root: Root,
    cwd: PathBuf,
}

impl RuntimeProcess {
    /// Opens a process that started `start_ticks` clock ticks after boot.
    pub(crate) fn open(pid: u32, start_ticks: u64) -> Result<Self, ProcessError> {
        let error = |what| move |errno: Errno| ProcessError::Io { pid, what, source: errno.into() };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_dir = rustix::fs::openat(CWD, format!("/proc/{pid}"), directory, Mode::empty())
            .map_err(error("opening its directory in /proc"))?;
        let root = rustix::fs::openat(&proc_dir, "root", directory, Mode::empty())
            .map_err(error("opening its root directory"))?;
        let mounts = rustix::fs::openat(&proc_dir, "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(error("opening its mount namespace"))?;
        let root = Root { directory: root, _mounts: Some(mounts) };
        let cwd = rustix::fs::readlinkat(&proc_dir, "cwd", Vec::new())
            .map_err(error("reading its working directory"))?;
        let cwd = PathBuf::from(OsString::from_vec(cwd.into_bytes()));
        let process = Self { proc_dir, pid, root, cwd };
        // Checked last: if the id had been reused before, everything above would belong to another process.
        if process.stat()?.start_ticks != start_ticks {
            return Err(ProcessError::Reused(pid));
        }
        Ok(process)
    }

    /// Its process id in the pid namespace of `tracer`.
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Its root directory alone.
    pub(crate) fn into_root(self) -> Root {
        self.root
    }

    /// An absolute path for a path that the process was given: relative ones start at its working directory.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.cwd.join(path)
    }

    /// Its whole command line.
    pub(crate) fn cmdline(&self) -> Result<Vec<u8>, ProcessError> {
        files::read_of_process(self.proc_dir.as_fd(), Path::new("cmdline"))
            .map_err(|source| self.unread("reading its command line", source))
    }

    /// Its `TRUST_*` bits, determined as the programs do it for runtimes that they see starting.
    pub(crate) fn trust(&self) -> Result<u32, ProcessError> {
        let error =
            |source| ProcessError::Io { pid: self.pid, what: "reading its user and namespaces", source };
        let stat = |name: &str| {
            rustix::fs::statat(&self.proc_dir, name, AtFlags::empty()).map_err(|e| error(e.into()))
        };
        let host_root = host_root::root().and_then(|root| identity(&root)).map_err(error)?;
        let own_pid_ns = rustix::fs::stat("/proc/self/ns/pid").map_err(|e| error(e.into()))?;
        let bits = [
            (TRUST_ROOT, is_root(self.user_ids()?) && !self.is_set_id().map_err(error)?),
            (TRUST_USER_NS, stat("ns/user")?.st_ino == INITIAL_USER_NS),
            (TRUST_PID_NS, stat("ns/pid")?.st_ino == own_pid_ns.st_ino),
            (TRUST_ROOT_DIR, identity(&self.root.directory).map_err(error)? == host_root),
        ];
        Ok(bits.iter().filter(|(_, holds)| *holds).map(|(bit, _)| bit).sum())
    }

    /// Its effective user id, in `tracer`'s user namespace. Not the owner of its files in `/proc`, which is root for
    /// every process that is not dumpable.
    pub(crate) fn effective_uid(&self) -> Result<u32, ProcessError> {
        Ok(self.user_ids()?[1])
    }

    /// Its real, effective, saved and file-system user ids, in `tracer`'s user namespace.
    fn user_ids(&self) -> Result<[u32; 4], ProcessError> {
        let what = "reading its user ids";
        let status = self.read("status", what)?;
        user_ids_in(&String::from_utf8_lossy(&status)).ok_or_else(|| ProcessError::Io {
            pid: self.pid,
            what,
            source: std::io::ErrorKind::InvalidData.into(),
        })
    }

    /// Whether its executable is set-user-id or set-group-id. Such a program may have become root entirely after a
    /// user has executed it with arguments of the user's choice; no runtime is one.
    fn is_set_id(&self) -> std::io::Result<bool> {
        let stat = rustix::fs::statx(&self.proc_dir, "exe", AtFlags::STATX_DONT_SYNC, StatxFlags::MODE)?;
        Ok(Mode::from_raw_mode(stat.stx_mode.into()).intersects(Mode::SUID | Mode::SGID))
    }

    /// Whether a file exists in its view of the file system.
    pub(crate) fn has(&self, path: &Path) -> bool {
        files::has_below(self.root(), path)
    }

    /// The value of an environment variable of the process.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        let environment = files::read_of_process(self.proc_dir.as_fd(), Path::new("environ")).ok()?;
        let mut words = environment.split(|byte| *byte == 0);
        let value = words.find_map(|word| word.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(OsString::from_vec(value.to_owned()))
    }

    /// The file name of its executable.
    pub(crate) fn program(&self) -> Option<String> {
        let path = rustix::fs::readlinkat(&self.proc_dir, "exe", Vec::new()).ok()?;
        let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
        Some(path.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned())
    }

    /// Its working directory, relative to its root.
    pub(crate) fn cwd(&self) -> &Path {
        &self.cwd
    }

    fn stat(&self) -> Result<Stat, ProcessError> {
        let what = "reading its start time";
        Stat::parse(&self.read("stat", what)?).ok_or_else(|| ProcessError::Io {
            pid: self.pid,
            what,
            source: std::io::ErrorKind::InvalidData.into(),
        })
    }

    fn read(&self, name: &str, what: &'static str) -> Result<Vec<u8>, ProcessError> {
        files::open_and_read_of_process(self.proc_dir.as_fd(), Path::new(name))
            .map_err(|source| self.unread(what, source))
    }

    fn unread(&self, what: &'static str, source: FileError) -> ProcessError {
        ProcessError::Io { pid: self.pid, what, source: std::io::Error::other(source) }
    }
}

/// Parses the line `Uid: REAL EFFECTIVE SAVED FILESYSTEM` (proc_pid_status(5)).
fn user_ids_in(status: &str) -> Option<[u32; 4]> {
    status_numbers(status, "Uid")?.try_into().ok()
}

/// Whether all user ids of a process are root's. A set-uid program that a user has executed still has the user's real
/// id.
fn is_root(ids: [u32; 4]) -> bool {
    ids.iter().all(|id| *id == files::ROOT)
}

/// Device and inode number of a directory, from cached attributes: a file system that hangs is not queried.
fn identity(directory: &OwnedFd) -> std::io::Result<(u32, u32, u64)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(directory, "", flags, StatxFlags::INO)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_with_another_start_time_is_refused() {
        let pid = std::process::id();
        assert!(matches!(RuntimeProcess::open(pid, 0), Err(ProcessError::Reused(_))));
    }

    #[test]
    fn root_process_has_the_root_trust_bit() {
        let pid = std::process::id();
        let me = RuntimeProcess::open(pid, crate::sys::proc_table::start_ticks(pid).unwrap()).unwrap();
        assert_eq!(me.trust().unwrap() & TRUST_ROOT != 0, rustix::process::geteuid().is_root());
        assert_ne!(me.trust().unwrap() & TRUST_PID_NS, 0);
    }

    #[test]
    fn all_four_user_ids_are_parsed() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\n";
        assert_eq!(user_ids_in(status), Some([1, 2, 3, 4]));
        assert_eq!(user_ids_in("Name:\tUid:\n"), None);
        assert_eq!(user_ids_in("Uid:\t0\t0\t0\n"), None);
    }

    #[test]
    fn set_uid_program_of_a_user_is_not_root() {
        // The real user id remains the user's.
        for ids in ["1000\t0\t0\t0", "0\t1000\t0\t1000", "0\t0\t1000\t0", "0\t0\t0\t1000"] {
            let ids = user_ids_in(&format!("Uid:\t{ids}\n")).unwrap();
            assert!(!is_root(ids), "{ids:?}");
        }
        assert!(is_root([0; 4]));
    }

    #[test]
    fn error_names_the_process_that_has_exited() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let error = RuntimeProcess::open(pid, 0).unwrap_err().to_string();
        assert!(error.contains(&pid.to_string()), "{error}");
    }
}
