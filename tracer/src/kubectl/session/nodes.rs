//! The state of each node: whether it has an agent, and what became of the command there.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::anyhow;
use tokio::{sync::watch, task::JoinSet};

use super::Plan;
use crate::{
    error::{FAILURE, UNSUPPORTED, Unsupported},
    kubectl::{
        account::Account,
        agents::{Agent, Agents, Outlook, Target, Waiting},
        args::NodesArgs,
        ephemeral::Fleet,
        node::{Node, Report, Shared, node_status},
    },
    model::Matches,
};

/// The state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Starting,
    /// The command runs.
    Ready,
    /// There is a problem, which may be temporary.
    Retrying,
    /// No agent runs there, and the cluster has reported why.
    NoAgent,
    /// It has failed, with this exit code.
    Failed(u8),
    /// The command is done.
    Done,
}

struct NodeStatus {
    state: State,
    target: watch::Sender<Option<Target>>,
    /// Why no agent runs there, as far as it is known.
    reason: String,
    /// The reason that was reported last.
    reported: String,
    /// What the selection matched there last.
    matches: Matches,
}

/// All nodes. Each has a task that runs the command there.
pub(super) struct Nodes {
    pub(super) plan: Plan,
    shared: Arc<Shared>,
    statuses: BTreeMap<Arc<str>, NodeStatus>,
    tasks: JoinSet<(Arc<str>, Account)>,
}

impl Nodes {
    pub(super) fn new(plan: Plan, shared: Shared) -> Self {
        Self { plan, shared: Arc::new(shared), statuses: BTreeMap::new(), tasks: JoinSet::new() }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The status of a node; a new node gets a task.
    fn entry(&mut self, name: &str) -> &mut NodeStatus {
        let Self { plan, shared, statuses, tasks } = self;
        statuses.entry(name.into()).or_insert_with_key(|name| {
            let (target, targets) = watch::channel(None);
            let (command, decoder) = (plan.command.on(name), plan.content.decoder(Arc::clone(name)));
            let node = Node::new(Arc::clone(name), command, decoder, targets, Arc::clone(shared));
            tasks.spawn(node.run());
            NodeStatus {
                state: State::Starting,
                target,
                reason: String::new(),
                reported: String::new(),
                matches: Matches::default(),
            }
        })
    }

    /// Adds the nodes that agents were created on. A problem of such a node does not delay the others.
    pub(super) fn expect(&mut self, fleet: &Fleet) {
        let once = self.plan.once;
        for (name, problem) in &fleet.expected {
            let status = self.entry(name);
            if let Some(problem) = problem {
                node_status(name, problem);
                status.state = if once { State::Failed(FAILURE) } else { State::NoAgent };
            }
        }
    }

    /// Gives each selected node its agent, or takes it away.
    pub(super) fn follow(&mut self, agents: &Agents, nodes: &NodesArgs, fleet: &Fleet) {
        let by_node = agents.by_node();
        let (once, is_ephemeral) = (self.plan.once, fleet.is_ephemeral());
        for (&name, &agent) in by_node.iter().filter(|(name, _)| nodes.selects(name)) {
            let status = self.entry(name);
            match agent {
                Agent::Running(target) => status.set_target(Some(target.clone())),
                Agent::Waiting(waiting) => status.wait(name, waiting, once, is_ephemeral),
            }
        }
        for (name, status) in &mut self.statuses {
            if !by_node.contains_key(&**name) && status.target.borrow().is_some() {
                node_status(name, "its agent was deleted");
                status.set_target(None);
                status.state = State::Retrying;
            }
        }
    }

    /// Reports the nodes that are selected by name and have no agent.
    pub(super) fn report_missing(&self, nodes: &NodesArgs, fleet: &Fleet) {
        for node in nodes.node.iter().filter(|node| !self.statuses.contains_key(node.as_str())) {
            // These were reported before, with the reason.
            if !fleet.is_ephemeral() && fleet.unsupported.kind(node).is_none() {
                node_status(node, "no agent: the node does not exist, or no tracer pod runs there");
            }
        }
    }

    /// Stops waiting for nodes that are starting.
    pub(super) fn give_up_starting(&mut self, waited: Duration) {
        let waited = humantime::format_duration(Duration::from_secs(waited.as_secs()));
        let once = self.plan.once;
        for (name, status) in self.statuses.iter_mut().filter(|(_, status)| status.state == State::Starting) {
            let has_agent = status.target.borrow().is_some();
            // A list has its own limits.
            if once && has_agent {
                continue;
            }
            let reason = match (has_agent, status.reason.as_str()) {
                (true, _) => String::new(),
                (false, "") => ": no agent pod found".to_owned(),
                (false, reason) => format!(": {reason}"),
            };
            node_status(name, &format!("not ready after {waited}{reason}"));
            status.state = if once { State::Failed(FAILURE) } else { State::Retrying };
        }
    }

    /// Applies what a node's task reports.
    pub(super) fn apply(&mut self, node: &str, report: &Report) {
        let Some(status) = self.statuses.get_mut(node) else { return };
        let before = status.state;
        status.state = match report {
            Report::Matches(matches) => {
                status.matches.clone_from(matches);
                return;
            }
            Report::Ready { .. } => State::Ready,
            Report::Retrying => State::Retrying,
            Report::Failed(code) => State::Failed(*code),
            Report::Done => State::Done,
        };
        let Report::Ready { gap } = report else { return };
        match gap {
            Some(gap) => node_status(node, &format!("traced again after a gap of {}", rounded(*gap))),
            None if matches!(before, State::Retrying | State::NoAgent) => node_status(node, "traced now"),
            None => {}
        }
    }

    /// What the selection matches on the nodes where the command runs.
    pub(super) fn matches(&self) -> Matches {
        let mut all = Matches::default();
        for status in self.statuses.values().filter(|status| status.state == State::Ready) {
            all.merge(&status.matches);
        }
        all
    }

    /// Where containers are, in messages.
    pub(super) fn place(&self) -> &'static str {
        if self.statuses.len() == 1 { "the node" } else { "these nodes" }
    }

    fn states(&self) -> impl Iterator<Item = State> + Clone {
        self.statuses.values().map(|status| status.state)
    }

    /// Whether the command runs on a node.
    pub(super) fn any_ready(&self) -> bool {
        self.states().any(|state| state == State::Ready)
    }

    /// Whether the state of every node is known, and one of them does what it should.
    pub(super) fn are_ready(&self) -> bool {
        if self.plan.once {
            self.states().all(State::is_final) && self.states().any(|state| state == State::Done)
        } else {
            self.states().all(|state| state != State::Starting) && self.any_ready()
        }
    }

    /// The result, if there is nothing to wait for. `ready` is whether the session was ready.
    pub(super) fn result(&self, ready: bool) -> Option<anyhow::Result<ExitCode>> {
        let hopeless = |state| matches!(state, State::Failed(_)) || state == State::NoAgent && !ready;
        if self.states().all(hopeless) {
            return Some(Err(self.failure()));
        }
        let is_done = self.states().all(State::is_final) && self.states().any(|state| state == State::Done);
        is_done.then_some(Ok(ExitCode::SUCCESS))
    }

    /// The error if no node does what it should.
    pub(super) fn failure(&self) -> anyhow::Error {
        let participle = self.plan.content.participle();
        let problem = match self.statuses.len() {
            1 => format!("the node cannot be {participle}"),
            all => format!("none of the {all} nodes can be {participle}"),
        };
        let mut codes = self.states().map(|state| match state {
            State::Failed(code) => code,
            _ => FAILURE,
        });
        if codes.all(|code| code == UNSUPPORTED) {
            Unsupported::new(problem, "see above for what is missing").into()
        } else {
            anyhow!("{problem}; see above for the reasons")
        }
    }

    /// The next task that has ended, until all have.
    pub(super) async fn join_next(&mut self) -> Option<Result<(Arc<str>, Account), tokio::task::JoinError>> {
        self.tasks.join_next().await
    }
}

impl State {
    const fn is_final(self) -> bool {
        matches!(self, Self::Failed(_) | Self::Done)
    }
}

impl NodeStatus {
    /// The agent does not run. A command that ends by itself waits only for agents that were created for it.
    fn wait(&mut self, name: &str, waiting: &Waiting, once: bool, is_ephemeral: bool) {
        waiting.reason.clone_into(&mut self.reason);
        let ran = self.target.borrow().is_some();
        self.set_target(None);
        let has_failed = waiting.outlook == Outlook::Failed;
        let gives_up = once && !is_ephemeral || has_failed;
        let is_open = matches!(self.state, State::Starting | State::Retrying | State::NoAgent);
        if !(ran || gives_up && is_open) {
            return;
        }
        if self.reported != waiting.reason {
            node_status(name, &waiting.reason);
            waiting.reason.clone_into(&mut self.reported);
        }
        self.state = if once && (gives_up || ran) {
            State::Failed(FAILURE)
        } else if has_failed {
            State::NoAgent
        } else {
            State::Retrying
        };
    }

    fn set_target(&mut self, target: Option<Target>) {
        let changed = self.target.send_if_modified(|now| {
            let differs = *now != target;
            *now = target;
            differs
        });
        if changed && matches!(self.state, State::Failed(_) | State::NoAgent) {
            self.state = State::Retrying;
        }
    }
}

/// Rounds a duration to seconds, or to milliseconds below one second.
fn rounded(time: Duration) -> String {
    let exact = if time.as_secs() > 0 {
        Duration::from_secs(time.as_secs())
    } else {
        Duration::from_millis(u64::from(time.subsec_millis()))
    };
    humantime::format_duration(exact).to_string()
}
