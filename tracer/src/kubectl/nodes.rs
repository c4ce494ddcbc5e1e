//! The nodes of the cluster: those on which no agent can run, and those that are not ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    kubectl::{args::NodesArgs, cluster::problem, plain},
    sys::stderr::status,
};

/// Labels of nodes on which no agent can run, with what such nodes are. The affinity in `deploy/daemonset.yaml` leaves
/// them out.
pub(super) const UNABLE: [(&str, &str, &str); 3] = [
    ("kubernetes.io/os", "windows", "Windows"),
    ("eks.amazonaws.com/compute-type", "fargate", "Fargate"),
    ("type", "virtual-kubelet", "virtual kubelet"),
];
/// How long looking for them may delay a run that does not depend on it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What kind of node that is, if no agent can run on it.
pub(super) fn unable(node: &Node) -> Option<&'static str> {
    let labels = node.metadata.labels.as_ref()?;
    let is = |(key, value, _): &&(&str, &str, &str)| labels.get(*key).is_some_and(|has| has == value);
    UNABLE.iter().find(is).map(|(_, _, kind)| *kind)
}

/// Why a node is not ready, if its kubelet or the control plane says so.
pub(super) fn not_ready(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    if ready.status == "True" {
        return None;
    }
    let reason = ready.reason.as_deref().unwrap_or(&ready.status);
    let message = ready.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    Some(format!("the node is not ready ({reason}{message})"))
}

/// Nodes on which no agent can run, by name, with their kind. None of them where that may not be asked.
#[derive(Debug, Default)]
pub(super) struct Unable(BTreeMap<String, &'static str>);

impl Unable {
    /// Asks the API server, within bounds.
    pub(super) async fn find(client: &Client, nodes: &NodesArgs) -> Self {
        let api: &Api<Node> = &Api::all(client.clone());
        let lists = UNABLE.iter().map(|(key, value, kind)| async move {
            let these = ListParams::default().labels(&format!("{key}={value}"));
            let listed = timeout(PATIENCE, api.list_metadata(&these)).await;
            let items = match listed {
                Ok(Ok(listed)) => listed.items,
                Ok(Err(error)) => {
                    debug!("nodes without agent are not known: {}", plain::line(&problem(&error)));
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            items
                .into_iter()
                .filter_map(|node| node.metadata.name)
                .map(|name| (name, *kind))
                .collect::<Vec<_>>()
        });
        let found = join_all(lists).await.into_iter().flatten();
        Self(found.filter(|(name, _)| nodes.select(name)).collect())
    }

    pub(super) fn insert(&mut self, name: String, kind: &'static str) {
        self.0.insert(name, kind);
    }

    /// What kind of node that is, if it is one of them.
    pub(super) fn kind(&self, node: &str) -> Option<&'static str> {
        self.0.get(node).copied()
    }

    /// Names them.
    pub(super) fn say(&self) {
        if self.0.is_empty() {
            return;
        }
        let kinds: BTreeSet<&str> = self.0.values().copied().collect();
        let of_kind = |kind: &&str| {
            let names = self.0.iter().filter(|(_, of)| *of == kind).map(|(name, _)| name.as_str());
            format!("{} ({kind})", plain::names(names))
        };
        let named: Vec<String> = kinds.iter().map(of_kind).collect();
        let verb = if self.0.len() == 1 { "runs" } else { "run" };
        let count = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        status(&format!("{} {verb} no agent: {}", plain::count(count, "node"), named.join("; ")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(labels: &serde_json::Value, conditions: &serde_json::Value) -> Node {
        serde_json::from_value(json!({"metadata": {"labels": labels}, "status": {"conditions": conditions}}))
            .unwrap()
    }

    #[test]
    fn a_label_says_that_no_agent_can_run() {
        let kind = |labels| unable(&node(&labels, &json!([])));
        assert_eq!(kind(json!({"kubernetes.io/os": "linux", "type": "worker"})), None);
        assert_eq!(kind(json!({"kubernetes.io/os": "windows"})), Some("Windows"));
        assert_eq!(kind(json!({"eks.amazonaws.com/compute-type": "fargate"})), Some("Fargate"));
        assert_eq!(kind(json!({"type": "virtual-kubelet"})), Some("virtual kubelet"));
    }

    #[test]
    fn a_node_that_is_not_ready_says_why() {
        let conditions = |status: &str| {
            json!([{"type": "MemoryPressure", "status": "Unknown"}, {
                "type": "Ready", "status": status, "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }])
        };
        let why = not_ready(&node(&json!({}), &conditions("Unknown"))).unwrap();
        assert_eq!(why, "the node is not ready (NodeStatusUnknown: Kubelet stopped posting node status.)");
        assert_eq!(not_ready(&node(&json!({}), &conditions("True"))), None);
        assert_eq!(not_ready(&node(&json!({}), &json!([]))), None);
    }
}
