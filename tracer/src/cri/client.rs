//! A CRI client.

use std::{
    collections::HashMap,
    error::Error as _,
    fmt,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Code, Status, body::Body, client::GrpcService};
use tonic_prost::ProstCodec;
use tracing::debug;

use crate::{
    cri::{
        proto,
        responses::{self, Info, PodLabels, Sandbox},
        socket,
        socket::SocketError,
    },
    model::EngineContainer,
};

/// Timeout of a call.
const DEADLINE: Duration = Duration::from_secs(2);
/// Timeout of a snapshot. Containers that have not been queried by then have no pid.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(5);
/// Largest response in bytes. The kubelet accepts no larger ones, so no engine sends any.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Number of containers that are queried concurrently.
const QUERIES_MAX: usize = 8;

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const LIST_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const POD_SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
const GET_CONTAINER_EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The reason.
        source: SocketError,
    },
    /// The engine did not answer within the timeout.
    #[error("{}: no answer to {} within {} seconds", path.display(), name(method), DEADLINE.as_secs())]
    Slow {
        /// The socket.
        path: PathBuf,
        /// The gRPC method.
        method: &'static str,
    },
    /// The engine returned an error, or its answer is invalid.
    #[error("{}: {}: {reason}", path.display(), name(method))]
    Call {
        /// The socket.
        path: PathBuf,
        /// The gRPC method.
        method: &'static str,
        /// The gRPC status code.
        code: Code,
        /// The message.
        reason: String,
    },
}

/// Why an event stream ended.
#[derive(Debug)]
pub enum WatchEnd {
    /// The engine does not provide events, for this reason. Its lists can still be queried.
    Unsupported(String),
    /// The stream failed. It can be started again.
    Failed(Error),
}

/// Name and version of a container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// `containerd`, `cri-o`, `docker`.
    pub name: String,
    /// The version as the engine writes it: `1.7.24`, `v2.1.4`.
    pub version: String,
}

impl Engine {
    /// Whether the engine delivers each event to one listener only, so that listening would take events away from the
    /// kubelet.
    ///
    /// containerd 1.7 does, which has one channel for all listeners (tried with 1.7.24). 1.6 has no events, and 2.0
    /// introduced a queue for each listener (`internal/eventq/eventq.go`).
    fn splits_events_among_listeners(&self) -> bool {
        self.name == "containerd" && self.version.trim_start_matches('v').starts_with("1.7.")
    }
}

/// A client of an engine. Clones are cheap and share a connection, which is opened when it is needed, and again after
/// the engine has closed it.
///
/// Use it within a tokio runtime with its I/O and time drivers enabled.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Client {
    /// A client of the engine that listens at `path`. Does not connect yet.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        Self(Arc::new(Inner { path: path.to_owned(), connection: Mutex::new(None) }))
    }

    /// The engine's socket.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Queries the engine's name and version.
    pub async fn engine(&self) -> Result<Engine, Error> {
        let version: proto::VersionResponse = self.call(VERSION, proto::Nothing {}).await?;
        Ok(Engine { name: version.runtime_name, version: version.runtime_version })
    }

    /// Queries the pod of a sandbox; None if the engine does not know the sandbox.
    pub async fn pod(&self, sandbox_id: &str) -> Result<Option<PodLabels>, Error> {
        let request = proto::StatusRequest { id: sandbox_id.to_owned(), verbose: false };
        match self.call::<_, proto::PodSandboxStatusResponse>(POD_SANDBOX_STATUS, request).await {
            Ok(response) => Ok(response
                .status
                .and_then(Sandbox::status)
                .map(|sandbox| sandbox.pod)
                // Engines also accept a prefix of an id.
                .filter(|pod| pod.sandbox_id == sandbox_id)),
            Err(Error::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Queries the ready sandboxes, and the containers that are running or have not started yet. A container that
    /// ends meanwhile may be listed or not; one that exists throughout is listed. If the engine lists containers but
    /// answers too slowly for each, they have no pid.
    pub async fn snapshot(&self) -> Result<Vec<EngineContainer>, Error> {
        let deadline = Instant::now() + SNAPSHOT_DEADLINE;
        let engine = self.engine().await?.name;
        // Before the sandboxes: no container is older than its sandbox.
        let containers: proto::ListContainersResponse = self.call(LIST_CONTAINERS, proto::Nothing {}).await?;
        let sandboxes: HashMap<String, Sandbox> = self
            .sandboxes()
            .await?
            .into_iter()
            .map(|sandbox| (sandbox.pod.sandbox_id.clone(), sandbox))
            .collect();
        let ready = sandboxes.values().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.itself(&engine));
        let members =
            containers.containers.into_iter().filter(|container| !has_ended(container.state)).filter_map(
                |container| Some(sandboxes.get(&container.pod_sandbox_id)?.container(&engine, container)),
            );
        Ok(self.complete(ready.chain(members).collect(), deadline).await)
    }

    /// Calls `on_event` with the containers of a pod whenever one of them is created, started, stopped or deleted,
    /// until the stream ends. Events can be old: containerd keeps those of the last five minutes for the first
    /// listener. They do not contain pids.
    ///
    /// **A slow listener can block the node.** containerd 2 waits for a listener that does not accept events, and
    /// `RunPodSandbox` waits with it: tried with 2.1.9, a stopped listener (SIGSTOP, as by Ctrl-Z) blocked the node's
    /// pods after some 14 of them, until it continued. CRI-O goes on, and drops the events of all listeners, the
    /// kubelet's included. So listen only if the user asks for it ([`Client::pods`] takes a millisecond), and return
    /// from `on_event` quickly.
    pub async fn watch(&self, on_event: impl FnMut(Vec<EngineContainer>)) -> WatchEnd {
        match self.follow(on_event).await {
            Ok(why) => WatchEnd::Unsupported(why),
            Err(Error::Call { code: Code::Unimplemented, reason, .. }) => WatchEnd::Unsupported(reason),
            Err(error) => WatchEnd::Failed(error),
        }
    }

    /// `Ok` with the reason if the engine does not provide events.
    async fn follow(&self, mut on_event: impl FnMut(Vec<EngineContainer>)) -> Result<String, Error> {
        // This call returns at once. The first answer to the one below may only come with the first event.
        let engine = self.engine().await?;
        if engine.splits_events_among_listeners() {
            return Ok(format!(
                "{} {} delivers each event to one listener only",
                engine.name, engine.version
            ));
        }
        let engine = engine.name;
        let began = Instant::now();
        let mut grpc = self.grpc().await?;
        let stream = async {
            ready(&mut grpc).await?;
            let codec = ProstCodec::<proto::Nothing, proto::ContainerEventResponse>::default();
            grpc.server_streaming(
                tonic::Request::new(proto::Nothing {}),
                PathAndQuery::from_static(GET_CONTAINER_EVENTS),
                codec,
            )
            .await
        };
        let mut stream =
            stream.await.map_err(|status| self.refused(GET_CONTAINER_EVENTS, &status))?.into_inner();
        let mut received = false;
        while let Some(event) =
            stream.message().await.map_err(|status| self.refused(GET_CONTAINER_EVENTS, &status))?
        {
            received = true;
            let Some(sandbox) = event.pod_sandbox_status.and_then(Sandbox::status) else { continue };
            let members = event.containers_statuses.into_iter().map(|status| sandbox.member(&engine, status));
            on_event(std::iter::once(sandbox.itself(&engine)).chain(members).collect());
        }
        if !received && began.elapsed() < DEADLINE {
            // CRI-O closes the stream at once if events are disabled.
            return Ok(format!("{engine} is configured not to send events"));
        }
        Err(self.refused(GET_CONTAINER_EVENTS, &Status::unavailable("the engine has closed the stream")))
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        let list: proto::ListPodSandboxResponse = self.call(LIST_POD_SANDBOX, proto::Nothing {}).await?;
        Ok(list.items.into_iter().filter_map(Sandbox::listed).collect())
    }

    /// Queries each container, until one call or all of them together take too long. Containers that have ended are
    /// left out.
    async fn complete(&self, mut listed: Vec<EngineContainer>, deadline: Instant) -> Vec<EngineContainer> {
        let mut completed = Vec::with_capacity(listed.len());
        let mut asked = JoinSet::new();
        let mut in_time = true;
        loop {
            while in_time && asked.len() < QUERIES_MAX {
                let Some(container) = listed.pop() else { break };
                let client = self.clone();
                asked.spawn(async move {
                    let fallback = container.clone();
                    match timeout_at(deadline, client.completed(container)).await {
                        Ok(Ok(container)) => (container, true),
                        Ok(Err(error)) => {
                            debug!("{}: {error}", fallback.id);
                            (Some(fallback), !matches!(error, Error::Slow { .. } | Error::Connect { .. }))
                        }
                        Err(_) => (Some(fallback), false),
                    }
                });
            }
            match asked.join_next().await {
                Some(Ok((container, answered))) => {
                    in_time &= answered;
                    completed.extend(container);
                }
                Some(Err(error)) => debug!("querying a container: {error}"),
                None => break,
            }
        }
        completed.append(&mut listed);
        completed
    }

    /// The container with the data that only its status has; `None` if it has ended or was deleted.
    async fn completed(&self, mut container: EngineContainer) -> Result<Option<EngineContainer>, Error> {
        let request = proto::StatusRequest { id: container.id.clone(), verbose: true };
        let answer = if container.id == container.sandbox_id {
            self.call::<_, proto::PodSandboxStatusResponse>(POD_SANDBOX_STATUS, request)
                .await
                .map(|response| (None, response.info))
        } else {
            self.call::<_, proto::ContainerStatusResponse>(CONTAINER_STATUS, request)
                .await
                .map(|response| (response.status, response.info))
        };
        match answer {
            Ok((status, info)) => {
                let ended = status.as_ref().is_some_and(|status| has_ended(status.state));
                responses::complete(&mut container, status, &Info::parse(&info));
                Ok((!ended).then_some(container))
            }
            Err(Error::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls a method and waits for its response.
    async fn call<Req, Res>(&self, method: &'static str, request: Req) -> Result<Res, Error>
    where
        Req: Message + 'static,
        Res: Message + Default + 'static,
    {
        let answer = async {
            let mut grpc = self.grpc().await?;
            let answer = async {
                ready(&mut grpc).await?;
                let mut request = tonic::Request::new(request);
                // Lets the engine stop working on the call after that.
                request.set_timeout(DEADLINE);
                grpc.unary(request, PathAndQuery::from_static(method), ProstCodec::<Req, Res>::default())
                    .await
            };
            answer.await.map(tonic::Response::into_inner).map_err(|status| self.refused(method, &status))
        };
        timeout(DEADLINE, answer)
            .await
            .unwrap_or_else(|_| Err(Error::Slow { path: self.0.path.clone(), method }))
    }

    /// A client on the shared connection, which is opened again if it was closed.
    async fn grpc(&self) -> Result<tonic::client::Grpc<Connection>, Error> {
        let mut connection = self.0.connection.lock().await;
        let open = match connection.take() {
            Some(open) if !open.0.is_closed() => open,
            _ => self.new_connection().await?,
        };
        *connection = Some(open.clone());
        // HTTP requires a host, a socket has none, and engines ignore it.
        Ok(tonic::client::Grpc::with_origin(open, Uri::from_static("http://localhost"))
            .max_decoding_message_size(MESSAGE_MAX))
    }

    async fn new_connection(&self) -> Result<Connection, Error> {
        let refused = |source| Error::Connect { path: self.0.path.clone(), source };
        let stream = socket::connect(&self.0.path).await.map_err(refused)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| refused(SocketError::Io(std::io::Error::other(error))))?;
        let path = self.0.path.clone();
        // Ends when the engine closes the connection, or with the last sender.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!("{}: {error}", path.display());
            }
        });
        Ok(Connection(sender))
    }

    /// The error for a gRPC status.
    fn refused(&self, method: &'static str, status: &Status) -> Error {
        if status.code() == Code::DeadlineExceeded {
            // The engine has noticed the timeout first.
            return Error::Slow { path: self.0.path.clone(), method };
        }
        Error::Call { path: self.0.path.clone(), method, code: status.code(), reason: reason(status) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.path).finish()
    }
}

/// HTTP/2 over the socket, with the interface that tonic requires.
#[derive(Clone)]
struct Connection(http2::SendRequest<Body>);

impl GrpcService<Body> for Connection {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn has_ended(state: i32) -> bool {
    ![proto::CONTAINER_CREATED, proto::CONTAINER_RUNNING].contains(&state)
}

async fn ready(grpc: &mut tonic::client::Grpc<Connection>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))
}

fn name(method: &str) -> &str {
    method.rsplit('/').next().unwrap_or(method)
}

/// The message of a status with its causes. The engine may quote names of images or pods, so control characters are
/// replaced.
fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Some errors repeat the message of their cause.
        if !reason.contains(&text) {
            reason = if reason.is_empty() { text } else { format!("{reason}: {text}") };
        }
        source = error.source();
    }
    if reason.is_empty() {
        reason = status.code().to_string();
    }
    reason.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containerd_1_7_splits_events_among_listeners() {
        let splits = |name: &str, version: &str| {
            Engine { name: name.to_owned(), version: version.to_owned() }.splits_events_among_listeners()
        };
        for version in ["1.7.24~ds1", "v1.7.24", "v1.7.27-k3s1"] {
            assert!(splits("containerd", version), "{version}");
        }
        for version in ["1.6.20~ds1", "2.1.9+unknown", "v2.0.5-k3s1", ""] {
            assert!(!splits("containerd", version), "{version}");
        }
        assert!(!splits("cri-o", "1.37.0"));
    }

    #[test]
    fn error_names_the_socket_and_the_method() {
        let client = Client::connect(Path::new("/run/x.sock"));
        let status = Status::new(Code::Unknown, "no such \u{1b}[31mthing");
        let error = client.refused(LIST_CONTAINERS, &status).to_string();
        assert_eq!(error, "/run/x.sock: ListContainers: no such \u{fffd}[31mthing");
        let silent = client.refused(LIST_CONTAINERS, &Status::new(Code::Internal, "")).to_string();
        assert_eq!(silent, "/run/x.sock: ListContainers: Internal error");
        let slow = Error::Slow { path: "/run/x.sock".into(), method: VERSION }.to_string();
        assert_eq!(slow, "/run/x.sock: no answer to Version within 2 seconds");
    }
}
