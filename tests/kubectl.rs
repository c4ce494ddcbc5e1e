//! `kubectl tracer` with a simulated API server that runs the real `tracer`, or scripts that print in its place.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use harness::agent::Agent;
use harness::apiserver::{ApiServer, NAMESPACE, Options, Program};
use harness::need::{KUBECTL_RUNC, Need};
use harness::printing::{assert_fails, prints};
use harness::scratch;
use harness::wait;
use harness::{Bundle, Finished, Launch, Pod, Runtime, Suite, Tracer, tracer};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Requirements of tests in which scripts are the nodes.
const CLIENT: &[Need] = &[Need::KubectlTracer];
/// By when nothing may run on the nodes.
const STOPPED: Duration = Duration::from_secs(5);
/// A short lease, and by when it has expired and the node's tracer has exited.
const LEASE: &str = "--lease=2s";
const EXPIRED: Duration = Duration::from_secs(7);

fn main() -> ExitCode {
    Suite::new()
        .test("events_of_two_nodes_are_merged_over_v5", KUBECTL_RUNC, || two_nodes(5))
        .test("events_of_two_nodes_are_merged_over_v4", KUBECTL_RUNC, || two_nodes(4))
        .test("agents_in_containers_trace", KUBECTL_RUNC, through_containers)
        .test("exec_events_are_shown_in_columns", KUBECTL_RUNC, columns)
        .test("containers_of_two_nodes_are_listed", KUBECTL_RUNC, containers)
        .test("doctor_reports_each_node", KUBECTL_RUNC, doctor)
        .test("killed_client_leaves_nothing", KUBECTL_RUNC, || killed(false))
        .test("killed_client_leaves_nothing_after_the_lease", KUBECTL_RUNC, || killed(true))
        .test("frozen_client_leaves_nothing", KUBECTL_RUNC, frozen)
        .test("the_default_namespace_is_the_contexts", CLIENT, namespace)
        .test("workload_selects_by_its_labels", CLIENT, workload)
        .test("events_of_a_node_stay_in_order", CLIENT, order)
        .test("max_events_ends_the_run_and_filters_the_rest", CLIENT, max_events)
        .test("timeout_ends_the_run", CLIENT, timeout)
        .test("closed_pipe_ends_the_run", CLIENT, closed_pipe)
        .test("blocked_stdout_loses_events_within_bounded_memory", CLIENT, stalled_reader)
        .test("restarted_agent_is_traced_again", CLIENT, restart)
        .test("joining_and_leaving_nodes_are_followed", CLIENT, joins)
        .test("node_option_selects_nodes", CLIENT, chosen)
        .test("failed_nodes_are_reported_and_others_are_traced", CLIENT, failing)
        .test("exit_code_is_that_of_the_nodes_if_all_fail", CLIENT, all_fail)
        .test("lost_connections_are_retried", CLIENT, lost_connection)
        .test("heartbeats_are_sent_without_events", CLIENT, heartbeats)
        .test("silent_node_is_retried", CLIENT, silent)
        .test("second_signal_exits_immediately", CLIENT, second_signal)
        .test("hostile_node_cannot_forge_events_or_messages", CLIENT, || hostile(&["-o", "json"]))
        .test("hostile_node_cannot_forge_columns", CLIENT, || hostile(&["-o", "wide"]))
        .test("hostile_summary_does_not_overflow", CLIENT, hostile_closing)
        .test("hostile_list_is_bounded", CLIENT, hostile_list)
        .test("missing_agents_are_reported", CLIENT, no_agent)
        .test("usage_errors_are_reported_without_a_request", CLIENT, usage)
        .run()
}

/// `kubectl tracer` with these arguments, for this server.
fn kubectl(server: &ApiServer, arguments: &[&str]) -> Launch {
    Launch::kubectl(&server.kubeconfig(Some("from-context")), arguments)
}

/// `trace open -A -o json`.
fn trace(server: &ApiServer, further: &[&str]) -> Launch {
    kubectl(server, &[&["trace", "open", "-A", "-o", "json"], further].concat())
}

/// Its totals, after a check that it succeeded and that they add up. Not all losses need to be reported.
#[track_caller]
fn summary(done: &Finished) -> tracer::Summary {
    done.assert_adds_up()
}

/// The numbers of the events of each node, in order.
fn numbers(events: &[Value]) -> BTreeMap<String, Vec<u32>> {
    let mut by_node: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for event in events {
        let path = event["open"]["path"].as_str().unwrap();
        let node = event["node"].as_str().unwrap().to_owned();
        by_node.entry(node).or_default().push(path[1..].parse().unwrap());
    }
    by_node
}

fn two_nodes(version: u8) {
    let server = ApiServer::with_tracers(Options { version, ..Options::default() }, &["n-1", "n-2"]);
    let (pod, other) = (Pod::new("web-0", "app"), Pod::new("other", "app"));
    let client = kubectl(&server, &["trace", "open", "-n", &pod.namespace, "-o", "json"]).start();
    let bundle = Bundle::script(&pod, "for n in 1 2 3 4 5; do read x < /etc/hostname; done; cat /end-of-it");
    Runtime::runc().run(&Bundle::script(&other, "cat /not-selected"));
    Runtime::runc().run(&bundle);
    for node in ["n-1", "n-2"] {
        client.wait_for("the last open", |event| {
            event["node"] == node && event["open"]["path"] == "/end-of-it"
        });
    }
    let done = client.stop();
    server.wait_nothing_runs(STOPPED);
    let events = done.events();
    let mut paths: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in &events {
        bundle.assert_names(event);
        paths.entry(event["node"].as_str().unwrap()).or_default().push(&event["open"]["path"]);
    }
    // Both nodes are the same kernel.
    assert_eq!(paths.keys().copied().collect::<Vec<_>>(), ["n-1", "n-2"]);
    assert_eq!(paths["n-1"], paths["n-2"]);
    assert!(paths["n-1"].len() >= 6, "{paths:?}");
}

/// Everything but kubelets is real: agents have exactly the permissions of the manifest.
fn through_containers() {
    let agents = [Agent::start(), Agent::start()];
    let server = ApiServer::start(Options::default());
    for (agent, node) in agents.iter().zip(["n-1", "n-2"]) {
        server.add(node, Program::Within(agent.exec()));
    }
    let pod = Pod::new("web-0", "app");
    let client = kubectl(&server, &["trace", "open", "-n", &pod.namespace, "-o", "json"]).start();
    let bundle = Bundle::script(&pod, "true < /mark");
    Runtime::runc().run(&bundle);
    for node in ["n-1", "n-2"] {
        let event = client.wait_for("the open", |event| event["node"] == node);
        bundle.assert_names(&event);
    }
    assert!(agents.iter().all(|agent| agent.processes().len() > 1));
    client.signal(Signal::KILL);
    server.wait_nothing_runs(STOPPED);
    for agent in &agents {
        assert_eq!(agent.processes(), [agent.pid().cast_unsigned()], "only the agent is left");
    }
}

fn columns() {
    let server = ApiServer::with_tracers(Options::default(), &["worker-with-a-long-name"]);
    let pod = Pod::new("web-0", "app");
    let client = kubectl(&server, &["trace", "exec", "-n", &pod.namespace]).start();
    Runtime::runc().run(&Bundle::script(&pod, "exec /bin/echo 'two words'"));
    client.wait_line("the second execution", |line| line.ends_with("/bin/echo \"two words\""));
    client.signal(Signal::INT);
    let done = client.wait_end();
    summary(&done);
    assert!(done.stdout[0].starts_with("NODE                    NAMESPACE "), "{:?}", done.stdout);
    assert!(
        done.stdout[1].starts_with(&format!("worker-with-a-long-name {}", pod.namespace)),
        "{:?}",
        done.stdout
    );
}

fn containers() {
    let server = ApiServer::with_tracers(Options::default(), &["n-1", "n-2"]);
    let pod = Pod::new("web-0", "app");
    let bundle = Bundle::script(&pod, "read x < /go").with_fifo("/go");
    let runtime = Runtime::runc();
    let known = harness::runtime::KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let list = ["list-containers", "-n", &pod.namespace];
    let output = kubectl(&server, &[&list[..], &["-o", "json"]].concat()).output().success();
    let rows: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let nodes: Vec<&str> = rows.iter().filter_map(|row| row["node"].as_str()).collect();
    assert_eq!(nodes, ["n-1", "n-2"], "{}", output.stderr);
    for row in &rows {
        harness::shape::check_listed(row, false);
        assert_eq!(row["k8s"], bundle.k8s());
    }
    let output = kubectl(&server, &list).output().success();
    let nodes: Vec<&str> = output.stdout.lines().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(nodes, ["NODE", "n-1", "n-2"], "{}", output.stdout);
    // -w also shows containers that exit.
    let watching = kubectl(&server, &[&list[..], &["-w", "-o", "wide"]].concat()).start();
    for node in ["n-1", "n-2"] {
        watching.wait_line("that it is there", |line| line.starts_with("ADDED") && line.contains(node));
    }
    bundle.release("/go");
    for node in ["n-1", "n-2"] {
        watching.wait_line("that it has ended", |line| line.starts_with("DELETED") && line.contains(node));
    }
    watching.signal(Signal::INT);
    assert_eq!(watching.wait_end().status.code(), Some(0));
    server.wait_nothing_runs(STOPPED);
    drop(known);
}

fn doctor() {
    let server = ApiServer::with_tracers(Options::default(), &["n-1", "n-2"]);
    let output = kubectl(&server, &["doctor"]).output().success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let nodes: Vec<&&str> = lines.iter().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(nodes, [&"n-1", &"n-2"], "{output:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("  ok       BTF")).count(), 2, "{output:#?}");
    server.add("n-3", Program::Script("echo 'missing  BTF'; exit 3".into()));
    let output = kubectl(&server, &["doctor", "--node=n-3"]).output();
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(3), "n-3\n  missing  BTF\n"));
}

fn killed(keeps_stdin: bool) {
    let server = ApiServer::with_tracers(Options { keeps_stdin, ..Options::default() }, &["n-1", "n-2"]);
    let client = trace(&server, if keeps_stdin { &[LEASE] } else { &[] }).start();
    assert_eq!(server.running().len(), 2);
    client.signal(Signal::KILL);
    server.wait_nothing_runs(if keeps_stdin { EXPIRED } else { STOPPED });
    assert!(client.wait_end().summary.is_none());
}

fn frozen() {
    let server = ApiServer::with_tracers(Options::default(), &["n-1"]);
    let client = trace(&server, &[LEASE]).start();
    client.pause();
    server.wait_nothing_runs(EXPIRED);
    client.resume();
    client.wait_log("that it is retried", |line| line.contains("n-1") && line.contains("retrying"));
    wait::until("it runs again", || (server.executed().len() == 2).then_some(()));
    client.stop();
    server.wait_nothing_runs(STOPPED);
}

fn namespace() {
    let server = ApiServer::start(Options::default());
    server.add("n", Program::script("", "0 0 0 0"));
    let namespaces = |context: Option<&str>, arguments: &[&str]| {
        let before = server.executed().len();
        let client =
            Launch::kubectl(&server.kubeconfig(context), &[&["trace", "open"], arguments].concat()).start();
        client.signal(Signal::TERM);
        summary(&client.wait_end());
        let executed = server.executed()[before..].to_vec();
        assert_eq!(executed.len(), 1);
        assert!(executed[0].contains(&"--node=n".to_owned()), "{executed:?}");
        let of_namespaces = executed[0].iter().filter_map(|word| word.strip_prefix("--namespace="));
        of_namespaces.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(namespaces(Some("from-context"), &[]), ["from-context"]);
    assert_eq!(namespaces(None, &[]), ["default"]);
    assert_eq!(namespaces(Some("from-context"), &["-n", "a,!b", "-n", "c"]), ["a,!b", "c"]);
    assert!(namespaces(Some("from-context"), &["-A", "-n", "a"]).is_empty());
}

/// Its pods, by the selector that the API server has: also those that come later.
fn workload() {
    let server = ApiServer::start(Options::default());
    server.add("n", Program::script("", "0 0 0 0"));
    let labels = json!({ "matchLabels": { "app": "web" }, "matchExpressions": [
        { "key": "tier", "operator": "In", "values": ["a", "b"] }, { "key": "canary", "operator": "DoesNotExist" }] });
    for (resource, selector) in [
        ("apis/apps/v1/namespaces/shop/deployments", &labels),
        ("apis/apps/v1/namespaces/shop/daemonsets", &labels),
        ("apis/apps/v1/namespaces/shop/statefulsets", &labels),
        ("apis/apps/v1/namespaces/shop/replicasets", &labels),
        ("apis/batch/v1/namespaces/shop/jobs", &labels),
        ("api/v1/namespaces/shop/replicationcontrollers", &json!({ "app": "web" })),
    ] {
        server.put(&format!("/{resource}/web"), json!({ "spec": { "selector": selector } }));
    }
    let selector = |name: &str| {
        let before = server.executed().len();
        let arguments = ["trace", "open", "-n", "shop", "-p", name];
        let client = Launch::kubectl(&server.kubeconfig(None), &arguments).start();
        client.signal(Signal::TERM);
        summary(&client.wait_end());
        let executed = server.executed()[before].clone();
        assert!(executed.contains(&"--namespace=shop".to_owned()), "{executed:?}");
        assert!(!executed.iter().any(|word| word.starts_with("--pod")), "{executed:?}");
        executed.iter().find_map(|word| word.strip_prefix("--selector=")).expect("a selector").to_owned()
    };
    for name in ["deploy/web", "deployments.apps/web", "ds/web", "sts/web", "rs/web", "job/web"] {
        assert_eq!(selector(name), "app=web,tier in (a,b),!canary", "{name}");
    }
    assert_eq!(selector("rc/web"), "app=web");
    let missing =
        Launch::kubectl(&server.kubeconfig(None), &["trace", "open", "-n", "shop", "-p", "deploy/no"]);
    assert_fails(&missing.output(), &["deploy/no", "namespace shop", "not found"]);
}

fn order() {
    const COUNT: u32 = 5_000;
    let server = ApiServer::start(Options::default());
    let nodes = ["n-1", "n-2", "n-3"];
    for node in nodes {
        server.add(node, Program::script(&prints(COUNT), &format!("{} {COUNT} 5 2", COUNT + 7)));
    }
    let client = trace(&server, &[]).start();
    for node in nodes {
        let (name, last) = (format!("\"node\":\"{node}\""), format!("\"/{COUNT}\""));
        client.wait_line("the last event", |line| line.contains(&name) && line.contains(&last));
    }
    client.signal(Signal::INT);
    let done = client.wait_end();
    let expected: Vec<u32> = (1..=COUNT).collect();
    let numbers = numbers(&done.events());
    assert_eq!(numbers.keys().collect::<Vec<_>>(), nodes);
    assert!(numbers.values().all(|of_node| *of_node == expected), "{:?}\n{}", done.losses(), done.log());
    let all = u64::from(COUNT) * 3;
    let expected = tracer::Summary { seen: all + 21, emitted: all, filtered: 15, lost: 6 };
    assert_eq!(summary(&done), expected);
    assert_eq!(done.stderr.iter().filter(|line| line.contains("alive")).count(), 0);
}

fn max_events() {
    let server = ApiServer::start(Options::default());
    for node in ["n-1", "n-2"] {
        server.add(node, Program::script(&prints(1000), "1000 1000 0 0"));
    }
    // Most likely before all nodes are ready.
    let output = trace(&server, &["--max-events", "10"]).output().success();
    assert_eq!(output.stdout.lines().count(), 10);
    let sum = "tracer: seen 2000 emitted 10 filtered 1990 lost 0";
    assert_eq!(output.stderr.lines().last(), Some(sum), "{}", output.stderr);
    server.wait_nothing_runs(STOPPED);
}

fn timeout() {
    let server = ApiServer::start(Options::default());
    server.add("n", Program::script(&prints(3), "3 3 0 0"));
    let done = trace(&server, &["--timeout", "100ms"]).start().wait_end();
    assert_eq!(summary(&done).seen, 3);
}

fn closed_pipe() {
    let server = ApiServer::start(Options::default());
    server.add("n", Program::script(&prints(20_000), "20000 20000 0 0"));
    // It may end before all nodes are ready.
    let done = trace(&server, &[]).close_stdout_after(5).begin().wait_end();
    assert_eq!(done.stdout.len(), 5);
    let totals = summary(&done);
    assert_eq!((totals.seen, totals.lost), (20_000, 0), "{}", done.log());
    server.wait_nothing_runs(STOPPED);
}

/// Resident memory at its highest, in KiB.
fn peak(client: &Tracer) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", client.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn stalled_reader() {
    // 34 MB, more than the capacity and all pipes.
    const COUNT: u64 = 20_000;
    let server = ApiServer::start(Options::default());
    let dir = scratch::Dir::new("flood");
    let printed = dir.path().join("printed");
    let script = format!("frames random={COUNT}\necho >{}", printed.display());
    server.add("flood", Program::script(&script, &format!("{COUNT} {COUNT} 0 0")));
    server.add("quiet", Program::script("", "0 0 0 0"));
    let mut client = trace(&server, &[]).hold_stdout().start();
    wait::until("all has been taken of it", || printed.exists().then_some(()));
    let highest = peak(&client);
    client.read_on();
    client.wait_for("what was lost", |event| event["event"] == "lost" && event["lost"]["reason"] == "output");
    client.signal(Signal::INT);
    let done = client.wait_end();
    let totals = summary(&done);
    assert_eq!((totals.seen, totals.emitted), (COUNT, done.events().len() as u64), "{}", done.log());
    assert!(totals.lost >= done.told_lost() && done.told_lost() > 0, "{}", done.log());
    assert!(highest < 80 << 10, "{highest} KiB");
}

fn restart() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::script(&prints(1), "1 1 0 0"));
    server.add("n-2", Program::script("", "4 0 4 0"));
    let client = trace(&server, &[]).start();
    client.wait_open("/1");
    server.restart("n-1", Program::script("frames open=/2", "1 1 0 0"));
    client.wait_open("/2");
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(numbers(&done.events())["n-1"], [1, 2]);
    assert_eq!(
        summary(&done),
        tracer::Summary { seen: 6, emitted: 2, filtered: 4, lost: 0 },
        "{}",
        done.log()
    );
    let open: Vec<&String> = done.stderr.iter().filter(|line| line.contains("without a summary")).collect();
    assert!(matches!(open[..], [line] if line.contains("node n-1")), "{}", done.log());
}

fn joins() {
    let server = ApiServer::start(Options::default());
    server.add("n-1", Program::script("", "1 0 1 0"));
    let client = trace(&server, &[]).start();
    server.add("n-2", Program::script(&prints(2), "2 2 0 0"));
    client.wait_open("/2");
    server.remove("n-2");
    client.wait_log("that it has gone", |line| line.contains("n-2") && line.contains("was deleted"));
    server.add_waiting("n-3", "ImagePullBackOff");
    client.wait_log("what n-3 waits for", |line| line.contains("n-3") && line.contains("ImagePullBackOff"));
    server.add("n-2", Program::script(&prints(3), "3 3 0 0"));
    client.wait_open("/3");
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(numbers(&done.events())["n-2"], [1, 2, 1, 2, 3]);
    let totals = summary(&done);
    assert_eq!((totals.seen, totals.emitted, totals.lost), (6, 5, 0), "{}", done.log());
}

fn chosen() {
    let server = ApiServer::start(Options::default());
    for node in ["n-1", "n-2", "n-3"] {
        server.add(node, Program::script(&prints(1), "1 1 0 0"));
    }
    for (arguments, expected) in
        [(&["--node", "n-1,n-3"][..], &["n-1", "n-3"][..]), (&["--node=n-2", "--node=none"], &["n-2"])]
    {
        let client = trace(&server, arguments).start();
        for node in expected {
            client.wait_for("an event of each", |event| event["node"] == *node);
        }
        client.signal(Signal::INT);
        let done = client.wait_end();
        assert_eq!(numbers(&done.events()).keys().collect::<Vec<_>>(), expected);
        let missed = done.stderr.iter().any(|line| line.starts_with("tracer: node none: no agent"));
        assert_eq!(missed, arguments.contains(&"--node=none"), "{}", done.log());
    }
    let output = trace(&server, &["--node=none"]).output();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("no agent on none"), "{}", output.stderr);
}

fn failing() {
    let server = ApiServer::start(Options::default());
    server.add("well", Program::script(&prints(3), "3 3 0 0"));
    server.add("refused", Program::Refused(403, "pods is forbidden: nobody may"));
    server.add("broken", Program::Refused(500, "container not found"));
    server.add(
        "old",
        Program::Script("echo \"error: unexpected argument '--lease' found\" >&2; exit 2".into()),
    );
    server.add("text", Program::Script("echo '{\"event\":\"open\"}'; read never".into()));
    server.add("bare", Program::Script("echo 'tracer: BTF is missing: get it' >&2; exit 3".into()));
    server.add_waiting("waiting", "CrashLoopBackOff");
    let client = trace(&server, &[]).start();
    client.wait_open("/3");
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(summary(&done).seen, 3);
    for (node, problem) in [
        ("refused", "pods is forbidden: nobody may"),
        ("broken", "container not found; retrying"),
        ("old", "'--lease' found): the agent (image tracer) has another version than this command ("),
        ("text", "sends no frames: the agent (image tracer) has another version than this command ("),
        ("bare", "BTF is missing: get it"),
        ("waiting", "CrashLoopBackOff"),
    ] {
        let start = format!("tracer: node {node}: ");
        let told =
            done.stderr.iter().filter(|line| line.starts_with(&start) && line.contains(problem)).count();
        assert_eq!(told, 1, "{node}:\n{}", done.log());
    }
    assert!(done.stderr.iter().any(|line| line.starts_with("tracer: ready (")));
    // It is reported once, not by the libraries as well.
    assert!(done.stderr.iter().all(|line| line.starts_with("tracer: ")), "{}", done.log());
}

fn all_fail() {
    let server = ApiServer::start(Options::default());
    let unsupported = "echo 'tracer: BTF is missing: get it' >&2; exit 3";
    for node in ["n-1", "n-2"] {
        server.add(node, Program::Script(unsupported.into()));
    }
    let output = trace(&server, &[]).output();
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    assert_eq!(output.stderr.matches("BTF is missing: get it").count(), 2, "{}", output.stderr);
    server.add("n-3", Program::Refused(403, "forbidden"));
    let output = trace(&server, &[]).output();
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
    let output = kubectl(&server, &["list-containers"]).output();
    assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
}

fn lost_connection() {
    let server = ApiServer::start(Options::default());
    // Each run exits after one event, as if killed.
    server.add("n", Program::Script(format!("ready\n{}\nexit 137", prints(1))));
    let client = trace(&server, &[]).start();
    wait::until("it is executed a third time", || (server.executed().len() > 2).then_some(()));
    client.signal(Signal::INT);
    let done = client.wait_end();
    let totals = summary(&done);
    assert_eq!(totals.emitted, done.events().len() as u64);
    assert!(totals.emitted >= 2 && totals.lost == 0, "{}", done.log());
    assert_eq!(done.stderr.iter().filter(|line| line.contains("without a summary")).count(), 1);
}

fn heartbeats() {
    let server = ApiServer::start(Options::default());
    let script = format!("head -c 4 >/dev/null\n{}", prints(1));
    server.add("n", Program::script(&script, "1 1 0 0"));
    let client = trace(&server, &[]).start();
    client.wait_open("/1");
    client.stop();
}

fn silent() {
    let server = ApiServer::start(Options::default());
    server.add("silent", Program::Script(format!("ready\n{}\nexec sleep 1000", prints(2))));
    server.add("well", Program::script(&prints(3), "3 3 0 0"));
    let client = trace(&server, &[]).start();
    client.wait_log("that it is retried", |line| {
        line.starts_with("tracer: node silent: no data received for 15s; retrying")
    });
    client.signal(Signal::INT);
    // A run that does not stop only delays the exit.
    let done = client.wait_end();
    let totals = summary(&done);
    assert_eq!((totals.emitted, totals.lost), (done.events().len() as u64, 0), "{}", done.log());
    let open =
        |line: &&String| line.starts_with("tracer: node silent: 1 of its runs ended without a summary");
    assert_eq!(done.stderr.iter().filter(open).count(), 1, "{}", done.log());
}

fn second_signal() {
    let server = ApiServer::start(Options::default());
    server.add("n", Program::Script("ready\nexec sleep 1000".into()));
    let client = trace(&server, &["-v"]).start();
    client.signal(Signal::INT);
    client.wait_log("the first signal", |line| line.contains("SIGINT"));
    client.signal(Signal::TERM);
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(
        done.stderr.last().map(String::as_str),
        Some("tracer: interrupted; per-node totals are incomplete")
    );
}

/// Fails if there is a control character.
fn assert_harmless(done: &Finished) {
    for line in done.stdout.iter().chain(&done.stderr) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.len() < 200_000, "{} bytes", line.len());
    }
}

fn hostile(output: &[&str]) {
    let server = ApiServer::start(Options::default());
    // A record that is too short, an unknown type, containers and losses that are not JSON, and paths that look like output.
    let script = r#"
        frames open=/one raw=4,short raw=77,unknown raw=2,12345678nojson raw=9,nojson raw=9,{} raw=3,12345678
        frames "$(printf 'open=/\033[2J\n{"event":"open"}\342\200\256')" open=/two
        printf '\033]0;title\007 WARN \033[31mred\n' >&2
        echo 'tracer: node good: forged' >&2
        head -c 100000 /dev/zero | tr '\0' y >&2; echo >&2
        frames open=/last
        "#;
    server.add("bad", Program::script(script, "8 8 0 0"));
    server.add("good", Program::script("", "0 0 0 0"));
    let arguments = [&["trace", "open", "-A"], output].concat();
    let client = kubectl(&server, &arguments).start();
    client.wait_line("the last event", |line| line.contains("/last"));
    client.wait_log("the long line", |line| line.contains("yyyy"));
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_harmless(&done);
    let totals = summary(&done);
    assert_eq!((totals.emitted, totals.lost), (4, 4), "{}", done.log());
    assert_eq!(done.stderr.iter().filter(|line| line.contains("skipped malformed output")).count(), 1);
    // Its log lines have its name.
    for text in ["forged", "yyyy", "title"] {
        let told: Vec<&String> = done.stderr.iter().filter(|line| line.contains(text)).collect();
        assert!(
            !told.is_empty() && told.iter().all(|line| line.starts_with("tracer: node bad: ")),
            "{told:?}"
        );
    }
    if output.contains(&"json") {
        let events = done.events();
        assert!(events.iter().all(|event| event["node"] == "bad"), "{events:?}");
        assert_eq!(done.told_lost(), 4);
        assert_eq!(events[1]["open"]["path"], "/\u{1b}[2J\n{\"event\":\"open\"}\u{202e}");
    } else {
        // One line for each event, and the header.
        assert_eq!(done.stdout.len(), 5, "{:#?}", done.stdout);
        assert!(
            done.stdout[1..].iter().all(|line| line.split_whitespace().any(|word| word == "bad")),
            "{:#?}",
            done.stdout
        );
    }
}

fn hostile_closing() {
    let server = ApiServer::start(Options::default());
    let most = u64::MAX;
    server.add("n", Program::script(&prints(3), &format!("0 1 {most} {most}")));
    let client = trace(&server, &[]).start();
    client.wait_open("/3");
    client.signal(Signal::INT);
    let done = client.wait_end();
    assert_eq!(done.status.code(), Some(0));
    let expected = format!("tracer: seen {} emitted 3 filtered {most} lost {most}", u128::from(most) * 2 + 3);
    let closing = done.stderr.last().unwrap();
    assert_eq!(closing.split(" (").next(), Some(&*expected), "{closing}");
}

fn hostile_list() {
    let server = ApiServer::start(Options::default());
    let row = |id: &str| {
        json!({
            "node": "good", "k8s": null, "pid": 1, "startedAt": null,
            "container": {"id": id, "runtime": "runc", "type": "container", "image": null, "source": "state"},
        })
        .to_string()
    };
    // 30 MB, of which 16 may wait.
    let many = row(&"x".repeat(1000));
    let script = format!("frames hello=n 'listed=1,{}' 'listed=30000,{many}'", row("\u{1b}[2J"));
    server.add("bad", Program::Script(script));
    let client = kubectl(&server, &["list-containers", "-A", "-o", "json"]);
    let output = client.output().success();
    let rows: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.iter().all(|row| row["node"] == "bad"));
    assert!((10_000..20_000).contains(&rows.len()), "{}", rows.len());
    assert!(!output.stdout.contains('\u{1b}'));
    assert!(output.stderr.contains("the list is too long"), "{}", output.stderr);
}

fn no_agent() {
    let server = ApiServer::start(Options::default());
    for command in [&["trace", "open"][..], &["list-containers"], &["doctor"]] {
        assert_fails(&kubectl(&server, command).output(), &["no agent", NAMESPACE, "kubectl tracer deploy"]);
    }
    server.add("n", Program::script("", "0 0 0 0"));
    let output = kubectl(&server, &["doctor", "--tracer-namespace=elsewhere"]).output();
    assert_fails(&output, &["no agent", "namespace elsewhere"]);
}

fn usage() {
    let refused: BTreeSet<Option<i32>> = [
        &["trace", "close"][..],
        &["trace", "open", "-n", "a,"],
        &["trace", "open", "-n", "Shop_X"],
        &["trace", "open", "-p", "deploy/web,web-0"],
        &["trace", "open", "-A", "-p", "deploy/web"],
        &["trace", "open", "-o", "xml"],
        &["trace", "open", "-l", "in in in"],
        &["trace", "open", "--pid", "x"],
        &["list-containers", "-o", "custom-columns=COMM"],
    ]
    .map(|arguments| Launch::kubectl(Path::new("/nowhere"), arguments).output().status.code())
    .into();
    assert_eq!(refused, [Some(2)].into());
}
