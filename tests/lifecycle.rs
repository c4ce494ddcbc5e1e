//! How the tracer ends, and that nobody but its operator notices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::bpf::Held;
use harness::need::{RUNC, RUNC_GCC};
use harness::scratch::unique;
use harness::{Bundle, Dialect, Launch, Need, Pod, Runtime, Suite, Tracer, program};
use rustix::process::Signal;

fn main() -> ExitCode {
    let bpftool: Vec<Need> = RUNC.iter().copied().chain([Need::Bpftool]).collect();
    Suite::new()
        .test("sigint_ends_it_with_all_events_told", RUNC_GCC, || signal_drains(Signal::INT))
        .test("sigterm_ends_it_with_all_events_told", RUNC_GCC, || signal_drains(Signal::TERM))
        .test("timeout_ends_it", RUNC, timeout)
        .test("max_events_ends_it", RUNC_GCC, max_events)
        .test("a_closed_pipe_ends_it", RUNC_GCC, closed_pipe)
        .test("after_sigkill_no_program_is_attached", &bpftool, sigkill)
        .test("the_end_leaves_no_program_attached", &bpftool, no_program_left)
        .run()
}

/// A container that opens `count` files.
fn opens(pod: &Pod, count: usize) -> Bundle {
    Bundle::pod(Dialect::Containerd, pod, &["/bin/opens", &count.to_string()])
        .with_program(&program::compile("opens.c"))
}

/// What happened before the signal is told, though it was still on its way.
fn signal_drains(signal: Signal) {
    const COUNT: usize = 2_000;
    let pod = Pod::new("busy", "app");
    let bundle = opens(&pod, COUNT);
    let tracer = Tracer::open(&pod.namespace);
    Runtime::runc().run(&bundle).success();
    tracer.signal(signal);
    let done = tracer.wait_end().assert_clean();
    let events = done.events();
    assert_eq!(events.len(), COUNT, "{:?}", done.summary());
    for event in &events {
        bundle.assert_names(event);
    }
}

fn timeout() {
    let pod = Pod::new("web", "app");
    let end = format!("/{}", unique("end"));
    let begin = Instant::now();
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json", "--timeout", "3s"];
    let tracer = Tracer::start(&arguments);
    let ready = Instant::now();
    let bundle = Bundle::script(&pod, &format!("true < {end}"));
    Runtime::runc().run(&bundle);
    tracer.wait_open(&end);
    let done = tracer.wait_end().assert_clean();
    assert!(begin.elapsed() >= Duration::from_secs(3), "ended after {:?}", begin.elapsed());
    assert!(ready.elapsed() < Duration::from_secs(10), "ended {:?} after it was ready", ready.elapsed());
    assert_eq!(done.events().len(), 1);
}

fn max_events() {
    let pod = Pod::new("busy", "app");
    let bundle = opens(&pod, 500);
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json", "--max-events", "7"];
    let tracer = Tracer::start(&arguments);
    Runtime::runc().run(&bundle).success();
    let done = tracer.wait_end().assert_clean();
    let events = done.events();
    assert_eq!(events.len(), 7);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["open"]["path"], format!("/many/{index}"), "the first seven");
    }
    assert_eq!(done.summary().emitted, 7);
    assert_eq!(done.summary().lost, 0, "what comes after is filtered, not lost");
}

/// `tracer … | head -1`
fn closed_pipe() {
    let pod = Pod::new("busy", "app");
    let bundle = opens(&pod, 5_000);
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json"];
    let tracer = Launch::new(&arguments).close_stdout_after(1).start();
    let runtime = Runtime::runc();
    runtime.run(&bundle).success();
    tracer.wait_open("/many/0");
    // It finds out when it writes again; there may be nothing left of the first run's events.
    runtime.run(&bundle).success();
    let done = tracer.wait_end();
    let summary = done.assert_adds_up();
    assert!(summary.emitted >= 1 && summary.emitted < 10_000, "{summary:?}");
    assert_eq!(summary.lost, 0, "what nobody reads any more is filtered, not lost");
    let complaint = done.stderr.iter().find(|line| line.to_lowercase().contains("broken pipe"));
    assert_eq!(complaint, None, "a closed pipe is no error");
}

#[track_caller]
fn assert_attached(tracer: &Tracer) -> Held {
    let held = Held::by(tracer.pid());
    assert!(!held.programs.is_empty(), "a tracer at work holds its programs");
    assert!(!held.links.is_empty(), "a tracer at work holds its links");
    held.assert_there();
    held
}

fn sigkill() {
    let pod = Pod::new("web", "app");
    let script = "true < /before; read x < /go; echo went on; true < /after";
    let bundle = Bundle::script(&pod, script).with_fifo("/go");
    let runtime = Runtime::runc();
    let tracer = Tracer::open(&pod.namespace);
    runtime.run_detached(&bundle);
    tracer.wait_open("/before");
    let held = assert_attached(&tracer);
    tracer.signal(Signal::KILL);
    let done = tracer.wait_end();
    assert_eq!(done.status.signal(), Some(9));
    held.wait_gone();
    // The container and its runtime are as they were: it goes on, can be entered, and ends.
    assert_eq!(runtime.exec(&bundle, &["/bin/echo", "entered"]).success().stdout, "entered\n");
    bundle.release("/go");
    runtime.wait_stopped(&bundle);
    assert!(Runtime::stdout_of(&bundle).starts_with("went on\n"));
    runtime.delete(&bundle);
    let next = Bundle::script(&pod, "echo as ever");
    assert_eq!(runtime.run(&next).success().stdout, "as ever\n");
}

fn no_program_left() {
    let tracer = Tracer::open(&unique("t"));
    let held = assert_attached(&tracer);
    tracer.stop();
    held.wait_gone();
}
