//! Containers that do their worst beside others, and names that mean no good.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use harness::bundle::make_fifo;
use harness::need::{RUNC, RUNC_GCC};
use harness::scratch::unique;
use harness::wait::{self, LIMIT};
use harness::{Bundle, Dialect, Finished, Pod, Runtime, Suite, Tracer, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut suite = Suite::new()
        .test("a_fork_bomb_beside_another_container", RUNC, fork_bomb)
        .test("a_storm_of_opens_beside_another_container", RUNC_GCC, storm)
        .test("a_pod_with_five_thousand_mount_namespaces", RUNC_GCC, mount_namespaces)
        .test("names_that_kubernetes_would_refuse", RUNC, refused_names)
        .test("an_empty_name_is_none", RUNC, empty_name)
        .test("a_comm_that_a_terminal_would_obey", RUNC_GCC, comm);
    for (hook, victim) in
        [("createRuntime", Victim::Run), ("createContainer", Victim::Run), ("startContainer", Victim::Init)]
    {
        let name = format!("runc_{victim:?}_dies_in_the_hook_{hook}").to_lowercase();
        suite = suite.test(&name, RUNC, move || dies_in_hook(hook, victim));
    }
    suite.run()
}

/// Which process of runc is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Run,
    Init,
}

/// A well-behaved container that makes a known number of opens when it is let go.
struct Quiet {
    runtime: Runtime,
    bundle: Bundle,
    mark: String,
}

impl Quiet {
    const OPENS: usize = 300;

    fn start(pod: &Pod) -> Self {
        let mark = format!("/{}", unique("quiet"));
        let (count, last) = (Self::OPENS, Self::OPENS + 1);
        let script = format!(
            "read x < /go; i=0; while [ $i -lt {count} ]; do i=$((i+1)); true < {mark}/$i; done; true < {mark}/{last}"
        );
        let bundle = Bundle::script(pod, &script).with_fifo("/go");
        let runtime = Runtime::runc();
        runtime.run_detached(&bundle);
        Self { runtime, bundle, mark }
    }

    /// Lets it open its files, to its end.
    fn go(&self) {
        self.bundle.release("/go");
        self.runtime.wait_stopped(&self.bundle);
    }

    /// The numbers of its files that are told of, in order.
    #[track_caller]
    fn told(&self, events: &[Value]) -> Vec<usize> {
        let of_mark = |event: &&Value| event["open"]["path"].to_string().contains(&self.mark);
        let number = |event: &Value| {
            self.bundle.assert_names(event);
            event["open"]["path"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap()
        };
        events.iter().filter(of_mark).map(number).collect()
    }

    #[track_caller]
    fn assert_complete(&self, events: &[Value]) {
        let all: Vec<usize> = (1..=Self::OPENS + 1).collect();
        assert_eq!(self.told(events), all, "each of its opens, once and in order");
    }

    /// What is missing of them is counted.
    #[track_caller]
    fn assert_counted(&self, events: &[Value], done: &Finished) {
        let (told, lost) = (self.told(events).len() as u64, done.summary().lost);
        assert!(told + lost > Self::OPENS as u64, "{told} told, {lost} lost");
    }
}

/// Starts `trouble` beside a quiet container, which is let go when it `is_at_its_worst`. Who asks for the quiet one loses
/// nothing; who asks for everything, with these arguments besides, gets `trouble` as well, and what is missing is counted.
/// Returns what that one was told.
fn beside(trouble: &Bundle, all: &[&str], is_at_its_worst: impl FnOnce(&Tracer)) -> Vec<Value> {
    let pod = Pod::new("quiet", "app");
    let all = Tracer::start(&[&["trace", "open", "-o", "json"], all].concat());
    let tracer = Tracer::open(&pod.namespace);
    let quiet = Quiet::start(&pod);
    let runtime = Runtime::runc();
    runtime.run_detached(trouble);
    is_at_its_worst(&all);
    quiet.go();
    runtime.delete(trouble);

    let done = tracer.stop();
    done.assert_nothing_dropped();
    quiet.assert_complete(&done.events());
    let done = all.stop();
    let events = done.events();
    quiet.assert_counted(&events, &done);
    events
}

/// It has all the processes that its cgroup lets it have, and forks on.
fn fork_bomb() {
    const PROCESSES: usize = 100;
    let mark = format!("/{}", unique("bomb"));
    let script = format!("bomb() {{ true < {mark}; bomb | bomb & }}; bomb; until read x < /end; do :; done");
    let bomb = Bundle::script(&Pod::new("bomb", "app"), &script)
        .with_fifo("/end")
        .edit(|config| config["linux"]["resources"]["pids"] = json!({"limit": PROCESSES}));
    let refused =
        || fs::read_to_string(bomb.path().join("stderr")).is_ok_and(|log| log.contains("can't fork"));
    let events = beside(&bomb, &[], |_| {
        wait::until("the bomb has reached its limit", || refused().then_some(()));
    });
    let of_bomb: Vec<&Value> = events.iter().filter(|event| event["open"]["path"] == *mark).collect();
    assert!(of_bomb.len() >= PROCESSES, "{} of the bomb", of_bomb.len());
    for event in of_bomb {
        bomb.assert_names(event);
    }
}

/// Two programs that open files as fast as they can: more than the least buffer holds.
fn storm() {
    let storm = Bundle::pod(
        Dialect::Containerd,
        &Pod::new("storm", "app"),
        &["/bin/sh", "-c", "echo on; /bin/opens 100000000 & exec /bin/opens 100000000"],
    )
    .with_program(&program::compile("opens.c"));
    let events = beside(&storm, &["--buffer-size", "4KiB"], |all| {
        all.wait_for("a loss", |event| event["event"] == "lost");
    });
    for event in events.iter().filter(|event| event["open"]["path"].to_string().contains("/many/")) {
        storm.assert_names(event);
    }
}

/// Each of them a mount namespace that no runtime has made, all there at the same time.
fn mount_namespaces() {
    const COUNT: usize = 5_000;
    let pod = Pod::new("spaces", "app");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/namespaces", &COUNT.to_string()])
        .with_program(&program::compile("namespaces.c"))
        .with_capabilities(&["CAP_SYS_ADMIN"])
        .edit(|config| {
            config["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "hard": 2 * COUNT, "soft": 2 * COUNT}]);
        });
    let tracer = Tracer::open(&pod.namespace);
    let others = Tracer::start(&["trace", "open", "-n", "no-such", "-o", "json"]);
    Runtime::runc().run(&bundle).success();
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    let within = |event: &&Value| event["open"]["path"].as_str().unwrap().starts_with("/within/");
    let told: Vec<&str> = events
        .iter()
        .filter(within)
        .inspect(|event| bundle.assert_names(event))
        .map(|event| event["open"]["path"].as_str().unwrap())
        .collect();
    let all: Vec<String> = (0..COUNT).map(|number| format!("/within/{number}")).collect();
    assert_eq!(told, all);
    let done = others.stop();
    assert_eq!(done.events(), Vec::<Value>::new());
    done.assert_nothing_dropped();
}

/// While a hook keeps the runtime waiting, it is killed: `runc run` on the host, or `runc init` in the container. The next
/// container with the same id is another one.
fn dies_in_hook(hook: &str, victim: Victim) {
    let pod = Pod::new("second", "app");
    let mark = format!("/{}", unique("dies"));
    let good = Bundle::script(&pod, &format!("true < {mark}/1; true < {mark}/2"));
    let mut bad = Bundle::script(&Pod::new("first", "app"), &format!("true < {mark}/never"));
    bad.id.clone_from(&good.id);
    // The hook startContainer has the container's root directory, the others the host's.
    let inside = hook == "startContainer";
    let dir = bad.inside(Path::new("/hook"));
    fs::create_dir(&dir).unwrap();
    let (here, stay) = (dir.join("here"), dir.join("stay"));
    make_fifo(&stay);
    let seen = if inside { Path::new("/hook") } else { &dir };
    let wait_there = format!("cd {} && echo > here && read x < stay", seen.display());
    bad = bad.edit(|config| {
        config["hooks"] = json!({ hook: [{"path": "/bin/sh", "args": ["sh", "-c", wait_there]}] });
        config["linux"]["cgroupsPath"] = good.config["linux"]["cgroupsPath"].clone();
    });

    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let runtime = Runtime::runc();
    let mut command = runtime.command();
    command.args(["run", "--bundle"]).arg(bad.path()).arg(&bad.id);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = wait::spawn(quiet);
    wait::until("the hook", || here.exists().then_some(()));
    let pid = match victim {
        Victim::Run => Pid::from_child(&run),
        Victim::Init => Pid::from_raw(runtime.init_pid(&bad).unwrap()).unwrap(),
    };
    kill_process(pid, Signal::KILL).unwrap();
    // A hook in the container dies with the first process of its pid namespace.
    if !inside {
        wait::release(&stay);
    }
    assert!(!wait::exit_of(&mut run, LIMIT).unwrap().success());
    drop(runtime);
    remove_cgroups(&bad.id);

    Runtime::runc().run(&good);
    tracer.wait_open(&format!("{mark}/2"));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    let told: Vec<&Value> =
        events.iter().filter(|event| event["open"]["path"].to_string().contains(&mark)).collect();
    assert_eq!(told.len(), 2, "no entrypoint but the second has run: {told:#?}");
    for event in told {
        good.assert_names(event);
    }
}

/// Removes the cgroups that a killed runtime has left behind, once nothing is in them.
fn remove_cgroups(id: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    for cgroup in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(id)) {
        wait::until("the end of a killed runtime", || {
            let gone = !cgroup.exists() || fs::remove_dir(&cgroup).is_ok();
            gone.then_some(())
        });
    }
}

/// Kubernetes has rules for names, who writes annotations need not. Shown as they are, and never part of a path.
fn refused_names() {
    let trap = unique("trap");
    let names = [
        format!("../../../../tmp/{trap}"),
        format!("/{trap}"),
        format!("UPPER_{trap} with blanks"),
        format!(r#"{trap}","namespace":"kube-system"}},"x":{{"y":"#),
        format!("{trap}\u{202e}\u{2066}\u{200b}ebuk"),
        format!("{trap}\tkube-system\tapi\n{trap}"),
        format!("{trap}\0kube-system"),
        format!("{trap}{}", "x".repeat(4_000)),
    ];
    let mark = format!("/{}", unique("named"));
    for name in &names {
        let pod =
            Pod { name: name.clone(), namespace: name.clone(), container: name.clone(), ..Pod::new("", "") };
        let script = format!("true < {mark}/1");
        let bundle = Bundle::script(&pod, &script);
        let json = Tracer::start(&["trace", "open", "-o", "json"]);
        let columns = Tracer::start(&["trace", "open"]);
        let pids = json.pid().to_string();
        let watcher = Tracer::start(&["trace", "open", "--host", "--pid", &pids, "-o", "json"]);
        Runtime::runc().run(&bundle);
        bundle.assert_names(&json.wait_open(&format!("{mark}/1")));
        assert_obeyed_by_none(&columns.wait_line("the open", |line| line.contains(&mark)));
        let opened = watcher.stop().events();
        let config = bundle.config_path();
        assert!(opened.iter().any(|event| event["open"]["path"] == *config.to_str().unwrap()));
        let trapped: Vec<&Value> =
            opened.iter().filter(|event| event["open"]["path"].to_string().contains(&trap)).collect();
        assert!(trapped.is_empty(), "opened by a name of an annotation: {trapped:#?}");
    }
}

/// A pod whose name is empty is no pod; the container is shown by its id, and the log says why.
fn empty_name() {
    let mark = format!("/{}", unique("empty"));
    let pod = Pod { name: String::new(), ..Pod::new("", "app") };
    let bundle = Bundle::script(&pod, &format!("true < {mark}/1"));
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    Runtime::runc().run(&bundle);
    let event = tracer.wait_open(&format!("{mark}/1"));
    assert_eq!(event["k8s"], Value::Null, "{event}");
    assert_eq!(event["container"]["id"], bundle.id, "{event}");
    let log = tracer.stop().log();
    let config = bundle.config_path();
    let said = log.lines().any(|line| line.contains(config.to_str().unwrap()) && line.contains("empty"));
    assert!(said, "{log}");
}

/// A program is called what its file is called.
fn comm() {
    let name = "\u{1b}[31m\n\t\u{9b}\u{202e}x";
    let path = format!("/bin/{name}");
    let pod = Pod::new("comm", "app");
    let end = format!("/{}", unique("comm"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &[&path, "1", &end])
        .with_executable(&path, fs::read(program::compile("opens.c")).unwrap());
    let json = Tracer::open(&pod.namespace);
    let columns = Tracer::start(&["trace", "open", "-n", &pod.namespace]);
    Runtime::runc().run(&bundle);
    let event = json.wait_open(&end);
    bundle.assert_names(&event);
    assert_eq!(event["process"]["comm"], name, "escaped, not changed");
    assert_obeyed_by_none(&columns.wait_line("the open", |line| line.contains(&end)));
}

/// Fails if a terminal would act on something in the line.
#[track_caller]
fn assert_obeyed_by_none(line: &str) {
    let obeyed = line.chars().find(|c| c.is_control() || ('\u{202a}'..='\u{2069}').contains(c));
    assert_eq!(obeyed, None, "in {line:?}");
}
