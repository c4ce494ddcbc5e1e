//! Reads files of containers in helper processes.
//!
//! A file system may never answer, and a process that waits for FUSE cannot always be killed. A thread that waits
//! would keep `tracer` from exiting; with a helper, only that process hangs. It is killed at its deadline, and if it
//! does not exit even then, `tracer` continues and exits without it.

use std::{
    cell::RefCell,
    ffi::OsStr,
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
    thread::no_new_privs,
};

use crate::sys::{
    capabilities, files,
    files::{FileError, SIZE_MAX},
};

/// First argument of a helper process.
const ARGUMENT: &str = "read-for-tracer";
/// First byte of a helper's output: whether the job succeeded.
const SUCCEEDED: u8 = b'+';
const FAILED: u8 = b'-';

/// How long a killed process may take to exit.
const GRACE: Duration = Duration::from_millis(100);

thread_local! {
    /// The helpers of this thread; None if it reads files itself.
    static HELPERS: RefCell<Option<Helpers>> = const { RefCell::new(None) };
}

/// The helper processes of a thread.
struct Helpers {
    /// When helpers that have not answered are killed.
    deadline: Instant,
    /// Helpers that have not exited after they were killed.
    stuck: Vec<Child>,
}

/// An operation on a path below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// [`files::read_below`] with this owner.
    Read(u32),
    /// [`files::list_below`].
    List,
    /// [`files::has_below`].
    Has,
    /// [`files::read_of_process`].
    OfProcess,
}

/// Runs `work`, whose file operations helper processes carry out, so that this process can exit while they hang. They
/// are killed at `deadline`. Also returns those that have not exited after that.
pub(crate) fn with_helpers<T>(deadline: Instant, work: impl FnOnce() -> T) -> (T, Vec<Child>) {
    HELPERS.set(Some(Helpers { deadline, stuck: Vec::new() }));
    let result = work();
    (result, HELPERS.take().map(|helpers| helpers.stuck).unwrap_or_default())
}

/// Whether the deadline of [`with_helpers`] has passed on this thread.
pub(crate) fn is_overdue() -> bool {
    deadline().is_some_and(|deadline| Instant::now() >= deadline)
}

fn deadline() -> Option<Instant> {
    HELPERS.with_borrow(|helpers| helpers.as_ref().map(|helpers| helpers.deadline))
}

/// Runs a job, in a helper process if [`with_helpers`] is active on this thread.
pub(crate) fn run(job: Job, directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<u8>, FileError> {
    match deadline() {
        Some(deadline) => ask(job, directory, path, deadline),
        None => job.run(directory, path),
    }
}

/// Runs a job in a new process of this program, with the directory as its standard input.
fn ask(job: Job, directory: BorrowedFd<'_>, path: &Path, deadline: Instant) -> Result<Vec<u8>, FileError> {
    if Instant::now() >= deadline {
        return Err(io::Error::from(ErrorKind::TimedOut).into());
    }
    let helper = Command::new("/proc/self/exe")
        .arg0("tracer")
        .args([ARGUMENT, &job.word()])
        .arg(path)
        .env_clear()
        .stdin(Stdio::from(directory.try_clone_to_owned()?))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let answer = answer_of(helper, deadline)?;
    match answer.split_first() {
        Some((&SUCCEEDED, bytes)) => Ok(bytes.to_owned()),
        Some((_, message)) => Err(FileError::Helper(String::from_utf8_lossy(message).into_owned())),
        None => {
            Err(FileError::Helper("the helper process that reads it exited without an answer".to_owned()))
        }
    }
}

/// The standard output of a process, read until it exits. The process is killed at `deadline`, or as soon as its
/// output is invalid.
pub(crate) fn answer_of(mut helper: Child, deadline: Instant) -> Result<Vec<u8>, FileError> {
    let answer = read_answer(&mut helper, deadline);
    if answer.is_err() {
        // It fails if the process has exited already, which is fine.
        let _ = helper.kill();
    }
    let deadline = deadline.max(Instant::now() + GRACE);
    match wait_for_end(&helper, deadline) {
        Ok(()) => drop(helper.wait()?),
        // The output is complete, whatever its process does now.
        Err(_) => HELPERS.with_borrow_mut(|helpers| {
            let _ = helper.kill();
            if let Some(helpers) = helpers {
                helpers.stuck.push(helper);
            }
        }),
    }
    Ok(answer?)
}

fn read_answer(helper: &mut Child, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut pipe = helper.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        wait_until_readable(pipe.as_fd(), deadline)?;
        let len = pipe.read(&mut part)?;
        if len == 0 {
            return Ok(answer);
        }
        answer.extend_from_slice(&part[..len]);
        if answer.len() as u64 > SIZE_MAX + 1 {
            return Err(ErrorKind::FileTooLarge.into());
        }
    }
}

fn wait_for_end(helper: &Child, deadline: Instant) -> io::Result<()> {
    // The pid of a child is not reused before it has been waited for.
    let process = pidfd_open(Pid::from_child(helper), PidfdFlags::empty())?;
    wait_until_readable(process.as_fd(), deadline)
}

fn wait_until_readable(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs the job that this process was started for; None if it is not a helper process.
#[must_use]
pub(crate) fn main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let (job, path) = (Job::of_word(&arguments.next()?)?, arguments.next()?);
    let input = io::stdin();
    let is_directory = fstat(&input).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    if !is_directory || !is_for_tracer() {
        return Some(ExitCode::FAILURE);
    }
    let (status, bytes) = match job.run(input.as_fd(), Path::new(&path)) {
        Ok(bytes) => (SUCCEEDED, bytes),
        Err(error) => (FAILED, error.to_string().into_bytes()),
    };
    let mut output = io::stdout().lock();
    // The process that started this one may have exited.
    let written =
        output.write_all(&[status]).and_then(|()| output.write_all(&bytes)).and_then(|()| output.flush());
    Some(written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// Whether `tracer` itself has started this process: otherwise a user could read files through it that the user may
/// not read.
///
/// If the file grants capabilities, `tracer` has set `no_new_privs` before it starts a helper, which keeps the
/// capabilities that `tracer` has. A user without capabilities who sets it gains none by executing the file.
fn is_for_tracer() -> bool {
    !capabilities::exceed_the_callers() || no_new_privs().unwrap_or(false)
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
    fn helper_without_answer_is_killed_at_the_deadline() {
        let hanging = || Command::new("sleep").arg("1000").stdout(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let (result, stuck) = with_helpers(began + Duration::from_millis(100), || {
            let result = answer_of(hanging(), deadline().unwrap());
            (result, is_overdue())
        });
        assert!(matches!(result, (Err(FileError::Io(error)), true) if error.kind() == ErrorKind::TimedOut));
        assert!(stuck.is_empty(), "it has ended");
        assert!(began.elapsed() < Duration::from_secs(100));
        assert_eq!(deadline(), None);
    }

    #[test]
    fn long_answer_is_read_completely() {
        let long = Command::new("head").args(["-c", "1000000", "/dev/zero"]).stdout(Stdio::piped()).spawn();
        let (answer, stuck) = with_helpers(Instant::now() + Duration::from_secs(60), || {
            answer_of(long.unwrap(), deadline().unwrap())
        });
        assert_eq!(answer.unwrap(), vec![0; 1_000_000]);
        assert!(stuck.is_empty());
    }

    #[test]
    fn every_job_has_a_distinct_argument() {
        for job in [Job::Read(0), Job::Read(1000), Job::List, Job::Has, Job::OfProcess] {
            assert_eq!(Job::of_word(OsStr::new(&job.word())), Some(job));
        }
        assert_eq!(Job::of_word(OsStr::new("x")), None);
    }
}
