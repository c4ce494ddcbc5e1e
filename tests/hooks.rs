//! How the programs are attached where the kernel, or the rights of who runs `tracer`, do not permit the best way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};

use harness::bpf::Held;
use harness::need::{Need, RUNC, RUNC_GCC, kernel_release};
use harness::scratch::unique;
use harness::{Bundle, Launch, Pod, Runtime, Suite, Tracer, program, tracer, wait};

fn main() -> ExitCode {
    let agent = [RUNC, &[Need::Setpriv]].concat();
    Suite::new()
        .test("capabilities_of_an_agent_suffice_for_execs", &agent, agent_execs)
        .test("capabilities_of_an_agent_suffice_for_opens", &agent, agent_opens)
        .test("fexit_that_attaches_no_more_is_replaced", RUNC_GCC, crowded_fexit)
        .test("memory_of_128_cpus_is_bounded", &[RUNC, &[Need::Bpftool]].concat(), memory)
        .run()
}

/// What `tracer` says where perf events are for CAP_SYS_ADMIN only, and the kernel preempts what is not at one.
fn of_refused_events() -> Option<String> {
    let level = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
    let is_refused = kernel_release() >= (7, 0) && level.trim().parse::<i32>().unwrap() >= 3;
    is_refused.then(|| format!("kernel.perf_event_paranoid is {}", level.trim()))
}

/// Fails unless the lines say once what is lost, if it is.
#[track_caller]
fn assert_cost(lines: &[String]) {
    let refused = of_refused_events();
    let is_told =
        |line: &&String| refused.as_ref().map_or(line.contains("perf_event"), |told| line.contains(told));
    let told: Vec<&String> = lines.iter().filter(is_told).collect();
    assert_eq!(told.len(), usize::from(refused.is_some()), "{lines:?}");
    assert!(told.iter().all(|line| line.contains("program-skipped")), "{told:?}");
}

fn agent_execs() {
    let (_dir, binary) = tracer::copy();
    let pod = Pod::new("agent", "app");
    let end = unique("end");
    let bundle = Bundle::script(&pod, &format!("/bin/absent; /bin/true {end}"));
    let arguments = ["trace", "exec", "-n", &pod.namespace, "-o", "json"];
    let tracer = Launch::new(&arguments).binary(binary.clone()).agent().start();
    Runtime::runc().run(&bundle);
    bundle.assert_names(&tracer.wait_exec(&end));
    assert_cost(&tracer.stop().stderr);
    let doctor = Launch::new(&["doctor"]).binary(binary).agent().output().success().stdout;
    let lines: Vec<String> = doctor.lines().map(str::to_owned).collect();
    assert_cost(&lines);
}

fn agent_opens() {
    let (_dir, binary) = tracer::copy();
    let pod = Pod::new("agent", "app");
    let bundle = Bundle::script(&pod, "true < /first; true < /last");
    let arguments = ["trace", "open", "--hook", "sys-exit", "-n", &pod.namespace, "-o", "json"];
    let tracer = Launch::new(&arguments).binary(binary).agent().start();
    Runtime::runc().run(&bundle);
    bundle.assert_names(&tracer.wait_open("/last"));
    assert_cost(&tracer.stop().stderr);
}

/// Programs that are attached to the return of a function, all that the kernel takes.
struct Fexits {
    child: Child,
    count: u32,
}

impl Fexits {
    fn on(function: &str) -> Self {
        let mut command = Command::new(program::compile("fexits.c"));
        command.arg(function).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = wait::spawn(&mut command);
        let mut count = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut count).unwrap();
        Self { child, count: count.trim().parse().expect("it prints a number") }
    }
}

impl Drop for Fexits {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Other programs share the limit of those that one function of the kernel can have.
fn crowded_fexit() {
    let fexits = Fexits::on("do_sys_openat2");
    let forced = Launch::new(&["trace", "open", "--hook", "fexit", "--timeout", "1ms"]).output();
    assert_eq!(forced.status.code(), Some(3), "beside {} programs: {forced:?}", fexits.count);
    assert!(forced.stderr.contains("leave --hook out"), "{forced:?}");
    let doctor = Launch::new(&["doctor"]).output().success().stdout;
    let opens = doctor.lines().find(|line| line.starts_with("note     open ")).unwrap_or_default();
    assert!(opens.contains("hooked at sys-exit") && opens.contains("fexit: "), "{doctor}");

    let pod = Pod::new("crowd", "app");
    let bundle = Bundle::script(&pod, "true < /first; true < /last");
    let tracer = Tracer::open(&pod.namespace);
    Runtime::runc().run(&bundle);
    bundle.assert_names(&tracer.wait_open("/last"));
    let done = tracer.stop();
    done.assert_nothing_dropped();
    assert_eq!(done.events().len(), 2, "{:?}", done.stdout);
}

/// A value of a per-CPU map is there for each CPU that the kernel is prepared for, whether or not there is one: on a
/// machine with more of them, that part would be as much more.
fn memory() {
    const CPUS: u64 = 128;
    const MAX: u64 = 24 << 20;
    for arguments in [&["trace", "open"][..], &["trace", "exec"]] {
        let tracer = Launch::new(arguments).start();
        let maps = Held::by(tracer.pid()).memory();
        tracer.stop();
        let sum: u64 = maps.iter().map(|map| map.bytes + map.bytes_per_cpu * CPUS).sum();
        assert!(sum <= MAX, "{arguments:?} would take {sum} bytes: {maps:#?}");
        assert!(maps.iter().any(|map| map.bytes_per_cpu > 0), "{maps:#?}");
    }
}
