//! Containers that were there before the tracer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use harness::containerd;
use harness::need::{CONTAINERD, CRUN, RUNC, YOUKI};
use harness::runtime::{Kind, KnownRoot};
use harness::scratch::unique;
use harness::{Bundle, Pod, Runtime, Suite, Tracer};
use serde_json::Value;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for (kind, needs, name) in
        [(Kind::Runc, RUNC, "runc"), (Kind::Crun, CRUN, "crun"), (Kind::Youki, YOUKI, "youki")]
    {
        suite = suite.test(&format!("{name}_container_that_runs"), needs, move || runs(kind)).test(
            &format!("{name}_container_that_is_created"),
            needs,
            move || created(kind),
        );
    }
    suite
        .test("one_that_has_ended_names_nobody", RUNC, ended)
        .test("the_selection_holds_for_it", RUNC, selected)
        .test("pod_of_an_engine_with_a_directory_of_its_own", CONTAINERD, pod)
        .run()
}

/// Fails unless the event names the container's pod, found through its state.
#[track_caller]
fn assert_found(event: &Value, bundle: &Bundle) {
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
}

/// Its first process, which waits, and a child of that, which does too: neither has done anything since the tracer
/// looked at them.
fn runs(kind: Kind) {
    let pod = Pod::new("running", "app");
    let [child, first, joined] = ["child", "first", "joined"].map(|name| format!("/{}", unique(name)));
    let script = format!("(read x < /go; true < {child}) & wait; true < {first}; read x < /end");
    let bundle = Bundle::script(&pod, &script).with_fifo("/go").with_fifo("/end");
    let runtime = Runtime::new(kind);
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let tracer = Tracer::open(&pod.namespace);
    bundle.release("/go");
    let event = tracer.wait_open(&child);
    assert_found(&event, &bundle);
    assert_ne!(event["process"]["containerPid"], 1);
    let event = tracer.wait_open(&first);
    assert_found(&event, &bundle);
    assert_eq!(event["process"]["containerPid"], 1);
    runtime.exec(&bundle, &["/bin/sh", "-c", &format!("true < {joined}")]);
    assert_eq!(tracer.wait_open(&joined)["k8s"], bundle.k8s());
    bundle.release("/end");
    runtime.wait_stopped(&bundle);
    tracer.stop().assert_nothing_dropped();
}

fn created(kind: Kind) {
    let pod = Pod::new("created", "app");
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::script(&pod, &format!("true < {end}"));
    let runtime = Runtime::new(kind);
    let _state = KnownRoot::new(&runtime);
    runtime.create(&bundle);
    let tracer = Tracer::exec(&pod.namespace);
    let opens = Tracer::open(&pod.namespace);
    runtime.start(&bundle);
    assert_found(&opens.wait_open(&end), &bundle);
    let entrypoint = tracer.wait_for("the entrypoint", |event| event["exec"]["path"] == "/bin/sh");
    assert_found(&entrypoint, &bundle);
    runtime.wait_stopped(&bundle);
}

/// Its processes end without having done anything; what comes after is the next container's.
fn ended() {
    let pod = Pod::new("ended", "app");
    let bundle = Bundle::script(&pod, "read x < /end").with_fifo("/end");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.delete(&bundle);
    let path = format!("/{}", unique("next"));
    let next = Bundle::script(&Pod::new("next", "app"), &format!("true < {path}"));
    runtime.run(&next);
    next.assert_names(&tracer.wait_open(&path));
    let events = tracer.stop().events();
    let of_ended: Vec<&Value> = events.iter().filter(|event| event["k8s"] == bundle.k8s()).collect();
    // It did nothing but wait for somebody to open the other end of its fifo, and was killed in that.
    assert!(of_ended.iter().all(|event| event["open"]["path"] == "/end"), "{of_ended:?}");
}

fn selected() {
    let [wanted, other] = ["wanted", "other"].map(|name| {
        let script = format!("read x < /go; true < /{name}");
        let bundle = Bundle::script(&Pod::new(name, "app"), &script).with_fifo("/go");
        let runtime = Runtime::runc();
        let state = KnownRoot::new(&runtime);
        runtime.run_detached(&bundle);
        (bundle, runtime, state)
    });
    let namespace = wanted.0.k8s()["namespace"].as_str().unwrap().to_owned();
    let tracer = Tracer::open(&namespace);
    for (bundle, runtime, _) in [&other, &wanted] {
        bundle.release("/go");
        runtime.wait_stopped(bundle);
    }
    tracer.wait_open("/wanted");
    for event in tracer.stop().events() {
        assert_found(&event, &wanted.0);
    }
}

/// The tests' containerd keeps its runtime's state where nobody looks; its shims show the way.
fn pod() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let pod = containerd.pod(&namespace, "before");
    let path = format!("/{}", unique("tick"));
    let id = pod.container("app", &["/bin/sh", "-c", &format!("while :; do true < {path}; sleep 0.1; done")]);
    let tracer = Tracer::open(&namespace);
    let event = tracer.wait_open(&path);
    assert_eq!(event["k8s"]["pod"], "before", "in {event}");
    assert_eq!(event["k8s"]["container"], "app", "in {event}");
    assert_eq!(event["container"]["id"], id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
    let probe = format!("/{}", unique("probe"));
    pod.exec(&id, &["/bin/sh", "-c", &format!("true < {probe}")]);
    assert_eq!(tracer.wait_open(&probe)["k8s"]["pod"], "before");
}
