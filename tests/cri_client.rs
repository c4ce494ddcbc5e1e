//! What `tracer` learns from a container engine over its CRI, and from what only looks like one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use harness::containerd::{self, Containerd, IMAGE, PodSandbox};
use harness::need::{self, Need};
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{NOBODY, Suite};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tracer::testing::{Client, ContainerType, EngineContainer, Error, Pod, PodLabels, SocketError, WatchEnd};

/// What pods of containerd take; `tracer` itself does not run here.
const CONTAINERD: &[Need] = &[Need::Root, Need::Busybox, Need::Runc, Need::Containerd];
/// A socket is believed if it is root's.
const ROOT: &[Need] = &[Need::Root];
/// By when a call has failed: its deadline of two seconds, and what a loaded machine takes beyond.
const PATIENCE: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    Suite::new()
        .test("snapshot_has_sandbox_and_containers", CONTAINERD, snapshot)
        .test("pods_have_their_own_labels", CONTAINERD, pods)
        .test("what_has_ended_is_not_listed", CONTAINERD, has_ended)
        .test("events_where_they_are_served", CONTAINERD, events)
        .test("engine_that_comes_back", CONTAINERD, comes_back)
        .test("peer_that_never_answers", ROOT, silent)
        .test("peer_that_hangs_up", ROOT, hangs_up)
        .test("peer_that_is_no_engine", CONTAINERD, garbage)
        .test("message_without_bound", ROOT, unbounded)
        .test("message_that_is_none", ROOT, no_message)
        .test("socket_of_somebody_else", ROOT, not_roots)
        .test("socket_that_is_none", ROOT, no_socket)
        .run()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, future).await.expect("an answer or an error") })
}

fn client(containerd: &Containerd) -> Client {
    Client::connect(&containerd.socket())
}

fn labels(app: &str) -> BTreeMap<String, String> {
    [("app".to_owned(), app.to_owned())].into()
}

/// What is to be known of a container of `pod`; of its sandbox, if `name` is none.
fn expected(
    pod: &PodSandbox,
    namespace: &str,
    pod_name: &str,
    id: &str,
    name: Option<&str>,
) -> EngineContainer {
    EngineContainer {
        id: id.to_owned(),
        kind: if name.is_some() { ContainerType::Container } else { ContainerType::Sandbox },
        pod: Pod {
            namespace: namespace.to_owned(),
            name: pod_name.to_owned(),
            pod_uid: Some(pod.uid.clone()),
            container: name.map(str::to_owned),
            labels: Some(labels(pod_name)),
        },
        image: name.map(|_| IMAGE.to_owned()),
        runtime: "containerd".to_owned(),
        runtime_handler: None,
        pid: None,
        started_at: None,
        running: true,
        sandbox_id: pod.id.clone(),
    }
}

#[track_caller]
fn of_pod(witnessed: Vec<EngineContainer>, pod: &PodSandbox) -> BTreeMap<String, EngineContainer> {
    let own = witnessed.into_iter().filter(|container| container.sandbox_id == pod.id);
    let by_id: Vec<(String, EngineContainer)> =
        own.map(|container| (container.id.clone(), container)).collect();
    let count = by_id.len();
    let by_id: BTreeMap<_, _> = by_id.into_iter().collect();
    assert_eq!(by_id.len(), count, "a container is listed once: {by_id:#?}");
    by_id
}

/// Takes the time of the start, which must lie in the last minute.
#[track_caller]
fn take_start(container: &mut EngineContainer) {
    let started = container.started_at.take().unwrap_or_else(|| panic!("no start: {container:?}"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let age = i128::try_from(now).unwrap() - i128::from(started);
    assert!((0..60_000_000_000).contains(&age), "started {age} ns ago: {container:?}");
}

fn snapshot() {
    let containerd = containerd::shared();
    let (namespace, name) = (unique("t"), unique("pod"));
    let pod = containerd.pod(&namespace, &name);
    let app = pod.container("app", &["/bin/sleep", "1000"]);
    let later = pod.create("later", &["/bin/sleep", "1000"]);
    let mut found = of_pod(run(client(&containerd).snapshot()).unwrap(), &pod);
    for id in [&pod.id, &app] {
        let container = found.get_mut(id).unwrap_or_else(|| panic!("{id} is not listed"));
        take_start(container);
    }
    let sandbox = EngineContainer {
        image: found[&pod.id].image.clone(),
        pid: Some(containerd.init_pid(&pod.id)),
        ..expected(&pod, &namespace, &name, &pod.id, None)
    };
    assert_eq!(found[&pod.id], sandbox);
    assert!(sandbox.image.is_some_and(|image| image.contains("pause")), "{:?}", found[&pod.id]);
    let running = EngineContainer {
        pid: Some(containerd.init_pid(&app)),
        ..expected(&pod, &namespace, &name, &app, Some("app"))
    };
    assert_eq!(found[&app], running);
    let created =
        EngineContainer { running: false, ..expected(&pod, &namespace, &name, &later, Some("later")) };
    assert_eq!(found[&later], created);
    assert_eq!(found.len(), 3);
}

fn pods() {
    let containerd = containerd::shared();
    let (namespace, name) = (unique("t"), unique("pod"));
    let pod = containerd.pod(&namespace, &name);
    let expected = PodLabels {
        sandbox_id: pod.id.clone(),
        uid: pod.uid.clone(),
        namespace,
        labels: labels(&name),
        name,
    };
    let client = client(&containerd);
    run(async {
        assert_eq!(client.pod(&pod.id).await.unwrap(), Some(expected));
        // containerd knows a sandbox by the first digits of its id; whose those are is not what was asked.
        assert_eq!(client.pod(&pod.id[..12]).await.unwrap(), None);
        assert_eq!(client.pod(&unique("no-such-pod")).await.unwrap(), None);
        let engine = client.engine().await.unwrap();
        assert_eq!(engine.name, "containerd");
        assert_eq!(
            engine.version.trim_start_matches('v').split(['~', '+']).next(),
            version().split(['~', '+']).next()
        );
    });
}

fn has_ended() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let client = client(&containerd);
    let pod = containerd.pod(&namespace, "short");
    let id = pod.container("app", &["/bin/true"]);
    wait::until("the container's end", || {
        let found = of_pod(run(client.snapshot()).unwrap(), &pod);
        assert!(found.contains_key(&pod.id), "its sandbox runs on: {found:#?}");
        (!found.contains_key(&id)).then_some(())
    });
    let sandbox = pod.id.clone();
    drop(pod);
    run(async {
        let left = client.snapshot().await.unwrap();
        assert!(left.iter().all(|container| container.sandbox_id != sandbox), "{left:#?}");
        assert_eq!(client.pod(&sandbox).await.unwrap(), None);
    });
}

/// What `containerd --version` says: `1.6.20~ds1`, `2.1.9+unknown`.
fn version() -> String {
    let mut containerd = Command::new(need::find("containerd").expect("Need::Containerd"));
    let said = wait::output(containerd.arg("--version"), LIMIT).success().stdout;
    said.split(' ').nth(2).expect("name, package, version").trim_start_matches('v').to_owned()
}

/// Listens in a thread of its own until dropped.
struct Watch {
    events: mpsc::Receiver<Result<Vec<EngineContainer>, WatchEnd>>,
    _stop: oneshot::Sender<()>,
}

impl Watch {
    fn new(client: Client) -> Self {
        let (sender, events) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let told = sender.clone();
                tokio::select! {
                    ended = client.watch(|event| told.send(Ok(event)).unwrap_or(())) => {
                        sender.send(Err(ended)).unwrap_or(());
                    }
                    _ = stopped => {}
                }
            });
        });
        Self { events, _stop: stop }
    }

    /// The first event of which `wanted` picks something.
    #[track_caller]
    fn find<T>(&self, what: &str, wanted: impl Fn(&EngineContainer) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("no event: {what}"));
            let event = event.unwrap_or_else(|ended| panic!("{ended:?} before {what}"));
            if let Some(found) = event.iter().find_map(&wanted) {
                return found;
            }
        }
    }
}

fn events() {
    let containerd = containerd::shared();
    let client = client(&containerd);
    if version().starts_with("1.") {
        // 1.6 has none; of 1.7 nobody may take them.
        let why = if version().starts_with("1.7.") { "one listener" } else { "not implemented" };
        match run(client.watch(|event| panic!("an event: {event:?}"))) {
            WatchEnd::Unsupported(reason) => assert!(reason.contains(why), "{reason}"),
            ended @ WatchEnd::Failed(_) => panic!("{ended:?}"),
        }
        return;
    }
    // Two at a time: the kubelet may listen as well, and what it is told must not depend on who else does.
    let watches = [Watch::new(client.clone()), Watch::new(Client::connect(&containerd.socket()))];
    let (namespace, name) = (unique("t"), unique("pod"));
    let pod = containerd.pod(&namespace, &name);
    let id = pod.container("app", &["/bin/sleep", "1000"]);
    for watch in &watches {
        let mut sandbox = watch.find("the sandbox runs", |container| {
            (container.id == pod.id && container.running).then(|| container.clone())
        });
        take_start(&mut sandbox);
        assert_eq!(sandbox, expected(&pod, &namespace, &name, &pod.id, None));
        let mut container = watch.find("the container runs", |container| {
            (container.id == id && container.running).then(|| container.clone())
        });
        take_start(&mut container);
        assert_eq!(container, expected(&pod, &namespace, &name, &id, Some("app")));
    }
    let sandbox = pod.id.clone();
    drop(pod);
    for watch in &watches {
        watch
            .find("the pod's end", |container| (container.id == sandbox && !container.running).then_some(()));
    }
}

fn comes_back() {
    let containerd = containerd::shared();
    let dir = scratch::Dir::new("back");
    let path = dir.path().join("engine.sock");
    let client = Client::connect(&path);
    assert!(matches!(run(client.engine()), Err(Error::Connect { .. })), "nobody listens yet");
    run(async {
        symlink(containerd.socket(), &path).unwrap();
        client.engine().await.unwrap();
        // Whoever listens there now is not asked while the connection is whole.
        fs::remove_file(&path).unwrap();
        client.engine().await.unwrap();
    });
    // The connection ended with its runtime: a new one is made, to whoever listens now.
    assert!(matches!(run(client.engine()), Err(Error::Connect { .. })), "nobody listens any more");
    symlink(containerd.socket(), &path).unwrap();
    run(client.engine()).unwrap();
}

/// Asks whoever listens at `path` for all that can be asked for.
async fn ask_all(path: &Path) -> Vec<Error> {
    // Each over a connection of its own: one that errs closes its connection.
    let [engine, pod, snapshot, watch] = [(); 4].map(|()| Client::connect(path));
    let watched = async {
        match watch.watch(|event| panic!("an event: {event:?}")).await {
            WatchEnd::Failed(error) => error,
            WatchEnd::Unsupported(why) => panic!("it said something: {why}"),
        }
    };
    let began = Instant::now();
    let (engine, pod, snapshot, watched) =
        tokio::join!(engine.engine(), pod.pod("x"), snapshot.snapshot(), watched);
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    vec![engine.unwrap_err(), pod.unwrap_err(), snapshot.unwrap_err(), watched]
}

/// When a peer says what it has to say.
#[derive(Clone, Copy, PartialEq)]
enum When {
    AtOnce,
    Asked,
}

/// Asks a peer for everything that says `bytes` to everybody, and then hangs up or does nothing more.
fn ask_peer(bytes: &[u8], when: When, hangs_up: bool) -> (PathBuf, Vec<Error>) {
    let dir = scratch::Dir::new("peer");
    let path = dir.path().join("peer.sock");
    let errors = run(async {
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let mut held = Vec::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut said = Vec::new();
                while when == When::Asked && !is_request(&said) {
                    stream.readable().await.unwrap();
                    // It reads nothing, if somebody else was faster than the notice of it.
                    let _ = stream.try_read_buf(&mut said);
                }
                stream.writable().await.unwrap();
                let _ = stream.try_write(bytes);
                if !hangs_up {
                    held.push(stream);
                }
            }
        };
        tokio::select! {
            never = serve => never,
            errors = ask_all(&path) => errors,
        }
    });
    (path, errors)
}

/// Whether HTTP/2's preface is followed by frames of which one is a HEADERS frame (type 1), a request.
fn is_request(said: &[u8]) -> bool {
    let mut rest = said.get(24..).unwrap_or_default();
    while let [high, middle, low, kind, ..] = *rest {
        if kind == 1 {
            return true;
        }
        let length = u32::from_be_bytes([0, high, middle, low]);
        rest = rest.get(9 + usize::try_from(length).unwrap()..).unwrap_or_default();
    }
    false
}

/// The frames of a gRPC answer to the first request: a message of `length` bytes that begins with `message`.
fn answer(length: u32, message: &[u8]) -> Vec<u8> {
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    // `:status: 200` and `content-type: application/grpc`, by their indices in HPACK's static table.
    let headers = [&[0x88, 0x0f, 0x10, 16], &b"application/grpc"[..]].concat();
    let data = [&[0], &length.to_be_bytes()[..], message].concat();
    for (kind, flags, payload) in [(1, 4, headers), (0, 0, data)] {
        frames.extend([0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1]);
        frames.extend(payload);
    }
    frames
}

fn unbounded() {
    let (_, errors) = ask_peer(&answer(16 * 1024 * 1024 + 1, b""), When::Asked, false);
    for error in errors {
        assert!(matches!(error, Error::Call { .. }), "{error:?}");
        assert!(error.to_string().contains("16777216"), "{error}");
    }
    // One byte less is waited for.
    let (_, errors) = ask_peer(&answer(16 * 1024 * 1024, b""), When::Asked, false);
    for error in errors {
        assert!(matches!(error, Error::Slow { .. }), "{error:?}");
    }
}

fn no_message() {
    // A field that ends before its length says.
    let (_, errors) = ask_peer(&answer(3, &[0x0a, 0x7f, 0x00]), When::Asked, false);
    for error in errors {
        assert!(matches!(error, Error::Call { .. }), "{error:?}");
    }
}

fn silent() {
    let began = Instant::now();
    let (path, errors) = ask_peer(b"", When::AtOnce, false);
    assert!(began.elapsed() >= Duration::from_secs(2), "an engine may take its time");
    for error in errors {
        assert!(matches!(error, Error::Slow { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

fn hangs_up() {
    let (_, errors) = ask_peer(b"", When::AtOnce, true);
    for error in errors {
        assert!(matches!(error, Error::Call { .. } | Error::Connect { .. }), "{error:?}");
    }
}

fn garbage() {
    // An HTTP/1 server; frames of HTTP/2 that are none: too long, answers to nothing, an end without a beginning.
    let frames: [&[u8]; 5] = [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 4, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4],
        &[0, 0, 0, 9, 4, 0, 0, 0, 1],
        &[0, 0, 1, 4, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in frames {
        let (_, errors) = ask_peer(bytes, When::AtOnce, false);
        for error in errors {
            assert!(matches!(error, Error::Call { .. }), "{error:?}");
        }
    }
    // The same daemon's other socket, where it does not speak gRPC.
    let containerd = containerd::shared();
    let mut path = containerd.socket().into_os_string();
    path.push(".ttrpc");
    for error in run(ask_all(Path::new(&path))) {
        assert!(!error.to_string().is_empty());
    }
}

fn not_roots() {
    let dir = scratch::Dir::new("peer");
    let (path, link) = (dir.path().join("peer.sock"), dir.path().join("link.sock"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    chown(&path, Some(NOBODY), None).unwrap();
    // A link belongs to root, which says nothing.
    symlink(&path, &link).unwrap();
    for path in [&path, &link] {
        for error in run(ask_all(path)) {
            assert!(
                matches!(error, Error::Connect { source: SocketError::NotRoots(NOBODY), .. }),
                "{error:?}"
            );
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains("65534"), "{text}");
        }
    }
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody connected");
    // With the same listener, root's socket is one.
    chown(&path, Some(0), None).unwrap();
    let error = run(Client::connect(&path).engine()).unwrap_err();
    assert!(matches!(error, Error::Slow { .. }), "{error:?}");
}

fn no_socket() {
    let dir = scratch::Dir::new("peer");
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [dir.path().join("missing.sock"), stale] {
        for error in run(ask_all(&path)) {
            assert!(matches!(error, Error::Connect { source: SocketError::Io(_), .. }), "{error:?}");
        }
    }
    for error in run(ask_all(&file)) {
        assert!(matches!(error, Error::Connect { source: SocketError::NotSocket, .. }), "{error:?}");
    }
}
