//! Pods as the kubelet makes them: through containerd's CRI.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::containerd::{self, Containerd, IMAGE, PAUSE_OPENS, PodSandbox};
use harness::need::{CONTAINERD, RUNC};
use harness::scratch::{self, unique};
use harness::wait;
use harness::{Bundle, Launch, Pod, Runtime, Suite, Tracer};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("pod_with_two_containers", CONTAINERD, two_containers)
        .test("execs_of_a_pod", CONTAINERD, execs)
        .test("exec_sync_keeps_the_name", CONTAINERD, exec_sync)
        .test("pods_come_and_go", CONTAINERD, come_and_go)
        .test("labels_select_from_the_first_instruction_on", CONTAINERD, labels_select)
        .test("labels_of_a_pod_that_runs_already", CONTAINERD, labels_of_running)
        .test("labels_come_after_events_where_nobody_asks_for_them", CONTAINERD, labels_later)
        .test("labels_that_no_engine_is_asked_for_are_counted", CONTAINERD, labels_nowhere)
        .test("an_engine_that_never_answers_delays_nothing", RUNC, silent_engine)
        .test("an_engine_that_never_answers_loses_what_needs_labels", RUNC, silent_engine_labels)
        .test("an_engine_that_is_stopped_delays_nothing", CONTAINERD, stopped_engine)
        .test("an_engine_that_is_restarted", CONTAINERD, restarted_engine)
        .test("the_engine_knows_what_the_bundle_does_not_tell", CONTAINERD, no_config)
        .test("the_engine_knows_a_container_that_nothing_else_tells_of", CONTAINERD, no_pid_file)
        .test("events_of_an_engine_that_has_none", CONTAINERD, runtime_events)
        .run()
}

/// Fails unless `event` names this container of this pod. `name` is the container's in the pod;
/// the sandbox has none.
#[track_caller]
fn assert_names(
    event: &Value,
    namespace: &str,
    pod_name: &str,
    pod: &PodSandbox,
    id: &str,
    name: Option<&str>,
) {
    let k8s = &event["k8s"];
    assert_eq!(k8s["namespace"], namespace, "in {event}");
    assert_eq!(k8s["pod"], pod_name, "in {event}");
    assert_eq!(k8s["podUid"], *pod.uid, "in {event}");
    let container = &event["container"];
    assert_eq!(container["id"], id, "in {event}");
    assert_eq!(container["runtime"], "containerd", "in {event}");
    assert_eq!(container["source"], "bundle", "in {event}");
    if let Some(name) = name {
        assert_eq!(k8s["container"], name, "in {event}");
        assert_eq!(container["type"], "container", "in {event}");
        assert_eq!(container["image"], IMAGE, "in {event}");
    } else {
        assert_eq!(container["type"], "sandbox", "in {event}");
    }
}

fn two_containers() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let tracer = Tracer::open(&namespace);
    let other = containerd.pod(&unique("t"), "other");
    let pod = containerd.pod(&namespace, "web");
    let paused = tracer.wait_open(PAUSE_OPENS);
    assert_names(&paused, &namespace, "web", &pod, &pod.id, None);
    let script = |name: &str| format!("true < /{name}/first; true < /{name}/last; sleep 1000");
    let app = pod.container("app", &["/bin/sh", "-c", &script("app")]);
    let side = pod.container("side", &["/bin/sh", "-c", &script("side")]);
    other.container("app", &["/bin/sh", "-c", &script("other")]);
    tracer.wait_open("/app/last");
    tracer.wait_open("/side/last");
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    for (name, id) in [("app", &app), ("side", &side)] {
        let own: Vec<&Value> = events.iter().filter(|event| event["container"]["id"] == **id).collect();
        let told: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
        assert_eq!(told, [&json!(format!("/{name}/first")), &json!(format!("/{name}/last"))]);
        for event in own {
            assert_names(event, &namespace, "web", &pod, id, Some(name));
            assert_eq!(event["process"]["containerPid"], 1);
        }
    }
    assert_eq!(events.len(), 5, "the pause container's, two and two; of the other pod none: {events:#?}");
}

fn execs() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let tracer = Tracer::exec(&namespace);
    let pod = containerd.pod(&namespace, "web");
    let end = unique("end");
    let script = format!("/bin/true {end}; sleep 1000");
    let id = pod.container("app", &["/bin/sh", "-c", &script]);
    tracer.wait_for("the shell's child", |event| event["exec"]["args"] == json!(["/bin/true", end]));
    let events = tracer.stop().events();
    let first_of = |id: &str| events.iter().find(|event| event["container"]["id"] == id).unwrap();
    let pause = first_of(&pod.id);
    assert_names(pause, &namespace, "web", &pod, &pod.id, None);
    assert_eq!(pause["exec"]["path"], "/bin/sh");
    assert_eq!(pause["process"]["containerPid"], 1);
    let entry = first_of(&id);
    assert_names(entry, &namespace, "web", &pod, &id, Some("app"));
    assert_eq!(entry["exec"]["args"], json!(["/bin/sh", "-c", script]));
    assert_eq!(entry["process"]["containerPid"], 1);
}

/// As a kubelet's exec probe does it, again and again.
fn exec_sync() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let tracer = Tracer::open(&namespace);
    let pod = containerd.pod(&namespace, "probed");
    // It opens a file all the while: before, between and after the probes.
    let script = "while :; do true < /by/itself; sleep 0.1; done";
    let id = pod.container("app", &["/bin/sh", "-c", script]);
    for round in 0..3 {
        let path = format!("/probe/{round}");
        let probe = format!("true < {path}; echo probed");
        let (code, stdout) = pod.exec(&id, &["/bin/sh", "-c", &probe]);
        assert_eq!((code, stdout.as_str()), (0, "probed\n"));
        tracer.wait_open(&path);
        let known = Cell::new(tracer.events().len());
        tracer.wait_for("the container's own open, after the probe", |event| {
            // It is asked about all events from the first on.
            let left = known.replace(known.get().saturating_sub(1));
            left == 0 && event["open"]["path"] == "/by/itself"
        });
    }
    let done = tracer.stop();
    let events = done.events();
    for event in events.iter().filter(|event| event["open"]["path"] != PAUSE_OPENS) {
        assert_names(event, &namespace, "probed", &pod, &id, Some("app"));
    }
}

fn come_and_go() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let tracer = Tracer::open(&namespace);
    for round in 0..5 {
        let (name, path) = (format!("pod-{round}"), format!("/{}", unique("round")));
        let pod = containerd.pod(&namespace, &name);
        let id = pod.container("app", &["/bin/sh", "-c", &format!("true < {path}; sleep 1000")]);
        let event = tracer.wait_open(&path);
        assert_names(&event, &namespace, &name, &pod, &id, Some("app"));
    }
    let done = tracer.stop();
    done.assert_nothing_dropped();
    assert_eq!(done.events().len(), 10, "five pause containers and five workloads");
}

/// `trace KIND -o json` of a namespace, with this engine to ask.
#[track_caller]
fn asking(endpoint: &str, kind: &str, namespace: &str, further: &[&str]) -> Tracer {
    let arguments = ["trace", kind, "-o", "json", "-n", namespace, "--runtime-endpoint", endpoint];
    Tracer::start(&[&arguments[..], further].concat())
}

fn socket(containerd: &Containerd) -> String {
    format!("unix://{}", containerd.socket().display())
}

/// What a pod's container does to be recognised, and then waits.
fn two_opens(name: &str) -> String {
    format!("true < /{name}/first; true < /{name}/last; sleep 1000")
}

/// A container that opens the same file for ever.
#[track_caller]
fn ticking(pod: &PodSandbox, path: &str) -> String {
    pod.container("app", &["/bin/sh", "-c", &format!("while :; do true < {path}; sleep 0.1; done")])
}

/// Waits for an event that comes after all that have come by now.
#[track_caller]
fn wait_next(tracer: &Tracer, path: &str) -> Value {
    let left = Cell::new(tracer.events().len());
    tracer.wait_for(&format!("another open of {path}"), |event| {
        // It is asked about all events from the first on.
        let known = left.replace(left.get().saturating_sub(1)) > 0;
        !known && event["open"]["path"] == *path
    })
}

fn paths(events: &[Value]) -> Vec<&str> {
    let mut paths: Vec<&str> = events.iter().map(|event| event["open"]["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    paths
}

/// Two pods that are made while tracers wait for either, or both, or none: all events of those that are asked for,
/// the sandbox's included, and no others.
fn labels_select() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let table: [(&[&str], &[&str]); 9] = [
        (&["-l", "app=web"], &["web"]),
        (&["-l", "app!=web"], &["db"]),
        (&["-l", "app in (web, db)"], &["db", "web"]),
        (&["-l", "app notin (web)"], &["db"]),
        (&["-l", "app"], &["db", "web"]),
        (&["-l", "!app"], &[]),
        (&["-l", "app=web", "-l", "app!=db"], &["web"]),
        (&["-l", "app=web", "-p", "db"], &[]),
        // What kubelets add is not the pod's.
        (&["-l", "io.kubernetes.pod.name"], &[]),
    ];
    let tracers = table.map(|(arguments, _)| asking(&socket, "open", &namespace, arguments));
    let execs = asking(&socket, "exec", &namespace, &["-l", "app=web"]);
    let pods = ["web", "db"].map(|name| {
        let pod = containerd.pod(&namespace, name);
        let id = pod.container("app", &["/bin/sh", "-c", &two_opens(name)]);
        (pod, id)
    });
    // The first one shows `web`, the second one `db`: by then all of it has happened.
    tracers[0].wait_open("/web/last");
    tracers[1].wait_open("/db/last");
    let entry = execs.wait_exec(&two_opens("web"));
    assert_eq!(entry["container"]["id"], *pods[0].1, "in {entry}");
    for ((arguments, names), tracer) in table.iter().zip(tracers) {
        let done = tracer.stop();
        done.assert_nothing_dropped();
        let events = done.events();
        let mut wanted = Vec::new();
        for name in *names {
            wanted.extend([PAUSE_OPENS.to_owned(), format!("/{name}/first"), format!("/{name}/last")]);
        }
        wanted.sort_unstable();
        assert_eq!(paths(&events), wanted, "{arguments:?}");
        for event in &events {
            assert_eq!(event["k8s"]["labels"], json!({"app": event["k8s"]["pod"]}), "in {event}");
        }
    }
    let events = execs.stop().events();
    for (id, argument) in [(&pods[0].0.id, PAUSE_OPENS), (&pods[0].1, "/web/first")] {
        let first = events.iter().find(|event| event["container"]["id"] == **id).unwrap();
        assert_eq!(first["exec"]["path"], "/bin/sh", "its first event is its entrypoint: {first}");
        assert_eq!(first["process"]["containerPid"], 1, "in {first}");
        assert!(first["exec"]["args"].to_string().contains(argument), "in {first}");
    }
    assert!(events.iter().all(|event| event["k8s"]["pod"] == "web"), "{events:#?}");
}

/// Of its containers, and of what joins them.
fn labels_of_running() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let pods = ["web", "db"].map(|name| {
        let pod = containerd.pod(&namespace, name);
        let id = ticking(&pod, &format!("/{name}/tick"));
        (pod, id)
    });
    let tracer = asking(&socket, "open", &namespace, &["-l", "app=web"]);
    tracer.wait_open("/web/tick");
    for (pod, id) in pods.iter().rev() {
        pod.exec(id, &["/bin/sh", "-c", &format!("true < /probe/of/{id}")]);
    }
    tracer.wait_open(&format!("/probe/of/{}", pods[0].1));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    for event in done.events() {
        assert_eq!(event["k8s"]["pod"], "web", "in {event}");
        assert_eq!(event["k8s"]["labels"], json!({"app": "web"}), "in {event}");
        assert_eq!(event["container"]["source"], "state", "in {event}");
    }
}

/// No event waits for them; they are there as soon as the engine has told.
fn labels_later() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let (asks, never) =
        (asking(&socket(&containerd), "open", &namespace, &[]), asking("none", "open", &namespace, &[]));
    let pod = containerd.pod(&namespace, "web");
    ticking(&pod, "/tick");
    let labelled = asks.wait_for("labels", |event| event["k8s"]["labels"] == json!({"app": "web"}));
    assert_eq!(labelled["k8s"]["podUid"], *pod.uid);
    never.wait_open("/tick");
    for (tracer, may_have) in [(asks, true), (never, false)] {
        let done = tracer.stop();
        done.assert_nothing_dropped();
        let events = done.events();
        assert_eq!(events[0]["open"]["path"], PAUSE_OPENS);
        let labels: Vec<&Value> = events.iter().map(|event| &event["k8s"]["labels"]).collect();
        let first = labels.iter().position(|labels| !labels.is_null());
        assert_eq!(first.is_some(), may_have, "{labels:?}");
        // Once known they stay known, to every container of the pod.
        assert!(labels.iter().skip(first.unwrap_or(0)).all(|later| *later == labels[first.unwrap_or(0)]));
    }
}

/// How many events were lost for want of a name. Other tests' containers may be among them.
#[track_caller]
fn unattributed(losses: &[Value]) -> u64 {
    let unattributed = losses.iter().filter(|loss| loss["lost"]["reason"] == "unattributed");
    unattributed.filter_map(|loss| loss["lost"]["count"].as_u64()).sum()
}

fn labels_nowhere() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let tracer = asking("none", "open", &namespace, &["-l", "app=web"]);
    let pod = containerd.pod(&namespace, "web");
    pod.container("app", &["/bin/sh", "-c", &two_opens("web")]);
    // Nobody is asked, so nothing is waited for.
    wait::until("all three losses", || (unattributed(&tracer.events()) >= 3).then_some(()));
    assert_eq!(tracer.stop().events(), Vec::<Value>::new());
}

/// A socket that takes calls and answers none.
fn silent() -> (scratch::Dir, UnixListener, PathBuf) {
    let dir = scratch::Dir::new("silent");
    let path = dir.path().join("e.sock");
    let listener = UnixListener::bind(&path).unwrap();
    (dir, listener, path)
}

fn silent_engine() {
    let (_dir, _listener, path) = silent();
    let pod = Pod::new("web", "app");
    let end = format!("/{}", unique("end"));
    let tracer = asking(&path.display().to_string(), "open", &pod.namespace, &[]);
    let bundle = Bundle::script(&pod, &format!("true < {end}"));
    let began = Instant::now();
    Runtime::runc().run(&bundle);
    bundle.assert_names(&tracer.wait_open(&end));
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    tracer.stop().assert_nothing_dropped();
    let began = Instant::now();
    let endpoint = path.display().to_string();
    let list = Launch::new(&["list-containers", "-n", &pod.namespace, "--runtime-endpoint", &endpoint]);
    list.output().success();
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
}

fn silent_engine_labels() {
    let (_dir, _listener, path) = silent();
    let pod = Pod::new("web", "app");
    let tracer = asking(&path.display().to_string(), "open", &pod.namespace, &["-l", "app=web", "--failed"]);
    let began = Instant::now();
    Runtime::runc().run(&Bundle::script(&pod, "true < /1; true < /2; true < /3"));
    wait::until("all three losses", || (unattributed(&tracer.events()) >= 3).then_some(()));
    // Two seconds of waiting, and up to one until it is told.
    assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
    assert_eq!(tracer.stop().events(), Vec::<Value>::new());
}

fn stopped_engine() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let pod = containerd.pod(&namespace, "web");
    ticking(&pod, "/tick");
    let before = asking(&socket, "open", &namespace, &["-l", "app=web"]);
    before.wait_open("/tick");
    let stopped = containerd.stopped();
    // What is known stays known.
    for _ in 0..3 {
        assert_eq!(wait_next(&before, "/tick")["k8s"]["labels"], json!({"app": "web"}));
    }
    let meanwhile = asking(&socket, "open", &namespace, &[]);
    let event = meanwhile.wait_open("/tick");
    assert_eq!((&event["k8s"]["pod"], &event["k8s"]["labels"]), (&json!("web"), &Value::Null), "in {event}");
    // A list shows that labels are missing, and says so.
    let list = ["list-containers", "-n", &namespace, "--runtime-endpoint", &socket];
    let output = Launch::new(&[&list[..], &["-o", "custom-columns=LABELS"]].concat()).output().success();
    assert_eq!(output.stdout, "LABELS\n<unknown>\n<unknown>\n");
    assert!(output.stderr.contains("labels are missing"), "{output:?}");
    assert!(output.stderr.contains("those of 2 of 2 containers"), "{output:?}");
    // Asked again and again, it answers when it can.
    drop(stopped);
    meanwhile.wait_for("labels", |event| event["k8s"]["labels"] == json!({"app": "web"}));
    before.stop().assert_nothing_dropped();
}

fn restarted_engine() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let tracer = asking(&socket, "open", &namespace, &["-l", "app in (before, after)"]);
    let before = containerd.pod(&namespace, "before");
    ticking(&before, "/before");
    tracer.wait_open("/before");
    containerd.restart();
    wait_next(&tracer, "/before");
    let after = containerd.pod(&namespace, "after");
    after.container("app", &["/bin/sh", "-c", &two_opens("after")]);
    for path in ["/after/first", "/after/last"] {
        assert_eq!(tracer.wait_open(path)["k8s"]["labels"], json!({"app": "after"}));
    }
    tracer.stop().assert_nothing_dropped();
}

/// A file that is somewhere else until this is dropped.
struct Missing {
    path: PathBuf,
    kept: PathBuf,
}

impl Missing {
    #[track_caller]
    fn new(path: PathBuf) -> Self {
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).unwrap();
        Self { path, kept }
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        drop(fs::rename(&self.kept, &self.path));
    }
}

/// What `list-containers -o json` shows of a container.
#[track_caller]
fn listed(endpoint: &str, id: &str) -> Vec<Value> {
    let arguments = ["list-containers", "-o", "json", "--runtime-endpoint", endpoint];
    let output = Launch::new(&arguments).output().success();
    let listed = output.stdout.lines().map(|line| serde_json::from_str(line).expect(line));
    listed.filter(|container: &Value| container["container"]["id"] == *id).collect()
}

#[track_caller]
fn assert_by_engine(shown: &Value, namespace: &str, pod: &PodSandbox, id: &str) {
    let k8s = json!({
        "namespace": namespace, "pod": "web", "podUid": pod.uid, "container": "app", "labels": {"app": "web"},
    });
    assert_eq!(shown["k8s"], k8s, "in {shown}");
    let container = json!({
        "id": id, "runtime": "containerd", "type": "container", "image": IMAGE, "source": "cri",
    });
    assert_eq!(shown["container"], container, "in {shown}");
}

/// The same of a container that is only found with the engine's help, and of what joins it.
#[track_caller]
fn assert_told_by_engine(socket: &str, namespace: &str, pod: &PodSandbox, id: &str, pid: u32) {
    let found = listed(socket, id);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_by_engine(&found[0], namespace, pod, id);
    assert_eq!(found[0]["pid"], pid, "in {}", found[0]);
    for further in [&[][..], &["-l", "app=web"]] {
        let tracer = asking(socket, "open", namespace, further);
        tracer.wait_open("/tick");
        let probe = format!("/{}", unique("probe"));
        pod.exec(id, &["/bin/sh", "-c", &format!("true < {probe}")]);
        assert_by_engine(&tracer.wait_open(&probe), namespace, pod, id);
        assert_by_engine(&wait_next(&tracer, "/tick"), namespace, pod, id);
        tracer.stop().assert_nothing_dropped();
    }
}

fn no_config() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let pod = containerd.pod(&namespace, "web");
    let id = ticking(&pod, "/tick");
    let pid = containerd.init_pid(&id);
    let _missing = Missing::new(containerd.bundle(&id).join("config.json"));
    let found = listed("none", &id);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["k8s"], Value::Null);
    assert_eq!(found[0]["container"]["source"], "state");
    assert_eq!(found[0]["container"]["why"], "unreadable");
    assert_eq!(found[0]["pid"], pid);
    assert_told_by_engine(&socket, &namespace, &pod, &id, pid);
}

fn no_pid_file() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let pod = containerd.pod(&namespace, "web");
    let id = ticking(&pod, "/tick");
    let pid = containerd.init_pid(&id);
    let _missing = Missing::new(containerd.bundle(&id).join("init.pid"));
    assert_eq!(listed("none", &id), Vec::<Value>::new());
    assert_told_by_engine(&socket, &namespace, &pod, &id, pid);
}

/// containerd 1.6 does not serve them, and 1.7 to one listener only. All the rest is as without.
fn runtime_events() {
    let containerd = containerd::shared();
    let (socket, namespace) = (socket(&containerd), unique("t"));
    let tracer = asking(&socket, "open", &namespace, &["-l", "app=web", "--runtime-events"]);
    let pod = containerd.pod(&namespace, "web");
    let id = pod.container("app", &["/bin/sh", "-c", &two_opens("web")]);
    let event = tracer.wait_open("/web/last");
    assert_names(&event, &namespace, "web", &pod, &id, Some("app"));
    let done = tracer.stop();
    assert_eq!(paths(&done.events()), [PAUSE_OPENS, "/web/first", "/web/last"]);
    done.assert_nothing_dropped();
    assert!(!done.log().contains(&*containerd.socket().display().to_string()), "{}", done.log());
}
