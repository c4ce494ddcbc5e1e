//! What goes wrong around the tracer: rights that it lacks, outputs that nobody reads, a machine that is not as usual.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use harness::apiserver::{ApiServer, Options};
use harness::bpf::Held;
use harness::need::{KUBECTL_RUNC, Need, RUNC, RUNC_GCC};
use harness::runtime::KnownRoot;
use harness::scratch;
use harness::wait;
use harness::{
    Bundle, Dialect, Finished, Launch, NOBODY, Naming, Pod, Runtime, Suite, Tracer, nested, program, tracer,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A group that nobody is in.
const GROUP: u32 = 64321;

/// What it takes to run without root, as docs/reference.md has it: the name, and that of setpriv.
const CAPABILITIES: [(&str, &str); 4] = [
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perfmon"),
    ("CAP_SYS_PTRACE", "sys_ptrace"),
    ("CAP_DAC_READ_SEARCH", "dac_read_search"),
];
/// Of those, what is kept when everything is attached (include/uapi/linux/capability.h).
const KEPT: u64 = 1 << 19 | 1 << 2;
/// Kept besides where the use of BPF maps takes it: before Linux 5.19, and where everybody may use BPF.
const KEPT_FOR_MAPS: u64 = 1 << 39;

fn main() -> ExitCode {
    let with = |needs: &[Need], further: &[Need]| [needs, further].concat();
    let user = with(RUNC, &[Need::Setpriv]);
    let bpftool = with(RUNC, &[Need::Bpftool]);
    let ring = with(RUNC_GCC, &[Need::Bpftool]);
    let suite = Suite::new()
        .test("without_root_pods_have_their_names", &user, without_root)
        .test("without_root_containers_within_others_have_their_names", &user, within_others)
        .test("each_capability_that_is_missing_is_named", &user, missing)
        .test("what_starting_took_is_given_up", &user, given_up)
        .test("an_engine_that_may_not_be_asked", &user, engine)
        .test("a_blocked_reader_keeps_nobody_waiting", RUNC_GCC, blocked)
        .test("a_blocked_reader_of_somebody_elses_pipe", &with(RUNC_GCC, &[Need::Setpriv]), not_ours)
        .test("a_full_disk_ends_it", RUNC_GCC, full_disk)
        .test("nobody_reads_what_it_logs", RUNC, unread_log)
        .test("stopped_while_containers_come_and_go", RUNC, stopped)
        .test("killed_again_and_again", &bpftool, killed)
        .test("a_ring_that_another_process_writes_to_ends_the_trace", &ring, ring_of_events)
        .test("a_ring_of_containers_that_another_process_writes_to_ends_the_trace", &ring, || {
            ring_of_containers(&["trace", "open", "-o", "json"]);
        })
        .test("a_ring_of_containers_that_another_process_writes_to_ends_the_list", &ring, || {
            ring_of_containers(&["list-containers", "-w", "-o", "json"]);
        })
        .test("two_at_once", RUNC_GCC, two)
        .test("processes_are_hidden", &user, hidden)
        .test("no_memory_may_be_locked", RUNC, memory)
        .test("nothing_can_be_written_or_executed_in_tmp", RUNC, tmp)
        .test("another_time_since_boot", RUNC, time)
        .test("a_kernel_that_is_locked_down", &[Need::Root, Need::Btf, Need::Tracer], lockdown)
        .test("processes_may_not_be_looked_into", &with(RUNC_GCC, &[Need::Landlock]), confined);
    if !slow() {
        return suite.run();
    }
    suite
        .test("a_cpu_that_goes_and_comes", RUNC_GCC, cpu)
        .test("a_clusters_client_is_frozen_for_a_minute", KUBECTL_RUNC, frozen_client)
        .run()
}

/// Without root, with these of [`CAPABILITIES`].
fn as_nobody(launch: Launch, capabilities: impl Fn(&str) -> bool, groups: &[u32]) -> Launch {
    let words = CAPABILITIES.iter().filter(|(name, _)| capabilities(name)).map(|(_, word)| *word);
    launch.user(NOBODY, &words.collect::<Vec<_>>(), groups)
}

fn all(_: &str) -> bool {
    true
}

fn open_of(pod: &Pod) -> [&str; 6] {
    ["trace", "open", "-n", &pod.namespace, "-o", "json"]
}

/// Opens two files, the second one when it is told to.
fn two_opens(pod: &Pod) -> Bundle {
    Bundle::script(pod, "true < /first; read x < /go; true < /last").with_fifo("/go")
}

/// What a short container of a pod opens is told with its pod, and all of it.
#[track_caller]
fn assert_works(tracer: Tracer, pod: &Pod) {
    let bundle = Bundle::script(pod, "true < /first; true < /last");
    Runtime::runc().run(&bundle);
    bundle.assert_names(&tracer.wait_open("/last"));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let paths: Vec<Value> = done.events().iter().map(|event| event["open"]["path"].clone()).collect();
    assert_eq!(paths, ["/first", "/last"]);
}

/// Fails unless the event names a container that was there before the tracer.
#[track_caller]
fn assert_runs_already(event: &Value, bundle: &Bundle) {
    assert_eq!(event["k8s"], bundle.k8s(), "in {event}");
    assert_eq!(event["container"]["id"], *bundle.id, "in {event}");
    assert_eq!(event["container"]["source"], "state", "in {event}");
}

/// Writes to a ring buffer of the tracer's.
fn spoil(tracer: &Tracer, ring: &str) {
    let mut program = Command::new(program::compile("ring.c"));
    wait::output(program.arg(Held::by(tracer.pid()).map(ring)), wait::LIMIT).success();
}

/// What it says at the end, and that it has failed, but not by a panic. The sum adds up.
#[track_caller]
fn assert_fails(done: &Finished, said: &str) {
    assert_eq!(done.status.code(), Some(1), "ended with {}:\n{}", done.status, done.log());
    assert!(done.log().contains(said) && !done.log().contains("panicked"), "{}", done.log());
}

/// The sum of one that has failed.
#[track_caller]
fn assert_adds_up(done: &Finished) {
    let sum = done.summary_before_error().unwrap_or_else(|| panic!("no sum:\n{}", done.log()));
    assert_eq!(sum.seen, sum.emitted + sum.filtered + sum.lost, "{}", done.log());
}

fn ring_of_events() {
    let pod = Pod::new("web", "app");
    let bundle = two_opens(&pod);
    let (tracer, runtime) = (Tracer::open(&pod.namespace), Runtime::runc());
    runtime.run_detached(&bundle);
    tracer.wait_open("/first");
    spoil(&tracer, "EVENTS");
    bundle.release("/go");
    let done = tracer.wait_end();
    assert_fails(&done, "EVENTS");
    assert_adds_up(&done);
}

fn ring_of_containers(arguments: &[&str]) {
    let tracer = Tracer::start(arguments);
    spoil(&tracer, "LIFECYCLE");
    Runtime::runc().run(&Bundle::script(&Pod::new("web", "app"), "true"));
    let done = tracer.wait_end();
    assert_fails(&done, "LIFECYCLE");
    if arguments[0] == "trace" {
        assert_adds_up(&done);
    }
}

/// Containers that run already, and those that come later, traced and listed.
fn without_root() {
    let (_dir, binary) = tracer::copy();
    let start = |arguments: &[&str]| as_nobody(Launch::new(arguments).binary(binary.clone()), all, &[]);
    let (pod, runtime) = (Pod::new("web", "app"), Runtime::runc());
    let _state = KnownRoot::new(&runtime);
    let before = two_opens(&pod);
    runtime.run_detached(&before);
    let opens = start(&open_of(&pod)).start();
    let execs = start(&["trace", "exec", "-n", &pod.namespace, "-o", "json"]).start();
    before.release("/go");
    assert_runs_already(&opens.wait_open("/last"), &before);
    let later = Bundle::script(&pod, "true < /later; exec /bin/cat /dev/null");
    runtime.run(&later);
    later.assert_names(&opens.wait_open("/later"));
    later.assert_names(&execs.wait_exec("/dev/null"));
    let kept = two_opens(&pod);
    runtime.run_detached(&kept);
    let list = start(&["list-containers", "-n", &pod.namespace, "-o", "json"]).output().success();
    let rows: Vec<Value> = list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = rows.iter().find(|row| row["container"]["id"] == *kept.id).expect("it is listed");
    assert_eq!(row["k8s"], kept.k8s(), "in {row}");
    opens.stop().assert_nothing_dropped();
    execs.stop().assert_nothing_dropped();
}

/// Their bundles are read by processes that the tracer starts when it has given up what it does not need.
fn within_others() {
    let (_dir, binary) = tracer::copy();
    let pod = Pod::new("inner", "app");
    let inner = Bundle::script(&pod, "true < /inner");
    // Bundles within a container are read through its processes: some stay until the names are known.
    let run =
        format!("runc run --bundle {} {}; true < /outer; read x < /end", nested::path(&inner), inner.id);
    let outer = nested::privileged(None, &run, &[&inner]).with_fifo("/end");
    let opens = as_nobody(Launch::new(&["trace", "open", "-o", "json"]).binary(binary), all, &[]).start();
    let as_root = Tracer::open(&pod.namespace);
    let runtime = Runtime::runc();
    runtime.create(&outer);
    runtime.start(&outer);
    for tracer in [&as_root, &opens] {
        let of_inner =
            |event: &Value| event["open"]["path"] == "/inner" && event["container"]["id"] == *inner.id;
        let event = tracer.wait_for("the inner container's open", of_inner);
        assert_eq!(event["k8s"], inner.k8s(), "in {event}");
        assert_eq!(event["container"]["outer"]["id"], *outer.id, "in {event}");
    }
    outer.release("/end");
    runtime.wait_stopped(&outer);
    opens.stop();
    as_root.stop();
}

fn missing() {
    let (_dir, binary) = tracer::copy();
    for (name, _) in CAPABILITIES {
        for arguments in [&["trace", "open"][..], &["trace", "exec"], &["list-containers"], &["doctor"]] {
            let launch = Launch::new(arguments).binary(binary.clone());
            let output = as_nobody(launch, |other| other != name, &[]).output();
            let said = if arguments == ["doctor"] {
                output.stdout.lines().find(|line| line.starts_with("missing")).unwrap_or_default()
            } else {
                assert_eq!(output.stdout, "", "{arguments:?} without {name}: events only");
                &output.stderr
            };
            assert_eq!(output.status.code(), Some(3), "{arguments:?} without {name}: {output:?}");
            assert!(said.contains(name), "{arguments:?} does not name {name}: {said}");
            assert_eq!(said.matches("CAP_").count(), 1, "{arguments:?} names more than {name}: {said}");
        }
    }
    let doctor = as_nobody(Launch::new(&["doctor"]).binary(binary), all, &[]).output().success();
    for (name, _) in CAPABILITIES {
        assert!(doctor.stdout.contains(name), "{name}: {doctor:?}");
    }
}

/// The lines `KEY: VALUE` of each thread's status.
fn of_threads(tracer: &Tracer, key: &str) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", tracer.pid())).unwrap();
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.expect("each status has it").trim().to_owned()
        };
        Some((value("Name"), value(key)))
    };
    // A thread may have ended since it was listed.
    tasks.flatten().filter_map(of_task).collect()
}

/// By every thread, whoever has started it.
fn given_up() {
    let (_dir, binary) = tracer::copy();
    let pod = Pod::new("web", "app");
    let launch = || Launch::new(&open_of(&pod)).binary(binary.clone());
    for tracer in [launch().start(), as_nobody(launch(), all, &[]).start()] {
        // Bundles are read by threads that start when they are needed.
        let bundle = Bundle::script(&pod, "true < /opened");
        Runtime::runc().run(&bundle);
        bundle.assert_names(&tracer.wait_for("an open", |event| bundle.owns(event)));
        for key in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let threads = of_threads(&tracer, key);
            assert!(threads.len() > 3, "{threads:?}");
            for (thread, set) in threads {
                let set = u64::from_str_radix(&set, 16).unwrap();
                assert_eq!(set & !(KEPT | KEPT_FOR_MAPS), 0, "{key} of {thread}: {set:x}");
                if thread == "stderr" {
                    assert_eq!(set, 0, "{key} of {thread}: {set:x}");
                }
            }
        }
        for (thread, value) in of_threads(&tracer, "NoNewPrivs") {
            assert_eq!(value, "1", "{thread} may gain privileges");
        }
        tracer.stop();
    }
}

/// The engine's socket is root's alone; then a group's.
fn engine() {
    let (_dir, binary) = tracer::copy();
    let dir = scratch::Dir::new("engine");
    let socket = dir.path().join("e.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    let pod = Pod::new("web", "app");
    let endpoint = socket.display().to_string();
    let start = |groups: &[u32]| {
        let arguments = [&open_of(&pod)[..], &["--runtime-endpoint", &endpoint]].concat();
        as_nobody(Launch::new(&arguments).binary(binary.clone()), all, groups).start()
    };
    let refused = start(&[]);
    refused.wait_log("that the engine may not be asked", |line| {
        line.contains(&endpoint) && line.contains("Permission denied")
    });
    assert_works(refused, &pod);
    assert!(listener.accept().is_err(), "nobody has connected");
    chown(&socket, None, Some(GROUP)).unwrap();
    let permitted = start(&[GROUP]);
    wait::until("the engine is asked", || listener.accept().ok());
    permitted.stop();
}

/// More than fits into a pipe.
const MANY: u64 = 20_000;

fn many_opens(pod: &Pod) -> Bundle {
    Bundle::pod(Dialect::Containerd, pod, &["/bin/opens", &MANY.to_string()])
        .with_program(&program::compile("opens.c"))
}

/// Nobody reads while a container opens far more files than there is room for: it runs to its end, and who reads then is
/// told how many are missing.
fn blocked() {
    let pod = Pod::new("busy", "app");
    let bundle = many_opens(&pod);
    let arguments = [&open_of(&pod)[..], &["--buffer-size", "16KiB"]].concat();
    let mut tracer = Launch::new(&arguments).hold_stdout().start();
    Runtime::runc().run(&bundle).success();
    tracer.read_on();
    tracer.wait_for("a loss", |event| event["lost"]["reason"] == "buffer-full");
    // The sum, the losses in the stream and the lines agree.
    let done = tracer.stop();
    let closing = done.stderr.last().unwrap();
    assert!(closing.contains(" (buffer-full ") && closing.contains(": raise --buffer-size"), "{closing}");
    let summary = done.summary();
    assert!(summary.lost > 0 && summary.emitted > 0, "{summary:?}");
    let own = done.events().iter().filter(|event| bundle.owns(event)).count() as u64;
    assert!(own + summary.lost >= MANY, "{own} shown, {summary:?}");
}

/// A pipe of root's, which a tracer that is not may not open anew: it ends all the same, and knows what was taken.
fn not_ours() {
    let (_dir, binary) = tracer::copy();
    let pod = Pod::new("busy", "app");
    let bundle = many_opens(&pod);
    let launch = Launch::new(&open_of(&pod)).binary(binary);
    let tracer = as_nobody(launch, all, &[]).hold_stdout().start();
    Runtime::runc().run(&bundle).success();
    tracer.signal(Signal::INT);
    let done = tracer.wait_end().assert_cut_off();
    let summary = done.summary();
    assert!(summary.lost > 0 && summary.emitted > 0, "{}", done.log());
}

/// The end of a tracer whose standard output takes nothing more.
#[track_caller]
fn assert_no_space(done: &Finished) {
    assert_eq!(done.status.code(), Some(1), "{}", done.log());
    let told = "writing to standard output: No space left on device";
    assert!(done.stderr.iter().any(|line| line.contains(told)), "{}", done.log());
    let sum = done.stderr.iter().find(|line| line.starts_with("tracer: seen "));
    let numbers: Vec<u64> = sum.unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
    let [seen, emitted, filtered, lost] = numbers[..] else { panic!("{sum:?}") };
    assert_eq!(seen, emitted + filtered + lost, "{}", done.log());
    assert!(lost > 0, "{}", done.log());
}

fn full_disk() {
    let pod = Pod::new("busy", "app");
    let bundle = many_opens(&pod);
    let runtime = Runtime::runc();
    let tracer = Launch::new(&open_of(&pod)).prelude("exec > /dev/full").start();
    runtime.run(&bundle).success();
    assert_no_space(&tracer.wait_end());

    let dir = scratch::Dir::new("disk");
    let disk = dir.path().display();
    let shell = format!("mount -t tmpfs -o size=64k none {disk} && exec > {disk}/events");
    let tracer = Launch::new(&open_of(&pod)).prelude(&shell).start();
    // The mount goes with the last who has it.
    let within = format!("/proc/{}/root{disk}/events", tracer.pid());
    let mut file = File::open(within).unwrap();
    runtime.run(&bundle).success();
    let done = tracer.wait_end();
    assert_no_space(&done);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let whole = text.matches('\n').count();
    assert!(whole > 100, "what there was room for is there: {whole} events");
    let emitted = format!(" emitted {whole} ");
    assert!(done.log().contains(&emitted), "{whole} lines are whole:\n{}", done.log());
}

/// A full pipe, and warnings: containers that come later are named all the same, and the tracer ends.
fn unread_log() {
    let pod = Pod::new("web", "app");
    // Annotations that are there twice, of which runc takes the last ones.
    let bad = || {
        let bundle = Bundle::script(&pod, "true");
        let text = fs::read_to_string(bundle.config_path()).unwrap();
        let twice = format!(r#"{{"annotations":{},{}"#, bundle.config["annotations"], &text[1..]);
        fs::write(bundle.config_path(), twice).unwrap();
        bundle
    };
    let mut tracer = Launch::new(&open_of(&pod)).stall_stderr().start();
    fill(&format!("/proc/{}/fd/2", tracer.pid()));
    let runtime = Runtime::runc();
    for _ in 0..3 {
        runtime.run(&bad());
    }
    let first = Bundle::script(&pod, "true < /first");
    runtime.run(&first);
    first.assert_names(&tracer.wait_open("/first"));
    // What it says when somebody reads again.
    tracer.read_stderr_on();
    tracer.wait_log("the warnings", |line| line.contains("WARN"));
    tracer.stop();

    let tracer = Launch::new(&open_of(&pod)).stall_stderr().start();
    fill(&format!("/proc/{}/fd/2", tracer.pid()));
    runtime.run(&bad());
    tracer.signal(Signal::INT);
    let done = tracer.wait_end();
    assert_eq!(done.status.code(), Some(0), "{}", done.status);
    assert!(done.summary.is_none(), "there was no room for it");
}

/// Fills a pipe.
#[track_caller]
fn fill(path: &str) {
    const NONBLOCK: i32 = 0o4000;
    let mut pipe = File::options().write(true).custom_flags(NONBLOCK).open(path).unwrap();
    let line = [&[b'x'; 63][..], b"\n"].concat();
    loop {
        match pipe.write(&line) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// As by Ctrl-Z. Nobody waits, and what fits into the buffers is told when it goes on.
fn stopped() {
    let pod = Pod::new("web", "app");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    let gone = Bundle::script(&pod, "true < /gone");
    let (before, stays, named) = (two_opens(&pod), two_opens(&pod), two_opens(&pod));
    let tracer = Launch::new(&["trace", "open", "-o", "json"]).start();
    runtime.run_detached(&before);
    before.assert_names(&tracer.wait_for("the first", |event| before.owns(event)));
    tracer.pause();
    before.release("/go");
    runtime.wait_stopped(&before);
    runtime.run(&gone);
    runtime.run_detached(&named);
    runtime.create_naming(&stays, Naming::Relative);
    runtime.start(&stays);
    std::thread::sleep(stop_for());
    tracer.resume();
    let last = |event: &Value| before.owns(event) && event["open"]["path"] == "/last";
    before.assert_names(&tracer.wait_for("what it did meanwhile", last));
    for bundle in [&named, &gone] {
        bundle.assert_names(&tracer.wait_for("one that came meanwhile", |event| bundle.owns(event)));
    }
    // Its runtime is gone, and with it where its bundle's path began; its state is there.
    let event = tracer.wait_for("one that came meanwhile, by its state", |event| stays.owns(event));
    assert_eq!(event["k8s"], stays.k8s(), "in {event}");
    tracer.stop();
}

/// How long a tracer is stopped.
fn stop_for() -> Duration {
    if slow() { Duration::from_secs(10) } else { Duration::ZERO }
}

/// Whether there is time for everything, and nothing else on this machine to disturb.
fn slow() -> bool {
    std::env::var_os("TRACER_TEST_SLOW").is_some_and(|value| value == "1")
}

/// While a container opens files as fast as it can: the node's tracer ends, whoever is frozen takes no more memory, and
/// goes on when it is not frozen any more.
fn frozen_client() {
    const FROZEN: Duration = Duration::from_secs(60);
    let (runtime, pod) = (Runtime::runc(), Pod::new("web", "app"));
    let server = ApiServer::with_tracers(Options::default(), &["n-1"]);
    let client = Launch::kubectl(&server.kubeconfig(None), &open_of(&pod)).start();
    let storm = Bundle::script(&pod, "while :; do read x < /etc/hostname; done");
    runtime.run_detached(&storm);
    client.wait_open("/etc/hostname");
    let node = server.running()[0];
    client.pause();
    let (since, mut highest, mut lasted) = (Instant::now(), 0, Duration::ZERO);
    while since.elapsed() < FROZEN {
        if let Some(memory) = resident(node) {
            (highest, lasted) = (memory.max(highest), since.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("the node's tracer went on for {lasted:?}, and had {highest} KiB at the most");
    // What has ended has no memory, also where its last words are still on their way.
    assert!(resident(node).is_none(), "the node's tracer goes on after {FROZEN:?}");
    assert!(highest < 60 << 10, "{highest} KiB");
    client.resume();
    client.wait_log("that it is retried", |line| line.contains("n-1") && line.contains("retrying"));
    wait::until("it runs again", || (server.executed().len() == 2).then_some(()));
    let own = resident(i32::try_from(client.pid()).unwrap()).unwrap();
    assert!(own < 80 << 10, "{own} KiB");
    drop(runtime);
    client.signal(Signal::INT);
    client.wait_end().assert_adds_up();
    server.wait_nothing_runs(wait::LIMIT);
}

/// The memory of a process, in KiB; none when it has ended.
fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// At any time, also before it is ready: nothing is left in the kernel, and the next one works.
fn killed() {
    let rounds = if slow() { 100 } else { 6 };
    let pod = Pod::new("web", "app");
    for round in 0..rounds {
        if round % 2 == 0 {
            let tracer = Launch::new(&open_of(&pod)).start();
            let held = Held::by(tracer.pid());
            assert!(!held.programs.is_empty() && !held.maps.is_empty() && !held.links.is_empty(), "{held:?}");
            tracer.signal(Signal::KILL);
            assert_eq!(tracer.wait_end().status.signal(), Some(9));
            held.wait_gone();
        } else {
            let mut command = Command::new(tracer::binary());
            command.args(["trace", "open"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = wait::spawn(&mut command);
            let held = wait::until("its first program", || {
                let held = Held::by(child.id());
                (!held.programs.is_empty()).then_some(held)
            });
            child.kill().unwrap();
            child.wait().unwrap();
            held.wait_gone();
        }
    }
    assert_works(Launch::new(&open_of(&pod)).start(), &pod);
}

/// Each sees all, itself never, and the others as processes of the host.
fn two() {
    const COUNT: usize = 2_000;
    let pod = Pod::new("busy", "app");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/opens", &COUNT.to_string()])
        .with_program(&program::compile("opens.c"));
    let tracers = [Tracer::open(&pod.namespace), Tracer::open(&pod.namespace)];
    // The threads that look at counters every now and then.
    let of_host = Tracer::start(&["trace", "open", "--host", "-o", "json", "--comm", "events"]);
    Runtime::runc().run(&bundle).success();
    for tracer in &tracers {
        let pid = tracer.pid();
        of_host.wait_for("another tracer's open", |event| event["process"]["pid"] == pid);
    }
    let own = of_host.pid();
    let events = of_host.stop().events();
    assert!(events.iter().all(|event| event["process"]["pid"] != own), "an event of its own");
    for tracer in tracers {
        let done = tracer.stop();
        done.assert_nothing_dropped();
        let own: Vec<Value> = done.events().into_iter().filter(|event| bundle.owns(event)).collect();
        assert_eq!(own.len(), COUNT);
        for event in &own {
            bundle.assert_names(event);
        }
    }
}

/// Other users' processes are not to be seen in /proc but for who may look into them anyway: containers that run already
/// are found all the same.
fn hidden() {
    const HIDE: &str = "mount -t proc -o hidepid=2 none /proc";
    let (_dir, binary) = tracer::copy();
    let (pod, runtime) = (Pod::new("web", "app"), Runtime::runc());
    let _state = KnownRoot::new(&runtime);
    let running = two_opens(&pod);
    runtime.run_detached(&running);
    let root = Launch::new(&open_of(&pod)).prelude(HIDE).start();
    let user = as_nobody(Launch::new(&open_of(&pod)).binary(binary).prelude(HIDE), all, &[]).start();
    running.release("/go");
    let later = Bundle::script(&pod, "true < /later");
    runtime.run(&later);
    for tracer in [root, user] {
        assert_runs_already(&tracer.wait_open("/last"), &running);
        later.assert_names(&tracer.wait_open("/later"));
        tracer.stop().assert_nothing_dropped();
    }
}

/// BPF maps take some megabytes, which count for nothing since Linux 5.11; before, root may lift the limit.
fn memory() {
    let pod = Pod::new("web", "app");
    assert_works(Launch::new(&open_of(&pod)).prelude("ulimit -S -l 0").start(), &pod);
}

/// It writes no file, and executes none but itself.
fn tmp() {
    let pod = Pod::new("web", "app");
    // The binary may be in /tmp, and then be hidden with it.
    let shell = format!(
        "mount -t tmpfs none /mnt && cp {} /mnt/tracer && mount -t tmpfs -o ro,noexec none /tmp && \
         exec /mnt/tracer \"$@\"",
        tracer::binary().display()
    );
    assert_works(Launch::new(&open_of(&pod)).prelude(&shell).start(), &pod);
}

/// In a time namespace the clocks that start at boot differ from those that the programs read. Names and times are right
/// all the same.
fn time() {
    const AHEAD: &str = "86400";
    let pod = Pod::new("web", "app");
    let runtime = Runtime::runc();
    let _state = KnownRoot::new(&runtime);
    let running = two_opens(&pod);
    runtime.run_detached(&running);
    let ahead = ["unshare", "--time", "--boottime", AHEAD, "--monotonic", AHEAD];
    let tracer = Launch::new(&open_of(&pod)).wrapper(&ahead).start();
    let usual = Tracer::open(&pod.namespace);
    running.release("/go");
    assert_runs_already(&tracer.wait_open("/last"), &running);
    let bundle = Bundle::script(&pod, "true < /opened");
    runtime.run(&bundle);
    let event = tracer.wait_open("/opened");
    bundle.assert_names(&event);
    let seconds = |event: &Value| event["timestamp"].as_str().unwrap()[..17].to_owned();
    // To the minute, but for one that ends just then.
    assert_eq!(seconds(&event), seconds(&usual.wait_open("/opened")));
    tracer.stop();
    usual.stop();
}

/// As the kernel would tell it: no machine of ours is locked down.
fn lockdown() {
    let shell = |modes: &str| {
        format!("mount -t tmpfs none /sys/kernel/security && echo '{modes}' > /sys/kernel/security/lockdown")
    };
    if !Path::new("/sys/kernel/security").exists() {
        return;
    }
    let confidential = shell("none integrity [confidentiality]");
    for command in [&["trace", "open"][..], &["list-containers"], &["doctor"]] {
        let output = Launch::new(command).prelude(&confidential).output();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = output.stdout + &output.stderr;
        assert!(said.contains("confidentiality") && said.contains("lockdown=integrity"), "{said}");
    }
    let doctor = Launch::new(&["doctor"]).prelude(&shell("none [integrity] confidentiality")).output();
    assert!(doctor.success().stdout.contains("integrity, which permits all"));
}

/// A security module keeps other processes' root directories from it, whatever its capabilities: what takes them to be
/// known is not, and that is said.
fn confined() {
    let landlocked = program::compile("landlocked.c");
    let confine = |arguments: &[&str]| Launch::new(arguments).wrapper(std::slice::from_ref(&landlocked));
    let doctor = confine(&["doctor"]).output().success();
    let note = doctor.stdout.lines().find(|line| line.starts_with("note     processes"));
    assert!(note.is_some_and(|line| line.contains("/proc/1/root")), "{}", doctor.stdout);
    let usual = Launch::new(&["doctor"]).output().stdout;
    assert!(usual.contains("ok       processes"), "{usual}");

    let (pod, runtime) = (Pod::new("web", "app"), Runtime::runc());
    let _state = KnownRoot::new(&runtime);
    let [running, relative, absolute] = [(), (), ()].map(|()| two_opens(&pod));
    runtime.run_detached(&running);
    let tracer = confine(&["trace", "open", "-o", "json"]).start();
    assert!(tracer.log().contains("/proc/1/root cannot be opened"), "{}", tracer.log());
    runtime.create_naming(&relative, Naming::Cwd);
    runtime.start(&relative);
    let event = tracer.wait_for("one that is named by a relative path", |event| relative.owns(event));
    // Where the runtime was is not known; what it has written down of the container is.
    assert_eq!(
        (&event["k8s"], &event["container"]["source"]),
        (&relative.k8s(), &json!("state")),
        "in {event}"
    );
    runtime.run_detached(&absolute);
    absolute.assert_names(&tracer.wait_for("one that is named by its path", |event| absolute.owns(event)));
    running.release("/go");
    runtime.wait_stopped(&running);
    let done = tracer.stop();
    let of_running = done.events().into_iter().find(|event| running.owns(event));
    assert_eq!(of_running, None, "passes for the host's");
}

/// A CPU that is taken away until this is dropped.
struct Offline(&'static str);

impl Offline {
    fn new(online: &'static str) -> Self {
        fs::write(online, "0").unwrap();
        Self(online)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        fs::write(self.0, "1").expect("it was there before");
    }
}

/// What is counted on a CPU counts when it is gone, and rings and maps go on without it.
fn cpu() {
    const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
    const COUNT: usize = 2_000;
    if !Path::new(ONLINE).exists() {
        eprintln!("there is no {ONLINE}: no CPU can be taken away");
        return;
    }
    let pod = Pod::new("busy", "app");
    let opens = || {
        Bundle::pod(Dialect::Containerd, &pod, &["/bin/opens", &COUNT.to_string()])
            .with_program(&program::compile("opens.c"))
    };
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&pod.namespace);
    runtime.run(&opens()).success();
    let offline = Offline::new(ONLINE);
    runtime.run(&opens()).success();
    // One that starts while it is gone sees what happens there when it is back.
    let meanwhile = Tracer::open(&pod.namespace);
    drop(offline);
    runtime.run(&opens()).success();
    for (tracer, count) in [(tracer, 3 * COUNT), (meanwhile, COUNT)] {
        let done = tracer.stop();
        done.assert_nothing_dropped();
        assert_eq!(done.events().len(), count, "{:?}", done.summary());
    }
}
