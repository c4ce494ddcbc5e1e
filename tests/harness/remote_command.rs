//! Runs commands in pods and attaches to them: the server side of the WebSocket protocol of Kubernetes' API server.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};
use tokio::sync::{broadcast, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::apiserver::{Answer, FUNCTIONS, Program, Shared, failure};
use crate::tracer;

/// What kubelets copy at a time, in bytes.
const PIECE: usize = 32 << 10;

/// A connection.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Upgrades a request to a WebSocket.
pub(crate) fn upgrade<F>(
    mut request: Request<Incoming>,
    version: u8,
    serves: impl FnOnce(Socket) -> F + Send + 'static,
) -> Answer
where
    F: Future<Output = ()> + Send + 'static,
{
    if request.headers().get(UPGRADE).is_none() {
        // As the real server (apiserver, `util/wsstream` and `pkg/util/proxy/upgradeaware.go`).
        return failure(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let protocol = format!("v{version}.channel.k8s.io");
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
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            serves(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
        }
    });
    response
}

/// Attaches a connection to the main process of a pod, whose standard input stays open when the connection ends (`stdinOnce`
/// is not set).
pub(crate) async fn follow(
    mut stream: Socket,
    shared: &Shared,
    name: &str,
    mut output: broadcast::Receiver<Vec<u8>>,
) {
    loop {
        tokio::select! {
            printed = output.recv() => match printed {
                Ok(message) => {
                    if stream.send(Message::binary(message)).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => {
                    let _ = stream.close(None).await;
                    return;
                }
            },
            message = stream.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let (Some((0, bytes)), Some(main)) = (bytes.split_first(), shared.state().mains.get_mut(name)) {
                        main.write(bytes);
                    }
                }
                Some(Ok(_)) => {}
                _ => return,
            },
        }
    }
}

/// Runs a command as a kubelet does, with its standard streams attached to the connection.
pub(crate) async fn run(
    stream: Socket,
    shared: &Arc<Shared>,
    pod: String,
    program: &Program,
    command: Vec<String>,
) {
    let mut process = match program {
        Program::Tracer => {
            assert_eq!(command[0], "/tracer");
            Command::new(tracer::binary())
        }
        Program::Within(exec) => {
            let mut process = Command::new(&exec[0]);
            process.args(&exec[1..]).arg("/tracer");
            process
        }
        Program::Script(script) => {
            let mut process = Command::new("/bin/sh");
            process.arg("-c").arg(format!("{FUNCTIONS}\n{script}")).arg("/tracer").env("FRAMES", frames());
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
            // Output that cannot be sent is discarded: this must not stop the program.
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

/// The program `tests/frames.rs`, which cargo builds with the tests.
fn frames() -> PathBuf {
    let program = std::env::current_exe().expect("the path of the test or program");
    // target/PROFILE/deps/TEST or target/PROFILE/PROGRAM.
    let mut directories = program.ancestors().skip(1).map(|directory| directory.join("frames"));
    directories.find(|frames| frames.is_file()).expect("cargo builds it with the tests")
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

/// Forwards data to standard input until the connection ends, or closes it. Returns standard input, still open, in the
/// first case.
async fn read(mut incoming: SplitStream<Socket>, mut stdin: ChildStdin) -> Option<ChildStdin> {
    while let Some(Ok(message)) = incoming.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((0, bytes)) => {
                // It may have exited.
                let _ = stdin.write_all(bytes).await;
                let _ = stdin.flush().await;
            }
            Some((255, [0])) => return None,
            _ => {}
        }
    }
    Some(stdin)
}
