//! The containers that are measured in, from outside: `tracer-bench-load` in containers of runc.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context as _, Result, bail};
use harness::{Bundle, Dialect, Pod, Runtime, wait};
use serde_json::json;

use crate::{cpu, stats};

/// The file that is opened again and again: a path as long as many are.
pub(crate) const FILE: &str = "/etc/hostname";
/// Where the files are that are opened as a dynamic loader opens libraries, and how many.
const LIBRARIES: (&str, usize) = ("/usr/lib/bench", 32);
/// Where the load is in a container.
const PROGRAM: &str = "/bin/tracer-bench-load";

/// One loop, timed from within.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Operations done.
    pub(crate) operations: u64,
    /// Nanoseconds that all of them took.
    pub(crate) wall: u64,
    /// Nanoseconds of CPU that the load had meanwhile.
    pub(crate) cpu: u64,
    /// Nanoseconds per operation: the median over slices of 10 ms, so that what disturbs some of them does not count.
    pub(crate) per_operation: f64,
}

impl Sample {
    /// From the load's answer: operations, nanoseconds, those of CPU, then picoseconds per operation of each slice.
    #[expect(clippy::cast_precision_loss, reason = "small enough")]
    fn parse(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the load answered {line:?}"))?;
        let [operations, wall, cpu, slices @ ..] = &numbers[..] else {
            bail!("the load answered {line:?}");
        };
        let per_operation = if slices.is_empty() {
            *wall as f64 / (*operations).max(1) as f64
        } else {
            let nanoseconds: Vec<f64> =
                slices.iter().map(|picoseconds| *picoseconds as f64 / 1000.0).collect();
            stats::median(&nanoseconds)
        };
        Ok(Self { operations: *operations, wall: *wall, cpu: *cpu, per_operation })
    }
}

/// What the load can be told to do over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Open and close one file.
    Open,
    /// A system call that nobody traces.
    Getppid,
    /// Open, read, map and close 32 files, as a dynamic loader does.
    Libraries,
    /// Fork and execute a small program.
    Exec,
}

/// A container that does what it is told. It ends when dropped.
pub(crate) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Process id on the host.
    pub(crate) pid: u32,
    /// Of its pod.
    pub(crate) namespace: String,
    bundle: Bundle,
}

impl Load {
    /// Starts one in a pod of a namespace of its own.
    pub(crate) fn start(runtime: &Runtime, program: &Path) -> Result<Self> {
        let pod = Pod::new("load", "load");
        let cpu = cpu::of_load()?.to_string();
        let bundle = bundle(&pod, program, &["serve", &cpu]);
        let bundle = (0..LIBRARIES.1)
            .fold(bundle, |bundle, number| {
                bundle.with_file(&format!("{}/lib{number}.so", LIBRARIES.0), vec![b'x'; 8192])
            })
            .with_file(FILE, "load\n");
        let mut command = runtime.command();
        command.args(["run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the load's container")?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut load = Self { child, stdin: Some(stdin), stdout, pid: 0, namespace: pod.namespace, bundle };
        // It answers only when it runs; then the runtime knows its process.
        load.repeat(Work::Getppid, 1)?;
        let pid = runtime.init_pid(&load.bundle).context("the load's container does not run")?;
        load.pid = pid.unsigned_abs();
        Ok(load)
    }

    /// Does that for so many milliseconds.
    pub(crate) fn repeat(&mut self, work: Work, milliseconds: u64) -> Result<Sample> {
        let command = match work {
            Work::Open => format!("open {milliseconds} {FILE}"),
            Work::Getppid => format!("getppid {milliseconds}"),
            Work::Libraries => format!("libraries {milliseconds} {}", LIBRARIES.0),
            Work::Exec => format!("exec {milliseconds}"),
        };
        self.ask(&command)
    }

    /// Opens and closes that many times.
    pub(crate) fn open(&mut self, count: u64) -> Result<Sample> {
        self.ask(&format!("count {count} {FILE}"))
    }

    fn ask(&mut self, command: &str) -> Result<Sample> {
        let stdin = self.stdin.as_mut().context("the load has been told to end")?;
        writeln!(stdin, "{command}").context("telling the load what to do")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("reading the load's answer")?;
        Sample::parse(&line)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if wait::exit_of(&mut self.child, wait::LIMIT).is_none() {
            // Our own child; dropping the runtime takes the container away.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A bundle whose container runs the load with these arguments.
pub(crate) fn bundle(pod: &Pod, program: &Path, arguments: &[&str]) -> Bundle {
    let arguments: Vec<&str> = [&[PROGRAM], arguments].concat();
    Bundle::pod(Dialect::Containerd, pod, &arguments).with_program(program).edit(|config| {
        // As [`cpu::take_precedence`], for the container's cgroup.
        config["linux"]["resources"] = json!({"cpu": {"shares": 262_144}});
    })
}

/// A bundle of another container with the same root file system.
pub(crate) fn sibling(bundle: &Bundle, pod: &Pod, arguments: &[&str]) -> Bundle {
    bundle.sibling(pod, &[&[PROGRAM], arguments].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disturbed_slices_do_not_count() {
        let sample =
            Sample::parse("30000 90000000 80000000 2500000 2400000 9000000 2450000 2550000\n").unwrap();
        assert_eq!((sample.operations, sample.wall, sample.cpu), (30_000, 90_000_000, 80_000_000));
        assert!((sample.per_operation - 2500.0).abs() < 1e-9, "{sample:?}");
    }

    #[test]
    fn without_slices_it_is_the_mean() {
        let sample = Sample::parse("100 250000 240000").unwrap();
        assert!((sample.per_operation - 2500.0).abs() < 1e-9, "{sample:?}");
    }

    #[test]
    fn other_answers_are_errors() {
        for line in ["", "1 2", "one two three", "1 2 3 x"] {
            assert!(Sample::parse(line).is_err(), "{line}");
        }
    }
}
