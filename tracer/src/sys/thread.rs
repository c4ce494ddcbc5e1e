//! Threads, locks, and asynchronous runtimes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

/// An asynchronous runtime for a thread that waits for several things.
pub(crate) fn local_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting the asynchronous runtime")
}

/// Starts a thread. If it fails, that is logged; that it ends is not, since the last line of all is the sum.
pub(crate) fn spawn(
    name: &'static str,
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            if let Err(error) = run() {
                warn!("thread {name} has failed: {error:#}");
            }
        })
        .with_context(|| format!("starting the thread {name}"))?;
    Ok(())
}

/// A panic while the lock was held would have ended the process (`panic = "abort"` in releases); what it guards
/// is whole in any case.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
