//! Standard output, which carries events only.

use std::io;

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
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
