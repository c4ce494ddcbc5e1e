//! Every call is accounted for: seen = emitted + filtered + lost, with a buffer that is far too small, whatever is
//! asked for and however it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use harness::need::RUNC_GCC;
use harness::scratch::unique;
use harness::{Bundle, Dialect, Finished, Launch, Need, Pod, Runtime, Suite, Tracer, program, wait};
use rustix::process::Signal;

/// What a load that goes on and on says when it has made its calls once more.
const ROUND: &str = "once more";
/// The least there is.
const BUFFER: [&str; 2] = ["--buffer-size", "4KiB"];

fn main() -> ExitCode {
    let uring: Vec<Need> = RUNC_GCC.iter().copied().chain([Need::IoUring]).collect();
    let mut suite = Suite::new();
    for load in [Load::OPENS, Load::EXECS] {
        let name = |what: &str| format!("{}_{what}", load.kind);
        suite = suite
            .test(&name("one_namespace"), RUNC_GCC, move || exactly(&load))
            .test(&name("everything"), RUNC_GCC, move || filtered(&load, &[], true))
            .test(&name("another_namespace"), RUNC_GCC, move || filtered(&load, &["-n", "no-such"], false))
            .test(&name("failed"), RUNC_GCC, move || {
                filtered(&load, &["--failed"], load.failing == load.calls);
            })
            .test(&name("uid"), RUNC_GCC, move || filtered(&load, &["--uid", "0"], true))
            .test(&name("other_uid"), RUNC_GCC, move || filtered(&load, &["--uid", "4242"], false))
            .test(&name("comm"), RUNC_GCC, move || filtered(&load, &["--comm", "no-such"], false))
            .test(&name("pid"), RUNC_GCC, move || filtered(&load, &["--pid", "1"], false))
            .test(&name("other_pid"), RUNC_GCC, move || filtered(&load, &["--pid", "!1"], true))
            .test(&name("sigint_under_load"), RUNC_GCC, move || sigint(&load))
            .test(&name("timeout_under_load"), RUNC_GCC, move || timeout(&load))
            .test(&name("max_events_under_load"), RUNC_GCC, move || max_events(&load))
            .test(&name("closed_pipe_under_load"), RUNC_GCC, move || closed_pipe(&load))
            .test(&name("stopped_under_load"), RUNC_GCC, move || stopped(&load));
    }
    suite
        .test("io_uring_one_namespace", &uring, || exactly(&Load::URING))
        .test("io_uring_another_namespace", &uring, || filtered(&Load::URING, &["-n", "no-such"], false))
        .test("io_uring_failed", &uring, || filtered(&Load::URING, &["--failed"], true))
        .test("the_log_has_every_counter", RUNC_GCC, counters)
        .test("a_slow_reader_gets_all_that_there_is", RUNC_GCC, slow)
        .test("a_reader_that_takes_nothing", RUNC_GCC, stuck)
        .run()
}

/// A program that makes a known number of calls.
#[derive(Clone, Copy)]
struct Load {
    /// What is traced.
    kind: &'static str,
    source: &'static str,
    args: &'static [&'static str],
    /// Calls that it makes, its own execution included.
    calls: u64,
    /// Those of them that fail.
    failing: u64,
}

impl Load {
    const OPENS: Self =
        Self { kind: "open", source: "opens.c", args: &["40000"], calls: 40_000, failing: 40_000 };
    const URING: Self =
        Self { kind: "open", source: "uring.c", args: &["20000"], calls: 20_000, failing: 20_000 };
    /// Each of the 1,500 fails once and then works.
    const EXECS: Self =
        Self { kind: "exec", source: "execs.c", args: &["many", "1500"], calls: 3_001, failing: 1_500 };

    fn program(&self) -> String {
        format!("/bin/{}", self.source.trim_end_matches(".c"))
    }

    fn bundle(&self, args: &[&str]) -> Bundle {
        Bundle::pod(Dialect::Containerd, &Pod::new("load", "app"), args)
            .with_program(&program::compile(self.source))
    }

    /// A container that makes the calls once.
    fn once(&self) -> Bundle {
        self.bundle(&[&[self.program().as_str()], self.args].concat())
    }

    /// A container that makes them again and again, and says so each time, until its runtime is dropped.
    fn endless(&self) -> Bundle {
        let (program, args) = (self.program(), self.args.join(" "));
        let command = format!("while :; do {program} {args} > /dev/null; echo {ROUND}; done");
        self.bundle(&["/bin/sh", "-c", &command])
    }

    fn arguments<'a>(&self, further: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["trace", self.kind, "-o", "json"];
        arguments.extend(BUFFER);
        arguments.extend(further);
        arguments
    }
}

fn namespace(bundle: &Bundle) -> String {
    bundle.pod.as_ref().unwrap().namespace.clone()
}

/// The loads of two tests at once would take twice as long, and each other's events would be in the way.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of the events are the container's.
fn own(done: &Finished, bundle: &Bundle) -> u64 {
    let events = done.events();
    for event in events.iter().filter(|event| bundle.owns(event)) {
        bundle.assert_names(event);
    }
    events.iter().filter(|event| bundle.owns(event)).count() as u64
}

/// To the last event: what is shown and what is lost are the calls of the load. What else runs on the machine in
/// containers may be lost as well before it is known whose it is; then it is tried again. The reader would keep up with
/// executions, even here: it is stopped in between.
fn exactly(load: &Load) {
    const ROUNDS: usize = 5;
    let _alone = alone();
    let mut sums = Vec::new();
    for _ in 0..ROUNDS {
        let bundle = load.once();
        let tracer = Tracer::start(&load.arguments(&["-n", &namespace(&bundle)]));
        let runtime = Runtime::runc();
        runtime.run_detached(&bundle);
        tracer.wait_for("the load's first event", |event| bundle.owns(event));
        tracer.pause();
        runtime.wait_stopped(&bundle);
        tracer.resume();
        let done = tracer.stop();
        let summary = done.summary();
        assert!(summary.lost > 0, "nothing was lost: this run has shown nothing ({summary:?})");
        assert!(summary.seen >= load.calls, "{summary:?}");
        assert_eq!(own(&done, &bundle), summary.emitted);
        assert!(summary.emitted + summary.lost >= load.calls, "{summary:?}");
        sums.push(summary.emitted + summary.lost);
        if summary.emitted + summary.lost == load.calls {
            return;
        }
    }
    panic!("{} calls, but each time more events: {sums:?}", load.calls);
}

/// With this selection, of which the load's calls are all or none.
fn filtered(load: &Load, selection: &[&str], selected: bool) {
    let _alone = alone();
    let bundle = load.once();
    let tracer = Tracer::start(&load.arguments(selection));
    Runtime::runc().run(&bundle).success();
    let done = tracer.stop();
    let summary = done.summary();
    assert!(summary.seen >= load.calls, "{summary:?}");
    let own = own(&done, &bundle);
    if selected {
        assert!(own + summary.lost >= load.calls, "{own} shown, {summary:?}");
    } else if selection[0] != "--failed" {
        assert_eq!(own, 0, "{summary:?}");
        assert!(summary.filtered + summary.lost >= load.calls, "{summary:?}");
    } else {
        assert!(own <= load.failing, "{own} shown, {summary:?}");
        assert!(own + summary.lost >= load.failing, "{own} shown, {summary:?}");
    }
}

/// A tracer with a load that goes on and on, once events come.
fn under_load(load: &Load, further: &[&str]) -> (Tracer, Runtime, Bundle) {
    let bundle = load.endless();
    let namespace = namespace(&bundle);
    let tracer = Tracer::start(&load.arguments(&[&["-n", &namespace], further].concat()));
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    (tracer, runtime, bundle)
}

fn sigint(load: &Load) {
    let _alone = alone();
    let (tracer, _runtime, bundle) = under_load(load, &[]);
    tracer.wait_for("the load's first event", |event| bundle.owns(event));
    let rounds = || Runtime::stdout_of(&bundle).matches(ROUND).count();
    let before = rounds();
    tracer.pause();
    wait::until("a whole round", || (rounds() > before + 1).then_some(()));
    tracer.resume();
    // Told while it goes on.
    tracer.wait_for("a loss", |event| event["event"] == "lost");
    let done = tracer.stop();
    assert!(done.summary().emitted > 0);
}

fn timeout(load: &Load) {
    let _alone = alone();
    let (tracer, _runtime, _bundle) = under_load(load, &["--timeout", "2s"]);
    let done = tracer.wait_end().assert_clean();
    assert!(done.summary().seen > 0);
}

fn max_events(load: &Load) {
    let _alone = alone();
    let (tracer, _runtime, _bundle) = under_load(load, &["--max-events", "500"]);
    let done = tracer.wait_end().assert_clean();
    assert_eq!(done.summary().emitted, 500);
}

fn closed_pipe(load: &Load) {
    let _alone = alone();
    let bundle = load.endless();
    let tracer = Launch::new(&load.arguments(&["-n", &namespace(&bundle)])).close_stdout_after(100).start();
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    let done = tracer.wait_end();
    let summary = done.assert_adds_up();
    // What was written last nobody has read, nor the losses that were told there.
    assert!(summary.emitted >= done.events().len() as u64, "{summary:?}");
    assert!(summary.lost >= done.told_lost(), "{summary:?}");
}

/// As by Ctrl-Z: what finds no room meanwhile is told when it goes on.
fn stopped(load: &Load) {
    let _alone = alone();
    let bundle = load.once();
    let tracer = Tracer::start(&load.arguments(&["-n", &namespace(&bundle)]));
    let runtime = Runtime::runc();
    tracer.pause();
    runtime.run(&bundle).success();
    tracer.resume();
    tracer.wait_for("a loss", |event| event["event"] == "lost");
    let done = tracer.stop();
    let summary = done.summary();
    assert!(summary.seen >= load.calls, "{summary:?}");
    assert!(own(&done, &bundle) + summary.lost >= load.calls, "{summary:?}");
}

/// What `-v` says at the end adds up to the sum.
fn counters() {
    let _alone = alone();
    let bundle = Load::EXECS.once();
    let tracer = Tracer::start(&Load::EXECS.arguments(&["-n", &namespace(&bundle), "-vv"]));
    Runtime::runc().run(&bundle).success();
    let done = tracer.stop();
    let logged = |whose: &str, what: &str| -> u64 {
        let line = done.stderr.iter().find(|line| line.contains(whose)).expect("a line of each");
        let mut words = line.split(' ').skip_while(|word| *word != what);
        words.nth(1).expect("a number behind each").parse().expect("a number")
    };
    let hooks = |what: &str| {
        ["exec_success (exec): ", "sys_exit (exec): "]
            .map(|program| logged(program, what))
            .iter()
            .sum::<u64>()
    };
    let summary = done.summary();
    assert_eq!(summary.seen, hooks("seen") + hooks("program-skipped"));
    assert_eq!(summary.filtered, hooks("filtered") + logged("in user space: ", "filtered"));
    assert_eq!(summary.emitted, logged("in user space: ", "emitted"));
    let lost = hooks("buffer-full") + hooks("no-scratch") + hooks("program-skipped");
    assert_eq!(summary.lost, lost + logged("kind exec: ", "unattributed"));
    for program in ["process_fork (lifecycle): ", "process_exit (lifecycle): "] {
        assert_eq!(logged(program, "lifecycle-full"), 0);
    }
}

/// Reading what is left takes far longer than a reader that takes nothing is waited for.
fn slow() {
    const COUNT: u64 = 4_000;
    let _alone = alone();
    let pod = Pod::new("slow", "app");
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/opens", &COUNT.to_string()])
        .with_program(&program::compile("opens.c"));
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json"];
    let tracer = Launch::new(&arguments).slow_stdout(Duration::from_millis(20)).start();
    Runtime::runc().run(&bundle).success();
    let done = tracer.stop();
    assert_eq!(own(&done, &bundle), COUNT);
    assert_eq!(done.summary().lost, 0, "{}", done.log());
}

/// Nobody reads, not even at the end: what got into the pipe is emitted, the rest is lost.
fn stuck() {
    const COUNT: u64 = 4_000;
    let _alone = alone();
    let pod = Pod::new("stuck", "app");
    let end = format!("/{}", unique("end"));
    let bundle = Bundle::pod(Dialect::Containerd, &pod, &["/bin/opens", &COUNT.to_string(), &end])
        .with_program(&program::compile("opens.c"));
    let arguments = ["trace", "open", "-n", &pod.namespace, "-o", "json"];
    let tracer = Launch::new(&arguments).hold_stdout().start();
    Runtime::runc().run(&bundle).success();
    tracer.signal(Signal::INT);
    let done = tracer.wait_end().assert_cut_off();
    let summary = done.summary();
    assert!(summary.lost > 0 && own(&done, &bundle) + summary.lost > COUNT, "{}", done.log());
}
