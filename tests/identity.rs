//! Whatever a container does to its namespaces, cgroups, roots and parents, and whatever is done to
//! it, it stays the same container; and nobody else becomes it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use harness::need::{self, CONTAINERD, Need, RUNC};
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Pod, Runtime, Suite, Tracer, containerd, nested};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let criu: Vec<Need> = RUNC.iter().copied().chain([Need::Criu]).collect();
    Suite::new()
        .test("chroot", RUNC, chroot)
        .test("pid_namespace_of_its_own", RUNC, pid_namespace)
        .test("cgroups_of_its_own_and_the_root_cgroups", RUNC, cgroups)
        .test("daemon_outlives_its_parents", RUNC, daemon)
        .test("daemon_outlives_the_first_process", RUNC, survivor)
        .test("namespaces_of_the_host", RUNC, host_namespaces)
        .test("privileged_pod", RUNC, privileged)
        .test("init_container_and_the_others", CONTAINERD, init_container)
        .test("paused_and_resumed", RUNC, paused)
        .test("paused_while_the_tracer_starts", RUNC, paused_before)
        .test("checkpointed_and_restored", &criu, restored)
        .test("restored_before_the_tracer_started", &criu, restored_before)
        .test("a_pid_that_is_used_again_names_nobody", RUNC, pid_reuse)
        .test("a_pid_that_is_used_again_by_a_container", RUNC, pid_reuse_by_container)
        .run()
}

/// A path that no other test opens.
fn mark() -> String {
    format!("/{}", unique("mark"))
}

/// Runs the container to its end and fails unless it opened these files below `mark`, in this order,
/// all of them under its own name. Returns their events.
#[track_caller]
fn assert_opens(bundle: &Bundle, mark: &str, names: &[&str]) -> Vec<Value> {
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let output = Runtime::runc().run(bundle);
    let end = format!("{mark}/{}", names.last().unwrap());
    assert!(output.stderr.contains(&end), "the container did not run to its end: {output:?}");
    tracer.wait_open(&end);
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let own = below(done.events(), mark);
    let told: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
    let expected: Vec<Value> = names.iter().map(|name| json!(format!("{mark}/{name}"))).collect();
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    for event in &own {
        bundle.assert_names(event);
    }
    own
}

fn below(events: Vec<Value>, mark: &str) -> Vec<Value> {
    let prefix = format!("{mark}/");
    // What others on this machine lose is told, too, and has no path.
    let is_below =
        |event: &Value| event["open"]["path"].as_str().is_some_and(|path| path.starts_with(&prefix));
    events.into_iter().filter(is_below).collect()
}

fn chroot() {
    let mark = mark();
    let jail = "/bin/busybox mkdir -p /jail/bin; /bin/busybox cp /bin/busybox /jail/bin/sh";
    let inner = format!("true < {mark}/jail");
    let script = format!("{jail}; /bin/busybox chroot /jail /bin/sh -c '{inner}'; true < {mark}/end");
    let bundle = Bundle::script(&Pod::new("jail", "app"), &script);
    assert_opens(&bundle, &mark, &["jail", "end"]);
}

fn pid_namespace() {
    let mark = mark();
    let inner = format!("true < {mark}/inside");
    let script = format!("unshare -p -m -f /bin/sh -c '{inner}'; true < {mark}/end");
    let bundle = Bundle::script(&Pod::new("unshared", "app"), &script).with_capabilities(&["CAP_SYS_ADMIN"]);
    let events = assert_opens(&bundle, &mark, &["inside", "end"]);
    assert_eq!(events[0]["process"]["containerPid"], 1, "the first one of its own namespace: {}", events[0]);
    assert_ne!(events[0]["process"]["pid"], events[1]["process"]["pid"]);
}

/// A supervisor makes cgroups; one that is root on the host in all but name leaves its own.
fn cgroups() {
    let mark = mark();
    let bundle = Bundle::script(&Pod::new("supervisor", "app"), "true");
    let own = bundle.id.clone();
    // "0" is whoever writes it. A hierarchy may refuse (cpuset wants its CPUs first): then it stays.
    let script = format!(
        "for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
             mkdir $tree/{own}/nested && echo 0 > $tree/{own}/nested/cgroup.procs
         done 2> /dev/null
         cat /proc/self/cgroup; true < {mark}/nested; sh -c 'true < {mark}/child-in-nested'
         for tree in /sys/fs/cgroup/* /sys/fs/cgroup; do echo 0 > $tree/cgroup.procs; done 2> /dev/null
         cat /proc/self/cgroup; true < {mark}/root; sh -c 'true < {mark}/child-in-root'"
    );
    let bundle = bundle.edit(|config| {
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        nested::add_mounts(config, [nested::bind("/sys/fs/cgroup", "/sys/fs/cgroup", &[])]);
    });
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let runtime = Runtime::runc();
    let output = runtime.run(&bundle);
    // In the v2 tree, or, where there is none, in one that refuses nothing: in a cgroup below its own, and then in the
    // root.
    let tree = if output.stdout.contains("0::") { "0:" } else { "pids" };
    assert!(output.stdout.contains(&format!("{tree}:/{own}/nested\n")), "{output:?}");
    assert!(output.stdout.contains(&format!("{tree}:/\n")), "{output:?}");
    tracer.wait_open(&format!("{mark}/child-in-root"));
    let events = below(tracer.stop().events(), &mark);
    assert_eq!(events.len(), 4, "{events:#?}");
    for event in &events {
        bundle.assert_names(event);
    }
}

fn daemon() {
    let mark = mark();
    let work = format!("read x < /go; true < {mark}/daemon; sh -c 'true < {mark}/child'");
    // Each parent ends at once: what is left belongs to process 1, whose waiting their ends interrupt.
    let script = format!(
        "(/bin/busybox setsid /bin/sh -c '({}) &' &); true < {mark}/first; until read x < /end; do :; done",
        work.replace('\'', "\"")
    );
    let bundle = Bundle::script(&Pod::new("daemon", "app"), &script).with_fifo("/go").with_fifo("/end");
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&bundle.pod.as_ref().unwrap().namespace);
    runtime.run_detached(&bundle);
    let first = tracer.wait_open(&format!("{mark}/first"));
    bundle.release("/go");
    let event = tracer.wait_open(&format!("{mark}/daemon"));
    bundle.assert_names(&event);
    assert_eq!(event["process"]["ppid"], first["process"]["pid"], "an orphan's parent is process 1");
    bundle.assert_names(&tracer.wait_open(&format!("{mark}/child")));
    bundle.release("/end");
    runtime.wait_stopped(&bundle);
}

/// In the host's pid namespace nothing ends with the first process; the container goes on with
/// whoever is left.
fn survivor() {
    let mark = mark();
    let script = format!("(read x < /go; true < {mark}/left; true < {mark}/end) & true < {mark}/first");
    let pod = Pod::new("survivor", "app");
    let bundle = Bundle::script(&pod, &script).with_fifo("/go").edit(|config| without(config, &["pid"]));
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    runtime.run_detached(&bundle);
    bundle.assert_names(&tracer.wait_open(&format!("{mark}/first")));
    runtime.wait_stopped(&bundle);
    bundle.release("/go");
    for name in ["left", "end"] {
        bundle.assert_names(&tracer.wait_open(&format!("{mark}/{name}")));
    }
}

/// Leaves the container in the host's namespaces of these kinds.
fn without(config: &mut Value, kinds: &[&str]) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| !kinds.iter().any(|kind| namespace["type"] == *kind));
    if kinds.contains(&"uts") {
        // It would be the host's.
        config.as_object_mut().unwrap().remove("hostname");
    }
}

fn host_namespaces() {
    for kinds in [&["pid"][..], &["network"], &["ipc"], &["uts"], &["pid", "network", "ipc", "uts"]] {
        let mark = mark();
        let script = format!("true < {mark}/1; sh -c 'true < {mark}/2'; true < {mark}/3");
        let pod = Pod::new("host", "app");
        let bundle = Bundle::script(&pod, &script).edit(|config| without(config, kinds));
        let events = assert_opens(&bundle, &mark, &["1", "2", "3"]);
        if kinds.contains(&"pid") {
            assert_eq!(events[0]["process"]["containerPid"], events[0]["process"]["pid"], "in {}", events[0]);
        }
    }
}

fn privileged() {
    let mark = mark();
    // Its mounts, and an open through another root directory: that of the host's first process as
    // this pid namespace has it, which is its own.
    let script = format!(
        "mount -t tmpfs none /mnt; true < {mark}/1; chroot /proc/1/root /bin/sh -c 'true < {mark}/2'; true < {mark}/3"
    );
    let bundle = nested::privileged(Some(&Pod::new("privileged", "app")), &script, &[]);
    let bundle = bundle.with_file("/mnt/keep", "");
    assert_opens(&bundle, &mark, &["1", "2", "3"]);
}

/// Init containers run to their end, one after the other, before the others are created.
fn init_container() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let tracer = Tracer::open(&namespace);
    let pod = containerd.pod(&namespace, "web");
    let mut expected = Vec::new();
    for (name, stays) in [("init-1", false), ("init-2", false), ("app", true), ("side", true)] {
        let path = format!("/{}", unique(name));
        let script = format!("true < {path}{}", if stays { "; sleep 1000" } else { "" });
        let id = pod.container(name, &["/bin/sh", "-c", &script]);
        tracer.wait_open(&path);
        expected.push((path, name, id));
    }
    let events = tracer.stop().events();
    for (path, name, id) in &expected {
        let event = events.iter().find(|event| event["open"]["path"] == **path).unwrap();
        assert_eq!(event["k8s"]["pod"], "web", "in {event}");
        assert_eq!(event["k8s"]["container"], *name, "in {event}");
        assert_eq!(event["container"]["id"], **id, "in {event}");
        assert_eq!(event["container"]["type"], "container", "in {event}");
    }
    assert_eq!(events.len(), expected.len() + 1, "these and the sandbox's: {events:#?}");
}

/// A container that opens a file all the while.
fn looping(mark: &str) -> Bundle {
    let script = format!("while :; do true < {mark}/loop; sleep 0.05; done");
    Bundle::script(&Pod::new("looping", "app"), &script)
}

/// Waits until the tracer has shown `more` opens of the loop than now.
#[track_caller]
fn wait_loops(tracer: &Tracer, mark: &str, more: usize) {
    let count = || below(tracer.events(), mark).len();
    let now = count();
    wait::until("more of the loop", || (count() >= now + more).then_some(()));
}

#[track_caller]
fn control(runtime: &Runtime, command: &str, bundle: &Bundle) {
    wait::output(runtime.command().args([command, &bundle.id]), LIMIT).success();
}

fn paused() {
    let mark = mark();
    let bundle = looping(&mark);
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    runtime.run_detached(&bundle);
    wait_loops(&tracer, &mark, 2);
    control(&runtime, "pause", &bundle);
    // Others come and go meanwhile, long enough to be taken for it.
    let other = Bundle::script(&Pod::new("other", "app"), &format!("true < {mark}-other"));
    for _ in 0..5 {
        Runtime::runc().run(&other);
    }
    other.assert_names(&tracer.wait_open(&format!("{mark}-other")));
    control(&runtime, "resume", &bundle);
    wait_loops(&tracer, &mark, 3);
    let done = tracer.stop();
    done.assert_nothing_dropped();
    for event in below(done.events(), &mark) {
        bundle.assert_names(&event);
    }
}

fn paused_before() {
    let mark = mark();
    let bundle = looping(&mark);
    let runtime = Runtime::runc();
    let _state = harness::runtime::KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    control(&runtime, "pause", &bundle);
    let tracer = Tracer::open(&bundle.pod.as_ref().unwrap().namespace);
    control(&runtime, "resume", &bundle);
    wait_loops(&tracer, &mark, 3);
    for event in tracer.stop().events() {
        assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
        assert_eq!(event["container"]["source"], "state", "in {event}");
    }
}

/// `runc checkpoint`, which ends the container, and `runc restore --detach`.
struct Checkpoint(scratch::Dir);

impl Checkpoint {
    #[track_caller]
    fn take(runtime: &Runtime, bundle: &Bundle) -> Self {
        let checkpoint = Self(scratch::Dir::new("criu"));
        let mut command = checkpoint.command(runtime, "checkpoint");
        wait::output(command.arg(&bundle.id), LIMIT).success();
        checkpoint
    }

    #[track_caller]
    fn restore(&self, runtime: &Runtime, bundle: &Bundle) {
        let mut command = self.command(runtime, "restore");
        command.args(["--detach", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
        // The container has had /dev/null for its streams, and gets them again.
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(self.0.path().join("restore.log")).unwrap());
    }

    fn command(&self, runtime: &Runtime, command: &str) -> Command {
        let mut line = runtime.command();
        line.arg("--criu").arg(need::criu().unwrap()).arg(command);
        line.arg("--image-path").arg(self.0.path().join("image")).arg("--work-path").arg(self.0.path());
        line
    }
}

/// Starts it with streams that criu can save.
#[track_caller]
fn run_quietly(runtime: &Runtime, bundle: &Bundle) {
    let mut command = runtime.command();
    command.args(["run", "--detach", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
}

/// A restored container executes nothing: its processes are made as they were. What criu opens to make
/// them is not the container's.
fn restored() {
    let mark = mark();
    let bundle = looping(&mark);
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    run_quietly(&runtime, &bundle);
    wait_loops(&tracer, &mark, 2);
    let checkpoint = Checkpoint::take(&runtime, &bundle);
    let before = below(tracer.events(), &mark).len();
    // What criu had the container's own process open, to save it, is the container's.
    let saved = tracer.events().len();
    checkpoint.restore(&runtime, &bundle);
    wait_loops(&tracer, &mark, 3);
    let joined = format!("{mark}-joined");
    runtime.exec(&bundle, &["/bin/sh", "-c", &format!("true < {joined}")]);
    bundle.assert_names(&tracer.wait_open(&joined));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    assert!(below(events.clone(), &mark).len() >= before + 3);
    for event in below(events.clone(), &mark) {
        bundle.assert_names(&event);
    }
    let strange: Vec<&Value> = events[saved..]
        .iter()
        .filter(|event| bundle.owns(event))
        .filter(|event| !event["open"]["path"].as_str().unwrap().starts_with(&mark))
        .collect();
    assert!(strange.is_empty(), "the container opens nothing but its mark: {strange:#?}");
}

fn restored_before() {
    let mark = mark();
    let bundle = looping(&mark);
    let runtime = Runtime::runc();
    let _state = harness::runtime::KnownRoot::new(&runtime);
    run_quietly(&runtime, &bundle);
    Checkpoint::take(&runtime, &bundle).restore(&runtime, &bundle);
    let tracer = Tracer::open(&bundle.pod.as_ref().unwrap().namespace);
    wait_loops(&tracer, &mark, 3);
    for event in tracer.stop().events() {
        assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
        assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    }
}

/// Makes the kernel give `pid` to the next process, if nobody else takes it first.
fn offer(pid: i32) {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
}

/// A container of one process has ended; returns its pid, which is free.
#[track_caller]
fn ended(runtime: &Runtime, bundle: &Bundle) -> i32 {
    runtime.create(bundle);
    let pid = runtime.init_pid(bundle).unwrap();
    runtime.start(bundle);
    runtime.wait_stopped(bundle);
    runtime.delete(bundle);
    wait::until("the end of its process", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    pid
}

/// The tracer is as late as can be: it hears of the container when its pid is somebody else's.
fn pid_reuse() {
    let mark = mark();
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    for round in 0..50 {
        let bundle = Bundle::script(&Pod::new("gone", "app"), &format!("true < {mark}/gone/{round}"));
        tracer.pause();
        let pid = ended(&runtime, &bundle);
        offer(pid);
        let mut next = Command::new("/bin/sh");
        next.args(["-c", &format!("true < {mark}/next/{round}")]).stderr(Stdio::null());
        let mut child = next.spawn().unwrap();
        let reused = i32::try_from(child.id()).unwrap() == pid;
        child.wait().unwrap();
        tracer.resume();
        let event = tracer.wait_open(&format!("{mark}/next/{round}"));
        assert_eq!((&event["k8s"], &event["container"]), (&Value::Null, &Value::Null), "in {event}");
        let event = tracer.wait_open(&format!("{mark}/gone/{round}"));
        assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
        assert!(bundle.owns(&event), "in {event}");
        if reused {
            assert_eq!(event["process"]["pid"], pid);
            return;
        }
    }
    panic!("no pid was used again: this run has shown nothing");
}

/// The next to have the pid is a process of another container.
fn pid_reuse_by_container() {
    let mark = mark();
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let script = format!(
        "read x < /go; true < {mark}/idle; while :; do read x < /go && sh -c 'true < {mark}/next'; done"
    );
    let other = Bundle::script(&Pod::new("other", "app"), &script).with_fifo("/go");
    runtime.run_detached(&other);
    other.release("/go");
    tracer.wait_open(&format!("{mark}/idle"));
    for round in 0..50 {
        let bundle = Bundle::script(&Pod::new("gone", "app"), &format!("true < {mark}/gone/{round}"));
        let pid = ended(&runtime, &bundle);
        let seen = below(tracer.events(), &mark)
            .iter()
            .filter(|event| event["open"]["path"] == format!("{mark}/next"))
            .count();
        offer(pid);
        other.release("/go");
        wait::until("the other container's child", || {
            let next = below(tracer.events(), &mark);
            let next: Vec<&Value> =
                next.iter().filter(|event| event["open"]["path"] == format!("{mark}/next")).collect();
            (next.len() > seen).then_some(())
        });
        let events = below(tracer.events(), &mark);
        let last = events.iter().rfind(|event| event["open"]["path"] == format!("{mark}/next")).unwrap();
        other.assert_names(last);
        bundle.assert_names(&tracer.wait_open(&format!("{mark}/gone/{round}")));
        if last["process"]["pid"] == pid {
            return;
        }
    }
    panic!("no pid was used again: this run has shown nothing");
}
