//! The event loop of a session.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures_util::StreamExt as _;
use kube::runtime::watcher;
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::nodes::Nodes;
use crate::{
    kubectl::{
        agents::{self, AgentEvents, Agents},
        args::NodesArgs,
        ephemeral::{self, Fleet},
        node::Report,
        text,
        writer::Message,
    },
    model::Matches,
    pipeline::{Stop, WriteCounters},
    run::limits::End,
    sys::stderr::status,
};

/// How long `ready` waits for the last node.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first node may take to be ready.
const FIRST_TIMEOUT: Duration = Duration::from_secs(30);

/// One session over the nodes of a cluster.
pub(super) struct Session<'a> {
    pub(super) args: &'a NodesArgs,
    pub(super) fleet: Fleet,
    pub(super) agents: Agents,
    pub(super) pods: AgentEvents,
    pub(super) nodes: Nodes,
    pub(super) reports: mpsc::UnboundedReceiver<(Arc<str>, Report)>,
    pub(super) ending: watch::Sender<bool>,
    pub(super) writer: WriterHandle,
    pub(super) end: End,
    pub(super) watch: WatchState,
    /// Whether every node is ready or was reported.
    pub(super) ready: bool,
    /// What the selection matches, as reported last.
    pub(super) matches: Matches,
}

/// The writer's thread.
pub(super) struct WriterHandle {
    pub(super) written: Arc<[WriteCounters; 1]>,
    /// Sent when nothing more is to be written.
    pub(super) stopped: oneshot::Receiver<Stop>,
    /// Sent when the thread ends.
    pub(super) finished: oneshot::Receiver<()>,
}

/// The state of the watch on the agents.
#[derive(Default)]
pub(super) struct WatchState {
    /// How often it has failed in a row.
    failures: u32,
    /// The problem that was reported last.
    reported: Option<String>,
}

/// When to stop waiting for nodes.
struct Deadlines {
    begun: Instant,
    /// For nodes that are starting.
    starting: Option<Instant>,
    /// For the first node that is ready. A list has its own limits for each node.
    first: Option<Instant>,
    /// Of `--timeout`: set when the session is ready.
    timeout: Option<Instant>,
}

impl Session<'_> {
    pub(super) async fn run(mut self) -> anyhow::Result<ExitCode> {
        self.nodes.expect(&self.fleet);
        self.nodes.follow(&self.agents, self.args, &self.fleet);
        self.nodes.report_missing(self.args, &self.fleet);
        let once = self.nodes.plan.once;
        let begun = Instant::now();
        let first = if self.fleet.is_ephemeral() { ephemeral::START_TIMEOUT } else { FIRST_TIMEOUT };
        let mut deadlines = Deadlines {
            begun,
            starting: Some(begun + if once { first } else { READY_TIMEOUT }),
            first: (!once).then(|| begun + first),
            timeout: None,
        };
        let result = loop {
            if !self.ready && self.nodes.are_ready() {
                self.set_ready(&mut deadlines);
            }
            if let Some(result) = self.nodes.result(self.ready) {
                break result;
            }
            if let Some(result) = self.step(&mut deadlines).await {
                break result;
            }
        };
        self.finish(result).await
    }

    fn set_ready(&mut self, deadlines: &mut Deadlines) {
        self.ready = true;
        // The writer runs until the last sender is dropped.
        let _ = self.nodes.shared().messages.send(Message::Listed);
        if !self.nodes.plan.once {
            self.matches = self.nodes.matches();
            let matches = self.matches.text(&self.nodes.plan.options, self.nodes.place());
            status(&format!("ready ({})", text::line(&matches)));
            deadlines.timeout = self.nodes.plan.timeout.and_then(|time| Instant::now().checked_add(time));
        }
    }

    /// Handles one event. Returns the result if the session ends.
    async fn step(&mut self, deadlines: &mut Deadlines) -> Option<anyhow::Result<ExitCode>> {
        // A list uses the agents that exist or were created for it.
        let follows_pods = !self.nodes.plan.once || self.fleet.is_ephemeral();
        select! {
            () = self.end.requested() => Some(self.interrupted()),
            () = reached(deadlines.starting), if !self.ready && deadlines.starting.is_some() => {
                deadlines.starting = None;
                self.nodes.give_up_starting(deadlines.begun.elapsed());
                None
            }
            () = reached(deadlines.first), if !self.ready && deadlines.starting.is_none() => {
                Some(Err(self.nodes.failure()))
            }
            () = reached(deadlines.timeout) => {
                debug!("timeout");
                Some(Ok(ExitCode::SUCCESS))
            }
            stop = &mut self.writer.stopped => Some(match stop {
                Ok(Stop::Failed(error)) => Err(error).context("writing to standard output"),
                Ok(Stop::MaxEvents | Stop::Closed) => Ok(ExitCode::SUCCESS),
                Err(_) => Err(anyhow!("the output thread ended unexpectedly")),
            }),
            Some((node, report)) = self.reports.recv() => {
                self.nodes.apply(&node, &report);
                self.report_matches();
                None
            }
            Some(event) = self.pods.next(), if follows_pods => {
                match event {
                    Ok(event) => {
                        // The list that `Init` begins may still fail.
                        if !matches!(event, watcher::Event::Init) {
                            self.watch.recovered();
                        }
                        self.agents.apply(event);
                        self.nodes.follow(&self.agents, self.args, &self.fleet);
                    }
                    Err(error) => self.watch.failed(&error),
                }
                None
            }
        }
    }

    /// Reports that the selection matches something now and did not, or the other way round.
    fn report_matches(&mut self) {
        if !self.ready || self.nodes.plan.once {
            return;
        }
        let before = std::mem::replace(&mut self.matches, self.nodes.matches());
        if let Some(change) = self.matches.change(&before, &self.nodes.plan.options) {
            status(&text::line(&change));
        }
    }

    /// The result after a signal.
    fn interrupted(&self) -> anyhow::Result<ExitCode> {
        if self.nodes.plan.once || self.ready || self.nodes.any_ready() {
            return Ok(ExitCode::SUCCESS);
        }
        bail!("interrupted before any node was traced")
    }
}

impl WatchState {
    /// Reports a problem that lasts, once. That the server has discarded the version to resume from is not a problem.
    fn failed(&mut self, error: &watcher::Error) {
        let problem = text::line(&agents::problem(error));
        self.failures += 1;
        if agents::is_expired(error) || self.failures == 1 || self.reported.as_ref() == Some(&problem) {
            debug!("watching the agents: {problem}");
            return;
        }
        status(&format!("cannot watch the agents: {problem}; retrying"));
        self.reported = Some(problem);
    }

    fn recovered(&mut self) {
        if std::mem::take(self).reported.is_some() {
            status("watching the agents again");
        }
    }
}

/// Returns at that time; never if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
