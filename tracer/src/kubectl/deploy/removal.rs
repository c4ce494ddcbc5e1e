//! Waits until what was deleted is gone, and reports what it waits for.

use std::{collections::BTreeSet, time::Duration};

use anyhow::anyhow;
use futures_util::{StreamExt as _, future::join_all};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Namespace, Node, Pod},
};
use kube::{Api, Client, Resource, api::ListParams, runtime::watcher::Event};
use tokio::{
    select,
    time::{Instant, sleep},
};
use tracing::debug;

use crate::{
    kubectl::{
        agents::{self, AgentSet},
        args::NodesArgs,
        cluster,
        deploy::{AGENTS, kubectl_names, wait_gone},
        nodes, text,
    },
    sys::stderr::status,
};

/// When to report what is waited for: first after, then every.
const REPORT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));
/// How long a deleted namespace may be untouched by its controller, which begins after 5 seconds.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(15);
/// The finalizer of each namespace, which the namespace controller removes.
const NAMESPACE_FINALIZER: &str = "kubernetes";

/// What is being deleted.
pub(super) struct Removal<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) agents: Option<&'a Api<DaemonSet>>,
    pub(super) namespaces: Option<&'a Api<Namespace>>,
}

impl Removal<'_> {
    /// Returns when all of it is gone.
    pub(super) async fn wait(&self, timeout: Duration) -> anyhow::Result<()> {
        let mut reported = String::new();
        let report = async {
            sleep(REPORT.0).await;
            loop {
                if let Some(remaining) = self.remaining().await
                    && remaining != reported
                {
                    status(&format!("waiting for {remaining}"));
                    reported = remaining;
                }
                sleep(REPORT.1).await;
            }
        };
        select! {
            result = self.gone() => return result,
            () = report => {}
            () = sleep(timeout) => {}
        }
        let remaining = self.remaining().await;
        let remaining = remaining.map(|remaining| format!(": waiting for {remaining}")).unwrap_or_default();
        Err(anyhow!("not everything was deleted after {}{remaining}", humantime::format_duration(timeout)))
    }

    async fn gone(&self) -> anyhow::Result<()> {
        if let Some(agents) = self.agents {
            wait_gone(agents, AGENTS).await?;
            self.pods_gone().await;
        }
        let Some(namespaces) = self.namespaces else { return Ok(()) };
        select! {
            result = wait_gone(namespaces, self.namespace) => result,
            () = self.no_controller(namespaces) => {
                let [of_namespace, ..] = kubectl_names(self.namespace);
                status(&format!(
                    "{of_namespace} is empty but stays Terminating: nothing removes its finalizer \
                     {NAMESPACE_FINALIZER:?}; is kube-controller-manager running?"
                ));
                Ok(())
            }
        }
    }

    /// Returns when the cluster seems to have no namespace controller, as an API server on its own. `kubectl delete` waits
    /// forever there.
    async fn no_controller(&self, namespaces: &Api<Namespace>) {
        const INTERVAL: Duration = Duration::from_secs(1);
        let mut untouched_since = Instant::now();
        while untouched_since.elapsed() < CONTROLLER_TIMEOUT {
            sleep(INTERVAL).await;
            match namespaces.get_opt(self.namespace).await {
                Ok(Some(namespace)) if is_untouched(&namespace) => {}
                _ => untouched_since = Instant::now(),
            }
        }
    }

    /// Returns when no pod of an agent exists, or the user is not authorized to list them.
    async fn pods_gone(&self) {
        let (mut pods_left, mut is_listed) = (BTreeSet::new(), false);
        let mut pods = AgentSet::deployed(self.namespace).watch(self.client.clone(), &NodesArgs::all());
        while !(is_listed && pods_left.is_empty()) {
            match pods.next().await {
                Some(Ok(Event::Init)) => pods_left.clear(),
                Some(Ok(Event::InitApply(pod) | Event::Apply(pod))) => _ = pods_left.insert(pod.metadata.uid),
                Some(Ok(Event::Delete(pod))) => _ = pods_left.remove(&pod.metadata.uid),
                Some(Ok(Event::InitDone)) => is_listed = true,
                Some(Err(error)) => {
                    debug!("watching the agents: {}", text::line(&agents::problem(&error)));
                    if agents::is_forbidden(&error) {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// Describes what still exists.
    async fn remaining(&self) -> Option<String> {
        let [of_namespace, _, of_agents] = kubectl_names(self.namespace);
        if let Some(agents) = self.agents
            && let Ok(Some(agents)) = agents.get_opt(AGENTS).await
        {
            return Some(with_finalizers(&of_agents, &agents, &[]));
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let params = ListParams::default().labels(&AgentSet::deployed(self.namespace).selector.query());
        match pods.list(&params).await {
            Ok(pods) if !pods.items.is_empty() => return Some(self.describe(&pods.items).await),
            Ok(_) => {}
            Err(error) => debug!("listing the agents: {}", cluster::problem(&error)),
        }
        let namespace = self.namespaces?.get_opt(self.namespace).await.ok()??;
        let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let remaining = conditions
            .filter(|condition| condition.status == "True" && condition.type_.starts_with("Namespace"));
        let messages: Vec<String> =
            remaining.filter_map(|condition| condition.message.as_deref().map(text::line)).collect();
        Some(if messages.is_empty() {
            let spec = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref());
            with_finalizers(&of_namespace, &namespace, spec.unwrap_or_default())
        } else {
            format!("{of_namespace}: {}", messages.join(" "))
        })
    }

    /// Describes pods that still exist, with the reasons of nodes that do not stop them.
    async fn describe(&self, pods: &[Pod]) -> String {
        /// How many nodes are requested from the server.
        const NODES_MAX: usize = 10;
        let reasons = join_all(pods.iter().take(NODES_MAX).map(|pod| self.stuck(pod))).await;
        let stuck: Vec<String> = reasons.into_iter().flatten().collect();
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let nodes: BTreeSet<&str> = pods.iter().filter_map(node).collect();
        let nodes = text::names(nodes);
        let all = format!("{} to stop (on {nodes})", text::count(count, "agent pod"));
        if stuck.is_empty() { all } else { format!("{all}: {}", stuck.join("; ")) }
    }

    /// Why a node does not stop its pod, if it is known.
    async fn stuck(&self, pod: &Pod) -> Option<String> {
        let node = node(pod)?;
        let found = Api::<Node>::all(self.client.clone()).get_opt(node).await;
        let reason = match found {
            Ok(None) => "the node no longer exists".to_owned(),
            Ok(Some(found)) => nodes::not_ready(&found)?,
            Err(error) => {
                debug!("node {}: {}", text::line(node), cluster::problem(&error));
                return None;
            }
        };
        let (pod, namespace) = (pod.metadata.name.as_deref()?, text::line(self.namespace));
        Some(format!(
            "{}: {}; if it does not come back: kubectl delete pod {} -n {namespace} --force",
            text::line(node),
            text::line(&reason),
            text::line(pod)
        ))
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// The name of an object, with its finalizers.
fn with_finalizers<K: Resource>(name: &str, object: &K, further: &[String]) -> String {
    let finalizers = object.meta().finalizers.as_deref().unwrap_or_default().iter().chain(further);
    let finalizers = text::names(finalizers.map(String::as_str));
    if finalizers.is_empty() {
        name.to_owned()
    } else {
        format!("{name}, which has finalizers: {finalizers}")
    }
}

/// Whether a namespace is deleted, and its controller has neither removed its finalizer nor reported what remains.
fn is_untouched(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    let has_conditions = |namespace: &Namespace| {
        let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|conditions| !conditions.is_empty())
    };
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|name| name == NAMESPACE_FINALIZER))
        && !has_conditions(namespace)
}
