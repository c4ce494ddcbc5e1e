//! Ctrl-C ends the run between two measurements, so that everything is taken away.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result, bail};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes note of SIGINT and SIGTERM from now on.
pub(crate) fn catch() -> Result<()> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(asked)).context("catching signals")?;
    }
    Ok(())
}

/// An error if one has come.
pub(crate) fn check() -> Result<()> {
    if ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
