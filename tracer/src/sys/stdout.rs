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

/// How long the end may take without any progress: when standard output does not take what is left.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether whoever waits to write shall go on waiting.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Bytes that were taken so far.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Whether nobody waits any more for more to be taken.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Writes to standard output without a buffer between, also where somebody has made it non-blocking. Returns how
/// many bytes were written, all of them unless there is an error.
pub(crate) fn write(bytes: &[u8]) -> (usize, io::Result<()>) {
    let output = output();
    let mut written = 0;
    while written < bytes.len() {
        let result = match output.write(&bytes[written..]) {
            Ok(count) => {
                written += count;
                TAKEN.fetch_add(count as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(Errno::AGAIN) if GIVEN_UP.load(Ordering::Relaxed) => Err(Errno::TIMEDOUT),
            Err(Errno::AGAIN) => output.has_room(&LOOK).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return (written, Err(error.into()));
        }
    }
    (written, Ok(()))
}

/// Waits for what whoever writes says at the end, as long as there is progress: bytes that are taken, or a change of
/// `handled`. Then what waits to be written fails, now and from now on, as far as standard output is a pipe. None if
/// even so there is no end.
pub(crate) async fn finished<T>(
    end: &mut oneshot::Receiver<T>,
    handled: impl Fn() -> u64,
) -> Option<Result<T, RecvError>> {
    let progress = || (TAKEN.load(Ordering::Relaxed), handled());
    let (mut before, mut given_up) = (progress(), false);
    loop {
        match timeout(END_PATIENCE, &mut *end).await {
            Ok(ended) => return Some(ended),
            Err(_) if progress() != before => before = progress(),
            Err(_) if given_up => return None,
            Err(_) => {
                warn!("standard output takes nothing more: events that are left count as lost");
                GIVEN_UP.store(true, Ordering::Relaxed);
                given_up = true;
            }
        }
    }
}

/// How standard output is written to. Who waits in writing can neither stop nor tell how much was taken, so nobody waits
/// where that can be helped. Standard output itself may be others' too, who expect it to be as it is.
enum Output {
    /// A pipe, opened anew: it says when it is full.
    Anew(OwnedFd),
    /// A pipe that may not be opened: it is somebody else's. What it has room for does not make anybody wait, unless
    /// others write to it as well.
    Pipe,
    /// What is no pipe.
    Other,
}

impl Output {
    fn descriptor(&self) -> BorrowedFd<'_> {
        if let Self::Anew(pipe) = self { pipe.as_fd() } else { rustix::stdio::stdout() }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Pipe if self.has_room(&Timespec::default())? => {
                rustix::io::write(self.descriptor(), &bytes[..bytes.len().min(PIPE_BUF)])
            }
            Self::Pipe => Err(Errno::AGAIN),
            Self::Anew(_) | Self::Other => rustix::io::write(self.descriptor(), bytes),
        }
    }

    /// Whether there is room, or never will be, or becomes so in this time.
    fn has_room(&self, time: &Timespec) -> Result<bool, Errno> {
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
        rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).map_or(Output::Pipe, Output::Anew)
    })
}

/// What a pipe is made to hold: as much as anybody may ask for, unless the administrator has changed that
/// (/proc/sys/fs/pipe-max-size). A reader that is not scheduled for a moment then holds up nothing.
const PIPE_SIZE: usize = 1 << 20;
/// What a pipe that has room takes without waiting (pipe(7)).
const PIPE_BUF: usize = 4096;

/// Takes hold of standard output, as long as that is permitted: somebody else's pipe takes more than is kept. Makes it
/// hold more, if it is a pipe that may.
pub(crate) fn prepare() {
    output();
    let stdout = rustix::stdio::stdout();
    if fcntl_getpipe_size(stdout).is_ok_and(|size| size < PIPE_SIZE) {
        // Refused where this user has many pipes: then it stays as it is.
        let _ = fcntl_setpipe_size(stdout, PIPE_SIZE);
    }
}
