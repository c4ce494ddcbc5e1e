//! Those who want to be somebody else, or to be in the way: `docs/security.md` has the list, and says which tests
//! beside these show what it claims.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use harness::bpf::Held;
use harness::need::{Need, RUNC, RUNC_GCC};
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Dialect, NOBODY, Pod, Runtime, Suite, Tracer, need, nested, program};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let bpftool = [RUNC_GCC, &[Need::Bpftool]].concat();
    for (name, kind) in [("runc", Kind::Binary), ("crun", Kind::Binary), ("runc", Kind::Script)] {
        for rights in [Rights::Few, Rights::SysAdmin, Rights::UserNamespace, Rights::Privileged] {
            let test = format!("impostor_{name}_{kind:?}_with_rights_{rights:?}").to_lowercase();
            suite = suite.test(&test, RUNC_GCC, move || impostor(name, kind, rights));
        }
    }
    suite
        .test("a_hanging_file_system_keeps_nobody_else_waiting", RUNC_GCC, hanging)
        .test("a_fifo_for_a_bundle_keeps_nobody_waiting", RUNC_GCC, fifo)
        .test("a_container_uses_up_no_slots_but_its_own", RUNC_GCC, slots)
        .test("processes_that_joined_share_their_containers_slots", RUNC_GCC, slots_of_joined)
        .test("runtimes_without_end_in_a_container", RUNC_GCC, || flood("same"))
        .test("runtimes_without_end_in_user_namespaces_of_a_container", RUNC_GCC, || flood("user"))
        .test("runtimes_without_end_by_a_user_of_the_host", RUNC_GCC, flood_by_user)
        .test("a_user_of_the_host_names_no_pod", RUNC_GCC, user)
        .test("a_user_of_the_host_names_any_pod_if_rootless_is_trusted", RUNC_GCC, trusted_user)
        .test("a_user_at_work_that_may_not_be_dumped_names_no_pod", RUNC_GCC, undumpable)
        .test("a_set_uid_program_of_a_user_names_no_pod", RUNC_GCC, set_uid)
        .test("a_set_uid_program_of_a_user_joins_no_container", RUNC_GCC, set_uid_joins)
        .test("a_set_uid_program_at_work_names_no_pod", RUNC_GCC, || set_uid_at_work(false))
        .test("a_set_uid_program_at_work_that_has_become_root_names_no_pod", RUNC_GCC, || {
            set_uid_at_work(true);
        })
        .test("a_users_runtime_in_a_user_namespace_is_not_followed", RUNC_GCC, user_namespace)
        .test("a_users_runtime_in_a_user_namespace_is_followed_if_rootless_is_trusted", RUNC_GCC, || {
            let (claimed, event) = lie_of_user_namespace(&["--trust-rootless"], wait::Reads::wait);
            claimed.assert_names(&event);
        })
        .test("half_of_all_slots_is_kept_for_trusted_runtimes", &bpftool, kept_slots)
        .test("a_share_of_slots_outlives_its_container", RUNC_GCC, orphaned_share)
        .test("a_living_containers_name_stays_its_first_owners", RUNC_GCC, first_owner)
        .test("two_containers_with_one_id_are_two", RUNC, two_of_one_id)
        .test("more_hanging_file_systems_than_readers_keep_nobody_else_waiting", RUNC_GCC, many_hanging)
        .test("maps_that_only_the_programs_change_are_frozen", &bpftool, frozen)
        .test("a_flood_of_refused_claims_fills_no_log", RUNC_GCC, flooded_log)
        .test("annotations_of_two_engines_name_the_pod_of_the_engine_that_ran_it", RUNC, contested)
        .test("labels_forge_no_record", RUNC, labels)
        .test("a_node_forges_no_line_of_the_log", RUNC_GCC, forged_log)
        .run()
}

/// What the impostor is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Binary,
    Script,
}

/// What its container may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// What a container may unless told otherwise, and no namespaces.
    Few,
    /// Make namespaces.
    SysAdmin,
    /// Make namespaces, within a user namespace that anybody may make.
    UserNamespace,
    /// Everything.
    Privileged,
}

/// `WRAPPED` as `wrapper.c` takes it.
fn wrapped(words: &[&str]) -> String {
    words.iter().flat_map(|word| [word, "\u{1}"]).collect()
}

fn busybox() -> Vec<u8> {
    fs::read(need::find("busybox").unwrap()).unwrap()
}

fn compiled(source: &str) -> Vec<u8> {
    fs::read(program::compile(source)).unwrap()
}

fn pivot(script: &str) -> String {
    format!("mount --bind /jail /jail && cd /jail && pivot_root . old && exec /bin/sh -c '{script}'\n")
}

/// Another root directory in `/jail`, and in `/pivot` a script that makes it the root of the mount namespace that it
/// runs in and executes `script` there: a container's entrypoint, as far as anyone can tell.
fn with_jail(bundle: Bundle, script: &str) -> Bundle {
    let links = ["mount", "pivot_root"];
    let bundle = bundle
        .with_executable("/jail/bin/sh", busybox())
        .with_file("/jail/old/empty", "")
        .with_file("/pivot", pivot(script));
    for link in links {
        symlink("busybox", bundle.inside(Path::new("/bin")).join(link)).unwrap();
    }
    bundle
}

/// Opening a fifo is interrupted when a child ends, and orphans become the first process's.
const WAIT: &str = "until read x < /end; do :; done";

/// The words that run `/pivot` in a mount namespace of its own.
const PIVOT: [&str; 5] = ["/bin/busybox", "unshare", "-m", "/bin/sh", "/pivot"];

/// The events of opens below `mark`, in order.
#[track_caller]
fn opens_of<'a>(events: &'a [Value], mark: &str) -> Vec<&'a Value> {
    let below = format!("{mark}/");
    events.iter().filter(|event| event["open"]["path"].as_str().unwrap().starts_with(&below)).collect()
}

/// A pod's container runs what is called like a runtime, with a command line that names another pod's bundle where
/// that really is.
fn impostor(name: &str, kind: Kind, rights: Rights) {
    let victim = Bundle::script(&Pod::new("victim", "app"), "true");
    let own = Pod::new("liar", "app");
    let mark = format!("/{}", unique("lie"));
    let then = format!("true < {mark}/2");
    let words: Vec<&str> = if rights == Rights::Few { vec!["/bin/sh", "-c", &then] } else { PIVOT.to_vec() };
    let enter = if rights == Rights::UserNamespace { "unshare -U -r" } else { "" };
    let script = format!("true < {mark}/1; {enter} sh /lie; true < {mark}/3");
    let bundle = match rights {
        Rights::Few | Rights::UserNamespace => Bundle::script(&own, &script),
        Rights::SysAdmin => Bundle::script(&own, &script).with_capabilities(&["CAP_SYS_ADMIN"]),
        Rights::Privileged => nested::privileged(Some(&own), &script, &[]),
    };
    let lie = format!(
        "WRAPPED='{}' exec /bin/{name} --root /tmp run --bundle {} {}",
        wrapped(&words),
        victim.path().display(),
        victim.id
    );
    let program = match kind {
        Kind::Binary => compiled("wrapper.c"),
        Kind::Script => {
            let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            format!("#!/bin/sh\nexec {}\n", quoted.join(" ")).into_bytes()
        }
    };
    let bundle =
        with_jail(bundle, &then).with_file("/lie", lie).with_executable(&format!("/bin/{name}"), program);

    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let of_victim = Tracer::open(&victim.pod.as_ref().unwrap().namespace);
    // What the tracer itself does, only another one can tell.
    let pid = tracer.pid().to_string();
    let watcher = Tracer::start(&["trace", "open", "--host", "--pid", &pid, "-o", "json"]);
    let output = Runtime::runc().run(&bundle);
    tracer.wait_open(&format!("{mark}/3"));

    let events = tracer.stop().events();
    let opens = opens_of(&events, &mark);
    assert_eq!(opens.len(), 3, "{opens:#?} {output:#?}");
    for number in 1..=3 {
        // Not in order: what an inner container does may have waited for its name.
        let path = format!("{mark}/{number}");
        let event = opens.iter().find(|event| event["open"]["path"] == path).unwrap();
        bundle.assert_names(event);
        // In a user namespace anybody may do anything: what is executed there counts as a program.
        let is_followed = matches!(rights, Rights::SysAdmin | Rights::Privileged);
        let claimed = (is_followed && number == 2).then(|| json!({"id": victim.id, "runtime": name}));
        assert_eq!(event["container"].get("inner"), claimed.as_ref(), "in {event}");
    }
    assert_eq!(of_victim.stop().events(), Vec::<Value>::new(), "under the victim's name");
    let opened = watcher.stop().events();
    let has = |path: &Path| opened.iter().any(|event| event["open"]["path"] == *path.to_str().unwrap());
    assert!(has(&bundle.config_path()), "the watcher sees what the tracer reads");
    let of_victim: Vec<&Value> = opened
        .iter()
        .filter(|event| event["open"]["path"].to_string().contains(&*victim.path().to_string_lossy()))
        .collect();
    assert!(of_victim.is_empty(), "opened because a container said so: {of_victim:#?}");
}

/// An outer container that belongs to no pod and may do everything, as a node of kind. Its impostor of a runtime names
/// `bundle`, and what it starts opens `MARK/inner` and stays; the node opens `MARK/outer`.
fn node(mark: &str, before: &str, bundle: &str) -> Bundle {
    let script = format!(
        "{before}; WRAPPED='{}' /bin/runc run --bundle '{bundle}' inner & true < {mark}/outer; {WAIT}",
        wrapped(&PIVOT)
    );
    with_jail(nested::privileged(None, &script, &[]), &inner(mark))
        .with_executable("/bin/runc", compiled("wrapper.c"))
        .with_fifo("/jail/stay")
        .with_fifo("/end")
}

/// What a node's container does.
fn inner(mark: &str) -> String {
    format!("true < {mark}/inner; read x < /stay")
}

/// A pod whose container opens `/MARK/1` to `/MARK/3` and ends.
fn bystander(name: &str) -> (Bundle, String) {
    let mark = format!("/{}", unique("bystander"));
    let script = format!("true < {mark}/1; true < {mark}/2; true < {mark}/3");
    (Bundle::script(&Pod::new(name, "app"), &script), mark)
}

/// Fails unless all that the container did is there, under its name.
#[track_caller]
fn assert_whole(events: &[Value], bundle: &Bundle, mark: &str) {
    let own: Vec<&Value> = events.iter().filter(|event| bundle.owns(event)).collect();
    let told: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
    assert_eq!(told, [1, 2, 3].map(|number| json!(format!("{mark}/{number}"))).iter().collect::<Vec<_>>());
    for event in own {
        bundle.assert_names(event);
    }
}

/// A [`node`] whose bundle lies in a file system that takes every request and answers none. Its impostor is not another
/// process than its container, as real runtimes are: it goes on when it is looked at, which `/asked` shows.
fn hanging_node(mark: &str) -> Bundle {
    let before = "mkdir /hanging; /bin/hanging /hanging /asked & \
        until grep -q ' /hanging ' /proc/mounts; do sleep 0.01; done";
    let wait = "until test -e /asked; do sleep 0.01; done";
    node(mark, before, "/hanging/bundle")
        .with_program(&program::compile("hanging.c"))
        .with_file("/pivot", format!("{wait}\n{}", pivot(&inner(mark))))
}

/// The node's bundle lies in a file system that never answers.
fn hanging() {
    let mark = format!("/{}", unique("hang"));
    let node = hanging_node(&mark);
    let (bystander, other) = bystander("bystander");
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    // Dropped before the tracer, which might not end before.
    let runtime = Runtime::runc();
    runtime.run_detached(&node);
    let asked = node.inside(Path::new("/asked"));
    wait::until("the tracer hangs", || asked.exists().then_some(()));
    Runtime::runc().run(&bystander);
    tracer.wait_open(&format!("{other}/3"));
    let late = tracer.wait_open(&format!("{mark}/inner"));
    assert_eq!(late["k8s"], Value::Null, "in {late}");
    assert_eq!(late["container"]["why"], "late", "in {late}");
    let event = tracer.wait_open(&format!("{mark}/outer"));
    assert!(node.owns(&event), "in {event}");
    let since = Instant::now();
    let events = tracer.stop().events();
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5), "it hangs still, and the tracer took {took:?} to end");
    assert_whole(&events, &bystander, &other);
    let at = |path: String| events.iter().position(|event| event["open"]["path"] == path).unwrap();
    assert!(at(format!("{other}/3")) < at(format!("{mark}/inner")), "nobody waits for what hangs");
}

/// The node's `config.json` is a fifo that nobody writes to.
fn fifo() {
    let mark = format!("/{}", unique("fifo"));
    // The impostor is not another process than its container, as real runtimes are: it waits until it is looked at.
    let node = node(&mark, "mkdir /bundle; mkfifo /bundle/config.json", "/bundle")
        .with_file("/pivot", format!("read x < /looked-at\n{}", pivot(&inner(&mark))))
        .with_fifo("/looked-at");
    let (bystander, other) = bystander("bystander");
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    runtime.run_detached(&node);
    wait::until("the fifo is looked at", || tracer.log().contains("fifo").then_some(()));
    node.release("/looked-at");
    let event = tracer.wait_open(&format!("{mark}/inner"));
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["id"], "inner", "in {event}");
    assert_eq!(event["container"]["why"], "unreadable", "in {event}");
    assert_eq!(event["container"]["outer"]["id"], *node.id, "in {event}");
    Runtime::runc().run(&bystander);
    tracer.wait_open(&format!("{other}/3"));
    let pid = tracer.pid();
    let done = tracer.stop();
    // What has read it for the tracer is not shown either.
    assert!(done.events().iter().all(|event| event["process"]["ppid"] != pid), "an event of its own");
    assert_whole(&done.events(), &bystander, &other);
}

/// A container of a pod that may make namespaces. `/lie` runs an impostor, which opens `MARK/inner`.
fn nester(mark: &str) -> Bundle {
    let own = Bundle::script(&Pod::new("nester", "app"), WAIT);
    with_jail(own, &format!("true < {mark}/inner"))
        .with_capabilities(&["CAP_SYS_ADMIN"])
        .with_executable("/bin/runc", compiled("impostor.c"))
        .with_executable("/bin/impostor", compiled("impostor.c"))
        .with_executable("/bin/real/runc", compiled("wrapper.c"))
        .with_file("/lie", format!("WRAPPED='{}' exec /bin/real/runc run --bundle / inner", wrapped(&PIVOT)))
        .with_fifo("/hold")
        .with_fifo("/end")
}

/// Has the container nest once more, and returns what its impostor did.
#[track_caller]
fn nest(tracer: &Tracer, runtime: &Runtime, bundle: &Bundle, mark: &str) -> Value {
    let path = format!("{mark}/inner");
    let is_it = |event: &Value| event["open"]["path"] == path;
    let before = tracer.events().iter().filter(|event| is_it(event)).count();
    let output = runtime.exec(bundle, &["/bin/sh", "/lie"]);
    assert!(output.stderr.contains(&path), "the impostor did not run: {output:?}");
    wait::until("what the impostor opened", || tracer.events().into_iter().filter(is_it).nth(before))
}

/// Has the container keep so many runtimes until what this returns is dropped.
#[track_caller]
fn hold(runtime: &Runtime, bundle: &Bundle, count: u32) -> File {
    let said = format!("/{}", unique("held"));
    let end = File::options().read(true).write(true).open(bundle.inside(Path::new("/hold"))).unwrap();
    let line = format!("impostor hold {count} < /hold > {said} 2>&1 &");
    runtime.exec(bundle, &["/bin/sh", "-c", &line]).success();
    let said = bundle.inside(Path::new(&said));
    wait::until("the runtimes that stay", || fs::read_to_string(&said).ok().filter(|said| said == "held\n"));
    end
}

/// Fails unless a container of another pod is known by all that it does.
#[track_caller]
fn assert_bystander(tracer: &Tracer) {
    let (bystander, other) = bystander("bystander");
    Runtime::runc().run(&bystander);
    tracer.wait_open(&format!("{other}/3"));
    assert_whole(&tracer.events(), &bystander, &other);
}

/// Fails unless the container may not nest before long: a process that has just joined it may be quicker than the decision.
#[track_caller]
fn assert_nests_no_more(tracer: &Tracer, runtime: &Runtime, bundle: &Bundle, mark: &str) {
    wait::until("an inner container that is not followed", || {
        let event = nest(tracer, runtime, bundle, mark);
        bundle.assert_names(&event);
        event["container"].get("inner").is_none().then_some(())
    });
}

/// Fails unless the container may nest before long.
#[track_caller]
fn assert_nests_again(tracer: &Tracer, runtime: &Runtime, bundle: &Bundle, mark: &str) {
    wait::until("room for inner containers", || {
        let event = nest(tracer, runtime, bundle, mark);
        bundle.assert_names(&event);
        event["container"].get("inner").map(|inner| assert_eq!(inner["id"], "inner", "in {event}"))
    });
}

/// Three hundred runtimes that stay, and two thousand that don't.
fn slots() {
    let mark = format!("/{}", unique("slots"));
    let bundle = nester(&mark);
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run_detached(&bundle);
    let held = hold(&runtime, &bundle, 300);
    tracer.wait_log("that there are too many", |line| line.contains("too many runtimes"));
    runtime.exec(&bundle, &["/bin/impostor", "flood", "same", "1000", "1"]).success();
    assert_nests_no_more(&tracer, &runtime, &bundle, &mark);
    assert_bystander(&tracer);
    drop(held);
    assert_nests_again(&tracer, &runtime, &bundle, &mark);
    tracer.stop().assert_nothing_dropped();
}

/// Each probe of a pod joins its container with a process that may leave others behind.
fn slots_of_joined() {
    let mark = format!("/{}", unique("slots"));
    let bundle = nester(&mark);
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run_detached(&bundle);
    let held: Vec<File> = (0..3).map(|_| hold(&runtime, &bundle, 100)).collect();
    tracer.wait_log("that there are too many", |line| line.contains("too many runtimes"));
    assert_nests_no_more(&tracer, &runtime, &bundle, &mark);
    drop(held);
    assert_nests_again(&tracer, &runtime, &bundle, &mark);
    tracer.stop().assert_nothing_dropped();
}

/// Starts twenty pods while something floods, and fails unless all that they do is known and nothing missing.
fn assert_calm(begin: impl FnOnce(&Tracer)) {
    const PODS: usize = 20;
    let namespace = unique("t");
    let mark = format!("/{}", unique("calm"));
    let tracer = Tracer::open(&namespace);
    begin(&tracer);
    let first = Bundle::plain(&["/bin/true"]);
    let runtime = Runtime::runc();
    let bundles: Vec<Bundle> = (0..PODS)
        .map(|number| {
            let pod = Pod::inside(&namespace, &format!("calm-{number}"), "app");
            let script = [1, 2, 3].map(|file| format!("true < {mark}/{number}/{file}")).join("; ");
            let bundle = first.sibling(&pod, &["/bin/sh", "-c", &script]);
            runtime.run(&bundle);
            bundle
        })
        .collect();
    tracer.wait_open(&format!("{mark}/{}/3", PODS - 1));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    assert!(!done.log().contains("lifecycle-full"), "{}", done.log());
    let events = done.events();
    for (number, bundle) in bundles.iter().enumerate() {
        assert_whole(&events, bundle, &format!("{mark}/{number}"));
    }
    assert_eq!(events.len(), 3 * PODS);
}

/// On every CPU, with as long a command line as there may be.
const FLOOD: [&str; 3] = ["1000000", "131071", "flood"];

/// A container without rights executes runtimes as fast as it can; in user namespaces, where it may do what it likes.
fn flood(whose: &str) {
    let [count, size, mode] = FLOOD;
    let args = ["/bin/impostor", mode, whose, count, size];
    let bundle = Bundle::pod(Dialect::Containerd, &Pod::new("flooder", "app"), &args)
        .with_executable("/bin/runc", compiled("impostor.c"))
        .with_executable("/bin/impostor", compiled("impostor.c"));
    let runtime = Runtime::runc();
    assert_calm(|_| runtime.run_detached(&bundle));
    assert!(
        runtime.init_pid(&bundle).is_some(),
        "it has flooded all the time: {}",
        Runtime::stdout_of(&bundle)
    );
}

/// A child that is killed, with all of its process group, when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn flood_by_user() {
    let [count, size, mode] = FLOOD;
    let dir = scratch::Dir::new("user");
    let runc = dir.path().join("runc");
    fs::copy(program::compile("impostor.c"), &runc).unwrap();
    let mut command = Command::new(program::compile("impostor.c"));
    command.args([mode, "same", count, size]).env("RUNC", &runc).uid(NOBODY).gid(NOBODY).process_group(0);
    let mut flooding = None;
    assert_calm(|_| {
        // Who has selected a namespace is not told of it.
        let witness = Tracer::start(&["trace", "exec", "-o", "json", "--comm", "none"]);
        flooding = Some(Group(wait::spawn(&mut command)));
        witness.wait_log("that it is not trusted", |line| line.contains("not trusted"));
        witness.stop();
    });
    assert_eq!(flooding.unwrap().0.try_wait().unwrap(), None, "it has flooded all the time");
}

/// What a user of the host calls a runtime: `wrapper.c` or `impostor.c`, which go on, when standard input ends, in a root
/// directory of the user's own, in namespaces of their own, and open `mark` there. It claims to run the container of
/// `claimed`.
struct User {
    dir: scratch::Dir,
    command: Command,
    claimed: Bundle,
    mark: String,
}

impl User {
    fn new(source: &str) -> Self {
        let dir = scratch::Dir::new("user");
        let runc = dir.path().join("runc");
        fs::copy(program::compile(source), &runc).unwrap();
        let mark = format!("/{}", unique("lie"));
        let claimed = Bundle::script(&Pod::new("victim", "app"), "true");
        let root = claimed.inside(Path::new("/"));
        let [shell, unshare, chroot] = ["sh", "unshare", "chroot"].map(|name| need::find(name).unwrap());
        let waiting = [path(&shell), "-c", "read x; exec \"$@\"", "sh"];
        let then = format!("true < {mark}");
        let leaving = [path(&unshare), "-U", "-r", "-m", path(&chroot), path(&root), "/bin/sh", "-c", &then];
        let mut command = Command::new(&runc);
        command.env("WRAPPED", wrapped(&[&waiting[..], &leaving].concat()));
        command.args(["run", "--bundle"]).arg(claimed.path()).arg(&claimed.id);
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped());
        Self { dir, command, claimed, mark }
    }

    /// The same through a link that is called `crun` to a set-uid program of root's.
    fn set_uid(source: &str) -> Self {
        let mut user = Self::new(source);
        let program = user.dir.path().join("su");
        fs::rename(user.dir.path().join("runc"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        let link = user.dir.path().join("crun");
        symlink(&program, &link).unwrap();
        user.command = replaced(&user.command, &[path(&link)], &[]);
        user.command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped());
        user
    }

    fn in_user_namespace(mut self) -> Self {
        let (unshare, runc) = (need::find("unshare").unwrap(), self.dir.path().join("runc"));
        self.command = replaced(&self.command, &[path(&unshare), "-U", "-r", path(&runc)], &[]);
        self.command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped());
        self
    }

    /// With another command line.
    fn asking(mut self, args: &[&str]) -> Self {
        let program = self.command.get_program().to_owned();
        self.command = replaced(&self.command, &[program.to_str().unwrap()], args);
        self.command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped());
        self
    }
}

/// A command with the same environment, and the same arguments unless there are others.
fn replaced(command: &Command, program: &[&str], args: &[&str]) -> Command {
    let mut new = Command::new(program[0]);
    new.args(&program[1..]);
    if args.is_empty() {
        new.args(command.get_args())
    } else {
        new.args(args)
    };
    new.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    new
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What tracer shows of the user, who goes on after `looked_at`.
fn lie_of_user(options: &[&str], looked_at: impl FnOnce(&wait::Reads)) -> (Bundle, Value) {
    lie_of(User::new("wrapper.c"), options, looked_at)
}

/// The same, of one that works in a user namespace.
fn lie_of_user_namespace(options: &[&str], looked_at: impl FnOnce(&wait::Reads)) -> (Bundle, Value) {
    lie_of(User::new("wrapper.c").in_user_namespace(), options, looked_at)
}

fn lie_of(user: User, options: &[&str], looked_at: impl FnOnce(&wait::Reads)) -> (Bundle, Value) {
    let User { dir: _dir, mut command, claimed, mark } = user;
    let reads = wait::Reads::of(&claimed.config_path());
    let tracer = Tracer::start(&[&["trace", "open", "-o", "json"], options].concat());
    let mut child = wait::spawn(command.stderr(Stdio::piped()));
    looked_at(&reads);
    drop(child.stdin.take());
    wait::exit_of(&mut child, LIMIT).expect("it ends");
    let said = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(said.contains(&mark), "users may not make namespaces here: {said:?}");
    let event = tracer.wait_open(&mark);
    tracer.stop();
    (claimed, event)
}

/// The bundle is root's, and a pod's.
fn user() {
    let (_, event) = lie_of_user(&[], |_| {});
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["why"], "untrusted", "in {event}");
    assert_eq!(event["container"]["id"], "", "in {event}");
}

/// That is what the option means. As a runtime would be, it is where its bundle is until that has been read.
fn trusted_user() {
    let (claimed, event) = lie_of_user(&["--trust-rootless"], wait::Reads::wait);
    claimed.assert_names(&event);
}

/// An impostor that runs, and waits for its input to end.
fn at_work(command: &mut Command) -> Child {
    let mut child = wait::spawn(command.stdout(Stdio::piped()));
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    child
}

/// Such a one, which is at work when the tracer starts, gets neither the pod nor the container that it claims.
fn assert_claims_nothing(mut child: Child, claimed: &Bundle, mark: &str) {
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    drop(child.stdin.take());
    child.wait().unwrap();
    let event = tracer.wait_open(mark);
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_ne!(event["container"]["id"], *claimed.id, "in {event}");
    tracer.stop();
}

/// The files of such a process in `/proc` belong to root, whoever it is.
fn undumpable() {
    let User { dir: _dir, mut command, claimed, mark } = User::new("impostor.c");
    let child = at_work(&mut command);
    let owner = fs::metadata(format!("/proc/{}/status", child.id())).unwrap().uid();
    assert_eq!(owner, 0, "it may be dumped: this has shown nothing");
    assert_claims_nothing(child, &claimed, &mark);
}

/// `su` as `crun`: its effective user is root, its real one is the user, and the command line is the user's.
fn set_uid() {
    let (_, event) = lie_of(User::set_uid("wrapper.c"), &[], |_| {});
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_eq!(event["container"]["why"], "untrusted", "in {event}");
    assert_eq!(event["container"]["id"], "", "in {event}");
}

/// It says that it joins a container that runs.
fn set_uid_joins() {
    let victim = Bundle::script(&Pod::new("victim", "app"), WAIT).with_fifo("/end");
    let runtime = Runtime::runc();
    let User { dir: _dir, mut command, mark, claimed: _claimed } =
        User::set_uid("wrapper.c").asking(&["--root", path(runtime.root()), "exec", &victim.id, "true"]);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run_detached(&victim);
    let mut child = wait::spawn(command.stderr(Stdio::null()));
    drop(child.stdin.take());
    let event = tracer.wait_open(&mark);
    child.wait().unwrap();
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_ne!(event["container"]["id"], *victim.id, "in {event}");
    tracer.stop();
}

/// It is at work when the tracer starts. Some such programs become root altogether.
fn set_uid_at_work(becomes_root: bool) {
    let User { dir: _dir, mut command, claimed, mark } = User::set_uid("impostor.c");
    if becomes_root {
        command.env("BECOME", "root");
    }
    let child = at_work(&mut command);
    assert_claims_nothing(child, &claimed, &mark);
}

/// Its processes are the user's, and that a runtime was not followed is reported as it happens.
fn user_namespace() {
    let User { dir: _dir, mut command, mark, claimed: _claimed } = User::new("wrapper.c").in_user_namespace();
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let mut child = wait::spawn(command.stderr(Stdio::null()));
    drop(child.stdin.take());
    let event = tracer.wait_open(&mark);
    child.wait().unwrap();
    assert_eq!(event["container"], Value::Null, "in {event}");
    let lost = tracer.wait_for("what was not followed", |event| event["lost"]["reason"] == "user-namespace");
    assert_eq!(lost["lost"]["hook"], "lifecycle", "in {lost}");
    tracer.stop();
}

/// Others have used their half up. A user's runtimes are not followed any more, which is reported as it happens; pods are.
fn kept_slots() {
    const SHARED: usize = 16_384;
    const LEFT: usize = 64;
    let User { dir: _dir, mut command, .. } = User::new("wrapper.c");
    command.process_group(0).stderr(Stdio::null());
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    // What runs by itself on this machine may have some.
    Held::by(tracer.pid()).dequeue("FREE_SLOTS", SHARED - LEFT);
    let _runtimes: Vec<Group> = (0..=LEFT).map(|_| Group(wait::spawn(&mut command))).collect();
    let lost = tracer.wait_for("what was not followed", |event| event["lost"]["reason"] == "slots-full");
    assert_eq!(lost["lost"]["hook"], "lifecycle", "in {lost}");
    assert_bystander(&tracer);
    tracer.stop();
}

/// A container's first process becomes an inner one, so that nothing is left of the container that pays; and then it keeps
/// three hundred runtimes.
fn orphaned_share() {
    let script = format!("read x < /go; impostor hold 300 < /hold > /held 2>&1 & {WAIT}");
    let begin =
        format!("read x < /begin; WRAPPED='{}' exec /bin/real/runc run --bundle / inner", wrapped(&PIVOT));
    let bundle = Bundle::script(&Pod::new("nester", "app"), &begin);
    let bundle = with_jail(bundle, &script)
        .with_capabilities(&["CAP_SYS_ADMIN"])
        .with_executable("/jail/bin/runc", compiled("impostor.c"))
        .with_executable("/jail/bin/impostor", compiled("impostor.c"))
        .with_executable("/bin/real/runc", compiled("wrapper.c"))
        // Of what runs in the background.
        .with_file("/jail/dev/null", "")
        .with_fifo("/begin")
        .with_fifo("/jail/go")
        .with_fifo("/jail/hold")
        .with_fifo("/jail/end");
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-vv", "-o", "json"]);
    runtime.run_detached(&bundle);
    let bound = format!("entrypoint is process {}", runtime.init_pid(&bundle).unwrap());
    let line = tracer.wait_log("the container", |line| line.ends_with(&bound));
    let slot = line.split_once("container ").unwrap().1.split_once(':').unwrap().0.to_owned();
    bundle.release("/begin");
    let freed = format!("slot {slot} is free again");
    tracer.wait_log("the end of the container that pays", |line| line.ends_with(&freed));
    let hold = bundle.inside(Path::new("/jail/hold"));
    let _end = File::options().read(true).write(true).open(hold).unwrap();
    bundle.release("/jail/go");
    tracer.wait_log("that there are too many", |line| line.contains("too many runtimes"));
    tracer.stop();
}

/// Runtimes of root's that are at work claim a name that a living container has.
fn first_owner() {
    const CLAIMS: usize = 8;
    let mark = format!("/{}", unique("owner"));
    let first = Bundle::script(&Pod::new("first", "app"), WAIT).with_fifo("/end");
    let second = Bundle::script(&Pod::new("second", "app"), "true");
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run_detached(&first);
    let dir = scratch::Dir::new("claims");
    let runc = dir.path().join("runc");
    fs::copy(program::compile("impostor.c"), &runc).unwrap();
    let claims: Vec<Group> = (0..CLAIMS)
        .map(|_| {
            let reads = wait::Reads::of(&second.config_path());
            let mut command = Command::new(&runc);
            command.args(["--root", path(runtime.root()), "run", "--bundle", path(second.path()), &first.id]);
            command.env("WRAPPED", wrapped(&["/bin/true"])).process_group(0);
            let child = Group(wait::spawn(command.stdin(Stdio::piped()).stdout(Stdio::null())));
            reads.wait();
            child
        })
        .collect();
    runtime.exec(&first, &["/bin/sh", "-c", &format!("true < {mark}")]);
    first.assert_names(&tracer.wait_open(&mark));
    drop(claims);
    tracer.stop();
}

/// Their runtimes have different state directories.
fn two_of_one_id() {
    let mark = format!("/{}", unique("two"));
    let [first, mut second] =
        ["first", "second"].map(|name| Bundle::script(&Pod::new(name, "app"), WAIT).with_fifo("/end"));
    second.id.clone_from(&first.id);
    let runtimes = [Runtime::runc(), Runtime::runc()];
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    for (runtime, bundle) in runtimes.iter().zip([&first, &second]) {
        runtime.run_detached(bundle);
    }
    for (number, bundle) in [&first, &second].into_iter().enumerate() {
        let path = format!("{mark}/{number}");
        runtimes[number].exec(bundle, &["/bin/sh", "-c", &format!("true < {path}")]);
        bundle.assert_names(&tracer.wait_open(&path));
    }
    tracer.stop();
}

/// Nodes whose bundles lie in file systems that answer nothing, one more than there are threads for such; and one that is
/// well.
fn many_hanging() {
    const READERS: usize = 4;
    let mark = format!("/{}", unique("hang"));
    let nodes: Vec<Bundle> = (0..=READERS).map(|number| hanging_node(&format!("{mark}/{number}"))).collect();
    let inner = Pod::new("inner", "app");
    let config = Bundle::script(&inner, "true").config.to_string();
    let well = node(&format!("{mark}/well"), "true", "/bundle")
        .with_file("/bundle/config.json", config)
        .with_file("/pivot", format!("read x < /looked-at\n{}", pivot(&self::inner(&format!("{mark}/well")))))
        .with_fifo("/looked-at");
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let runtime = Runtime::runc();
    for node in &nodes {
        runtime.run_detached(node);
        let asked = node.inside(Path::new("/asked"));
        wait::until("the tracer hangs", || asked.exists().then_some(()));
    }
    let reads = wait::Reads::of(&well.inside(Path::new("/bundle/config.json")));
    runtime.run_detached(&well);
    reads.wait();
    well.release("/looked-at");
    let event = tracer.wait_open(&format!("{mark}/well/inner"));
    assert_eq!(event["k8s"]["pod"], *inner.name, "in {event}");
    tracer.stop();
}

/// Whoever has `CAP_SYS_ADMIN` may open them by their ids.
fn frozen() {
    let tracer = Tracer::start(&["trace", "open", "-o", "json", "--pid", "1"]);
    let held = Held::by(tracer.pid());
    for (map, key, value) in
        [("PROCESSES", 4, 40), ("RUNTIMES", 16, 1), ("PIDS", 4, 1), ("UIDS", 4, 1), ("COMMS", 16, 1)]
    {
        let output = held.write(map, key, value);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!output.status.success() && said.contains("not permitted"), "{map}: {output:?}");
    }
    // The tracer writes this one itself.
    held.write("ADOPTEES", 4, 24).success();
    tracer.stop();
}

/// A node executes runtimes that name bundles which are not there.
fn flooded_log() {
    const CLAIMS: u32 = 1500;
    let flood = format!(
        "i=0; while [ $i -lt {CLAIMS} ]; do i=$((i+1)); /bin/runc run --bundle /none/$i $i; done; true < /last; {WAIT}"
    );
    let bundle = nested::privileged(None, &flood, &[])
        .with_executable("/bin/runc", compiled("impostor.c"))
        .with_fifo("/end");
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let since = Instant::now();
    runtime.run_detached(&bundle);
    tracer.wait_open("/last");
    let most = 100 + 2 * since.elapsed().as_secs();
    let done = tracer.stop();
    let log = done.log();
    let refused = log.lines().filter(|line| line.contains("shown without pod")).count() as u64;
    assert!((20..most).contains(&refused), "{refused} lines: {log}");
    assert!(log.contains("more log lines like this one were left out"), "{log}");
}

/// A pod's author may write annotations, which CRI-O copies, and containerd where it is told to. Those of the engine
/// that runs the pod are not the author's.
fn contested() {
    let (pod, victim) = (Pod::new("author", "app"), Pod::new("victim", "app"));
    for (dialect, other, place) in [
        (Dialect::Containerd, Dialect::CriO, "io.containerd.runtime.v2.task/k8s.io"),
        (Dialect::CriO, Dialect::Containerd, "overlay-containers"),
    ] {
        let mark = format!("/{}", unique("author"));
        let forged = Bundle::pod(other, &victim, &["/bin/true"]);
        let bundle =
            Bundle::pod(dialect, &pod, &["/bin/sh", "-c", &format!("true < {mark}")]).edit(|config| {
                let own = config["annotations"].as_object_mut().unwrap();
                for (key, value) in forged.config["annotations"].as_object().unwrap() {
                    own.entry(key).or_insert(value.clone());
                }
            });
        let dir = scratch::Dir::new("engine");
        let bundles = dir.path().join(place);
        fs::create_dir_all(&bundles).unwrap();
        symlink(bundle.path(), bundles.join(&bundle.id)).unwrap();
        let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
        let runtime = Runtime::runc();
        let mut command = runtime.command();
        command.args(["run", "--bundle"]).arg(bundles.join(&bundle.id)).arg(&bundle.id);
        wait::output(&mut command, LIMIT);
        bundle.assert_names(&tracer.wait_open(&mark));
    }
}

/// What a pod's author may write that might end a line, a string or an object.
const NASTY: &str = "\u{1b}[2J\n{\"event\":\"open\"}\r\n\"},\n\u{9b}31m\u{202e}x";

/// As CRI-O hands them over.
fn labels() {
    let mark = format!("/{}", unique("label"));
    let labels = json!({"app": NASTY, NASTY: "value"});
    let bundle = Bundle::pod(
        Dialect::CriO,
        &Pod::new("author", "app"),
        &["/bin/sh", "-c", &format!("true < {mark}; read x < /end")],
    )
    .with_fifo("/end");
    // Labels are those of a sandbox that says so of itself.
    let id = bundle.id.clone();
    let bundle = bundle.edit(|config| {
        config["annotations"]["io.kubernetes.cri-o.ContainerType"] = "sandbox".into();
        config["annotations"]["io.kubernetes.cri-o.SandboxID"] = id.into();
        config["annotations"]["io.kubernetes.cri-o.Labels"] = labels.to_string().into();
    });
    let namespace = &bundle.pod.as_ref().unwrap().namespace;
    let tracer = Tracer::open(namespace);
    let lists = ["wide", "json", "yaml"]
        .map(|format| (format, Tracer::start(&["list-containers", "-w", "-n", namespace, "-o", format])));
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"]["labels"], labels, "in {event}");
    for line in tracer.stop().stdout {
        assert_eq!(line.find(char::is_control), None, "{line:?}");
    }
    for (format, list) in lists {
        let line = list.wait_line("the container", |line| line.contains("x=value") || line.contains("2J"));
        assert_eq!(line.find(char::is_control), None, "-o {format}: {line:?}");
        assert!(!line.contains('\u{202e}'), "-o {format}: {line:?}");
        list.signal(rustix::process::Signal::INT);
        for line in list.wait_end().stdout {
            assert!(!line.starts_with(r#"{"event":"open""#), "-o {format}: {line:?}");
        }
    }
}

/// What is logged of a container that may name bundles says where they are, in its own words.
fn forged_log() {
    let mark = format!("/{}", unique("log"));
    let forged = "tracer: ready or not";
    let node = node(&mark, "true", &format!("/x\n{forged}\u{1b}[2J\u{9b}2J\n"));
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    runtime.run_detached(&node);
    let event = tracer.wait_open(&format!("{mark}/inner"));
    assert_eq!(event["container"]["why"], "unreadable", "in {event}");
    let done = tracer.stop();
    assert!(done.log().contains(forged), "the log says which file it is: {}", done.log());
    for line in &done.stderr {
        assert!(!line.starts_with(forged), "{line:?}");
        assert_eq!(line.find(char::is_control), None, "{line:?}");
    }
}
