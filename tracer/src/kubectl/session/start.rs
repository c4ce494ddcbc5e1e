//! Starts a session: finds the agents and starts the writer. Nothing runs on the nodes yet.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, runtime::watcher};
use tokio::{
    select,
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::debug;

use super::{
    Plan,
    nodes::Nodes,
    run::{Session, WatchState, WriterHandle},
};
use crate::{
    kubectl::{
        agents::{
            AgentSet, Agents,
            list::{first_list, no_agent},
        },
        args::NodesArgs,
        cluster::{self, Cluster},
        ephemeral::Fleet,
        node::{CAPACITY, Shared},
        nodes::UnsupportedNodes,
        text,
        writer::{View, Writer},
    },
    model::Matches,
    pipeline::WriteCounters,
    run::limits::End,
    sys::{stderr::status, stdout, thread::spawn},
};

/// How many nodes may start at a time.
const STARTING_MAX: usize = 64;
/// How long the check of the selected namespaces may take.
const NAMESPACE_TIMEOUT: Duration = Duration::from_secs(3);

impl<'a> Session<'a> {
    pub(super) async fn start(
        plan: Plan,
        cluster: &Cluster,
        nodes: &'a NodesArgs,
        mut fleet: Fleet,
        view: impl FnOnce(&str) -> anyhow::Result<View>,
        mut end: End,
    ) -> anyhow::Result<Self> {
        let mut pods = fleet.agents.watch(cluster.client.clone(), nodes);
        let unsupported = async {
            if fleet.is_ephemeral() {
                None
            } else {
                Some(UnsupportedNodes::find(&cluster.client, nodes).await)
            }
        };
        let found = async {
            tokio::join!(
                first_list(&mut pods, cluster, &fleet.agents),
                unsupported,
                check_namespaces(&cluster.client, &plan.namespaces),
            )
        };
        let (agents, unsupported, ()) = select! {
            () = end.requested() => bail!("interrupted while looking for the agents"),
            found = found => found,
        };
        let mut agents = agents?;
        if nodes.node.len() == 1 && agents.by_node().is_empty() {
            add_unbound(&mut agents, &fleet.agents, &cluster.client).await;
        }
        fleet.unsupported = unsupported.unwrap_or(fleet.unsupported);
        fleet.unsupported.report();
        let by_node = agents.by_node();
        let selected = by_node.keys().copied().filter(|node| nodes.selects(node));
        let all = selected.chain(fleet.expected.keys().map(String::as_str));
        let Some(widest) = all.max_by_key(|node| node.len()) else {
            return Err(no_agent(&fleet.agents, nodes));
        };
        let (messages, incoming) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let written = Arc::new([WriteCounters::default()]);
        let writer = Writer::new(view(widest)?, plan.max_events, Arc::clone(&written), stop);
        stdout::prepare();
        spawn("output", move || {
            writer.run(incoming);
            // A session that does not wait has been dropped.
            let _ = finish.send(());
            Ok(())
        })?;
        let (reporter, reports) = mpsc::unbounded_channel();
        let (ending, is_ending) = watch::channel(false);
        let shared = Shared {
            client: cluster.client.clone(),
            namespace: fleet.agents.namespace.clone(),
            once: plan.once,
            hook: plan.content.hook(),
            messages,
            reports: reporter,
            ending: is_ending,
            capacity: Arc::new(Semaphore::new(CAPACITY as usize)),
            starting: Semaphore::new(STARTING_MAX),
        };
        Ok(Self {
            args: nodes,
            fleet,
            agents,
            pods,
            nodes: Nodes::new(plan, shared),
            reports,
            ending,
            writer: WriterHandle { written, stopped, finished },
            end,
            watch: WatchState::default(),
            ready: false,
            matches: Matches::default(),
        })
    }
}

/// Adds the pods that are bound to no node.
async fn add_unbound(agents: &mut Agents, set: &AgentSet, client: &Client) {
    match set.unbound(client).await {
        Ok(pods) => {
            for pod in pods {
                agents.apply(watcher::Event::Apply(pod));
            }
        }
        Err(error) => debug!("listing agents without a node: {}", cluster::problem(&error)),
    }
}

/// Reports which of these namespaces do not exist, if the user is authorized to get them.
async fn check_namespaces(client: &Client, namespaces: &[String]) {
    let api: &Api<Namespace> = &Api::all(client.clone());
    let checks = namespaces.iter().map(|name| async move {
        match timeout(NAMESPACE_TIMEOUT, api.get_metadata_opt(name)).await {
            Ok(Ok(None)) => status(&format!("namespace {:?} does not exist", text::line(name))),
            Ok(Err(error)) => debug!("namespace {name:?}: {}", cluster::problem(&error)),
            Ok(Ok(Some(_))) | Err(_) => {}
        }
    });
    join_all(checks).await;
}
