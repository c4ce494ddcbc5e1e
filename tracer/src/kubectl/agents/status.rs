//! Reads the state of an agent from its pod.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};

use crate::kubectl::agents::{Agent, CONTAINER, Outlook, Target, Waiting};

/// A pod's node, and its state as an agent. None for pods without a node and pods that are being deleted.
pub(super) fn agent(pod: &Pod) -> Option<(String, Agent)> {
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
            image: container.image.clone(),
        })
    } else {
        let (problem, outlook) = waiting(status, container);
        Agent::Waiting(Waiting { reason: format!("the agent pod {name} {problem}"), outlook })
    };
    Some((node, agent))
}

/// The node that a pod is bound to, or that the `DaemonSet` controller created it for.
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

/// Why an agent does not run.
fn waiting(status: Option<&PodStatus>, container: Option<&ContainerStatus>) -> (String, Outlook) {
    /// The reasons that kubelets report for containers that are starting.
    const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let Some(status) = status else { return ("is not scheduled yet".into(), Outlook::Starting) };
    let state = container.and_then(|container| Some((container, container.state.as_ref()?)));
    if let Some((container, state)) = state {
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or("Waiting");
            if STARTING.contains(&reason) {
                return (format!("is starting ({reason})"), Outlook::Starting);
            }
            let message = waiting.message.clone().into_iter().chain(last_exit(container));
            let report = report(reason, message, Some(&container.image));
            return (format!("does not run: {report}"), Outlook::Failed);
        }
        if let Some(ended) = &state.terminated {
            return (exit(ended), outlook(status.phase.as_deref().unwrap_or_default()));
        }
    }
    let conditions = status.conditions.iter().flatten();
    let mut unscheduled = conditions.filter(|each| each.type_ == "PodScheduled" && each.status == "False");
    if let Some(condition) = unscheduled.next() {
        let reason = condition.reason.as_deref().unwrap_or("Pending");
        let report = report(reason, condition.message.clone(), None);
        return (format!("is not scheduled: {report}"), Outlook::Failed);
    }
    match status.phase.as_deref().unwrap_or("Unknown") {
        "Pending" => ("is Pending: the kubelet has not reported its status".into(), Outlook::Starting),
        phase => {
            let reason = status.reason.as_deref().unwrap_or(phase);
            (format!("does not run: {}", report(reason, status.message.clone(), None)), outlook(phase))
        }
    }
}

fn outlook(phase: &str) -> Outlook {
    if phase == "Failed" { Outlook::Failed } else { Outlook::Starting }
}

/// A reason with its messages, and the image unless they name it.
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

/// How a container that is restarted again and again ended the last time.
fn last_exit(container: &ContainerStatus) -> Option<String> {
    container.last_state.as_ref()?.terminated.as_ref().map(exit)
}

fn exit(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = ended.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("exited with code {}{reason}{message}", ended.exit_code)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The reason why a pod with this status does not run.
    fn reason(status: &serde_json::Value) -> (String, Outlook) {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"nodeName": "a", "containers": []}, "status": status,
        }));
        let Some((_, Agent::Waiting(Waiting { reason, outlook }))) = agent(&pod.unwrap()) else { panic!() };
        (reason.strip_prefix("the agent pod p ").unwrap().to_owned(), outlook)
    }

    fn container(state: &serde_json::Value, last: &serde_json::Value) -> serde_json::Value {
        json!({"phase": "Pending", "containerStatuses": [{
            "name": "tracer", "image": "r/tracer:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": state, "lastState": last,
        }]})
    }

    #[test]
    fn what_kubelets_and_schedulers_report_is_reason() {
        let pull = |message: &str| {
            let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": message}});
            reason(&container(&waiting, &json!(null))).0
        };
        assert_eq!(pull("no such host"), "does not run: ErrImagePull: no such host (image r/tracer:1)");
        assert_eq!(pull("r/tracer:1: not found"), "does not run: ErrImagePull: r/tracer:1: not found");
        let back_off = container(
            &json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}),
            &json!({"terminated": {"exitCode": 2, "reason": "Error"}}),
        );
        let expected =
            "does not run: CrashLoopBackOff: back-off 10s: exited with code 2 (Error) (image r/tracer:1)";
        assert_eq!(reason(&back_off), (expected.to_owned(), Outlook::Failed));
        let creating = container(&json!({"waiting": {"reason": "ContainerCreating"}}), &json!(null));
        assert_eq!(reason(&creating), ("is starting (ContainerCreating)".to_owned(), Outlook::Starting));
        let unschedulable = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: taint"},
        ]});
        assert_eq!(
            reason(&unschedulable),
            ("is not scheduled: Unschedulable: 0/3 nodes: taint".to_owned(), Outlook::Failed)
        );
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        assert_eq!(reason(&evicted), ("does not run: Evicted: low on memory".to_owned(), Outlook::Failed));
        let silent = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
        assert_eq!(reason(&silent).1, Outlook::Starting);
    }

    #[test]
    fn a_daemon_sets_pod_has_a_node_before_it_is_bound() {
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
