//! Standard output, which carries events only.

use std::io;

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    pipe::{fcntl_getpipe_size, fcntl_setpipe_size},
};

/// Writes to standard output without a buffer between, also where somebody has made it non-blocking. Returns how
/// many bytes were written, all of them unless there is an error.
pub fn write(bytes: &[u8]) -> (usize, io::Result<()>) {
    let stdout = rustix::stdio::stdout();
    let mut written = 0;
    while written < bytes.len() {
        let result = match rustix::io::write(stdout, &bytes[written..]) {
            Ok(count) => {
                written += count;
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(Errno::AGAIN) => poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return (written, Err(error.into()));
        }
    }
    (written, Ok(()))
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
