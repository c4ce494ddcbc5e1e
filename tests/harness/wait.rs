//! Waiting, always with an end.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::scratch;

/// How long anything may take before it counts as never happening. Far above what a loaded machine
/// needs: it is reached only by a failing test.
pub const LIMIT: Duration = Duration::from_secs(30);

const SIGKILL: i32 = 9;

/// `limit`, as often as `TRACER_TEST_SLOWNESS` says: an emulated machine needs more time for everything.
pub fn stretched(limit: Duration) -> Duration {
    static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
        let said = std::env::var("TRACER_TEST_SLOWNESS").ok();
        said.map_or(1, |said| said.parse().expect("TRACER_TEST_SLOWNESS is a number"))
    });
    limit * *SLOWNESS
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// All of its standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// The same output, if the program ended with exit code 0.
    ///
    /// # Panics
    /// With everything it printed, otherwise.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "ended with {}: {self:#?}", self.status);
        self
    }
}

/// Waits until `child` ends, or for `limit`; `None` when it is still running then.
pub fn exit_of(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Some(status) = child.try_wait().expect("our own child") {
        return Some(status);
    }
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd of our own child");
    readable(&pidfd, limit).then(|| child.wait().expect("our own child"))
}

/// Whether there is something to read within `limit`.
fn readable(fd: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + stretched(limit);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a limit of seconds");
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot poll: {error}"),
        }
    }
}

/// The ends of reading a file.
pub struct Reads(OwnedFd);

impl Reads {
    /// Those of `file` from now on.
    ///
    /// # Panics
    /// When there is no such file.
    #[track_caller]
    pub fn of(file: &Path) -> Self {
        use rustix::fs::inotify;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
        inotify::add_watch(&fd, file, inotify::WatchFlags::CLOSE_NOWRITE).expect("a file of our own");
        Self(fd)
    }

    /// Waits until somebody has read it.
    ///
    /// # Panics
    /// After [`LIMIT`].
    #[track_caller]
    pub fn wait(&self) {
        assert!(readable(&self.0, LIMIT), "nobody has read the file");
    }
}

/// Starts `command`. A program that was just written can be busy for a moment: a child that another thread is about
/// to start has the writer's descriptor until it executes.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn spawn(command: &mut Command) -> Child {
    until("a program that nobody writes to", || match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        Err(error) => panic!("cannot start {command:?}: {error}"),
    })
}

/// Runs `command` to its end, its output collected in files: a container that it leaves running
/// keeps them open, and a pipe would then never end.
///
/// # Panics
/// When it cannot be started or takes longer than `limit`; it is killed then.
#[track_caller]
pub fn output(command: &mut Command, limit: Duration) -> Output {
    let dir = scratch::Dir::new("out");
    let file = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join(name))
            .expect("a file in our own directory")
    };
    let (mut out, mut err) = (file("stdout"), file("stderr"));
    command.stdout(out.try_clone().expect("a duplicate")).stderr(err.try_clone().expect("a duplicate"));
    // Never the terminal of whoever runs the tests.
    command.stdin(Stdio::null());
    let mut child = spawn(command);
    let status = exit_of(&mut child, limit).unwrap_or_else(|| {
        // The child is ours and not reaped: its pid cannot be someone else's.
        let _ = child.kill();
        let _ = child.wait();
        ExitStatus::from_raw(SIGKILL)
    });
    let output = Output { status, stdout: all(&mut out), stderr: all(&mut err) };
    assert!(
        output.status.signal() != Some(SIGKILL),
        "{command:?} was killed or took over {limit:?}: {output:#?}"
    );
    output
}

fn all(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a regular file");
    file.read_to_end(&mut bytes).expect("a regular file");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks `probe` again and again until it answers, for things that give no event to wait for.
///
/// # Panics
/// After [`LIMIT`], saying `what` did not happen.
#[track_caller]
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let limit = stretched(LIMIT);
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a container go on that waits in `read x < FIFO`, by opening the other side of `fifo`.
#[track_caller]
pub fn release(fifo: &Path) {
    use rustix::fs::{Mode, OFlags, open};
    // NONBLOCK: without a reader the open fails with ENXIO, instead of waiting past every deadline.
    let file = until(&format!("a reader of {}", fifo.display()), || {
        open(fifo, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
    });
    rustix::io::write(&file, b"go\n").expect("a pipe with a reader takes three bytes");
}
