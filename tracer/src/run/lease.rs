//! A lease on a run: whoever runs `tracer` from afar writes to its standard input again and again, and when that stops, for
//! whatever reason, the run ends. A connection that is lost closes standard input in most cases; a laptop that has
//! vanished closes nothing.
//!
//! Any byte renews the lease, and what was read is answered by a line `tracer: alive` on standard error, by which whoever
//! writes knows that it arrives. [`END`] and the end of the file end the run in order, as a signal would: the first also
//! where the way between cannot close one direction alone (version 4 of Kubernetes' remote command protocol).

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

/// Ends the run in order: EOT, which a terminal's Ctrl-D stands for.
pub(crate) const END: u8 = 4;
/// The line on standard error, behind `tracer: `, that answers what was read.
pub(crate) const ALIVE: &str = "alive";

/// What is read at once at the most.
const READ_MAX: usize = 4096;

/// As it is written on the command line. A lease that is over at once helps nobody.
pub(crate) fn parse_term(text: &str) -> Result<Duration, String> {
    let term = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if term < Duration::from_secs(1) {
        return Err("a lease takes a second at least".into());
    }
    Ok(term)
}

/// As [`parse_term`] reads it, without blanks.
#[cfg(feature = "kubectl")]
pub(crate) fn format_term(term: Duration) -> String {
    humantime::format_duration(term).to_string().replace(' ', "")
}

/// A lease that is held.
#[derive(Debug)]
pub(crate) struct Lease(oneshot::Receiver<Over>);

/// Why a lease is over.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// Its holder says so, or has closed standard input.
    Ended,
    /// Nothing was heard of its holder for this long.
    Expired(Duration),
    /// Standard input cannot be read.
    Failed(io::ErrorKind),
}

impl Lease {
    /// Reads standard input from now on; `on_renewal` is called for what was read.
    pub(crate) fn start(term: Duration, on_renewal: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let (over, is_over) = oneshot::channel();
        spawn("lease", move || {
            capabilities::keep_only(CapabilitySet::empty()).context("giving up what it takes no more")?;
            // The run is at its end anyway if nobody listens.
            let _ = over.send(hold(rustix::stdio::stdin(), term, on_renewal));
            Ok(())
        })?;
        Ok(Self(is_over))
    }

    /// Returns when it is over.
    pub(crate) async fn over(&mut self) {
        match (&mut self.0).await {
            Ok(Over::Ended) => debug!("whoever holds the lease has ended it"),
            Ok(Over::Expired(term)) => {
                warn!(
                    "the lease has run out: standard input has been silent for {}",
                    humantime::format_duration(term)
                );
            }
            Ok(Over::Failed(kind)) => warn!("the lease is over: standard input cannot be read: {kind}"),
            Err(_) => warn!("the lease is over: nobody reads standard input any more"),
        }
    }
}

/// Reads until the lease is over; `answer` is called for what was read.
fn hold(input: BorrowedFd<'_>, term: Duration, answer: impl Fn()) -> Over {
    let mut bytes = [0; READ_MAX];
    let mut renewed = Instant::now();
    loop {
        let left = term.saturating_sub(renewed.elapsed());
        // A term is some days at the most where it can be told to poll at all.
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Over::Expired(term),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Over::Failed(io::Error::from(error).kind()),
        }
        match rustix::io::read(input, &mut bytes) {
            Ok(0) => return Over::Ended,
            Ok(count) if bytes[..count].contains(&END) => return Over::Ended,
            Ok(_) => {
                renewed = Instant::now();
                answer();
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Over::Failed(io::Error::from(error).kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Write as _, os::fd::AsFd as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn it_ends_when_its_holder_closes_it_or_says_so() {
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(hold(reader.as_fd(), LONG, || panic!("nothing to answer")), Over::Ended);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'\n', END]).unwrap();
        assert_eq!(hold(reader.as_fd(), LONG, || {}), Over::Ended);
    }

    #[test]
    fn what_is_heard_is_answered_and_silence_ends_it() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"\n").unwrap();
        let answers = Cell::new(0);
        let term = Duration::from_millis(20);
        let over = hold(reader.as_fd(), term, || answers.set(answers.get() + 1));
        assert_eq!((over, answers.get()), (Over::Expired(term), 1));
    }

    #[test]
    fn a_directory_holds_no_lease() {
        let directory = std::fs::File::open("/").unwrap();
        assert_eq!(hold(directory.as_fd(), LONG, || {}), Over::Failed(io::ErrorKind::IsADirectory));
    }

    #[test]
    fn a_term_is_long_enough() {
        assert_eq!(parse_term("10s"), Ok(Duration::from_secs(10)));
        for term in ["0s", "999ms", "x", ""] {
            assert!(parse_term(term).is_err(), "{term}");
        }
    }
}
