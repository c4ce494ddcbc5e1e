//! Executing a command in a pod: the WebSocket protocol of the API server's `exec`, v4 and v5 of it.
//!
//! kube has this as well, with pipes between, and sends nothing while nobody reads what came. Here reading may pause,
//! and beats go on.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
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
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::kubectl::{agents, cluster, plain};

/// How long starting a command, or sending a few bytes to it, may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that is taken at once, in bytes. Kubelets and API servers copy 32 KiB at a time.
const MESSAGE_MAX: usize = 1 << 20;
/// What is read at once, in bytes.
const READ: usize = 32 << 10;

/// Versions of the protocol, the best first.
const PROTOCOLS: &str = "v5.channel.k8s.io, v4.channel.k8s.io";

/// Channels: the first byte of each message
/// (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go>).
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// A command that has been started.
pub(super) struct Exec {
    stream: WebSocketStream<TokioIo<Upgraded>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Heard {
    /// Bytes of its standard output.
    Stdout(Bytes),
    /// Bytes of its standard error.
    Stderr(Bytes),
    /// It has ended. What is still on its way may come behind.
    Exit(Exit),
    /// Nothing to do with it.
    Nothing,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// With this exit code.
    Code(i32),
    /// It could not be run, or nobody knows.
    Failed(String),
}

/// Why a command could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(super) struct Refused {
    problem: String,
    pub(super) retry: Retry,
}

/// Whether it makes sense to try once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It may come right by itself.
    Yes,
    /// What is in front of the API server may only be about to start.
    AFewTimes,
    No,
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
        let socket = match timeout(PATIENCE, upgrade(client, request)).await {
            Err(_) => {
                let problem = format!("the API server does not answer within {PATIENCE:?}");
                return Err(Refused::for_now(problem));
            }
            Ok(upgraded) => upgraded?,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX))
            .read_buffer_size(READ);
        let socket = TokioIo::new(socket);
        Ok(Self { stream: WebSocketStream::from_raw_socket(socket, Role::Client, Some(config)).await })
    }

    /// What comes next; None at the end. Whoever does not wait for it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Heard>, String> {
        match self.stream.next().await {
            None | Some(Ok(Message::Close(_))) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(Message::Binary(bytes))) => Ok(Some(heard(bytes))),
            Some(Ok(_)) => Ok(Some(Heard::Nothing)),
        }
    }

    /// Sends bytes to its standard input.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let message = Message::binary([&[STDIN], bytes].concat());
        match timeout(PATIENCE, self.stream.send(message)).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("nothing is taken of it within {PATIENCE:?}")),
        }
    }
}

/// Turns a request into a WebSocket (RFC 6455, section 4.1). What refuses it may be the API server, or something in front
/// of it that does not pass WebSockets on: it is said which.
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
        // Its length and its time are bounded.
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| Refused::for_now(cluster::problem(&error)))?.to_bytes();
        return Err(refused(status, server, &body));
    }
    if !is_websocket(response.headers(), &key) {
        let server = server(response.headers()).unwrap_or_default();
        let problem =
            format!("the WebSocket was refused: {server}another protocol than {PROTOCOLS} is spoken");
        return Err(Refused { problem, retry: Retry::No });
    }
    hyper::upgrade::on(response).await.map_err(|error| Refused::for_now(cluster::cause(&error)))
}

/// Whether an answer makes a connection a WebSocket in one of our protocols.
fn is_websocket(headers: &HeaderMap, key: &str) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protocol = header(SEC_WEBSOCKET_PROTOCOL);
    header(UPGRADE).eq_ignore_ascii_case("websocket")
        && header(SEC_WEBSOCKET_ACCEPT) == derive_accept_key(key.as_bytes())
        && PROTOCOLS.split(", ").any(|known| known == protocol)
}

/// What calls itself the server.
fn server(headers: &HeaderMap) -> Option<String> {
    let name = headers.get(SERVER)?.to_str().ok()?;
    Some(format!("{name:.60}: "))
}

/// What an answer means that is no WebSocket.
fn refused(status: StatusCode, server: Option<String>, body: &[u8]) -> Refused {
    /// What API servers say to a request without the header `Upgrade`.
    const NO_UPGRADE: &str = "pgrade request required";
    let of_api_server = serde_json::from_slice::<Status>(body).ok();
    if let Some(status) = of_api_server.filter(|status| status.code != 0) {
        let problem = plain::line(&cluster::refusal(&status));
        return if problem.contains(NO_UPGRADE) {
            let problem = format!(
                "the WebSocket was refused: something between here and the API server removes the header Upgrade (the API \
                 server says: {problem})"
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

/// A refusal with its reason. API servers leave it out where it is the verb `create` that is missing, which they ask for
/// since Kubernetes 1.35 (registry/core/pod/rest/subresources.go).
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

fn heard(mut bytes: Bytes) -> Heard {
    // Each channel is opened by a message without any bytes.
    if bytes.len() < 2 {
        return Heard::Nothing;
    }
    let channel = bytes.split_to(1)[0];
    match channel {
        STDOUT => Heard::Stdout(bytes),
        STDERR => Heard::Stderr(bytes),
        STATUS => Heard::Exit(exit(&bytes)),
        _ => Heard::Nothing,
    }
}

fn exit(status: &[u8]) -> Exit {
    let status = match serde_json::from_slice::<Status>(status) {
        Ok(status) => status,
        Err(error) => return Exit::Failed(format!("how it ended makes no sense: {error}")),
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
    fn who_refuses_a_websocket_is_named_and_whether_to_try_again() {
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
    fn a_refusal_without_a_reason_gets_one() {
        let status = |message: &str| {
            serde_json::json!({"kind": "Status", "code": 403, "message": message}).to_string()
        };
        let said = |message: &str| refused(StatusCode::FORBIDDEN, None, status(message).as_bytes()).problem;
        let cut = said("pods \"x\" is forbidden: ");
        assert!(cut.starts_with("pods \"x\" is forbidden: the verbs get and create"), "{cut}");
        let whole = "pods \"x\" is forbidden: User \"u\" cannot";
        assert_eq!(said(whole), whole);
    }

    #[test]
    fn a_status_tells_the_exit_code() {
        assert_eq!(exit(br#"{"metadata":{},"status":"Success"}"#), Exit::Code(0));
        let failure = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(exit(failure), Exit::Code(3));
        let failed = br#"{"status":"Failure","message":"container not found (\"tracer\")","reason":"InternalError","code":500}"#;
        assert_eq!(exit(failed), Exit::Failed("container not found (\"tracer\")".into()));
        assert!(matches!(exit(b"\xff"), Exit::Failed(_)));
    }
}
