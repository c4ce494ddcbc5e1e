//! `trace open`: every way to open a file, told as the process made the call and the kernel answered.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use harness::need::{RUNC, RUNC_GCC};
use harness::program::{self, FREESTANDING, FREESTANDING_I386};
use harness::scratch::unique;
use harness::{Bundle, Dialect, Need, Pod, Runtime, Suite, Tracer};
use serde_json::{Value, json};

const AT_FDCWD: i64 = -100;
const EFAULT: i64 = 14;
const ENAMETOOLONG: i64 = 36;

fn main() -> ExitCode {
    let ia32: Vec<Need> = RUNC_GCC.iter().copied().chain([Need::Ia32]).collect();
    Suite::new()
        .test("every_call_exactly", RUNC_GCC, every_call)
        .test("longest_paths", RUNC_GCC, longest_paths)
        .test("failed_calls_only", RUNC, failed_only)
        .test("compat_calls_of_a_64_bit_program", &ia32, || compat("compat64", FREESTANDING))
        .test("compat_calls_of_an_i386_program", &ia32, || compat("compat32", FREESTANDING_I386))
        .test("ten_thousand_none_lost", RUNC_GCC, ten_thousand)
        .test("a_full_buffer_is_counted", RUNC_GCC, full_buffer)
        .run()
}

/// Runs `/bin/opens` with `argument` in a container of a fresh pod; what it printed, and its events
/// but for the one that marks the end.
fn run_opens(argument: &str) -> (Vec<(String, i64, i64)>, Vec<Value>) {
    let pod = Pod::new("opens", "app");
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/opens", argument, &end])
        .with_program(&program::compile("opens.c"));
    let tracer = Tracer::open(&pod.namespace);
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
