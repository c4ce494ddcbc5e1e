//! A lease on a run: a remote client writes to `tracer`'s standard input at intervals, and when that stops the run
//! ends. A lost connection closes standard input in most cases; a laptop that disappears closes nothing.
//!
//! Any byte renews the lease. Each read is answered with the line `tracer: alive` on standard error, so that the
//! client knows that its bytes arrive. [`END`] and end of file end the run in order, as a signal does. [`END`] also
//! works where the connection cannot close one direction alone (version 4 of Kubernetes' remote command protocol).

use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    thread::CapabilitySet,
};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::sys::{capabilities, thread::spawn};

/// Byte that ends the run in order: EOT, which a terminal sends for Ctrl-D.
pub(crate) const END: u8 = 4;
/// Status line that answers a read, without the prefix `tracer: `.
pub(crate) const ALIVE: &str = "alive";

/// Bytes per read.
const READ_MAX: usize = 4096;

/// Shortest term of a lease: a lease that expires at once is of no use.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// Why a lease cannot have a term.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum LeaseTermError {
    /// It is not a duration.
    #[error(transparent)]
    Invalid(#[from] humantime::DurationError),
    /// It is shorter than [`LEASE_MIN`].
    #[error("a lease must last at least {} second", LEASE_MIN.as_secs())]
    TooShort,
}
/// Parses the value of `--lease`: a duration of at least a second.
pub(crate) fn parse_term(text: &str) -> Result<Duration, LeaseTermError> {
    let term = humantime::parse_duration(text)?;
    if term < LEASE_MIN { Err(LeaseTermError::TooShort) } else { Ok(term) }
}

/// Formats a term as [`parse_term`] accepts it, without blanks.
#[cfg(feature = "kubectl")]
pub(crate) fn format_term(term: Duration) -> String {
    humantime::format_duration(term).to_string().replace(' ', "")
}

/// A lease on this run.
#[derive(Debug)]
pub(crate) struct Lease(oneshot::Receiver<LeaseEnd>);

/// Why a lease ended.
#[derive(Debug, PartialEq, Eq)]
enum LeaseEnd {
    /// The client ended it, or closed standard input.
    Released,
    /// Standard input was silent for this long.
    Expired(Duration),
    /// Standard input cannot be read.
    Failed(io::ErrorKind),
}

impl Lease {
    /// Starts to read standard input; `on_renewal` is called for what was read.
    pub(crate) fn start(term: Duration, on_renewal: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let (sender, end) = oneshot::channel();
        spawn("lease", move || {
            capabilities::keep_only(CapabilitySet::empty()).context("cannot drop capabilities")?;
            // If the receiver has been dropped, the run is ending anyway.
            let _ = sender.send(hold(rustix::stdio::stdin(), term, on_renewal));
            Ok(())
        })?;
        Ok(Self(end))
    }

    /// Returns when the lease has ended, and logs why.
    pub(crate) async fn ended(&mut self) {
        match (&mut self.0).await {
            Ok(LeaseEnd::Released) => debug!("the client has released the lease"),
            Ok(LeaseEnd::Expired(term)) => {
                warn!(
                    "the lease has expired: standard input has been silent for {}",
                    humantime::format_duration(term)
                );
            }
            Ok(LeaseEnd::Failed(kind)) => warn!("the lease has ended: cannot read standard input: {kind}"),
            Err(_) => warn!("the lease has ended: the thread that reads standard input has failed"),
        }
    }
}

/// Reads until the lease ends; calls `answer` after each read.
fn hold(input: BorrowedFd<'_>, term: Duration, answer: impl Fn()) -> LeaseEnd {
    let mut bytes = [0; READ_MAX];
    let mut renewed = Instant::now();
    loop {
        let left = term.saturating_sub(renewed.elapsed());
        // A term too long for poll(2) (beyond the range of its seconds) waits without a timeout.
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return LeaseEnd::Expired(term),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return LeaseEnd::Failed(io::Error::from(error).kind()),
        }
        match rustix::io::read(input, &mut bytes) {
            Ok(0) => return LeaseEnd::Released,
            Ok(count) if bytes[..count].contains(&END) => return LeaseEnd::Released,
            Ok(_) => {
                renewed = Instant::now();
                answer();
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return LeaseEnd::Failed(io::Error::from(error).kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Write as _, os::fd::AsFd as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn lease_ends_at_end_of_file_or_eot() {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(hold(reader.as_fd(), LONG, || panic!("nothing to answer")), LeaseEnd::Released);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'\n', END]).unwrap();
        assert_eq!(hold(reader.as_fd(), LONG, || {}), LeaseEnd::Released);
    }

    #[test]
    fn each_read_is_answered_and_silence_ends_the_lease() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"\n").unwrap();
        let answers = Cell::new(0);
        let term = Duration::from_millis(20);
        let end = hold(reader.as_fd(), term, || answers.set(answers.get() + 1));
        assert_eq!((end, answers.get()), (LeaseEnd::Expired(term), 1));
    }

    #[test]
    fn directory_as_standard_input_is_a_failure() {
        let directory = std::fs::File::open("/").unwrap();
        assert_eq!(hold(directory.as_fd(), LONG, || {}), LeaseEnd::Failed(io::ErrorKind::IsADirectory));
    }

    #[test]
    fn term_is_at_least_a_second() {
        assert_eq!(parse_term("10s"), Ok(Duration::from_secs(10)));
        for term in ["0s", "999ms"] {
            assert_eq!(parse_term(term), Err(LeaseTermError::TooShort), "{term}");
        }
        for term in ["x", ""] {
            assert!(matches!(parse_term(term), Err(LeaseTermError::Invalid(_))), "{term}");
        }
    }
}
