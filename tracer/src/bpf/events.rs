//! The ring buffer of traced events, and when its reader sleeps.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, bail};
use aya::maps::{Array, Map, MapData};
use tokio::io::{Interest, unix::AsyncFd};

use super::ring::Ring;

/// While events come, the ring is looked at this often: waking the reader for each would be most of the cost.
const INTERVAL: Duration = Duration::from_millis(5);
/// After so many looks in vain the reader sleeps until the programs wake it.
const PATIENCE: u32 = 20;

/// The ring of traced events.
pub struct EventRing {
    map: MapData,
    ring: Ring,
    /// By index 0: whether the programs shall wake the reader with the next record.
    sleeps: Array<MapData, u32>,
}

impl EventRing {
    pub(super) fn new(map: Map, sleeps: Array<MapData, u32>) -> anyhow::Result<Self> {
        let Map::RingBuf(map) = map else { bail!("the BPF map EVENTS is no ring buffer") };
        let size = map.info().context("asking for the size of the BPF map EVENTS")?.max_entries();
        let ring = Ring::map(map.fd(), size).context("mapping the BPF map EVENTS")?;
        Ok(Self { map, ring, sleeps })
    }

    /// Hands every record that is there to `handle`, until it returns false. Returns how many there were.
    pub fn drain(&mut self, handle: impl FnMut(&[u8]) -> bool) -> usize {
        self.ring.drain(handle)
    }

    /// Something that can be awaited besides the ring. Needs a runtime with I/O and time.
    pub fn waiter(&self) -> anyhow::Result<Waiter> {
        let fd =
            self.map.fd().as_fd().try_clone_to_owned().context("duplicating the event ring's descriptor")?;
        // SAFETY: the descriptor is owned by the waiter and neither closed nor replaced before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .context("watching the event ring")?;
        Ok(Waiter { fd, idle: 0 })
    }

    /// Asks the programs to wake the reader with their next record.
    fn sleep(&mut self) -> anyhow::Result<()> {
        self.sleeps.set(0, &1, 0).context("writing the map READER_SLEEPS")
    }
}

/// Decides when the ring is looked at next.
#[derive(Debug)]
pub struct Waiter {
    fd: AsyncFd<OwnedFd>,
    /// Looks in vain since the last record.
    idle: u32,
}

impl Waiter {
    /// Takes note of what the last look found, and returns whether to look once more at once: before the
    /// reader sleeps, so that a record that came in between is not slept over.
    pub fn found(&mut self, records: usize, ring: &mut EventRing) -> anyhow::Result<bool> {
        if records > 0 {
            self.idle = 0;
            return Ok(false);
        }
        self.idle = self.idle.saturating_add(1);
        if self.idle == PATIENCE {
            ring.sleep()?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Waits until the ring is worth a look.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let readable = self.fd.readable();
        if self.idle > PATIENCE {
            readable.await.context("watching the event ring")?.clear_ready();
            self.idle = 0;
            return Ok(());
        }
        tokio::select! {
            guard = readable => guard.context("watching the event ring")?.clear_ready(),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        Ok(())
    }
}
