//! The agent on each node: `tracer` in a container with exactly the permissions of `deploy/daemonset.yaml`, run remotely and
//! stopped when the client exits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::agent::{Agent, Manifest};
use harness::need::{CONTAINERD, RUNC};
use harness::runtime::KnownRoot;
use harness::scratch::{self, unique};
use harness::{Bundle, Launch, Pod, Runtime, Suite, Tracer, containerd, need, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn main() -> ExitCode {
    Suite::new()
        .test("agent_attributes_events_of_other_containers", RUNC, another_container)
        .test("agent_attributes_events_of_running_containers", RUNC, running)
        .test("engine_is_queried_through_the_nodes_root", CONTAINERD, engine)
        .test("seccomp_profile_permits_tracing", RUNC, seccomp)
        .test("engine_is_queried_under_the_seccomp_profile", CONTAINERD, engine_under_seccomp)
        .test("other_commands_in_the_agent_have_no_capability", RUNC, others_have_none)
        .test("misuse_of_the_agents_capabilities_is_refused", RUNC, misuse)
        .test("pod_of_containerd_has_the_same_capabilities", CONTAINERD, of_containerd)
        .test("agent_has_only_the_documented_capabilities", RUNC, capabilities)
        .test("missing_capabilities_are_named", RUNC, missing_capability)
        .test("separate_pid_namespace_is_reported", RUNC, own_pid_namespace)
        .test("tracefs_of_the_node_needs_no_mount", RUNC, tracefs)
        .test("agent_reports_the_node_and_stops_on_a_signal", RUNC, idle)
        .test("renewed_lease_does_not_expire", RUNC, renewed)
        .test("closed_stdin_ends_the_lease", RUNC, closed)
        .test("end_of_transmission_ends_the_lease", RUNC, said)
        .test("silent_client_lets_the_lease_expire", RUNC, silent)
        .run()
}

/// A pod in a separate namespace, with a container that opens `mark`.
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

/// With the profile of `deploy/seccomp/`, as `--seccomp-profile localhost/tracer.json` has it.
fn under_seccomp() -> Manifest {
    Manifest::of_node().edit(|spec| {
        spec["containers"][0]["securityContext"]["seccompProfile"] =
            json!({"type": "Localhost", "localhostProfile": "tracer.json"});
    })
}

fn seccomp() {
    let agent = Agent::of(&under_seccomp());
    agent.smuggle(&need::find("busybox").unwrap(), "/busybox");
    let status = agent.run(&["/busybox", "cat", "/proc/self/status"]).success().stdout;
    assert!(status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])), "{status}");
    for words in [&["/busybox", "mkdir", "/dev/shm/x"][..], &["/busybox", "chroot", "/", "/busybox"]] {
        let output = agent.run(words);
        assert!(output.stderr.contains("not permitted"), "{words:?}: {output:?}");
    }
    let report = agent.run(&["/tracer", "doctor"]).success().stdout;
    assert!(!report.contains("missing "), "{report}");
    let (pod, bundle) = pod_that_opens("/mark");
    let open = agent.launch(&["trace", "open", "-n", &pod.namespace, "-o", "json"]).start();
    let exec = agent
        .launch(&["trace", "exec", "-n", &pod.namespace, "-o", "json", "--lease", "1h"])
        .keep_stdin()
        .start();
    let list = agent.launch(&["list-containers", "-w", "-n", &pod.namespace, "-o", "json"]).start();
    Runtime::runc().run(&bundle);
    bundle.assert_names(&open.wait_open("/mark"));
    bundle.assert_names(&exec.wait_for("its entrypoint", |event| event["event"] == "exec"));
    list.wait_for("its end", |record| {
        record["event"] == "deleted" && record["container"]["id"] == *bundle.id
    });
    for tracer in [open, exec, list] {
        tracer.signal(Signal::TERM);
        assert_eq!(tracer.wait_end().status.code(), Some(0));
    }
}

fn engine() {
    asks_engine(&Manifest::of_node());
}

fn engine_under_seccomp() {
    asks_engine(&under_seccomp());
}

fn asks_engine(manifest: &Manifest) {
    let containerd = containerd::shared();
    let agent = Agent::of(manifest);
    agent.set("runtime-endpoint", containerd.socket().to_str().expect("UTF-8"));
    let namespace = unique("t");
    let pod = containerd.pod(&namespace, "web");
    let tracer = agent.launch(&["trace", "open", "-n", &namespace, "-l", "app=web", "-o", "json"]).start();
    let id = pod.container("app", &["/bin/sh", "-c", "true < /mark; sleep 1000"]);
    let event = tracer.wait_open("/mark");
    assert_eq!(event["container"]["id"], *id);
    assert_eq!(event["k8s"]["labels"]["app"], "web");
    tracer.stop();
}

/// Nothing of the node is mounted in the agent: it also starts on a node without tracefs.
fn tracefs() {
    let has_it = |doctor: &str| {
        let line = doctor.lines().find(|line| line.contains("tracefs")).unwrap().to_owned();
        !line.contains("not mounted")
    };
    let here = Launch::new(&["doctor"]).output().stdout;
    let there = Agent::start().launch(&["doctor"]).output().stdout;
    assert_eq!(has_it(&there), has_it(&here), "{there}\n{here}");
}

/// A set of capabilities of a process, from `/proc/PID/status`.
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

/// A path below `/proc/PID` of a process on the node: the test's own, since process 1 may be protected.
fn of_node(path: &str) -> String {
    format!("/proc/{}{path}", std::process::id())
}

/// A user who can execute commands in an agent's pod can run tracer, and has no further permissions. A runtime resolves the
/// path of a command with the container's capabilities, so that programs of the node can be run; they have no capabilities.
fn others_have_none() {
    let agent = Agent::start();
    agent.smuggle(&need::find("busybox").unwrap(), "/busybox");
    let below = of_node("/root/bin/busybox");
    for busybox in ["/busybox", &below] {
        let status = agent.run(&[busybox, "cat", "/proc/self/status"]).success().stdout;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(u64::from_str_radix(field(set), 16), Ok(0), "{set} {status}");
        }
        assert!(field("Uid:").split_whitespace().all(|uid| uid != "0"), "{status}");
        for words in [
            &["ls", &of_node("/root/")][..],
            &["cat", &of_node("/root/etc/shadow")],
            &["cat", &of_node("/environ")],
            &["cat", &format!("/proc/{}/maps", agent.pid())],
            &["kill", "-9", &std::process::id().to_string()],
            &["mount", "-t", "tmpfs", "none", "/proc"],
        ] {
            let output = agent.run(&[&[busybox], words].concat());
            assert!(!output.status.success(), "{words:?}: {output:?}");
            let said = output.stderr.to_lowercase();
            assert!(said.contains("denied") || said.contains("not permitted"), "{words:?}: {output:?}");
        }
    }
    // A set-uid program of the node does not make its user root.
    let copy = scratch::Dir::new("setuid");
    let program = copy.path().join("busybox");
    fs::copy(need::find("busybox").unwrap(), &program).unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let output = agent.run(&[&of_node(&format!("/root{}", program.display())), "cat", "/proc/self/status"]);
    let is_root = output.stdout.lines().any(|line| line.starts_with("Uid:") && line.contains("\t0\t"));
    assert!(!is_root, "{output:?}");
}

/// A pod as an engine creates it from the image and a kubelet's request: the file capabilities are in a layer of the image,
/// and other commands that the engine executes have none.
fn of_containerd() {
    const AGENT: &str = "localhost/tracer-agent:1";
    let manifest = Manifest::of_node();
    let bundle = manifest.bundle();
    fs::copy(need::find("busybox").unwrap(), bundle.inside(Path::new("/busybox"))).unwrap();
    let containerd = containerd::shared();
    containerd.add_image(AGENT, &bundle.inside(Path::new("/")));
    let pod = containerd.pod(&unique("t"), "tracer");
    let id = pod.container_of(AGENT, manifest.container());
    let (_, report) = pod.exec(&id, &["/tracer", "doctor"]);
    assert!(report.lines().any(|line| line.starts_with("ok       capabilities")), "{report}");
    let (code, output) = pod.exec(&id, &["/tracer", "trace", "open", "--timeout", "1ms", "-o", "json"]);
    assert_eq!(code, 0, "{output}");
    let (_, status) = pod.exec(&id, &["/busybox", "grep", "Cap", "/proc/self/status"]);
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
    let (code, listed) = pod.exec(&id, &["/busybox", "ls", "/proc/1/root/"]);
    assert!(code != 0 && listed.is_empty(), "{listed}");
}

fn misuse() {
    let agent = Agent::start();
    let (root, shadow, environment) =
        (of_node("/root/tmp"), of_node("/root/etc/shadow"), of_node("/environ"));
    for (words, said) in [
        (&["man", &root][..], "refused"),
        (&["trace", "open", "--runtime-root", &root], "refused"),
        (&["list-containers", "--runtime-endpoint=/run/docker.sock"], "refused"),
        (&["list-containers", "--runtime-events"], "refused"),
        (&["list-containers", "--trust-rootless"], "refused"),
        // The internal command by which tracer reads untrusted files. Standard input is no directory.
        (&["read-for-tracer", "0", "etc/shadow"], ""),
        (&["read-for-tracer", "0", &shadow], ""),
        (&["read-for-tracer", "process", &shadow], ""),
        (&["read-for-tracer", "process", &environment], ""),
        (&["read-for-tracer", "list", &root], ""),
    ] {
        let output = agent.run(&[&["/tracer"], words].concat());
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}: {output:?}");
        assert!(output.stderr.contains(said), "{words:?}: {output:?}");
    }
    // Another program in the agent can pass descriptors and an environment.
    agent.smuggle(&need::find("busybox").unwrap(), "/busybox");
    let shell = |script: &str| agent.run(&["/busybox", "sh", "-c", script]);
    for job in ["process environ", "0 environ", "list fd", "has root"] {
        let output = shell(&format!("exec /tracer read-for-tracer {job} < {}", of_node("")));
        assert!(!output.status.success() && output.stdout.is_empty(), "{job}: {output:?}");
    }
    let output = shell("RUST_LOG=trace exec /tracer list-containers -n none --runtime-endpoint none");
    // No word of a log.
    let said: Vec<&str> = output.stderr.lines().collect();
    assert!(
        matches!(said[..], [nothing] if nothing.starts_with("tracer: nothing matches -n none; ")),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

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
    for missing in ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"] {
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

/// A tracer with a lease that selects a pod.
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
    // Events from before are still emitted.
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
    assert!(done.log().contains("the lease has expired"), "{}", done.log());
}
