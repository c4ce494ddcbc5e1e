//! Waiting until what was deleted is gone, and what that takes.

use std::{collections::BTreeSet, time::Duration};

use anyhow::anyhow;
use futures_util::{StreamExt as _, future::join_all};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Namespace, Node, Pod},
};
use kube::{Api, Client, Resource, api::ListParams, runtime::watcher::Event};
use tokio::{select, time::sleep};
use tracing::debug;

use crate::{
    kubectl::{
        agents,
        agents::Place,
        args::NodesArgs,
        cluster,
        deploy::{AGENTS, gone, names},
        nodes, plain,
    },
    sys::stderr::status,
};

/// After how long it is said what is waited for, and how often it is looked at again.
const SAY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// What is being deleted.
pub(super) struct Leaving<'a> {
    pub(super) client: &'a Client,
    pub(super) namespace: &'a str,
    pub(super) agents: Option<&'a Api<DaemonSet>>,
    pub(super) around: Option<&'a Api<Namespace>>,
}

impl Leaving<'_> {
    /// Returns when all of it is gone.
    pub(super) async fn wait(&self, patience: Duration) -> anyhow::Result<()> {
        let mut said = String::new();
        let tell = async {
            sleep(SAY.0).await;
            loop {
                if let Some(what) = self.remains().await
                    && what != said
                {
                    status(&format!("waiting for {what}"));
                    said = what;
                }
                sleep(SAY.1).await;
            }
        };
        select! {
            result = self.gone() => return result,
            () = tell => {}
            () = sleep(patience) => {}
        }
        let what = self.remains().await.map(|what| format!(": waiting for {what}")).unwrap_or_default();
        Err(anyhow!("not all of it is gone after {}{what}", humantime::format_duration(patience)))
    }

    async fn gone(&self) -> anyhow::Result<()> {
        if let Some(agents) = self.agents {
            gone(agents, AGENTS).await?;
            self.pods_gone().await;
        }
        match self.around {
            Some(around) => gone(around, self.namespace).await,
            None => Ok(()),
        }
    }

    /// Returns when no agent's pod is there any more, or whoever asks may not see them.
    async fn pods_gone(&self) {
        let (mut left, mut listed) = (BTreeSet::new(), false);
        let mut pods = Place::deployed(self.namespace).watch(self.client.clone(), &NodesArgs::all());
        while !(listed && left.is_empty()) {
            match pods.next().await {
                Some(Ok(Event::Init)) => left.clear(),
                Some(Ok(Event::InitApply(pod) | Event::Apply(pod))) => drop(left.insert(pod.metadata.uid)),
                Some(Ok(Event::Delete(pod))) => drop(left.remove(&pod.metadata.uid)),
                Some(Ok(Event::InitDone)) => listed = true,
                Some(Err(error)) => {
                    debug!("the agents' pods are not seen: {}", plain::line(&agents::problem(&error)));
                    if agents::is_forbidden(&error) {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    /// What is still there, in words.
    async fn remains(&self) -> Option<String> {
        let [of_namespace, _, of_agents] = names(self.namespace);
        if let Some(agents) = self.agents
            && let Ok(Some(agents)) = agents.get_opt(AGENTS).await
        {
            return Some(kept(&of_agents, &agents));
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let these = ListParams::default().labels(&Place::deployed(self.namespace).selector.query());
        match pods.list(&these).await {
            Ok(pods) if !pods.items.is_empty() => return Some(self.describe(&pods.items).await),
            Ok(_) => {}
            Err(error) => debug!("the agents' pods: {}", plain::line(&cluster::problem(&error))),
        }
        let namespace = self.around?.get_opt(self.namespace).await.ok()??;
        let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let remaining = conditions
            .filter(|condition| condition.status == "True" && condition.type_.starts_with("Namespace"));
        let messages: Vec<String> =
            remaining.filter_map(|condition| condition.message.as_deref().map(plain::line)).collect();
        Some(if messages.is_empty() {
            kept(&of_namespace, &namespace)
        } else {
            format!("{of_namespace}: {}", messages.join(" "))
        })
    }

    /// The pods that are left, those first whose node does not stop them.
    async fn describe(&self, pods: &[Pod]) -> String {
        /// How many are looked at: requests to the server.
        const LOOKED_AT: usize = 10;
        let looked_at = join_all(pods.iter().take(LOOKED_AT).map(|pod| self.stuck(pod))).await;
        let stuck: Vec<String> = looked_at.into_iter().flatten().collect();
        let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
        let nodes: BTreeSet<&str> = pods.iter().filter_map(node).collect();
        let nodes = plain::names(nodes);
        let all = format!("{} to stop (on {nodes})", plain::count(count, "agent pod"));
        if stuck.is_empty() { all } else { format!("{all}: {}", stuck.join("; ")) }
    }

    /// Why a pod is there for longer than it takes to stop it, if its node says so.
    async fn stuck(&self, pod: &Pod) -> Option<String> {
        let node = node(pod)?;
        let found = Api::<Node>::all(self.client.clone()).get_opt(node).await;
        let why = match found {
            Ok(None) => "the node does not exist any more".to_owned(),
            Ok(Some(found)) => nodes::not_ready(&found)?,
            Err(error) => {
                debug!("node {}: {}", plain::line(node), plain::line(&cluster::problem(&error)));
                return None;
            }
        };
        let (pod, namespace) = (pod.metadata.name.as_deref()?, plain::line(self.namespace));
        Some(format!(
            "{}: {}; if it does not come back: kubectl delete pod {} -n {namespace} --force",
            plain::line(node),
            plain::line(&why),
            plain::line(pod)
        ))
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// An object with what keeps it.
fn kept<K: Resource>(called: &str, object: &K) -> String {
    let finalizers = object.meta().finalizers.as_deref().unwrap_or_default();
    if finalizers.is_empty() {
        return called.to_owned();
    }
    format!("{called}, which has finalizers: {}", plain::names(finalizers.iter().map(String::as_str)))
}
