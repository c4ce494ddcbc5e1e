//! Lists the agents that exist now.

use anyhow::{Context as _, anyhow};
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tracing::debug;

use crate::kubectl::{
    agents::{self, Agent, AgentEvents, AgentSet, Agents, Knowledge, Outlook},
    args::NodesArgs,
    cluster::Cluster,
    ephemeral::{Fleet, START_TIMEOUT},
    text,
};

/// Lists the agents of a fleet. Agents that were created for this run are waited for until they run or the cluster
/// reports why they do not, for [`START_TIMEOUT`] at most.
pub(in crate::kubectl) async fn list(
    cluster: &Cluster,
    nodes: &NodesArgs,
    fleet: &Fleet,
) -> anyhow::Result<Agents> {
    let mut events = fleet.agents.watch(cluster.client.clone(), nodes);
    let mut agents = first_list(&mut events, cluster, &fleet.agents).await?;
    let settle = async {
        while !is_settled(&agents, fleet) {
            match events.next().await {
                Some(Ok(event)) => _ = agents.apply(event),
                Some(Err(error)) => debug!("watching the agents: {}", text::line(&agents::problem(&error))),
                None => break,
            }
        }
    };
    // The caller reports those that do not run by then.
    let _ = timeout(START_TIMEOUT, settle).await;
    Ok(agents)
}

/// Reads a watch until its first list is complete.
pub(in crate::kubectl) async fn first_list(
    events: &mut AgentEvents,
    cluster: &Cluster,
    set: &AgentSet,
) -> anyhow::Result<Agents> {
    let mut agents = Agents::default();
    loop {
        let event = events.next().await.context("the watch on the agents ended")?;
        let event = event.map_err(|error| {
            let (namespace, problem) = (text::line(&set.namespace), text::line(&agents::problem(&error)));
            anyhow!("the agents in namespace {namespace} of {} cannot be listed: {problem}", cluster.server)
        })?;
        if agents.apply(event) == Knowledge::Complete {
            return Ok(agents);
        }
    }
}

/// Whether each agent that was created for this run is running or has failed.
fn is_settled(agents: &Agents, fleet: &Fleet) -> bool {
    let by_node = agents.by_node();
    let mut expected = fleet.expected.iter().filter(|(_, problem)| problem.is_none());
    expected.all(|(node, _)| match by_node.get(node.as_str()) {
        Some(Agent::Running(_)) => true,
        Some(Agent::Waiting(waiting)) => waiting.outlook == Outlook::Failed,
        None => false,
    })
}

/// The error if there is no agent.
pub(in crate::kubectl) fn no_agent(set: &AgentSet, nodes: &NodesArgs) -> anyhow::Error {
    let which = match &nodes.node[..] {
        [] => String::new(),
        named => format!(" on {}", named.join(", ")),
    };
    anyhow!(
        "there is no agent{which} in namespace {}: `kubectl tracer deploy` creates one on each node; \
         --tracer-namespace selects another namespace, --ephemeral creates agents for this run only",
        set.namespace
    )
}
