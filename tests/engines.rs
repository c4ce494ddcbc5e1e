//! Which engine made a container, and what it calls it: engines that make no pods are not taken for those that do, and the
//! authors of pods and images change nothing about whose container it is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use harness::engine::{Client, IMAGE};
use harness::need::{DOCKER, PODMAN, RUNC};
use harness::podman::Podman;
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Dialect, Launch, NOBODY, Pod, Runtime, Suite, Tracer, bundle, docker, need, nested};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("a_sandbox_of_crio_labels_no_other_pod", RUNC, crio_labels)
        .test("a_sandbox_of_crio_that_calls_itself_a_container_labels_no_other_pod", RUNC, crio_type)
        .test("an_image_that_crio_restores_from_does_not_hide_its_pod", RUNC, crio_restored)
        .test("annotations_of_docker_name_no_pod", RUNC, || {
            no_pod("io.containerd.runtime.v2.task/moby", "docker");
        })
        .test("annotations_of_ctr_name_no_pod", RUNC, || {
            no_pod("io.containerd.runtime.v2.task/default", "containerd");
        })
        .test("annotations_of_podman_name_no_pod", PODMAN, podman_annotations)
        .test("a_capability_that_is_not_known_yet_changes_no_privilege", RUNC, newer_capability)
        .test("runtimes_have_more_names_than_one", RUNC, known_names)
        .test("a_runtimes_name_is_whole", RUNC, whole_name)
        .test("a_state_directory_that_is_named_is_searched", RUNC, state_directory)
        .test(
            "a_users_container_that_runs_already_is_found_if_rootless_is_trusted",
            RUNC,
            rootless_runs_already,
        )
        .test("a_user_claims_no_process_of_others", RUNC, rootless_claims)
        .test("podman_names_its_containers", PODMAN, || names(&Podman::new(), "podman"))
        .test("podman_names_containers_that_it_removes_itself", PODMAN, podman_rm)
        .test("podman_has_sandboxes", PODMAN, podman_infra)
        .test("docker_names_its_containers", DOCKER, || names(&docker::shared(), "docker"))
        .test("what_podman_builds_is_buildahs", PODMAN, podman_build)
        .test("what_buildkit_builds_is_its_own", RUNC, buildkit)
        .run()
}

/// A bundle where its engine has it, which is linked there.
struct Placed {
    bundle: Bundle,
    path: PathBuf,
    _dir: scratch::Dir,
}

impl Placed {
    /// Where CRI-O and podman have bundles.
    fn in_storage(bundle: Bundle) -> Self {
        let path = format!("overlay-containers/{}/userdata", bundle.id);
        Self::at(bundle, &path)
    }

    fn at(bundle: Bundle, path: &str) -> Self {
        let dir = scratch::Dir::new("engine");
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(bundle.path(), &path).unwrap();
        Self { bundle, path, _dir: dir }
    }

    /// Runs it to its end.
    fn run(&self, runtime: &Runtime) {
        let mut command = runtime.command();
        wait::output(command.args(["run", "--bundle"]).arg(&self.path).arg(&self.bundle.id), LIMIT);
    }

    fn run_detached(&self, runtime: &Runtime) {
        let mut command = runtime.command();
        command.args(["run", "--detach", "--bundle"]).arg(&self.path).arg(&self.bundle.id);
        wait::output(&mut command, LIMIT).success();
    }
}

/// A bundle of CRI-O's that opens `mark`, with further annotations.
fn of_crio(pod: &Pod, script: &str, annotations: &Value) -> Bundle {
    Bundle::pod(Dialect::CriO, pod, &["/bin/sh", "-c", script]).edit(|config| {
        let own = config["annotations"].as_object_mut().unwrap();
        own.extend(annotations.as_object().unwrap().clone());
    })
}

/// What CRI-O writes of a sandbox, with what the pod's author has put over it in 1.33 to 1.37.
fn forged_sandbox(victim: &Pod) -> Value {
    json!({
        "io.kubernetes.container.name": "POD",
        "io.kubernetes.cri-o.ContainerType": "sandbox",
        "io.kubernetes.cri-o.SandboxID": victim.sandbox,
        "io.kubernetes.cri-o.Labels": r#"{"app":"evil"}"#,
    })
}

fn crio_labels() {
    forges_labels(&json!({}));
}

fn crio_type() {
    forges_labels(&json!({"io.kubernetes.cri-o.ContainerType": "container"}));
}

/// The labels of a sandbox are neither another pod's nor, where it says that it is another's, its own.
fn forges_labels(further: &Value) {
    let (mark, victims) = (format!("/{}", unique("author")), format!("/{}", unique("victim")));
    let (author, victim) = (Pod::new("author", "app"), Pod::new("victim", "app"));
    let mut annotations = forged_sandbox(&victim);
    annotations.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    let script = format!("true < {mark}; read x < /end; true < {mark}/end");
    let sandbox = of_crio(&author, &script, &annotations).with_fifo("/end");
    let sandbox = Placed::in_storage(sandbox);
    let container = of_crio(&victim, &format!("true < {victims}"), &json!({}));
    let container = Placed::in_storage(container);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let runtime = Runtime::runc();
    sandbox.run_detached(&runtime);
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"]["labels"], Value::Null, "in {event}");
    assert_eq!(event["k8s"]["pod"], "author", "in {event}");
    assert_eq!(event["container"]["type"], "sandbox", "in {event}");
    container.run(&runtime);
    let event = tracer.wait_open(&victims);
    container.bundle.assert_names(&event);
    sandbox.bundle.release("/end");
    let event = tracer.wait_open(&format!("{mark}/end"));
    assert_eq!(event["k8s"]["labels"], Value::Null, "in {event}");
}

/// An image's annotations win in such a container, but for the kubelet's.
fn crio_restored() {
    let mark = format!("/{}", unique("restored"));
    let pod = Pod::new("author", "app");
    for further in [
        json!({"io.container.manager": "libpod"}),
        json!({"io.container.manager": "", "io.kubernetes.cri-o.ContainerType": "sandbox"}),
    ] {
        let placed = Placed::in_storage(of_crio(&pod, &format!("true < {mark}"), &further));
        let tracer = Tracer::open(&pod.namespace);
        placed.run(&Runtime::runc());
        placed.bundle.assert_names(&tracer.wait_open(&mark));
        let done = tracer.stop();
        assert_eq!(done.events().len(), 1, "{}", done.log());
    }
}

/// Annotations as `docker run --annotation` and the like can have them.
fn no_pod(place: &str, engine: &str) {
    for dialect in [Dialect::Containerd, Dialect::CriO] {
        let mark = format!("/{}", unique("annotated"));
        let pod = Pod::new("claimed", "app");
        let bundle = Bundle::pod(dialect, &pod, &["/bin/sh", "-c", &format!("true < {mark}")]);
        let path = format!("{place}/{}", bundle.id);
        let placed = Placed::at(bundle, &path);
        let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
        placed.run(&Runtime::runc());
        let event = tracer.wait_open(&mark);
        assert_eq!(event["k8s"], Value::Null, "in {event}");
        assert_eq!(event["container"]["runtime"], engine, "in {event}");
        assert_eq!(event["container"]["id"], *placed.bundle.id, "in {event}");
    }
}

/// The real podman, with all annotations of both engines.
fn podman_annotations() {
    let mark = format!("/{}", unique("annotated"));
    let pod = Pod::new("claimed", "app");
    let mut options = Vec::new();
    for dialect in [Dialect::Containerd, Dialect::CriO] {
        let bundle = Bundle::pod(dialect, &pod, &["/bin/true"]);
        for (key, value) in bundle.config["annotations"].as_object().unwrap() {
            options.push(format!("--annotation={key}={}", value.as_str().unwrap()));
        }
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let podman = Podman::new();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let container = podman.create(&options, &["/bin/sh", "-c", &format!("true < {mark}")]);
    container.run();
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["id"], *container.id, "in {event}");
    assert_eq!(event["container"]["runtime"], "podman", "in {event}");
}

/// A node of kind whose engine knows more capabilities than this program: what runs in it has names all the same.
fn newer_capability() {
    let mark = format!("/{}", unique("node"));
    let inner = Bundle::script(&Pod::new("inner", "app"), &format!("true < {mark}"));
    let script = format!("runc run --bundle {} {}", nested::path(&inner), inner.id);
    // runc leaves out what it does not know, with a warning.
    let node = nested::privileged(None, &script, &[&inner]).with_capabilities(&["CAP_UNHEARD_OF"]);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let runtime = Runtime::runc();
    runtime.run(&node);
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"], inner.k8s(), "in {event}");
    assert_eq!(event["container"]["outer"]["id"], *node.id, "in {event}");
}

/// What the engine calls its container, whether that starts now or ran before.
fn names(engine: &Client, runtime: &str) {
    let mark = format!("/{}", unique("named"));
    let name = unique("web");
    let option = format!("--name={name}");
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let script = format!("while :; do true < {mark}; sleep 0.1; done");
    let container = engine.run_detached(&[&option], &["/bin/sh", "-c", &script]);
    let is_named = |event: &Value| {
        assert_eq!(event["k8s"], Value::Null, "in {event}");
        assert_eq!(event["container"]["id"], *container.id, "in {event}");
        assert_eq!(event["container"]["runtime"], runtime, "in {event}");
        assert_eq!(event["container"]["name"], *name, "in {event}");
        assert_eq!(event["container"]["type"], "container", "in {event}");
    };
    is_named(&tracer.wait_open(&mark));
    let later = Tracer::start(&["trace", "open", "-o", "json"]);
    is_named(&later.wait_open(&mark));
    let selected = Tracer::start(&["trace", "open", "-o", "json", "-n", &name]);
    tracer.wait_open(&mark);
    assert_eq!(selected.stop().events().len(), 0);
}

/// Such containers are in a file of their own.
fn podman_rm() {
    let mark = format!("/{}", unique("named"));
    let name = unique("web");
    let podman = Podman::new();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let container =
        podman.create(&["--rm", &format!("--name={name}")], &["/bin/sh", "-c", &format!("true < {mark}")]);
    container.run();
    let event = tracer.wait_open(&mark);
    assert_eq!(event["container"]["name"], *name, "in {event}");
}

/// A pod of podman's, with the container that holds its namespaces.
fn podman_infra() {
    let podman = Podman::new();
    let tracer = Tracer::start(&["trace", "exec", "-o", "json"]);
    let pod = podman.pod_with_infra("/bin/sleep 1000");
    let container = podman.create(&["--pod", &pod.name], &["/bin/echo", &pod.name]);
    container.run();
    let event = tracer.wait_exec(&pod.name);
    assert_eq!(
        (&event["k8s"], &event["container"]["type"]),
        (&Value::Null, &json!("container")),
        "in {event}"
    );
    let infra = tracer.wait_for("the infra container", |event| {
        event["container"]["name"].as_str().is_some_and(|name| name.ends_with("-infra"))
    });
    assert_eq!(infra["container"]["type"], "sandbox", "in {infra}");
    assert_eq!(infra["container"]["runtime"], "podman", "in {infra}");
    assert_eq!(infra["k8s"], Value::Null, "in {infra}");
}

/// A directory to build from: one step that opens a file.
fn context(mark: &str) -> scratch::Dir {
    let dir = scratch::Dir::new("build");
    let file = format!("FROM {IMAGE}\nRUN true < {mark} || true\n");
    fs::write(dir.path().join("Dockerfile"), file).unwrap();
    dir
}

fn podman_build() {
    let mark = format!("/{}", unique("build"));
    let dir = context(&mark);
    let podman = Podman::new();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let mut build = podman.command();
    build.args(["build", "--isolation=oci", "--network=host", "--pull-never", "--ulimit=nofile=1024:1024"]);
    build.args(["--ulimit=nproc=1000:1000", &format!("--cgroup-parent=/{}", podman.cgroup_parent())]);
    wait::output(build.arg(dir.path()), LIMIT).success();
    assert_built(&tracer.wait_open(&mark), "buildah");
}

/// As BuildKit calls runc. docker's client needs a component for it that no distribution need have.
fn buildkit() {
    let mark = format!("/{}", unique("build"));
    for path in ["data/buildkit/executor", "runc-overlayfs/executor"] {
        let bundle = Bundle::plain(&["/bin/sh", "-c", &format!("true < {mark}")])
            .edit(|config| config["hostname"] = "buildkitsandbox".into());
        let path = format!("{path}/{}", bundle.id);
        let placed = Placed::at(bundle, &path);
        let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
        placed.run(&Runtime::runc());
        assert_built(&tracer.wait_open(&mark), "buildkit");
    }
}

#[track_caller]
fn assert_built(event: &Value, engine: &str) {
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["runtime"], engine, "in {event}");
    assert_eq!(event["container"]["source"], "bundle", "in {event}");
}

/// The real runc under another name. A copy: it executes itself, by whatever name.
fn renamed(name: &str) -> (scratch::Dir, Runtime) {
    let dir = scratch::Dir::new("named");
    let program = dir.path().join(name);
    fs::copy(Runtime::runc().program(), &program).unwrap();
    (dir, Runtime::runc().called(&program))
}

fn known_names() {
    for name in ["krun", "crun-krun", "sysbox-runc", "urunc", "buildkit-runc"] {
        let pod = Pod::new("named", "app");
        let end = format!("/{}", unique("end"));
        let (_dir, runtime) = renamed(name);
        let bundle = Bundle::script(&pod, &format!("true < {end}"));
        let tracer = Tracer::open(&pod.namespace);
        runtime.run(&bundle);
        bundle.assert_names(&tracer.wait_open(&end));
    }
}

/// The kernel keeps 15 bytes of it.
fn whole_name() {
    let name = "nvidia-container-runtime";
    let mark = format!("/{}", unique("whole"));
    let (_dir, runtime) = renamed(name);
    let script = format!("true < {mark}/1; read x < /end; true < {mark}/2");
    let bundle = Bundle::plain(&["/bin/sh", "-c", &script]).with_fifo("/end");
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run_detached(&bundle);
    let event = tracer.wait_open(&format!("{mark}/1"));
    assert_eq!(event["container"]["runtime"], name, "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    bundle.release("/end");
    tracer.wait_open(&format!("{mark}/2"));
    runtime.wait_stopped(&bundle);
}

/// As that of a runtime within a snap: nothing but the option tells of it.
fn state_directory() {
    let mark = format!("/{}", unique("root"));
    let pod = Pod::new("root", "app");
    let bundle =
        Bundle::script(&pod, &format!("while :; do read x < /go; true < {mark}; done")).with_fifo("/go");
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    let root = runtime.root().to_str().unwrap();
    let tracer =
        Tracer::start(&["trace", "open", "-o", "json", "--runtime-root", root, "-n", &pod.namespace]);
    bundle.release("/go");
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
    let doctor = Launch::new(&["doctor"]).output();
    assert!(doctor.stdout.contains("--runtime-root"), "{doctor:?}");
}

/// A user's session: the directory where the user's runtimes keep their state.
struct Session {
    dir: PathBuf,
    /// Of one test at a time, in this run or another one: there is but one directory.
    _lock: File,
}

impl Session {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/run/user/{NOBODY}"));
        let all = dir.parent().unwrap();
        fs::create_dir_all(all).unwrap();
        let lock = File::open(all).unwrap();
        lock.lock().unwrap();
        fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        Self { dir, _lock: lock }
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(need::find("runc").unwrap());
        command.env("XDG_RUNTIME_DIR", &self.dir).uid(NOBODY).gid(NOBODY);
        command
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// A bundle of the user's, in a user namespace of its own.
fn rootless(script: &str) -> Bundle {
    let bundle = Bundle::script(&Pod::new("claimed", "app"), script).with_fifo("/go").rootless();
    chown(bundle.inside(Path::new("/go")), Some(NOBODY), Some(NOBODY)).unwrap();
    bundle
}

fn rootless_runs_already() {
    let mark = format!("/{}", unique("rootless"));
    let session = Session::new();
    let bundle = rootless(&format!("while :; do read x < /go; true < {mark}/run; done"));
    let mut run = session.runc();
    run.args(["run", "--detach", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    wait::output(run.stdout(Stdio::null()).stderr(Stdio::null()), LIMIT).success();
    let tracer = Tracer::start(&["trace", "open", "-o", "json", "--trust-rootless"]);
    let untrusting = Tracer::start(&["trace", "open", "-o", "json", "--host"]);
    bundle.release("/go");
    let event = tracer.wait_open(&format!("{mark}/run"));
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
    let event = untrusting.wait_open(&format!("{mark}/run"));
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    let mut exec = session.runc();
    exec.args(["exec", &bundle.id, "/bin/sh", "-c", &format!("true < {mark}/exec; true")]);
    wait::output(&mut exec, LIMIT).success();
    let event = tracer.wait_open(&format!("{mark}/exec"));
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    wait::output(session.runc().args(["delete", "--force", &bundle.id]), LIMIT).success();
}

/// State that names a process which is not in a user namespace of the user's own.
fn rootless_claims() {
    let mark = format!("/{}", unique("claim"));
    let dir = scratch::Dir::new("claim");
    let fifo = dir.path().join("go");
    bundle::make_fifo(&fifo);
    let session = Session::new();
    let script = format!("read x < {}; true < {mark}", fifo.display());
    let mut victim = wait::spawn(Command::new("sh").args(["-c", &script]).stderr(Stdio::null()));
    let claimed = rootless("true");
    let state = session.dir.join("runc/claimed");
    fs::create_dir_all(&state).unwrap();
    let text = json!({"pid": victim.id(), "bundle": claimed.path()});
    fs::write(state.join("state.json"), text.to_string()).unwrap();
    for path in [state.join("state.json"), state.clone(), session.dir.join("runc")] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let tracer = Tracer::start(&["trace", "open", "-o", "json", "--trust-rootless", "--host"]);
    wait::release(&fifo);
    let event = tracer.wait_open(&mark);
    victim.wait().unwrap();
    assert_eq!((&event["k8s"], &event["container"]), (&Value::Null, &Value::Null), "in {event}");
}
