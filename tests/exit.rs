//! `trace exit`: which processes exited, how, and after how long; and several kinds in one run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use harness::need::{RUNC, RUNC_GCC};
use harness::scratch::unique;
use harness::{Bundle, Dialect, Pod, Runtime, Suite, Tracer, program, wait};
use serde_json::{Value, json};

fn main() -> ExitCode {
    Suite::new()
        .test("columns_show_code_signal_and_lifetime", RUNC, columns)
        .test("every_exit_agrees_with_wait", RUNC_GCC, every_way)
        .test("failed_selects_codes_and_signals", RUNC_GCC, failed_only)
        .test("process_killed_for_memory_is_marked", RUNC_GCC, out_of_memory)
        .test("process_executed_in_container_is_not_its_first", RUNC, exec_into)
        .test("first_process_of_container_that_ran_before_is_marked", RUNC, ran_before)
        .test("lifetime_counts_from_the_start_of_the_process", RUNC, lifetime)
        .test("host_process_is_shown_with_host", RUNC, host)
        .test("several_kinds_come_in_the_order_in_which_they_happened", RUNC, several_kinds)
        .test("losses_and_totals_are_logged_for_each_kind", RUNC, totals)
        .run()
}

/// Runs `/bin/exits` with these arguments in a container of its own: the events, and what wait(2) said by label and pid.
fn run_exits(
    arguments: &[&str],
    options: &[&str],
    prepare: impl FnOnce(Bundle) -> Bundle,
) -> (Vec<Value>, Vec<(String, u32, ExitStatus)>) {
    let pod = Pod::new("exits", "app");
    let words: Vec<&str> = [&["/bin/exits"], arguments].concat();
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &words).with_program(&program::compile("exits.c"));
    let bundle = prepare(bundle);
    let trace = ["trace", "exit", "-n", &pod.namespace, "-o", "json"];
    let tracer = Tracer::start(&[&trace, options].concat());
    let output = Runtime::runc().run(&bundle);
    tracer.wait_for("the container's end", is_first);
    let done = tracer.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    for event in &events {
        bundle.assert_names(event);
    }
    let statuses = output.stdout.lines().map(|line| {
        let [label, pid, status] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        (label.to_owned(), pid.parse().unwrap(), ExitStatus::from_raw(status.parse().unwrap()))
    });
    (events, statuses.collect())
}

fn is_first(event: &Value) -> bool {
    event["exit"]["first"] == true
}

/// The only event of that process.
#[track_caller]
fn of_process(events: &[Value], pid: u32) -> &Value {
    let mut of_pid = events.iter().filter(|event| event["process"]["containerPid"] == pid);
    let event = of_pid.next().unwrap_or_else(|| panic!("no event of {pid}: {events:#?}"));
    assert_eq!(of_pid.next(), None, "a second event of {pid}");
    event
}

/// The signals that the program uses.
fn signal_name(number: i32) -> String {
    match number {
        6 => "SIGABRT".into(),
        9 => "SIGKILL".into(),
        15 => "SIGTERM".into(),
        // Of the C library's, the kernel's first two are taken.
        real_time => format!("SIGRTMIN+{}", real_time - 34),
    }
}

fn columns() {
    let pod = Pod::new("web-0", "app");
    let bundle = Bundle::script(&pod, "sh -c 'kill -TERM $$'; exit 5");
    let tracer = Tracer::start(&["trace", "exit", "-n", &pod.namespace, "--node", "node-1"]);
    Runtime::runc().run(&bundle);
    tracer.wait_line("the container's end", |line| line.contains(" true "));
    tracer.signal(rustix::process::Signal::INT);
    let done = tracer.wait_end();
    assert_eq!(done.assert_adds_up().emitted, 2);
    let heading: Vec<&str> = done.stdout[0].split_whitespace().collect();
    let mut text = String::new();
    for line in &done.stdout {
        let line = line.replace(&pod.namespace, "NS");
        // What differs from run to run.
        let words = line.split_whitespace().zip(&heading).map(|(word, title)| match *title {
            "PID" | "LIFETIME" if word != *title => "N",
            _ => word,
        });
        text.push_str(&words.collect::<Vec<_>>().join(" "));
        text.push('\n');
    }
    insta::assert_snapshot!("columns", text);
}

fn every_way() {
    let (events, statuses) = run_exits(&[], &[], |bundle| bundle);
    assert_eq!(statuses.len(), 11, "{statuses:?}");
    assert_eq!(events.len(), statuses.len() + 1, "{events:#?}");
    for (label, pid, status) in &statuses {
        let exit = &of_process(&events, *pid)["exit"];
        assert_eq!(exit["code"], json!(status.code()), "{label}: {exit}");
        assert_eq!(exit["signal"], json!(status.signal().map(signal_name)), "{label}: {exit}");
        assert_eq!(exit.get("coreDumped").is_some(), status.core_dumped(), "{label}: {exit}");
        assert_eq!(exit.get("oomKilled"), None, "{label}: {exit}");
        assert_eq!(exit["first"], false, "{label}: {exit}");
    }
    let code_of = |wanted: &str| statuses.iter().find(|(label, ..)| label == wanted).unwrap().2.code();
    assert_eq!(["group", "thread-executes"].map(code_of), [Some(5), Some(6)]);
    // The leader's code, or since Linux 5.17 that of the last thread (synchronize_group_exit, kernel/exit.c).
    assert!(matches!(code_of("leader-first"), Some(3 | 4)), "{statuses:?}");
    let last = events.last().unwrap();
    assert!(is_first(last) && last["exit"]["code"] == 9 && last["process"]["containerPid"] == 1, "{last}");
    assert_eq!(events.iter().filter(|event| is_first(event)).count(), 1);
}

fn failed_only() {
    let (events, statuses) = run_exits(&[], &["--failed"], |bundle| bundle);
    let failed = statuses.iter().filter(|(.., status)| !status.success()).count();
    assert_eq!(failed, statuses.len() - 1, "one exits with 0");
    // The container's own exit code is 9.
    assert_eq!(events.len(), failed + 1, "{events:#?}");
    assert!(events.iter().all(|event| event["exit"]["code"] != 0), "{events:#?}");
}

fn out_of_memory() {
    let (events, statuses) = run_exits(&["memory"], &[], |bundle| {
        bundle.edit(|config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 24 << 20, "swap": 24 << 20 });
        })
    });
    let [(_, pid, status)] = &statuses[..] else { panic!("{statuses:?}") };
    assert_eq!(status.signal(), Some(9));
    let exit = &of_process(&events, *pid)["exit"];
    assert_eq!((&exit["signal"], &exit["oomKilled"]), (&json!("SIGKILL"), &json!(true)), "{exit}");
    assert!(
        events.iter().all(|event| is_first(event) == event["exit"].get("oomKilled").is_none()),
        "{events:#?}"
    );
}

/// The exit code of each event, and whether it is of the container's first process.
fn codes(events: &[Value]) -> Vec<(Value, Value)> {
    let exits = events.iter().map(|event| &event["exit"]);
    exits.map(|exit| (exit["code"].clone(), exit["first"].clone())).collect()
}

fn exec_into() {
    let pod = Pod::new("web", "app");
    let bundle = Bundle::script(&pod, "read x < /go; exit 4").with_fifo("/go");
    let runtime = Runtime::runc();
    let tracer = Tracer::start(&["trace", "exit", "-n", &pod.namespace, "-o", "json"]);
    runtime.run_detached(&bundle);
    let output = runtime.exec(&bundle, &["/bin/sh", "-c", "exit 3"]);
    assert_eq!(output.status.code(), Some(3));
    tracer.wait_for("the exec's end", |event| event["exit"]["code"] == 3);
    bundle.release("/go");
    tracer.wait_for("the container's end", is_first);
    runtime.wait_stopped(&bundle);
    let events = tracer.stop().events();
    assert_eq!(codes(&events), [(json!(3), json!(false)), (json!(4), json!(true))], "{events:#?}");
    for event in &events {
        bundle.assert_names(event);
    }
}

fn ran_before() {
    let pod = Pod::new("before", "app");
    let bundle = Bundle::script(&pod, "read x < /go; /bin/false; exit 5").with_fifo("/go");
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    let root = runtime.root().to_str().unwrap();
    let tracer =
        Tracer::start(&["trace", "exit", "-n", &pod.namespace, "-o", "json", "--runtime-root", root]);
    bundle.release("/go");
    tracer.wait_for("the container's end", is_first);
    runtime.wait_stopped(&bundle);
    let events = tracer.stop().events();
    assert_eq!(codes(&events), [(json!(1), json!(false)), (json!(5), json!(true))], "{events:#?}");
    assert!(events.iter().all(|event| event["k8s"] == bundle.k8s()), "{events:#?}");
}

fn lifetime() {
    let pod = Pod::new("sleeps", "app");
    let bundle = Bundle::script(&pod, "/bin/sleep 0.2");
    let tracer = Tracer::start(&["trace", "exit", "-n", &pod.namespace, "-o", "json"]);
    let start = Instant::now();
    Runtime::runc().run(&bundle).success();
    let most = start.elapsed().as_nanos();
    tracer.wait_for("the container's end", is_first);
    let events = tracer.stop().events();
    let lifetimes: Vec<u128> =
        events.iter().map(|event| event["exit"]["lifetimeNs"].as_u64().unwrap().into()).collect();
    // busybox may run the last command of a script in place of the shell.
    assert!(!lifetimes.is_empty());
    for lifetime in lifetimes {
        assert!((200_000_000..most).contains(&lifetime), "{lifetime} of {most}: {events:#?}");
    }
}

fn host() {
    // By its name of its own, since the host's processes exit all the time.
    let name = unique("x");
    let comm = &name[name.len().saturating_sub(15)..];
    let tracer = Tracer::start(&["trace", "exit", "--host", "--comm", comm, "-o", "json"]);
    let script = format!("printf {comm} > /proc/self/comm; exit 12");
    assert_eq!(wait::output(Command::new("sh").args(["-c", &script]), wait::LIMIT).status.code(), Some(12));
    let event = tracer.wait_for("the host's process", |event| event["process"]["comm"] == comm);
    tracer.stop();
    assert!(event["k8s"].is_null() && event["container"].is_null(), "{event}");
    assert_eq!(event["exit"]["code"], 12);
    assert_eq!(event["exit"]["first"], false);
}

fn several_kinds() {
    let pod = Pod::new("all", "app");
    let end = unique("end");
    let bundle = Bundle::script(&pod, &format!("exec /bin/cat /{end}"));
    let tracer = Tracer::start(&["trace", "exit,open,exec", "-n", &pod.namespace, "-o", "json"]);
    Runtime::runc().run(&bundle);
    tracer.wait_for("the container's end", is_first);
    let done = tracer.stop();
    let events = done.events();
    let summaries: Vec<String> = events
        .iter()
        .map(|event| match event["event"].as_str().unwrap() {
            "exec" => format!("exec {}", event["exec"]["path"].as_str().unwrap()),
            "open" => format!("open {}", event["open"]["path"].as_str().unwrap()),
            kind => kind.to_owned(),
        })
        .collect();
    let expected = ["exec /bin/sh".to_owned(), "exec /bin/cat".into(), format!("open /{end}"), "exit".into()];
    assert_eq!(summaries, expected, "{events:#?}");
    assert_eq!(done.summary().emitted, 4);
    for event in &events {
        bundle.assert_names(event);
    }
    // A failed open is selected, what succeeded is not, whichever kind it is.
    let bundle = Bundle::script(&pod, &format!("exec /bin/cat /{end}"));
    let tracer = Tracer::start(&["trace", "open,exec,exit", "--failed", "-n", &pod.namespace, "-o", "json"]);
    Runtime::runc().run(&bundle);
    tracer.wait_for("the container's end", is_first);
    let events = tracer.stop().events();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["open", "exit"], "cat fails, since the file is missing: {events:#?}");
}

fn totals() {
    let pod = Pod::new("totals", "app");
    let bundle = Bundle::script(&pod, "exec /bin/cat /etc/hostname");
    let tracer = Tracer::start(&["trace", "open,exec,exit", "-v", "-n", &pod.namespace, "-o", "json"]);
    Runtime::runc().run(&bundle).success();
    tracer.wait_for("the container's end", is_first);
    let done = tracer.stop();
    let summary = done.summary();
    // Each kind's line, which together are the sum.
    let emitted = ["open", "exec", "exit"].map(|kind| {
        let line =
            done.stderr.iter().find(|line| line.contains(&format!("kind {kind}: "))).unwrap_or_else(|| {
                panic!("no line of {kind}:\n{}", done.log());
            });
        let (_, after) = line.split_once("emitted ").unwrap();
        after.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    assert_eq!(emitted, [1, 2, 1], "{}", done.log());
    assert_eq!(summary.emitted, emitted.iter().sum::<u64>());
}
