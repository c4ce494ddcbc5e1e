//! What `kubectl tracer` spends on an event: two nodes of a server on this machine send recorded events, which the client
//! writes to `/dev/null`.
//!
//! A program and no test: `cargo xtask client-cost` runs it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "it fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::apiserver::{ApiServer, Options, Program};
use harness::{scratch, tracer};

const NODES: [&str; 2] = ["n-1", "n-2"];
/// Events of each node.
const EVENTS: u32 = 500_000;

fn main() {
    let dir = scratch::Dir::new("client-cost");
    let recorded = dir.path().join("recorded");
    let frames = std::env::current_exe().unwrap().with_file_name("frames");
    let record =
        Command::new(frames).arg(format!("opens={EVENTS}")).stdout(File::create(&recorded).unwrap()).status();
    assert!(record.unwrap().success());
    let bytes = fs::metadata(&recorded).unwrap().len();
    println!("bytes of 1000 events between node and client: {}", bytes * 1000 / u64::from(EVENTS));
    for output in ["columns", "json"] {
        let without = cpu_time(output, "", 0);
        let with = cpu_time(output, &format!("cat {}", recorded.display()), EVENTS);
        let nanoseconds = with.saturating_sub(without).as_nanos() / u128::from(EVENTS * 2);
        println!("CPU time of the client for an event in {output}: {nanoseconds} ns");
    }
}

/// The CPU time of a client that ends after the events of all nodes; without any after a second.
fn cpu_time(output: &str, script: &str, events: u32) -> Duration {
    let server = ApiServer::start(Options::default());
    for node in NODES {
        server.add(node, Program::script(script, &format!("{events} {events} 0 0")));
    }
    let mut command = Command::new(tracer::kubectl_binary());
    command.args(["trace", "open", "-A", "-o", output]).arg("--kubeconfig").arg(server.kubeconfig(None));
    match events * 2 {
        0 => command.args(["--timeout", "1s"]),
        all => command.arg(format!("--max-events={all}")),
    };
    let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let statistics = format!("/proc/{}/stat", client.id());
    let mut last = Duration::ZERO;
    while client.try_wait().unwrap().is_none() {
        last = last.max(spent(Path::new(&statistics)));
        std::thread::sleep(Duration::from_millis(2));
    }
    last
}

/// User and system time (proc_pid_stat(5)): what all threads have spent.
fn spent(statistics: &Path) -> Duration {
    let text = fs::read_to_string(statistics).unwrap_or_default();
    let after = text.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
