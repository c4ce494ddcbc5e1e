//! A runtime's process, seen through /proc for as long as it lives.

use std::{
    ffi::OsString,
    io::Read as _,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags};

/// A longer command line is not read again. Linux allows 2 MiB, and no engine needs 64 KiB.
const CMDLINE_MAX: u64 = 1024 * 1024;

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It is gone, or not to be seen.
    #[error("process {pid} cannot be looked at: {what}: {source}")]
    Io {
        /// The process.
        pid: u32,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Its number is another process's by now.
    #[error("process {0} has ended, and its number has been used again")]
    Reused(u32),
}

/// The file system as a process sees it.
#[derive(Debug)]
pub struct RuntimeProcess {
    /// `/proc/PID`, which stays that process's even if its number is used again.
    proc_dir: OwnedFd,
    pid: u32,
    root: OwnedFd,
    cwd: PathBuf,
}

impl RuntimeProcess {
    /// Takes hold of a process that started `start_time` nanoseconds after boot.
    pub fn open(pid: u32, start_time: u64) -> Result<Self, ProcessError> {
        let error =
            |what| move |errno: rustix::io::Errno| ProcessError::Io { pid, what, source: errno.into() };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_dir = rustix::fs::openat(CWD, format!("/proc/{pid}"), directory, Mode::empty())
            .map_err(error("opening its directory in /proc"))?;
        let root = rustix::fs::openat(&proc_dir, "root", directory, Mode::empty())
            .map_err(error("opening its root directory"))?;
        let cwd = rustix::fs::readlinkat(&proc_dir, "cwd", Vec::new())
            .map_err(error("reading its working directory"))?;
        let cwd = PathBuf::from(OsString::from_vec(cwd.into_bytes()));
        let process = Self { proc_dir, pid, root, cwd };
        // Checked last: had the number been used again before, all of the above would be another's.
        if process.start_ticks()? != ticks(start_time) {
            return Err(ProcessError::Reused(pid));
        }
        Ok(process)
    }

    /// Its root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A path that it was given, from its root.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.cwd.join(path)
    }

    /// Its whole command line.
    pub fn cmdline(&self) -> Result<Vec<u8>, ProcessError> {
        self.read("cmdline", "reading its command line")
    }

    /// The start time in clock ticks: field 22 of `/proc/PID/stat`, counted behind the name, which may hold
    /// blanks and parentheses (`proc_pid_stat(5)`).
    fn start_ticks(&self) -> Result<u64, ProcessError> {
        let what = "reading its start time";
        let stat = self.read("stat", what)?;
        let fields = stat.iter().rposition(|byte| *byte == b')').map_or(&[][..], |end| &stat[end + 1..]);
        String::from_utf8_lossy(fields)
            .split_ascii_whitespace()
            .nth(19)
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| ProcessError::Io {
                pid: self.pid,
                what,
                source: std::io::ErrorKind::InvalidData.into(),
            })
    }

    fn read(&self, name: &str, what: &'static str) -> Result<Vec<u8>, ProcessError> {
        let error = |source| ProcessError::Io { pid: self.pid, what, source };
        let file = rustix::fs::openat(&self.proc_dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| error(errno.into()))?;
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(CMDLINE_MAX).read_to_end(&mut bytes).map_err(error)?;
        Ok(bytes)
    }
}

/// Nanoseconds as /proc counts them (`nsec_to_clock_t()`, kernel/time/time.c).
fn ticks(nanoseconds: u64) -> u64 {
    nanoseconds / (1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// The host's root directory, for runtimes that have ended and whose root is known to have been that.
pub fn host_root() -> std::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, "/proc/1/root", directory, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let pid = std::process::id();
        assert!(matches!(RuntimeProcess::open(pid, 0), Err(ProcessError::Reused(_))));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_that_names_it() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let error = RuntimeProcess::open(pid, 0).unwrap_err().to_string();
        assert!(error.contains(&pid.to_string()), "{error}");
    }
}
