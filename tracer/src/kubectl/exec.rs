//! Executing a command in a pod: the WebSocket protocol of the API server's `exec`, v4 and v5 of it.
//!
//! kube has this as well, with pipes between, and sends nothing while nobody reads what came. Here reading may pause,
//! and beats go on.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::{
    Client,
    api::AttachParams,
    core::{Request, Status},
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{agents, cluster};

/// How long starting a command, or sending a few bytes to it, may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that is taken at once, in bytes. Kubelets and API servers copy 32 KiB at a time.
const MESSAGE_MAX: usize = 1 << 20;
/// What is read at once, in bytes.
const READ: usize = 32 << 10;

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
#[derive(Debug)]
pub(super) struct Refused {
    problem: String,
    /// Whether it makes no sense to try again.
    pub(super) forbidden: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
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
        let refused = |problem: String| Refused { problem, forbidden: false };
        let request = request.map_err(|error| refused(error.to_string()))?;
        let connection = match timeout(PATIENCE, client.connect(request)).await {
            Err(_) => return Err(refused(format!("the API server does not answer within {PATIENCE:?}"))),
            Ok(Err(error)) => {
                let forbidden =
                    matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403));
                return Err(Refused { problem: explained(cluster::problem(&error), forbidden), forbidden });
            }
            Ok(Ok(connection)) => connection,
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX))
            .read_buffer_size(READ);
        // Nothing has been read of it yet, so that nothing is lost.
        let socket = connection.into_stream().into_inner();
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

/// A refusal with its reason. API servers leave it out where it is the verb `create` that is missing, which they ask for
/// since Kubernetes 1.35 (registry/core/pod/rest/subresources.go).
fn explained(problem: String, forbidden: bool) -> String {
    match problem.trim_end().strip_suffix("is forbidden:") {
        Some(what) if forbidden => {
            format!(
                "{what}is forbidden: it takes the verbs get and create on pods/exec (and pods/attach with --ephemeral)"
            )
        }
        _ => problem,
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
    fn a_refusal_without_a_reason_gets_one() {
        let cut = explained("pods \"x\" is forbidden: ".into(), true);
        assert!(cut.starts_with("pods \"x\" is forbidden: it takes the verbs get and create"), "{cut}");
        let whole = "pods \"x\" is forbidden: User \"u\" cannot";
        assert_eq!(explained(whole.into(), true), whole);
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
