//! One node: its `tracer` is run, and run again where that fails. Its lease is kept ([`heartbeat`]), its output decoded
//! ([`decoder`]) and handed to the writer ([`delivery`]); [`attempt`] is one run.

mod attempt;
mod decoder;
mod delivery;
mod heartbeat;
mod log;

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    select,
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep},
};
use tracing::debug;

use crate::{
    error::FAILURE,
    kubectl::{
        account::Account,
        agents::Target,
        exec::{Exec, Refused, Retry},
        node::{
            attempt::{Attempt, Ended},
            delivery::Delivery,
            heartbeat::{Heartbeat, Stop, session_end},
        },
        text,
        writer::Message,
    },
    model::Matches,
};
pub(super) use decoder::Decoder;
pub(super) use delivery::CAPACITY;
pub(super) use log::node_status;

/// The delay before a retry, at first and at the most.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often something in front of the API server may refuse before the node has failed.
const REFUSALS_MAX: u32 = 5;

/// What a node's task reports to the session.
#[derive(Debug)]
pub(super) enum Report {
    /// All programs are attached.
    Ready {
        /// The time without data, if the node was ready before.
        gap: Option<Duration>,
    },
    /// What the selection matches.
    Matches(Matches),
    /// An attempt failed; another one follows.
    Retrying,
    /// This agent is not tried again; the exit code.
    Failed(u8),
    /// A command that ends by itself is done.
    Done,
}

/// What the tasks of all nodes share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// The namespace of the agents.
    pub(super) namespace: String,
    /// Whether the command ends by itself.
    pub(super) once: bool,
    /// The name of what the nodes send, in reports of losses.
    pub(super) hook: Arc<str>,
    pub(super) messages: mpsc::UnboundedSender<Message>,
    /// What is left of [`CAPACITY`].
    pub(super) capacity: Arc<Semaphore>,
    pub(super) reports: mpsc::UnboundedSender<(Arc<str>, Report)>,
    /// Whether the session ends.
    pub(super) ending: watch::Receiver<bool>,
    /// Bounds how many nodes start at a time.
    pub(super) starting: Semaphore,
}

/// A node.
pub(super) struct Node {
    name: Arc<str>,
    shared: Arc<Shared>,
    command: Vec<String>,
    /// Its agent, if one runs.
    targets: watch::Receiver<Option<Target>>,
    decoder: Decoder,
    delivery: Delivery,
    account: Account,
    retry_delay: Duration,
    /// Whether it has ever been ready.
    was_ready: bool,
    /// How often it was refused to run the command since the node was ready.
    refusals: u32,
    /// The problem that was reported last.
    reported: String,
    /// When data was received last, if a run that was ready has ended.
    lost_since: Option<Instant>,
    /// Whether the user was warned of lines that make no sense.
    warned: bool,
}

/// The outcome of an attempt.
enum Outcome {
    /// The session ends, or the agent is not the same any more.
    Stopped,
    /// A command that ends by itself is done.
    Done,
    /// It is tried again; the problem.
    Retry(String),
    /// Trying again makes no sense; the problem and the exit code.
    Failed(String, u8),
}

impl Outcome {
    /// A command that ends by itself is not tried again: half of its output may have been shown.
    fn without_retry(self) -> Self {
        match self {
            Self::Retry(problem) => Self::Failed(problem, FAILURE),
            outcome => outcome,
        }
    }
}

impl Node {
    pub(super) fn new(
        name: Arc<str>,
        command: Vec<String>,
        decoder: Decoder,
        targets: watch::Receiver<Option<Target>>,
        shared: Arc<Shared>,
    ) -> Self {
        let (messages, capacity) = (shared.messages.clone(), Arc::clone(&shared.capacity));
        Self {
            delivery: Delivery::new(Arc::clone(&name), Arc::clone(&shared.hook), messages, capacity),
            name,
            shared,
            command,
            targets,
            decoder,
            account: Account::default(),
            retry_delay: RETRY_DELAY.0,
            was_ready: false,
            refusals: 0,
            reported: String::new(),
            lost_since: None,
            warned: false,
        }
    }

    /// Runs the command whenever there is an agent, until the session ends. Returns the totals.
    pub(super) async fn run(mut self) -> (Arc<str>, Account) {
        while let Some(target) = self.target().await {
            let outcome = self.attempt(&target).await;
            let outcome = if self.shared.once { outcome.without_retry() } else { outcome };
            match outcome {
                Outcome::Stopped => {}
                Outcome::Done => {
                    self.report(Report::Done);
                    break;
                }
                Outcome::Retry(problem) => {
                    self.problem(&format!("{problem}; retrying"));
                    self.report(Report::Retrying);
                    let delay = self.retry_delay;
                    self.retry_delay = (delay * 2).min(RETRY_DELAY.1);
                    let mut stop = self.stop(&target);
                    select! {
                        () = stop.requested() => {}
                        () = sleep(delay) => {}
                    }
                }
                Outcome::Failed(problem, code) => {
                    self.problem(&problem);
                    self.report(Report::Failed(code));
                    if self.shared.once {
                        break;
                    }
                    self.stop(&target).requested().await;
                }
            }
        }
        self.account.dropped = u128::from(self.delivery.dropped());
        (self.name, self.account)
    }

    /// Waits for an agent. None when the session ends.
    async fn target(&mut self) -> Option<Target> {
        let mut ending = self.shared.ending.clone();
        select! {
            biased;
            () = session_end(&mut ending) => None,
            target = self.targets.wait_for(Option::is_some) => target.ok()?.clone(),
        }
    }

    /// When a run in this agent is to stop.
    fn stop(&self, target: &Target) -> Stop {
        Stop::new(self.shared.ending.clone(), self.targets.clone(), target.clone())
    }

    /// Runs the command once.
    async fn attempt(&mut self, target: &Target) -> Outcome {
        let mut stop = self.stop(target);
        let started = select! {
            biased;
            () = stop.requested() => return Outcome::Stopped,
            started = self.start(target) => started,
        };
        let Exec { input, mut output } = match started {
            Ok(exec) => exec,
            Err(refused) => return self.refused(&refused),
        };
        let mut heartbeat = Heartbeat::new(input, stop);
        let mut attempt = Attempt::new(self);
        let ended = select! {
            // Heartbeats are rare, and must not wait for a node that never pauses.
            biased;
            () = heartbeat.run() => Ended::NotStopped,
            ended = attempt.read(&mut output) => ended,
        };
        attempt.finish(target, heartbeat.is_stopping(), &ended)
    }

    async fn start(&self, target: &Target) -> Result<Exec, Refused> {
        let shared = &self.shared;
        // It is never closed.
        let _permit = shared.starting.acquire().await;
        Exec::start(&shared.client, &shared.namespace, &target.pod, &self.command).await
    }

    fn refused(&mut self, refused: &Refused) -> Outcome {
        self.refusals += 1;
        let problem = format!("cannot run tracer: {refused}");
        let retry = match refused.retry {
            Retry::Yes => true,
            Retry::AFewTimes => self.was_ready || self.refusals < REFUSALS_MAX,
            Retry::No => false,
        };
        if retry { Outcome::Retry(problem) } else { Outcome::Failed(problem, FAILURE) }
    }

    /// All programs are attached. Returns the time without data, if the node was ready before.
    fn ready(&mut self) -> Option<Duration> {
        self.was_ready = true;
        self.refusals = 0;
        self.retry_delay = RETRY_DELAY.0;
        self.reported.clear();
        self.lost_since.take().map(|lost| lost.elapsed())
    }

    fn report(&self, report: Report) {
        // At the end of the session the receiver is dropped.
        let _ = self.shared.reports.send((Arc::clone(&self.name), report));
    }

    /// Writes a status line about a problem, unless it was the last one.
    fn problem(&mut self, problem: &str) {
        if self.reported == problem {
            debug!("node {}: {}", text::line(&self.name), text::line(problem));
            return;
        }
        problem.clone_into(&mut self.reported);
        node_status(&self.name, problem);
    }
}
