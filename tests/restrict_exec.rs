//! `kubectl tracer deploy --restrict-exec`: the policy by which an API server lets nothing be executed in the agents' pods but
//! tracer. Its expressions are evaluated here as they stand in `deploy/restrict-exec/`, by an interpreter of CEL that is not
//! Kubernetes' own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use harness::admission::{self, PodRequest};
use harness::apiserver::{ApiServer, Options, Program};
use harness::envtest::{self, Cluster};
use harness::need::Need;
use harness::wait::{self, Output};
use harness::{Launch, Suite};
use serde_json::{Value, json};

const CLIENT: &[Need] = &[Need::KubectlTracer];
const KUSTOMIZE: &[Need] = &[Need::KubectlTracer, Need::Kubectl];
const REAL: &[Need] = &[Need::KubectlTracer, Need::Kubectl, Need::RealApiServer];
/// Policy and binding, of the namespace `tracer`.
const POLICY: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/tracer-restrict-exec";
const BINDING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tracer-restrict-exec";
const AGENTS: &str = "/apis/apps/v1/namespaces/tracer/daemonsets/tracer";
const IMAGE: &str = "--image=registry.example/tracer:test";

fn main() -> ExitCode {
    Suite::new()
        .test("exec_of_tracer_is_admitted", CLIENT, admitted)
        .test("exec_of_anything_else_is_denied", CLIENT, refused)
        .test("options_that_reach_the_node_are_denied", CLIENT, options)
        .test("other_pod_subresources_are_denied", CLIENT, others)
        .test("other_namespaces_are_not_affected", CLIENT, elsewhere)
        .test("everything_that_kubectl_tracer_executes_is_admitted", CLIENT, client)
        .test("policy_is_created_before_the_agents_and_deleted_by_undeploy", CLIENT, deploy)
        .test("foreign_namespace_is_not_restricted", CLIENT, foreign)
        .test("cluster_without_policies_is_reported", CLIENT, old)
        .test("kustomize_builds_the_same_objects", KUSTOMIZE, kustomize)
        .test("real_api_server_accepts_the_policy_or_is_reported_as_too_old", REAL, real)
        .run()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn objects() -> [Value; 2] {
    ["policy.yaml", "binding.yaml"].map(|name| {
        let text = fs::read_to_string(directory().join("restrict-exec").join(name)).unwrap();
        serde_yaml_ng::from_str(&text).unwrap()
    })
}

/// Why the policy denies this request.
fn denial(request: &PodRequest<'_>) -> Option<String> {
    let [policy, binding] = objects();
    admission::denial(&[policy], &[binding], request)
}

fn denial_of(words: &[&str]) -> Option<String> {
    denial(&PodRequest::exec("tracer", words))
}

fn admitted() {
    for words in [
        &["/tracer", "trace", "open", "--output=json", "--lease=10s", "--namespace=a,!b", "--node=n-1"][..],
        &[
            "/tracer",
            "trace",
            "exec",
            "--host",
            "--failed",
            "--selector=app in (a, b)",
            "--verbose",
            "--verbose",
        ],
        &["/tracer", "trace", "open,exec,exit", "--output=frames=1", "--lease=10s"],
        &["/tracer", "trace", "exit", "--namespace=a"],
        &["/tracer", "list-containers", "--watch", "--quiet", "--runtime-endpoint=none"],
        &["/tracer", "doctor"],
    ] {
        assert_eq!(denial_of(words), None, "{words:?}");
    }
}

fn refused() {
    for words in [
        &[][..],
        &["/tracer"],
        &["sh"],
        &["/proc/1/root/bin/sh", "-c", "id"],
        &["/proc/self/root/tracer", "trace", "open"],
        &["tracer", "doctor"],
        &["/tracer", "agent"],
        &["/tracer", "man", "/proc/1/root/tmp"],
        &["/tracer", "completions", "bash"],
        &["/tracer", "read-for-tracer", "process", "/proc/1/root/etc/shadow"],
        &["/tracer", "--verbose", "trace", "open"],
        &["/proc/1/root/bin/sh", "trace"],
    ] {
        let denied = denial_of(words);
        assert!(
            denied.as_ref().is_some_and(|why| why.contains("only /tracer trace")),
            "{words:?}: {denied:?}"
        );
    }
}

fn options() {
    for option in [
        "--runtime-root=/proc/1/root/root",
        "--runtime-root",
        "/proc/1/root/root",
        "--runtime-endpoint=/run/docker.sock",
        "--runtime-endpoint=unix:///run/containerd/containerd.sock",
        "--runtime-endpoint=none\n",
        "--runtime-events",
        "--trust-rootless",
        "--node=a\n--runtime-events",
        "-v",
        "open,/proc/1/root/root",
        "open,",
        "",
    ] {
        let denied = denial_of(&["/tracer", "trace", "open", option]);
        assert!(denied.as_ref().is_some_and(|why| why.contains("an option")), "{option:?}: {denied:?}");
    }
}

fn others() {
    let of =
        |subresource, operation, object| PodRequest { namespace: "tracer", subresource, operation, object };
    for request in [
        of("attach", "CONNECT", json!({"stdin": true, "container": "tracer"})),
        of("portforward", "CONNECT", json!({"ports": [80]})),
        of("proxy", "CONNECT", json!({"path": "/"})),
        of(
            "ephemeralcontainers",
            "UPDATE",
            json!({"kind": "Pod", "spec": {"ephemeralContainers": [{"name": "x"}]}}),
        ),
    ] {
        let denied = denial(&request);
        assert!(denied.as_ref().is_some_and(|why| why.contains("not permitted")), "{request:?}: {denied:?}");
    }
    let exec = |change: fn(&mut Value)| {
        let mut request = PodRequest::exec("tracer", &["/tracer", "doctor"]);
        change(&mut request.object);
        denial(&request)
    };
    assert_eq!(exec(|_| {}), None);
    assert_eq!(exec(|object| drop(object.as_object_mut().unwrap().remove("container"))), None);
    let changes: [fn(&mut Value); 2] =
        [|object| object["tty"] = json!(true), |object| object["container"] = json!("debugger")];
    for change in changes {
        assert!(exec(change).is_some_and(|why| why.contains("one container")));
    }
}

fn elsewhere() {
    assert_eq!(denial(&PodRequest::exec("default", &["sh"])), None);
    let attach =
        PodRequest { namespace: "default", subresource: "attach", operation: "CONNECT", object: json!({}) };
    assert_eq!(denial(&attach), None);
}

fn run(server: &ApiServer, arguments: &[&str]) -> Output {
    Launch::kubectl(&server.kubeconfig(None), arguments).output()
}

/// A server with the policy and an agent that exits immediately.
fn restricted() -> ApiServer {
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::Script("ready; closing 0 0 0 0".into()));
    let [policy, binding] = objects();
    server.put(POLICY, policy);
    server.put(BINDING, binding);
    server
}

fn client() {
    let server = restricted();
    for arguments in [
        &["trace", "open", "--host", "--failed", "--pid=1", "--uid=0", "--comm=sh", "--buffer-size=1MiB"][..],
        &["trace", "exec", "-A", "-n", "a,!b", "-p", "web-0", "-c", "!x", "-l", "app in (a),!b", "-vv"],
        &["trace", "open", "-q", "--hook=sys-exit", "--runtime-name=r", "--runtime-endpoint=none"],
        &["list-containers", "-w", "-o", "wide"],
        &["list-containers"],
        &["doctor"],
    ] {
        let before = server.executed().len();
        let output =
            run(&server, &[arguments, &["--timeout=2s"][..usize::from(arguments[0] != "doctor")]].concat());
        assert!(!output.stderr.contains("denied request"), "{arguments:?}: {output:#?}");
        assert!(server.executed().len() > before, "{arguments:?}: {output:#?}");
    }
    // What it would not let through.
    let output = run(&server, &["list-containers", "--runtime-root=/x"]);
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(output.stderr.contains("an option is not among those"), "{output:#?}");
}

fn deploy() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let output = run(&server, &["deploy", IMAGE, "--restrict-exec"]).success();
    let done: Vec<&str> = output.stdout.lines().collect();
    let name = "admissionregistration.k8s.io/tracer-restrict-exec";
    assert_eq!(
        done[3..],
        [
            format!("validatingadmissionpolicy.{name} serverside-applied"),
            format!("validatingadmissionpolicybinding.{name} serverside-applied"),
        ]
    );
    let asked: Vec<String> = server.asked().iter().map(|asked| asked.path.clone()).collect();
    let place = |path: &str| asked.iter().position(|asked| asked == path).unwrap();
    assert!(place(POLICY) < place(BINDING) && place(BINDING) < place(AGENTS), "{asked:?}");
    let bodies: Vec<Value> = server
        .asked()
        .iter()
        .filter(|asked| [POLICY, BINDING].contains(&asked.path.as_str()))
        .map(|asked| asked.body.clone())
        .collect();
    assert_eq!(bodies, objects());

    // Asked once more it changes nothing, and a dry run of the server's is asked about all five.
    let version = server.version();
    let dry = run(&server, &["deploy", IMAGE, "--restrict-exec", "--dry-run=server"]).success();
    assert_eq!(dry.stdout.lines().filter(|line| line.ends_with("(server dry run)")).count(), 5, "{dry:#?}");
    run(&server, &["deploy", IMAGE, "--restrict-exec"]).success();
    assert_eq!(server.version(), version);

    let before = server.asked().len();
    run(&server, &["undeploy"]).success();
    let deleted: Vec<String> = server.asked()[before..].iter().map(|asked| asked.path.clone()).collect();
    assert!(deleted.contains(&POLICY.to_owned()) && deleted.contains(&BINDING.to_owned()), "{deleted:?}");
    assert_eq!(server.paths(), [""; 0]);

    // Without the option there is no policy, and a foreign one is kept.
    run(&server, &["deploy", IMAGE]).success();
    assert!(server.object(POLICY).is_none());
    server.put(POLICY, json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "other"}}}));
    run(&server, &["undeploy"]).success();
    assert!(server.object(POLICY).is_some());
}

fn foreign() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.put("/api/v1/namespaces/kube-system", json!({"metadata": {}}));
    let output = run(&server, &["deploy", IMAGE, "--restrict-exec", "--tracer-namespace=kube-system"]);
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(output.stderr.contains("all pods of the namespace \"kube-system\""), "{output:#?}");
    assert_eq!(server.asked().len(), 0);
    // tracer's own namespace has a separate policy.
    run(&server, &["deploy", IMAGE, "--restrict-exec", "--tracer-namespace=other"]).success();
    let policy = server.object(&POLICY.replace("tracer-restrict", "other-restrict")).unwrap();
    let selector = &policy["spec"]["matchConstraints"]["namespaceSelector"];
    assert_eq!(selector["matchLabels"], json!({"kubernetes.io/metadata.name": "other"}));
}

fn old() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.forbid("PATCH", "/validatingadmissionpolicies/tracer-restrict-exec");
    let output = run(&server, &["deploy", IMAGE, "--restrict-exec"]);
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert!(output.stderr.contains("Kubernetes 1.30"), "{output:#?}");
    assert!(server.object(AGENTS).is_none(), "no agent is there that anything may be executed in");
}

/// The policy is validated and stored, if the server supports such policies.
fn real() {
    let cluster = Cluster::start();
    let namespace = envtest::namespace();
    let run = |arguments: &[&str]| cluster.tracer(&namespace, arguments);
    let group = cluster.kubectl(&["get", "--raw", "/apis/admissionregistration.k8s.io/v1"]).success().stdout;
    let output = run(&["deploy", IMAGE, "--restrict-exec", "--wait=false"]);
    if group.contains("\"validatingadmissionpolicies\"") {
        output.success();
        let stored =
            cluster.kubectl(&["get", "validatingadmissionpolicy", &format!("{namespace}-restrict-exec")]);
        assert!(stored.success().stdout.contains("restrict-exec"));
    } else {
        assert_eq!(output.status.code(), Some(1), "{output:#?}");
        assert!(output.stderr.contains("requires Kubernetes 1.30 or newer"), "{output:#?}");
        let agents = cluster.kubectl(&["get", "daemonsets", "-n", &namespace, "-o", "name"]).success();
        assert_eq!(agents.stdout, "", "no agent before the policy");
    }
    run(&["undeploy", "--wait=false"]).success();
}

/// The output of `kubectl kustomize` for the component.
fn kustomize() {
    let dir = harness::scratch::Dir::new("component");
    let place = |name: &str| {
        let from = dir.path().components().skip(1).map(|_| "..").collect::<PathBuf>();
        from.join(directory().canonicalize().unwrap().strip_prefix("/").unwrap()).join(name)
    };
    let text = json!({"resources": [place("")], "components": [place("restrict-exec")]}).to_string();
    fs::write(dir.path().join("kustomization.yaml"), text).unwrap();
    let mut kubectl = Command::new("kubectl");
    let built = wait::output(kubectl.arg("kustomize").arg(dir.path()), wait::LIMIT).success().stdout;
    let arguments = ["deploy", "--restrict-exec", "--dry-run", "-o", "yaml"];
    let ours = Launch::kubectl(Path::new("/nowhere"), &arguments).output().success().stdout;
    let [built, ours] = [built, ours].map(|text| {
        let objects = text.split("---\n").map(|object| serde_yaml_ng::from_str::<Value>(object).unwrap());
        let mut objects: Vec<Value> = objects.collect();
        objects.sort_by_key(|object| object["kind"].as_str().unwrap().to_owned());
        objects
    });
    assert_eq!(built.len(), 5);
    assert_eq!(built, ours);
}
