//! Nodes on which no agent can run, and nodes that are not ready.

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
    kubectl::{args::NodesArgs, cluster::problem, text},
    sys::stderr::status,
};

/// Labels of nodes on which no agent can run, with the kind of node. The affinity in `deploy/daemonset.yaml` excludes
/// them.
pub(super) const UNSUPPORTED: [(&str, &str, &str); 3] = [
    ("kubernetes.io/os", "windows", "Windows"),
    ("eks.amazonaws.com/compute-type", "fargate", "Fargate"),
    ("type", "virtual-kubelet", "virtual kubelet"),
];
/// How long the search for them may delay a session, which does not depend on it.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The kind of a node on which no agent can run.
pub(super) fn unsupported(node: &Node) -> Option<&'static str> {
    let labels = node.metadata.labels.as_ref()?;
    let is = |(key, value, _): &&(&str, &str, &str)| labels.get(*key).is_some_and(|has| has == value);
    UNSUPPORTED.iter().find(is).map(|(_, _, kind)| *kind)
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

/// Nodes on which no agent can run, by name, with their kind. Empty if the user is not authorized to list nodes.
#[derive(Debug, Default)]
pub(super) struct UnsupportedNodes(BTreeMap<String, &'static str>);

impl UnsupportedNodes {
    /// Asks the API server, for a limited time.
    pub(super) async fn find(client: &Client, nodes: &NodesArgs) -> Self {
        let api: &Api<Node> = &Api::all(client.clone());
        let lists = UNSUPPORTED.iter().map(|(key, value, kind)| async move {
            let params = ListParams::default().labels(&format!("{key}={value}"));
            let listed = timeout(TIMEOUT, api.list_metadata(&params)).await;
            let items = match listed {
                Ok(Ok(listed)) => listed.items,
                Ok(Err(error)) => {
                    debug!("listing nodes without an agent: {}", problem(&error));
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
        Self(found.filter(|(name, _)| nodes.selects(name)).collect())
    }

    pub(super) fn insert(&mut self, name: String, kind: &'static str) {
        self.0.insert(name, kind);
    }

    /// The kind of a node, if no agent can run on it.
    pub(super) fn kind(&self, node: &str) -> Option<&'static str> {
        self.0.get(node).copied()
    }

    /// Reports them.
    pub(super) fn report(&self) {
        if self.0.is_empty() {
            return;
        }
        let kinds: BTreeSet<&str> = self.0.values().copied().collect();
        let of_kind = |kind: &&str| {
            let names = self.0.iter().filter(|(_, of)| *of == kind).map(|(name, _)| name.as_str());
            format!("{} ({kind})", text::names(names))
        };
        let named: Vec<String> = kinds.iter().map(of_kind).collect();
        let verb = if self.0.len() == 1 { "runs" } else { "run" };
        let count = i64::try_from(self.0.len()).unwrap_or(i64::MAX);
        status(&format!("{} {verb} no agent: {}", text::count(count, "node"), named.join("; ")));
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
    fn labels_mark_nodes_on_which_no_agent_can_run() {
        let kind = |labels| unsupported(&node(&labels, &json!([])));
        assert_eq!(kind(json!({"kubernetes.io/os": "linux", "type": "worker"})), None);
        assert_eq!(kind(json!({"kubernetes.io/os": "windows"})), Some("Windows"));
        assert_eq!(kind(json!({"eks.amazonaws.com/compute-type": "fargate"})), Some("Fargate"));
        assert_eq!(kind(json!({"type": "virtual-kubelet"})), Some("virtual kubelet"));
    }

    #[test]
    fn a_node_that_is_not_ready_reports_the_reason() {
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
