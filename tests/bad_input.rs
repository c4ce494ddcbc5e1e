//! Bundles and command lines that are not as they should be: one warning that says which file and
//! why, the container still known by its id, and nothing of anyone else's lost.
//!
//! Where the real runtime takes what `tracer` must refuse (a file of another owner, a symbolic link,
//! a FIFO, something far too long), it is the real runtime that runs, on that very bundle. A
//! `config.json` that no runtime could start from needs a stand-in: a program called `runc`, whose
//! command line names the bad bundle, and which then executes the real runc (under a name that
//! `tracer` does not know) with a good one. That is what wrappers such as nvidia-container-runtime
//! do; to `tracer` it is a runtime that was asked for a bundle and started a container.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use harness::need::{RUNC, RUNC_GCC};
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT, Output};
use harness::{Bundle, Pod, Runtime, Suite, Tracer, bundle, program};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

/// The size from which on a `config.json` is refused.
const TOO_LARGE: u64 = 16 << 20;

fn main() -> ExitCode {
    Suite::new()
        .test("config_of_another_owner", RUNC, another_owner)
        .test("config_is_a_symlink", RUNC, config_symlink)
        .test("config_is_a_fifo", RUNC, config_fifo)
        .test("config_is_a_device", RUNC_GCC, device)
        .test("config_is_too_large", RUNC, || too_large(TOO_LARGE + 1))
        .test("config_of_a_gibibyte", RUNC, || too_large(1 << 30))
        .test("config_is_nested_too_deeply", RUNC, nested_deeply)
        .test("config_is_malformed", RUNC_GCC, malformed)
        .test("config_with_a_nul", RUNC_GCC, || spoilt(b"\0"))
        .test("config_that_is_not_utf8", RUNC_GCC, || spoilt(b"\xff\xfe"))
        .test("config_with_annotations_twice", RUNC_GCC, annotations_twice)
        .test("config_with_a_name_twice", RUNC, name_twice)
        .test("config_is_empty", RUNC_GCC, || stand_in(|bundle| fs::write(bundle.config_path(), "").unwrap()))
        .test("config_is_a_directory", RUNC_GCC, directory)
        .test("config_is_missing", RUNC_GCC, missing)
        .test("bundle_has_vanished", RUNC_GCC, vanished)
        .test("what_cannot_be_named_is_counted_where_a_selector_needs_it", RUNC, counted_as_unattributed)
        .test("unknown_values_do_no_harm", RUNC, unknown_values)
        .test("annotations_of_other_types_do_no_harm", RUNC_GCC, odd_annotations)
        .test("command_line_of_100_kib", RUNC, long_command_line)
        .test("rooted_runtime_never_leads_to_a_bundle_of_the_host", RUNC, rooted_bundle)
        .test("container_of_a_rooted_runtime_is_known_by_id", RUNC, rooted_id)
        .test("a_container_cannot_rename_itself", RUNC_GCC, no_renaming)
        .test("a_user_of_the_host_is_no_runtime", RUNC_GCC, user_is_no_runtime)
        .run()
}

/// A good container that runs before, while and after a bad one starts, under the same tracer.
struct Neighbour {
    runtime: Runtime,
    bundle: Bundle,
    /// Of its opens, which other tests' neighbours do not make.
    mark: String,
}

impl Neighbour {
    fn start(tracer: &Tracer) -> Self {
        let pod = Pod::new("good", "app");
        let mark = format!("/{}", unique("good"));
        let script = format!("true < {mark}/1; read x < /go; true < {mark}/2; true < {mark}/3");
        let bundle = Bundle::script(&pod, &script).with_fifo("/go");
        let runtime = Runtime::runc();
        runtime.run_detached(&bundle);
        bundle.assert_names(&tracer.wait_open(&format!("{mark}/1")));
        Self { runtime, bundle, mark }
    }

    fn end(self, tracer: Tracer) -> (Vec<Value>, String) {
        self.bundle.release("/go");
        self.runtime.wait_stopped(&self.bundle);
        let done = tracer.stop();
        done.assert_nothing_dropped();
        let events = done.events();
        let own: Vec<&Value> = events.iter().filter(|event| self.bundle.owns(event)).collect();
        let told: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
        let own_opens = [1, 2, 3].map(|number| format!("{}/{number}", self.mark));
        assert_eq!(
            told,
            [&own_opens[0], "/go", &own_opens[1], &own_opens[2]],
            "the neighbour lost something"
        );
        for event in &own {
            self.bundle.assert_names(event);
        }
        (events, done.log())
    }
}

/// Traces everything while `run` starts the container of `bad`, which opens two files of `mark`.
/// Returns that container's events and what the tracer logged.
fn trace(bad: &Bundle, mark: &str, run: impl FnOnce()) -> (Vec<Value>, String) {
    let (own, log) = trace_any(mark, run);
    for event in &own {
        assert_eq!(event["container"]["id"], bad.id, "known by its id, in {event}\nlog:\n{log}");
    }
    (own, log)
}

/// [`trace`], whatever id the container is given.
fn trace_any(mark: &str, run: impl FnOnce()) -> (Vec<Value>, String) {
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let neighbour = Neighbour::start(&tracer);
    run();
    // It is over: whatever is to be known of it will be known when the tracer has ended.
    let (events, log) = neighbour.end(tracer);
    let marked = |event: &Value| event["open"]["path"].as_str().unwrap().starts_with(mark);
    let own: Vec<Value> = events.into_iter().filter(marked).collect();
    let told: Vec<&Value> = own.iter().map(|event| &event["open"]["path"]).collect();
    assert_eq!(told, [&json!(format!("{mark}/1")), &json!(format!("{mark}/2"))], "log:\n{log}");
    (own, log)
}

/// Two opens of files that only this container opens.
fn marked() -> (String, String) {
    let mark = format!("/{}", unique("bad"));
    let script = format!("true < {mark}/1; true < {mark}/2");
    (mark, script)
}

/// Fails unless the container is there without a pod, and a line of the log names the file.
#[track_caller]
fn assert_refused(own: &[Value], log: &str, file: &Path, why: &[&str]) {
    for event in own {
        assert_eq!(event["k8s"], Value::Null, "its bundle is not to be believed, in {event}");
        assert_eq!(event["container"]["why"], "unreadable", "in {event}");
    }
    let name = file.to_str().unwrap();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(name)).collect();
    assert_eq!(warnings.len(), 1, "one warning about {name}; log:\n{log}");
    let warning = warnings[0].to_lowercase();
    assert!(why.iter().any(|word| warning.contains(word)), "says none of {why:?}: {warning}");
}

/// The real runc starts from a bundle that `change` has made unacceptable.
fn real(why: &[&str], change: impl FnOnce(&Bundle)) {
    let (mark, script) = marked();
    let bundle = Bundle::script(&Pod::new("bad", "app"), &script);
    change(&bundle);
    let runtime = Runtime::runc();
    let (own, log) = trace(&bundle, &mark, || {
        let output = runtime.run(&bundle);
        assert!(output.stderr.contains("can't open"), "runc itself did not start it: {output:?}");
    });
    assert_refused(&own, &log, &bundle.config_path(), why);
}

fn another_owner() {
    real(&["owner", "belongs"], |bundle| chown(bundle.config_path(), Some(1000), None).unwrap());
}

fn config_symlink() {
    real(&["link"], |bundle| {
        let target = bundle.path().join("elsewhere.json");
        fs::rename(bundle.config_path(), &target).unwrap();
        symlink(target, bundle.config_path()).unwrap();
    });
}

/// runc reads a FIFO like any file. Whoever waits for it as `tracer` would wait for ever.
fn config_fifo() {
    let mut held = None;
    real(&["regular", "fifo"], |bundle| {
        let text = fs::read(bundle.config_path()).unwrap();
        fs::remove_file(bundle.config_path()).unwrap();
        bundle::make_fifo(&bundle.config_path());
        // Open for both: it can be written before anyone reads, and reading it never ends.
        let mut fifo = File::options().read(true).write(true).open(bundle.config_path()).unwrap();
        fifo.write_all(&text).unwrap();
        held = Some(fifo);
    });
}

/// runc stops reading where the JSON ends; behind it lies a hole of the file.
fn too_large(len: u64) {
    real(&["large", "big", "size", "16"], |bundle| {
        let file = File::options().write(true).open(bundle.config_path()).unwrap();
        file.set_len(len).unwrap();
    });
}

/// Deep enough to overflow the stack of a careless parser; runc's takes it. It may well be read.
fn nested_deeply() {
    let (mark, script) = marked();
    let bundle = Bundle::script(&Pod::new("deep", "app"), &script);
    let text = fs::read_to_string(bundle.config_path()).unwrap();
    let deep = format!(r#"{{"unknown":{}{},{}"#, "[".repeat(5000), "]".repeat(5000), &text[1..]);
    fs::write(bundle.config_path(), deep).unwrap();
    let runtime = Runtime::runc();
    let (own, log) = trace(&bundle, &mark, || {
        runtime.run(&bundle);
    });
    if own[0]["k8s"] == Value::Null {
        assert_refused(&own, &log, &bundle.config_path(), &["recursion", "deep", "nest"]);
    } else {
        for event in &own {
            bundle.assert_names(event);
        }
    }
}

/// The real runc starts from a bundle that is odd but sound: its events have its names.
fn named(bundle: &Bundle, mark: &str) {
    let runtime = Runtime::runc();
    let (own, _) = trace(bundle, mark, || {
        runtime.run(bundle);
    });
    for event in &own {
        bundle.assert_names(event);
    }
}

/// A runc by name that hands over to the real one.
struct StandIn {
    dir: scratch::Dir,
    runtime: Runtime,
}

impl StandIn {
    fn new() -> Self {
        let dir = scratch::Dir::new("standin");
        fs::copy(program::compile("wrapper.c"), dir.path().join("runc")).unwrap();
        fs::copy(harness::need::find("runc").unwrap(), dir.path().join("engine")).unwrap();
        Self { dir, runtime: Runtime::runc() }
    }

    /// Is called for `asked`, runs the container from `good` under that one's id.
    fn run(&self, asked: &Path, id: &str, good: &Path) -> Output {
        let root = self.runtime.root().to_str().unwrap();
        let engine = self.dir.path().join("engine");
        let good = good.to_str().unwrap();
        let wrapped = [engine.to_str().unwrap(), "--root", root, "run", "--bundle", good, id];
        let mut command = Command::new(self.dir.path().join("runc"));
        command.env("WRAPPED", wrapped.map(|word| format!("{word}\u{1}")).concat());
        command.args(["--root", root, "run", "--bundle"]).arg(asked).arg(id);
        wait::output(&mut command, LIMIT)
    }
}

/// A stand-in is asked for a bundle that `spoil` has made unusable, which is at the path returned.
fn stand_in_at(spoil: impl FnOnce(&Bundle) -> PathBuf) -> (Bundle, PathBuf, Vec<Value>, String) {
    let (mark, script) = marked();
    let bad = Bundle::script(&Pod::new("bad", "app"), &script);
    let good = scratch::Dir::new("good");
    let config = good.path().join("config.json");
    // No annotations: a name can only come from the bundle that was asked for.
    let mut sound = bad.config.clone();
    sound.as_object_mut().unwrap().remove("annotations");
    let rootfs = Bundle::plain(&["/bin/true"]);
    sound["root"]["path"] = json!(rootfs.path().join("rootfs"));
    fs::write(config, sound.to_string()).unwrap();
    let asked = spoil(&bad);
    let runtime = StandIn::new();
    let (own, log) = trace(&bad, &mark, || {
        let output = runtime.run(&asked, &bad.id, good.path());
        assert!(output.stderr.contains("can't open"), "the container did not run: {output:?}");
    });
    (bad, asked, own, log)
}

/// [`stand_in_at`], with the bundle where it was.
fn stand_in(spoil: impl FnOnce(&Bundle)) {
    let (bad, _, own, log) = stand_in_at(|bundle| {
        spoil(bundle);
        bundle.path().to_owned()
    });
    // Why in words is the reader's business; that it names the file is asked for.
    assert_refused(&own, &log, &bad.config_path(), &[""]);
}

fn malformed() {
    stand_in(|bundle| {
        let text = fs::read_to_string(bundle.config_path()).unwrap();
        // Cut off behind the annotations: what could be read of them is not to be believed either.
        fs::write(bundle.config_path(), &text[..text.len() - 1]).unwrap();
    });
}

/// In the middle of a string, where a careless reader would stop, or put something else in its place.
fn spoilt(bytes: &[u8]) {
    stand_in(|bundle| {
        let mut text = fs::read(bundle.config_path()).unwrap();
        let name = bundle.pod.as_ref().unwrap().name.as_bytes();
        let at = text.windows(name.len()).position(|window| window == name).expect("it names its pod");
        text.splice(at..at, bytes.iter().copied());
        fs::write(bundle.config_path(), text).unwrap();
    });
}

/// Readers differ in which of the two they take, so neither is believed.
fn annotations_twice() {
    stand_in(|bundle| {
        let text = fs::read_to_string(bundle.config_path()).unwrap();
        let twice = format!(r#"{{"annotations":{},{}"#, bundle.config["annotations"], &text[1..]);
        fs::write(bundle.config_path(), twice).unwrap();
    });
}

/// The last one counts, as for runc.
fn name_twice() {
    let (mark, script) = marked();
    let bundle = Bundle::script(&Pod::new("twice", "app"), &script);
    let text = fs::read_to_string(bundle.config_path()).unwrap();
    let twice =
        text.replacen(r#""annotations":{"#, r#""annotations":{"io.kubernetes.cri.sandbox-name":"first","#, 1);
    assert_ne!(twice, text);
    fs::write(bundle.config_path(), twice).unwrap();
    named(&bundle, &mark);
}

/// One that never ends.
fn device() {
    let (bad, _, own, log) = stand_in_at(|bundle| {
        fs::remove_file(bundle.config_path()).unwrap();
        let (mode, zero) = (Mode::from_raw_mode(0o644), makedev(1, 5));
        mknodat(CWD, bundle.config_path(), FileType::CharacterDevice, mode, zero).unwrap();
        bundle.path().to_owned()
    });
    assert_refused(&own, &log, &bad.config_path(), &["device"]);
}

fn directory() {
    stand_in(|bundle| {
        fs::remove_file(bundle.config_path()).unwrap();
        fs::create_dir(bundle.config_path()).unwrap();
    });
}

fn missing() {
    stand_in(|bundle| fs::remove_file(bundle.config_path()).unwrap());
}

fn vanished() {
    let (_, asked, own, log) = stand_in_at(|bundle| {
        fs::remove_dir_all(bundle.path().join("rootfs")).unwrap();
        bundle.path().join("gone")
    });
    assert_refused(&own, &log, &asked, &["no such file"]);
}

/// Nobody can say whether this container is of the namespace that was asked for: it is not shown,
/// and not silently left out.
fn counted_as_unattributed() {
    let pod = Pod::new("bad", "app");
    let bundle = Bundle::script(&pod, "true < /1; true < /2; true < /3");
    chown(bundle.config_path(), Some(1000), None).unwrap();
    let tracer = Tracer::open(&pod.namespace);
    Runtime::runc().run(&bundle);
    let done = tracer.stop();
    assert_eq!(done.events(), Vec::<Value>::new());
    let losses = done.losses();
    let counted = losses
        .iter()
        .filter(|loss| loss["lost"]["reason"] == "unattributed" && loss["lost"]["hook"] == "open")
        .filter_map(|loss| loss["lost"]["count"].as_u64());
    // Other tests' containers may be among them.
    assert!(counted.sum::<u64>() >= 3, "{losses:?}; log:\n{}", done.log());
}

/// Tomorrow's runtime specification is no reason to lose today's pod.
fn unknown_values() {
    let (mark, script) = marked();
    let bundle = Bundle::script(&Pod::new("future", "app"), &script)
        // runc 1.1 ignores, with a warning, capabilities that it does not know.
        .with_capabilities(&["CAP_OF_THE_FUTURE"])
        .edit(|config| config["ofTheFuture"] = json!({"even": ["this"]}));
    named(&bundle, &mark);
}

/// Annotations are strings; in this file one of them is not.
fn odd_annotations() {
    let (_, _, own, log) = stand_in_at(|bundle| {
        let mut config = bundle.config.clone();
        config["annotations"]["io.kubernetes.cri.sandbox-name"] = json!({"not": "a string"});
        fs::write(bundle.config_path(), config.to_string()).unwrap();
        bundle.path().to_owned()
    });
    // Half a name is no name.
    assert!(own.iter().all(|event| event["k8s"] == Value::Null), "{own:#?}\n{log}");
}

/// The interesting words stand behind 100 KiB of others. `--criu` is an option that runc 1.1 takes
/// and, creating containers, does not use.
fn long_command_line() {
    let (mark, script) = marked();
    let bundle = Bundle::script(&Pod::new("wordy", "app"), &script);
    let runtime = Runtime::runc();
    let (own, log) = trace(&bundle, &mark, || {
        let mut command = runtime.bare();
        command.arg(format!("--criu={}", "x".repeat(100 * 1024)));
        command.arg("--root").arg(runtime.root()).args(["run", "--bundle"]).arg(bundle.path());
        let output = wait::output(command.arg(&bundle.id), LIMIT);
        assert!(output.stderr.contains("can't open"), "runc itself did not start it: {output:?}");
    });
    if own[0]["k8s"] == Value::Null {
        // Its id it then has from elsewhere: the cgroup's name.
        let told = log.lines().any(|line| line.contains("runc") || line.contains(&bundle.id));
        assert!(told, "no word of it in the log:\n{log}");
    } else {
        for event in &own {
            bundle.assert_names(event);
        }
    }
}

/// A runtime whose root directory is another (a kind node, an engine in a chroot), where `/var/run`
/// is `/run` as everywhere: followed from outside, that leads to the host's `/run`, where another
/// bundle lies in wait. Returns the runtime's own bundle, the container's events and the log.
fn rooted() -> (Bundle, String, Vec<Value>, String) {
    let (mark, script) = marked();
    let inner = Bundle::script(&Pod::new("inner", "app"), &script);
    let root = scratch::Dir::new("root");
    let name = unique("tracer-test");
    let copy = |from: &Path, to: &Path| {
        wait::output(Command::new("cp").arg("-a").arg(from).arg(to), LIMIT).success();
    };
    for dir in ["run", "var", "tmp", "rt", "proc", "sys", "dev", "usr", "etc"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    symlink("/run", root.path().join("var/run")).unwrap();
    copy(inner.path(), &root.path().join("run").join(&name));
    // What the host has at that path: another bundle, of another pod.
    let decoy = Bundle::script(&Pod::new("decoy", "app"), "true");
    let trap = Trap(Path::new("/run").join(&name));
    copy(decoy.path(), &trap.0);

    let binds = "mount --bind . . && cd $PWD && \
        for dir in usr etc proc sys dev; do mount --rbind /$dir $dir || exit 1; done; \
        for dir in bin sbin lib lib32 lib64; do \
            if [ -L /$dir ]; then cp -a /$dir $dir; \
            elif [ -d /$dir ]; then mkdir $dir && mount --rbind /$dir $dir || exit 1; fi; done; \
        exec chroot . \"$@\"";
    let runc = harness::need::find("runc").unwrap();
    let (own, log) = trace_any(&mark, || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", binds, "sh"]);
        command.arg(&runc).args(["--root", "/rt", "run", "--bundle"]).arg(Path::new("/var/run").join(&name));
        let output = wait::output(command.arg(&inner.id).current_dir(root.path()), LIMIT);
        assert!(output.stderr.contains("can't open"), "runc itself did not start it: {output:?}");
    });
    (inner, name, own, log)
}

fn rooted_bundle() {
    let (inner, name, own, log) = rooted();
    for event in &own {
        // A runtime behind a root of its own may or may not be believed; the decoy must not be.
        assert!(event["k8s"] == Value::Null || event["k8s"] == inner.k8s(), "in {event}\nlog:\n{log}");
    }
    if own[0]["k8s"] == Value::Null {
        assert_eq!(own[0]["container"]["why"], "untrusted");
        assert!(log.lines().any(|line| line.contains(&name)), "no word of it in the log:\n{log}");
    }
}

/// Whatever is thought of the runtime, its container has a cgroup, and that has the id for a name.
fn rooted_id() {
    let (inner, _, own, log) = rooted();
    for event in &own {
        assert_eq!(event["container"]["id"], inner.id, "in {event}\nlog:\n{log}");
    }
}

/// A directory outside of ours, removed when dropped.
struct Trap(PathBuf);

impl Drop for Trap {
    fn drop(&mut self) {
        scratch::remove(&self.0);
    }
}

/// A container brings a program called runc, and a bundle that says what it likes: its own, and
/// under the id of a container that really runs.
fn no_renaming() {
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let victim = Neighbour::start(&tracer);
    let mark = format!("/{}", unique("lie"));
    // Both are there at the same path, below the container's root and the host's.
    let forged = Bundle::script(victim.bundle.pod.as_ref().unwrap(), "true");
    let unshare = format!("/bin/unshare\u{1}-m\u{1}/bin/sh\u{1}-c\u{1}true < {mark}/1; true < {mark}/2\u{1}");
    let script = format!(
        "WRAPPED='{unshare}' /bin/runc --root /tmp run --bundle {} {}; true < {mark}/3; true < {mark}/4",
        forged.path().display(),
        victim.bundle.id
    );
    let liar = Bundle::script(&Pod::new("liar", "app"), &script)
        .with_capabilities(&["CAP_SYS_ADMIN"])
        .with_executable("/bin/runc", fs::read(program::compile("wrapper.c")).unwrap())
        .with_file(forged.config_path().to_str().unwrap(), forged.config.to_string());
    Runtime::runc().run(&liar);
    // Among the victim's own events there is none of the liar's: `end` compares them all.
    let (events, _) = victim.end(tracer);
    let lies: Vec<&Value> =
        events.iter().filter(|event| event["open"]["path"].as_str().unwrap().starts_with(&mark)).collect();
    assert_eq!(lies.len(), 4, "{lies:#?}");
    for event in lies {
        assert_eq!(event["k8s"], liar.k8s(), "in {event}");
    }
}

/// Any user can call a program `runc` and make namespaces of their own; and name a bundle, or the
/// id of a container that really runs.
fn user_is_no_runtime() {
    let tracer = Tracer::start(&["trace", "open", "--host", "-o", "json"]);
    let victim = Neighbour::start(&tracer);
    let dir = scratch::Dir::new("user");
    let runc = dir.path().join("runc");
    fs::copy(program::compile("wrapper.c"), &runc).unwrap();
    let mark = format!("/{}", unique("lie"));
    let unshare = harness::need::find("unshare").unwrap();
    let script = format!("true < {mark}");
    let wrapped = [unshare.to_str().unwrap(), "-U", "-r", "-m", "sh", "-c", &script];
    let mut command = Command::new(&runc);
    command.env("WRAPPED", wrapped.map(|word| format!("{word}\u{1}")).concat());
    command.args(["run", "--bundle"]).arg(victim.bundle.path()).arg(&victim.bundle.id);
    let output = wait::output(command.uid(65534).gid(65534), LIMIT);
    assert!(output.stderr.contains(&mark), "users may not make namespaces here: {output:?}");
    let event = tracer.wait_open(&mark);
    assert_eq!(event["k8s"], Value::Null, "in {event}");
    assert_ne!(event["container"]["id"], victim.bundle.id, "in {event}");
    victim.end(tracer);
}
