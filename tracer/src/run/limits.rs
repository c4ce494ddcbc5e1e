//! Conditions that end a run: a timeout, a signal, or the end of its lease.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::{
    run::lease::Lease,
    sys::{signals, stderr},
};

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
    /// None if it is ignored, as by `nohup`.
    hangup: Option<Signal>,
    lease: Option<Lease>,
    timeout: Option<Duration>,
}

impl End {
    /// Handles signals and reads the lease from now on. Call this before `ready` is printed, because a client may end
    /// the run as soon as it reads that. `on_renewal` is called whenever the lease is renewed.
    pub(crate) fn new(limits: Limits, on_renewal: impl Fn() + Send + 'static) -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        let hangup = (!signals::is_ignored(libc::SIGHUP)).then(|| signal(SignalKind::hangup()));
        let hangup = hangup.transpose().context("handling SIGHUP")?;
        let lease = limits.lease.map(|term| Lease::start(term, on_renewal)).transpose()?;
        Ok(Self { interrupt, terminate, hangup, lease, timeout: limits.timeout })
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
            () = timeout => info!("timeout"),
        }
    }

    /// Returns at SIGINT, SIGTERM or SIGHUP, or when the lease ends.
    pub(crate) async fn requested(&mut self) {
        let lease = async {
            match &mut self.lease {
                Some(lease) => lease.ended().await,
                None => std::future::pending().await,
            }
        };
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {
                // Behind the terminal's `^C`.
                if io::stderr().is_terminal() {
                    stderr::write_line(b"\n".to_vec());
                }
                info!("SIGINT");
            }
            _ = self.terminate.recv() => info!("SIGTERM"),
            () = hangup => info!("SIGHUP"),
            () = lease => {}
        }
    }
}
