//! Conditions that end a run: a timeout, a signal, or the end of its lease.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::debug;

use crate::run::lease::Lease;

/// Limits on the duration of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Time after which the run ends.
    pub(crate) timeout: Option<Duration>,
    /// Time of silence on standard input after which the run ends.
    pub(crate) lease: Option<Duration>,
}

/// Waits for the conditions that end a run.
pub(crate) struct End {
    interrupt: Signal,
    terminate: Signal,
    lease: Option<Lease>,
    timeout: Option<Duration>,
}

impl End {
    /// Handles signals and reads the lease from now on. Call this before `ready` is printed, because a client may end
    /// the run as soon as it reads that. `on_renewal` is called whenever the lease is renewed.
    pub(crate) fn new(limits: Limits, on_renewal: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        let lease = limits.lease.map(|term| Lease::start(term, on_renewal)).transpose()?;
        Ok(Self { interrupt, terminate, lease, timeout: limits.timeout })
    }

    /// Returns when a condition is met. The timeout counts from this call.
    pub(crate) async fn reached(mut self) {
        let timeout = self.timeout;
        let timeout = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.requested() => {}
            () = timeout => debug!("timeout"),
        }
    }

    /// Returns at SIGINT, at SIGTERM, or when the lease ends.
    pub(crate) async fn requested(&mut self) {
        let lease = async {
            match &mut self.lease {
                Some(lease) => lease.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => debug!("SIGINT"),
            _ = self.terminate.recv() => debug!("SIGTERM"),
            () = lease => {}
        }
    }
}
