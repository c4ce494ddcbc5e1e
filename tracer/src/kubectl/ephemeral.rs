//! Agents for one run (`--ephemeral`): one job per node, deleted at the end. If the client is killed or loses its
//! connection, the leases of the agents expire, the agents exit, and the cluster deletes the finished jobs.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use anyhow::{anyhow, bail};
use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::{batch::v1::Job, core::v1::Node};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use tokio::{
    select,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::debug;

use crate::{
    kubectl::{
        agents::{self, Agent, AgentSet, Agents, Selector, Target},
        args::{Common, EPHEMERAL_NAMESPACE, NodesArgs},
        cluster::{Cluster, problem},
        exec::Exec,
        manifests::Manifests,
        node::node_status,
        nodes::{self, UnsupportedNodes},
        text,
    },
    run::limits::{End, Limits},
    sys::stderr::status,
};

/// How many jobs are created at a time.
const CONCURRENCY: usize = 16;
/// How long the agents may take to start: nodes may have to pull their image.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How long deleting the jobs may take.
const DELETE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a lease is renewed in its term.
const RENEWALS_PER_TERM: u32 = 6;
/// The delay before a failed renewal is retried.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The agents of a session.
pub(super) struct Fleet {
    pub(super) agents: AgentSet,
    /// The nodes that agents were created on for this run, each with its problem, if it has one. The agents may not run
    /// yet.
    pub(super) expected: Expected,
    /// The nodes on which no agent can run.
    pub(super) unsupported: UnsupportedNodes,
}

type Expected = BTreeMap<String, Option<String>>;

impl Fleet {
    /// Whether they were created for this run.
    pub(super) const fn is_ephemeral(&self) -> bool {
        matches!(self.agents.selector, Selector::Instance(_))
    }
}

/// Calls `run` with the selected agents: deployed ones, or new ones for this run. Signals are handled by one [`End`]
/// throughout, so that none is missed.
pub(super) async fn with_agents(
    cluster: &Cluster,
    nodes: &NodesArgs,
    common: &Common,
    run: impl AsyncFnOnce(Fleet, End) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let mut end = End::new(Limits::default(), || {})?;
    if !nodes.ephemeral {
        let agents = AgentSet::deployed(common.cluster.tracer_namespace());
        let (expected, unsupported) = (Expected::new(), UnsupportedNodes::default());
        return run(Fleet { agents, expected, unsupported }, end).await;
    }
    let namespace = common.cluster.tracer_namespace.as_deref().unwrap_or(EPHEMERAL_NAMESPACE);
    let (ephemeral, expected, unsupported) = Ephemeral::start(cluster, namespace, nodes, &mut end).await?;
    let result = run(Fleet { agents: ephemeral.agents.clone(), expected, unsupported }, end).await;
    ephemeral.delete().await;
    result
}

/// The agents that were created for this run.
struct Ephemeral {
    jobs: Api<Job>,
    agents: AgentSet,
    /// How many may exist: those that were requested and not refused.
    created: Cell<usize>,
    /// How long they run without renewal.
    lease: Duration,
    /// Renews the leases until dropped.
    _keeper: AbortOnDrop,
}

impl Ephemeral {
    /// Creates an agent on each selected node, without waiting for them to start.
    async fn start(
        cluster: &Cluster,
        namespace: &str,
        nodes: &NodesArgs,
        end: &mut End,
    ) -> anyhow::Result<(Self, Expected, UnsupportedNodes)> {
        let (expected, unsupported) = select! {
            selected = select_nodes(cluster, nodes) => selected?,
            () = end.requested() => bail!("interrupted while looking for the nodes"),
        };
        // Random: the seed of the standard library's maps.
        let instance = format!("{:x}", RandomState::new().build_hasher().finish());
        let manifests = Manifests::new(namespace, nodes.image.as_deref())?;
        let agents =
            AgentSet { namespace: namespace.to_owned(), selector: Selector::Instance(instance.clone()) };
        let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
        let keeper =
            AbortOnDrop(tokio::spawn(renew_leases(cluster.client.clone(), agents.clone(), nodes.clone())));
        let ephemeral =
            Self { jobs, agents, created: Cell::new(0), lease: nodes.agent_lease, _keeper: keeper };
        let result = {
            let stop = Cell::new(false);
            let create = ephemeral.create(expected.keys(), &manifests, &instance, nodes.agent_lease, &stop);
            let mut create = pin!(create);
            select! {
                result = &mut create => result,
                () = end.requested() => {
                    stop.set(true);
                    // Wait for the answers: the server may create a job after it has deleted the others.
                    let _ = timeout(DELETE_TIMEOUT, create).await;
                    Err(anyhow!("interrupted while creating the agents"))
                }
            }
        };
        if let Err(error) = result {
            ephemeral.delete().await;
            return Err(error);
        }
        Ok((ephemeral, expected, unsupported))
    }

    async fn create(
        &self,
        nodes: impl Iterator<Item = &String>,
        manifests: &Manifests,
        instance: &str,
        lease: Duration,
        stop: &Cell<bool>,
    ) -> anyhow::Result<()> {
        let requests = nodes.map(|node| async move {
            if stop.get() {
                return Ok(());
            }
            let job = manifests.clone().job(node, instance, lease)?;
            // It may exist unless the server refuses it.
            self.created.set(self.created.get() + 1);
            let created = self.jobs.create(&PostParams::default(), &job).await;
            stop.set(stop.get() || created.is_err());
            if matches!(created, Err(kube::Error::Api(_))) {
                self.created.set(self.created.get() - 1);
            }
            created.map(drop).map_err(|error| {
                anyhow!("cannot create an agent for node {}: {}", text::line(node), problem(&error))
            })
        });
        // Requests that were sent are waited for in any case, so that their jobs can be deleted.
        let results: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENCY).collect().await;
        results.into_iter().collect()
    }

    /// Deletes them. Until then their leases are renewed, so that they do not exit earlier.
    async fn delete(self) {
        if self.created.get() == 0 {
            return;
        }
        let selected = ListParams::default().labels(&self.agents.selector.query());
        let delete = DeleteParams::background();
        let delete = self.jobs.delete_collection(&delete, &selected);
        let failure = match timeout(DELETE_TIMEOUT, delete).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(problem(&error)),
            Err(_) => Some(format!("no answer within {DELETE_TIMEOUT:?}")),
        };
        if let Some(problem) = failure {
            status(&format!(
                "cannot delete the agents of this run: {problem}; they exit within {}, or run: kubectl delete jobs -n {} -l {}",
                humantime::format_duration(self.lease),
                text::line(&self.agents.namespace),
                self.agents.selector.query()
            ));
        }
    }
}

/// The selected nodes, each with its problem, if it has one; and those of them on which no agent can run.
async fn select_nodes(cluster: &Cluster, nodes: &NodesArgs) -> anyhow::Result<(Expected, UnsupportedNodes)> {
    let (mut expected, mut unsupported) = (Expected::new(), UnsupportedNodes::default());
    let mut sort = |node: Node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        match nodes::unsupported(&node) {
            Some(kind) => unsupported.insert(name, kind),
            None => drop(expected.insert(name, nodes::not_ready(&node))),
        }
    };
    if nodes.node.is_empty() {
        all(cluster).await?.into_iter().for_each(sort);
        if expected.is_empty() {
            unsupported.report();
            bail!("the cluster has no node on which an agent can run");
        }
        return Ok((expected, unsupported));
    }
    let named: BTreeSet<&String> = nodes.node.iter().collect();
    let api: &Api<Node> = &Api::all(cluster.client.clone());
    let requests = named.iter().map(|name| async move { (*name, api.get_opt(name).await) });
    let found: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENCY).collect().await;
    let mut unknown = Vec::new();
    for (name, node) in found {
        match node {
            Ok(Some(node)) => sort(node),
            Ok(None) => node_status(name, "the node does not exist"),
            Err(error) => {
                // A node can be named without the right to get it.
                debug!("cannot get node {}: {}", text::line(name), problem(&error));
                unknown.push(name.clone());
            }
        }
    }
    expected.extend(unknown.into_iter().map(|name| (name, None)));
    if expected.is_empty() {
        unsupported.report();
        bail!("no agent can run on {}", text::names(named.into_iter().map(String::as_str)));
    }
    Ok((expected, unsupported))
}

/// Lists all nodes.
async fn all(cluster: &Cluster) -> anyhow::Result<Vec<Node>> {
    /// How many are listed at a time.
    const PAGE: u32 = 500;
    let api: Api<Node> = Api::all(cluster.client.clone());
    let (mut nodes, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let listed = api.list(&page).await;
        let listed = listed.map_err(|error| {
            anyhow!("cannot list the nodes: {}; select some with --node", problem(&error))
        })?;
        nodes.extend(listed.items);
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(nodes),
        }
    }
}

/// Renews the lease of each agent that runs.
async fn renew_leases(client: Client, set: AgentSet, nodes: NodesArgs) {
    let mut agents = Agents::default();
    let mut pods = set.watch(client.clone(), &nodes);
    let mut tasks: HashMap<Target, AbortOnDrop> = HashMap::new();
    while let Some(event) = pods.next().await {
        match event {
            Ok(event) => _ = agents.apply(event),
            Err(error) => debug!("watching the agents: {}", text::line(&agents::problem(&error))),
        }
        let now: HashSet<Target> =
            agents.by_node().into_values().filter_map(Agent::target).cloned().collect();
        tasks.retain(|target, _| now.contains(target));
        for target in &now {
            let (client, namespace) = (client.clone(), set.namespace.clone());
            tasks.entry(target.clone()).or_insert_with_key(|target| {
                AbortOnDrop(tokio::spawn(renew(
                    client,
                    namespace,
                    target.pod.clone(),
                    nodes.agent_lease / RENEWALS_PER_TERM,
                )))
            });
        }
    }
}

/// A task that is aborted when this is dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews an agent's lease forever.
async fn renew(client: Client, namespace: String, pod: String, each: Duration) {
    loop {
        let attached = Exec::attach(&client, &namespace, &pod).await;
        let problem = match attached {
            Ok(attached) => heartbeat(attached, each).await,
            Err(refused) => refused.to_string(),
        };
        debug!("renewing the lease of {}: {}", text::line(&pod), text::line(&problem));
        sleep(RETRY_DELAY).await;
    }
}

/// Sends heartbeats until that fails, and returns why.
async fn heartbeat(Exec { mut input, mut output }: Exec, each: Duration) -> String {
    let mut ticks = interval(each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = ticks.tick() => {
                if let Err(error) = input.send(b"\n").await {
                    return error.to_string();
                }
            }
            received = output.next() => match received {
                Ok(Some(_)) => {}
                Ok(None) => return "the connection was closed".to_owned(),
                Err(error) => return error.to_string(),
            },
        }
    }
}
