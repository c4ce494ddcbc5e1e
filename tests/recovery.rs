//! What becomes of containers is told through a ring that may be full: when the tracer is stopped, and runtimes are
//! executed in the hundreds. What was missed is recovered, and said.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};

use harness::need::RUNC_GCC;
use harness::runtime::KnownRoot;
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Pod, Runtime, Suite, Tracer, program};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("a_start_and_an_end_that_were_missed", RUNC_GCC, || alone(start_and_end))
        .test("a_start_of_which_no_state_tells", RUNC_GCC, || alone(no_state))
        .test("a_process_that_joined_unseen", RUNC_GCC, || alone(joined))
        .test("a_created_container_that_was_started_unseen", RUNC_GCC, || alone(created))
        .test("a_container_that_nobody_followed", RUNC_GCC, || alone(unfollowed))
        .test("a_list_that_missed_start_and_end", RUNC_GCC, || alone(listed))
        .run()
}

/// One after the other: each starts runtimes by the hundred, which the others' tracers would see.
fn alone(test: fn()) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    test();
}

/// Has a tracer miss what `happens`: it is stopped meanwhile, and the ring was full before.
#[track_caller]
fn unseen(tracer: &Tracer, happens: impl FnOnce()) {
    tracer.pause();
    flood();
    happens();
    tracer.resume();
}

/// Executes far more runtimes than the ring has room for. First with long command lines, then with short ones: there is
/// no room left for the least record.
#[track_caller]
fn flood() {
    execute(200, 8000);
    execute(200, 1);
}

/// Executes so many runtimes on each CPU, as root, with so many bytes on their command lines.
#[track_caller]
fn execute(count: usize, bytes: usize) {
    let dir = scratch::Dir::new("flood");
    let runc: PathBuf = dir.path().join("runc");
    let impostor = program::compile("impostor.c");
    fs::copy(&impostor, &runc).unwrap();
    let mut command = Command::new(&impostor);
    command.args(["flood", "same", &count.to_string(), &bytes.to_string()]).env("RUNC", &runc);
    wait::output(&mut command, LIMIT).success();
}

/// A script that opens a file again and again.
fn ticking(path: &str) -> String {
    format!("while :; do true < {path}; sleep 0.05; done")
}

fn tick() -> String {
    format!("/{}", unique("tick"))
}

#[track_caller]
fn assert_told(tracer: &Tracer) {
    let told = |event: &Value| {
        event["lost"]["reason"] == "lifecycle-full"
            && event["lost"]["hook"] == "lifecycle"
            && event["lost"]["count"].as_u64().is_some_and(|count| count > 0)
    };
    tracer.wait_for("that starts or ends were missed", told);
}

#[track_caller]
fn stop(tracer: Tracer) {
    let done = tracer.stop();
    let missed = |line: &String| line.starts_with("tracer: missed of containers: lifecycle-full ");
    assert!(done.stderr.iter().any(missed), "the end does not say what was missed:\n{}", done.log());
}

fn start_and_end() {
    let (pod, tick) = (Pod::new("missed", "app"), tick());
    let bundle = Bundle::script(&pod, &ticking(&tick));
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    let tracer = Tracer::start(&["trace", "open", "-n", &pod.namespace, "-o", "json", "-vv"]);
    unseen(&tracer, || runtime.run_detached(&bundle));
    let event = tracer.wait_open(&tick);
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
    assert_told(&tracer);
    let pid = runtime.init_pid(&bundle).expect("it goes on");
    let known = format!("is known again: its first process is {pid}");
    let line = tracer.wait_log("that it is known again", |line| line.ends_with(&known));
    let slot: u32 = line.split("container ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    unseen(&tracer, || runtime.delete(&bundle));
    let free = format!("slot {slot} is free again");
    tracer.wait_log("that its slot is free", |line| line.ends_with(&free));
    stop(tracer);
}

/// Its runtime keeps its state where nobody looks: there is its cgroup's name still.
fn no_state() {
    let (pod, tick) = (Pod::new("missed", "app"), tick());
    let bundle = Bundle::script(&pod, &ticking(&tick));
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    unseen(&tracer, || runtime.run_detached(&bundle));
    let event = tracer.wait_open(&tick);
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    assert_eq!(event["container"]["source"], "cgroup", "in {event}");
    assert_eq!(event["container"]["why"], "missed", "in {event}");
    stop(tracer);
}

fn joined() {
    let (pod, tick) = (Pod::new("joined", "app"), tick());
    let bundle = Bundle::script(&pod, "true < /first; read x < /end").with_fifo("/end");
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&pod.namespace);
    runtime.run_detached(&bundle);
    tracer.wait_open("/first");
    unseen(&tracer, || {
        let mut command = runtime.command();
        command.args(["exec", "--detach", &bundle.id, "/bin/sh", "-c", &ticking(&tick)]);
        wait::output(&mut command, LIMIT).success();
    });
    let event = tracer.wait_open(&tick);
    bundle.assert_names(&event);
    assert_ne!(event["process"]["containerPid"], 1, "in {event}");
    stop(tracer);
}

/// Its start is missed, not that it was created.
fn created() {
    let (pod, tick) = (Pod::new("created", "app"), tick());
    let bundle = Bundle::script(&pod, &ticking(&tick));
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["list-containers", "-w", "-n", &pod.namespace, "-o", "json"]);
    runtime.create(&bundle);
    unseen(&tracer, || runtime.start(&bundle));
    let pid = runtime.init_pid(&bundle).expect("it goes on");
    let added = tracer.wait_for("the container", |row| row["event"] == "added");
    assert_eq!(added["k8s"], bundle.k8s(), "in {added}");
    assert_eq!(added["container"]["source"], "bundle", "in {added}");
    assert_eq!(added["pid"], json!(pid), "in {added}");
}

/// The slots of runtimes that have ended are given back by the tracer: while it is stopped they can be used up. A
/// container that is started then is followed by nobody, and looked for as at the start once there is room.
fn unfollowed() {
    /// More than there are slots.
    const RUNTIMES: usize = 34_000;
    const AT_A_TIME: usize = 1_000;
    let (pod, tick) = (Pod::new("unfollowed", "app"), tick());
    let bundle = Bundle::script(&pod, &ticking(&tick));
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    let tracer = Tracer::open(&pod.namespace);
    tracer.pause();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..RUNTIMES.div_ceil(AT_A_TIME * cpus) {
        execute(AT_A_TIME, 1);
    }
    runtime.run_detached(&bundle);
    tracer.resume();
    let event = tracer.wait_open(&tick);
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
    tracer.wait_for("that runtimes were not followed", |event| event["lost"]["reason"] == "slots-full");
    stop(tracer);
}

fn listed() {
    let (pod, tick) = (Pod::new("listed", "app"), tick());
    let bundle = Bundle::script(&pod, &ticking(&tick));
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    let tracer = Tracer::start(&["list-containers", "-w", "-n", &pod.namespace, "-o", "json"]);
    unseen(&tracer, || runtime.run_detached(&bundle));
    let pid = runtime.init_pid(&bundle).expect("it goes on");
    let added = tracer.wait_for("the container", |row| row["event"] == "added");
    assert_eq!(added["k8s"], bundle.k8s(), "in {added}");
    assert_eq!(added["container"]["source"], "state", "in {added}");
    assert_eq!(added["pid"], json!(pid), "in {added}");
    unseen(&tracer, || runtime.delete(&bundle));
    let deleted = tracer.wait_for("its end", |row| row["event"] == "deleted");
    assert_eq!(deleted["k8s"], bundle.k8s(), "in {deleted}");
}
