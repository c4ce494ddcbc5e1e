//! What `kubectl tracer` has on each node: `tracer` in a container with exactly what `deploy/daemonset.yaml` grants, run
//! from afar and ended with whoever ran it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::agent::{Agent, Manifest};
use harness::need::{CONTAINERD, RUNC};
use harness::runtime::KnownRoot;
use harness::scratch::unique;
use harness::{Bundle, Launch, Pod, Runtime, Suite, Tracer, containerd, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn main() -> ExitCode {
    Suite::new()
        .test("another_containers_events_have_their_pod", RUNC, another_container)
        .test("a_container_that_runs_already", RUNC, running)
        .test("an_engine_is_asked_through_the_nodes_root", CONTAINERD, engine)
        .test("no_capability_but_the_documented_ones", RUNC, capabilities)
        .test("each_capability_that_is_missing_is_named", RUNC, missing_capability)
        .test("a_pid_namespace_of_its_own_is_named", RUNC, own_pid_namespace)
        .test("tracefs_is_the_nodes_without_a_mount", RUNC, tracefs)
        .test("the_agent_tells_what_the_node_allows_and_ends_by_signal", RUNC, idle)
        .test("a_lease_that_is_renewed_lasts", RUNC, renewed)
        .test("a_lease_ends_with_standard_input", RUNC, closed)
        .test("a_lease_ends_when_its_holder_says_so", RUNC, said)
        .test("a_lease_ends_when_its_holder_has_vanished", RUNC, silent)
        .run()
}

/// A pod in a namespace of its own, with a container that opens `mark`.
fn pod_that_opens(mark: &str) -> (Pod, Bundle) {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, &format!("true < {mark}"));
    (pod, bundle)
}

fn another_container() {
    let agent = Agent::start();
    let (pod, bundle) = pod_that_opens("/mark");
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json", "--node", "worker-1"];
    let tracer = agent.launch(&arguments).start();
    Runtime::runc().run(&bundle);
    let event = tracer.wait_open("/mark");
    bundle.assert_names(&event);
    assert_eq!(event["node"], "worker-1");
    tracer.stop().assert_nothing_dropped();
}

fn running() {
    let agent = Agent::start();
    let runtime = Runtime::runc();
    let _root = KnownRoot::new(&runtime);
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "read x < /go; true < /mark").with_fifo("/go");
    runtime.run_detached(&bundle);
    let tracer = agent.launch(&["trace", "open", "-n", &pod.namespace, "-o", "json"]).start();
    bundle.release("/go");
    let event = tracer.wait_open("/mark");
    assert_eq!(event["k8s"], bundle.k8s());
    assert_eq!(event["container"]["source"], "state");
    tracer.stop().assert_nothing_dropped();
}

fn engine() {
    let containerd = containerd::shared();
    let agent = Agent::start();
    let namespace = unique("t");
    let pod = containerd.pod(&namespace, "web");
    let socket = containerd.socket();
    let endpoint = socket.to_str().expect("UTF-8");
    let tracer = agent
        .launch(&[
            "trace",
            "open",
            "-n",
            &namespace,
            "-l",
            "app=web",
            "-o",
            "json",
            "--runtime-endpoint",
            endpoint,
        ])
        .start();
    let id = pod.container("app", &["/bin/sh", "-c", "true < /mark; sleep 1000"]);
    let event = tracer.wait_open("/mark");
    assert_eq!(event["container"]["id"], *id);
    assert_eq!(event["k8s"]["labels"]["app"], "web");
    tracer.stop();
}

/// Nothing of the node's is mounted there: where it has no tracefs, its agent starts all the same.
fn tracefs() {
    let has_it = |doctor: &str| {
        let line = doctor.lines().find(|line| line.contains("tracefs")).unwrap().to_owned();
        !line.contains("not mounted")
    };
    let here = Launch::new(&["doctor"]).output().stdout;
    let there = Agent::start().launch(&["doctor"]).output().stdout;
    assert_eq!(has_it(&there), has_it(&here), "{there}\n{here}");
}

/// A set of capabilities of a process, as `/proc/PID/status` has it.
fn capability_set(pid: u32, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{set}:"))).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// Numbers of capabilities (include/uapi/linux/capability.h).
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

fn capabilities() {
    assert_eq!(
        Manifest::of_node().capabilities(),
        ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
    );
    let agent = Agent::start();
    let pid = agent.pid().cast_unsigned();
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(capability_set(pid, set), BPF | PERFMON | SYS_PTRACE | DAC_READ_SEARCH, "{set}");
    }
    assert_eq!(capability_set(pid, "CapInh") | capability_set(pid, "CapAmb"), 0);
}

fn missing_capability() {
    for missing in ["BPF", "PERFMON", "SYS_PTRACE"] {
        let agent = Agent::of(&Manifest::of_node().edit(|spec| {
            let added = &mut spec["containers"][0]["securityContext"]["capabilities"]["add"];
            added.as_array_mut().unwrap().retain(|name| name != missing);
        }));
        let output = agent.launch(&["trace", "open", "--timeout", "1s"]).output();
        assert_eq!(output.status.code(), Some(3), "{missing}: {}", output.stderr);
        assert!(output.stderr.contains(&format!("lacks CAP_{missing} ")), "{missing}: {}", output.stderr);
    }
}

fn own_pid_namespace() {
    let agent = Agent::of(&Manifest::of_node().edit(|spec| spec["hostPID"] = json!(false)));
    let output = agent.launch(&["trace", "open", "--timeout", "1s"]).output();
    assert!(output.stderr.contains("hostPID"), "{}", output.stderr);
}

fn idle() {
    let agent = Agent::start();
    wait::until("the agent's report", || agent.stdout().contains("io_uring").then_some(()));
    let report = agent.stdout();
    assert!(report.lines().any(|line| line.starts_with("ok       capabilities")), "{report}");
    assert!(!report.contains("missing "), "{report}");
    kill_process(Pid::from_raw(agent.pid()).unwrap(), Signal::TERM).unwrap();
    agent.wait_stopped();
}

/// A tracer on a lease, that selects a pod of its own.
fn leased(pod: &Pod, term: &str) -> Tracer {
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json", "--lease", term];
    Launch::new(&arguments).keep_stdin().start()
}

fn renewed() {
    let (pod, bundle) = pod_that_opens("/mark");
    let mut tracer = leased(&pod, "3s");
    let (since, mut answers) = (Instant::now(), 0);
    while since.elapsed() < Duration::from_secs(4) {
        tracer.tell(b"\n");
        answers += 1;
        tracer.wait_logs("an answer", answers, |line| line == "tracer: alive");
    }
    Runtime::runc().run(&bundle);
    tracer.wait_open("/mark");
    tracer.tell(&[4]);
    let done = tracer.wait_end().assert_clean();
    assert_eq!(done.events().len(), 1);
}

fn closed() {
    let (pod, bundle) = pod_that_opens("/mark");
    let mut tracer = leased(&pod, "1h");
    Runtime::runc().run(&bundle);
    tracer.close_stdin();
    // What was there before is shown all the same.
    let done = tracer.wait_end().assert_clean();
    assert_eq!(done.events().len(), 1, "{}", done.log());
}

fn said() {
    let (pod, bundle) = pod_that_opens("/mark");
    let mut tracer = leased(&pod, "1h");
    Runtime::runc().run(&bundle);
    tracer.tell(b"\n\x04");
    let done = tracer.wait_end().assert_clean();
    assert_eq!(done.events().len(), 1, "{}", done.log());
    assert!(!done.log().contains("run out"), "{}", done.log());
}

fn silent() {
    let (pod, _bundle) = pod_that_opens("/mark");
    let tracer = leased(&pod, "1s");
    let done = tracer.wait_end().assert_clean();
    assert!(done.log().contains("the lease has run out"), "{}", done.log());
}
