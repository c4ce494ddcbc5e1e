//! Agents for one run (`--ephemeral`): jobs, one a node, that vanish with whoever has made them. Deleted at the end; where
//! that does not come about, because the client was killed or has lost its connection, their leases run out, the agents
//! end, and the cluster deletes the jobs that are done.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher as _, Hasher as _, RandomState},
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
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    agents::{Agent, Agents, Place, Selector, Target, problem as watch_problem},
    args::{Common, EPHEMERAL_NAMESPACE, NodesArgs},
    cluster::{Cluster, problem},
    exec::Exec,
    manifests::Manifests,
};
use crate::{
    cli::say,
    observe::{End, Limits},
    render,
};

/// How many jobs are made at a time.
const AT_ONCE: usize = 16;
/// How long agents may take to run, images to be pulled included.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long deleting them may take.
const DELETE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a lease is renewed while it lasts.
const BEATS: u32 = 6;
/// When that is tried again where it fails.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs something over the agents that are asked for: those that are deployed, or some for this run.
pub(super) async fn over_agents(
    cluster: &Cluster,
    nodes: &NodesArgs,
    common: &Common,
    run: impl AsyncFnOnce(Place) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    if !nodes.ephemeral {
        return run(Place::deployed(common.cluster.tracer_namespace())).await;
    }
    let namespace = common.cluster.tracer_namespace.as_deref().unwrap_or(EPHEMERAL_NAMESPACE);
    let ephemeral = Ephemeral::start(cluster, namespace, nodes).await?;
    let result = run(ephemeral.place.clone()).await;
    ephemeral.end().await;
    result
}

/// The agents of this run.
struct Ephemeral {
    jobs: Api<Job>,
    place: Place,
    /// Renews the leases until it is dropped.
    _keeper: AbortOnDrop,
}

impl Ephemeral {
    /// Makes an agent on each node that is asked for, and waits until they run, or do not in time: which is said.
    async fn start(cluster: &Cluster, namespace: &str, nodes: &NodesArgs) -> anyhow::Result<Self> {
        let chosen = choose(cluster, nodes).await?;
        // Told apart from others' by chance: whatever seeds the standard library's maps.
        let instance = format!("{:x}", RandomState::new().build_hasher().finish());
        let manifests = Manifests::new(namespace, nodes.image.as_deref())?;
        let place = Place { namespace: namespace.to_owned(), selector: Selector::Instance(instance.clone()) };
        let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
        let (running, runs) = watch::channel(BTreeSet::new());
        let keeper =
            AbortOnDrop(tokio::spawn(keep(cluster.client.clone(), place.clone(), nodes.clone(), running)));
        let ephemeral = Self { jobs, place, _keeper: keeper };
        let all_run = async {
            ephemeral.make(&chosen, &manifests, &instance, nodes.agent_lease).await?;
            wait(runs, &chosen).await;
            Ok(())
        };
        let mut end = End::new(Limits::default())?;
        let result = select! {
            result = all_run => result,
            () = end.told() => Err(anyhow!("ended before the agents ran")),
        };
        if let Err(error) = result {
            ephemeral.end().await;
            return Err(error);
        }
        Ok(ephemeral)
    }

    async fn make(
        &self,
        nodes: &[String],
        manifests: &Manifests,
        instance: &str,
        lease: Duration,
    ) -> anyhow::Result<()> {
        let failed = &Cell::new(false);
        let made = nodes.iter().map(|node| async move {
            if failed.get() {
                return Ok(());
            }
            let job = manifests.clone().job(node, instance, lease)?;
            let made = self.jobs.create(&PostParams::default(), &job).await;
            failed.set(failed.get() || made.is_err());
            made.map(drop)
                .map_err(|error| anyhow!("an agent for node {}: {}", render::line(node), problem(&error)))
        });
        // Those that are on their way are waited for in any case, to be taken away.
        let results: Vec<_> = stream::iter(made).buffer_unordered(AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// Takes them away. Their leases are renewed until then, so that they do not end by themselves meanwhile.
    async fn end(self) {
        let these = ListParams::default().labels(&self.place.selector.query());
        let how = DeleteParams::background();
        let delete = self.jobs.delete_collection(&how, &these);
        let failed = match timeout(DELETE_PATIENCE, delete).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(problem(&error)),
            Err(_) => Some(format!("no answer within {DELETE_PATIENCE:?}")),
        };
        if let Some(problem) = failed {
            let (query, problem) = (self.place.selector.query(), render::line(&problem));
            warn!(
                "the agents with the labels {query} are not deleted, and will vanish by themselves: {problem}"
            );
        }
    }
}

/// The nodes that are asked for: all that run Linux unless some are named.
async fn choose(cluster: &Cluster, nodes: &NodesArgs) -> anyhow::Result<Vec<String>> {
    if !nodes.node.is_empty() {
        return Ok(nodes.node.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect());
    }
    let linux = ListParams::default().labels("kubernetes.io/os=linux");
    let listed = Api::<Node>::all(cluster.client.clone()).list_metadata(&linux).await;
    let listed = listed
        .map_err(|error| anyhow!("the nodes cannot be listed: {}; --node names some", problem(&error)))?;
    let names: Vec<String> = listed.items.into_iter().filter_map(|node| node.metadata.name).collect();
    if names.is_empty() {
        bail!("the cluster has no node that runs Linux");
    }
    Ok(names)
}

/// Waits until all agents run, within bounds.
async fn wait(mut running: watch::Receiver<BTreeSet<String>>, nodes: &[String]) {
    let all = running.wait_for(|running| running.len() >= nodes.len());
    if !matches!(timeout(PATIENCE, all).await, Ok(Ok(_))) {
        let count = running.borrow().len();
        say(&format!("{count} of {} agents run after {PATIENCE:?}: it goes on with those", nodes.len()));
    }
}

/// Renews the lease of each agent that runs, and tells on which nodes they do.
async fn keep(client: Client, place: Place, nodes: NodesArgs, running: watch::Sender<BTreeSet<String>>) {
    let mut agents = Agents::default();
    let mut pods = place.watch(client.clone(), &nodes);
    let mut kept: HashMap<Target, AbortOnDrop> = HashMap::new();
    while let Some(event) = pods.next().await {
        match event {
            Ok(event) => drop(agents.learn(event)),
            Err(error) => debug!("the agents are not seen for now: {}", render::line(&watch_problem(&error))),
        }
        let by_node = agents.by_node();
        let targets = |agent: &Agent| match agent {
            Agent::Running(target) => Some(target.clone()),
            Agent::Waiting(_) => None,
        };
        let now: HashMap<Target, &str> =
            by_node.iter().filter_map(|(node, agent)| Some((targets(agent)?, *node))).collect();
        kept.retain(|target, _| now.contains_key(target));
        for target in now.keys() {
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
        running.send_replace(now.into_values().map(str::to_owned).collect());
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
        debug!("the lease of {} is not renewed for now: {}", render::line(&pod), render::line(&problem));
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
