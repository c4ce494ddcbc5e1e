//! When a run ends: after a time, at a signal, or when its lease is over.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::debug;

use crate::run::lease::Lease;

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// After this time.
    pub(crate) timeout: Option<Duration>,
    /// When standard input has not renewed the lease for this long.
    pub(crate) lease: Option<Duration>,
}

/// What ends a run from outside.
pub(crate) struct End {
    interrupt: Signal,
    terminate: Signal,
    lease: Option<Lease>,
    timeout: Option<Duration>,
}

impl End {
    /// Handles signals from now on, and reads the lease; `on_renewal` is called when that is renewed. Before `ready`: the
    /// reader may end the run as soon as it has read that.
    pub(crate) fn new(limits: Limits, on_renewal: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        let lease = limits.lease.map(|term| Lease::start(term, on_renewal)).transpose()?;
        Ok(Self { interrupt, terminate, lease, timeout: limits.timeout })
    }

    /// Returns when it is time. The timeout counts from here.
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

    /// Returns when a signal says so, or whoever holds the lease.
    pub(crate) async fn requested(&mut self) {
        let lease = async {
            match &mut self.lease {
                Some(lease) => lease.over().await,
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
