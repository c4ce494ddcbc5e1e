//! Engines and runtimes that make no pods, and runtimes by other names: each container by its id,
//! what joins it included.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use harness::engine::Client;
use harness::need::{CONTAINERD, DOCKER, PODMAN, RUNC, RUNC_GCC};
use harness::podman::Podman;
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, NOBODY, Pod, Runtime, Suite, Tracer, containerd, docker, program};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("docker_run_and_exec", DOCKER, || run_and_exec(&docker::shared(), "docker"))
        .test("docker_container_of_the_hosts_namespaces", DOCKER, || {
            let options = ["--pid=host", "--ipc=host", "--uts=host", "--network=host"];
            run(&docker::shared(), &options[..3], "docker");
        })
        .test("docker_container_with_an_init", DOCKER, || run(&docker::shared(), &["--init"], "docker"))
        .test("docker_container_that_runs_already", DOCKER, || {
            runs_already(&docker::shared(), "docker");
        })
        .test("docker_restarts_a_container", DOCKER, docker_restart)
        .test("podman_run_and_exec", PODMAN, || run_and_exec(&Podman::new(), "podman"))
        .test("podman_container_of_the_hosts_namespaces", PODMAN, || {
            run(&Podman::new(), &["--pid=host", "--ipc=host", "--uts=host"], "podman");
        })
        .test("podman_container_that_runs_already", PODMAN, || {
            runs_already(&Podman::new(), "podman");
        })
        .test("podman_container_of_a_podman_pod", PODMAN, podman_pod)
        .test("rootless_runc_names_no_pod", RUNC, || {
            let (bundle, event) = rootless(&[]);
            assert_eq!(event["k8s"], Value::Null, "in {event}");
            assert_ne!(event["container"], Value::Null, "in {event}");
            assert_eq!(event["process"]["uid"], NOBODY, "the bundle is {}: {event}", bundle.id);
        })
        .test("rootless_runc_is_believed_where_that_is_asked_for", RUNC, || {
            let (bundle, event) = rootless(&["--trust-rootless"]);
            bundle.assert_names(&event);
        })
        .test("ctr_run_and_exec", CONTAINERD, ctr)
        .test("runc_by_a_name_that_is_told", RUNC, told_name)
        .test("runc_as_nvidia_container_runtime", RUNC, || named("nvidia-container-runtime"))
        .test("runc_as_docker_runc", RUNC, || named("docker-runc"))
        .test("nvidia_container_runtime_that_executes_runc", RUNC_GCC, wrapper)
        .run()
}

/// Fails unless the event is of that container, which belongs to no pod.
#[track_caller]
fn assert_names(event: &Value, id: &str, runtime: &str, source: &str) {
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["id"], id, "in {event}");
    assert_eq!(event["container"]["runtime"], runtime, "in {event}");
    assert_eq!(event["container"]["source"], source, "in {event}");
}

/// The events that are said to be of a container, from its entrypoint on.
fn of(events: Vec<Value>, id: &str) -> Vec<Value> {
    events.into_iter().filter(|event| event["container"]["id"] == id).collect()
}

fn paths(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["open"]["path"].as_str().unwrap()).collect()
}

/// A container from its first to its last open, with nothing before and nothing after.
fn run(engine: &Client, options: &[&str], runtime: &str) {
    let mark = format!("/{}", unique("run"));
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let container = engine.create(options, &["/bin/sh", "-c", &format!("true < {mark}/1; true < {mark}/2")]);
    container.run();
    tracer.wait_open(&format!("{mark}/2"));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = of(done.events(), &container.id);
    let marked = |event: &&Value| event["open"]["path"].as_str().unwrap().starts_with(&mark);
    assert_eq!(events.iter().filter(marked).count(), 2, "{:?}", paths(&events));
    for event in &events {
        assert_names(event, &container.id, runtime, "bundle");
    }
}

fn run_and_exec(engine: &Client, runtime: &str) {
    let mark = format!("/{}", unique("run"));
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let execs = Tracer::start(&["trace", "exec", "-o", "json"]);
    let script = format!("true < {mark}/1; sleep 1000");
    let container = engine.run_detached(&[], &["/bin/sh", "-c", &script]);
    let event = tracer.wait_open(&format!("{mark}/1"));
    assert_names(&event, &container.id, runtime, "bundle");
    assert_eq!(event["process"]["containerPid"], 1, "in {event}");
    for round in 0..3 {
        let path = format!("{mark}/exec/{round}");
        let script = format!("true < {path}");
        container.exec(&["/bin/sh", "-c", &script]);
        let event = tracer.wait_open(&path);
        assert_names(&event, &container.id, runtime, "bundle");
        assert_ne!(event["process"]["containerPid"], 1, "in {event}");
        assert_names(&execs.wait_exec(&script), &container.id, runtime, "bundle");
    }
    let events = execs.stop().events();
    let entry = events.iter().find(|event| event["container"]["id"] == *container.id).unwrap();
    assert_eq!(entry["exec"]["args"], json!(["/bin/sh", "-c", script]), "its first exec is the entrypoint's");
    let events = of(tracer.stop().events(), &container.id);
    assert_eq!(paths(&events)[0], format!("{mark}/1"), "its first open is its own: {:?}", paths(&events));
    for event in &events {
        assert_names(event, &container.id, runtime, "bundle");
    }
}

fn runs_already(engine: &Client, runtime: &str) {
    let mark = format!("/{}", unique("run"));
    let script = format!("while :; do true < {mark}/loop; sleep 0.1; done");
    let container = engine.run_detached(&[], &["/bin/sh", "-c", &script]);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    assert_names(&tracer.wait_open(&format!("{mark}/loop")), &container.id, runtime, "state");
    container.exec(&["/bin/sh", "-c", &format!("true < {mark}/exec")]);
    let event = tracer.wait_open(&format!("{mark}/exec"));
    assert_eq!(event["container"]["id"], *container.id, "in {event}");
    assert_eq!(event["container"]["runtime"], runtime, "in {event}");
}

/// The same container again: another life under the same id.
fn docker_restart() {
    let mark = format!("/{}", unique("run"));
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let docker = docker::shared();
    let container = docker.create(&[], &["/bin/sh", "-c", &format!("true < {mark}")]);
    for _ in 0..3 {
        container.run();
    }
    let seen = |event: &Value| event["open"]["path"] == mark;
    wait::until("three lives of the container", || {
        (tracer.events().iter().filter(|event| seen(event)).count() == 3).then_some(())
    });
    for event in tracer.stop().events().iter().filter(|event| seen(event)) {
        assert_names(event, &container.id, "docker", "bundle");
    }
}

fn ctr() {
    let mark = format!("/{}", unique("run"));
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let containerd = containerd::shared();
    let id = unique("tracer-test");
    let script = format!("true < {mark}/1; sleep 1000");
    let _task = containerd.ctr_run(&id, &["/bin/sh", "-c", &script]);
    assert_names(&tracer.wait_open(&format!("{mark}/1")), &id, "containerd", "bundle");
    let mut exec = containerd.ctr();
    exec.args(["tasks", "exec", "--exec-id", "probe", &id, "/bin/sh", "-c"]);
    wait::output(exec.arg(format!("true < {mark}/exec")), LIMIT);
    assert_names(&tracer.wait_open(&format!("{mark}/exec")), &id, "containerd", "bundle");
}

/// Its containers carry an annotation of CRI-O's, and belong to no pod of Kubernetes.
fn podman_pod() {
    let podman = Podman::new();
    let pod = podman.pod();
    run(&podman, &["--pod", &pod.name], "podman");
}

/// runc as a user runs it, in a user namespace of its own, with a bundle that claims to be a pod's; and the event of
/// its one open.
fn rootless(options: &[&str]) -> (Bundle, Value) {
    let mark = format!("/{}", unique("rootless"));
    let bundle = Bundle::script(&Pod::new("claimed", "app"), &format!("true < {mark}")).rootless();
    let runtime = Runtime::runc();
    chown(runtime.root(), Some(NOBODY), Some(NOBODY)).unwrap();
    let tracer = Tracer::start(&[&["trace", "open", "-o", "json"], options].concat());
    let mut command = runtime.command();
    command.args(["run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    let output = wait::output(command.uid(NOBODY).gid(NOBODY), LIMIT);
    assert!(output.stderr.contains(&mark), "users may not make containers here: {output:?}");
    let event = tracer.wait_open(&mark);
    (bundle, event)
}

/// The real runc under another name. A copy: it executes itself, by whatever name.
fn renamed(name: &str) -> (scratch::Dir, Runtime) {
    let dir = scratch::Dir::new("named");
    let program = dir.path().join(name);
    fs::copy(Runtime::runc().program(), &program).unwrap();
    (dir, Runtime::runc().called(&program))
}

#[track_caller]
fn assert_run(tracer: &Tracer, runtime: &Runtime, bundle: &Bundle, end: &str) {
    runtime.run(bundle);
    bundle.assert_names(&tracer.wait_open(end));
}

fn told_name() {
    let pod = Pod::new("named", "app");
    let (one, two) = (format!("/{}", unique("end")), format!("/{}", unique("end")));
    let name = unique("rt");
    let (_dir, runtime) = renamed(&name);
    let tracer = Tracer::start(&[
        "trace",
        "open",
        "-n",
        &pod.namespace,
        "--runtime-name",
        &name,
        "--runtime-name",
        "other-runtime",
        "-o",
        "json",
    ]);
    let first = Bundle::script(&pod, &format!("true < {one}"));
    assert_run(&tracer, &runtime, &first, &one);
    // Another name does not replace the known ones.
    let second = Bundle::script(&pod, &format!("true < {two}"));
    assert_run(&tracer, &Runtime::runc(), &second, &two);
    // A symbolic link has the name that is executed, too.
    let three = format!("/{}", unique("end"));
    let dir = scratch::Dir::new("named");
    let link = dir.path().join("other-runtime");
    symlink(Runtime::runc().program(), &link).unwrap();
    let third = Bundle::script(&pod, &format!("true < {three}"));
    assert_run(&tracer, &Runtime::runc().called(&link), &third, &three);
}

fn named(name: &str) {
    let pod = Pod::new("named", "app");
    let end = format!("/{}", unique("end"));
    let (_dir, runtime) = renamed(name);
    let bundle = Bundle::script(&pod, &format!("true < {end}"));
    let tracer = Tracer::open(&pod.namespace);
    assert_run(&tracer, &runtime, &bundle, &end);
    assert_eq!(tracer.stop().events().len(), 1);
}

/// As NVIDIA's does: it looks at the bundle and executes runc with the arguments it was given. Two
/// runtimes in one process, and one container.
fn wrapper() {
    let pod = Pod::new("wrapped", "app");
    let end = format!("/{}", unique("end"));
    let dir = scratch::Dir::new("named");
    let program = dir.path().join("nvidia-container-runtime");
    fs::copy(program::compile("wrapper.c"), &program).unwrap();
    let runtime = Runtime::runc();
    let bundle = Bundle::script(&pod, &format!("true < /first; true < {end}"));
    let words =
        [runtime.program(), Path::new("--root"), runtime.root(), Path::new("run"), Path::new("--bundle")];
    let words = words.iter().map(|word| word.to_str().unwrap());
    let words: Vec<&str> = words.chain([bundle.path().to_str().unwrap(), &bundle.id]).collect();
    let wrapped = words.join("\u{1}") + "\u{1}";
    let tracer = Tracer::open(&pod.namespace);
    let mut command = std::process::Command::new(&program);
    wait::output(command.env("WRAPPED", wrapped).args(&words[1..]), LIMIT);
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    assert_eq!(paths(&events), ["/first", &end]);
    for event in &events {
        bundle.assert_names(event);
    }
}
