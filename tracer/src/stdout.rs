//! Standard output, which carries events only.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags},
    io::Errno,
    pipe::{fcntl_getpipe_size, fcntl_setpipe_size},
};

/// How often it is looked whether whoever waits to write shall go on waiting.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Bytes that were taken so far.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Whether nobody waits any more for more to be taken.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Writes to standard output without a buffer between, also where somebody has made it non-blocking. Returns how
/// many bytes were written, all of them unless there is an error.
pub fn write(bytes: &[u8]) -> (usize, io::Result<()>) {
    let stdout = descriptor();
    let mut written = 0;
    while written < bytes.len() {
        let result = match rustix::io::write(stdout, &bytes[written..]) {
            Ok(count) => {
                written += count;
                TAKEN.fetch_add(count as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(Errno::AGAIN) if GIVEN_UP.load(Ordering::Relaxed) => Err(Errno::TIMEDOUT),
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&LOOK)) {
                Ok(_) | Err(Errno::INTR) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return (written, Err(error.into()));
        }
    }
    (written, Ok(()))
}

/// How many bytes were taken so far: more than before, if whoever reads makes progress.
pub fn taken() -> u64 {
    TAKEN.load(Ordering::Relaxed)
}

/// Has what waits to be written fail, now and from now on, as far as standard output is a pipe.
pub fn give_up() {
    GIVEN_UP.store(true, Ordering::Relaxed);
}

/// A pipe is opened anew, not to wait in writing to it: who waits there can neither stop nor tell how much was taken.
/// Standard output itself may be others' too, who expect it to be as it is.
fn descriptor() -> BorrowedFd<'static> {
    static PIPE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    PIPE.get_or_init(reopen).as_ref().map_or_else(rustix::stdio::stdout, |pipe| pipe.as_fd())
}

/// None for what is no pipe, and where that is not permitted or nobody reads.
fn reopen() -> Option<OwnedFd> {
    let stdout = rustix::stdio::stdout();
    let mode = rustix::fs::fstat(stdout).ok()?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Fifo {
        return None;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).ok()
}

/// What a pipe is made to hold: as much as anybody may ask for, unless the administrator has changed that
/// (/proc/sys/fs/pipe-max-size). A reader that is not scheduled for a moment then holds up nothing.
const PIPE_SIZE: usize = 1 << 20;

/// Makes standard output hold more, if it is a pipe that may.
pub fn enlarge() {
    let stdout = rustix::stdio::stdout();
    if fcntl_getpipe_size(stdout).is_ok_and(|size| size < PIPE_SIZE) {
        // Refused where this user has many pipes: then it stays as it is.
        let _ = fcntl_setpipe_size(stdout, PIPE_SIZE);
    }
}
