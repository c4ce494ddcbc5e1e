//! Simulated controllers and kubelets for the [API server](super::apiserver), as far as agents need them: a `DaemonSet` has
//! a pod on each node, a `Job` has a pod that ends with its process, and dependents are deleted with their owner.

use std::io::{self, Read, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::apiserver::{Program, Shared, State};
use crate::objects::{Place, Selection};
use crate::tracer;

/// The label with the generation of a pod's `DaemonSet`.
const GENERATION: &str = "pod-template-generation";
const NODES: &str = "/api/v1/nodes";

/// Why no new pod runs on a node.
#[derive(Debug, Clone)]
pub(crate) enum Hold {
    /// The kubelet reports this reason and message.
    Waiting(String, String),
    /// The scheduler reports this message.
    Unscheduled(String),
    /// The kubelet reports nothing.
    Silent,
}

/// The main process of a pod.
pub(crate) struct Main {
    stdin: ChildStdin,
    /// Its output, each piece after the number of its channel.
    pub(crate) output: broadcast::Sender<Vec<u8>>,
}

impl Main {
    /// Writes to its standard input, which stays open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // It may have exited.
        let _ = self.stdin.write_all(bytes);
    }
}

/// Reconciles an object.
pub(crate) fn settle(shared: &Arc<Shared>, state: &mut State, path: &str) {
    match Place::parse(path).expect("a path").resource.as_str() {
        "daemonsets" => daemon_set(shared, state, path),
        "jobs" => job(shared, state, path),
        _ => {}
    }
}

/// Reconciles the pods and the status of a `DaemonSet`.
fn daemon_set(shared: &Arc<Shared>, state: &mut State, path: &str) {
    let Some(mut set) = state.objects.get(path).cloned() else { return };
    if !set["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let generation = set["metadata"]["generation"].to_string();
    for pod in state.objects.dependents(&set["metadata"]["uid"]) {
        if state.objects.get(&pod).is_some_and(|pod| pod["metadata"]["labels"][GENERATION] != generation) {
            remove(state, &pod);
        }
    }
    let names = |objects: Vec<&Value>, field: fn(&Value) -> &Value| -> Vec<String> {
        objects.into_iter().filter_map(|object| field(object).as_str().map(str::to_owned)).collect()
    };
    let nodes = state.objects.list(NODES, &Selection::default()).into_iter();
    let able = nodes.filter(|node| matches(&set["spec"]["template"]["spec"], node)).collect();
    let all = names(able, |node| &node["metadata"]["name"]);
    let dependents = state.objects.dependents(&set["metadata"]["uid"]);
    let pods: Vec<&Value> = dependents.iter().filter_map(|path| state.objects.get(path)).collect();
    let have: Vec<String> = pods.into_iter().map(|pod| node_of(pod).to_owned()).collect();
    for node in all.iter().filter(|node| !have.contains(node)) {
        if let Some(refusal) = state.refused_pods.clone() {
            report(state, &set, &refusal);
            continue;
        }
        let mut template = set["spec"]["template"].clone();
        template["metadata"]["labels"][GENERATION] = json!(generation);
        template["spec"]["affinity"] = json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]},
        ]}}});
        // As the scheduler does.
        if !matches!(state.waiting.get(node), Some(Hold::Unscheduled(_))) {
            template["spec"]["nodeName"] = json!(node);
        }
        make_pod(shared, state, &set, template);
    }
    let dependents = state.objects.dependents(&set["metadata"]["uid"]);
    let running = dependents.iter().filter(|path| state.objects.get(path).is_some_and(is_running)).count();
    set["status"] = json!({
        "observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": all.len(),
        "currentNumberScheduled": all.len(), "updatedNumberScheduled": dependents.len(), "numberMisscheduled": 0,
        "numberReady": running, "numberAvailable": running,
        "numberUnavailable": all.len().saturating_sub(running),
    });
    state.objects.put(path, set);
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Whether a node matches the affinity of a pod; only `NotIn` is supported.
fn matches(pod: &Value, node: &Value) -> bool {
    let terms = pod["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].as_array();
    let expressions = terms.into_iter().flatten().filter_map(|term| term["matchExpressions"].as_array());
    expressions.flatten().all(|expression| {
        assert_eq!(expression["operator"], "NotIn", "{expression}");
        let values = expression["values"].as_array().expect("values");
        !values.contains(&node["metadata"]["labels"][expression["key"].as_str().expect("a key")])
    })
}

/// The node that a pod is bound to or was created for.
pub(crate) fn node_of(pod: &Value) -> &str {
    let terms = &pod["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"];
    let bound = pod["spec"]["nodeName"].as_str();
    bound.or(terms[0]["matchFields"][0]["values"][0].as_str()).unwrap_or_default()
}

/// Stores the event of a controller that could not create a pod.
fn report(state: &mut State, set: &Value, refusal: &str) {
    let number = state.objects.number();
    let metadata = &set["metadata"];
    let (name, namespace) =
        (metadata["name"].as_str().expect("a name"), metadata["namespace"].as_str().expect("one"));
    let path = format!("/api/v1/namespaces/{namespace}/events/{name}.{number}");
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": format!("{name}.{number}"), "namespace": namespace},
        "involvedObject": {
            "kind": "DaemonSet", "name": name, "namespace": namespace, "uid": metadata["uid"], "apiVersion": "apps/v1",
        },
        "type": "Warning", "reason": "FailedCreate",
        "message": format!("Error creating: pods \"{name}-{number:05}\" is forbidden: {refusal}"),
    });
    state.objects.put(&path, event);
}

fn job(shared: &Arc<Shared>, state: &mut State, path: &str) {
    let Some(job) = state.objects.get(path).cloned() else { return };
    if state.objects.dependents(&job["metadata"]["uid"]).is_empty() {
        make_pod(shared, state, &job, job["spec"]["template"].clone());
    }
}

/// Creates the pod of a `DaemonSet` or `Job` on the node of its template.
fn make_pod(shared: &Arc<Shared>, state: &mut State, owner: &Value, template: Value) {
    let metadata = &owner["metadata"];
    let (namespace, number) = (metadata["namespace"].as_str().expect("a namespace"), state.objects.number());
    let name = format!("{}-{number}", metadata["name"].as_str().expect("a name"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
    let mut pod = template;
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"],
        "controller": true,
    }]);
    let node = node_of(&pod);
    let program = state.instead.get(node).cloned().unwrap_or(Program::Tracer);
    state.objects.put(&path, pod);
    state.programs.insert(name, program);
    run_pod(shared, state, &path);
}

/// Acts as the kubelet of a pod's node: runs its container, unless the test holds it.
pub(crate) fn run_pod(shared: &Arc<Shared>, state: &mut State, path: &str) {
    let Some(mut pod) = state.objects.get(path).cloned() else { return };
    let node = node_of(&pod).to_owned();
    let waiting = state.waiting.get(&node).cloned();
    let number = state.objects.number();
    let scheduled = json!({"type": "PodScheduled", "status": "True"});
    let (phase, condition, container, id) = match &waiting {
        Some(Hold::Waiting(reason, message)) => {
            let waiting = json!({"waiting": {"reason": reason, "message": message}});
            ("Pending", scheduled, waiting, String::new())
        }
        Some(Hold::Unscheduled(message)) => {
            let why = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            });
            ("Pending", why, Value::Null, String::new())
        }
        Some(Hold::Silent) => ("Pending", scheduled, Value::Null, String::new()),
        None => {
            pod["spec"]["nodeName"] = json!(node);
            let running = json!({"running": {"startedAt": "2026-11-20T22:15:01Z"}});
            ("Running", scheduled, running, format!("containerd://{number}"))
        }
    };
    let image = pod["spec"]["containers"][0]["image"].clone();
    pod["status"] = json!({"phase": phase, "conditions": [condition]});
    if !container.is_null() {
        pod["status"]["containerStatuses"] = json!([{
            "name": "tracer", "image": image, "imageID": "", "ready": waiting.is_none(), "restartCount": 0,
            "containerID": id, "state": container,
        }]);
    }
    if waiting.is_none() && pod["metadata"]["ownerReferences"][0]["kind"] == "Job" {
        start_main(shared, state, path, &pod);
    }
    state.objects.put(path, pod);
}

/// Whether a pod's container runs.
pub(crate) fn is_running(pod: &Value) -> bool {
    !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()
}

/// Starts the main process of a container. When it exits, its `Job` is done.
fn start_main(shared: &Arc<Shared>, state: &mut State, path: &str, pod: &Value) {
    let container = &pod["spec"]["containers"][0];
    assert_eq!((&container["stdin"], &container["stdinOnce"]), (&json!(true), &Value::Null), "{container}");
    let words = container["command"].as_array().expect("a command").iter();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    assert_eq!(words[0], "/tracer");
    let mut command = Command::new(tracer::binary());
    command.args(&words[1..]).env_remove("RUST_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let pid = i32::try_from(child.id()).expect("a pid");
    let output = broadcast::channel(64).0;
    for (channel, pipe) in [
        (1, Box::new(child.stdout.take().expect("piped")) as Box<dyn Read + Send>),
        (2, Box::new(child.stderr.take().expect("piped"))),
    ] {
        let output = output.clone();
        thread::spawn(move || publish(channel, pipe, &output));
    }
    let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
    let stdin = child.stdin.take().expect("piped");
    state.running.insert(pid, name.clone());
    state.mains.insert(name.clone(), Main { stdin, output });
    let (shared, path) = (Arc::clone(shared), path.to_owned());
    thread::spawn(move || {
        let pid = Pid::from_raw(pid).expect("not zero");
        // It is reaped after it was removed from the list: until then its pid is not reused.
        while let Err(rustix::io::Errno::INTR) =
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        shared.change(|state| {
            state.running.remove(&pid.as_raw_nonzero().get());
            state.mains.remove(&name);
            done(state, &path);
        });
        child.wait().expect("our own child");
    });
}

fn publish(channel: u8, mut pipe: impl Read, output: &broadcast::Sender<Vec<u8>>) {
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece) {
            Ok(count @ 1..) => {
                // There may be no receiver.
                let _ = output.send([&[channel], &piece[..count]].concat());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Deletes a `Job` whose pod has exited. Only `ttlSecondsAfterFinished: 0` is supported.
fn done(state: &mut State, pod: &str) {
    let Some(ended) = state.objects.get(pod).cloned() else { return };
    let owner = &ended["metadata"]["ownerReferences"][0]["uid"];
    let job = state.objects.iter().find(|(_, object)| object["metadata"]["uid"] == *owner);
    let Some((path, job)) = job.map(|(path, job)| (path.clone(), job.clone())) else { return };
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 0, "{job}");
    remove(state, &path);
}

/// Deletes an object with its dependents. A namespace is Terminating until it is empty, a pod until its kubelet has stopped
/// it.
pub(crate) fn remove(state: &mut State, path: &str) {
    let Some(mut object) = state.objects.get(path).cloned() else { return };
    let mut with = state.objects.dependents(&object["metadata"]["uid"]);
    if object["kind"] == "Namespace" {
        with.extend(contents(state, &object));
    }
    for dependent in with {
        remove(state, &dependent);
    }
    let keeps = match object["kind"].as_str() {
        Some("Pod") => state.stopless.contains(node_of(&object)),
        Some("Namespace") => !contents(state, &object).is_empty(),
        _ => false,
    };
    if keeps {
        object["metadata"]["deletionTimestamp"] = json!("2026-11-20T22:15:02Z");
        if object["kind"] == "Namespace" {
            object["status"] = json!({"phase": "Terminating"});
        }
        state.objects.put(path, object);
        return;
    }
    if object["kind"] == "Pod" {
        let name = object["metadata"]["name"].as_str().expect("a name");
        kill(state, name);
        state.programs.remove(name);
    }
    state.objects.remove(path);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let namespace = format!("/api/v1/namespaces/{namespace}");
    if state.objects.get(&namespace).is_some_and(|around| !around["metadata"]["deletionTimestamp"].is_null())
    {
        remove(state, &namespace);
    }
}

/// The paths of the objects in a namespace.
fn contents(state: &State, namespace: &Value) -> Vec<String> {
    let within = format!("/namespaces/{}/", namespace["metadata"]["name"].as_str().expect("a name"));
    state.objects.iter().map(|(path, _)| path).filter(|path| path.contains(&within)).cloned().collect()
}

/// Kills the processes of a pod.
pub(crate) fn kill(state: &State, pod: &str) {
    for (pid, _) in state.running.iter().filter(|(_, of)| *of == pod) {
        // A listed process is ours and not reaped.
        let _ = kill_process(Pid::from_raw(*pid).expect("not zero"), Signal::KILL);
    }
}
