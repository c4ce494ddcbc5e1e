//! `trace exec`: which programs ran, with exactly which arguments, and which could not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use harness::need::{self, CRUN, RUNC, RUNC_GCC};
use harness::scratch::unique;
use harness::wait::Output;
use harness::{Bundle, Dialect, Kind, Pod, Runtime, Suite, Tracer, program};
use serde_json::{Value, json};

const ENOENT: i64 = 2;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for (kind, needs, name) in [(Kind::Runc, RUNC, "runc"), (Kind::Crun, CRUN, "crun")] {
        suite = suite
            .test(&format!("{name}_entrypoint_comes_first"), needs, move || entrypoint_first(kind))
            .test(&format!("{name}_entrypoint_that_cannot_run"), needs, move || {
                entrypoint_cannot_run(kind);
            })
            .test(&format!("{name}_refuses_a_missing_entrypoint"), needs, move || missing_entrypoint(kind))
            .test(&format!("{name}_exec_into_a_container"), needs, move || exec_into(kind));
    }
    suite
        .test("odd_arguments_exactly", RUNC_GCC, odd_arguments)
        .test("eight_kib_and_more", RUNC_GCC, lengths)
        .test("failing_execs", RUNC_GCC, failing)
        .test("failed_only", RUNC_GCC, failed_only)
        .test("exec_by_descriptor", RUNC_GCC, by_descriptor)
        .test("unused_halves_of_registers_do_not_matter", RUNC_GCC, wide_registers)
        .test("calls_that_seccomp_answers_have_failed", RUNC_GCC, seccomp)
        .test("calls_by_descriptor_that_fail_or_only_check", RUNC_GCC, descriptors)
        .test("columns_show_the_path_where_nothing_else_is_known", RUNC_GCC, columns_without_arguments)
        .test("scripts_are_their_interpreters", RUNC, script_entrypoint)
        .run()
}

fn args(event: &Value) -> Vec<&str> {
    event["exec"]["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect()
}

fn entrypoint_first(kind: Kind) {
    let pod = Pod::new("entry", "app");
    let end = unique("end");
    let script = format!("/bin/echo one; /bin/true {end}");
    let bundle = Bundle::script(&pod, &script);
    let tracer = Tracer::exec(&pod.namespace);
    Runtime::new(kind).run(&bundle).success();
    tracer.wait_exec(&end);
    let events = tracer.stop().events();
    let told: Vec<Vec<&str>> = events.iter().map(args).collect();
    assert_eq!(told, [vec!["/bin/sh", "-c", &script], vec!["/bin/echo", "one"], vec!["/bin/true", &end]]);
    for event in &events {
        bundle.assert_names(event);
    }
    let (entry, echo) = (&events[0], &events[1]);
    assert_eq!(entry["exec"]["path"], "/bin/sh");
    assert_eq!(entry["exec"]["errno"], 0);
    assert_eq!(entry["process"]["containerPid"], 1);
    assert_eq!(entry["process"]["comm"], "sh", "comm is the new program's");
    assert_eq!(echo["process"]["ppid"], entry["process"]["pid"]);
    assert_ne!(echo["process"]["containerPid"], 1);
}

/// The container that can never start: its program is there, its interpreter is not. The runtime
/// has done all of its work; execve itself refuses.
fn entrypoint_cannot_run(kind: Kind) {
    let pod = Pod::new("crashloop", "app");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/start", "--now", ""])
        .with_executable("/bin/start", "#!/nonexistent/interpreter\n");
    let tracer = Tracer::exec(&pod.namespace);
    let output = Runtime::new(kind).run(&bundle);
    assert!(!output.status.success(), "it cannot have run: {output:?}");
    tracer.wait_exec("--now");
    let events = tracer.stop().events();
    assert_eq!(events.len(), 1, "{events:#?}");
    bundle.assert_names(&events[0]);
    assert_eq!(args(&events[0]), ["/bin/start", "--now", ""]);
    assert_eq!(events[0]["exec"]["path"], "/bin/start");
    assert_eq!(events[0]["exec"]["errno"], ENOENT);
    assert_eq!(events[0]["process"]["containerPid"], 1);
}

/// An entrypoint that is not there at all never gets as far as execve: both runtimes look for it
/// first and give up. There is no system call, so there is no event; what the operator sees is the
/// runtime's own message.
fn missing_entrypoint(kind: Kind) {
    let pod = Pod::new("missing", "app");
    let tracer = Tracer::exec(&pod.namespace);
    let runtime = Runtime::new(kind);
    for entrypoint in ["/bin/absent", "absent"] {
        let bundle = Bundle::pod(Dialect::Containerd, &pod, &[entrypoint]);
        let output = runtime.run(&bundle);
        assert!(!output.status.success(), "{output:?}");
        let said: &Output = &output;
        assert!(said.stderr.contains("not found") || said.stderr.contains("no such file"), "{said:?}");
    }
    // A container that runs, after them: all that came before it has been seen.
    let end = unique("end");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/true", &end]);
    runtime.run(&bundle).success();
    tracer.wait_exec(&end);
    let events = tracer.stop().events();
    assert_eq!(events.len(), 1, "the one that ran: {events:#?}");
    bundle.assert_names(&events[0]);
}

fn exec_into(kind: Kind) {
    let pod = Pod::new("web", "app");
    let end = unique("end");
    let script = format!("read x < /go; /bin/true {end}");
    let bundle = Bundle::script(&pod, &script).with_fifo("/go");
    let runtime = Runtime::new(kind);
    let tracer = Tracer::exec(&pod.namespace);
    runtime.run_detached(&bundle);
    tracer.wait_exec(&script);
    let probe = unique("probe");
    runtime.exec(&bundle, &["/bin/true", &probe]).success();
    let probed = tracer.wait_exec(&probe);
    bundle.assert_names(&probed);
    assert_eq!(args(&probed), ["/bin/true", &probe]);
    assert_ne!(probed["process"]["containerPid"], 1);
    bundle.release("/go");
    tracer.wait_exec(&end);
    runtime.wait_stopped(&bundle);
    let events = tracer.stop().events();
    for event in &events {
        bundle.assert_names(event);
    }
    let told: Vec<Vec<&str>> = events.iter().map(args).collect();
    assert_eq!(
        told,
        [vec!["/bin/sh", "-c", &script], vec!["/bin/true", &probe], vec!["/bin/true", &end]],
        "the runtime's own re-execution on its way in is not the container's"
    );
}

/// The events of `/bin/execs MODE`, without its own, and what it printed.
fn run_execs(mode: &str, extra: &[&str], prepare: impl FnOnce(Bundle) -> Bundle) -> (Vec<Value>, String) {
    run_program("execs", mode, extra, prepare)
}

/// The same of `/bin/calls MODE`.
fn run_calls(mode: &str) -> (Vec<Value>, String) {
    run_program("calls", mode, &[], |bundle| bundle)
}

/// The same of `name`, which is one of the tests' programs.
fn run_program(
    name: &str,
    mode: &str,
    extra: &[&str],
    prepare: impl FnOnce(Bundle) -> Bundle,
) -> (Vec<Value>, String) {
    let pod = Pod::new(name, "app");
    let end = unique("end");
    let path = format!("/bin/{name}");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &[&path, mode, &end])
        .with_program(&program::compile(&format!("{name}.c")));
    let bundle = prepare(bundle);
    let arguments = ["trace", "exec", "-n", &pod.namespace, "-o", "json"];
    let arguments: Vec<&str> = arguments.iter().chain(extra).copied().collect();
    let tracer = Tracer::start(&arguments);
    let output = Runtime::runc().run(&bundle).success();
    if !extra.contains(&"--failed") {
        tracer.wait_for("the end", |event| args(event) == ["true", &end]);
    }
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let mut events = done.events();
    for event in &events {
        bundle.assert_names(event);
    }
    if !extra.contains(&"--failed") {
        assert_eq!(args(&events.pop().unwrap()), ["true", &end]);
        assert_eq!(args(&events.remove(0)), [&path, mode, &end]);
    }
    (events, output.stdout)
}

fn odd_arguments() {
    let (events, _) = run_execs("odd", &[], |bundle| bundle);
    assert_eq!(events.len(), 3, "{events:#?}");
    assert_eq!(
        args(&events[0]),
        ["true", "", "two words", " ", "a\nb\tc", "quo\"te\\", "\u{1b}[31mred", "é", ""]
    );
    assert_eq!(events[0]["exec"].get("argsHex"), None, "all of it is UTF-8");
    assert_eq!(args(&events[1]), ["true", "\u{fffd}\u{fffd}-x", "plain"]);
    assert_eq!(events[1]["exec"]["argsHex"], json!(["74727565", "fffe2d78", "706c61696e"]));
    // Linux 5.18 and newer put an empty argument where there is none.
    assert!(matches!(args(&events[2])[..], [] | [""]), "{:?}", args(&events[2]));
    for event in &events {
        assert_eq!(event["exec"]["truncated"], false, "in {event}");
        assert_eq!(event["exec"]["errno"], 0, "in {event}");
        assert_eq!(event["exec"].get("fault"), None, "in {event}");
    }
}

/// 8 KiB of arguments are told, with their NULs; of more, the beginning, and that it is that.
fn lengths() {
    let (events, _) = run_execs("lengths", &[], |bundle| bundle);
    assert_eq!(events.len(), 4);
    for (event, length) in events.iter().zip(8183..=8185) {
        let told = args(event);
        let bytes = "true\0L\0\0".len() + length;
        assert_eq!(told[..2], ["true", "L"]);
        if bytes <= 8192 {
            assert_eq!(told[2], "e".repeat(length), "{bytes} bytes fit");
            assert_eq!(event["exec"]["truncated"], false, "{bytes} bytes fit");
        } else {
            assert_eq!(event["exec"]["truncated"], true, "{bytes} bytes do not fit");
            assert!(told[2].len() > 8000 && told[2].bytes().all(|byte| byte == b'e'));
        }
    }
    let told = args(&events[3]);
    assert_eq!(told[..2], ["true", "first"]);
    assert!(told[2].len() > 8000 && told[2].bytes().all(|byte| byte == b'b'));
    assert_eq!(told.len(), 3, "what comes after the cut is not told");
    assert_eq!(events[3]["exec"]["truncated"], true);
}

fn unrunnable(bundle: Bundle) -> Bundle {
    bundle
        .with_executable("/bin/garbage", "\x7fno program\n")
        .with_executable("/bin/script", "#!/nonexistent/interpreter\n")
}

fn failing() {
    let (events, printed) = run_execs("failing", &[], unrunnable);
    let truth: Vec<(&str, i64)> = printed
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(label, errno)| (label, errno.parse().unwrap()))
        .collect();
    assert_eq!(truth.len(), 9, "every one of them fails: {truth:?}");
    assert_eq!(events.len(), truth.len(), "{events:#?}");
    let path = |label: &str| match label {
        "missing" | "failing-big" => "/bin/missing",
        "no-permission" => "/etc/hostname",
        "no-program" => "/bin/garbage",
        "no-interpreter" => "/bin/script",
        "directory" => "/bin",
        "not-directory" => "/etc/hostname/x",
        "path-fault" => "",
        "args-fault" => "/bin/true",
        other => panic!("{other}"),
    };
    for (event, (label, errno)) in events.iter().zip(truth) {
        let exec = &event["exec"];
        assert_eq!(exec["errno"], errno, "{label}: {event}");
        assert_eq!(exec["path"], path(label), "{label}: {event}");
        assert_eq!(event["process"]["comm"], "execs", "the old program's, for there is no new one");
        let fault = label.ends_with("-fault");
        assert_eq!(exec.get("fault"), fault.then_some(&json!(true)), "{label}: {event}");
        assert_eq!(exec["truncated"], label == "failing-big", "{label}: {event}");
        let told = args(event);
        match label {
            // As the caller gave them: the new program's memory was never made.
            "missing" => assert_eq!(told, ["missing", "one", "", "two words"]),
            "no-interpreter" => assert_eq!(told, ["no-interpreter", "arg"]),
            "failing-big" => {
                assert_eq!(told[0], label);
                assert!(told[1].starts_with("ffff") && told[1].len() < 8192, "{}", told[1].len());
            }
            "args-fault" => assert!(told.is_empty() || told == [""], "{told:?}"),
            _ => assert_eq!(told, [label]),
        }
    }
}

fn failed_only() {
    let (events, printed) = run_execs("failing", &["--failed"], unrunnable);
    assert_eq!(events.len(), printed.lines().count(), "{events:#?}");
    assert!(events.iter().all(|event| event["exec"]["errno"] != 0));
}

/// execveat: by a descriptor alone, and relative to one.
fn by_descriptor() {
    let (events, _) = run_execs("by-descriptor", &[], |bundle| bundle);
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(args(&events[0]), ["true", "by-descriptor"]);
    assert_eq!(events[0]["exec"]["errno"], 0);
    assert_eq!(args(&events[1]), ["absent", "by-directory"]);
    assert_eq!(events[1]["exec"]["errno"], ENOENT);
    assert_eq!(events[1]["exec"]["path"], "absent");
}

fn wide_registers() {
    let (events, printed) = run_calls("wide");
    let dir: i64 = printed.split([' ', '\n']).nth(1).unwrap().parse().unwrap();
    let told: Vec<Value> = events
        .iter()
        .map(|event| &event["exec"])
        .map(|exec| json!([exec["path"], exec["args"], exec["errno"], exec["dirfd"]]))
        .collect();
    let arguments = ["wide", "exec"];
    assert_eq!(
        told,
        [json!(["/missing", arguments, ENOENT, null]), json!(["missing", arguments, ENOENT, dir])]
    );
}

fn seccomp() {
    const EACCES: i64 = 13;
    let (events, printed) = run_calls("seccomp-execs");
    // A signal that was handled, one that killed.
    assert_eq!(printed, "/trap 0 1\n/kill 31 0\n/refuse 0 0\n");
    let told: Vec<Value> = events
        .iter()
        .map(|event| &event["exec"])
        .map(|exec| json!([exec["path"], exec["args"], exec["errno"], exec["seccomp"]]))
        .collect();
    let mut all = vec![
        json!(["/trap", ["/trap"], 1, "trap"]),
        json!(["/kill", ["/kill"], 1, "kill"]),
        json!(["/refuse", ["/refuse"], EACCES, null]),
    ];
    // Before, the kernel ends a killed thread without coming by where calls return.
    if need::kernel_release() < (5, 16) {
        all.remove(1);
    }
    assert_eq!(told, all);
}

fn descriptors() {
    let (events, printed) = run_calls("descriptors");
    let printed: Vec<Vec<&str>> = printed.lines().map(|line| line.split(' ').collect()).collect();
    let errno =
        |label: &str| -> i64 { printed.iter().find(|words| words[0] == label).unwrap()[2].parse().unwrap() };
    for (event, count) in events.iter().zip([127, 128, 129]) {
        assert_eq!(args(event).len(), count.min(128));
        assert_eq!(event["exec"]["truncated"], count > 128, "{count} arguments");
    }
    let told: Vec<Value> = events[3..]
        .iter()
        .map(|event| &event["exec"])
        .map(|exec| json!([exec["path"], exec["errno"], exec["check"], exec["dirfd"].is_number()]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["", errno("fexecve"), null, true]),
            // Before Linux 6.14 the flag is refused.
            json!(["", errno("check-refused"), true, true]),
            json!(["", errno("check"), true, true]),
            json!(["/missing", ENOENT, null, false]),
        ]
    );
    assert_ne!(errno("fexecve"), 0);
}

fn columns_without_arguments() {
    let pod = Pod::new("columns", "app");
    let end = unique("end");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/calls", "descriptors", &end])
        .with_program(&program::compile("calls.c"));
    let tracer = Tracer::start(&["trace", "exec", "-n", &pod.namespace]);
    Runtime::runc().run(&bundle).success();
    tracer.wait_line("the end", |line| line.contains(&end) && line.contains("true"));
    let lines = tracer.stop().stdout;
    let path = lines.iter().find(|line| line.contains("/missing")).expect("the path alone");
    assert!(path.ends_with("/missing"), "{path}");
}

fn script_entrypoint() {
    let pod = Pod::new("script", "app");
    let end = unique("end");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/start", "it", &end])
        .with_executable("/bin/start", "#!/bin/sh -u\n/bin/true \"$2\"\n");
    let tracer = Tracer::exec(&pod.namespace);
    Runtime::runc().run(&bundle).success();
    tracer.wait_for("the script's child", |event| args(event) == ["/bin/true", &end]);
    let events = tracer.stop().events();
    assert_eq!(events.len(), 2, "one call, one event: {events:#?}");
    // The arguments are what the interpreter was given, the path what was executed.
    assert_eq!(args(&events[0]), ["/bin/sh", "-u", "/bin/start", "it", &end]);
    assert_eq!(events[0]["exec"]["path"], "/bin/start");
    assert_eq!(events[0]["process"]["containerPid"], 1);
    for event in &events {
        bundle.assert_names(event);
    }
}
