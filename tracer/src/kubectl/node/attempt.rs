//! One run of `tracer` on a node, from its start to its end.

use std::time::Duration;

use tokio::{
    select,
    task::coop::consume_budget,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::warn;

use crate::{
    error::{UNSUPPORTED, USAGE},
    kubectl::{
        account::Run,
        agents::Target,
        batch::{Batch, Item},
        exec::{ExecOutput, Exit, Received},
        node::{
            Node, Outcome, Report,
            decoder::{Decoded, Notice},
            heartbeat::STOP_TIMEOUT,
            log::NodeLog,
        },
        text,
    },
};

/// How long a node may be silent: it answers each heartbeat.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long output may take to arrive after the exit status.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// The hook of losses that are no events.
const LIFECYCLE: &str = "lifecycle";
/// How often losses are reported although the node sends nothing.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// One run of `tracer` on a node.
pub(super) struct Attempt<'n> {
    node: &'n mut Node,
    run: Run,
    log: NodeLog,
    exit: Option<Exit>,
    /// Why standard output cannot be read any further.
    broken: Option<Ended>,
    last_received: Instant,
    /// By when the connection must be closed: set once the exit status is known.
    drain_deadline: Option<Instant>,
}

/// Why nothing more is received from a run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the connection was closed")]
    Closed,
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("the connection was not closed after tracer exited")]
    NotClosed,
    #[error("no data received for {SILENCE_TIMEOUT:?}")]
    Silent,
    #[error("tracer did not stop within {STOP_TIMEOUT:?}")]
    NotStopped,
    #[error("{0}")]
    Broken(String),
    #[error("{0}")]
    Incompatible(String),
}

impl<'n> Attempt<'n> {
    pub(super) fn new(node: &'n mut Node) -> Self {
        node.decoder.start_run();
        let log = NodeLog::new(node.name.clone());
        let last_received = Instant::now();
        Self { node, run: Run::default(), log, exit: None, broken: None, last_received, drain_deadline: None }
    }

    /// Reads to the end of the output.
    pub(super) async fn read(&mut self, output: &mut ExecOutput) -> Ended {
        let mut loss_ticks = interval(LOSS_INTERVAL);
        loss_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let silent = self.last_received + SILENCE_TIMEOUT;
            let (deadline, ended) = match self.drain_deadline {
                Some(drained) if drained < silent => (drained, Ended::NotClosed),
                _ => (silent, Ended::Silent),
            };
            select! {
                // What was received counts before the deadline.
                biased;
                received = output.next() => match received {
                    Ok(Some(received)) => {
                        self.receive(received).await;
                        if let Some(broken) = self.broken.take() {
                            return broken;
                        }
                    }
                    Ok(None) => return Ended::Closed,
                    Err(error) => return Ended::Lost(error.to_string()),
                },
                () = sleep_until(deadline) => return ended,
                _ = loss_ticks.tick() => self.node.delivery.report_losses(),
            }
            // A node that never pauses must not hold up the heartbeat, which is polled by the same task.
            consume_budget().await;
        }
    }

    async fn receive(&mut self, received: Received) {
        match received {
            Received::Stdout(bytes) => {
                let mut bytes = &bytes[..];
                loop {
                    let decoded = self.node.decoder.stdout(&mut bytes);
                    let has_more = decoded.has_more;
                    let batch = self.take(decoded);
                    self.node.delivery.deliver(batch).await;
                    if !has_more {
                        break;
                    }
                    // As below.
                    consume_budget().await;
                }
            }
            Received::Stderr(bytes) => {
                let decoded = self.node.decoder.stderr(&bytes);
                let batch = self.take(decoded);
                self.node.delivery.deliver(batch).await;
            }
            Received::Exit(exit) => {
                self.drain_deadline = Some(Instant::now() + DRAIN_TIMEOUT);
                self.exit = Some(exit);
            }
            Received::Nothing => {}
        }
        // Waiting for the writer is not the node's silence.
        self.last_received = Instant::now();
    }

    /// Counts what was received and handles the notices. Returns what is to be shown.
    fn take(&mut self, Decoded { batch, notices, .. }: Decoded) -> Batch {
        self.run.received += batch.shown();
        for item in &batch.items {
            if let Item::Lost { lost, .. } = item
                && lost.hook != LIFECYCLE
            {
                self.run.reported_lost = self.run.reported_lost.saturating_add(lost.count);
                self.run.losses.add(&lost.reason, lost.count.into());
            }
        }
        for notice in notices {
            match notice {
                Notice::Ready => self.ready(),
                Notice::Alive => {}
                Notice::Matches(matches) => self.node.report(Report::Matches(matches)),
                Notice::Summary(summary) => self.run.summary = Some(summary),
                Notice::Log(line) => self.log.push(line),
                Notice::Invalid(reason) => {
                    self.run.received += 1;
                    self.node.invalid(&reason);
                }
                Notice::Broken(reason) => {
                    self.node.invalid(&reason);
                    self.broken = Some(Ended::Broken(reason));
                }
                Notice::Incompatible(reason) => self.broken = Some(Ended::Incompatible(reason)),
            }
        }
        batch
    }

    fn ready(&mut self) {
        self.run.ready = true;
        self.log.release();
        let gap = self.node.ready();
        self.node.report(Report::Ready { gap });
    }

    /// Accounts for the run and decides what to do next. `stopped` is whether the client has stopped the run.
    pub(super) fn finish(mut self, target: &Target, stopped: bool, ended: &Ended) -> Outcome {
        let decoded = self.node.decoder.finish_run();
        let batch = self.take(decoded);
        self.node.account.add(&self.run);
        if self.run.ready {
            self.node.lost_since = Some(self.last_received);
        }
        self.node.delivery.deliver_now(batch);
        let cause = if self.run.ready { None } else { self.log.take_cause() };
        self.log.release();
        if stopped {
            return Outcome::Stopped;
        }
        if let Ended::Incompatible(reason) = ended {
            return Outcome::Failed(format!("{reason}: {}", other_version(target)), USAGE);
        }
        match self.exit {
            Some(Exit::Code(0)) if self.node.shared.once => Outcome::Done,
            Some(Exit::Code(0)) if self.run.summary.is_some() => Outcome::Retry("its tracer exited".into()),
            // The kubelet reports success if the container engine closes the connection.
            Some(Exit::Code(0)) => Outcome::Retry(
                "the connection to its tracer was closed: the container engine, the kubelet or the agent stopped"
                    .into(),
            ),
            Some(Exit::Code(code)) => failure(target, code, cause),
            Some(Exit::Failed(problem)) if self.run.ready => Outcome::Retry(problem),
            Some(Exit::Failed(problem)) => Outcome::Retry(format!("cannot run tracer: {problem}")),
            None => Outcome::Retry(ended.to_string()),
        }
    }
}

/// The outcome of a run that exited with an error.
fn failure(target: &Target, code: i32, cause: Option<String>) -> Outcome {
    match u8::try_from(code) {
        Ok(UNSUPPORTED) => {
            Outcome::Failed(cause.unwrap_or_else(|| "tracing is not permitted".into()), UNSUPPORTED)
        }
        Ok(USAGE) => {
            let refused = cause.unwrap_or_else(|| "no reason given".into());
            let problem = format!("its tracer rejects the arguments ({refused})");
            Outcome::Failed(format!("{problem}: {}", other_version(target)), USAGE)
        }
        _ => Outcome::Retry(cause.unwrap_or_else(|| format!("its tracer exited with code {code}"))),
    }
}

/// Which versions do not understand each other. An agent that rejects the arguments does not report its own: its image
/// is named.
fn other_version(target: &Target) -> String {
    format!(
        "the agent (image {}) has another version than this command ({}); run `kubectl tracer deploy` again",
        target.image,
        env!("CARGO_PKG_VERSION")
    )
}

impl Node {
    /// Counts something that no `tracer` sends, and warns of it once.
    fn invalid(&mut self, reason: &str) {
        self.account.malformed += 1;
        self.delivery.lose(1, "malformed");
        if !std::mem::replace(&mut self.warned, true) {
            let (node, reason) = (text::line(&self.name), text::line(reason));
            warn!("node {node}: skipped malformed output: {reason}");
        }
    }
}
