//! Waiting until each node has its agent: how far that is, and why it does not go on.

use std::{collections::BTreeSet, time::Duration};

use anyhow::bail;
use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Event};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    select,
    time::{Instant, timeout_at},
};
use tracing::debug;

use crate::{
    kubectl::{
        agents,
        agents::{Agent, AgentEvents, Agents, Place},
        args::NodesArgs,
        deploy::AGENTS,
        plain,
    },
    sys::stderr::status,
};

/// Waits until each node has its agent. Says how far that is, and what the cluster reports meanwhile.
pub(super) async fn wait(client: &Client, namespace: &str, patience: Duration) -> anyhow::Result<()> {
    let mut rollout = Rollout::new(client, namespace);
    let late = Instant::now() + patience;
    if let Ok(result) = timeout_at(late, rollout.follow()).await {
        status(&format!("agents run on {}", plain::count(result?, "node")));
        return Ok(());
    }
    let patience = humantime::format_duration(patience);
    rollout.say_all();
    if rollout.said.is_empty() {
        bail!(
            "not all agents run after {patience}, and no pod says why; `kubectl describe daemonset tracer -n {}` may",
            plain::line(namespace)
        );
    }
    bail!("not all agents run after {patience}; the reasons are above")
}

struct Rollout {
    sets: BoxStream<'static, watcher::Result<Option<DaemonSet>>>,
    pods: AgentEvents,
    events: BoxStream<'static, watcher::Result<watcher::Event<Event>>>,
    agents: Agents,
    /// The `DaemonSet`'s, once it is known.
    uid: Option<String>,
    /// What its controller reports, each with the `DaemonSet`'s uid; and what it had reported before.
    reported: Vec<(Option<String>, String)>,
    old: Vec<(Option<String>, String)>,
    progress: String,
    /// The reasons that were said.
    said: BTreeSet<String>,
}

impl Rollout {
    fn new(client: &Client, namespace: &str) -> Self {
        let of_set = format!("involvedObject.kind=DaemonSet,involvedObject.name={AGENTS}");
        let sets = watcher::watch_object(Api::namespaced(client.clone(), namespace), AGENTS);
        let events = watcher(
            Api::<Event>::namespaced(client.clone(), namespace),
            watcher::Config::default().fields(&of_set),
        );
        Self {
            sets: sets.default_backoff().boxed(),
            pods: Place::deployed(namespace).watch(client.clone(), &NodesArgs::all()),
            events: events.default_backoff().boxed(),
            agents: Agents::default(),
            uid: None,
            reported: Vec::new(),
            old: Vec::new(),
            progress: String::new(),
            said: BTreeSet::new(),
        }
    }

    /// Returns the number of nodes when all have their agents.
    async fn follow(&mut self) -> anyhow::Result<i32> {
        loop {
            select! {
                Some(set) = self.sets.next() => match set {
                    Ok(Some(set)) => {
                        self.uid.clone_from(&set.metadata.uid);
                        match progress(&set) {
                            Progress::Done(nodes) => return Ok(nodes),
                            Progress::Going(text) => self.say_progress(text),
                        }
                    }
                    Ok(None) => bail!("the DaemonSet tracer was deleted meanwhile"),
                    Err(error) => debug!("watching the rollout: {}", plain::line(&agents::problem(&error))),
                },
                Some(event) = self.pods.next() => match event {
                    Ok(event) => drop(self.agents.learn(event)),
                    Err(error) => debug!("watching the agents: {}", plain::line(&agents::problem(&error))),
                },
                Some(event) = self.events.next() => match event {
                    Ok(event) => self.learn(event),
                    Err(error) => debug!("watching events: {}", plain::line(&agents::problem(&error))),
                },
                else => bail!("the watch on the rollout has ended"),
            }
            self.say_failures();
        }
    }

    /// Takes in what the controller reports. What it had reported when this began may be settled.
    fn learn(&mut self, event: watcher::Event<Event>) {
        let (event, reported) = match event {
            watcher::Event::InitApply(event) => (event, &mut self.old),
            watcher::Event::Apply(event) => (event, &mut self.reported),
            watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_) => return,
        };
        if event.type_.as_deref() == Some("Warning") {
            let reason = event.reason.unwrap_or_default();
            let message = event.message.unwrap_or_default();
            reported
                .push((event.involved_object.uid, format!("the DaemonSet controller: {reason}: {message}")));
        }
    }

    fn say_progress(&mut self, text: String) {
        if text != self.progress {
            status(&text);
            self.progress = text;
        }
    }

    /// Says what has failed so far, each once.
    fn say_failures(&mut self) {
        let by_node = self.agents.by_node();
        let pods = by_node.into_iter().filter_map(|(node, agent)| match agent {
            Agent::Waiting(waiting) if waiting.failed => Some(of_node(node, &waiting.why)),
            _ => None,
        });
        let mut reasons: Vec<String> = pods.collect();
        if let Some(uid) = &self.uid {
            let mut reported = std::mem::take(&mut self.reported);
            reported.retain(|(of, _)| of.as_ref() == Some(uid));
            reasons.extend(reported.into_iter().map(|(_, reason)| generalized(&reason)));
        }
        self.say_each(reasons);
    }

    /// Says why agents do not run, whatever is known.
    fn say_all(&mut self) {
        let by_node = self.agents.by_node();
        let pods = by_node.into_iter().filter_map(|(node, agent)| match agent {
            Agent::Waiting(waiting) => Some(of_node(node, &waiting.why)),
            Agent::Running(_) => None,
        });
        let mut reasons: Vec<String> = pods.collect();
        if reasons.is_empty() && self.said.is_empty() {
            let old = std::mem::take(&mut self.old).into_iter().filter(|(of, _)| *of == self.uid);
            reasons.extend(old.map(|(_, reason)| generalized(&reason)));
        }
        self.say_each(reasons);
    }

    fn say_each(&mut self, reasons: Vec<String>) {
        for reason in reasons {
            if self.said.insert(reason.clone()) {
                status(&reason);
            }
        }
    }
}

fn of_node(node: &str, why: &str) -> String {
    format!("node {}: {}", plain::line(node), plain::line(why))
}

/// A reason without the name of the pod that could not be made, which is another one each time.
fn generalized(reason: &str) -> String {
    let start = format!("pods \"{AGENTS}-");
    let line = plain::line(reason);
    match line.split_once(&start) {
        Some((before, rest)) if let Some((_, after)) = rest.split_once('"') => format!("{before}pods{after}"),
        _ => line,
    }
}

enum Progress {
    /// On all of so many nodes.
    Done(i32),
    Going(String),
}

/// The condition of `kubectl rollout status` (kubectl/pkg/polymorphichelpers/rollout_status.go), and that its pods are
/// available.
fn progress(agents: &DaemonSet) -> Progress {
    let generation = agents.metadata.generation.unwrap_or_default();
    let Some(status) =
        agents.status.as_ref().filter(|status| status.observed_generation.unwrap_or_default() >= generation)
    else {
        return Progress::Going("the DaemonSet controller has not seen it yet".into());
    };
    let desired = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or_default();
    let available = status.number_available.unwrap_or_default();
    if updated >= desired && available >= desired {
        return Progress::Done(desired);
    }
    Progress::Going(format!("{} of {desired} agents run", updated.min(available)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout(status: &serde_json::Value) -> Progress {
        let agents = json!({"metadata": {"generation": 2}, "status": status});
        progress(&serde_json::from_value(agents).unwrap())
    }

    fn status(observed: u32, desired: u32, updated: u32, available: u32) -> serde_json::Value {
        json!({
            "observedGeneration": observed, "desiredNumberScheduled": desired, "updatedNumberScheduled": updated,
            "numberAvailable": available, "currentNumberScheduled": desired, "numberMisscheduled": 0, "numberReady": available,
        })
    }

    #[test]
    fn a_rollout_is_done_when_each_node_has_the_new_agent() {
        assert!(matches!(rollout(&status(2, 3, 3, 3)), Progress::Done(3)));
        assert!(matches!(rollout(&status(2, 0, 0, 0)), Progress::Done(0)));
        for going in [status(1, 3, 3, 3), status(2, 3, 2, 3), status(2, 3, 3, 2)] {
            assert!(matches!(rollout(&going), Progress::Going(_)), "{going}");
        }
        let Progress::Going(text) = rollout(&status(2, 3, 2, 3)) else { panic!() };
        assert_eq!(text, "2 of 3 agents run");
        assert!(matches!(progress(&DaemonSet::default()), Progress::Going(_)));
    }

    #[test]
    fn the_same_refusal_of_another_pod_is_the_same() {
        let refused = |name: &str| {
            generalized(&format!(
                "FailedCreate: Error creating: pods \"tracer-{name}\" is forbidden: violates PodSecurity"
            ))
        };
        assert_eq!(refused("x2x7p"), "FailedCreate: Error creating: pods is forbidden: violates PodSecurity");
        assert_eq!(refused("x2x7p"), refused("abcde"));
        assert_eq!(generalized("FailedCreate: quota"), "FailedCreate: quota");
    }
}
