//! The ring buffer of traced events, and when its reader sleeps.

use std::{os::fd::OwnedFd, time::Duration};

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use tokio::io::{Interest, unix::AsyncFd};

use crate::bpf::ring::MappedRing;

/// While events come, the ring is looked at this often: waking the reader for each would be most of the cost.
const INTERVAL: Duration = Duration::from_millis(5);
/// After so many looks in vain the reader sleeps until the programs wake it.
const PATIENCE: u32 = 20;

/// The ring of traced events.
pub(crate) struct EventRing {
    ring: MappedRing,
    /// By index 0: whether the programs shall wake the reader with the next record.
    sleeps: Array<MapData, u32>,
}

impl EventRing {
    pub(crate) const fn new(ring: MappedRing, sleeps: Array<MapData, u32>) -> Self {
        Self { ring, sleeps }
    }

    /// Hands every record that is there to `handle`, until it returns false. Returns how many there were.
    pub(crate) fn drain(&mut self, handle: impl FnMut(&[u8]) -> bool) -> anyhow::Result<usize> {
        self.ring.drain(handle).context("reading the BPF map EVENTS")
    }

    /// Something that can be awaited besides the ring. Needs a runtime with I/O and time.
    pub(crate) fn waiter(&self) -> anyhow::Result<Waiter> {
        let fd = self.ring.readiness().context("duplicating the event ring's descriptor")?;
        // SAFETY: the descriptor is owned by the waiter and neither closed nor replaced before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .context("watching the event ring")?;
        Ok(Waiter { fd, idle: Idle::default() })
    }

    /// Asks the programs to wake the reader with their next record.
    fn sleep(&mut self) -> anyhow::Result<()> {
        self.sleeps.set(0, &1, 0).context("writing the map READER_SLEEPS")
    }
}

/// Decides when the ring is looked at next.
#[derive(Debug)]
pub(crate) struct Waiter {
    fd: AsyncFd<OwnedFd>,
    idle: Idle,
}

impl Waiter {
    /// Takes note of what the last look found, and returns whether to look once more at once: before the
    /// reader sleeps, so that a record that came in between is not slept over. What that look finds is for
    /// [`Self::found_again`].
    pub(crate) fn found(&mut self, records: usize, ring: &mut EventRing) -> anyhow::Result<bool> {
        let asks = self.idle.found(records);
        if asks {
            ring.sleep()?;
        }
        Ok(asks)
    }

    /// Takes note of what the look after [`Self::found`] has found.
    pub(crate) const fn found_again(&mut self, records: usize) {
        self.idle.found_again(records);
    }

    /// Waits until the ring is worth a look.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        let readable = self.fd.readable();
        if self.idle.sleeps() {
            readable.await.context("watching the event ring")?.clear_ready();
            self.idle.wake();
            return Ok(());
        }
        tokio::select! {
            guard = readable => guard.context("watching the event ring")?.clear_ready(),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        Ok(())
    }
}

/// How long nothing has come. The reader sleeps only if nothing has since it asked to be woken: the first record does
/// that, and takes the request away.
#[derive(Clone, Copy, Debug, Default)]
struct Idle {
    /// Looks in vain since the last record.
    looks: u32,
}

impl Idle {
    /// A look has found so many records. Returns whether it is time to ask to be woken, and to look once more then.
    const fn found(&mut self, records: usize) -> bool {
        if records > 0 {
            self.looks = 0;
            return false;
        }
        self.looks = self.looks.saturating_add(1);
        self.looks == PATIENCE
    }

    /// The look after the request has found so many. Even if it has found none, one more follows before the reader sleeps:
    /// a program may have been about to submit when the request was made.
    const fn found_again(&mut self, records: usize) {
        if records > 0 {
            self.looks = 0;
        }
    }

    /// Whether the reader sleeps until it is woken.
    const fn sleeps(self) -> bool {
        self.looks > PATIENCE
    }

    const fn wake(&mut self) {
        self.looks = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many looks in vain that the next one asks to be woken.
    fn tired() -> Idle {
        let mut idle = Idle::default();
        for _ in 1..PATIENCE {
            assert!(!idle.found(0));
            assert!(!idle.sleeps());
        }
        idle
    }

    #[test]
    fn reader_sleeps_after_two_looks_in_vain_since_it_asked_to_be_woken() {
        let mut idle = tired();
        assert!(idle.found(0));
        idle.found_again(0);
        assert!(!idle.sleeps());
        assert!(!idle.found(0));
        assert!(idle.sleeps());
        idle.wake();
        assert!(!idle.sleeps());
    }

    /// The record has taken the request away: asleep, the reader would not be woken by the next one.
    #[test]
    fn record_that_came_after_the_request_keeps_the_reader_awake() {
        let mut idle = tired();
        assert!(idle.found(0));
        idle.found_again(1);
        for _ in 1..PATIENCE {
            assert!(!idle.found(0));
            assert!(!idle.sleeps());
        }
        assert!(idle.found(0), "it asks again");
    }
}
