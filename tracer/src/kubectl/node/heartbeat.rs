//! Keeps the lease of a node's `tracer`, and ends the run when it is to stop.

use std::time::Duration;

use tokio::{
    select,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tracing::debug;

use crate::{
    kubectl::{agents::Target, exec::ExecInput, text},
    run::lease,
};

/// How often the lease is renewed.
const INTERVAL: Duration = Duration::from_secs(1);
/// What renews it.
const RENEW: &[u8] = b"\n";
/// How long a run may take to stop.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// When a run of a node's `tracer` is to stop.
#[derive(Clone)]
pub(super) struct Stop {
    /// Whether the session ends.
    ending: watch::Receiver<bool>,
    targets: watch::Receiver<Option<Target>>,
    /// Where the run is.
    target: Target,
}

impl Stop {
    pub(super) const fn new(
        ending: watch::Receiver<bool>,
        targets: watch::Receiver<Option<Target>>,
        target: Target,
    ) -> Self {
        Self { ending, targets, target }
    }

    /// Returns when the session ends, or the node has no agent or another one.
    pub(super) async fn requested(&mut self) {
        let Self { ending, targets, target } = self;
        select! {
            biased;
            () = session_end(ending) => {}
            _ = targets.wait_for(|now| now.as_ref() != Some(target)) => {}
        }
    }
}

/// Returns when the session ends.
pub(super) async fn session_end(ending: &mut watch::Receiver<bool>) {
    // A session that was dropped has ended.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// Writes to the standard input of a node's `tracer`.
pub(super) struct Heartbeat {
    input: ExecInput,
    stop: Stop,
    /// Whether the input accepts bytes. Once it does not, what the node has sent is still read: it may have the reason.
    writable: bool,
    /// Whether the client has stopped the run.
    stopping: bool,
}

impl Heartbeat {
    pub(super) const fn new(input: ExecInput, stop: Stop) -> Self {
        Self { input, stop, writable: true, stopping: false }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Renews the lease until the run is to stop, then stops it. Returns if it has not stopped in time.
    pub(super) async fn run(&mut self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                biased;
                () = self.stop.requested() => break,
                _ = ticks.tick(), if self.writable => {}
            }
            self.send(RENEW).await;
        }
        self.stopping = true;
        let deadline = Instant::now() + STOP_TIMEOUT;
        // Without an answer the deadline passes.
        let _ = timeout_at(deadline, self.send(&[lease::END])).await;
        sleep_until(deadline).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        if self.writable
            && let Err(error) = self.input.send(bytes).await
        {
            debug!(
                "cannot write to {}: {}",
                text::line(&self.stop.target.pod),
                text::line(&error.to_string())
            );
            self.writable = false;
        }
    }
}
