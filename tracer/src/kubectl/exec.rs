//! Runs commands in pods by the WebSocket protocol of the API server's `exec`, versions 4 and 5.
//!
//! kube implements it as well, but through pipes, and sends nothing while the output is not read. Here heartbeats are sent
//! although reading is paused.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        SERVER, UPGRADE,
    },
};
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::{
    Client,
    api::AttachParams,
    client::Body,
    core::{Request, Status},
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::kubectl::{agents, cluster, text};

/// How long starting a command, or sending a few bytes to it, may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest message that is accepted, in bytes. Kubelets and API servers copy 32 KiB at a time.
const MESSAGE_MAX: usize = 1 << 20;
/// The size of the read buffer, in bytes.
const READ_BUFFER: usize = 32 << 10;

/// Versions of the protocol, the preferred one first.
const PROTOCOLS: &str = "v5.channel.k8s.io, v4.channel.k8s.io";

/// Channels: the first byte of each message
/// (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go>).
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A command that was started. Its two directions are independent of each other.
pub(super) struct Exec {
    pub(super) input: ExecInput,
    pub(super) output: ExecOutput,
}

/// The standard input of a command.
pub(super) struct ExecInput(SplitSink<Socket, Message>);

/// What a command sends.
pub(super) struct ExecOutput(SplitStream<Socket>);

/// A message from a command.
#[derive(Debug)]
pub(super) enum Received {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The command has exited. Output may still follow.
    Exit(Exit),
    /// A message without meaning for the command.
    Nothing,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    /// It could not be run, or its exit code is unknown.
    Failed(String),
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(super) struct Refused {
    problem: String,
    pub(super) retry: Retry,
}

/// Whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The problem may be temporary.
    Yes,
    /// A proxy in front of the API server may be starting.
    AFewTimes,
    No,
}

/// Why the connection to a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    WebSocket(String),
    #[error("writing timed out after {TIMEOUT:?}")]
    Timeout,
}

impl From<tungstenite::Error> for ConnectionError {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(error.to_string())
    }
}

impl Refused {
    fn for_now(problem: String) -> Self {
        Self { problem, retry: Retry::Yes }
    }
}

impl Exec {
    /// Starts a command in an agent.
    pub(super) async fn start(
        client: &Client,
        namespace: &str,
        pod: &str,
        command: &[String],
    ) -> Result<Self, Refused> {
        Self::connect(client, pods(namespace).exec(pod, command, &parameters())).await
    }

    /// Attaches to an agent's own process.
    pub(super) async fn attach(client: &Client, namespace: &str, pod: &str) -> Result<Self, Refused> {
        Self::connect(client, pods(namespace).attach(pod, &parameters())).await
    }

    async fn connect<E: fmt::Display>(
        client: &Client,
        request: Result<http::Request<Vec<u8>>, E>,
    ) -> Result<Self, Refused> {
        let request = request.map_err(|error| Refused::for_now(error.to_string()))?;
        let socket = match timeout(TIMEOUT, upgrade(client, request)).await {
            Err(_) => {
                let problem = format!("no answer from the API server within {TIMEOUT:?}");
                return Err(Refused::for_now(problem));
            }
            Ok(upgraded) => upgraded?,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX))
            .read_buffer_size(READ_BUFFER);
        let socket = TokioIo::new(socket);
        let stream = WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await;
        let (sink, stream) = stream.split();
        Ok(Self { input: ExecInput(sink), output: ExecOutput(stream) })
    }
}

impl ExecOutput {
    /// Returns the next message, None at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, ConnectionError> {
        match self.0.next().await {
            None | Some(Ok(Message::Close(_))) => Ok(None),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(Message::Binary(bytes))) => Ok(Some(received(bytes))),
            Some(Ok(_)) => Ok(Some(Received::Nothing)),
        }
    }
}

impl ExecInput {
    /// Sends bytes to the command's standard input.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let message = Message::binary([&[STDIN], bytes].concat());
        let sent = timeout(TIMEOUT, self.0.send(message)).await;
        Ok(sent.map_err(|_| ConnectionError::Timeout)??)
    }
}

/// Upgrades a request to a WebSocket (RFC 6455, section 4.1). The error distinguishes a refusal by the API server from one
/// by a proxy in front of it that does not support WebSockets.
async fn upgrade(client: &Client, request: http::Request<Vec<u8>>) -> Result<Upgraded, Refused> {
    let key = generate_key();
    let mut request = request.map(Body::from);
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOLS));
    let key_value = HeaderValue::from_str(&key).map_err(|error| Refused::for_now(error.to_string()))?;
    headers.insert(SEC_WEBSOCKET_KEY, key_value);
    let response = client.send(request).await.map_err(|error| Refused::for_now(cluster::problem(&error)))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (status, server) = (response.status(), server(response.headers()));
        // Its length and the time to read it are bounded by the client.
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Refused::for_now(cluster::problem(&error)))?.to_bytes();
        return Err(refused(status, server, &body));
    }
    if !is_websocket(response.headers(), &key) {
        let server = server(response.headers()).unwrap_or_default();
        let problem = format!("the WebSocket was refused: {server}the protocol is none of {PROTOCOLS}");
        return Err(Refused { problem, retry: Retry::No });
    }
    hyper::upgrade::on(response).await.map_err(|error| Refused::for_now(cluster::cause(&error)))
}

/// Whether a response accepts a WebSocket with one of [`PROTOCOLS`].
fn is_websocket(headers: &HeaderMap, key: &str) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protocol = header(SEC_WEBSOCKET_PROTOCOL);
    header(UPGRADE).eq_ignore_ascii_case("websocket")
        && header(SEC_WEBSOCKET_ACCEPT) == derive_accept_key(key.as_bytes())
        && PROTOCOLS.split(", ").any(|known| known == protocol)
}

/// The name of the server, as a prefix of messages.
fn server(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(SERVER)?.to_str().ok()?;
    Some(format!("{name:.60}: "))
}

/// The reason and the kind of a response that refuses a WebSocket.
fn refused(status: StatusCode, server: Option<String>, body: &[u8]) -> Refused {
    /// The answer of API servers to a request without the header `Upgrade`.
    const NO_UPGRADE: &str = "pgrade request required";
    let of_api_server = serde_json::from_slice::<Status>(body).ok();
    if let Some(status) = of_api_server.filter(|status| status.code != 0) {
        let problem = text::line(&cluster::refusal(&status));
        return if problem.contains(NO_UPGRADE) {
            let problem = format!(
                "the WebSocket was refused: a proxy in front of the API server removes the header Upgrade (the API server \
                 reports: {problem})"
            );
            Refused { problem, retry: Retry::No }
        } else if matches!(status.code, 401 | 403) {
            Refused { problem: explained(problem), retry: Retry::No }
        } else {
            Refused::for_now(problem)
        };
    }
    let (text, server) = (String::from_utf8_lossy(body), server.unwrap_or_default());
    let answer = cluster::not_the_api_server(&status.to_string(), &format!("{server}{text}"));
    let retry = if status.is_server_error() { Retry::AFewTimes } else { Retry::No };
    Refused { problem: format!("the WebSocket was refused: {answer}"), retry }
}

/// Adds the reason to a refusal. API servers omit it if the verb `create` is missing, which they require since Kubernetes
/// 1.35 (registry/core/pod/rest/subresources.go).
fn explained(problem: String) -> String {
    match problem.strip_suffix("is forbidden") {
        Some(what) => format!(
            "{what}is forbidden: the verbs get and create on pods/exec are required (with --ephemeral on pods/attach as well)"
        ),
        None => problem,
    }
}

fn pods(namespace: &str) -> Request {
    Request::new(format!("/api/v1/namespaces/{namespace}/pods"))
}

fn parameters() -> AttachParams {
    AttachParams::default().container(agents::CONTAINER).stdin(true).stdout(true).stderr(true).tty(false)
}

fn received(mut bytes: Bytes) -> Received {
    // Each channel is opened by an empty message.
    if bytes.len() < 2 {
        return Received::Nothing;
    }
    let channel = bytes.split_to(1)[0];
    match channel {
        STDOUT => Received::Stdout(bytes),
        STDERR => Received::Stderr(bytes),
        STATUS => Received::Exit(exit(&bytes)),
        _ => Received::Nothing,
    }
}

fn exit(status: &[u8]) -> Exit {
    let status = match serde_json::from_slice::<Status>(status) {
        Ok(status) => status,
        Err(error) => return Exit::Failed(format!("invalid exit status: {error}")),
    };
    if status.is_success() {
        return Exit::Code(0);
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes.filter(|cause| cause.reason == "ExitCode").find_map(|cause| cause.message.parse().ok());
    code.map_or(Exit::Failed(status.message), Exit::Code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_websocket_reports_by_whom_and_whether_to_retry() {
        let refused = |code: u16, body: &str| {
            let Refused { problem, retry } =
                refused(StatusCode::from_u16(code).unwrap(), None, body.as_bytes());
            (problem, retry)
        };
        let status = |code: u16, message: &str| {
            serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "message": message})
                .to_string()
        };
        assert_eq!(refused(403, &status(403, "no")), ("no".into(), Retry::No));
        assert_eq!(refused(404, &status(404, "pods \"x\" not found")).1, Retry::Yes);
        let (problem, retry) = refused(400, &status(400, "Upgrade request required"));
        assert!(problem.contains("removes the header Upgrade") && retry == Retry::No, "{problem}");
        let (problem, retry) = refused(502, "<html><h1>502 Bad Gateway</h1><hr>nginx</html>");
        assert!(problem.contains("in front of the API server: 502 Bad Gateway nginx"), "{problem}");
        assert_eq!(retry, Retry::AFewTimes);
        for code in [200, 302, 400, 403, 404] {
            let (problem, retry) = refused(code, "<html>");
            assert!(problem.contains(&code.to_string()) && retry == Retry::No, "{problem}");
        }
    }

    #[test]
    fn a_refusal_without_reason_names_the_required_verbs() {
        let status = |message: &str| {
            serde_json::json!({"kind": "Status", "code": 403, "message": message}).to_string()
        };
        let problem =
            |message: &str| refused(StatusCode::FORBIDDEN, None, status(message).as_bytes()).problem;
        let cut = problem("pods \"x\" is forbidden: ");
        assert!(cut.starts_with("pods \"x\" is forbidden: the verbs get and create"), "{cut}");
        let whole = "pods \"x\" is forbidden: User \"u\" cannot";
        assert_eq!(problem(whole), whole);
    }

    #[test]
    fn the_exit_code_is_read_from_the_status() {
        assert_eq!(exit(br#"{"metadata":{},"status":"Success"}"#), Exit::Code(0));
        let failure = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(exit(failure), Exit::Code(3));
        let failed = br#"{"status":"Failure","message":"container not found (\"tracer\")","reason":"InternalError","code":500}"#;
        assert_eq!(exit(failed), Exit::Failed("container not found (\"tracer\")".into()));
        assert!(matches!(exit(b"\xff"), Exit::Failed(_)));
    }
}
