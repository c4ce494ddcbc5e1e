//! Which containers and processes are shown, and that all others stay out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, ExitCode};

use harness::need::RUNC;
use harness::runtime::KnownRoot;
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Dialect, Launch, Need, Pod, Runtime, Suite, Tracer, bundle};
use rustix::process::Signal;
use serde_json::{Value, json};

const HOST: &[Need] = &[Need::Root, Need::Btf, Need::Tracer];

fn main() -> ExitCode {
    Suite::new()
        .test("namespaces_pods_and_containers", RUNC, selectors)
        .test("another_namespace_stays_out", RUNC, another_namespace)
        .test("labels_where_the_bundle_has_them", RUNC, labels)
        .test("labels_that_nobody_knows_are_counted", RUNC, unknown_labels)
        .test("host_processes_only_when_asked_for", RUNC, host)
        .test("never_its_own_events", RUNC, never_its_own)
        .test("one_process", HOST, by_pid)
        .test("users", RUNC, by_uid)
        .test("commands", RUNC, by_comm)
        .test("another_name_for_a_runtime", RUNC, runtime_name)
        .test("ready_and_changes_say_what_is_selected", RUNC, matches)
        .test("empty_list_says_what_there_is_instead", RUNC, empty_list)
        .test("sighup_ends_the_run_with_the_sum_unless_it_is_ignored", HOST, hangup)
        .run()
}

/// Many tracers watch the same four containers.
fn selectors() {
    let (a, b) = (unique("t"), unique("t"));
    let mark = format!("/{}", unique("mark"));
    let script = format!("true < {mark}");
    // The letters by which the table below calls them.
    let containers = [
        ('A', Bundle::script(&Pod::inside(&a, "web", "app"), &script)),
        ('B', Bundle::script(&Pod::inside(&a, "db", "app"), &script)),
        ('C', Bundle::script(&Pod::inside(&b, "web", "side"), &script)),
        // Without a pod. What leaves a pod out by name says nothing of it: `_` below.
        ('P', Bundle::plain(&["/bin/sh", "-c", &script])),
    ];
    let not = |name: &str| format!("!{name}");
    let both = format!("{a},{b}");
    let neither = format!("!{a},!{b}");
    let (web_of_b, all_of_a) = (format!("{b}/web"), format!("{a}/*"));
    let (not_a, not_web, not_app) = (not(&a), not("web"), not("app"));
    let table: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "ABCP"),
        (vec!["-A"], "ABC_"),
        (vec!["-n", &a], "AB"),
        (vec!["--namespace", &a], "AB"),
        (vec!["-n", &both], "ABC"),
        (vec!["-n", &a, "-n", &b], "ABC"),
        (vec!["-n", &not_a], "C_"),
        (vec!["-n", &neither], "_"),
        (vec!["-n", &both, "-p", "web"], "AC"),
        (vec!["-n", &both, "-p", "web,db"], "ABC"),
        (vec!["-n", &a, "-p", "web"], "A"),
        (vec!["-n", &both, "-p", &not_web], "B"),
        (vec!["-n", &both, "-c", "app"], "AB"),
        (vec!["-n", &both, "-c", &not_app], "C"),
        (vec!["-n", &both, "-p", "web", "-c", "side"], "C"),
        (vec!["-n", &a, "-A"], "ABC_"),
        (vec!["-n", &both, "-p", "w*"], "AC"),
        (vec!["-n", &both, "-p", "!w?b"], "B"),
        (vec!["-n", &both, "-c", "[as]*"], "ABC"),
        (vec!["-p", &web_of_b], "C"),
        (vec!["-p", &all_of_a, "-c", "app"], "AB"),
    ];
    let tracers: Vec<Tracer> = table
        .iter()
        .map(|(selectors, _)| {
            // `--failed` keeps out what else is opened on the machine: `true < MARK` fails.
            let common = ["trace", "open", "-o", "json", "--buffer-size", "1MiB", "--failed"];
            Tracer::start(&common.iter().chain(selectors).copied().collect::<Vec<_>>())
        })
        .collect();
    let runtime = Runtime::runc();
    for (_, bundle) in &containers {
        runtime.run(bundle);
    }
    let mut wrong = Vec::new();
    for ((selectors, wanted), tracer) in table.into_iter().zip(tracers) {
        // Ending drains what has happened before: there is nothing to wait for.
        let events = tracer.stop().events();
        let shown: BTreeSet<char> = containers
            .iter()
            .filter(|(_, bundle)| {
                events.iter().any(|event| bundle.owns(event) && event["open"]["path"] == *mark)
            })
            .map(|(letter, _)| *letter)
            .collect();
        let mut wanted: BTreeSet<char> = wanted.chars().collect();
        if wanted.remove(&'_') && shown.contains(&'P') {
            wanted.insert('P');
        }
        if shown != wanted {
            wrong.push(format!("{selectors:?} shows {shown:?}, not {wanted:?}"));
        }
        for (_, bundle) in &containers {
            events.iter().filter(|event| bundle.owns(event)).for_each(|event| bundle.assert_names(event));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn another_namespace() {
    let (wanted, other) = (Pod::new("web", "app"), Pod::new("web", "app"));
    let end = format!("/{}", unique("end"));
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&wanted.namespace);
    runtime.run(&Bundle::script(&other, "true < /other/1; read x < /etc/hostname"));
    runtime.run(&Bundle::plain(&["/bin/sh", "-c", "true < /plain"]));
    let bundle = Bundle::script(&wanted, &format!("true < {end}"));
    runtime.run(&bundle);
    tracer.wait_open(&end);
    let done = tracer.stop();
    assert_eq!(done.events().len(), 1, "{:#?}", done.events());
    bundle.assert_names(&done.events()[0]);
}

/// CRI-O annotates a sandbox with its pod's labels.
fn labels() {
    let pod = Pod::new("web", "POD");
    let mark = format!("/{}", unique("mark"));
    let script = format!("true < {mark}");
    let bundle = Bundle::pod(Dialect::CriO, &pod, &["/bin/sh", "-c", &script]);
    // A sandbox is its own.
    let id = bundle.id.clone();
    let bundle = bundle.edit(|config| {
        let annotations = &mut config["annotations"];
        annotations["io.kubernetes.cri-o.SandboxID"] = json!(id);
        annotations["io.kubernetes.cri-o.ContainerType"] = json!("sandbox");
        annotations["io.kubernetes.cri-o.Labels"] = json!(r#"{"app":"web","example.com/tier":"front"}"#);
    });
    // A container without pod has no labels, and is not what `!x` asks for.
    let plain = Bundle::plain(&["/bin/sh", "-c", &script]);
    let table: [(&[&str], bool); 8] = [
        (&["-l", "app=web"], true),
        (&["-l", "app in (db, web), example.com/tier"], true),
        (&["--selector", "app!=db", "-l", "!absent"], true),
        (&["-l", "app=web", "-n", &pod.namespace], true),
        (&["-l", "app=db"], false),
        (&["-l", "app=web", "-l", "example.com/tier=back"], false),
        (&["-l", "app notin (web)"], false),
        (&["-l", "app=web", "-p", "db"], false),
    ];
    let start = |(selectors, _): &(&[&str], bool)| {
        let common = ["trace", "open", "-o", "json", "--failed"];
        Tracer::start(&common.iter().chain(*selectors).copied().collect::<Vec<_>>())
    };
    let tracers: Vec<Tracer> = table.iter().map(start).collect();
    Runtime::runc().run(&bundle);
    Runtime::runc().run(&plain);
    for ((selectors, wanted), tracer) in table.iter().zip(tracers) {
        let events = tracer.stop().events();
        let shown: Vec<&Value> = events.iter().filter(|event| event["open"]["path"] == *mark).collect();
        assert_eq!(shown.len(), usize::from(*wanted), "{selectors:?}: {shown:#?}");
        for event in shown {
            assert_eq!(event["k8s"]["labels"], json!({"app": "web", "example.com/tier": "front"}));
        }
    }
}

/// The bundle has no labels, and there is no engine to ask: neither shown nor silently left out.
fn unknown_labels() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "true < /1; true < /2; true < /3");
    let tracer =
        Tracer::start(&["trace", "open", "-o", "json", "--failed", "-n", &pod.namespace, "-l", "!app"]);
    Runtime::runc().run(&bundle);
    let done = tracer.stop();
    assert_eq!(done.events(), Vec::<Value>::new());
    let losses = done.losses();
    let unattributed = losses.iter().filter(|loss| loss["lost"]["reason"] == "unattributed");
    let count: u64 = unattributed.filter_map(|loss| loss["lost"]["count"].as_u64()).sum();
    // Other tests' containers may be among them.
    assert!(count >= 3, "{losses:?}; log:\n{}", done.log());
}

/// This process opens a file that does not exist.
fn open_here(path: &str) {
    assert!(fs::File::open(path).is_err());
}

fn host() {
    let pod = Pod::new("web", "app");
    let (here, there) = (format!("/{}", unique("here")), format!("/{}", unique("there")));
    let bundle = Bundle::script(&pod, &format!("true < {there}"));
    let with = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let without = Tracer::start(&["trace", "open", "-o", "json"]);
    open_here(&here);
    Runtime::runc().run(&bundle);
    let shown = |tracer: Tracer, path: &str| -> Option<Value> {
        tracer.stop().events().into_iter().find(|event| event["open"]["path"] == *path)
    };
    with.wait_open(&there);
    let event = shown(with, &here).expect("--host shows what this process opens");
    assert_eq!(event["k8s"], Value::Null);
    assert_eq!(event["container"], Value::Null);
    assert_eq!(event["process"]["pid"], std::process::id());
    assert_eq!(event["process"]["containerPid"], 0, "in no container");
    without.wait_open(&there);
    assert_eq!(shown(without, &here), None);
}

fn never_its_own() {
    let pod = Pod::new("web", "app");
    let end = format!("/{}", unique("end"));
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let pid = tracer.pid();
    // It opens this one's config.json, at least.
    Runtime::runc().run(&Bundle::script(&pod, &format!("true < {end}")));
    let event = tracer.wait_open(&end);
    assert_eq!(event["container"]["source"], "bundle", "it has read the bundle");
    let events = tracer.stop().events();
    let own: Vec<&Value> = events.iter().filter(|event| event["process"]["pid"] == pid).collect();
    assert!(own.is_empty(), "{own:#?}");
}

fn by_pid() {
    let dir = scratch::Dir::new("pid");
    // The shell itself opens both: what waits, and the file.
    let shell = |name: &str| {
        let fifo = dir.path().join(name);
        bundle::make_fifo(&fifo);
        let mark = format!("/{}", unique(name));
        let script = format!("read x < {}; true < {mark}", fifo.display());
        let child = Command::new("sh").args(["-c", &script]).stderr(std::process::Stdio::null()).spawn();
        (child.unwrap(), fifo, mark)
    };
    let mut wanted = shell("wanted");
    let mut other = shell("other");
    let pid = wanted.0.id().to_string();
    let tracer = Tracer::start(&["trace", "open", "--host", "--pid", &pid, "-o", "json"]);
    for shell in [&mut other, &mut wanted] {
        wait::release(&shell.1);
        wait::exit_of(&mut shell.0, LIMIT).expect("it has nothing more to do");
    }
    tracer.wait_open(&wanted.2);
    let events = tracer.stop().events();
    assert!(events.iter().all(|event| event["process"]["pid"] == wanted.0.id()), "{events:#?}");
    assert!(events.iter().all(|event| event["open"]["path"] != *other.2));
}

fn by_uid() {
    let namespace = unique("t");
    let bundle = |name: &str, uid: u32| {
        let pod = Pod::inside(&namespace, name, "app");
        Bundle::script(&pod, &format!("true < /as/{name}")).edit(|config| {
            config["process"]["user"]["uid"] = uid.into();
            config["process"]["user"]["gid"] = (uid + 1).into();
        })
    };
    let arguments = ["trace", "open", "-n", &namespace, "--uid", "1234", "-o", "json"];
    let tracer = Tracer::start(&arguments);
    let runtime = Runtime::runc();
    runtime.run(&bundle("root", 0));
    runtime.run(&bundle("other", 1235));
    let user = bundle("user", 1234);
    runtime.run(&user);
    tracer.wait_open("/as/user");
    let events = tracer.stop().events();
    assert_eq!(events.len(), 1, "{events:#?}");
    user.assert_names(&events[0]);
    assert_eq!((&events[0]["process"]["uid"], &events[0]["process"]["gid"]), (&1234.into(), &1235.into()));
}

fn by_comm() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "true < /by/sh; /bin/head /by/head; /bin/cat /by/cat");
    let arguments = ["trace", "open", "-n", &pod.namespace, "--comm", "head,cat", "-o", "json"];
    let by_name = Tracer::start(&arguments);
    let by_glob = Tracer::start(&arguments.map(|word| if word == "head,cat" { "h*d,[bc]at" } else { word }));
    Runtime::runc().run(&bundle);
    for tracer in [by_name, by_glob] {
        tracer.wait_open("/by/cat");
        let done = tracer.stop().assert_clean();
        let events = done.events();
        let told: Vec<&Value> = events.iter().map(|event| &event["open"]["path"]).collect();
        assert_eq!(told, ["/by/head", "/by/cat"]);
    }
}

fn matches() {
    let pod = Pod::new("web", "app");
    let namespace = &pod.namespace;
    let bundle = Bundle::script(&pod, "read x < /begin").with_fifo("/begin");
    let runtime = Runtime::runc();
    let _root = KnownRoot::new(&runtime);
    let ready =
        |tracer: &Tracer| tracer.wait_log("that it is ready", |line| line.starts_with("tracer: ready"));
    let before = Tracer::start(&["trace", "open", "-n", namespace, "-o", "json"]);
    assert!(ready(&before).starts_with(&format!("tracer: ready (nothing matches -n {namespace} yet; ")));
    runtime.run_detached(&bundle);
    before.wait_log("that it matches", |line| line == "tracer: 1 container matches now");
    let line = |further: &[&str]| {
        let tracer = Tracer::start(&[&["trace", "open", "-n", namespace, "-o", "json"], further].concat());
        let line = ready(&tracer);
        tracer.stop();
        line
    };
    let nothing = format!("tracer: ready (nothing matches -n {namespace}");
    assert_eq!(line(&[]), "tracer: ready (1 container matches)");
    assert_eq!(line(&["-p", "nosuch"]), format!("{nothing} -p nosuch yet; pods there: web)"));
    assert_eq!(line(&["-p", "w*", "-c", "x"]), format!("{nothing} -p w* -c x yet; containers there: app)"));
    let mut exited = Command::new("true").spawn().unwrap();
    exited.wait().unwrap();
    let nobody = exited.id().to_string();
    assert_eq!(line(&["--pid", &nobody]), "tracer: ready (1 container matches; no process has that --pid)");
    let other = Tracer::start(&["trace", "open", "-n", "no-such", "-o", "json"]);
    let other_line = ready(&other);
    assert!(
        other_line.contains("(nothing matches -n no-such yet; namespaces on this node: "),
        "{other_line}"
    );
    runtime.delete(&bundle);
    before.wait_log("that it does no more", |line| {
        *line == format!("tracer: nothing matches -n {namespace} now")
    });
}

fn empty_list() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "read x < /begin").with_fifo("/begin");
    let runtime = Runtime::runc();
    let _root = KnownRoot::new(&runtime);
    runtime.run_detached(&bundle);
    let output = Launch::new(&["list-containers", "-n", &pod.namespace, "-p", "nosuch"]).output().success();
    let expected = format!("tracer: nothing matches -n {} -p nosuch; pods there: web\n", pod.namespace);
    assert!(output.stderr.ends_with(&expected), "{output:?}");
}

fn hangup() {
    let arguments = ["trace", "open", "-n", "no-such", "-o", "json"];
    let ended = Tracer::start(&arguments);
    ended.signal(Signal::HUP);
    assert_eq!(ended.wait_end().assert_clean().summary().lost, 0);
    // As nohup(1) does.
    let ignoring = Launch::new(&arguments).prelude("trap '' HUP").start();
    ignoring.signal(Signal::HUP);
    // It is still there, and handles the next signal.
    ignoring.stop().assert_clean();
}

/// A runtime by a name of its own is followed from its own execution on if the option names it.
fn runtime_name() {
    let pod = Pod::new("web", "app");
    let dir = scratch::Dir::new("named");
    let program = dir.path().join("my-own-runtime");
    fs::copy(harness::need::find("runc").unwrap(), &program).unwrap();
    let runtime = Runtime::runc().called(&program);
    let (first, end) = (format!("/{}", unique("first")), format!("/{}", unique("end")));
    let bundle = Bundle::script(&pod, &format!("true < {first}; true < {end}"));
    let name = ["--runtime-name", "my-own-runtime"];
    let tracer = Tracer::start(&[&["trace", "open", "-n", &pod.namespace, "-o", "json"], &name[..]].concat());
    runtime.run(&bundle);
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    assert_eq!(events.len(), 2, "{events:#?}");
    for event in &events {
        bundle.assert_names(event);
    }
}
