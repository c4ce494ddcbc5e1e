//! The agents: pods, one a node, in which `tracer` can be executed. `kubectl tracer deploy` makes them.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use super::{args::NodesArgs, cluster};

/// Labels of agents, by Kubernetes' convention.
const NAME: (&str, &str) = ("app.kubernetes.io/name", "tracer");
const COMPONENT: &str = "app.kubernetes.io/component";
pub(super) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The container of an agent.
pub(super) const CONTAINER: &str = "tracer";

/// Where `tracer` can be executed. Another one, if the agent has started again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// The pod's name.
    pub(super) pod: String,
    uid: String,
    /// The container's id.
    container: String,
}

/// A node's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Agent {
    /// It runs.
    Running(Target),
    /// It does not, and why.
    Waiting(String),
}

/// Which agents.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    /// Those of the `DaemonSet`.
    Deployed,
    /// Those of one run.
    Instance(String),
}

impl Selector {
    /// The labels that tell them from other pods.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let own = match self {
            Self::Deployed => [(COMPONENT, "agent"), NAME].to_vec(),
            Self::Instance(instance) => {
                [(COMPONENT, "ephemeral-agent"), (INSTANCE, instance.as_str()), NAME].to_vec()
            }
        };
        own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// As the API server is asked for them.
    pub(super) fn query(&self) -> String {
        self.labels().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

/// Where agents are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) selector: Selector,
}

impl Place {
    /// Those that are deployed.
    pub(super) fn deployed(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), selector: Selector::Deployed }
    }

    /// What becomes of the pods of agents on the nodes that are asked for.
    pub(super) fn watch(&self, client: Client, nodes: &NodesArgs) -> AgentEvents {
        let mut config = watcher::Config::default().labels(&self.selector.query());
        if let [node] = &nodes.node[..] {
            config = config.fields(&format!("spec.nodeName={node}"));
        }
        watcher(Api::<Pod>::namespaced(client, &self.namespace), config).default_backoff().boxed()
    }

    /// The agents that there are now.
    pub(super) async fn list(&self, client: &Client) -> Result<Agents, String> {
        let pods = Api::<Pod>::namespaced(client.clone(), &self.namespace);
        let these = ListParams::default().labels(&self.selector.query());
        let mut agents = Agents::default();
        for pod in pods.list(&these).await.map_err(|error| cluster::problem(&error))? {
            agents.learn(Event::Apply(pod));
        }
        Ok(agents)
    }
}

/// What becomes of agents' pods.
pub(super) type AgentEvents = BoxStream<'static, watcher::Result<Event<Pod>>>;

/// All that is known of agents' pods.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// By uid, with the node's name.
    pods: BTreeMap<String, (String, Agent)>,
    /// Those of a list that is not whole yet.
    listing: BTreeMap<String, (String, Agent)>,
    /// Whether a list has been whole.
    listed: bool,
}

impl Agents {
    /// Takes in what has become of a pod. Returns whether all that there are are known.
    pub(super) fn learn(&mut self, event: Event<Pod>) -> bool {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pod) => Self::put(&mut self.listing, &pod),
            Event::InitDone => {
                self.pods = std::mem::take(&mut self.listing);
                self.listed = true;
            }
            Event::Apply(pod) => Self::put(&mut self.pods, &pod),
            Event::Delete(pod) => {
                self.pods.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
        }
        self.listed
    }

    fn put(pods: &mut BTreeMap<String, (String, Agent)>, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match agent(pod) {
            Some(known) => drop(pods.insert(uid, known)),
            None => drop(pods.remove(&uid)),
        }
    }

    /// The agent of each node that has one. Of several on a node one that runs.
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

/// A pod's node, and its state as an agent. None for pods that have no node, or are about to go.
fn agent(pod: &Pod) -> Option<(String, Agent)> {
    let node = pod.spec.as_ref()?.node_name.clone()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = pod.metadata.name.clone()?;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    let container = status.and_then(container_status);
    let running = container.filter(|container| {
        phase == "Running" && container.state.as_ref().is_some_and(|state| state.running.is_some())
    });
    let agent = if let Some(container) = running {
        Agent::Running(Target {
            pod: name,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            container: container.container_id.clone().unwrap_or_default(),
        })
    } else {
        let why = container.and_then(why_not).unwrap_or(phase);
        Agent::Waiting(format!("its agent, the pod {name}, does not run: {why}"))
    };
    Some((node, agent))
}

fn container_status(status: &k8s_openapi::api::core::v1::PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER)
}

fn why_not(container: &ContainerStatus) -> Option<&str> {
    let state = container.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    waiting.or_else(|| state.terminated.as_ref().and_then(|ended| ended.reason.as_deref()))
}

/// What to say of agents that could not be listed or watched.
pub(super) fn problem(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => cluster::problem(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
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
    fn a_node_has_the_agent_that_runs() {
        let (running, waiting) = (json!({"running": {}}), json!({"waiting": {"reason": "ImagePullBackOff"}}));
        let mut agents = Agents::default();
        assert!(!agents.learn(Event::Init));
        assert!(!agents.learn(Event::InitApply(pod("1", "a", &waiting))));
        assert!(agents.learn(Event::InitDone));
        assert!(
            matches!(agents.by_node()["a"], Agent::Waiting(why) if why.contains("tracer-1") && why.contains("ImagePullBackOff"))
        );
        agents.learn(Event::Apply(pod("2", "a", &running)));
        assert!(matches!(agents.by_node()["a"], Agent::Running(target) if target.pod == "tracer-2"));
        // One that is about to go is none any more.
        let mut leaving = pod("2", "a", &running);
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-20T22:15:01Z")).unwrap();
        agents.learn(Event::Apply(leaving));
        assert!(matches!(agents.by_node()["a"], Agent::Waiting(_)));
        agents.learn(Event::Delete(pod("1", "a", &waiting)));
        assert!(agents.by_node().is_empty());
    }

    #[test]
    fn a_new_list_takes_the_place_of_the_old_one() {
        let running = json!({"running": {}});
        let mut agents = Agents::default();
        agents.learn(Event::Apply(pod("1", "a", &running)));
        agents.learn(Event::Init);
        agents.learn(Event::InitApply(pod("2", "b", &running)));
        assert!(agents.by_node().contains_key("a"), "until the list is whole");
        agents.learn(Event::InitDone);
        assert_eq!(agents.by_node().keys().copied().collect::<Vec<_>>(), ["b"]);
    }
}
