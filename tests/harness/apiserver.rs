//! An API server of one's own, on a port of the loopback interface: it lists and watches pods, and executes commands in
//! them by the WebSocket protocol of the real one. Each pod is the agent of a node; what is executed in it runs here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, Stream, StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::{scratch, tracer, wait};

/// The namespace of the agents.
pub const NAMESPACE: &str = "tracer";
/// What the label of agents is.
const SELECTOR: &str = "app.kubernetes.io/name=tracer";
/// What kubelets copy at a time, in bytes.
const PIECE: usize = 32 << 10;

/// What an agent has in the place of `/tracer`.
#[derive(Debug, Clone)]
pub enum Program {
    /// The `tracer` under test, with the arguments that it is given.
    Tracer,
    /// A shell script, whose arguments these are. Its functions are [`FUNCTIONS`].
    Script(String),
    /// Nothing: executing is refused with this status and message.
    Refused(u16, &'static str),
}

/// What scripts may call: `ready`, `hold`, `closing SEEN EMITTED FILTERED LOST`.
pub const FUNCTIONS: &str = r#"
ready() { echo 'tracer: ready' >&2; }
# Answers beats until the end is asked for.
hold() {
    while c=$(dd bs=1 count=1 2>/dev/null | od -An -tx1); do
        case "$c" in *04*|'') return;; esac
        echo 'tracer: alive' >&2
    done
}
closing() { echo "tracer: seen $1 emitted $2 filtered $3 lost $4" >&2; }
"#;

impl Program {
    /// A script that is ready, does this, holds its lease, and closes with `closing`'s numbers.
    pub fn script(does: &str, closing: &str) -> Self {
        Self::Script(format!("ready\n{does}\nhold\nclosing {closing}"))
    }
}

/// What the server does otherwise than by default.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The version of the protocol: 4 or 5.
    pub version: u8,
    /// Whether a command's standard input stays open when its connection has ended.
    pub keeps_stdin: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { version: 5, keeps_stdin: false }
    }
}

/// A running server. It ends when dropped, with all that it has executed.
pub struct ApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    dir: scratch::Dir,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    state: Mutex<State>,
    /// The last version of what there is.
    version: watch::Sender<usize>,
    options: Options,
}

#[derive(Default)]
struct State {
    /// By the pod's name.
    pods: BTreeMap<String, (Value, Program)>,
    /// What has become of pods: each is a version.
    log: Vec<(&'static str, Value)>,
    /// Commands that run, by pid, with the pod's name.
    running: BTreeMap<i32, String>,
    /// Commands that were executed, each with its arguments.
    executed: Vec<Vec<String>>,
    /// Of pods that were made: makes names and ids unique.
    made: u32,
    /// Standard inputs that stay open.
    kept: Vec<ChildStdin>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a pod, or takes it, as a new version.
    fn change(&self, what: &'static str, name: &str, mut pod: Value, program: Program) {
        let mut state = self.state();
        let version = state.log.len() + 1;
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        if what == "DELETED" {
            state.pods.remove(name);
        } else {
            state.pods.insert(name.to_owned(), (pod.clone(), program));
        }
        state.log.push((what, pod));
        self.version.send_replace(version);
    }
}

impl ApiServer {
    /// Without any agents.
    pub fn start(options: Options) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), version: watch::channel(0).0, options });
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serves = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of our own");
                ready.send(listener.local_addr().expect("an address")).expect("who starts it waits");
                tokio::select! {
                    () = serve(listener, serves) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = is_ready.recv().expect("it starts");
        Self { address, shared, dir: scratch::Dir::new("api"), _stop: stop }
    }

    /// With agents that run `tracer` itself, on nodes of these names.
    pub fn with_tracers(options: Options, nodes: &[&str]) -> Self {
        let server = Self::start(options);
        for node in nodes {
            server.add(node, Program::Tracer);
        }
        server
    }

    /// An agent on a node.
    pub fn add(&self, node: &str, program: Program) {
        let made = {
            let mut state = self.shared.state();
            state.made += 1;
            state.made
        };
        let name = format!("tracer-{made}");
        let pod = pod(&name, node, &json!({"running": {"startedAt": "2026-11-20T22:15:01Z"}}), made);
        self.shared.change("ADDED", &name, pod, program);
    }

    /// An agent that does not run.
    pub fn add_waiting(&self, node: &str, reason: &str) {
        let pod = pod("tracer-waiting", node, &json!({"waiting": {"reason": reason}}), 0);
        self.shared.change("ADDED", "tracer-waiting", pod, Program::Tracer);
    }

    /// Takes a node's agent away, as when the node leaves.
    pub fn remove(&self, node: &str) {
        let (name, pod) = self.agent(node);
        self.shared.change("DELETED", &name, pod, Program::Tracer);
        self.kill(&name);
    }

    /// Restarts a node's agent in its pod, with another program.
    pub fn restart(&self, node: &str, program: Program) {
        let (name, mut pod) = self.agent(node);
        self.kill(&name);
        pod["status"]["containerStatuses"][0]["containerID"] = json!(format!("again-{name}"));
        pod["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        self.shared.change("MODIFIED", &name, pod, program);
    }

    fn agent(&self, node: &str) -> (String, Value) {
        let state = self.shared.state();
        let found = state.pods.iter().find(|(_, (pod, _))| pod["spec"]["nodeName"] == node);
        found.map(|(name, (pod, _))| (name.clone(), pod.clone())).expect("an agent on this node")
    }

    /// Kills what runs in a pod: it cannot end by itself as its container does.
    fn kill(&self, pod: &str) {
        for (pid, _) in self.shared.state().running.iter().filter(|(_, of)| *of == pod) {
            // Ours and not reaped, or it would not be listed.
            let _ = kill_process(Pid::from_raw(*pid).expect("not zero"), Signal::KILL);
        }
    }

    /// The pids of what was executed and has not ended.
    pub fn running(&self) -> Vec<i32> {
        self.shared.state().running.keys().copied().collect()
    }

    /// The commands that were executed so far.
    pub fn executed(&self) -> Vec<Vec<String>> {
        self.shared.state().executed.clone()
    }

    /// Waits until nothing that was executed runs any more.
    ///
    /// # Panics
    /// If something does after this time.
    #[track_caller]
    pub fn wait_nothing_runs(&self, limit: Duration) {
        let end = std::time::Instant::now() + wait::stretched(limit);
        while !self.running().is_empty() {
            assert!(std::time::Instant::now() < end, "after {limit:?} still running: {:?}", self.running());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A kubeconfig for it, whose context names this namespace.
    pub fn kubeconfig(&self, namespace: Option<&str>) -> PathBuf {
        let path = self.dir.path().join(scratch::unique("kubeconfig"));
        fs::write(&path, kubeconfig(&format!("http://{}", self.address), namespace))
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
            "labels": {"app.kubernetes.io/name": "tracer"},
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

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(request, &shared);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // Whoever asked may have gone.
            let _ = connection.await;
        });
    }
}

fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    let path = request.uri().path().to_owned();
    let query = parse_query(request.uri().query().unwrap_or_default());
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let Some(rest) = path.strip_prefix(&pods) else {
        // Other namespaces have none.
        return json_answer(StatusCode::OK, &list(&[], 0));
    };
    if rest.is_empty() {
        if value("labelSelector") != Some(SELECTOR) {
            return failure(StatusCode::BAD_REQUEST, "not the label of agents");
        }
        let node = value("fieldSelector").and_then(|field| field.strip_prefix("spec.nodeName="));
        let node = node.map(str::to_owned);
        if value("watch") == Some("true") {
            let from = value("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
            return watch_pods(Arc::clone(shared), from, node);
        }
        let state = shared.state();
        let pods = state.pods.values().map(|(pod, _)| pod).filter(|pod| is_on(pod, node.as_deref()));
        return json_answer(StatusCode::OK, &list(&pods.collect::<Vec<_>>(), state.log.len()));
    }
    let name = rest.trim_start_matches('/').trim_end_matches("/exec").to_owned();
    let command = query.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
    exec(request, shared, &name, command)
}

fn is_on(pod: &Value, node: Option<&str>) -> bool {
    node.is_none_or(|node| pod["spec"]["nodeName"] == node)
}

fn list(items: &[&Value], version: usize) -> Value {
    let metadata = json!({"resourceVersion": version.to_string()});
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items})
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed();
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body).expect("a response")
}

fn failure(status: StatusCode, message: &str) -> Answer {
    let code = status.as_u16();
    let reason = if code == 403 { "Forbidden" } else { "InternalError" };
    json_answer(
        status,
        &json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        }),
    )
}

/// What becomes of pods after a version, one JSON object a line, without end.
fn watch_pods(shared: Arc<Shared>, from: usize, node: Option<String>) -> Answer {
    let versions = shared.version.subscribe();
    let lines =
        stream::unfold((shared, versions, from, node), |(shared, mut versions, at, node)| async move {
            versions.wait_for(|version| *version > at).await.ok()?;
            let (what, pod) = shared.state().log[at].clone();
            let line = if is_on(&pod, node.as_deref()) {
                json!({"type": what, "object": pod}).to_string() + "\n"
            } else {
                String::new()
            };
            Some((Ok(Frame::data(Bytes::from(line))), (shared, versions, at + 1, node)))
        });
    Response::builder().header("content-type", "application/json").body(boxed(lines)).expect("a response")
}

fn boxed(
    frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + 'static,
) -> BoxBody<Bytes, Infallible> {
    BoxBody::new(StreamBody::new(frames))
}

fn exec(mut request: Request<Incoming>, shared: &Arc<Shared>, name: &str, command: Vec<String>) -> Answer {
    let found = shared.state().pods.get(name).map(|(_, program)| program.clone());
    let program = match found {
        None => return failure(StatusCode::NOT_FOUND, "pods not found"),
        Some(Program::Refused(status, message)) => {
            return failure(StatusCode::from_u16(status).expect("a status"), message);
        }
        Some(program) => program,
    };
    let protocol = format!("v{}.channel.k8s.io", shared.options.version);
    let header =
        |name| request.headers().get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    let offered = header(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    if !offered.split(',').any(|offer| offer.trim() == protocol) {
        return failure(StatusCode::BAD_REQUEST, "no protocol in common");
    }
    let Some(key) = header(SEC_WEBSOCKET_KEY) else { return failure(StatusCode::BAD_REQUEST, "no key") };
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_PROTOCOL, &protocol)
        .header(SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .body(Full::default().boxed())
        .expect("a response");
    let upgrade = hyper::upgrade::on(&mut request);
    let (shared, name) = (Arc::clone(shared), name.to_owned());
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            run(stream, &shared, name, &program, command).await;
        }
    });
    response
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Runs a command, as a kubelet does: what it prints goes to the connection, and what comes to its standard input.
async fn run(stream: Socket, shared: &Arc<Shared>, pod: String, program: &Program, command: Vec<String>) {
    let mut process = match program {
        Program::Tracer => {
            assert_eq!(command[0], "/tracer");
            Command::new(tracer::binary())
        }
        Program::Script(script) => {
            let mut process = Command::new("/bin/sh");
            process.arg("-c").arg(format!("{FUNCTIONS}\n{script}")).arg("/tracer");
            process
        }
        Program::Refused(..) => unreachable!("it was refused"),
    };
    process.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process.env_remove("RUST_LOG");
    let mut child = process.spawn().expect("a program");
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    {
        let mut state = shared.state();
        state.running.insert(pid, pod);
        state.executed.push(command);
    }
    let (mut sink, incoming) = stream.split();
    let (sender, mut messages) = mpsc::channel::<Vec<u8>>(4);
    let writes = tokio::spawn(async move {
        let mut connected = true;
        while let Some(message) = messages.recv().await {
            // What nobody takes is thrown away: that alone must not end the program.
            connected = connected && sink.send(Message::binary(message)).await.is_ok();
        }
        let _ = sink.close().await;
    });
    for channel in 0..4 {
        let _ = sender.send(vec![channel]).await;
    }
    let stdout = tokio::spawn(copy(1, child.stdout.take().expect("piped"), sender.clone()));
    let stderr = tokio::spawn(copy(2, child.stderr.take().expect("piped"), sender.clone()));
    let stdin = child.stdin.take().expect("piped");
    let kept = Arc::clone(shared);
    let reads = tokio::spawn(async move {
        let stdin = read(incoming, stdin).await;
        if kept.options.keeps_stdin {
            kept.state().kept.extend(stdin);
        }
    });
    let _ = (stdout.await, stderr.await);
    let status = child.wait().await.expect("our own child");
    shared.state().running.remove(&pid);
    let status = match status.code() {
        Some(0) => json!({"metadata": {}, "status": "Success"}),
        code => {
            let code = code.unwrap_or(137).to_string();
            json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code}]},
            })
        }
    };
    let _ = sender.send([&[3], status.to_string().as_bytes()].concat()).await;
    drop(sender);
    let _ = writes.await;
    reads.abort();
}

async fn copy(channel: u8, mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Vec<u8>>) {
    let mut piece = vec![0; PIECE + 1];
    piece[0] = channel;
    while let Ok(count @ 1..) = from.read(&mut piece[1..]).await {
        if to.send(piece[..=count].to_vec()).await.is_err() {
            return;
        }
    }
}

/// Hands on what comes until the connection ends, or says that standard input does. Returns that, still open, in the
/// first case.
async fn read(mut incoming: SplitStream<Socket>, mut stdin: ChildStdin) -> Option<ChildStdin> {
    while let Some(Ok(message)) = incoming.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((0, bytes)) => {
                // It may have ended.
                let _ = stdin.write_all(bytes).await;
                let _ = stdin.flush().await;
            }
            Some((255, [0])) => return None,
            _ => {}
        }
    }
    Some(stdin)
}

/// The pairs of a query.
fn parse_query(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// By <https://url.spec.whatwg.org/#application/x-www-form-urlencoded>.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two hexadecimal digits")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).expect("text")
}
