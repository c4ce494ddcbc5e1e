//! Agents for one run (`--ephemeral`): jobs, one a node, that vanish with whoever has made them. Deleted at the end; where
//! that does not come about, because the client was killed or has lost its connection, their leases run out, the agents
//! end, and the cluster deletes the jobs that are done.

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
        agents::{Agent, Agents, Place, Selector, Target, problem as watch_problem},
        args::{Common, EPHEMERAL_NAMESPACE, NodesArgs},
        cluster::{Cluster, problem},
        exec::Exec,
        manifests::Manifests,
        nodes,
        nodes::Unable,
        plain,
    },
    run::limits::{End, Limits},
    sys::stderr::status,
};

/// How many jobs are made at a time.
const AT_ONCE: usize = 16;
/// How long deleting them may take.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a lease is renewed while it lasts.
const BEATS: u32 = 6;
/// When that is tried again where it fails.
const AGAIN: Duration = Duration::from_secs(1);

/// The agents of a run.
pub(super) struct Fleet {
    pub(super) place: Place,
    /// The nodes that agents have been made on for this run, which may not run yet. Each with what is wrong with the
    /// node, if something is.
    pub(super) expected: BTreeMap<String, Option<String>>,
    /// The nodes on which no agent can run.
    pub(super) unable: Unable,
}

impl Fleet {
    /// Whether they are for this run alone.
    pub(super) const fn is_ephemeral(&self) -> bool {
        matches!(self.place.selector, Selector::Instance(_))
    }
}

/// Runs something over the agents that are asked for: those that are deployed, or some for this run. `run` is told as well
/// when it is to end: a signal must not come between two who listen.
pub(super) async fn over_agents(
    cluster: &Cluster,
    nodes: &NodesArgs,
    common: &Common,
    run: impl AsyncFnOnce(Fleet, End) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let mut end = End::new(Limits::default())?;
    if !nodes.ephemeral {
        let place = Place::deployed(common.cluster.tracer_namespace());
        return run(Fleet { place, expected: BTreeMap::new(), unable: Unable::default() }, end).await;
    }
    let namespace = common.cluster.tracer_namespace.as_deref().unwrap_or(EPHEMERAL_NAMESPACE);
    let (ephemeral, expected, unable) = Ephemeral::start(cluster, namespace, nodes, &mut end).await?;
    let result = run(Fleet { place: ephemeral.place.clone(), expected, unable }, end).await;
    ephemeral.end().await;
    result
}

/// The agents of this run.
struct Ephemeral {
    jobs: Api<Job>,
    place: Place,
    /// How many may have been made: those that were asked for, and not refused.
    made: Cell<usize>,
    /// How long they run once nobody renews it.
    lease: Duration,
    /// Renews the leases until it is dropped.
    _keeper: AbortOnDrop,
}

type Expected = BTreeMap<String, Option<String>>;

impl Ephemeral {
    /// Makes an agent on each node that is asked for, and waits for none of them.
    async fn start(
        cluster: &Cluster,
        namespace: &str,
        nodes: &NodesArgs,
        end: &mut End,
    ) -> anyhow::Result<(Self, Expected, Unable)> {
        let (expected, unable) = select! {
            chosen = choose(cluster, nodes) => chosen?,
            () = end.requested() => bail!("ended before the nodes were found"),
        };
        // Told apart from others' by chance: whatever seeds the standard library's maps.
        let instance = format!("{:x}", RandomState::new().build_hasher().finish());
        let manifests = Manifests::new(namespace, nodes.image.as_deref())?;
        let place = Place { namespace: namespace.to_owned(), selector: Selector::Instance(instance.clone()) };
        let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
        let keeper = AbortOnDrop(tokio::spawn(keep(cluster.client.clone(), place.clone(), nodes.clone())));
        let ephemeral = Self { jobs, place, made: Cell::new(0), lease: nodes.agent_lease, _keeper: keeper };
        let result = {
            let stop = Cell::new(false);
            let make = ephemeral.make(expected.keys(), &manifests, &instance, nodes.agent_lease, &stop);
            let mut make = pin!(make);
            select! {
                result = &mut make => result,
                () = end.requested() => {
                    stop.set(true);
                    // What was sent may be done after what deletes it: so its answer is waited for.
                    let _ = timeout(DELETE_PATIENCE, make).await;
                    Err(anyhow!("ended before the agents were made"))
                }
            }
        };
        if let Err(error) = result {
            ephemeral.end().await;
            return Err(error);
        }
        Ok((ephemeral, expected, unable))
    }

    async fn make(
        &self,
        nodes: impl Iterator<Item = &String>,
        manifests: &Manifests,
        instance: &str,
        lease: Duration,
        stop: &Cell<bool>,
    ) -> anyhow::Result<()> {
        let made = nodes.map(|node| async move {
            if stop.get() {
                return Ok(());
            }
            let job = manifests.clone().job(node, instance, lease)?;
            // Until there is an answer, and if none comes, nobody knows.
            self.made.set(self.made.get() + 1);
            let made = self.jobs.create(&PostParams::default(), &job).await;
            stop.set(stop.get() || made.is_err());
            if matches!(made, Err(kube::Error::Api(_))) {
                self.made.set(self.made.get() - 1);
            }
            made.map(drop).map_err(|error| {
                anyhow!("an agent for node {}: {}", plain::line(node), plain::line(&problem(&error)))
            })
        });
        // Those that are on their way are waited for in any case, to be taken away.
        let results: Vec<_> = stream::iter(made).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// Takes them away. Their leases are renewed until then, so that they do not end by themselves meanwhile.
    async fn end(self) {
        if self.made.get() == 0 {
            return;
        }
        let these = ListParams::default().labels(&self.place.selector.query());
        let how = DeleteParams::background();
        let delete = self.jobs.delete_collection(&how, &these);
        let failed = match timeout(DELETE_PATIENCE, delete).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(problem(&error)),
            Err(_) => Some(format!("no answer within {DELETE_PATIENCE:?}")),
        };
        if let Some(problem) = failed {
            status(&format!(
                "cannot delete the agents of this run: {}; they stop by themselves within {}, or: kubectl delete jobs -n {} -l {}",
                plain::line(&problem),
                humantime::format_duration(self.lease),
                plain::line(&self.place.namespace),
                self.place.selector.query()
            ));
        }
    }
}

/// The nodes that are asked for, all unless some are named, each with what is wrong with it; and those of them on which
/// no agent can run.
async fn choose(cluster: &Cluster, nodes: &NodesArgs) -> anyhow::Result<(Expected, Unable)> {
    let (mut expected, mut unable) = (Expected::new(), Unable::default());
    let mut sort = |node: Node| {
        let name = node.metadata.name.clone().unwrap_or_default();
        match nodes::unable(&node) {
            Some(kind) => unable.insert(name, kind),
            None => drop(expected.insert(name, nodes::not_ready(&node))),
        }
    };
    if nodes.node.is_empty() {
        all(cluster).await?.into_iter().for_each(sort);
        if expected.is_empty() {
            unable.say();
            bail!("the cluster has no node on which an agent can run");
        }
        return Ok((expected, unable));
    }
    let named: BTreeSet<&String> = nodes.node.iter().collect();
    let api: &Api<Node> = &Api::all(cluster.client.clone());
    let looked_at = named.iter().map(|name| async move { (*name, api.get_opt(name).await) });
    let looked_at: Vec<_> = stream::iter(looked_at).buffer_unordered(AT_ONCE).collect().await;
    let mut unseen = Vec::new();
    for (name, node) in looked_at {
        match node {
            Ok(Some(node)) => sort(node),
            Ok(None) => status(&format!("node {}: there is no such node", plain::line(name))),
            Err(error) => {
                // It takes no right to see nodes to name one.
                debug!("node {} cannot be looked at: {}", plain::line(name), plain::line(&problem(&error)));
                unseen.push(name.clone());
            }
        }
    }
    expected.extend(unseen.into_iter().map(|name| (name, None)));
    if expected.is_empty() {
        unable.say();
        bail!("no agent can run on {}", plain::names(named.into_iter().map(String::as_str)));
    }
    Ok((expected, unable))
}

/// All nodes.
async fn all(cluster: &Cluster) -> anyhow::Result<Vec<Node>> {
    /// How many are asked for at a time.
    const PAGE: u32 = 500;
    let api: Api<Node> = Api::all(cluster.client.clone());
    let (mut nodes, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let listed = api.list(&page).await;
        let listed = listed.map_err(|error| {
            anyhow!("the nodes cannot be listed: {}; --node names some", plain::line(&problem(&error)))
        })?;
        nodes.extend(listed.items);
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(nodes),
        }
    }
}

/// Renews the lease of each agent that runs.
async fn keep(client: Client, place: Place, nodes: NodesArgs) {
    let mut agents = Agents::default();
    let mut pods = place.watch(client.clone(), &nodes);
    let mut kept: HashMap<Target, AbortOnDrop> = HashMap::new();
    while let Some(event) = pods.next().await {
        match event {
            Ok(event) => drop(agents.learn(event)),
            Err(error) => debug!("the agents are not seen for now: {}", plain::line(&watch_problem(&error))),
        }
        let now: HashSet<Target> =
            agents.by_node().into_values().filter_map(Agent::target).cloned().collect();
        kept.retain(|target, _| now.contains(target));
        for target in &now {
            let (client, namespace) = (client.clone(), place.namespace.clone());
            kept.entry(target.clone()).or_insert_with_key(|target| {
                AbortOnDrop(tokio::spawn(renew(
                    client,
                    namespace,
                    target.pod.clone(),
                    nodes.agent_lease / BEATS,
                )))
            });
        }
    }
}

/// A task that ends with who has started it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews an agent's lease without end.
async fn renew(client: Client, namespace: String, pod: String, each: Duration) {
    loop {
        let attached = Exec::attach(&client, &namespace, &pod).await;
        let problem = match attached {
            Ok(mut attached) => beat(&mut attached, each).await,
            Err(refused) => refused.to_string(),
        };
        debug!("the lease of {} is not renewed for now: {}", plain::line(&pod), plain::line(&problem));
        sleep(AGAIN).await;
    }
}

/// Writes until that fails, and returns why.
async fn beat(attached: &mut Exec, each: Duration) -> String {
    let mut beats = interval(each);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = beats.tick() => {
                if let Err(error) = attached.send(b"\n").await {
                    return error;
                }
            }
            heard = attached.next() => match heard {
                Ok(Some(_)) => {}
                Ok(None) => return "the connection has ended".to_owned(),
                Err(error) => return error,
            },
        }
    }
}
