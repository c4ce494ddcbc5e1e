//! What is attached while the load runs: a bare hook, tracer, another tracer.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use harness::{need, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::{attach, cpu, load};

/// How long anything here may take to begin or to end.
const LIMIT: Duration = Duration::from_secs(60);

/// What is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// An empty program on `sys_exit`.
    Empty,
    /// One that writes a record.
    Floor,
    /// The same with something in it: time, ids, comm and path.
    Filled,
    /// As `Floor`, through two tracepoints.
    Tracepoints,
    /// An empty program on `fexit/do_sys_openat2`.
    EmptyFexit,
    /// One there that writes a record.
    FloorFexit,
    /// tracer, JSON to a file.
    TracerJson,
    /// tracer, columns to a file.
    TracerColumns,
    /// tracer, JSON to `/dev/null`.
    TracerJsonNull,
    /// tracer, columns to `/dev/null`.
    TracerColumnsNull,
    /// `tracer trace exec`, columns to a file.
    TracerExec,
    /// That of libbpf-tools, to a file.
    Opensnoop,
    /// A script like `opensnoop.bt`, to a file.
    Bpftrace,
    /// That of libbpf-tools, to a file.
    Execsnoop,
}

/// As bpftrace's own opensnoop.bt, and for openat alone, which is what the load calls.
const BPFTRACE: &str = "\
tracepoint:syscalls:sys_enter_openat { @path[tid] = args->filename; }
tracepoint:syscalls:sys_exit_openat /@path[tid]/ {
    $ret = args->ret;
    $fd = $ret >= 0 ? $ret : -1;
    $errno = $ret >= 0 ? 0 : -$ret;
    printf(\"%-6d %-16s %4d %3d %s\\n\", pid, comm, $fd, $errno, str(@path[tid]));
    delete(@path[tid]);
}
END { clear(@path); }
";

impl Subject {
    /// In tables and charts.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty sys_exit",
            Self::Floor => "floor sys_exit",
            Self::Filled => "filled sys_exit",
            Self::Tracepoints => "floor tracepoints",
            Self::EmptyFexit => "empty fexit",
            Self::FloorFexit => "floor fexit",
            Self::TracerJson => "tracer -o json",
            Self::TracerColumns => "tracer -o columns",
            Self::TracerJsonNull => "tracer -o json, /dev/null",
            Self::TracerColumnsNull => "tracer -o columns, /dev/null",
            Self::TracerExec => "tracer trace exec",
            Self::Opensnoop => "opensnoop",
            Self::Bpftrace => "bpftrace",
            Self::Execsnoop => "execsnoop",
        }
    }

    /// Whether it is tracer.
    pub(crate) const fn is_tracer(self) -> bool {
        matches!(
            self,
            Self::TracerJson
                | Self::TracerColumns
                | Self::TracerJsonNull
                | Self::TracerColumnsNull
                | Self::TracerExec
        )
    }

    /// Whether its closing line counts one event for each call of the load.
    pub(crate) const fn writes_records(self) -> bool {
        self.is_tracer() || matches!(self, Self::Floor | Self::Filled | Self::Tracepoints | Self::FloorFexit)
    }

    const fn own_program(self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("empty"),
            Self::Floor => Some("floor"),
            Self::Filled => Some("filled"),
            Self::Tracepoints => Some("tracepoints"),
            Self::EmptyFexit => Some("empty-fexit"),
            Self::FloorFexit => Some("floor-fexit"),
            _ => None,
        }
    }
}

/// What all subjects are started with.
pub(crate) struct Setting {
    /// The binary that is measured.
    pub(crate) tracer: PathBuf,
    /// Further arguments for it.
    pub(crate) tracer_arguments: Vec<String>,
    /// Where files go.
    pub(crate) directory: PathBuf,
}

/// Where a subject's standard output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// A file, which is removed.
    File,
    /// Nowhere.
    Null,
    /// To be read from [`Session::stdout`].
    Pipe,
}

impl Setting {
    /// Attaches `subject`, for a load of that process id in a pod of that namespace. An error that is no more than
    /// that it is not to be had here is the inner one.
    pub(crate) fn start(
        &self,
        subject: Subject,
        pid: u32,
        namespace: &str,
    ) -> Result<Result<Session, String>> {
        let mut output = Output::File;
        let command = match subject {
            Subject::Opensnoop | Subject::Execsnoop => {
                let name = if subject == Subject::Opensnoop { "opensnoop" } else { "execsnoop" };
                match need::find(name) {
                    None => return Ok(Err(format!("{name} is missing (Debian's libbpf-tools)"))),
                    Some(program) => with_tracefs(&program),
                }
            }
            Subject::Bpftrace => match need::find("bpftrace") {
                None => return Ok(Err("bpftrace is missing".into())),
                Some(program) => {
                    let mut command = with_tracefs(&program);
                    command.args(["-e", BPFTRACE]);
                    command
                }
            },
            Subject::TracerJsonNull | Subject::TracerColumnsNull => {
                output = Output::Null;
                let format = if subject == Subject::TracerJsonNull { "json" } else { "columns" };
                self.tracer("open", namespace, format)
            }
            Subject::TracerJson => self.tracer("open", namespace, "json"),
            Subject::TracerColumns => self.tracer("open", namespace, "columns"),
            Subject::TracerExec => self.tracer("exec", namespace, "columns"),
            own => {
                let program = std::env::current_exe().context("asking for the own program")?;
                let mut command = with_tracefs(&program);
                command.arg("attach").arg(own.own_program().context("one of our own")?);
                command.args(["--load", &pid.to_string(), "--record-size", &record_size().to_string()]);
                command
            }
        };
        let session = Session::start(command, output, &self.directory.join("output"))?;
        let ready = if subject.is_tracer() {
            Ready::Says("tracer: ready")
        } else if subject.own_program().is_some() {
            Ready::Says(attach::READY)
        } else {
            Ready::Idles
        };
        session.wait_ready(&ready)
    }

    /// `tracer trace open -n NAMESPACE -o FORMAT`, with the further arguments.
    pub(crate) fn tracer(&self, kind: &str, namespace: &str, format: &str) -> Command {
        let mut command = Command::new(&self.tracer);
        command.args(["trace", kind, "-n", namespace, "-o", format]).args(&self.tracer_arguments);
        command
    }

    /// Starts tracer with its standard output there, and waits until it is ready.
    pub(crate) fn start_tracer(&self, command: Command, output: Output) -> Result<Session> {
        match Session::start(command, output, &self.directory.join("output"))?
            .wait_ready(&Ready::Says("tracer: ready"))?
        {
            Ok(session) => Ok(session),
            Err(why) => bail!("tracer does not start: {why}"),
        }
    }
}

/// Bytes of tracer's record for what the load opens.
fn record_size() -> usize {
    size_of::<tracer_common::kinds::open::Open>() + load::FILE.len()
}

/// That program where tracefs is mounted: where it is not, in a mount namespace of its own, in which it is.
fn with_tracefs(program: &Path) -> Command {
    if Path::new("/sys/kernel/tracing/events").exists() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tracefs tracefs /sys/kernel/tracing && exec \"$0\" \"$@\"").arg(program);
    command
}

/// How to see that a program is attached.
enum Ready {
    /// It says so: a line on stderr that starts so.
    Says(&'static str),
    /// It has something attached and does nothing more.
    Idles,
}

/// A subject that runs. Killed when dropped.
pub(crate) struct Session {
    child: Child,
    started: Instant,
    /// How long it took to be ready.
    pub(crate) ready_after: Duration,
    stderr: Arc<Lines>,
    /// With [`Output::Pipe`].
    pub(crate) stdout: Option<ChildStdout>,
    file: Option<PathBuf>,
}

/// What it said at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Calls seen, where it tells.
    pub(crate) seen: u64,
    /// Events written, or received.
    pub(crate) emitted: u64,
    /// Left out on purpose.
    pub(crate) filtered: u64,
    /// Missing.
    pub(crate) lost: u64,
}

impl Session {
    fn start(mut command: Command, output: Output, path: &Path) -> Result<Self> {
        let stdout = match output {
            Output::File => File::create(path).with_context(|| format!("making {}", path.display()))?.into(),
            Output::Null => Stdio::null(),
            Output::Pipe => Stdio::piped(),
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let stderr = Arc::new(Lines::default());
        let lines = Arc::clone(&stderr);
        let pipe = child.stderr.take().context("stderr is piped")?;
        thread::spawn(move || lines.collect(BufReader::new(pipe)));
        let stdout = child.stdout.take();
        let file = (output == Output::File).then(|| path.to_owned());
        Ok(Self { child, started, ready_after: Duration::ZERO, stderr, stdout, file })
    }

    fn wait_ready(mut self, ready: &Ready) -> Result<Result<Self, String>> {
        let is_ready = match ready {
            Ready::Says(prefix) => self.stderr.wait_for(prefix, LIMIT).is_some(),
            Ready::Idles => self.wait_idle_and_attached()?,
        };
        self.ready_after = self.started.elapsed();
        if is_ready {
            return Ok(Ok(self));
        }
        let status = wait::exit_of(&mut self.child, Duration::from_secs(1));
        let log = self.stderr.text();
        match status {
            // Its own programs say what the kernel does not allow.
            Some(status) if status.code() == Some(attach::REFUSED) && log.starts_with("refused") => {
                Ok(Err("the kernel refuses such programs (EPERM)".into()))
            }
            Some(status) if matches!(ready, Ready::Idles) => {
                let last = log.lines().last().unwrap_or_default();
                Ok(Err(format!("ended with {status}: {last}")))
            }
            Some(status) => bail!("ended with {status} before it was ready:\n{log}"),
            None => bail!("not ready after {LIMIT:?}:\n{log}"),
        }
    }

    /// Whether it came to hold something attached and to use no CPU for a while, before it ended.
    fn wait_idle_and_attached(&mut self) -> Result<bool> {
        const STEP: Duration = Duration::from_millis(50);
        /// Steps without work.
        const CALM: u32 = 6;
        let end = Instant::now() + LIMIT;
        let (mut calm, mut last) = (0, 0);
        while Instant::now() < end {
            if self.child.try_wait().context("waiting for a tracer")?.is_some() {
                return Ok(false);
            }
            let now = cpu::time_of(self.child.id())?;
            calm = if now - last < 1_000_000 && holds_something_attached(self.child.id()) {
                calm + 1
            } else {
                0
            };
            if calm == CALM {
                return Ok(true);
            }
            last = now;
            thread::sleep(STEP);
        }
        Ok(false)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds of CPU that it has had by the time that it has nothing more to do.
    pub(crate) fn cpu_when_done(&self) -> Result<u64> {
        const STEP: Duration = Duration::from_millis(30);
        /// Nanoseconds that looking at an empty ring takes at the most.
        const NEXT_TO_NOTHING: u64 = 1_000_000;
        let end = Instant::now() + LIMIT;
        let mut last = cpu::time_of(self.child.id())?;
        while Instant::now() < end {
            thread::sleep(STEP);
            let now = cpu::time_of(self.child.id())?;
            if now - last < NEXT_TO_NOTHING {
                return Ok(now);
            }
            last = now;
        }
        bail!("still at work {LIMIT:?} after the load's end")
    }

    /// Tells it to end and waits for that.
    pub(crate) fn stop(&mut self) -> Result<Option<Summary>> {
        self.interrupt()?;
        let Some(status) = wait::exit_of(&mut self.child, LIMIT) else {
            bail!("still there {LIMIT:?} after SIGINT:\n{}", self.stderr.text());
        };
        let log = self.stderr.wait_closed();
        let summary = log.lines().rev().find_map(parse_summary);
        if summary.is_none() && !status.success() && !is_interrupt(status) {
            bail!("ended with {status}:\n{log}");
        }
        Ok(summary)
    }

    /// Tells it to end.
    pub(crate) fn interrupt(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT).context("ending a tracer")
    }

    /// What it wrote, with [`Output::File`].
    pub(crate) fn written(&self) -> Result<File> {
        let path = self.file.as_ref().context("its output is no file")?;
        File::open(path).with_context(|| format!("reading {}", path.display()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Does nothing to one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

/// execsnoop and its like do not catch the signal.
fn is_interrupt(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal() == Some(Signal::INT.as_raw())
}

fn holds_something_attached(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        target.contains("bpf_link") || target.contains("bpf-link") || target.contains("perf_event")
    })
}

/// tracer's closing line, or that of our own programs.
fn parse_summary(line: &str) -> Option<Summary> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |word: &str| word.parse().ok();
    match words[..] {
        ["tracer:", "seen", seen, "emitted", emitted, "filtered", filtered, "lost", lost, ..] => {
            Some(Summary {
                seen: number(seen)?,
                emitted: number(emitted)?,
                filtered: number(filtered)?,
                lost: number(lost)?,
            })
        }
        ["received", received, "lost", lost] => {
            let (received, lost) = (number(received)?, number(lost)?);
            Some(Summary { seen: received + lost, emitted: received, filtered: 0, lost })
        }
        _ => None,
    }
}

/// Lines as they come.
#[derive(Default)]
struct Lines {
    state: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, pipe: impl std::io::BufRead) {
        for line in pipe.lines().map_while(Result::ok) {
            self.lock().0.push(line);
            self.changed.notify_all();
        }
        self.lock().1 = true;
        self.changed.notify_all();
    }

    /// Whether a line that starts so has come, at the latest until the end or the limit.
    fn wait_for(&self, prefix: &str, limit: Duration) -> Option<()> {
        let is_open = |state: &mut (Vec<String>, bool)| {
            !state.1 && !state.0.iter().any(|line| line.starts_with(prefix))
        };
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), limit, is_open)
            .unwrap_or_else(PoisonError::into_inner);
        state.0.iter().any(|line| line.starts_with(prefix)).then_some(())
    }

    fn wait_closed(&self) -> String {
        let state = self
            .changed
            .wait_timeout_while(self.lock(), LIMIT, |state| !state.1)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        state.0.join("\n")
    }

    fn text(&self) -> String {
        self.lock().0.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines() {
        let summary = parse_summary("tracer: seen 10 emitted 6 filtered 3 lost 1");
        assert_eq!(summary, Some(Summary { seen: 10, emitted: 6, filtered: 3, lost: 1 }));
        let received = parse_summary("received 5 lost 2");
        assert_eq!(received, Some(Summary { seen: 7, emitted: 5, filtered: 0, lost: 2 }));
        for line in ["", "tracer: ready", "tracer: seen ten emitted 6 filtered 3 lost 1", "received 5"] {
            assert_eq!(parse_summary(line), None, "{line}");
        }
    }

    #[test]
    fn lines_are_waited_for_until_they_end() {
        let lines = Lines::default();
        lines.collect(&b"one\ntracer: ready, 3 containers\n"[..]);
        assert_eq!(lines.wait_for("tracer: ready", LIMIT), Some(()));
        assert_eq!(lines.wait_for("never", LIMIT), None);
        assert_eq!(lines.wait_closed(), "one\ntracer: ready, 3 containers");
    }
}
