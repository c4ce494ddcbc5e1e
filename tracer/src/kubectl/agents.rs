//! The agents: pods, one a node, in which `tracer` can be executed. `kubectl tracer deploy` makes them.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
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
    /// It does not.
    Waiting(Waiting),
}

/// An agent that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Why, with the pod's name.
    pub(super) why: String,
    /// Whether the kubelet or the scheduler has reported a failure: it will not run soon.
    pub(super) failed: bool,
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
}

impl Place {
    /// Pods of agents that are bound to no node: a watch on one node's does not see them.
    pub(super) async fn unbound(&self, client: &Client) -> kube::Result<Vec<Pod>> {
        let these = ListParams::default().labels(&self.selector.query()).fields("spec.nodeName=");
        Ok(Api::<Pod>::namespaced(client.clone(), &self.namespace).list(&these).await?.items)
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

/// A pod's node, and its state as an agent. None for pods that are for no node, or about to go.
fn agent(pod: &Pod) -> Option<(String, Agent)> {
    let node = node(pod.spec.as_ref()?)?.to_owned();
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = pod.metadata.name.clone()?;
    let status = pod.status.as_ref();
    let container = status.and_then(container_status);
    let running = container.filter(|container| {
        status.and_then(|status| status.phase.as_deref()) == Some("Running")
            && container.state.as_ref().is_some_and(|state| state.running.is_some())
    });
    let agent = if let Some(container) = running {
        Agent::Running(Target {
            pod: name,
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            container: container.container_id.clone().unwrap_or_default(),
        })
    } else {
        let (problem, failed) = waiting(status, container);
        Agent::Waiting(Waiting { why: format!("the agent pod {name} {problem}"), failed })
    };
    Some((node, agent))
}

/// The node that a pod is bound to, or that the `DaemonSet` controller has made it for.
fn node(spec: &PodSpec) -> Option<&str> {
    if let Some(node) = &spec.node_name {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

fn container_status(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER)
}

/// Why an agent does not run, and whether that is a failure.
fn waiting(status: Option<&PodStatus>, container: Option<&ContainerStatus>) -> (String, bool) {
    /// What kubelets report of containers that are about to run.
    const ON_THEIR_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let Some(status) = status else { return ("is not scheduled yet".into(), false) };
    let state = container.and_then(|container| Some((container, container.state.as_ref()?)));
    if let Some((container, state)) = state {
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or("Waiting");
            if ON_THEIR_WAY.contains(&reason) {
                return (format!("is starting ({reason})"), false);
            }
            let message = waiting.message.clone().into_iter().chain(last_exit(container));
            return (format!("does not run: {}", report(reason, message, Some(&container.image))), true);
        }
        if let Some(ended) = &state.terminated {
            let failed = status.phase.as_deref() == Some("Failed");
            return (exit(ended), failed);
        }
    }
    let conditions = status.conditions.iter().flatten();
    let mut unscheduled = conditions.filter(|each| each.type_ == "PodScheduled" && each.status == "False");
    if let Some(condition) = unscheduled.next() {
        let reason = condition.reason.as_deref().unwrap_or("Pending");
        return (format!("is not scheduled: {}", report(reason, condition.message.clone(), None)), true);
    }
    match status.phase.as_deref().unwrap_or("Unknown") {
        "Pending" => ("is Pending: the kubelet has not reported on it".into(), false),
        phase => {
            let reason = status.reason.as_deref().unwrap_or(phase);
            (format!("does not run: {}", report(reason, status.message.clone(), None)), phase == "Failed")
        }
    }
}

/// A reason with its messages, and the image that they do not name.
fn report(reason: &str, messages: impl IntoIterator<Item = String>, image: Option<&str>) -> String {
    let mut text = reason.to_owned();
    for message in messages.into_iter().filter(|message| !message.is_empty()) {
        text = format!("{text}: {message}");
    }
    match image {
        Some(image) if !image.is_empty() && !text.contains(image) => format!("{text} (image {image})"),
        _ => text,
    }
}

/// How a container that is started again and again ended the last time.
fn last_exit(container: &ContainerStatus) -> Option<String> {
    container.last_state.as_ref()?.terminated.as_ref().map(exit)
}

fn exit(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = ended.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("exited with code {}{reason}{message}", ended.exit_code)
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

/// Whether the server has forgotten the version that a watch was to go on from: the watch begins anew.
pub(super) fn is_expired(error: &watcher::Error) -> bool {
    code(error) == Some(410)
}

/// Whether that may not be asked.
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
    fn a_node_has_the_agent_that_runs() {
        let (running, waiting) = (json!({"running": {}}), json!({"waiting": {"reason": "ImagePullBackOff"}}));
        let mut agents = Agents::default();
        assert!(!agents.learn(Event::Init));
        assert!(!agents.learn(Event::InitApply(pod("1", "a", &waiting))));
        assert!(agents.learn(Event::InitDone));
        assert!(
            matches!(agents.by_node()["a"], Agent::Waiting(waiting) if waiting.failed && waiting.why.contains("tracer-1"))
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

    /// What is said of a pod with this status, and whether it is a failure.
    fn said(status: &serde_json::Value) -> (String, bool) {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"nodeName": "a", "containers": []}, "status": status,
        }));
        let Some((_, Agent::Waiting(Waiting { why, failed }))) = agent(&pod.unwrap()) else { panic!() };
        (why.strip_prefix("the agent pod p ").unwrap().to_owned(), failed)
    }

    fn container(state: &serde_json::Value, last: &serde_json::Value) -> serde_json::Value {
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "tracer", "image": "r/tracer:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        }]})
    }

    #[test]
    fn what_kubelets_and_schedulers_report_is_said() {
        let pull = |message: &str| {
            let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": message}});
            said(&container(&waiting, &json!(null))).0
        };
        assert_eq!(pull("no such host"), "does not run: ErrImagePull: no such host (image r/tracer:1)");
        assert_eq!(pull("r/tracer:1: not found"), "does not run: ErrImagePull: r/tracer:1: not found");
        let back_off = container(
            &json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
            &json!({"terminated": {"exitCode": 2, "reason": "Error"}}),
        );
        let expected =
            "does not run: CrashLoopBackOff: back-off 10s: exited with code 2 (Error) (image r/tracer:1)";
        assert_eq!(said(&back_off), (expected.to_owned(), true));
        let creating = container(&json!({"waiting": {"reason": "ContainerCreating"}}), &json!(null));
        assert_eq!(said(&creating), ("is starting (ContainerCreating)".to_owned(), false));
        let unschedulable = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: taint"},
        ]});
        assert_eq!(
            said(&unschedulable),
            ("is not scheduled: Unschedulable: 0/3 nodes: taint".to_owned(), true)
        );
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        assert_eq!(said(&evicted), ("does not run: Evicted: low on memory".to_owned(), true));
        let silent = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
        assert!(!said(&silent).1);
    }

    #[test]
    fn a_pod_that_is_not_bound_is_its_nodes_all_the_same() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]},
                ]},
            }}},
            "status": {"phase": "Pending"},
        }))
        .unwrap();
        assert_eq!(agent(&pod).unwrap().0, "a");
    }
}
