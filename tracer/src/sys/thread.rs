//! Threads, locks, and asynchronous runtimes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

/// A tokio runtime for the current thread.
pub(crate) fn local_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting the asynchronous runtime")
}

/// Starts a thread. Its failure is logged, but not its end: the closing line has to be the last one.
pub(crate) fn spawn(
    name: &'static str,
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            if let Err(error) = run() {
                warn!("thread {name} failed: {error:#}");
            }
        })
        .with_context(|| format!("starting the thread {name}"))?;
    Ok(())
}

/// Locks a mutex, ignoring poison: in releases a panic while the lock was held would have ended the process (`panic =
/// "abort"`), and the guarded data is consistent in any case.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
