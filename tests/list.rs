//! `tracer list-containers`: what runs, and with `-w` what becomes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use harness::containerd::IMAGE;
use harness::engine::Client;
use harness::need::{self, CONTAINERD, CRUN, DOCKER, PODMAN, RUNC};
use harness::podman::Podman;
use harness::runtime::{Kind, KnownRoot};
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT, Output};
use harness::{
    Bundle, Finished, Launch, Pod, Runtime, Suite, Tracer, containerd, docker, nested, shape, tracer,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What waits until it is ended from outside.
const WAIT: &str = "read x < /end";

fn main() -> ExitCode {
    Suite::new()
        .test("runc_container", RUNC, || runs(Kind::Runc))
        .test("crun_container", CRUN, || runs(Kind::Crun))
        .test("created_and_not_started", RUNC, created)
        .test("paused", RUNC, paused)
        .test("one_that_has_ended_is_not_listed", RUNC, ended)
        .test("every_output", RUNC, outputs)
        .test("filters", RUNC, filters)
        .test("an_empty_list", RUNC, empty)
        .test("nobody_reads", RUNC, closed_pipe)
        .test("wrong_usage", RUNC, usage)
        .test("pod_of_containerd", CONTAINERD, pod)
        .test("docker_container", DOCKER, || engine(&docker::shared(), "docker"))
        .test("podman_container", PODMAN, || engine(&Podman::new(), "podman"))
        .test("container_in_a_container", RUNC, in_kind)
        .test("gvisor_is_said", RUNC, gvisor)
        .test("shim_of_gvisor", RUNC, || shim("containerd-shim-runsc-v1", "gvisor"))
        .test("shim_of_kata", RUNC, || shim("containerd-shim-kata-v2", "kata"))
        .test("a_bundle_that_is_gone", RUNC, no_bundle)
        .test("watch_one_that_is_there_one_that_comes_both_end", RUNC, watch)
        .test("watch_a_container_from_create_to_delete", RUNC, watch_created)
        .test("watch_one_that_lives_for_milliseconds", RUNC, watch_short)
        .test("watch_exit_code_or_signal_with_the_end", RUNC, watch_exit)
        .test("watch_failed_shows_containers_that_failed", RUNC, watch_failed)
        .test("watch_a_hundred_in_a_row", RUNC, watch_many)
        .test("watch_many_at_once", RUNC, watch_at_once)
        .test("watch_execs_are_no_containers", RUNC, watch_exec)
        .test("watch_ends_by_itself_or_by_a_signal", RUNC, watch_ends)
        .test("watch_ends_although_nobody_reads", RUNC, watch_held)
        .test("watch_labels_arrive", CONTAINERD, watch_labels)
        .test("watch_execs_of_a_pod_are_no_containers", CONTAINERD, watch_pod_exec)
        .run()
}

/// `list-containers` with these arguments, to its end.
#[track_caller]
fn run(arguments: &[&str]) -> Output {
    let mut words = vec!["list-containers"];
    if !arguments.contains(&"--runtime-endpoint") {
        words.extend(["--runtime-endpoint", "none"]);
    }
    words.extend(arguments);
    Launch::new(&words).output().success()
}

/// What `list-containers -o json` shows.
#[track_caller]
fn list(arguments: &[&str]) -> Vec<Value> {
    let output = run(&[&["-o", "json"], arguments].concat());
    let listed: Vec<Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for container in &listed {
        shape::check_listed(container, false);
    }
    listed
}

/// The only one of the namespace.
#[track_caller]
fn only(namespace: &str) -> Value {
    let mut listed = list(&["-n", namespace]);
    assert_eq!(listed.len(), 1, "{listed:#?}");
    listed.remove(0)
}

/// Those of what is listed that have this id.
fn by_id(listed: &[Value], id: &str) -> Vec<Value> {
    listed.iter().filter(|container| container["container"]["id"] == *id).cloned().collect()
}

/// The time as `startedAt` writes it, so that it can be compared as text, this long ago.
#[track_caller]
fn time(ago: &str) -> String {
    let mut date = Command::new("date");
    date.args(["--utc", "--date", ago, "+%FT%T.%NZ"]);
    wait::output(&mut date, LIMIT).success().stdout.trim().to_owned()
}

/// A container that waits, with its runtime and the link through which it is found. The bundle outlives the runtime.
struct Waiting {
    _state: KnownRoot,
    runtime: Runtime,
    bundle: Bundle,
}

impl Waiting {
    #[track_caller]
    fn new(kind: Kind, pod: &Pod) -> Self {
        let bundle = Bundle::script(pod, WAIT).with_fifo("/end");
        let runtime = Runtime::new(kind);
        let state = KnownRoot::new(&runtime);
        runtime.run_detached(&bundle);
        Self { _state: state, runtime, bundle }
    }

    #[track_caller]
    fn pid(&self) -> i32 {
        self.runtime.init_pid(&self.bundle).expect("it waits")
    }

    #[track_caller]
    fn end(&self) {
        self.bundle.release("/end");
        self.runtime.wait_stopped(&self.bundle);
    }
}

/// Fails unless it is this container, found through its state.
#[track_caller]
fn assert_found(listed: &Value, bundle: &Bundle, pid: i32) {
    assert_eq!(listed["k8s"], bundle.k8s(), "in {listed}");
    let expected = json!({
        "id": bundle.id,
        "runtime": "containerd",
        "type": "container",
        "image": bundle.pod.as_ref().unwrap().image,
        "source": "state",
    });
    assert_eq!(listed["container"], expected, "in {listed}");
    assert_eq!(listed["pid"], pid, "in {listed}");
}

/// Fails unless it started between two times, give or take what the kernel's clocks differ.
#[track_caller]
fn assert_started(listed: &Value, after: &str, before: &str) {
    let started = listed["startedAt"].as_str().unwrap();
    assert!((after..=before).contains(&started), "not within {after} and {before}: {listed}");
}

fn runs(kind: Kind) {
    let before = time("1 second ago");
    let waiting = Waiting::new(kind, &Pod::new("web", "app"));
    let after = time("now");
    let pod = waiting.bundle.pod.as_ref().unwrap();
    let listed = only(&pod.namespace);
    assert_found(&listed, &waiting.bundle, waiting.pid());
    assert_started(&listed, &before, &after);
}

fn created() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "true");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.create(&bundle);
    assert_found(&only(&pod.namespace), &bundle, runtime.init_pid(&bundle).expect("it waits"));
    runtime.delete(&bundle);
}

fn paused() {
    let waiting = Waiting::new(Kind::Runc, &Pod::new("web", "app"));
    let call = |command: &str| {
        let mut runc = waiting.runtime.command();
        wait::output(runc.args([command, &waiting.bundle.id]), LIMIT).success();
    };
    let pod = waiting.bundle.pod.as_ref().unwrap();
    call("pause");
    let listed = list(&["-n", &pod.namespace]);
    // Nothing that is paused can be ended.
    call("resume");
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_found(&listed[0], &waiting.bundle, waiting.pid());
}

/// Its state is still there.
fn ended() {
    let waiting = Waiting::new(Kind::Runc, &Pod::new("web", "app"));
    waiting.end();
    assert_eq!(list(&["-n", &waiting.bundle.pod.as_ref().unwrap().namespace]), Vec::<Value>::new());
}

fn outputs() {
    let waiting = Waiting::new(Kind::Runc, &Pod::new("web", "app"));
    let pod = waiting.bundle.pod.as_ref().unwrap();
    let (pid, id) = (waiting.pid().to_string(), &waiting.bundle.id);
    let show = |output: &str, further: &[&str]| {
        let arguments = ["-n", &pod.namespace, "--node", "n1", "-o", output];
        run(&[&arguments[..], further].concat()).stdout
    };
    let table = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let narrow = table(&show("columns", &[]));
    let header =
        ["NAMESPACE", "POD", "CONTAINER", "TYPE", "RUNTIME", "CONTAINERID", "PID", "IMAGE", "SOURCE", "AGE"];
    assert_eq!(narrow[0], header);
    let row = [&pod.namespace, "web", "app", "container", "containerd", id, &pid, &pod.image, "state"];
    assert_eq!(narrow[1][..9], row);
    assert!(narrow[1][9].ends_with('s'), "it is some seconds old: {narrow:?}");
    assert_eq!(narrow.len(), 2);
    let wide = table(&show("wide", &[]));
    let header = [&["NODE"], &header[..], &["ISOLATION", "PODUID", "LABELS"]].concat();
    assert_eq!(wide[0], header);
    assert_eq!(wide[1][0], "n1");
    assert_eq!(wide[1][1..10], row);
    assert_eq!(wide[1][11..], ["-", &pod.uid, "<unknown>"]);
    let bare = show("columns", &["--no-headers"]);
    assert_eq!(table(&bare)[0][..9], row);
    assert_eq!(bare.lines().count(), 1);
    let custom = show("custom-columns=PID,containerid,PodUID", &[]);
    assert_eq!(table(&custom), [vec!["PID", "CONTAINERID", "PODUID"], vec![&pid, id, &pod.uid]]);
    // Each run reads the clock anew, and says another last digit.
    let document = |text: &str| {
        let mut document: Value = serde_json::from_str(text).unwrap();
        document.as_object_mut().unwrap().remove("startedAt").unwrap();
        document
    };
    let plain = document(&show("json", &[]));
    assert_found(&plain, &waiting.bundle, waiting.pid());
    assert_eq!(plain["node"], "n1");
    let pretty = show("jsonpretty", &[]);
    assert_eq!(document(&pretty), plain);
    assert!(pretty.lines().count() > 5, "{pretty}");
    let yaml = show("yaml", &[]);
    for line in ["---", "node: n1", &format!("  id: {id}"), &format!("pid: {pid}")] {
        assert!(yaml.lines().any(|found| found == line), "no line {line:?} in {yaml}");
    }
}

fn filters() {
    let (a, b) = (unique("t"), unique("t"));
    let containers = [
        ('A', Pod::inside(&a, "web", "app")),
        ('B', Pod::inside(&a, "db", "app")),
        ('C', Pod::inside(&b, "web", "side")),
    ]
    .map(|(letter, pod)| (letter, Waiting::new(Kind::Runc, &pod)));
    let both = format!("{a},{b}");
    let not_a = format!("!{a}");
    let table: &[(&[&str], &str)] = &[
        (&[], "ABC"),
        (&["-A"], "ABC"),
        (&["-n", &a], "AB"),
        (&["-n", &both], "ABC"),
        (&["-n", &not_a], "C"),
        (&["-n", &both, "-p", "web"], "AC"),
        (&["-n", &both, "-p", "!web"], "B"),
        (&["-n", &both, "-c", "app"], "AB"),
        (&["-n", &both, "-c", "!app"], "C"),
        (&["-n", &both, "-p", "web", "-c", "side"], "C"),
        (&["-n", &a, "-A"], "ABC"),
        // Nobody knows their labels.
        (&["-n", &both, "-l", "app=web"], ""),
        (&["-n", &both, "-l", "!app"], ""),
    ];
    for (arguments, wanted) in table {
        let listed = list(arguments);
        let letters: String = containers
            .iter()
            .filter(|(_, waiting)| !by_id(&listed, &waiting.bundle.id).is_empty())
            .map(|(letter, _)| *letter)
            .collect();
        assert_eq!(letters, *wanted, "{arguments:?}");
        assert!(listed.iter().all(|one| by_id(&listed, one["container"]["id"].as_str().unwrap()).len() == 1));
    }
    // What is not listed although it may be asked for is said.
    let output = run(&["-n", &a, "-l", "!app"]);
    assert!(output.stderr.contains("containers are left out"), "{output:?}");
}

fn empty() {
    let namespace = unique("t");
    assert_eq!(list(&["-n", &namespace]), Vec::<Value>::new());
    let columns = run(&["-n", &namespace]);
    assert!(columns.stdout.starts_with("NAMESPACE ") && columns.stdout.lines().count() == 1, "{columns:?}");
    for arguments in [&["--no-headers"][..], &["-o", "jsonpretty"], &["-o", "yaml"]] {
        let output = run(&[&["-n", &namespace], arguments].concat());
        assert_eq!(output.stdout, "", "{arguments:?}");
    }
}

/// Nobody can read what is written, from the start.
fn closed_pipe() {
    for output in ["columns", "json"] {
        let _waiting = Waiting::new(Kind::Runc, &Pod::new("web", "app"));
        let mut child = wait::spawn(
            Command::new(tracer::binary())
                .args(["list-containers", "--runtime-endpoint", "none", "-o", output])
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        drop(child.stdout.take());
        let status = wait::exit_of(&mut child, LIMIT).expect("an end");
        assert_eq!(status.code(), Some(0));
    }
}

fn usage() {
    for (arguments, told) in [
        (&["-o", "xml"][..], "jsonpretty"),
        (&["-o", "custom-columns=COMM"], "CONTAINERID"),
        (&["-o", "custom-columns=EVENT"], "EVENT"),
        (&["-l", "a in b"], "--selector"),
        (&["--runtime-endpoint", "tcp://127.0.0.1:1"], "unix:///PATH"),
        (&["--runtime-name", "/usr/bin/runc"], "--runtime-name"),
        (&["--max-events", "1"], "--max-events"),
        (&["--timeout", "soon"], "--timeout"),
        (&["something"], "something"),
    ] {
        let output = Launch::new(&[&["list-containers"], arguments].concat()).output();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(told), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "{arguments:?}");
    }
}

/// A sandbox and two containers, found through the shim; with the engine's word for it, each is listed once, with
/// the pod's labels.
fn pod() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let before = time("1 second ago");
    let pod = containerd.pod(&namespace, "web");
    let app = pod.container("app", &["/bin/sleep", "1000"]);
    let side = pod.container("side", &["/bin/sleep", "1000"]);
    let after = time("now");
    let socket = containerd.socket().display().to_string();
    for (endpoint, labels) in [("none", Value::Null), (&*socket, json!({"app": "web"}))] {
        let listed = list(&["-n", &namespace, "--runtime-endpoint", endpoint]);
        assert_eq!(listed.len(), 3, "{listed:#?}");
        for (id, name) in [(&pod.id, None), (&app, Some("app")), (&side, Some("side"))] {
            let found = by_id(&listed, id);
            assert_eq!(found.len(), 1, "{id} in {listed:#?}");
            let found = &found[0];
            let k8s = json!({
                "namespace": namespace, "pod": "web", "podUid": pod.uid, "container": name, "labels": labels,
            });
            assert_eq!(found["k8s"], k8s, "in {found}");
            assert_eq!(found["container"]["runtime"], "containerd", "in {found}");
            assert_eq!(found["container"]["source"], "state", "in {found}");
            let kind = if name.is_some() { "container" } else { "sandbox" };
            assert_eq!(found["container"]["type"], kind, "in {found}");
            if name.is_some() {
                assert_eq!(found["container"]["image"], IMAGE, "in {found}");
            }
            assert_eq!(found["pid"], containerd.init_pid(id), "in {found}");
            assert_started(found, &before, &after);
        }
        let wide = run(&["-n", &namespace, "--runtime-endpoint", endpoint, "-o", "custom-columns=LABELS"]);
        let shown = if labels.is_null() { "<unknown>" } else { "app=web" };
        assert_eq!(wide.stdout.lines().skip(1).collect::<Vec<_>>(), [shown; 3]);
    }
}

fn engine(engine: &Client, runtime: &str) {
    let name = unique("listed");
    let before = time("1 second ago");
    let container = engine.run_detached(&[&format!("--name={name}")], &["/bin/sleep", "1000"]);
    let after = time("now");
    let inspect = ["inspect", "--format", "{{.State.Pid}}", &container.id];
    let pid = wait::output(engine.command().args(inspect), LIMIT).success().stdout;
    let found = by_id(&list(&[]), &container.id);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["k8s"], Value::Null);
    let expected = json!({
        "id": container.id, "runtime": runtime, "type": "container", "image": null, "source": "state",
        "name": name,
    });
    assert_eq!(found[0]["container"], expected);
    assert_eq!(found[0]["pid"].to_string(), pid.trim());
    assert_started(&found[0], &before, &after);
    // Ids that an engine made up are shown by their first digits.
    let columns = run(&[]).stdout;
    let short = format!(" {} ", &container.id[..12]);
    assert_eq!(columns.lines().filter(|line| line.contains(&short)).count(), 1, "{columns}");
    assert!(run(&["-o", "wide"]).stdout.contains(&container.id));
}

/// As on a node of kind: the inner container has its pod, and the outer one is named.
fn in_kind() {
    let pod = Pod::new("web", "app");
    let inner = Bundle::script(&pod, WAIT).with_fifo("/end");
    let outer = nested::privileged(None, "until read x < /end; do :; done", &[&inner]).with_fifo("/end");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&outer);
    let start = format!(
        "runc run --detach --bundle {} {} < /dev/null > /tmp/log 2>&1",
        nested::path(&inner),
        inner.id
    );
    runtime.exec(&outer, &["/bin/sh", "-c", &start]).success();
    let listed = list(&[]);
    let found = by_id(&listed, &inner.id);
    assert_eq!(found.len(), 1, "{listed:#?}");
    assert_eq!(found[0]["k8s"], inner.k8s());
    assert_eq!(found[0]["container"]["outer"]["id"], outer.id, "in {}", found[0]);
    assert!(found[0]["pid"].is_u64(), "in {}", found[0]);
    let around = by_id(&listed, &outer.id);
    assert_eq!(around.len(), 1, "{listed:#?}");
    assert_eq!(around[0]["k8s"], Value::Null);
    assert_eq!(around[0]["container"].get("outer"), None, "in {}", around[0]);
    assert_eq!(around[0]["pid"], runtime.init_pid(&outer).expect("it waits"));
    assert_eq!(only(&pod.namespace)["container"]["id"], inner.id);
}

/// runc by gVisor's name: what it runs is not gVisor's, but it is the name that tells.
fn gvisor() {
    let dir = scratch::Dir::new("gvisor");
    let program = dir.path().join("runsc");
    fs::copy(need::find("runc").unwrap(), &program).unwrap();
    let namespace = unique("t");
    let bundles = ["one", "two"]
        .map(|name| Bundle::script(&Pod::inside(&namespace, name, "app"), WAIT).with_fifo("/end"));
    let runtime = Runtime::runc().called(&program);
    let watcher = Watcher::json(&namespace);
    let wide = Tracer::start(&["list-containers", "-w", "-n", &namespace, "-o", "wide", "--no-headers"]);
    for bundle in &bundles {
        runtime.run_detached(bundle);
        let added = watcher.wait("added", &bundle.id);
        assert_eq!(added["container"]["isolation"], "gvisor", "in {added}");
        let line = wide.wait_line("the container", |line| line.contains(&bundle.id));
        assert!(line.split_whitespace().any(|word| word == "gvisor"), "{line}");
    }
    for done in [watcher.stop(), stop(wide)] {
        let said = done.stderr.iter().filter(|line| line.contains("gVisor")).count();
        assert_eq!(said, 1, "{}", done.log());
    }
}

/// What watches over containers that this kernel does not see inside of: a shell by its name, with a child.
fn shim(name: &str, isolation: &str) {
    let (dir, id, pod) = (scratch::Dir::new("shim"), unique("tracer-test"), Pod::new("web", "app"));
    let (bundle, program) = (dir.path().join(&id), dir.path().join(name));
    fs::create_dir(&bundle).unwrap();
    fs::write(bundle.join("config.json"), Bundle::script(&pod, "true").config.to_string()).unwrap();
    fs::copy("/bin/sh", &program).unwrap();
    let script = "sleep 1000 & echo $! > init.pid.new; mv init.pid.new init.pid; wait";
    let mut shim = wait::spawn(
        Command::new(&program)
            .args(["-c", script, "shim", "-namespace", "k8s.io", "-id", &id])
            .current_dir(&bundle)
            .stdin(Stdio::null())
            .stdout(Stdio::null()),
    );
    let child = wait::until("its child", || fs::read_to_string(bundle.join("init.pid")).ok());
    let child: i32 = child.trim().parse().unwrap();
    let shown = run(&["-n", &pod.namespace, "-o", "json"]);
    let wide = run(&["-n", &pod.namespace, "-o", "wide", "--no-headers"]);
    rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    wait::exit_of(&mut shim, LIMIT).expect("it waits for its child only");
    let listed: Vec<Value> =
        shown.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(listed.len(), 1, "{listed:#?}");
    shape::check_listed(&listed[0], false);
    assert_eq!(listed[0]["container"]["id"], id);
    assert_eq!(listed[0]["container"]["isolation"], isolation);
    assert_eq!(listed[0]["k8s"]["pod"], "web");
    let pid = if isolation == "kata" { json!(shim.id()) } else { json!(child) };
    assert_eq!(listed[0]["pid"], pid, "of a machine, its shim's");
    assert!(wide.stdout.split_whitespace().any(|word| word == isolation), "{wide:?}");
    // Once for each kind; the other one's test may run meanwhile.
    let kind = if isolation == "kata" { "Kata" } else { "gVisor" };
    let is_said = |line: &&str| line.contains("what happens inside is not seen") && line.contains(kind);
    assert_eq!(shown.stderr.lines().filter(is_said).count(), 1, "{shown:?}");
}

/// Nobody knows its pod: it is listed without, unless its pod is asked for.
fn no_bundle() {
    let waiting = Waiting::new(Kind::Runc, &Pod::new("web", "app"));
    fs::remove_file(waiting.bundle.config_path()).unwrap();
    let found = by_id(&list(&[]), &waiting.bundle.id);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["k8s"], Value::Null);
    let expected = json!({
        "id": waiting.bundle.id,
        "runtime": "runc",
        "type": "container",
        "image": null,
        "source": "state",
        "why": "unreadable",
    });
    assert_eq!(found[0]["container"], expected);
    assert_eq!(found[0]["pid"], waiting.pid());
    let asked = run(&["-n", &waiting.bundle.pod.as_ref().unwrap().namespace, "-o", "json"]);
    assert_eq!(asked.stdout, "");
    assert!(asked.stderr.contains("containers are left out"), "{asked:?}");
}

/// `list-containers -w -o json` of a namespace.
struct Watcher(Tracer);

impl Watcher {
    #[track_caller]
    fn json(namespace: &str) -> Self {
        Self::with(namespace, &["--runtime-endpoint", "none"])
    }

    #[track_caller]
    fn with(namespace: &str, further: &[&str]) -> Self {
        let arguments = ["list-containers", "--watch", "-o", "json", "-n", namespace];
        Self(Tracer::start(&[&arguments[..], further].concat()))
    }

    /// The first time that this happened to this container.
    #[track_caller]
    fn wait(&self, event: &str, id: &str) -> Value {
        self.0.wait_for(&format!("{id} {event}"), |record| {
            record["event"] == *event && record["container"]["id"] == *id
        })
    }

    /// Ends it by SIGTERM.
    #[track_caller]
    fn stop(self) -> Finished {
        stop(self.0)
    }
}

#[track_caller]
fn stop(tracer: Tracer) -> Finished {
    tracer.signal(Signal::TERM);
    let done = tracer.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.log());
    done
}

/// What happened to a container, in order.
#[track_caller]
fn life<'a>(records: &'a [Value], id: &str) -> Vec<&'a str> {
    let own = records.iter().filter(|record| record["container"]["id"] == *id);
    own.map(|record| {
        shape::check_listed(record, true);
        record["event"].as_str().unwrap()
    })
    .collect()
}

fn watch() {
    let namespace = unique("t");
    let there = Waiting::new(Kind::Runc, &Pod::inside(&namespace, "there", "app"));
    let _other = Waiting::new(Kind::Runc, &Pod::new("other", "app"));
    let watcher = Watcher::json(&namespace);
    assert_found(&watcher.wait("added", &there.bundle.id), &there.bundle, there.pid());
    let before = time("1 second ago");
    let comes = Waiting::new(Kind::Runc, &Pod::inside(&namespace, "comes", "app"));
    let added = watcher.wait("added", &comes.bundle.id);
    comes.bundle.assert_names(&added);
    assert_eq!(added["pid"], comes.pid());
    assert_started(&added, &before, &time("now"));
    for waiting in [&comes, &there] {
        let pid = waiting.pid();
        waiting.end();
        assert_eq!(watcher.wait("deleted", &waiting.bundle.id)["pid"], pid);
    }
    let records = watcher.stop().records();
    assert_eq!(records.len(), 4, "{records:#?}");
    for waiting in [&comes, &there] {
        assert_eq!(life(&records, &waiting.bundle.id), ["added", "deleted"]);
    }
}

/// One that is created while it is watched comes with its start: it is no more than its runtime before.
fn watch_created() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, WAIT).with_fifo("/end");
    let runtime = Runtime::runc();
    let watcher = Watcher::json(&pod.namespace);
    runtime.create(&bundle);
    let pid = runtime.init_pid(&bundle).expect("it waits");
    runtime.start(&bundle);
    assert_eq!(watcher.wait("added", &bundle.id)["pid"], pid);
    bundle.release("/end");
    runtime.wait_stopped(&bundle);
    assert_eq!(watcher.wait("deleted", &bundle.id)["pid"], pid);
    assert_eq!(life(&watcher.stop().records(), &bundle.id), ["added", "deleted"]);
}

fn watch_short() {
    let pod = Pod::new("short", "app");
    let watcher = Watcher::json(&pod.namespace);
    let bundle = Bundle::pod(harness::Dialect::Containerd, &pod, &["/bin/true"]);
    Runtime::runc().run(&bundle);
    bundle.assert_names(&watcher.wait("deleted", &bundle.id));
    assert_eq!(life(&watcher.stop().records(), &bundle.id), ["added", "deleted"]);
}

/// Code or signal of the first process, also of a container that ran before; what other processes exited with does not
/// count.
fn watch_exit() {
    let namespace = unique("t");
    let pod = |name| Pod::inside(&namespace, name, "app");
    let there = Bundle::script(&pod("there"), &format!("(exit 3); {WAIT}; exit 7")).with_fifo("/end");
    let runtime = Runtime::runc();
    let _known = KnownRoot::new(&runtime);
    runtime.create(&there);
    runtime.start(&there);
    let watcher = Watcher::json(&namespace);
    assert_eq!(watcher.wait("added", &there.id).get("exitCode"), None);
    there.release("/end");
    let killed = Bundle::script(&pod("killed"), WAIT).with_fifo("/end");
    runtime.create(&killed);
    runtime.start(&killed);
    watcher.wait("added", &killed.id);
    wait::output(runtime.command().args(["kill", &killed.id, "KILL"]), LIMIT).success();
    let good = Bundle::script(&pod("good"), "(exit 3); exit 0");
    runtime.run(&good);
    for (id, code, signal) in [
        (&there.id, json!(7), Value::Null),
        (&killed.id, Value::Null, json!("SIGKILL")),
        (&good.id, json!(0), Value::Null),
    ] {
        let deleted = watcher.wait("deleted", id);
        shape::check_listed(&deleted, true);
        assert_eq!((&deleted["exitCode"], &deleted["exitSignal"]), (&code, &signal), "{deleted:#}");
    }
    watcher.stop();
}

fn watch_failed() {
    let namespace = unique("t");
    let runtime = Runtime::runc();
    let watcher = Watcher::with(&namespace, &["--failed", "--runtime-endpoint", "none"]);
    let [good, bad] = ["exit 0", "exit 1"].map(|script| {
        let bundle = Bundle::script(&Pod::inside(&namespace, "web", "app"), script);
        runtime.run(&bundle);
        bundle.id.clone()
    });
    assert_eq!(watcher.wait("deleted", &bad)["exitCode"], 1);
    let records = watcher.stop().records();
    assert_eq!(life(&records, &bad), ["deleted"]);
    assert!(life(&records, &good).is_empty());
}

/// One after the other: each comes before it goes, and goes before the next comes.
fn watch_many() {
    const COUNT: usize = 100;
    let namespace = unique("t");
    let runtime = Runtime::runc();
    let first =
        Bundle::pod(harness::Dialect::Containerd, &Pod::inside(&namespace, "pod-0", "app"), &["/bin/true"]);
    let others = (1..COUNT)
        .map(|index| first.sibling(&Pod::inside(&namespace, &format!("pod-{index}"), "app"), &["/bin/true"]));
    let bundles: Vec<Bundle> = others.collect();
    let all: Vec<&Bundle> = std::iter::once(&first).chain(&bundles).collect();
    let watcher = Watcher::json(&namespace);
    for bundle in &all {
        runtime.run(bundle);
    }
    watcher.wait("deleted", &all[COUNT - 1].id);
    let done = watcher.stop();
    let records = done.records();
    let told: Vec<(&str, &str)> = records
        .iter()
        .map(|record| (record["event"].as_str().unwrap(), record["container"]["id"].as_str().unwrap()))
        .collect();
    let wanted: Vec<(&str, &str)> =
        all.iter().flat_map(|bundle| [("added", &*bundle.id), ("deleted", &*bundle.id)]).collect();
    assert_eq!(told, wanted, "{}", done.log());
    for (record, bundle) in records.iter().zip(all.iter().flat_map(|bundle| [bundle, bundle])) {
        bundle.assert_names(record);
    }
}

/// As fast as four workers can.
fn watch_at_once() {
    const WORKERS: usize = 4;
    const EACH: usize = 50;
    let namespace = unique("t");
    let watcher = Watcher::json(&namespace);
    let bundles: Vec<Bundle> = std::thread::scope(|scope| {
        let workers = [(); WORKERS].map(|()| {
            scope.spawn(|| {
                let runtime = Runtime::runc();
                let pod = || Pod::inside(&namespace, &unique("pod"), "app");
                let first = Bundle::pod(harness::Dialect::Containerd, &pod(), &["/bin/true"]);
                let others: Vec<Bundle> = (1..EACH).map(|_| first.sibling(&pod(), &["/bin/true"])).collect();
                let bundles: Vec<Bundle> = std::iter::once(first).chain(others).collect();
                for bundle in &bundles {
                    runtime.run(bundle);
                }
                bundles
            })
        });
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let ends = || watcher.0.events().iter().filter(|record| record["event"] == "deleted").count();
    wait::until("the end of each", || (ends() == WORKERS * EACH).then_some(()));
    let done = watcher.stop();
    let records = done.records();
    assert_eq!(records.len(), 2 * WORKERS * EACH, "{}", done.log());
    for bundle in &bundles {
        assert_eq!(life(&records, &bundle.id), ["added", "deleted"]);
    }
    for record in &records {
        let bundle = bundles.iter().find(|bundle| bundle.owns(record)).unwrap();
        bundle.assert_names(record);
    }
}

/// Into one that was there, and into one that has come.
fn watch_exec() {
    let namespace = unique("t");
    let there = Waiting::new(Kind::Runc, &Pod::inside(&namespace, "there", "app"));
    let watcher = Watcher::json(&namespace);
    let comes = Waiting::new(Kind::Runc, &Pod::inside(&namespace, "comes", "app"));
    for waiting in [&there, &comes] {
        waiting.runtime.exec(&waiting.bundle, &["/bin/true"]).success();
        waiting.end();
        watcher.wait("deleted", &waiting.bundle.id);
    }
    let records = watcher.stop().records();
    assert_eq!(records.len(), 4, "{records:#?}");
}

/// The shim shows the way to one that was there, and says nothing of the runtime's state directory.
fn watch_pod_exec() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let there = containerd.pod(&namespace, "there");
    let id = there.container("app", &["/bin/sleep", "1000"]);
    let watcher = Watcher::json(&namespace);
    for _ in 0..3 {
        assert_eq!(there.exec(&id, &["/bin/true"]).0, 0);
    }
    let comes = containerd.pod(&namespace, "comes");
    watcher.wait("added", &comes.id);
    let records = watcher.stop().records();
    assert_eq!(records.len(), 3, "{records:#?}");
}

fn watch_ends() {
    let namespace = unique("t");
    let watch = ["list-containers", "-w", "-n", &namespace, "-o", "json"];
    let by_timeout = Tracer::start(&[&watch[..], &["--timeout", "300ms"]].concat()).wait_end();
    let interrupted = Tracer::start(&watch);
    interrupted.signal(Signal::INT);
    let terminated = Tracer::start(&watch);
    terminated.signal(Signal::TERM);
    for done in [by_timeout, interrupted.wait_end(), terminated.wait_end()] {
        assert_eq!(done.status.code(), Some(0), "{}", done.log());
        assert_eq!(done.stdout, Vec::<String>::new());
        let [ready] = &done.stderr[..] else { panic!("{}", done.log()) };
        let nothing = format!("tracer: ready (nothing matches -n {namespace} yet; ");
        assert!(ready.starts_with(&nothing), "{ready}");
    }
    // Nobody reads any more: it ends when it has something to say.
    let pod = Pod::inside(&namespace, "web", "app");
    let closed = Launch::new(&watch).close_stdout_after(1).start();
    let runtime = Runtime::runc();
    for _ in 0..2 {
        runtime.run(&Bundle::script(&pod, "true"));
    }
    assert_eq!(closed.wait_end().status.code(), Some(0));
}

/// A reader that takes nothing: more is to be said than a pipe holds.
fn watch_held() {
    let namespace = unique("t");
    let text = "x".repeat(30_000);
    let bundle = |index: usize| {
        let pod = Pod::inside(&namespace, &format!("pod-{index}"), "app");
        Bundle::pod(harness::Dialect::Containerd, &Pod { image: text.clone(), ..pod }, &["/bin/true"])
    };
    let watch = ["list-containers", "-w", "-n", &namespace, "-o", "json"];
    let held = Launch::new(&watch).hold_stdout().start();
    let runtime = Runtime::runc();
    for index in 0..4 {
        runtime.run(&bundle(index));
    }
    held.signal(Signal::TERM);
    wait::until("its end", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", held.pid())).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')).then_some(())
    });
    assert_eq!(held.wait_end().status.code(), Some(0));
}

/// A bundle of containerd has no labels: the engine tells them when it knows the pod itself.
fn watch_labels() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let socket = containerd.socket().display().to_string();
    let watcher = Watcher::with(&namespace, &["--runtime-endpoint", &socket]);
    let selected = Watcher::with(&namespace, &["--runtime-endpoint", &socket, "-l", "app=web"]);
    let other = Watcher::with(&namespace, &["--runtime-endpoint", &socket, "-l", "app!=web"]);
    let id = {
        let pod = containerd.pod(&namespace, "web");
        let modified = watcher.wait("modified", &pod.id);
        assert_eq!(modified["k8s"]["labels"], json!({"app": "web"}));
        assert_eq!(modified["changed"], json!(["labels"]));
        assert_eq!(watcher.wait("added", &pod.id)["k8s"]["labels"], Value::Null);
        // Of its first container they are known by then.
        let app = pod.container("app", &["/bin/sleep", "1000"]);
        assert_eq!(watcher.wait("added", &app)["k8s"]["labels"], json!({"app": "web"}));
        for id in [&pod.id, &app] {
            assert_eq!(selected.wait("added", id)["k8s"]["labels"], json!({"app": "web"}));
        }
        pod.id.clone()
    };
    for watcher in [&watcher, &selected] {
        assert_eq!(watcher.wait("deleted", &id)["k8s"]["labels"], json!({"app": "web"}));
    }
    assert_eq!(life(&watcher.stop().records(), &id), ["added", "modified", "deleted"]);
    assert_eq!(life(&selected.stop().records(), &id), ["added", "deleted"]);
    assert_eq!(other.stop().records(), Vec::<Value>::new());
}
