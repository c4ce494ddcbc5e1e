//! `kubectl tracer deploy`, `undeploy` and `--ephemeral`: the objects that they create and delete, on a simulated and on a
//! real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use harness::apiserver::{ApiServer, Asked, Program};
use harness::envtest::{self, Cluster};
use harness::need::{KUBECTL_RUNC, Need};
use harness::wait::{self, Output};
use harness::{Bundle, Finished, Launch, Pod, Runtime, Suite, Tracer};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Namespace, core::v1::ServiceAccount};
use rustix::process::Signal;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Requirements of tests in which nothing is traced.
const CLIENT: &[Need] = &[Need::KubectlTracer];
/// Requirements of tests in which agents run but nothing is traced.
const AGENTS: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::KubectlTracer];
const KUSTOMIZE: &[Need] = &[Need::KubectlTracer, Need::Kubectl];
const REAL: &[Need] = &[Need::KubectlTracer, Need::Kubectl, Need::RealApiServer];

const NAMESPACE: &str = "/api/v1/namespaces/tracer";
const ACCOUNT: &str = "/api/v1/namespaces/tracer/serviceaccounts/tracer";
const AGENT: &str = "/apis/apps/v1/namespaces/tracer/daemonsets/tracer";
const JOBS: &str = "/apis/batch/v1/namespaces/kube-system/jobs";
/// As kubectl calls them.
const NAMES: [&str; 3] = ["namespace/tracer", "serviceaccount/tracer", "daemonset.apps/tracer"];
const IMAGE: &str = "registry.example/tracer:test";
/// A short lease of agents, and by when it has expired and nothing is left.
const LEASE: &str = "--agent-lease=6s";
const EXPIRED: Duration = Duration::from_secs(15);
/// By when nothing may be left after a deletion.
const DELETED: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    Suite::new()
        .test("exactly_three_objects_are_applied", CLIENT, applies)
        .test("redeploy_changes_only_a_new_image", CLIENT, again)
        .test("deploy_reports_progress", CLIENT, progress)
        .test("failed_rollout_names_nodes_and_reasons", CLIENT, stuck)
        .test("reports_of_kubelet_and_scheduler_are_shown_while_waiting", CLIENT, reported)
        .test("refused_pods_are_reported_with_the_reason", CLIENT, restricted)
        .test("warnings_of_the_api_server_are_shown_once_each", CLIENT, warned)
        .test("unsupported_nodes_are_not_waited_for", CLIENT, unable)
        .test("deploy_waits_for_a_namespace_that_is_being_deleted", CLIENT, terminating)
        .test("deploy_waits_for_agents_that_are_being_deleted", CLIENT, terminating_agents)
        .test("undeploy_reports_what_it_waits_for", CLIENT, waits_for)
        .test("undeploy_does_not_wait_for_a_missing_namespace_controller", CLIENT, no_controller)
        .test("foreign_namespace_is_not_changed", CLIENT, foreign_namespace)
        .test("foreign_objects_are_kept", CLIENT, foreign_objects)
        .test("undeploy_deletes_what_deploy_created", CLIENT, undeploy)
        .test("undeploy_reports_finalizers_after_the_timeout", CLIENT, finalizer)
        .test("client_dry_run_sends_no_request", CLIENT, dry_run)
        .test("server_dry_run_stores_nothing", CLIENT, server_dry_run)
        .test("forbidden_requests_are_reported", CLIENT, forbidden)
        .test("missing_or_unpullable_image_is_rejected_before_any_request", CLIENT, image)
        .test("seccomp_profile_and_selinux_type_can_be_set", CLIENT, confinement)
        .test("deployed_agents_trace", KUBECTL_RUNC, deploy_and_trace)
        .test("ephemeral_agents_trace_and_are_deleted", KUBECTL_RUNC, ephemeral)
        .test("ephemeral_agents_are_created_on_selected_nodes", AGENTS, chosen)
        .test("ephemeral_agents_of_a_killed_client_are_deleted", AGENTS, killed)
        .test("ephemeral_agents_outlive_their_lease_term_while_renewed", AGENTS, renewed)
        .test("other_agents_are_deleted_if_one_cannot_be_created", AGENTS, cannot_be_made)
        .test("interrupted_ephemeral_run_leaves_no_agents", AGENTS, ended_early)
        .test("interrupted_ephemeral_doctor_leaves_no_agents", AGENTS, doctor)
        .test("kustomize_builds_the_same_objects", KUSTOMIZE, kustomize)
        .test("real_api_server_accepts_the_objects", REAL, real)
        .test("real_api_server_without_controllers_does_not_block_undeploy", REAL, real_undeploy)
        .test("real_api_server_keeps_foreign_objects", REAL, real_others)
        .test("real_api_server_accepts_ephemeral_agents", REAL, real_ephemeral)
        .run()
}

/// `kubectl tracer` with these arguments, for this server.
fn kubectl(server: &ApiServer, arguments: &[&str]) -> Launch {
    Launch::kubectl(&server.kubeconfig(None), arguments)
}

/// `deploy`, of an image that nodes can pull.
fn deploy(server: &ApiServer, further: &[&str]) -> Launch {
    kubectl(server, &[&["deploy", "--image", IMAGE], further].concat())
}

fn deploy_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The objects of `deploy/`, with this image if one is given.
fn objects(image: Option<&str>) -> [Value; 3] {
    let mut objects = ["namespace.yaml", "serviceaccount.yaml", "daemonset.yaml"].map(|name| {
        let text = fs::read_to_string(deploy_dir().join(name)).unwrap();
        serde_yaml_ng::from_str::<Value>(&text).unwrap()
    });
    if let Some(image) = image {
        objects[2]["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }
    objects
}

/// Each name, with what was done behind it.
fn lines(names: &[&str], done: &str) -> String {
    names.iter().flat_map(|name| [*name, " ", done, "\n"]).collect()
}

/// The paths behind which something was asked to be changed, each with the method.
fn changes(asked: &[Asked]) -> Vec<(&str, &str)> {
    asked.iter().map(|asked| (asked.method.as_str(), asked.path.as_str())).collect()
}

#[track_caller]
fn assert_fails(output: &Output, said: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:#?}");
    assert_says(output, said);
}

/// Fails unless all of these texts are reported.
#[track_caller]
fn assert_says(output: &Output, said: &[&str]) {
    for text in said {
        assert!(output.stderr.contains(text), "{text}: {output:#?}");
    }
}

/// A server on which it is deployed.
fn deployed(nodes: &[&str]) -> ApiServer {
    let server = ApiServer::with_nodes(nodes);
    deploy(&server, &[]).output().success();
    server
}

fn applies() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    let output = kubectl(&server, &["deploy", "--image", IMAGE]).output().success();
    assert_eq!(output.stdout, lines(&NAMES, "serverside-applied"));
    assert_eq!(output.stderr.lines().last(), Some("tracer: agents run on 2 nodes"));
    let asked = server.asked();
    assert_eq!(changes(&asked), [NAMESPACE, ACCOUNT, AGENT].map(|path| ("PATCH", path)));
    for asked in &asked {
        assert_eq!(asked.query["fieldManager"], "kubectl-tracer");
        assert_eq!(asked.query["force"], "true");
        assert!(!asked.query.contains_key("dryRun"));
    }
    let bodies: Vec<&Value> = asked.iter().map(|asked| &asked.body).collect();
    assert_eq!(bodies, objects(Some(IMAGE)).iter().collect::<Vec<_>>());
}

fn again() {
    let server = deployed(&["n-1", "n-2"]);
    let version = server.version();
    let output = deploy(&server, &[]).output().success();
    assert_eq!(output.stderr.lines().last(), Some("tracer: agents run on 2 nodes"));
    assert_eq!(server.version(), version);
    let others = |server: &ApiServer| (server.object(NAMESPACE), server.object(ACCOUNT));
    let before = others(&server);
    let image = "registry.example/tracer:other";
    kubectl(&server, &["deploy", "--image", image]).output().success();
    assert_eq!(others(&server), before);
    let agents = server.object(AGENT).unwrap();
    assert_eq!(agents["spec"]["template"]["spec"]["containers"][0]["image"], image);
    assert_eq!(agents["metadata"]["generation"], 2);
}

fn progress() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.hold("n-1", "ContainerCreating");
    server.hold("n-2", "ContainerCreating");
    let client = deploy(&server, &[]).begin();
    client.wait_log("none", |line| line == "tracer: 0 of 2 agents run");
    server.let_run("n-1");
    client.wait_log("one", |line| line == "tracer: 1 of 2 agents run");
    server.let_run("n-2");
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.log());
    assert_eq!(done.stderr.last().unwrap(), "tracer: agents run on 2 nodes");
}

fn stuck() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.hold("n-2", "ImagePullBackOff");
    let output = deploy(&server, &["--timeout=1s"]).output();
    assert_fails(
        &output,
        &["tracer: 1 of 2 agents run", "not all agents run after 1s; see above for the reasons"],
    );
    let why: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("tracer: node ")).collect();
    assert!(
        matches!(why[..], [line] if line.starts_with("tracer: node n-2: ") && line.contains("ImagePullBackOff")),
        "{output:#?}"
    );
    // --wait=false does not report it.
    deploy(&server, &["--wait=false"]).output().success();
}

fn reported() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.hold_with("n-1", "ErrImagePull", "no such host");
    server.hold_unscheduled("n-2", "0/2 nodes are available: Insufficient memory.");
    let client = kubectl(&server, &["deploy", "--image", IMAGE]).begin();
    client.wait_log("what the kubelet reports", |line| {
        line.starts_with("tracer: node n-1: ")
            && line.ends_with(&format!("does not run: ErrImagePull: no such host (image {IMAGE})"))
    });
    client.wait_log("what the scheduler reports", |line| {
        line.starts_with("tracer: node n-2: ") && line.contains("Unschedulable: 0/2 nodes are available")
    });
    server.let_run("n-1");
    server.let_run("n-2");
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.log());
    assert_eq!(
        done.stderr.iter().filter(|line| line.starts_with("tracer: node ")).count(),
        2,
        "{}",
        done.log()
    );
}

fn restricted() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.refuse_pods("violates PodSecurity \"restricted:latest\": host namespaces (hostPID=true)");
    let output = deploy(&server, &["--timeout=1s"]).output();
    assert_fails(&output, &["not all agents run after 1s; see above for the reasons"]);
    let reason = "tracer: the DaemonSet controller: FailedCreate: Error creating: pods is forbidden: violates PodSecurity";
    // It tries once for each node.
    assert_eq!(output.stderr.matches(reason).count(), 1, "{output:#?}");
    // Again, nothing differs, and the controller does nothing new.
    let output = deploy(&server, &["--timeout=1s"]).output();
    assert_eq!(output.stderr.matches(reason).count(), 1, "{output:#?}");
}

fn warned() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let text = "would violate PodSecurity \"restricted:latest\": \u{1b}[2J";
    server.warn("PATCH", "/daemonsets/tracer", text);
    server.warn("GET", "/daemonsets", "apps/v1beta1 is deprecated");
    server.warn("GET", "/pods", "apps/v1beta1 is deprecated");
    let output = deploy(&server, &[]).output().success();
    let warnings: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("Warning: ")).collect();
    assert_eq!(warnings.len(), 2, "{output:#?}");
    assert!(
        warnings[0].starts_with("Warning: would violate PodSecurity \"restricted:latest\": "),
        "{output:#?}"
    );
    assert_eq!(warnings[1], "Warning: apps/v1beta1 is deprecated");
    assert!(!output.stderr.contains('\u{1b}'), "{output:#?}");
}

fn unable() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let labels = json!({"metadata": {"labels": {"eks.amazonaws.com/compute-type": "fargate"}}});
    server.put("/api/v1/nodes/fargate-1", labels);
    let output = deploy(&server, &[]).output().success();
    assert_says(&output, &["tracer: 1 node runs no agent: fargate-1 (Fargate)"]);
    assert_eq!(output.stderr.lines().last(), Some("tracer: agents run on 1 node"));
}

fn terminating() {
    let server = deployed(&["n-1"]);
    server.hold_stops("n-1");
    kubectl(&server, &["undeploy", "--wait=false"]).output().success();
    assert!(server.object(NAMESPACE).unwrap()["metadata"]["deletionTimestamp"].is_string());
    let client = kubectl(&server, &["deploy", "--image", IMAGE]).begin();
    client.wait_log("that it waits", |line| {
        line == "tracer: namespace/tracer is being deleted: waiting until it is gone"
    });
    server.let_stop("n-1");
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.log());
    assert_eq!(done.stderr.last().unwrap(), "tracer: agents run on 1 node");
    server.hold_stops("n-1");
    kubectl(&server, &["undeploy", "--wait=false"]).output().success();
    let output = deploy(&server, &["--timeout=1s"]).output();
    assert_fails(&output, &["namespace/tracer is still being deleted after 1s"]);
}

fn terminating_agents() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.put(NAMESPACE, json!({}));
    deploy(&server, &[]).output().success();
    let mut agents = server.object(AGENT).unwrap();
    agents["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    agents["metadata"]["deletionTimestamp"] = json!("2026-11-20T22:15:02Z");
    server.put(AGENT, agents);
    let client = deploy(&server, &[]).begin();
    client.wait_log("that it waits", |line| {
        line == "tracer: daemonset.apps/tracer is being deleted: waiting until it is gone"
    });
    server.delete(AGENT);
    let done = client.wait_end();
    assert_eq!(done.stderr.last().unwrap(), "tracer: agents run on 1 node", "{}", done.log());
}

fn waits_for() {
    let server = deployed(&["n-1", "n-2"]);
    server.hold_stops("n-1");
    server.hold_stops("n-2");
    let not_ready = json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]);
    server.put("/api/v1/nodes/n-2", json!({"status": {"conditions": not_ready}}));
    let client = kubectl(&server, &["undeploy"]).begin();
    let line = client.wait_log("what it waits for", |line| line.starts_with("tracer: waiting for "));
    assert!(line.starts_with("tracer: waiting for 2 agent pods to stop (on n-1, n-2): n-2: "), "{line}");
    assert!(
        line.contains(
            "the node is not ready (NodeStatusUnknown); if it does not come back: kubectl delete pod tracer-"
        ),
        "{line}"
    );
    server.let_stop("n-1");
    server.let_stop("n-2");
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.log());
    assert_eq!(server.paths(), [""; 0]);
}

fn no_controller() {
    let server = deployed(&["n-1"]);
    let mut namespace = server.object(NAMESPACE).unwrap();
    namespace["spec"] = json!({"finalizers": ["kubernetes"]});
    // The server has no finalizers in the specification. This one keeps the namespace.
    namespace["metadata"]["finalizers"] = json!(["example.com/keeps-it"]);
    server.put(NAMESPACE, namespace);
    let output = kubectl(&server, &["undeploy"]).output().success();
    assert_says(
        &output,
        &[
            "tracer: waiting for namespace/tracer, which has finalizers: example.com/keeps-it, kubernetes",
            "tracer: namespace/tracer is empty but stays Terminating",
        ],
    );
    assert_eq!(server.paths(), [NAMESPACE]);
}

fn foreign_namespace() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.put(NAMESPACE, json!({"metadata": {"labels": {"team": "others"}}}));
    let before = server.object(NAMESPACE);
    let output = deploy(&server, &[]).output().success();
    assert_eq!(output.stdout, lines(&NAMES[1..], "serverside-applied"));
    assert_says(&output, &["namespace tracer already exists and is not changed"]);
    assert_eq!(server.object(NAMESPACE), before);
    let output = kubectl(&server, &["undeploy"]).output().success();
    let deleted: BTreeSet<&str> = output.stdout.lines().collect();
    assert_eq!(deleted, ["daemonset.apps/tracer deleted", "serviceaccount/tracer deleted"].into());
    assert_says(&output, &["namespace/tracer is kept"]);
    assert_eq!(server.paths(), [NAMESPACE]);
    assert_eq!(server.object(NAMESPACE), before);
}

fn foreign_objects() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.put(NAMESPACE, objects(None)[0].clone());
    server.put(ACCOUNT, objects(None)[1].clone());
    let foreign = json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "jaeger"}}, "spec": {}});
    server.put(AGENT, foreign);
    // Waiting for what stays would have no end.
    let output = kubectl(&server, &["undeploy", "--timeout=20s"]).output().success();
    assert_eq!(output.stdout, "serviceaccount/tracer deleted\n");
    assert_says(&output, &["daemonset.apps/tracer is kept", "namespace/tracer is kept"]);
    assert_eq!(server.paths(), [NAMESPACE, AGENT]);
}

fn undeploy() {
    let server = deployed(&["n-1", "n-2"]);
    assert_eq!(server.paths().len(), 5, "three, and two pods: {:?}", server.paths());
    let before = server.asked().len();
    let output = kubectl(&server, &["undeploy"]).output().success();
    assert_eq!(output.stdout, lines(&[NAMES[2], NAMES[1], NAMES[0]], "deleted"));
    assert_eq!(server.paths(), [""; 0]);
    let asked = server.asked()[before..].to_vec();
    assert_eq!(changes(&asked), [AGENT, ACCOUNT, NAMESPACE].map(|path| ("DELETE", path)));
    for asked in &asked {
        assert_eq!(asked.body["propagationPolicy"], "Background");
        assert!(asked.body["preconditions"]["uid"].is_string(), "{}", asked.body);
    }
    let output = kubectl(&server, &["undeploy"]).output().success();
    assert_eq!(output.stdout, "");
    assert_says(&output, &["nothing is deployed in namespace tracer"]);
    assert_eq!(server.asked().len(), before + 3);
}

fn finalizer() {
    let server = deployed(&["n-1"]);
    let mut agents = server.object(AGENT).unwrap();
    agents["metadata"]["finalizers"] = json!(["example.com/keeps-it"]);
    server.put(AGENT, agents);
    // A real one would keep the namespace for the sake of what is in it.
    let mut namespace = server.object(NAMESPACE).unwrap();
    namespace["metadata"]["finalizers"] = json!(["example.com/keeps-it"]);
    server.put(NAMESPACE, namespace);
    let output = kubectl(&server, &["undeploy", "--timeout=1s"]).output();
    let why = "waiting for daemonset.apps/tracer, which has finalizers: example.com/keeps-it";
    assert_fails(&output, &["not everything was deleted after 1s: ", why]);
    assert_eq!(output.stdout.lines().count(), 3);
    kubectl(&server, &["undeploy", "--wait=false"]).output().success();
}

fn dry_run() {
    let run = |arguments: &[&str]| {
        let all = [&["deploy", "--image", IMAGE], arguments].concat();
        Launch::kubectl(Path::new("/nowhere"), &all).output().success().stdout
    };
    let expected = objects(Some(IMAGE));
    let yaml = run(&["--dry-run", "-o", "yaml"]);
    let documents: Vec<Value> =
        yaml.split("---\n").map(|document| serde_yaml_ng::from_str(document).unwrap()).collect();
    assert_eq!(documents, expected);
    let kyaml = run(&["--dry-run", "-o", "kyaml"]);
    assert!(kyaml.starts_with("---\n{\n  apiVersion: \"v1\",\n  kind: \"Namespace\",\n"), "{kyaml}");
    let documents: Vec<Value> =
        kyaml.split("---\n").skip(1).map(|document| serde_yaml_ng::from_str(document).unwrap()).collect();
    assert_eq!(documents, expected);
    let list: Value = serde_json::from_str(&run(&["--dry-run=client", "-o", "json"])).unwrap();
    assert_eq!(list, json!({"apiVersion": "v1", "kind": "List", "items": expected}));
    assert_eq!(run(&["--dry-run", "-o", "name"]).lines().collect::<Vec<_>>(), NAMES);
    assert_eq!(run(&["--dry-run"]), lines(&NAMES, "created (dry run)"));
    let other = run(&["--dry-run", "-o", "name", "--tracer-namespace=other"]);
    assert_eq!(other.lines().next(), Some("namespace/other"));
    // Without the dry run the kubeconfig is missed, and an image must be one.
    assert_fails(
        &Launch::kubectl(Path::new("/nowhere"), &["deploy", "--image", IMAGE]).output(),
        &["finding the cluster"],
    );
    let wrong = Launch::kubectl(Path::new("/nowhere"), &["deploy", "--dry-run", "--image", ""]).output();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:#?}");
}

fn server_dry_run() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let version = server.version();
    let run = || kubectl(&server, &["deploy", "--dry-run=server"]).output().success();
    let done = "serverside-applied (server dry run)";
    // The server rejects a dry run of objects in a missing namespace.
    let output = run();
    assert_eq!(output.stdout, lines(&NAMES[..1], done));
    assert_says(&output, &["the namespace tracer does not exist"]);
    assert_eq!((server.version(), server.paths().len()), (version, 0));
    deploy(&server, &[]).output().success();
    let (version, before) = (server.version(), server.asked().len());
    let output = run();
    assert_eq!(output.stdout, lines(&NAMES, done));
    assert_eq!(server.version(), version);
    let asked = server.asked()[before..].to_vec();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.query["dryRun"] == "All"), "{asked:?}");
}

fn forbidden() {
    let server = ApiServer::with_nodes(&["n-1"]);
    server.forbid("PATCH", "/daemonsets/tracer");
    let output = deploy(&server, &[]).output();
    assert_fails(&output, &["daemonset: ", "daemonsets \"tracer\" is forbidden: User \"test\" cannot"]);
    assert_eq!(output.stdout, "");
    server.forbid("DELETE", "/namespaces/tracer");
    let output = kubectl(&server, &["undeploy"]).output();
    assert_fails(&output, &["namespace/tracer: ", "is forbidden"]);
    assert_eq!(output.stdout, "serviceaccount/tracer deleted\n", "what has gone is told all the same");
    server.forbid("GET", "/namespaces/tracer");
    assert_fails(&deploy(&server, &[]).output(), &["namespace: ", "is forbidden"]);
}

fn image() {
    for (arguments, why) in [
        (&["deploy"][..], "this build of kubectl-tracer has no release image"),
        (
            &["trace", "open", "--ephemeral", "-p", "deploy/web"],
            "this build of kubectl-tracer has no release image",
        ),
        (&["list-containers", "--ephemeral", "--image=tracer:1"], "it has no registry"),
        (&["doctor", "--ephemeral", "--image=tracer:1"], "it has no registry"),
        (&["deploy", "--image=tracer:1"], "it has no registry"),
        (&["deploy", "--image=a/tracer:1"], "it has no registry"),
        (&["deploy", "--image=registry.example/tracer"], "it has neither a tag nor a digest"),
    ] {
        // Without a kubeconfig, so it is an error before any request to an API server.
        let output = Launch::kubectl(Path::new("/nowhere"), arguments).output();
        assert_eq!(output.status.code(), Some(2), "{output:#?}");
        assert_says(&output, &[why, "--image REGISTRY/NAME:TAG"]);
    }
    // A dry run accepts any image.
    let server = ApiServer::with_nodes(&["n-1"]);
    kubectl(&server, &["deploy", "--dry-run=server"]).output().success();
    kubectl(&server, &["deploy", "--image=registry.example/tracer@sha256:0123"]).output().success();
}

fn confinement() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let context = || {
        server.object(AGENT).unwrap()["spec"]["template"]["spec"]["containers"][0]["securityContext"].clone()
    };
    deploy(&server, &[]).output().success();
    assert_eq!(context()["seccompProfile"], json!({"type": "Unconfined"}));
    assert_eq!(context()["seLinuxOptions"], json!({"type": "spc_t"}));
    deploy(&server, &["--seccomp-profile=localhost/tracer.json", "--selinux-type=super_t"])
        .output()
        .success();
    assert_eq!(context()["seccompProfile"], json!({"type": "Localhost", "localhostProfile": "tracer.json"}));
    assert_eq!(context()["seLinuxOptions"], json!({"type": "super_t"}));
    deploy(&server, &["--seccomp-profile=runtime/default"]).output().success();
    assert_eq!(context()["seccompProfile"], json!({"type": "RuntimeDefault"}));
    for wrong in ["--seccomp-profile=tracer.json", "--seccomp-profile=localhost/../x", "--selinux-type=a:b:c"]
    {
        assert_eq!(deploy(&server, &[wrong]).output().status.code(), Some(2), "{wrong}");
    }
}

/// Waits for an event of each node's, each with the pod's name, for a container that runs meanwhile.
#[track_caller]
fn assert_traces(client: Tracer, pod: &Pod, nodes: &[&str]) -> Finished {
    let bundle = Bundle::script(pod, "cat /end-of-it");
    Runtime::runc().run(&bundle);
    for node in nodes {
        let event = client.wait_for("the last open", |event| {
            event["node"] == *node && event["open"]["path"] == "/end-of-it"
        });
        bundle.assert_names(&event);
    }
    let done = client.stop();
    let seen: BTreeSet<String> =
        done.events().iter().map(|event| event["node"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, nodes.iter().map(ToString::to_string).collect());
    done
}

fn deploy_and_trace() {
    let server = deployed(&["n-1", "n-2"]);
    let pod = Pod::new("web-0", "app");
    let client = kubectl(&server, &["trace", "open", "-n", &pod.namespace, "-o", "json"]).start();
    assert_traces(client, &pod, &["n-1", "n-2"]);
    kubectl(&server, &["undeploy"]).output().success();
    server.wait_nothing_runs(DELETED);
}

/// `trace open --ephemeral`, ready.
fn start_ephemeral(server: &ApiServer, namespace: &str, further: &[&str]) -> Tracer {
    let arguments = ["trace", "open", "-n", namespace, "-o", "json", "--ephemeral", "--image", IMAGE];
    kubectl(server, &[&arguments[..], further].concat()).start()
}

/// No job, no pod, no process is there any more.
#[track_caller]
fn assert_nothing_left(server: &ApiServer, within: Duration) {
    server.wait_nothing_runs(within);
    wait::until("nothing is stored", || server.paths().is_empty().then_some(()));
}

/// The nodes of the requested jobs.
fn jobs(server: &ApiServer) -> BTreeSet<String> {
    let asked = server.asked();
    let made = asked.iter().filter(|asked| asked.method == "POST" && asked.path == JOBS);
    made.map(|job| job.body["spec"]["template"]["spec"]["nodeName"].as_str().unwrap().to_owned()).collect()
}

fn ephemeral() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.put("/api/v1/nodes/windows", json!({"metadata": {"labels": {"kubernetes.io/os": "windows"}}}));
    let pod = Pod::new("web-0", "app");
    let client = start_ephemeral(&server, &pod.namespace, &[]);
    assert_eq!(jobs(&server), ["n-1".to_owned(), "n-2".to_owned()].into());
    // Two agents, and a tracer in each.
    assert_eq!(server.running().len(), 4);
    let asked = server.asked();
    let container = &asked[0].body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["stdin"]), (&json!(IMAGE), &json!(true)));
    assert_traces(client, &pod, &["n-1", "n-2"]);
    assert_nothing_left(&server, DELETED);
    // They were deleted before their leases expired.
    let last = server.asked().pop().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str()), ("DELETE", JOBS));
}

fn chosen() {
    let server = ApiServer::with_nodes(&["n-1", "n-2", "n-3"]);
    // Nodes can be selected by name without the right to list them.
    server.forbid("GET", "/nodes");
    let client = start_ephemeral(&server, "none", &["--node=n-1,n-3", "--tracer-namespace=default"]);
    let paths = server.paths();
    assert!(paths.iter().all(|path| path.contains("/namespaces/default/")), "{paths:?}");
    let nodes: BTreeSet<String> = paths
        .iter()
        .filter_map(|path| server.object(path)?["spec"]["nodeName"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(nodes, ["n-1".to_owned(), "n-3".to_owned()].into());
    client.stop();
    assert_nothing_left(&server, DELETED);
    let output = kubectl(&server, &["trace", "open", "--ephemeral", "--image", IMAGE]).output();
    assert_fails(&output, &["cannot list the nodes", "forbidden", "select some with --node"]);
}

fn killed() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    let client = start_ephemeral(&server, "none", &[LEASE]);
    assert_eq!(server.running().len(), 4);
    client.signal(Signal::KILL);
    assert_nothing_left(&server, EXPIRED);
    let deleted = server.asked().iter().filter(|asked| asked.method == "DELETE").count();
    assert_eq!(deleted, 0, "the leases expired");
    assert!(client.wait_end().summary.is_none());
}

fn renewed() {
    let server = ApiServer::with_nodes(&["n-1"]);
    let client = start_ephemeral(&server, "none", &["--agent-lease=3s", "--timeout=7s"]);
    let running = server.running();
    let done = client.wait_end().assert_clean();
    assert!(!done.log().contains("was deleted"), "{}", done.log());
    assert_eq!((running.len(), server.executed().len()), (2, 1), "{}", done.log());
    assert_nothing_left(&server, DELETED);
}

fn cannot_be_made() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.refuse_jobs("n-2");
    let output = kubectl(&server, &["trace", "open", "--ephemeral", "--image", IMAGE]).output();
    assert_fails(&output, &["cannot create an agent for node n-2: ", "exceeded quota"]);
    assert!(jobs(&server).contains("n-1"), "{:?}", server.asked());
    assert_nothing_left(&server, DELETED);
}

fn ended_early() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    server.hold("n-1", "ContainerCreating");
    server.hold("n-2", "ContainerCreating");
    let client = kubectl(&server, &["trace", "open", "--ephemeral", "--image", IMAGE]).begin();
    wait::until("both jobs, and their pods", || (server.paths().len() == 4).then_some(()));
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(1), "{}", done.log());
    assert!(done.log().contains("interrupted while "), "{}", done.log());
    assert_nothing_left(&server, DELETED);
}

fn doctor() {
    let server = ApiServer::with_nodes(&["n-1", "n-2"]);
    let output = kubectl(&server, &["doctor", "--ephemeral", "--image", IMAGE]).output();
    assert_eq!(output.stdout.lines().filter(|line| line.starts_with("n-")).count(), 2, "{output:#?}");
    assert_nothing_left(&server, DELETED);
    server.run_instead("n-2", Program::Script("exec sleep 1000".into()));
    let before = server.executed().len();
    let client = kubectl(&server, &["doctor", "--ephemeral", "--image", IMAGE]).begin();
    wait::until("both are asked", || (server.executed().len() == before + 2).then_some(()));
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(1), "{}", done.log());
    assert!(done.log().contains("interrupted before"), "{}", done.log());
    assert_nothing_left(&server, DELETED);
}

/// The same object, read by Kubernetes' own type: no field may be missing in it.
#[track_caller]
fn assert_reads_back<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), *object);
}

fn kustomize() {
    let mut kubectl = Command::new("kubectl");
    let built = wait::output(kubectl.arg("kustomize").arg(deploy_dir()), wait::LIMIT).success().stdout;
    let ours = Launch::kubectl(Path::new("/nowhere"), &["deploy", "--dry-run", "-o", "yaml"])
        .output()
        .success()
        .stdout;
    let [built, ours] = [built, ours].map(|text| {
        let objects = text.split("---\n").map(|object| serde_yaml_ng::from_str::<Value>(object).unwrap());
        let mut objects: Vec<Value> = objects.collect();
        objects.sort_by_key(|object| object["kind"].as_str().unwrap().to_owned());
        objects
    });
    assert_eq!(built, ours);
    let [agents, namespace, account] = &built[..] else { panic!("{built:?}") };
    assert_reads_back::<DaemonSet>(agents);
    assert_reads_back::<Namespace>(namespace);
    assert_reads_back::<ServiceAccount>(account);
}

/// All that is in `ours` is in `stored`, and the same; the server adds defaults.
#[track_caller]
fn assert_stored(ours: &Value, stored: &Value, at: &str) {
    match (ours, stored) {
        (Value::Object(ours), Value::Object(stored)) => {
            for (key, value) in ours {
                assert_stored(value, stored.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(stored)) => {
            assert_eq!(ours.len(), stored.len(), "{at}");
            for (index, (ours, stored)) in ours.iter().zip(stored).enumerate() {
                assert_stored(ours, stored, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(ours, stored, "{at}"),
    }
}

fn real() {
    let cluster = Cluster::start();
    let namespace = envtest::namespace();
    let run = |arguments: &[&str]| cluster.tracer(&namespace, arguments);
    let get = |what: &str| -> Option<Value> {
        let arguments = ["get", what, "-n", &namespace, "-o", "json", "--ignore-not-found"];
        let text = cluster.kubectl(&arguments).success().stdout;
        (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
    };
    let of_namespace = format!("namespace/{namespace}");
    let names = [of_namespace.as_str(), NAMES[1], NAMES[2]];
    let dry = run(&["deploy", "--dry-run=server"]).success();
    assert_eq!(dry.stdout, lines(&names[..1], "serverside-applied (server dry run)"));
    assert_eq!(get(names[0]), None);
    assert_fails(&run(&["trace", "open", "-n", "default"]), &["no agent"]);
    assert_fails(&run(&["trace", "open", "--context=missing"]), &["finding the cluster", "missing"]);
    let output = run(&["deploy", "--wait=false", "--image", IMAGE]).success();
    assert_eq!(output.stdout, lines(&names, "serverside-applied"));
    let mut ours = objects(Some(IMAGE));
    ours[0]["metadata"]["name"] = json!(namespace);
    for object in &mut ours[1..] {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let stored = names.map(|name| get(name).unwrap());
    for (ours, stored) in ours.iter().zip(&stored) {
        assert_stored(ours, stored, "");
    }
    run(&["deploy", "--wait=false", "--image", IMAGE]).success();
    let version = |object: &Value| object["metadata"]["generation"].clone();
    assert_eq!(names.map(|name| version(&get(name).unwrap())), stored.each_ref().map(version));
    assert_eq!(run(&["deploy", "--dry-run=server"]).success().stdout.lines().count(), 3);
    let output = run(&["undeploy", "--wait=false"]).success();
    assert_eq!(output.stdout, lines(&[names[2], names[1], names[0]], "deleted"));
    let account = get(names[1]);
    assert!(account.is_none(), "{account:?}");
    // Without controllers the namespace stays Terminating.
    for name in [names[0], names[2]] {
        let left = get(name);
        let leaves = left.as_ref().is_none_or(|left| left["metadata"]["deletionTimestamp"].is_string());
        assert!(leaves, "{left:?}");
    }
}

/// An API server on its own deletes no namespace: nothing removes the finalizer.
fn real_undeploy() {
    let cluster = Cluster::start();
    let namespace = envtest::namespace();
    cluster.tracer(&namespace, &["deploy", "--wait=false", "--image", IMAGE]).success();
    let output = cluster.tracer(&namespace, &["undeploy"]).success();
    assert_eq!(output.stdout.lines().filter(|line| line.ends_with(" deleted")).count(), 3, "{output:#?}");
    let arguments = ["get", "namespace", &namespace, "-o", "name", "--ignore-not-found"];
    if !cluster.kubectl(&arguments).success().stdout.is_empty() {
        let reason = "is empty but stays Terminating: nothing removes its finalizer \"kubernetes\"";
        assert_says(&output, &[&format!("tracer: namespace/{namespace} {reason}")]);
    }
}

fn real_others() {
    let cluster = Cluster::start();
    let namespace = envtest::namespace();
    let run = |arguments: &[&str]| cluster.tracer(&namespace, arguments);
    let is_there = |what: &str| {
        let found = cluster.kubectl(&["get", what, "-n", &namespace, "-o", "name", "--ignore-not-found"]);
        !found.success().stdout.is_empty()
    };
    // Another user is not authorized.
    let output = run(&["deploy", "--image", IMAGE, "--as=nobody"]);
    assert_fails(&output, &["namespaces \"", "is forbidden: User \"nobody\" cannot"]);
    assert_eq!(output.stderr.lines().count(), 1, "{output:#?}");
    cluster.kubectl(&["create", "namespace", &namespace]).success();
    cluster
        .kubectl(&["create", "serviceaccount", NAMES[1].split('/').nth(1).unwrap(), "-n", &namespace])
        .success();
    let output = run(&["undeploy", "--timeout=20s"]).success();
    assert_eq!(output.stdout, "");
    assert_says(&output, &["serviceaccount/tracer is kept", &format!("namespace/{namespace} is kept")]);
    cluster.kubectl(&["delete", NAMES[1], "-n", &namespace]).success();
    let output = run(&["deploy", "--wait=false", "--image", IMAGE]).success();
    assert_eq!(output.stdout, lines(&NAMES[1..], "serverside-applied"));
    let output = run(&["undeploy"]).success();
    assert_eq!(output.stdout, lines(&[NAMES[2], NAMES[1]], "deleted"));
    assert_says(&output, &[&format!("namespace/{namespace} is kept")]);
    assert!(is_there(&format!("namespace/{namespace}")) && !is_there(NAMES[1]) && !is_there(NAMES[2]));
    // tracer's own namespace that is being deleted. Without controllers it stays Terminating.
    cluster.kubectl(&["label", "namespace", &namespace, "app.kubernetes.io/part-of=tracer"]).success();
    let output = run(&["undeploy", "--timeout=1s"]);
    if output.status.success() {
        return;
    }
    assert_fails(
        &output,
        &["not everything was deleted after 1s: waiting for ", &format!("namespace/{namespace}")],
    );
    let output = run(&["deploy", "--image", IMAGE, "--timeout=1s"]);
    let of_namespace = format!("tracer: namespace/{namespace} is ");
    assert_fails(
        &output,
        &[
            &format!("{of_namespace}being deleted: waiting until it is gone"),
            &format!("{of_namespace}still being deleted after 1s"),
        ],
    );
}

fn real_ephemeral() {
    let cluster = Cluster::start();
    let unique = harness::scratch::unique("node").to_lowercase();
    let names = ["linux", "fargate"].map(|kind| format!("{unique}-{kind}"));
    let dir = harness::scratch::Dir::new("nodes");
    for (name, labels) in names.iter().zip([json!({}), json!({"eks.amazonaws.com/compute-type": "fargate"})])
    {
        let file = dir.path().join(name);
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        fs::write(&file, node.to_string()).unwrap();
        cluster.kubectl(&["create", "-f", file.to_str().unwrap()]).success();
    }
    let jobs = || {
        let listed = cluster.kubectl(&["get", "jobs", "-n", "default", "-o", "json"]).success().stdout;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let ours = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|job| job["metadata"]["labels"]["app.kubernetes.io/component"] == "ephemeral-agent");
        ours.map(|job| job["spec"]["template"]["spec"]["nodeName"].clone()).collect::<Vec<_>>()
    };
    let nodes = format!("--node={},{}", names[0], names[1]);
    let arguments = [
        "trace",
        "open",
        "-n",
        "nope",
        "--ephemeral",
        "--image",
        IMAGE,
        "--tracer-namespace=default",
        &nodes,
    ];
    let client = Launch::kubectl(cluster.kubeconfig(), &arguments).begin();
    client.wait_log("the namespace", |line| line == "tracer: namespace \"nope\" does not exist");
    wait::until("a job", || (jobs() == [names[0].as_str()]).then_some(()));
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(1), "{}", done.log());
    let named = format!("tracer: 1 node runs no agent: {} (Fargate)", names[1]);
    assert!(done.stderr.contains(&named), "{}", done.log());
    wait::until("no job is left", || jobs().is_empty().then_some(()));
    for name in &names {
        cluster.kubectl(&["delete", "node", name]).success();
    }
}
