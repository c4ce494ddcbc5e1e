//! Standard output, which carries events only.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags},
    io::Errno,
    pipe::{fcntl_getpipe_size, fcntl_setpipe_size},
};
use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::timeout,
};
use tracing::warn;

/// How long the end of the run waits without progress when standard output accepts nothing.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a blocked write checks whether to give up.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Bytes written so far.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Whether blocked writes fail instead of waiting.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// The width of the terminal that standard output is, if it is one.
pub(crate) fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    // A terminal that does not know its size says 0.
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Writes to standard output without a buffer, even if another process has made it non-blocking. Returns the number
/// of bytes written: all of them unless there is an error.
pub(crate) fn write(bytes: &[u8]) -> (usize, io::Result<()>) {
    let output = output();
    let mut written = 0;
    while written < bytes.len() {
        let result = match output.write(&bytes[written..]) {
            Ok(count) => {
                written += count;
                WRITTEN.fetch_add(count as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(Errno::AGAIN) if GIVEN_UP.load(Ordering::Relaxed) => Err(Errno::TIMEDOUT),
            Err(Errno::AGAIN) => output.is_writable(&POLL_INTERVAL).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return (written, Err(error.into()));
        }
    }
    (written, Ok(()))
}

/// Waits for the writer to report its end through `end`, as long as there is progress: bytes written, or a change of
/// `handled`. Without progress, blocked and further writes fail if standard output is a pipe. None if the writer does
/// not end even so.
pub(crate) async fn finished<T>(
    end: &mut oneshot::Receiver<T>,
    handled: impl Fn() -> u64,
) -> Option<Result<T, RecvError>> {
    let progress = || (WRITTEN.load(Ordering::Relaxed), handled());
    let (mut before, mut given_up) = (progress(), false);
    loop {
        match timeout(FINISH_TIMEOUT, &mut *end).await {
            Ok(ended) => return Some(ended),
            Err(_) if progress() != before => before = progress(),
            Err(_) if given_up => return None,
            Err(_) => {
                warn!("standard output accepts no more data; the remaining events count as lost");
                GIVEN_UP.store(true, Ordering::Relaxed);
                given_up = true;
            }
        }
    }
}

/// How to write to standard output. A thread that blocks in write(2) can neither be stopped nor report how much was
/// written, so blocking is avoided where possible. The descriptor itself may be shared with other processes, so its
/// flags are not changed.
enum Output {
    /// A pipe, opened again in non-blocking mode.
    Reopened(OwnedFd),
    /// A pipe of another user, which cannot be opened again. A write of at most `PIPE_BUF` bytes to a writable pipe
    /// does not block, unless other processes write to it too.
    Pipe,
    /// Not a pipe.
    Other,
}

impl Output {
    fn descriptor(&self) -> BorrowedFd<'_> {
        if let Self::Reopened(pipe) = self { pipe.as_fd() } else { rustix::stdio::stdout() }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Pipe if self.is_writable(&Timespec::default())? => {
                rustix::io::write(self.descriptor(), &bytes[..bytes.len().min(PIPE_BUF)])
            }
            Self::Pipe => Err(Errno::AGAIN),
            Self::Reopened(_) | Self::Other => rustix::io::write(self.descriptor(), bytes),
        }
    }

    /// Whether standard output becomes writable within this time, or fails then.
    fn is_writable(&self, time: &Timespec) -> Result<bool, Errno> {
        match poll(&mut [PollFd::new(&self.descriptor(), PollFlags::OUT)], Some(time)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn output() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    OUTPUT.get_or_init(|| {
        let stdout = rustix::stdio::stdout();
        let is_pipe = rustix::fs::fstat(stdout)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if !is_pipe {
            return Output::Other;
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).map_or(Output::Pipe, Output::Reopened)
    })
}

/// Capacity that a pipe is set to, in bytes: the most that an unprivileged process may set by default
/// (/proc/sys/fs/pipe-max-size). A reader that is not scheduled for a moment then does not block `tracer`.
const PIPE_SIZE: usize = 1 << 20;
/// Bytes that a write to a writable pipe accepts without blocking (pipe(7)).
const PIPE_BUF: usize = 4096;

/// Opens standard output again while that is permitted: opening another user's pipe requires capabilities that are
/// dropped later. Increases its capacity if it is a pipe.
pub(crate) fn prepare() {
    output();
    let stdout = rustix::stdio::stdout();
    if fcntl_getpipe_size(stdout).is_ok_and(|size| size < PIPE_SIZE) {
        // Refused if this user has many pipes: then the capacity remains as it is.
        let _ = fcntl_setpipe_size(stdout, PIPE_SIZE);
    }
}
