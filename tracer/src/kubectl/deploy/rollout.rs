//! Waits until each node has its agent, and reports progress and problems.

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
        agents::{Agent, AgentEvents, AgentSet, Agents, Outlook},
        args::NodesArgs,
        deploy::AGENTS,
        text,
    },
    sys::stderr::status,
};

/// Waits until each node has its agent. Reports progress, and the problems that the cluster reports.
pub(super) async fn wait(client: &Client, namespace: &str, timeout: Duration) -> anyhow::Result<()> {
    let mut rollout = Rollout::new(client, namespace);
    let deadline = Instant::now() + timeout;
    if let Ok(result) = timeout_at(deadline, rollout.follow()).await {
        status(&format!("agents run on {}", text::count(result?, "node")));
        return Ok(());
    }
    let timeout = humantime::format_duration(timeout);
    rollout.report_all();
    if rollout.reported.is_empty() {
        bail!(
            "not all agents run after {timeout}, and no pod has a reason; try `kubectl describe daemonset tracer -n {}`",
            text::line(namespace)
        );
    }
    bail!("not all agents run after {timeout}; see above for the reasons")
}

struct Rollout {
    sets: BoxStream<'static, watcher::Result<Option<DaemonSet>>>,
    pods: AgentEvents,
    events: BoxStream<'static, watcher::Result<watcher::Event<Event>>>,
    agents: Agents,
    /// The uid of the `DaemonSet`, once it is known.
    uid: Option<String>,
    /// Warnings of its controller, each with the uid of the `DaemonSet`.
    warnings: Vec<(Option<String>, String)>,
    /// Warnings from before: they may be outdated.
    old_warnings: Vec<(Option<String>, String)>,
    /// The progress that was reported last.
    progress: String,
    /// The reasons that were reported.
    reported: BTreeSet<String>,
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
            pods: AgentSet::deployed(namespace).watch(client.clone(), &NodesArgs::all()),
            events: events.default_backoff().boxed(),
            agents: Agents::default(),
            uid: None,
            warnings: Vec::new(),
            old_warnings: Vec::new(),
            progress: String::new(),
            reported: BTreeSet::new(),
        }
    }

    /// Follows the rollout until it is done. Returns the number of nodes.
    async fn follow(&mut self) -> anyhow::Result<i32> {
        loop {
            select! {
                Some(set) = self.sets.next() => match set {
                    Ok(Some(set)) => {
                        self.uid.clone_from(&set.metadata.uid);
                        match progress(&set) {
                            Progress::Done(nodes) => return Ok(nodes),
                            Progress::Incomplete(text) => self.report_progress(text),
                        }
                    }
                    Ok(None) => bail!("the DaemonSet tracer was deleted"),
                    Err(error) => debug!("watching the rollout: {}", text::line(&agents::problem(&error))),
                },
                Some(event) = self.pods.next() => match event {
                    Ok(event) => _ = self.agents.apply(event),
                    Err(error) => debug!("watching the agents: {}", text::line(&agents::problem(&error))),
                },
                Some(event) = self.events.next() => match event {
                    Ok(event) => self.add_warning(event),
                    Err(error) => debug!("watching events: {}", text::line(&agents::problem(&error))),
                },
                else => bail!("the watch on the rollout ended"),
            }
            self.report_failures();
        }
    }

    /// Adds a warning of the controller.
    fn add_warning(&mut self, event: watcher::Event<Event>) {
        let (event, warnings) = match event {
            watcher::Event::InitApply(event) => (event, &mut self.old_warnings),
            watcher::Event::Apply(event) => (event, &mut self.warnings),
            watcher::Event::Init | watcher::Event::InitDone | watcher::Event::Delete(_) => return,
        };
        if event.type_.as_deref() == Some("Warning") {
            let reason = event.reason.unwrap_or_default();
            let message = event.message.unwrap_or_default();
            warnings
                .push((event.involved_object.uid, format!("the DaemonSet controller: {reason}: {message}")));
        }
    }

    fn report_progress(&mut self, text: String) {
        if text != self.progress {
            status(&text);
            self.progress = text;
        }
    }

    /// Reports the failures so far, each once.
    fn report_failures(&mut self) {
        let by_node = self.agents.by_node();
        let pods = by_node.into_iter().filter_map(|(node, agent)| match agent {
            Agent::Waiting(waiting) if waiting.outlook == Outlook::Failed => {
                Some(of_node(node, &waiting.reason))
            }
            _ => None,
        });
        let mut reasons: Vec<String> = pods.collect();
        if let Some(uid) = &self.uid {
            let mut warnings = std::mem::take(&mut self.warnings);
            warnings.retain(|(of, _)| of.as_ref() == Some(uid));
            reasons.extend(warnings.into_iter().map(|(_, reason)| generalized(&reason)));
        }
        self.report_each(reasons);
    }

    /// Reports all known reasons why agents do not run.
    fn report_all(&mut self) {
        let by_node = self.agents.by_node();
        let pods = by_node.into_iter().filter_map(|(node, agent)| match agent {
            Agent::Waiting(waiting) => Some(of_node(node, &waiting.reason)),
            Agent::Running(_) => None,
        });
        let mut reasons: Vec<String> = pods.collect();
        if reasons.is_empty() && self.reported.is_empty() {
            let old = std::mem::take(&mut self.old_warnings).into_iter().filter(|(of, _)| *of == self.uid);
            reasons.extend(old.map(|(_, reason)| generalized(&reason)));
        }
        self.report_each(reasons);
    }

    fn report_each(&mut self, reasons: Vec<String>) {
        for reason in reasons {
            if self.reported.insert(reason.clone()) {
                status(&reason);
            }
        }
    }
}

fn of_node(node: &str, why: &str) -> String {
    format!("node {}: {}", text::line(node), text::line(why))
}

/// A reason without the generated name of the pod that could not be created.
fn generalized(reason: &str) -> String {
    let start = format!("pods \"{AGENTS}-");
    let line = text::line(reason);
    match line.split_once(&start) {
        Some((before, rest)) if let Some((_, after)) = rest.split_once('"') => format!("{before}pods{after}"),
        _ => line,
    }
}

enum Progress {
    /// The number of nodes, all of which have an agent.
    Done(i32),
    Incomplete(String),
}

/// As `kubectl rollout status` (kubectl/pkg/polymorphichelpers/rollout_status.go), and requires that the pods are available.
fn progress(agents: &DaemonSet) -> Progress {
    let generation = agents.metadata.generation.unwrap_or_default();
    let Some(status) =
        agents.status.as_ref().filter(|status| status.observed_generation.unwrap_or_default() >= generation)
    else {
        return Progress::Incomplete("the DaemonSet controller has not processed it yet".into());
    };
    let desired = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or_default();
    let available = status.number_available.unwrap_or_default();
    if updated >= desired && available >= desired {
        return Progress::Done(desired);
    }
    Progress::Incomplete(format!("{} of {desired} agents run", updated.min(available)))
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
            assert!(matches!(rollout(&going), Progress::Incomplete(_)), "{going}");
        }
        let Progress::Incomplete(text) = rollout(&status(2, 3, 2, 3)) else { panic!() };
        assert_eq!(text, "2 of 3 agents run");
        assert!(matches!(progress(&DaemonSet::default()), Progress::Incomplete(_)));
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
