//! Reading guests' files in processes of their own.
//!
//! A file system need not ever answer, and who waits for FUSE cannot be killed. A thread that does would keep the
//! whole of `tracer` from ending; a process is all that hangs then, and `tracer` ends without it.

use std::{
    cell::Cell,
    ffi::OsStr,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use super::files::{self, FileError, SIZE_MAX};

/// The first argument of a process that reads for another one.
const ARGUMENT: &str = "read-for-tracer";
/// What the answer begins with: all went well, or it did not.
const WELL: u8 = b'+';
const ILL: u8 = b'-';

thread_local! {
    static BY_HELPERS: Cell<bool> = const { Cell::new(false) };
}

/// What is to be done with a path below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// [`files::read_below`], for this owner.
    Read(u32),
    /// [`files::list_below`].
    List,
    /// [`files::has_below`].
    Has,
    /// [`files::read_of_process`].
    OfProcess,
}

/// Does `work`. What it reads is read by other processes: it may hang, but this process may end.
pub fn with_helpers<T>(work: impl FnOnce() -> T) -> T {
    BY_HELPERS.set(true);
    let result = work();
    BY_HELPERS.set(false);
    result
}

/// Does a job, in a process of its own where that is called for.
pub fn run(job: Job, directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>, FileError> {
    if BY_HELPERS.get() { ask(job, directory, path) } else { job.run(directory, path) }
}

/// Has a process of this very program do it, whose standard input is the directory.
fn ask(job: Job, directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut helper = Command::new("/proc/self/exe")
        .arg0("tracer")
        .args([ARGUMENT, &job.word()])
        .arg(path)
        .env_clear()
        .stdin(Stdio::from(directory.try_clone_to_owned()?))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut answer = Vec::new();
    let read = helper.stdout.take().map(|pipe| pipe.take(SIZE_MAX + 1).read_to_end(&mut answer));
    helper.wait()?;
    read.transpose()?;
    match answer.split_first() {
        Some((&WELL, bytes)) => Ok(bytes.to_owned()),
        Some((_, said)) => Err(FileError::Told(String::from_utf8_lossy(said).into_owned())),
        None => Err(FileError::Told("the process that reads it has ended too soon".to_owned())),
    }
}

/// Does the job that this process was started for; None if it was started for another reason.
#[must_use]
pub fn main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let (job, path) = (Job::of_word(&arguments.next()?)?, arguments.next()?);
    let input = std::io::stdin();
    let (mark, bytes) = match job.run(input.as_fd(), Path::new(&path)) {
        Ok(bytes) => (WELL, bytes),
        Err(error) => (ILL, error.to_string().into_bytes()),
    };
    let mut output = std::io::stdout().lock();
    // Whoever asked may be gone by now.
    let told =
        output.write_all(&[mark]).and_then(|()| output.write_all(&bytes)).and_then(|()| output.flush());
    Some(told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

impl Job {
    fn run(self, directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>, FileError> {
        match self {
            Self::Read(owner) => files::open_and_read(directory, path, owner),
            Self::List => Ok(files::open_and_list(directory, path)),
            Self::Has => files::find(directory, path),
            Self::OfProcess => files::open_and_read_of_process(directory, path),
        }
    }

    fn word(self) -> String {
        match self {
            Self::Read(owner) => owner.to_string(),
            Self::List => "list".to_owned(),
            Self::Has => "has".to_owned(),
            Self::OfProcess => "process".to_owned(),
        }
    }

    fn of_word(word: &OsStr) -> Option<Self> {
        match word.to_str()? {
            "list" => Some(Self::List),
            "has" => Some(Self::Has),
            "process" => Some(Self::OfProcess),
            owner => owner.parse().ok().map(Self::Read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_has_a_word_of_its_own() {
        for job in [Job::Read(0), Job::Read(1000), Job::List, Job::Has, Job::OfProcess] {
            assert_eq!(Job::of_word(OsStr::new(&job.word())), Some(job));
        }
        assert_eq!(Job::of_word(OsStr::new("x")), None);
    }
}
