//! Whose event is it: from a container's first event to its last, and never another's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use harness::need::{CRUN, RUNC, RUNC_GCC, YOUKI};
use harness::program::{self, DYNAMIC};
use harness::runtime::Naming;
use harness::scratch::unique;
use harness::{Bundle, Dialect, Kind, Pod, Runtime, Suite, Tracer, wait};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for (kind, needs, name) in
        [(Kind::Runc, RUNC, "runc"), (Kind::Crun, CRUN, "crun"), (Kind::Youki, YOUKI, "youki")]
    {
        for dialect in [Dialect::Containerd, Dialect::CriO] {
            let test = format!("{name}_run_annotated_by_{dialect:?}").to_lowercase();
            suite = suite.test(&test, needs, move || annotated(kind, dialect));
        }
        for naming in
            [Naming::Short, Naming::Long, Naming::Equals, Naming::Relative, Naming::Cwd, Naming::Symlink]
        {
            let test = format!("{name}_bundle_named_{naming:?}").to_lowercase();
            suite = suite.test(&test, needs, move || bundle_named(kind, naming));
        }
        // youki runs detached here, and is gone with its working directory when it is looked at.
        let late: &[Naming] = if kind == Kind::Youki {
            &[Naming::Long]
        } else {
            &[Naming::Long, Naming::Relative, Naming::Cwd]
        };
        for &naming in late {
            let test = format!("{name}_looked_at_late_bundle_named_{naming:?}").to_lowercase();
            suite = suite.test(&test, needs, move || looked_at_late(kind, naming));
        }
        suite = suite
            .test(&format!("{name}_create_and_start"), needs, move || create_and_start(kind))
            .test(&format!("{name}_run_is_over_when_looked_at"), needs, move || over_when_looked_at(kind))
            .test(&format!("{name}_create_is_over_when_looked_at"), needs, move || {
                created_when_looked_at(kind);
            })
            .test(&format!("{name}_exec_carries_the_containers_name"), needs, move || exec_into(kind))
            .test(&format!("{name}_hooks_are_not_the_container"), needs, move || hooks(kind))
            .test(&format!("{name}_hook_in_another_mount_namespace"), needs, move || wandering_hook(kind));
    }
    suite
        .test("loaders_opens_come_first", RUNC_GCC, loader_first)
        .test("no_annotations_no_pod", RUNC, no_annotations)
        .test("threads_and_children_belong_to_it", RUNC_GCC, threads_and_children)
        .test("a_mount_namespace_of_its_own_changes_nothing", RUNC, unshared)
        .test("hundred_in_a_row", RUNC, hundred_in_a_row)
        .test("the_next_container_inherits_nothing", RUNC, next_inherits_nothing)
        .test("siblings_of_a_dying_container_keep_its_name", RUNC_GCC, dying)
        .test("two_at_once_are_told_apart", RUNC, two_at_once)
        .run()
}

/// The paths that were opened, in order.
fn paths(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["open"]["path"].as_str().unwrap()).collect()
}

/// A container's script that opens two files, and the name of the second.
fn two_opens(label: &str) -> (String, String) {
    let end = format!("/{}", unique("end"));
    (format!("read x < /etc/hostname; : {label}; true < {end}"), end)
}

fn annotated(kind: Kind, dialect: Dialect) {
    let pod = Pod::new("web", "app");
    let (script, end) = two_opens("annotated");
    let bundle = Bundle::pod(dialect, &pod, &["/bin/sh", "-c", &script]);
    let tracer = Tracer::open(&pod.namespace);
    Runtime::new(kind).run(&bundle);
    tracer.wait_open(&end);
    let done = tracer.stop();
    let events = done.events();
    // The shell is static and opens nothing else: from the container's first open on, all are here.
    assert_eq!(paths(&events), ["/etc/hostname", &end]);
    for event in &events {
        bundle.assert_names(event);
        assert_eq!(event["process"]["containerPid"], 1);
    }
    done.assert_nothing_dropped();
}

fn bundle_named(kind: Kind, naming: Naming) {
    let pod = Pod::new("named", "app");
    let (script, end) = two_opens("named");
    let bundle = Bundle::script(&pod, &script);
    let tracer = Tracer::open(&pod.namespace);
    Runtime::new(kind).run_naming(&bundle, naming);
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    assert_eq!(paths(&events), ["/etc/hostname", &end]);
    for event in &events {
        bundle.assert_names(event);
    }
}

fn create_and_start(kind: Kind) {
    let pod = Pod::new("created", "app");
    let (script, end) = two_opens("created");
    let bundle = Bundle::script(&pod, &script);
    let runtime = Runtime::new(kind);
    let tracer = Tracer::open(&pod.namespace);
    runtime.create(&bundle);
    // What is created has not begun: the process that waits in it is still the runtime's.
    let pid = runtime.init_pid(&bundle).expect("a process waits to be started");
    assert_eq!(tracer.events(), Vec::<Value>::new());
    runtime.start(&bundle);
    let last = tracer.wait_open(&end);
    assert_eq!(last["process"]["pid"], pid, "the pid that the runtime knows");
    runtime.wait_stopped(&bundle);
    runtime.delete(&bundle);
    let events = tracer.stop().events();
    assert_eq!(paths(&events), ["/etc/hostname", &end]);
    for event in &events {
        bundle.assert_names(event);
    }
}

/// The tracer gets no CPU until the runtime has gone to the bundle's directory, as all of them do:
/// a relative path means another place from then on.
fn looked_at_late(kind: Kind, naming: Naming) {
    let (first, end) = (format!("/{}", unique("first")), format!("/{}", unique("end")));
    let script = format!("true < {first}; read x < /go; true < {end}");
    let bundle = Bundle::script(&Pod::new("late", "app"), &script).with_fifo("/go");
    let runtime = Runtime::new(kind);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    tracer.pause();
    let event = std::thread::scope(|scope| {
        let run = scope.spawn(|| runtime.run_naming(&bundle, naming));
        wait::until("the container's first process", || runtime.init_pid(&bundle));
        tracer.resume();
        let event = tracer.wait_open(&first);
        bundle.release("/go");
        run.join().expect("it has its own deadline");
        event
    });
    bundle.assert_names(&event);
    bundle.assert_names(&tracer.wait_open(&end));
    tracer.stop();
}

/// The tracer gets no CPU until runtime and container are gone. The command line, kept by the kernel
/// side, still says where the bundle is.
fn over_when_looked_at(kind: Kind) {
    let (script, end) = two_opens("over");
    let bundle = Bundle::script(&Pod::new("over", "app"), &script);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    tracer.pause();
    Runtime::new(kind).run(&bundle);
    tracer.resume();
    tracer.wait_open(&end);
    let events: Vec<Value> = tracer.stop().events().into_iter().filter(|event| bundle.owns(event)).collect();
    assert_eq!(paths(&events), ["/etc/hostname", &end]);
    for event in &events {
        bundle.assert_names(event);
    }
}

/// The runtime that created the container is gone, and with it the directory its relative path began
/// from; what it wrote down of the container is still there.
fn created_when_looked_at(kind: Kind) {
    let (script, end) = two_opens("created");
    let bundle = Bundle::script(&Pod::new("created", "app"), &script);
    let runtime = Runtime::new(kind);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    tracer.pause();
    runtime.create_naming(&bundle, Naming::Relative);
    tracer.resume();
    runtime.start(&bundle);
    let event = tracer.wait_open(&end);
    runtime.wait_stopped(&bundle);
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert!(bundle.owns(&event), "in {event}");
    tracer.stop();
}

/// A hook of the host that executes in a mount namespace which is not the runtime's, as NVIDIA's does, is not taken
/// for the entrypoint, and does not keep the real one from being it.
fn wandering_hook(kind: Kind) {
    let pod = Pod::new("hooked", "app");
    let (script, end) = two_opens("hooked");
    let wander =
        "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p'); unshare -m true; nsenter -t $pid -m /bin/true";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", wander], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]});
    let bundle =
        Bundle::script(&pod, &script).edit(|config| config["hooks"] = json!({"createRuntime": [hook]}));
    let tracer = Tracer::open(&pod.namespace);
    Runtime::new(kind).run(&bundle);
    let event = tracer.wait_open(&end);
    bundle.assert_names(&event);
    assert_eq!(event["process"]["containerPid"], 1);
    let events = tracer.stop().events();
    let of_container: Vec<Value> =
        events.into_iter().filter(|event| event["process"]["containerPid"] == 1).collect();
    assert_eq!(paths(&of_container), ["/etc/hostname", &end]);
}

/// `runc exec` comes into the container through a runtime, as its creation did. It must neither
/// take the container over nor be left out.
fn exec_into(kind: Kind) {
    let pod = Pod::new("web", "app");
    let end = format!("/{}", unique("end"));
    let script = format!("true < /before; read x < /go; true < /after; true < {end}");
    let bundle = Bundle::script(&pod, &script).with_fifo("/go");
    let runtime = Runtime::new(kind);
    let tracer = Tracer::open(&pod.namespace);
    runtime.run_detached(&bundle);
    tracer.wait_open("/before");
    for path in ["/exec/one", "/exec/two"] {
        runtime.exec(&bundle, &["/bin/sh", "-c", &format!("true < {path}")]);
        let event = tracer.wait_open(path);
        bundle.assert_names(&event);
        assert_ne!(event["process"]["containerPid"], 1, "in {event}");
    }
    bundle.release("/go");
    tracer.wait_open(&end);
    runtime.wait_stopped(&bundle);
    let events = tracer.stop().events();
    for event in &events {
        bundle.assert_names(event);
    }
    let seen = paths(&events);
    let of_init = ["/before", "/go", "/after", end.as_str()];
    for path in of_init.iter().chain(&["/exec/one", "/exec/two"]) {
        assert_eq!(seen.iter().filter(|seen| *seen == path).count(), 1, "{path} in {seen:?}");
    }
    // Besides the scripts' opens there may be some of the runtime's own, between its entering the
    // container and the exec: those are not the container's.
    assert_eq!(seen.len(), 6, "{seen:?}");
}

/// Hooks run before the entrypoint, some of them in the container's namespaces; they are the
/// engine's programs.
fn hooks(kind: Kind) {
    const OUTSIDE: [&str; 3] = ["prestart", "createRuntime", "createContainer"];
    const INSIDE: &str = "startContainer";
    let pod = Pod::new("hooked", "app");
    let end = format!("/{}", unique("end"));
    let marks: BTreeMap<&str, String> =
        OUTSIDE.iter().chain([&INSIDE]).map(|hook| (*hook, format!("/{}", unique("hook")))).collect();
    let busybox = harness::need::find("busybox").unwrap();
    let script = format!("true < /etc/hostname; true < {end}");
    let bundle = Bundle::script(&pod, &script).edit(|config| {
        config["hooks"] = json!({});
        for (hook, mark) in &marks {
            // The path of a startContainer hook is the container's, that of all others the host's.
            let path = if *hook == INSIDE { Path::new("/bin/busybox") } else { &busybox };
            // A hook that fails ends the container; so does, with crun, one that does not read the
            // container's state from its standard input.
            let args = ["sh", "-c", &format!("while read x; do :; done; true < {mark} || true")];
            config["hooks"][hook] = json!([{"path": path, "args": args}]);
        }
    });
    // Not restricted to the namespace: a hook's open under any container's name is wrong.
    let opens = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let execs = Tracer::exec(&pod.namespace);
    let output = Runtime::new(kind).run(&bundle);
    assert!(output.stderr.contains(&end), "the container did not run to its end: {output:?}");
    opens.wait_open(&end);
    execs.wait_exec(&script);

    let opens = opens.stop().events();
    for (hook, mark) in &marks {
        let traced: Vec<&Value> = opens.iter().filter(|event| event["open"]["path"] == **mark).collect();
        assert_eq!(traced.len(), 1, "--host shows what the {hook} hook opens: {traced:?}");
        assert_eq!(traced[0]["k8s"], Value::Null, "the {hook} hook is not the pod's: {traced:?}");
        assert_eq!(traced[0]["container"], Value::Null, "the {hook} hook is not the container's");
    }
    let own: Vec<Value> = opens.into_iter().filter(|event| bundle.owns(event)).collect();
    assert_eq!(paths(&own), ["/etc/hostname", &end]);
    for event in &own {
        bundle.assert_names(event);
    }

    let execs = execs.stop().events();
    assert_eq!(execs.len(), 1, "the entrypoint alone: {execs:#?}");
    bundle.assert_names(&execs[0]);
    assert_eq!(execs[0]["process"]["containerPid"], 1);
}

fn loader_first() {
    let pod = Pod::new("dynamic", "app");
    let program = program::compile_flags("dyn.c", "dyn", DYNAMIC);
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/dyn", "/etc/hostname", &end])
        .with_dynamic_program(&program);
    let tracer = Tracer::open(&pod.namespace);
    Runtime::runc().run(&bundle).success();
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    let seen = paths(&events);
    // What ld.so does before anything else (ld.so(8)): its cache, which this rootfs lacks, then
    // the places where libc may be.
    assert_eq!(seen[0], "/etc/ld.so.cache", "the first event in {seen:?}");
    assert_eq!(events[0]["process"]["containerPid"], 1);
    assert_eq!(events[0]["process"]["comm"], "dyn");
    let libc = seen.iter().position(|path| path.ends_with("libc.so.6")).expect("libc is opened");
    let own = seen.iter().position(|path| *path == "/etc/hostname").expect("main opens it");
    assert!(libc < own, "{seen:?}");
    for event in &events {
        bundle.assert_names(event);
    }
}

/// As docker and `ctr run` make them.
fn no_annotations() {
    let (script, end) = two_opens("plain");
    let bundle = Bundle::plain(&["/bin/sh", "-c", &script]);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    Runtime::runc().run(&bundle);
    tracer.wait_open(&end);
    let events: Vec<Value> = tracer.stop().events().into_iter().filter(|event| bundle.owns(event)).collect();
    assert_eq!(paths(&events), ["/etc/hostname", &end]);
    for event in &events {
        assert_eq!(event["k8s"], Value::Null);
        assert_eq!(event["container"]["source"], "bundle");
        assert_eq!(event["container"]["image"], Value::Null);
    }
}

fn threads_and_children() {
    let pod = Pod::new("tree", "app");
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/tree", &end])
        .with_program(&program::compile("tree.c"));
    let tracer = Tracer::open(&pod.namespace);
    let output = Runtime::runc().run(&bundle).success();
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    for event in &events {
        bundle.assert_names(event);
    }
    let by_path: BTreeMap<&str, &Value> =
        events.iter().map(|event| (event["open"]["path"].as_str().unwrap(), event)).collect();
    let truth: BTreeMap<&str, (u64, u64)> = output
        .stdout
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0], (words[1].parse().unwrap(), words[2].parse().unwrap()))
        })
        .collect();
    assert_eq!(truth.len(), 5);
    assert_eq!(events.len(), 6, "{:?}", paths(&events));
    let process = |label: &str| &by_path[format!("/tree/{label}").as_str()]["process"];
    for (label, (pid, tid)) in truth {
        let process = process(label);
        // Inside, `pid` is the process's; here `pid` and `tid` are the host's, and differ or not alike.
        assert_eq!(process["containerPid"], pid, "{label}");
        assert_eq!(process["pid"] == process["tid"], pid == tid, "{label}: {process}");
    }
    assert_eq!(process("main")["pid"], process("thread")["pid"]);
    assert_eq!(process("main")["pid"], process("child")["ppid"]);
    assert_eq!(process("main")["pid"], process("orphan")["ppid"], "an orphan's parent is process 1");
    assert_ne!(process("main")["pid"], process("child")["pid"]);
}

/// `unshare --mount` in a container: a build tool, a nested runtime. The mount namespace is another,
/// the pod is not.
fn unshared() {
    let pod = Pod::new("unshared", "app");
    let end = format!("/{}", unique("end"));
    let script = format!("unshare -m /bin/sh -c 'true < /in/other/namespace'; true < {end}");
    let bundle = Bundle::script(&pod, &script).with_capabilities(&["CAP_SYS_ADMIN"]);
    let tracer = Tracer::open(&pod.namespace);
    Runtime::runc().run(&bundle);
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    let inner = events.iter().find(|event| event["open"]["path"] == "/in/other/namespace");
    bundle.assert_names(inner.unwrap_or_else(|| panic!("not seen: {:?}", paths(&events))));
    for event in &events {
        bundle.assert_names(event);
    }
}

/// The kernel gives the number of a mount namespace that is gone to the next one: whoever keeps it
/// as a key names strangers.
fn hundred_in_a_row() {
    const CONTAINERS: usize = 100;
    let namespace = unique("t");
    let first = Bundle::script(&Pod::inside(&namespace, "unused", "app"), "true");
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&namespace);
    let mut bundles = Vec::new();
    let mut numbers = Vec::new();
    for index in 0..CONTAINERS {
        let pod = Pod::inside(&namespace, &format!("pod-{index}"), "app");
        let script = format!("true < /{index}/a; readlink /proc/self/ns/mnt; true < /{index}/z");
        let bundle = first.sibling(&pod, &["/bin/sh", "-c", &script]);
        numbers.push(runtime.run(&bundle).stdout.trim().to_owned());
        bundles.push(bundle);
    }
    tracer.wait_open(&format!("/{}/z", CONTAINERS - 1));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    let mut wrong = 0;
    for (index, bundle) in bundles.iter().enumerate() {
        let own: Vec<&Value> = events.iter().filter(|event| bundle.owns(event)).collect();
        let expected = [format!("/{index}/a"), format!("/{index}/z")];
        let seen: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
        wrong += usize::from(seen != expected.iter().collect::<Vec<_>>());
        for event in &own {
            bundle.assert_names(event);
        }
    }
    assert_eq!(wrong, 0, "of {CONTAINERS} containers; {} events", events.len());
    assert_eq!(events.len(), 2 * CONTAINERS, "not one more: {:?}", paths(&events));
    assert!(numbers.iter().all(|number| number.starts_with("mnt:[")), "{numbers:?}");
    let distinct: BTreeSet<&String> = numbers.iter().collect();
    assert!(
        distinct.len() < CONTAINERS,
        "the kernel reused no mount namespace number: this run has shown nothing"
    );
    println!("hundred_in_a_row: {CONTAINERS} containers, {} mount namespace numbers", distinct.len());
}

/// After a container of a pod there comes one without a pod, at once and with its namespace's
/// number, and host processes all the while.
fn next_inherits_nothing() {
    let pod = Pod::new("gone", "app");
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let mut reused = false;
    let mut numbers = BTreeSet::new();
    let mut rounds = Vec::new();
    // Ten rounds, or more until a number has come again: others make namespaces too.
    while rounds.len() < 10 || (!reused && rounds.len() < 100) {
        let (before, between, after) = (unique("/a"), unique("/b"), unique("/c"));
        let script = |path: &str| format!("readlink /proc/self/ns/mnt; true < {path}");
        let named = Bundle::script(&pod, &script(&before));
        let plain = Bundle::plain(&["/bin/sh", "-c", &script(&after)]);
        numbers.insert(runtime.run(&named).stdout);
        // This process is of the host.
        assert!(std::fs::File::open(&between).is_err());
        reused |= numbers.contains(&runtime.run(&plain).stdout);
        tracer.wait_open(&after);
        rounds.push((named, before, between, plain, after));
    }
    let events = tracer.stop().events();
    let event_of = |path: &str| {
        let found: Vec<&Value> = events.iter().filter(|event| event["open"]["path"] == path).collect();
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        found[0].clone()
    };
    for (named, before, between, plain, after) in rounds {
        named.assert_names(&event_of(&before));
        let host = event_of(&between);
        assert_eq!((&host["k8s"], &host["container"]), (&Value::Null, &Value::Null), "{host}");
        assert_eq!(host["process"]["pid"], std::process::id());
        let next = event_of(&after);
        assert_eq!(next["k8s"], Value::Null, "{next}");
        assert!(plain.owns(&next), "{next}");
    }
    assert!(reused, "the kernel reused no mount namespace number: this run has shown nothing");
}

/// When process 1 ends, the kernel kills the others; until then they are the container's.
fn dying() {
    let pod = Pod::new("dying", "app");
    let mark = format!("/{}", unique("dying"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/dying", &mark])
        .with_program(&program::compile("dying.c"));
    // With host processes: as one of those would an event be shown that has lost its container.
    let tracer = Tracer::start(&["trace", "open", "--host", "--comm", "dying", "-o", "json"]);
    // It returns when the kernel has killed all: then no event can come any more.
    Runtime::runc().run(&bundle).success();
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let is_programs = |event: &&Value| event["open"]["path"].as_str().unwrap().starts_with(&mark);
    let events = done.events();
    let own: Vec<&Value> = events.iter().filter(is_programs).collect();
    assert_eq!(own.iter().filter(|event| event["open"]["path"] == format!("{mark}/main")).count(), 1);
    let strangers: Vec<&&Value> = own.iter().filter(|event| !bundle.owns(event)).collect();
    assert!(strangers.is_empty(), "{} of {} lost their name: {:?}", strangers.len(), own.len(), strangers[0]);
    for event in &own {
        bundle.assert_names(event);
    }
}

/// Two containers of two pods that run at the same time.
fn two_at_once() {
    let namespace = unique("t");
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&namespace);
    let bundles: Vec<Bundle> = ["one", "two"]
        .iter()
        .map(|name| {
            let script = format!("true < /{name}/1; read x < /go; true < /{name}/2; true < /{name}/3");
            Bundle::script(&Pod::inside(&namespace, name, "app"), &script).with_fifo("/go")
        })
        .collect();
    for bundle in &bundles {
        runtime.run_detached(bundle);
    }
    for bundle in bundles.iter().rev() {
        bundle.release("/go");
    }
    tracer.wait_open("/one/3");
    tracer.wait_open("/two/3");
    let events = tracer.stop().events();
    for (bundle, name) in bundles.iter().zip(["one", "two"]) {
        let own: Vec<Value> = events.iter().filter(|event| bundle.owns(event)).cloned().collect();
        assert_eq!(paths(&own), [&format!("/{name}/1"), "/go", &format!("/{name}/2"), &format!("/{name}/3")]);
        for event in &own {
            bundle.assert_names(event);
        }
    }
    assert_eq!(events.len(), 8);
}
