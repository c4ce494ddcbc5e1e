//! Calling an engine.

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
        answers::{self, Info, PodLabels, Sandbox},
        proto, socket,
        socket::SocketError,
    },
    model::EngineContainer,
};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long a look at all containers may take. Those that were not asked about by then have no pid.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer in bytes: what the kubelet takes at the most, so no engine's are larger.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Containers that are asked about at a time.
const AT_A_TIME: usize = 8;

const VERSION: &str = "/runtime.v1.RuntimeService/Version";
const LIST_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const POD_SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
const GET_CONTAINER_EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";

/// Why an engine did not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no connection.
    #[error("{}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: SocketError,
    },
    /// It did not answer in time.
    #[error("{}: no answer to {} within {} seconds", path.display(), name(method), DEADLINE.as_secs())]
    Slow {
        /// The socket.
        path: PathBuf,
        /// What it was asked: the method's path.
        method: &'static str,
    },
    /// It refused, or its answer is none.
    #[error("{}: {}: {reason}", path.display(), name(method))]
    Call {
        /// The socket.
        path: PathBuf,
        /// What it was asked: the method's path.
        method: &'static str,
        /// gRPC's code for it.
        code: Code,
        /// In words.
        reason: String,
    },
}

/// Why there are no more events.
#[derive(Debug)]
pub(crate) enum Ended {
    /// This engine does not tell, now or later; why. Its lists can be asked for.
    Unserved(String),
    /// It told, or would have; it may do so again.
    Failed(Error),
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Engine {
    /// `containerd`, `cri-o`, `docker`.
    pub(crate) name: String,
    /// As it writes it: `1.7.24`, `v2.1.4`.
    pub(crate) version: String,
}

impl Engine {
    /// Whether each of its events goes to one listener only, so that to listen is to take them from the kubelet.
    ///
    /// So it is with containerd 1.7, which has one channel for all who listen, tried with 1.7.24; 1.6 has no events,
    /// and 2.0 brought a queue for each (`internal/eventq/eventq.go`).
    fn shares_out_events(&self) -> bool {
        self.name == "containerd" && self.version.trim_start_matches('v').starts_with("1.7.")
    }
}

/// An engine that can be asked. Cheap to clone; all clones share a connection, which is made when it is needed, and
/// made anew after the engine has gone.
///
/// To be used within a tokio runtime with its I/O and time drivers enabled.
#[derive(Clone)]
pub(crate) struct Client(Arc<Shared>);

struct Shared {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Client {
    /// The engine that listens at `path`. Nothing is asked yet, and nothing connected to.
    #[must_use]
    pub(crate) fn connect(path: &Path) -> Self {
        Self(Arc::new(Shared { path: path.to_owned(), connection: Mutex::new(None) }))
    }

    /// Its socket.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Who answers there.
    pub(crate) async fn engine(&self) -> Result<Engine, Error> {
        let version: proto::VersionResponse = self.call(VERSION, proto::Nothing {}).await?;
        Ok(Engine { name: version.runtime_name, version: version.runtime_version })
    }

    /// The pods: one call, without processes.
    pub(crate) async fn pods(&self) -> Result<Vec<PodLabels>, Error> {
        Ok(self.sandboxes().await?.into_iter().map(|sandbox| sandbox.pod).collect())
    }

    /// The pod of this sandbox, if the engine knows it.
    pub(crate) async fn pod(&self, sandbox_id: &str) -> Result<Option<PodLabels>, Error> {
        let request = proto::StatusRequest { id: sandbox_id.to_owned(), verbose: false };
        match self.call::<_, proto::PodSandboxStatusResponse>(POD_SANDBOX_STATUS, request).await {
            Ok(response) => Ok(response
                .status
                .and_then(Sandbox::status)
                .map(|sandbox| sandbox.pod)
                // An engine takes an id's first digits for it.
                .filter(|pod| pod.sandbox_id == sandbox_id)),
            Err(Error::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The sandboxes that are ready, and the containers that run or are yet to start. What ends meanwhile is listed
    /// or not; what is there all the while is listed. An engine that lists them but tells too slowly about each leaves
    /// them without pid.
    pub(crate) async fn snapshot(&self) -> Result<Vec<EngineContainer>, Error> {
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
            containers.containers.into_iter().filter(|container| !is_over(container.state)).filter_map(
                |container| Some(sandboxes.get(&container.pod_sandbox_id)?.container(&engine, container)),
            );
        Ok(self.complete(ready.chain(members).collect(), deadline).await)
    }

    /// Calls `on_event` with all that the engine says of a pod whenever one of its containers is created, started,
    /// stopped or deleted, until that ends. Events can tell of what is long gone: containerd keeps those of the last
    /// five minutes for the first who listens. Nothing in them tells of pids.
    ///
    /// **Who listens can stand in the way.** containerd 2 waits for a listener that takes no more events, and with
    /// it `RunPodSandbox`: tried with 2.1.9, a listener that was stopped (SIGSTOP, as by Ctrl-Z) held the node's pods
    /// up after some 14 of them, until it went on. CRI-O goes on, and drops the events of all who listen, the
    /// kubelet's too. So this is nothing to do unasked: [`Client::pods`] takes a millisecond. And `on_event` must be
    /// quick.
    pub(crate) async fn watch(&self, on_event: impl FnMut(Vec<EngineContainer>)) -> Ended {
        match self.follow(on_event).await {
            Ok(why) => Ended::Unserved(why),
            Err(Error::Call { code: Code::Unimplemented, reason, .. }) => Ended::Unserved(reason),
            Err(error) => Ended::Failed(error),
        }
    }

    /// `Ok` if the engine says that there will be no events.
    async fn follow(&self, mut on_event: impl FnMut(Vec<EngineContainer>)) -> Result<String, Error> {
        // Answered at once, unlike the call below: its first answer may be the first event.
        let engine = self.engine().await?;
        if engine.shares_out_events() {
            return Ok(format!("{} {} tells each event to one listener only", engine.name, engine.version));
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
        let mut told = false;
        while let Some(event) =
            stream.message().await.map_err(|status| self.refused(GET_CONTAINER_EVENTS, &status))?
        {
            told = true;
            let Some(sandbox) = event.pod_sandbox_status.and_then(Sandbox::status) else { continue };
            let members = event.containers_statuses.into_iter().map(|status| sandbox.member(&engine, status));
            on_event(std::iter::once(sandbox.itself(&engine)).chain(members).collect());
        }
        if !told && began.elapsed() < DEADLINE {
            // So CRI-O says it.
            return Ok(format!("{engine} is configured not to tell of events"));
        }
        Err(self.refused(GET_CONTAINER_EVENTS, &Status::unavailable("the engine has ended the stream")))
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, Error> {
        let list: proto::ListPodSandboxResponse = self.call(LIST_POD_SANDBOX, proto::Nothing {}).await?;
        Ok(list.items.into_iter().filter_map(Sandbox::listed).collect())
    }

    /// Asks about each container, until one answer or all together take too long. Those that have ended are left out.
    async fn complete(&self, mut listed: Vec<EngineContainer>, deadline: Instant) -> Vec<EngineContainer> {
        let mut completed = Vec::with_capacity(listed.len());
        let mut asked = JoinSet::new();
        let mut in_time = true;
        loop {
            while in_time && asked.len() < AT_A_TIME {
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
                Some(Err(error)) => debug!("asking about a container: {error}"),
                None => break,
            }
        }
        completed.append(&mut listed);
        completed
    }

    /// The container with what only its status tells; `None` if it has ended or is gone.
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
                let over = status.as_ref().is_some_and(|status| is_over(status.state));
                answers::complete(&mut container, status, &Info::parse(&info));
                Ok((!over).then_some(container))
            }
            Err(Error::Call { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls a method and waits for its answer.
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
                // The engine need not work on what nobody waits for.
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

    /// A connection that was whole a moment ago.
    async fn grpc(&self) -> Result<tonic::client::Grpc<Connection>, Error> {
        let mut connection = self.0.connection.lock().await;
        let whole = match connection.take() {
            Some(whole) if !whole.0.is_closed() => whole,
            _ => self.new_connection().await?,
        };
        *connection = Some(whole.clone());
        // Sockets have no host; HTTP wants one, and engines ignore it.
        Ok(tonic::client::Grpc::with_origin(whole, Uri::from_static("http://localhost"))
            .max_decoding_message_size(MESSAGE_MAX))
    }

    async fn new_connection(&self) -> Result<Connection, Error> {
        let refused = |source| Error::Connect { path: self.0.path.clone(), source };
        let stream = socket::connect(&self.0.path).await.map_err(refused)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| refused(SocketError::Io(std::io::Error::other(error))))?;
        let path = self.0.path.clone();
        // Ends when the engine goes away, or with the last sender.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!("{}: {error}", path.display());
            }
        });
        Ok(Connection(sender))
    }

    fn refused(&self, method: &'static str, status: &Status) -> Error {
        if status.code() == Code::DeadlineExceeded {
            // It has noticed first.
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

/// HTTP/2 over the socket, as tonic wants it.
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

fn is_over(state: i32) -> bool {
    ![proto::CONTAINER_CREATED, proto::CONTAINER_RUNNING].contains(&state)
}

async fn ready(grpc: &mut tonic::client::Grpc<Connection>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))
}

fn name(method: &str) -> &str {
    method.rsplit('/').next().unwrap_or(method)
}

/// What happened and why. The engine's words may be those of an image or a pod: they are no control characters.
fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Some errors say what their cause says.
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
    fn only_containerd_1_7_shares_its_events_out() {
        let shares_out = |name: &str, version: &str| {
            Engine { name: name.to_owned(), version: version.to_owned() }.shares_out_events()
        };
        for version in ["1.7.24~ds1", "v1.7.24", "v1.7.27-k3s1"] {
            assert!(shares_out("containerd", version), "{version}");
        }
        for version in ["1.6.20~ds1", "2.1.9+unknown", "v2.0.5-k3s1", ""] {
            assert!(!shares_out("containerd", version), "{version}");
        }
        assert!(!shares_out("cri-o", "1.37.0"));
    }

    #[test]
    fn an_error_names_the_socket_and_the_call() {
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
