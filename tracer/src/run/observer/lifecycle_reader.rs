//! The thread that reads lifecycle records.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use rustix::thread::CapabilitySet;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, watch},
};

use crate::{
    discovery::Lifecycle,
    pipeline::Phase,
    sys::{
        capabilities,
        thread::{local_runtime, lock, spawn},
    },
};

/// How often the ring is read if no record wakes the thread.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why the thread has failed. A run cannot continue without it.
#[derive(Debug, Default)]
pub(super) struct Failure {
    error: Mutex<Option<anyhow::Error>>,
    reported: Notify,
}

impl Failure {
    fn report(&self, error: anyhow::Error) {
        *lock(&self.error) = Some(error);
        self.reported.notify_one();
    }

    /// Waits until there is one.
    pub(super) async fn wait(&self) -> anyhow::Error {
        loop {
            if let Some(error) = lock(&self.error).take() {
                return error;
            }
            self.reported.notified().await;
        }
    }
}

/// Starts the thread, which keeps these capabilities.
pub(super) fn start(
    lifecycle: &Arc<Mutex<Lifecycle>>,
    phases: watch::Receiver<Phase>,
    kept: CapabilitySet,
) -> anyhow::Result<Arc<Failure>> {
    let failure = Arc::new(Failure::default());
    let (lifecycle, reporter) = (Arc::clone(lifecycle), Arc::clone(&failure));
    spawn("lifecycle", move || {
        if let Err(error) = capabilities::keep_only(kept).and_then(|()| read(&lifecycle, phases)) {
            reporter.report(error.context("containers cannot be followed any further"));
        }
        Ok(())
    })?;
    Ok(failure)
}

/// Handles records as they come, whatever the other threads wait for: a runtime's process must be opened before it exits.
fn read(lifecycle: &Mutex<Lifecycle>, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        // SAFETY: the descriptor is owned, and neither closed nor replaced before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(lock(lifecycle).readiness()?, Interest::READABLE) }
            .context("watching the lifecycle ring")?;
        loop {
            tokio::select! {
                guard = fd.readable() => guard.context("watching the lifecycle ring")?.clear_ready(),
                changed = phases.changed() => {
                    if changed.is_err() || *phases.borrow() == Phase::Detached {
                        return Ok(());
                    }
                }
                // If another process has written to the ring, the programs may not wake this thread any more.
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let mut lifecycle = lock(lifecycle);
            lifecycle.drain();
            lifecycle.check()?;
        }
    })
}
