//! The agents: pods, one per node, in which `tracer` is run. `kubectl tracer deploy` creates them.

pub(super) mod list;
mod status;

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use crate::kubectl::{args::NodesArgs, cluster};

/// Labels of agents, by Kubernetes' convention.
const NAME: (&str, &str) = ("app.kubernetes.io/name", "tracer");
const COMPONENT: &str = "app.kubernetes.io/component";
pub(super) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The name of the agent's container.
pub(super) const CONTAINER: &str = "tracer";

/// Where `tracer` can be run. An agent that has restarted is another target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// The pod's name.
    pub(super) pod: String,
    uid: String,
    /// The container's id.
    container: String,
    /// The container's image, for messages.
    pub(super) image: String,
}

/// A node's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    Running(Target),
    Waiting(Waiting),
}

/// An agent that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The reason, with the pod's name.
    pub(super) reason: String,
    pub(super) outlook: Outlook,
}

/// Whether an agent that does not run will run soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    Starting,
    /// The kubelet or the scheduler has reported a failure.
    Failed,
}

impl Agent {
    /// Where it runs, if it does.
    pub(super) const fn target(&self) -> Option<&Target> {
        match self {
            Self::Running(target) => Some(target),
            Self::Waiting(_) => None,
        }
    }
}

/// Selects agents by their labels.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    /// Those of the `DaemonSet`.
    Deployed,
    /// Those of one run.
    Instance(String),
}

impl Selector {
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let own = match self {
            Self::Deployed => [(COMPONENT, "agent"), NAME].to_vec(),
            Self::Instance(instance) => {
                [(COMPONENT, "ephemeral-agent"), (INSTANCE, instance.as_str()), NAME].to_vec()
            }
        };
        own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// The label selector for a request.
    pub(super) fn query(&self) -> String {
        self.labels().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

/// The agents of one namespace that a selector selects.
#[derive(Clone, Debug)]
pub(super) struct AgentSet {
    pub(super) namespace: String,
    pub(super) selector: Selector,
}

impl AgentSet {
    /// The agents of the `DaemonSet`.
    pub(super) fn deployed(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), selector: Selector::Deployed }
    }

    /// Watches the agents' pods on the selected nodes.
    pub(super) fn watch(&self, client: Client, nodes: &NodesArgs) -> AgentEvents {
        let mut config = watcher::Config::default().labels(&self.selector.query());
        if let [node] = &nodes.node[..] {
            config = config.fields(&format!("spec.nodeName={node}"));
        }
        watcher(Api::<Pod>::namespaced(client, &self.namespace), config).default_backoff().boxed()
    }

    /// Lists the agents' pods that are bound to no node: a watch on one node does not include them.
    pub(super) async fn unbound(&self, client: &Client) -> kube::Result<Vec<Pod>> {
        let params = ListParams::default().labels(&self.selector.query()).fields("spec.nodeName=");
        Ok(Api::<Pod>::namespaced(client.clone(), &self.namespace).list(&params).await?.items)
    }
}

/// Changes of agents' pods.
pub(super) type AgentEvents = BoxStream<'static, watcher::Result<Event<Pod>>>;

/// What is known about agents' pods.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// By uid, with the node's name.
    pods: BTreeMap<String, (String, Agent)>,
    /// Those of a list that is incomplete.
    listing: BTreeMap<String, (String, Agent)>,
    knowledge: Knowledge,
}

/// How much is known about agents' pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Knowledge {
    #[default]
    Partial,
    /// A list was complete.
    Complete,
}

impl Agents {
    /// Applies a change of a pod.
    pub(super) fn apply(&mut self, event: Event<Pod>) -> Knowledge {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pod) => Self::put(&mut self.listing, &pod),
            Event::InitDone => {
                self.pods = std::mem::take(&mut self.listing);
                self.knowledge = Knowledge::Complete;
            }
            Event::Apply(pod) => Self::put(&mut self.pods, &pod),
            Event::Delete(pod) => {
                self.pods.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
        }
        self.knowledge
    }

    fn put(pods: &mut BTreeMap<String, (String, Agent)>, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match status::agent(pod) {
            Some(agent) => drop(pods.insert(uid, agent)),
            None => drop(pods.remove(&uid)),
        }
    }

    /// The agent of each node. If a node has several, one that runs.
    pub(super) fn by_node(&self) -> BTreeMap<&str, &Agent> {
        let mut by_node: BTreeMap<&str, &Agent> = BTreeMap::new();
        for (node, agent) in self.pods.values() {
            let known = by_node.entry(node).or_insert(agent);
            if matches!(known, Agent::Waiting(_)) {
                *known = agent;
            }
        }
        by_node
    }
}

/// Describes why agents could not be listed or watched.
pub(super) fn problem(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => cluster::problem(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// Whether the server has discarded the version to resume from: the watch starts over.
pub(super) fn is_expired(error: &watcher::Error) -> bool {
    code(error) == Some(410)
}

/// Whether the user is not authorized to list or watch.
pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(code(error), Some(401 | 403))
}

fn code(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: &str, state: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("tracer-{uid}"), "uid": uid},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "tracer", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                 "containerID": format!("c-{uid}"), "state": state}
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn a_running_agent_is_preferred_to_a_waiting_one() {
        let (running, waiting) = (json!({"running": {}}), json!({"waiting": {"reason": "ImagePullBackOff"}}));
        let mut agents = Agents::default();
        assert_eq!(agents.apply(Event::Init), Knowledge::Partial);
        assert_eq!(agents.apply(Event::InitApply(pod("1", "a", &waiting))), Knowledge::Partial);
        assert_eq!(agents.apply(Event::InitDone), Knowledge::Complete);
        assert!(matches!(agents.by_node()["a"], Agent::Waiting(waiting)
                if waiting.outlook == Outlook::Failed && waiting.reason.contains("tracer-1")));
        agents.apply(Event::Apply(pod("2", "a", &running)));
        assert!(matches!(agents.by_node()["a"], Agent::Running(target) if target.pod == "tracer-2"));
        // A pod that is being deleted does not count.
        let mut deleted = pod("2", "a", &running);
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-20T22:15:01Z")).unwrap();
        agents.apply(Event::Apply(deleted));
        assert!(matches!(agents.by_node()["a"], Agent::Waiting(_)));
        agents.apply(Event::Delete(pod("1", "a", &waiting)));
        assert!(agents.by_node().is_empty());
    }

    #[test]
    fn a_complete_list_replaces_the_old_one() {
        let running = json!({"running": {}});
        let mut agents = Agents::default();
        agents.apply(Event::Apply(pod("1", "a", &running)));
        agents.apply(Event::Init);
        agents.apply(Event::InitApply(pod("2", "b", &running)));
        assert!(agents.by_node().contains_key("a"), "until the list is complete");
        agents.apply(Event::InitDone);
        assert_eq!(agents.by_node().keys().copied().collect::<Vec<_>>(), ["b"]);
    }
}
