//! Containers and processes that nobody has seen starting: what runs already and hides, runtimes that no name gives away, and
//! what hooks leave behind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use harness::bundle::make_fifo;
use harness::need::{self, CONTAINERD, CRUN, Need, RUNC, RUNC_GCC};
use harness::runtime::{Kind, KnownRoot};
use harness::scratch::{self, unique};
use harness::{Bundle, Pod, Runtime, Suite, Tracer, containerd, program, wait};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let crun_gcc: Vec<Need> = CRUN.iter().chain(RUNC_GCC).copied().collect();
    Suite::new()
        .test("processes_that_come_and_go_faster_than_proc_is_read", RUNC_GCC, chain)
        .test("a_chain_in_the_hosts_pid_namespace", RUNC_GCC, chain_with_the_hosts_pids)
        .test("a_first_process_whose_main_thread_has_exited", RUNC_GCC, headless)
        .test("nothing_of_a_busy_container_is_attributed_to_the_host", RUNC, busy)
        .test("a_host_program_in_a_containers_cgroup_is_the_hosts", RUNC, host_in_cgroup)
        .test("a_runtime_by_another_name_that_runs_a_container", RUNC, renamed_run)
        .test("a_runtime_by_another_name_that_creates_a_container", RUNC, renamed_create)
        .test("a_runtime_by_another_name_that_containerd_executes", CONTAINERD, renamed_by_containerd)
        .test("a_chroot_of_the_host_is_no_container", RUNC, chroot_of_host)
        .test("a_runtime_that_runs_the_program_within_itself", RUNC_GCC, in_process)
        .test("a_wrapper_that_rewrites_the_bundle", RUNC, rewritten)
        .test("a_hook_that_starts_a_container_of_its_own", RUNC, hook_starts_container)
        .test("what_a_hook_leaves_behind_is_not_bound_later", RUNC, left_outside)
        .test("what_a_start_container_hook_leaves_behind_is_the_containers", RUNC, left_inside)
        .test("what_a_poststart_hook_enters_is_the_containers", &crun_gcc, poststart)
        .run()
}

fn all(arguments: &[&str]) -> Tracer {
    Tracer::start(&[&["trace", "open", "--host", "-o", "json"], arguments].concat())
}

fn below(events: &[Value], path: &str) -> Vec<Value> {
    let is_below = |event: &&Value| event["open"]["path"].as_str().is_some_and(|it| it.starts_with(path));
    events.iter().filter(is_below).cloned().collect()
}

/// Fails unless all of these events are of the container's pod.
#[track_caller]
fn assert_all_found(events: &[Value], bundle: &Bundle) {
    let strange: Vec<&Value> = events.iter().filter(|event| event["k8s"] != bundle.k8s()).collect();
    assert!(strange.is_empty(), "{} of {} are not attributed: {:#}", strange.len(), events.len(), strange[0]);
    assert!(!events.is_empty());
}

/// A container of a chain of processes, each of which lives for some milliseconds, is traced from the middle of it on.
fn trace_chain(edit: impl FnOnce(&mut Value)) {
    let chain = program::compile("chain.c");
    let pod = Pod::new("chain", "app");
    let mark = format!("/{}", unique("chain"));
    let bundle = Bundle::pod(harness::Dialect::Containerd, &pod, &["/bin/chain", &mark, "2"])
        .with_program(&chain)
        .edit(edit);
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let tracer = all(&["--comm", "chain"]);
    let first = tracer.wait_for("a link of the chain", |event| {
        event["open"]["path"].as_str().is_some_and(|path| path.starts_with(&mark))
    });
    let number = |event: &Value| -> u64 {
        event["open"]["path"].as_str().unwrap().rsplit_once('.').unwrap().1.parse().unwrap()
    };
    let last = format!("{mark}.{}", number(&first) + 200);
    tracer.wait_open(&last);
    runtime.delete(&bundle);
    let done = tracer.stop();
    done.assert_nothing_dropped();
    assert_all_found(&below(&done.events(), &mark), &bundle);
}

fn chain() {
    trace_chain(|_| ());
}

/// Only the mount namespace and the cgroup show which container it is.
fn chain_with_the_hosts_pids() {
    trace_chain(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        // It cannot be mounted there then.
        let proc = &mut config["mounts"][0];
        *proc = json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    });
}

fn headless() {
    let headless = program::compile("headless.c");
    let pod = Pod::new("headless", "app");
    let mark = format!("/{}", unique("headless"));
    let bundle =
        Bundle::pod(harness::Dialect::Containerd, &pod, &["/bin/headless", &mark]).with_program(&headless);
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    // To runc a container with such a first process has stopped.
    let state = fs::read(runtime.root().join(&bundle.id).join("state.json")).unwrap();
    let pid = serde_json::from_slice::<Value>(&state).unwrap()["init_process_pid"].as_i64().unwrap();
    wait::until("the end of the main thread", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") Z ").then_some(())
    });
    let tracer = all(&[]);
    tracer.wait_open(&mark);
    let listed = wait::output(
        Command::new(harness::tracer::binary()).args(["list-containers", "-o", "json"]),
        wait::LIMIT,
    );
    assert!(listed.stdout.contains(&bundle.id), "{}", listed.stdout);
    let done = tracer.stop();
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait::until("its end", || {
        (!Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()).then_some(())
    });
    runtime.delete(&bundle);
    assert_all_found(&below(&done.events(), &mark), &bundle);
}

/// It opens files all the time: before, while and after the tracer looks for it.
fn busy() {
    let pod = Pod::new("busy", "app");
    let mark = format!("/{}", unique("busy"));
    let bundle = Bundle::script(&pod, &format!("while :; do true < {mark}; done"));
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    for _ in 0..3 {
        let tracer = all(&["--comm", "sh"]);
        tracer.wait_open(&mark);
        assert_all_found(&below(&tracer.stop().events(), &mark), &bundle);
        let selected = Tracer::open(&pod.namespace);
        selected.wait_open(&mark);
        let done = selected.stop();
        let summary = done.assert_adds_up();
        let shown = u64::try_from(done.events().len()).unwrap();
        assert_eq!(summary.emitted, shown, "{summary:?}");
    }
    runtime.delete(&bundle);
}

/// As the processes that `runc exec` clones into the cgroup are, before they enter the container.
fn host_in_cgroup() {
    let pod = Pod::new("shared", "app");
    let bundle = Bundle::script(&pod, "read x < /end").with_fifo("/end");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let dir = scratch::Dir::new("host-in-cgroup");
    let (go, mark) = (dir.path().join("go"), dir.path().join("mark"));
    make_fifo(&go);
    let script = format!("read x < {}; true < {}", go.display(), mark.display());
    let mut host = wait::spawn(Command::new("sh").args(["-c", &script]));
    for hierarchy in hierarchies_of(&bundle.id) {
        fs::write(hierarchy.join("cgroup.procs"), host.id().to_string()).unwrap();
    }
    let tracer = all(&[]);
    wait::release(&go);
    let event = tracer.wait_open(mark.to_str().unwrap());
    assert_eq!(event["container"], Value::Null, "in {event}");
    assert_eq!(event["process"]["pid"], host.id(), "in {event}");
    wait::exit_of(&mut host, wait::LIMIT).unwrap();
    bundle.release("/end");
    runtime.wait_stopped(&bundle);
    tracer.stop();
}

/// The directories of a cgroup at the top of each hierarchy.
fn hierarchies_of(cgroup: &str) -> Vec<PathBuf> {
    let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let found: Vec<PathBuf> = mounts
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|mount| mount.join(cgroup))
        .filter(|cgroup| cgroup.join("cgroup.procs").exists())
        .collect();
    assert!(!found.is_empty());
    found
}

/// runc as it may be installed beside another one.
fn renamed(dir: &scratch::Dir) -> Runtime {
    let program = dir.path().join("container-runtime-1.3");
    fs::copy(need::find("runc").unwrap(), &program).unwrap();
    Runtime::runc().called(&program)
}

/// Its command line is there as long as the container is.
fn renamed_run() {
    let dir = scratch::Dir::new("renamed");
    let runtime = renamed(&dir);
    let pod = Pod::new("renamed", "app");
    let mark = format!("/{}", unique("renamed"));
    let bundle = Bundle::script(&pod, &format!("true < {mark}"));
    let tracer = Tracer::open(&pod.namespace);
    runtime.run(&bundle);
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], bundle.id, "in {event}");
    tracer.stop().assert_nothing_dropped();
}

/// Its state is there, and the entrypoint's execution is the container's first event.
fn renamed_create() {
    let dir = scratch::Dir::new("renamed");
    let runtime = renamed(&dir);
    let _state = KnownRoot::new(&runtime);
    let pod = Pod::new("renamed", "app");
    let mark = format!("/{}", unique("renamed"));
    let bundle = Bundle::script(&pod, &format!("true < {mark}; read x < /go")).with_fifo("/go");
    let (opens, execs) = (Tracer::open(&pod.namespace), Tracer::exec(&pod.namespace));
    runtime.create(&bundle);
    runtime.start(&bundle);
    let event = opens.wait_open(&mark);
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    let entrypoint = execs.wait_for("the entrypoint", |event| event["exec"]["path"] == "/bin/sh");
    assert_eq!(entrypoint["process"]["containerPid"], 1, "in {entrypoint}");
    assert_eq!(entrypoint["k8s"], bundle.k8s(), "in {entrypoint}");
    bundle.release("/go");
    runtime.wait_stopped(&bundle);
    opens.stop().assert_nothing_dropped();
}

/// As `BinaryName` in containerd's configuration does.
fn renamed_by_containerd() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let (opens, execs) = (Tracer::open(&namespace), Tracer::exec(&namespace));
    let pod = containerd.pod_by(containerd::RENAMED, &namespace, "renamed");
    let path = format!("/{}", unique("first"));
    let id = pod.container("app", &["/bin/sh", "-c", &format!("true < {path}; exec sleep 1000")]);
    let pause = opens.wait_open(containerd::PAUSE_OPENS);
    assert_eq!(pause["k8s"]["pod"], "renamed", "in {pause}");
    assert_eq!(pause["container"]["type"], "sandbox", "in {pause}");
    let event = opens.wait_open(&path);
    assert_eq!(event["k8s"]["container"], "app", "in {event}");
    assert_eq!(event["container"]["id"], id, "in {event}");
    let entrypoint = execs.wait_for("the entrypoint", |event| event["container"]["id"] == id);
    assert_eq!(entrypoint["exec"]["path"], "/bin/sh", "in {entrypoint}");
    opens.stop().assert_nothing_dropped();
}

/// It looks like a container that nobody knows, and is found to be none.
fn chroot_of_host() {
    let bundle = Bundle::plain(&["/bin/true"]);
    let mark = format!("/{}", unique("chroot"));
    let tracer = all(&[]);
    let root = bundle.inside(Path::new("/"));
    let mut chroot = Command::new("unshare");
    chroot.args(["--mount", "--pid", "--fork", "chroot"]).arg(&root);
    wait::output(chroot.args(["/bin/sh", "-c", &format!("true < {mark}; true < {mark}")]), wait::LIMIT);
    let event = tracer.wait_open(&mark);
    assert_eq!(event["container"], Value::Null, "in {event}");
    let events = tracer.stop().events();
    assert_eq!(below(&events, &mark).len(), 2);
}

fn in_process() {
    let dir = scratch::Dir::new("in-process");
    let runtime = dir.path().join("crun-wasm");
    fs::copy(program::compile("in_process.c"), &runtime).unwrap();
    let pod = Pod::new("wasm", "app");
    let mark = format!("/{}", unique("wasm"));
    let bundle = Bundle::script(&pod, "true");
    let tracer = Tracer::open(&pod.namespace);
    let mut create = Command::new(&runtime);
    create.args(["create", "--bundle"]).arg(bundle.path()).arg(&bundle.id).env("OPENS", &mark);
    wait::output(&mut create, wait::LIMIT).success();
    bundle.assert_names(&tracer.wait_open(&mark));
    tracer.stop().assert_nothing_dropped();
}

/// As nvidia-container-runtime does: writes the bundle and executes runc in its own place. Here the bundle is not whole before.
fn rewritten() {
    let dir = scratch::Dir::new("rewriting");
    let wrapper = dir.path().join("nvidia-container-runtime");
    let runc = need::find("runc").unwrap();
    let script = format!(
        "#!/bin/sh\nsleep 0.2\ncat \"$GPU_BUNDLE/whole.json\" > \"$GPU_BUNDLE/config.json\"\nexec {} \"$@\"\n",
        runc.display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
    let pod = Pod::new("gpu", "app");
    let mark = format!("/{}", unique("gpu"));
    let bundle = Bundle::script(&pod, &format!("true < {mark}"));
    fs::rename(bundle.config_path(), bundle.path().join("whole.json")).unwrap();
    fs::write(bundle.config_path(), "").unwrap();
    let tracer = Tracer::open(&pod.namespace);
    let runtime = Runtime::runc().called(&wrapper);
    let mut run = runtime.command();
    run.env("GPU_BUNDLE", bundle.path()).args(["run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    wait::output(&mut run, wait::LIMIT);
    bundle.assert_names(&tracer.wait_open(&mark));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    assert!(!done.log().contains("without pod"), "{}", done.log());
}

/// A hook of the host's.
fn hook(kind: &str, script: &str) -> Value {
    let env = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > /dev/null; {script}")], "env": [env]}]})
}

fn hook_starts_container() {
    let (outer_pod, inner_pod) = (Pod::new("outer", "app"), Pod::new("inner", "app"));
    let [outer_mark, inner_mark] = ["outer", "inner"].map(|name| format!("/{}", unique(name)));
    let inner = Bundle::script(&inner_pod, &format!("true < {inner_mark} || true"));
    let runtime = Runtime::runc();
    let start = format!(
        "{} --root {} run --bundle {} {} < /dev/null > /dev/null 2>&1",
        runtime.program().display(),
        runtime.root().display(),
        inner.path().display(),
        inner.id
    );
    let outer = Bundle::script(&outer_pod, &format!("true < {outer_mark}"))
        .edit(|config| config["hooks"] = hook("createRuntime", &start));
    let tracer = all(&[]);
    runtime.run(&outer);
    outer.assert_names(&tracer.wait_open(&outer_mark));
    inner.assert_names(&tracer.wait_open(&inner_mark));
    tracer.stop().assert_nothing_dropped();
}

/// A daemon that a hook started makes a mount namespace of its own and goes into a directory, long after the entrypoint.
fn left_outside() {
    let dir = scratch::Dir::new("left-outside");
    let go = dir.path().join("go");
    make_fifo(&go);
    let pod = Pod::new("hooked", "app");
    let [mark, end, daemons] = ["mark", "end", "daemon"].map(|name| format!("/{}", unique(name)));
    let bundle = Bundle::script(&pod, &format!("true < {mark}; read x < /go; true < {end}")).with_fifo("/go");
    let daemon = format!(
        "setsid sh -c 'read x < {go}; unshare --mount chroot {root} /bin/sh -c \"true < {daemons}\"' \
         > /dev/null 2>&1 < /dev/null &",
        go = go.display(),
        root = bundle.inside(Path::new("/")).display(),
    );
    let bundle = bundle.edit(|config| config["hooks"] = hook("createRuntime", &daemon));
    let runtime = Runtime::runc();
    let tracer = all(&[]);
    runtime.run_detached(&bundle);
    bundle.assert_names(&tracer.wait_open(&mark));
    wait::release(&go);
    let event = tracer.wait_open(&daemons);
    assert_eq!(event["container"], Value::Null, "in {event}");
    bundle.release("/go");
    bundle.assert_names(&tracer.wait_open(&end));
    runtime.wait_stopped(&bundle);
    tracer.stop().assert_nothing_dropped();
}

fn left_inside() {
    let pod = Pod::new("hooked", "app");
    let [mark, end, left] = ["mark", "end", "left"].map(|name| format!("/{}", unique(name)));
    let daemon = format!("(read x < /left; true < {left}; read x < /leave) > /dev/null 2>&1 < /dev/null &");
    let bundle = Bundle::script(&pod, &format!("true < {mark}; read x < /go; true < {end}"))
        .with_fifo("/go")
        .with_fifo("/left")
        .with_fifo("/leave")
        .edit(|config| config["hooks"] = hook("startContainer", &daemon));
    let runtime = Runtime::runc();
    let tracer = all(&[]);
    runtime.run_detached(&bundle);
    bundle.assert_names(&tracer.wait_open(&mark));
    bundle.release("/left");
    bundle.assert_names(&tracer.wait_open(&left));
    bundle.release("/go");
    bundle.assert_names(&tracer.wait_open(&end));
    runtime.wait_stopped(&bundle);
    tracer.stop().assert_nothing_dropped();
}

/// crun runs such hooks in `start`.
fn poststart() {
    let pod = Pod::new("hooked", "app");
    let [mark, entered] = ["mark", "entered"].map(|name| format!("/{}", unique(name)));
    let script = format!(
        "nsenter -t $(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p') -m /bin/sh -c \"true < {entered}\""
    );
    let env = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let bundle =
        Bundle::script(&pod, &format!("true < {mark}; read x < /go")).with_fifo("/go").edit(|config| {
            config["hooks"] =
                json!({"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": [env]}]});
        });
    let runtime = Runtime::new(Kind::Crun);
    let tracer = all(&[]);
    runtime.create(&bundle);
    runtime.start(&bundle);
    let event = tracer.wait_open(&entered);
    bundle.assert_names(&event);
    bundle.assert_names(&tracer.wait_open(&mark));
    bundle.release("/go");
    runtime.wait_stopped(&bundle);
    tracer.stop().assert_nothing_dropped();
}
