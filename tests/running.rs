//! Containers that were there before the tracer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use harness::bundle::make_fifo;
use harness::need::{self, CONTAINERD, CRUN, RUNC, YOUKI};
use harness::runtime::{Kind, KnownRoot};
use harness::scratch::unique;
use harness::{Bundle, Pod, Runtime, Suite, Tracer, containerd, wait};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for (kind, needs, name) in
        [(Kind::Runc, RUNC, "runc"), (Kind::Crun, CRUN, "crun"), (Kind::Youki, YOUKI, "youki")]
    {
        suite = suite.test(&format!("{name}_container_that_runs"), needs, move || runs(kind)).test(
            &format!("{name}_container_that_is_created"),
            needs,
            move || created(kind),
        );
    }
    for (kind, needs, name) in [(Kind::Runc, RUNC, "runc"), (Kind::Crun, CRUN, "crun")] {
        suite = suite
            .test(&format!("{name}_create_at_work_when_the_tracer_starts"), needs, move || {
                create_at_work(kind);
            })
            .test(&format!("{name}_run_at_work_when_the_tracer_starts"), needs, move || run_at_work(kind));
    }
    suite
        .test("one_that_has_ended_names_nobody", RUNC, ended)
        .test("the_selection_holds_for_it", RUNC, selected)
        .test("containers_in_one_cgroup", RUNC, one_cgroup)
        .test("containers_in_one_pid_namespace", RUNC, one_pid_namespace)
        .test("a_runtime_at_work_that_fails_leaves_nothing", RUNC, fails_at_work)
        .test("a_conmon_in_a_container_watches_over_nothing", RUNC, || watcher_inside(false, "conmon"))
        .test("a_conmon_that_sees_the_hosts_pids_watches_over_nothing", RUNC, || {
            watcher_inside(true, "conmon");
        })
        .test("a_shim_in_a_container_watches_over_nothing", RUNC, || {
            watcher_inside(false, "containerd-shim-runc-v2");
        })
        .test("a_shim_that_sees_the_hosts_pids_watches_over_nothing", RUNC, || {
            watcher_inside(true, "containerd-shim-runc-v2");
        })
        .test("pod_of_an_engine_with_a_directory_of_its_own", CONTAINERD, pod)
        .run()
}

/// Fails unless the event names the container's pod, found through its state.
#[track_caller]
fn assert_found(event: &Value, bundle: &Bundle) {
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
}

/// Its first process, which waits, and a child of that, which does too: neither has done anything since the tracer
/// looked at them.
fn runs(kind: Kind) {
    let pod = Pod::new("running", "app");
    let [child, first, joined] = ["child", "first", "joined"].map(|name| format!("/{}", unique(name)));
    let script = format!("(read x < /go; true < {child}) & wait; true < {first}; read x < /end");
    let bundle = Bundle::script(&pod, &script).with_fifo("/go").with_fifo("/end");
    let runtime = Runtime::new(kind);
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let tracer = Tracer::open(&pod.namespace);
    bundle.release("/go");
    let event = tracer.wait_open(&child);
    assert_found(&event, &bundle);
    assert_ne!(event["process"]["containerPid"], 1);
    let event = tracer.wait_open(&first);
    assert_found(&event, &bundle);
    assert_eq!(event["process"]["containerPid"], 1);
    runtime.exec(&bundle, &["/bin/sh", "-c", &format!("true < {joined}")]);
    assert_eq!(tracer.wait_open(&joined)["k8s"], bundle.k8s());
    bundle.release("/end");
    runtime.wait_stopped(&bundle);
    tracer.stop().assert_nothing_dropped();
}

fn created(kind: Kind) {
    let pod = Pod::new("created", "app");
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::script(&pod, &format!("true < {end}"));
    let runtime = Runtime::new(kind);
    let _state = KnownRoot::new(&runtime);
    runtime.create(&bundle);
    let tracer = Tracer::exec(&pod.namespace);
    let opens = Tracer::open(&pod.namespace);
    runtime.start(&bundle);
    assert_found(&opens.wait_open(&end), &bundle);
    let entrypoint = tracer.wait_for("the entrypoint", |event| event["exec"]["path"] == "/bin/sh");
    assert_found(&entrypoint, &bundle);
    runtime.wait_stopped(&bundle);
}

/// Its processes end without having done anything; what comes after is the next container's.
fn ended() {
    let pod = Pod::new("ended", "app");
    let bundle = Bundle::script(&pod, "read x < /end").with_fifo("/end");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.delete(&bundle);
    let path = format!("/{}", unique("next"));
    let next = Bundle::script(&Pod::new("next", "app"), &format!("true < {path}"));
    runtime.run(&next);
    next.assert_names(&tracer.wait_open(&path));
    let events = tracer.stop().events();
    let of_ended: Vec<&Value> = events.iter().filter(|event| event["k8s"] == bundle.k8s()).collect();
    // It did nothing but wait for somebody to open the other end of its fifo, and was killed in that.
    assert!(of_ended.iter().all(|event| event["open"]["path"] == "/end"), "{of_ended:?}");
}

fn selected() {
    let [wanted, other] = ["wanted", "other"].map(|name| {
        let script = format!("read x < /go; true < /{name}");
        let bundle = Bundle::script(&Pod::new(name, "app"), &script).with_fifo("/go");
        let runtime = Runtime::runc();
        let state = KnownRoot::new(&runtime);
        runtime.run_detached(&bundle);
        (bundle, runtime, state)
    });
    let namespace = wanted.0.k8s()["namespace"].as_str().unwrap().to_owned();
    let tracer = Tracer::open(&namespace);
    for (bundle, runtime, _) in [&other, &wanted] {
        bundle.release("/go");
        runtime.wait_stopped(bundle);
    }
    tracer.wait_open("/wanted");
    for event in tracer.stop().events() {
        assert_found(&event, &wanted.0);
    }
}

/// The tests' containerd keeps its runtime's state where nobody looks; its shims show the way.
fn pod() {
    let containerd = containerd::shared();
    let namespace = unique("t");
    let pod = containerd.pod(&namespace, "before");
    let path = format!("/{}", unique("tick"));
    let id = pod.container("app", &["/bin/sh", "-c", &format!("while :; do true < {path}; sleep 0.1; done")]);
    let tracer = Tracer::open(&namespace);
    let event = tracer.wait_open(&path);
    assert_eq!(event["k8s"]["pod"], "before", "in {event}");
    assert_eq!(event["k8s"]["container"], "app", "in {event}");
    assert_eq!(event["container"]["id"], id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
    let probe = format!("/{}", unique("probe"));
    pod.exec(&id, &["/bin/sh", "-c", &format!("true < {probe}")]);
    assert_eq!(tracer.wait_open(&probe)["k8s"]["pod"], "before");
}

/// Two containers that run, each with a child that waits as its first process does. The second one is made when
/// the first one runs, whose pid `change` is told.
struct Pair {
    runtime: Runtime,
    _state: KnownRoot,
    mark: String,
    bundles: [Bundle; 2],
}

impl Pair {
    fn start(change: impl FnOnce(&mut Value, i32)) -> Self {
        let (namespace, mark) = (unique("t"), format!("/{}", unique("pair")));
        let bundle = |name: &str| {
            let script = format!(
                "(read x < /child; true < {mark}/{name}/child) & wait; true < {mark}/{name}/first; read x < /end"
            );
            Bundle::script(&Pod::inside(&namespace, name, "app"), &script)
                .with_fifo("/child")
                .with_fifo("/end")
        };
        let runtime = Runtime::runc();
        let state = KnownRoot::new(&runtime);
        let first = bundle("one");
        runtime.run_detached(&first);
        let pid = runtime.init_pid(&first).expect("it waits");
        let second = bundle("two").edit(|config| change(config, pid));
        runtime.run_detached(&second);
        Self { runtime, _state: state, mark, bundles: [first, second] }
    }

    fn pids(&self) -> [i32; 2] {
        [0, 1].map(|index| self.runtime.init_pid(&self.bundles[index]).expect("it waits"))
    }

    /// Fails unless a tracer that starts now tells them apart. They go on in the opposite order.
    fn assert_told_apart(&self) {
        let namespace = &self.bundles[0].pod.as_ref().unwrap().namespace;
        let tracer = Tracer::open(namespace);
        for (bundle, name) in self.bundles.iter().zip(["one", "two"]).rev() {
            bundle.release("/child");
            for what in ["child", "first"] {
                assert_found(&tracer.wait_open(&format!("{}/{name}/{what}", self.mark)), bundle);
            }
            let joined = format!("{}/{name}/joined", self.mark);
            self.runtime.exec(bundle, &["/bin/sh", "-c", &format!("true < {joined}")]);
            assert_eq!(tracer.wait_open(&joined)["k8s"], bundle.k8s());
            bundle.release("/end");
        }
    }
}

/// In the v2 tree: by the cgroup, the second one's processes would be the first one's.
fn one_cgroup() {
    let pair = Pair::start(|_, _| {});
    let [_, second] = pair.pids();
    let tree = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|tree| Path::new(tree).join("cgroup.controllers").exists())
        .expect("a v2 tree");
    let group = Path::new(tree).join(&pair.bundles[0].id).join("cgroup.procs");
    // The shell may not have forked it yet.
    let children = wait::until("the second one's child", || {
        let children = fs::read_to_string(format!("/proc/{second}/task/{second}/children")).unwrap();
        (!children.trim().is_empty()).then_some(children)
    });
    wait::until("the first one's child in the cgroup", || {
        (fs::read_to_string(&group).unwrap().lines().count() == 2).then_some(())
    });
    for pid in children.split_whitespace().chain([second.to_string().as_str()]) {
        fs::write(&group, pid).unwrap();
    }
    assert_eq!(fs::read_to_string(&group).unwrap().lines().count(), 4, "two of each");
    pair.assert_told_apart();
}

/// As with `shareProcessNamespace`: the second one's processes are in a namespace whose first process is the first
/// one's. The nearest first process says whose they are.
fn one_pid_namespace() {
    let pair = Pair::start(|config, pid| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = format!("/proc/{pid}/ns/pid").into();
            }
        }
    });
    let [first, second] = pair.pids().map(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap());
    assert_eq!(first, second);
    pair.assert_told_apart();
}

/// A container whose runtime waits in a hook before there is a container, for as long as a test likes.
struct Waiting {
    bundle: Bundle,
    end: String,
}

impl Waiting {
    /// `finally` is what the hook does when it may go on.
    fn new(finally: &str) -> Self {
        let end = format!("/{}", unique("end"));
        let bundle = Bundle::script(&Pod::new("waiting", "app"), &format!("true < /first; true < {end}"));
        let dir = bundle.path().to_owned();
        make_fifo(&dir.join("hold"));
        let dir = dir.display();
        let hook = format!(": > {dir}/holding; read x < {dir}/hold; {finally}");
        let bundle = bundle.edit(|config| {
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", hook]}]});
        });
        Self { bundle, end }
    }

    /// Runs `runtime` and, when it waits, starts a tracer; lets it go on then.
    fn with_tracer(&self, runtime: impl FnOnce() + Send) -> Tracer {
        std::thread::scope(|scope| {
            let at_work = scope.spawn(runtime);
            let holding = self.bundle.path().join("holding");
            wait::until("the hook", || holding.exists().then_some(()));
            let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
            wait::release(&self.bundle.path().join("hold"));
            at_work.join().expect("it has its own deadline");
            tracer
        })
    }

    /// Fails unless the container is known, from its first event to its last.
    #[track_caller]
    fn assert_known(&self, tracer: Tracer) {
        tracer.wait_open(&self.end);
        let events = tracer.stop().events();
        let own: Vec<&Value> = events.iter().filter(|event| self.bundle.owns(event)).collect();
        let paths: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
        assert_eq!(paths, [&json!("/first"), &json!(self.end)]);
        for event in own {
            assert_eq!(event["k8s"], self.bundle.k8s(), "in {event}");
        }
    }
}

/// crun executes a copy of itself first.
fn create_at_work(kind: Kind) {
    let waiting = Waiting::new("true");
    let runtime = Runtime::new(kind);
    let tracer = waiting.with_tracer(|| runtime.create(&waiting.bundle));
    runtime.start(&waiting.bundle);
    runtime.wait_stopped(&waiting.bundle);
    waiting.assert_known(tracer);
}

fn run_at_work(kind: Kind) {
    let waiting = Waiting::new("true");
    let runtime = Runtime::new(kind);
    let tracer = waiting.with_tracer(|| drop(runtime.run(&waiting.bundle)));
    waiting.assert_known(tracer);
}

/// What comes next is not what it was about to make.
fn fails_at_work() {
    let waiting = Waiting::new("false");
    let runtime = Runtime::runc();
    let tracer = waiting.with_tracer(|| {
        let output = runtime.run(&waiting.bundle);
        assert!(!output.status.success(), "{output:?}");
    });
    let end = format!("/{}", unique("end"));
    let next = Bundle::script(&Pod::new("next", "app"), &format!("true < {end}"));
    runtime.run(&next);
    next.assert_names(&tracer.wait_open(&end));
    let events = tracer.stop().events();
    let stale: Vec<&Value> = events.iter().filter(|event| waiting.bundle.owns(event)).collect();
    assert!(stale.is_empty(), "{stale:#?}");
}

/// A process in a container that calls itself like one that watches over containers, and says of its child that it
/// is another pod's: by a bundle of the container's making, and by one of the host's.
fn watcher_inside(host_pids: bool, name: &str) {
    let mark = format!("/{}", unique("lie"));
    let victim = Bundle::script(&Pod::new("victim", "app"), "true");
    // Where the shim looks: the number of its child, in a directory that has the container's id for a name.
    let watch = format!(
        "sh -c 'echo $$ > /b/victim/init.pid; read x < /go; true < {mark}/child; true < {mark}/end' & wait"
    );
    for bundle in ["/b/victim".to_owned(), victim.path().display().to_string()] {
        let start = format!("cd /b/victim; exec -a sh /bin/{name} /watch -b {bundle} -c {}", victim.id);
        let liar = Bundle::script(&Pod::new("liar", "app"), &format!("({start}) & wait; true"))
            .with_executable(&format!("/bin/{name}"), fs::read(need::find("busybox").unwrap()).unwrap())
            .with_file("/watch", &watch)
            .with_file("/b/victim/config.json", victim.config.to_string())
            .with_fifo("/go")
            .edit(|config| {
                if host_pids {
                    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.retain(|namespace| namespace["type"] != "pid");
                }
            });
        let runtime = Runtime::runc();
        let _state = KnownRoot::new(&runtime);
        runtime.run_detached(&liar);
        let written = liar.inside(Path::new("/b/victim/init.pid"));
        wait::until("the child", || {
            fs::read_to_string(&written).is_ok_and(|pid| !pid.is_empty()).then_some(())
        });
        let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
        liar.release("/go");
        for path in ["child", "end"] {
            assert_found(&tracer.wait_open(&format!("{mark}/{path}")), &liar);
        }
        for event in tracer.stop().events() {
            assert_ne!(event["k8s"], victim.k8s(), "in {event}");
            assert_ne!(event["container"]["id"], *victim.id, "in {event}");
        }
    }
}
