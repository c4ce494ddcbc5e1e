//! `trace open`: every way to open a file, told as the process made the call and the kernel answered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use harness::need::{self, RUNC, RUNC_GCC};
use harness::program::{self, FREESTANDING, FREESTANDING_I386};
use harness::scratch::unique;
use harness::{Bundle, Dialect, Need, Pod, Runtime, Suite, Tracer};
use serde_json::{Value, json};

const AT_FDCWD: i64 = -100;
const EFAULT: i64 = 14;
const ENAMETOOLONG: i64 = 36;

fn main() -> ExitCode {
    let ia32: Vec<Need> = RUNC_GCC.iter().copied().chain([Need::Ia32]).collect();
    let uring: Vec<Need> = RUNC_GCC.iter().copied().chain([Need::IoUring]).collect();
    Suite::new()
        .test("every_call_exactly", RUNC_GCC, every_call)
        .test("longest_paths", RUNC_GCC, longest_paths)
        .test("failed_calls_only", RUNC, failed_only)
        .test("compat_calls_of_a_64_bit_program", &ia32, || compat("compat64", FREESTANDING))
        .test("compat_calls_of_an_i386_program", &ia32, || compat("compat32", FREESTANDING_I386))
        .test("ten_thousand_none_lost", RUNC_GCC, ten_thousand)
        .test("a_full_buffer_is_counted", RUNC_GCC, full_buffer)
        .test("unused_halves_of_registers_do_not_matter", RUNC_GCC, wide_registers)
        .test("calls_that_seccomp_answers_have_failed", RUNC_GCC, seccomp)
        .test("files_opened_by_handle", RUNC_GCC, handles)
        .test("openat2_shows_how_the_path_is_resolved", RUNC_GCC, resolve)
        .test("io_uring_opens_exactly", &uring, uring_matrix)
        .test("io_uring_requests_that_are_cancelled", &uring, uring_chain)
        .test("io_uring_requests_that_a_thread_of_the_kernel_takes", &uring, uring_polled)
        .test("io_uring_results_that_are_not_reported", &uring, uring_silent)
        .run()
}

/// Runs `/bin/opens` with `argument` in a container of a fresh pod; what it printed, and its events
/// but for the one that marks the end.
fn run_opens(argument: &str) -> (Vec<(String, i64, i64)>, Vec<Value>) {
    run("opens", argument, &[], |bundle| bundle)
}

/// Likewise, with the program of this name and more options.
fn run(
    name: &str,
    argument: &str,
    options: &[&str],
    prepare: impl FnOnce(Bundle) -> Bundle,
) -> (Vec<(String, i64, i64)>, Vec<Value>) {
    let pod = Pod::new(name, "app");
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &[&format!("/bin/{name}"), argument, &end])
        .with_program(&program::compile(&format!("{name}.c")));
    let bundle = prepare(bundle);
    let arguments = [&["trace", "open", "-n", &pod.namespace, "-o", "json"], options].concat();
    let tracer = Tracer::start(&arguments);
    let output = Runtime::runc().run(&bundle).success();
    tracer.wait_open(&end);
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let mut events = done.events();
    for event in &events {
        bundle.assert_names(event);
    }
    assert_eq!(events.pop().unwrap()["open"]["path"], *end);
    let printed = output
        .stdout
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words[0].to_owned(), words[1].parse().unwrap(), words[2].parse().unwrap())
        })
        .collect();
    (printed, events)
}

/// What a call was made with; what came of it, the program itself prints.
struct Call {
    path: &'static str,
    flags: &'static [&'static str],
    mode: u32,
    dirfd: Option<&'static str>,
}

fn calls() -> BTreeMap<&'static str, Call> {
    let call = |path, flags, mode| Call { path, flags, mode, dirfd: None };
    // Relative to the directory that the call of this name has opened.
    let at = |path, flags, mode, dirfd| Call { path, flags, mode, dirfd: Some(dirfd) };
    BTreeMap::from([
        ("setup", call("/m/file", &["O_WRONLY", "O_CREAT"][..], 0o666)),
        ("rdonly", call("/m/file", &["O_RDONLY", "O_CLOEXEC"], 0)),
        ("create", call("/m/new", &["O_WRONLY", "O_CREAT", "O_EXCL"], 0o640)),
        ("exists", call("/m/new", &["O_WRONLY", "O_CREAT", "O_EXCL"], 0o600)),
        ("missing", call("/m/missing", &["O_RDONLY"], 0)),
        ("unused-mode", call("/m/file", &["O_RDONLY", "O_NOATIME"], 0)),
        (
            "many-flags",
            call("/m/file", &["O_RDWR", "O_APPEND", "O_TRUNC", "O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY"], 0),
        ),
        ("sync", call("/m/file", &["O_RDONLY", "O_SYNC"], 0)),
        ("dsync", call("/m/file", &["O_RDONLY", "O_DSYNC"], 0)),
        ("directory", call("/m", &["O_RDONLY", "O_DIRECTORY"], 0)),
        ("notdir", call("/m/file", &["O_RDONLY", "O_DIRECTORY"], 0)),
        ("path", call("/m", &["O_RDONLY", "O_PATH"], 0)),
        ("tmpfile", call("/m", &["O_RDWR", "O_TMPFILE"], 0o600)),
        ("isdir", call("/m", &["O_WRONLY"], 0)),
        ("openat", call("/m/file", &["O_RDWR"], 0)),
        ("dir-of-openat", call("/m", &["O_RDONLY", "O_DIRECTORY"], 0)),
        ("openat-relative", at("file", &["O_WRONLY"], 0, "dir-of-openat")),
        ("openat-bad-dirfd", at("file", &["O_RDONLY"], 0, "99")),
        ("openat2", call("/m/file", &["O_RDONLY"], 0)),
        ("openat2-create", at("how", &["O_RDWR", "O_CREAT"], 0o604, "dir-of-openat")),
        ("openat2-beneath", at("../etc/hostname", &["O_RDONLY"], 0, "dir-of-openat")),
        // The kernel did not even read what it was asked for.
        ("openat2-short", call("/m/short", &[], 0)),
        ("openat2-flags", call("/m/flags", &[], 0)),
        ("creat", call("/m/created", &["O_WRONLY", "O_CREAT", "O_TRUNC"], 0o604)),
        ("fault", call("", &["O_RDONLY"], 0)),
        ("empty", call("", &["O_RDONLY"], 0)),
        ("not-utf8", call("/m/\u{fffd}\u{fffd}-x", &["O_RDONLY"], 0)),
        ("control", call("/m/\u{1b}[31mred\n\ttab\"quote\\", &["O_RDONLY"], 0)),
    ])
}

fn every_call() {
    let (printed, events) = run_opens("matrix");
    let calls = calls();
    // A system call that a newer architecture lacks, it cannot make.
    assert!(printed.len() >= calls.len() - 1, "{printed:?}");
    let fd_of = |label: &str| {
        printed.iter().find(|(name, ..)| name == label).map_or_else(
            || label.parse().unwrap(),
            |(_, fd, _)| {
                assert!(*fd >= 0, "{label}");
                *fd
            },
        )
    };
    let told: Vec<&str> = events.iter().map(|event| event["open"]["path"].as_str().unwrap()).collect();
    assert_eq!(events.len(), printed.len(), "one event for one call: {told:?}");
    for ((label, fd, errno), event) in printed.iter().zip(&events) {
        let call = &calls[label.as_str()];
        let open = &event["open"];
        let said = format!("{label}: {open}");
        assert_eq!(open["path"], call.path, "{said}");
        assert_eq!(open["fd"], *fd, "{said}");
        assert_eq!(open["errno"], *errno, "{said}");
        assert_eq!(open["mode"], call.mode, "{said}");
        assert_eq!(open["dirfd"], call.dirfd.map_or(AT_FDCWD, fd_of), "{said}");
        assert_eq!(open["truncated"], false, "{said}");
        assert_eq!(open.get("fault"), (*errno == EFAULT).then_some(&json!(true)), "{said}");
        assert_eq!(open.get("pathHex"), (label == "not-utf8").then_some(&json!("2f6d2ffffe2d78")), "{said}");
        if !call.flags.is_empty() {
            let flags: BTreeSet<&str> =
                open["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
            assert_eq!(flags, call.flags.iter().copied().collect(), "{said}");
        }
    }
}

fn longest_paths() {
    let (printed, events) = run_opens("lengths");
    assert_eq!(printed.len(), 3);
    assert_eq!(events.len(), 3, "a path that is too long is an event too");
    let open = |index: usize| &events[index]["open"];
    // PATH_MAX is 4096 with the NUL.
    let longest = format!("{}/xy", "/.".repeat(2046));
    assert_eq!(longest.len(), 4095);
    assert_eq!(open(0)["path"], *longest);
    assert_eq!((&open(0)["truncated"], &open(0)["errno"]), (&json!(false), &json!(2)));
    for (index, whole) in [(1, format!("{longest}z")), (2, "a".repeat(8000))] {
        let told = open(index)["path"].as_str().unwrap();
        assert!(told.len() > 255 && whole.starts_with(told), "{} bytes", told.len());
        assert_eq!(open(index)["truncated"], json!(true));
        assert_eq!(open(index)["errno"], json!(ENAMETOOLONG));
        assert_eq!(open(index)["fd"], json!(-1));
    }
}

fn failed_only() {
    let pod = Pod::new("failing", "app");
    let end = format!("/{}", unique("end"));
    let script = format!("read x < /etc/hostname; true < /missing; true < /etc/hostname/x; true < {end}");
    let bundle = Bundle::script(&pod, &script);
    let tracer = Tracer::start(&["trace", "open", "-n", &pod.namespace, "--failed", "-o", "json"]);
    Runtime::runc().run(&bundle);
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    let told: Vec<(&str, i64)> = events
        .iter()
        .map(|event| (event["open"]["path"].as_str().unwrap(), event["open"]["errno"].as_i64().unwrap()))
        .collect();
    assert_eq!(told, [("/missing", 2), ("/etc/hostname/x", 20), (end.as_str(), 2)]);
    for event in &events {
        bundle.assert_names(event);
    }
}

/// On a 64-bit kernel a 32-bit call has other numbers: its openat is a 64-bit nobody, its fork a
/// 64-bit open.
fn compat(name: &str, flags: &[&str]) {
    let pod = Pod::new(name, "app");
    let program = program::compile_flags("compat.c", name, flags);
    let end = format!("/{}", unique("end"));
    let script = format!("/bin/{name}; true < {end}");
    let bundle = Bundle::script(&pod, &script).with_program(&program);
    let tracer = Tracer::open(&pod.namespace);
    let output = Runtime::runc().run(&bundle);
    assert!(output.stdout.ends_with("readlink 2\n"), "the program did not run to its end: {output:?}");
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    let told: Vec<Value> = events
        .iter()
        .map(|event| json!([event["open"]["path"], event["open"]["flags"], event["open"]["mode"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["/compat/open", ["O_WRONLY"], 0]),
            json!(["/compat/openat", ["O_RDONLY", "O_CLOEXEC"], 0]),
            json!(["/compat/openat2", ["O_RDONLY", "O_CLOEXEC"], 0]),
            json!(["/compat/creat", ["O_WRONLY", "O_CREAT", "O_TRUNC"], 0o640]),
            json!([end, ["O_RDONLY"], 0]),
        ]
    );
    for event in &events {
        assert_eq!(event["open"]["dirfd"], AT_FDCWD, "in {event}");
        assert_eq!(event["open"]["errno"], 2, "in {event}");
        bundle.assert_names(event);
    }
}

/// What a program printed of a call by this label: what it returned, and errno.
fn answer(printed: &[(String, i64, i64)], label: &str) -> (i64, i64) {
    let (_, fd, errno) = printed.iter().find(|(name, ..)| name == label).expect("a label of the program");
    (*fd, *errno)
}

/// The fields of an open that a test compares.
fn fields(event: &Value) -> Value {
    let open = &event["open"];
    json!([open["call"], open["path"], open["flags"], open["mode"], open["dirfd"], open["fd"], open["errno"]])
}

/// The kernel takes the lower half of the number of a call, of descriptors and flags, and 16 bits of a mode.
fn wide_registers() {
    let (printed, events) = run("calls", "wide", &[], |bundle| bundle);
    let wanted = |label: &str, call: &str, path: &str, flags: &[&str], mode: u32, dirfd: i64| {
        let (fd, errno) = answer(&printed, label);
        assert_eq!(errno, 0, "{label}");
        json!([call, path, flags, mode, dirfd, fd, errno])
    };
    let (dir, _) = answer(&printed, "dir");
    let hostname = "/etc/hostname";
    let mut all = vec![
        wanted("dir", "openat", "/etc", &["O_RDONLY", "O_DIRECTORY"], 0, AT_FDCWD),
        wanted("openat", "openat", hostname, &["O_RDONLY", "O_CLOEXEC"], 0, AT_FDCWD),
        wanted("openat-relative", "openat", "hostname", &["O_RDONLY"], 0, dir),
        wanted("openat-create", "openat", "/wide", &["O_WRONLY", "O_CREAT"], 0o604, AT_FDCWD),
        wanted("openat2", "openat2", hostname, &["O_RDONLY", "O_CLOEXEC"], 0, AT_FDCWD),
    ];
    if cfg!(target_arch = "x86_64") {
        let created = ["O_WRONLY", "O_CREAT", "O_TRUNC"];
        all.push(wanted("open", "open", hostname, &["O_RDONLY"], 0, AT_FDCWD));
        all.push(wanted("creat", "creat", "/wide", &created, 0o640, AT_FDCWD));
    }
    assert_eq!(events.iter().map(fields).collect::<Vec<_>>(), all);
}

/// What a filter ends by a signal was not made, whatever stands where results do. Where opens are hooked at the functions
/// that make them, none of this is seen.
fn seccomp() {
    const EACCES: i64 = 13;
    let (printed, events) = run("calls", "seccomp-opens", &["--hook", "sys-exit"], |bundle| bundle);
    // A signal that was handled, one that killed.
    assert_eq!((answer(&printed, "/trap"), answer(&printed, "/kill")), ((0, 1), (31, 0)));
    let told: Vec<Value> = events
        .iter()
        .map(|event| &event["open"])
        .filter(|open| open["path"] != "/etc/hostname")
        .map(|open| json!([open["path"], open["fd"], open["errno"], open["seccomp"]]))
        .collect();
    let mut all = vec![
        json!(["/trap", -1, 1, "trap"]),
        json!(["/kill", -1, 1, "kill"]),
        json!(["/refuse", -1, EACCES, null]),
    ];
    // Before, the kernel ends a killed thread without coming by where calls return.
    if need::kernel_release() < (5, 16) {
        all.remove(1);
    }
    assert_eq!(told, all);
    // A descriptor that is the number of the call that returned it.
    let last = &events.last().unwrap()["open"];
    let (number, _) = answer(&printed, "number");
    assert_eq!((&last["fd"], &last["errno"], last.get("seccomp")), (&json!(number), &json!(0), None));
}

fn handles() {
    // A file system that has handles, whatever the bundle is on.
    let privileged = |bundle: Bundle| {
        bundle.with_capabilities(&["CAP_DAC_READ_SEARCH"]).edit(|config| {
            let mount = json!({"destination": "/shm", "type": "tmpfs", "source": "tmpfs"});
            config["mounts"].as_array_mut().expect("a list of ours").push(mount);
        })
    };
    let pod = Pod::new("handles", "app");
    let end = format!("/{}", unique("end"));
    let bundle = privileged(
        Bundle::pod(Dialect::Containerd, &pod, &["/bin/calls", "handles", &end])
            .with_program(&program::compile("calls.c")),
    );
    let tracer = Tracer::open(&pod.namespace);
    let output = Runtime::runc().run(&bundle).success();
    tracer.wait_open(&end);
    let events = tracer.stop().events();
    let words: Vec<Vec<&str>> = output.stdout.lines().map(|line| line.split(' ').collect()).collect();
    let of = |label: &str| words.iter().find(|words| words[0] == label).expect("a label of the program");
    let number = |text: &str| text.parse::<i64>().unwrap();
    let (handle, mount) = (of("handle"), number(of("mount")[1]));
    let by_handle: Vec<&Value> = events
        .iter()
        .map(|event| &event["open"])
        .filter(|open| open["call"] == "open_by_handle_at")
        .collect();
    let labels = ["open", "wide", "long", "fault"];
    assert_eq!(by_handle.len(), labels.len(), "{events:#?}");
    for (open, label) in by_handle.iter().zip(labels) {
        let (fd, errno) = (number(of(label)[1]), number(of(label)[2]));
        assert_eq!((&open["fd"], &open["errno"]), (&json!(fd), &json!(errno)), "{label}: {open}");
        assert_eq!((&open["path"], &open["dirfd"]), (&json!(""), &json!(mount)), "{label}: {open}");
        assert_eq!(open["handle"]["mountFd"], mount, "{label}: {open}");
        assert_eq!(open["truncated"], label == "long", "{label}: {open}");
        assert_eq!(open.get("fault").is_some(), label == "fault", "{label}: {open}");
        let bytes = open["handle"]["bytes"].as_str().unwrap();
        if label == "fault" {
            assert_eq!(bytes, "");
            continue;
        }
        assert_eq!(open["handle"]["type"], number(handle[1]), "{label}: {open}");
        assert!(bytes.starts_with(handle[2]), "{label}: {open}");
        assert_eq!(bytes.len(), if label == "long" { 256 } else { handle[2].len() }, "{label}: {open}");
    }
    assert_eq!(by_handle[0]["flags"], json!(["O_RDONLY", "O_CLOEXEC"]));
    assert_eq!(by_handle[1]["flags"], json!(["O_RDWR"]));
}

fn resolve() {
    let (printed, events) = run("calls", "resolve", &[], |bundle| bundle);
    let told: Vec<Value> = events
        .iter()
        .skip(1)
        .map(|event| &event["open"])
        .map(|open| {
            json!([open["path"], open["flags"], open["resolve"], open["fault"], open["fd"], open["errno"]])
        })
        .collect();
    let wanted = |label: &str, path: &str, flags: &[&str], resolve: &[&str], fault: Value| {
        let (fd, errno) = answer(&printed, label);
        json!([path, flags, resolve, fault, fd, errno])
    };
    let beneath = ["RESOLVE_NO_MAGICLINKS", "RESOLVE_BENEATH"];
    let new = ["O_WRONLY", "O_EMPTYPATH", "OPENAT2_REGULAR"];
    assert_eq!(
        told,
        [
            wanted("beneath", "../bin", &["O_RDONLY"], &beneath, Value::Null),
            wanted("none", "hostname", &["O_RDONLY"], &[], Value::Null),
            wanted("new", "hostname", &new, &["0x10000000000"], Value::Null),
            wanted("fault", "hostname", &["O_RDONLY"], &[], json!(true)),
        ]
    );
    // EXDEV.
    assert_eq!(answer(&printed, "beneath"), (-1, 18));
}

/// The events of io_uring alone.
fn of_uring(events: &[Value]) -> Vec<&Value> {
    let is_its = |event: &&Value| event["open"]["call"].as_str().unwrap().starts_with("io_uring ");
    events.iter().filter(is_its).collect()
}

fn uring_matrix() {
    let (printed, events) = run("uring", "matrix", &[], |bundle| bundle);
    let (dir, _) = answer(&printed, "dir");
    let wanted = |label: &str, call: &str, path: &str, flags: &[&str], mode: u32, dirfd: i64| {
        let (fd, errno) = answer(&printed, label);
        json!([call, path, flags, mode, dirfd, fd, errno])
    };
    let (openat, openat2) = ("io_uring openat", "io_uring openat2");
    let hostname = "/etc/hostname";
    let of_uring = of_uring(&events);
    // The kernel adds this one itself.
    let told: Vec<Value> = of_uring
        .iter()
        .map(|event| {
            let mut event = (*event).clone();
            event["open"]["flags"].as_array_mut().unwrap().retain(|flag| flag != "O_LARGEFILE");
            fields(&event)
        })
        .collect();
    assert_eq!(
        told,
        [
            wanted("openat", openat, hostname, &["O_RDONLY", "O_CLOEXEC"], 0, AT_FDCWD),
            wanted("missing", openat, "/u/missing", &["O_RDONLY"], 0, AT_FDCWD),
            wanted("create", openat, "new", &["O_WRONLY", "O_CREAT", "O_EXCL"], 0o640, dir),
            wanted("async", openat, hostname, &["O_RDONLY"], 0, AT_FDCWD),
            wanted("openat2", openat2, "how", &["O_RDWR", "O_CREAT"], 0o604, dir),
            wanted("beneath", openat2, "../etc", &["O_RDONLY"], 0, dir),
            wanted("short", openat2, "short", &["O_RDONLY"], 0, dir),
            wanted("fault", openat, "", &["O_RDONLY"], 0, AT_FDCWD),
            wanted("fixed", openat, hostname, &["O_RDONLY"], 0, AT_FDCWD),
        ]
    );
    let open = |index: usize| &of_uring[index]["open"];
    assert_eq!(open(4)["resolve"], json!(["RESOLVE_NO_SYMLINKS"]));
    assert_eq!(open(5)["resolve"], json!(["RESOLVE_BENEATH"]));
    for (index, event) in of_uring.iter().enumerate() {
        assert_eq!(event["open"].get("fault"), (index == 7).then_some(&json!(true)), "{event}");
        assert_eq!(event["open"].get("fixed"), (index == 8).then_some(&json!(true)), "{event}");
        assert_eq!(event["process"]["comm"], "uring", "{event}");
    }
}

/// The path, result and mark of each open of io_uring.
fn results(events: &[Value]) -> Vec<Value> {
    of_uring(events)
        .iter()
        .map(|event| &event["open"])
        .map(|open| json!([open["path"], open["fd"], open["errno"], open["unreported"]]))
        .collect()
}

fn uring_chain() {
    const ECANCELED: i64 = 125;
    let (_, events) = run("uring", "chain", &[], |bundle| bundle);
    let mut told = results(&events);
    told.sort_by_key(Value::to_string);
    assert_eq!(told, [json!(["/etc/hostname", -1, ECANCELED, null]), json!(["/missing", -1, 2, null])]);
}

/// The thread is one of the process.
fn uring_polled() {
    let (printed, events) = run("uring", "polled", &[], |bundle| bundle);
    let (fd, _) = answer(&printed, "polled");
    assert_eq!(results(&events), [json!(["/etc/hostname", fd, 0, null])]);
    let process = &of_uring(&events)[0]["process"];
    assert_eq!(process["containerPid"], 1);
    assert_ne!(process["tid"], process["pid"]);
}

/// A program may have success not reported, or leave no room for reports.
fn uring_silent() {
    let (_, events) = run("uring", "silent", &[], |bundle| bundle);
    assert_eq!(results(&events), [json!(["/silent", -1, 0, true]), json!(["/overflow", -1, 2, null])]);
}

fn ten_thousand() {
    const COUNT: usize = 10_000;
    let (_, events) = run_opens(&COUNT.to_string());
    assert_eq!(events.len(), COUNT);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["open"]["path"], *format!("/many/{index}"), "in order, each once");
    }
}

/// Nobody reads what is written: sooner or later there is no room. What is missing then is told.
fn full_buffer() {
    const COUNT: usize = 50_000;
    let pod = Pod::new("flood", "app");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/opens", &COUNT.to_string()])
        .with_program(&program::compile("opens.c"));
    let arguments =
        ["trace", "open", "-n", &pod.namespace, "-o", "json", "--buffer-size", "64KiB"].map(str::to_owned);
    let mut tracer = harness::Launch::new(&arguments).hold_stdout().start();
    Runtime::runc().run(&bundle).success();
    tracer.read_on();
    let done = tracer.stop();
    let summary = done.summary();
    let losses = done.losses();
    assert!(!losses.is_empty(), "nothing was lost: this run has shown nothing ({summary:?})");
    for loss in &losses {
        assert_eq!(loss["lost"]["reason"], "buffer-full", "in {loss}");
        assert_eq!(loss["lost"]["hook"], "open", "in {loss}");
    }
    // `stop` has compared the losses in the stream with the summary's, and its sum.
    let events = done.events();
    assert!(summary.emitted + summary.lost >= COUNT as u64, "{summary:?}");
    for event in &events {
        bundle.assert_names(event);
    }
}
