//! Pods as the kubelet makes them: through containerd's CRI.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::process::ExitCode;

use harness::containerd::{self, IMAGE, PAUSE_OPENS, PodSandbox};
use harness::need::CONTAINERD;
use harness::scratch::unique;
use harness::{Suite, Tracer};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("pod_with_two_containers", CONTAINERD, two_containers)
        .test("execs_of_a_pod", CONTAINERD, execs)
        .test("exec_sync_keeps_the_name", CONTAINERD, exec_sync)
        .test("pods_come_and_go", CONTAINERD, come_and_go)
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
