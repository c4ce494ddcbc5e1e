//! One run over the nodes of a cluster: find the agents, follow each, show what comes, and account for all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use futures_util::StreamExt as _;
use tokio::{
    select,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    account::Account,
    agents::{self, Agent, AgentEvents, Agents, Place, Target},
    args::{Common, NodesArgs},
    cluster::Cluster,
    ephemeral::over_agents,
    node::{Node, ROOM, Report, Shared, come},
    reading::Reading,
    remote::Remote,
    writer::{Message, View, Writer},
};
use crate::{
    cli::{
        FAILURE, UNSUPPORTED,
        args::{ListArgs, NodeArgs, SelectionArgs, TraceArgs},
        config, say,
    },
    error::Unsupported,
    observe::{End, Limits, spawn},
    render::{self, ContainerRenderer, ListOf},
    stdout,
    trace::{Stop, Tracer, Written},
};

/// How many nodes may be asked to start at a time.
const STARTING: usize = 64;
/// How long the word that all nodes are ready waits for the last of them.
const READY_PATIENCE: Duration = Duration::from_secs(30);

/// `kubectl tracer trace`.
pub(super) async fn trace(args: &TraceArgs, nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    // Wrong usage is told before anybody is asked.
    let checked = config::trace(args, &NodeArgs::default(), common.log.log().is_verbose())?;
    let (cluster, namespaces) = find(&args.selection, common).await?;
    let remote = Remote::trace(args, &namespaces, nodes.lease, common.log.log());
    let tracer = checked.tracer;
    let plan = Plan {
        remote,
        kind: Kind::Events(tracer),
        max_events: checked.max_events,
        timeout: checked.limits.timeout,
        once: false,
    };
    let view = |widest: &str| {
        let renderer = config::renderer(&args.output, tracer, widest).map_err(anyhow::Error::msg)?;
        Ok(View::Events { tracer, renderer })
    };
    over_agents(&cluster, nodes, common, async |place| {
        Session::start(plan, &cluster, nodes, place, view).await?.run().await
    })
    .await
}

/// `kubectl tracer list-containers`.
pub(super) async fn list(args: &ListArgs, nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let checked = config::list(args, &NodeArgs::default(), common.log.log().is_verbose())?;
    let (cluster, namespaces) = find(&args.selection, common).await?;
    let remote = Remote::list(args, &namespaces, nodes.lease, common.log.log());
    let plan = Plan {
        remote,
        kind: Kind::Containers,
        max_events: None,
        timeout: checked.limits.timeout,
        once: !args.watch,
    };
    let view = |widest: &str| {
        let (output, header) = (&args.output.output, !args.output.no_headers);
        let terminal = config::terminal_width();
        let renderer = ContainerRenderer::new(ListOf::Cluster, output, widest, header, terminal, args.watch);
        Ok(View::Containers { renderer: renderer.map_err(anyhow::Error::msg)?, waiting: Some(Vec::new()) })
    };
    over_agents(&cluster, nodes, common, async |place| {
        Session::start(plan, &cluster, nodes, place, view).await?.run().await
    })
    .await
}

/// The cluster, and the namespaces that are asked for there.
async fn find(selection: &SelectionArgs, common: &Common) -> anyhow::Result<(Cluster, Vec<String>)> {
    let cluster = Cluster::find(&common.cluster)?;
    let namespaces = match &selection.namespace[..] {
        _ if selection.all_namespaces => Vec::new(),
        [] => vec![cluster.namespace.clone()],
        given => given.to_vec(),
    };
    Ok((cluster, namespaces))
}

/// What to do on the nodes.
struct Plan {
    remote: Remote,
    kind: Kind,
    max_events: Option<u64>,
    timeout: Option<Duration>,
    /// Whether it ends by itself.
    once: bool,
}

/// What the nodes print.
#[derive(Clone, Copy)]
enum Kind {
    Events(&'static dyn Tracer),
    Containers,
}

impl Kind {
    /// As reports of losses call it.
    fn hook(self) -> &'static str {
        match self {
            Self::Events(tracer) => tracer.name(),
            Self::Containers => "containers",
        }
    }

    fn reading(self) -> Reading {
        match self {
            Self::Events(tracer) => Reading::events(tracer),
            Self::Containers => Reading::Containers,
        }
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was not heard of yet.
    Starting,
    /// All is well, or will be.
    Well,
    /// Something is wrong, and may come right.
    Trouble,
    /// It has failed, with this exit code.
    Failed(u8),
    /// It has done all.
    Done,
}

struct Known {
    state: State,
    target: watch::Sender<Option<Target>>,
}

struct Session<'a> {
    plan: Plan,
    nodes: &'a NodesArgs,
    agents: Agents,
    pods: AgentEvents,
    known: BTreeMap<Arc<str>, Known>,
    shared: Arc<Shared>,
    tasks: JoinSet<(Arc<str>, Account)>,
    reports: mpsc::UnboundedReceiver<(Arc<str>, Report)>,
    ending: watch::Sender<bool>,
    shown: Arc<Written>,
    /// Tells that showing has come to an end by itself.
    stopped: oneshot::Receiver<Stop>,
    /// Tells that the writer has ended.
    written: oneshot::Receiver<()>,
    end: End,
    /// What was said of the watch on agents last.
    said: String,
    ready: bool,
}

impl<'a> Session<'a> {
    /// Finds the agents; nothing is executed yet.
    async fn start(
        plan: Plan,
        cluster: &Cluster,
        nodes: &'a NodesArgs,
        place: Place,
        view: impl FnOnce(&str) -> anyhow::Result<View>,
    ) -> anyhow::Result<Self> {
        let mut end = End::new(Limits::default())?;
        let mut pods = place.watch(cluster.client.clone(), nodes);
        let agents = select! {
            () = end.told() => bail!("ended before the agents were found"),
            agents = listed(&mut pods, cluster, &place) => agents?,
        };
        let found = agents.by_node();
        let chosen: Vec<&str> = found.keys().copied().filter(|node| nodes.select(node)).collect();
        let Some(widest) = chosen.iter().max_by_key(|node| node.len()) else {
            bail!(none(&place, nodes));
        };
        let (messages, to_write) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (finish, written) = oneshot::channel();
        let shown = Arc::new(Written::default());
        let writer = Writer::new(view(widest)?, plan.max_events, Arc::clone(&shown), stop);
        stdout::prepare();
        spawn("output", move || {
            writer.run(to_write);
            // The session is gone only if it has given up waiting.
            let _ = finish.send(());
            Ok(())
        })?;
        let (reporter, reports) = mpsc::unbounded_channel();
        let (ending, is_ending) = watch::channel(false);
        let shared = Shared {
            client: cluster.client.clone(),
            namespace: place.namespace,
            once: plan.once,
            hook: plan.kind.hook(),
            messages,
            reports: reporter,
            ending: is_ending,
            room: Arc::new(Semaphore::new(ROOM as usize)),
            starting: Semaphore::new(STARTING),
        };
        Ok(Self {
            plan,
            nodes,
            agents,
            pods,
            known: BTreeMap::new(),
            shared: Arc::new(shared),
            tasks: JoinSet::new(),
            reports,
            ending,
            shown,
            stopped,
            written,
            end,
            said: String::new(),
            ready: false,
        })
    }

    async fn run(mut self) -> anyhow::Result<ExitCode> {
        self.follow_agents();
        self.miss_nodes();
        let (mut until, late) = (None, Instant::now() + READY_PATIENCE);
        let result = loop {
            if !self.ready && self.is_ready() {
                self.ready = true;
                // Who listens is there as long as this is.
                let _ = self.shared.messages.send(Message::Listed);
                if !self.plan.once {
                    say("ready");
                    until = self.plan.timeout.and_then(|time| Instant::now().checked_add(time));
                }
            }
            if let Some(result) = self.outcome() {
                break result;
            }
            select! {
                () = self.end.told() => break Ok(ExitCode::SUCCESS),
                () = sleep_until(late), if !self.ready && !self.plan.once => self.pass_over(),
                () = come(until) => {
                    debug!("timeout");
                    break Ok(ExitCode::SUCCESS);
                }
                stop = &mut self.stopped => break match stop {
                    Ok(Stop::Failed(error)) => Err(error).context("writing to standard output"),
                    Ok(Stop::MaxEvents | Stop::Closed) => Ok(ExitCode::SUCCESS),
                    Err(_) => Err(anyhow!("the thread that shows events has ended without a word")),
                },
                Some((node, report)) = self.reports.recv() => self.learn(&node, &report),
                Some(event) = self.pods.next(), if !self.plan.once => match event {
                    Ok(event) => {
                        self.agents.learn(event);
                        self.follow_agents();
                    }
                    Err(error) => self.blind(&agents::problem(&error)),
                },
            }
        };
        self.finish(result).await
    }

    /// No more is waited for nodes of which nothing was heard.
    fn pass_over(&mut self) {
        for (name, known) in self.known.iter_mut().filter(|(_, known)| known.state == State::Starting) {
            say(&format!(
                "node {}: it is not ready after {READY_PATIENCE:?}; the others go on",
                render::line(name)
            ));
            known.state = State::Trouble;
        }
    }

    /// Gives each node that is asked for its agent, or takes it.
    fn follow_agents(&mut self) {
        let by_node = self.agents.by_node();
        for (&name, &agent) in by_node.iter().filter(|(name, _)| self.nodes.select(name)) {
            let known = self.known.entry(name.into()).or_insert_with_key(|name| {
                let (target, targets) = watch::channel(None);
                let command = self.plan.remote.on(name);
                let reading = self.plan.kind.reading();
                let node = Node::new(Arc::clone(name), command, reading, targets, Arc::clone(&self.shared));
                self.tasks.spawn(node.run());
                Known { state: State::Starting, target }
            });
            let target = match agent {
                Agent::Running(target) => Some(target.clone()),
                Agent::Waiting(why) => {
                    if known.target.borrow().is_some() || known.state == State::Starting {
                        say(&format!("node {}: {}", render::line(name), render::line(why)));
                        // What is done once waits for nobody.
                        known.state = if self.plan.once { State::Failed(FAILURE) } else { State::Trouble };
                    }
                    None
                }
            };
            known.change(target);
        }
        for (name, known) in &mut self.known {
            if !by_node.contains_key(&**name) && known.target.borrow().is_some() {
                say(&format!("node {}: its agent has gone", render::line(name)));
                known.change(None);
                known.state = State::Trouble;
            }
        }
    }

    /// Names the nodes that were asked for and have no agent.
    fn miss_nodes(&self) {
        for node in self.nodes.node.iter().filter(|node| !self.known.contains_key(node.as_str())) {
            say(&format!(
                "node {}: it has no agent: either there is no such node, or no pod of tracer runs there",
                render::line(node)
            ));
        }
    }

    fn learn(&mut self, node: &Arc<str>, report: &Report) {
        let Some(known) = self.known.get_mut(node) else { return };
        known.state = match report {
            Report::Ready => State::Well,
            Report::Trouble => State::Trouble,
            Report::Failed(code) => State::Failed(*code),
            Report::Done => State::Done,
        };
    }

    /// Agents that come and go are not seen for now.
    fn blind(&mut self, problem: &str) {
        if self.said != problem {
            warn!("which nodes there are is not seen for now: {}", render::line(problem));
            problem.clone_into(&mut self.said);
        }
    }

    /// Whether each node is ready, or what is wrong with it has been said.
    fn is_ready(&self) -> bool {
        !self.known.values().any(|known| known.state == State::Starting || self.plan.once && !known.is_over())
    }

    /// What comes out if there is nothing more to wait for.
    fn outcome(&self) -> Option<anyhow::Result<ExitCode>> {
        if !self.known.values().all(Known::is_over) {
            return None;
        }
        let codes: BTreeSet<u8> = self
            .known
            .values()
            .filter_map(|known| match known.state {
                State::Failed(code) => Some(code),
                _ => None,
            })
            .collect();
        let some_done = self.known.values().any(|known| known.state == State::Done);
        if some_done || codes.is_empty() {
            return Some(Ok(ExitCode::SUCCESS));
        }
        let problem = match self.known.len() {
            1 => "the node cannot be looked into".to_owned(),
            all => format!("none of the {all} nodes can be looked into"),
        };
        let is_unsupported = codes.iter().all(|code| *code == UNSUPPORTED);
        Some(Err(if is_unsupported {
            Unsupported::new(problem, "what is missing is said above").into()
        } else {
            anyhow!("{problem}: what is wrong is said above")
        }))
    }

    /// Ends what runs on the nodes, waits for their last words, and adds up.
    async fn finish(mut self, result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        self.ending.send_replace(true);
        let mut accounts = BTreeMap::new();
        loop {
            select! {
                biased;
                // Each ends within a few seconds.
                joined = self.tasks.join_next() => match joined {
                    None => break,
                    Some(Ok((node, account))) => drop(accounts.insert(node, account)),
                    Some(Err(error)) => warn!("a node's task has failed: {error}"),
                },
                () = self.end.told() => {
                    say("ended at once: what the nodes saw is not known");
                    return Ok(ExitCode::from(FAILURE));
                }
            }
        }
        // The writer ends when nobody is left who tells it anything.
        drop(self.shared);
        // What it does not come to any more is lost.
        let _ = stdout::finished(&mut self.written, || 0).await;
        if matches!(self.plan.kind, Kind::Events(_)) {
            add_up(&accounts, &self.shown);
        }
        result
    }
}

impl Known {
    fn change(&mut self, target: Option<Target>) {
        let changed = self.target.send_if_modified(|now| {
            let differs = *now != target;
            *now = target;
            differs
        });
        if changed && matches!(self.state, State::Failed(_)) {
            self.state = State::Trouble;
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self.state, State::Failed(_) | State::Done)
    }
}

/// Says what is known of all events.
fn add_up(accounts: &BTreeMap<Arc<str>, Account>, shown: &Written) {
    let mut all = Account::default();
    for (node, account) in accounts {
        let Account { open, arrived_open, malformed, dropped, .. } = account;
        debug!("node {}: malformed {malformed} output {dropped}", render::line(node));
        if *open > 0 {
            say(&format!(
                "node {}: of {open} of its runs the closing line never came: of their events no more is known than the \
                 {arrived_open} that came, which are in the sum",
                render::line(node)
            ));
        }
        all += *account;
    }
    let sum = all.sum(shown);
    say(&format!("seen {} emitted {} filtered {} lost {}", sum.seen, sum.emitted, sum.filtered, sum.lost));
}

/// The agents that there are now.
pub(super) async fn list_agents(
    cluster: &Cluster,
    nodes: &NodesArgs,
    place: &Place,
) -> anyhow::Result<Agents> {
    listed(&mut place.watch(cluster.client.clone(), nodes), cluster, place).await
}

/// The agents, when all that there are are known.
async fn listed(events: &mut AgentEvents, cluster: &Cluster, place: &Place) -> anyhow::Result<Agents> {
    let mut agents = Agents::default();
    loop {
        let event = events.next().await.context("the watch on agents has ended")?;
        let event = event.map_err(|error| {
            let (namespace, problem) = (&place.namespace, agents::problem(&error));
            anyhow!("the agents in namespace {namespace} of {} cannot be listed: {problem}", cluster.server)
        })?;
        if agents.learn(event) {
            return Ok(agents);
        }
    }
}

/// What to say where there is no agent.
pub(super) fn none(place: &Place, nodes: &NodesArgs) -> String {
    let which = match &nodes.node[..] {
        [] => String::new(),
        named => format!(" on {}", named.join(", ")),
    };
    format!(
        "there is no agent{which} in namespace {}: `kubectl tracer deploy` puts one on each node; \
         --tracer-namespace names another namespace, --ephemeral makes agents that vanish afterwards",
        place.namespace
    )
}
