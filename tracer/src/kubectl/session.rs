//! One run over the nodes of a cluster: find the agents, follow each, show what comes, and account for all of it.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures_util::{StreamExt as _, future::join_all};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, runtime::watcher};
use tokio::{
    select,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use crate::{
    cli::{
        args::{ListArgs, NodeArgs, SelectionArgs, TraceArgs},
        config,
    },
    error::{FAILURE, UNSUPPORTED, Unsupported},
    kinds::Tracer,
    kubectl::{
        account::Account,
        agents,
        agents::{Agent, AgentEvents, Agents, Place, Target, Waiting},
        args::{Common, NodesArgs},
        cluster,
        cluster::Cluster,
        ephemeral::{Fleet, over_agents},
        node::{Node, ROOM, Report, Shared, come},
        nodes::Unable,
        plain,
        reading::Reading,
        remote::Remote,
        writer::{Message, View, Writer},
    },
    model::Pattern,
    output::{ContainerRenderer, ListOf},
    pipeline::{Stop, Written},
    run::limits::End,
    sanitize,
    sys::{stderr::status, stdout, thread::spawn},
};

/// How many nodes may be asked to start at a time.
const STARTING: usize = 64;
/// How long the word that all nodes are ready waits for the last of them.
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// How long the first node may take: agents of this run may have to pull their image.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
const FIRST_EPHEMERAL_PATIENCE: Duration = Duration::from_secs(90);
/// How long looking for the namespaces that are asked for may take.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(3);

/// `kubectl tracer trace`.
pub(super) async fn trace(args: &TraceArgs, nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    // Wrong usage is told before anybody is asked.
    let checked = config::trace(args, &NodeArgs::default(), common.log.log().is_verbose())?;
    let (cluster, namespaces) = find(&args.selection, common)?;
    let remote = Remote::trace(args, &namespaces, nodes.lease, common.log.log());
    let tracer = checked.tracer;
    let plan = Plan {
        remote,
        namespaces: wanted(&namespaces),
        kind: Kind::Events(tracer),
        max_events: checked.max_events,
        timeout: checked.limits.timeout,
        once: false,
    };
    let view = |widest: &str| {
        let renderer = config::renderer(&args.output, tracer, widest).map_err(anyhow::Error::msg)?;
        Ok(View::Events { tracer, renderer })
    };
    over_agents(&cluster, nodes, common, async |fleet, end| {
        Session::start(plan, &cluster, nodes, fleet, view, end).await?.run().await
    })
    .await
}

/// `kubectl tracer list-containers`.
pub(super) async fn list(args: &ListArgs, nodes: &NodesArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let checked = config::list(args, &NodeArgs::default(), common.log.log().is_verbose())?;
    let (cluster, namespaces) = find(&args.selection, common)?;
    let remote = Remote::list(args, &namespaces, nodes.lease, common.log.log());
    let nothing = (!args.watch).then(|| no_resources(&namespaces));
    let plan = Plan {
        remote,
        namespaces: wanted(&namespaces),
        kind: Kind::Containers,
        max_events: None,
        timeout: checked.limits.timeout,
        once: !args.watch,
    };
    let view = |widest: &str| {
        let (output, header) = (&args.output.output, !args.output.no_headers);
        let terminal = config::terminal_width();
        let renderer = ContainerRenderer::new(ListOf::Cluster, output, widest, header, terminal, args.watch);
        let renderer = renderer.map_err(anyhow::Error::msg)?;
        Ok(View::Containers { renderer, waiting: Some(Vec::new()), nothing })
    };
    over_agents(&cluster, nodes, common, async |fleet, end| {
        Session::start(plan, &cluster, nodes, fleet, view, end).await?.run().await
    })
    .await
}

/// The cluster, and the namespaces that are asked for there.
fn find(selection: &SelectionArgs, common: &Common) -> anyhow::Result<(Cluster, Vec<String>)> {
    let cluster = Cluster::find(&common.cluster)?;
    let namespaces = match &selection.namespace[..] {
        _ if selection.all_namespaces => Vec::new(),
        [] => vec![cluster.namespace.clone()],
        given => given.to_vec(),
    };
    Ok((cluster, namespaces))
}

/// The namespaces that must be there for anything to be shown.
fn wanted(namespaces: &[String]) -> Vec<String> {
    // What it cannot be read as has been refused before.
    Pattern::parse(namespaces).map(|pattern: Pattern| pattern.wanted().to_vec()).unwrap_or_default()
}

/// What kubectl says where there is nothing to list.
fn no_resources(namespaces: &[String]) -> String {
    let wanted = wanted(namespaces);
    match &wanted[..] {
        [] => "No resources found".to_owned(),
        [one] => format!("No resources found in {} namespace.", plain::line(one)),
        all => format!("No resources found in {} namespaces.", plain::names(all.iter().map(String::as_str))),
    }
}

/// What to do on the nodes.
struct Plan {
    remote: Remote,
    /// The namespaces that are asked for by name.
    namespaces: Vec<String>,
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

    /// What is done with a node.
    fn done(self) -> &'static str {
        match self {
            Self::Events(_) => "traced",
            Self::Containers => "listed",
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
    /// No agent runs there, and the cluster has said why.
    Stuck,
    /// It has failed, with this exit code.
    Failed(u8),
    /// It has done all.
    Done,
}

struct Known {
    state: State,
    target: watch::Sender<Option<Target>>,
    /// Why no agent runs there, as far as it is known.
    why: String,
    /// What was said last of that.
    said: String,
}

struct Session<'a> {
    plan: Plan,
    nodes: &'a NodesArgs,
    fleet: Fleet,
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
    watch: WatchState,
    ready: bool,
}

/// How the watch on agents is.
#[derive(Default)]
struct WatchState {
    /// How often it has failed in a row.
    failed: u32,
    /// What was said of that.
    said: Option<String>,
}

impl<'a> Session<'a> {
    /// Finds the agents; nothing is executed yet.
    async fn start(
        plan: Plan,
        cluster: &Cluster,
        nodes: &'a NodesArgs,
        mut fleet: Fleet,
        view: impl FnOnce(&str) -> anyhow::Result<View>,
        mut end: End,
    ) -> anyhow::Result<Self> {
        let mut pods = fleet.place.watch(cluster.client.clone(), nodes);
        let unable = async {
            if fleet.is_ephemeral() { None } else { Some(Unable::find(&cluster.client, nodes).await) }
        };
        let found = async {
            tokio::join!(
                listed(&mut pods, cluster, &fleet.place),
                unable,
                check_namespaces(&cluster.client, &plan.namespaces),
            )
        };
        let (agents, unable, ()) = select! {
            () = end.requested() => bail!("ended before the agents were found"),
            found = found => found,
        };
        let mut agents = agents?;
        if nodes.node.len() == 1 && agents.by_node().is_empty() {
            learn_unbound(&mut agents, &fleet.place, &cluster.client).await;
        }
        fleet.unable = unable.unwrap_or(fleet.unable);
        fleet.unable.say();
        let found = agents.by_node();
        let chosen = found.keys().copied().filter(|node| nodes.select(node));
        let all = chosen.chain(fleet.expected.keys().map(String::as_str));
        let Some(widest) = all.max_by_key(|node| node.len()) else {
            bail!(none(&fleet.place, nodes));
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
            namespace: fleet.place.namespace.clone(),
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
            fleet,
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
            watch: WatchState::default(),
            ready: false,
        })
    }

    async fn run(mut self) -> anyhow::Result<ExitCode> {
        self.expect_nodes();
        self.follow_agents();
        self.miss_nodes();
        let begun = Instant::now();
        let first = if self.fleet.is_ephemeral() { FIRST_EPHEMERAL_PATIENCE } else { FIRST_PATIENCE };
        // Lists wait for their nodes: each has its own limits. Those without an agent are waited for here.
        let mut late = Some(begun + if self.plan.once { first } else { READY_PATIENCE });
        let last = (!self.plan.once).then(|| begun + first);
        let mut until = None;
        let result = loop {
            if !self.ready && self.is_ready() {
                self.ready = true;
                // Who listens is there as long as this is.
                let _ = self.shared.messages.send(Message::Listed);
                if !self.plan.once {
                    status("ready");
                    until = self.plan.timeout.and_then(|time| Instant::now().checked_add(time));
                }
            }
            if let Some(result) = self.outcome() {
                break result;
            }
            select! {
                () = self.end.requested() => break self.ended(),
                () = come(late), if !self.ready && late.is_some() => {
                    late = None;
                    self.pass_over(begun.elapsed());
                }
                () = come(last), if !self.ready && late.is_none() => break Err(self.nothing()),
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
                Some(event) = self.pods.next(), if self.follows_pods() => match event {
                    Ok(event) => {
                        // A list that is only begun may fail.
                        if !matches!(event, watcher::Event::Init) {
                            self.sees();
                        }
                        self.agents.learn(event);
                        self.follow_agents();
                    }
                    Err(error) => self.blind(&error),
                },
            }
        };
        self.finish(result).await
    }

    /// Whether it matters what becomes of agents. Lists take those that are there, or made for them.
    fn follows_pods(&self) -> bool {
        !self.plan.once || self.fleet.is_ephemeral()
    }

    /// No more is waited for nodes of which nothing was heard.
    fn pass_over(&mut self, waited: Duration) {
        let waited = humantime::format_duration(Duration::from_secs(waited.as_secs()));
        let once = self.plan.once;
        for (name, known) in self.known.iter_mut().filter(|(_, known)| known.state == State::Starting) {
            let has_agent = known.target.borrow().is_some();
            if once && has_agent {
                continue;
            }
            let why = match (has_agent, known.why.as_str()) {
                (true, _) => String::new(),
                (false, "") => ": its agent pod has not been seen".to_owned(),
                (false, why) => format!(": {}", plain::line(why)),
            };
            status(&format!("node {}: not ready after {waited}{why}", plain::line(name)));
            known.state = if once { State::Failed(FAILURE) } else { State::Trouble };
        }
    }

    /// The state of a node, which has a task from now on.
    fn known<'k>(
        known: &'k mut BTreeMap<Arc<str>, Known>,
        tasks: &mut JoinSet<(Arc<str>, Account)>,
        (plan, shared): (&Plan, &Arc<Shared>),
        name: &str,
    ) -> &'k mut Known {
        known.entry(name.into()).or_insert_with_key(|name| {
            let (target, targets) = watch::channel(None);
            let (command, reading) = (plan.remote.on(name), plan.kind.reading());
            let node = Node::new(Arc::clone(name), command, reading, targets, Arc::clone(shared));
            tasks.spawn(node.run());
            Known { state: State::Starting, target, why: String::new(), said: String::new() }
        })
    }

    /// Waits for the nodes that agents have been made on. With those that are not ready it does not begin.
    fn expect_nodes(&mut self) {
        for (name, problem) in &self.fleet.expected {
            let known = Self::known(&mut self.known, &mut self.tasks, (&self.plan, &self.shared), name);
            if let Some(problem) = problem {
                status(&format!("node {}: {}", plain::line(name), plain::line(problem)));
                known.state = if self.plan.once { State::Failed(FAILURE) } else { State::Stuck };
            }
        }
    }

    /// Gives each node that is asked for its agent, or takes it.
    fn follow_agents(&mut self) {
        let by_node = self.agents.by_node();
        let (once, waits) = (self.plan.once, self.fleet.is_ephemeral());
        for (&name, &agent) in by_node.iter().filter(|(name, _)| self.nodes.select(name)) {
            let known = Self::known(&mut self.known, &mut self.tasks, (&self.plan, &self.shared), name);
            match agent {
                Agent::Running(target) => known.change(Some(target.clone())),
                Agent::Waiting(waiting) => known.wait(name, waiting, once, waits),
            }
        }
        for (name, known) in &mut self.known {
            if !by_node.contains_key(&**name) && known.target.borrow().is_some() {
                status(&format!("node {}: its agent was deleted", plain::line(name)));
                known.change(None);
                known.state = State::Trouble;
            }
        }
    }

    /// Names the nodes that were asked for and have no agent.
    fn miss_nodes(&self) {
        for node in self.nodes.node.iter().filter(|node| !self.known.contains_key(node.as_str())) {
            // Those are named already, with the reason.
            if !self.fleet.is_ephemeral() && self.fleet.unable.kind(node).is_none() {
                status(&format!(
                    "node {}: it has no agent: either there is no such node, or no pod of tracer runs there",
                    plain::line(node)
                ));
            }
        }
    }

    fn learn(&mut self, node: &Arc<str>, report: &Report) {
        let Some(known) = self.known.get_mut(node) else { return };
        let before = known.state;
        known.state = match report {
            Report::Ready { .. } => State::Well,
            Report::Trouble => State::Trouble,
            Report::Failed(code) => State::Failed(*code),
            Report::Done => State::Done,
        };
        let Report::Ready { gap } = report else { return };
        let back = match gap {
            Some(gap) => format!("traced again after a gap of {}", rounded(*gap)),
            None if matches!(before, State::Trouble | State::Stuck) => "traced now".to_owned(),
            None => return,
        };
        status(&format!("node {}: {back}", plain::line(node)));
    }

    /// Agents that come and go are not seen for now. What is over at the next attempt is no news, nor is that the server
    /// has forgotten where the watch was.
    fn blind(&mut self, error: &watcher::Error) {
        let problem = plain::line(&agents::problem(error));
        self.watch.failed += 1;
        if agents::is_expired(error) || self.watch.failed == 1 || self.watch.said.as_ref() == Some(&problem) {
            debug!("watching the agents: {problem}");
            return;
        }
        status(&format!("cannot watch the agents: {problem}; retrying"));
        self.watch.said = Some(problem);
    }

    /// They are seen again.
    fn sees(&mut self) {
        if std::mem::take(&mut self.watch).said.is_some() {
            status("watching the agents again");
        }
    }

    /// Whether each node is ready, or what is wrong with it has been said; and one is ready.
    fn is_ready(&self) -> bool {
        let mut states = self.known.values().map(|known| known.state);
        if self.plan.once {
            self.known.values().all(Known::is_over) && states.any(|state| state == State::Done)
        } else {
            states.clone().all(|state| state != State::Starting) && states.any(|state| state == State::Well)
        }
    }

    /// What comes out when it is told to end.
    fn ended(&self) -> anyhow::Result<ExitCode> {
        let traces = self.known.values().any(|known| known.state == State::Well);
        if self.plan.once || self.ready || traces {
            return Ok(ExitCode::SUCCESS);
        }
        bail!("ended before any node was traced")
    }

    /// What to say where no node does what it was asked for.
    fn nothing(&self) -> anyhow::Error {
        let done = self.plan.kind.done();
        let problem = match self.known.len() {
            1 => format!("the node cannot be {done}"),
            all => format!("none of the {all} nodes can be {done}"),
        };
        let mut codes = self.known.values().map(|known| match known.state {
            State::Failed(code) => code,
            _ => FAILURE,
        });
        if codes.all(|code| code == UNSUPPORTED) {
            Unsupported::new(problem, "what is missing is said above").into()
        } else {
            anyhow!("{problem}; the reasons are above")
        }
    }

    /// What comes out if there is nothing more to wait for.
    fn outcome(&self) -> Option<anyhow::Result<ExitCode>> {
        let mut states = self.known.values().map(|known| known.state);
        let hopeless = |state| matches!(state, State::Failed(_)) || state == State::Stuck && !self.ready;
        if states.clone().all(hopeless) {
            return Some(Err(self.nothing()));
        }
        let is_over = self.known.values().all(Known::is_over);
        (is_over && states.any(|state| state == State::Done)).then_some(Ok(ExitCode::SUCCESS))
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
                () = self.end.requested() => {
                    status("interrupted; per-node totals are incomplete");
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
    /// Its agent does not run. What is done once waits for agents that are made for it (`waits`), and for no others.
    fn wait(&mut self, name: &str, waiting: &Waiting, once: bool, waits: bool) {
        waiting.why.clone_into(&mut self.why);
        let ran = self.target.borrow().is_some();
        self.change(None);
        let gives_up = once && !waits || waiting.failed;
        let is_new = ran || gives_up && matches!(self.state, State::Starting | State::Trouble | State::Stuck);
        if !is_new {
            return;
        }
        if self.said != waiting.why {
            status(&format!("node {}: {}", plain::line(name), plain::line(&waiting.why)));
            waiting.why.clone_into(&mut self.said);
        }
        self.state = match (once, waiting.failed) {
            (true, _) if gives_up || ran => State::Failed(FAILURE),
            (_, true) => State::Stuck,
            _ => State::Trouble,
        };
    }

    fn change(&mut self, target: Option<Target>) {
        let changed = self.target.send_if_modified(|now| {
            let differs = *now != target;
            *now = target;
            differs
        });
        if changed && matches!(self.state, State::Failed(_) | State::Stuck) {
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
        debug!("node {}: malformed {malformed} output {dropped}", sanitize::line(node));
        if *open > 0 {
            status(&format!(
                "node {}: of {open} of its runs the closing line never came: of their events no more is known than the \
                 {arrived_open} that came, which are in the sum",
                sanitize::line(node)
            ));
        }
        all += *account;
    }
    let sum = all.sum(shown);
    status(&format!("seen {} emitted {} filtered {} lost {}", sum.seen, sum.emitted, sum.filtered, sum.lost));
}

/// The agents that there are now. Those that were made for this run are waited for, within bounds, until they run or
/// the cluster says why they do not.
pub(super) async fn list_agents(
    cluster: &Cluster,
    nodes: &NodesArgs,
    fleet: &Fleet,
) -> anyhow::Result<Agents> {
    let mut events = fleet.place.watch(cluster.client.clone(), nodes);
    let mut agents = listed(&mut events, cluster, &fleet.place).await?;
    let settle = async {
        while !is_settled(&agents, fleet) {
            match events.next().await {
                Some(Ok(event)) => drop(agents.learn(event)),
                Some(Err(error)) => debug!("watching the agents: {}", plain::line(&agents::problem(&error))),
                None => break,
            }
        }
    };
    // What does not run by then is named.
    let _ = timeout(FIRST_EPHEMERAL_PATIENCE, settle).await;
    Ok(agents)
}

/// Takes in the pods that no node has been found for.
async fn learn_unbound(agents: &mut Agents, place: &Place, client: &Client) {
    match place.unbound(client).await {
        Ok(pods) => {
            for pod in pods {
                agents.learn(watcher::Event::Apply(pod));
            }
        }
        Err(error) => debug!("agents without node: {}", plain::line(&cluster::problem(&error))),
    }
}

/// Whether each agent that was made for this run runs, or will not soon.
fn is_settled(agents: &Agents, fleet: &Fleet) -> bool {
    let by_node = agents.by_node();
    let mut waited_for = fleet.expected.iter().filter(|(_, problem)| problem.is_none());
    waited_for.all(|(node, _)| match by_node.get(node.as_str()) {
        Some(Agent::Running(_)) => true,
        Some(Agent::Waiting(waiting)) => waiting.failed,
        None => false,
    })
}

/// Says which of these namespaces do not exist, if that may be asked.
async fn check_namespaces(client: &Client, namespaces: &[String]) {
    let api: &Api<Namespace> = &Api::all(client.clone());
    let missing = namespaces.iter().map(|name| async move {
        match timeout(NAMESPACE_PATIENCE, api.get_metadata_opt(name)).await {
            Ok(Ok(None)) => status(&format!("namespace {:?} does not exist", plain::line(name))),
            Ok(Err(error)) => debug!("namespace {name:?}: {}", plain::line(&cluster::problem(&error))),
            Ok(Ok(Some(_))) | Err(_) => {}
        }
    });
    join_all(missing).await;
}

/// A time as people say it.
fn rounded(time: Duration) -> String {
    let exact = if time.as_secs() > 0 {
        Duration::from_secs(time.as_secs())
    } else {
        Duration::from_millis(u64::from(time.subsec_millis()))
    };
    humantime::format_duration(exact).to_string()
}

/// The agents, when all that there are are known.
async fn listed(events: &mut AgentEvents, cluster: &Cluster, place: &Place) -> anyhow::Result<Agents> {
    let mut agents = Agents::default();
    loop {
        let event = events.next().await.context("the watch on agents has ended")?;
        let event = event.map_err(|error| {
            let (namespace, problem) = (&place.namespace, agents::problem(&error));
            let problem = plain::line(&problem);
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
