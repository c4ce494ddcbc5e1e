//! The messages of `kubectl tracer` about nodes, agents and namespaces, and its completion, with a simulated API server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use harness::apiserver::{self, ApiServer, Options, Program};
use harness::need::{self, KUBECTL_RUNC, Need};
use harness::wait::{self, Output};
use harness::{Bundle, Finished, Launch, NOBODY, Pod, Runtime, Suite, scratch, tracer};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Requirements of tests in which scripts are the nodes.
const CLIENT: &[Need] = &[Need::KubectlTracer];
/// Requirements of tests in which agents run but nothing is traced.
const AGENTS: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::KubectlTracer];

/// Requirements of tests in which kubectl runs the plugin.
const KUBECTL: &[Need] = &[Need::KubectlTracer, Need::Kubectl];

const JOBS: &str = "/apis/batch/v1/namespaces/kube-system/jobs";
const IMAGE: &str = "registry.example/tracer:test";
/// A kubelet's message about a missing image.
const PULL: &str = "failed to pull and unpack image \"registry.example/tracer:test\": not found";

fn main() -> ExitCode {
    Suite::new()
        .test("refusing_node_is_not_ready", CLIENT, refused)
        .test("unpullable_image_fails_with_the_kubelets_message", CLIENT, no_image)
        .test("unscheduled_agent_is_reported", CLIENT, unscheduled)
        .test("ready_requires_one_node_that_traces", CLIENT, one_of_three)
        .test("interrupt_before_any_node_is_traced_fails", CLIENT, ended_early)
        .test("ephemeral_agent_without_image_does_not_delay_others", AGENTS, ephemeral_no_image)
        .test("ephemeral_agent_without_kubelet_does_not_delay_others", AGENTS, ephemeral_not_ready)
        .test("failure_of_all_ephemeral_agents_ends_the_run", CLIENT, ephemeral_all_fail)
        .test("ephemeral_list_waits_for_starting_agents", AGENTS, ephemeral_list)
        .test("agents_that_were_not_created_are_not_deleted", CLIENT, ephemeral_forbidden)
        .test("forbidden_watch_is_reported_once", CLIENT, watch_forbidden)
        .test("restarted_watch_is_not_reported", CLIENT, watch_expired)
        .test("gap_of_a_node_is_reported_once", CLIENT, gap)
        .test("connection_closed_by_the_engine_is_reported", CLIENT, engine_stops)
        .test("refusal_without_reason_names_the_verbs", CLIENT, refused_without_reason)
        .test("empty_list_has_kubectls_message", CLIENT, empty_list)
        .test("missing_namespace_is_reported", CLIENT, no_namespace)
        .test("unsupported_nodes_are_reported_once", CLIENT, unable)
        .test("no_ephemeral_agent_is_created_on_unsupported_nodes", AGENTS, ephemeral_unable)
        .test("missing_kubeconfig_is_reported_once", CLIENT, no_kubeconfig)
        .test("warnings_about_unselected_containers_are_not_shown", KUBECTL_RUNC, warnings_of_others)
        .test("names_from_the_server_are_completed", CLIENT, completion)
        .test("completion_does_not_wait_for_a_silent_server", CLIENT, completion_of_silence)
        .test("kubectl_completes_the_plugin", KUBECTL, completion_by_kubectl)
        .run()
}

/// `kubectl tracer` with these arguments, for this server.
fn kubectl(server: &ApiServer, arguments: &[&str]) -> Launch {
    Launch::kubectl(&server.kubeconfig(Some("demo")), arguments)
}

/// `trace open -A -o json`.
fn trace(server: &ApiServer, further: &[&str]) -> Launch {
    kubectl(server, &[&["trace", "open", "-A", "-o", "json"], further].concat())
}

fn well() -> Program {
    Program::script("", "0 0 0 0")
}

/// The status lines about a node.
fn of_node<'a>(log: &'a str, node: &str) -> Vec<&'a str> {
    let start = format!("tracer: node {node}: ");
    log.lines().filter_map(|line| line.strip_prefix(&start)).collect()
}

/// Fails unless it exited with 1, was never ready, and reported this about the node once.
#[track_caller]
fn assert_not_traced(output: &Output, node: &str, said: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(!output.stderr.contains("tracer: ready"), "{output:#?}");
    let lines = of_node(&output.stderr, node);
    assert!(matches!(lines[..], [line] if said.iter().all(|text| line.contains(text))), "{output:#?}");
}

/// Fails unless all lines are status lines.
#[track_caller]
fn assert_plain(done: &Finished) {
    assert!(done.stderr.iter().all(|line| line.starts_with("tracer: ")), "{}", done.log());
}

#[track_caller]
fn assert_once(log: &str, text: &str) {
    assert_eq!(log.lines().filter(|line| line.contains(text)).count(), 1, "{text}: {log}");
}

fn refused() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::Refused(403, "pods \"x\" is forbidden: no"));
    let output = trace(&server, &[]).output();
    assert_not_traced(&output, "n-1", &["pods \"x\" is forbidden: no"]);
    assert_once(&output.stderr, "tracer: the node cannot be traced; see above for the reasons");
}

fn no_image() {
    let server = ApiServer::start(Options::default());
    server.add_waiting_with("n-1", "ErrImagePull", "no such host");
    server.add_waiting_with("n-2", "CreateContainerConfigError", "secret \"x\" not found");
    let output = trace(&server, &[]).output();
    assert_not_traced(&output, "n-1", &["ErrImagePull: no such host", "(image tracer)"]);
    assert_not_traced(&output, "n-2", &["CreateContainerConfigError: secret \"x\" not found"]);
    assert_once(&output.stderr, "none of the 2 nodes can be traced; see above for the reasons");
    let output = kubectl(&server, &["list-containers"]).output();
    assert_not_traced(&output, "n-1", &["ErrImagePull: no such host"]);
    assert!(!output.stderr.contains("No resources"), "{output:#?}");
}

fn unscheduled() {
    let server = ApiServer::start(Options::default());
    server.add_unscheduled("n-1", "0/2 nodes are available: Insufficient memory.");
    server.add_unscheduled("n-2", "0/2 nodes are available: Insufficient memory.");
    for further in [&[][..], &["--node=n-1"], &["--node=n-1,n-2"]] {
        let output = trace(&server, further).output();
        let said = "is not scheduled: Unschedulable: 0/2 nodes are available: Insufficient";
        assert_not_traced(&output, "n-1", &[said]);
    }
}

fn one_of_three() {
    let server = ApiServer::start(Options::default());
    server.add("well", well());
    server.add("refused", Program::Refused(403, "forbidden: no"));
    server.add_waiting_with("waiting", "ImagePullBackOff", PULL);
    let done = trace(&server, &[]).start().stop();
    let ready = done.stderr.iter().position(|line| line.starts_with("tracer: ready (")).unwrap();
    for (node, said) in [("refused", "forbidden: no"), ("waiting", PULL)] {
        assert!(matches!(of_node(&done.log(), node)[..], [line] if line.contains(said)), "{}", done.log());
        assert!(done.stderr[..ready].iter().any(|line| line.contains(said)), "{}", done.log());
    }
    assert_plain(&done);
}

fn ended_early() {
    let server = ApiServer::start(Options::default());
    server.add_waiting("n-1", "ContainerCreating");
    server.add("n-2", Program::Refused(500, "container not found"));
    let client = trace(&server, &[]).begin();
    client.wait_log("the problem of n-2", |line| line.contains("container not found"));
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(1), "{}", done.log());
    assert_once(&done.log(), "interrupted before any node was traced");
}

/// `trace open --ephemeral`, not yet ready.
fn ephemeral(server: &ApiServer) -> Launch {
    trace(server, &["--ephemeral", "--image", IMAGE])
}

fn ephemeral_no_image() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.run_instead("n-1", well());
    server.run_instead("n-2", well());
    server.hold_with("n-2", "ErrImagePull", PULL);
    let client = ephemeral(&server).start();
    client.wait_log("the reason of n-2", |line| line.contains("n-2") && line.contains(PULL));
    server.let_run("n-2");
    client.wait_log("that n-2 is traced", |line| line == "tracer: node n-2: traced now");
    let done = client.stop();
    assert_eq!(of_node(&done.log(), "n-2").len(), 2, "{}", done.log());
    assert_plain(&done);
}

fn ephemeral_not_ready() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let conditions = json!([{
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    }]);
    server.put("/api/v1/nodes/n-2", json!({"status": {"conditions": conditions}}));
    server.run_instead("n-1", well());
    server.hold_silent("n-2");
    let done = ephemeral(&server).start().stop();
    let said = "the node is not ready (NodeStatusUnknown: Kubelet stopped posting node status.)";
    assert_eq!(of_node(&done.log(), "n-2"), [said], "{}", done.log());
    wait::until("nothing is stored", || server.paths().is_empty().then_some(()));
}

fn ephemeral_all_fail() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.hold_with("n-1", "ErrImagePull", PULL);
    server.hold_with("n-2", "ErrImagePull", PULL);
    let output = ephemeral(&server).output();
    assert_not_traced(&output, "n-1", &[PULL]);
    assert_not_traced(&output, "n-2", &[PULL]);
    assert_eq!(server.paths(), [""; 0]);
}

fn ephemeral_list() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    for node in ["n-1", "n-2"] {
        server.run_instead(node, Program::Script(String::new()));
    }
    server.hold("n-2", "ContainerCreating");
    let client = kubectl(&server, &["list-containers", "-A", "--ephemeral", "--image", IMAGE]).begin();
    wait::until("n-1 is asked", || (server.executed().len() == 1).then_some(()));
    server.let_run("n-2");
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.log());
    assert_eq!(server.executed().len(), 2);
    assert_eq!(done.stderr, ["No resources found"]);
}

fn ephemeral_forbidden() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.forbid("POST", "/jobs");
    server.forbid("DELETE", "/jobs");
    let output = ephemeral(&server).output();
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(!output.stderr.contains("delete"), "{output:#?}");
    assert_once(&output.stderr, "cannot create an agent for node n-1: jobs is forbidden");
}

fn watch_forbidden() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", well());
    let client = trace(&server, &[]).start();
    server.forbid("GET", "/pods");
    server.cut_watches(Some((410, "too old resource version: 1 (2)")));
    client.wait_log("that it is not seen", |line| {
        line.starts_with("tracer: cannot watch the agents: pods is forbidden: ")
            && line.ends_with("; retrying")
    });
    let done = client.stop();
    assert_plain(&done);
    assert_once(&done.log(), "is forbidden");
}

fn watch_expired() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", well());
    let client = trace(&server, &[]).start();
    server.cut_watches(Some((410, "too old resource version: 1 (2)")));
    server.add("n-2", well());
    wait::until("n-2 is asked", || (server.executed().len() == 2).then_some(()));
    server.cut_watches(None);
    server.add("n-3", well());
    wait::until("n-3 is asked", || (server.executed().len() == 3).then_some(()));
    let done = client.stop();
    let log = done.log();
    assert!(!log.contains("too old") && !log.contains("watch"), "{log}");
    assert_plain(&done);
}

fn gap() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", well());
    server.add("n-2", well());
    let client = trace(&server, &[]).start();
    server.restart("n-1", well());
    let is_back = |line: &str| line.starts_with("tracer: node n-1: traced again after a gap of ");
    client.wait_log("that it is back", is_back);
    let done = client.stop();
    assert_eq!(done.stderr.iter().filter(|line| is_back(line)).count(), 1, "{}", done.log());
    assert_eq!(of_node(&done.log(), "n-2").len(), 0, "{}", done.log());
}

fn engine_stops() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::Script("ready\nhead -c 1 >/dev/null".into()));
    let client = trace(&server, &[]).start();
    client.wait_log("that it was closed", |line| {
        line.starts_with("tracer: node n-1: the connection to its tracer was closed: the container engine")
    });
    client.signal(Signal::INT);
    assert_eq!(client.wait_end().status.code(), Some(0));
}

fn refused_without_reason() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::Refused(403, "pods \"tracer-1\" is forbidden: "));
    let output = trace(&server, &[]).output();
    assert_not_traced(&output, "n-1", &["\"tracer-1\" is forbidden: the verbs get and create on pods/exec"]);
}

/// A server with a node that lists nothing.
fn empty() -> ApiServer {
    let server = ApiServer::start(Options::default());
    server.put("/api/v1/namespaces/demo", json!({}));
    server.add("n-1", Program::Script(String::new()));
    server
}

fn empty_list() {
    let server = empty();
    for (arguments, said) in [
        (&[][..], "No resources found in demo namespace.\n"),
        (&["-n", "default"], "No resources found in default namespace.\n"),
        (&["-A"], "No resources found\n"),
        (&["-o", "json"], ""),
        (&["-o", "kyaml"], ""),
    ] {
        let output = kubectl(&server, &[&["list-containers"], arguments].concat()).output().success();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", said), "{arguments:?}");
    }
}

fn no_namespace() {
    let server = empty();
    let output = kubectl(&server, &["list-containers", "-n", "nope"]).output().success();
    let expected = "tracer: namespace \"nope\" does not exist\nNo resources found in nope namespace.\n";
    assert_eq!(output.stderr, expected);
    server.add("n-2", well());
    let client =
        kubectl(&server, &["trace", "open", "-n", "demo,nope,!not", "-o", "json", "--node=n-2"]).start();
    let done = client.stop();
    assert_once(&done.log(), "does not exist");
    assert_plain(&done);
    // Without the right to get the namespace there is no message.
    server.forbid("GET", "/namespaces/nope");
    let output = kubectl(&server, &["list-containers", "-n", "nope", "--node=n-1"]).output().success();
    assert_eq!(output.stderr, "No resources found in nope namespace.\n");
}

/// Nodes of these names on which no agent can run.
fn add_unable(server: &ApiServer) {
    for (name, key, value) in [
        ("fargate-1", "eks.amazonaws.com/compute-type", "fargate"),
        ("fargate-2", "eks.amazonaws.com/compute-type", "fargate"),
        ("kubelet-1", "type", "virtual-kubelet"),
        ("windows-1", "kubernetes.io/os", "windows"),
    ] {
        server.put(&format!("/api/v1/nodes/{name}"), json!({"metadata": {"labels": {key: value}}}));
    }
}

const UNABLE: &str = "tracer: 4 nodes run no agent: fargate-1, fargate-2 (Fargate); windows-1 (Windows); \
                      kubelet-1 (virtual kubelet)";

fn unable() {
    let server = ApiServer::with_nodes(&["n-1"]);
    add_unable(&server);
    server.add("n-1", well());
    let done = trace(&server, &[]).start().stop();
    assert_once(&done.log(), UNABLE);
    let done = trace(&server, &["--node=n-1,fargate-1"]).start().stop();
    assert_once(&done.log(), "tracer: 1 node runs no agent: fargate-1 (Fargate)");
    assert!(!done.log().contains("no agent: the node"), "{}", done.log());
    // It takes no right to see nodes.
    server.forbid("GET", "/nodes");
    let done = trace(&server, &[]).start().stop();
    assert!(!done.log().contains("fargate"), "{}", done.log());
    assert_plain(&done);
}

fn ephemeral_unable() {
    let server = ApiServer::with_nodes(&["n-1"]);
    add_unable(&server);
    server.run_instead("n-1", well());
    let done = ephemeral(&server).start().stop();
    assert_once(&done.log(), UNABLE);
    let asked = server.asked();
    let jobs = asked.iter().filter(|asked| asked.method == "POST" && asked.path == JOBS);
    let nodes: Vec<&Value> = jobs.map(|job| &job.body["spec"]["template"]["spec"]["nodeName"]).collect();
    assert_eq!(nodes, ["n-1"]);
    let output = trace(&server, &["--ephemeral", "--image", IMAGE, "--node=windows-1,nope"]).output();
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert_once(&output.stderr, "tracer: node nope: the node does not exist");
    assert_once(&output.stderr, "tracer: 1 node runs no agent: windows-1 (Windows)");
}

fn no_kubeconfig() {
    let dir = scratch::Dir::new("kubeconfig");
    let path = dir.path().join("config");
    let output = Launch::kubectl(&path, &["trace", "open"]).output();
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert_eq!(output.stderr.matches("os error 2").count(), 1, "{output:#?}");
    // A file that is none.
    fs::create_dir(&path).unwrap();
    let output = Launch::kubectl(Path::new(&path), &["trace", "open"]).output();
    assert_eq!(output.stderr.matches("os error 21").count(), 1, "{output:#?}");
}

/// An untrusted process claims to start a container that belongs to no pod.
fn warnings_of_others() {
    let server = ApiServer::with_tracers(Options::default(), &["n-1"]);
    let (selected, id) = (Pod::new("web-0", "app"), scratch::unique("claimed"));
    let all = trace(&server, &[]).start();
    let some = kubectl(&server, &["trace", "open", "-n", &selected.namespace, "-o", "json"]).start();
    let dir = scratch::Dir::new("user");
    let runc = dir.path().join("runc");
    fs::copy(need::find("busybox").unwrap(), &runc).unwrap();
    let mut claim = Command::new(&runc);
    wait::output(claim.args(["create", "--bundle", "/nowhere", &id]).uid(NOBODY).gid(NOBODY), wait::LIMIT);
    all.wait_log("the warning", |line| line.contains("is not trusted") && line.contains(&id));
    // Events are in order, so the warning would have been shown by now.
    Runtime::runc().run(&Bundle::script(&selected, "cat /end-of-it"));
    some.wait_open("/end-of-it");
    let log = some.stop().log();
    assert!(!log.contains(&id), "{log}");
    all.signal(Signal::INT);
    all.wait_end();
}

/// What is printed to complete these words: the candidates, and the directive.
fn completed(kubeconfig: &Path, words: &[&str]) -> (Vec<String>, String) {
    let kubeconfig = format!("KUBECONFIG={}", kubeconfig.display());
    let launch = Launch::new(&[&["__complete"], words].concat()).binary(tracer::kubectl_binary());
    let output = launch.wrapper(&["env", &kubeconfig]).output().success();
    assert_eq!(output.stderr, "");
    let mut lines: Vec<String> =
        output.stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
    let directive = lines.pop().unwrap();
    (lines, directive)
}

/// A server with something of everything that is completed.
fn populated() -> ApiServer {
    let server = ApiServer::with_nodes(&["worker-1", "worker-2"]);
    for namespace in ["demo", "demo-2", "other"] {
        server.put(&format!("/api/v1/namespaces/{namespace}"), json!({}));
    }
    for (namespace, pod, container, label) in [
        ("demo", "web-0", "nginx", "app"),
        ("demo", "db-0", "postgres", "app.kubernetes.io/name"),
        ("other", "x", "y", "z"),
    ] {
        let object = json!({
            "metadata": {"labels": {label: "v"}},
            "spec": {"containers": [{"name": container}], "initContainers": [{"name": format!("init-{container}")}]},
        });
        server.put(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"), object);
    }
    server.warn("GET", "/namespaces", "nobody is to see that");
    server
}

fn completion() {
    let server = populated();
    let kubeconfig = server.kubeconfig(Some("demo"));
    for (words, expected) in [
        (&["trace", "open", "-n", "de"][..], &["default", "demo", "demo-2"][..]),
        (&["trace", "open", "--namespace=oth"], &["--namespace=other"]),
        (&["trace", "open", "-n", "demo,!oth"], &["demo,!other"]),
        (&["undeploy", "--tracer-namespace", "o"], &["other"]),
        (&["list-containers", "-p", ""], &["db-0", "web-0"]),
        (&["list-containers", "-n", "other", "-p", ""], &["x"]),
        (&["trace", "open", "-A", "-p", ""], &["db-0", "web-0", "x"]),
        (&["trace", "open", "-c", ""], &["init-nginx", "init-postgres", "nginx", "postgres"]),
        (&["trace", "open", "-p", "web-0", "-c", ""], &["init-nginx", "nginx"]),
        (&["trace", "open", "-l", "app"], &["app", "app.kubernetes.io/name"]),
        (&["doctor", "--node", "worker-1,w"], &["worker-1,worker-1", "worker-1,worker-2"]),
        (&["doctor", "--context", ""], &["test"]),
        (&["doctor", "--user", "t"], &["test"]),
        (&["trace", "ex"], &["exec", "exit"]),
    ] {
        let (found, directive) = completed(&kubeconfig, words);
        assert_eq!(
            (found.iter().map(String::as_str).collect::<Vec<_>>(), directive.as_str()),
            (expected.to_vec(), ":4"),
            "{words:?}"
        );
    }
    // What may not be asked is not completed.
    server.forbid("GET", "/namespaces");
    assert_eq!(completed(&kubeconfig, &["trace", "open", "-n", ""]), (vec![], ":4".to_owned()));
}

fn completion_of_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = scratch::Dir::new("kubeconfig");
    let path = dir.path().join("config");
    fs::write(&path, apiserver::kubeconfig(&format!("http://{}", listener.local_addr().unwrap()), None))
        .unwrap();
    let begun = Instant::now();
    assert_eq!(completed(&path, &["trace", "open", "-n", ""]), (vec![], ":4".to_owned()));
    assert!(begun.elapsed() < wait::stretched(Duration::from_secs(10)));
}

/// kubectl finds the program for that on the `PATH`, and that one the plugin.
fn completion_by_kubectl() {
    let server = populated();
    let dir = scratch::Dir::new("bin");
    symlink(tracer::kubectl_binary(), dir.path().join("kubectl-tracer")).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubectl_complete-tracer");
    symlink(deploy, dir.path().join("kubectl_complete-tracer")).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut kubectl = Command::new(need::find("kubectl").unwrap());
    kubectl.env("PATH", path).env("KUBECONFIG", server.kubeconfig(Some("demo")));
    let output =
        wait::output(kubectl.args(["__complete", "tracer", "trace", "open", "-n", "dem"]), wait::LIMIT);
    assert_eq!(output.success().stdout, "demo\ndemo-2\n:4\n");
}
