//! Everything at once for as long as wanted: containers that come and go, processes that join, opens by the ten
//! thousand, a tracer that is stopped, others that are killed. What tracer holds on to must not grow, and what it says
//! must add up.
//!
//! A program and no test: `cargo xtask soak` runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "it fails by panicking")]

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::bpf::Held;
use harness::scratch::{self, unique};
use harness::wait::{self, LIMIT};
use harness::{Bundle, Dialect, Pod, Runtime, Tracer, program, tracer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How many times it is looked at what the tracer has.
const SAMPLES: u32 = 60;
/// How much more memory the end may take than the beginning, in KiB: what the allocator keeps varies.
const GROWTH_KIB: u64 = 1024;
/// Threads that there may be: those that are there all the while, and the pools that read bundles and look at processes.
const THREADS_MAX: u64 = 32;
/// How long nothing happens before the end.
const REST: Duration = Duration::from_secs(3);
/// Between two stops of the tracer, and how long it is stopped.
const STOPS: (Duration, Duration) = (Duration::from_secs(20), Duration::from_millis(500));

fn main() -> ExitCode {
    let minutes: Option<f64> = std::env::args().nth(1).and_then(|minutes| minutes.parse().ok());
    let Some(minutes) = minutes.filter(|minutes| *minutes > 0.0) else {
        eprintln!("usage: soak MINUTES");
        return ExitCode::from(2);
    };
    soak(Duration::from_secs_f64(minutes * 60.0));
    scratch::remove(scratch::root());
    ExitCode::SUCCESS
}

fn soak(length: Duration) {
    let (stop, made) = (AtomicBool::new(false), Made::default());
    let mark = format!("/{}", unique("soak"));
    let dir = scratch::Dir::new("soak");
    let log = dir.path().join("log");
    let mut traced = Traced::start(&log);
    let followed_before = followed(traced.pid());
    let (told, samples, followed) = thread::scope(|scope| {
        let reader = scope.spawn(traced.reader(&mark));
        scope.spawn(|| churn(&stop, &made, &mark));
        scope.spawn(|| join(&stop, &made, &mark));
        scope.spawn(|| load(&stop));
        scope.spawn(|| others(&stop));
        scope.spawn(|| stops(&stop, traced.pid()));
        let samples = watch(traced.pid(), length, &made);
        stop.store(true, Ordering::Relaxed);
        let followed = wait::until("the workers' containers to be forgotten", || {
            Some(followed(traced.pid())).filter(|followed| *followed <= followed_before)
        });
        // Ended containers are kept until no event of theirs can come any more.
        thread::sleep(REST);
        traced.signal(Signal::INT);
        (reader.join().expect("the reader of stdout"), samples, followed)
    });
    let status = wait::exit_of(&mut traced.0, LIMIT).expect("it ends when it is told to");
    let log = fs::read_to_string(log).unwrap();
    assert!(status.success(), "{status}:\n{log}");
    report(&told, &samples, &made, followed, &log);
}

/// The tracer that runs all the while. Killed when dropped.
struct Traced(Child);

impl Traced {
    fn start(log: &Path) -> Self {
        let child = Command::new(tracer::binary())
            .args(["trace", "open", "-o", "json", "-v"])
            .env("RUST_LOG", "tracer=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        let traced = Self(child);
        wait::until("the tracer is ready", || {
            fs::read_to_string(log).ok().filter(|log| log.contains("tracer: ready"))
        });
        traced
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("our own child");
    }

    /// Reads all that it writes, and counts.
    fn reader(&mut self, mark: &str) -> impl FnOnce() -> Told + Send + use<> {
        let stdout = self.0.stdout.take().expect("piped");
        let mark = mark.to_owned();
        move || Told::read(stdout, &mark)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the workers did.
#[derive(Default)]
struct Made {
    containers: AtomicU64,
    joined: AtomicU64,
    opens: AtomicU64,
}

/// What the tracer told.
#[derive(Default)]
struct Told {
    events: u64,
    bytes: u64,
    lost: u64,
    /// Opens of the workers, by the name that they must have.
    marked: u64,
    wrong: Vec<String>,
}

impl Told {
    fn read(stdout: ChildStdout, mark: &str) -> Self {
        let mut told = Self::default();
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("what the tracer writes");
            told.bytes += line.len() as u64 + 1;
            if line.contains(r#""event":"lost""#) {
                let record: Value = serde_json::from_str(&line).unwrap();
                if record["lost"]["hook"] != "lifecycle" {
                    told.lost += record["lost"]["count"].as_u64().unwrap();
                }
                continue;
            }
            told.events += 1;
            if line.contains(mark) {
                told.marked += 1;
                let event: Value = serde_json::from_str(&line).unwrap();
                let pod = event["open"]["path"].as_str().unwrap().split('/').nth(2).unwrap();
                if event["k8s"]["pod"] != *pod {
                    told.wrong.push(line);
                }
            }
        }
        told
    }
}

/// Containers of pods, one after the other, each with three opens. Their bundles stay for a while: a tracer that is
/// stopped reads them when it goes on.
fn churn(stop: &AtomicBool, made: &Made, mark: &str) {
    const KEPT: usize = 200;
    let first = Bundle::plain(&["/bin/true"]);
    let mut kept = VecDeque::new();
    let runtime = Runtime::runc();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("pod-{}", made.containers.fetch_add(1, Ordering::Relaxed));
        let script = ["a", "b", "c"].map(|file| format!("true < {mark}/{name}/{file}")).join("; ");
        let bundle = first.sibling(&Pod::inside("soak", &name, "app"), &["/bin/sh", "-c", &script]);
        runtime.run(&bundle);
        kept.push_back(bundle);
        if kept.len() > KEPT {
            kept.pop_front();
        }
        made.opens.fetch_add(3, Ordering::Relaxed);
    }
}

/// Processes that join a container which stays.
fn join(stop: &AtomicBool, made: &Made, mark: &str) {
    let pod = Pod::inside("soak", "stays", "app");
    let bundle = Bundle::script(&pod, "read x < /end").with_fifo("/end");
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    while !stop.load(Ordering::Relaxed) {
        runtime.exec(&bundle, &["/bin/sh", "-c", &format!("true < {mark}/stays/a")]);
        made.joined.fetch_add(1, Ordering::Relaxed);
        made.opens.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
    }
    bundle.release("/end");
    runtime.wait_stopped(&bundle);
}

/// Opens by the ten thousand, with a rest now and then.
fn load(stop: &AtomicBool) {
    let command = "while :; do /bin/opens 10000; sleep 0.1; done";
    let bundle = Bundle::pod(Dialect::Containerd, &Pod::new("load", "app"), &["/bin/sh", "-c", command])
        .with_program(&program::compile("opens.c"));
    let runtime = Runtime::runc();
    runtime.run_detached(&bundle);
    until(stop, Duration::MAX);
    runtime.delete(&bundle);
}

/// Other tracers, which end as they should or are killed.
fn others(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        Tracer::start(&["trace", "exec", "-n", "soak", "-o", "json"]).stop();
        drop(Tracer::start(&["trace", "open", "--host"]));
        until(stop, Duration::from_secs(5));
    }
}

/// Stops the tracer for a moment, again and again.
fn stops(stop: &AtomicBool, pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("no process is number 0");
    let (between, length) = STOPS;
    while !until(stop, between) {
        kill_process(pid, Signal::STOP).expect("our own child");
        thread::sleep(length);
        kill_process(pid, Signal::CONT).expect("our own child");
    }
}

/// Waits so long at the most. Returns whether it is time to stop.
fn until(stop: &AtomicBool, limit: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit && !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
    }
    stop.load(Ordering::Relaxed)
}

/// What the tracer has at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    anonymous_kib: u64,
    resident_kib: u64,
    descriptors: u64,
    threads: u64,
}

impl Sample {
    fn take(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the tracer runs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a field of each process");
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the tracer runs").count() as u64;
        Self {
            anonymous_kib: field("RssAnon:"),
            resident_kib: field("VmRSS:"),
            descriptors,
            threads: field("Threads:"),
        }
    }
}

fn watch(pid: u32, length: Duration, made: &Made) -> Vec<Sample> {
    println!(
        "{:>8} {:>10} {:>10} {:>5} {:>8} {:>11}",
        "seconds", "anon KiB", "rss KiB", "fds", "threads", "containers"
    );
    let began = Instant::now();
    (1..=SAMPLES)
        .map(|number| {
            thread::sleep((length * number / SAMPLES).saturating_sub(began.elapsed()));
            let sample = Sample::take(pid);
            let Sample { anonymous_kib, resident_kib, descriptors, threads } = sample;
            let (seconds, containers) = (began.elapsed().as_secs(), made.containers.load(Ordering::Relaxed));
            println!(
                "{seconds:>8} {anonymous_kib:>10} {resident_kib:>10} {descriptors:>5} {threads:>8} {containers:>11}"
            );
            sample
        })
        .collect()
}

/// How many processes the tracer's programs follow.
fn followed(pid: u32) -> usize {
    Held::by(pid).entries("PROCESSES")
}

fn report(told: &Told, samples: &[Sample], made: &Made, followed: usize, log: &str) {
    let numbers: HashMap<&str, u64> = log
        .lines()
        .rfind(|line| line.starts_with("tracer: seen "))
        .map(|line| line.split(' ').skip(1).collect::<Vec<_>>())
        .expect("the closing line")
        .chunks(2)
        .map(|pair| (pair[0], pair[1].parse().unwrap()))
        .collect();
    let (seen, emitted) = (numbers["seen"], numbers["emitted"]);
    let (filtered, lost) = (numbers["filtered"], numbers["lost"]);
    let opens = made.opens.load(Ordering::Relaxed);
    println!(
        "\n{} containers, {} joined, {opens} opens of theirs of which {} were told; {} MB of JSON",
        made.containers.load(Ordering::Relaxed),
        made.joined.load(Ordering::Relaxed),
        told.marked,
        told.bytes / 1_000_000,
    );
    println!("seen {seen} emitted {emitted} filtered {filtered} lost {lost}");
    assert_eq!(seen, emitted + filtered + lost);
    assert_eq!(emitted, told.events, "lines that were read");
    assert_eq!(lost, told.lost, "as told in the stream");
    assert!(told.wrong.is_empty(), "{} under a wrong name: {:#?}", told.wrong.len(), told.wrong.first());
    assert!(told.marked + lost >= opens, "{} of {opens} told", told.marked);
    let keys = log.lines().rev().find_map(|line| line.split_once("keys in use at the end: ")?.1.parse().ok());
    let keys: usize = keys.expect("what is left of containers");
    println!("keys in use at the end: {keys}; processes of other containers: {followed}");
    assert!(keys <= followed, "containers that are gone are forgotten");

    // The first fifth is for warming up.
    let fifth = samples.len() / 5;
    let (early, late) = (&samples[fifth..2 * fifth], &samples[samples.len() - fifth..]);
    let grown = |what: &str, of: fn(&Sample) -> u64, allowance: u64| {
        let (early, late) = (median(early, of), median(late, of));
        println!("{what}: {early} early, {late} late");
        assert!(late <= early + allowance, "{what} grew from {early} to {late}");
    };
    grown("anonymous memory, KiB", |sample| sample.anonymous_kib, GROWTH_KIB);
    grown("descriptors", |sample| sample.descriptors, 8);
    // Pools have as many as there is to do: what matters is that there is an end to it.
    let threads = samples.iter().map(|sample| sample.threads).max().expect("samples");
    println!("threads: {threads} at the most");
    assert!(threads <= THREADS_MAX, "{threads} threads");
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}
