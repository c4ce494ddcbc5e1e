//! Containers in containers: whose pod an inner container belongs to, and what it is known by.
//!
//! The outer container of kind belongs to no pod and is privileged: the runtimes in it are a node's,
//! and what they start has pods of its own. A pod that runs a runtime keeps its name, whatever the
//! inner bundle claims.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::process::ExitCode;

use harness::agent::{Agent, Manifest};
use harness::need::{DOCKER, RUNC, RUNC_GCC};
use harness::runtime::KnownRoot;
use harness::scratch::unique;
use harness::wait::{self, Output};
use harness::{Bundle, Dialect, Launch, Pod, Runtime, Suite, Tracer, docker, nested, program, tracer};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("kind_inner_pods_keep_their_names", RUNC, kind_run)
        .test("kind_create_start_and_exec", RUNC, kind_create_start_exec)
        .test("kind_runtime_started_by_the_outer_itself", RUNC, kind_own_child)
        .test("kind_inner_container_without_pod", RUNC, kind_without_pod)
        .test("kind_inner_container_that_runs_already", RUNC, kind_runs_already)
        .test("kind_annotations_of_cri_o", RUNC, kind_crio)
        .test("kind_many_inner_containers_in_a_row", RUNC, kind_in_a_row)
        .test("kind_tracer_started_in_the_middle", RUNC, kind_in_the_middle)
        .test("a_pod_that_runs_a_runtime_keeps_its_name", RUNC, pod_outside)
        .test("a_pod_that_joins_its_inner_container_keeps_its_name", RUNC, pod_outside_exec)
        .test("a_pod_that_runs_a_plain_container_keeps_its_name", RUNC, pod_outside_plain_inner)
        .test("an_inner_bundle_of_an_unprivileged_container_names_nobody", RUNC_GCC, unprivileged)
        .test("busybox_called_runc_opens_as_its_pod", RUNC, impostor)
        .test("docker_with_runc_inside", DOCKER, docker_outside)
        .test("docker_in_docker", DOCKER, docker_in_docker)
        .test("tracer_inside_sees_its_own_pids", RUNC, tracer_inside)
        .test("tracer_inside_shows_nothing_of_outside", RUNC, tracer_inside_of_others)
        .test("tracer_in_a_pod_of_a_kind_node", RUNC, tracer_in_kind_pod)
        .test("an_agent_names_the_pods_of_a_node_in_a_container", RUNC, agent_beside_kind)
        .run()
}

/// What the outer container does while others start inner ones in it. What those leave behind becomes its first
/// process's children, whose ends interrupt the opening of the fifo.
const WAIT: &str = "until read x < /end; do :; done";

/// An outer container that runs. Dropped before what it shows of the host.
struct Outer {
    runtime: Runtime,
    bundle: Bundle,
}

impl Outer {
    /// A privileged one.
    fn start(pod: Option<&Pod>, inner: &[&Bundle]) -> Self {
        let bundle = nested::privileged(pod, WAIT, inner).with_fifo("/end");
        let runtime = Runtime::runc();
        runtime.run_detached(&bundle);
        Self { runtime, bundle }
    }

    fn id(&self) -> &str {
        &self.bundle.id
    }

    /// A program in the outer container.
    #[track_caller]
    fn exec(&self, args: &[&str]) -> Output {
        self.runtime.exec(&self.bundle, args)
    }

    /// `runc run` in the outer container, to the inner one's end.
    #[track_caller]
    fn run(&self, inner: &Bundle) -> Output {
        self.exec(&["runc", "run", "--bundle", &nested::path(inner), &inner.id])
    }

    #[track_caller]
    fn create(&self, inner: &Bundle) {
        // The container keeps its runtime's streams, and with them ours, which would never end.
        let quietly = r#"exec "$@" < /dev/null > /tmp/create.log 2>&1"#;
        let create = ["runc", "create", "--bundle", &nested::path(inner), &inner.id];
        let output = self.exec(&[&["/bin/sh", "-c", quietly, "sh"], &create[..]].concat());
        assert!(output.status.success(), "{}", self.exec(&["cat", "/tmp/create.log"]).stdout);
    }

    #[track_caller]
    fn start_inner(&self, inner: &Bundle) {
        self.exec(&["runc", "start", &inner.id]).success();
    }

    /// The pid of the inner container's first process, as the outer one sees it.
    #[track_caller]
    fn inner_pid(&self, inner: &Bundle) -> Value {
        let state: Value =
            serde_json::from_str(&self.exec(&["runc", "state", &inner.id]).success().stdout).unwrap();
        state["pid"].clone()
    }
}

/// Fails unless the event is the inner container's, which has the pod that its bundle names.
#[track_caller]
fn assert_kind(event: &Value, inner: &Bundle, outer: &str) {
    assert_eq!(event["k8s"], inner.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], inner.id, "in {event}");
    assert_eq!(event["container"]["outer"]["id"], outer, "in {event}");
    assert_eq!(event["container"].get("inner"), None, "in {event}");
    if let (Some(pod), Some(dialect)) = (&inner.pod, inner.dialect) {
        assert_eq!(event["container"]["runtime"], dialect.runtime(), "in {event}");
        assert_eq!(event["container"]["image"], pod.image, "in {event}");
    }
}

/// Fails unless the event is the outer container's and says that the inner one did it.
#[track_caller]
fn assert_of_outer_pod(event: &Value, inner: &Bundle, outer: &Bundle) {
    assert_eq!(event["k8s"], outer.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], outer.id, "in {event}");
    assert_eq!(event["container"]["inner"]["id"], inner.id, "in {event}");
    assert_eq!(event["container"]["inner"]["runtime"], "runc", "in {event}");
    assert_eq!(event["container"].get("outer"), None, "in {event}");
}

/// A fresh path, and a script that opens `PATH/1` and `PATH/2`.
fn two_opens(label: &str) -> (String, String) {
    let mark = format!("/{}", unique(label));
    let script = format!("true < {mark}/1; true < {mark}/2");
    (mark, script)
}

/// The events of opens below `mark`, in order.
#[track_caller]
fn opens_of<'a>(events: &'a [Value], mark: &str) -> Vec<&'a Value> {
    let below = format!("{mark}/");
    events.iter().filter(|event| event["open"]["path"].as_str().unwrap().starts_with(&below)).collect()
}

/// The events of a script of [`two_opens`].
#[track_caller]
fn both<'a>(events: &'a [Value], mark: &str) -> Vec<&'a Value> {
    let found = opens_of(events, mark);
    let told: Vec<&Value> = found.iter().map(|event| &event["open"]["path"]).collect();
    assert_eq!(told, [&json!(format!("{mark}/1")), &json!(format!("{mark}/2"))]);
    found
}

fn kind_run() {
    let pod = Pod::new("in-kind", "app");
    let (mark, script) = two_opens("kind");
    let inner = Bundle::script(&pod, &script);
    let tracer = Tracer::open(&pod.namespace);
    let outer = Outer::start(None, &[&inner]);
    outer.run(&inner);
    tracer.wait_open(&format!("{mark}/2"));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    assert_eq!(events.len(), 2, "the inner container's and no others: {events:#?}");
    for event in both(&events, &mark) {
        assert_kind(event, &inner, outer.id());
        assert_eq!(event["container"]["source"], "bundle", "in {event}");
        assert_eq!(event["process"]["containerPid"], 1);
    }
}

fn kind_create_start_exec() {
    let pod = Pod::new("in-kind", "app");
    let mark = format!("/{}", unique("kind"));
    let script = format!("true < {mark}/1; read x < /go; true < {mark}/2");
    let inner = Bundle::script(&pod, &script).with_fifo("/go");
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let execs = Tracer::exec(&pod.namespace);
    let outer = Outer::start(None, &[&inner]);
    outer.create(&inner);
    outer.start_inner(&inner);
    assert_kind(&tracer.wait_open(&format!("{mark}/1")), &inner, outer.id());
    let joined = format!("{mark}/joined");
    outer.exec(&["runc", "exec", &inner.id, "/bin/sh", "-c", &format!("true < {joined}")]);
    let event = tracer.wait_open(&joined);
    assert_kind(&event, &inner, outer.id());
    assert_ne!(event["process"]["containerPid"], 1, "in {event}");
    // What is the outer container's stays so: before, while and after the inner one runs.
    let own = format!("{mark}/outer");
    outer.exec(&["/bin/sh", "-c", &format!("true < {own}")]);
    let event = tracer.wait_open(&own);
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert!(outer.bundle.owns(&event), "in {event}");
    for other in ["inner", "outer"] {
        assert_eq!(event["container"].get(other), None, "in {event}");
    }
    inner.release("/go");
    assert_kind(&tracer.wait_open(&format!("{mark}/2")), &inner, outer.id());
    let entry = execs.wait_exec(&script);
    assert_kind(&entry, &inner, outer.id());
    assert_eq!(entry["process"]["containerPid"], 1, "in {entry}");
}

/// As kind's containerd does it: the runtime descends from the outer container's first process, and
/// not from one that has come in with `runc exec`.
fn kind_own_child() {
    let pod = Pod::new("in-kind", "app");
    let (mark, script) = two_opens("kind");
    let inner = Bundle::script(&pod, &script);
    let before = format!("{mark}-outer/1");
    let after = format!("{mark}-outer/2");
    let outer = nested::privileged(
        None,
        &format!("true < {before}; runc run --bundle {} {}; true < {after}", nested::path(&inner), inner.id),
        &[&inner],
    );
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run(&outer);
    tracer.wait_open(&after);
    let events = tracer.stop().events();
    for event in both(&events, &mark) {
        assert_kind(event, &inner, &outer.id);
    }
    for event in both(&events, &format!("{mark}-outer")) {
        assert!(outer.owns(event), "in {event}");
        assert_eq!(event["k8s"], Value::Null, "in {event}");
    }
}

fn kind_without_pod() {
    let (mark, script) = two_opens("plain");
    let inner = Bundle::plain(&["/bin/sh", "-c", &script]);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let outer = Outer::start(None, &[&inner]);
    outer.run(&inner);
    tracer.wait_open(&format!("{mark}/2"));
    let events = tracer.stop().events();
    for event in both(&events, &mark) {
        assert_kind(event, &inner, outer.id());
        assert_eq!(event["container"]["runtime"], "runc", "in {event}");
    }
}

/// Both run when the tracer starts. What is inside another container is found there.
fn kind_runs_already() {
    let pod = Pod::new("in-kind", "app");
    let mark = format!("/{}", unique("kind"));
    let inner =
        Bundle::script(&pod, &format!("read x < /go; true < {mark}/1; true < {mark}/2")).with_fifo("/go");
    let outer = Outer::start(None, &[&inner]);
    let _state = KnownRoot::new(&outer.runtime);
    outer.create(&inner);
    outer.start_inner(&inner);
    let tracer = Tracer::open(&pod.namespace);
    inner.release("/go");
    tracer.wait_open(&format!("{mark}/2"));
    let events = tracer.stop().events();
    for event in both(&events, &mark) {
        assert_kind(event, &inner, outer.id());
        assert_eq!(event["container"]["source"], "state", "in {event}");
    }
}

fn kind_crio() {
    let pod = Pod::new("in-kind", "app");
    let (mark, script) = two_opens("kind");
    let inner = Bundle::pod(Dialect::CriO, &pod, &["/bin/sh", "-c", &script]);
    let tracer = Tracer::open(&pod.namespace);
    let outer = Outer::start(None, &[&inner]);
    outer.run(&inner);
    tracer.wait_open(&format!("{mark}/2"));
    for event in both(&tracer.stop().events(), &mark) {
        assert_kind(event, &inner, outer.id());
    }
}

fn kind_in_a_row() {
    const CONTAINERS: usize = 15;
    let namespace = unique("t");
    let (marks, inner): (Vec<String>, Vec<Bundle>) = (0..CONTAINERS)
        .map(|index| {
            let (mark, script) = two_opens("row");
            (mark, Bundle::script(&Pod::inside(&namespace, &format!("pod-{index}"), "app"), &script))
        })
        .unzip();
    let shown: Vec<&Bundle> = inner.iter().collect();
    let commands: Vec<String> =
        inner.iter().map(|inner| format!("runc run --bundle {} {}", nested::path(inner), inner.id)).collect();
    let outer = nested::privileged(None, &commands.join("; "), &shown);
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&namespace);
    let output = runtime.run(&outer);
    assert!(output.stderr.contains(&format!("{}/2", marks[CONTAINERS - 1])), "{output:?}");
    tracer.wait_open(&format!("{}/2", marks[CONTAINERS - 1]));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    assert_eq!(events.len(), 2 * CONTAINERS, "{:?}\n{}", done.losses(), done.log());
    for (mark, inner) in marks.iter().zip(&inner) {
        for event in both(&events, mark) {
            assert_kind(event, inner, &outer.id);
        }
    }
    assert_eq!(events.len(), 2 * CONTAINERS);
}

/// The node ran already, and its runtimes are at work while the tracer looks for what runs.
fn kind_in_the_middle() {
    /// More than are run while the tracer starts, and some that are run when it is ready.
    const CONTAINERS: usize = 40;
    const LATE: usize = 5;
    let namespace = unique("t");
    let (marks, inner): (Vec<String>, Vec<Bundle>) = (0..CONTAINERS)
        .map(|index| {
            let (mark, script) = two_opens("row");
            (mark, Bundle::script(&Pod::inside(&namespace, &format!("pod-{index}"), "app"), &script))
        })
        .unzip();
    let shown: Vec<&Bundle> = inner.iter().collect();
    let run = |inner: &Bundle| {
        format!("runc run --bundle {} {}; echo {} has ended", nested::path(inner), inner.id, inner.id)
    };
    let mut commands: Vec<String> = inner.iter().map(run).collect();
    commands.insert(CONTAINERS - LATE, "until read x < /go; do :; done".to_owned());
    let outer = nested::privileged(None, &commands.join("; "), &shown).with_fifo("/go");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&outer);
    let ended = format!("{} has ended", inner[2].id);
    wait::until("some inner containers", || Runtime::stdout_of(&outer).contains(&ended).then_some(()));
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    outer.release("/go");
    tracer.wait_open(&format!("{}/2", marks[CONTAINERS - 1]));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    for (mark, inner) in marks.iter().zip(&inner) {
        for event in opens_of(&events, mark) {
            assert_kind(event, inner, &outer.id);
        }
    }
    for mark in &marks[CONTAINERS - LATE..] {
        both(&events, mark);
    }
}

/// An inner bundle that claims another pod, in a container of a pod: privileged, as docker-in-docker is.
fn pod_outside() {
    let (own, claimed) = (Pod::new("builder", "dind"), Pod::new("victim", "app"));
    let (mark, script) = two_opens("inner");
    let inner = Bundle::script(&claimed, &script);
    let tracer = Tracer::open(&own.namespace);
    let others = Tracer::open(&claimed.namespace);
    let outer = Outer::start(Some(&own), &[&inner]);
    outer.run(&inner);
    tracer.wait_open(&format!("{mark}/2"));
    for event in both(&tracer.stop().events(), &mark) {
        assert_of_outer_pod(event, &inner, &outer.bundle);
    }
    let stolen = others.stop().events();
    assert!(stolen.is_empty(), "under the name that the inner bundle claims: {stolen:#?}");
}

fn pod_outside_exec() {
    let (own, claimed) = (Pod::new("builder", "dind"), Pod::new("victim", "app"));
    let mark = format!("/{}", unique("inner"));
    let inner =
        Bundle::script(&claimed, &format!("true < {mark}/1; read x < /go; true < {mark}/2")).with_fifo("/go");
    let tracer = Tracer::open(&own.namespace);
    let outer = Outer::start(Some(&own), &[&inner]);
    outer.create(&inner);
    outer.start_inner(&inner);
    assert_of_outer_pod(&tracer.wait_open(&format!("{mark}/1")), &inner, &outer.bundle);
    let joined = format!("{mark}/joined");
    outer.exec(&["runc", "exec", &inner.id, "/bin/sh", "-c", &format!("true < {joined}")]);
    assert_of_outer_pod(&tracer.wait_open(&joined), &inner, &outer.bundle);
    // The outer container's own acts have no inner container.
    let plain = format!("{mark}/outer");
    outer.exec(&["/bin/sh", "-c", &format!("true < {plain}")]);
    let event = tracer.wait_open(&plain);
    outer.bundle.assert_names(&event);
    assert_eq!(event["container"].get("inner"), None, "in {event}");
    inner.release("/go");
    assert_of_outer_pod(&tracer.wait_open(&format!("{mark}/2")), &inner, &outer.bundle);
}

/// An inner container without annotations in a pod's: the pod, and the inner id.
fn pod_outside_plain_inner() {
    let own = Pod::new("builder", "dind");
    let (mark, script) = two_opens("inner");
    let inner = Bundle::plain(&["/bin/sh", "-c", &script]);
    let tracer = Tracer::open(&own.namespace);
    let outer = Outer::start(Some(&own), &[&inner]);
    outer.run(&inner);
    tracer.wait_open(&format!("{mark}/2"));
    for event in both(&tracer.stop().events(), &mark) {
        assert_of_outer_pod(event, &inner, &outer.bundle);
    }
}

/// A container of no pod that may unshare, but is not privileged: not a node, so that what it calls
/// `runc` names no pods.
fn unprivileged() {
    let claimed = Pod::new("victim", "app");
    let mark = format!("/{}", unique("lie"));
    let forged = Bundle::script(&claimed, "true");
    let unshare = format!("/bin/unshare\u{1}-m\u{1}/bin/sh\u{1}-c\u{1}true < {mark}/1; true < {mark}/2\u{1}");
    let script =
        format!("WRAPPED='{unshare}' /bin/runc run --bundle {} {}", nested::path(&forged), forged.id);
    let outer = nested::visible(None, &script, &[&forged])
        .with_capabilities(&["CAP_SYS_ADMIN"])
        .with_executable("/bin/runc", std::fs::read(program::compile("wrapper.c")).unwrap());
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let runtime = Runtime::runc();
    runtime.run(&outer);
    tracer.wait_open(&format!("{mark}/2"));
    for event in both(&tracer.stop().events(), &mark) {
        assert_eq!(event["k8s"], Value::Null, "in {event}");
        let outermost = event["container"]["outer"].get("id").unwrap_or(&event["container"]["id"]);
        assert_eq!(*outermost, outer.id, "in {event}");
    }
}

/// What the impostor itself opens, without any namespace of its own: as soon as it is executed, and
/// what comes after.
fn impostor() {
    let own = Pod::new("liar", "app");
    let mark = format!("/{}", unique("lie"));
    let busybox = harness::need::find("busybox").unwrap();
    // Its first argument says which applet it is; its file's name says that it is a runtime.
    let lie = format!("true < {mark}/1; /bin/true; true < {mark}/2");
    let script =
        format!("(exec -a busybox /bin/runc sh -c '{lie}' create --bundle / victim); true < {mark}/3");
    let bundle = Bundle::script(&own, &script)
        .with_executable("/bin/runc", std::fs::read(busybox).unwrap())
        .with_file("/config.json", Bundle::script(&Pod::new("victim", "app"), "true").config.to_string());
    let opens = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let execs = Tracer::exec(&own.namespace);
    Runtime::runc().run(&bundle);
    opens.wait_open(&format!("{mark}/3"));
    let events = opens.stop().events();
    let seen = opens_of(&events, &mark);
    assert_eq!(seen.len(), 3, "{seen:#?}");
    for event in seen {
        bundle.assert_names(event);
    }
    let exec = execs.wait_exec("victim");
    bundle.assert_names(&exec);
    assert_eq!(exec["process"]["comm"], "runc", "in {exec}");
}

/// docker's container belongs to no pod; with all capabilities it may be a node of kind.
fn docker_outside() {
    let pod = Pod::new("in-docker", "app");
    let (mark, script) = two_opens("docker");
    let inner = Bundle::script(&pod, &script);
    let docker = docker::shared();
    let tracer = Tracer::open(&pod.namespace);
    let options = nested::docker_options(&[&inner]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let run = format!(
        "mount -t cgroup2 none /sys/fs/cgroup && runc run --bundle {} {}",
        nested::path(&inner),
        inner.id
    );
    let outer = docker.create(&options, &["/bin/sh", "-c", &run]);
    let output = outer.run();
    assert!(output.stderr.contains(&mark), "the inner container did not run: {output:?}");
    tracer.wait_open(&format!("{mark}/2"));
    let events = tracer.stop().events();
    for event in both(&events, &mark) {
        assert_kind(event, &inner, &outer.id);
    }
}

/// A second dockerd, in a container of the first one.
fn docker_in_docker() {
    const DIR: &str = "/docker";
    let mark = format!("/{}", unique("dind"));
    let docker = docker::shared();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let mut options = nested::docker_options(&[]);
    options.push(format!("--tmpfs={DIR}:exec"));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let daemon = format!(
        "mount -t cgroup2 none /sys/fs/cgroup && echo '{{}}' > {DIR}/daemon.json && exec dockerd {} > {DIR}/log 2>&1",
        docker::arguments(DIR).join(" ")
    );
    let outer = docker.run_detached(&options, &["/bin/sh", "-c", &daemon]);
    let client = |words: &str| {
        let line = format!("docker --host=unix://{DIR}/d.sock {words}");
        outer.exec(&["/bin/sh", "-c", &line])
    };
    wait::until("an answer of the inner dockerd", || {
        assert!(outer.is_running(), "it has ended: {}", outer.exec(&["cat", &format!("{DIR}/log")]).stdout);
        client("version").status.success().then_some(())
    });
    // busybox and its links are all that a container needs.
    outer.exec(&["tar", "-C", "/", "-cf", "/bin.tar", "bin"]).success();
    client("import - box < /bin.tar").success();
    let created = client(&format!("create --network=none box /bin/sh -c 'true < {mark}/1; true < {mark}/2'"));
    let id = created.success().stdout.trim().to_owned();
    let output = client(&format!("start --attach {id}"));
    assert!(output.stderr.contains(&mark), "the inner container did not run: {output:?}");
    tracer.wait_open(&format!("{mark}/2"));
    for event in both(&tracer.stop().events(), &mark) {
        assert_eq!(event["k8s"], Value::Null, "in {event}");
        assert_eq!(event["container"]["id"], *id, "in {event}");
        assert_eq!(event["container"]["runtime"], "docker", "in {event}");
        assert_eq!(event["container"]["outer"]["id"], *outer.id, "in {event}");
    }
}

/// Starts the tracer in an outer container, which brings it along.
fn launch_inside(outer: &Outer, arguments: &[&str]) -> Tracer {
    let runtime = &outer.runtime;
    let mut words: Vec<OsString> = vec!["--root".into(), runtime.root().into(), "exec".into()];
    words.extend([outer.id().into(), "/tracer".into()]);
    words.extend(arguments.iter().map(Into::into));
    Launch::new(&words).binary(runtime.program().into()).start()
}

fn with_tracer(inner: &[&Bundle]) -> Outer {
    let bundle = nested::privileged(None, WAIT, inner).with_fifo("/end").edit(|config| {
        let binary = tracer::binary();
        nested::add_mounts(config, [nested::bind(binary.to_str().unwrap(), "/tracer", &["ro"])]);
    });
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    Outer { runtime, bundle }
}

/// As a pod of kind sees it: the node's container is all there is.
fn tracer_inside() {
    let pod = Pod::new("in-kind", "app");
    let mark = format!("/{}", unique("kind"));
    let script = format!("true < {mark}/1; read x < /go; true < {mark}/2");
    let inner = Bundle::script(&pod, &script).with_fifo("/go");
    let outer = with_tracer(&[&inner]);
    let tracer = launch_inside(&outer, &["trace", "open", "-n", &pod.namespace, "-o", "json"]);
    outer.create(&inner);
    let pid = outer.inner_pid(&inner);
    outer.start_inner(&inner);
    let first = tracer.wait_open(&format!("{mark}/1"));
    inner.release("/go");
    for event in [first, tracer.wait_open(&format!("{mark}/2"))] {
        assert_eq!(event["k8s"], inner.k8s(), "in {event}");
        assert_eq!(event["container"]["id"], inner.id, "in {event}");
        assert_eq!(
            event["process"]["pid"], pid,
            "the pid that the outer container's /proc shows, in {event}"
        );
        assert_eq!(event["process"]["containerPid"], 1, "in {event}");
    }
    tracer.stop().assert_nothing_dropped();
    // The other kind has programs of its own, which the verifier must follow there too.
    let execs = launch_inside(&outer, &["trace", "exec", "-o", "json"]);
    outer.exec(&["/bin/true"]).success();
    execs.stop();
}

fn tracer_inside_of_others() {
    let inner_pod = Pod::new("in-kind", "app");
    let (mark, script) = two_opens("kind");
    let inner = Bundle::script(&inner_pod, &script);
    let (outside, script) = two_opens("outside");
    let other = Bundle::script(&Pod::new("outside", "app"), &script);
    let outer = with_tracer(&[&inner]);
    let tracer = launch_inside(&outer, &["trace", "open", "--host", "-o", "json"]);
    // This process is outside, too.
    let by_host = format!("{outside}/host");
    assert!(std::fs::File::open(&by_host).is_err());
    Runtime::runc().run(&other);
    outer.run(&inner);
    tracer.wait_open(&format!("{mark}/2"));
    let events = tracer.stop().events();
    for event in opens_of(&events, &outside) {
        assert_ne!(event["container"], Value::Null, "shown as a process of its host: {event}");
        assert_ne!(event["process"]["pid"], 0, "in {event}");
    }
    for event in both(&events, &mark) {
        assert_eq!(event["container"]["id"], inner.id, "in {event}");
    }
}

/// Files of such a node are read by processes of their own, which have what the agent's file gives it and no more.
fn agent_beside_kind() {
    let pod = Pod::new("in-kind", "app");
    let (mark, script) = two_opens("kind");
    let inner = Bundle::script(&pod, &script);
    let agent = Agent::start();
    let tracer = agent.launch(&["trace", "open", "-n", &pod.namespace, "-o", "json"]).start();
    let outer = Outer::start(None, &[&inner]);
    outer.run(&inner);
    assert_kind(&tracer.wait_open(&format!("{mark}/2")), &inner, outer.id());
    tracer.stop().assert_nothing_dropped();
}

/// As it is deployed, on a node of kind: in a container with what the manifest grants, and no directory of the node's.
fn tracer_in_kind_pod() {
    let pod = Pod::new("in-kind", "app");
    let mark = format!("/{}", unique("kind"));
    let script = format!("true < {mark}/1; read x < /go; true < {mark}/2");
    let inner = Bundle::script(&pod, &script).with_fifo("/go");
    let own = Manifest::of_node().bundle().edit(|config| {
        config["process"]["args"] = json!(["/tracer", "trace", "open", "-n", pod.namespace, "-o", "json"]);
    });
    let outer = Outer::start(None, &[&inner, &own]);
    let runtime = &outer.runtime;
    let mut words: Vec<OsString> =
        vec!["--root".into(), runtime.root().into(), "exec".into(), outer.id().into()];
    words.extend(["runc", "run", "--bundle", &nested::path(&own), &own.id].map(OsString::from));
    let tracer = Launch::new(&words).binary(runtime.program().into()).start();
    outer.create(&inner);
    let pid = outer.inner_pid(&inner);
    outer.start_inner(&inner);
    let first = tracer.wait_open(&format!("{mark}/1"));
    inner.release("/go");
    for event in [first, tracer.wait_open(&format!("{mark}/2"))] {
        assert_eq!(event["k8s"], inner.k8s(), "in {event}");
        assert_eq!(event["container"]["id"], inner.id, "in {event}");
        assert_eq!(event["process"]["pid"], pid, "the pid that the node's /proc shows, in {event}");
    }
    tracer.stop().assert_nothing_dropped();
}
