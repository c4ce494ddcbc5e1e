//! The ring buffer of traced events (`EVENTS`), and when its reader sleeps.

use std::{os::fd::OwnedFd, time::Duration};

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use tokio::io::{Interest, unix::AsyncFd};

use crate::bpf::ring::MappedRing;

/// Interval at which the ring is polled while events arrive: waking the reader for each event would be most of the
/// cost.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Number of empty polls after which the reader sleeps until a program wakes it.
const EMPTY_POLLS_MAX: u32 = 20;

/// The ring of traced events.
pub(crate) struct EventRing {
    ring: MappedRing,
    /// Map `READER_SLEEPS`, index 0: 1 if the programs are to wake the reader with the next record.
    sleeps: Array<MapData, u32>,
}

impl EventRing {
    pub(crate) const fn new(ring: MappedRing, sleeps: Array<MapData, u32>) -> Self {
        Self { ring, sleeps }
    }

    /// Passes every available record to `handle`, until that returns false. Returns the number of records.
    pub(crate) fn drain(&mut self, handle: impl FnMut(&[u8]) -> bool) -> anyhow::Result<usize> {
        self.ring.drain(handle).context("reading the BPF map EVENTS")
    }

    /// A waiter, which can be awaited while the ring is borrowed elsewhere. Needs a tokio runtime with its I/O and
    /// time drivers enabled.
    pub(crate) fn waiter(&self) -> anyhow::Result<Waiter> {
        let fd = self.ring.readiness().context("duplicating the event ring's descriptor")?;
        // SAFETY: the waiter owns the descriptor, which is neither closed nor replaced before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .context("watching the event ring")?;
        Ok(Waiter { fd, idle: Idle::default() })
    }

    /// Requests that the programs wake the reader with their next record.
    fn sleep(&mut self) -> anyhow::Result<()> {
        self.sleeps.set(0, &1, 0).context("writing the map READER_SLEEPS")
    }
}

/// Decides when the ring is polled next.
#[derive(Debug)]
pub(crate) struct Waiter {
    fd: AsyncFd<OwnedFd>,
    idle: Idle,
}

impl Waiter {
    /// Records the result of a poll. Returns true if the reader is about to sleep and the ring must be polled once
    /// more at once, so that a record that arrived in between is not missed. The result of that poll goes to
    /// [`Self::found_again`].
    pub(crate) fn found(&mut self, records: usize, ring: &mut EventRing) -> anyhow::Result<bool> {
        let requested = self.idle.found(records);
        if requested {
            ring.sleep()?;
        }
        Ok(requested)
    }

    /// Records the result of the additional poll that [`Self::found`] requires.
    pub(crate) const fn found_again(&mut self, records: usize) {
        self.idle.found_again(records);
    }

    /// Waits until the ring is to be polled again.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        let readable = self.fd.readable();
        if self.idle.sleeps() {
            readable.await.context("watching the event ring")?.clear_ready();
            self.idle.wake();
            return Ok(());
        }
        tokio::select! {
            guard = readable => guard.context("watching the event ring")?.clear_ready(),
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
        Ok(())
    }
}

/// How long no record has arrived. The reader sleeps only if none has arrived since it requested to be woken: the
/// next record fulfils the request and thereby removes it.
#[derive(Clone, Copy, Debug, Default)]
struct Idle {
    /// Empty polls since the last record.
    polls: u32,
}

impl Idle {
    /// Records a poll. Returns true if the reader is to request to be woken and then to poll once more.
    const fn found(&mut self, records: usize) -> bool {
        if records > 0 {
            self.polls = 0;
            return false;
        }
        self.polls = self.polls.saturating_add(1);
        self.polls == EMPTY_POLLS_MAX
    }

    /// Records the poll after the request. If it is empty, one more follows before the reader sleeps: a program may
    /// have been about to submit a record when the request was made.
    const fn found_again(&mut self, records: usize) {
        if records > 0 {
            self.polls = 0;
        }
    }

    /// Whether the reader sleeps until it is woken.
    const fn sleeps(self) -> bool {
        self.polls > EMPTY_POLLS_MAX
    }

    const fn wake(&mut self) {
        self.polls = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in which the next empty poll requests to be woken.
    fn before_request() -> Idle {
        let mut idle = Idle::default();
        for _ in 1..EMPTY_POLLS_MAX {
            assert!(!idle.found(0));
            assert!(!idle.sleeps());
        }
        idle
    }

    #[test]
    fn reader_sleeps_after_two_empty_polls_since_its_wake_request() {
        let mut idle = before_request();
        assert!(idle.found(0));
        idle.found_again(0);
        assert!(!idle.sleeps());
        assert!(!idle.found(0));
        assert!(idle.sleeps());
        idle.wake();
        assert!(!idle.sleeps());
    }

    /// The record has removed the request: if the reader slept, the next record would not wake it.
    #[test]
    fn record_after_the_wake_request_keeps_the_reader_awake() {
        let mut idle = before_request();
        assert!(idle.found(0));
        idle.found_again(1);
        for _ in 1..EMPTY_POLLS_MAX {
            assert!(!idle.found(0));
            assert!(!idle.sleeps());
        }
        assert!(idle.found(0), "the request is repeated");
    }
}
