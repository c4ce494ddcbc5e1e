//! A simulated API server on the loopback interface: it stores objects (`objects`), acts on them like controllers and
//! kubelets (`controllers`), and runs commands in pods and attaches to them by the WebSocket protocol of the real one
//! (`remote_command`). Each pod is the agent of a node; its commands run on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::{Stream, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, HeaderValue, WARNING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::ChildStdin;
use tokio::sync::watch;

use crate::admission::{self, PodRequest};
use crate::controllers::{self, Hold, Main};
use crate::loopback::Port;
use crate::objects::{Objects, Place, Selection, is_in};
use crate::{remote_command, scratch, wait};

/// The namespace of the agents.
pub const NAMESPACE: &str = "tracer";
/// The collection of their pods.
const PODS: &str = "/api/v1/namespaces/tracer/pods";

/// What runs in an agent in place of `/tracer`.
#[derive(Debug, Clone)]
pub enum Program {
    /// The `tracer` under test, with the arguments that it is given.
    Tracer,
    /// The same, in a container, by this command.
    Within(Vec<OsString>),
    /// A shell script, whose arguments these are. Its functions are [`FUNCTIONS`].
    Script(String),
    /// Nothing: the request is refused with this status and message.
    Refused(u16, &'static str),
}

/// Functions for scripts: `frames` (`tests/frames.rs`), `ready`, `hold`, `closing SEEN EMITTED FILTERED LOST`.
pub const FUNCTIONS: &str = r#"
frames() { "$FRAMES" "$@"; }
ready() { frames hello=n ready; }
# Answers heartbeats until told to stop.
hold() {
    while c=$(dd bs=1 count=1 2>/dev/null | od -An -tx1); do
        case "$c" in *04*|'') return;; esac
        frames alive
    done
}
closing() { frames "summary=$1,$2,$3,$4"; }
"#;

impl Program {
    /// A script that is ready, runs `does`, holds its lease, and ends with the totals `closing`.
    pub fn script(does: &str, closing: &str) -> Self {
        Self::Script(format!("ready\n{does}\nhold\nclosing {closing}"))
    }
}

/// Options of the server.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The version of the protocol: 4 or 5.
    pub version: u8,
    /// Whether the standard input of a command stays open after its connection has ended.
    pub keeps_stdin: bool,
    /// Headers that are required of each request.
    pub only: &'static [(&'static str, &'static str)],
}

impl Default for Options {
    fn default() -> Self {
        Self { version: 5, keeps_stdin: false, only: &[] }
    }
}

/// A running server. It stops when dropped, with all commands.
pub struct ApiServer {
    port: Port,
    shared: Arc<Shared>,
    dir: scratch::Dir,
}

/// A request to change something.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `PATCH`, `POST` or `DELETE`.
    pub method: String,
    /// Of an object or a collection.
    pub path: String,
    /// Such as `fieldManager` and its value.
    pub query: BTreeMap<String, String>,
    /// Null if there is none.
    pub body: Value,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The latest version of the objects.
    version: watch::Sender<usize>,
    /// How often all watches were ended, and the error that they ended with.
    cut: watch::Sender<(usize, Option<Value>)>,
    pub(crate) options: Options,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: Objects,
    /// By the pod's name.
    pub(crate) programs: BTreeMap<String, Program>,
    /// Running commands, by pid, with the pod's name.
    pub(crate) running: BTreeMap<i32, String>,
    /// The main processes of pods.
    pub(crate) mains: BTreeMap<String, Main>,
    /// Nodes on which no new pod runs, with the reason.
    pub(crate) waiting: BTreeMap<String, Hold>,
    /// Nodes whose kubelets stop no pods.
    pub(crate) stopless: BTreeSet<String>,
    /// Why no pod can be created.
    pub(crate) refused_pods: Option<String>,
    /// Methods and path suffixes whose responses have a warning.
    warnings: Vec<(&'static str, &'static str, &'static str)>,
    /// All commands, each with its arguments.
    pub(crate) executed: Vec<Vec<String>>,
    asked: Vec<Asked>,
    /// The program of agents on a node, if it is not `tracer`.
    pub(crate) instead: BTreeMap<String, Program>,
    /// The node for which no job can be created.
    full: Option<String>,
    /// Methods and path suffixes that are refused.
    forbidden: Vec<(&'static str, &'static str)>,
    /// Standard inputs that are kept open.
    pub(crate) kept: Vec<ChildStdin>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and notifies watches.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        self.version.send_replace(state.objects.version());
        result
    }
}

impl ApiServer {
    /// Starts without agents.
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            version: watch::channel(0).0,
            cut: watch::channel((0, None)).0,
            options,
        });
        let serves = Arc::clone(&shared);
        let port = Port::serve(async move |listener| serve(listener, serves).await);
        let server = Self { port, shared, dir: scratch::Dir::new("api") };
        for name in ["default", "kube-system"] {
            server.put(&format!("/api/v1/namespaces/{name}"), json!({}));
        }
        server
    }

    /// Starts with Linux nodes of these names, without agents.
    pub fn with_nodes(nodes: &[&str]) -> Self {
        let server = Self::start(Options::default());
        for node in nodes {
            let labels = json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}});
            server.put(&format!("/api/v1/nodes/{node}"), labels);
        }
        server
    }

    /// Starts with agents that run `tracer` itself, on nodes of these names.
    pub fn with_tracers(options: Options, nodes: &[&str]) -> Self {
        let server = Self::start(options);
        for node in nodes {
            server.add(node, Program::Tracer);
        }
        server
    }

    /// Adds an agent on a node.
    pub fn add(&self, node: &str, program: Program) {
        self.shared.change(|state| {
            let made = state.objects.number();
            let name = format!("tracer-{made}");
            let pod = pod(&name, node, &json!({"running": {"startedAt": "2026-11-20T22:15:01Z"}}), made);
            state.objects.put(&format!("{PODS}/{name}"), pod);
            state.programs.insert(name, program);
        });
    }

    /// Adds an agent that does not run.
    pub fn add_waiting(&self, node: &str, reason: &str) {
        self.add_waiting_with(node, reason, "");
    }

    /// Adds an agent that does not run, with a message of its kubelet.
    pub fn add_waiting_with(&self, node: &str, reason: &str, message: &str) {
        let name = format!("tracer-waiting-{node}");
        let pod = pod(&name, node, &json!({"waiting": {"reason": reason, "message": message}}), 0);
        self.add_pod(&name, pod);
    }

    /// Adds an agent that is not scheduled.
    pub fn add_unscheduled(&self, node: &str, message: &str) {
        let name = format!("tracer-unscheduled-{node}");
        let mut pod = pod(&name, node, &Value::Null, 0);
        pod["spec"] = json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]},
            ]},
        }}});
        pod["status"] = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
        ]});
        self.add_pod(&name, pod);
    }

    fn add_pod(&self, name: &str, mut pod: Value) {
        self.shared.change(|state| {
            let made = state.objects.number();
            pod["metadata"]["uid"] = json!(format!("uid-{made}"));
            state.objects.put(&format!("{PODS}/{name}"), pod);
        });
    }

    /// Removes the agent of a node, as when the node leaves.
    pub fn remove(&self, node: &str) {
        let (path, _) = self.agent(node);
        self.shared.change(|state| controllers::remove(state, &path));
    }

    /// Restarts a node's agent in its pod, with another program.
    pub fn restart(&self, node: &str, program: Program) {
        let (path, mut pod) = self.agent(node);
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        self.shared.change(|state| {
            controllers::kill(state, &name);
            pod["status"]["containerStatuses"][0]["containerID"] = json!(format!("again-{name}"));
            pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
            state.objects.put(&path, pod);
            state.programs.insert(name, program);
        });
    }

    /// The agent of a node, with its path.
    fn agent(&self, node: &str) -> (String, Value) {
        let state = self.shared.state();
        let mut pods = state.objects.iter().filter(|(path, _)| is_in(path, PODS));
        let found = pods.find(|(_, pod)| pod["spec"]["nodeName"] == node);
        found.map(|(path, pod)| (path.clone(), pod.clone())).expect("an agent on this node")
    }

    /// Stores an object; its kind and name are those of its path.
    pub fn put(&self, path: &str, object: Value) {
        let place = Place::parse(path).expect("a path");
        self.shared.change(|state| state.objects.put(path, complete(&place, object)));
    }

    /// Deletes an object in spite of finalizers.
    pub fn delete(&self, path: &str) {
        self.shared.change(|state| controllers::remove(state, path));
    }

    /// The object at a path.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.shared.state().objects.get(path).cloned()
    }

    /// The paths of all objects except nodes and default namespaces.
    pub fn paths(&self) -> Vec<String> {
        let always = ["/api/v1/namespaces/default", "/api/v1/namespaces/kube-system"];
        let state = self.shared.state();
        let paths = state.objects.iter().map(|(path, _)| path.clone());
        paths.filter(|path| !always.contains(&path.as_str()) && !path.starts_with("/api/v1/nodes/")).collect()
    }

    /// The number of changes so far.
    pub fn version(&self) -> usize {
        self.shared.state().objects.version()
    }

    /// The requests to change something so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// Refuses requests from now on by method and path suffix.
    pub fn forbid(&self, method: &'static str, end: &'static str) {
        self.shared.state().forbidden.push((method, end));
    }

    /// Sets the program of future agents on a node.
    pub fn run_instead(&self, node: &str, program: Program) {
        self.shared.state().instead.insert(node.to_owned(), program);
    }

    /// Refuses future jobs for a node.
    pub fn refuse_jobs(&self, node: &str) {
        self.shared.state().full = Some(node.to_owned());
    }

    /// Future pods on a node do not run, for this reason.
    pub fn hold(&self, node: &str, reason: &str) {
        self.hold_with(node, reason, "");
    }

    /// The same, with a message of the kubelet.
    pub fn hold_with(&self, node: &str, reason: &str, message: &str) {
        self.hold_by(node, Hold::Waiting(reason.to_owned(), message.to_owned()));
    }

    /// Future pods on a node are not scheduled, for this reason.
    pub fn hold_unscheduled(&self, node: &str, message: &str) {
        self.hold_by(node, Hold::Unscheduled(message.to_owned()));
    }

    /// The kubelet of a node neither runs pods nor reports anything.
    pub fn hold_silent(&self, node: &str) {
        self.hold_by(node, Hold::Silent);
    }

    fn hold_by(&self, node: &str, hold: Hold) {
        self.shared.state().waiting.insert(node.to_owned(), hold);
    }

    /// The kubelet of a node stops no pods from now on.
    pub fn hold_stops(&self, node: &str) {
        self.shared.state().stopless.insert(node.to_owned());
    }

    /// The kubelet of a node stops its deleted pods.
    pub fn let_stop(&self, node: &str) {
        self.shared.change(|state| {
            state.stopless.remove(node);
            let leaves = |(path, object): (&String, &Value)| {
                let leaves = object["kind"] == "Pod" && !object["metadata"]["deletionTimestamp"].is_null();
                leaves.then(|| path.clone())
            };
            for path in state.objects.iter().filter_map(leaves).collect::<Vec<_>>() {
                controllers::remove(state, &path);
            }
        });
    }

    /// No pod can be created from now on, for this reason.
    pub fn refuse_pods(&self, reason: &str) {
        self.shared.state().refused_pods = Some(reason.to_owned());
    }

    /// Adds a warning to future responses by method and path suffix.
    pub fn warn(&self, method: &'static str, end: &'static str, text: &'static str) {
        self.shared.state().warnings.push((method, end, text));
    }

    /// Ends all watches, with an error if one is given.
    pub fn cut_watches(&self, error: Option<(u16, &str)>) {
        let status = error.map(|(code, message)| {
            json!({"type": "ERROR", "object": status(StatusCode::from_u16(code).expect("a status"), message)})
        });
        self.shared.cut.send_modify(|(count, last)| {
            *count += 1;
            *last = status;
        });
    }

    /// Runs the waiting pods of a node.
    pub fn let_run(&self, node: &str) {
        self.shared.change(|state| {
            state.waiting.remove(node);
            let waits = |(path, object): (&String, &Value)| {
                let waits = object["kind"] == "Pod"
                    && controllers::node_of(object) == node
                    && !controllers::is_running(object);
                waits.then(|| path.clone())
            };
            for path in state.objects.iter().filter_map(waits).collect::<Vec<_>>() {
                controllers::run_pod(&self.shared, state, &path);
            }
            let all: Vec<String> = state.objects.iter().map(|(path, _)| path.clone()).collect();
            for path in all {
                controllers::settle(&self.shared, state, &path);
            }
        });
    }

    /// The pids of the running commands.
    pub fn running(&self) -> Vec<i32> {
        self.shared.state().running.keys().copied().collect()
    }

    /// The commands so far.
    pub fn executed(&self) -> Vec<Vec<String>> {
        self.shared.state().executed.clone()
    }

    /// Waits until no command runs.
    ///
    /// # Panics
    /// If a command still runs after this time.
    #[track_caller]
    pub fn wait_nothing_runs(&self, limit: Duration) {
        let end = std::time::Instant::now() + wait::stretched(limit);
        while !self.running().is_empty() {
            assert!(std::time::Instant::now() < end, "after {limit:?} still running: {:?}", self.running());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its address.
    pub const fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// A kubeconfig for it, whose context has this namespace.
    pub fn kubeconfig(&self, namespace: Option<&str>) -> PathBuf {
        let path = self.dir.path().join(scratch::unique("kubeconfig"));
        fs::write(&path, kubeconfig(&format!("http://{}", self.address()), namespace))
            .expect("our own directory");
        path
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for pid in self.running() {
            let _ = kill_process(Pid::from_raw(pid).expect("not zero"), Signal::KILL);
        }
    }
}

/// A kubeconfig for a server.
pub fn kubeconfig(server: &str, namespace: Option<&str>) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
    })
    .to_string()
}

fn pod(name: &str, node: &str, state: &Value, made: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": format!("uid-{made}"),
            "labels": {
                "app.kubernetes.io/name": "tracer",
                "app.kubernetes.io/component": "agent",
                "app.kubernetes.io/part-of": "tracer",
            },
        },
        "spec": {"nodeName": node, "containers": [{"name": "tracer", "image": "tracer"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "tracer", "image": "tracer", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{made}"), "state": state,
            }],
        },
    })
}

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        // As Go's servers: data that was written is sent even if the client no longer reads.
        stream.set_nodelay(true).expect("a socket");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move {
                    let warnings = warnings(&shared, &request);
                    let mut answer = answer(request, &shared).await;
                    for warning in warnings {
                        let value = HeaderValue::try_from(format!("299 - {warning:?}")).expect("plain text");
                        answer.headers_mut().append(WARNING, value);
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // The client may have disconnected.
            let _ = connection.await;
        });
    }
}

/// The warnings for a response.
fn warnings(shared: &Shared, request: &Request<Incoming>) -> Vec<&'static str> {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let state = shared.state();
    let meant = state.warnings.iter().filter(|(of, end, _)| *of == method && path.ends_with(end));
    meant.map(|(_, _, text)| *text).collect()
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    let has = |(name, value): &(&str, &str)| request.headers().get_all(*name).iter().any(|has| has == *value);
    if !shared.options.only.iter().all(has) {
        return failure(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    let path = request.uri().path().to_owned();
    let pairs = pairs(request.uri().query().unwrap_or_default());
    let Some(place) = Place::parse(&path) else {
        return failure(StatusCode::NOT_FOUND, "the server could not find the requested resource");
    };
    let name = place.name.clone().unwrap_or_default();
    if let Some(refused) = forbidden(shared, &request, &place) {
        return refused;
    }
    if let Some(denied) = denied(shared, &place, &pairs) {
        return denied;
    }
    match place.subresource.as_deref() {
        Some("exec") => {
            let command = pairs.into_iter().filter(|(key, _)| key == "command").map(|(_, value)| value);
            return exec(request, shared, &name, command.collect());
        }
        Some("attach") => return attach(request, shared, &name),
        _ => {}
    }
    let query: BTreeMap<String, String> = pairs.into_iter().collect();
    let value = |name: &str| query.get(name).map(String::as_str);
    let selection = Selection::new(value("labelSelector"), value("fieldSelector"));
    if request.method() == Method::GET {
        if value("watch") == Some("true") {
            let from = value("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
            return watch_objects(Arc::clone(shared), from, place.collection, selection);
        }
        let state = shared.state();
        if place.name.is_some() {
            let object = state.objects.get(&path);
            return object.map_or_else(|| not_found(&place), |object| json_answer(StatusCode::OK, object));
        }
        let accepts = request.headers().get(ACCEPT).and_then(|accepts| accepts.to_str().ok());
        let short = accepts.is_some_and(|accepts| accepts.contains("as=PartialObjectMetadataList"));
        let objects = state.objects.list(&place.collection, &selection);
        return json_answer(StatusCode::OK, &list(&place, &objects, short, state.objects.version()));
    }
    let method = request.method().to_string();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
    let asked = Asked { method, path, query, body };
    shared.change(|state| {
        state.asked.push(asked.clone());
        match asked.method.as_str() {
            "PATCH" => apply(shared, state, &place, asked),
            "POST" => create(shared, state, &place, asked.body),
            "DELETE" if place.name.is_some() => delete(state, &place, &asked),
            "DELETE" => {
                let members = state.objects.iter().filter(|(path, _)| is_in(path, &place.collection));
                let chosen = members.filter(|(_, object)| selection.has(object));
                for path in chosen.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
                    controllers::remove(state, &path);
                }
                json_answer(StatusCode::OK, &json!({"kind": "Status", "metadata": {}, "status": "Success"}))
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "not allowed"),
        }
    })
}

fn forbidden(shared: &Shared, request: &Request<Incoming>, place: &Place) -> Option<Answer> {
    let state = shared.state();
    let is_meant = |(method, end): &&(&str, &str)| {
        request.method().as_str() == *method && request.uri().path().ends_with(end)
    };
    state.forbidden.iter().find(is_meant)?;
    let (resource, method) = (&place.resource, request.method());
    let name = place.name.as_deref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let message = format!("{resource}{name} is forbidden: User \"test\" cannot {method} resource {resource}");
    Some(failure(StatusCode::FORBIDDEN, &message))
}

/// The denial of a request by a policy, in the words of the real server.
fn denied(shared: &Shared, place: &Place, pairs: &[(String, String)]) -> Option<Answer> {
    const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
    let subresource = place.subresource.as_deref()?;
    let values = |name: &str| -> Vec<&str> {
        pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    let is_set = |name: &str| values(name).first().is_some_and(|value| *value == "true" || *value == "1");
    let request = PodRequest {
        namespace: place.namespace.as_deref()?,
        subresource,
        operation: "CONNECT",
        object: json!({
            "command": values("command"), "container": values("container").first().unwrap_or(&""),
            "stdin": is_set("stdin"), "stdout": is_set("stdout"), "stderr": is_set("stderr"), "tty": is_set("tty"),
        }),
    };
    let (policies, bindings) = {
        let state = shared.state();
        let all = |resource: &str| -> Vec<Value> {
            let selection = Selection::new(None, None);
            state.objects.list(&format!("{GROUP}/{resource}"), &selection).into_iter().cloned().collect()
        };
        (all("validatingadmissionpolicies"), all("validatingadmissionpolicybindings"))
    };
    let message = admission::denial(&policies, &bindings, &request)?;
    let name = place.name.as_deref().unwrap_or_default();
    let message =
        format!("pods \"{name}\" is forbidden: ValidatingAdmissionPolicy denied request: {message}");
    Some(failure(StatusCode::FORBIDDEN, &message))
}

fn not_found(place: &Place) -> Answer {
    let name = place.name.as_deref().unwrap_or_default();
    failure(StatusCode::NOT_FOUND, &format!("{} \"{name}\" not found", place.resource))
}

/// The response if the namespace of a new object does not exist or is being deleted.
fn lacks_namespace(state: &State, place: &Place) -> Option<Answer> {
    let namespace = place.namespace.as_ref()?;
    let Some(found) = state.objects.get(&format!("/api/v1/namespaces/{namespace}")) else {
        return Some(failure(StatusCode::NOT_FOUND, &format!("namespaces \"{namespace}\" not found")));
    };
    let (resource, name) = (&place.resource, place.name.as_deref().unwrap_or_default());
    let message = format!(
        "{resource} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being \
         terminated"
    );
    let leaves = !found["metadata"]["deletionTimestamp"].is_null();
    leaves.then(|| failure(StatusCode::FORBIDDEN, &message))
}

/// An object with the fields that the server sets.
fn complete(place: &Place, mut object: Value) -> Value {
    object["apiVersion"] = json!(place.version);
    object["kind"] = json!(place.kind());
    if let Some(name) = &place.name {
        object["metadata"]["name"] = json!(name);
    }
    if let Some(namespace) = &place.namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

/// Server-side apply.
fn apply(shared: &Arc<Shared>, state: &mut State, place: &Place, asked: Asked) -> Answer {
    let Asked { path, query, body, .. } = asked;
    let Some(manager) = query.get("fieldManager") else {
        return failure(
            StatusCode::UNPROCESSABLE_ENTITY,
            "fieldManager: Required value: is required for apply",
        );
    };
    if let (None, Some(refused)) = (state.objects.get(&path), lacks_namespace(state, place)) {
        return refused;
    }
    let merged = complete(place, state.objects.merged(&path, manager, &body));
    if query.get("dryRun").is_some_and(|dry| dry == "All") {
        return json_answer(StatusCode::OK, &merged);
    }
    let stored = state.objects.put(&path, merged);
    state.objects.note(&path, manager, body);
    controllers::settle(shared, state, &path);
    json_answer(StatusCode::OK, &stored)
}

fn create(shared: &Arc<Shared>, state: &mut State, place: &Place, object: Value) -> Answer {
    if let Some(refused) = lacks_namespace(state, place) {
        return refused;
    }
    if state.full.as_ref().is_some_and(|node| object["spec"]["template"]["spec"]["nodeName"] == *node) {
        return failure(StatusCode::FORBIDDEN, "jobs.batch is forbidden: exceeded quota");
    }
    let metadata = &object["metadata"];
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(start)) => format!("{start}{:05}", state.objects.number()),
        (None, None) => return failure(StatusCode::UNPROCESSABLE_ENTITY, "name or generateName is required"),
    };
    let path = place.path(&name);
    if state.objects.get(&path).is_some() {
        return failure(StatusCode::CONFLICT, "already exists");
    }
    let place = Place { name: Some(name), ..place.clone() };
    let stored = state.objects.put(&path, complete(&place, object));
    controllers::settle(shared, state, &path);
    json_answer(StatusCode::CREATED, &stored)
}

fn delete(state: &mut State, place: &Place, asked: &Asked) -> Answer {
    let Some(mut object) = state.objects.get(&asked.path).cloned() else { return not_found(place) };
    let uid = &asked.body["preconditions"]["uid"];
    if !uid.is_null() && *uid != object["metadata"]["uid"] {
        return failure(StatusCode::CONFLICT, "the UID in the precondition does not match");
    }
    if object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()) {
        // It is kept until the finalizers are removed.
        object["metadata"]["deletionTimestamp"] = json!("2026-11-20T22:15:02Z");
        return json_answer(StatusCode::OK, &state.objects.put(&asked.path, object));
    }
    if asked.body["propagationPolicy"] == "Orphan" {
        state.objects.remove(&asked.path);
    } else {
        controllers::remove(state, &asked.path);
    }
    json_answer(StatusCode::OK, &json!({"kind": "Status", "metadata": {}, "status": "Success"}))
}

fn list(place: &Place, items: &[&Value], short: bool, version: usize) -> Value {
    let metadata = json!({"resourceVersion": version.to_string()});
    if short {
        let partial = |item: &&Value| {
            let metadata = &item["metadata"];
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
        };
        let items: Vec<Value> = items.iter().map(partial).collect();
        let kind = "PartialObjectMetadataList";
        return json!({"apiVersion": "meta.k8s.io/v1", "kind": kind, "metadata": metadata, "items": items});
    }
    let kind = format!("{}List", place.kind());
    json!({"apiVersion": place.version, "kind": kind, "metadata": metadata, "items": items})
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed();
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body).expect("a response")
}

pub(crate) fn failure(code: StatusCode, message: &str) -> Answer {
    json_answer(code, &status(code, message))
}

fn status(code: StatusCode, message: &str) -> Value {
    let code = code.as_u16();
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// A watch: changes of objects after a version, one JSON object per line.
fn watch_objects(shared: Arc<Shared>, from: usize, collection: String, selection: Selection) -> Answer {
    let (versions, mut cuts) = (shared.version.subscribe(), shared.cut.subscribe());
    cuts.mark_unchanged();
    let start = Some((shared, versions, cuts, from, collection, selection));
    let lines = stream::unfold(start, |start| async move {
        let (shared, mut versions, mut cuts, at, collection, selection) = start?;
        let is_cut = tokio::select! {
            cut = cuts.changed() => cut.is_ok(),
            version = versions.wait_for(|version| *version > at) => version.is_err(),
        };
        if is_cut {
            let last = cuts.borrow().1.clone()?;
            return Some((Ok(Frame::data(Bytes::from(last.to_string() + "\n"))), None));
        }
        let (what, path, object) = shared.state().objects.after(at).clone();
        let line = if is_in(&path, &collection) && selection.has(&object) {
            json!({"type": what, "object": object}).to_string() + "\n"
        } else {
            String::new()
        };
        let next = Some((shared, versions, cuts, at + 1, collection, selection));
        Some((Ok(Frame::data(Bytes::from(line))), next))
    });
    Response::builder().header("content-type", "application/json").body(boxed(lines)).expect("a response")
}

fn boxed(
    frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + 'static,
) -> BoxBody<Bytes, Infallible> {
    BoxBody::new(StreamBody::new(frames))
}

fn exec(request: Request<Incoming>, shared: &Arc<Shared>, name: &str, command: Vec<String>) -> Answer {
    let found = shared.state().programs.get(name).cloned();
    let program = match found {
        None => return failure(StatusCode::NOT_FOUND, "pods not found"),
        Some(Program::Refused(status, message)) => {
            return failure(StatusCode::from_u16(status).expect("a status"), message);
        }
        Some(program) => program,
    };
    let (of_it, name) = (Arc::clone(shared), name.to_owned());
    remote_command::upgrade(request, shared.options.version, async move |stream| {
        remote_command::run(stream, &of_it, name, &program, command).await;
    })
}

/// Attaches to the main process of a pod.
fn attach(request: Request<Incoming>, shared: &Arc<Shared>, name: &str) -> Answer {
    let output = shared.state().mains.get(name).map(|main| main.output.subscribe());
    let Some(output) = output else {
        return failure(StatusCode::BAD_REQUEST, "the container does not run");
    };
    let (of_it, name) = (Arc::clone(shared), name.to_owned());
    remote_command::upgrade(request, shared.options.version, async move |stream| {
        remote_command::follow(stream, &of_it, &name, output).await;
    })
}

/// The parameters of a query.
fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}
